"""r1_vlm's rewards for counting and computation exactly as it trained with them, to reproduce its numbers. In a recipe
they are r1_vlm.count_answer, ...; r1_vlm_counting and r1_vlm_computation are what it trained with, r1_vlm.format among
them.

Known faults, kept: an answer with a sign is never right, though subtraction gives such; the boxes and points in the
reasoning are counted and never compared with real ones, so that any will do; in counting they are worth 30, and the
answer 1. What is done about them: grpo/rewards/counting.py and boxes.py.
"""
import math
from collections.abc import Callable
from typing import Any

from .applying import to_rows_with
from .decoding import whole_texts
from .marks import marks_in
from .r1_vlm import format_reward_func, section

ALLOWED = frozenset("0123456789 .")
CLOSE = 1e-5
BOXES = 30.0                                 # what the right number of boxes is worth in counting


def read(text: str | None) -> float | None:
    """A number as float() reads it."""
    try:
        return float(text or "")
    except ValueError:
        return None


@to_rows_with("answer")
def answer_reward_func(completions: list, answer: list, prefill: list | None = None, **columns: Any) -> list[float]:
    """1.0 where the answer is the gold number and made of digits, spaces and points.

    >>> answer_reward_func(["<answer>3</answer>", "<answer>-3</answer>"], answer=["3", "-3"])
    [1.0, 0.0]
    """
    found = []
    for text, gold in zip(whole_texts(completions, prefill), answer, strict=True):
        given = section(text, "answer")
        value = read(given)
        found.append(float(value is not None and abs(value - float(gold)) < CLOSE and set(given or "") <= ALLOWED))
    return found


@to_rows_with("answer")
def soft_count_reward_func(completions: list, answer: list, prefill: list | None = None,
                           **columns: Any) -> list[float]:
    """exp(-error^2 / 4); 0 where there is no number."""
    return [0.0 if error is None else math.exp(-min(error * error / 4, 700.0))
            for error in errors(completions, answer, prefill)]


@to_rows_with("answer")
def soft_result_reward_func(completions: list, answer: list, prefill: list | None = None,
                            **columns: Any) -> list[float]:
    """exp(-|error|); 0 where there is no number."""
    return [0.0 if error is None else math.exp(-min(error, 700.0)) for error in errors(completions, answer, prefill)]


def errors(completions: list, answer: list, prefill: list | None) -> list[float | None]:
    """How far each answer is from the gold; None where it is no number."""
    values = [read(section(text, "answer")) for text in whole_texts(completions, prefill)]
    return [None if value is None or math.isnan(value) else abs(value - float(gold))
            for value, gold in zip(values, answer, strict=True)]


def marks_counted(completions: list, prefill: list | None) -> list[int]:
    """How many boxes and points are in each reasoning."""
    return [len(marks_in(section(text, "think") or "")) for text in whole_texts(completions, prefill)]


@to_rows_with("target")
def count_boxes_reward_func(completions: list, target: list, prefill: list | None = None,
                            **columns: Any) -> list[float]:
    """30 n / target for n boxes and points in the reasoning, up to the target; beyond it 30 exp(-(n - target) /
    target).

    >>> box = '{"bbox_2d": [0, 0, 0, 0], "label": "any"}'
    >>> count_boxes_reward_func([f"<think>{box} {box}</think>"] * 2, target=[2, 4])
    [30.0, 15.0]
    """
    return [BOXES * (n / t if n <= t else math.exp(-(n - t) / t))
            for n, t in zip(marks_counted(completions, prefill), target, strict=True)]


@to_rows_with("counts")
def computation_boxes_reward_func(completions: list, counts: list, prefill: list | None = None,
                                  **columns: Any) -> list[float]:
    """n / (c1 + c2) for n boxes and points in the reasoning, up to that; beyond it max(0.1, 1 - (n - c1 - c2) / (c1 +
    c2))."""
    return [n / sum(c) if n <= sum(c) else max(0.1, 1 - (n - sum(c)) / sum(c))
            for n, c in zip(marks_counted(completions, prefill), counts, strict=True)]


NAMES: dict[str, Callable | list[Callable]] = {
    "r1_vlm_counting": [answer_reward_func, soft_count_reward_func, count_boxes_reward_func, format_reward_func],
    "r1_vlm_computation": [format_reward_func, answer_reward_func, soft_result_reward_func,
                           computation_boxes_reward_func],
    "r1_vlm.count_answer": answer_reward_func, "r1_vlm.count_soft_answer": soft_count_reward_func,
    "r1_vlm.count_boxes": count_boxes_reward_func, "r1_vlm.computation_soft_answer": soft_result_reward_func,
    "r1_vlm.computation_boxes": computation_boxes_reward_func,
}
