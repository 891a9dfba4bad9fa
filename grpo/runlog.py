"""Reading a run folder: its metrics as series, its completions, its latest checkpoint."""
import json
import os
from pathlib import Path
from typing import Any

from .errors import FileFormatError
from .runfolder import CHECKPOINTS, COMPLETIONS, METRICS

RECIPE = "recipe.yaml"


class RunLog:
    """What a run left behind.

    >>> log = RunLog("runs/quickstart-1")                                                              # doctest: +SKIP
    >>> steps, rewards = log.series("reward")                                                          # doctest: +SKIP
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        if not self.path.is_dir():
            raise FileFormatError(f"{self.path}: no such run folder")
        self.records = read_jsonl(self.path / METRICS)
        for number, record in enumerate(self.records, 1):
            if not isinstance(record.get("step"), int):
                raise FileFormatError(f"{self.path / METRICS}: line {number} has no step")

    def names(self) -> list[str]:
        """Every metric that the run logged, in the order of its first appearance."""
        return list(dict.fromkeys(name for record in self.records for name in record))

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """(steps, values) of one metric, without the steps that have no number for it."""
        points = [(r["step"], r[name]) for r in self.records if is_number(r.get(name))]
        return [step for step, _ in points], [value for _, value in points]

    def first_and_last(self, name: str) -> tuple[float, float] | None:
        _, values = self.series(name)
        return (values[0], values[-1]) if values else None

    def completions(self, kind: str, step: int) -> list[dict[str, Any]]:
        """The completions of one step; kind: "step" or "eval"."""
        path = self.path / COMPLETIONS / f"{kind}-{step:06d}.jsonl"
        return read_jsonl(path) if path.exists() else []

    def completion_steps(self, kind: str) -> list[int]:
        """The steps whose completions were kept."""
        return sorted(int(path.stem.rpartition("-")[2]) for path in (self.path / COMPLETIONS).glob(f"{kind}-*.jsonl"))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """One object a line. The last line may be cut off, as it is when a machine dies while a run writes."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError as error:
            if number == len(lines):
                break
            raise FileFormatError(f"{path}: line {number} is not JSON: {error}") from error
        if not isinstance(record, dict):
            raise FileFormatError(f"{path}: line {number} is not an object")
        records.append(record)
    return records


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value


def model_folder(path: str) -> str:
    """What grpo.load takes for a path that may be a run folder: its latest checkpoint then, else the path itself."""
    from . import checkpoint

    if not (Path(path) / CHECKPOINTS).is_dir():
        return path
    latest = checkpoint.latest(Path(path) / CHECKPOINTS)
    if latest is None:
        raise FileFormatError(f"{path} is a run without a whole checkpoint")
    return str(latest)
