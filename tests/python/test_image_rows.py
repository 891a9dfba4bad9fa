"""Rows with images, from files and tables to the prompts of a run: nothing is dropped, spelled out or decoded."""
import json
import os
import shutil

import numpy as np
import pytest

from grpo import ConfigError, DatasetError, datasets
from grpo.datasets.pictures import picture_key, stored
from grpo.datasets.prompts import PromptStream, content_key, overlap, rows_with, text_bytes
from grpo.evaluation.text import last_message, prompt_text
from grpo.rollouts.rollouts import Rollouts, completion_records

PNG = b"\x89PNG not really"


def user(content):
    return {"role": "user", "content": content}


def image(held):
    return {"type": "image", "image": held}


TEXT = {"type": "text", "text": "q"}


class Encoder:
    """Stands for a model's: 4 ids an image, 1 a character of text; keeps what it was given."""

    def __init__(self):
        self.given = []

    def __call__(self, prompt, images=()):
        self.given.append((prompt, images))
        return [7] * (4 * len(images) + text_bytes(prompt))


def stream(rows, limit=100, **options):
    return PromptStream(rows, Encoder(), limit=limit, sees_images=True, **options)


# prompts of a run
# -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row, prompt, images", [
    ({"prompt": [user("q")], "image": "a.png"}, [user([image("a.png"), TEXT])], ["a.png"]),
    ({"prompt": [user("q")], "images": [b"a", {"bytes": PNG}]}, [user([image(b"a"), image({"bytes": PNG}), TEXT])],
     [b"a", {"bytes": PNG}]),
    ({"prompt": [user("<image>q")], "images": ["a"], "answer": "1"}, [user([image("a"), TEXT])], ["a"]),
    ({"prompt": [user([{"type": "image_url", "image_url": {"url": "a"}}, TEXT])]}, [user([image("a"), TEXT])], ["a"]),
    ({"prompt": [user([{"type": "image"}, TEXT])], "image": "a"}, [user([image("a"), TEXT])], ["a"]),
    ({"prompt": "<image>q", "image": "a"}, "<image>q", ["a"]),
    ({"prompt": [user("q")], "image": None, "images": []}, [user("q")], []),
    ({"prompt": [user("<image>")]}, [user("<image>")], []),
    ({"prompt": "<image>"}, "<image>", []),
])
@pytest.mark.parametrize("on_long", ["raise", "drop", "truncate"])
def test_prompts(row, prompt, images, on_long):
    made = stream([row], on_long=on_long)
    found = made.take(0, 1)[0]
    assert found.prompt == prompt and found.images == images
    assert found.columns == {name: value for name, value in row.items() if name != "prompt"}
    assert len(found.ids) == 4 * len(images) + text_bytes(prompt) and made.encode.given[-1][1] in (images, ())


def test_images_stay_what_they_are():
    picture = np.zeros((4, 4, 3), np.uint8)
    found = stream([{"prompt": [user("q")], "image": picture}]).at_row(0)
    assert found.images[0] is picture and found.prompt[0]["content"][0]["image"] is picture


@pytest.mark.parametrize("row, message", [
    ({"prompt": [user("<image>")], "images": ["a", "b"]}, "row 1 has 2 images, and its messages have 1 markers"),
    ({"prompt": [user([{"type": "image"}])]}, "row 1: message 0 has an image part without an image"),
    ({"prompt": [user([{"type": "video", "video": "a"}])]}, "row 1: message 0, part 0 is video"),
    ({"prompt": [user("q")], "image": 3}, "row 1: 'image' holds 3"),
])
@pytest.mark.parametrize("on_long", ["raise", "drop", "truncate"])
def test_wrong_rows_are_found_at_the_start(row, message, on_long):
    with pytest.raises(DatasetError, match=f"^train_dataset: {message}"):
        stream([{"prompt": [user("q")]}, row], on_long=on_long)


@pytest.mark.parametrize("row, message", [
    ({"prompt": [user("q")], "image": "a"}, "row 1 has 'image': the model sees no images"),
    ({"prompt": [user([image("a"), TEXT])]}, "row 1 has images in its messages: the model sees no images"),
])
def test_a_model_without_eyes(row, message):
    with pytest.raises(DatasetError, match=message):
        PromptStream([{"prompt": [user("q")]}, row], Encoder(), limit=100)
    empty = PromptStream([{"prompt": [user("q")], "image": "", "images": []}], Encoder(), limit=100)
    assert empty.at_row(0).images == [] and empty.encode.given[-1] == ([user("q")], ())


def test_images_count_towards_the_limit():
    rows = [{"prompt": [user("q")], "images": list("abc")}, {"prompt": [user("q")], "images": list("ab")}]
    with pytest.raises(DatasetError, match="prompt of row 0 has 13 tokens.*or show smaller images.*is not truncated"):
        stream(rows, limit=12)
    with pytest.raises(DatasetError, match="row 0 has 13 tokens.*is not truncated"):
        stream(rows, limit=12, on_long="truncate")
    assert [p.row for p in stream(rows, limit=12, on_long="drop").take(0, 2)] == [1, 1]


def test_records_hold_no_images():
    prompts = stream([{"prompt": [user("q")], "image": PNG}, {"prompt": "q"}]).take(0, 2)
    made = Rollouts(prompts=prompts, pictures=[[], []], group=np.array([0, 1], np.int32),
                    completions=[np.array([1], np.int32)] * 2,
                    finish=np.array([1, 1], np.int32), logprobs=np.zeros(2, np.float32),
                    policy_logprobs=np.zeros(2, np.float32), entropies=np.zeros(2, np.float32), texts=["a", "b"],
                    rewards=np.zeros((2, 1)), totals=np.zeros(2))
    found = [json.loads(json.dumps(record))["prompt"] for record in completion_records(1, made, ["r"])]
    assert found == [[user([image(f"{len(PNG)} bytes"), TEXT])], "q"]
    assert prompt_text(found[0]) == f"user: [image: {len(PNG)} bytes] q" and last_message(found[0]).endswith("] q")


# what asks the same
# ---------------------------------------------------------------------------------------------------


def test_what_a_row_shows_is_part_of_what_it_asks(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/1.png").write_bytes(b"one")
    (tmp_path / "2.png").write_bytes(b"longer")
    shutil.copytree(tmp_path / "a", tmp_path / "elsewhere")
    one, two, moved = (str(tmp_path / name) for name in ("a/1.png", "2.png", "elsewhere/1.png"))
    different = [None, one, two, b"one", {"bytes": b"two", "path": None}, np.zeros((2, 2)), np.ones((2, 2)), "missing"]
    keys = [content_key([user("q")], [] if held is None else [held]) for held in different]
    assert len(set(keys)) == len(keys)
    assert picture_key(one) == picture_key(moved) == picture_key({"bytes": None, "path": one})
    assert content_key([user([image(one), TEXT])]) == keys[1] and content_key([user([TEXT])]) == keys[0]
    train = [{"prompt": [user("q")], "image": one}, {"prompt": [user("q")], "image": two}]
    assert overlap(train, [{"prompt": [user("q")], "image": b"x"}]) == ""
    assert "row 0 (row 1 of training)" in overlap(train, [{"prompt": [user(" Q")], "image": two}])


def test_rows_that_are_held_out():
    """One question for all pictures is many questions."""
    rows = [{"prompt": [user("How many?")], "image": bytes([n])} for n in range(40)]
    train, test = (datasets.load(rows, split, validation=0.5) for split in ("train", "test"))
    assert len(train) + len(test) == 40 and min(len(train), len(test)) > 5


# files
# ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "data/img").mkdir(parents=True)
    (tmp_path / "data/img/1.png").write_bytes(PNG)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


def written(folder, kind, row):
    path = folder / f"rows.{kind}"
    if kind == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist([row]), path)
    elif kind == "csv":
        path.write_text(",".join(row) + "\n" + ",".join(row.values()) + "\n")
    else:
        path.write_text(json.dumps(row) + "\n" if kind == "jsonl" else json.dumps([row]))
    return path


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet"])
def test_paths_beside_their_file(folder, kind):
    path = written(folder, kind, {"problem": "<image>How many?", "answer": "3", "image": "img/1.png"})
    row, = datasets.load(path)
    assert row["image"] == str(folder / "img/1.png") and row["prompt"][-1]["content"] == "<image>How many?"
    found = stream([row], limit=1000).at_row(0)
    assert found.images == [str(folder / "img/1.png")] and os.path.exists(found.images[0])
    assert found.prompt[-1]["content"] == [image(found.images[0]), {"type": "text", "text": "How many?"}]
    assert datasets.load(os.path.relpath(path))[0]["image"] == os.path.join("data", "img/1.png")


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
@pytest.mark.parametrize("columns, place", [
    ({"images": ["img/1.png", "img/1.png"]}, lambda row: row["images"][1]),
    ({"image": {"bytes": None, "path": "img/1.png"}}, lambda row: row["image"]["path"]),
    ({"prompt": [user([image("img/1.png"), TEXT])]}, lambda row: row["prompt"][0]["content"][0]["image"]),
    ({"prompt": [user([{"type": "image", "path": "img/1.png"}, TEXT])]},
     lambda row: row["prompt"][0]["content"][0]["path"]),
    ({"prompt": [user([{"type": "image_url", "image_url": {"url": "img/1.png"}}, TEXT])]},
     lambda row: row["prompt"][0]["content"][0]["image_url"]["url"]),
])
def test_paths_in_lists_dicts_and_parts(folder, kind, columns, place):
    path = written(folder, kind, {"prompt": [user("q")], **columns})
    row, = datasets.load(path)
    assert place(row) == str(folder / "img/1.png")
    assert all(description.endswith("1.png") for description in
               [p if isinstance(p, str) else p["path"] for p in stream([row]).at_row(0).images])


def test_bytes_of_a_parquet(folder):
    held = {"bytes": PNG, "path": "img/1.png"}
    row, = datasets.load(written(folder, "parquet", {"prompt": "<image>q", "image": held}))
    assert row["image"] == held and stream([row]).at_row(0).images == [held]


@pytest.mark.parametrize("held", ["img/2.png", "https://h/1.png", "data:image/png;base64,YQ==", "/abs/1.png", "", 3,
                                  None, "\0", "x" * 5000])
def test_what_is_no_file_there_is_left(folder, held):
    row, = datasets.load(written(folder, "jsonl", {"prompt": "q", "image": held}))
    assert row["image"] == held


def test_a_folder_of_images(folder):
    other = folder.parent / "other"
    other.mkdir()
    path = written(folder, "jsonl", {"prompt": "q", "images": ["img/1.png", "/abs.png"]})
    row, = datasets.load(path, image_folder=str(other))
    assert row["images"] == [str(other / "img/1.png"), "/abs.png"]
    with pytest.raises(ConfigError, match="image_folder='nowhere' is no folder"):
        datasets.load(path, image_folder="nowhere")


def test_rows_without_images_are_left_alone(folder):
    row = {"prompt": [user("img/1.png"), {"role": "x", "content": None}], "path": "img/1.png", "url": "img/1.png"}
    assert datasets.load(written(folder, "jsonl", row)) == [row]


# conversations
# --------------------------------------------------------------------------------------------------------


def turn(who, words):
    return {"from": who, "value": words}


def test_conversations(folder):
    turns = [turn("human", "<image>Where?"), turn("gpt", "[1, 2]")]
    row, = datasets.load(written(folder, "jsonl", {"conversations": turns, "image": "img/1.png"}))
    assert row["prompt"] == [user("<image>Where?")] and row["answer"] == "[1, 2]"
    assert stream([row]).at_row(0).prompt[0]["content"][0] == image(str(folder / "img/1.png"))


@pytest.mark.parametrize("turns, answer, prompt", [
    ([turn("human", "q")], None, [user("q")]),
    ([turn("system", "S"), turn("human", "q"), turn("gpt", "a"), turn("human", "r"), turn("gpt", "b")], "b",
     [{"role": "system", "content": "S"}, user("q"), {"role": "assistant", "content": "a"}, user("r")]),
])
def test_turns(turns, answer, prompt):
    row, = datasets.load([{"conversations": turns}])
    assert row["prompt"] == prompt and row.get("answer") == answer
    row, = datasets.load([{"conversations": turns, "answer": "own"}])
    assert row["answer"] == "own"


def test_a_system_prompt_for_conversations():
    row, = datasets.load([{"conversations": [turn("human", "q")]}], system_prompt="S")
    assert row["prompt"] == [{"role": "system", "content": "S"}, user("q")]
    with pytest.raises(DatasetError, match="row 0 has a system message of its own"):
        datasets.load([{"conversations": [turn("system", "T"), turn("human", "q")]}], system_prompt="S")


@pytest.mark.parametrize("turns, message", [
    ("q", "conversations must be a list"), ([{"from": "human"}], "conversations must be a list"),
    ([turn("narrator", "q")], "conversations must be a list"), ([turn("gpt", "a")], "ask nothing"),
    ([turn("system", "a")], "ask nothing"), ([turn("gpt", "a"), turn("gpt", "b")], "ask nothing")])
def test_wrong_conversations(turns, message):
    with pytest.raises(DatasetError, match=f"row 0.*{message}"):
        datasets.load([{"conversations": turns}])


def test_a_target_length_in_parts():
    system = {"role": "system", "content": [TEXT]}
    row, = datasets.load([{"prompt": [system, user([image("a"), TEXT])]}], target_length=9)
    assert row["prompt"][0]["content"] == [TEXT, {"type": "text", "text": "Think for 9 tokens."}]
    assert row["prompt"][1] == user([image("a"), TEXT])


# tables of the datasets library
# ---------------------------------------------------------------------------------------




@pytest.fixture
def table():
    library = pytest.importorskip("datasets")
    held = {"bytes": b"no picture: decoding it fails", "path": None}
    features = library.Features({"prompt": [{"role": library.Value("string"), "content": library.Value("string")}],
                                 "images": library.Sequence(library.Image()), "image": library.Image(),
                                 "n": library.Value("int64")})
    return library.Dataset.from_list([{"prompt": [user("q")], "images": [held] if n else None, "image": None, "n": n}
                                      for n in range(3)], features=features)


def test_tables_are_not_decoded(table):
    with pytest.raises(Exception, match="identify image"):
        table[1]
    rows = datasets.load(table)
    assert [row["images"] for row in rows[1:]] == [[{"bytes": b"no picture: decoding it fails", "path": None}]] * 2
    assert rows == list(stored(table)) and [row["n"] for row in rows] == [0, 1, 2]
    assert list(rows_with(table, "images")) == [1, 2] and list(rows_with(table, "image")) == []
    assert "2 of 3 rows" in overlap(table.select([1]), table) and overlap(table.select([0]), table.select([1])) == ""
    made = stream(table)                                   # lengths are known without the pictures
    assert [len(images) for _, images in made.encode.given] == [1, 1]


def test_other_tables_are_as_they_are(table):
    plain = table.remove_columns(["images", "image"])
    assert stored(plain) is plain and datasets.load(plain)[2]["n"] == 2
