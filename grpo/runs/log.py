"""Reading a run folder afterwards: its completions, evaluations and checkpoints. Its metrics are read by
grpo.runs.Metrics."""
import json
import os
import re
from pathlib import Path
from typing import Any

from ..errors import ConfigError, FileFormatError
from . import checkpoint
from .aside import CHECKPOINTS, COMPLETIONS, CONFIG, EVALUATIONS, RECIPE, holds_run
from .folder import ROUND, SINGLE, round_name
from .lines import METRICS

FORMAT = 1                                   # of an evaluation as JSON


def completion_steps(run: Path) -> list[int]:
    """The training steps whose completions were written."""
    numbers = (path.stem.rpartition("-")[2] for path in (run / COMPLETIONS).glob("step-*.jsonl"))
    return sorted(int(number) for number in numbers if number.isdigit())


def evaluation_steps(run: Path) -> dict[str, list[int]]:
    """The steps at which the run was evaluated, by data set; a single one has the name ""."""
    found: dict[str, list[int]] = {}
    for path in sorted((run / EVALUATIONS).glob("*-*.json")):
        stem, _, step = path.stem.rpartition("-")
        if step.isdigit() and (stem == SINGLE or stem.startswith(ROUND)):
            found.setdefault("" if stem == SINGLE else stem.removeprefix(ROUND), []).append(int(step))
    return found


def completions(run: Path, step: int) -> list[dict[str, Any]]:
    """The records of one training step's completions. Raises FileFormatError naming file and line."""
    path = run / COMPLETIONS / f"step-{step:06d}.jsonl"
    records = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            records.append(json.loads(line))
        except ValueError as error:
            raise FileFormatError(f"{path}: line {number} is not JSON: {error}") from error
    return records


def evaluation(run: Path, step: int, data_set: str = "") -> dict[str, Any]:
    """One round of evaluation: settings, metrics, by_category, completions."""
    return read_document(run / EVALUATIONS / f"{round_name(ROUND + data_set if data_set else 'eval', step)}.json")


def read_document(path: Path) -> dict[str, Any]:
    """What grpo.evaluation.document made, read back. Raises FileFormatError naming the file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FileFormatError(f"{path}: not an evaluation: {error}") from error
    known = isinstance(content, dict) and content.get("format") == FORMAT
    if not known or not isinstance(content.get("completions"), list):
        raise FileFormatError(f"{path}: not an evaluation of this version, which has format {FORMAT}, settings, "
                              "metrics and completions")
    return content


def latest_model(path: str) -> str:
    """What grpo.load takes: the newest model of a run folder, which is its last whole checkpoint or what save_model()
    left in the folder itself; where path is no run folder, path itself."""
    run = Path(path)
    if not (run / CHECKPOINTS).is_dir():
        return path
    saved = [weights.stat().st_mtime for weights in run.glob("model*.safetensors")] if (
        run / "config.json").is_file() else []
    newest = next((folder for folder in checkpoint.steps(run / CHECKPOINTS)), None)
    if saved and (newest is None or min(saved) >= written_at(newest)):
        return path
    latest = checkpoint.latest(run / CHECKPOINTS)
    if latest is None:
        raise FileFormatError(f"{path} is a run without a whole checkpoint")
    return str(latest)


def written_at(folder: Path) -> float:
    """When a checkpoint was finished, by the time of the file that is written last."""
    try:
        return (folder / checkpoint.MANIFEST).stat().st_mtime
    except OSError:
        return 0.0


def run_to_resume(output_dir: str) -> Path:
    """The run that output_dir alone means, where it was given to several (output_dir-1, ...): the newest that is not
    finished; where all are, the one in output_dir, if no other is newer. ConfigError naming them where that is no
    single one, or has no checkpoint."""
    first = Path(os.path.abspath(output_dir))
    others = [p for p in first.parent.glob("*") if re.fullmatch(re.escape(first.name) + r"-[0-9]+", p.name)]
    runs = [p for p in [first, *sorted(others, key=lambda p: int(p.name.rpartition("-")[2]))] if holds_run(p)]
    if len(runs) <= 1:
        return runs[0] if runs else first
    unfinished = [run for run in runs if not is_finished(run)]
    times = {run: last_written(run) for run in unfinished or runs}
    newest = [run for run, time in times.items() if time == max(times.values())]
    if len(newest) == 1 and (unfinished or newest[0] == first) and checkpoint.steps(newest[0] / CHECKPOINTS):
        return newest[0]
    raise ConfigError(f"output_dir={output_dir!r} was given to several runs: {', '.join(map(str, runs))}; give "
                      "resume_from_checkpoint the one that is meant")


def last_written(run: Path) -> float:
    """When a run took its last step, or began where it took none, by the times of its files."""
    for name in (METRICS, CONFIG, RECIPE):
        if (run / name).is_file():
            return (run / name).stat().st_mtime
    return max((written_at(folder) for folder in checkpoint.steps(run / CHECKPOINTS)), default=0.0)


def is_finished(run: Path) -> bool:
    """Whether a run's last checkpoint is that of its last step."""
    saved = checkpoint.steps(run / CHECKPOINTS)
    try:
        state = json.loads((saved[0] / checkpoint.STATE_FOLDER / checkpoint.STATE).read_text(encoding="utf-8"))
        return bool(state["step"] >= state["max_steps"])
    except (IndexError, OSError, ValueError, KeyError, TypeError):
        return False
