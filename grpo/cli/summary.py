"""What `grpo train` prints before and after: what will be trained, where the run is, what was learned."""
import statistics
from pathlib import Path
from typing import Any

from ..recipes import Recipe
from ..runlog import RunLog

SHOWN_SAMPLES = 3
Rows = list[dict[str, Any]]


def header(recipe: Recipe, model: Any, rewards: list[Any], rows: Rows, eval_rows: Rows | None) -> str:
    from .. import _core

    config = recipe.config()
    name = recipe.model if isinstance(recipe.model, str) else f"tiny {model.config['model_type']}"
    example = one_line(last_message(rows[0]["prompt"])) + (f" -> {one_line(rows[0]['answer'])}" if "answer" in rows[0] else "")
    facts = {
        "model": f"{name}, {model.num_parameters() / 1e6:.2f} M parameters, {model.dtype} on {model.device} ({model.core.tier}, "
                 f"{_core.get_num_threads()} threads)",
        "data": f"{recipe.dataset}, {len(rows):,} rows" + (f", {len(eval_rows):,} more held out" if eval_rows else ""),
        "example": example,
        "rewards": ", ".join(getattr(r, "__name__", type(r).__name__) for r in rewards),
        "batch": config.describe_batch(),
    }
    return f"grpo train {recipe.name}\n" + "\n".join(f"  {name:<8} {value}" for name, value in facts.items())


def summary(folder: Path, eval_rows: Rows | None) -> str:
    """Where the run is and what was learned, with its plots drawn."""
    from ..plots import draw

    log = RunLog(folder)
    lines = ["", "What was learned"]
    _, rewards = log.series("reward")
    if rewards:
        tenth = max(1, len(rewards) // 10)
        lines.append(f"  training reward    {statistics.fmean(rewards[:tenth]):.3f} -> {statistics.fmean(rewards[-tenth:]):.3f}")
    steps = log.completion_steps("eval")
    if eval_rows and len(steps) > 1:
        lines += evaluation_lines(log, eval_rows, steps[0], steps[-1])
    plots = draw(folder)
    saved = sorted((folder / "checkpoints").glob("step-*"))
    lines += ["", f"Run folder: {folder}", "  config.yaml, recipe.yaml, metrics.jsonl, completions/, " + (f"{len(saved)} checkpoints" if saved else "no checkpoint"),
              f"  plots/: {', '.join(path.name for path in plots)}"]
    if saved:
        question = one_line(last_message(eval_rows[0]["prompt"]), 60) if eval_rows else "..."
        lines += ["", f'Ask the model:  grpo generate --model {folder} "{question}"']
    return "\n".join(lines)


def evaluation_lines(log: RunLog, rows: Rows, first: int, last: int) -> list[str]:
    """Accuracy and rewards of the first and of the last evaluation, and some completions of both."""
    before, after = log.completions("eval", first), log.completions("eval", last)
    lines = []
    if all("answer" in row for row in rows):
        lines.append(f"  held-out accuracy  {accuracy(before, rows):.1%} -> {accuracy(after, rows):.1%}  on {len(rows)} problems, "
                     f"step {first} -> step {last}")
    for name in log.names():
        if name.startswith("eval_rewards/") and name.endswith("/mean"):
            _, values = log.series(name)
            if values:
                lines.append(f"  held-out {name[len('eval_rewards/'):-len('/mean')]}  {values[0]:.3f} -> {values[-1]:.3f}")
    return lines + samples(before, after, rows)


def samples(before: Rows, after: Rows, rows: Rows) -> list[str]:
    """Some prompts with their first completion before and after, those whose reward rose most first."""
    old, new = ({record["row"]: record for record in reversed(records)} for records in (before, after))
    gain = {row: (new[row]["reward"] or 0) - (old[row]["reward"] or 0) for row in old if row in new}
    lines = []
    for row in sorted(gain, key=gain.get, reverse=True)[:SHOWN_SAMPLES]:
        lines += ["", f"  {one_line(last_message(rows[row]['prompt']))}",
                  f"    before  {one_line(old[row]['completion'], 110)}", f"    after   {one_line(new[row]['completion'], 110)}"]
    return lines


def accuracy(records: Rows, rows: Rows) -> float:
    """Share of the completions whose answer (see grpo.rewards.text) is their row's."""
    from ..rewards.text import final_answer, same_answer

    return statistics.fmean(same_answer(final_answer(r["completion"]), rows[r["row"]]["answer"]) for r in records)


def last_message(prompt: Any) -> str:
    return prompt if isinstance(prompt, str) else str(prompt[-1]["content"])


def one_line(text: Any, width: int = 90) -> str:
    line = " ".join(str(text).split())
    return line if len(line) <= width else line[:width - 3] + "..."
