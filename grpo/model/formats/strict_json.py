"""JSON from files that nobody vouches for: size, depth, duplicate keys, NaN and broken text are errors with the file's
name."""
from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from ...errors import FileFormatError
from .stand_ins import LONGEST, refuse_stand_in

MAX_BYTES = 16 << 20
MAX_DEPTH = 64


def read_bytes(path: Path, limit: int) -> bytes:
    """The whole file, at most ``limit`` bytes of it."""
    try:
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(data) > limit:
        raise FileFormatError(f"{path}: larger than the limit of {limit} bytes")
    refuse_stand_in(data[:LONGEST], path)
    return data


def read_object(path: Path, limit: int = MAX_BYTES) -> dict[str, Any]:
    """The JSON object in a file, checked all the way down."""
    value = parse_object(read_bytes(path, limit), str(path))
    _check(value, str(path))
    return value


def parse_checked(data: bytes, source: str) -> Any:
    """A JSON value, checked all the way down."""
    value = parse(data, source)
    _check(value, source)
    return value


def parse_object(data: bytes, source: str) -> dict[str, Any]:
    """A JSON object; UTF-8, no duplicate keys, no NaN. Its depth and strings are left to the caller (or to
    `read_object`)."""
    value = parse(data, source)
    if not isinstance(value, dict):
        raise FileFormatError(f"{source}: holds a JSON {type(value).__name__}, not an object")
    return value


def parse(data: bytes, source: str) -> Any:
    """A JSON value; UTF-8, no duplicate keys, no NaN."""
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(items)
        if len(value) != len(items):
            keys = [key for key, _ in items]
            raise FileFormatError(f"{source}: key {next(k for k in keys if keys.count(k) > 1)!r:.100} appears twice")
        return value

    def constant(name: str) -> None:
        raise FileFormatError(f"{source}: {name} is not a JSON number")

    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=pairs, parse_constant=constant)
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{source}: not UTF-8 at byte {error.start}") from error
    except RecursionError as error:
        raise FileFormatError(f"{source}: JSON nested too deeply") from error
    except FileFormatError:
        raise
    except ValueError as error:
        raise FileFormatError(f"{source}: not JSON: {error}") from error


def _check(value: Any, source: str) -> None:
    pending = [(value, 1)]
    while pending:
        node, depth = pending.pop()
        if depth > MAX_DEPTH:
            raise FileFormatError(f"{source}: JSON nested deeper than {MAX_DEPTH}")
        if isinstance(node, dict):
            pending += [(child, depth + 1) for child in node.values()] + [(key, depth) for key in node]
        elif isinstance(node, list):
            pending += [(child, depth + 1) for child in node]
        elif isinstance(node, str) and any("\ud800" <= c <= "\udfff" for c in node):
            raise FileFormatError(f"{source}: a string holds half a surrogate pair")
        elif isinstance(node, float) and math.isinf(node):
            raise FileFormatError(f"{source}: a number is out of range")
