"""What stops a run from outside: Ctrl-C and SIGTERM."""
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C stopped a run at once, or SIGTERM after the step at hand, with a checkpoint. run: its folder; checkpoint:
    its last checkpoint, or None."""

    def __init__(self, step: int, run: Path, last: Path | None):
        advice = f"continue with resume_from_checkpoint={str(last)!r}" if last else "there is no checkpoint yet"
        super().__init__(f"stopped after step {step} of {run}; {advice}")
        self.step, self.run, self.checkpoint = step, run, last

    def __reduce__(self) -> tuple[type, tuple[int, Path, Path | None]]:
        return type(self), (self.step, self.run, self.checkpoint)


@contextmanager
def sigterm() -> Iterator[list[int]]:
    """A list that is no longer empty once SIGTERM came. Only the main thread may ask; in another one SIGTERM ends the
    process as ever."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, before)
