"""Multiple choice: which letter does a completion choose?"""
import re
from typing import Any

from ..errors import RewardError
from .text import BOXED, LATEX_TEXT, SAID, tagged, text_of

LETTERS = "ABCDEFGH"
# a letter alone, or before what it stands for: "B", "(B)", "B. a cat", "Option B", "B: a cat"
CHOICE = re.compile(rf"(?:option|choice|answer)?\s{{0,3}}(?:is|:)?\s{{0,3}}[(\[]?\s?([{LETTERS}])\s?"
                    r"(?:[)\]]\s?\.?|[.:,])?(?:(?<=[)\].:,])\s.*)?", re.IGNORECASE | re.DOTALL)
OTHER = re.compile(rf"(?:[(\[]|[,/&]\s{{0,3}}|\b(?:or|and)\s{{1,3}})([{LETTERS}])\b")


def multiple_choice_reward(completions: list, answer: list, **columns: Any) -> list[float | None]:
    """1.0 where a completion chooses the letter in the column answer ("B" or "(B)"), A to H, else 0.0; None where the
    row has no answer.

    The letter may be in parentheses or before what it stands for, in the answer tags, boxed, after "answer is", or
    alone on the last line. Two different letters there choose nothing.

    >>> said = ["<answer>(B)</answer>", "The answer is B.", "<answer>B. a cat</answer>", "A or B?", "so\\nB"]
    >>> multiple_choice_reward(said, answer=["B"] * 5)
    [1.0, 1.0, 1.0, 0.0, 1.0]
    """
    rewards: list[float | None] = []
    for i, (completion, gold) in enumerate(zip(completions, answer, strict=True)):
        wanted = None if gold is None else letter(str(gold))
        if gold is not None and wanted is None:
            raise RewardError(f"multiple_choice_reward: the answer of completion {i}'s row is {gold!r:.60}, not a "
                              f"letter from A to {LETTERS[-1]}")
        rewards.append(None if wanted is None else float(chosen(text_of(completion)) == wanted))
    return rewards


def chosen(text: str) -> str | None:
    """The letter that a completion chooses; None without one."""
    if (answer := tagged(text)) is not None:
        return letter(answer)
    if boxed := BOXED.findall(text):
        return letter(boxed[-1])
    if said := SAID.findall(text):
        return letter(said[-1])
    return letter(text.strip().rpartition("\n")[2])


def letter(text: str) -> str | None:
    """The letter that a short answer names.

    >>> letter("**(c)**"), letter(r"\\text{D}"), letter("A cat"), letter("A, or B")
    ('C', 'D', None, None)
    """
    plain = LATEX_TEXT.sub(r"\1", text).strip().strip("*$`\"' \n")
    found = CHOICE.fullmatch(plain)
    if found is None:
        return None
    others = set(OTHER.findall(plain[found.end(1):])) - {found[1].upper()}
    return None if others else found[1].upper()


NAMES = {"multiple_choice_reward": multiple_choice_reward}
