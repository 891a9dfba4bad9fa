"""What the entries of a recipe are called elsewhere: by TRL's command line, DeepSeekRL, R1. One place for all of it,
besides the options of GRPOConfig, whose other names are in grpo/options/foreign.py."""
from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError, warn
from ..options import ALIASES, preset_options

OTHER_NAMES = {**ALIASES, "model_name": "model", "model_name_or_path": "model", "dataset_name": "dataset",
               "dataset_type": "dataset", "reward": "rewards", "reward_funcs": "rewards", "evaluator": "rewards",
               "max_items_training": "train_size", "max_items_eval": "eval_size",
               "num_tokens": "dataset_kwargs.target_length"}
DATASETS = {"openai/gsm8k": "gsm8k"}
# DeepSeekRL calls its five rewards by the data set they are for
EVALUATORS = {"gsm8k": "deepseekrl"}
# an entry on the left replaces the recipe's options on the right, which would say the same thing otherwise
REPLACES = {"per_device_train_batch_size": ("prompts_per_step",), "prompts_per_step": ("per_device_train_batch_size",),
            "num_train_epochs": ("max_steps",), "warmup_ratio": ("warmup_steps",), "warmup_steps": ("warmup_ratio",)}


def own_changes(changes: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The changes by our own names, a preset as the options it stands for. options: those of the recipe to be changed.

    Where those say prompts_per_step, gradient_accumulation_steps counts prompts (DeepSeekRL's meaning, and TRL's for
    micro-steps of one prompt). Raises ConfigError where two names say different things.
    """
    result: dict[str, Any] = {}
    for name, value in changes.items():
        own = OTHER_NAMES.get(name, name)
        if own in result and result[own] != value:
            raise ConfigError(f"{name}={value!r} and {own}={result[own]!r} say the same thing differently; give one")
        result[own] = value
    if (preset := result.pop("preset", None)) is not None:
        void = replaced_by(result)
        result = {**{name: value for name, value in preset_options(preset).items() if name not in void}, **result}
    if "prompts_per_step" in options and not {"prompts_per_step", "per_device_train_batch_size"} & result.keys():
        if (prompts := result.pop("gradient_accumulation_steps", None)) is not None:
            warn(f"gradient_accumulation_steps={prompts} micro-steps of one prompt are prompts_per_step={prompts}")
            result["prompts_per_step"] = prompts
    return result


def replaced_by(changes: Mapping[str, Any]) -> set[str]:
    """Options of a recipe that these changes make void."""
    return {old for new in changes for old in REPLACES.get(new, ())}


def reward_names(rewards: list[Any]) -> list[Any]:
    """Rewards by our own names, without R1's extractive_match, which every evaluation has."""
    return [EVALUATORS.get(reward, reward) if isinstance(reward, str) else reward for reward in rewards
            if reward != "extractive_match"]
