"""Files of one JSON object a line that grow while a run goes: appended whole, read with care.

A disk that fills up cuts a line in two, a crash of the machine leaves zeros, an editor leaves its own: what is no
record is left out, and that is said.
"""
import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import FileFormatError, note

METRICS = "metrics.jsonl"


class Line(NamedTuple):
    """A record and the bytes that it was read from, without the end of the line."""

    record: dict[str, Any]
    text: bytes


def append(path: Path, text: bytes, sync: bool = False) -> None:
    """Adds whole lines to a file, all of them or, where that fails, none. sync: waits until they are on disk. Raises
    OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        end, rest = os.lseek(descriptor, 0, os.SEEK_END), memoryview(text)
        try:
            while rest:
                rest = rest[os.write(descriptor, rest):]
            if sync:
                os.fsync(descriptor)
        except BaseException:
            with contextlib.suppress(OSError):           # the reader drops what cannot be taken back
                os.ftruncate(descriptor, end)
            raise
    finally:
        os.close(descriptor)


def read(path: Path, is_record: Callable[[dict[str, Any]], bool]) -> list[Line]:
    """The lines that are records; how many others there are is said on one line. Raises FileFormatError naming the
    file where it cannot be read at all."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read: {error.strerror or error}") from error
    found, dropped = [], []
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        record = parsed(text)
        if isinstance(record, dict) and is_record(record):
            found.append(Line(record, text))
        else:
            dropped.append(number)
    if dropped:
        count = "1 line is" if len(dropped) == 1 else f"{len(dropped)} lines are"
        note(f"{path}: {count} left out, torn or no record ({'line' if len(dropped) == 1 else 'the first is line'} "
             f"{dropped[0]})")
    return found


def parsed(text: bytes) -> Any:
    """What a line says; None where it is not JSON."""
    try:
        return json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError):
        return None


def has_step(record: dict[str, Any]) -> bool:
    """Whether a record of metrics.jsonl says which step it is of."""
    step = record.get("step")
    return isinstance(step, int) and not isinstance(step, bool) and step >= 0


def read_metrics(run: Path) -> list[Line]:
    """The records of a run's metrics.jsonl, for pictures, analysis and resuming alike. Raises FileFormatError."""
    return read(run / METRICS, has_step)
