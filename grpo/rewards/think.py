"""Reasoning inside <think> tags, and an answer after it."""
import re
from typing import Any

from .text import text_of

THINK = re.compile(r"<think>(?!.*<think>).*?</think>", re.DOTALL)
THINK_ANSWER = re.compile(r"\s*<think>(?>.*?</think>\s*<answer>).*?</answer>\s*", re.DOTALL)
TAGS = ("<think>", "</think>", "<answer>", "</answer>")


def think_format_reward(completions: list, **columns: Any) -> list[float]:
    """1.0 where a completion opens with its only <think> and closes it, else 0.0 (TRL's function of the same name).

    >>> think_format_reward(["<think>so</think> 4", "4"])
    [1.0, 0.0]
    """
    return [float(THINK.match(text_of(c)) is not None) for c in completions]


def think_answer_format_reward(completions: list, **columns: Any) -> list[float]:
    """1.0 where a completion is <think>...</think> <answer>...</answer> and nothing else, each tag once, else 0.0 (the
    format reward of DeepSeek-R1, arXiv 2501.12948, section 2.2.2).

    >>> think_answer_format_reward(["<think>2 + 2</think>\\n<answer>4</answer>", "<think>2 + 2</think> 4"])
    [1.0, 0.0]
    """
    texts = [text_of(c) for c in completions]
    return [float(THINK_ANSWER.fullmatch(t) is not None and all(t.count(tag) == 1 for tag in TAGS)) for t in texts]


NAMES = {"think_format_reward": think_format_reward, "think_answer_format_reward": think_answer_format_reward}
