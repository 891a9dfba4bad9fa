"""Evaluation of rows with images: what records say of them, which copies are kept, and that rounds go in portions."""
import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import grpo
import toy
from grpo import cli
from grpo.datasets import chat
from grpo.errors import ConfigError, GrpoWarning
from grpo.evaluation import pictures, rounds
from grpo.evaluation.pictures import (
    MOST_SIDE,
    keep,
    keep_images,
    of_row,
    overlaps,
    said_marks,
    shown_images,
    true_marks,
    truth_in,
)
from grpo.evaluation.rounds import weighted_means
from grpo.rewards.marks import Box, Point
from grpo.vision import Drawn, Processor
from grpo.vision.pictures import look


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def flat(level):
    return np.full((56, 84, 3), level, np.uint8)


def picture(image, family="qwen2_5_vl"):
    return look([image], Processor.of(family), "row 7")[0]


# ---- copies


@pytest.mark.parametrize("image, suffix, size", [
    (flat(3), "png", (84, 56)), (Drawn(flat, (9,), 56, 84), "png", (84, 56)), (noise(300, 400), "jpg", (400, 300)),
    (noise(1280, 320), "jpg", (160, 640)), (np.zeros((1, 2000, 3), np.uint8), "png", (640, 1)),
    (np.full((9, 9, 4), 0, np.uint8), "png", (9, 9))])
def test_copies_are_small_enough_for_a_report(tmp_path, image, suffix, size):
    found = look([image], Processor("qwen2_5_vl", do_resize=False, patch_size=1, merge_size=1), "row 7")[0]
    file = keep(found, tmp_path)
    assert file == f"images/{found.key.hex()}.{suffix}"
    with Image.open(tmp_path / file) as copy:
        assert copy.size == size and max(copy.size) <= MOST_SIDE and copy.mode == "RGB"


def test_a_file_is_turned_upright_and_its_copy_says_nothing_else(tmp_path):
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "where it was taken"
    Image.fromarray(np.ascontiguousarray(flat(0)[:, :42])).save(path, exif=exif)
    file = keep(picture(str(path)), tmp_path)
    with Image.open(tmp_path / file) as copy:
        assert copy.size == (56, 42) and not copy.getexif()
    assert of_row([picture(str(path))], {})["images"][0]["size"] == [56, 42]


def test_the_same_picture_is_kept_once(tmp_path, monkeypatch):
    one, same, other = picture(flat(1)), picture(flat(1)), picture(flat(2))
    assert keep(one, tmp_path) != keep(other, tmp_path)
    monkeypatch.setattr(pictures, "read_image", None)        # nothing is decoded again
    assert keep(same, tmp_path) == keep(one, tmp_path) and len(list((tmp_path / "images").iterdir())) == 2


def test_a_file_that_is_gone_by_then_is_said(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(flat(1)).save(path)
    found = picture(str(path))
    path.unlink()
    with pytest.warns(GrpoWarning, match=r"no picture of it: row 7: image 0 \(.*a.png\): there is no such file"):
        assert keep(found, tmp_path) is None


def records_of(count, each=2):
    return [{"row": row, "sample": k, "images": [{"file": None, "size": [84, 56], "scale": [84, 56]}]}
            for row in range(count) for k in range(each)]


def test_pictures_are_those_of_the_first_questions_one_at_a_time(tmp_path):
    given, asked = records_of(5), []

    def pictures_of_row(row):
        asked.append(row)
        return [picture(flat(row))]

    assert keep_images(given, tmp_path, 3, pictures_of_row) and asked == [0, 1, 2]
    assert [r["images"][0]["file"] is not None for r in given] == [True] * 6 + [False] * 4
    assert given[0]["images"] == given[1]["images"] != given[2]["images"]
    assert len(list((tmp_path / "images").iterdir())) == 3
    assert not keep_images(given, tmp_path, 3, pictures_of_row) and asked == [0, 1, 2]       # nothing to do
    (tmp_path / given[2]["images"][0]["file"]).unlink()
    assert not keep_images(given, tmp_path, 3, pictures_of_row) and asked == [0, 1, 2, 1]    # made again
    assert (tmp_path / given[2]["images"][0]["file"]).is_file()
    assert keep_images(given, tmp_path, 9, pictures_of_row) and asked[4:] == [3, 4]


@pytest.mark.parametrize("file", ["../../etc/passwd", "/etc/passwd", "images/../x.png", "javascript:alert(1)", 3, None,
                                  "images/" + "a" * 32 + ".svg", "images/" + "a" * 32 + ".png\n"])
def test_of_a_strange_json_no_other_file_is_opened(tmp_path, file):
    (tmp_path / "images").mkdir()
    (found,) = shown_images({"images": [{"file": file, "size": [4, 3]}]}, tmp_path)
    assert found.path is None and found.file == "" and found.size == (4, 3)


# ---- marks


@pytest.mark.parametrize("columns, marks", [
    ({"boxes": [[1, 2, 3, 4], [5, 6, 7, 8.5]]}, [Box(1, 2, 3, 4), Box(5, 6, 7, 8.5)]),
    ({"box": (1, 2, 3, 4), "point": [5, 6]}, [Box(1, 2, 3, 4), Point(5, 6)]),
    ({"boxes": [{"bbox_2d": [1, 2, 3, 4], "label": "cat"}]}, [Box(1, 2, 3, 4, "cat")]),
    ({"boxes": {"cat": [[1, 2, 3, 4]], "dog": [[0, 0, 1, 1]]}}, [Box(1, 2, 3, 4, "cat"), Box(0, 0, 1, 1, "dog")]),
    ({"target": Box(1, 2, 3, 4, "red")}, [Box(1, 2, 3, 4, "red")]), ({"points": np.ones((2, 2))}, [Point(1, 1)] * 2),
    ({"boxes": '[{"bbox_2d": [1, 2, 3, 4]}]'}, [Box(1, 2, 3, 4)]), ({"target": "the red button"}, []),
    ({"target": 3}, []), ({"boxes": [[1, 2, 3]], "point": [1, float("nan")], "box": [True] * 4}, []),
    ({"boxes": [[1, 2, 3, 4], [0, 0, 1, 1]], "labels": ["cat", "dog"]},
     [Box(1, 2, 3, 4, "cat"), Box(0, 0, 1, 1, "dog")]),
    ({"boxes": [[1, 2, 3, 4]], "labels": ["cat", "dog"]}, [Box(1, 2, 3, 4)]),
    ({"target": "bus", "cells": [0, 6], "grid": [0, 28, 56, 4]}, [Box(0, 28, 56, 84), Box(112, 84, 168, 140)]),
    ({"cells": [1], "grid": [0, 28, 56, 0]}, []), ({"cells": "1", "grid": [0, 28, 56, 4]}, []),
    ({"boxes": "[" * 100_000}, []), ({"answer": [1, 2]}, [])])
def test_what_a_row_says_of_places(columns, marks):
    assert truth_in(columns) == marks
    record = json.loads(json.dumps(of_row([picture(flat(0))], columns)))
    assert true_marks(record) == marks and ("truth" in record) == bool(marks)


def test_there_are_not_too_many_marks():
    assert len(truth_in({"boxes": [[0, 0, 1, 1]] * 5000})) == 100
    record = of_row([picture(flat(0))], {}) | {"completion": '{"point_2d": [1, 2]}' * 5000}
    assert len(said_marks(record)) == 100


@pytest.mark.parametrize("family, scale", [("qwen2_5_vl", [112, 56]), ("qwen3_vl", [1000, 1000]),
                                           ("qwen2_vl", [1000, 1000]), ("qwen", [1000, 1000])])
def test_places_of_each_family_are_those_of_the_picture(family, scale):
    """An image of 110 x 56, which Qwen2.5-VL sees as 112 x 56; a place in its middle."""
    image = np.zeros((56, 110, 3), np.uint8)
    record = of_row([picture(image, family)], {}) | {
        "completion": f'{{"point_2d": [{scale[0] / 2}, {scale[1] / 2}], "label": "x"}}'}
    assert record["images"] == [{"file": None, "size": [110, 56], "scale": scale}]
    (mark,) = said_marks(record)
    assert mark == Point(55, 28, "x")


def test_the_row_says_in_which_numbers_it_asks():
    made = of_row([picture(flat(0)), picture(flat(1))], {"frame": [1000, 1000], "image_size": [84, 56]})
    assert [each["scale"] for each in made["images"]] == [[1000, 1000], [84, 56]]
    for wrong in ([0, 5], "1000", [1, 2, 3], [True, True], None):
        assert of_row([picture(flat(0))], {"frame": wrong})["images"][0]["scale"] == [84, 56]


def test_marks_outside_of_a_picture():
    inside = [Box(-5, -5, 1, 1), Box(90, 3, 80, 2), Point(0, 56), Point(84, 0)]
    outside = [Box(-5, -5, -1, 3), Box(85, 3, 90, 4), Point(84.5, 1), Point(3, -1)]
    assert all(overlaps(mark, (84, 56)) for mark in inside) and not any(overlaps(mark, (84, 56)) for mark in outside)


# ---- rounds

ROWS = [{"prompt": chat("Where?"), "image": Drawn(flat, (40 * i,), 56, 84), "answer": str(i), "boxes": [[1, 2, 30, 40]]}
        for i in range(4)]
ROWS += [{"prompt": chat("No picture?"), "answer": "4"},
         {"prompt": chat("Two?"), "images": [flat(250), Drawn(flat, (0,), 56, 84)], "answer": "5"}]


def trainer(tmp_path, rows=ROWS, **changed):
    return toy.trainer(tmp_path, toy.byte_values, rows=[{"prompt": "a"}, {"prompt": "b"}], eval_dataset=rows,
                       policy=grpo.load(grpo.tiny("qwen2_5_vl", num_hidden_layers=1), "cpu"),
                       **{"max_steps": 1, "max_completion_length": 4, "eval_strategy": "steps", "eval_steps": 1}
                       | changed)


def test_a_run_keeps_the_pictures_of_its_report(tmp_path):
    t = trainer(tmp_path, eval_report="every", num_generations_eval=2, max_steps=2)
    t.train()
    folder = t.run.path / "eval"
    for step in (1, 2):
        found = json.loads((folder / f"step-{step:06d}.json").read_text())["completions"]
        assert [len(r.get("images", [])) for r in found] == [1, 1] * 4 + [0, 0] + [2, 2]
        assert found[0]["truth"] == [{"box": [1, 2, 30, 40]}] and "truth" not in found[10]
        named = [each["file"] for r in found for each in r.get("images", [])]
        assert len(set(named)) == 5 and all((folder / file).is_file() for file in named)
        assert (folder / f"step-{step:06d}.html").is_file()
    assert len(list((folder / "images").iterdir())) == 5                  # the last row shows one of the first
    assert found[0]["images"][0]["scale"] == [84, 56]


def test_without_a_report_no_pictures_are_kept(tmp_path):
    t = trainer(tmp_path, eval_report="no")
    t.train()
    assert not (t.run.path / "eval" / "images").exists()
    found = json.loads((t.run.path / "eval" / "step-000001.json").read_text())["completions"]
    assert found[0]["images"] == [{"file": None, "size": [84, 56], "scale": [84, 56]}]


def test_pictures_on_a_full_disk_do_not_end_a_run(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pictures, "replace_bytes", full)
    t = trainer(tmp_path)
    with pytest.warns(GrpoWarning, match="eval/images cannot be written: No space left on device"):
        t.train()
    assert "no picture" in (t.run.path / "eval" / "step-000001.html").read_text()


def test_rounds_go_in_portions(tmp_path, monkeypatch):
    """At most slots prompts that show images at once, as the memory plan counts on; the same completions."""
    whole, _ = trainer(tmp_path).evaluations[""].completions(0, 6)
    t, given, most = trainer(tmp_path, slots=2), [], []
    real, see = rounds.generate, t.model.sight.inputs

    def generate(model, prompts, *arguments, **named):
        given.append((named["first_prompt"], [p.row for p in prompts]))
        return real(model, prompts, *arguments, **named)

    def inputs(prompts, pictures, **named):
        most.append(sum(map(bool, pictures)))
        return see(prompts, pictures, **named)

    monkeypatch.setattr(rounds, "generate", generate)
    monkeypatch.setattr(t.model.sight, "inputs", inputs)
    parts, _ = t.evaluations[""].completions(0, 6)
    assert given == [(0, [0, 1]), (2, [2, 3, 4]), (5, [5])] and max(most) == 2
    assert parts == whole
    given.clear()
    text = trainer(tmp_path, rows=[{"prompt": "a", "answer": "1"}] * 7, slots=2)
    text.evaluations[""].completions(0, 7)
    assert given == [(0, list(range(7)))]                                  # texts are one portion


def test_what_rewards_log_is_the_mean_over_completions(tmp_path):
    def reward(completions, log_metric, **columns):
        log_metric("seen", float(len(completions)))
        return [0.0] * len(completions)

    t = toy.trainer(tmp_path, reward, rows=[{"prompt": "a"}], eval_dataset=ROWS, prompts_per_step=1, slots=2,
                    policy=grpo.load(grpo.tiny("qwen2_5_vl", num_hidden_layers=1), "cpu"), num_generations_eval=1)
    _, logged = t.evaluations[""].completions(0, 6)
    assert logged == {"seen": (2 * 2 + 3 * 3 + 1) / 6}
    assert weighted_means([(1, {"a": float("nan")}), (1, {"a": 2.0}), (1, {})]) == {"a": 2.0}


def test_rounds_of_sft_go_in_portions(tmp_path, monkeypatch):
    rows = [{"messages": [{"role": "user", "content": "Which?"}, {"role": "assistant", "content": str(i)}],
             "image": Drawn(flat, (40 * i,), 56, 84)} for i in range(5)]

    def losses(size):
        policy = grpo.load(grpo.tiny("qwen2_5_vl", num_hidden_layers=1), "cpu")
        config = grpo.SFTConfig(output_dir=str(tmp_path / f"sft{size}"), per_device_train_batch_size=size, max_steps=1)
        most, see = [], policy.sight.inputs

        def inputs(prompts, pictures, **named):
            most.append(sum(map(bool, pictures)))
            return see(prompts, pictures, **named)

        monkeypatch.setattr(policy.sight, "inputs", inputs)
        return grpo.SFTTrainer(policy, config, rows, rows).evaluate(), most

    (whole, once), (parts, twice) = losses(5), losses(2)
    assert (once, twice) == ([5], [2, 2, 1])
    assert [whole[name] == parts[name] for name in ("eval_loss", "eval_entropy")] == [True, True]


# ---- the command


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vl") / "model"
    grpo.load(grpo.tiny("qwen2_5_vl", num_hidden_layers=1), "cpu").save_pretrained(folder)
    return folder


@pytest.fixture
def files(tmp_path):
    """Rows of a file with images beside it, the last of which is none."""
    for i in range(3):
        Image.fromarray(noise(60, 90, i)).save(tmp_path / f"{i}.png")
    (tmp_path / "3.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    rows = [{"prompt": chat("Which?", None), "image": f"{i}.png", "answer": str(i)} for i in range(4)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def run(*words):
    return cli.main([str(word) for word in words])


def test_a_row_that_cannot_be_read(model, files, capsys):
    words = ["eval", model, "--dataset", files / "rows.jsonl", "--rewards", "accuracy_reward",
             "--max_completion_length", "3", "--output_dir", files / "e", "--max_pixels", 3136, "--min_pixels", 784]
    assert run(*words) == 1
    err = capsys.readouterr().err
    assert "row 3" in err and "3.png" in err and "on_bad_row" in err
    assert run(*words, "--on_bad_row", "skip") == 0
    assert "1 of 4 rows are skipped" in capsys.readouterr().err
    found = json.loads((files / "e" / "evaluation.json").read_text())
    assert [found["settings"][name] for name in ("questions", "max_pixels", "min_pixels")] == [3, 3136, 784]
    first = found["completions"][0]["images"][0]
    assert first["size"] == [90, 60] and first["scale"] == [56, 28] and (files / "e" / first["file"]).is_file()
    for name in ("report.html", "generations.txt"):
        assert (files / "e" / name).is_file()
    # another size of images is another evaluation
    assert run(*words[:-4], "--on_bad_row", "skip") == 1
    assert "max_pixels is 3136 there" in capsys.readouterr().err


def test_a_picture_that_is_gone_is_made_again_without_a_new_evaluation(model, files, monkeypatch):
    (files / "rows.jsonl").write_text("\n".join((files / "rows.jsonl").read_text().splitlines()[:3]) + "\n")
    words = ["eval", model, "--dataset", files / "rows.jsonl", "--rewards", "accuracy_reward",
             "--max_completion_length", "3", "--output_dir", files / "e"]
    assert run(*words, "--report_questions", 2) == 0
    found = json.loads((files / "e" / "evaluation.json").read_text())["completions"]
    assert [r["images"][0]["file"] is None for r in found] == [False, False, True]
    (files / "e" / found[0]["images"][0]["file"]).unlink()
    monkeypatch.setattr(rounds.Evaluation, "completions", None)
    assert run(*words) == 0                                  # finished: nothing is drawn again, all are shown
    again = json.loads((files / "e" / "evaluation.json").read_text())["completions"]
    assert all((files / "e" / r["images"][0]["file"]).is_file() for r in again)
    assert [{**r, "images": None} for r in again] == [{**r, "images": None} for r in found]


def test_rows_are_known_by_what_they_show():
    from grpo.cli.eval import hash_of

    def row(image):
        return [{"prompt": "q", "image": image}]

    assert hash_of(row(Drawn(flat, (1,), 56, 84))) == hash_of(row(Drawn(flat, (1,), 56, 84)))
    assert hash_of(row(Image.fromarray(flat(1)))) == hash_of(row(Image.fromarray(flat(1))))
    images = [Drawn(flat, (1,), 56, 84), Drawn(flat, (2,), 56, 84), Image.fromarray(flat(1)), Image.fromarray(flat(2)),
              flat(3), {"bytes": b"x", "path": None}, "a.png", None]
    assert len({hash_of(row(image)) for image in images}) == len(images)
    parts = [[{"prompt": [{"role": "user", "content": [{"type": "image", "image": Drawn(flat, (i,), 56, 84)}]}]}]
             for i in (1, 1, 2)]
    assert hash_of(parts[0]) == hash_of(parts[1]) != hash_of(parts[2])


def test_generate_shows_images_in_another_size(model, files, capsys, monkeypatch):
    seen = []
    real = grpo.Model.generate
    monkeypatch.setattr(grpo.Model, "generate",
                        lambda self, *given, **named: seen.append(self.processor) or real(self, *given, **named))
    words = ["generate", "--model", model, "--image", files / "0.png", "--max_new_tokens", 2, "What?"]
    assert run(*words, "--max_pixels", 3136, "--min_pixels", 784) == 0
    assert (seen[0].min_pixels, seen[0].max_pixels) == (784, 3136)
    assert run(*words, "--max_pixels", 0) == 1 and "max_pixels must be a number of pixels" in capsys.readouterr().err


def test_limits_of_images_need_eyes(tmp_path, capsys):
    toy.model().save_pretrained(tmp_path / "blind")
    assert run("generate", "--model", tmp_path / "blind", "--max_pixels", 3136, "Hi") == 1
    assert "no vision tower" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="max_pixels: this model .* has no vision tower"):
        toy.trainer(tmp_path, max_pixels=3136)


def test_limits_are_settings_only_where_they_say_something(tmp_path):
    fixed = SimpleNamespace(model=SimpleNamespace(processor=Processor.of("qwen")))
    assert rounds.Evaluation._limits(fixed) == {}
    assert "max_pixels" not in toy.trainer(tmp_path, eval_dataset=toy.ROWS[:1], rows=toy.ROWS[1:],
                                           prompts_per_step=1).evaluations[""].settings()
