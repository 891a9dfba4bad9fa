"""The stages of a curriculum as an option says them: their number, or the values of the column in their order."""
from typing import Any

from ..errors import ConfigError


def checked_stages(value: Any) -> int | list | None:
    """The value as a number of stages or a list of values. ConfigError otherwise.

    >>> checked_stages(["easy", "hard"]), checked_stages([3.0])
    (['easy', 'hard'], 3)
    """
    if value is None:
        return None
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], (int, float)):
        value = value[0]                     # a command line makes a list of one number; one value is no curriculum
    if not isinstance(value, list):
        if value < 2 or not float(value).is_integer():
            raise ConfigError(f"curriculum_stages={value} must be a whole number of stages, at least 2, or the values "
                              "of the column in their order")
        return int(value)
    if len(value) < 2 or not all(isinstance(each, (str, int, float)) for each in value) or len(set(value)) < len(value):
        raise ConfigError(f"curriculum_stages={value!r:.80} must be two or more different texts or numbers, the "
                          "easiest first")
    return value
