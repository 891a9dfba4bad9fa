"""Rows from files: .jsonl, .json, .csv, .tsv, .parquet (with pyarrow), or a folder with one such file a split."""
import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..errors import DatasetError
from .layout import as_rows

SAME_SPLIT = {"test": ("test", "validation", "dev", "val"), "train": ("train",)}


def read(path: Path, split: str = "train", *, size: int | None = None, system_prompt: str | None = None) -> list[dict[str, Any]]:
    """Rows of a file, or of a folder's file for this split. A file on its own is a train split."""
    if path.is_dir():
        path = file_of_split(path, split)
    elif split != "train":
        raise DatasetError(f"{path} is one file and has no split {split!r}; give a folder with train.jsonl and test.jsonl, or a second file")
    reader = READERS.get(path.suffix)
    if reader is None:
        raise DatasetError(f"{path}: rows are read from {', '.join(READERS)} files")
    try:
        records = list(reader(path))
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: {error}") from error
    return as_rows(records, str(path), system_prompt)[:size]


def file_of_split(folder: Path, split: str) -> Path:
    wanted = [folder / f"{name}{suffix}" for name in SAME_SPLIT.get(split, (split,)) for suffix in READERS]
    found = next((path for path in wanted if path.is_file()), None)
    if found is None:
        there = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
        raise DatasetError(f"{folder} has no file for the split {split!r}, such as {wanted[0].name}; it holds {there}")
    return found


def jsonl(path: Path) -> Iterator[Any]:
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                raise DatasetError(f"{path}: line {number} is empty")
            try:
                yield json.loads(line)
            except ValueError as error:
                raise DatasetError(f"{path}: line {number} is not JSON: {error}") from error


def json_list(path: Path) -> list[Any]:
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DatasetError(f"{path}: not JSON: {error}") from error
    if not isinstance(records, list):
        raise DatasetError(f"{path}: a .json file holds one list of rows, this one holds {type(records).__name__}; one object a line is .jsonl")
    return records


def table(delimiter: str) -> Callable[[Path], Iterator[dict[str, str]]]:
    def read_table(path: Path) -> Iterator[dict[str, str]]:
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = csv.DictReader(file, delimiter=delimiter, strict=True)
            try:
                for number, record in enumerate(lines, 1):
                    if None in record or None in record.values():
                        count = sum(v is not None for k, v in record.items() if k) + len(record.get(None, ()))
                        raise DatasetError(f"{path}: row {number} has {count} fields, the header {len(lines.fieldnames)}")
                    yield record
            except csv.Error as error:
                raise DatasetError(f"{path}: line {lines.line_num}: {error}") from error
    return read_table


def parquet(path: Path) -> list[dict[str, Any]]:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise DatasetError(f"{path}: parquet files need pyarrow: pip install pyarrow") from error
    try:
        return pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, ValueError) as error:
        raise DatasetError(f"{path}: {error}") from error


READERS: dict[str, Callable[[Path], Any]] = {".jsonl": jsonl, ".json": json_list, ".csv": table(","), ".tsv": table("\t"), ".parquet": parquet}
