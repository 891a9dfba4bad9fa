"""Right or wrong: the answer in a completion against the data set's."""
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import RewardError
from .text import final_answer, same_answer, tagged_answer, text_of


def accuracy_reward(completions: list, answer: list | None = None, solution: list | None = None,
                    log_metric: Callable | None = None, **columns: Any) -> list[float | None]:
    """1.0 where the answer of a completion equals the column answer (or solution), as number or as text, else 0.0; None
    where the row has no answer. grpo.rewards.text says where the answer is looked for. Logs accuracy/strict and
    accuracy/lenient.

    >>> accuracy_reward(["<answer>1,200</answer>", "so it is 7."], answer=["1200", "8"])
    [1.0, 0.0]
    """
    golds = golds_of("accuracy_reward", answer, solution)
    log_accuracy(log_metric, completions, golds)
    return [None if right is None else float(right) for right in are_correct(completions, golds, strict=False)]


def golds_of(reward: str, answer: Sequence | None, solution: Sequence | None) -> Sequence:
    """The reference answers: column answer, else solution. Raises RewardError where there is neither."""
    golds = answer if answer is not None else solution
    if golds is None:
        raise RewardError(f"{reward} needs a column named answer or solution")
    return golds


def are_correct(completions: Sequence, golds: Sequence, truncated: Sequence[bool] | None = None,
                strict: bool = True) -> list[bool | None]:
    """Whether each completion gives its gold; None where there is no gold. strict: only what stands in <answer> counts.
    A truncated completion is wrong.

    >>> are_correct(["<answer>12</answer>", "it is 12", "it is 12"], ["12", "12", None])
    [True, False, None]
    """
    read = tagged_answer if strict else final_answer
    answers = [read(text_of(c)) for c in completions]
    cut = truncated if truncated is not None else [False] * len(answers)
    return [None if gold is None else a is not None and not late and same_answer(a, gold)
            for a, gold, late in zip(answers, golds, cut, strict=True)]


def log_accuracy(log_metric: Callable | None, completions: Sequence, golds: Sequence) -> None:
    """Logs the share that is right by its tagged answer (strict) and by an answer anywhere (lenient), over the rows
    with a gold."""
    if log_metric is None:
        return
    for name, strict in (("strict", True), ("lenient", False)):
        right = [r for r in are_correct(completions, golds, strict=strict) if r is not None]
        if right:
            log_metric(f"accuracy/{name}", sum(right) / len(right))


NAMES = {"accuracy_reward": accuracy_reward}
