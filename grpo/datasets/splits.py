"""Splits of a data set: their names, and rows of train that are held out by hash."""
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import ConfigError, DatasetError, did_you_mean
from .prompts import row_key

# a split, and the names under which sources have it
SAME_SPLIT = {"test": ("test", "validation", "dev", "val"), "train": ("train",)}


def check_split(split: str, splits: Iterable[str], where: str) -> None:
    """DatasetError when a data set has no such split."""
    if split not in splits:
        raise DatasetError(f"{where} has no split {split!r}{did_you_mean(split, splits)} It has {', '.join(splits)}.")


def no_split(where: str, split: str) -> DatasetError:
    """The error for a source that is one list of rows."""
    return DatasetError(f"{where} has no split {split!r}; name another data set for evaluation, or hold rows out with "
                        "the option validation: 0.1")


def part_of(splits: Mapping[str, Any], split: str, where: str) -> Any:
    """One split of a mapping of splits, such as a datasets.DatasetDict."""
    name = next((name for name in SAME_SPLIT.get(split, (split,)) if name in splits), split)
    check_split(name, list(map(str, splits)), where)
    return splits[name]


def check_share(share: Any) -> None:
    """ConfigError for what the option validation cannot be."""
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share < 1:
        raise ConfigError(f"validation={share!r} must be the share of rows to hold out, between 0 and 1")


def carved(rows: list[dict[str, Any]], share: float, split: str) -> list[dict[str, Any]]:
    """The rows of train, or those held out, which are what test and validation mean. Which row is which depends on its
    prompt alone, so that rows which ask the same are on one side."""
    check_share(share)
    check_split(split, ("train", "validation", "test"), "a data set with the option validation")
    chosen = [row for row in rows
              if (int.from_bytes(row_key(row)[:4], "little") < share * 2**32) == (split != "train")]
    if not chosen:
        raise DatasetError(f"validation={share} of {len(rows)} rows leaves nothing for the split {split!r}")
    return chosen
