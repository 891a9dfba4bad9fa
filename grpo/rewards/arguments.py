"""Arguments of rewards: what a recipe may write under a reward's name, and numbers within their limits."""
import contextlib
import inspect
import math
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

from ..errors import ConfigError, did_you_mean


def entry(given: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """(name, arguments) of an entry {name: {argument: value}}.

    >>> entry({"len_l1": {"target": 512}})
    ('len_l1', {'target': 512})
    """
    if len(given) != 1:
        raise ConfigError(f"a reward with arguments is written {{name: {{argument: value}}}}, one name each; got "
                          f"{dict(given)!r:.100}")
    (name, arguments), = given.items()
    if not isinstance(name, str) or not isinstance(arguments, Mapping | None):
        raise ConfigError(f"reward {name!r}: its arguments must be a mapping such as {{target: 512}}, not "
                          f"{arguments!r:.60}")
    return name, dict(arguments or {})


def check_arguments(name: str, taker: Callable, arguments: Mapping[str, Any]) -> None:
    """ConfigError for arguments that taker, a class or a function, has no parameter for, and for those that a class
    needs."""
    parameters = {n: p for n, p in inspect.signature(taker).parameters.items()
                  if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    for argument in arguments:
        if argument not in parameters:
            takes = f"It takes {', '.join(parameters)}." if parameters else "It takes none."
            raise ConfigError(f"reward {name!r} has no argument {argument!r}{did_you_mean(argument, parameters)} "
                              f"{takes}")
    missing = [n for n, p in parameters.items() if p.default is p.empty and n not in arguments]
    if isinstance(taker, type) and missing:
        raise ConfigError(f"reward {name!r} needs {', '.join(missing)}: write {{{name}: {{{missing[0]}: ...}}}}")


def number(reward: str, name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> float:
    """The value if it is a number from low to high, else ConfigError."""
    if isinstance(value, str):                         # YAML takes 1e-3 for text
        with contextlib.suppress(ValueError):
            value = float(value)
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not low <= value <= high or not math.isfinite(value):
        limits = [f" of at least {low:g}"] * (low != -math.inf) + [f" of at most {high:g}"] * (high != math.inf)
        raise ConfigError(f"reward {reward!r}: {name}={value!r} must be a number{' and'.join(limits)}")
    return value


def whole(reward: str, name: str, value: Any, low: int = 1) -> int:
    """The value if it is an integer of at least low, else ConfigError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ConfigError(f"reward {reward!r}: {name}={value!r} must be an integer of at least {low}")
    return value


def pair(reward: str, name: str, value: Any) -> tuple[float, float]:
    """Two numbers, else ConfigError."""
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise ConfigError(f"reward {reward!r}: {name}={value!r} must be two numbers")
    return number(reward, name, value[0]), number(reward, name, value[1])
