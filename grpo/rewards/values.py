"""What goes into rewards and comes out of them, as plain values, whatever a function does to the one or makes of the
other."""
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from numbers import Real
from typing import Any

from ..errors import RewardError

MOST = 1 << 20                               # completions of a batch, at the very most: where an endless result is cut


@dataclass
class Substitute:
    """Stands for the result of a whole call that failed."""

    value: float | None


def fresh(value: Any) -> Any:
    """A copy of lists and dicts, so that what a reward does to its arguments is not seen by the next one, or by the
    data."""
    if isinstance(value, list):
        return value[:] if {list, dict}.isdisjoint(map(type, value)) else [fresh(v) for v in value]
    return {k: fresh(v) for k, v in value.items()} if isinstance(value, dict) else value


def plain(result: Any, most: int = MOST) -> Any:
    """Arrays and tensors by their tolist(), other iterables as lists of at most so many; everything else as it is."""
    if hasattr(result, "tolist"):
        return result.tolist()
    if isinstance(result, (list, tuple, str, bytes, dict)) or not isinstance(result, Iterable):
        return result
    return list(islice(result, most))


def as_list(result: Any, name: str, length: int | None) -> list:
    """The result as a list of the right length; RewardError names the reward otherwise."""
    result = plain(result)
    if not isinstance(result, (list, tuple)):
        raise RewardError(f"reward {name!r} returned {type(result).__name__}, not a list of numbers")
    if length is not None and len(result) != length:
        raise RewardError(f"reward {name!r} returned {len(result)} rewards for {length} completions")
    return list(result)


def as_float(value: Real) -> float:
    """The number; infinity where it is too large, NaN where it cannot be read."""
    try:
        return float(value)
    except OverflowError:
        return math.inf
    except Exception:
        return math.nan


def described(value: Any, how: Callable[[Any], str] = str) -> str:
    """A short text of anything, also of what has no text."""
    try:
        return how(value)[:60 if how is repr else 500]
    except Exception as error:
        return f"(its text raises {type(error).__name__})"
