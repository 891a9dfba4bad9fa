"""DeepSeekRL's five rewards exactly as published (they come from willccbb's grpo_demo), to reproduce its numbers.

Known faults, kept: dots do not match newlines, so strict pays for reasoning on one line and strict and soft exclude
each other; an answer outside its tags counts; "1,200" is not 1200; a superscript digit is an integer.
"""
import re
from typing import Any

from ..answers import text_of

STRICT = re.compile(r"^<reasoning>\n.*?\n</reasoning>\n<answer>\n.*?\n</answer>\n$")
# <reasoning>.*?</reasoning>\s*<answer>.*?</answer>, in a time that is in proportion to the text: the answer is on the
# line of the reasoning, after the first tags that are near enough to each other there, or on a later one
SOFT = re.compile(r"<reasoning>(?:(?>.*?</reasoning>[^\S\n]*<answer>)|(?>.*</reasoning>)\s*<answer>).*?</answer>")


def extracted(completion: Any) -> str:
    """What follows the last <answer>, up to its end tag; all of the text where there is no tag."""
    return text_of(completion).split("<answer>")[-1].split("</answer>")[0].strip()


def correctness_reward_func(completions: list, answer: list, **columns: Any) -> list[float]:
    """2.0 where the extracted answer is the gold string."""
    return [2.0 if extracted(c) == gold else 0.0 for c, gold in zip(completions, answer, strict=True)]


def int_reward_func(completions: list, **columns: Any) -> list[float]:
    """0.5 where the extracted answer is made of digits."""
    return [0.5 if extracted(c).isdigit() else 0.0 for c in completions]


def strict_format_reward_func(completions: list, **columns: Any) -> list[float]:
    """0.5 for tags on lines of their own around one line each."""
    return [0.5 if STRICT.match(text_of(c)) else 0.0 for c in completions]


def soft_format_reward_func(completions: list, **columns: Any) -> list[float]:
    """0.5 for tags in order at the start, without newlines inside."""
    return [0.5 if SOFT.match(text_of(c)) else 0.0 for c in completions]


def xmlcount_reward_func(completions: list, **columns: Any) -> list[float]:
    """Up to 0.5 for tags with their newlines, less 0.001 a trailing character; may be negative."""
    return [count_xml(text_of(c)) for c in completions]


def count_xml(text: str) -> float:
    """The score of xmlcount_reward_func for one text."""
    count = 0.125 * (text.count("<reasoning>\n") == 1) + 0.125 * (text.count("\n</reasoning>\n") == 1)
    if text.count("\n<answer>\n") == 1:
        count += 0.125 - 0.001 * len(text.split("\n</answer>\n")[-1])
    if text.count("\n</answer>") == 1:
        count += 0.125 - 0.001 * (len(text.split("\n</answer>")[1]) - 1)
    return count


NAMES = {
    "deepseekrl": [correctness_reward_func, int_reward_func, strict_format_reward_func, soft_format_reward_func,
                   xmlcount_reward_func],
    "correctness_reward_func": correctness_reward_func, "int_reward_func": int_reward_func,
    "strict_format_reward_func": strict_format_reward_func, "soft_format_reward_func": soft_format_reward_func,
    "xmlcount_reward_func": xmlcount_reward_func,
}
