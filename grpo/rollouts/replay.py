"""Replay: groups that taught something, kept to take the place of groups that teach nothing.

A past group is trained on off-policy: it brings the log-probs by which it was drawn, so the ratio to them, and its
clipping, are those of the loss in use. (VL-Rethinker, https://arxiv.org/abs/2504.08837, calls this selective sample
replay; there single completions are drawn, here whole groups, as advantages compare within them.)
"""
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..datasets import Prompt
from ..errors import CheckpointCorruptError
from ..model import Model
from .rollouts import Rollouts

STREAM = 0x7265706C6179                      # keeps these numbers apart from those that order the rows
NEEDED = ("mask", "advantages", "rewards", "totals")
FIELDS = ("rewards", "ref_logprobs")         # of which groups of one batch have the same shape


@dataclass(frozen=True)
class PastGroup:
    """A group. drawn: optimiser steps taken before it was. signal: its mean |advantage|."""

    group: Rollouts
    drawn: int
    signal: float


class ReplayBuffer:
    """The newest groups of a run that taught something, at most `size`, of the last `max_age` steps.

    Which are drawn is a function of the seed, the step and of what is kept, so a resumed run draws the same."""

    def __init__(self, size: int, max_age: int, alpha: float = 1.0, seed: int = 0) -> None:
        self.size, self.max_age, self.alpha, self.seed = size, max_age, alpha, seed
        self.groups: list[PastGroup] = []           # the newest last

    def __len__(self) -> int:
        return len(self.groups)

    def add(self, new: list[PastGroup], step: int) -> None:
        """Keeps these, and of the others as many as there is room for. step: optimiser steps taken so far."""
        old = [k for k in self.groups if step - k.drawn <= self.max_age and (not new or fits(k.group, new[0].group))]
        self.groups = (old + new)[-self.size:]

    def fill(self, r: Rollouts, step: int) -> Rollouts:
        """r with past groups, at its end, in place of its first groups without a signal; `age` says which they are.
        r itself where nothing is to be replaced, or nothing kept. step: optimiser steps taken so far."""
        idle = np.flatnonzero(signals(r) == 0)
        usable = [k for k in self.groups if step - k.drawn <= self.max_age and fits(k.group, r)]
        chosen = self._drawn(usable, len(idle), step)
        if not chosen:
            return r
        left = np.flatnonzero(~np.isin(r.group, idle[:len(chosen)]))
        parts = [replace(k.group, age=np.full(len(k.group), step - k.drawn, np.int32),
                         stored=None if r.stored is None else np.full(len(k.group), -1, np.int64)) for k in chosen]
        if len(left):
            parts.insert(0, replace(r.select(left), age=np.zeros(len(left), np.int32)))
        return Rollouts.join(parts)

    def _drawn(self, usable: list[PastGroup], count: int, step: int) -> list[PastGroup]:
        """So many, none twice, in the order in which they are kept: one after the other, each with a probability in
        proportion to its weight. (Of exponential variables with rates w, the k-th is the least with probability
        w_k / sum of w.)"""
        if not usable or not count:
            return []
        stream = np.random.Philox(key=np.array([self.seed, step], np.uint64), counter=[0, 0, 0, STREAM])
        uniform = ((stream.random_raw(len(usable)) >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
        log_times = np.log(-np.log(uniform)) - self.alpha * np.log([k.signal for k in usable])
        return [usable[i] for i in np.sort(np.argsort(log_times, kind="stable")[:count])]

    # checkpoints

    def save(self, path: Path) -> None:
        """The groups, as an .npz; when they were drawn is in state()."""
        if self.groups:
            Rollouts.join([k.group for k in self.groups]).save(path)

    def state(self) -> list[int]:
        """When each group was drawn."""
        return [k.drawn for k in self.groups]

    def load(self, path: Path, drawn: Any, prompt_of_row: Callable[[int], Prompt], model: Model) -> list[PastGroup]:
        """What save() and state() wrote, for self.groups. CheckpointCorruptError where the two do not fit."""
        if not isinstance(drawn, list) or any(type(step) is not int or step < 0 for step in drawn):
            raise CheckpointCorruptError(f"{path}: the steps of past groups are {drawn!r:.80}")
        if not drawn:
            return []
        r = Rollouts.load(path, prompt_of_row, model)
        if len(drawn) != len(r.prompts) or any(getattr(r, name) is None for name in NEEDED):
            raise CheckpointCorruptError(f"{path}: does not hold the {len(drawn)} past groups of the checkpoint")
        return past_groups(r, drawn)[-self.size:]


def past_groups(r: Rollouts, drawn: int | list[int]) -> list[PastGroup]:
    """The groups of r that teach something, to keep. drawn: optimiser steps taken before; of each group, or of all."""
    steps = [drawn] * len(r.prompts) if isinstance(drawn, int) else drawn
    bare = replace(r, stored=None, extras={}, age=None)
    return [PastGroup(bare.select(np.flatnonzero(r.group == g)), steps[g], float(signal))
            for g, signal in enumerate(signals(r)) if signal > 0]


def signals(r: Rollouts) -> NDArray[np.float64]:
    """(g) mean |advantage| of each group; a completion without a token that carries loss has none."""
    advantages, mask = r.trained()
    carries = np.array([part.any() for part in r.split(mask)])
    return (np.bincount(r.group, np.abs(advantages) * carries, len(r.prompts))
            / np.bincount(r.group, minlength=len(r.prompts)))


def fits(group: Rollouts, other: Rollouts) -> bool:
    """Whether both can be of one batch: the same rewards scored them, and both know a reference or neither."""
    shapes = [[None if (value := getattr(r, f)) is None else value.shape[1:] for f in FIELDS] for r in (group, other)]
    return shapes[0] == shapes[1]
