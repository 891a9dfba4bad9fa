"""Pictures of runs, drawn from their metrics.jsonl.

A panel says which curves it takes from a run's metrics; a picture is a few panels side by side. What a run did not
log is left out, down to the picture, so the same tables serve GRPO, SFT and runs cut short.
"""
import functools
import io
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, FileFormatError, RunFolderError, did_you_mean
from .folder import READINGS, ROUND
from .lines import METRICS, read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# those that colour-blind eyes tell apart
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f3c8d", "#666666")
# so that curves which coincide are both seen
STYLES = ("-", (0, (4, 1.6)), (0, (1.2, 1.2)), (0, (5, 1.5, 1, 1.5)))
INK, GRID = "#333333", "#e3e3e3"
POINTS_SHOWN = 30                            # up to so many points each has a marker; more are smoothed


class Metrics:
    """The records of one run's metrics.jsonl. Raises FileFormatError naming a file that cannot be read or has none."""

    def __init__(self, run: str | os.PathLike):
        self.path = Path(run) / METRICS
        self.name = Path(run).resolve().name
        self.records = [line.record for line in read_metrics(Path(run))]
        if not self.records:
            raise FileFormatError(f"{self.path} holds no metrics: the run has not finished a step")

    def curve(self, label: str, name: str, spread: str = "", ends: tuple[str, str] = ("", "")) -> list["Curve"]:
        """The curve of one metric; none where the run has no number for it. Its band is +- spread, or between ends,
        which are metrics too; where a step has no number for them the band is as thin as the curve."""
        points = [r for r in self.records if is_number(r.get(name))]
        values = [r[name] for r in points]
        if spread:
            band = [(r[name] - r[spread], r[name] + r[spread]) if is_number(r.get(spread)) else (r[name], r[name])
                    for r in points]
        else:
            low, high = ends
            band = [(r[low] if is_number(r.get(low)) else r[name], r[high] if is_number(r.get(high)) else r[name])
                    for r in points]
        shown = any(bottom < top for bottom, top in band)
        return [Curve(label, [r["step"] for r in points], values, band if shown else [])] if points else []

    def evaluated(self, label: str, name: str, ends: tuple[str, str] = ("", "")) -> list["Curve"]:
        """The curves of one number of evaluation, one a data set."""
        return [curve for data_set, prefix in self.data_sets().items()
                for curve in self.curve(f"{label}, {data_set}" if data_set else label, prefix + name,
                                        ends=(prefix + ends[0], prefix + ends[1]))]

    def data_sets(self) -> dict[str, str]:
        """What the numbers of evaluation begin with, by data set; a single one has the name ""."""
        return {"": ROUND} | {name: f"{ROUND}{name}_" for name in self.named(ROUND, "_runtime")}

    def named(self, prefix: str, suffix: str = "") -> list[str]:
        """What stands between prefix and suffix in the names of metrics, in the order of the log."""
        names = dict.fromkeys(name for record in self.records for name in record)
        return [name[len(prefix):len(name) - len(suffix)] for name in names
                if name.startswith(prefix) and name.endswith(suffix) and len(name) > len(prefix) + len(suffix)]


def is_number(value: Any) -> bool:
    """Whether a value can be drawn: a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


@dataclass
class Curve:
    """One line of a panel: values over steps, and the ends of a band around them."""

    label: str
    steps: list[float]
    values: list[float]
    band: list[tuple[float, float]] = field(default_factory=list)
    look: int | None = None                  # which colour and style it has; None: by its place in the panel
    marks: list[float] = field(default_factory=list)         # steps at which something begins


@dataclass(frozen=True)
class Panel:
    """One pair of axes: title, what the values are, and the curves it takes from a run."""

    title: str
    unit: str
    curves: Callable[[Metrics], list[Curve]]
    band: str = ""                           # what the band around a curve is
    # the band is so wide that it is left out where runs are laid over each other
    wide: bool = False
    stacked: bool = False                    # areas on top of each other that fill 0 .. 1
    share: bool = False                      # values from 0 to 1
    smooth: bool = True


def metrics(*pairs: tuple[str, str]) -> Callable[[Metrics], list[Curve]]:
    """Curves of (label, metric)."""
    return lambda m: [curve for label, name in pairs for curve in m.curve(label, name)]


def trained_and_evaluated(name: str, **band: Any) -> Callable[[Metrics], list[Curve]]:
    """Curves of a metric that evaluation has too. band: of the one in training."""
    return lambda m: m.curve("training", name, **band) + m.evaluated("evaluation", name)


def reward_panels(logs: list[Metrics]) -> list[Panel]:
    """A panel a reward function; none where every run has a single one, which is the sum."""
    names = dict.fromkeys(name for log in logs for prefix in ("", *log.data_sets().values())
                          for name in log.named(f"{prefix}rewards/", "/mean"))
    return [Panel(name, "reward", trained_and_evaluated(f"rewards/{name}/mean", spread=f"rewards/{name}/std"),
                  band="± std")
            for name in names] if len(names) > 1 else []


def accuracy(m: Metrics) -> list[Curve]:
    """Evaluation's accuracies, each in its confidence interval; of several data sets the lenient one alone."""
    if len(m.data_sets()) == 1:
        return readings(ROUND, m)
    return m.evaluated("lenient", "accuracy/lenient", ends=("accuracy/lenient/low", "accuracy/lenient/high"))


def accuracy_panels(logs: list[Metrics]) -> list[Panel]:
    """Accuracy in evaluation and in training, and pass@k; where there are several data sets, for each of them."""
    panels = [ACCURACY,
              Panel("Accuracy in training", "share",
                    metrics(("strict", "accuracy/strict"), ("lenient", "accuracy/lenient")), share=True)]
    for name, prefix in {pair: None for log in logs for pair in log.data_sets().items()}:
        on = f" on {name}" if name else ""
        if name:
            panels.append(Panel(f"Accuracy{on}", "share", functools.partial(readings, prefix), band="95 % interval",
                                share=True, smooth=False))
        panels.append(Panel(f"pass@k{on or ' in evaluation'}", "share", functools.partial(pass_at_k, prefix),
                            share=True, smooth=False))
    return panels


def function_panels(logs: list[Metrics]) -> list[Panel]:
    """A panel an evaluation function."""
    names = dict.fromkeys(name for log in logs for prefix in log.data_sets().values()
                          for name in log.named(f"{prefix}funcs/", "/mean"))
    return [Panel(name, "mean in evaluation", functools.partial(function_means, f"funcs/{name}"), band="95 % interval",
                  smooth=False) for name in names]


def function_means(name: str, m: Metrics) -> list[Curve]:
    """The means of one evaluation function, each in its confidence interval, one curve a data set."""
    return m.evaluated("evaluation", f"{name}/mean", ends=(f"{name}/low", f"{name}/high"))


def readings(prefix: str, m: Metrics) -> list[Curve]:
    """The accuracies of one data set."""
    return [curve for kind in READINGS for name in [f"{prefix}accuracy/{kind}"]
            for curve in m.curve(kind, name, ends=(f"{name}/low", f"{name}/high"))]


def pass_at_k(prefix: str, m: Metrics) -> list[Curve]:
    """For k = 1, 2, 4, 8 ..."""
    counts = sorted(int(k) for k in m.named(f"{prefix}pass@k/") if k.isdigit())
    return [curve for k in counts if k.bit_count() == 1 for curve in m.curve(f"k = {k}", f"{prefix}pass@k/{k}")]


def time_shares(m: Metrics) -> list[Curve]:
    """The phases of a step, and what is left; a step without a phase spent nothing on it."""
    phases = m.named("time_share/")
    timed = [r for r in m.records if any(is_number(r.get(f"time_share/{phase}")) for phase in phases)]
    shares = {phase: [r.get(f"time_share/{phase}") or 0.0 for r in timed] for phase in phases}
    if timed:
        shares["other"] = [max(0.0, 1.0 - sum(at_step)) for at_step in zip(*shares.values(), strict=True)]
    return [Curve(phase, [r["step"] for r in timed], values) for phase, values in shares.items() if timed]


def learning_rates(m: Metrics) -> list[Curve]:
    """The learning rate, with marks where the stages of a curriculum begin."""
    stages = [(r["step"], r["curriculum/stage"]) for r in m.records if is_number(r.get("curriculum/stage"))]
    begins = [step - 0.5 for (step, stage), (_, before) in zip(stages[1:], stages, strict=False) if stage != before]
    return [replace(curve, marks=begins) for curve in m.curve("rate", "learning_rate")]


REWARD = Panel("Reward", "weighted sum", trained_and_evaluated("reward", spread="reward_std"), band="± std")
ACCURACY = Panel("Accuracy in evaluation", "share", accuracy, band="95 % interval", share=True, smooth=False)
LENGTH = Panel("Completion length", "tokens",
               trained_and_evaluated("completions/mean_length",
                                     ends=("completions/min_length", "completions/max_length")),
               band="shortest to longest", wide=True)
CUT_OFF = Panel("Completions cut off at the limit", "share", trained_and_evaluated("completions/clipped_ratio"),
                share=True)
KL = Panel("KL to the reference", "nats a token", metrics(("KL", "kl")))
ENTROPY = Panel("Entropy", "nats a token", trained_and_evaluated("entropy"))
LOSS = Panel("Loss", "loss", trained_and_evaluated("loss"))
NORM = Panel("Gradient norm", "norm before clipping", metrics(("norm", "grad_norm")))
PICTURES: dict[str, Callable[[list[Metrics]], Iterable[Panel]]] = {
    "overview": lambda logs: (REWARD, ACCURACY, LENGTH, KL, ENTROPY, NORM),
    "reward": lambda logs: (REWARD,),
    "rewards": reward_panels,
    "accuracy": accuracy_panels,
    "functions": function_panels,
    "lengths": lambda logs: (LENGTH, CUT_OFF),
    "kl": lambda logs: (KL,),
    "entropy": lambda logs: (ENTROPY,),
    "clipping": lambda logs: (
        Panel("Ratios clipped", "share of tokens",
              metrics(("below", "clip_ratio/low_mean"), ("above", "clip_ratio/high_mean"))),),
    "loss": lambda logs: (LOSS,),
    "optimizer": lambda logs: (NORM, Panel("Learning rate", "rate", learning_rates, smooth=False)),
    "speed": lambda logs: (
        Panel("Throughput", "tokens/s",
              metrics(("generation", "generation_tokens_per_second"), ("training", "training_tokens_per_second"))),
        Panel("Where the time of a step goes", "share", time_shares, stacked=True)),
}
FORMATS = ("png", "svg", "pdf")


def figures(runs: str | os.PathLike | Iterable[str | os.PathLike],
            pictures: Iterable[str] = tuple(PICTURES)) -> dict[str, "Figure"]:
    """The pictures of a run, or of several laid over each other, one colour a run; those that no run logged anything
    for are left out.

    ``runs``: a run folder, or several. ``pictures``: which of PICTURES. In a notebook a figure shows itself. Raises
    FileFormatError naming a metrics.jsonl that is missing or has no records, ConfigError for a picture that there is
    not.

    >>> figures("runs/grpo-1")["reward"]                             # doctest: +SKIP
    >>> figures(["runs/grpo-1", "runs/grpo-2"], ["reward", "kl"])    # doctest: +SKIP
    """
    pictures = list(pictures)
    for name in pictures:
        if name not in PICTURES:
            raise ConfigError(f"there is no picture {name!r}{did_you_mean(name, PICTURES)} There are "
                              f"{', '.join(PICTURES)}.")
    folders = [Path(run) for run in ([runs] if isinstance(runs, (str, os.PathLike)) else runs)]
    logs = [Metrics(folder) for folder in folders]
    if len(folders) == 1:
        drawn = {name: draw([(panel, panel.curves(logs[0])) for panel in PICTURES[name](logs)], logs[0].name)
                 for name in pictures}
    else:
        labelled = list(zip(labels_of(folders), logs, strict=True))
        drawn = {name: draw([pair for panel in PICTURES[name](logs) for pair in laid_over(panel, labelled)])
                 for name in pictures}
    return {name: figure for name, figure in drawn.items() if figure}


def laid_over(panel: Panel, logs: list[tuple[str, Metrics]]) -> list[tuple[Panel, list[Curve]]]:
    """A panel's curves of several runs: one panel for each curve that it has, one curve for each run. Stacks cannot be
    laid over."""
    if panel.stacked:
        return []
    found: dict[str, list[Curve]] = {}
    for number, (name, log) in enumerate(logs):
        for curve in panel.curves(log):
            same = replace(curve, label=name, look=number, band=[] if panel.wide else curve.band)
            found.setdefault(curve.label, []).append(same)
    return [(replace(panel, title=f"{panel.title}: {label}" if len(found) > 1 else panel.title), curves)
            for label, curves in found.items()]


def write(drawn: dict[str, "Figure"], folder: Path, formats: Iterable[str] = ("png",)) -> list[Path]:
    """Saves pictures into a folder: one file each as PNG or SVG, all of them as the pages of plots.pdf. Returns the
    files."""
    formats = list(formats)
    for kind in formats:
        if kind not in FORMATS:
            raise ConfigError(f"format {kind!r} is not one of {', '.join(FORMATS)}{did_you_mean(kind, FORMATS)}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = [save(figure, folder / f"{name}.{kind}") for kind in formats if kind != "pdf"
                 for name, figure in drawn.items()]
        if "pdf" in formats and drawn:
            files.append(save_pages(drawn.values(), folder / "plots.pdf"))
        return files
    except OSError as error:
        raise RunFolderError(f"{folder}: the pictures cannot be written: {error.strerror or error}") from error


def save_pages(drawn: Iterable["Figure"], path: Path) -> Path:
    """All pictures as the pages of a PDF."""
    from matplotlib.backends.backend_pdf import PdfPages

    with PdfPages(path) as pages:
        for figure in drawn:
            pages.savefig(figure, facecolor="white")
    return path


def plot_run(run_folder: str | os.PathLike, pictures: Iterable[str] = tuple(PICTURES),
             formats: Iterable[str] = ("png",)) -> list[Path]:
    """Draws a run's metrics into its plots/ and returns the files, as far as the run logged what they show.

    ``pictures``: which of PICTURES. ``formats``: png, svg, pdf. Raises what `figures` raises.

    >>> plot_run("runs/grpo-1", ["reward", "speed"])    # doctest: +SKIP
    """
    return write(figures(run_folder, pictures), Path(run_folder) / "plots", formats)


def plot_runs(runs: Iterable[str | os.PathLike], out: str | os.PathLike) -> Path:
    """Draws the overview of several runs into one picture, one colour a run.

    ``out``: the file; its suffix says the format. Raises what `figures` raises, ConfigError where there is nothing to
    compare.

    >>> plot_runs(["runs/grpo-1", "runs/grpo-2"], "comparison.png")    # doctest: +SKIP
    """
    folders = [Path(run) for run in runs]
    drawn = figures(folders, ["overview"])
    if not drawn:
        raise ConfigError(f"nothing to compare: no run of {', '.join(map(str, folders)) or 'an empty list'} has "
                          "metrics to draw")
    return save(drawn["overview"], Path(out))


def labels_of(folders: list[Path]) -> list[str]:
    """Folder names; paths where two folders have the same name."""
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def draw(panels: list[tuple[Panel, list[Curve]]], name: str = "") -> "Figure | None":
    """Panels two or three abreast, the run's name in the corner; None when no panel has a curve."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    panels = [(panel, curves) for panel, curves in panels if curves]
    if not panels:
        return None
    columns = 2 if len(panels) == 4 else min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08)
    figure = Figure(figsize=(5.0 * columns, 3.3 * rows), dpi=140, layout=layout)
    for place, (panel, curves) in enumerate(panels, 1):
        axes = figure.add_subplot(rows, columns, place)
        window = smoothed_over(curves) if panel.smooth else 1
        dress(axes, panel, window, panel.band if any(curve.band for curve in curves) else "")
        (stack if panel.stacked else lines)(axes, curves, window)
    if name:
        figure.suptitle(name, x=0.995, ha="right", fontsize=8, color="#777777")
    vars(figure)["_repr_png_"] = functools.partial(png, figure)     # how IPython shows it; pyplot is not asked
    return figure


def png(figure: "Figure") -> bytes:
    """The picture as PNG."""
    file = io.BytesIO()
    figure.savefig(file, format="png", facecolor="white")
    return file.getvalue()


def smoothed_over(curves: list[Curve]) -> int:
    """Steps of the moving average: 1 (none) while every point can be shown; else even, as every other step may make a
    rollout."""
    longest = max(len(curve.steps) for curve in curves)
    return 1 if longest <= POINTS_SHOWN else max(4, longest // 50 * 2)


def lines(axes: "Axes", curves: list[Curve], window: int) -> None:
    """Few points as they are; many in pale, with their moving average on top."""
    for number, curve in enumerate(curves):
        look, few = number if curve.look is None else curve.look, len(curve.steps) <= POINTS_SHOWN
        color, style = COLORS[look % len(COLORS)], STYLES[look % len(STYLES)]
        width = 1 if few else window
        for mark in curve.marks:
            axes.axvline(mark, color="#999999", linewidth=0.9, linestyle=(0, (4, 3)))
        if curve.band:
            low, high = (moving_average(list(ends), width) for ends in zip(*curve.band, strict=True))
            axes.fill_between(curve.steps, low, high, color=color, alpha=0.13, linewidth=0)
        if width > 1:
            axes.plot(curve.steps, curve.values, color=color, alpha=0.28, linewidth=0.8)
        axes.plot(curve.steps, moving_average(curve.values, width), color=color, linewidth=1.8,
                  marker="o" if few else None, markersize=3.5, linestyle=style, label=curve.label)
    if len(curves) > 1:
        axes.legend(fontsize=8.5, frameon=False, labelcolor=INK, handlelength=2.6)


def stack(axes: "Axes", curves: list[Curve], window: int) -> None:
    """Areas on top of each other, named at the side in the order in which they lie."""
    steps, values = curves[0].steps, [moving_average(curve.values, window) for curve in curves]
    if len(steps) == 1:                      # an area needs two ends
        steps, values = [steps[0] - 0.5, steps[0] + 0.5], [[v[0], v[0]] for v in values]
    axes.stackplot(steps, values, labels=[curve.label for curve in curves], alpha=0.75, linewidth=0,
                   colors=[COLORS[number % len(COLORS)] for number in range(len(curves))])
    axes.margins(x=0)
    axes.legend(fontsize=8.5, frameon=False, labelcolor=INK, reverse=True, loc="center left", bbox_to_anchor=(1.0, 0.5),
                handlelength=1.2)


def moving_average(values: list[float], width: int) -> list[float]:
    """The mean of each value and those before it, width in all."""
    return [sum(values[max(0, i + 1 - width):i + 1]) / min(i + 1, width) for i in range(len(values))]


def dress(axes: "Axes", panel: Panel, window: int, band: str) -> None:
    """Title, names of the axes, grid, ticks."""
    from matplotlib.ticker import MaxNLocator

    axes.set_title(panel.title, loc="left", fontsize=11, color=INK)
    axes.set_ylabel(f"{panel.unit} (band: {band})" if band else panel.unit, fontsize=9, color=INK)
    averaged = window > 1 and not panel.stacked
    axes.set_xlabel(f"step (bold: mean of {window} steps)" if averaged else "step", fontsize=9, color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    axes.tick_params(labelsize=9, colors=INK, length=0)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#bbbbbb")
    if panel.stacked or panel.share:
        axes.set_ylim(*((0, 1) if panel.stacked else (-0.03, 1.03)))


def save(figure: "Figure", path: Path) -> Path:
    """Writes the picture on white; the suffix says the format."""
    figure.savefig(path, facecolor="white")
    return path
