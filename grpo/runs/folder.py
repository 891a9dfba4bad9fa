"""The run folder while a run writes it: config.yaml, metrics.jsonl, completions/, eval/, checkpoints/."""
import json
import math
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError

CONFIG, METRICS = "config.yaml", "metrics.jsonl"
COMPLETIONS, EVALUATIONS, CHECKPOINTS = "completions", "eval", "checkpoints"
RECIPE = "recipe.yaml"                       # what the run was asked for; config.yaml has every option resolved
WRITTEN = (CONFIG, RECIPE, METRICS, COMPLETIONS, EVALUATIONS, CHECKPOINTS, "plots")
READINGS = ("strict", "lenient", "extractive")    # the ways an answer is read: accuracy/<reading> in those numbers
MAX_BITS = 4096                              # of a number that is written in decimal digits
# what the numbers of evaluation begin with; what the files of a single data set do
ROUND, SINGLE = "eval_", "step"


class RunFolder:
    """One run's folder. Every line is written whole, so a reader or a crash never sees half a record."""

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"output_dir={str(path)!r}: the folder cannot be made: {error.strerror}") from error

    @classmethod
    def create(cls, output_dir: str | None, name: str) -> "RunFolder":
        """A folder for a new run: output_dir, or runs/<name>-<n>; where a run is already, the next free number."""
        if output_dir is not None and not holds_run(Path(output_dir)):
            return cls(output_dir)
        stem = output_dir if output_dir is not None else os.path.join("runs", re.sub(r"[^\w.-]+", "-", name))
        number = 1 if output_dir is None else 2
        while os.path.exists(f"{stem}-{number}"):
            number += 1
        if output_dir is not None:
            say(f"{output_dir} holds a run already; writing to {stem}-{number}")
        return cls(f"{stem}-{number}")

    @property
    def checkpoints(self) -> Path:
        """Where the run's checkpoints are."""
        return self.path / CHECKPOINTS

    def write_config(self, text: str) -> None:
        """Writes config.yaml."""
        (self.path / CONFIG).write_text(text, encoding="utf-8")

    def log(self, record: Mapping[str, Any]) -> None:
        """Appends one record to metrics.jsonl."""
        with open(self.path / METRICS, "a", encoding="utf-8") as file:
            file.write(to_json(record) + "\n")

    def write_completions(self, name: str, records: Iterable[Mapping[str, Any]]) -> None:
        """completions/<name>.jsonl, one record a completion."""
        folder = self.path / COMPLETIONS
        folder.mkdir(exist_ok=True)
        replace_text(folder / f"{name}.jsonl", "".join(to_json(r) + "\n" for r in records))

    def write_evaluation(self, name: str, document: Mapping[str, Any]) -> Path:
        """eval/<name>.json: one round of evaluation (round_name, grpo.evaluation.records.document)."""
        folder = self.path / EVALUATIONS
        folder.mkdir(exist_ok=True)
        replace_text(folder / f"{name}.json", to_json(document))
        return folder / f"{name}.json"

    def history(self) -> list[dict[str, Any]]:
        """All records of metrics.jsonl. A last line that a full disk cut off is none."""
        path = self.path / METRICS
        return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] if path.exists() else []

    def rewind(self, step: int) -> list[dict[str, Any]]:
        """Drops what was logged after a step, before the run continues from there. Returns what remains."""
        remaining = [r for r in self.history() if r.get("step", 0) <= step]
        replace_text(self.path / METRICS, "".join(to_json(r) + "\n" for r in remaining))
        for path in [*(self.path / COMPLETIONS).glob("*.jsonl"), *(self.path / EVALUATIONS).glob("*-*.*")]:
            number = path.stem.rpartition("-")[2]
            if number.isdigit() and int(number) > step:
                path.unlink()
        return remaining


def holds_run(path: Path) -> bool:
    """Whether a run, or anything under a name that a run writes, is there."""
    return any((path / name).exists() for name in WRITTEN)


def round_name(prefix: str, step: int) -> str:
    """A round's name in eval/. prefix: of its numbers, "eval", or "eval_<data set>" where there are several.

    >>> round_name("eval", 40), round_name("eval_sums", 40)
    ('step-000040', 'eval_sums-000040')
    """
    return f"{SINGLE if prefix == 'eval' else prefix}-{step:06d}"


def replace_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all: aside, then renamed."""
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def to_json(record: Mapping[str, Any]) -> str:
    """Strict JSON on one line; numbers that are not finite become null."""
    text = json.dumps(plain(record), ensure_ascii=False, allow_nan=False, default=spelled)
    return text.encode("utf-8", "backslashreplace").decode()         # half a surrogate pair is \ud800, as in JSON


def plain(value: Any) -> Any:
    """The value as it is read back from JSON."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        return hex(value)                    # Python refuses to spell thousands of decimal digits
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def spelled(value: Any) -> str:
    """str(value), or the name of its type where it has no text."""
    try:
        return str(value)
    except Exception:
        return f"<{type(value).__name__}>"


def say(text: str) -> None:
    """One line for the person who watches."""
    print(text, file=sys.stderr, flush=True)
