"""The training loop that GRPO and SFT share: schedule, optimiser steps, logging, evaluation, checkpoints, resume.

A trainer says how one step's gradient is made (update) and what happened once it was applied (advance); everything
else is here.

A step is atomic. Until the optimiser moves, nothing of the trainer has: a step that fails or is interrupted before is
taken again, with the same bits. The optimiser, the counters, the place in the data and the log move together, whatever
is raised meanwhile. What is owed after a step (callbacks, the checkpoint, evaluation) is worked off by name; what an
exception leaves of it comes first when the run goes on.
"""
import dataclasses
import math
import os
import re
import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from ..errors import ConfigError, DatasetError, NonFiniteError, TokenizerError, did_you_mean, warn
from ..model import Model, load, row_variables
from ..options import TrainingConfig, learning_rate, refuse_ranks, steps_of
from ..runs import ROUND, RunFolder, checkpoint, say
from .callbacks import Progress, TensorBoard, TrainerControl, never_called
from .events import Rates, states_of
from .face import Face
from .interrupt import TrainingInterrupted
from .profile import Profile
from .saving import EVALUATION, Saving

# options that mean nothing to a model without a tower
OF_IMAGES = ("train_vision", "vision_learning_rate", "min_pixels", "max_pixels", "image_cache_gb", "image_cache_dir",
             "on_bad_row")
AFTER_A_STEP = ("show", "on_step_end", "on_log", "save", *EVALUATION)
AFTER_AN_EPOCH = ("on_epoch_end", "save", *EVALUATION)


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


class Loop(Face, Saving):
    """Base of the trainers."""

    def __init__(self, model: Any, args: TrainingConfig, callbacks: Any = None, processing_class: Any = None) -> None:
        ours = isinstance(model, Model)
        super().__init__(model if ours else load(model, tokenizer=processing_class, **args.model_options()), args)
        if ours and processing_class is not None:
            self.model.take_tokenizer(processing_class)
        open_eyes(self.model, args)
        self.progress = Progress(args.disable_tqdm)
        self.callbacks = [self.progress, *[TensorBoard() for name in args.report_to or () if name == "tensorboard"]]
        for callback in callbacks or []:
            self.add_callback(callback)
        if os.environ.get("GRPO_PROFILE") == "1":
            self.callbacks.append(Profile(self.model.device))
        self.evaluations: dict[str, Any] = {}            # held-out data by name
        self._window: list[dict[str, Any]] = []
        self._unseen: dict[str, Any] | None = None           # metrics of the step taken last, until they are yielded
        self._evaluated: dict[str, float] = {}               # the evaluation at hand
        self._epoch_ended = True             # or none has begun
        self._rate = 0.0                     # the learning rate of the step at hand
        self._trains = False                 # the loop at hand is train()'s own
        # of that loop: when and where it began, the losses of its steps, what was said of it
        self._started, self._first_step = 0.0, 0
        self._losses: list[float] = []
        self._totals: dict[str, float] = {}
        self._meet(processing_class)
        self._fire("on_init_end")

    def _note_template_options(self, options: Mapping[str, Any]) -> None:
        """Says which arguments of the chat template change nothing. ConfigError for those that it cannot be given."""
        tokenizer, named = self.model.tokenizer, options.get("chat_template")
        try:
            row_variables(options)
            if not (tokenizer.chat_templates or tokenizer.chat_template or named):
                return
            read = {name: tokenizer.template_reads(name, named) for name in options}
            unread = [name for name in options if name != "chat_template" and not read[name]]
        except TokenizerError as error:
            raise ConfigError(str(error)) from error
        if unread:
            warn(f"chat_template_kwargs: the model's chat template has no {', '.join(unread)}; nothing changes by it")

    # what a trainer supplies

    @abstractmethod
    def steps_of_epochs(self, epochs: float) -> int:
        """Optimiser steps that so many passes over the data take."""

    @abstractmethod
    def update(self) -> dict[str, Any]:
        """Adds the gradient of one step and returns its metrics. Called again, it does the same again."""

    @abstractmethod
    def advance(self) -> None:
        """The step was taken: move on in the data. Nothing that can fail."""

    @abstractmethod
    def skip_epoch(self) -> None:
        """Moves to the beginning of the next pass over the data. Nothing that can fail."""

    @property
    def stages(self) -> tuple[int, ...]:
        """Steps after which each stage of a curriculum is over; none without one."""
        return ()

    def show(self) -> None:
        """The step as files and text; nothing by default."""

    @abstractmethod
    def held_out_rows(self, dataset: Any, name: str) -> Any:
        """A data set as evaluate_on takes it. name: what errors call it."""

    @abstractmethod
    def evaluate_on(self, held_out: Any, prefix: str) -> dict[str, float]:
        """Metrics on held-out rows. prefix: what their names will begin with."""

    @abstractmethod
    def describe(self) -> str:
        """The batch arithmetic, said at the start of a run."""

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

    def add_callback(self, callback: Any) -> None:
        """One more callback, or the class of one. A GrpoWarning names methods that are never called."""
        callback = callback() if isinstance(callback, type) else callback
        if unheard := never_called(callback):
            warn(f"{type(callback).__name__}: {', '.join(unheard)} is never called here")
        self.callbacks.append(callback)

    def train(self, resume_from_checkpoint: str | bool | None = None) -> TrainOutput:
        """Runs to the end. resume_from_checkpoint: a checkpoint or run folder, or True for the latest of output_dir."""
        with self._stoppable(), self.signals.finishing():        # this loop's body is the trainer's own
            self._trains = True
            try:
                for _ in self.steps(resume_from_checkpoint):
                    pass
            finally:
                self._trains = False
        return TrainOutput(self.state.global_step, self._totals["train_loss"], dict(self._totals))

    def _total(self) -> dict[str, float]:
        """What is said of a run when it is over."""
        seconds, losses = time.perf_counter() - self._started, self._losses
        taken = self.state.global_step - self._first_step
        return {"train_runtime": seconds, "train_samples_per_second": taken * self.args.batch_size / max(seconds, 1e-9),
                "train_steps_per_second": taken / max(seconds, 1e-9), "total_flos": self.state.total_flos,
                "train_loss": sum(losses) / len(losses) if losses else 0.0, "epoch": self.state.epoch}

    def __iter__(self) -> Iterator[StepResult]:
        return self.steps()

    def steps(self, resume_from_checkpoint: str | bool | None = None) -> Iterator[StepResult]:
        """Yields once an optimiser step. Leaving the loop early leaves the trainer where it is; a new loop goes on, and
        after an exception too. The first Ctrl-C, SIGTERM and SIGHUP end the loop after the step at hand, with a
        checkpoint; a second Ctrl-C ends it at once."""
        resume = self.args.resume_from_checkpoint if resume_from_checkpoint is None else resume_from_checkpoint
        self._started, self._losses = time.perf_counter(), []
        with self._stoppable():
            with self.signals.leaving():
                self._begin(resume)
            self._first_step = self.state.global_step
            while self._owed or self._unseen is not None or not self._over():
                with self.signals.finishing():
                    if not self._owed and self._unseen is None:
                        self._step()
                    self._settle()
                    if self.signals.came:
                        self._save_if(self.args.save_strategy != "no" and self._saved_step != self.state.global_step)
                if self._unseen is not None:
                    result, self._unseen = self.result(self._unseen), None
                    with self.signals.outside():
                        yield result
                if self.signals.came:
                    raise KeyboardInterrupt
            self._end()

    @contextmanager
    def _stoppable(self) -> Iterator[None]:
        """A KeyboardInterrupt leaves it as TrainingInterrupted; one that a first signal raised, with a checkpoint."""
        try:
            with self.signals.watched():
                try:
                    yield
                except KeyboardInterrupt:
                    if self.signals.came and not self.signals.hurry and self.run is not None:
                        with self.signals.finishing():
                            self._save_if(self.args.save_strategy != "no" and self.state.global_step > 0
                                          and self._saved_step != self.state.global_step)
                    self.signals.acted_on()
                    raise
        except KeyboardInterrupt as interrupt:
            if self.run is None or (isinstance(interrupt, TrainingInterrupted) and interrupt.run == self.run.path):
                raise
            saved = checkpoint.steps(self.run.checkpoints)
            last = saved[0] if saved else None
            raise TrainingInterrupted(self.state.global_step, self.run.path, last) from interrupt
        finally:
            self.progress.close()
            self._leave()
            if self.run is not None:
                self.run.release()

    def _over(self) -> bool:
        return self.state.global_step >= self.state.max_steps or self.control.should_training_stop

    def _begin(self, resume: str | bool | None) -> None:
        args, state = self.args, self.state
        state.max_steps = args.max_steps if args.max_steps >= 0 else self.steps_of_epochs(args.num_train_epochs)
        state.train_batch_size = args.per_device_train_batch_size
        state.logging_steps, state.save_steps = (steps_of(n, state.max_steps) for n in (args.logging_steps,
                                                                                        args.save_steps))
        state.eval_steps = steps_of(args.eval_steps or args.logging_steps, state.max_steps)
        # the memory is there, or this raises, before anything is written
        held = sum(size for _, size in self.optimizer.plan())
        if not self._owed and self._unseen is None:
            self.control = TrainerControl()
        if resume and self.run is None:
            self._resume(resume)
        else:
            self._open(self.run or RunFolder.create(args.output_dir, args.run_name or self.kind))
        args = self.args
        self._folder.claim()
        self._folder.write_config(args.to_yaml())
        self._saved_at = self.clock()
        if state.global_step < state.max_steps:
            say(f"{self.describe()}; steps: {state.max_steps}; held for training: {held / 1e6:,.0f} MB; run folder: "
                f"{self._folder.path}{frozen(self.model, args)}")
        self._fire("on_train_begin")
        if args.eval_on_start and state.global_step == 0 and not self._evaluated_at(0):
            self._owed = ["evaluate", "on_evaluate"]
            self._settle()

    def _end(self) -> None:
        """After the last step: a checkpoint and evaluation where they were not due, the best weights, the report. The
        checkpoint comes first: what follows may fail, or take long."""
        args, step = self.args, self.state.global_step
        with self.signals.finishing():
            self._save_if(args.save_strategy in ("steps", "epoch") and self._saved_step != step)
        if args.evaluates and not self._evaluated_at(step):
            self._owed = list(EVALUATION)
        self._settle()
        if args.load_best_model_at_end and (best := checkpoint.best(self._folder.checkpoints)):
            with self.signals.held():
                checkpoint.load_weights(self._folder.checkpoints / f"step-{best['step']}", self.model.core,
                                        self.model.name_in_files)
            say(f"the weights are those of step {best['step']}, where {best['metric']} was best: {best['value']:.4g}")
        self._leave(finished=True)
        with self.signals.leaving():
            self._totals = self._total()
            with self.signals.held():
                if self._trains:
                    self.state.log_history.append({**self._totals, "step": step})
                self.state.stateful_callbacks = states_of(self.callbacks)
                self._write_state()
            if self._trains:
                self._fire("on_log", logs=dict(self._totals))
            self.finish()
            self._fire("on_train_end")

    def _step(self) -> None:
        """Takes one step: all of it, or nothing."""
        started, state = time.perf_counter(), self.state
        self._seconds.clear()
        control, rate = self.control, learning_rate(self.args, state.global_step, state.max_steps, self.stages)
        self._rate = rate
        if self._epoch_ended:
            control.should_epoch_stop = False
            self._fire("on_epoch_begin")
        control.should_save = control.should_evaluate = control.should_log = False
        self._fire("on_step_begin")
        skipped: NonFiniteError | None = None
        try:
            metrics = self.update()
            self._fire("on_pre_optimizer_step")
        except NonFiniteError as error:
            skipped = error
        except BaseException:
            self._forget_gradient()
            raise
        with self.signals.held():
            if skipped is None:
                try:
                    with self.timed("optimizer"):
                        metrics["grad_norm"] = self.optimizer.step(rate, self.args.max_grad_norm)
                except NonFiniteError as error:
                    skipped = error
            if skipped is not None:
                metrics = self._skip(skipped)
            try:                             # a callback may raise here; the weights have moved, so the rest moves too
                if skipped is None:
                    self._fire("on_optimizer_step")
            finally:
                self._skipped = 0 if skipped is None else self._skipped + 1
                self._count({**metrics, "learning_rate": rate}, started)

    def _skip(self, error: NonFiniteError) -> dict[str, Any]:
        """The metrics of a step whose gradient is not finite and is thrown away. Raises after too many in a row."""
        self._forget_gradient()
        step = self.state.global_step + 1
        if self._skipped >= self.args.max_skipped_steps:
            raise NonFiniteError(f"{error}; {self._skipped + 1} steps in a row, the weights are those of step "
                                 f"{step - 1 - self._skipped}") from error
        warn(f"step {step} is skipped: {error}")
        return {"skipped_steps": 1.0, "grad_norm": math.nan}

    def _forget_gradient(self) -> None:
        with self.signals.held():
            self.optimizer.zero_grad()

    def _count(self, metrics: dict[str, Any], started: float) -> None:
        """What moves together with the optimiser."""
        state, seconds = self.state, time.perf_counter() - started
        state.global_step += 1
        epoch_before = state.epoch
        self.advance()
        self._epoch_ended = int(state.epoch) > int(epoch_before)
        metrics |= {"step_time": seconds} | {f"time_share/{name}": spent / seconds
                                             for name, spent in self._seconds.items()}
        self._owed, self._unseen = [*AFTER_A_STEP, *(AFTER_AN_EPOCH if self._epoch_ended else ())], metrics
        self._window.append(metrics)
        if metrics.get("loss") is not None:
            self._losses.append(metrics["loss"])
        self._record(metrics)

    def _settle(self) -> None:
        """Does what is owed, in its order. A callback is told once, even where it raises; what fails of the rest is
        done again when the run goes on."""
        while self._owed:
            task = self._owed[0]
            if task.startswith("on_"):
                self._owed.pop(0)
                self._tell(task)
            else:
                getattr(self, f"_settle_{task}")()
                self._owed.pop(0)

    def _tell(self, event: str) -> None:
        """The callbacks of what is owed."""
        step = self.state.global_step
        if event == "on_step_end":
            self._fire(event, metrics=self._unseen)
            if self.control.should_epoch_stop and not self._epoch_ended:
                with self.signals.held():
                    self.skip_epoch()
                    self._epoch_ended = True
                    self._owed += AFTER_AN_EPOCH
        elif event == "on_evaluate" and self._evaluated:
            self._fire("on_log", logs={**self._evaluated, "epoch": self.state.epoch})
            self._fire(event, metrics=self._evaluated)
        elif event == "on_epoch_end":
            self._fire(event)
        elif event == "on_log" and (self.control.should_log or self.every(self.args.logging_steps)
                                    or step == self.state.max_steps or (self.args.logging_first_step and step == 1)):
            logs, self._window, self.control.should_log = means(self._window), [], False
            self._fire(event, logs={**logs, "epoch": self.state.epoch})

    def _settle_show(self) -> None:
        self.show()

    def _settle_save(self) -> None:
        """The checkpoint that is due, before evaluation: that may fail, or take long."""
        args, last = self.args, self.state.global_step >= self.state.max_steps
        if self._saved_step == self.state.global_step:       # before the end of the epoch
            self.control.should_save = False
            return
        ends = args.save_strategy == "steps" or (args.save_strategy == "epoch" and "on_epoch_end" not in self._owed)
        due = self._due(args.save_strategy, args.save_steps) or (last and ends)
        late = (args.save_strategy == "steps" and args.save_minutes is not None
                and self.clock() - self._saved_at >= 60 * args.save_minutes)
        self._save_if(self.control.should_save or due or late)

    def _settle_evaluate(self) -> None:
        self._evaluated = {}
        if self._evaluation_due() or self._unseen is None:
            with self.signals.leaving():
                metrics = self.evaluate()
            with self.signals.held():
                self.control.should_evaluate = False
                self._evaluated = metrics
                if self._unseen is not None:
                    self._unseen |= metrics
                self._record(metrics)

    def _evaluation_due(self) -> bool:
        return self.control.should_evaluate or self._due(self.args.eval_strategy, self.args.eval_steps
                                                         or self.args.logging_steps)

    def _evaluation_owed(self) -> bool:
        args = self.args
        due = self._epoch_ended if args.eval_strategy == "epoch" else self._evaluation_due()
        return "evaluate" in self._owed and due and not self._evaluated_at(self.state.global_step)

    def _settle_judge(self) -> None:
        if self._evaluated and self.args.metric_for_best_model is not None:
            self._judge(self._evaluated)

    def _settle_save_best(self) -> None:
        """Notes the best checkpoint, which is written where it was not due."""
        step = self.state.global_step
        if self._new_best is not None and self._saved_step == step and (self._folder.checkpoints / f"step-{step}"
                                                                        ).is_dir():
            self._note_best()
        self._save_if(self.control.should_save or self._new_best is not None)

    def _due(self, strategy: str, every: float) -> bool:
        if strategy == "epoch":
            return self._epoch_ended and "on_epoch_end" not in self._owed
        return strategy == "steps" and self.every(every) and ("on_epoch_end" in self._owed or not self._epoch_ended)

    def every(self, steps: float) -> bool:
        """Whether the step just taken is one of every so many; below 1: a share of all."""
        return self.state.global_step % steps_of(steps, self.state.max_steps) == 0

    def _fire(self, event: str, **details: Any) -> None:
        rates = Rates(lambda: self._rate)
        for callback in self.callbacks:
            if (method := getattr(callback, event, None)) is not None:
                control = method(self.args, self.state, self.control, model=self.model, run=self.run,
                                 processing_class=self.model.tokenizer, optimizer=rates, lr_scheduler=rates,
                                 train_dataloader=None, eval_dataloader=None, **details)
                if isinstance(getattr(control, "should_training_stop", None), bool):
                    self.control = control

    # logging

    def _record(self, metrics: dict[str, Any]) -> None:
        record = {"step": self.state.global_step, "epoch": self.state.epoch, **metrics}
        self.state.log_history.append(record)
        self._folder.log(record)

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


def open_eyes(model: Model, args: TrainingConfig) -> None:
    """The options of images, for a model that sees. ConfigError where one is set for a model that does not."""
    sight = model.sight
    if sight is None:
        defaults = {f.name: f.default for f in dataclasses.fields(args)}
        if asked := [name for name in OF_IMAGES if getattr(args, name) != defaults[name]]:
            raise ConfigError(f"{asked[0]}: this model ({model.config.get('model_type')}) has no vision tower")
        return
    sight.processor = sight.processor.with_limits(args.min_pixels, args.max_pixels)
    sight.keep(int(args.image_cache_gb * 1e9), args.image_cache_dir)


def frozen(model: Model, args: TrainingConfig) -> str:
    """What of a model that sees is not trained, for the line that begins a run."""
    still = {"none": "; the vision tower is frozen (train_vision='none')",
             "merger": "; the vision tower is frozen but for its mergers (train_vision='merger')",
             "all": "; the vision tower is trained (train_vision='all')"}
    return still[args.train_vision] if model.sight is not None else ""


def options(args: Any, kind: type[TrainingConfig]) -> Any:
    """args, or the defaults where there are none. ConfigError for what is of another kind or cannot be, and in one of
    several processes."""
    if args is not None and not isinstance(args, kind):
        module = "" if type(args).__module__ == "builtins" else f"{type(args).__module__}."
        raise ConfigError(f"args must be a grpo.{kind.__name__}, not a {module}{type(args).__name__}")
    refuse_ranks()
    return kind() if args is None else args.validated()


def means(records: list[dict[str, Any]]) -> dict[str, float]:
    """Each metric's mean over the records that have a number for it."""
    names = dict.fromkeys(name for metrics in records for name in metrics)
    values = {name: [m[name] for m in records if m.get(name) is not None and not math.isnan(m[name])] for name in names}
    return {name: sum(v) / len(v) for name, v in values.items() if v}
