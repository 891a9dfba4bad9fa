"""Digits and message decoding: images, held-out sets, files of MNIST, prompts, recipes' data; and runs of two steps."""
import gzip
import hashlib
import itertools
import re
import struct
import time

import numpy as np
import pytest

import grpo
from grpo import ConfigError, DatasetError, datasets
from grpo.datasets import decoder, drawing, idx, pens, thinking
from grpo.datasets.words import words_of

DECODING = ("abc", "words", "sequences")
SEEDS = (0, 1, 7)


def hashed(pixels):
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()[:12]


def boxes(row):
    return [(top, left) for top, left, _ in row["image"].arguments[1]]


# digits


@pytest.mark.parametrize("split", ["train", "test"])
def test_digits_are_right_and_seeded(split):
    rows = datasets.load("digits", split, size=60, seed=3)
    assert [len(row["label"]) for row in rows[::2]] == [1, 2, 3] * 10
    for row, other in zip(rows[::2], rows[1::2], strict=True):
        assert (row["task"], other["task"]) == ("recognition", "addition") and row["image"] == other["image"]
        assert row["label"] == sorted(row["label"]) == other["label"] and row["total"] == sum(row["label"])
        assert row["difficulty"] == len(row["label"])
        assert (row["answer"], other["answer"]) == (str(row["label"]), str(row["total"]))
        assert sorted(style[0] for *_, style in row["image"].arguments[1]) == row["label"]
    assert rows == datasets.load("digits", split, size=60, seed=3) == datasets.load("digits", split, seed=3)[:60]
    assert rows != datasets.load("digits", split, size=60, seed=4)
    assert len({row["image"].key for row in rows}) == 30


def test_digits_lie_apart_inside_their_canvas():
    for canvas, count in ((56, 2), (84, 4), (100, 3)):
        for row in datasets.load("digits", digits=count, size=60, canvas=canvas):
            page, places = row["image"].pixels(), boxes(row)
            assert page.shape == (canvas, canvas) and page.dtype == np.uint8
            assert all(0 <= top <= canvas - 28 and 0 <= left <= canvas - 28 for top, left in places)
            assert all(abs(a[0] - b[0]) >= 28 or abs(a[1] - b[1]) >= 28
                       for a, b in itertools.combinations(places, 2))
            ink = np.zeros_like(page)
            for top, left in places:
                ink[top:top + 28, left:left + 28] = 1
                assert page[top:top + 28, left:left + 28].max() > 200
            assert not page[ink == 0].any()


def test_no_digit_of_the_test_is_in_train():
    def styles(split, seed):
        return {style for row in datasets.load("digits", split, task="addition", digits=3, size=300, seed=seed)
                for *_, style in row["image"].arguments[1]}

    train, test = (set().union(*(styles(split, seed) for seed in SEEDS)) for split in ("train", "test"))
    assert len(train) > 2000 and len(test) > 2000 and not train & test
    assert {style[:2] for style in train} == {style[:2] for style in test} == {
        (digit, way) for digit in range(10) for way in range(len(pens.WAYS[digit]))}


def test_digits_keep_inside_their_square():
    """At the ends of every range of a style, and for all ways."""
    for digit, ways in enumerate(pens.WAYS):
        for way, slant, turn in itertools.product(range(len(ways)), pens.SLANT, pens.TURN):
            page = pens.drawn((digit, way, slant, turn, pens.HEIGHT[1], pens.WIDTH[1], pens.PEN[1], 5))
            edge = np.concatenate([page[0], page[-1], page[:, 0], page[:, -1]])
            assert edge.max() == 0 and 20 < page.mean() < 120, (digit, way)


@pytest.mark.parametrize("style, expected", [
    ((3, 0, 1, -2, 2, 3, 1, 77), "347f75c4cef3"), ((8, 1, -4, 3, 0, 4, 5, 999), "d882618c9b03"),
])
def test_pixels_of_digits_are_the_same_on_every_machine(style, expected):
    assert hashed(pens.drawn(style)) == expected


def test_rows_of_digits_are_the_same_on_every_machine():
    rows = [(row["image"].arguments, row["answer"], row["prompt"]) for row in datasets.load("digits", "test", size=60)]
    assert hashlib.sha256(repr(rows).encode()).hexdigest()[:12] == "0f5e298bfe9b"


def test_demonstrations_of_digits():
    options = dict(digits=1, size=60, demonstrations=True, instruction="short")
    exact, wrong = datasets.load("digits", **options), datasets.load("digits", **options, mistakes=1.0)
    for row, other in zip(exact, wrong, strict=True):
        assert f"</think>\n<answer>{row['answer']}</answer>" in row["completion"]
        assert row["completion"].startswith("<think>") and "prefill" not in row
        assert f"<answer>{row['answer']}</answer>" not in other["completion"]
    begun = datasets.load("digits", task="addition", digits=1, size=1, demonstrations=True)[0]
    assert begun["completion"] == f"{begun['answer']}</think>\n<answer>{begun['answer']}</answer>"


@pytest.mark.parametrize("options, message", [
    (dict(task="counting"), "task='counting' must be"), (dict(digits=0), "digits=0"), (dict(digits=[]), "digits="),
    (dict(digits=10), "digits=10"), (dict(canvas=27), "canvas=27"), (dict(canvas=True), "canvas=True"),
    (dict(canvas=5000), "canvas=5000"), (dict(digits=2, canvas=40), "canvas=40 has no room for 2 digits"),
    (dict(instruction="long"), "instruction='long'"), (dict(mistakes=1.5), "mistakes=1.5"),
    (dict(split="dev"), "no split 'dev'"), (dict(digit=2), "did you mean 'digits'"),
    (dict(path="/nowhere"), "/nowhere: has none of"),
])
def test_digits_refuse(options, message):
    with pytest.raises((ConfigError, DatasetError), match=message):
        datasets.load("digits", **options)


# files of MNIST


def idx_bytes(array, magic=None):
    head = bytes([0, 0, 8, array.ndim]) if magic is None else magic
    return head + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()


@pytest.fixture
def mnist(tmp_path):
    """A folder of files like MNIST's, whose images are of one level, ten times their digit."""
    idx.images.cache_clear()
    idx.labels.cache_clear()
    for name, count in (("train", 30), ("t10k", 20)):
        labels = np.arange(count) % 10
        images = np.ones((count, 28, 28)) * labels[:, None, None] * 10 + 1
        (tmp_path / f"{name}-images-idx3-ubyte").write_bytes(idx_bytes(images))
        (tmp_path / f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(labels)))
    return tmp_path


def test_digits_of_files(mnist):
    for split, most in (("train", 30), ("test", 20)):
        rows = datasets.load("digits", split, path=str(mnist), size=40)
        for row in rows:
            page = row["image"].pixels()
            levels = [int(page[top, left]) for top, left in boxes(row)]
            assert sorted((level - 1) // 10 for level in levels) == row["label"]
            assert all(number < most and where == split for *_, (_, where, number) in row["image"].arguments[1])
    assert rows == datasets.load("digits", "test", path=str(mnist), size=40)


@pytest.mark.parametrize("name, change, message", [
    ("images-idx3-ubyte", lambda data: b"", "images-idx3-ubyte: magic number missing"),
    ("images-idx3-ubyte", lambda data: b"\x89PNG" + data[4:], "magic number 89504e47, not 00000803"),
    ("images-idx3-ubyte", lambda data: data[:9], "truncated: its header has 9 of 16 bytes"),
    ("images-idx3-ubyte", lambda data: data[:-1], "truncated: 23535 bytes, and 23536 for 30 x 28 x 28"),
    ("images-idx3-ubyte", lambda data: data + b"0", "too long: 23537 bytes"),
    ("images-idx3-ubyte", lambda data: data[:4] + b"\xff" * 12 + data[16:], "truncated: .* 4294967295 x 4294967295"),
    ("images-idx3-ubyte", lambda data: idx_bytes(np.zeros((30, 14, 28))), "images of 14 x 28 pixels, not 28 x 28"),
    ("labels-idx1-ubyte.gz", lambda data: data[:20], "labels-idx1-ubyte.gz: cannot be read"),
    ("labels-idx1-ubyte.gz", lambda data: b"not gzip", "cannot be read: Not a gzipped file"),
    ("labels-idx1-ubyte.gz", lambda data: gzip.compress(idx_bytes(np.arange(29) % 10)), "29 labels for 30 images"),
    ("labels-idx1-ubyte.gz", lambda data: gzip.compress(idx_bytes(np.arange(30))), "label 10 is 10, not a digit"),
    ("labels-idx1-ubyte.gz", lambda data: gzip.compress(idx_bytes(np.zeros((30, 1, 1)))),
     "not 00000801: no IDX file of labels"),
    ("labels-idx1-ubyte.gz", None, "has none of train-labels-idx1-ubyte, train-labels-idx1-ubyte.gz"),
])
def test_broken_files(mnist, name, change, message):
    path = mnist / f"train-{name}"
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DatasetError, match=message) as error:
        datasets.load("digits", path=str(mnist))
    assert str(mnist) in str(error.value)


def test_no_images_at_all(mnist):
    for name in ("images-idx3-ubyte", "labels-idx1-ubyte.gz"):
        data = idx_bytes(np.zeros((0, 28, 28) if "images" in name else 0))
        (mnist / f"train-{name}").write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    with pytest.raises(DatasetError, match="holds no labels"):
        datasets.load("digits", path=str(mnist))


def test_a_file_that_unpacks_without_end(mnist, monkeypatch):
    monkeypatch.setattr(idx, "MAX_BYTES", 1000)
    with pytest.raises(DatasetError, match="more than 1000 bytes"):
        datasets.load("digits", path=str(mnist))


# decoding


@pytest.mark.parametrize("kind", DECODING)
@pytest.mark.parametrize("split", ["train", "test"])
def test_messages_are_right_and_seeded(kind, split):
    rows = datasets.load(f"decoding:{kind}", split, size=60, seed=3)
    for row in rows:
        message, coded, mapping = row["decoded_message"], row["coded_message"], row["mapping"]
        assert row["answer"] == message and sorted(mapping) == sorted(mapping.values())
        assert "".join({**mapping, "_": " "}[letter] for letter in coded) == message
        pairs = row["image"].arguments[1]
        assert dict(zip(pairs[::2], pairs[1::2], strict=True)) == mapping
        asked = row["prompt"][1]["content"]
        assert f'"{" ".join(coded)}"' in asked and (kind == "abc" or f" {message} " not in asked)
    assert len({row["image"].key for row in rows}) == 60 or kind == "abc"
    assert rows == datasets.load(f"decoding:{kind}", split, size=60, seed=3)
    assert rows == datasets.load(f"decoding:{kind}", split, size=70, seed=3)[:60]
    assert rows != datasets.load(f"decoding:{kind}", split, size=60, seed=4)


def test_forms_of_messages():
    abc, words, sequences = (datasets.load(f"decoding:{kind}", size=300) for kind in DECODING)
    assert {len(row["answer"]) for row in abc} == {1, 2, 3, 4, 5}
    assert set("".join(row["answer"] for row in abc)) == set("ABC")
    assert all(re.fullmatch("[A-Z]{3,}", row["answer"]) for row in words)
    assert [len(row["answer"].split()) for row in sequences[:6]] == [1, 2, 3, 1, 2, 3]
    assert [row["task"] for row in sequences[:4]] == ["word", "word_2", "word_3", "word"]
    assert all(re.fullmatch("[a-z ]+", row["answer"]) and row["coded_message"].count("_") == row["answer"].count(" ")
               and row["prompt"][1]["content"].endswith(f'"{" ".join(row["coded_message"])}".') for row in sequences)
    assert {row["image"].height for row in words} == {300} and {row["image"].height for row in sequences} == {400}


def test_no_message_of_the_test_is_in_train():
    def contents(kind, split):
        found = set()
        for seed in SEEDS:
            for row in datasets.load(f"decoding:{kind}", split, size=600, seed=seed):
                cipher = "".join(sorted(map("".join, row["mapping"].items()))).lower()
                found |= {row["answer"] + cipher} if kind == "abc" else {cipher, *row["answer"].lower().split()}
        return found

    for kind in DECODING:
        train, test = contents(kind, "train"), contents(kind, "test")
        assert len(train) > 300 and len(test) > 100 and not train & test
    shown = {row["answer"].lower() for row in datasets.load("decoding:words", "test", size=900)}
    assert shown <= set(words_of(None, "test")) and len(shown) > 60


def test_all_there_is_of_short_messages():
    train, test = ({(row["answer"], row["image"].arguments[1]) for row in
                    datasets.load("decoding:abc", split, lengths=[1, 3])} for split in ("train", "test"))
    assert not train & test and len(train | test) > 0.98 * 39 * 6 * 6 and 0.12 < len(test) / len(train | test) < 0.28


@pytest.mark.parametrize("kind", DECODING)
def test_the_control_has_the_table_as_text(kind):
    seen, read = (datasets.load(f"decoding:{kind}", "test", size=20, image=image) for image in (True, False))
    for row, plain in zip(seen, read, strict=True):
        assert "image" not in plain and {**row, "image": 0, "prompt": 0} == {**plain, "image": 0, "prompt": 0}
        entries = decoder.entries(row["image"].arguments[1])
        assert [line for line in plain["prompt"][1]["content"].splitlines() if re.fullmatch(".→.", line)] == entries
        assert "→" not in row["prompt"][1]["content"].replace("X→Y", "")


@pytest.mark.parametrize("kind", DECODING)
def test_a_short_instruction(kind):
    row = datasets.load(f"decoding:{kind}", size=1, instruction="short", demonstrations=True)[0]
    assert row["prompt"] == [{"role": "user", "content": f"Decode {row['coded_message']}"}]
    assert row["completion"].endswith(f"</think>\n<answer>{row['answer']}</answer>") and "prefill" not in row
    letters = " ".join(row["answer"].replace(" ", "_"))
    looked_up = " ".join(map("→".join, zip(row["coded_message"], row["answer"], strict=True)))
    thought = {"abc": f"{' '.join(decoder.entries(row['image'].arguments[1]))}\n{looked_up}", "words": looked_up,
               "sequences": f"<chars>{letters}</chars>"}[kind]
    assert row["completion"].startswith(f"<think>{thought}</think>")


def test_demonstrations_misread_letters():
    def rate(mistakes):
        rows = datasets.load("decoding:words", size=300, demonstrations=True, mistakes=mistakes)
        return np.mean([a != b for row in rows
                        for a, b in zip(row["answer"], row["completion"].split("<answer>")[1], strict=False)])

    assert rate(0.0) == 0 and rate(1.0) == 1 and 0.25 < rate(0.3) < 0.35


@pytest.mark.parametrize("kind, options, message", [
    ("abd", {}, "task='abd'.*did you mean 'abc'"), ("abc", dict(lengths=[0, 2]), "lengths="),
    ("abc", dict(lengths=[3, 1]), "lengths="), ("abc", dict(words=["cat"]), "words is for"),
    ("words", dict(lengths=[1, 2]), "lengths is for"), ("words", dict(canvas=50), "canvas=50"),
    ("abc", dict(split="dev"), "no split 'dev'"), ("words", dict(words=["cat", "a b"]), "row 2: 'a b' is not a word"),
    ("words", dict(words=["no"]), "row 1: 'no'"), ("words", dict(words=["cat", None]), "row 2: None"),
    ("words", dict(words=[]), "none of its 0 words falls into train"), ("words", dict(words=3), "words=3 must be"),
    ("words", dict(words="nowhere.txt"), "nowhere.txt: cannot be read"),
    ("words", dict(words="nowhere.csv"), "no such file"), ("words", dict(instruction=""), "instruction=''"),
])
def test_decoding_refuses(kind, options, message):
    with pytest.raises((ConfigError, DatasetError), match=message):
        datasets.load(f"decoding:{kind}", **options)


def test_decoding_needs_a_kind():
    with pytest.raises(ConfigError, match="decoding needs the name of a task"):
        datasets.load("decoding")


@pytest.mark.parametrize("name, text", [("w.txt", "Mango\n\n apricot \nmango\n"),
                                        ("w.csv", "word,rank\nmango,1\napricot,2\n"),
                                        ("w.jsonl", '{"word": "mango"}\n{"word": "apricot"}\n')])
def test_words_of_a_file(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert words_of(str(tmp_path / name), "train") == ["mango", "apricot"]
    with pytest.raises(DatasetError, match=f"{name}: none of its . words falls into test"):
        words_of(str(tmp_path / name), "test")


def test_a_file_of_words_with_a_bad_row(tmp_path):
    (tmp_path / "w.csv").write_text("word\nmango\nx-ray\n")
    with pytest.raises(DatasetError, match=r"w.csv: row 2: 'x-ray' is not a word"):
        datasets.load("decoding:words", words=str(tmp_path / "w.csv"))


def test_the_words_of_the_package():
    train, test = words_of(None, "train"), words_of(None, "test")
    assert len(train) + len(test) > 1000 and not set(train) & set(test)
    assert all(re.fullmatch("[a-z]{3,}", word) for word in train + test)


# tables as images


def entry_places(page, columns, rows, width, height):
    """Whether each cell of a grid has ink in its middle, and how far that is off it."""
    cells = page[:int(rows * height), :].reshape(rows, int(height), columns, int(width)).transpose(0, 2, 1, 3)
    return [np.argwhere(cell < 128).mean(0) / (height - 1, width - 1) - 0.5 for line in cells for cell in line]


def test_the_grid_has_its_entries_in_the_middle_of_their_cells():
    for side in (300, 400):
        page = decoder.grid(side, "".join(a + b for a, b in itertools.pairwise("abcdefghijklmnopqrstuvwxyza")))
        off = np.array(entry_places(page, 5, 5, side / 5, (side - 50) / 5))
        assert np.abs(off[:, 1]).max() < 0.08 and np.abs(off[:, 0]).max() < 0.12
        last = np.argwhere(page[side - 50:] < 128)
        assert abs(last[:, 1].mean() - side / 2) < 4 and 10 <= last[:, 0].min() < 25 and last[:, 0].max() < 49


def test_lines_are_half_as_high_as_their_room():
    page = decoder.lines(300, "ABBCCA")
    assert [bool((page[i * 100 + 25:i * 100 + 75] < 128).any()) for i in range(3)] == [True] * 3
    assert (page[[0, 1, 2, 99, 100, 199, 200, 299]] == 255).all()


def test_an_arrow_is_drawn_and_points_to_the_right():
    for size in (10, 14, 20, 50):
        mark = drawing.arrow(size)
        shaft, columns = mark.sum(0) > 0, (mark > 0).sum(0)
        assert shaft[size // 4:3 * size // 4].all() and not shaft[0] and not shaft[-1]
        assert np.argmax(columns) > size / 2 and mark.shape[0] == drawing.ink("A", size).shape[0]


def test_letters_differ():
    for alphabet in ("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz"):
        for size in (14, 20):
            assert len({hashed(np.pad(drawing.ink(c, size), ((0, 0), (0, 40)))[:, :40]) for c in alphabet}) == 26


def test_what_is_outside_the_page_is_left_out():
    page = drawing.blank(20, 20)
    for middle, top in ((0, -10), (19, 15), (-50, 0), (10, 90)):
        drawing.write(page, "WW", 20, middle, top)
    assert page.shape == (20, 20) and (page < 255).any()


def test_images_are_drawn_in_less_than_a_millisecond():
    """On one core, by its own clock; a fifth of it is usual."""
    for name in ("digits", *(f"decoding:{kind}" for kind in DECODING)):
        images = [row["image"] for row in datasets.load(name, size=200)][::2]
        begin = time.process_time()
        for image in images:
            image.pixels()
        assert (time.process_time() - begin) / len(images) < 1.5e-3, name


# prompts that end with the beginning of the answer


def test_the_answer_is_begun():
    row = datasets.load("digits", size=1)[0]
    assert [m["role"] for m in row["prompt"]] == ["system", "user", "assistant"]
    assert (row["prompt"][-1]["content"] == row["prefill"] == thinking.PREFILL
            == "Let me solve this step by step.\n<think>")
    model = grpo.load(grpo.tiny("qwen2_5_vl"))
    encoded = model.encode_prompt(row["prompt"], [row["image"]])
    assert model.tokenizer.decode(encoded.ids, skip_special_tokens=False).endswith(
        f"<|im_start|>assistant\n{thinking.PREFILL}")
    assert len(encoded.images) == 1


@pytest.mark.parametrize("content", ["<think>", [{"type": "text", "text": "<thi"}, {"type": "text", "text": "nk>"}]])
def test_a_last_message_of_the_assistants_is_continued(content):
    template = grpo.Tokenizer.bytes().apply_chat_template
    asked = [{"role": "user", "content": "q"}]
    assert template([*asked, {"role": "assistant", "content": content}]) == template(asked) + "<think>"
    closed = template([*asked, {"role": "assistant", "content": "<think>"}], add_generation_prompt=False)
    assert closed.endswith("<think><|im_end|>\n")
    assert template([{"role": "assistant", "content": "Hi"}]).endswith("Hi<|im_end|>\n<|im_start|>assistant\n")


def test_demonstrations_go_on_where_the_prompt_ends():
    model = grpo.load(grpo.tiny("qwen2_5_vl", num_hidden_layers=1))
    rows = datasets.load("digits", size=4, demonstrations=True, canvas=56, digits=1)
    trainer = grpo.SFTTrainer(model, grpo.SFTConfig(max_steps=1), rows)
    for row, example in zip(rows, trainer.examples, strict=True):
        assert np.array_equal(example.prompt, model.encode_prompt(row["prompt"], [row["image"]]).ids)
        assert model.tokenizer.decode(example.completion, skip_special_tokens=False) == row["completion"] + "<|im_end|>"


# runs


@pytest.mark.parametrize("name, rewards, options", [
    ("digits", "digits", dict(canvas=56, digits=[1, 2])),
    ("decoding:abc", "decoding", dict(canvas=56, lengths=[1, 2])),
    ("decoding:words", "decoding", dict(canvas=112)),
    ("decoding:sequences", "decoding_chars", dict(canvas=112)),
    ("decoding:sequences", "r1_vlm_sequences", dict(image=False)),
])
def test_two_steps(name, rewards, options):
    model = grpo.load(grpo.tiny("qwen2_5_vl", num_hidden_layers=1, vision_config={"depth": 2}))
    shared = dict(train_vision="all", max_steps=2, learning_rate=1e-3)
    demonstrations = datasets.load(name, size=8, demonstrations=True, instruction="short", **options)
    grpo.SFTTrainer(model, grpo.SFTConfig(per_device_train_batch_size=4, **shared), demonstrations).train()
    rows, held_out = (datasets.load(name, split, size=4, **options) for split in ("train", "test"))
    config = grpo.GRPOConfig(prompts_per_step=2, num_generations=2, max_completion_length=6, eval_strategy="steps",
                             eval_steps=2, **shared)
    history = grpo.GRPOTrainer(model, rewards, config, rows, eval_dataset=held_out).train()
    assert history is not None
