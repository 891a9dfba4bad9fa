"""r1_vlm's rewards for digits and message decoding exactly as published, to reproduce its numbers. In a recipe they are
r1_vlm_digits, r1_vlm_words and r1_vlm_sequences, or one by one r1_vlm.format, r1_vlm.digits ...

Known faults, kept: a quoted word is wrong though the prompt quotes its example; an equation is no sum; of two chars
sections the first is taken and the format passes; the first answer counts, and several pass; a missing or a doubled
newline before the answer is no format. What is done about them: grpo/rewards/decoding.py.

Where a row has a prefill, the beginning of the answer that the prompt ends with, a completion is scored with it.
"""
import re
from typing import Any

from .applying import to_rows_with
from .decoding import chars_score, softened, whole_texts

PREFILLED_LINE = "Let me solve this step by step.\n"
INSIDE = r"(?:(?!</?think>).)*+"             # of <think>, to its end; *+ goes no step back, so that no text takes long
CHARS = r"(?:(?!</?think>|<chars>).)*+<chars>(?:(?!</?think>|</chars>).)*+</chars>"
ANSWER = r"\n<answer>.*?</answer>$"
FORMAT = re.compile(rf"^<think>{INSIDE}</think>{ANSWER}", re.DOTALL)
FORMAT_CHARS = re.compile(rf"^<think>{CHARS}{INSIDE}</think>{ANSWER}", re.DOTALL)


def section(text: str, tag: str) -> str | None:
    """What stands between the first <tag> and the next </tag>, stripped; None without."""
    inside, closed, _ = text.partition(f"<{tag}>")[2].partition(f"</{tag}>")
    return inside.strip() if closed else None


def format_reward_func(completions: list, prefill: list | None = None, **columns: Any) -> list[float]:
    """1.0 for <think>...</think>, a newline, <answer>...</answer> and nothing else."""
    return [float(FORMAT.match(t.removeprefix(PREFILLED_LINE)) is not None) for t in whole_texts(completions, prefill)]


def chars_format_reward_func(completions: list, prefill: list | None = None, **columns: Any) -> list[float]:
    """The same with a <chars> section in <think>."""
    return [float(FORMAT_CHARS.match(t.removeprefix(PREFILLED_LINE)) is not None)
            for t in whole_texts(completions, prefill)]


@to_rows_with("label")
def digits_reward_func(completions: list, task: list, label: list, total: list, prefill: list | None = None,
                       **columns: Any) -> list[float]:
    """1.0 where the answer is the sorted list of digits (task recognition), or their sum (addition).

    >>> answers = ["<answer>[1, 2]</answer>", "<answer>[2, 1]</answer>", "<answer>1 + 2 = 3</answer>"]
    >>> digits_reward_func(answers, ["recognition", "recognition", "addition"], [[1, 2]] * 3, [3] * 3)
    [1.0, 0.0, 0.0]
    """
    scores = []
    for text, kind, digits, whole in zip(whole_texts(completions, prefill), task, label, total, strict=True):
        answer = section(text, "answer")
        try:
            right = answer is not None and ([int(part) for part in answer.strip("[]").split(",")] == list(digits)
                                            if kind == "recognition" else int(answer) == whole)
        except ValueError:
            right = False
        scores.append(float(right))
    return scores


@to_rows_with("decoded_message")
def word_reward_func(completions: list, decoded_message: list, prefill: list | None = None,
                     **columns: Any) -> list[float]:
    """1.0 where the answer in capitals is the message."""
    answers = [section(text, "answer") for text in whole_texts(completions, prefill)]
    return [float(a is not None and a.upper() == gold) for a, gold in zip(answers, decoded_message, strict=True)]


@to_rows_with("decoded_message")
def chars_intermediate_reward_func(completions: list, coded_message: list, decoded_message: list,
                                   prefill: list | None = None, **columns: Any) -> list[float]:
    """1 - edit distance / length between what <chars> holds and the spaced message; 0 where it is nearer to the coded
    one.

    >>> chars_intermediate_reward_func(["<chars>v i s i o m</chars>"], ["rhqhct"], ["vision"])
    [0.9090909090909091]
    """
    return [chars_score(section(text, "chars"), coded, gold) for text, coded, gold in
            zip(whole_texts(completions, prefill), coded_message, decoded_message, strict=True)]


@to_rows_with("decoded_message")
def correctness_reward_func(completions: list, coded_message: list, decoded_message: list, prefill: list | None = None,
                            **columns: Any) -> list[float]:
    """1.0 where the answer is the message and <chars> holds it letter by letter."""
    chars = chars_intermediate_reward_func(completions, coded_message, decoded_message, prefill)
    answers = [section(text, "answer") for text in whole_texts(completions, prefill)]
    return [float(score == 1.0 and a == gold) for score, a, gold in zip(chars, answers, decoded_message, strict=True)]


@to_rows_with("decoded_message")
def correctness_intermediate_reward_func(completions: list, coded_message: list, decoded_message: list,
                                         prefill: list | None = None, **columns: Any) -> list[float]:
    """1 - edit distance / length between the answer and the message; 0 unless <chars> is right, where the answer is as
    far off as the spaced message, and for characters besides a to z and spaces."""
    chars = chars_intermediate_reward_func(completions, coded_message, decoded_message, prefill)
    answers = [section(text, "answer") for text in whole_texts(completions, prefill)]
    return [softened(a, gold) if score == 1.0 else 0.0
            for score, a, gold in zip(chars, answers, decoded_message, strict=True)]


NAMES = {
    "r1_vlm_digits": [format_reward_func, digits_reward_func],
    "r1_vlm_words": [format_reward_func, word_reward_func],
    "r1_vlm_sequences": [chars_intermediate_reward_func, correctness_reward_func, chars_format_reward_func,
                         correctness_intermediate_reward_func],
    "r1_vlm.format": format_reward_func, "r1_vlm.chars_format": chars_format_reward_func,
    "r1_vlm.digits": digits_reward_func, "r1_vlm.word": word_reward_func,
    "r1_vlm.chars_intermediate": chars_intermediate_reward_func, "r1_vlm.correctness": correctness_reward_func,
    "r1_vlm.correctness_intermediate": correctness_intermediate_reward_func,
}
