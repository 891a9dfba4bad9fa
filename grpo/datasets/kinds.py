"""Whether an option of a data set is of the kind that the function which takes it says: a number, a text, a list."""
import inspect
import os
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from ..errors import ConfigError

NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
SEVERAL = {int: "whole numbers", float: "numbers", str: "texts"}


def check_kinds(function: Callable, options: Mapping[str, Any]) -> None:
    """ConfigError that names the first option whose value is not what the function's annotation says. Others than the
    functions of this package are taken to know what they do.

    >>> def load(digits: int | Sequence[int] = 2): ...
    >>> load.__module__ = __name__
    >>> check_kinds(load, {"digits": [1, 2.5]})
    Traceback (most recent call last):
    grpo.errors.ConfigError: digits=[1, 2.5] must be a whole number or a list of whole numbers
    """
    plain = getattr(function, "func", function)                        # of a functools.partial
    if not str(getattr(plain, "__module__", "")).startswith(__package__):
        return
    for name, parameter in inspect.signature(plain, eval_str=True).parameters.items():
        if name in options and not fits(options[name], parameter.annotation):
            raise ConfigError(f"{name}={options[name]!r:.80} must be {described(parameter.annotation)}")


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a kind; of kinds that are not in NAMES nor lists and mappings of them, always.

    >>> fits(True, int), fits(2, float), fits([1], int | list[int]), fits(None, int | None), fits("ab", Sequence[str])
    (False, True, True, True, False)
    """
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        return any(fits(value, one) for one in typing.get_args(kind))
    if kind in (int, float):
        return isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    if kind is str:
        return isinstance(value, (str, os.PathLike))
    if kind in (bool, types.NoneType):
        return isinstance(value, kind)
    if origin in (Sequence, list):
        each, = typing.get_args(kind)
        return isinstance(value, Sequence) and not isinstance(value, (str, bytes)) and all(fits(v, each) for v in value)
    return isinstance(value, Mapping) if origin is Mapping else True


def described(kind: Any) -> str:
    """A kind in words."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(described(part) for part in parts if part is not types.NoneType)
    if origin in (Sequence, list):
        return f"a list of {SEVERAL.get(parts[0], 'values')}"
    return NAMES.get(kind, "a mapping")
