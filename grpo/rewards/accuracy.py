"""Right or wrong: the answer in a completion against the data set's."""
from typing import Any

from ..errors import RewardError
from .text import final_answer, same_answer, text_of


def accuracy_reward(completions: list, answer: list | None = None, solution: list | None = None, **columns: Any) -> list[float | None]:
    """1.0 where the answer of a completion equals the column answer (or solution), as number or as text, else 0.0; None
    where the row has no answer. grpo.rewards.text says where the answer is looked for.

    >>> accuracy_reward(["<answer>1,200</answer>", "so it is 7."], answer=["1200", "8"])
    [1.0, 0.0]
    """
    golds = answer if answer is not None else solution
    if golds is None:
        raise RewardError("accuracy_reward needs a column named answer or solution")
    return [None if gold is None else float(same_answer(final_answer(text_of(c)), gold))
            for c, gold in zip(completions, golds, strict=True)]
