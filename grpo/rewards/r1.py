"""R1's rewards exactly as published, to reproduce its numbers: the formulas, the exact match, the constants. In a
recipe they are r1.correctness, r1.int, r1.len_l1 ...; "r1" names the five that every experiment there uses. Metrics
have their function names.

There a call sees the completions of one prompt, so statistics are by group here. Embeddings come from the policy
instead of a paid service. Known faults, kept: lengths are those of the decoded text encoded again, without the end
token, so that a completion cut off looks like any other; untagged completions vote with their whole text; at 496 of 512
tokens the cosine reward is 0, right or wrong; up to 4 for odd wording outweighs the 2 for being right. What is done
about them: grpo/rewards/length.py, voting.py, diversity.py.
"""
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..answers import text_of
from ..errors import ConfigError
from .deepseekrl import (
    correctness_reward_func,
    extracted,
    int_reward_func,
    strict_format_reward_func,
    xmlcount_reward_func,
)
from .diversity import Archive, Embed, embedded, group_novelty
from .length import cosine, efficient

SOFT = re.compile(r"<reasoning>(?>.*?</reasoning>\s*<answer>).*?</answer>", re.DOTALL)
MAX_LENGTH, MARGIN = 512, 16                 # of the cosine reward
BASE, SCALE, NEIGHBOURS = 1.0, 3.0, 10       # of the intrinsic rewards
ALL = np.iinfo(np.int64).max                 # its archive forgets nothing


def soft_format_reward_func(completions: list, **columns: Any) -> list[float]:
    """0.5 for tags in order at the start, with newlines inside or not.

    >>> soft_format_reward_func(["<reasoning>a\\nb</reasoning><answer>4</answer> end", "so <answer>4</answer>"])
    [0.5, 0.0]
    """
    return [0.5 if SOFT.match(text_of(c)) else 0.0 for c in completions]


class LenL1:
    """num_tokens N > 0: 1 - |n - N| / 3000 where the answer is the gold, else -|n - N| / 3000. N < 0: 1[right]
    (clip((|N| - n) / 500, -1, 1) + 1) / 2.

    >>> from grpo import Tokenizer
    >>> LenL1(512)(["<answer>4</answer>" + " " * 494], answer=["4"], tokenizer=Tokenizer.bytes())
    [1.0]
    """

    __name__ = "len_l1_reward_func"

    def __init__(self, num_tokens: int):
        if isinstance(num_tokens, bool) or not isinstance(num_tokens, int) or num_tokens == 0:
            raise ConfigError(f"reward 'r1.len_l1': num_tokens={num_tokens!r} must be a number of tokens, negative for "
                              "a maximum")
        self.target = num_tokens

    def __call__(self, completions: list, answer: list, tokenizer: Any, **columns: Any) -> list[float]:
        """One reward a completion."""
        right, lengths = exact(completions, answer), encoded_lengths(completions, tokenizer)
        return [self.value(r, n) for r, n in zip(right, lengths, strict=True)]

    def value(self, right: bool, n: int) -> float:
        """The reward of one completion of n encoded tokens."""
        if self.target > 0:
            distance = abs(n - self.target) / 3000
            return 1.0 - distance if right else -distance
        return max(0.0, (min(1.0, max(-1.0, (-self.target - n) / 500)) + 1) / 2) * right


def len_cosine_reward_func(completions: list, answer: list, tokenizer: Any, **columns: Any) -> list[float]:
    """A cosine from 1 (right, short) or -1 (wrong, short) to 0 at 512 tokens; 0 from 496 on."""
    right, lengths = exact(completions, answer), encoded_lengths(completions, tokenizer)
    return [0.0 if n + MARGIN >= MAX_LENGTH else cosine(n / MAX_LENGTH, 1.0 if r else -1.0, 0.0)
            for r, n in zip(right, lengths, strict=True)]


def len_min_reward_func(completions: list, answer: list, tokenizer: Any, group_ids: list[int],
                        **columns: Any) -> list[float]:
    """1[right] (1 - sigmoid((n - mean) / std)), over all lengths of the group."""
    lengths = np.array(encoded_lengths(completions, tokenizer), np.float64)
    return efficient(lengths, np.array(exact(completions, answer)), np.array(group_ids), 1.0,
                     over_correct=False).tolist()


def majority_voting_reward_func(completions: list, group_ids: list[int], **columns: Any) -> list[float]:
    """1.0 for the most frequent extracted answer of the group; of several the first.

    >>> majority_voting_reward_func(["<answer>4</answer>", "4", "so 5"], group_ids=[0, 0, 0])
    [1.0, 1.0, 0.0]
    """
    answers = [extracted(c) for c in completions]
    groups = {g: Counter(a for a, other in zip(answers, group_ids, strict=True) if other == g).most_common(1)[0][0]
              for g in set(group_ids)}
    return [float(a == groups[g]) for a, g in zip(answers, group_ids, strict=True)]


def reward_group_intrinsic_func(completions: list, answer: list, group_ids: list[int], embed: Embed,
                                **columns: Any) -> list[float]:
    """Right: 1 + 3 (1 - cosine to the mean of the group's other right reasonings), 1 without others. Wrong: 0."""
    right = exact(completions, answer)
    chosen, vectors = embedded([before_tag(c) if r else "" for c, r in zip(completions, right, strict=True)], embed)
    found = dict(zip(chosen, group_novelty(vectors, [group_ids[i] for i in chosen]).tolist(), strict=True))
    return [BASE + SCALE * found.get(i, 0.0) if r else 0.0 for i, r in enumerate(right)]


class Intrinsic:
    """Right: 1 + 3 (1 - cosine to the centroid of the 10 nearest past successes), 1 while there are none. Wrong: 0.
    Group by group: the successes of one are in the archive of the next. The archive belongs to the run; there it was
    shared by all runs."""

    __name__ = "intrinsic_reward_func"

    def __init__(self) -> None:
        self.archive = Archive(NEIGHBOURS, ALL)

    def __call__(self, completions: list, answer: list, group_ids: list[int], embed: Embed, training: bool = False,
                 **columns: Any) -> list[float]:
        """One reward a completion."""
        right = exact(completions, answer)
        chosen, vectors = embedded([before_tag(c) if r else "" for c, r in zip(completions, right, strict=True)], embed)
        groups, rewards = np.array([group_ids[i] for i in chosen]), BASE * np.array(right, np.float64)
        for g in np.unique(groups):
            members = np.flatnonzero(groups == g)
            rewards[np.array(chosen)[members]] += SCALE * self.archive.novelty(vectors[members])
            if training:
                self.archive.add(vectors[members])
        return rewards.tolist()

    def state_dict(self) -> dict[str, np.ndarray]:
        """The archive."""
        return self.archive.state_dict()

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """The reverse of state_dict()."""
        self.archive.load_state_dict(state)


def exact(completions: Sequence, golds: Sequence) -> list[bool]:
    """Whether each extracted answer is the gold string."""
    return [extracted(c) == gold for c, gold in zip(completions, golds, strict=True)]


def encoded_lengths(completions: Sequence, tokenizer: Any) -> list[int]:
    """Tokens of each completion's text, encoded again."""
    return [len(tokenizer.encode(text_of(c))) for c in completions]


def before_tag(completion: Any) -> str:
    """What stands before </reasoning>, and after <reasoning> where that is there."""
    return text_of(completion).split("</reasoning>")[0].split("<reasoning>")[-1]


NAMES = {
    "r1": [correctness_reward_func, int_reward_func, strict_format_reward_func, soft_format_reward_func,
           xmlcount_reward_func],
    "r1.correctness": correctness_reward_func, "r1.int": int_reward_func, "r1.strict_format": strict_format_reward_func,
    "r1.soft_format": soft_format_reward_func, "r1.xml": xmlcount_reward_func, "r1.len_l1": LenL1,
    "r1.len_cosine": len_cosine_reward_func, "r1.len_min": len_min_reward_func,
    "r1.majority_voting": majority_voting_reward_func,
    "r1.group_intrinsic": reward_group_intrinsic_func, "r1.intrinsic": Intrinsic,
}
