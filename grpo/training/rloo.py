"""RLOOTrainer: a completion's reward against the mean of the others of its group (REINFORCE leave-one-out)."""
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..options import RLOOConfig
from ..rollouts import LENGTH, Rollouts
from .grpo import GRPOTrainer

SMALLEST_STD = 1e-4


class RLOOTrainer(GRPOTrainer):
    """Trains a model with RLOO: the loop of GRPOTrainer, its arguments, its metrics.

    What differs is the advantage, the reward less the mean reward of the group's other completions; the KL, which is
    taken off the reward; and the ratio, one a completion. Ahmadian et al. 2024, arXiv 2402.14740.

    >>> import grpo
    >>> def short(completions): return [-float(len(c)) for c in completions]
    >>> args = grpo.RLOOConfig(max_steps=3)
    >>> grpo.RLOOTrainer(grpo.tiny(), short, args, [{"prompt": "Hi"}]).train()                      # doctest: +SKIP
    """

    kind = "rloo"
    _name, _tag_names = "RLOO", ("rloo",)
    _paper = {"title": "Back to Basics: Revisiting REINFORCE-Style Optimization for Learning from Human Feedback in "
                       "LLMs", "id": "2402.14740"}
    config_class = RLOOConfig
    args: RLOOConfig

    def _advantages(self, r: Rollouts, rewards: Any, totals: Any) -> Any:
        """Of the clipped totals less the KL. A completion whose KL is not trained, since it was cut off, pays none."""
        args, worth = self.args, np.asarray(totals, np.float64)
        if args.reward_clip_range is not None:
            worth = np.clip(worth, *args.reward_clip_range)
        if r.ref_logprobs is not None:
            kl = np.array([x.sum(dtype=np.float64) for x in r.split(r.policy_logprobs - r.ref_logprobs)])
            if args.mask_truncated_completions:
                kl[r.finish == LENGTH] = 0
            worth = worth - args.beta * kl
        return leave_one_out(worth, np.bincount(r.group), args.normalize_advantages)


def leave_one_out(rewards: Any, sizes: Any, normalize: bool = False) -> NDArray[np.float32]:
    """Each reward less the mean of the others of its group, float32 (completions). sizes: completions of every group,
    which follow one another. A reward that is NaN is no other's, and its advantage 0, as is that of one without others.
    normalize: less the mean of all advantages, over their standard deviation (n - 1) + 1e-4.

    >>> leave_one_out([1.0, 0.0, 0.0, 4.0, 2.0], [3, 2]).tolist()
    [1.0, -0.5, -0.5, 2.0, -2.0]
    """
    worth, group = np.asarray(rewards, np.float64), np.repeat(np.arange(len(sizes)), sizes)
    scored = ~np.isnan(worth)
    sums = np.bincount(group, np.where(scored, worth, 0.0), len(sizes))[group]
    others = np.bincount(group, scored, len(sizes))[group] - 1
    compared = scored & (others > 0)
    found = worth[compared] - (sums[compared] - worth[compared]) / others[compared]
    if normalize and len(found):
        std = found.std(ddof=1) if len(found) > 1 else 0.0
        found = (found - found.mean()) / (std + SMALLEST_STD)
    advantages = np.zeros(len(worth), np.float32)
    advantages[compared] = found
    return advantages
