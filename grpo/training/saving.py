"""What a run keeps of itself and goes on from: the model it saves, its checkpoints, resuming.

A trainer says what its own part of the state is (position_state, save_extra, restoring). Nothing of a trainer moves
before every check of what it goes on from has passed.
"""
import dataclasses
import functools
import json
import os
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from .. import _core
from ..errors import CheckpointError, ConfigError, warn
from ..model import Model
from ..options import TrainingConfig
from ..planning import Plan, Shown, require, training_plan
from ..runs import CHECKPOINTS, ROUND, RunFolder, TrainerState, checkpoint, say
from .callbacks import TrainerControl
from .interrupt import Signals
from .resume import checkpoint_of, compare_backends, compare_options

MAX_FAILED_SAVES = 3
EVALUATION = ("evaluate", "on_evaluate", "judge", "save_best")


class Saving(ABC):
    """The part of a trainer that writes and reads what outlives it."""

    kind = ""

    def __init__(self, model: Model, args: TrainingConfig) -> None:
        self.args, self.model = args, model
        self.state = TrainerState(num_train_epochs=args.num_train_epochs)
        self.control = TrainerControl()
        self.run: RunFolder | None = None
        self.signals = Signals()
        self.clock = time.monotonic          # of save_minutes
        self._seconds: dict[str, float] = defaultdict(float)
        self._owed: list[str] = []           # what is left to do after the step that was taken last
        self._skipped = self._failed_saves = 0
        self._saved_step = -1
        self._saved_at = 0.0                 # by that clock
        # (metric, value) of weights that are better than any checkpoint
        self._new_best: tuple[str, float] | None = None

    # what a trainer supplies

    @abstractmethod
    def position_state(self) -> dict[str, Any]:
        """What trainer.json keeps besides the loop's own state."""

    @abstractmethod
    def restoring(self, state: dict[str, Any], folder: Path) -> AbstractContextManager[Callable[[], None]]:
        """The reverse of position_state and save_extra. Everything is checked on entering; the function it gives then
        moves the trainer there. An exception inside of it undoes what entering did."""

    def save_extra(self, folder: Path) -> None:
        """More files of the trainer's state; none by default."""

    def shown(self) -> Shown | None:
        """What prompts show the model at most, for the memory plan; None where that is not known."""
        return None

    @abstractmethod
    def _fire(self, event: str, **details: Any) -> None:
        """Tells the callbacks."""

    @abstractmethod
    def _evaluation_due(self) -> bool:
        """Whether the step just taken is one after which the model is evaluated."""

    # what there is of a run

    @property
    def _folder(self) -> RunFolder:
        """The run's, once it has begun."""
        assert self.run is not None
        return self.run

    @functools.cached_property
    def memory(self) -> Plan:
        """What the run will hold, planned beside what is there already."""
        return training_plan(self.model.config, "the model", self.args, self.model.device,
                             held=("weights", "reference weights"), shown=self.shown())

    @functools.cached_property
    def optimizer(self) -> _core.Trainer:
        """The core's trainer: gradients, masters and moments. OutOfMemoryError where they have no room."""
        require(self.memory)
        a = self.args
        return _core.Trainer(self.model.core, adam_beta1=a.adam_beta1, adam_beta2=a.adam_beta2,
                             adam_epsilon=a.adam_epsilon, weight_decay=a.weight_decay,
                             token_budget=a.token_budget_on(self.model.device), recompute=a.recompute,
                             moment_dtype=a.moment_dtype, master_dtype=a.master_dtype, seed=a.seed,
                             train_vision=a.train_vision, vision_rate=a.vision_rate)

    def _evaluated_at(self, step: int) -> bool:
        return any(r["step"] == step and is_round(r) for r in self.state.log_history)

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Adds the time of a phase to this step's shares."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[phase] += time.perf_counter() - started

    # checkpoints

    def save_model(self, output_dir: str | None = None) -> None:
        """Writes the model in Hugging Face layout to output_dir (default: the run folder's model/)."""
        if output_dir is None and self.run is None:
            raise ConfigError("save_model() before training needs output_dir")
        self.model.save_pretrained(output_dir if output_dir is not None else self._folder.path / "model")

    def save_checkpoint(self) -> Path:
        """Writes checkpoints/step-N of the run folder and drops the oldest beyond save_total_limit, but not the
        best."""
        self._folder.require()
        path = checkpoint.write(self._folder.checkpoints, self.state.global_step, self._write_checkpoint,
                                good=not self._skipped and checkpoint.is_finite(self.model.core))
        self._saved_step, self._saved_at = self.state.global_step, self.clock()
        self._note_best()
        self._fire("on_save")
        return path

    def _note_best(self) -> None:
        """Names the checkpoint just written as the best where it is, and drops the oldest."""
        if self._new_best is not None:
            checkpoint.write_best(self._folder.checkpoints, self.state.global_step, *self._new_best)
            self._new_best = None
        checkpoint.prune(self._folder.checkpoints, self.args.save_total_limit)

    def _save_if(self, due: bool) -> None:
        if not due:
            return
        self.control.should_save = False
        try:
            with self.timed("save"):
                self.save_checkpoint()
            self._failed_saves = 0
        except CheckpointError as error:     # a full disk should not end a long run at once
            self._failed_saves += 1
            self._new_best = None            # no checkpoint, so nothing to point to
            if self._failed_saves >= MAX_FAILED_SAVES or self.state.global_step >= self.state.max_steps:
                raise
            warn(f"{error}; training goes on, the next checkpoint is tried as planned")

    def _write_checkpoint(self, folder: Path) -> None:
        self.model.save_pretrained(folder)
        if self.args.save_only_model:
            return
        inner = folder / checkpoint.STATE_FOLDER
        inner.mkdir()
        checkpoint.save_optimizer(inner, self.optimizer, self.optimizer.trained())
        self.save_extra(inner)
        s = self.state
        state = {"kind": self.kind, "step": s.global_step, "max_steps": s.max_steps, "epoch": s.epoch,
                 "adam_steps": self.optimizer.steps_taken, "num_input_tokens_seen": s.num_input_tokens_seen,
                 "skipped": self._skipped, "backend": _core.backend(self.model.device),
                 "config": dataclasses.asdict(self.args),
                 "evaluation_owed": "evaluate" in self._owed and self._evaluation_due(), **self.position_state()}
        (inner / checkpoint.STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")

    def _resume(self, resume: str | bool) -> None:
        """Loads a checkpoint, of a run folder its latest. The run continues in its folder when that is its latest
        checkpoint, else in a new one."""
        folder = Path(os.path.abspath(checkpoint_of(resume, self.args.output_dir)))
        inner, tensors = folder / checkpoint.STATE_FOLDER, self.optimizer.trained()
        state = checkpoint.read_state(folder, self.kind)
        compare_options(folder, state["config"], self.args)
        compare_backends(folder, state.get("backend"), _core.backend(self.model.device))
        step, epoch, tokens = state["step"], state["epoch"], state["num_input_tokens_seen"]
        skipped, adam_steps = state["skipped"], state["adam_steps"]
        checkpoint.check_optimizer(inner, self.optimizer, tensors)
        own, output_dir = folder.parent.parent, self.args.output_dir and os.path.abspath(self.args.output_dir)
        in_place = resume is True or (folder.parent.name == CHECKPOINTS and folder == checkpoint.latest(folder.parent)
                                      and output_dir in (None, str(own)))
        best = (checkpoint.best(folder.parent) or {}).get("value") if in_place else None
        with self.restoring(state, inner) as move:           # nothing has moved, and whatever is refused was
            name = self.args.run_name or self.kind
            run = RunFolder(own) if in_place else RunFolder.create(self.args.output_dir, name)
            try:
                history = run.rewind(step) if in_place else []
            except BaseException:
                run.abandon()
                raise
            with self.signals.held():
                checkpoint.load_optimizer(inner, self.optimizer, tensors)
                self.optimizer.steps_taken = adam_steps
                move()
                s, self.run = self.state, run
                s.global_step, s.epoch, s.num_input_tokens_seen = step, epoch, tokens
                s.log_history, s.best_metric = history, best
                self._skipped, self._saved_step = skipped, step
        if in_place and state.get("evaluation_owed") and not self._evaluated_at(step):
            self._owed = list(EVALUATION)
        say(f"resumed {folder} at step {s.global_step}")


def is_round(record: dict[str, Any]) -> bool:
    """Whether a record of metrics.jsonl is a round of evaluation."""
    return any(name.startswith(ROUND) for name in record)
