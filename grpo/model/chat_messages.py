"""Messages as a chat template is given them: plain values, images as placeholders, reasoning under the names that
templates read, and parts joined for a template that takes texts."""
from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import TokenizerError

REASONING = ("reasoning_content", "thinking", "reasoning")           # what a message's reasoning is called; best first
MAX_DEPTH = 100


def plain_message(message: Mapping[str, Any], number: int = 0) -> dict[str, Any]:
    """The message as plain values: without what a table adds to rows that lack it (None), every image part as
    {"type": "image"}, whatever it holds, and reasoning under each of its names. An assistant's calls without words
    keep their content, None.

    >>> plain_message({"role": "user", "content": [{"type": "text", "text": "q", "image": None}], "name": None})
    {'role': 'user', 'content': [{'type': 'text', 'text': 'q'}]}
    """
    found = {name: value for name, value in message.items() if value is not None}
    if isinstance(found.get("content"), (list, tuple)):
        found["content"] = [_plain_part(part) for part in found["content"]]
    found = plain(found, f"message {number}")
    reasoning = next((found[name] for name in REASONING if name in found), None)
    if reasoning is not None:
        found = {"thinking": reasoning, **found, "reasoning_content": reasoning}
    if "content" in message and message["content"] is None and found.get("tool_calls"):
        found["content"] = None
    return found


def plain(value: Any, where: str, depth: int = 0) -> Any:
    """The value out of dicts, lists, tuples, texts, numbers and None alone. TokenizerError for anything else."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if depth > MAX_DEPTH:
        raise TokenizerError(f"{where} is nested deeper than {MAX_DEPTH}")
    if isinstance(value, Mapping):
        return {plain(key, where, depth + 1): plain(item, where, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        made = [plain(item, where, depth + 1) for item in value]
        return tuple(made) if isinstance(value, tuple) else made
    if isinstance(value, (np.generic, np.ndarray)):
        return plain(value.tolist(), where, depth + 1) if value.dtype != object else _refuse(value, where)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, numbers.Real):
        return int.__int__(value) if isinstance(value, int) else float(value)
    return _refuse(value, where)


def _refuse(value: Any, where: str) -> Any:
    raise TokenizerError(f"{where}: what a chat template is given must be plain values (texts, numbers, lists, dicts), "
                         f"not {type(value).__name__}")


def _plain_part(part: Any) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not isinstance(part, Mapping):
        raise TokenizerError(f"a part of a message is {type(part).__name__}, not a dict with a type")
    held = {name: value for name, value in part.items() if value is not None}
    kind = held.get("type", next((name for name in ("image", "image_url", "text") if name in held), None))
    if kind in ("image", "image_url"):
        return {"type": "image"}
    return {"type": kind, **held} if kind is not None else held


def shows_images(message: Mapping[str, Any]) -> bool:
    """Whether a plain message has parts that are images."""
    content = message.get("content")
    return isinstance(content, list) and any(part.get("type") == "image" for part in content)


def joined(message: Mapping[str, Any], number: int, origin: str) -> dict[str, Any]:
    """The plain message with its parts as one text, as templates that know parts print them: one after another.
    TokenizerError that names a part which is no text.

    >>> joined({"role": "user", "content": [{"type": "text", "text": "2 + 2"}, {"type": "text", "text": "?"}]}, 0, "t")
    {'role': 'user', 'content': '2 + 2?'}
    """
    texts = []
    for i, part in enumerate(message["content"]):
        if part.get("type") != "text" or not isinstance(part.get("text"), str):
            kind = part.get("type")
            what = "is an image" if kind == "image" else f"is of type {kind!r:.40}" if kind != "text" else "has no text"
            raise TokenizerError(f"{origin}: message {number}: part {i} {what}, and the chat template takes the "
                                 f"content of messages of {message.get('role')!r:.40} as text")
        texts.append(part["text"])
    return {**message, "content": "".join(texts)}


def without_silent_calls(messages: Sequence[Mapping[str, Any]], content: Any) -> list[dict[str, Any]]:
    """The messages with a content in place of None; Ellipsis: with none at all."""
    return [{name: (value if name != "content" or value is not None else content) for name, value in message.items()
             if content is not ... or name != "content" or value is not None} for message in messages]
