"""What transformers' TrainingArguments say of the process that trains: here it is always one, alone."""
import contextlib
import datetime
import logging
import math
from collections.abc import Iterator
from typing import Any

from .schedule import steps_of

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR,
          "critical": logging.CRITICAL, "passive": logging.WARNING, "detail": logging.DEBUG}


class OneProcess:
    """Attributes and methods of a config that scripts ask about their process.

    >>> from grpo import GRPOConfig
    >>> args = GRPOConfig(log_level="info")
    >>> args.process_index, args.world_size, args.should_save, args.get_process_log_level()
    (0, 1, True, 20)
    """

    process_index = local_process_index = 0
    world_size = 1
    should_log = should_save = True
    parallel_mode = "not_parallel"
    place_model_on_device = False

    @property
    def n_gpu(self) -> int:
        """Devices besides the CPU that this process may train on: 1 where device='cuda'."""
        return int(getattr(self, "device", "") == "cuda")

    @property
    def train_batch_size(self) -> int:
        """Completions (SFT: rows) of a micro-step."""
        return getattr(self, "per_device_train_batch_size", None) or 8

    @property
    def eval_batch_size(self) -> int:
        """per_device_eval_batch_size, which changes nothing here."""
        return int(getattr(self, "per_device_eval_batch_size", 8))

    @property
    def ddp_timeout_delta(self) -> datetime.timedelta:
        """ddp_timeout, in which nothing is waited for."""
        return datetime.timedelta(seconds=getattr(self, "ddp_timeout", 1800))

    def get_process_log_level(self) -> int:
        """log_level as a level of logging; "passive" is a warning's."""
        level: Any = getattr(self, "log_level", "passive")
        return level if isinstance(level, int) else LEVELS.get(level, logging.WARNING)

    def get_warmup_steps(self, num_training_steps: int) -> int:
        """Steps of the warm-up, of so many in all."""
        return (steps_of(getattr(self, "warmup_steps", 0), num_training_steps)
                or math.ceil(num_training_steps * getattr(self, "warmup_ratio", 0.0)))

    @contextlib.contextmanager
    def main_process_first(self, local: bool = True, desc: str = "work") -> Iterator[None]:
        """Nothing to wait for."""
        yield
