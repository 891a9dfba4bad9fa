"""Lists of English words, of which some are held out."""
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError, DatasetError
from . import files, hub
from .common_words import WORDS
from .procedural import held_out

HELD_OUT = 10                                # one word in so many
LEAST = 3                                    # letters
COLUMN = "word"


def words_of(source: str | Sequence[str] | None, split: str) -> list[str]:
    """The words of a split, in small letters, each once, by hash: those of test are never in train.

    source: a .txt with a word a line, another file that rows are read from or a hub id, with a column word, or a list;
    None: the common ones of this package. Raises DatasetError that names file and row of what is no word of three or
    more letters a to z.

    >>> len(words_of(None, "train")), len(words_of(None, "test")), words_of(["Cat", "dog", "cat"], "train")
    (965, 129, ['cat', 'dog'])
    """
    where, found = read(source)
    for number, word in enumerate(found, 1):
        if not isinstance(word, str) or not (word.isascii() and word.isalpha()) or len(word) < LEAST:
            raise DatasetError(f"{where}: row {number}: {word!r:.60} is not a word of {LEAST} letters a to z or more")
    chosen = [word for word in dict.fromkeys(word.lower() for word in found)
              if held_out(f"word {word}", HELD_OUT) == (split == "test")]
    if not chosen:
        raise DatasetError(f"{where}: none of its {len(found)} words falls into {split}; one in {HELD_OUT} is held out")
    return chosen


def read(source: Any) -> tuple[str, Sequence[Any]]:
    """(name of the source, its words)"""
    if source is None:
        return "words", WORDS
    if not isinstance(source, (str, os.PathLike)):
        if not isinstance(source, Sequence):
            raise ConfigError(f"words={source!r:.60} must be a file, a hub id or a list of words")
        return "words", source
    path = Path(source).expanduser()
    if path.suffix == ".txt":
        try:
            return str(path), [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise DatasetError(f"{path}: cannot be read: {error}") from error
    if path.is_file():
        return str(path), [row.get(COLUMN) if isinstance(row, dict) else None for row in files.records(path)]
    if path.exists() or str(source).count("/") != 1 or path.suffix in files.READERS:
        raise DatasetError(f"words={str(source)!r}: no such file, and no hub id like owner/name")
    return str(source), [row["question"] for row in hub.read(str(source), columns={"question": COLUMN})]

