"""Pictures of runs, drawn from their metrics.jsonl.

A panel says which curves it takes from a run's metrics; a picture is a few panels side by side. What a run did not
log is left out, down to the picture, so the same tables serve GRPO, SFT and runs cut short.
"""
import json
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ConfigError, FileFormatError
from .foreign import did_you_mean
from .runfolder import METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f3c8d", "#666666")    # told apart by colour-blind eyes
INK, GRID = "#333333", "#e3e3e3"
POINTS_SHOWN = 30                            # up to so many points each has a marker; more are smoothed


class Metrics:
    """The records of one run's metrics.jsonl. Raises FileFormatError naming the file (and line) that cannot be read."""

    def __init__(self, run: str | os.PathLike):
        self.path = Path(run) / METRICS
        self.name = Path(run).resolve().name
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise FileFormatError(f"{self.path} cannot be read: {error}") from error
        self.records = [self._record(number, line, last=number == len(lines)) for number, line in enumerate(lines, 1) if line.strip()]
        self.records = [record for record in self.records if record]
        if not self.records:
            raise FileFormatError(f"{self.path} holds no metrics: the run has not finished a step")

    def _record(self, number: int, line: str, last: bool) -> dict[str, Any]:
        """One line as a record; a last line that is cut off, as by a full disk, as none."""
        try:
            record = json.loads(line)
        except ValueError as error:
            if last:
                return {}
            raise FileFormatError(f"{self.path}: line {number} is not JSON: {error}") from error
        if not isinstance(record, dict) or not is_number(record.get("step")):
            raise FileFormatError(f"{self.path}: line {number} is not a record with a step")
        return record

    def curve(self, label: str, name: str, spread: str = "") -> list["Curve"]:
        """The curve of one metric, with a band of +- spread (another metric); none where the run has no number for it."""
        points = [r for r in self.records if is_number(r.get(name))]
        values = [r[name] for r in points]
        stds = [r[spread] if is_number(r.get(spread)) else 0.0 for r in points]
        band = [(v - s, v + s) for v, s in zip(values, stds, strict=True)] if any(stds) else []
        return [Curve(label, [r["step"] for r in points], values, band)] if points else []

    def named(self, prefix: str, suffix: str = "") -> list[str]:
        """What stands between prefix and suffix in the names of metrics, in the order of the log."""
        names = dict.fromkeys(name for record in self.records for name in record)
        return [name[len(prefix):len(name) - len(suffix)] for name in names if name.startswith(prefix) and name.endswith(suffix)]


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


@dataclass
class Curve:
    """One line of a panel: values over steps, and the ends of a band around them."""

    label: str
    steps: list[float]
    values: list[float]
    band: list[tuple[float, float]] = field(default_factory=list)
    color: str = ""                          # "": by its place in the panel


@dataclass(frozen=True)
class Panel:
    """One pair of axes: title with unit, and the curves it takes from a run."""

    title: str
    curves: Callable[[Metrics], list[Curve]]
    stacked: bool = False                    # areas on top of each other that fill 0 .. 1
    share: bool = False                      # values from 0 to 1
    smooth: bool = True


def metrics(*pairs: tuple[str, str]) -> Callable[[Metrics], list[Curve]]:
    """Curves of (label, metric)."""
    return lambda m: [curve for label, name in pairs for curve in m.curve(label, name)]


def reward(m: Metrics) -> list[Curve]:
    return m.curve("training", "reward", "reward_std") + m.curve("evaluation", "eval_reward")


def each_reward(m: Metrics) -> list[Curve]:
    """One curve a reward function; none for a single one, which is the sum."""
    names = m.named("rewards/", "/mean")
    return [c for name in names for c in m.curve(name, f"rewards/{name}/mean", f"rewards/{name}/std")] if len(names) > 1 else []


def each_evaluation(m: Metrics) -> list[Curve]:
    return [c for name in m.named("eval_rewards/", "/mean") for c in m.curve(name, f"eval_rewards/{name}/mean", f"eval_rewards/{name}/std")]


def lengths(m: Metrics) -> list[Curve]:
    points = [r for r in m.records if all(is_number(r.get(f"completions/{what}_length")) for what in ("min", "mean", "max"))]
    return [Curve("mean", [r["step"] for r in points], [r["completions/mean_length"] for r in points],
                  [(r["completions/min_length"], r["completions/max_length"]) for r in points])] if points else []


def time_shares(m: Metrics) -> list[Curve]:
    """The phases of a step, and what is left; a step without a phase spent nothing on it."""
    phases = m.named("time_share/")
    timed = [r for r in m.records if any(is_number(r.get(f"time_share/{phase}")) for phase in phases)]
    shares = {phase: [r.get(f"time_share/{phase}") or 0.0 for r in timed] for phase in phases}
    if timed:
        shares["other"] = [max(0.0, 1.0 - sum(at_step)) for at_step in zip(*shares.values(), strict=True)]
    return [Curve(phase, [r["step"] for r in timed], values) for phase, values in shares.items() if timed]


KL = Panel("KL to the reference (nats a token)", metrics(("KL", "kl")))
ENTROPY = Panel("Entropy (nats a token)", metrics(("training", "entropy"), ("evaluation", "eval_entropy")))
LENGTHS = Panel("Completion length (tokens; band: shortest to longest)", lengths)
LOSS = Panel("Loss", metrics(("training", "loss"), ("evaluation", "eval_loss")))
PICTURES = {
    "reward": (Panel("Reward (weighted sum; band: ± std)", reward), Panel("Each reward (band: ± std)", each_reward)),
    "evaluation": (Panel("Each reward in evaluation (band: ± std)", each_evaluation),),
    "loss": (LOSS,),
    "kl": (KL,),
    "entropy": (ENTROPY,),
    "lengths": (LENGTHS, Panel("Completions cut off at the limit (share)", metrics(("cut off", "completions/clipped_ratio")), share=True)),
    "optimizer": (Panel("Gradient norm before clipping", metrics(("norm", "grad_norm"))),
                  Panel("Learning rate", metrics(("rate", "learning_rate")), smooth=False)),
    "speed": (Panel("Throughput (tokens/s)", metrics(("generation", "generation_tokens_per_second"),
                                                    ("training", "training_tokens_per_second"))),
              Panel("Where the time of a step goes (share)", time_shares, stacked=True)),
}
COMPARED = (Panel("Reward (weighted sum)", metrics(("", "reward"))), Panel("Reward in evaluation", metrics(("", "eval_reward"))),
            Panel("Completion length (tokens)", metrics(("", "completions/mean_length"))), Panel("Entropy (nats a token)", metrics(("", "entropy"))),
            Panel("KL to the reference (nats a token)", metrics(("", "kl"))), Panel("Loss", metrics(("", "loss"))))


def plot_run(run_folder: str | os.PathLike, pictures: Iterable[str] = tuple(PICTURES)) -> list[Path]:
    """Draws a run's metrics into its plots/ and returns the PNG files, as far as the run logged what they show.

    ``pictures``: which of reward, evaluation, loss, kl, entropy, lengths, optimizer and speed. Raises FileFormatError
    naming a metrics.jsonl that is missing, empty or broken, ConfigError for a picture that there is not.

    >>> plot_run("runs/grpo-1", ["reward", "speed"])                                                     # doctest: +SKIP
    """
    pictures = list(pictures)
    for name in pictures:
        if name not in PICTURES:
            raise ConfigError(f"there is no picture {name!r}{did_you_mean(name, PICTURES)}")
    log = Metrics(run_folder)
    folder = Path(run_folder) / "plots"
    folder.mkdir(exist_ok=True)
    return [save(figure, folder / f"{name}.png") for name in pictures
            if (figure := draw([(panel, panel.curves(log)) for panel in PICTURES[name]], log.name))]


def plot_runs(runs: Iterable[str | os.PathLike], out: str | os.PathLike) -> Path:
    """Draws several runs into one picture, one colour a run: reward, evaluation, KL, entropy, length, loss.

    ``out``: the PNG file. Raises FileFormatError as plot_run does, ConfigError where no run has anything to compare.

    >>> plot_runs(["runs/grpo-1", "runs/grpo-2"], "comparison.png")                                      # doctest: +SKIP
    """
    folders = [Path(run) for run in runs]
    logs = [Metrics(folder) for folder in folders]
    figure = draw([(panel, [replace(curve, label=label, color=COLORS[number % len(COLORS)])
                            for number, (label, log) in enumerate(zip(labels_of(folders), logs, strict=True))
                            for curve in panel.curves(log)]) for panel in COMPARED])
    if figure is None:
        raise ConfigError(f"nothing to compare: no run of {', '.join(map(str, folders)) or 'an empty list'} has metrics to draw")
    return save(figure, Path(out))


def labels_of(folders: list[Path]) -> list[str]:
    """Folder names; paths where two folders have the same name."""
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def draw(panels: list[tuple[Panel, list[Curve]]], name: str = "") -> "Figure | None":
    """Panels two abreast, the run's name in the corner; None when no panel has a curve."""
    from matplotlib.figure import Figure

    panels = [(panel, curves) for panel, curves in panels if curves]
    if not panels:
        return None
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(5.0 * columns, 3.3 * rows), dpi=140, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.08)
    for place, (panel, curves) in enumerate(panels, 1):
        axes = figure.add_subplot(rows, columns, place)
        window = smoothed_over(curves) if panel.smooth else 1
        dress(axes, panel, window)
        (stack if panel.stacked else lines)(axes, curves, window)
    axes.set_title(name, loc="right", fontsize=8, color="#777777")
    return figure


def smoothed_over(curves: list[Curve]) -> int:
    """Steps of the moving average: 1 (none) while every point can be shown; else even, as every other step may make a rollout."""
    longest = max(len(curve.steps) for curve in curves)
    return 1 if longest <= POINTS_SHOWN else max(4, longest // 50 * 2)


def lines(axes: "Axes", curves: list[Curve], window: int) -> None:
    """Few points as they are; many in pale, with their moving average on top."""
    for number, curve in enumerate(curves):
        color, few = curve.color or COLORS[number % len(COLORS)], len(curve.steps) <= POINTS_SHOWN
        width = 1 if few else window
        if curve.band:
            low, high = (moving_average(list(ends), width) for ends in zip(*curve.band, strict=True))
            axes.fill_between(curve.steps, low, high, color=color, alpha=0.13, linewidth=0)
        if width > 1:
            axes.plot(curve.steps, curve.values, color=color, alpha=0.28, linewidth=0.8)
        axes.plot(curve.steps, moving_average(curve.values, width), color=color, linewidth=1.8, marker="o" if few else None, markersize=3.5,
                  label=curve.label)
    if len(curves) > 1:
        axes.legend(fontsize=8.5, frameon=False, labelcolor=INK)


def stack(axes: "Axes", curves: list[Curve], window: int) -> None:
    """Areas on top of each other, named at the side in the order in which they lie."""
    steps, values = curves[0].steps, [moving_average(curve.values, window) for curve in curves]
    if len(steps) == 1:                      # an area needs two ends
        steps, values = [steps[0] - 0.5, steps[0] + 0.5], [[v[0], v[0]] for v in values]
    axes.stackplot(steps, values, labels=[curve.label for curve in curves], alpha=0.75, linewidth=0,
                   colors=[COLORS[number % len(COLORS)] for number in range(len(curves))])
    axes.margins(x=0)
    axes.legend(fontsize=8.5, frameon=False, labelcolor=INK, reverse=True, loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=1.2)


def moving_average(values: list[float], width: int) -> list[float]:
    """The mean of each value and those before it, width in all."""
    return [sum(values[max(0, i + 1 - width):i + 1]) / min(i + 1, width) for i in range(len(values))]


def dress(axes: "Axes", panel: Panel, window: int) -> None:
    """Title, grid, ticks."""
    from matplotlib.ticker import MaxNLocator

    axes.set_title(panel.title, loc="left", fontsize=11, color=INK)
    axes.set_xlabel(f"step (bold: mean of {window} steps)" if window > 1 and not panel.stacked else "step", fontsize=9, color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    axes.tick_params(labelsize=9, colors=INK, length=0)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#bbbbbb")
    if panel.stacked or panel.share:
        axes.set_ylim(*((0, 1) if panel.stacked else (-0.03, 1.03)))


def save(figure: "Figure", path: Path) -> Path:
    figure.savefig(path, facecolor="white")
    return path
