"""Rewards for right answers that reason in new ways: against the others of the group, and against an archive of past
ones.

Reasoning is compared by the policy's own mean-pooled hidden states (Model.embed), scaled to length 1: no key, no
network, and the same numbers in a repeated run. Novelty is 1 - max(0, cosine), from 0 to 1. Hidden states are alike: of
SmolLM2-135M's completions, those of one GSM8K question have cosines of 0.81 to 0.97 and novelties of 0.02 to 0.14,
those of two questions a median cosine of 0.82; the argument scale says what that is worth. R1's forms are in
grpo/rewards/r1.py.
"""
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..answers import tagged, text_of
from .accuracy import GOLDS, are_correct, golds_of
from .arguments import number, whole

Embed = Callable[[list[str]], np.ndarray]


class GroupIntrinsic:
    """How far the reasoning of a right answer is from the mean of the group's other right ones (R1's group-intrinsic
    reward): base + scale * novelty; base where it is the only right one or has no reasoning; 0.0 where it is wrong.

    With the defaults it is a bonus of at most 1 beside a correctness reward.

    >>> texts = [f"<reasoning>{r}</reasoning><answer>4</answer>" for r in "aab"]
    >>> embed = lambda texts: np.array([[1, 0] if t == "a" else [0, 1] for t in texts], np.float32)
    >>> [round(x, 3) for x in GroupIntrinsic()(texts, group_ids=[0, 0, 0], embed=embed, answer=["4", "4", "4"])]
    [0.293, 0.293, 1.0]
    """

    __name__, golds = "group_intrinsic", GOLDS

    def __init__(self, base: float = 0.0, scale: float = 1.0, strict: bool = True):
        self.base, self.scale = number(self.__name__, "base", base), number(self.__name__, "scale", scale, 0)
        self.strict = strict

    def __call__(self, completions: list, group_ids: list[int], embed: Embed, answer: list | None = None,
                 solution: list | None = None, truncated: list[bool] | None = None,
                 **columns: Any) -> list[float | None]:
        """One reward a completion; None where the row has no answer."""
        right = are_correct(completions, golds_of("group_intrinsic", answer, solution), truncated, self.strict)
        chosen, vectors = embedded([reasoning_of(text_of(c)) if r else ""
                                    for c, r in zip(completions, right, strict=True)], embed)
        found = dict(zip(chosen, group_novelty(vectors, [group_ids[i] for i in chosen]).tolist(), strict=True))
        return [None if r is None else self.base + self.scale * found.get(i, 0.0) if r else 0.0
                for i, r in enumerate(right)]


class Intrinsic:
    """How far the reasoning of a right answer is from the past right ones most like it (R1's completion-intrinsic
    reward): base + scale * novelty, novelty measured from the centroid of the nearest `neighbours`; 0.0 where it is
    wrong. An empty archive and a completion without reasoning give base.

    Training adds the right ones to the archive, evaluation does not. It keeps the latest `capacity`, belongs to the
    run, and is saved with its checkpoints. The policy moves under vectors that stay: old ones are where the policy of
    their time put them.

    >>> novel = Intrinsic()
    >>> embed = lambda texts: np.array([[1, 0] if t == "a" else [0, 1] for t in texts], np.float32)
    >>> texts = [f"<reasoning>{r}</reasoning><answer>4</answer>" for r in "aab"]
    >>> [novel([text], embed=embed, answer=["4"], training=True)[0] for text in texts]
    [0.0, 0.0, 1.0]
    """

    __name__, golds = "intrinsic", GOLDS

    def __init__(self, base: float = 0.0, scale: float = 1.0, neighbours: int = 10, capacity: int = 10_000,
                 strict: bool = True):
        self.base, self.scale = number(self.__name__, "base", base), number(self.__name__, "scale", scale, 0)
        self.strict = strict
        self.archive = Archive(whole("intrinsic", "neighbours", neighbours), whole("intrinsic", "capacity", capacity))

    def __call__(self, completions: list, embed: Embed, answer: list | None = None, solution: list | None = None,
                 truncated: list[bool] | None = None, training: bool = False, log_metric: Callable | None = None,
                 **columns: Any) -> list[float | None]:
        """One reward a completion; None where the row has no answer. Logs intrinsic/archive_size."""
        right = are_correct(completions, golds_of("intrinsic", answer, solution), truncated, self.strict)
        chosen, vectors = embedded([reasoning_of(text_of(c)) if r else ""
                                    for c, r in zip(completions, right, strict=True)], embed)
        found = dict(zip(chosen, self.archive.novelty(vectors).tolist(), strict=True))
        if training:
            self.archive.add(vectors)
        if log_metric is not None:
            log_metric("intrinsic/archive_size", len(self.archive))
        return [None if r is None else self.base + self.scale * found.get(i, 0.0) if r else 0.0
                for i, r in enumerate(right)]

    def state_dict(self) -> dict[str, np.ndarray]:
        """The archive."""
        return self.archive.state_dict()

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """The reverse of state_dict()."""
        self.archive.load_state_dict(state)


class Archive:
    """The latest `capacity` vectors of length 1."""

    def __init__(self, neighbours: int, capacity: int):
        self.neighbours, self.capacity = neighbours, capacity
        self.vectors = np.zeros((0, 0), np.float32)                   # (size, d), oldest first

    def __len__(self) -> int:
        return len(self.vectors)

    def novelty(self, vectors: np.ndarray) -> np.ndarray:
        """(n) 1 - max(0, cosine to the centroid of the nearest neighbours); 0 while there are none."""
        if not len(self) or not len(vectors):
            return np.zeros(len(vectors))
        order = np.argsort(-(vectors @ self.vectors.T), axis=1, kind="stable")[:, :self.neighbours]
        return novelty(vectors, self.vectors[order].mean(axis=1))

    def add(self, vectors: np.ndarray) -> None:
        """Adds (n, d) vectors as the latest."""
        if len(vectors):
            self.vectors = np.concatenate([self.vectors, vectors] if len(self) else [vectors])[-self.capacity:]

    def state_dict(self) -> dict[str, np.ndarray]:
        """{"vectors": (size, d) float32}."""
        return {"vectors": self.vectors}

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """The reverse of state_dict()."""
        vectors = state["vectors"]
        if vectors.ndim != 2 or vectors.dtype != np.float32 or not np.isfinite(vectors).all():
            raise ValueError(f"vectors are {vectors.dtype} of shape {vectors.shape}, or not finite")
        self.vectors = vectors


def reasoning_of(text: str) -> str:
    """What stands in <reasoning> or <think>, else what comes before <answer>; all of it without tags."""
    for tag in ("reasoning", "think"):
        if (inside := tagged(text, tag)) is not None:
            return inside
    return (text.rpartition("<answer>")[0] or text).strip()


def embedded(texts: Sequence[str], embed: Embed) -> tuple[list[int], np.ndarray]:
    """(indices, (n, d) vectors of length 1) of the texts that are not empty."""
    chosen = [i for i, text in enumerate(texts) if text]
    if not chosen:
        return chosen, np.zeros((0, 0), np.float32)
    return chosen, unit(np.asarray(embed([texts[i] for i in chosen]), np.float32))


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors scaled to length 1 along the last axis."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32(1e-12))


def novelty(vectors: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """(n) 1 - cosine, the cosine clamped to 0..1; vectors (n, d) of length 1, centres (n, d) of any."""
    return 1.0 - np.clip((vectors * unit(centres)).sum(axis=-1, dtype=np.float64), 0.0, 1.0)


def group_novelty(vectors: np.ndarray, groups: Sequence[int]) -> np.ndarray:
    """(n) novelty of each vector from the mean of the others of its group; 0 where there are no others."""
    result, group_of = np.zeros(len(vectors)), np.asarray(groups)
    for g in np.unique(group_of):
        members = np.flatnonzero(group_of == g)
        if len(members) > 1:
            others = (vectors[members].sum(axis=0) - vectors[members]) / (len(members) - 1)
            result[members] = novelty(vectors[members], others)
    return result


NAMES = {"group_intrinsic": GroupIntrinsic, "intrinsic": Intrinsic}
