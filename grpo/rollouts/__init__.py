"""Rollouts: completions of a batch of prompts, what the update needs of them and what they come to in numbers
(rollouts.py), those that teach nothing (spread.py), and which of them are kept for later steps (replay.py)."""
from .replay import PastGroup, ReplayBuffer, past_groups
from .rollouts import (
    LENGTH,
    Rollouts,
    completion_metrics,
    completion_records,
    flat_groups,
    generate,
    moments,
    pictures_of,
    prompt_stream,
    reward_batch,
    reward_metrics,
    sampling,
)
from .spread import group_counts, why_flat

__all__ = ["LENGTH", "PastGroup", "ReplayBuffer", "Rollouts", "completion_metrics", "completion_records",
           "flat_groups", "generate", "group_counts", "moments", "past_groups", "pictures_of", "prompt_stream",
           "reward_batch", "reward_metrics", "sampling", "why_flat"]
