"""Records of graded completions, and the numbers of a round of evaluation, which follow from them alone.

Training, `grpo eval` and `grpo analyze` all compute their numbers here, from the same records, one a completion.
"""
import itertools
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..answers import final_answer, tagged_answer
from ..rewards import gold_of
from ..rollouts import completion_metrics, flat_groups, moments, reward_metrics
from ..runs import FORMAT, READINGS, plain
from ..vision.messages import begun, question_of
from .classes import class_of, classes_of, confusion, key_of
from .estimates import interval, majority, mean_interval, pass_at_k
from .grading import grade, layout_of, reasoning_of, tag_errors, vote_of

Record = dict[str, Any]


def graded(records: Sequence[Record], columns: Sequence[Mapping[str, Any]], num_generations: int,
           category: str | None) -> list[Record]:
    """Records of completions (grpo.rollouts.completion_records, prompt-major) with what evaluation adds: sample (0 to
    num_generations - 1), category, gold, strict, lenient, extractive (right or wrong), answer, tagged_answer,
    reasoning, tag_errors (None where the prompt asks for no tags). A record has begun where the chat template opens
    <think>. columns: the other columns of each record's row. As they are read back from JSON."""
    return [plain(record | {"sample": i % num_generations, "category": None if category is None else str(row[category])}
                  | verdict(record["completion"], gold_of(row), layout_of(record["prompt"]), beginning_of(record),
                            question_of(record["prompt"])))
            for i, (record, row) in enumerate(zip(records, columns, strict=True))]


def beginning_of(record: Record) -> str:
    """What the prompt, or its chat template (begun), has begun of the answer."""
    return str(record.get("begun") or begun(record["prompt"]))


def verdict(text: str, gold: Any, layout: Sequence[str], beginning: str = "", question: str | None = None) -> Record:
    """What is to be said of one completion; without a gold, only its parts. beginning: of the answer, in the prompt.
    question: the prompt's."""
    parts = {"answer": final_answer(text), "tagged_answer": tagged_answer(text), "reasoning": reasoning_of(text),
             "tag_errors": tag_errors(beginning + text, layout) if layout else None}
    return {"gold": gold, **(dict.fromkeys(READINGS) if gold is None else grade(text, gold, question)), **parts}


def questions(records: Sequence[Record]) -> list[list[Record]]:
    """The records of each question (row), in the order in which they come."""
    return [list(group) for _, group in itertools.groupby(records, key=lambda record: record["row"])]


def metrics_of(records: Sequence[Record]) -> dict[str, float]:
    """Every number of a round:

    accuracy/R for R in strict, lenient, extractive: right completions, the mean over questions (avg@k with k
        completions a question); accuracy/R/low and /high: its 95 % interval (grpo.evaluation.estimates.interval)
    pass@k/K: chance that K completions have a right one (lenient), K from 1 to k
    majority@k/k: accuracy of their most frequent answer
    format: completions whose tags are all there, once and in order, of those that were asked for tags
    completions/..., rewards/..., reward, funcs/NAME/mean: lengths, truncation, rewards, evaluation functions
    funcs/NAME/low and /high: 95 % interval of its mean over questions (grpo.evaluation.estimates.mean_interval)
    """
    groups = questions(records)
    lengths = np.array([r["tokens"] for r in records])
    metrics = completion_metrics(lengths, np.array([r["finish_reason"] == "length" for r in records]))
    names = list(records[0]["rewards"])
    totals = array(records, lambda r: r["reward"])
    metrics |= reward_metrics(names, array(records, lambda r: [r["rewards"][name] for name in names]), totals)
    if len(groups[0]) > 1:
        flat = flat_groups(totals, np.repeat(np.arange(len(groups)), [len(g) for g in groups]))
        metrics["frac_reward_zero_std"] = float(flat.mean())
    for name in records[0].get("funcs", ()):
        values = array([r["funcs"] for r in records], operator.itemgetter(name))
        metrics[f"funcs/{name}/mean"], metrics[f"funcs/{name}/std"] = moments(values)
        ends = mean_interval(values.reshape(len(groups), -1))
        metrics[f"funcs/{name}/low"], metrics[f"funcs/{name}/high"] = ends
    if (asked := [r for r in records if r["tag_errors"] is not None]):
        metrics["format"] = sum(not r["tag_errors"] for r in asked) / len(asked)
    graded_groups = [group for group in groups if group[0]["gold"] is not None]
    return metrics | (accuracies(graded_groups) if graded_groups else {})


def array(records: Sequence[Record], value: Any) -> np.ndarray:
    """float64, NaN for None."""
    return np.array([value(r) for r in records], np.float64)


def accuracies(groups: Sequence[Sequence[Record]]) -> dict[str, float]:
    """Accuracy by reading with its interval, pass@k and majority@k (both lenient) of questions with equally many
    completions."""
    k = len(groups[0])
    metrics: dict[str, float] = {}
    for reading in READINGS:
        shares = np.array([sum(r[reading] for r in group) / k for group in groups])
        low, high = interval(shares, k * len(groups))
        metrics |= {f"accuracy/{reading}": float(shares.mean()), f"accuracy/{reading}/low": low,
                    f"accuracy/{reading}/high": high}
    if k > 1:
        right = [[r["lenient"] for r in group] for group in groups]
        metrics |= {f"pass@k/{j}": sum(pass_at_k(k, sum(r), j) for r in right) / len(groups) for j in range(1, k + 1)}
        votes = [[vote_of(r["completion"]) for r in group] for group in groups]
        metrics[f"majority@k/{k}"] = sum(majority(v, r) for v, r in zip(votes, right, strict=True)) / len(groups)
    return metrics


def by_category(records: Sequence[Record]) -> dict[str, dict[str, float]]:
    """Accuracies of every category, with its number of questions, over the rows with a gold."""
    known = [group for group in questions(records) if group[0]["category"] is not None and group[0]["gold"] is not None]
    ordered = sorted(known, key=lambda group: group[0]["category"])
    return {category: {"questions": len(own := list(groups)), **accuracies(own)}
            for category, groups in itertools.groupby(ordered, key=lambda group: group[0]["category"])}


def by_class(records: Sequence[Record]) -> dict[str, Any]:
    """by_class: accuracies of every class, with its number of questions; confusion: what is taken for what
    (grpo.evaluation.classes). Both empty where golds are no classes."""
    known = [group for group in questions(records) if group[0]["gold"] is not None]
    classes = classes_of(known)
    own: dict[str, list[list[Record]]] = {key: [] for key in classes}
    for group in known if classes else ():
        own[key_of(class_of(group[0]["gold"]))].append(group)
    return {"by_class": {classes[key]: {"questions": len(groups), **accuracies(groups)}
                         for key, groups in own.items()},
            "confusion": confusion(known, classes) if classes else []}


def document(settings: Mapping[str, Any], records: Sequence[Record]) -> dict[str, Any]:
    """What an evaluation leaves as JSON: settings, metrics, by_category, by_class, confusion and every completion."""
    return {"format": FORMAT, "settings": dict(settings), "metrics": metrics_of(records),
            "by_category": by_category(records), **by_class(records), "completions": list(records)}
