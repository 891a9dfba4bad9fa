"""Numbers for answers, exactly and nearly: counting and computation. r1_vlm's functions, to the letter, are in
grpo/rewards/r1_vlm_counting.py; there negative answers were never right, and boxes were counted but not looked at,
thirty times as much worth as the answer."""
import math
from fractions import Fraction
from typing import Any

from ..answers import quantity, tagged_answer, text_of
from ..errors import RewardError
from .arguments import number
from .boxes import BoxesReward
from .decoding import think_format

CLOSE = Fraction(1, 100000)                  # what is nearer is the same number


def number_reward(completions: list, answer: list, **columns: Any) -> list[float | None]:
    """1.0 where the tagged answer is the number in the column answer, to 5 decimals, else 0.0; signs, commas and a unit
    may be there. None where the row has no answer.

    >>> number_reward(["<answer>-3</answer>", "<answer>1.670</answer>", "-3"], answer=["-3", "1.67", "-3"])
    [1.0, 1.0, 0.0]
    """
    return [None if error is None else float(abs(error) < CLOSE)
            for error in errors_of("number_reward", completions, answer)]


class SoftNumber:
    """exp(-(error / scale)^power) of the tagged answer; 0 where it is no number. r1_vlm takes scale 2 and power 2 for
    counts, and 1 and 1 for what is computed of them.

    >>> [round(x, 4) for x in SoftNumber()(["<answer>-1</answer>", "<answer>-2</answer>", "none"], answer=["-1"] * 3)]
    [1.0, 0.3679, 0.0]
    """

    __name__ = "soft_number_reward"

    def __init__(self, scale: float = 1.0, power: float = 1.0):
        self.scale = number(self.__name__, "scale", scale, 1e-6)
        self.power = number(self.__name__, "power", power, 1e-6)

    def __call__(self, completions: list, answer: list, **columns: Any) -> list[float | None]:
        """One reward a completion, from 0 to 1; None where the row has no answer."""
        return [None if error is None else self.value(error)
                for error in errors_of(self.__name__, completions, answer)]

    def value(self, error: float) -> float:
        """The reward of one answer that is so far off."""
        far = math.log(max(abs(error) / self.scale, 1e-300)) * self.power
        return math.exp(-math.exp(far)) if far < 7 else 0.0             # exp(-exp(7)) is 0


def errors_of(reward: str, completions: list, answers: list) -> list[Any]:
    """The tagged answer of each completion less the gold; infinity where it is no number, None where there is no gold.
    RewardError for a gold that is no number."""
    found: list[Any] = []
    for i, (completion, gold) in enumerate(zip(completions, answers, strict=True)):
        if gold is None:
            found.append(None)
            continue
        wanted, given = quantity(str(gold)), quantity(tagged_answer(text_of(completion)) or "")
        if wanted is None:
            raise RewardError(f"{reward}: the answer of completion {i}'s row is {gold!r:.60}, not a number")
        found.append(math.inf if given is None or unreal(given[0]) else given[0] - wanted[0])
    return found


def unreal(value: Fraction) -> bool:
    """Whether a number is too large for what is done with it."""
    return abs(value) > 10**15


SOFT_COUNT = SoftNumber(2.0, 2.0)
NAMES = {
    "counting": [think_format, number_reward, SOFT_COUNT, BoxesReward()],
    "computation": [think_format, number_reward, SoftNumber(), BoxesReward()],
    "number_reward": number_reward, "soft_number_reward": SoftNumber,
}
