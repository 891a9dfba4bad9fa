"""Rewards for naming what an image shows: those of DeepSeekRL's flowers exactly as published, and mended.

In a recipe "flowers" is the published set: the name anywhere in the text, strict and soft format, the quality of the
reasoning. Its known faults, kept: whoever lists every class is right, and so is "desert-rose" where it is a rose;
"colour" is no color; a keyword counts inside other words (stem in system). "class_name" is the set with these put
right: the name has to be the answer, whole and alone. It serves any data set whose answers are names of classes.
"""
import re
from collections.abc import Callable
from typing import Any

from ..answers import tagged, tagged_answer, text_of
from .accuracy import log_accuracy
from .applying import to_rows_with
from .deepseekrl import soft_format_reward_func, strict_format_reward_func
from .xml import soft_format_reward, strict_format_reward

KEYWORDS = ("petal", "color", "shape", "center", "stem", "pattern", "size")
MENDED = re.compile(r"\b(?:(petal)|(colou?r)|(shape)|(cent(?:er|re))|(stem)|(pattern)|(size))", re.IGNORECASE)
FULL = 0.5                                   # of each half of the reasoning's quality
WORDS = 50                                   # a word is 1 / 50: 25 are enough
LEAD = re.compile(r"(?:(?:this|that|it|the)(?: [\w']+){0,2} (?:is|shows) )?(?:an? |the )?")


@to_rows_with("answer")
def correctness_reward_func(completions: list, answer: list, **columns: Any) -> list[float]:
    """2.0 where the class's name is anywhere in the completion, in any case."""
    return [2.0 if gold.lower() in text_of(c).lower() else 0.0 for c, gold in zip(completions, answer, strict=True)]


def reasoning_quality_reward_func(completions: list, **columns: Any) -> list[float]:
    """Up to 0.5 for 25 words of reasoning, and up to 0.5 for four of seven keywords in it.

    >>> text = "<reasoning>The petals have a pink color and a star shape</reasoning>"
    >>> round(reasoning_quality_reward_func([text])[0], 5)
    0.62857
    """
    texts = [text_of(c).split("<reasoning>")[-1].split("</reasoning>")[0].strip() for c in completions]
    return [quality(t, sum(word in t.lower() for word in KEYWORDS)) for t in texts]


def quality(reasoning: str, hits: int) -> float:
    """What a reasoning with so many of the keywords is worth."""
    return min(len(reasoning.split()) / WORDS, FULL) + min(hits / len(KEYWORDS), FULL)


@to_rows_with("answer")
def class_name_reward(completions: list, answer: list, log_metric: Callable | None = None,
                      **columns: Any) -> list[float]:
    """2.0 where the tagged answer is the name in the column answer, whole and alone: "Desert-Rose." and "This flower is
    a desert rose." are right for "desert-rose"; "rose", "not a desert rose" and "tulip or desert rose" are not. Logs
    accuracy/strict and accuracy/lenient.

    >>> class_name_reward(["<answer>This is a Rose.</answer>", "<answer>desert-rose</answer>"], answer=["rose", "rose"])
    [2.0, 0.0]
    """
    log_accuracy(log_metric, completions, answer)
    return [2.0 if says(tagged_answer(text_of(c)), gold) else 0.0
            for c, gold in zip(completions, answer, strict=True)]


def says(answer: str | None, name: str) -> bool:
    """Whether an answer is a name, alone or at the end of "this flower is a ..."."""
    if answer is None:
        return False
    given, wanted = plain(answer), plain(name)
    return given.endswith(wanted) and LEAD.fullmatch(given[:len(given) - len(wanted)]) is not None


def plain(text: str) -> str:
    """A name without what does not tell it from others: case, hyphens, brackets and what ends a sentence.

    >>> plain("[Black-eyed Susan].")
    'black eyed susan'
    """
    plainer = text.casefold().replace("’", "'").replace("_", " ").replace("-", " ")
    return " ".join(plainer.strip(" \n\t.,;:!?*\"'`[](){}").split())


def reasoning_quality_reward(completions: list, **columns: Any) -> list[float]:
    """Up to 0.5 for 25 words between <reasoning> and </reasoning>, and up to 0.5 for words that begin with four of the
    seven keywords, in either spelling; 0 without the tags.

    >>> reasoning_quality_reward(["<reasoning>" + 25 * "colour " + "</reasoning>", "color"])
    [0.6428571428571428, 0.0]
    """
    return [mended_quality(text_of(c)) for c in completions]


def mended_quality(text: str) -> float:
    """The reward of reasoning_quality_reward for one text."""
    reasoning = tagged(text, "reasoning") if "</reasoning>" in text.rpartition("<reasoning>")[2] else None
    return quality(reasoning, len({found.lastindex for found in MENDED.finditer(reasoning)})) if reasoning else 0.0


NAMES = {
    "flowers": [correctness_reward_func, strict_format_reward_func, soft_format_reward_func,
                reasoning_quality_reward_func],
    "flowers.correctness": correctness_reward_func, "flowers.reasoning_quality": reasoning_quality_reward_func,
    "class_name": [class_name_reward, strict_format_reward, soft_format_reward, reasoning_quality_reward],
    "class_name_reward": class_name_reward, "reasoning_quality_reward": reasoning_quality_reward,
}
