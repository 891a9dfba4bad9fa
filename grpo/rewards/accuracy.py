r"""Right or wrong: the answer in a completion against the data set's.

answer_reward reads an answer wherever it stands and in whatever dress (grpo.answers). accuracy_reward bears the name of
TRL's function: with its column, solution, only what is boxed, or announced as a formula, is an answer, as there; with
the column answer, which TRL has not, it is answer_reward.
"""
from collections.abc import Callable, Sequence
from typing import Any

from ..answers import answers_in, latex_answer, same_answer, tagged_answer, text_of
from ..errors import RewardError
from ..vision.messages import question_of

GOLDS = ("answer", "solution")               # the columns of reference answers: the first that a row has


def answer_reward(completions: list, answer: list | None = None, solution: list | None = None,
                  prompts: list | None = None, log_metric: Callable | None = None,
                  **columns: Any) -> list[float | None]:
    """1.0 where the answer of a completion equals the column answer (or solution), by value or as text, else 0.0; None
    where the row has no answer. What is counted may be named, if the prompt asks for it ("3 dozen"). Logs
    accuracy/strict and accuracy/lenient.

    >>> answer_reward(["<answer>1,200</answer>", "so it is 7.", "The answer is: 7/4"], answer=["1200", "8", "1.75"])
    [1.0, 0.0, 1.0]
    """
    golds = golds_of("answer_reward", answer, solution)
    log_accuracy(log_metric, completions, golds, prompts)
    return [None if right is None else float(right)
            for right in are_correct(completions, golds, strict=False, prompts=prompts)]


def accuracy_reward(completions: list, answer: list | None = None, solution: list | None = None,
                    prompts: list | None = None, log_metric: Callable | None = None,
                    **columns: Any) -> list[float | None]:
    r"""1.0 for a right answer, else 0.0; None where the row has none. With a column answer as answer_reward; with
    solution alone, a text that ends with the answer or an answer, what a completion has in \\boxed{}, or as a formula
    after words like "the answer is", counts, and nothing else (TRL's rule, without math-verify).

    >>> accuracy_reward(["so \\\\boxed{91}", "so 91"], solution=["We add. It is $\\\\boxed{91}$."] * 2)
    [1.0, 0.0]
    >>> accuracy_reward(["so 91"], answer=["91"])
    [1.0]
    """
    if answer is not None or solution is None:
        golds_of("accuracy_reward", answer, solution)
        return answer_reward(completions, answer, solution, prompts, log_metric)
    log_accuracy(log_metric, completions, solution, prompts)
    given = [latex_answer(text_of(c)) for c in completions]
    return [None if gold is None else float(text is not None and same_answer(text, gold, question))
            for text, gold, question in zip(given, solution, questions_of(prompts, len(given)), strict=True)]


def golds_of(reward: str, answer: Sequence | None, solution: Sequence | None) -> Sequence:
    """The reference answers: column answer, else solution. Raises RewardError where there is neither."""
    golds = answer if answer is not None else solution
    if golds is None:
        raise RewardError(f"{reward} needs a column named answer or solution")
    return golds


# the columns whose answers are read, all of them, before training begins (grpo.rewards.golds)
answer_reward.golds = accuracy_reward.golds = GOLDS                            # type: ignore[attr-defined]


def questions_of(prompts: list | None, length: int) -> list[str | None]:
    """What each prompt asks: its last message of a user."""
    return [None] * length if prompts is None else [question_of(prompt) for prompt in prompts]


def are_correct(completions: Sequence, golds: Sequence, truncated: Sequence[bool] | None = None, strict: bool = True,
                prompts: list | None = None) -> list[bool | None]:
    """Whether each completion gives its gold; None where there is no gold. strict: only what stands in <answer> counts.
    A truncated completion is wrong.

    >>> are_correct(["<answer>12</answer>", "it is 12", "it is 12"], ["12", "12", None])
    [True, False, None]
    """
    cut = truncated if truncated is not None else [False] * len(completions)
    each = zip(completions, golds, cut, questions_of(prompts, len(completions)), strict=True)
    return [None if gold is None else not late and is_correct(text_of(c), gold, question, strict)
            for c, gold, late, question in each]


def is_correct(text: str, gold: Any, question: str | None = None, strict: bool = False) -> bool:
    """Whether a completion gives the gold: in its tags (strict), or anywhere.

    >>> is_correct("The answer is that he has 5 apples.", "5"), is_correct(r"\\boxed{(1, 2)}", "2")
    (True, False)
    """
    if strict:
        given = tagged_answer(text)
        return given is not None and same_answer(given, gold, question)
    return any(same_answer(given, gold, question) for given in answers_in(text))


def log_accuracy(log_metric: Callable | None, completions: Sequence, golds: Sequence,
                 prompts: list | None = None) -> None:
    """Logs the share that is right by its tagged answer (strict) and by an answer anywhere (lenient), over the rows
    with a gold."""
    if log_metric is None:
        return
    for name, strict in (("strict", True), ("lenient", False)):
        right = [r for r in are_correct(completions, golds, strict=strict, prompts=prompts) if r is not None]
        if right:
            log_metric(f"accuracy/{name}", sum(right) / len(right))


NAMES = {"accuracy_reward": accuracy_reward, "answer_reward": answer_reward}
