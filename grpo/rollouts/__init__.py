"""Rollouts: completions of a batch of prompts, what the update needs of them and what they come to in numbers
(rollouts.py), and which of them are kept for later steps (replay.py)."""
from .replay import PastGroup, ReplayBuffer, past_groups
from .rollouts import (
    EQUAL,
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

__all__ = ["EQUAL", "LENGTH", "PastGroup", "ReplayBuffer", "Rollouts", "completion_metrics", "completion_records",
           "flat_groups", "generate", "moments", "past_groups", "pictures_of", "prompt_stream", "reward_batch",
           "reward_metrics", "sampling"]
