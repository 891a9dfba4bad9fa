"""What a run keeps of itself and goes on from: the model it saves, its checkpoints, resuming.

A trainer says what its own part of the state is (position_state, save_extra, restoring). Nothing of a trainer moves
before every check of what it goes on from has passed.
"""
import copy
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
from ..runs import CHECKPOINTS, ROUND, STATE_FILE, RunFolder, TrainerState, checkpoint, say
from .callbacks import TrainerControl
from .events import remembered_of, remind, states_of
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
        self.callbacks: list[Any] = []
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
    def restoring(self, state: dict[str, Any], folder: Path) -> AbstractContextManager[Callable[[Path], None]]:
        """The reverse of position_state and save_extra. Everything is checked on entering; the function it gives then
        moves the trainer there, and is told where folder is by then. An exception inside of it undoes what entering
        did."""

    def save_extra(self, folder: Path) -> None:
        """More files of the trainer's state; none by default."""

    def shown(self) -> Shown | None:
        """What prompts show the model at most, for the memory plan; None where that is not known."""
        return None

    @abstractmethod
    def _model_saved(self, folder: Path) -> None:
        """What is to be done after save_model()."""

    @abstractmethod
    def _fire(self, event: str, **details: Any) -> None:
        """Tells the callbacks."""

    @abstractmethod
    def _evaluation_owed(self) -> bool:
        """Whether the model is yet to be evaluated after the step just taken."""

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

    def save_model(self, output_dir: str | os.PathLike[str] | None = None) -> None:
        """Writes the model in Hugging Face layout to output_dir (default: the run's folder, or before a run
        args.output_dir)."""
        folder = output_dir if output_dir is not None else self.args.output_dir if self.run is None else self.run.path
        if folder is None:
            raise ConfigError("save_model() before training needs output_dir")
        self.model.save_pretrained(folder)
        self._model_saved(Path(folder))

    def save_checkpoint(self) -> Path:
        """Writes checkpoints/step-N of the run folder and drops the oldest beyond save_total_limit, but not the
        best."""
        self._folder.require()
        path = checkpoint.write(self._folder.checkpoints, self.state.global_step, self._write_checkpoint,
                                good=not self._skipped and checkpoint.is_finite(self.model.core))
        self._saved_step, self._saved_at = self.state.global_step, self.clock()
        self._note_best()
        self.control.should_save = False
        self._fire("on_save")
        return path

    def _note_best(self) -> None:
        """Names the checkpoint just written as the best where it is, and drops the oldest."""
        if self._new_best is not None:
            checkpoint.write_best(self._folder.checkpoints, self.state.global_step, *self._new_best)
            self._new_best = None
            self._know_best(self.state.global_step)
        checkpoint.prune(self._folder.checkpoints, self.args.save_total_limit)

    def _know_best(self, step: int) -> None:
        """The state's fields of the best checkpoint, under the name that transformers gives it."""
        self.state.best_global_step = step
        self.state.best_model_checkpoint = str(self._folder.path / f"{checkpoint.LINK}{step}")

    def _open(self, run: RunFolder) -> None:
        """The run is in that folder, and args.output_dir is it."""
        self.run = run
        if self.args.output_dir is None or os.path.abspath(self.args.output_dir) != str(run.path):
            self.args = copy.copy(self.args)             # other trainers may have the same object
            self.args.output_dir = str(run.path)

    def _write_state(self) -> None:
        """trainer_state.json of the run folder."""
        self._folder.write_log(STATE_FILE, lambda: self.state.save_to_json(self._folder.path / STATE_FILE))

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
        self.state.stateful_callbacks = states_of(self.callbacks)
        self.state.save_to_json(folder / STATE_FILE)
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
                 "config": self.args.options(),
                 "evaluation_owed": self._evaluation_owed(), **self.position_state()}
        (inner / checkpoint.STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")

    def _resume(self, resume: str | bool) -> None:
        """Loads a checkpoint, of a run folder its latest. The run continues in its folder when that is its latest
        checkpoint, else in a new one."""
        folder = checkpoint.original(Path(os.path.abspath(checkpoint_of(resume, self.args.output_dir))))
        tensors, state = self.optimizer.trained(), checkpoint.read_state(folder, self.kind)
        compare_options(folder, state["config"], self.args)
        compare_backends(folder, state.get("backend"), _core.backend(self.model.device))
        step, epoch, tokens = state["step"], state["epoch"], state["num_input_tokens_seen"]
        skipped, adam_steps = state["skipped"], state["adam_steps"]
        checkpoint.check_optimizer(folder / checkpoint.STATE_FOLDER, self.optimizer, tensors)
        own, output_dir = folder.parent.parent, self.args.output_dir
        in_place = resume is True or (folder.parent.name == CHECKPOINTS and folder == checkpoint.latest(folder.parent)
                                      and (output_dir is None or os.path.realpath(output_dir) == os.path.realpath(own)))
        best = checkpoint.best(folder.parent) if in_place else None
        remembered = remembered_of(folder / STATE_FILE)
        # nothing has moved, and whatever is refused was
        with self.restoring(state, folder / checkpoint.STATE_FOLDER) as move:
            name = self.args.run_name or self.kind
            run = RunFolder(own) if in_place else RunFolder.create(output_dir, name)
            try:
                history = run.rewind(step) if in_place else []
            except BaseException:
                run.abandon()
                raise
            if run.aside is not None and folder.is_relative_to(run.path):        # it went with its run
                folder = run.aside / folder.relative_to(run.path)
            with self.signals.held():
                inner = folder / checkpoint.STATE_FOLDER
                checkpoint.load_optimizer(inner, self.optimizer, tensors)
                self.optimizer.steps_taken = adam_steps
                move(inner)
                self._open(run)
                s = self.state
                s.global_step, s.epoch, s.num_input_tokens_seen, s.log_history = step, epoch, tokens, history
                self._skipped, self._saved_step = skipped, step
                if best is not None:
                    s.best_metric = best["value"]
                    self._know_best(best["step"])
                remind(self.callbacks, remembered)
        if in_place and state.get("evaluation_owed") and not self._evaluated_at(step):
            self._owed = list(EVALUATION)
        say(f"resumed {folder} at step {self.state.global_step}")


def is_round(record: dict[str, Any]) -> bool:
    """Whether a record of metrics.jsonl is a round of evaluation."""
    return any(name.startswith(ROUND) for name in record)
