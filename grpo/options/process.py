"""What a config is asked about the process that trains: here it is one, and the first."""
from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from ..alone import Alone

LEVELS = {"debug": logging.DEBUG, "detail": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING,
          "error": logging.ERROR, "critical": logging.CRITICAL}


class OneProcess:
    """The part of transformers' TrainingArguments that is about processes and logs."""

    world_size = 1
    n_gpu = 1
    process_index = 0
    local_process_index = 0
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
        """log_level, or the level of the root logger, at which scripts set the levels of theirs."""
        level = getattr(self, "log_level", "passive")
        return LEVELS[level] if level in LEVELS else logging.getLogger().getEffectiveLevel()

    @contextlib.contextmanager
    def main_process_first(self, local: bool = True, desc: str = "work") -> Iterator[None]:
        """This process is the main one, so nothing is waited for."""
        yield

    def get_warmup_steps(self, num_training_steps: int) -> int:
        """Steps over which the learning rate rises."""
        warmup, ratio = getattr(self, "warmup_steps", 0), getattr(self, "warmup_ratio", 0.0)
        return int(warmup) if warmup >= 1 else math.ceil(num_training_steps * (warmup or ratio))
