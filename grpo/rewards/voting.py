"""Agreement within a group, which needs no reference answer. R1's function, to the letter, is in grpo/rewards/r1.py."""
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ..answers import equal_answers, tagged_answer, text_of


def majority_voting_reward(completions: list, group_ids: list[int], truncated: list[bool] | None = None,
                           **columns: Any) -> list[float | None]:
    """1.0 where the tagged answer is one that most of the group give, else 0.0 (self-consistency as a reward: R1; TTRL,
    arXiv 2504.16084).

    Answers are compared as numbers or as text; a completion without <answer>, or cut off, does not vote. Answers that
    share the first place all win, so a group without agreement teaches nothing. None for a group of one, as in greedy
    evaluation.

    >>> answers = ["<answer>1,200</answer>", "<answer>1200</answer>", "<answer>7</answer>", "7"]
    >>> majority_voting_reward(answers, group_ids=[0] * 4)
    [1.0, 1.0, 0.0, 0.0]
    """
    cut = truncated if truncated is not None else [False] * len(completions)
    votes = [None if late else tagged_answer(text_of(c)) or None for c, late in zip(completions, cut, strict=True)]
    size = Counter(group_ids)
    return [float(wins) if size[g] > 1 else None for wins, g in zip(winners(votes, group_ids), group_ids, strict=True)]


def winners(votes: Sequence[str | None], group_ids: Sequence[int]) -> list[bool]:
    """Whether each vote is among the most frequent of its group; None is no vote."""
    counts: dict[int, list[tuple[str, list[int]]]] = {}             # by group: an answer, and who gave it
    for i, (vote, group) in enumerate(zip(votes, group_ids, strict=True)):
        if vote is not None:
            camps = counts.setdefault(group, [])
            camp = next((members for answer, members in camps if equal_answers(vote, answer)), None)
            if camp is None:
                camps.append((vote, [i]))
            else:
                camp.append(i)
    won = {i for camps in counts.values() for _, members in camps
           if len(members) == max(len(others) for _, others in camps) for i in members}
    return [i in won for i in range(len(votes))]


NAMES = {"majority_voting_reward": majority_voting_reward, "majority_voting": majority_voting_reward}
