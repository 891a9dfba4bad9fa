"""Tables of an evaluation and of an analysis, for the terminal and for the report."""
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..runs import READINGS

BAR, SHOWN_DISAGREEMENTS, WIDEST, SHOWN_CLASSES = 40, 20, 28, 30
HASHES, HASH = ("weights", "rows"), 12        # settings shown by their first characters
MEANINGS = {"strict": "strict (in its tags)", "lenient": "lenient (anywhere)", "extractive": "extractive match"}


@dataclass
class Table:
    """Rows of texts under a header (empty: none); the first column is left-aligned, the others right unless they are
    prose."""

    title: str
    header: list[str]
    rows: list[list[str]]
    prose: bool = False

    def text(self) -> str:
        """The table for a terminal."""
        shown = [self.header, *self.rows] if self.header else self.rows
        widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
        lines = ["  ".join(cell.ljust(width) if i == 0 or self.prose else cell.rjust(width)
                           for i, (cell, width) in enumerate(zip(row, widths, strict=True))) for row in shown]
        return "\n".join([self.title, *("  " + line.rstrip() for line in lines)])


def evaluation_tables(document: Mapping[str, Any], most_classes: int = SHOWN_CLASSES) -> list[Table]:
    """Accuracy with intervals, accuracy by category and by class, rewards, completions and settings of an
    evaluation."""
    m = document["metrics"]
    return [*accuracy_tables(document, most_classes), reward_table(m), completion_table(m),
            settings_table(document["settings"])]


def accuracy_tables(found: Mapping[str, Any], most_classes: int = SHOWN_CLASSES) -> list[Table]:
    """Accuracy where there are golds, and by category and class where there are some."""
    overall = [accuracy_table(found["metrics"])] if "accuracy/lenient" in found["metrics"] else []
    categories, classes = found["by_category"], found.get("by_class")
    return [*overall, *([category_table(categories)] if categories else []),
            *([class_table(classes, most_classes)] if classes else [])]


def accuracy_table(m: Mapping[str, float]) -> Table:
    """Accuracy by reading with its interval, pass@k for powers of two and the largest k, majority@k."""
    rows = [[MEANINGS[r], percent(m[f"accuracy/{r}"]), span(m, r)] for r in READINGS]
    tries = [int(name.removeprefix("pass@k/")) for name in m if name.startswith("pass@k/")]
    shown = [k for k in tries if k == max(tries) or k & (k - 1) == 0]
    rows += [[f"pass@{k} (lenient)", percent(m[f"pass@k/{k}"]), ""] for k in shown]
    if tries:
        rows.append([f"majority@{max(tries)} (lenient)", percent(m[f"majority@k/{max(tries)}"]), ""])
    title = f"Accuracy (mean of {max(tries)} completions a question)" if tries else "Accuracy"
    return Table(title, ["", "share", "95 % interval"], rows)


def category_table(categories: Mapping[str, Mapping[str, float]], title: str = "By category",
                   name: str = "category") -> Table:
    """Accuracy of each category."""
    rows = [[name, str(int(m["questions"])), *(percent(m[f"accuracy/{r}"]) for r in READINGS), span(m, "lenient")]
            for name, m in categories.items()]
    return Table(title, [name, "questions", *READINGS, "95 % of lenient"], rows)


def class_table(classes: Mapping[str, Mapping[str, float]], most: int) -> Table:
    """Accuracy of each class; of more than most the worst."""
    if len(classes) <= most:
        return category_table(classes, "By class (gold answer)", "class")
    worst = sorted(classes.items(), key=lambda item: item[1]["accuracy/lenient"])[:most]
    return category_table(dict(worst), f"The {most} of {len(classes)} classes (gold answers) with the least accuracy",
                          "class")


def reward_table(m: Mapping[str, Any]) -> Table:
    """Mean and standard deviation of each reward and evaluation function."""
    names = [name.removesuffix("/mean") for name in m
             if name.startswith(("rewards/", "funcs/")) and name.endswith("/mean")]
    rows = [[name.partition("/")[2], number(m[f"{name}/mean"]), number(m[f"{name}/std"])] for name in names]
    return Table("Rewards", ["", "mean", "std"],
                 [*rows, ["reward (weighted sum)", number(m["reward"]), number(m["reward_std"])]])


def completion_table(m: Mapping[str, Any]) -> Table:
    """Lengths in tokens, truncation, layout."""
    rows = [["mean length (tokens)", f"{m['completions/mean_length']:.1f}"],
            ["shortest, longest", f"{m['completions/min_length']:.0f}, {m['completions/max_length']:.0f}"],
            ["truncated", percent(m["completions/clipped_ratio"])]]
    if "format" in m:
        rows.append(["every tag once, in order", percent(m["format"])])
    return Table("Completions", [], rows)


def settings_table(settings: Mapping[str, Any]) -> Table:
    """The settings that are set."""
    shown = {name: value for name, value in settings.items() if value not in (None, [], "")}
    texts = {name: ", ".join(map(str, value)) if isinstance(value, list) else str(value)
             for name, value in shown.items()}
    return Table("Settings", [], [[name, text[:HASH] if name in HASHES else text] for name, text in texts.items()],
                 prose=True)


def span(m: Mapping[str, float], reading: str) -> str:
    """The interval of a reading's accuracy in words."""
    return f"{percent(m[f'accuracy/{reading}/low'])} to {percent(m[f'accuracy/{reading}/high'])}"


def percent(share: float) -> str:
    """A share in percent."""
    return f"{share:.1%}"


def number(value: float | None) -> str:
    """Three decimals; "-" for None and NaN."""
    return "-" if value is None or value != value else f"{value:.3f}"


# analysis


def analysis_tables(found: Mapping[str, Any]) -> list[Table]:
    """The tables of grpo.evaluation.analysis.analyze."""
    tables = round_tables(found)
    for data_set, of_one in found.get("data_sets", {}).items():
        tables += [replace(table, title=f"{data_set}: {table.title}") for table in round_tables(of_one)]
    if "training" in found:
        phases = {f"step {first}" if first == last else f"steps {first} to {last}": phase
                  for phase in found["training"].values() for first, last in [(phase["from"], phase["to"])]}
        tables.append(share_table("Training completions", phases))
    return tables


def round_tables(found: Mapping[str, Any]) -> list[Table]:
    """Of one data set: its last round, and what changed since the first."""
    tables = []
    if "evaluation" in found:
        e = found["evaluation"]
        tables += accuracy_tables(e)
        tables.append(share_table("Completions", {"all": e["completions"], "right": e["right"], "wrong": e["wrong"]}))
        if e["tag_errors"]:
            tables.append(Table("Errors of layout", ["", "completions"],
                                [[name, str(count)] for name, count in e["tag_errors"].items()]))
        tables += [histogram_table(name, bins) for name, bins in e["histograms"].items() if bins]
        tables += [disagreement_table(e["disagreements"])] if e["disagreements"] else []
    if "change" in found:
        title = f"Evaluation at step {found['since_step']} and at step {found['step']}"
        tables.append(comparison_table(title, found["change"], ("before", "after")))
    return tables


SHARES = {"count": "completions", **MEANINGS, "format": "every tag once, in order", "truncated": "truncated",
          "mean_length": "mean length (tokens)", "median_length": "median length", "repetition": "repeated 4-grams",
          "repetitive": "more than half repeated"}


def share_table(title: str, columns: Mapping[str, Mapping[str, float]]) -> Table:
    """One column a set of completions; sets without any are left out."""
    columns = {name: values for name, values in columns.items() if values}
    rows = [[meaning, *(shown(name, values.get(name)) for values in columns.values())]
            for name, meaning in SHARES.items()
            if any(name in values for values in columns.values())]
    return Table(title, ["", *columns], rows)


def shown(name: str, value: float | None) -> str:
    """One cell of share_table."""
    if value is None:
        return "-"
    return f"{value:.0f}" if name == "count" else f"{value:.1f}" if name.endswith("length") else percent(value)


def histogram_table(name: str, bins: list[dict[str, float]]) -> Table:
    """A bar a bin."""
    most = max(b["count"] for b in bins)
    rows = [[f"{b['low']:.4g}" if b["low"] == b["high"] else f"{b['low']:.4g} to {b['high']:.4g}", str(b["count"]),
             "█" * round(BAR * b["count"] / most)] for b in bins]
    return Table(f"Reward {name}", ["value", "completions", ""], rows, prose=True)


def disagreement_table(found: list[dict[str, Any]]) -> Table:
    """The first ones; the JSON has all."""
    rows = [[f"{r['row']}, {r['sample'] + 1}",
             *("-" if r[name] is None else one_line(r[name], WIDEST) for name in ("gold", "tagged_answer", "answer")),
             *("✓" if r[reading] else "✗" for reading in READINGS)] for r in found[:SHOWN_DISAGREEMENTS]]
    more = f", the first {SHOWN_DISAGREEMENTS}" if len(found) > SHOWN_DISAGREEMENTS else ""
    header = ["row, completion", "gold", "in its tags", "read", *READINGS]
    return Table(f"Readings that disagree: {len(found)} completions{more}", header, rows, prose=True)


def comparison_tables(found: Mapping[str, Any], names: tuple[str, str]) -> list[Table]:
    """Of two evaluations (grpo analyze A B), one a data set."""
    tables = [comparison_table("Accuracy", found["comparison"], names)] if found["comparison"] else []
    return tables + [comparison_table(f"{data_set}: Accuracy", one, names)
                     for data_set, one in found["data_sets"].items()]


def comparison_table(title: str, found: Mapping[str, Any], names: tuple[str, str]) -> Table:
    """Two evaluations of the same questions."""
    tested = "p" in found["lenient"]
    rows = [[MEANINGS[r], percent(c["a"]), percent(c["b"]), f"{c['difference']:+.1%}",
             f"{c['low']:+.1%} to {c['high']:+.1%}",
             *([str(c["only_a"]), str(c["only_b"]), f"{c['p']:.3g}"] if tested else [])] for r in READINGS
            for c in [found[r]]]
    header = ["", *names, "difference", "95 % interval",
              *(["only " + names[0], "only " + names[1], "McNemar p"] if tested else [])]
    return Table(f"{title}, on {found['questions']} questions", header, rows)


def one_line(text: Any, width: int = 90) -> str:
    """The text without line breaks, cut to width."""
    line = " ".join(str(text).split())
    return line if len(line) <= width else line[:width - 3] + "..."
