"""Reward functions: the built-in ones, the ``reward`` decorator, and the adapters that let functions written for other
trainers run unchanged.

A reward is any callable. Only the arguments that its signature asks for are passed; what it may ask for is listed in
grpo/rewards/adapters.py. The names of built-in rewards, which recipes and the command line read, are in grpo/rewards/registry.py;
one file a family: xml, think, accuracy, math_verify, length, voting, diversity, and as published deepseekrl, r1 and trl. They are plain
Python: the five of xml together take 0.16 ms a completion on a 2-core machine, about a thousandth of what decoding one takes there.

>>> from grpo.rewards import reward
>>> @reward(weight=0.5)
... def short(completion_ids):
...     return [float(len(ids) < 64) for ids in completion_ids]
"""
import importlib
from typing import Any

from .accuracy import accuracy_reward
from .adapters import reward
from .length import get_repetition_penalty_reward, get_soft_overlong_punishment
from .registry import REGISTRY, resolve
from .scoring import RewardBatch, RewardSet, Scores
from .think import think_format_reward
from .xml import (correctness_reward, integer_reward, soft_format_reward, strict_format_reward, xml_tags_reward)

NEEDS_MATH_VERIFY = ("get_cosine_scaled_reward", "reasoning_accuracy_reward")      # loaded when they are asked for
__all__ = ["REGISTRY", "RewardBatch", "RewardSet", "Scores", "accuracy_reward", "correctness_reward", "get_repetition_penalty_reward",
           "get_soft_overlong_punishment", "integer_reward", "resolve", "reward", "soft_format_reward", "strict_format_reward",
           "think_format_reward", "xml_tags_reward"]


def __getattr__(name: str) -> Any:
    if name not in NEEDS_MATH_VERIFY:
        raise AttributeError(f"module 'grpo.rewards' has no attribute {name!r}")
    return getattr(importlib.import_module(".trl", __name__), name)
