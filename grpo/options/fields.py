"""Fields of a config: their meaning, the values they take, and how a value becomes one of them."""
import dataclasses
import math
import numbers
import operator
import types
import typing
from typing import Any

from .. import _core
from ..errors import ConfigError, did_you_mean
from .plain import check_scalar, plain_value

LARGEST_INT, LARGEST_FLOAT = (1 << 31) - 1, 3.4e38       # of a field that sets no bound itself: what the core holds
UNBOUNDED = ("max_grad_norm", "epsilon_high", "delta")   # infinity leaves these out


def option(default: Any, help: str, *, choices: tuple[str, ...] = (), low: float | None = None,
           above: float | None = None, high: float | None = None) -> Any:
    """A field with its meaning and the values it takes: one of choices, low <= value, above < value, value <= high."""
    meaning = dict(help=help, choices=choices, low=low, above=above, high=high)
    return dataclasses.field(default=default, metadata=meaning)


def loss_option(name: str, help: str, *, low: float | None = None, above: float | None = None,
                high: float | None = None) -> Any:
    """A field that the loss in the core reads: its default and its choices are what the core says."""
    _, default, choices = _core.loss_options()[name]
    return option(default, help, choices=choices, low=low, above=above, high=high)


def checked(f: dataclasses.Field, value: Any, hint: Any) -> Any:
    """The value as the field's type. Strings become numbers (YAML reads 1e-6 as text); ConfigError names the field."""
    given, meta = value, f.metadata
    if type(given) in (str, int, float):
        check_scalar(given, f.name)
    if isinstance(given, str) and "\0" in given:
        raise ConfigError(f"{f.name}={given!r:.80} holds a NUL: {f.metadata['help']}")
    if value is None and "none" in meta["choices"]:          # what a command line makes of the word
        value = "none"
    value = typed(getattr(value, "value", value), typing.get_args(hint) if isinstance(hint, types.UnionType)
                  else (hint,))
    if value is MISMATCH:
        names = getattr(hint, "__name__", str(hint)).replace("NoneType", "None")
        raise ConfigError(f"{f.name}={given!r} must be {names}: {meta['help']}")
    if meta["choices"] and isinstance(value, str) and value not in meta["choices"]:
        raise ConfigError(f"{f.name}={value!r} is not one of "
                          f"{', '.join(meta['choices'])}{did_you_mean(value, meta['choices'])}")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        for name, sign, holds in (("low", ">=", operator.ge), ("above", ">", operator.gt), ("high", "<=", operator.le)):
            if meta[name] is not None and not holds(value, meta[name]):
                raise ConfigError(f"{f.name}={value} must be {sign} {meta[name]}: {meta['help']}")
        most = LARGEST_INT if isinstance(value, int) else LARGEST_FLOAT
        if meta["high"] is None and not abs(value) <= most and (value != math.inf or f.name not in UNBOUNDED):
            raise ConfigError(f"{f.name}={value} must be finite, at most {most}: {meta['help']}")
    return plain_value(value, f.name) if isinstance(value, (list, dict)) else value


MISMATCH = object()


def typed(value: Any, kinds: tuple[type, ...]) -> Any:
    """value as the first of kinds that it fits, or MISMATCH."""
    if value is None:
        return None if types.NoneType in kinds else MISMATCH
    if type(value).__module__ == "numpy" and not getattr(value, "shape", True):
        value = value.item()
    if isinstance(value, bool):
        return value if bool in kinds else MISMATCH
    if isinstance(value, numbers.Integral) and (int in kinds or float in kinds):
        return int(value) if int in kinds else float(value)
    if isinstance(value, numbers.Real) and float in kinds:
        return float(value)
    if isinstance(value, str):
        if float in kinds or int in kinds:
            try:
                return (float if float in kinds else int)(value)
            except (ValueError, OverflowError):
                pass
        return str(value) if str in kinds else MISMATCH
    if isinstance(value, (list, tuple)) and list in kinds:
        return list(value)
    if isinstance(value, dict) and dict in kinds:
        return dict(value)
    return MISMATCH
