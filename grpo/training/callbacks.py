"""Callbacks: what they are told, and the built-in ones (progress bar or lines, TensorBoard).

A callback is any object with some of the methods of TrainerCallback; the arguments are those of transformers'
callbacks, so these work here too.
"""
import sys
from dataclasses import dataclass
from typing import Any

from ..evaluation import prompt_text
from ..runs import ROUND, say


@dataclass
class TrainerControl:
    """What a callback may ask for; flags are looked at after each step, and put back when the next one begins."""

    should_training_stop: bool = False
    should_epoch_stop: bool = False          # the next step begins the next pass over the data
    should_save: bool = False
    should_evaluate: bool = False
    should_log: bool = False


class TrainerCallback:
    """Base of callbacks; override what you need. There is no on_substep_end: the micro-batches of a step are one call
    of the core.

    args: the config; state: the run's TrainerState; control: a TrainerControl, which a callback may also return;
    kwargs: model, processing_class (its tokenizer), optimizer and lr_scheduler (which tell the learning rate),
    train_dataloader and eval_dataloader (None), run (its folder).

    After a step come, in this order: on_step_end, on_log, on_save, on_log with the evaluation's numbers, on_evaluate;
    then, where a pass over the data is over, on_epoch_end and the same again for what is done once an epoch. (In
    transformers on_save comes after on_evaluate: here a checkpoint does not wait for an evaluation that may fail.)"""

    def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The trainer is made."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A run begins, or goes on."""

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A pass over the data begins."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """An optimiser step begins."""

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The gradient is there."""

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The weights have moved."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The step is taken, and logged."""

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A pass over the data is over."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Every logging_steps. logs: each metric's mean since the last time, and epoch. After an evaluation: its
        numbers. At the end: train_runtime, train_loss and the like."""

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        """A round of evaluation is over."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A checkpoint is written."""

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The run is over."""


def never_called(callback: Any) -> list[str]:
    """Methods of a callback for events that there are not. Those that transformers' own classes have do nothing."""
    def theirs(name: str) -> bool:
        owner = next((kind for kind in type(callback).__mro__ if name in vars(kind)), type(callback))
        return owner.__module__.partition(".")[0] == "transformers"

    return [name for name in dir(callback) if name.startswith("on_") and not hasattr(TrainerCallback, name) and
            not theirs(name)]


SHOWN = (("reward", "reward", "{:.3f}"), ("loss", "loss", "{:.4f}"), ("kl", "kl", "{:.4f}"),
         ("completions/mean_length", "length", "{:.0f}"), ("generation_tokens_per_second", "gen tok/s", "{:.0f}"),
         ("training_tokens_per_second", "train tok/s", "{:.0f}"))

# what such names end with
SHOWN_IN_EVALUATION = ("_reward", "_loss", "_accuracy/strict", "_accuracy/lenient", "/mean")


def summary(metrics: dict[str, Any]) -> dict[str, str]:
    """The few numbers worth a glance, formatted."""
    shown = {label: form.format(metrics[name]) for name, label, form in SHOWN if metrics.get(name) is not None}
    if "reward" in shown:
        shown.pop("loss", None)              # on policy it is zero by construction
    return shown


def phases(metrics: dict[str, Any]) -> str:
    """The phases that took at least a twentieth of the step."""
    shares = {name.removeprefix("time_share/"): share for name, share in metrics.items()
              if name.startswith("time_share/") and share}
    shown = [f"{name} {share:.0%}" for name, share in shares.items() if share >= 0.05]
    return f" ({', '.join(shown)})" if shown else ""


class Progress(TrainerCallback):
    """A bar where there is a terminal (or a notebook), a line every logging_steps elsewhere."""

    def __init__(self, disable_tqdm: bool | None) -> None:
        watched = sys.stderr.isatty() or "ipykernel" in sys.modules
        self.use_bar = watched if disable_tqdm is None else not disable_tqdm
        self.bar: Any = None
        self.shown: dict[str, str] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Puts up the bar."""
        if self.use_bar:
            from tqdm.auto import tqdm

            self.bar = tqdm(total=state.max_steps, initial=state.global_step, unit="step", dynamic_ncols=True)

    def on_rollout(self, tokens: int, finished: int, total: int) -> None:
        """How far a rollout is: tokens so far, and how many of all completions are finished."""
        if self.bar is not None:
            self.bar.set_postfix({**self.shown, "rollout": f"{finished}/{total}, {tokens} tokens"})

    def on_step_end(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        """Moves the bar."""
        if self.bar is not None:
            self.shown = {**self.shown, **summary(metrics or {})}
            self.bar.update(1)
            self.bar.set_postfix(self.shown)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """The line of a run without a bar."""
        if self.bar is None and "step_time" in logs:
            numbers = "  ".join(f"{label} {value}" for label, value in summary(logs).items())
            say(f"step {state.global_step}/{state.max_steps}  {numbers}  {logs['step_time']:.2f} s/step{phases(logs)}")

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        """A line with the numbers of the evaluation."""
        shown = [f"{name} {value:.3f}" for name, value in metrics.items() if name.endswith(SHOWN_IN_EVALUATION)]
        self.write(f"evaluation at step {state.global_step}  {'  '.join(shown)}")

    def write(self, text: str) -> None:
        """A line that does not break the bar."""
        if self.bar is not None:
            self.bar.write(text, file=sys.stderr)
        else:
            say(text)

    def close(self) -> None:
        """Takes the bar away."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


class TensorBoard(TrainerCallback):
    """Event files in the run folder."""

    def __init__(self) -> None:
        self.writer: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, run: Any = None, **kwargs: Any) -> None:
        """Opens the event file."""
        from tensorboardX import SummaryWriter

        self.writer = SummaryWriter(str(run.path / "tensorboard"))

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """The metrics, as train/..."""
        own = {name: value for name, value in logs.items() if not name.startswith(ROUND)}
        if len(own) > 1:                     # more than the epoch of an evaluation
            self._write("train", {name.removeprefix("train_"): value for name, value in own.items()},
                        state.global_step)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        """Those of an evaluation, as eval/..."""
        self._write("eval", {name.removeprefix("eval_"): value for name, value in metrics.items()}, state.global_step)

    def _write(self, prefix: str, values: dict[str, Any], step: int) -> None:
        for name, value in values.items():
            if value is not None:
                self.writer.add_scalar(f"{prefix}/{name}", value, step)
        self.writer.flush()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Closes the event file."""
        self.writer.close()


def completion_table(records: list[dict[str, Any]], count: int | None, unique_prompts: bool) -> str:
    """Completions as text: prompt, completion, rewards, advantage."""
    if unique_prompts:
        records = list({str(r["prompt"]): r for r in reversed(records)}.values())[::-1]
    blocks = []
    for r in records[:count]:
        rewards = "  ".join(f"{name} {value:.2f}" for name, value in r["rewards"].items())
        blocks.append(f"--- row {r['row']}\n{prompt_text(r['prompt'])}\n>>> {r['completion']}\n    {rewards}  "
                      f"advantage {r['advantage']:.2f}")
    return "\n".join(blocks)
