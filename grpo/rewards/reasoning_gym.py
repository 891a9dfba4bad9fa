"""The scorers of reasoning-gym (pip install 'cgrpo[gym]')."""
import functools
from collections.abc import Callable
from typing import Any

from ..answers import tagged_answer, text_of
from ..errors import RewardError


def reasoning_gym_reward(completions: list, entry: list, task: list, log_metric: Callable | None = None,
                         **columns: Any) -> list[float | None]:
    """What the task's own score_answer gives the tagged answer, mostly from 0 to 1; without such an answer 0.0. None
    for rows without an entry (of another data set). Answers that the scorer cannot read count 0.0; the metric
    reasoning_gym/unreadable is their share."""
    scores: list[float | None] = []
    unreadable = 0
    for completion, made, name in zip(completions, entry, task, strict=True):
        answer = tagged_answer(text_of(completion))
        try:
            scores.append(None if made is None else 0.0 if answer is None
                          else float(scorer(name)(answer=answer, entry=made)))
        except RewardError:
            raise
        except Exception:                                  # scorers raise whatever their parsers raise
            scores.append(0.0)
            unreadable += 1
    if log_metric is not None:
        log_metric("reasoning_gym/unreadable", unreadable / max(1, len(scores)))
    return scores


@functools.cache
def scorer(task: str) -> Callable:
    """The function score_answer of a task. Raises RewardError where reasoning-gym is not installed."""
    try:
        import reasoning_gym
    except ImportError as error:
        raise RewardError("reasoning_gym_reward needs the package reasoning-gym: pip install 'cgrpo[gym]'") from error
    return reasoning_gym.get_score_answer_fn(task)


NAMES = {"reasoning_gym_reward": reasoning_gym_reward}
