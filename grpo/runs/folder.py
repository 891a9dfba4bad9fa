"""The run folder while a run writes it: config.yaml, metrics.jsonl, completions/, eval/, checkpoints/."""
import contextlib
import errno
import json
import math
import os
import re
import sys
import weakref
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError, RunFolderError, warn
from .aside import CHECKPOINTS, COMPLETIONS, CONFIG, EVALUATIONS, holds_run, move_run, set_aside
from .claim import Claim, ClaimedError
from .lines import METRICS, Line, append, read_metrics

READINGS = ("strict", "lenient", "extractive")    # the ways an answer is read: accuracy/<reading> in those numbers
MAX_BITS = 4096                              # of a number that is written in decimal digits
# what the numbers of evaluation begin with; what the files of a single data set do
ROUND, SINGLE = "eval_", "step"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_of_this_process: "weakref.WeakSet[RunFolder]" = weakref.WeakSet()


class RunFolder:
    """One run's folder, which no other process writes meanwhile. Every file and every line is written whole, so a
    reader or a crash never sees half a record. RunFolderError names a folder that another process has, that cannot be
    written or that is gone.

    On a full disk a run goes on without its logs, as it does without a checkpoint: lines of metrics.jsonl wait until
    there is room, other files are left out, and a warning says so.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(os.path.abspath(path))          # a reward may change the working directory
        self._waiting: list[bytes] = []                  # lines for which there was no room
        self._full = False                               # and that was said
        self._left: int | None = None                    # the size of metrics.jsonl at release(), where it was there
        self._made = not os.path.exists(self.path)
        self.aside: Path | None = None                   # where the run is now that was here before
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise ConfigError(f"output_dir={str(path)!r}: the folder cannot be made: {why}") from error
        self._claim: Claim | None = Claim(self.path)
        self._place = os.stat(self.path)
        _of_this_process.add(self)

    @classmethod
    def create(cls, output_dir: str | None, name: str) -> "RunFolder":
        """A folder for a new run: output_dir, from which a run that is there already is moved aside to the next free
        <output_dir>-<n>, or runs/<name>-<n>. Where another process writes output_dir the new run gets that name."""
        if output_dir is not None and (folder := cls._unused(Path(output_dir), moves=True)):
            return folder
        named = os.path.join("runs", re.sub(r"[^\w.-]+", "-", name))
        stem = os.path.abspath(named if output_dir is None else output_dir)
        number = 1 if output_dir is None else 2
        while os.path.lexists(f"{stem}-{number}") or (folder := cls._unused(Path(f"{stem}-{number}"))) is None:
            number += 1
        if output_dir is not None:
            say(f"{output_dir} is being written by another run; writing to {folder.path}")
        return folder

    @classmethod
    def _unused(cls, path: Path, moves: bool = False) -> "RunFolder | None":
        """The folder, claimed; None where another process's claim is in it, or a run that is not moved aside."""
        if holds_run(path) and not moves:
            return None
        try:
            folder = cls(path)
        except ClaimedError:
            return None
        if not holds_run(path):
            return folder
        try:
            if moves:
                folder._set_aside()
                return folder
        except BaseException:
            folder.release()
            raise
        folder.release()                     # another process was there, and is done
        return None

    def _set_aside(self) -> None:
        """Moves the run that is here to the next free number, with what it left beside it, and says so. RunFolderError
        where it cannot be moved; it is left as it was then."""
        self.aside = set_aside(self.path)
        for other in list(_of_this_process):
            if other is not self and other.path == self.path and other._claim is None:
                other.path, other._place = self.aside, os.stat(self.aside)
        say(f"{self.path} held a run already, which is in {self.aside} now")

    def claim(self) -> None:
        """Takes the folder again after release(). RunFolderError where another process has it, or has written it since
        then."""
        if self._claim is None:
            self.require()
            claim = Claim(self.path)
            if self._left is not None and self._logged() != self._left:
                claim.release()
                raise RunFolderError(f"{self.path / METRICS} has changed since this run left it: another one went on "
                                     "there; give resume_from_checkpoint to a new trainer")
            self._claim = claim

    def _logged(self) -> int | None:
        """The size of metrics.jsonl."""
        try:
            return os.stat(self.path / METRICS).st_size
        except OSError:
            return None

    def release(self) -> None:
        """Lets other processes write the folder."""
        if self._waiting and self._claim is not None:
            with contextlib.suppress(RunFolderError):    # the run has said so already
                self._write(METRICS, self._append_waiting, is_log=True)
        if self._claim is not None:
            self._left = self._logged()
            self._claim.release()
            self._claim = None

    def abandon(self) -> None:
        """The run does not begin: release(), a folder that was made for it goes, and a run that it moved aside comes
        back."""
        if self.aside is not None and not holds_run(self.path):
            with contextlib.suppress(OSError):
                move_run(self.aside, self.path)
                self.aside.rmdir()
            for other in list(_of_this_process):
                if other.path == self.aside:
                    other.path, other._place = self.path, self._place
        self.release()
        if self._made:
            with contextlib.suppress(OSError):           # something is in it
                self.path.rmdir()

    def require(self) -> None:
        """RunFolderError where the folder is not the one any more that the run began in."""
        try:
            same = os.path.samestat(os.stat(self.path), self._place)
        except OSError:
            same = False
        if not same:
            raise RunFolderError(f"the run folder {self.path} is gone: deleted, renamed or replaced during the run")

    def _write(self, name: str, write: Callable[[], Any], is_log: bool = False) -> None:
        """write(), its errors as RunFolderError that names what is written; a log for which there is no room is a
        warning, once until there is room again."""
        self.require()
        try:
            write()
            self._full = False
        except OSError as error:
            if not is_log or error.errno not in FULL:
                raise RunFolderError(f"{self.path / name} cannot be written: {error.strerror or error}") from error
            if not self._full:
                warn(f"{self.path / name} cannot be written: {error.strerror}; training goes on without logs")
            self._full = True

    @property
    def checkpoints(self) -> Path:
        """Where the run's checkpoints are."""
        return self.path / CHECKPOINTS

    def write_text(self, name: str, text: str) -> None:
        """Writes a file of the run, whole or not at all."""
        self._write(name, lambda: replace_text(self.path / name, text))

    def write_config(self, text: str) -> None:
        """Writes config.yaml."""
        self.write_text(CONFIG, text)

    def log(self, record: Mapping[str, Any]) -> None:
        """Appends one record to metrics.jsonl, behind those for which there was no room before."""
        self._waiting.append((to_json(record) + "\n").encode("utf-8"))
        self._write(METRICS, self._append_waiting, is_log=True)

    def _append_waiting(self) -> None:
        append(self.path / METRICS, b"".join(self._waiting))
        self._waiting.clear()

    def write_completions(self, name: str, records: Iterable[Mapping[str, Any]]) -> None:
        """completions/<name>.jsonl, one record a completion."""
        self._write_log(f"{COMPLETIONS}/{name}.jsonl", "".join(to_json(r) + "\n" for r in records))

    def write_evaluation(self, name: str, document: Mapping[str, Any]) -> Path:
        """eval/<name>.json: one round of evaluation (round_name, grpo.evaluation.records.document)."""
        return self._write_log(f"{EVALUATIONS}/{name}.json", to_json(document))

    def _write_log(self, name: str, text: str) -> Path:
        path = self.path / name

        def write() -> None:
            path.parent.mkdir(exist_ok=True)
            replace_text(path, text)

        self.write_log(name, write)
        return path

    def write_log(self, name: str, write: Callable[[], Any]) -> None:
        """write() makes the file of that name, which the run can do without where there is no room for it."""
        self._write(name, write, is_log=True)

    def history(self) -> list[dict[str, Any]]:
        """All records of metrics.jsonl."""
        return [line.record for line in self._lines()]

    def _lines(self) -> list[Line]:
        return read_metrics(self.path) if (self.path / METRICS).exists() else []

    def rewind(self, step: int) -> list[dict[str, Any]]:
        """Drops what was logged after a step, before the run continues from there. Returns what remains."""
        remaining = [line for line in self._lines() if line.record["step"] <= step]
        self._write(METRICS, lambda: replace_bytes(self.path / METRICS,
                                                   b"".join(line.text + b"\n" for line in remaining)))
        for path in [*(self.path / COMPLETIONS).glob("*.jsonl"), *(self.path / EVALUATIONS).glob("*-*.*")]:
            number = path.stem.rpartition("-")[2]
            if number.isdigit() and int(number) > step:
                self._write(str(path.relative_to(self.path)), path.unlink)
        return [line.record for line in remaining]


def round_name(prefix: str, step: int) -> str:
    """A round's name in eval/. prefix: of its numbers, "eval", or "eval_<data set>" where there are several.

    >>> round_name("eval", 40), round_name("eval_sums", 40)
    ('step-000040', 'eval_sums-000040')
    """
    return f"{SINGLE if prefix == 'eval' else prefix}-{step:06d}"


def replace_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all: aside, then renamed."""
    replace_bytes(path, text.encode("utf-8"))


def replace_bytes(path: Path, content: bytes) -> None:
    """replace_text of bytes."""
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


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
