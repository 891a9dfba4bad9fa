"""Rewards by name: the built-in ones, "package.module.function", or "file.py:function".

A name may come with arguments, {len_l1: {target: 512}}: a class is made with them, a function is given them at each call.
"""
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

from ..errors import ConfigError
from ..foreign import did_you_mean
from . import countdown, deepseekrl, diversity, length, r1, reasoning_gym, voting, xml
from .accuracy import accuracy_reward
from .think import think_answer_format_reward, think_format_reward

FIVE = [xml.correctness_reward, xml.integer_reward, xml.strict_format_reward, xml.soft_format_reward, xml.xml_tags_reward]
# R1's short names mean the corrected rewards; what it published is r1.<name>
REGISTRY: dict[str, Callable] = {f.__name__: f for f in (
    accuracy_reward, think_format_reward, think_answer_format_reward, countdown.countdown_reward, reasoning_gym.reasoning_gym_reward, *FIVE,
    voting.majority_voting_reward, deepseekrl.correctness_reward_func, deepseekrl.int_reward_func, deepseekrl.strict_format_reward_func,
    deepseekrl.soft_format_reward_func, deepseekrl.xmlcount_reward_func)} | {
    "correctness": xml.correctness_reward, "int": xml.integer_reward, "strict_format": xml.strict_format_reward,
    "soft_format": xml.soft_format_reward, "len_l1": length.LenL1, "len_cosine": length.LenCosine, "len_min": length.LenMin,
    "conciseness": length.Conciseness, "repetition_penalty": length.RepetitionPenalty,
    "repetition_penalty_reward": length.TokenRepetitionPenalty,
    "soft_overlong_punishment": length.SoftOverlongPunishment, "majority_voting": voting.majority_voting_reward,
    "group_intrinsic": diversity.GroupIntrinsic, "intrinsic": diversity.Intrinsic} | {
    f"r1.{name}": function for name, function in r1.REWARDS.items()}
# loaded when they are named, since they need a package that may not be there
EXTRAS = {"math_verify": "grpo.rewards.math_verify.math_verify_reward",
          "reasoning_accuracy_reward": "grpo.rewards.trl.reasoning_accuracy_reward",
          "cosine_scaled_reward": "grpo.rewards.trl.CosineScaled"}
SETS: dict[str, list[Callable]] = {
    "xml": FIVE,
    "deepseekrl": [REGISTRY[n] for n in ("correctness_reward_func", "int_reward_func", "strict_format_reward_func",
                                         "soft_format_reward_func", "xmlcount_reward_func")],
    "r1": list(r1.FIVE.values()),
}


def resolve(name: str) -> Callable | list[Callable]:
    """The reward of this name: a function, or a class to be made with arguments; for a name of SETS the five rewards.

    >>> resolve("accuracy_reward").__name__
    'accuracy_reward'
    """
    if name in SETS:
        return SETS[name]
    if name in REGISTRY:
        return REGISTRY[name]
    if name in EXTRAS:
        return resolve(EXTRAS[name])
    file, colon, function = name.rpartition(":")
    if colon and file.endswith(".py"):
        return attribute(load_file(Path(file)), function, name)
    module, dot, function = name.rpartition(".")
    if dot and module != "r1":
        return attribute(load_module(module, name), function, name)
    known = sorted({*REGISTRY, *SETS, *EXTRAS})
    raise ConfigError(f"unknown reward {name!r}{did_you_mean(name, known)} There are {', '.join(known)}; "
                      "or give package.module.function or file.py:function")


def load_file(path: Path):
    if not path.is_file():
        raise ConfigError(f"reward file {path} does not exist")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    spec.loader.exec_module(module)
    return module


def load_module(module: str, name: str):
    if "" not in sys.path:
        sys.path.insert(0, "")  # the working directory, as for python -m
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigError(f"reward {name!r}: cannot import {error.name}") from error


def attribute(module, function: str, name: str) -> Callable:
    if not hasattr(module, function):
        raise ConfigError(f"reward {name!r}: {module.__name__} has no {function!r}{did_you_mean(function, vars(module))}")
    return getattr(module, function)
