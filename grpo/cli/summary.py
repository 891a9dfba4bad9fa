"""What `grpo train` prints before and after: what will be trained, where the run is, what was learned."""
import os
import statistics
from pathlib import Path
from typing import Any

from ..evaluation import last_message, one_line
from ..recipes import Prepared, Recipe
from ..runs import METRICS, RECIPE, evaluation, evaluation_steps
from ..vision.messages import images_of, without_images

SHOWN_SAMPLES = 3
Rows = list[dict[str, Any]]


def header(recipe: Recipe, model: Any, found: Prepared) -> str:
    """What will be trained, in a few lines: model, data, an example, rewards, batch."""
    from .. import _core

    rows = found.rows
    name = recipe.model if isinstance(recipe.model, str) else f"tiny {model.config['model_type']}"
    example = one_line(last_message(rows[0]["prompt"]))
    if "answer" in rows[0]:
        example += f" -> {one_line(rows[0]['answer'])}"
    held_out = f", {len(found.eval_rows):,} more held out" if found.eval_rows else ""
    facts = {
        "model": f"{name}, {model.num_parameters() / 1e6:.2f} M parameters, {model.dtype} on {model.device} "
                 f"({model.core.tier}, {_core.get_num_threads()} threads)",
        "data": f"{recipe.dataset}, {len(rows):,} rows{held_out}",
        "example": example,
        "rewards": ", ".join(r.name for r in found.rewards),
        "batch": found.config.describe_batch(),
    }
    return f"grpo train {recipe.name}\n" + "\n".join(f"  {name:<8} {value}" for name, value in facts.items())


def summary(run: Path) -> str:
    """Where the run is and what was learned, with its pictures drawn."""
    from ..runs import Metrics, plot_run

    if not (run / METRICS).is_file():
        return f"\nNo step was taken, so nothing was learned.\n\nRun folder {run}"
    log = Metrics(run)
    rounds = {data_set: [evaluation(run, step, data_set) for step in (steps[0], steps[-1])]
              for data_set, steps in evaluation_steps(run).items()}
    lines = ["", "What was learned", *aligned(rewards_before_and_after(log) | accuracies_before_and_after(rounds))]
    for before, after in rounds.values():
        if before["settings"]["step"] < after["settings"]["step"]:
            lines += samples(before["completions"], after["completions"])
    saved = sorted((run / "checkpoints").glob("step-*"))
    lines += ["", f"Run folder {run}",
              f"  config.yaml, {RECIPE}, metrics.jsonl, completions/, eval/, checkpoints/ ({len(saved)})",
              f"  plots/: {', '.join(path.name for path in plot_run(run))}"]
    if saved:
        asked = [record for _, last in rounds.values() for record in last["completions"]]
        prompt = (asked or first_completions(run) or [{"prompt": "..."}])[0]["prompt"]
        shown = "".join(f" --image {image if os.path.isfile(str(image)) else 'FILE'}" for image in images_of(prompt))
        question = one_line(last_message(without_images(prompt)), 60)
        lines += ["", f'Ask the model: grpo generate --model {run}{shown} "{question}"']
    return "\n".join(lines)


def first_completions(run: Path) -> list[Any]:
    """Those of the first step that left any; a run without held-out rows shows by them what it asks."""
    from ..runs import completion_steps, completions

    steps = completion_steps(run)
    return list(completions(run, steps[0])) if steps else []


def rewards_before_and_after(log: Any) -> dict[str, str]:
    """The reward in training (a tenth of the steps at either end), and each one of the first and the last round of
    evaluation."""
    found = {}
    for curve in log.curve("reward in training", "reward"):
        tenth = max(1, len(curve.values) // 10)
        found[curve.label] = change(statistics.fmean(curve.values[:tenth]), statistics.fmean(curve.values[-tenth:]))
    for data_set, prefix in log.data_sets().items():
        for name in log.named(f"{prefix}rewards/", "/mean"):
            found |= {f"{name}, {data_set or 'held out'}": change(c.values[0], c.values[-1])
                      for c in log.curve(name, f"{prefix}rewards/{name}/mean") if len(c.values) > 1}
    return found


def accuracies_before_and_after(rounds: dict[str, list[dict[str, Any]]]) -> dict[str, str]:
    """Of the first and the last round on each data set that is graded."""
    return {f"accuracy on {after['settings']['questions']} held-out rows" + (f" of {data_set}" if data_set else ""):
            change(before["metrics"]["accuracy/lenient"], after["metrics"]["accuracy/lenient"], "{:.1%}")
            for data_set, (before, after) in rounds.items()
            if "accuracy/lenient" in after["metrics"] and before["settings"]["step"] < after["settings"]["step"]}


def change(before: float, after: float, form: str = "{:.3f}") -> str:
    """Both numbers, as in 0.250 -> 0.500."""
    return f"{form.format(before)} -> {form.format(after)}"


def aligned(found: dict[str, str]) -> list[str]:
    """Two columns, as lines."""
    width = max(map(len, found), default=0)
    return [f"  {what:<{width}} {value}" for what, value in found.items()]


def samples(before: Rows, after: Rows) -> list[str]:
    """Some prompts with their first completion before and after, those whose reward rose most first."""
    old, new = ({record["row"]: record for record in reversed(records)} for records in (before, after))
    gain = {row: (new[row]["reward"] or 0) - (old[row]["reward"] or 0) for row in old if row in new}
    lines = []
    for row in sorted(gain, key=gain.__getitem__, reverse=True)[:SHOWN_SAMPLES]:
        gold = new[row]["gold"]
        lines += ["", f"  {one_line(last_message(new[row]['prompt']))}",
                  *([] if gold is None else [f"    gold    {one_line(gold, 110)}"]),
                  f"    before  {one_line(old[row]['completion'], 110)}",
                  f"    after   {one_line(new[row]['completion'], 110)}"]
    return lines
