"""What a tokenizer.json may ask of the `tokenizers` library, which does what it is told until memory runs out.

Checked before the library sees the file: how many values it holds, by how much its steps may lengthen a text, and
regular expressions that take exponential time. Vocabulary and merges are left to the library.
"""
from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator
from typing import Any

from ...errors import TokenizerError

MAX_VALUES = 6 << 20                                     # of the whole file: 262,144 tokens with merges have 2 million
MAX_GROWTH = 256                                         # of a text, in bytes: a space that becomes "▁" grows by 3
MAX_DEPTH = 32
MAX_STEPS = 256                                          # of all lists of steps together
MAX_PIECES = 64                                          # of a template, and ids of one of its special tokens
TEXT_STEPS, TOKEN_STEPS = ("normalizer", "pre_tokenizer"), ("decoder",)


def check(data: bytes, source: str) -> None:
    """TokenizerError that names what the file asks too much of."""
    if data.count(b",") + data.count(b"[") + data.count(b"{") > MAX_VALUES:
        raise TokenizerError(f"{source}: holds more than {MAX_VALUES} values")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"{source}: not a tokenizer: {error!s:.200}") from error
    if not isinstance(content, dict):
        raise TokenizerError(f"{source}: not a tokenizer: holds a JSON {type(content).__name__}")
    for names in (TEXT_STEPS, TOKEN_STEPS):
        steps = [step for name in names for step in _objects(content.get(name), source)]
        growth = 1.0
        for step in steps:
            growth *= max(1.0, _growth(step))
        if len(steps) > MAX_STEPS or growth > MAX_GROWTH:
            raise TokenizerError(f"{source}: {' and '.join(names)} of {len(steps)} parts may make a text {growth:.3g} "
                                 f"times as long; the limits are {MAX_STEPS} and {MAX_GROWTH}")
        for regex in (step["Regex"] for step in steps if isinstance(step.get("Regex"), str)):
            if backtracks(regex):
                raise TokenizerError(f"{source}: regular expression {regex!r:.100} repeats what itself repeats, which "
                                     "may take exponential time")
    _check_templates(content.get("post_processor"), source)


def _objects(node: Any, source: str) -> Iterator[dict[str, Any]]:
    """Every object in a JSON value."""
    pending = [(node, 1)]
    while pending:
        node, depth = pending.pop()
        if depth > MAX_DEPTH:
            raise TokenizerError(f"{source}: nested deeper than {MAX_DEPTH}")
        if isinstance(node, dict):
            yield node
        if isinstance(node, (dict, list)):
            pending += [(child, depth + 1) for child in (node.values() if isinstance(node, dict) else node)]


def _growth(step: dict[str, Any]) -> float:
    """By how much one step of normaliser, pre-tokenizer or decoder may lengthen a text, in bytes."""
    kind = step.get("type")
    if kind == "ByteLevel":
        return 2
    if kind == "Metaspace":
        return 3
    if kind == "Prepend":
        return 1 + _bytes(step.get("prepend")) / 16
    if kind == "Precompiled":
        return _longest_of_charsmap(step.get("precompiled_charsmap")) / 16
    if kind == "Replace":
        pattern = step.get("pattern")
        replaced = _bytes(pattern.get("String")) if isinstance(pattern, dict) else 0
        return _bytes(step.get("content")) / replaced if replaced else 1 + _bytes(step.get("content"))
    return max((_bytes(step.get(name)) / 16 for name in ("prefix", "suffix", "replacement")), default=0)


def _bytes(text: Any) -> int:
    return len(text.encode("utf-8", "surrogatepass")) if isinstance(text, str) else 0


def _longest_of_charsmap(text: Any) -> int:
    """SentencePiece's map: the size of a trie, the trie, then the texts that characters become, each ended by NUL."""
    try:
        data = base64.b64decode(text or "", validate=True)
    except (binascii.Error, TypeError, ValueError):
        return 0                                         # the library refuses it
    return max(map(len, data[4 + int.from_bytes(data[:4], "little"):].split(b"\0")))


def _check_templates(node: Any, source: str) -> None:
    copies = 1
    for step in _objects(node, source):
        for name in ("single", "pair", "ids", "tokens"):
            pieces = step.get(name)
            if isinstance(pieces, list) and len(pieces) > MAX_PIECES:
                raise TokenizerError(f"{source}: post_processor: {name} of {len(pieces)} pieces is over the limit of "
                                     f"{MAX_PIECES}")
        single = step.get("single")
        if isinstance(single, list):
            copies *= max(1, sum(isinstance(piece, dict) and "Sequence" in piece for piece in single))
    if copies > MAX_PIECES:
        raise TokenizerError(f"{source}: post_processor repeats a text {copies} times; the limit is {MAX_PIECES}")


_REGEX_PARTS = re.compile(r"\\.|\[\^?\]?|\(\?#[^)]*\)|\(|\)|[*+]|\{\d*,?\d*\}|\?|.", re.DOTALL)


def backtracks(regex: str) -> bool:
    r"""Whether an unbounded repetition holds another repetition of no fixed length.

    >>> backtracks(r"(a+)+$"), backtracks(r"\p{N}{1,3}(?=(?:\p{N}{3})*$)|\s*[\r\n]+|[(a+)+]+")
    (True, False)
    """
    groups, brackets = [False], 0            # for each open group: whether it holds a repetition; depth of a class
    closed = before = False                  # whether the last part was a group with a repetition in it; was a part
    for part in _REGEX_PARTS.findall(regex):
        if brackets or part[0] == "[":
            brackets += (part[0] == "[") - (part == "]")
            closed, before = False, not brackets
        elif part == "(":
            groups.append(False)
            before = False
        elif part == ")":
            closed, before = groups.pop() if len(groups) > 1 else False, True
            groups[-1] |= closed
        elif before and (part in "*+?" or part[0] == "{" and len(part) > 2 and not part[1:-1].isdigit()):
            low, comma, high = part[1:-1].partition(",")
            unbounded = part in "*+" or comma and (not high or int(high) > MAX_PIECES)
            if unbounded and closed:
                return True
            groups[-1] = True
            closed, before = False, False    # what follows makes it lazy or possessive
        elif part[0] == "{" and before:
            pass                             # a fixed number of times
        else:
            closed, before = False, True
    return False
