"""Rows of a data set on the Hugging Face hub, through the `datasets` library (pip install 'cgrpo[data]')."""
from collections.abc import Mapping
from typing import Any

from ..errors import DatasetError
from .layout import as_rows
from .pictures import stored
from .splits import part_of


def read(name: str, split: str = "train", *, config: str | None = None, size: int | None = None,
         system_prompt: str | None = None, columns: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """Rows of one split of a hub data set ("openai/gsm8k", config "main"). Images are as they are stored, {"bytes",
    "path"}."""
    try:
        import datasets
    except ImportError as error:
        raise DatasetError(f"{name!r} is no file here, and data sets of the hub need the datasets library: pip install "
                           "'cgrpo[data]'") from error
    try:
        found = datasets.load_dataset(name, config)
    except Exception as error:                             # the library raises whatever its parts raise
        raise DatasetError(f"{name}: {error}") from error
    rows = part_of(found, split, name)
    chosen = rows if size is None else rows.select(range(min(size, len(rows))))
    return as_rows(stored(chosen), f"{name}, split {split}", system_prompt, 0, columns)
