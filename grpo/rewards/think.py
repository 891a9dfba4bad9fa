"""Reasoning inside <think> tags."""
import re
from typing import Any

from .text import text_of

THINK = re.compile(r"<think>(?!.*<think>).*?</think>", re.DOTALL)


def think_format_reward(completions: list, **columns: Any) -> list[float]:
    """1.0 where a completion opens with its only <think> and closes it, else 0.0 (TRL's function of the same name).

    >>> think_format_reward(["<think>so</think> 4", "4"])
    [1.0, 0.0]
    """
    return [float(THINK.match(text_of(c)) is not None) for c in completions]
