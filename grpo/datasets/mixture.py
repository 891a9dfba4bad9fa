"""A data set made of several, each with a share of the rows."""
import math
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import ConfigError, DatasetError

Rows = list[dict[str, Any]]


def is_mixture(source: Any) -> bool:
    """Whether a source is a list of names, or a mapping of names to shares or options; not rows."""
    if isinstance(source, Mapping):
        return bool(source) and all(isinstance(value, (int, float, Mapping)) for value in source.values())
    return isinstance(source, (list, tuple)) and bool(source) and all(isinstance(name, str) for name in source)


def shares(sources: Any) -> dict[str, dict[str, Any]]:
    """Name -> {share, options of that part}.

    >>> shares(["gsm8k", "word_problems"])
    {'gsm8k': {'share': 1}, 'word_problems': {'share': 1}}
    >>> shares({"gsm8k": 3, "word_problems": {"share": 1, "examples": 2}})
    {'gsm8k': {'share': 3}, 'word_problems': {'share': 1, 'examples': 2}}
    """
    if isinstance(sources, Mapping):
        parts = {name: {"share": 1, **value} if isinstance(value, Mapping) else {"share": value} for name, value in sources.items()}
    else:
        parts = {name: {"share": 1} for name in sources}
    if len(parts) < len(sources):
        raise ConfigError(f"a mixture names every data set once, not {', '.join(sources)}; give {{name: share}}")
    for name, part in parts.items():
        share = part["share"]
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share < math.inf:
            raise ConfigError(f"the share of {name} is {share!r}; it must be a number above 0")
    return parts


def mix(parts: Mapping[str, dict[str, Any]], load: Callable[..., Rows], split: str, size: int | None, options: Mapping[str, Any]) -> Rows:
    """Rows of every part, at every length of the list as near to the shares as can be, with the name of their part in the
    column source. Sources that end first are given again in train; elsewhere they end. options: for every part."""
    rows = {name: load(name, split, size=size, **{**options, **{k: v for k, v in part.items() if k != "share"}}) for name, part in parts.items()}
    for name, own in rows.items():
        if "source" in own[0]:
            raise DatasetError(f"{name} has a column source of its own, where a mixture writes the name of the part; give it another name")
    weights = {name: part["share"] for name, part in parts.items()}
    longest = max(rows, key=lambda name: len(rows[name]) / weights[name])
    taken = dict.fromkeys(rows, 0)
    mixed: Rows = []
    while taken[longest] < len(rows[longest]) and (size is None or len(mixed) < size):
        open_parts = [name for name in rows if split == "train" or taken[name] < len(rows[name])]
        name = min(open_parts, key=lambda n: (taken[n] + 1) / weights[n])
        mixed.append({**rows[name][taken[name] % len(rows[name])], "source": name})
        taken[name] += 1
    return mixed
