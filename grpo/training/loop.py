"""The training loop that GRPO and SFT share: schedule, optimiser steps, logging, evaluation, checkpoints, resume.

A trainer says how one step's gradient is made (update) and what happened once it was applied (advance); everything
else is here.
"""
import dataclasses
import functools
import json
import math
import os
import re
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from .. import _core
from ..errors import CheckpointError, ConfigError, DatasetError, NonFiniteError, did_you_mean, warn
from ..model import Model, NoTokenizer, load
from ..options import TrainingConfig, learning_rate, steps_of
from ..planning import Plan, require, training_plan
from ..runs import CHECKPOINTS, ROUND, RunFolder, TrainerState, checkpoint, say
from .callbacks import Progress, TensorBoard, TrainerControl, never_called
from .interrupt import TrainingInterrupted, sigterm
from .profile import Profile
from .resume import checkpoint_of, compare_backends, compare_options

MAX_FAILED_SAVES = 3


class TrainOutput(NamedTuple):
    """What train() returns: steps taken, mean loss, a summary."""

    global_step: int
    training_loss: float
    metrics: dict[str, float]


@dataclasses.dataclass
class StepResult:
    """One optimiser step: its number (from 1) and its metrics."""

    step: int
    metrics: dict[str, Any]


class Loop(ABC):
    """Base of the trainers."""

    kind = ""

    def __init__(self, model: Any, args: TrainingConfig, callbacks: Any = None, processing_class: Any = None) -> None:
        self.args = args
        self.model: Model = model if isinstance(model, Model) else load(model, **args.model_options())
        if processing_class is not None and processing_class is not self.model.tokenizer:
            self._take_tokenizer(processing_class)
        self.state = TrainerState(num_train_epochs=args.num_train_epochs)
        self.control = TrainerControl()
        self.run: RunFolder | None = None
        self.progress = Progress(args.disable_tqdm)
        self.callbacks: list[Any] = [self.progress,
                                     *[TensorBoard() for name in args.report_to or () if name == "tensorboard"]]
        for callback in callbacks or []:
            self.add_callback(callback)
        if os.environ.get("GRPO_PROFILE") == "1":
            self.callbacks.append(Profile(self.model.device))
        self.evaluations: dict[str, Any] = {}            # held-out data by name
        self._seconds: dict[str, float] = defaultdict(float)
        self._window: list[dict[str, Any]] = []
        self._skipped = self._failed_saves = 0
        self._saved_step = -1
        self._epoch_ended = True             # or none has begun
        # (metric, value) of weights that are better than any checkpoint
        self._new_best: tuple[str, float] | None = None
        self._fire("on_init_end")

    def _note_template_options(self, options: Mapping[str, Any]) -> None:
        """Says which arguments of the chat template change nothing."""
        tokenizer = self.model.tokenizer
        unread = [name for name in options if not tokenizer.template_reads(name)] if tokenizer.chat_template else []
        if unread:
            warn(f"chat_template_kwargs: the model's chat template has no {', '.join(unread)}; nothing changes by it")

    def _take_tokenizer(self, processing_class: Any) -> None:
        """A tokenizer for a model that has none; one that has its own keeps it, and that is said."""
        if isinstance(self.model.tokenizer, NoTokenizer):
            self.model.take_tokenizer(processing_class)
        else:
            say("processing_class is not used: the model's own tokenizer is; grpo.load(..., tokenizer=...) takes "
                "another")

    # what a trainer supplies

    @abstractmethod
    def steps_of_epochs(self, epochs: float) -> int:
        """Optimiser steps that so many passes over the data take."""

    @abstractmethod
    def update(self) -> dict[str, Any]:
        """Adds the gradient of one step and returns its metrics."""

    @abstractmethod
    def advance(self) -> None:
        """The step was taken: move on in the data."""

    @abstractmethod
    def held_out_rows(self, dataset: Any, name: str) -> Any:
        """A data set as evaluate_on takes it. name: what errors call it."""

    @abstractmethod
    def evaluate_on(self, held_out: Any, prefix: str) -> dict[str, float]:
        """Metrics on held-out rows. prefix: what their names will begin with."""

    @abstractmethod
    def position_state(self) -> dict[str, Any]:
        """What trainer.json keeps besides the loop's own state."""

    @abstractmethod
    def restore_position(self, state: dict[str, Any], folder: Path) -> None:
        """The reverse of position_state and save_extra."""

    @abstractmethod
    def describe(self) -> str:
        """The batch arithmetic, said at the start of a run."""

    def save_extra(self, folder: Path) -> None:
        """More files of the trainer's state; none by default."""

    def finish(self) -> None:
        """What else a trainer leaves in the run folder at the end."""

    def result(self, metrics: dict[str, Any]) -> StepResult:
        """What iteration yields."""
        return StepResult(self.state.global_step, metrics)

    # evaluation

    def held_out(self, dataset: Any) -> dict[str, Any]:
        """Data sets of evaluation by name; a single one has the name ""."""
        if dataset is None and self.args.evaluates:
            raise ConfigError("eval_strategy and eval_on_start need eval_dataset")
        if not isinstance(dataset, Mapping):
            return {} if dataset is None else {"": self.held_out_rows(dataset, "eval_dataset")}
        for name in dataset:
            if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+", name):
                raise ConfigError(f"eval_dataset: the name {name!r} must be letters, digits, '_', '.' or '-'; metrics "
                                  "and files are called by it")
        return {name: self.held_out_rows(rows, f"eval_dataset[{name!r}]") for name, rows in dataset.items()}

    def evaluate(self, eval_dataset: Any = None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """Metrics on eval_dataset (default: the trainer's), their names prefixed: eval_reward; of a dict of data sets,
        eval_<name>_reward."""
        evaluations = self.evaluations if eval_dataset is None else self.held_out(eval_dataset)
        if not evaluations:
            raise DatasetError("evaluate() needs eval_dataset")
        metrics: dict[str, float] = {}
        for name, held_out in evaluations.items():
            started, prefix = time.perf_counter(), f"{metric_key_prefix}_{name}" if name else metric_key_prefix
            found = self.evaluate_on(held_out, prefix) | {"runtime": time.perf_counter() - started}
            metrics |= {f"{prefix}_{metric}": value for metric, value in found.items()}
        return metrics

    # running

    @property
    def _folder(self) -> RunFolder:
        """The run's, once it has begun."""
        assert self.run is not None
        return self.run

    @functools.cached_property
    def memory(self) -> Plan:
        """What the run will hold, planned beside what is there already."""
        return training_plan(self.model.config, "the model", self.args, self.model.device,
                             held=("weights", "reference weights"))

    @functools.cached_property
    def optimizer(self) -> _core.Trainer:
        """The core's trainer: gradients, masters and moments. OutOfMemoryError where they have no room."""
        require(self.memory)
        a = self.args
        return _core.Trainer(self.model.core, adam_beta1=a.adam_beta1, adam_beta2=a.adam_beta2,
                             adam_epsilon=a.adam_epsilon, weight_decay=a.weight_decay,
                             token_budget=a.token_budget_on(self.model.device), recompute=a.recompute,
                             moment_dtype=a.moment_dtype, master_dtype=a.master_dtype, seed=a.seed)

    def add_callback(self, callback: Any) -> None:
        """One more callback, or the class of one. A GrpoWarning names methods that are never called."""
        callback = callback() if isinstance(callback, type) else callback
        if unheard := never_called(callback):
            warn(f"{type(callback).__name__}: {', '.join(unheard)} is never called here")
        self.callbacks.append(callback)

    def train(self, resume_from_checkpoint: str | bool | None = None) -> TrainOutput:
        """Runs to the end. resume_from_checkpoint: a checkpoint or run folder, or True for the latest of output_dir."""
        started, first = time.perf_counter(), self.state.global_step
        losses = [s.metrics["loss"] for s in self.steps(resume_from_checkpoint) if s.metrics.get("loss") is not None]
        seconds = time.perf_counter() - started
        metrics = {"train_runtime": seconds,
                   "train_steps_per_second": (self.state.global_step - first) / max(seconds, 1e-9),
                   "train_loss": sum(losses) / len(losses) if losses else 0.0, "epoch": self.state.epoch}
        self.state.log_history.append({**metrics, "step": self.state.global_step})
        return TrainOutput(self.state.global_step, metrics["train_loss"], metrics)

    def __iter__(self) -> Iterator[StepResult]:
        return self.steps()

    def steps(self, resume_from_checkpoint: str | bool | None = None) -> Iterator[StepResult]:
        """Yields once an optimiser step. Leaving the loop early leaves the trainer where it is; a new loop goes on."""
        try:
            self._begin(self.args.resume_from_checkpoint if resume_from_checkpoint is None else resume_from_checkpoint)
            with sigterm() as terminated:
                while self.state.global_step < self.state.max_steps and not self.control.should_training_stop:
                    yield self._step()
                    if terminated:
                        self._save_if(self.args.save_strategy != "no" and self._saved_step != self.state.global_step)
                        raise KeyboardInterrupt
            self._end()
        except KeyboardInterrupt as interrupt:
            if self.run is None:
                raise
            saved = checkpoint.steps(self.run.checkpoints)
            last = saved[0] if saved else None
            raise TrainingInterrupted(self.state.global_step, self.run.path, last) from interrupt
        finally:
            self.progress.close()
            if self.run is not None:
                self.run.release()

    def _begin(self, resume: str | bool | None) -> None:
        args, state = self.args, self.state
        state.max_steps = args.max_steps if args.max_steps >= 0 else self.steps_of_epochs(args.num_train_epochs)
        # the memory is there, or this raises, before anything is written
        held = sum(size for _, size in self.optimizer.plan())
        if resume and self.run is None:
            self._resume(resume)
        elif self.run is None:
            self.run = RunFolder.create(args.output_dir, args.run_name or self.kind)
        self._folder.claim()
        self._folder.write_config(args.to_yaml())
        self.control = TrainerControl()
        if state.global_step < state.max_steps:
            say(f"{self.describe()}; steps: {state.max_steps}; held for training: {held / 1e6:,.0f} MB; run folder: "
                f"{self._folder.path}")
        self._fire("on_train_begin")
        if args.eval_on_start and state.global_step == 0:
            self._evaluate()

    def _end(self) -> None:
        """After the last step: evaluation and a checkpoint where they were not due, the best weights, the report."""
        args, step = self.args, self.state.global_step
        if args.evaluates and not any(r["step"] == step and is_round(r) for r in self.state.log_history):
            self._evaluate()
        self._save_if(self._new_best is not None or (args.save_strategy in ("steps", "epoch")
                                                     and self._saved_step != step))
        if args.load_best_model_at_end and (best := checkpoint.best(self._folder.checkpoints)):
            checkpoint.load_weights(self._folder.checkpoints / f"step-{best['step']}", self.model.core)
            say(f"the weights are those of step {best['step']}, where {best['metric']} was best: {best['value']:.4g}")
        self.finish()
        self._fire("on_train_end")

    def _step(self) -> StepResult:
        started, state = time.perf_counter(), self.state
        self._seconds.clear()
        if self._epoch_ended:
            self._fire("on_epoch_begin")
        self._fire("on_step_begin")
        rate = learning_rate(self.args, state.global_step, state.max_steps)
        metrics = {**self._apply(rate), "learning_rate": rate}
        state.global_step += 1
        epoch_before = state.epoch
        self.advance()
        self._epoch_ended = int(state.epoch) > int(epoch_before)
        seconds = time.perf_counter() - started
        metrics |= {"step_time": seconds} | {f"time_share/{name}": spent / seconds
                                             for name, spent in self._seconds.items()}
        self._log(metrics)
        self._fire("on_step_end", metrics=metrics)
        if self._epoch_ended:
            self._fire("on_epoch_end")
        if self.control.should_evaluate or self._due(self.args.eval_strategy, self.args.eval_steps
                                                     or self.args.logging_steps):
            metrics |= self._evaluate()
        due = self._due(self.args.save_strategy, self.args.save_steps)
        self._save_if(self.control.should_save or self._new_best is not None or due)
        return self.result(metrics)

    def _apply(self, rate: float) -> dict[str, Any]:
        """update() and the optimiser's step. A gradient that is not finite is thrown away and counted."""
        try:
            metrics = self.update()
            self._fire("on_pre_optimizer_step")
            with self.timed("optimizer"):
                metrics["grad_norm"] = self.optimizer.step(rate, self.args.max_grad_norm)
            self._fire("on_optimizer_step")
            self._skipped = 0
            return metrics
        except NonFiniteError as error:
            self._skipped += 1
            if self._skipped > self.args.max_skipped_steps:
                raise NonFiniteError(f"{error}; {self._skipped} steps in a row, the weights are those of step "
                                     f"{self.state.global_step - self._skipped + 1}") from error
            warn(f"step {self.state.global_step + 1} is skipped: {error}")
            self.optimizer.zero_grad()
            return {"skipped_steps": 1.0, "grad_norm": math.nan}
        except BaseException:
            self.optimizer.zero_grad()
            raise

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Adds the time of a phase to this step's shares."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[phase] += time.perf_counter() - started

    def _due(self, strategy: str, every: float) -> bool:
        if strategy == "epoch":
            return self._epoch_ended
        return strategy == "steps" and self.every(every)

    def every(self, steps: float) -> bool:
        """Whether the step just taken is one of every so many; below 1: a share of all."""
        return self.state.global_step % steps_of(steps, self.state.max_steps) == 0

    def _fire(self, event: str, **details: Any) -> None:
        for callback in self.callbacks:
            if (method := getattr(callback, event, None)) is not None:
                method(self.args, self.state, self.control, model=self.model, run=self.run, **details)

    # logging

    def _log(self, metrics: dict[str, Any]) -> None:
        args, state = self.args, self.state
        self._record(metrics)
        self._window.append(metrics)
        step = state.global_step
        if self.every(args.logging_steps) or step == state.max_steps or (args.logging_first_step and step == 1):
            self._fire("on_log", logs=means(self._window))
            self._window = []

    def _record(self, metrics: dict[str, Any]) -> None:
        record = {"step": self.state.global_step, "epoch": self.state.epoch, **metrics}
        self.state.log_history.append(record)
        self._folder.log(record)

    def _evaluate(self) -> dict[str, float]:
        self.control.should_evaluate = False
        metrics = self.evaluate()
        self._record(metrics)
        self._fire("on_evaluate", metrics=metrics)
        if self.args.metric_for_best_model is not None and self.state.global_step:
            self._judge(metrics)
        return metrics

    def _judge(self, metrics: dict[str, float]) -> None:
        """Whether this evaluation is the best so far; the checkpoint that says so is written next."""
        asked = self.args.metric_for_best_model
        assert asked is not None
        name = asked if asked.startswith(ROUND) else ROUND + asked
        if name not in metrics:
            known = [n.removeprefix(ROUND) for n in metrics]
            raise ConfigError(f"metric_for_best_model={asked!r} is no number of the "
                              f"evaluation{did_you_mean(asked, known)} It has {', '.join(known)}.")
        value, best = metrics[name], checkpoint.best(self._folder.checkpoints)
        if best is None or best["metric"] != name:
            better = not math.isnan(value)
        else:
            better = value > best["value"] if self.args.greater_is_better else value < best["value"]
        if better:
            self._new_best, self.state.best_metric = (name, value), value

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
        path = checkpoint.write(self._folder.checkpoints, self.state.global_step, self._write_checkpoint)
        if self._new_best is not None:
            checkpoint.write_best(self._folder.checkpoints, self.state.global_step, *self._new_best)
            self._new_best = None
        checkpoint.prune(self._folder.checkpoints, self.args.save_total_limit)
        self._saved_step = self.state.global_step
        self._fire("on_save")
        return path

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
        checkpoint.save_optimizer(inner, self.optimizer, self.model.core.tensors())
        self.save_extra(inner)
        s = self.state
        state = {"kind": self.kind, "step": s.global_step, "max_steps": s.max_steps, "epoch": s.epoch,
                 "adam_steps": self.optimizer.steps_taken, "num_input_tokens_seen": s.num_input_tokens_seen,
                 "skipped": self._skipped, "backend": _core.backend(self.model.device),
                 "config": dataclasses.asdict(self.args), **self.position_state()}
        (inner / checkpoint.STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")

    def _resume(self, resume: str | bool) -> None:
        """Loads a checkpoint, of a run folder its latest. The run continues in its folder when that is its latest
        checkpoint, else in a new one."""
        folder = Path(os.path.abspath(checkpoint_of(resume, self.args.output_dir)))
        state = checkpoint.read_state(folder, self.kind)
        compare_options(folder, state["config"], self.args)
        compare_backends(folder, state.get("backend"), _core.backend(self.model.device))
        own = folder.parent.parent
        output_dir = self.args.output_dir and os.path.abspath(self.args.output_dir)
        in_place = resume is True or (folder.parent.name == CHECKPOINTS and folder == checkpoint.latest(folder.parent)
                                      and output_dir in (None, str(own)))
        name = self.args.run_name or self.kind
        run = RunFolder(own) if in_place else RunFolder.create(self.args.output_dir, name)
        try:
            self._restore(folder, state)
            if in_place:
                self.state.log_history = run.rewind(self.state.global_step)
                self.state.best_metric = (checkpoint.best(run.checkpoints) or {}).get("value")
        except BaseException:
            run.abandon()
            raise
        self.run = run
        say(f"resumed {folder} at step {self.state.global_step}")

    def _restore(self, folder: Path, state: dict[str, Any]) -> None:
        """The optimiser, the place in the data and the counters of a checkpoint. state: its trainer.json."""
        checkpoint.load_optimizer(folder / checkpoint.STATE_FOLDER, self.optimizer, self.model.core.tensors())
        self.optimizer.steps_taken = state["adam_steps"]
        self.restore_position(state, folder / checkpoint.STATE_FOLDER)
        s = self.state
        s.global_step, s.epoch, s.num_input_tokens_seen = state["step"], state["epoch"], state["num_input_tokens_seen"]
        self._skipped, self._saved_step = state["skipped"], state["step"]


def options(args: Any, kind: type) -> Any:
    """args, or the defaults where there are none. ConfigError for what is of another kind."""
    if args is not None and not isinstance(args, kind):
        module = "" if type(args).__module__ == "builtins" else f"{type(args).__module__}."
        raise ConfigError(f"args must be a grpo.{kind.__name__}, not a {module}{type(args).__name__}")
    return kind() if args is None else args


def is_round(record: dict[str, Any]) -> bool:
    """Whether a record of metrics.jsonl is a round of evaluation."""
    return any(name.startswith(ROUND) for name in record)


def means(records: list[dict[str, Any]]) -> dict[str, float]:
    """Each metric's mean over the records that have a number for it."""
    names = dict.fromkeys(name for metrics in records for name in metrics)
    values = {name: [m[name] for m in records if m.get(name) is not None and not math.isnan(m[name])] for name in names}
    return {name: sum(v) / len(v) for name, v in values.items() if v}
