"""What completions look like, beyond the mean: errors of layout, truncation, repetition, lengths, rewards, where
readings disagree, and two evaluations of the same questions against each other."""
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, FileFormatError
from ..rewards import repeated_share
from ..rewards.extractive import value_of
from ..runs import (
    COMPLETIONS,
    EVALUATIONS,
    READINGS,
    completion_steps,
    completions,
    evaluation,
    evaluation_steps,
    read_document,
)
from ..vision.messages import question_of
from .estimates import difference, mcnemar
from .folder import DOCUMENT
from .grading import layout_of
from .records import Record, beginning_of, document, questions, verdict

NGRAM = 4                                    # words
MANY = 0.5                                   # share of n-grams that stood there before: more is a repetitive completion
BINS = 10
PHASE = 0.1                                  # of a run's steps, at either end


def analyze(source: str | Path) -> dict[str, Any]:
    """The analysis of a file or folder of `grpo eval`, or of a run folder: its last round of evaluation, what changed
    since its first (of several data sets, under "data_sets" and their names), and its training completions at either
    end. Raises FileFormatError where there is nothing to analyse.

    >>> analyze("runs/gsm8k-1")["evaluation"]["metrics"]["accuracy/lenient"]    # doctest: +SKIP
    """
    path = Path(source)
    if not (path / COMPLETIONS).is_dir() and not (path / EVALUATIONS).is_dir():
        return {"source": str(source), "evaluation": analysis_of(read(path)[""]["completions"])}
    found: dict[str, Any] = {"source": str(source)}
    for data_set, steps in evaluation_steps(path).items():
        of_one = last_and_first([evaluation(path, step, data_set) for step in steps])
        if data_set and of_one:
            found.setdefault("data_sets", {})[data_set] = of_one
        else:
            found |= of_one
    if steps := completion_steps(path):
        found["training"] = training_phases(path, steps)
    if len(found) == 1:
        raise FileFormatError(f"{path} has no completions: neither {COMPLETIONS}/step-N.jsonl nor "
                              f"{EVALUATIONS}/step-N.json with them")
    return found


def last_and_first(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """{step, evaluation} of the last round that has its completions, and {since_step, change} since the first; empty
    for none."""
    rounds = [r for r in rounds if r["completions"]]
    if not rounds:
        return {}
    first, last = rounds[0], rounds[-1]
    found = {"step": last["settings"]["step"], "evaluation": analysis_of(last["completions"])}
    if len(rounds) > 1 and "accuracy/lenient" in first["metrics"]:
        found |= {"since_step": first["settings"]["step"], "change": compare(first["completions"], last["completions"])}
    return found


def read(path: Path) -> dict[str, dict[str, Any]]:
    """The documents of an evaluation by data set (a single one: ""): its file, its folder, or a run folder (the last
    rounds)."""
    if path.is_file():
        return {"": read_document(path)}
    if (path / DOCUMENT).is_file():
        return {"": read_document(path / DOCUMENT)}
    if found := evaluation_steps(path):
        return {data_set: evaluation(path, steps[-1], data_set) for data_set, steps in found.items()}
    raise FileFormatError(f"{path} is no evaluation: there is neither {DOCUMENT} nor {EVALUATIONS}/step-N.json")


def analysis_of(records: Sequence[Record]) -> dict[str, Any]:
    """Everything about one set of graded completions."""
    if not records:
        raise FileFormatError("the evaluation has no completions; the run was made with save_completions=False")
    content = document({}, records)
    graded = [r for r in records if r["gold"] is not None]
    return {**{name: content[name] for name in ("metrics", "by_category", "by_class", "confusion")},
            "completions": shares(records), "right": shares([r for r in graded if r["lenient"]]),
            "wrong": shares([r for r in graded if not r["lenient"]]),
            "tag_errors": dict(Counter(error for r in records for error in r["tag_errors"] or ()).most_common()),
            "histograms": {name: histogram([r["rewards"][name] for r in records]) for name in records[0]["rewards"]},
            "disagreements": disagreements(graded)}


def shares(records: Sequence[Record]) -> dict[str, float]:
    """Shares and means over completions: by reading, of layout, truncation, length, repetition. Empty for none."""
    if not records:
        return {}
    lengths = np.array([r["tokens"] for r in records])
    repeated = np.array([repetition(r["completion"]) for r in records])
    asked = [not r["tag_errors"] for r in records if r["tag_errors"] is not None]
    graded = [r for r in records if r["gold"] is not None]
    return {"count": len(records), **{reading: mean([r[reading] for r in graded]) for reading in READINGS if graded},
            **({"format": mean(asked)} if asked else {}),
            "truncated": mean([r["finish_reason"] == "length" for r in records]),
            "mean_length": float(lengths.mean()), "median_length": float(np.median(lengths)),
            "repetition": float(repeated.mean()), "repetitive": mean(repeated > MANY)}


def mean(values: Any) -> float:
    """The mean as a float."""
    return float(np.mean(values))


def repetition(text: str) -> float:
    """The share of a text's n-grams of words that stood there before.

    >>> repetition("a b c d"), repetition("a b c d a b c d")
    (0.0, 0.2)
    """
    return repeated_share(text.split(), NGRAM)


def histogram(values: Sequence[float | None]) -> list[dict[str, float]]:
    """[{low, high, count}] of the values that are there: one bin a value where they are few, else BINS equal ones."""
    there = np.array([v for v in values if v is not None], np.float64)
    distinct = np.unique(there)
    if len(distinct) <= BINS:
        return [{"low": float(v), "high": float(v), "count": int((there == v).sum())} for v in distinct]
    counts, edges = np.histogram(there, BINS)
    return [{"low": float(low), "high": float(high), "count": int(n)}
            for low, high, n in zip(edges, edges[1:], counts, strict=False)]


def disagreements(records: Sequence[Record]) -> list[dict[str, Any]]:
    """The completions that one reading finds right and another wrong; extractive match reads golds that are numbers."""
    shown = ("row", "sample", "gold", "tagged_answer", "answer", *READINGS)
    return [{name: r[name] for name in shown} for r in records
            if len({r[reading] for reading in READINGS if reading != "extractive" or is_number(r["gold"])}) > 1]


def is_number(gold: Any) -> bool:
    """Whether a gold is one number, and so what extractive match is made for."""
    return value_of(str(gold).rsplit("####", 1)[-1]) is not None


def training_phases(run: Path, steps: Sequence[int]) -> dict[str, dict[str, Any]]:
    """shares() of the training completions in the first and in the last tenth of the steps."""
    count = max(1, round(len(steps) * PHASE))
    phases = {"first": steps[:count], "last": steps[-count:]} if len(steps) > 1 else {"first": steps}
    return {name: {"from": chosen[0], "to": chosen[-1],
                   **shares([regraded(r) for step in chosen for r in completions(run, step)])}
            for name, chosen in phases.items()}


def regraded(record: Record) -> Record:
    """A training completion, graded as evaluation grades."""
    return record | verdict(record["completion"], record.get("gold"), layout_of(record["prompt"]),
                            beginning_of(record), question_of(record["prompt"]))


def compare_sources(first: Path, second: Path) -> dict[str, dict[str, Any]]:
    """compare() of two sources (see read) on each data set that both were evaluated on."""
    ours, theirs = read(first), read(second)
    common = [data_set for data_set in ours if data_set in theirs]
    if not common:
        raise ConfigError(f"no data set on which both were evaluated: {first} has {named(ours)}, {second} "
                          f"{named(theirs)}")
    return {data_set: compare(ours[data_set]["completions"], theirs[data_set]["completions"]) for data_set in common}


def named(data_sets: Iterable[str]) -> str:
    """Names of data sets, as errors show them."""
    return ", ".join(name or "one without a name" for name in data_sets)


def compare(a: Sequence[Record], b: Sequence[Record]) -> dict[str, Any]:
    """Two evaluations on the questions they share, by reading: {a, b, difference, low, high} and with one completion a
    question {only_a, only_b, p} of McNemar's exact test. ConfigError where no question is shared."""
    ours, theirs = by_question(a), by_question(b)
    common = [key for key in ours if key in theirs]
    if not common:
        raise ConfigError("the two evaluations have no question in common, so there is nothing to compare")
    common = [key for key in common if ours[key][0]["gold"] is not None]
    if not common:
        raise ConfigError("the evaluations have no gold answers to compare by")
    found: dict[str, Any] = {"questions": len(common), "only_in_a": len(ours.keys() - theirs.keys()),
                             "only_in_b": len(theirs.keys() - ours.keys())}
    single = all(len(side[key]) == 1 for side in (ours, theirs) for key in common)
    for reading in READINGS:
        x, y = (np.array([mean([r[reading] for r in side[key]]) for key in common]) for side in (ours, theirs))
        gain, low, high = difference(x, y)
        found[reading] = {"a": mean(x), "b": mean(y), "difference": gain, "low": low, "high": high}
        if single:
            only_a, only_b = int(((x == 1) & (y == 0)).sum()), int(((x == 0) & (y == 1)).sum())
            found[reading] |= {"only_a": only_a, "only_b": only_b, "p": mcnemar(only_a, only_b)}
    return found


def by_question(records: Sequence[Record]) -> Mapping[str, list[Record]]:
    """Records by what was asked and what is right, whatever the row's number. Several that are alike, as those about
    drawn pictures, are told apart by their order."""
    found: dict[str, list[Record]] = {}
    alike: Counter[str] = Counter()
    for group in questions(records):
        asked = json.dumps([group[0]["prompt"], group[0]["gold"]])
        found[f"{asked} {alike[asked]}"] = group
        alike[asked] += 1
    return found
