"""Fields of a config: their meaning, the values they take, and how a value becomes one of them.

A field's type is spelled so that a parser of dataclasses (transformers' HfArgumentParser) reads it. What else a field
takes stands in its Meaning.
"""
import dataclasses
import json
import math
import numbers
import operator
import types
import typing
from typing import Any

from .. import _core
from ..errors import ConfigError, did_you_mean
from .plain import check_scalar, foreign_scalar, plain_value

if typing.TYPE_CHECKING:
    # what a field holds once it is checked
    Arguments: typing.TypeAlias = dict[str, Any] | None
    NumberOrWord: typing.TypeAlias = float | str
    Stages: typing.TypeAlias = int | list[Any] | None
    Numbers: typing.TypeAlias = list[Any] | None
    Names: typing.TypeAlias = list[str] | str | None
else:
    # and as a parser of dataclasses reads its flag: as a text, or as a list of one type
    Arguments, NumberOrWord = dict | str | None, float | str | None
    Stages, Numbers, Names = list[str] | str | int | None, list[float] | None, list[str] | str | None

LARGEST_INT, LARGEST_FLOAT = (1 << 31) - 1, 3.4e38       # of a field that sets no bound itself: what the core holds
UNBOUNDED = ("max_grad_norm", "epsilon_high", "delta")   # infinity leaves these out
TRUE, FALSE = ("true", "yes", "on"), ("false", "no", "off")


class Meaning(str):
    """What an option means, as its help text, with the values that it takes: one of choices, low <= value,
    above < value, value <= high. spelled: what True and False stand for, where it takes them besides its type."""

    choices: tuple[str, ...]
    low: float | None
    above: float | None
    high: float | None
    spelled: tuple[Any, Any] | None

    def __new__(cls, help: str, **values: Any) -> "Meaning":
        """A text that knows more."""
        meaning = super().__new__(cls, help)
        vars(meaning).update(values)
        return meaning


def option(default: Any, help: str, *, choices: tuple[str, ...] = (), low: float | None = None,
           above: float | None = None, high: float | None = None, spelled: tuple[Any, Any] | None = None,
           parsed: bool = True) -> Any:
    """A field with its meaning and the values it takes. spelled: what True and False are, of a field that is no
    bool. parsed: False for a name that scripts have in dataclasses of their own: a parser of dataclasses, where each
    name is a flag once, does not see it then."""
    meaning = Meaning(help, choices=choices, low=low, above=above, high=high, spelled=spelled)
    return dataclasses.field(default=default, init=parsed, metadata={"help": meaning})


def loss_option(name: str, help: str, *, low: float | None = None, above: float | None = None,
                high: float | None = None) -> Any:
    """A field that the loss in the core reads: its default and its choices are what the core says."""
    _, default, choices = _core.loss_options()[name]
    return option(default, help, choices=choices, low=low, above=above, high=high)


def meaning_of(f: dataclasses.Field) -> Meaning | None:
    """What option() says of a field; None for fields of others."""
    meaning = f.metadata.get("help")
    return meaning if isinstance(meaning, Meaning) else None


def checked(f: dataclasses.Field, value: Any, hint: Any) -> Any:
    """The value as the type of a field made by option(). Texts become numbers (YAML reads 1e-6 as text) and, where the
    type says so, mappings (JSON). ConfigError names the field."""
    meaning = meaning_of(f)
    assert meaning is not None
    given, value = value, foreign_scalar(value)
    if type(value) in (str, int, float):
        check_scalar(value, f.name)
    if isinstance(value, str) and "\0" in value:
        raise ConfigError(f"{f.name}={value!r:.80} holds a NUL: {meaning}")
    if value is None and "none" in meaning.choices:          # what a command line makes of the word
        value = "none"
    if meaning.spelled is not None:
        lower = value.lower() if isinstance(value, str) else ""
        value = True if lower in TRUE else False if lower in FALSE else value
        if isinstance(value, bool):
            return meaning.spelled[0 if value else 1]
    kinds = kinds_of(hint)
    if isinstance(value, str) and (dict in kinds or list in kinds and value.lstrip().startswith("[")):
        value = notation(f.name, value)
    value = typed(value.tolist() if list in kinds and hasattr(value, "tolist") else value, kinds)
    if value is MISMATCH or isinstance(value, str) and dict in kinds:
        names = " or ".join("None" if k is types.NoneType else k.__name__ for k in kinds if k is not str
                            or dict not in kinds)
        raise ConfigError(f"{f.name}={given!r:.200} must be {names}: {meaning}")
    if meaning.choices and isinstance(value, str) and value not in meaning.choices:
        raise ConfigError(f"{f.name}={value!r} is not one of "
                          f"{', '.join(meaning.choices)}{did_you_mean(value, meaning.choices)}")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        check_bounds(f.name, value, meaning)
    return plain_value(value, f.name) if isinstance(value, (list, dict)) else value


def check_bounds(name: str, value: float, meaning: Meaning) -> None:
    """ConfigError for a number that is out of the field's bounds, or of the core's."""
    for bound, sign, holds in ((meaning.low, ">=", operator.ge), (meaning.above, ">", operator.gt),
                               (meaning.high, "<=", operator.le)):
        if bound is not None and not holds(value, bound):
            raise ConfigError(f"{name}={value} must be {sign} {bound}: {meaning}")
    most = LARGEST_INT if isinstance(value, int) else LARGEST_FLOAT
    if meaning.high is None and not abs(value) <= most and (value != math.inf or name not in UNBOUNDED):
        raise ConfigError(f"{name}={value} must be finite, at most {most}: {meaning}")


def kinds_of(hint: Any) -> tuple[type, ...]:
    """The types of a hint: (list, str, NoneType) for list[str] | str | None."""
    parts = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return tuple(typing.get_origin(part) or part for part in parts)


def notation(name: str, text: str) -> Any:
    """What a text says in JSON, as transformers' options take it. ConfigError names the option."""
    if text.strip().lower() in ("", "none", "null"):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{name}={text!r:.80} is not JSON: {error!s:.80}") from error


MISMATCH = object()


def typed(value: Any, kinds: tuple[type, ...]) -> Any:
    """value as the first of kinds that it fits, or MISMATCH."""
    if value is None:
        return None if types.NoneType in kinds else MISMATCH
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
        if bool in kinds and value.lower() in (*TRUE, *FALSE):
            return value.lower() in TRUE
        return str(value) if str in kinds else MISMATCH
    if isinstance(value, (list, tuple)) and list in kinds:
        return list(value)
    if isinstance(value, dict) and dict in kinds:
        return dict(value)
    return MISMATCH
