"""Multiple choice: which letter does a completion choose?"""
from typing import Any

from ..answers import LETTERS, announced, answers_in, boxed, letter, tagged, text_of
from ..errors import RewardError


def multiple_choice_reward(completions: list, answer: list, **columns: Any) -> list[float | None]:
    """1.0 where a completion chooses the letter in the column answer ("B" or "(B)"), A to J, else 0.0; None where the
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
    text = text.rpartition("</think>")[2].strip() or text
    if tagged(text) is None and boxed(text) is None and announced(text) is None:
        lines = [line for line in text.strip().split("\n") if line.strip()]
        others = {letter(line) for line in lines[:-1]} - {None}       # "A\nB\nC" lists them
        last = letter(lines[-1]) if lines else None
        return last if others <= {last} else None
    return letter(answers_in(text)[0])


NAMES = {"multiple_choice_reward": multiple_choice_reward}
