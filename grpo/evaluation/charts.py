"""What is taken for what, as a picture: a matrix of few classes, the most frequent mistakes of many."""
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .classes import NOTHING, OTHER

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Pairs = Sequence[Mapping[str, Any]]

MOST_SQUARES = 30                            # classes of a matrix; of more the most confused pairs are shown
MOST_PAIRS = 25
MOST_NAME, MISSING = 26, "□"
INK, PALE, MISTAKE = "#333333", "#777777", "#c4321c"


def write_confusion(document: Mapping[str, Any], stem: Path) -> list[Path]:
    """stem.png and stem.pdf of an evaluation whose golds are classes; else none, nor where every answer is right and
    there are too many classes for a matrix."""
    pairs = document.get("confusion") or []
    names = list(document.get("by_class") or {})
    if not pairs or not names:
        return []
    figure = matrix(pairs, names) if len(names) <= MOST_SQUARES else most_confused(pairs)
    if figure is None:
        return []
    stem.parent.mkdir(parents=True, exist_ok=True)
    files = [stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "pdf")]
    figure.savefig(files[0], facecolor="white", dpi=160, bbox_inches="tight", pad_inches=0.08)
    figure.savefig(files[1], facecolor="white", bbox_inches="tight", pad_inches=0.08, metadata={"CreationDate": None})
    return files


def matrix(pairs: "Pairs", names: Sequence[str]) -> "Figure":
    """Golds down, answers across, with columns for answers that are no class and for none; a square says how many
    completions, its shade their share of the row."""
    import numpy as np
    from matplotlib.figure import Figure

    across = [*names, OTHER, NOTHING]
    rows, columns = ({name: i for i, name in enumerate(axis)} for axis in (names, across))
    counts = np.zeros((len(rows), len(columns)))
    for pair in pairs:
        counts[rows[pair["gold"]], columns[pair["given"]]] += pair["count"]
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    side = 0.52 if len(names) <= 12 else 0.3
    longest = 0.085 * max(6, *(len(printable(name)) for name in names))
    upright = len(names) <= 12 and longest < 0.55
    size = (side * len(across) + longest + 1.3, side * len(rows) + longest + 1.0)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    # the diagonal in blue, all else in red
    right = np.zeros_like(shares, bool)
    np.fill_diagonal(right, True)
    for kept, map_ in ((right, "Blues"), (~right, "Oranges")):
        axes.imshow(np.where(kept & (counts > 0), shares, np.nan), cmap=map_, vmin=-0.12, vmax=1.25, aspect="equal")
    small = 9 if len(names) <= 12 else 7
    for row, column in np.argwhere(counts > 0):
        axes.text(column, row, f"{counts[row, column]:.0f}", ha="center", va="center", fontsize=small,
                  color="white" if shares[row, column] > 0.65 else INK)
    ticks(axes.set_xticks, across, rotation=0 if upright else 90)
    if upright:
        axes.set_xticklabels([*map(printable, names), *(name.replace(" ", "\n") for name in (OTHER, NOTHING))],
                             parse_math=False)
    ticks(axes.set_yticks, names)
    axes.set_xlabel("answer", color=INK)
    axes.set_ylabel("gold", color=INK)
    axes.axvline(len(names) - 0.5, color=PALE, linewidth=1)
    grid(axes, len(rows), len(across))
    axes.set_title("Completions by gold and answer", loc="left", fontsize=11, color=INK)
    return figure


def most_confused(pairs: "Pairs") -> "Figure | None":
    """The most frequent mistakes of many classes, with their share of the gold's completions; None without any."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    wrong = [pair for pair in pairs if pair["gold"] != pair["given"]]
    if not wrong:
        return None
    shown = wrong[:MOST_PAIRS]
    of_gold: dict[str, int] = {}
    for pair in pairs:
        of_gold[pair["gold"]] = of_gold.get(pair["gold"], 0) + pair["count"]
    figure = Figure(figsize=(7.5, 0.29 * len(shown) + 1.1), layout="constrained")
    axes = figure.add_subplot()
    bars = axes.barh(range(len(shown)), [pair["count"] for pair in shown], color=MISTAKE, alpha=0.8, height=0.7)
    axes.bar_label(bars, [f" {pair['count']}  ({pair['count'] / of_gold[pair['gold']]:.0%} of {of_gold[pair['gold']]})"
                          for pair in shown], fontsize=8, color=INK)
    ticks(axes.set_yticks, [f"{printable(pair['gold'])} → {printable(pair['given'])}" for pair in shown], cut=False)
    axes.invert_yaxis()
    axes.margins(x=0.2, y=0.01)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("completions", color=INK, fontsize=9)
    axes.tick_params(colors=INK, length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_title(f"The most frequent mistakes, gold → answer ({len(shown)} of {len(wrong)} kinds)", loc="left",
                   fontsize=11, color=INK)
    return figure


def ticks(set_ticks: Any, names: Sequence[str], cut: bool = True, **look: Any) -> None:
    """Names along an axis, as they are: a dollar sign begins no formula."""
    shown = [printable(name) for name in names] if cut else list(names)
    set_ticks(range(len(shown)), shown, fontsize=8.5 if len(shown) <= 20 else 7.5, color=INK, parse_math=False, **look)


def grid(axes: "Axes", rows: int, columns: int) -> None:
    """Thin lines between squares, no ticks."""
    axes.set_xticks([i - 0.5 for i in range(1, columns)], minor=True)
    axes.set_yticks([i - 0.5 for i in range(1, rows)], minor=True)
    axes.grid(which="minor", color="#e3e3e3", linewidth=0.6)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_color("#bbbbbb")


@functools.cache
def glyphs() -> frozenset[int]:
    """The characters that matplotlib's own font has."""
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(font_manager.findfont("DejaVu Sans")).get_charmap())


def printable(name: str) -> str:
    """The name on one line, cut, as the font can show it."""
    line = " ".join(name.split())
    line = line if len(line) <= MOST_NAME else line[:MOST_NAME - 1] + "…"
    return "".join(c if ord(c) in glyphs() else MISSING for c in line) or MISSING
