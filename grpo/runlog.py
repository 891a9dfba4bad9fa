"""Reading a run folder afterwards: its completions and its latest checkpoint. Its metrics are read by grpo.plots.Metrics."""
import json
from pathlib import Path
from typing import Any

from . import checkpoint
from .errors import FileFormatError
from .runfolder import CHECKPOINTS, COMPLETIONS


def completion_steps(run: Path, kind: str) -> list[int]:
    """The steps whose completions were kept; kind: "step" (training) or "eval"."""
    return sorted(int(path.stem.rpartition("-")[2]) for path in (run / COMPLETIONS).glob(f"{kind}-*.jsonl"))


def completions(run: Path, kind: str, step: int) -> list[dict[str, Any]]:
    """The records of one step's completions. Raises FileFormatError naming file and line."""
    path = run / COMPLETIONS / f"{kind}-{step:06d}.jsonl"
    records = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            records.append(json.loads(line))
        except ValueError as error:
            raise FileFormatError(f"{path}: line {number} is not JSON: {error}") from error
    return records


def latest_model(path: str) -> str:
    """What grpo.load takes: the latest whole checkpoint where path is a run folder, else path itself."""
    if not (Path(path) / CHECKPOINTS).is_dir():
        return path
    latest = checkpoint.latest(Path(path) / CHECKPOINTS)
    if latest is None:
        raise FileFormatError(f"{path} is a run without a whole checkpoint")
    return str(latest)
