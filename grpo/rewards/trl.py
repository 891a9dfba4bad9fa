"""TRL's rewards that ask math-verify whether an answer is right, by TRL's names and arguments and with its numbers.

The others are in grpo.rewards too: think_format_reward, get_soft_overlong_punishment, get_repetition_penalty_reward.
grpo.rewards.accuracy_reward has the rule of TRL's (boxed, or announced as a formula) without the library; the function
here asks it, and has its results to the letter.
"""
import functools
from collections.abc import Sequence
from typing import Any

from ..answers import text_of
from ..errors import warn
from .arguments import number, whole
from .deadline import Worker
from .length import cosine
from .math_verify import equal_in_latex

SECONDS = 15.0                               # of one completion; TRL gives its parser 10 and its comparison 5


def accuracy_reward(completions: list, solution: list, **columns: Any) -> list[float | None]:
    """1.0 where what a completion has in \\\\boxed{}, or in LaTeX after words like "the answer is", equals the column
    solution, else 0.0; None where the solution cannot be read.

    >>> accuracy_reward(["so \\\\boxed{\\\\frac{1}{3}}", "so 1/3"], solution=["1/3", "1/3"])
    [1.0, 0.0]
    """
    return [None if right is None else float(right) for right in are_equal([text_of(c) for c in completions], solution)]


def reasoning_accuracy_reward(completions: list, solution: list, reasoning_delimiters: list[str] | None = None,
                              **columns: Any) -> list[float | None]:
    """The same for what comes after the reasoning: after the last of the first delimiter that a completion has (None:
    </think>). 0.0 without one.

    >>> reasoning_accuracy_reward(["<think>3?</think> \\\\boxed{4}", "<think>\\\\boxed{4}"], solution=["4", "4"])
    [1.0, 0.0]
    """
    delimiters = ["</think>"] if reasoning_delimiters is None else reasoning_delimiters
    texts = [text_of(c) for c in completions]
    ends = [next((d for d in delimiters if d in text), None) for text in texts]
    answers = [text.rpartition(end)[2] for text, end in zip(texts, ends, strict=True) if end is not None]
    golds = [gold for gold, end in zip(solution, ends, strict=True) if end is not None]
    found = iter(accuracy_reward(answers, golds))
    return [0.0 if end is None else next(found) for end in ends]


class CosineScaled:
    """A cosine of the length in tokens, from max_value_correct down to min_value_correct at max_len for right answers
    and from min_value_wrong up to max_value_wrong for wrong ones (Demystifying Long CoT, arXiv 2502.03373, appendix
    C.1). Right or wrong by accuracy_reward.

    >>> texts = ["\\\\boxed{3}", "\\\\boxed{4}"]
    >>> CosineScaled(max_len=100)(texts, solution=["3", "3"], completion_ids=[[1] * 50, [1] * 50])
    [0.75, -0.75]
    """

    __name__ = "cosine_scaled_reward"

    def __init__(self, max_len: int, min_value_wrong: float = -1.0, max_value_wrong: float = -0.5,
                 min_value_correct: float = 0.5, max_value_correct: float = 1.0):
        self.max_len = whole(self.__name__, "max_len", max_len)
        self.wrong = (number(self.__name__, "min_value_wrong", min_value_wrong),
                      number(self.__name__, "max_value_wrong", max_value_wrong))
        self.correct = (number(self.__name__, "max_value_correct", max_value_correct),
                        number(self.__name__, "min_value_correct", min_value_correct))

    def __call__(self, completions: list, solution: list, completion_ids: list[list[int]],
                 **columns: Any) -> list[float | None]:
        """One reward a completion; None where the solution cannot be read."""
        right = accuracy_reward(completions, solution)
        return [None if r is None else cosine(len(ids) / self.max_len, *(self.correct if r else self.wrong))
                for r, ids in zip(right, completion_ids, strict=True)]


get_cosine_scaled_reward = CosineScaled      # by TRL's name


@functools.cache
def comparison() -> Worker:
    """The process that compares: math-verify's parser can take for ever over a few characters."""
    return Worker(equal_in_latex)


def are_equal(texts: Sequence[str], golds: Sequence[Any]) -> list[bool | None]:
    """equal_in_latex of each; what takes longer than SECONDS is wrong, as in TRL, and said."""
    return [None if gold is None else is_equal(text, str(gold)) for text, gold in zip(texts, golds, strict=True)]


def is_equal(text: str, gold: str) -> bool | None:
    """equal_in_latex within SECONDS."""
    try:
        return comparison().call([text, gold], {}, [], SECONDS)[0]
    except TimeoutError:
        warn(f"math-verify took more than {SECONDS:g} s over {text[-80:]!r} and was ended; that is wrong then")
        return False


NAMES = {"reasoning_accuracy_reward": reasoning_accuracy_reward, "cosine_scaled_reward": CosineScaled}
