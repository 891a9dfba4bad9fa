"""Rows of a data set on the Hugging Face hub, through the `datasets` library (pip install 'cgrpo[data]')."""
from collections.abc import Mapping
from typing import Any

from ..errors import DatasetError
from .labels import asked, with_names
from .layout import as_rows
from .pictures import stored
from .splits import part_of


def read(name: str, split: str = "train", *, config: str | None = None, size: int | None = None,
         system_prompt: str | None = None, columns: Mapping[str, str] | None = None,
         question: str | None = None) -> list[dict[str, Any]]:
    """Rows of one split of a hub data set ("openai/gsm8k", config "main"). Images are as they are stored, {"bytes",
    "path"}; the names of a column of classes are the answers. question: of rows that have none, see labels.py."""
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
    where = f"{name}, split {split}"
    found = with_names(stored(chosen), getattr(chosen, "features", None), columns, where)
    return as_rows(asked(found, question), where, system_prompt, 0, columns)
