"""Rounds of evaluation: completions of held-out rows, drawn the same way each time, graded and written."""
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..datasets import Prompt
from ..model import Model
from ..options import GRPOConfig
from ..rewards import RewardSet
from ..rewards.think import opened
from ..rollouts import completion_records, generate, pictures_of, prompt_stream, reward_batch, sampling
from ..runs import EVALUATIONS, ROUND, RunFolder, TrainerState, round_name
from .grading import category_column, check_golds
from .pictures import FOLDER, keep_images, of_row
from .records import Record, document, graded
from .report import MOST_QUESTIONS, write_reports

# evaluation draws the same numbers every time, and none that training draws
SEED = 0x65766C


class Evaluation:
    """Rounds over the rows of a data set with a trainer's model, rewards and options; training is not touched by
    them."""

    def __init__(self, dataset: Any, name: str, model: Model, args: GRPOConfig, state: TrainerState, rewards: RewardSet,
                 eval_funcs: RewardSet | None):
        """name: of the data set in errors. Raises DatasetError naming the row where some rows have an answer to be
        graded by and others none."""
        self.model, self.args, self.state, self.rewards, self.eval_funcs = model, args, state, rewards, eval_funcs
        self.stream = prompt_stream(model, args, dataset, name)
        check_golds(self.stream.rows, name)
        self.category = category_column(self.stream.rows, args.eval_category)
        self.last: tuple[RunFolder, dict[str, Any]] | None = None        # arguments of write_reports

    def __len__(self) -> int:
        return len(self.stream)

    def round(self, prefix: str, run: RunFolder | None) -> dict[str, float]:
        """The numbers of one round over all rows. The run folder, where there is one, gets eval/step-N.json (other
        prefixes than "eval" in the place of step), and the pictures of its report."""
        records, logged = self.completions(0, len(self))
        step, reports = self.state.global_step, self.args.eval_report
        if run is not None and reports != "no":
            folder = run.path / EVALUATIONS
            run.write_log(f"{EVALUATIONS}/{FOLDER}", lambda: self.keep_images(records, folder))
        content = document({"step": step, **self.settings()}, records)
        if run is not None:
            written = content if self.args.save_completions else {**content, "completions": []}
            path = run.write_evaluation(round_name(prefix, step), written)
            self.last = run, {"document": content, "stem": path.with_suffix(""), "title": title_of(prefix)}
            if reports == "every":
                self.report_last()
        return {**logged, **content["metrics"]}

    def report_last(self) -> None:
        """The report of the last round, as HTML and PDF."""
        if self.last is not None:
            run, report = self.last
            run.write_log(f"{EVALUATIONS}/{report['stem'].name}.html", lambda: write_reports(**report))

    def keep_images(self, records: Sequence[Record], folder: Path, most: int = MOST_QUESTIONS) -> bool:
        """Copies the images of the first so many questions into folder (grpo.evaluation.pictures.keep_images)."""
        return keep_images(records, folder, most,
                           lambda row: pictures_of(self.model, [self.stream.at_row(row)])[0])

    def completions(self, first: int, count: int) -> tuple[list[Record], dict[str, float]]:
        """(graded records, what reward functions logged) of the rows first, first + 1, ... They do not depend on where
        first is."""
        records: list[Record] = []
        logged: list[tuple[int, dict[str, float]]] = []
        for position, prompts in self._portions(first, count):
            found, metrics = self._drawn(position, prompts)
            records += found
            logged.append((len(found), metrics))
        return records, weighted_means(logged)

    def _portions(self, first: int, count: int) -> Iterator[tuple[int, list[Prompt]]]:
        """(position of the first, prompts), so many at a time that no more than slots of them show images: so many does
        the memory plan count on, whose features are there at once. Prompts without images are one portion."""
        most, showing = self.args.slots_on(self.model.device), 0
        some: list[Prompt] = []
        for position in range(first, first + count):
            (prompt,) = self.stream.take(position, 1)
            if showing == most and prompt.images:
                yield position - len(some), some
                some, showing = [], 0
            some.append(prompt)
            showing += bool(prompt.images)
        if some:
            yield first + count - len(some), some

    def _drawn(self, first: int, prompts: list[Prompt]) -> tuple[list[Record], dict[str, float]]:
        """completions() of prompts, of which the first is at that position."""
        model, args = self.model, self.args
        r = generate(model, prompts, args.completions_eval, args.max_completion_length,
                     sampling(args, args.temperature_eval), seed=args.seed + SEED, step=0, first_prompt=first,
                     slots=args.slots_on(model.device))
        batch = reward_batch(model, args, self.state, r)
        scores = self.rewards.score(batch)
        r.take(scores)
        records, logged = completion_records(self.state.global_step, r, scores.names), scores.metrics
        if self.eval_funcs is not None:
            scores = self.eval_funcs.score(batch)
            logged |= scores.metrics
            for record, values in zip(records, scores.values.tolist(), strict=True):
                record["funcs"] = dict(zip(scores.names, values, strict=True))
        said = [of_row(pictures, prompt.columns) for pictures, prompt in zip(r.pictures, prompts, strict=True)]
        begun = [{"begun": start} if (start := opened(end)) else {} for end in batch.prompt_ends or ()]
        records = [record | said[g] | start for record, g, start in zip(records, r.group, begun, strict=True)]
        return graded(records, [r.prompts[g].columns for g in r.group], args.completions_eval, self.category), logged

    def settings(self) -> dict[str, Any]:
        """What decides the numbers besides weights and rows."""
        args = self.args
        return {"questions": len(self), "num_generations": args.completions_eval,
                **sampling(args, args.temperature_eval), "max_completion_length": args.max_completion_length,
                "seed": args.seed, **self._limits(), "rewards": self.rewards.names,
                "eval_funcs": self.eval_funcs.names if self.eval_funcs is not None else [], "category": self.category,
                "device": self.model.device, "dtype": self.model.dtype}

    def _limits(self) -> dict[str, int]:
        """How large a model that sees is shown images; nothing where their size is fixed, or where none are seen."""
        processor = self.model.processor
        if processor is None or processor.fixed:
            return {}
        return {"min_pixels": processor.min_pixels, "max_pixels": processor.max_pixels}


def weighted_means(logged: Sequence[tuple[int, dict[str, float]]]) -> dict[str, float]:
    """Each metric's mean over the portions that have a number for it, by their completions.

    >>> weighted_means([(3, {"a": 1.0}), (1, {"a": 5.0, "b": 2.0})])
    {'a': 2.0, 'b': 2.0}
    """
    if len(logged) == 1:
        return logged[0][1]
    names = dict.fromkeys(name for _, metrics in logged for name in metrics)
    there = {name: [(count, m[name]) for count, m in logged if m.get(name) is not None and m[name] == m[name]]
             for name in names}
    return {name: sum(count * value for count, value in found) / sum(count for count, _ in found)
            for name, found in there.items() if found}


def title_of(prefix: str) -> str:
    """Of a round's report; of one of several data sets with its name."""
    return "Evaluation" if prefix == "eval" else f"Evaluation: {prefix.removeprefix(ROUND)}"
