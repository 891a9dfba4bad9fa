"""Rewards of the rows that have what they need: in a mixture of data sets the columns of one are None in the rows of
the others."""
import functools
import inspect
from collections.abc import Callable
from typing import Any


def to_rows_with(*needed: str) -> Callable[[Callable], Callable]:
    """A decorator: the function sees the completions of rows where none of these columns is None, and the others have
    None, for no reward.

    >>> @to_rows_with("answer")
    ... def is_right(completions, answer, **columns):
    ...     return [float(text == gold) for text, gold in zip(completions, answer)]
    >>> is_right(["4", "4"], answer=["4", None])
    [1.0, None]
    """
    def decorated(function: Callable) -> Callable:
        names = list(inspect.signature(function).parameters)

        @functools.wraps(function)
        def reward(completions: list, *given: Any, **columns: Any) -> list[float | None]:
            columns |= dict(zip(names[1:], given, strict=False))
            known = [values for name in needed if isinstance(values := columns.get(name), list)]
            rows = [i for i in range(len(completions)) if all(values[i] is not None for values in known)]
            if len(rows) == len(completions):
                return function(completions, **columns)
            found: list[float | None] = [None] * len(completions)
            if rows:
                chosen = {name: [values[i] for i in rows] if isinstance(values, list) else values
                          for name, values in columns.items()}
                for i, value in zip(rows, function([completions[i] for i in rows], **chosen), strict=True):
                    found[i] = value
            return found
        return reward
    return decorated
