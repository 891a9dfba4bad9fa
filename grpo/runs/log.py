"""Reading a run folder afterwards: its completions, evaluations and checkpoints. Its metrics are read by
grpo.runs.Metrics."""
import json
from pathlib import Path
from typing import Any

from ..errors import FileFormatError
from . import checkpoint
from .folder import CHECKPOINTS, COMPLETIONS, EVALUATIONS, ROUND, SINGLE, round_name

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
    """What grpo.load takes: the latest whole checkpoint where path is a run folder, else path itself."""
    if not (Path(path) / CHECKPOINTS).is_dir():
        return path
    latest = checkpoint.latest(Path(path) / CHECKPOINTS)
    if latest is None:
        raise FileFormatError(f"{path} is a run without a whole checkpoint")
    return str(latest)
