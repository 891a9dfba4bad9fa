"""One conversation and its images, in whatever form they come, as messages in normal form.

Normal form: a message that shows an image has a list of parts as its content; an image part is {"type": "image",
"image": X}, where X is what was given, untouched: a path, a URL, bytes, a dict of bytes and path, a picture, an array.
Nothing is opened or decoded here. A prompt without images is left as it is.
"""
from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ImageError
from .drawn import Drawn

COLUMNS = ("image", "images")                # of a row: one image, or a list of them
MARKER = "<image>"                           # in a text: an image goes here
SOURCES = ("image", "path", "url", "bytes", "base64")    # keys of an image part, one of which holds the image
NEVER_FILLED = ("tool", "function")          # roles whose empty image parts are not meant for a row's images
UNSEEN_PARTS = ("video", "video_url", "audio", "input_audio")
MAX_SHOWN = 200                              # characters of a path in a record


def normal(prompt: Any, images: Sequence[Any] = (), where: str = "the prompt") -> tuple[Any, list[Any]]:
    """(the prompt in normal form, its images in the order of their places).

    images: those that the prompt itself does not hold, such as a row's column. They fill, in order, the empty image
    parts {"type": "image"}; where there are none, the markers <image> in the texts of users; where there are none of
    these either, they go before the first message of a user that is a text, as in TRL. A prompt of text or token ids
    stays as it is, with the images beside it (see expand.placed). where: names the prompt in errors. ImageError where
    numbers differ, or a part is not text or an image.

    >>> prompt, images = normal([{"role": "user", "content": "What is this?"}], ["cat.png"])
    >>> prompt[0]["content"]
    [{'type': 'image', 'image': 'cat.png'}, {'type': 'text', 'text': 'What is this?'}]
    """
    given = list(images)
    if not is_chat(prompt):
        return prompt, given
    messages = [_with_parts(message, f"{where}: message {i}") for i, message in enumerate(prompt)]
    if given:
        _fill(messages, given, where)
    for i, message in enumerate(messages):
        if any("image" not in part for part in _image_parts(message)):
            raise ImageError(f"{where}: message {i} has an image part without an image" +
                             ("" if given else ", and the row has none to fill it"))
    found = images_of(messages)
    return ([_all_parts(message) for message in messages], found) if found else (prompt, [])


def images_of(prompt: Any) -> list[Any]:
    """The images that messages in normal form hold, in their order."""
    return [part["image"] for message in prompt for part in _image_parts(message)] if is_chat(prompt) else []


def without_images(prompt: Any) -> Any:
    """Messages with their texts alone."""
    if not is_chat(prompt):
        return prompt
    return [{**message, "content": [part for part in content if _kind(part) != "image"]}
            if isinstance(content := message.get("content"), list) else message for message in prompt]


def shows_images(prompt: Any) -> bool:
    """Whether messages, in whatever form, have parts that are images."""
    return is_chat(prompt) and any(True for message in prompt if isinstance(message, Mapping)
                                   for _ in _image_parts(message))


def given_images(row: Mapping[str, Any], where: str = "the row") -> list[Any]:
    """What a row's columns image and images hold: none for None, an empty text or an empty list."""
    held = [name for name in COLUMNS if not is_nothing(row.get(name))]
    if len(held) > 1:
        raise ImageError(f"{where} has images in both {' and '.join(held)}; give one of the columns")
    if not held:
        return []
    value = row[held[0]]
    found = list(value) if is_list(value) else [value]
    for i, image in enumerate(found):
        if is_nothing(image) or isinstance(image, (bool, int, float, complex)):
            raise ImageError(f"{where}: {held[0]!r} holds {image!r:.60} as its image {i}")
    return found


def is_nothing(value: Any) -> bool:
    """Whether a column has no image in a row: None, an empty text, an empty list."""
    return value is None or isinstance(value, (str, bytes, list, tuple)) and not value


def is_list(images: Any) -> bool:
    """Whether it is several images: a list, an array of them, or a list as pandas has it."""
    return isinstance(images, (list, tuple)) or (isinstance(images, np.ndarray)
                                                 and (images.ndim == 4 or images.dtype == object))


def is_chat(prompt: Any) -> bool:
    """Whether a prompt is a list of messages; else it is text or token ids."""
    return (isinstance(prompt, Sequence) and not isinstance(prompt, (str, bytes)) and bool(prompt)
            and isinstance(prompt[0], Mapping))


def described(prompt: Any) -> Any:
    """The prompt for a record: a short text stands for each image, and all else is as it was."""
    if not is_chat(prompt):
        return prompt
    return [{**message, "content": [{"type": "image", "image": description(_held(part))} if _kind(part) == "image"
                                    else part for part in content]}
            if isinstance(content := message.get("content"), list) else message for message in prompt]


def description(image: Any) -> str:
    """A short text for an image: its path, its bytes in number, or its size."""
    if isinstance(image, (str, os.PathLike)):
        text = str(image)
        return f"data URI of {len(text)} characters" if text[:5].lower() == "data:" else text[:MAX_SHOWN]
    if isinstance(image, Mapping):
        return description(next((image[key] for key in ("path", "bytes") if image.get(key)), None))
    if isinstance(image, (bytes, bytearray, memoryview)):
        return f"{len(image)} bytes"
    if isinstance(image, Drawn):
        return f"drawn, {image.height}x{image.width}"
    size = getattr(image, "shape", None) or getattr(image, "size", None)
    shape = "x".join(map(str, size)) + " " if isinstance(size, tuple) else ""
    return f"{shape}{type(image).__name__}"


def text_of(content: Any) -> str:
    """A message's content as one text, for people: [image] or [image: cat.png] where one is shown."""
    if not isinstance(content, (list, tuple)):
        return "" if content is None else str(content)
    texts = []
    for part in content:
        if _kind(part) == "image":
            held = _held(part)
            texts.append(f"[image: {description(held)}]" if held is not None else "[image]")
        else:
            texts.append(str(part.get("text", "")) if isinstance(part, Mapping) else str(part))
    return " ".join(text for text in texts if text)


def question_of(prompt: Any) -> str | None:
    """What a prompt asks: the last message of its user, or the text that it is; None for token ids.

    >>> question_of([{"role": "user", "content": "How many?"}, {"role": "assistant", "content": "<think>"}])
    'How many?'
    """
    if isinstance(prompt, str):
        return prompt
    asked = [m for m in prompt if m.get("role") == "user"] if is_chat(prompt) else []
    return text_of(asked[-1].get("content")) if asked else None


def begun(prompt: Any) -> str:
    """The beginning of the answer with which a prompt ends, which a completion goes on from; mostly nothing.

    >>> begun([{"role": "user", "content": "How many?"}, {"role": "assistant", "content": "<think>"}])
    '<think>'
    """
    return text_of(prompt[-1]["content"]) if is_chat(prompt) and prompt[-1].get("role") == "assistant" else ""


def _kind(part: Any) -> str:
    """"text", "image", or the name of what is neither. A table gives every part the same keys, with None in some."""
    if isinstance(part, str):
        return "text"
    if not isinstance(part, Mapping):
        return type(part).__name__
    kind = part.get("type")
    if kind is None:
        kind = next((key for key in ("image", "image_url", *UNSEEN_PARTS, "text") if part.get(key) is not None), "part")
    return "image" if kind == "image_url" else str(kind)


def _held(part: Mapping[str, Any]) -> Any:
    """The image of an image part, or None."""
    return next((part[key] for key in (*SOURCES, "image_url") if part.get(key) is not None), None)


def _image_parts(message: Mapping[str, Any]) -> Iterator[Any]:
    content = message.get("content")
    return (part for part in content if _kind(part) == "image") if isinstance(content, list) else iter(())


def _with_parts(message: Any, where: str) -> dict[str, Any]:
    """A copy of a message, whose parts, where it has them, are text, or images with their image under that key."""
    if not isinstance(message, Mapping):
        raise ImageError(f"{where} is {type(message).__name__}, not a dict with a role and a content")
    content = message.get("content")
    if not isinstance(content, (list, tuple)):
        return dict(message)
    return {**message, "content": [_part(part, f"{where}, part {i}") for i, part in enumerate(content)]}


def _part(part: Any, where: str) -> dict[str, Any]:
    kind = _kind(part)
    if kind == "image":
        return _image_part(part, where)
    if kind in UNSEEN_PARTS:
        raise ImageError(f"{where} is {kind}, which no model here takes; parts are text and images")
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not isinstance(part, Mapping) or kind != "text":
        raise ImageError(f"{where} is {kind!r:.60}; parts are {{'type': 'text', 'text': ...}} and {{'type': 'image', "
                         "'image': ...}")
    if not isinstance(part.get("text"), str):
        raise ImageError(f"{where} is text without a text: {dict(part)!r:.80}")
    return {"type": "text", **{key: value for key, value in part.items() if value is not None}}


def _image_part(part: Mapping[str, Any], where: str) -> dict[str, Any]:
    held = {key: value for key, value in part.items() if value is not None and key != "type"}
    if isinstance(url := held.get("image_url"), Mapping):             # as OpenAI has it
        held.pop("image_url")
        held |= {key: value for key, value in url.items() if value is not None}
    elif url is not None:
        held["url"] = held.pop("image_url")
    if held.get("detail") == "auto":
        del held["detail"]
    if unknown := [key for key in held if key not in SOURCES]:
        raise ImageError(f"{where}: an image part has {', '.join(map(repr, unknown))}, which nothing here reads; it "
                         f"has one of {', '.join(SOURCES)}")
    if held.keys() == {"bytes", "path"}:                              # as tables have it: one image
        return {"type": "image", "image": held}
    if len(held) > 1:
        raise ImageError(f"{where} has its image in {' and '.join(held)}; give one of them")
    if not held:
        return {"type": "image"}
    key, value = held.popitem()
    return {"type": "image", "image": f"data:;base64,{value}" if key == "base64" else value}


def _texts(content: Any) -> list[str]:
    """The texts of a message's content."""
    if isinstance(content, list):
        return [part["text"] for part in content if part["type"] == "text"]
    return [content] if isinstance(content, str) else []


def _fill(messages: list[dict[str, Any]], given: list[Any], where: str) -> None:
    """Puts the given images in their places. ImageError where there are none, or not as many as images."""
    fillable = [message for message in messages if message.get("role") not in NEVER_FILLED]
    users = [message for message in messages if message.get("role") == "user"]
    empty = [part for message in fillable for part in _image_parts(message) if "image" not in part]
    marked = sum(text.count(MARKER) for message in users for text in _texts(message.get("content")))
    count = len(empty) or marked
    if count and count != len(given):
        raise ImageError(f"{where} has {len(given)} images, and its messages have {count} "
                         f"{'empty image parts' if empty else 'markers ' + MARKER}; each is the place of one")
    if empty:
        for part, image in zip(empty, given, strict=True):
            part["image"] = image
    elif marked:
        waiting = iter(given)
        for message in users:
            message["content"] = [part for part in _all_parts(message)["content"] or []
                                  for part in _split_at_markers(part, waiting)]
    elif first := next((message for message in users if isinstance(message.get("content"), str)), None):
        first["content"] = [*({"type": "image", "image": image} for image in given), *_all_parts(first)["content"]]
    else:
        own = len(images_of(messages))
        raise ImageError(f"{where} has {len(given)} images and no places for them: its messages have " +
                         (f"{own} images of their own" if own else "no part {'type': 'image'}") +
                         ", and no user's is a text to put them before")


def _split_at_markers(part: dict[str, Any], images: Iterator[Any]) -> list[dict[str, Any]]:
    """The part, or where it is a text with markers its pieces and the images between them."""
    if part["type"] != "text" or MARKER not in part["text"]:
        return [part]
    first, *others = part["text"].split(MARKER)
    pieces = [{**part, "text": first}]
    for text in others:
        pieces += [{"type": "image", "image": next(images)}, {**part, "text": text}]
    return [piece for piece in pieces if piece["type"] == "image" or piece["text"]]


def _all_parts(message: dict[str, Any]) -> dict[str, Any]:
    """The message with its text as a part, as templates of models with images may want it."""
    content = message.get("content")
    return {**message, "content": [{"type": "text", "text": content}]} if isinstance(content, str) else message
