"""How far is a correlation from the right one? DeepSeekRL's rewards for scatter plots, where an answer counts only
inside its tags and may be negative; as published they are deepseekrl_correlation, without its strict format, whose
pattern no text ever matched.

correlation_error is for eval_funcs.
"""
import re
from collections.abc import Callable
from typing import Any

from ..answers import as_number, tagged_answer, text_of
from ..errors import RewardError
from .applying import to_rows_with
from .deepseekrl import extracted
from .xml import strict_format_reward

FORMAT = re.compile(r"[-−]?(?:0\.[0-9]{2}|1\.00)")


def correlation_reward(completions: list, answer: list, log_metric: Callable | None = None,
                       **columns: Any) -> list[float | None]:
    """1 - |error| of the tagged answer, and not below 0; 0 where it is no number from -1 to 1. None where the row has
    no answer. Logs correlation/error.

    >>> said = ["<answer>-0.5</answer>", "<answer>0.9</answer>", "-0.5"]
    >>> [round(x, 2) for x in correlation_reward(said, answer=["-0.40"] * 3)]
    [0.9, 0.0, 0.0]
    """
    errors = correlation_error(completions, answer)
    known = [error for error in errors if error is not None]
    if log_metric is not None and known:
        log_metric("correlation/error", sum(known) / len(known))
    return [None if error is None else max(0.0, 1 - error) for error in errors]


def correlation_format_reward(completions: list, **columns: Any) -> list[float]:
    """0.5 where the tagged answer is X.XX or -X.XX, a correlation with two decimals.

    >>> correlation_format_reward(["<answer>0.73</answer>", "<answer>-0.73</answer>", "<answer>0.7</answer>", "0.73"])
    [0.5, 0.5, 0.0, 0.0]
    """
    return [0.5 if FORMAT.fullmatch(tagged_answer(text_of(c)) or "") else 0.0 for c in completions]


def correlation_error(completions: list, answer: list, **columns: Any) -> list[float | None]:
    """How far the tagged answer is from the right one; where it is no number from -1 to 1 the most that it can be, 1 +
    |answer|."""
    found: list[float | None] = []
    for i, (completion, gold) in enumerate(zip(completions, answer, strict=True)):
        wanted = None if gold is None else as_number(str(gold))
        if gold is not None and wanted is None:
            raise RewardError(f"correlation_reward: the answer of completion {i}'s row is {gold!r:.60}, not a number")
        given = as_number((tagged_answer(text_of(completion)) or "").strip("[]"))
        if wanted is None:
            found.append(None)
        else:
            found.append(1 + float(abs(wanted)) if given is None or abs(given) > 1 else float(abs(given - wanted)))
    return found


# as published


@to_rows_with("answer")
def correlation_reward_func(completions: list, answer: list, **columns: Any) -> list[float]:
    """1 - |error|; 0 where the extracted answer is no number."""
    found = []
    for completion, gold in zip(completions, answer, strict=True):
        try:
            found.append(1 - abs(float(extracted(completion)) - float(gold)))
        except ValueError:
            found.append(0.0)
    return [value if abs(value) < 1e308 else 0.0 for value in found]             # not of NaN, nor of infinity


def correlation_format_reward_func(completions: list, **columns: Any) -> list[float]:
    """0.5 where the extracted answer is X.XX, a digit and two decimals."""
    return [0.5 if re.fullmatch(r"[0-9]\.[0-9]{2}", extracted(c)) else 0.0 for c in completions]


NAMES = {
    "correlation": [correlation_reward, correlation_format_reward, strict_format_reward],
    "correlation_reward": correlation_reward, "correlation_format_reward": correlation_format_reward,
    "correlation_error": correlation_error,
    "deepseekrl_correlation": [correlation_reward_func, correlation_format_reward_func],
}
