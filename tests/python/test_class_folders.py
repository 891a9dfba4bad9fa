"""Folders of pictures, a folder a class, as a data set; and tables of pictures with classes."""
import itertools
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import grpo
from grpo import ConfigError, DatasetError, GrpoWarning, cli, datasets
from grpo.datasets.class_folders import name_key
from grpo.datasets.pictures import picture_key, resized, square
from grpo.datasets.prompts import PromptStream, overlap
from grpo.errors import ImageError

numbers = itertools.count(1)


def save(path, height=20, width=30):
    """A picture unlike all others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(next(numbers)).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def photos(tmp_path):
    for split, count in (("train", 6), ("test", 2)):
        for name in ("rose", "desert_rose", "tulip"):
            for i in range(count):
                save(tmp_path / "photos" / split / name / f"{split} {i}.png")
    return tmp_path / "photos"


def test_rows(photos):
    rows = datasets.load(photos)
    assert len(rows) == 18 and [row["label"] for row in rows[:4]] == [0, 1, 2, 0]          # a class after another
    assert rows[1].keys() == {"prompt", "image", "label", "answer", "classes"}
    assert rows[1]["answer"] == "rose" and rows[1]["classes"] == ["desert rose", "rose", "tulip"]
    assert rows[1]["prompt"] == [{"role": "user", "content": "What is this? It is one of: desert rose, rose, tulip."}]
    assert {Path(row["image"]).parent.name for row in rows if row["answer"] == "desert rose"} == {"desert_rose"}
    held_out = datasets.load(str(photos), "test")
    assert len(held_out) == 6 and all("/test/" in row["image"] for row in held_out)
    assert not overlap(rows, held_out)


@pytest.mark.parametrize("options, prompt", [
    ({"list_classes": False}, [{"role": "user", "content": "What is this?"}]),
    ({"question": "Which? {classes}!"}, [{"role": "user", "content": "Which? desert rose, rose, tulip!"}]),
    ({"question": "Which?", "system_prompt": "Look.", "names": {"desert rose": "adenium"}},
     [{"role": "system", "content": "Look."},
      {"role": "user", "content": "Which? It is one of: adenium, rose, tulip."}]),
])
def test_what_is_asked(photos, options, prompt):
    assert datasets.load(photos, **options)[0]["prompt"] == prompt


def test_few_shots(photos):
    def images(**options):
        return [row["image"] for row in datasets.load(photos, **options)]

    some = images(shots=2)
    assert len(some) == 6 and some == images(shots=4)[:6] and set(some) < set(images())
    assert images(shots=2, seed=1) != some == images(shots=2, eval_shots=1)
    once, again = (datasets.load(photos, "test", eval_shots=1, seed=seed) for seed in (0, 5))
    assert once == again and len(once) == 3 and len(datasets.load(photos, "test", shots=3)) == 6


def test_holding_out(photos):
    shutil.rmtree(photos / "test")
    save(photos / "train" / "rose" / "deeper" / "one.jpg")

    def images(split, **options):
        return {row["image"] for row in datasets.load(photos / "train", split, validation=0.3, **options)}

    assert len(images("test")) == 6 and len(images("train")) == 13
    assert not images("test") & images("train", question="Another?", seed=3)
    assert images("test", question="Another?", seed=3, shots=1) == images("validation")
    assert images("train", shots=2) < images("train") and len(images("train", shots=2)) == 6
    assert {row["answer"] for row in datasets.load(photos, "test", validation=0.01)} == {"desert rose", "rose", "tulip"}
    with pytest.raises(DatasetError, match="6 pictures, of which validation=0.99 leaves none"):
        datasets.load(photos, validation=0.99)
    shutil.copy(photos / "train/rose/train 1.png", photos / "train/rose/deeper/train 1.png")
    for share in (0.2, 0.4, 0.6, 0.8):
        sides = [{Path(row["image"]).name for row in datasets.load(photos, split, validation=share)
                  if row["answer"] == "rose"} for split in ("train", "test")]
        assert not sides[0] & sides[1]                                                     # copies are on one side


def test_numbers_as_folders_are_in_their_order(tmp_path):
    for name in ("10", "2", "1"):
        save(tmp_path / name / "a.png")
    assert datasets.load(tmp_path)[0]["classes"] == ["1", "2", "10"]


def test_squares(photos, monkeypatch):
    row = datasets.load(photos, resize="square", side=28)[0]
    pixels = row["image"].pixels()
    assert pixels.shape == (28, 28, 3)
    kept = datasets.load(photos)[0]["image"]
    assert np.array_equal(pixels, np.asarray(Image.open(kept).resize((28, 28), Image.Resampling.BICUBIC)))
    assert picture_key(row["image"]) == picture_key(kept) and row["image"].draw is resized
    assert square(kept, 28).key == row["image"].key != square(kept, 56).key
    os.utime(kept, (1, 1))
    assert square(kept, 28).key != row["image"].key                      # another file now, as far as one can know
    assert overlap(datasets.load(photos), datasets.load(photos, resize="square"))


def test_a_model_is_shown_them(photos):
    model = grpo.load(grpo.tiny("qwen2_5_vl", num_hidden_layers=1, vision_config={"depth": 1}))
    for resize, tokens in (("square", 4), ("keep", model.processor.tokens(20, 30))):
        prompts = PromptStream(datasets.load(photos, resize=resize, side=56),
                               lambda prompt, images: model.encode_prompt(prompt).ids, limit=400,
                               sees_images=True)
        assert (prompts.at_row(0).ids == model.sight.image_token_id).sum() == tokens


# what is wrong with a folder


def broken(photos, change):
    change(photos)
    return photos


@pytest.mark.parametrize("change, split, message", [
    (lambda p: (p / "train/lily").mkdir(), "train", "train/lily has no pictures; they are files that end in .jpg"),
    (lambda p: [f.unlink() for f in (p / "train/rose").iterdir()] and (p / "train/rose/notes.txt").write_text("x"),
     "train", r"train/rose has no pictures: .*notes.txt is none by its name"),
    (lambda p: save(p / "train/Rose/a.png"), "train", "the folders 'Rose' and 'rose' are one class by their names"),
    (lambda p: save(p / "train/desert-Rose/a.png"), "train", "'desert-Rose' and 'desert_rose' are one class"),
    (lambda p: save(p / "test/tulips/a.png"), "test", "test/tulips: test has this class and train has not; did you "
     "mean 'tulip'"),
    (lambda p: shutil.rmtree(p / "test/rose"), "test", r"test has no folder 'rose', a class of train \(.*train/rose\)"),
    (lambda p: shutil.rmtree(p / "test"), "test", "no folder for the split 'test', such as test/; it has folders for "
     "train"),
    (lambda p: [shutil.rmtree(p / "train" / name) for name in ("rose", "tulip")], "train",
     "train has one class folder"),
])
def test_what_a_folder_may_not_be(photos, change, split, message):
    with pytest.raises(DatasetError, match=message):
        datasets.load(broken(photos, change), split)


@pytest.mark.parametrize("options, message", [
    ({"shots": 0}, "shots=0 must be"), ({"shots": 7}, "train/desert_rose has 6 pictures, less than shots=7"),
    ({"names": {"roses": "x"}}, "has no class folder 'roses'; did you mean 'rose'"),
    ({"names": {"rose": " "}}, "is no class's name"),
    ({"names": {"rose": "Tulip"}}, "the class folders 'rose' and 'tulip' are both called 'tulip'"),
    ({"names": ["rose"]}, "must be a mapping"), ({"resize": "crop"}, "must be one of keep, square"),
    ({"side": 0}, "side=0"), ({"question": " "}, "must be a text"),
    ({"validation": 1}, "validation=1 must be the share"),
    ({"shot": 1}, "no option 'shot'; did you mean 'shots'"),
])
def test_options_that_cannot_be(photos, options, message):
    with pytest.raises((ConfigError, DatasetError), match=message):
        datasets.load(photos, **options)


def test_a_folder_of_nothing(tmp_path):
    with pytest.raises(DatasetError, match="it holds nothing"):
        datasets.load(tmp_path)
    (tmp_path / "train").mkdir()
    with pytest.raises(DatasetError, match="train has no pictures|one class folder"):
        datasets.load(tmp_path)


def test_what_is_no_picture_is_said(photos):
    (photos / "train/rose/.DS_Store").write_bytes(b"x")
    (photos / "train/rose/Thumbs.db").write_bytes(b"x")
    datasets.load(photos)
    (photos / "train/rose/list.csv").write_text("a")
    with pytest.warns(GrpoWarning, match="train/rose: 1 files are no pictures by their names.*passed over.*list.csv"):
        datasets.load(photos)


@pytest.mark.parametrize("resize", ["keep", "square"])
def test_a_picture_that_cannot_be_read(photos, resize):
    (photos / "train/rose/train 1.png").write_bytes(b"no picture")
    rows = datasets.load(photos, resize=resize)
    model = grpo.load(grpo.tiny("qwen2_5_vl", num_hidden_layers=1, vision_config={"depth": 1}))

    def encode(prompt, images):
        return model.encode_prompt(prompt).ids

    first = "rows: 1 of 18 rows are skipped .on_bad_row='skip'., the first of them: (the prompt of )?row .*train 1.png"
    with pytest.warns(GrpoWarning, match=f"^{first}((?!on_bad_row).)*$"):
        assert len(PromptStream(rows, encode, limit=4000, sees_images=True, on_bad="skip", name="rows")) == 17
    bad = next(row["image"] for row in rows if "train 1.png" in str(row["image"]) and row["answer"] == "rose")
    with pytest.raises(ImageError, match=r"image 0.*rose/train 1.png"):
        model.embed(images=[bad])


def test_a_run_that_cannot_begin_leaves_no_folder(photos, tmp_path, monkeypatch, capsys):
    (photos / "train/rose/train 1.png").write_bytes(b"no picture")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "--model.arch", "qwen2_5_vl", "--dataset", "photos", "--rewards", "class_name_reward",
                     "--max_steps", "1"]) == 1
    assert "rose/train 1.png" in capsys.readouterr().err and not list(tmp_path.glob("runs/*"))


def test_pictures_beside_each_other_are_no_classes(photos):
    with pytest.raises(DatasetError, match="it holds train 0.png.*Pictures lie in a folder for each class, or a table"):
        datasets.load(photos / "train" / "rose")


def test_a_table_of_pictures_that_asks_nothing(tmp_path):
    (tmp_path / "list.csv").write_text("image,colour\na.png,red\n")
    with pytest.raises(DatasetError, match="its columns are image, answer; the option question asks one of every row"):
        datasets.load(tmp_path / "list.csv", columns={"answer": "colour"})


def test_tables_are_still_tables(photos):
    (photos / "train.csv").write_text("question,answer\nwhat,that\n")
    assert datasets.load(photos)[0]["answer"] == "that"


def test_names_as_they_are_compared():
    assert name_key("Lily_of-the  Valley ") == name_key("lily of the valley")


# tables


class ClassLabel:
    """As the datasets library has it: numbers with names."""

    def __init__(self, names):
        self.names = names


class Table(list):
    """Rows with features, as the datasets library has them."""

    def __init__(self, rows, **features):
        super().__init__(rows)
        self.features = features


def test_class_numbers_have_names():
    table = Table([{"image": "a.png", "label": 1}, {"image": "b.png", "label": 0}], image=None,
                  label=ClassLabel(["cat", "dog"]))
    rows = datasets.load(table, question="What is it, of {classes}?", system_prompt="")
    assert rows[0] == {"image": "a.png", "label": 1, "answer": "dog", "classes": ["cat", "dog"],
                       "question": "What is it, of cat, dog?",
                       "prompt": [{"role": "user", "content": "What is it, of cat, dog?"}]}
    rows = datasets.load(table, question="What?", columns={"answer": "label"})
    assert [row["answer"] for row in rows] == ["dog", "cat"] and "label" not in rows[0]
    with pytest.raises(DatasetError, match="neither a prompt nor a question"):
        datasets.load(table)
    with pytest.raises(DatasetError, match="row 1: 'label' is 2, and there are 2 classes"):
        datasets.load(Table([{"label": 0}, {"label": 2}], label=ClassLabel(["cat", "dog"])), question="?")
    several = Table([{"fine": 0, "coarse": 1}], fine=ClassLabel(["a"]), coarse=ClassLabel(["b", "c"]))
    assert "answer" not in datasets.load(several, question="?")[0]
    assert datasets.load(several, question="?", columns={"answer": "coarse"})[0]["answer"] == "c"


def test_the_datasets_library_itself(tmp_path):
    library = pytest.importorskip("datasets")
    features = library.Features({"image": library.Image(), "label": library.ClassLabel(names=["cat", "dog"])})
    save(tmp_path / "a.png")
    held = {"bytes": (tmp_path / "a.png").read_bytes(), "path": None}
    table = library.Dataset.from_list([{"image": held, "label": 1}], features=features)
    row, = datasets.load(table, question="What?")
    assert row["answer"] == "dog" and row["image"]["bytes"] and row["label"] == 1


def test_a_table_of_pictures(tmp_path):
    save(tmp_path / "a.png")
    (tmp_path / "train.csv").write_text("image,label\na.png,cat\n")
    row, = datasets.load(tmp_path / "train.csv", question="What?", columns={"answer": "label"}, system_prompt="")
    assert row["answer"] == "cat" and row["image"] == str(tmp_path / "a.png")
    assert row["prompt"] == [{"role": "user", "content": "What?"}]
    with pytest.raises(ConfigError, match="question=3"):
        datasets.load(tmp_path / "train.csv", question=3)


def test_copies_are_found_by_what_they_hold(photos):
    """Not by their names: photographs are called 1.jpg in every folder."""
    train, test = photos / "train/rose/train 1.png", photos / "test/rose/train 1.png"
    test.write_bytes(train.read_bytes()[:-20] + bytes(20))
    assert not overlap(datasets.load(photos), datasets.load(photos, "test"))
    shutil.copy(train, test.with_name("another.png"))
    assert "1 of 8 rows of evaluation are trained on" in overlap(datasets.load(photos), datasets.load(photos, "test"))
