"""Rewards for <reasoning>...</reasoning><answer>...</answer>.

The same five as DeepSeekRL's, with what was wrong there put right: reasoning may have many lines, an answer counts
only inside its tags, and numbers are compared as numbers ("1,200" is 1200, "$72" and "72.0" are 72). The published
functions, to the letter, are in grpo/rewards/deepseekrl.py.
"""
import re
from collections.abc import Callable
from typing import Any

from ..answers import as_number, tagged_answer, text_of
from .accuracy import are_correct, log_accuracy

# what is in (?> ) is looked for once, so that no text takes long
STRICT = re.compile(r"<reasoning>\n(?>.*?\n</reasoning>\n<answer>\n).*?\n</answer>\n?", re.DOTALL)
SOFT = re.compile(r"\s*<reasoning>(?>.*?</reasoning>\s*<answer>).*?</answer>", re.DOTALL)
TAGS = ("<reasoning>", "</reasoning>", "<answer>", "</answer>")


def correctness_reward(completions: list, answer: list, log_metric: Callable | None = None,
                       **columns: Any) -> list[float | None]:
    """2.0 where the tagged answer is the column answer, as number or as text; None where the row has no answer. Logs
    accuracy/strict and accuracy/lenient.

    >>> correctness_reward(["<answer>$1,200</answer>", "1200"], answer=["1200", "1200"])
    [2.0, 0.0]
    """
    log_accuracy(log_metric, completions, answer)
    return [None if right is None else 2.0 * right for right in are_correct(completions, answer)]


correctness_reward.golds = ("answer",)                                        # type: ignore[attr-defined]


def integer_reward(completions: list, **columns: Any) -> list[float]:
    """0.5 where the tagged answer is a whole number."""
    numbers = [as_number(tagged_answer(text_of(c)) or "") for c in completions]
    return [0.5 if n is not None and n.denominator == 1 else 0.0 for n in numbers]


def strict_format_reward(completions: list, **columns: Any) -> list[float]:
    """0.5 where a completion is exactly the four tags, each once and on a line of its own, around some text."""
    texts = [text_of(c) for c in completions]
    return [0.5 if STRICT.fullmatch(t) and all(t.count(tag) == 1 for tag in TAGS) else 0.0 for t in texts]


def soft_format_reward(completions: list, **columns: Any) -> list[float]:
    """0.5 where a completion starts with reasoning followed by an answer."""
    return [0.5 if SOFT.match(text_of(c)) else 0.0 for c in completions]


def xml_tags_reward(completions: list, **columns: Any) -> list[float]:
    """0.125 for each of the four tags that stands exactly once, less 0.001 for each character after the last one; never
    below 0."""
    return [tag_score(text_of(c)) for c in completions]


def tag_score(text: str) -> float:
    """The reward of xml_tags_reward for one text."""
    score = 0.125 * sum(text.count(tag) == 1 for tag in TAGS)
    return max(0.0, score - 0.001 * len(text.rpartition("</answer>")[2].strip())) if "</answer>" in text else score


NAMES = {
    "xml": [correctness_reward, integer_reward, strict_format_reward, soft_format_reward, xml_tags_reward],
    "correctness_reward": correctness_reward, "integer_reward": integer_reward,
    "strict_format_reward": strict_format_reward, "soft_format_reward": soft_format_reward,
    "xml_tags_reward": xml_tags_reward,
    # R1's short names mean these; what it published is r1.<name>
    "correctness": correctness_reward, "int": integer_reward, "strict_format": strict_format_reward,
    "soft_format": soft_format_reward,
}
