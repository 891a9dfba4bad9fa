"""Reading a run folder afterwards: its completions, evaluations and checkpoints. Its metrics are read by grpo.plots.Metrics."""
import json
from pathlib import Path
from typing import Any

from . import checkpoint
from .errors import FileFormatError
from .evaluation.records import read_document
from .runfolder import CHECKPOINTS, COMPLETIONS, EVALUATIONS


def completion_steps(run: Path) -> list[int]:
    """The training steps whose completions were kept."""
    return numbers(run / COMPLETIONS, "step-*.jsonl")


def evaluation_steps(run: Path) -> list[int]:
    """The steps at which the run was evaluated."""
    return numbers(run / EVALUATIONS, "step-*.json")


def numbers(folder: Path, pattern: str) -> list[int]:
    return sorted(int(path.stem.rpartition("-")[2]) for path in folder.glob(pattern))


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


def evaluation(run: Path, step: int) -> dict[str, Any]:
    """One round of evaluation: settings, metrics, by_category, completions."""
    return read_document(run / EVALUATIONS / f"step-{step:06d}.json")


def latest_model(path: str) -> str:
    """What grpo.load takes: the latest whole checkpoint where path is a run folder, else path itself."""
    if not (Path(path) / CHECKPOINTS).is_dir():
        return path
    latest = checkpoint.latest(Path(path) / CHECKPOINTS)
    if latest is None:
        raise FileFormatError(f"{path} is a run without a whole checkpoint")
    return str(latest)
