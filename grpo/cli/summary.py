"""What `grpo train` prints before and after: what will be trained, where the run is, what was learned."""
import statistics
from pathlib import Path
from typing import Any

from ..evaluation.tables import one_line
from ..evaluation.text import last_message
from ..recipes import Recipe
from ..recipes.prepare import Prepared
from ..runfolder import METRICS, RECIPE
from ..runlog import evaluation, evaluation_steps

SHOWN_SAMPLES = 3
Rows = list[dict[str, Any]]


def header(recipe: Recipe, model: Any, found: Prepared) -> str:
    from .. import _core

    rows = found.rows
    name = recipe.model if isinstance(recipe.model, str) else f"tiny {model.config['model_type']}"
    example = one_line(last_message(rows[0]["prompt"])) + (f" -> {one_line(rows[0]['answer'])}" if "answer" in rows[0] else "")
    facts = {
        "model": f"{name}, {model.num_parameters() / 1e6:.2f} M parameters, {model.dtype} on {model.device} ({model.core.tier}, "
                 f"{_core.get_num_threads()} threads)",
        "data": f"{recipe.dataset}, {len(rows):,} rows" + (f", {len(found.eval_rows):,} more held out" if found.eval_rows else ""),
        "example": example,
        "rewards": ", ".join(r.name for r in found.rewards),
        "batch": found.config.describe_batch(),
    }
    return f"grpo train {recipe.name}\n" + "\n".join(f"  {name:<8} {value}" for name, value in facts.items())


def summary(run: Path, eval_rows: Rows | None) -> str:
    """Where the run is and what was learned, with its pictures drawn."""
    from ..plots import Metrics, plot_run

    if not (run / METRICS).is_file():
        return f"\nNo step was taken, so nothing was learned.\n\nRun folder {run}"
    log = Metrics(run)
    lines = ["", "What was learned", *rewards_before_and_after(log)]
    steps = evaluation_steps(run)
    if eval_rows and len(steps) > 1:
        before, after = evaluation(run, steps[0]), evaluation(run, steps[-1])
        if "accuracy/lenient" in after["metrics"]:
            what = f"accuracy on {len(eval_rows)} held-out rows"
            lines.append(line(what, before["metrics"]["accuracy/lenient"], after["metrics"]["accuracy/lenient"], "{:.1%}"))
        lines += samples(before["completions"], after["completions"], eval_rows)
    saved = sorted((run / "checkpoints").glob("step-*"))
    lines += ["", f"Run folder {run}", f"  config.yaml, {RECIPE}, metrics.jsonl, completions/, eval/, checkpoints/ ({len(saved)})",
              f"  plots/: {', '.join(path.name for path in plot_run(run))}"]
    if saved:
        question = one_line(last_message(eval_rows[0]["prompt"]), 60) if eval_rows else "..."
        lines += ["", f'Ask the model: grpo generate --model {run} "{question}"']
    return "\n".join(lines)


def rewards_before_and_after(log: Any) -> list[str]:
    """The reward in training (a tenth of the steps at either end), and each one of the first and the last evaluation."""
    lines = []
    for curve in log.curve("reward in training", "reward"):
        tenth = max(1, len(curve.values) // 10)
        lines.append(line(curve.label, statistics.fmean(curve.values[:tenth]), statistics.fmean(curve.values[-tenth:])))
    for name in log.named("eval_rewards/", "/mean"):
        lines += [line(f"{name}, held out", c.values[0], c.values[-1]) for c in log.curve(name, f"eval_rewards/{name}/mean") if len(c.values) > 1]
    return lines


def line(what: str, before: float, after: float, form: str = "{:.3f}") -> str:
    return f"  {what:<36} {form.format(before)} -> {form.format(after)}"


def samples(before: Rows, after: Rows, rows: Rows) -> list[str]:
    """Some prompts with their first completion before and after, those whose reward rose most first."""
    old, new = ({record["row"]: record for record in reversed(records)} for records in (before, after))
    gain = {row: (new[row]["reward"] or 0) - (old[row]["reward"] or 0) for row in old if row in new}
    lines = []
    for row in sorted(gain, key=gain.get, reverse=True)[:SHOWN_SAMPLES]:
        lines += ["", f"  {one_line(last_message(rows[row]['prompt']))}",
                  f"    before  {one_line(old[row]['completion'], 110)}", f"    after   {one_line(new[row]['completion'], 110)}"]
    return lines
