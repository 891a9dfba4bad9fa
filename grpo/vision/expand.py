"""Image slots in text and in token ids: one placeholder an image in what a chat template renders, as many as the image
has features in what the model is given."""
from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError
from .messages import MARKER, is_chat

I32 = NDArray[np.int32]

PLACEHOLDER = "<|image_pad|>"                # of Qwen2-VL and later
SLOT = "<|vision_start|><|image_pad|><|vision_end|>"
# Qwen-VL and Qwen-VL-Chat: <img>, </img>, <imgpad>; ids between the first two, an image's features and its path alike
IMG, IMG_END, IMG_PAD = 151857, 151858, 151859
IMG_TAG = re.compile(r"<img>(.*?)</img>", re.DOTALL)
IMG_PLACEHOLDER = "<imgpad>"                 # in place of a path: an image that is given beside the text
IMG_IDS, MAX_PATH = 256, 254                 # a longer path is misread by the model's own code


def placed(text: str, count: int, where: str = "the prompt", *, placeholder: str = PLACEHOLDER,
           slot: str = SLOT) -> str:
    """A prompt of plain text with a slot for each of its images: the placeholders that it holds already, else a slot in
    the place of each marker <image>, else slots before the text. Without images, markers are text. ImageError where
    numbers differ.

    >>> placed("<image>A cat, or not?", 1)
    '<|vision_start|><|image_pad|><|vision_end|>A cat, or not?'
    """
    held, marked = text.count(placeholder), text.count(MARKER)
    if held == count and (held or not count):
        return text
    if not held and marked == count:
        return text.replace(MARKER, slot)
    if not held and not marked:
        return slot * count + text
    found = f"{held} times {placeholder}" if held else f"{marked} times {MARKER}"
    raise ImageError(f"{where}: images: {count}, and its text has {found}")


def expand(ids: Sequence[int] | I32, counts: Sequence[int], image_token_id: int, where: str = "the prompt") -> I32:
    """Ids with the k-th placeholder repeated counts[k] times. ImageError where there are not as many placeholders as
    counts: a text with the placeholder written out in it is no place of an image.

    >>> expand([7, 5, 8, 5], [3, 1], image_token_id=5).tolist()
    [7, 5, 5, 5, 8, 5]
    """
    ids = np.asarray(ids, np.int32)
    slots = ids == image_token_id
    if (held := int(slots.sum())) != len(counts):
        more = "; one more is written out in a text, or a part is not shown by the chat template" if len(counts) else \
            "; take them out of its text"
        raise ImageError(f"{where}: {held} image placeholders (token {image_token_id}) for {len(counts)} images{more}")
    if len(counts) and min(counts) < 1:
        raise ImageError(f"{where}: image {int(np.argmin(counts))} has {min(counts)} features")
    repeats = np.ones(len(ids), np.int64)
    repeats[slots] = counts
    return np.repeat(ids, repeats)


def prompt_ids(tokenizer: Any, prompt: Any, counts: Sequence[int], image_token_id: int, where: str = "the prompt", *,
               placeholder: str = PLACEHOLDER, slot: str = SLOT, **variables: Any) -> I32:
    """Ids of a prompt in the normal form of messages.py: of messages through the tokenizer's chat template, which gets
    variables, of text with its markers as slots, or ids as they are; its placeholders repeated by counts, the features
    of its images in their order."""
    if isinstance(prompt, str):
        text = placed(prompt, len(counts), where, placeholder=placeholder, slot=slot)
        prompt = tokenizer.encode(text, add_special_tokens=True)
    elif is_chat(prompt):
        prompt = tokenizer.apply_chat_template(prompt, tokenize=True, **variables)
    return expand(prompt, counts, image_token_id, where)


def collapse(ids: Sequence[int] | I32, image_token_id: int) -> I32:
    """Ids for people to read: every run of the placeholder as one.

    >>> collapse([7, 5, 5, 5, 8, 5], image_token_id=5).tolist()
    [7, 5, 8, 5]
    """
    ids = np.asarray(ids, np.int32)
    slots = ids == image_token_id
    return ids[~(slots & np.concatenate([[False], slots[:-1]]))]


def qwen_vl_slot(path: str, where: str = "the prompt", img: int = IMG) -> I32:
    """The ids of an image of Qwen-VL and Qwen-VL-Chat: <img>, its path's bytes as ids, padding, </img>. img: the first
    of the three special ids, which follow each other.

    >>> qwen_vl_slot("a.png")[:7].tolist(), len(qwen_vl_slot("a.png"))
    ([151857, 97, 46, 112, 110, 103, 151859], 258)
    """
    data = path.encode()
    if len(data) > MAX_PATH:
        raise ImageError(f"{where}: the image path {path[:60]!r}... has {len(data)} bytes; a prompt of this model has "
                         f"room for {MAX_PATH}")
    inner = np.full(IMG_IDS, img + IMG_PAD - IMG, np.int32)
    inner[:len(data)] = np.frombuffer(data, np.uint8)
    return np.concatenate([[img], inner, [img + IMG_END - IMG]], dtype=np.int32)


def qwen_vl_places(ids: Sequence[int] | I32, count: int, where: str = "the prompt", img: int = IMG) -> I32:
    """Where the features of count images stand in ids: the 256 places after each <img>. ImageError where there are not
    as many images, or </img> does not follow.

    >>> qwen_vl_places(qwen_vl_slot("a.png"), 1)[[0, -1]].tolist()
    [1, 256]
    """
    ids = np.asarray(ids, np.int32)
    begins, ends = np.flatnonzero(ids == img), np.flatnonzero(ids == img + IMG_END - IMG)
    if len(begins) != len(ends) or (ends - begins != IMG_IDS + 1).any():
        raise ImageError(f"{where}: its ids have <img> (token {img}) that is not followed by {IMG_IDS} ids and </img>")
    if len(begins) != count:
        raise ImageError(f"{where}: its ids have {len(begins)} places of images for {count} images")
    return (begins[:, None] + np.arange(1, IMG_IDS + 1)).reshape(-1).astype(np.int32)


def qwen_vl_ids(text: str, encode: Callable[[str], Sequence[int]], where: str = "the prompt",
                img: int = IMG) -> tuple[I32, list[str]]:
    """(ids, paths) of a text with images as Qwen-VL and Qwen-VL-Chat write them, <img>PATH</img>. encode: ids of a text
    without images, such as Tokenizer.encode. img: as of `qwen_vl_slot`."""
    pieces = IMG_TAG.split(text)
    if any(tag in piece for piece in pieces[::2] for tag in ("<img>", "</img>", "<imgpad>")):
        raise ImageError(f"{where}: its text has <img> or </img> without the other, or <imgpad>")
    if any("<img>" in path for path in pieces[1::2]):
        raise ImageError(f"{where}: its text has <img> within <img>")
    ids = [qwen_vl_slot(piece, where, img) if i % 2 else np.asarray(encode(piece), np.int32)
           for i, piece in enumerate(pieces)]
    return np.concatenate(ids), pieces[1::2]
