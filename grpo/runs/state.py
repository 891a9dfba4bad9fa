"""Where a run is: what callbacks, rewards and evaluation are told of it."""
from dataclasses import dataclass, field
from typing import Any


@dataclass
class TrainerState:
    """Where a run is."""

    global_step: int = 0
    max_steps: int = 0
    epoch: float = 0.0
    num_train_epochs: float = 0.0
    num_input_tokens_seen: int = 0
    best_metric: float | None = None         # metric_for_best_model at the best checkpoint
    log_history: list[dict[str, Any]] = field(default_factory=list)    # every record of metrics.jsonl
    is_world_process_zero: bool = True
    is_local_process_zero: bool = True
