"""Where a run is: what callbacks, rewards and evaluation are told of it, and trainer_state.json keeps."""
import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .folder import plain, replace_text


@dataclass
class TrainerState:
    """Where a run is, under the names of transformers' TrainerState, which reads what this one writes."""

    global_step: int = 0
    max_steps: int = 0
    epoch: float = 0.0
    num_train_epochs: float = 0.0
    num_input_tokens_seen: int = 0
    logging_steps: int = 500                 # the options of those names, in steps
    eval_steps: int = 500
    save_steps: int = 500
    train_batch_size: int | None = None
    total_flos: float = 0.0                  # not counted
    log_history: list[dict[str, Any]] = field(default_factory=list)    # every record of metrics.jsonl
    best_metric: float | None = None         # metric_for_best_model at the best checkpoint
    best_global_step: int | None = None
    best_model_checkpoint: str | None = None     # its folder
    is_local_process_zero: bool = True
    is_world_process_zero: bool = True
    is_hyper_param_search: bool = False
    trial_name: str | None = None
    trial_params: dict[str, Any] | None = None
    stateful_callbacks: dict[str, Any] = field(default_factory=dict)   # what callbacks with a state() remember

    def save_to_json(self, json_path: str | os.PathLike[str]) -> None:
        """Writes the state as JSON, whole or not at all; numbers that are not finite become null.

        >>> TrainerState(global_step=3).save_to_json("trainer_state.json")                           # doctest: +SKIP
        """
        replace_text(Path(json_path), self.to_json())

    def to_json(self) -> str:
        """The state as JSON."""
        return json.dumps(plain(dataclasses.asdict(self)), indent=2, sort_keys=True, allow_nan=False,
                          default=str) + "\n"

    @classmethod
    def load_from_json(cls, json_path: str | os.PathLike[str]) -> "TrainerState":
        """What save_to_json wrote."""
        return cls(**json.loads(Path(json_path).read_text(encoding="utf-8")))
