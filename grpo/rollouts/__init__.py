"""Rollouts: completions of a batch of prompts, what the update needs of them, and what they come to in numbers."""
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

__all__ = ["LENGTH", "Rollouts", "completion_metrics", "completion_records", "flat_groups", "generate", "moments",
           "pictures_of", "prompt_stream", "reward_batch", "reward_metrics", "sampling"]
