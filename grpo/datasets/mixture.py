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


def shares(sources: Any) -> dict[str, tuple[float, dict[str, Any]]]:
    """Name -> (share, options of that part).

    >>> shares(["gsm8k", "word_problems"])
    {'gsm8k': (1, {}), 'word_problems': (1, {})}
    >>> shares({"gsm8k": 3, "word_problems": {"share": 1, "examples": 2}})
    {'gsm8k': (3, {}), 'word_problems': (1, {'examples': 2})}
    """
    given = sources if isinstance(sources, Mapping) else dict.fromkeys(sources, 1)
    if len(given) < len(sources):
        raise ConfigError(f"a mixture names every data set once, not {', '.join(sources)}; give {{name: share}}")
    parts = {}
    for name, part in given.items():
        options = dict(part) if isinstance(part, Mapping) else {"share": part}
        share = options.pop("share", 1)
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share < math.inf:
            raise ConfigError(f"the share of {name} is {share!r}; it must be a number above 0")
        if "split" in options:
            raise ConfigError(f"{name}: a mixture is of one split, that of load; leave split out")
        parts[name] = (share, options)
    return parts


def mix(parts: Mapping[str, tuple[float, dict[str, Any]]], load: Callable[..., Rows], split: str, size: int | None,
        options: Mapping[str, Any]) -> Rows:
    """Rows of every part, at every length of the list as near to the shares as can be, with the name of their part in
    the column source, and None in the columns of other parts. Parts that end first are given again in train; elsewhere
    they end. options: for every part; its own go before them."""
    rows = {name: load(name, split, **{"size": size, **options, **own}) for name, (_, own) in parts.items()}
    weights = {name: share for name, (share, _) in parts.items()}
    for name, own in rows.items():
        if "source" in own[0]:
            raise DatasetError(f"{name} has a column source of its own, where a mixture writes the name of the part; "
                               "give it another name")
    longest = max(rows, key=lambda name: len(rows[name]) / weights[name])
    columns = dict.fromkeys(column for own in rows.values() for row in own for column in row)
    taken = dict.fromkeys(rows, 0)
    mixed: Rows = []
    while taken[longest] < len(rows[longest]) and (size is None or len(mixed) < size):
        open_parts = [name for name in rows if split == "train" or taken[name] < len(rows[name])]
        name = min(open_parts, key=lambda n: (taken[n] + 1) / weights[n])
        mixed.append({**columns, **rows[name][taken[name] % len(rows[name])], "source": name})
        taken[name] += 1
    return mixed
