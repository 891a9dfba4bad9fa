"""Prompts with images: where each image goes, as messages, as ids and as positions; what is wrong is named."""
import copy
import json
from pathlib import Path

import numpy as np
import pytest

from grpo import TokenizerError
from grpo.errors import ImageError
from grpo.model.chat import ChatTemplate
from grpo.model.tokenizer import Tokenizer
from grpo.vision.expand import IMG, IMG_END, IMG_PAD, collapse, expand, placed, prompt_ids, qwen_vl_ids, qwen_vl_slot
from grpo.vision.messages import described, description, given_images, images_of, normal, text_of
from grpo.vision.positions import rope_positions
from image_templates import JOINS, PASSES_OVER, PRINTS, QWEN2_VL, QWEN3_VL, TEXT_PARTS

VISION = ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>")
PIXEL = np.zeros((2, 3, 3), np.uint8)


def image(held=None):
    return {"type": "image"} if held is None else {"type": "image", "image": held}


def text(words):
    return {"type": "text", "text": words}


def user(content):
    return {"role": "user", "content": content}


@pytest.fixture
def tokenizer():
    made = Tokenizer.bytes(VISION)
    made.chat_template = QWEN3_VL
    return made


PAD = Tokenizer.bytes(VISION).encode("<|image_pad|>")[0]


# where images go
# ------------------------------------------------------------------------------------------------------

SYSTEM, ANSWER = {"role": "system", "content": "S"}, {"role": "assistant", "content": "A"}
SYSTEM_PARTS, ANSWER_PARTS = {**SYSTEM, "content": [text("S")]}, {**ANSWER, "content": [text("A")]}
TOOL, TOOL_PARTS = {"role": "tool", "content": "42"}, {"role": "tool", "content": [text("42")]}
PLACES = [
    # the rule for texts: before the first text of a user
    ([user("q")], ["a"], [user([image("a"), text("q")])]),
    ([user("q")], ["a", "b"], [user([image("a"), image("b"), text("q")])]),
    ([SYSTEM, user("q"), ANSWER, user("r")], ["a"],
     [SYSTEM_PARTS, user([image("a"), text("q")]), ANSWER_PARTS, user([text("r")])]),
    ([user("")], ["a"], [user([image("a"), text("")])]),
    ([SYSTEM_PARTS, user([text("p")]), user("q")], ["a"],
     [SYSTEM_PARTS, user([text("p")]), user([image("a"), text("q")])]),
    ([user([image("x")]), user("q")], ["a"], [user([image("x")]), user([image("a"), text("q")])]),
    # empty parts, in order, wherever they are
    ([user([image(), text("q")])], ["a"], [user([image("a"), text("q")])]),
    ([user([text("p"), image(), image()]), ANSWER, user([image(), text("q")])], ["a", "b", "c"],
     [user([text("p"), image("a"), image("b")]), ANSWER_PARTS, user([image("c"), text("q")])]),
    ([user("p"), ANSWER, user([image(), text("q")])], ["a"],
     [user([text("p")]), ANSWER_PARTS, user([image("a"), text("q")])]),
    # parts with an image keep it, and the others are filled
    ([user([image("x"), text("q")])], [], [user([image("x"), text("q")])]),
    ([user([image("x"), image(), text("q")])], ["a"], [user([image("x"), image("a"), text("q")])]),
    # a table has the same keys in every part
    ([user([{"type": "image", "text": None, "image": None}, {"type": "text", "text": "q", "image": None}])], ["a"],
     [user([image("a"), text("q")])]),
    # markers
    ([user("<image>q")], ["a"], [user([image("a"), text("q")])]),
    ([user("p<image> or <image>?")], ["a", "b"], [user([text("p"), image("a"), text(" or "), image("b"), text("?")])]),
    ([user("<image><image>")], ["a", "b"], [user([image("a"), image("b")])]),
    ([user([text("one <image>"), text("two")])], ["a"], [user([text("one "), image("a"), text("two")])]),
    ([{**SYSTEM, "content": "<image>"}, user("<image>q")], ["a"],
     [{**SYSTEM, "content": [text("<image>")]}, user([image("a"), text("q")])]),
    ([user("<image>p"), ANSWER, user("<image>q")], ["a", "b"],
     [user([image("a"), text("p")]), ANSWER_PARTS, user([image("b"), text("q")])]),
    # a marker is text where parts or nothing ask for the images
    ([user([image(), text("is <image> a tag?")])], ["a"], [user([image("a"), text("is <image> a tag?")])]),
    ([user([image("x"), text("is <image> a tag?")])], [], [user([image("x"), text("is <image> a tag?")])]),
    # tools
    ([user("q"), ANSWER, TOOL], ["a"], [user([image("a"), text("q")]), ANSWER_PARTS, TOOL_PARTS]),
    ([user("q"), {**TOOL, "content": [image("x")]}], ["a"],
     [user([image("a"), text("q")]), {**TOOL, "content": [image("x")]}]),
    ([user([image()]), {**TOOL, "content": [image("x"), text("t")]}, user([image()])], ["a", "b"],
     [user([image("a")]), {**TOOL, "content": [image("x"), text("t")]}, user([image("b")])]),
    ([user("q"), {"role": "assistant", "content": None, "tool_calls": [1]}, TOOL], ["a"],
     [user([image("a"), text("q")]), {"role": "assistant", "content": None, "tool_calls": [1]}, TOOL_PARTS]),
    # all ways to write an image
    ([user(["q", {"type": "image", "path": "a"}])], [], [user([text("q"), image("a")])]),
    ([user([{"type": "image", "url": "https://h/a.png"}])], [], [user([image("https://h/a.png")])]),
    ([user([{"type": "image", "bytes": b"a"}])], [], [user([image(b"a")])]),
    ([user([{"type": "image", "bytes": b"a", "path": "p"}])], [], [user([image({"bytes": b"a", "path": "p"})])]),
    ([user([{"type": "image", "base64": "YQ=="}])], [], [user([image("data:;base64,YQ==")])]),
    ([user([{"type": "image_url", "image_url": {"url": "https://h/a.png", "detail": "auto"}}])], [],
     [user([image("https://h/a.png")])]),
    ([user([{"type": "image_url", "image_url": "data:image/png;base64,YQ=="}])], [],
     [user([image("data:image/png;base64,YQ==")])]),
    ([user([{"type": "image", "url": "file:///tmp/a.png"}])], [], [user([image("file:///tmp/a.png")])]),
    ([user([{"image": "a"}, {"text": "q"}])], [], [user([image("a"), text("q")])]),
    # what else a text part has, a template may read
    ([user([{**text("q"), "weight": 2}, image("x")])], [], [user([{**text("q"), "weight": 2}, image("x")])]),
]


@pytest.mark.parametrize("messages, images, expected", PLACES)
def test_places(messages, images, expected):
    before = copy.deepcopy(messages)
    prompt, found = normal(messages, images)
    assert prompt == expected and messages == before
    assert found == images_of(expected)
    assert normal(prompt) == (prompt, found)              # normal form is its own


@pytest.mark.parametrize("prompt", [
    "2 + 2?", "an <image> tag", [1, 2, 3], [user("q")], [user("an <image> tag")], [user([text("q")])],
    [SYSTEM, user("q")], [user(["q"])], np.array([1, 2]), [], None])
def test_prompts_without_images_are_left_alone(prompt):
    found, images = normal(prompt)
    assert found is prompt and images == []


def test_images_are_not_touched():
    class Picture:
        def __getattr__(self, name):
            raise AssertionError(name)

    pictures = [Picture(), PIXEL, Path("a.png"), b"bytes", {"bytes": b"x", "path": None}]
    prompt, found = normal([user("q")], pictures)
    assert all(one is other for one, other in zip(found, pictures, strict=True))
    assert all(part["image"] is p for part, p in zip(prompt[0]["content"], pictures, strict=False))


@pytest.mark.parametrize("messages, images, message", [
    ([user([image(), text("q")])], [], "message 0 has an image part without an image, and the row has none"),
    ([user([image(), image()])], ["a"], "has 1 images, and its messages have 2 empty image parts"),
    ([user([image(), text("q")])], ["a", "b"], "has 2 images, and its messages have 1 empty image parts"),
    ([user("<image> and <image>")], ["a"], "has 1 images, and its messages have 2 markers <image>"),
    ([user("<image>")], ["a", "b"], "has 2 images, and its messages have 1 markers <image>"),
    ([user([text("q")])], ["a"], "has 1 images and no places for them: its messages have no part {'type': 'image'}"),
    ([user([image("x"), text("q")])], ["a"], "no places for them: its messages have 1 images of their own"),
    ([SYSTEM, ANSWER], ["a"], "no user's is a text to put them before"),
    ([user("q"), {**TOOL, "content": [image()]}], ["a"], "message 1 has an image part without an image"),
    ([user([{"type": "video", "video": "a.mp4"}])], [], "message 0, part 0 is video, which no model here takes"),
    ([user([text("q"), {"video": "a.mp4"}])], [], "message 0, part 1 is video"),
    ([user([{"type": "input_audio", "input_audio": {}}])], [], "is input_audio, which no model here takes"),
    ([user([{"type": "point", "x": 1}])], [], "message 0, part 0 is 'point'"),
    ([user([3])], [], "message 0, part 0 is 'int'"),
    ([user([{"type": "text"}])], [], "message 0, part 0 is text without a text"),
    ([user([{"type": "image", "image": "a", "path": "b"}])], [], "has its image in image and path"),
    ([user([{"type": "image", "image": "a", "max_pixels": 9}])], [], "has 'max_pixels', which nothing here reads"),
    ([user([{"type": "image_url", "image_url": {"url": "a", "detail": "low"}}])], [], "has 'detail'"),
    ([user("q"), "hi"], ["a"], "message 1 is str, not a dict"),
])
def test_wrong_places(messages, images, message):
    with pytest.raises(ImageError, match=f"^train_dataset: row 7.*{message}"):
        normal(messages, images, "train_dataset: row 7")


@pytest.mark.parametrize("row, expected", [
    ({}, []), ({"image": None}, []), ({"images": None}, []), ({"images": []}, []), ({"image": ""}, []),
    ({"image": "a.png"}, ["a.png"]), ({"image": None, "images": ["a", "b"]}, ["a", "b"]), ({"images": "a"}, ["a"]),
    ({"image": ["a", "b"]}, ["a", "b"]), ({"image": {"bytes": b"x", "path": None}}, [{"bytes": b"x", "path": None}]),
    ({"images": np.array(["a", "b"], object)}, ["a", "b"]),
])
def test_columns(row, expected):
    assert given_images(row) == expected


def test_an_array_is_an_image():
    assert given_images({"image": PIXEL})[0] is PIXEL
    assert [a.tolist() for a in given_images({"images": np.stack([PIXEL, PIXEL + 1])})] == [PIXEL.tolist(),
                                                                                            (PIXEL + 1).tolist()]


@pytest.mark.parametrize("row, message", [
    ({"image": "a", "images": ["b"]}, "images in both image and images"),
    ({"images": ["a", None]}, "None as its image 1"), ({"image": 3}, "'image' holds 3"),
    ({"images": [""]}, "'' as its image 0")])
def test_wrong_columns(row, message):
    with pytest.raises(ImageError, match=f"row 3.*{message}"):
        given_images(row, "row 3")


# for people
# -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("held, expected", [
    ("a/b.png", "a/b.png"), (Path("a.png"), "a.png"), (b"12345", "5 bytes"), ({"bytes": b"1", "path": None}, "1 bytes"),
    ({"bytes": b"1", "path": "a.png"}, "a.png"), (PIXEL, "2x3x3 ndarray"),
    ("data:image/png;base64,YQ==", "data URI of 26 characters"), ("x" * 500, "x" * 200)])
def test_records(held, expected):
    prompt, _ = normal([SYSTEM, user("q")], [held])
    record = described(prompt)
    assert json.loads(json.dumps(record)) == [SYSTEM_PARTS, user([image(expected), text("q")])]
    assert prompt[1]["content"][0]["image"] is held and description(held) == expected
    assert text_of(record[1]["content"]) == f"[image: {expected}] q"


@pytest.mark.parametrize("prompt", ["text", [1, 2], [user("q")]])
def test_records_of_other_prompts(prompt):
    assert described(prompt) == prompt


def test_text_of_other_contents():
    assert [text_of(c) for c in ("q", None, [image(), text("q")], ["q"])] == ["q", "", "[image] q", "q"]


# text and ids
# ---------------------------------------------------------------------------------------------------------

SLOT = "<|vision_start|><|image_pad|><|vision_end|>"


@pytest.mark.parametrize("words, count, expected", [
    ("q", 0, "q"), ("<image>", 0, "<image>"), ("q", 2, SLOT + SLOT + "q"),
    ("<image>q", 1, SLOT + "q"), ("<image><image>", 2, SLOT + SLOT),
    (SLOT + "q", 1, SLOT + "q"), ("<|image_pad|>q", 1, "<|image_pad|>q"), (SLOT + "<image>", 1, SLOT + "<image>")])
def test_places_in_text(words, count, expected):
    assert placed(words, count) == expected


@pytest.mark.parametrize("words, count", [("<image>", 2), ("<image><image>", 1), (SLOT, 0), (SLOT, 2),
                                          (SLOT + "<image>", 2)])
def test_wrong_places_in_text(words, count):
    with pytest.raises(ImageError, match=f"row 3: images: {count}, and its text has "):
        placed(words, count, "row 3")


@pytest.mark.parametrize("ids, counts, expected", [
    ([], [], []), ([1, 2], [], [1, 2]), ([9], [3], [9, 9, 9]), ([1, 9, 2], [1], [1, 9, 2]),
    ([9, 9], [2, 3], [9] * 5), ([1, 9, 2, 9, 3], [2, 4], [1, 9, 9, 2, 9, 9, 9, 9, 3])])
def test_expand(ids, counts, expected):
    found = expand(ids, counts, 9)
    assert found.tolist() == expected and found.dtype == np.int32
    shortened = [token for i, token in enumerate(ids) if token != 9 or i == 0 or ids[i - 1] != 9]
    assert collapse(found, 9).tolist() == shortened


@pytest.mark.parametrize("ids, counts, message", [
    ([9, 1, 9], [2], "row 3: 2 image placeholders .token 9. for 1 images"), ([1], [2], "0 image placeholders"),
    ([9], [], "1 image placeholders .token 9. for 0 images; take them out"), ([9], [0], "image 0 has 0 features")])
def test_expand_counts(ids, counts, message):
    with pytest.raises(ImageError, match=message):
        expand(ids, counts, 9, "row 3")


def test_ids_of_all_prompts(tokenizer):
    chat, _ = normal([user("<image>q")], ["a"])
    start, pad, end = (tokenizer.encode(token)[0] for token in VISION)
    head, tail = tokenizer.encode("<|im_start|>user\n"), tokenizer.encode("q<|im_end|>\n<|im_start|>assistant\n")
    slot = [start, pad, pad, pad, end]
    assert prompt_ids(tokenizer, chat, [3], PAD).tolist() == head + slot + tail
    assert tail[-11:] == tokenizer.encode("<|im_start|>assistant\n")
    assert prompt_ids(tokenizer, chat, [3], PAD, add_generation_prompt=False).tolist() == head + slot + tail[:-11]
    assert prompt_ids(tokenizer, "p<image>q", [3], PAD).tolist() == [112, *slot, 113]
    assert prompt_ids(tokenizer, [112, pad], [3], PAD).tolist() == [112, pad, pad, pad]
    assert prompt_ids(tokenizer, "an <image> tag", [], PAD).tolist() == tokenizer.encode("an <image> tag")


@pytest.mark.parametrize("messages, images", [
    ([user("what is <|image_pad|>?")], []), ([user("what is <|image_pad|>?")], ["a"]),
    ([user([image("a"), text(f"what is {SLOT}?")])], []), ([user("q"), {**TOOL, "content": SLOT}], ["a"])])
def test_a_placeholder_in_a_text_is_no_place(tokenizer, messages, images):
    prompt, found = normal(messages, images)
    with pytest.raises(ImageError, match=f"row 3: {len(found) + 1} image placeholders .* for {len(found)} images"):
        prompt_ids(tokenizer, prompt, [2] * len(found), PAD, "row 3")


# Qwen-VL and Qwen-VL-Chat


@pytest.mark.parametrize("path", ["a.png", "", "Käse.png", "x" * 254])
def test_qwen_vl_slot(path):
    ids, data = qwen_vl_slot(path).tolist(), list(path.encode())
    assert ids == [IMG, *data, *[IMG_PAD] * (256 - len(data)), IMG_END]


def test_qwen_vl_text():
    def encode(words):
        return list(words.encode())

    ids, paths = qwen_vl_ids("Picture 1:<img>a.png</img>\nPicture 2:<img>b</img>?", encode)
    assert paths == ["a.png", "b"]
    pieces = encode("Picture 1:"), qwen_vl_slot("a.png"), encode("\nPicture 2:"), qwen_vl_slot("b"), encode("?")
    assert ids.tolist() == np.concatenate(pieces).tolist()
    ids, paths = qwen_vl_ids("hi", encode)
    assert ids.tolist() == encode("hi") and paths == []


@pytest.mark.parametrize("words, message", [
    ("<img>" + "x" * 255 + "</img>", "has 255 bytes"), ("<img>a", "without the other"),
    ("a</img>", "without the other"), ("<img>a<img>b</img>", "<img> within <img>"), ("<imgpad>", "or <imgpad>")])
def test_wrong_qwen_vl_text(words, message):
    with pytest.raises(ImageError, match=f"row 3: .*{message}"):
        qwen_vl_ids(words, lambda piece: [], "row 3")


# positions
# ------------------------------------------------------------------------------------------------------------


def walked(ids, grids, merge):
    """Positions as the rule says them, one token after the other."""
    places, grids, p, i = [], list(grids), 0, 0
    while i < len(ids):
        if ids[i] != 9:
            places.append((p, p, p))
            p, i = p + 1, i + 1
            continue
        t, h, w = grids.pop(0)
        h, w = h // merge, w // merge
        places += [(p + a, p + b, p + c) for a in range(t) for b in range(h) for c in range(w)]
        p, i = p + max(h, w), i + t * h * w
    return np.array(places, np.int32).reshape(-1, 3).T


@pytest.mark.parametrize("merge", [1, 2, 3])
@pytest.mark.parametrize("grids", [[], [(1, 1, 1)], [(1, 2, 3)], [(1, 4, 1), (1, 1, 5)],
                                   [(2, 3, 2), (1, 7, 7), (1, 1, 1)]])
@pytest.mark.parametrize("between", [0, 1, 4])
def test_positions(grids, merge, between):
    grids = [(t, h * merge, w * merge) for t, h, w in grids]
    ids = [1] * between
    for t, h, w in grids:
        ids += [9] * (t * h * w // merge**2) + [1] * between
    positions, after = rope_positions(ids, grids, 9, merge)
    expected = walked(ids, grids, merge)
    assert positions.dtype == np.int32 and positions.shape == (3, len(ids))
    np.testing.assert_array_equal(positions, expected)
    assert after == (expected.max() + 1 if len(ids) else 0)


@pytest.mark.parametrize("ids, grids, message", [
    ([9], [], r" has 1 image tokens \(token 9\), and its 0 images have 0: none"),
    ([1], [(1, 2, 2)], "has 0 image tokens .* its 1 images have 1: 1"),
    ([9] * 5, [(1, 4, 4)], "has 5 image tokens .* have 4: 4"),
    ([9, 9, 1, 9, 9, 9, 9, 9], [(1, 2, 6), (1, 4, 4)], "image 0 has 3 tokens, and the run"),
    ([9], [(1, 2, 3)], r"a grid of \[1, 2, 3\] patches cannot be merged 2 x 2"),
    ([9], [(0, 2, 2)], r"a grid of \[0, 2, 2\]"), ([8], [], r"video placeholders \(token 8\)")])
def test_wrong_positions(ids, grids, message):
    with pytest.raises(ImageError, match=f"row 3.*{message}"):
        rope_positions(ids, grids, 9, 2, video_token_id=8, where="row 3")


# chat templates
# -------------------------------------------------------------------------------------------------------

WITH_IMAGE, WITH_TEXT = [user([image("a"), text("q")])], [user([text("q")])]


@pytest.mark.parametrize("template", [QWEN2_VL, QWEN3_VL])
@pytest.mark.parametrize("part", [image(PIXEL), image(object()), {"type": "image_url", "image_url": "a"},
                                  {"image": "a"}, {"type": "image", "text": None, "image": lambda: None}])
def test_a_template_sees_that_there_is_an_image(tokenizer, template, part):
    tokenizer.chat_template = template
    found = tokenizer.apply_chat_template([user([part, {"type": "text", "text": "q", "image": None}, "r"])])
    assert found.endswith(f"<|im_start|>user\n{SLOT}qr<|im_end|>\n<|im_start|>assistant\n")
    assert found.startswith("<|im_start|>system" if template == QWEN2_VL else "<|im_start|>user")


def test_a_template_sees_no_image_object():
    template = ChatTemplate("{% for m in messages %}{% for p in m.content %}({{ p | list | join }}){{ p.text }}"
                            "{% endfor %}{% endfor %}", "here")
    assert template.render([user([image(PIXEL), text("q")])]) == "(type)(typetext)q"


@pytest.mark.parametrize("template", [JOINS, PRINTS, PASSES_OVER, TEXT_PARTS])
def test_templates_that_would_pass_over_images(tokenizer, template):
    tokenizer.chat_template = template
    for _ in range(2):
        with pytest.raises(TokenizerError, match="message 0.*image"):
            tokenizer.apply_chat_template(WITH_IMAGE)
    assert tokenizer.apply_chat_template([user("q")])      # texts are as welcome as before


@pytest.mark.parametrize("template", [JOINS, PRINTS, PASSES_OVER])
def test_templates_of_texts(tokenizer, template):
    tokenizer.chat_template = template
    assert tokenizer.apply_chat_template(WITH_TEXT) == tokenizer.apply_chat_template([user("q")])
    assert tokenizer.apply_chat_template([user([])]) == tokenizer.apply_chat_template([user("")])


def test_a_template_of_text_parts(tokenizer):
    tokenizer.chat_template = TEXT_PARTS
    assert tokenizer.apply_chat_template(WITH_TEXT) == "<user>q"


def test_a_part_that_is_none(tokenizer):
    with pytest.raises(TokenizerError, match="a part of a message is int"):
        tokenizer.apply_chat_template([user([3])])
