"""Groups without spread: how many there are, and why a rollout has no others."""
from typing import Any

import numpy as np

from .rollouts import EQUAL, Rollouts


def group_counts(r: Rollouts, flat: Any, wanted: int) -> dict[str, float]:
    """How many groups were made and kept, and on which side of the rewards seen those without spread lie."""
    _, totals = r.scores()
    scored = totals[~np.isnan(totals)]
    middle = (scored.min() + scored.max()) / 2 if scored.size else 0.0
    totals = np.where(np.isnan(totals), -np.inf, totals)
    high = np.array([totals[r.group == g].max() > middle for g in range(len(flat))])
    return {"groups/generated": float(len(flat)), "groups/kept": float(min(wanted, int((~flat).sum()))),
            "groups/zero_std_low": float((flat & ~high).sum()), "groups/zero_std_high": float((flat & high).sum())}


def why_flat(r: Rollouts, names: list[str]) -> str:
    """What the rewards did in a rollout whose groups have no spread: the end of a sentence about rollouts."""
    rewards, totals = r.scores()
    scored = totals[~np.isnan(totals)]
    if not scored.size:
        return f"have no reward: every reward ({', '.join(names)}) was None for every completion"
    if np.ptp(scored) <= EQUAL:
        which = [f"{name} {values[0]:.4g}" for name, column in zip(names, rewards.T, strict=True)
                 if (values := column[~np.isnan(column)]).size and np.ptp(values) <= EQUAL]
        return (f"gave every completion the same reward, {scored[0]:.4g} (" +
                (f"one value throughout: {', '.join(which)}" if which else "its parts cancel out") + ")")
    if np.bincount(r.group[~np.isnan(totals)], minlength=len(r.prompts)).max() < 2:
        return "have fewer than two rewards in every group, the others None"
    return "gave every completion of a group the same reward, though groups differ"
