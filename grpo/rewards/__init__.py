"""Reward functions: the built-in ones, the ``reward`` decorator, and the adapters that let functions written for other
trainers run unchanged.

A reward is any callable. Only the arguments that its signature asks for are passed; what it may ask for is listed in
grpo/rewards/adapters.py. Recipes and the command line find rewards by name: a new one is a new file here, with a
function that is called as the file is, or with a dictionary NAMES of several (grpo/options/lookup.py). There is one
file a family: xml, think, accuracy, math_verify, length, voting, diversity, for images boxes, counting, clock,
correlation, gui, captcha, choice (marks.py reads what they point at), and as published deepseekrl, r1, r1_vlm_counting
and trl.
They are plain Python: the five of xml together take 0.16 ms a completion on a 2-core machine, about a thousandth of
what decoding one takes there.

>>> from grpo.rewards import reward
>>> @reward(weight=0.5)
... def short(completion_ids):
...     return [float(len(ids) < 64) for ids in completion_ids]
"""
import importlib
from typing import Any

from ..answers import final_answer, quantity, same_answer, tagged, tagged_answer, text_of
from .accuracy import accuracy_reward, answer_reward, is_correct
from .adapters import BY_NAME, GOLD_COLUMNS, Reward, adapt, gold_of, reward, signature
from .extractive import extractive_match
from .golds import check_golds
from .length import get_repetition_penalty_reward, get_soft_overlong_punishment, repeated_share
from .registry import built_in, is_built_in, names, resolve
from .scoring import RewardBatch, RewardSet, Scores, is_chat
from .think import think_format_reward
from .xml import correctness_reward, integer_reward, soft_format_reward, strict_format_reward, xml_tags_reward

NEEDS_MATH_VERIFY = ("get_cosine_scaled_reward", "reasoning_accuracy_reward")      # loaded when they are asked for
__all__ = ["BY_NAME", "GOLD_COLUMNS", "REGISTRY", "Reward", "RewardBatch", "RewardSet", "Scores", "accuracy_reward",
           "adapt", "answer_reward", "check_golds", "correctness_reward", "extractive_match", "final_answer",
           "get_repetition_penalty_reward", "get_soft_overlong_punishment", "gold_of", "integer_reward", "is_built_in",
           "is_chat", "is_correct", "names", "quantity", "repeated_share", "resolve", "reward", "same_answer",
           "signature", "soft_format_reward", "strict_format_reward", "tagged", "tagged_answer", "text_of",
           "think_format_reward", "xml_tags_reward"]


def __getattr__(name: str) -> Any:
    if name == "REGISTRY":
        return built_in()
    if name not in NEEDS_MATH_VERIFY:
        raise AttributeError(f"module 'grpo.rewards' has no attribute {name!r}")
    return getattr(importlib.import_module(".trl", __name__), name)
