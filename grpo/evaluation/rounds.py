"""Rounds of evaluation: completions of held-out rows, drawn the same way each time, graded and written."""
from typing import Any

from ..model import Model
from ..options import GRPOConfig
from ..rewards import RewardSet
from ..rollouts import completion_records, generate, prompt_stream, reward_batch, sampling
from ..runs import EVALUATIONS, ROUND, RunFolder, TrainerState, round_name
from .grading import category_column, check_golds
from .records import Record, document, graded
from .report import write_report

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
        self.last: tuple[RunFolder, dict[str, Any]] | None = None        # arguments of write_report

    def __len__(self) -> int:
        return len(self.stream)

    def round(self, prefix: str, run: RunFolder | None) -> dict[str, float]:
        """The numbers of one round over all rows. The run folder, where there is one, gets eval/step-N.json (other
        prefixes than "eval" in the place of step)."""
        records, logged = self.completions(0, len(self))
        step = self.state.global_step
        content = document({"step": step, **self.settings()}, records)
        if run is not None:
            written = content if self.args.save_completions else {**content, "completions": []}
            path = run.write_evaluation(round_name(prefix, step), written)
            self.last = run, {"document": content, "path": path.with_suffix(".pdf"), "title": title_of(prefix)}
            if self.args.eval_report == "every":
                self.report_last()
        return {**logged, **content["metrics"]}

    def report_last(self) -> None:
        """The PDF of the last round."""
        if self.last is not None:
            run, report = self.last
            run.write_log(f"{EVALUATIONS}/{report['path'].name}", lambda: write_report(**report))

    def completions(self, first: int, count: int) -> tuple[list[Record], dict[str, float]]:
        """(graded records, what reward functions logged) of the rows first, first + 1, ... They do not depend on where
        first is."""
        model, args = self.model, self.args
        r = generate(model, self.stream.take(first, count), args.completions_eval, args.max_completion_length,
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
        return graded(records, [r.prompts[g].columns for g in r.group], args.completions_eval, self.category), logged

    def settings(self) -> dict[str, Any]:
        """What decides the numbers besides weights and rows."""
        args = self.args
        return {"questions": len(self), "num_generations": args.completions_eval,
                **sampling(args, args.temperature_eval), "max_completion_length": args.max_completion_length,
                "seed": args.seed, "rewards": self.rewards.names,
                "eval_funcs": self.eval_funcs.names if self.eval_funcs is not None else [], "category": self.category,
                "device": self.model.device, "dtype": self.model.dtype}


def title_of(prefix: str) -> str:
    """Of a round's report; of one of several data sets with its name."""
    return "Evaluation" if prefix == "eval" else f"Evaluation: {prefix.removeprefix(ROUND)}"
