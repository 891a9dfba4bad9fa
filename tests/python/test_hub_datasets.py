"""Data sets of the hub, by id: what the datasets library gives becomes rows, images as they are stored. The library is
played by a small one of the same face; where it is installed, it reads the same table itself."""
import io
import json
import sys
import types

import numpy as np
import pytest
from PIL import Image as pillow

from grpo import DatasetError, cli, datasets


class Image:
    """The feature of a column of images, which decodes them unless told otherwise."""

    decode = True


class List:
    """The feature of a column of lists."""

    def __init__(self, feature):
        self.feature = feature


class ClassLabel:
    """The feature of numbers with names."""

    def __init__(self, names):
        self.names = names


class Dataset:
    """Rows in the manner of datasets.Dataset: its images come decoded, but not in the format "arrow"."""

    def __init__(self, rows, features, decoded=True):
        self.rows, self.features, self.decoded = rows, features, decoded

    def __len__(self):
        return len(self.rows)

    def __iter__(self):
        assert not self.decoded, "the images were decoded"
        return iter(self.rows)

    def select(self, places):
        return Dataset([self.rows[i] for i in places], self.features, self.decoded)

    def with_format(self, name):
        assert name == "arrow"
        return Dataset(self.rows, self.features, decoded=False)

    def iter(self, size):
        for first in range(0, len(self.rows), size):
            yield types.SimpleNamespace(to_pylist=lambda first=first: self.rows[first:first + size])


def stored(colour):
    file = io.BytesIO()
    pillow.new("RGB", (56, 56), colour).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": f"{colour}.png"}


GEOMETRY = [{"images": [stored("red")], "problem": "<image>What is the side?", "answer": "4"},
            {"images": [stored("green"), stored("blue")], "problem": "<image><image>Which is larger?", "answer": "2"}]
FLOWERS = [{"img": stored("red"), "label": 1}, {"img": stored("blue"), "label": 0}]
HUB = {"hiyouga/geometry3k": {"train": Dataset(GEOMETRY * 4, {"images": List(Image()), "problem": 0, "answer": 0}),
                              "validation": Dataset([{**GEOMETRY[0], "problem": "<image>How long?"}],
                                                    {"images": List(Image())})},
       "someone/flowers": {"train": Dataset(FLOWERS, {"img": Image(), "label": ClassLabel(["iris", "rose"])})}}


@pytest.fixture
def hub(monkeypatch):
    def load_dataset(name, config=None):
        asked.append((name, config))
        if name not in HUB:
            raise FileNotFoundError(f"Dataset '{name}' doesn't exist on the Hub or cannot be accessed.")
        return HUB[name]

    asked = []
    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    return asked


def test_geometry3k(hub):
    rows = datasets.load("hiyouga/geometry3k", system_prompt="")
    assert len(rows) == 8 and hub == [("hiyouga/geometry3k", None)]
    assert rows[0]["prompt"] == [{"role": "user", "content": "<image>What is the side?"}] and rows[0]["answer"] == "4"
    assert [image["path"] for image in rows[1]["images"]] == ["green.png", "blue.png"]
    assert len(datasets.load("hiyouga/geometry3k", "test")) == 1 == len(datasets.load("hiyouga/geometry3k", size=1))


def test_columns_of_other_names(hub):
    row, other = datasets.load("someone/flowers", columns={"image": "img", "answer": "label"}, system_prompt="",
                               question="Which of {classes}?")
    assert row["image"]["path"] == "red.png" and "img" not in row
    assert (row["answer"], other["answer"]) == ("rose", "iris")
    assert row["prompt"] == [{"role": "user", "content": "Which of iris, rose?"}]


@pytest.mark.parametrize("name, options, message", [
    ("someone/flowers", dict(columns={"image": "imge"}), "someone/flowers, split train: row 0 has no column 'imge'"),
    ("someone/flowers", {}, "row 0 has neither a prompt nor a question; its columns are img, label"),
    ("nobody/nothing", {}, "nobody/nothing: Dataset 'nobody/nothing' doesn't exist"),
])
def test_what_cannot_be(hub, name, options, message):
    with pytest.raises(DatasetError, match=message):
        datasets.load(name, **options)


def test_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DatasetError, match=r"'hiyouga/geometry3k' is no file here.*pip install 'cgrpo\[data\]'"):
        datasets.load("hiyouga/geometry3k")


@pytest.mark.parametrize("words", [
    ["--dataset", "hiyouga/geometry3k", "--eval_strategy", "steps", "--rewards", "accuracy_reward"],
    ["--dataset", "someone/flowers", "--dataset_kwargs.question", "What is it?", "--dataset_kwargs.columns",
     "{image: img, answer: label}", "--rewards", "class_name_reward"]], ids=["geometry3k", "flowers"])
def test_a_run(hub, tmp_path, words):
    words = ["train", "--model.arch", "qwen2_5_vl", *words, "--output_dir", str(tmp_path / "run"), *"--max_steps 1 "
             "--prompts_per_step 2 --num_generations 2 --max_completion_length 4".split()]
    assert cli.main(words) == 0
    record, *_ = map(json.loads, (tmp_path / "run" / "completions" / "step-000001.jsonl").read_text().splitlines())
    assert {part["type"] for part in record["prompt"][-1]["content"]} == {"image", "text"}


def test_the_library_itself():
    library = pytest.importorskip("datasets")
    features = library.Features({"images": library.Sequence(library.Image()), "problem": library.Value("string"),
                                 "answer": library.Value("string")})
    table = library.DatasetDict(train=library.Dataset.from_list(GEOMETRY, features=features))
    rows = datasets.load(table, system_prompt="")
    assert [len(row["images"]) for row in rows] == [1, 2] and rows[0]["answer"] == "4"
    assert np.asarray(pillow.open(io.BytesIO(rows[1]["images"][1]["bytes"])))[0, 0].tolist() == [0, 0, 255]
