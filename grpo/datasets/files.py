"""Rows from files: .jsonl, .json, .csv, .tsv, .parquet (with pyarrow), or a folder with such files for every split."""
import csv
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError, DatasetError, FileFormatError
from ..model.formats import strict_json
from .labels import asked
from .layout import as_rows
from .pictures import SUFFIXES, beside
from .splits import SAME_SPLIT, no_split

MAX_LINE = 16 << 20                          # bytes
BOM, BOMS_OF_UTF16 = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff")


def read(path: Path, split: str = "train", *, size: int | None = None, system_prompt: str | None = None,
         columns: Mapping[str, str] | None = None, image_folder: str | None = None,
         question: str | None = None) -> list[dict[str, Any]]:
    """Rows of a file, or of a folder's files for this split. A file on its own is a train split. Relative paths of
    images are meant from the file's folder, where they are there, or from image_folder. question: of rows that have
    none."""
    if image_folder is not None and not os.path.isdir(os.path.expanduser(image_folder)):
        raise ConfigError(f"image_folder={image_folder!r} is no folder")
    if path.is_dir():
        paths = files_of_split(path, split)
    elif split == "train":
        paths = [path]
    else:
        raise no_split(f"{path} is one file and", split)
    rows = [beside(row, os.path.expanduser(image_folder or file.parent), always=image_folder is not None)
            for file in paths
            for row in as_rows(asked(records(file), question), str(file), system_prompt, columns=columns)]
    return rows[:size]


def records(path: Path) -> list[Any]:
    """What stands in one file."""
    reader = READERS.get(path.suffix)
    if reader is None:
        raise DatasetError(f"{path}: rows are read from {', '.join(READERS)} files")
    try:
        with open(path, "rb") as file:
            if file.read(2) in BOMS_OF_UTF16:
                raise DatasetError(f"{path} is UTF-16; save it as UTF-8")
        return list(reader(path))
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: not UTF-8; save it as UTF-8") from error
    except (FileFormatError, OSError) as error:
        raise DatasetError(str(error) if str(path) in str(error) else f"{path}: {error}") from error


def files_of_split(folder: Path, split: str) -> list[Path]:
    """train.jsonl, or the hub's train-00000-of-00002.parquet and so on."""
    names = SAME_SPLIT.get(split, (split,))
    for name in names:
        for suffix in READERS:
            if (path := folder / f"{name}{suffix}").is_file():
                return [path]
            if shards := sorted(folder.glob(f"{name}-[0-9]*-of-[0-9]*{suffix}")):
                return whole(shards)
    there = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
    pictures = any(p.name.casefold().endswith(SUFFIXES) for p in folder.iterdir())
    advice = ". Pictures lie in a folder for each class, or a table names them in a column image" if pictures else ""
    raise DatasetError(f"{folder} has no file for the split {split!r}, such as {names[0]}.jsonl; it holds {there}"
                       f"{advice}")


def whole(shards: list[Path]) -> list[Path]:
    """The shards; DatasetError when one is missing."""
    count = int(shards[0].stem.rpartition("-")[2])
    if len(shards) != count:
        raise DatasetError(f"{shards[0].parent} holds {len(shards)} of the {count} files like {shards[0].name}")
    return shards


def jsonl(path: Path) -> Iterator[Any]:
    """One value a line."""
    with open(path, "rb") as file:
        number = 0
        while line := file.readline(MAX_LINE + 1):
            number += 1
            if len(line) > MAX_LINE:
                raise DatasetError(f"{path}: line {number} is longer than {MAX_LINE >> 20} MiB")
            line = line.removeprefix(BOM) if number == 1 else line
            if not line.strip():
                raise DatasetError(f"{path}: line {number} is empty")
            yield strict_json.parse_checked(line.rstrip(b"\r\n"), f"{path}: line {number}")


def json_list(path: Path) -> list[Any]:
    """The list that a .json file holds."""
    found = strict_json.parse_checked(path.read_bytes().removeprefix(BOM), str(path))
    if not isinstance(found, list):
        raise DatasetError(f"{path}: a .json file holds one list of rows, this one holds {type(found).__name__}; one "
                           "object a line is .jsonl")
    return found


def table(delimiter: str) -> Callable[[Path], Iterator[dict[str, str]]]:
    """A reader of text tables with this delimiter: a dict of text a line."""
    def read_table(path: Path) -> Iterator[dict[str, str]]:
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = csv.DictReader(file, delimiter=delimiter, strict=True)
            try:
                header = lines.fieldnames or []
                check_header(path, header)
                for number, record in enumerate(lines, 1):
                    if None in record or None in record.values():
                        # the reader puts the fields beyond the header under None
                        count = sum(v is not None for k, v in record.items() if k) + len(record.get(None, ()))
                        raise DatasetError(f"{path}: row {number} has {count} fields, the header {len(header)}")
                    yield record
            except csv.Error as error:
                raise DatasetError(f"{path}: line {lines.line_num}: {error}") from error
    return read_table


def check_header(path: Path, names: Sequence[str]) -> None:
    """DatasetError for a column that is there twice."""
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DatasetError(f"{path}: the header has the column {twice!r} twice")


def parquet(path: Path) -> list[dict[str, Any]]:
    """The rows of a parquet file. Raises DatasetError where pyarrow is not installed."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise DatasetError(f"{path}: parquet files need pyarrow: pip install 'cgrpo[data]'") from error
    try:
        return pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, ValueError) as error:
        raise DatasetError(f"{path}: {error}") from error


READERS: dict[str, Callable[[Path], Any]] = {".jsonl": jsonl, ".json": json_list, ".csv": table(","),
                                             ".tsv": table("\t"), ".parquet": parquet}
