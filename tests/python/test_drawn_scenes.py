"""Data sets whose images are drawn: scenes of shapes, clocks, plots, desktops, captchas. What a row says is what its
image shows; test splits are fixed and apart; COCO's files where they are given."""
import hashlib
import json
import random
import re
import time

import numpy as np
import pytest

import grpo
from grpo import ConfigError, DatasetError, cli, datasets
from grpo.datasets import captcha, clock, correlation, gui, shapes, thinking
from grpo.datasets.coordinates import coordinates
from grpo.rewards import RewardSet, resolve
from reward_batches import batch

NAMES = ("counting", "computation", "clock", "correlation", "gui", "captcha")
LAYOUT = "<reasoning>\nso\n</reasoning>\n<answer>\n{}\n</answer>"
THINK = "<think>{}</think>\n<answer>{}</answer>"


def keys(rows):
    return {row["image"].key for row in rows}


@pytest.mark.parametrize("name", NAMES)
def test_splits_are_fixed_and_apart(name):
    test = datasets.load(name, "test")
    assert len(test) == len(keys(test)) == 500 and test == datasets.load(name, "test", seed=7)
    assert datasets.load(name, "test", size=20) == test[:20]
    train = [datasets.load(name, size=300, seed=seed) for seed in (0, 1)]
    assert train[0] == datasets.load(name, size=300) and len(keys(train[0]) & keys(train[1])) < 20      # of the clock
    assert not keys(test) & (keys(train[0]) | keys(train[1])) and not datasets.overlap(train[0], test)
    with pytest.raises(DatasetError, match="no split 'dev'"):
        datasets.load(name, "dev")


@pytest.mark.parametrize("name, most", [("clock", 500), ("correlation", 500), ("counting", 600), ("gui", 600)])
def test_sizes_of_test_splits(name, most):
    assert len(datasets.load(name, "test", size=600)) == most


def test_every_time_of_the_clock_is_of_one_split():
    train, test = datasets.load("clock", size=50_000), datasets.load("clock", "test")
    assert 38_000 < len(train) == len(keys(train)) < 39_600 and not keys(train) & keys(test)


@pytest.mark.parametrize("name, hashed", [
    ("counting", "2ee0a9c8bf0a"), ("computation", "edba38ff3245"), ("clock", "881df9f0d0a8"),
    ("correlation", "06b73f4dacf8"), ("gui", "4716473e6171"), ("captcha", "6ccfc7e11b51")])
def test_pixels_are_the_same_on_every_machine(name, hashed):
    rows = datasets.load(name, "test", size=5)
    pixels = b"".join(row["image"].pixels().tobytes() for row in rows)
    said = json.dumps([{column: value for column, value in row.items() if column != "image"} for row in rows])
    assert hashlib.sha256(pixels + said.encode()).hexdigest()[:12] == hashed


@pytest.mark.parametrize("name", NAMES)
def test_a_row_costs_less_than_its_image_and_that_a_millisecond(name):
    rows = datasets.load(name, size=300)
    for row in rows[:60]:
        row["image"].pixels()
    begun = time.process_time()
    for row in rows[60:]:
        row["image"].pixels()
    assert (time.process_time() - begun) / 240 < 0.003                 # a third of it where nothing else runs


# scenes of shapes


@pytest.mark.parametrize("name, options", [
    ("counting", {}), ("counting", dict(largest=20, canvas=300)), ("counting", dict(canvas=112, largest=4)),
    ("computation", {})])
def test_boxes_hold_the_pixels_of_their_shapes(name, options):
    for row in datasets.load(name, size=40, **options):
        pixels = row["image"].pixels().astype(int)
        paper = pixels[0, 0]
        assert pixels.shape == (*row["image_size"][::-1], 3)
        for (left, top, right, bottom), label in zip(row["boxes"], row["labels"], strict=True):
            colour = np.array(shapes.COLOURS[label.split()[0]])
            inside, around = pixels[top:bottom, left:right], pixels[top - 1:bottom + 1, left - 1:right + 1]
            assert (inside == colour).all(axis=2).sum() > 0.12 * inside.shape[0] * inside.shape[1]
            edge = np.ones(around.shape[:2], bool)
            edge[1:-1, 1:-1] = False
            assert (around[edge] == paper).all()                       # nothing of it, nor of another, is beside it
            for line in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
                assert (line != paper).any()                           # and the box is tight


def test_counts_are_those_of_the_scene():
    seen = set()
    for row in datasets.load("counting", size=300, largest=6):
        colour, shape = row["label"].split()
        things = row["image"].arguments[2]
        assert sum(thing[:2] == (shape, colour) for thing in things) == row["target"] == len(row["boxes"])
        assert row["answer"] == str(row["target"])
        seen.add(row["target"])
    assert seen == {1, 2, 3, 4, 5, 6}


def test_computation_is_right():
    seen = set()
    for row in datasets.load("computation", size=400):
        (a, b), operation = row["counts"], row["operation"]
        things = [f"{colour} {shape}" for shape, colour, *_ in row["image"].arguments[2]]
        assert [things.count(label) for label in row["classes"]] == [a, b]
        value = {"add": a + b, "subtract": a - b, "multiply": a * b, "divide": a / b}[operation]
        assert abs(float(row["answer"]) - value) <= 0.005 + 1e-9 and re.fullmatch(r"-?\d+(\.\d\d?)?", row["answer"])
        seen.add((operation, value < 0))
    assert len(seen) == 5                                              # a difference may be negative
    only = datasets.load("computation", size=30, operations=["divide"])
    assert {row["operation"] for row in only} == {"divide"} and "Round the result to 2 decimals" in only[0]["question"]


@pytest.mark.parametrize("shape", shapes.INSIDE)
def test_masks_fill_their_rectangles(shape):
    mask = shapes.cover(shape, 40, 24)
    assert mask.shape == (24, 40) and shapes.mask(shape, 40, 24).getbbox() == (0, 0, 40, 24)
    assert np.abs(mask.astype(int) - mask[:, ::-1]).max() < 40 and 0.15 < (mask > 127).mean() <= 1
    with pytest.raises(ValueError, match="read-only"):
        mask[0, 0] = 1


def test_rectangles_that_find_no_room():
    rng = random.Random(0)
    assert shapes.scatter(rng, [(90, 90)] * 2, 100, 100) is None and shapes.scatter(rng, [(200, 5)], 100, 100) is None
    (x, y), = shapes.scatter(rng, [(10, 10)], 100, 100, 0, [(0, 0, 100, 90)])
    assert y == 90 and 0 <= x <= 90


# clocks and plots


def test_clocks_point_where_they_say():
    """The hands of 3:00:30 and of its like, found by their colours."""
    for hour, second, east in ((3, 30, True), (9, 30, False)):
        pixels = clock.draw(hour, 0, second, 224).astype(int)
        red = pixels[..., 0] - pixels[..., 1] > 60
        rows, columns = np.nonzero(red)
        assert rows.max() > 190 and abs(columns.mean() - 111.5) < 2 and rows.min() > 105      # the second hand is down
        dark = pixels.sum(axis=2) < 120
        assert dark[111, 140 if east else 80] and not dark[111, 80 if east else 140]          # the hour hand
        assert dark[60, 111:118].any()                                                        # the minute hand is up
    assert not np.array_equal(clock.draw(3, 0, 0, 224), clock.draw(3, 0, 1, 224))
    assert clock.draw(12, 0, 0, 112).shape == (112, 112, 3)


def test_points_have_the_correlation_that_they_are_said_to_have():
    for row in datasets.load("correlation", size=60, signs="both"):
        hundredths, number, points, _ = row["image"].arguments
        x, y = correlation.sample(hundredths, number, points)
        assert f"{np.corrcoef(x, y)[0, 1]:.6f}".replace("-0.000000", "0.000000") == f"{hundredths / 100:.6f}"
        assert f"{hundredths / 100:.2f}" == row["answer"] and len(x) == 75
        dark = row["image"].pixels() == 0
        assert 75 * 4 < dark.sum() <= 75 * 16 and not dark[:11].any() and not dark[:, :12].any()
    answers = [float(row["answer"]) for row in datasets.load("correlation", size=500)]
    assert 0 <= min(answers) < 0.05 and 0.95 < max(answers) <= 1 and 0.45 < np.mean(answers) < 0.55
    assert min(float(row["answer"]) for row in datasets.load("correlation", size=500, signs="both")) < -0.9


# desktops


def test_targets_of_desktops_are_where_they_are_said_to_be():
    seen = set()
    for row in datasets.load("gui", size=250):
        left, top, right, bottom = row["box"]
        pixels = row["image"].pixels()[top:bottom, left:right].reshape(-1, 3).astype(int)
        part = next(part for part in row["image"].arguments[3] if part[0] == row["target"])
        assert sum(other[0] == row["target"] for other in row["image"].arguments[3]) == 1
        share = 0.05 if part[1] == "text" else 0.2
        assert (pixels == np.array(part[2])).all(axis=1).mean() > share and row["circular"] == (part[1] == "circle")
        assert 0 <= left < right <= 392 and 0 <= top < bottom <= 392
        seen.add(gui.family(part))
    assert seen == {"menu", "window", "dock", "shape"}


def test_hard_desktops_are_harder():
    rows = datasets.load("gui", size=300, hard=0.5)
    hard = [row for row in rows if row["difficulty"] == "hard"]
    normal = [row for row in rows if row["difficulty"] == "normal"]
    assert 100 < len(hard) < 200
    parts = [np.mean([len(row["image"].arguments[3]) for row in group]) for group in (hard, normal)]
    assert parts[0] > parts[1] + 4
    assert max(row["image"].arguments[2][2] for row in hard) < min(row["image"].arguments[2][2] for row in normal)
    assert {row["difficulty"] for row in datasets.load("gui", size=50, hard=0)} == {"normal"}


def test_desktops_ask_for_a_tool():
    row = datasets.load("gui", size=1, tools=True)[0]
    assert "tool_name: click_tool" in row["question"] and "point_2d" not in row["question"]


# captchas


@pytest.mark.parametrize("target", captcha.THINGS)
def test_cells_are_those_that_the_class_covers(target):
    for row in datasets.load("captcha", size=12, classes=[target]):
        _, horizon, things = row["image"].arguments
        without = captcha.draw(target, horizon, tuple(thing for thing in things if thing[0] != target))
        left, top, side, across = row["grid"]
        changed = (np.asarray(without) != row["image"].pixels()).any(axis=2)[top:top + 216, left:left + 216]
        shares = changed.reshape(across, side, across, side).mean(axis=(1, 3)).ravel()
        assert row["target"] == target and 1 <= len(row["cells"]) <= 12
        for cell, share in enumerate(shares):                          # lines between cells, and soft edges, hide a bit
            assert share > 0.07 if cell in row["cells"] else share < 0.125


def test_the_banner_names_the_class():
    car, bus = (np.asarray(captcha.draw(name, 20, ())) for name in ("car", "bus"))
    assert not np.array_equal(car[:28], bus[:28]) and np.array_equal(car[28:], bus[28:])


# units, options, rewards


def test_scenes_that_find_no_room():
    with pytest.raises(ConfigError, match="counting: 1000 scenes in a row found no room"):
        next(shapes.scenes("counting 5", "train", 0, lambda rng: None))


@pytest.mark.parametrize("name, options", [
    ("counting", dict(canvas=112, largest=20)), ("computation", dict(canvas=112, largest=10)),
    ("gui", dict(canvas=320, hard=1.0))])
def test_the_tightest_scenes_find_room(name, options):
    assert len(datasets.load(name, size=50, **options)) == 50


@pytest.mark.parametrize("name", ["r1_vlm_counting", "r1_vlm_computation", "deepseekrl_clock", "deepseekrl_correlation",
                                  "deepseekrl_gui", "deepseekrl_captcha"])
def test_published_rewards_read_the_rows(name):
    dataset = name.partition("_vlm_" if name.startswith("r1") else "_")[2]
    options = {"tools": True} if dataset == "gui" else {"largest": 3} if dataset == "computation" else {}
    rows = datasets.load(dataset, size=40, **options)
    columns = {column: [row[column] for row in rows] for column in rows[0] if column not in ("image", "prompt")}
    end = "" if name.startswith("r1") else "\n"
    texts = [right_text(dataset, row) + end for row in rows]
    if dataset == "gui":
        calls = ["tool_name: click_tool\nx: {}\ny: {}\ntool_name: check_click\n".format(*row["click"][1:-1].split(", "))
                 for row in rows]
        texts = [LAYOUT.format(call) for call in calls]
    values = RewardSet(name).score(batch(texts, columns=columns)).values
    negative = np.array([str(row.get("answer", "")).startswith("-") for row in rows])
    full = {"counting": [1, 1, 30, 1], "computation": [1, 1, 1, 1], "clock": [3, .5, .5], "correlation": [1, .5],
            "gui": [.5, 3, 2, 1], "captcha": [1]}[dataset]
    assert values[~negative] == pytest.approx(np.array([full] * (~negative).sum()), abs=0.03)
    if dataset == "computation":
        assert negative.any() and not values[negative, 1].any()        # the fault that is kept


def right_text(name, row):
    """A completion of full marks."""
    if name in ("counting", "computation"):
        (width, height), (wide, high) = row["image_size"], row["frame"]
        scale = np.array([wide / width, high / height] * 2)
        said = [json.dumps({"bbox_2d": (scale * box).tolist(), "label": label})
                for box, label in zip(row["boxes"], row["labels"], strict=True)]
        return THINK.format(", ".join(said), row["answer"]).removeprefix("<think>")    # which the prefill ends with
    if name == "gui":
        return LAYOUT.format(f'{{"point_2d": [{row["click"][1:-1]}]}}')
    return LAYOUT.format(row["clicks"] if name == "captcha" else row["answer"])


@pytest.mark.parametrize("units", ["pixels", "thousandths"])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_right_gets_full_marks(name, units):
    options = {} if name in ("clock", "correlation") else {"units": units}
    if name == "gui":
        options["canvas"] = 384                                        # which Qwen2.5-VL sees as 392
    full = {"counting": [1, 1, 1, 1], "computation": [1, 1, 1, 1], "clock": [3, .5, .5], "correlation": [1, .5, .5],
            "gui": [3, 2, .5], "captcha": [1, .5]}[name]
    rows = datasets.load(name, size=30, **options)
    columns = {column: [row[column] for row in rows] for column in rows[0] if column not in ("image", "prompt")}
    texts = [right_text(name, row) for row in rows]
    values = RewardSet(name).score(batch(texts, columns=columns)).values
    assert values == pytest.approx(np.array([full] * len(rows)), abs=0.03)
    wrong = RewardSet(name).score(batch(["no"] * len(rows), columns=columns)).values
    assert wrong.sum(axis=1).max() <= 0


def test_frames():
    assert coordinates("pixels", 384, 384) == {"image_size": [384, 384], "frame": [392, 392]}
    assert coordinates("pixels", 224, 252) == {"image_size": [224, 252], "frame": [224, 252]}
    for name in ("counting", "computation", "gui", "captcha"):
        row = datasets.load(name, size=1)[0]
        assert row["frame"] == row["image_size"] and "pixels" in row["question"]
        row = datasets.load(name, size=1, units="thousandths")[0]
        assert row["frame"] == [1000, 1000] and "from 0 to 1000" in row["question"]
    said = datasets.load("gui", size=1, canvas=384)[0]
    assert said["image_size"] == [384, 384] and "392 wide and 392 high" in said["question"]


@pytest.mark.parametrize("name, options, message", [
    ("counting", dict(largest=0), "largest=0"), ("counting", dict(largest=21), "from 1 to 20"),
    ("counting", dict(largest=True), "largest=True"), ("counting", dict(canvas=50), "canvas=50"),
    ("counting", dict(canvas="big"), "canvas='big'"), ("counting", dict(units="pixel"), "did you mean 'pixels'"),
    ("computation", dict(operations=["modulo"]), "modulo"), ("computation", dict(operations="add"), "must be some of"),
    ("computation", dict(operations=[]), "must be some of"), ("computation", dict(largest=11), "from 1 to 10"),
    ("clock", dict(canvas=10), "canvas=10"), ("clock", dict(units="pixels"), "no option 'units'"),
    ("correlation", dict(signs="negative"), "signs='negative'"), ("correlation", dict(points=9), "points=9"),
    ("gui", dict(hard=2), "hard=2"), ("gui", dict(canvas=224), "canvas=224"), ("gui", dict(units=3), "units=3"),
    ("captcha", dict(classes=["dog"]), "dog"), ("captcha", dict(classes="car"), "must be some of"),
])
def test_options_that_cannot_be(name, options, message):
    with pytest.raises(ConfigError, match=message):
        datasets.load(name, **options)


def test_system_prompts():
    assert datasets.load("counting", size=1)[0]["prompt"][0]["content"] == thinking.SYSTEM_PROMPT
    assert datasets.load("clock", size=1)[0]["prompt"][0]["content"] == datasets.XML_SYSTEM_PROMPT
    for name in NAMES:
        begun = ["assistant"] * (name in ("counting", "computation"))
        assert [m["role"] for m in datasets.load(name, size=1, system_prompt="")[0]["prompt"]] == ["user", *begun]
        assert datasets.load(name, size=1, system_prompt="Hi.")[0]["prompt"][0]["content"] == "Hi."


@pytest.mark.parametrize("name", ["counting", "computation"])
def test_answers_that_are_begun(name):
    row, = datasets.load(name, size=1)
    assert row["prompt"][-1] == {"role": "assistant", "content": row["prefill"]}
    assert row["prefill"] == thinking.PREFILL
    plain, = datasets.load(name, size=1, prefill=False)
    assert plain["prompt"][-1]["role"] == "user" and "prefill" not in plain
    columns = {column: [value] for column, value in plain.items() if column not in ("image", "prompt")}
    for rewards in (name, f"r1_vlm_{name}"):
        whole = RewardSet(rewards).score(batch(["<think>" + right_text(name, plain)], columns=columns)).values
        half = RewardSet(rewards).score(batch([right_text(name, plain)], columns=columns)).values
        assert (whole.sum() - half.sum()) >= 1


# COCO


@pytest.fixture
def coco(tmp_path):
    """Forty images with cats, and dogs where the number is even; image 39 shows a crowd of people besides."""
    (tmp_path / "annotations").mkdir()
    images = [{"id": i, "file_name": f"{i:03}.jpg", "width": 640, "height": 480} for i in range(40)]
    annotations = [{"image_id": i, "category_id": 17, "bbox": [k, 2, 30, 40], "iscrowd": 0} for i in range(40)
                   for k in range(1 + i % 4)]
    annotations += [{"image_id": i, "category_id": 18, "bbox": [k, 2, 30, 40]} for i in range(0, 40, 2)
                    for k in range(12)]
    annotations += [{"image_id": 39, "category_id": 1, "bbox": [0, 0, 9, 9], "iscrowd": 1}] * 2
    content = {"images": images, "annotations": annotations,
               "categories": [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}, {"id": 1, "name": "person"}]}
    for part in ("train2017", "val2017"):
        (tmp_path / "annotations" / f"instances_{part}.json").write_text(json.dumps(content))
    return tmp_path


def test_counting_in_coco(coco):
    rows = datasets.load("counting", coco=str(coco))
    assert {row["label"] for row in rows} == {"cat"}                   # dogs are more than ten
    counts = [row["target"] for row in rows]
    assert [counts.count(n) for n in (1, 2, 3, 4)] == [10, 10, 10, 10]
    row = next(row for row in rows if row["target"] == 2)
    assert row["boxes"] == [[0, 2, 30, 42], [1, 2, 31, 42]]
    assert row["image_size"] == [640, 480] and row["frame"] == [644, 476]
    assert row["image"].startswith(str(coco / "train2017")) and row["question"].startswith("How many cats")
    assert datasets.load("counting", "test", coco=str(coco))[0]["image"].startswith(str(coco / "val2017"))
    every = datasets.load("counting", coco=str(coco), largest=12, balanced=False)
    assert {row["label"] for row in every} == {"cat", "dog"} and len(every) == 40
    few = datasets.load("counting", coco=str(coco), largest=12)        # several dogs are preferred to one cat
    assert sum(row["label"] == "dog" for row in few) in range(11, 20) and all(row["target"] > 1 for row in few)
    assert len(datasets.load("counting", coco=str(coco), size=5)) == 5


def test_fewer_ones_than_twos(coco):
    path = coco / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    content["annotations"] = [each for each in content["annotations"]
                              if each["image_id"] % 4 != 1 or each["image_id"] < 9]
    path.write_text(json.dumps(content))
    counts = [row["target"] for row in datasets.load("counting", coco=str(coco))]
    assert counts.count(2) == 2 == counts.count(1) and counts.count(3) == 10


def test_computation_in_coco(coco):
    rows = datasets.load("computation", coco=str(coco))
    assert len(rows) == 20 * 8                                         # two pairs, four operations; a crowd is no class
    assert {tuple(row["classes"]) for row in rows} == {("cat", "dog"), ("dog", "cat")}
    for row in rows:
        assert row["counts"][row["classes"].index("dog")] == 12 and len(row["boxes"]) == sum(row["counts"])
    assert datasets.load("computation", coco=str(coco), seed=1) != rows


@pytest.mark.parametrize("content", ["{", "[]", '{"images": []}', '{"images": [], "annotations": [], "categories": []}',
                                     '{"images": [{"id": 1, "file_name": "a", "width": 1, "height": 1}], '
                                     '"annotations": [{"image_id": 1, "category_id": 5, "bbox": [1, 2, 3, 4]}], '
                                     '"categories": []}'])
def test_files_that_are_not_cocos(coco, content):
    (coco / "annotations" / "instances_train2017.json").write_text(content)
    with pytest.raises(DatasetError, match="instances_train2017.json"):
        datasets.load("counting", coco=str(coco))


def test_a_folder_without_coco(tmp_path):
    with pytest.raises(DatasetError, match=r"instances_val2017.json is not there; coco is a folder"):
        datasets.load("computation", "test", coco=str(tmp_path))


# runs


@pytest.mark.parametrize("name", NAMES)
def test_two_steps(name, tmp_path, capsys):
    """The recipe with a tiny model of random weights, from the command line."""
    grpo.load(grpo.tiny("qwen2_5_vl")).save_pretrained(tmp_path / "tiny")
    words = ["train", name, "--model", str(tmp_path / "tiny"), "--output_dir", str(tmp_path / "run"),
             *"--max_steps 2 --prompts_per_step 2 --num_generations 2 --max_completion_length 4".split(),
             *"--train_size 8 --eval_size 2 --eval_steps 2".split()]
    assert cli.main([*words, "--check"]) == 0
    assert cli.main(words) == 0
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    logged = {key for line in metrics for key in line}
    assert len(resolve(name)) == len({key for key in logged if re.fullmatch("rewards/[^/]+/mean", key)})
