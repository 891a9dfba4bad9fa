"""The learning rate of a step: transformers' schedules by name, with the same formulas."""
import math
from typing import Any

from .config import TrainingConfig
from .errors import ConfigError
from .foreign import did_you_mean

ARGUMENTS = {"cosine": ("num_cycles",), "cosine_with_min_lr": ("num_cycles", "min_lr", "min_lr_rate")}


def learning_rate(config: TrainingConfig, step: int, total_steps: int) -> float:
    """The rate of step 0, 1, ... total_steps - 1.

    >>> from grpo import GRPOConfig
    >>> config = GRPOConfig(learning_rate=1.0, warmup_steps=2)
    >>> [learning_rate(config, step, 4) for step in range(4)]
    [0.0, 0.5, 1.0, 0.5]
    """
    name, arguments = config.lr_scheduler_type, config.lr_scheduler_kwargs or {}
    for unknown in set(arguments) - set(ARGUMENTS.get(name, ())):
        raise ConfigError(f"lr_scheduler_kwargs: {name} does not take {unknown!r}{did_you_mean(unknown, ARGUMENTS.get(name, ()))}")
    warmup = warmup_steps(config, total_steps)
    if name == "constant":
        factor = 1.0
    elif step < warmup:
        factor = step / max(1, warmup)
    elif name == "constant_with_warmup":
        factor = 1.0
    elif name == "linear":
        factor = max(0.0, (total_steps - step) / max(1, total_steps - warmup))
    else:
        factor = cosine((step - warmup) / max(1, total_steps - warmup), arguments, config.learning_rate)
    return config.learning_rate * factor


def warmup_steps(config: TrainingConfig, total_steps: int) -> int:
    if config.warmup_steps >= 1:
        return int(config.warmup_steps)
    return math.ceil(total_steps * (config.warmup_steps or config.warmup_ratio))


def cosine(progress: float, arguments: dict[str, Any], peak: float) -> float:
    floor = arguments.get("min_lr_rate", arguments.get("min_lr", 0.0) / peak if peak else 0.0)
    wave = 0.5 * (1.0 + math.cos(math.pi * arguments.get("num_cycles", 0.5) * 2.0 * progress))
    return max(0.0, wave * (1.0 - floor) + floor)
