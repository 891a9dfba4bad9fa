"""What a config is asked about the process that trains: here it is one, and the first."""
from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from ..alone import Alone


class OneProcess:
    """The part of transformers' TrainingArguments that is about processes and logs."""

    world_size = 1
    n_gpu = 1
    process_index = 0
    local_process_index = 0
    local_rank = -1                          # of no launcher
    should_log = True
    should_save = True
    ddp_timeout_delta = timedelta(seconds=1800)
    place_model_on_device = False            # it is where grpo.load put it

    @property
    def train_batch_size(self) -> int:
        """per_device_train_batch_size, of the one device."""
        return getattr(self, "per_device_train_batch_size", None) or 8

    @property
    def eval_batch_size(self) -> int:
        """The same: evaluation takes every row at once."""
        return self.train_batch_size

    @property
    def parallel_mode(self) -> str:
        """One process."""
        return "not_parallel"

    @property
    def distributed_state(self) -> Any:
        """The accelerator of one process: ``training_args.distributed_state.wait_for_everyone()``."""
        return Alone()

    def get_process_log_level(self) -> int:
        """The level of the root logger, at which scripts set the levels of theirs."""
        return logging.getLogger().getEffectiveLevel()

    @contextlib.contextmanager
    def main_process_first(self, local: bool = True, desc: str = "work") -> Iterator[None]:
        """This process is the main one, so nothing is waited for."""
        yield

    def get_warmup_steps(self, num_training_steps: int) -> int:
        """Steps over which the learning rate rises."""
        warmup, ratio = getattr(self, "warmup_steps", 0), getattr(self, "warmup_ratio", 0.0)
        return int(warmup) if warmup >= 1 else math.ceil(num_training_steps * (warmup or ratio))

    def to_dict(self) -> dict[str, Any]:
        """Every option by its name."""
        return dataclasses.asdict(self)  # type: ignore[call-overload]

    def to_json_string(self) -> str:
        """to_dict() as JSON."""
        return json.dumps(self.to_dict(), indent=2, default=str)

    def to_sanitized_dict(self) -> dict[str, Any]:
        """to_dict() with texts where a logger takes neither lists nor dicts."""
        return {name: value if isinstance(value, (bool, int, float, str)) else str(value)
                for name, value in self.to_dict().items()}
