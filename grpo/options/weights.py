"""Weights of rewards in their sum: a number, or points {step: weight} with straight lines between them."""
import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

from ..errors import ConfigError

Weight = float | dict[int, float]


def checked_weight(value: Any) -> Weight:
    """The value as a number or as points in the order of their steps. ConfigError otherwise.

    >>> checked_weight("0.5"), checked_weight({100: 1, 0: 0})
    (0.5, {0: 0.0, 100: 1.0})
    """
    if not isinstance(value, Mapping):
        return finite(value)
    steps = {step: as_step(step) for step in value}
    if not steps:
        raise ConfigError("reward_weights: a schedule needs points, such as {0: 0.0, 100: 1.0}")
    return {steps[step]: finite(value[step]) for step in sorted(value, key=lambda step: steps[step])}


def weight_at(weight: Weight, step: int) -> float:
    """The weight after so many optimiser steps; before the first point and after the last it stays.

    >>> [weight_at({10: 0.0, 20: 1.0}, step) for step in (0, 10, 15, 30)], weight_at(0.5, 7)
    ([0.0, 0.0, 0.5, 1.0], 0.5)
    """
    if not isinstance(weight, Mapping):
        return weight
    steps = list(weight)
    after = next((i for i, at in enumerate(steps) if at > step), len(steps))
    if after in (0, len(steps)):
        return weight[steps[max(0, after - 1)]]
    left, right = steps[after - 1], steps[after]
    return weight[left] + (weight[right] - weight[left]) * (step - left) / (right - left)


def finite(value: Any) -> float:
    """A number, or ConfigError."""
    try:
        number = float(value) if isinstance(value, (str, Real)) and not isinstance(value, bool) else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"reward_weights: {value!r} is not a number, nor points {{step: weight}}")
    return number


def as_step(value: Any) -> int:
    """A step of a schedule, or ConfigError."""
    text = str(value)
    if isinstance(value, bool) or not text.isdecimal():
        raise ConfigError(f"reward_weights: step {value!r} of a schedule must be a whole number, at least 0")
    return int(text)
