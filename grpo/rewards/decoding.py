"""Rewards for digits and decoded messages: the layout of think and answer, what is right, and what is nearly so.

r1_vlm's, with what was wrong there put right: quotes around an answer do not count, nor capitals; a sum may come as an
equation; each tag stands exactly once, with any white space between; an answer that was cut off is none. The published
functions, to the letter, are in grpo/rewards/r1_vlm.py. Where a row has a prefill, the beginning of the answer that the
prompt ends with, the layout is that of both together.
"""
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..answers import as_number, tagged_answer, text_of

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
CHARS = ("<chars>", "</chars>")
# what is in (?> ) is looked for once, so that no text takes long
LAYOUT = re.compile(r"\s*<think>(?>.*?</think>\s*<answer>).*?</answer>\s*", re.DOTALL)
LAYOUT_CHARS = re.compile(r"\s*<think>(?>.*?<chars>)(?>.*?</chars>)(?>.*?</think>\s*<answer>).*?</answer>\s*",
                          re.DOTALL)
QUOTES = "\"'`“”‘’«»"
OTHER_LETTERS = re.compile(r"[^a-z ]")
SPACE = "_"


def think_format(completions: list, prefill: list | None = None, **columns: Any) -> list[float]:
    """1.0 for <think>...</think><answer>...</answer> and nothing else, each tag once, after the prefill's line.

    >>> think_format(["3 and 4</think>\\n<answer>[3, 4]</answer>"], prefill=["Step by step.\\n<think>"])
    [1.0]
    """
    return [float(in_layout(text, LAYOUT, TAGS)) for text in after_line(completions, prefill)]


def chars_format(completions: list, prefill: list | None = None, **columns: Any) -> list[float]:
    """1.0 for the same with exactly one <chars>...</chars>, in <think>."""
    return [float(in_layout(text, LAYOUT_CHARS, TAGS + CHARS)) for text in after_line(completions, prefill)]


def digits_correctness(completions: list, task: list, label: list, total: list, **columns: Any) -> list[float | None]:
    """1.0 where the tagged answer is the sorted list of digits (task recognition), or their sum (addition), which may
    be the end of an equation; None for rows without digits.

    >>> answers = ["<answer>1, 2</answer>", "<answer>[2, 1]</answer>", "<answer>1 + 2 = 3</answer>"]
    >>> digits_correctness(answers, ["recognition", "recognition", "addition"], [[1, 2]] * 3, [3] * 3)
    [1.0, 0.0, 1.0]
    """
    answers = [unquoted(tagged_answer(text_of(c))) for c in completions]
    return [None if digits is None else float(given is not None and (
                listed(given) == list(digits) if kind == "recognition" else
                as_number(given.rpartition("=")[2]) == whole))
            for given, kind, digits, whole in zip(answers, task, label, total, strict=True)]


def decoded_correctness(completions: list, decoded_message: list, **columns: Any) -> list[float | None]:
    """1.0 where the tagged answer is the message, but for quotes, capitals and doubled spaces; None for rows without a
    message.

    >>> decoded_correctness(['<answer>"Cat"</answer>', "<answer>C A T</answer>"], ["CAT", "CAT"])
    [1.0, 0.0]
    """
    answers = [unquoted(tagged_answer(text_of(c))) for c in completions]
    return [None if gold is None else float(plain(a) == plain(gold))
            for a, gold in zip(answers, decoded_message, strict=True)]


def chars_intermediate(completions: list, coded_message: list, decoded_message: list, prefill: list | None = None,
                       **columns: Any) -> list[float | None]:
    """How near <chars> is to the spaced message: 1 - edit distance / the longer length, 0 where it is nearer to the
    coded message, which was copied then. Of several sections the last counts.

    >>> chars_intermediate(["<chars>v i s i o m</chars>", "<chars>r h q h c t</chars>"], ["rhqhct"] * 2, ["vision"] * 2)
    [0.9090909090909091, 0.0]
    """
    texts = whole_texts(completions, prefill)
    return [None if gold is None else chars_score(last_chars(text), plain(coded), plain(gold))
            for text, coded, gold in zip(texts, coded_message, decoded_message, strict=True)]


def gated_correctness(completions: list, coded_message: list, decoded_message: list, prefill: list | None = None,
                      **columns: Any) -> list[float | None]:
    """1.0 where decoded_correctness and chars_intermediate are both 1: the answer was read off the table."""
    chars = chars_intermediate(completions, coded_message, decoded_message, prefill)
    right = decoded_correctness(completions, decoded_message)
    return [None if r is None else float(r == 1.0 and c == 1.0) for r, c in zip(right, chars, strict=True)]


def correctness_intermediate(completions: list, coded_message: list, decoded_message: list,
                             prefill: list | None = None, **columns: Any) -> list[float | None]:
    """How near the answer is to the message, where chars_intermediate is 1, else 0: 1 - edit distance / the longer
    length; 0 where it is as far off as the spaced message, and for characters besides a to z and spaces."""
    chars = chars_intermediate(completions, coded_message, decoded_message, prefill)
    answers = [plain(unquoted(tagged_answer(text_of(c)))) for c in completions]
    return [None if gold is None else softened(a, plain(gold) or "") if c == 1.0 else 0.0
            for a, c, gold in zip(answers, chars, decoded_message, strict=True)]


def character_error_rate(completions: list, answer: list, **columns: Any) -> list[float | None]:
    """Edits from the tagged answer to the column answer, by the length of the latter; 1 without an answer. It is less
    that is better: a number for evaluation (eval_funcs), not a reward.

    >>> character_error_rate(["<answer>cut</answer>", "cat"], answer=["cat", "cat"])
    [0.3333333333333333, 1.0]
    """
    answers = [plain(unquoted(tagged_answer(text_of(c)))) for c in completions]
    golds = [plain(None if gold is None else str(gold)) for gold in answer]
    return [None if gold is None else 1.0 if a is None else edit_distance(a, gold) / max(1, len(gold))
            for a, gold in zip(answers, golds, strict=True)]


def whole_texts(completions: Sequence, prefill: Sequence[str | None] | None) -> list[str]:
    """The texts of completions, after the prefill of those rows that have one."""
    begun = prefill if prefill is not None else [None] * len(completions)
    return [f"{start or ''}{text_of(c)}" for c, start in zip(completions, begun, strict=True)]


def after_line(completions: Sequence, prefill: Sequence[str | None] | None) -> list[str]:
    """The same without the lines of the prefill before its last, where the tags begin."""
    begun = prefill if prefill is not None else [None] * len(completions)
    return [text[(start or "").rfind("\n") + 1:] for text, start in
            zip(whole_texts(completions, prefill), begun, strict=True)]


def in_layout(text: str, layout: re.Pattern[str], tags: Sequence[str]) -> bool:
    """Whether the text is in a layout, with each tag once."""
    return layout.fullmatch(text) is not None and all(text.count(tag) == 1 for tag in tags)


def last_chars(text: str) -> str | None:
    """What the last <chars>...</chars> holds, in small letters; None without one."""
    closed = text.split("</chars>")[:-1]
    found = next((part for part in reversed(closed) if "<chars>" in part), None)
    return None if found is None else found.partition("<chars>")[2].strip().lower()


def unquoted(answer: str | None) -> str | None:
    """An answer without quotes and white space around it."""
    return None if answer is None else answer.strip().strip(QUOTES).strip()


def plain(text: str | None) -> str | None:
    """A text in small letters with single spaces."""
    return None if text is None else " ".join(text.lower().split())


def listed(answer: str) -> list[int]:
    """The numbers of a list, with or without brackets; none where there is anything else."""
    try:
        return [int(part) for part in answer.strip("[]() ").split(",")]
    except ValueError:
        return []


def spaced(message: str) -> str:
    """Letters with spaces between, and _ for a space."""
    return " ".join(message.replace(" ", SPACE))


def chars_score(chars: str | None, coded: str | None, gold: str | None) -> float:
    """How near the letters are to the spaced message, 0 where nearer to the coded one."""
    if chars is None or gold is None:
        return 0.0
    wanted = spaced(gold)
    distance = edit_distance(chars, wanted)
    if coded is not None and edit_distance(chars, spaced(coded)) < distance:
        return 0.0
    return similarity(distance, chars, wanted)


def softened(answer: str | None, gold: str) -> float:
    """How near an answer is to a message, 0 where it is as far off as the spaced message or holds other characters than
    a to z and spaces."""
    if answer is None or OTHER_LETTERS.search(answer):
        return 0.0
    distance = edit_distance(answer, gold)
    return 0.0 if edit_distance(spaced(gold), gold) <= distance else similarity(distance, answer, gold)


def similarity(distance: int, one: str, other: str) -> float:
    """1 - distance / the longer length."""
    return min(1.0, max(0.0, 1 - distance / max(len(one), len(other), 1)))


def edit_distance(one: str, other: str) -> int:
    """Levenshtein's distance: the fewest letters to insert, delete or replace.

    >>> edit_distance("kitten", "sitting")
    3
    """
    short, long = sorted((one, other), key=len)
    codes = np.frombuffer(long.encode("utf-32-le", "surrogatepass"), np.uint32)
    steps = np.arange(len(codes) + 1)
    row = steps.copy()                       # distances of what is read of short to the beginnings of long
    for i, letter in enumerate(short, 1):
        changed = np.minimum(row[1:] + 1, row[:-1] + (codes != ord(letter)))
        row = np.minimum.accumulate(np.concatenate([[i], changed]) - steps) + steps    # and then insertions
    return int(row[-1])


NAMES = {
    "digits": [think_format, digits_correctness],
    "decoding": [think_format, decoded_correctness],
    "decoding_chars": [chars_intermediate, gated_correctness, chars_format, correctness_intermediate],
    "think_format": think_format, "chars_format": chars_format, "digits_correctness": digits_correctness,
    "decoded_correctness": decoded_correctness, "chars_intermediate": chars_intermediate,
    "gated_correctness": gated_correctness, "correctness_intermediate": correctness_intermediate,
    "character_error_rate": character_error_rate,
}
