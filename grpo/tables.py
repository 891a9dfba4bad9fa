"""Tables of an evaluation, for the terminal and for the report."""
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .grading import READINGS

HASHES, HASH = ("weights", "rows"), 12        # settings shown by their first characters
MEANINGS = {"strict": "strict (in its tags)", "lenient": "lenient (anywhere)", "extractive": "extractive match"}


@dataclass
class Table:
    """Rows of texts under a header (empty: none); the first column is left-aligned, the others right unless they are prose."""

    title: str
    header: list[str]
    rows: list[list[str]]
    prose: bool = False

    def text(self) -> str:
        """The table for a terminal."""
        shown = [self.header, *self.rows] if self.header else self.rows
        widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
        lines = ["  ".join(cell.ljust(w) if i == 0 or self.prose else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
                 for row in shown]
        return "\n".join([self.title, *("  " + line.rstrip() for line in lines)])


def evaluation_tables(document: Mapping[str, Any]) -> list[Table]:
    """Accuracy with intervals, accuracy by category, rewards, completions and settings of an evaluation."""
    m = document["metrics"]
    tables = [accuracy_table(m)] if "accuracy/lenient" in m else []
    if document["by_category"]:
        tables.append(category_table(document["by_category"]))
    return [*tables, reward_table(m), completion_table(m), settings_table(document["settings"])]


def accuracy_table(m: Mapping[str, float]) -> Table:
    rows = [[MEANINGS[r], percent(m[f"accuracy/{r}"]), span(m, r)] for r in READINGS]
    tries = [int(name.removeprefix("pass@k/")) for name in m if name.startswith("pass@k/")]
    shown = [k for k in tries if k == max(tries) or k & (k - 1) == 0]
    rows += [[f"pass@{k} (lenient)", percent(m[f"pass@k/{k}"]), ""] for k in shown]
    rows += [[f"majority@{name.removeprefix('majority@k/')} (lenient)", percent(value), ""] for name, value in m.items() if name.startswith("majority@k/")]
    return Table("Accuracy" if not tries else f"Accuracy (mean of {max(tries)} completions a question)", ["", "share", "95 % interval"], rows)


def category_table(categories: Mapping[str, Mapping[str, float]]) -> Table:
    rows = [[name, str(int(m["questions"])), *(percent(m[f"accuracy/{r}"]) for r in READINGS), span(m, "lenient")] for name, m in categories.items()]
    return Table("By category", ["category", "questions", *READINGS, "95 % of lenient"], rows)


def reward_table(m: Mapping[str, Any]) -> Table:
    names = [name.removesuffix("/mean") for name in m if name.startswith(("rewards/", "funcs/")) and name.endswith("/mean")]
    rows = [[name.partition("/")[2], number(m[f"{name}/mean"]), number(m[f"{name}/std"])] for name in names]
    return Table("Rewards", ["", "mean", "std"], [*rows, ["reward (weighted sum)", number(m["reward"]), number(m["reward_std"])]])


def completion_table(m: Mapping[str, Any]) -> Table:
    rows = [["mean length (tokens)", f"{m['completions/mean_length']:.1f}"],
            ["shortest, longest", f"{m['completions/min_length']:.0f}, {m['completions/max_length']:.0f}"],
            ["truncated", percent(m["completions/clipped_ratio"])]]
    return Table("Completions", [], rows + ([["every tag once, in order", percent(m["format"])]] if "format" in m else []))


def settings_table(settings: Mapping[str, Any]) -> Table:
    shown = {name: value for name, value in settings.items() if value not in (None, [], "")}
    texts = {name: ", ".join(map(str, value)) if isinstance(value, list) else str(value) for name, value in shown.items()}
    return Table("Settings", [], [[name, text[:HASH] if name in HASHES else text] for name, text in texts.items()], prose=True)


def span(m: Mapping[str, float], reading: str) -> str:
    return f"{percent(m[f'accuracy/{reading}/low'])} to {percent(m[f'accuracy/{reading}/high'])}"


def percent(share: float) -> str:
    return f"{share:.1%}"


def number(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.3f}"
