"""What stops a run from outside: Ctrl-C, SIGTERM and SIGHUP."""
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FINISH, LEAVE, OUTSIDE, WAIT = "finish", "leave", "outside", "wait"
PATIENCE = 10.0                              # seconds that SIGTERM and SIGHUP leave to a reward


class TrainingInterrupted(KeyboardInterrupt):
    """A run was stopped, after the step at hand and with a checkpoint, or at once by a second Ctrl-C. run: its folder;
    checkpoint: its last checkpoint, or None."""

    def __init__(self, step: int, run: Path, last: Path | None):
        advice = f"continue with resume_from_checkpoint={str(last)!r}" if last else "there is no checkpoint yet"
        super().__init__(f"stopped after step {step} of {run}; {advice}")
        self.step, self.run, self.checkpoint = step, run, last

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.step, self.run, self.checkpoint)


class Signals:
    """Ctrl-C, SIGTERM and SIGHUP of a run. While a step is taken (finishing) they are noted, and a second Ctrl-C is a
    KeyboardInterrupt; where nothing would be lost (leaving) the first one is. Between two steps of a loop over the
    trainer (outside) Ctrl-C belongs to the loop. Inside of held() nothing is raised: what moves there moves together.

    Code of the user's may hang (waiting): SIGTERM and SIGHUP, which come from those who will not ask twice, leave it
    `patience` seconds.

    Signals that the process ignores, as SIGHUP under nohup, and a Ctrl-C with a handler of its own are left alone. Only
    the main thread may ask; in another one they do what they ever do."""

    def __init__(self) -> None:
        self.came: list[int] = []            # noted, and not acted on
        self.hurry = False                   # a second Ctrl-C came: leave without saving
        self.patience = PATIENCE
        self._mode = LEAVE
        self._before: dict[int, Any] = {}    # handlers to put back; empty while nothing is watched
        self._held = 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Inside of it signals are noted. What was noted and not acted on is sent again at its end."""
        if self._before or threading.current_thread() is not threading.main_thread():
            yield
            return
        self.came, self.hurry, self._mode = [], False, LEAVE
        try:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                before = signal.getsignal(number)
                if before is None or before is signal.SIG_IGN:
                    continue
                if number == signal.SIGINT and before is not signal.default_int_handler:
                    continue
                self._before[number] = before
                signal.signal(number, self._note)
            yield
        finally:
            for restored, handler in self._before.items():
                signal.signal(restored, handler)
            self._before = {}
            if self.came:
                signal.raise_signal(self.came.pop())

    def _note(self, number: int, frame: Any) -> None:
        mode = FINISH if self._held else self._mode
        if mode == OUTSIDE and number == signal.SIGINT:
            raise KeyboardInterrupt
        again = number == signal.SIGINT and bool(self.came)
        self.hurry = self.hurry or again
        self.came.append(number)
        if not self._held and (again or mode == LEAVE):
            raise KeyboardInterrupt
        if mode == WAIT and number != signal.SIGINT:
            signal.setitimer(signal.ITIMER_REAL, self.patience)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """What may never come back."""
        if not self._before:
            yield
            return

        def give_up(number: int, frame: Any) -> None:
            raise KeyboardInterrupt

        handler, timer = signal.signal(signal.SIGALRM, give_up), signal.getitimer(signal.ITIMER_REAL)
        try:
            with self._as(WAIT):
                if any(number != signal.SIGINT for number in self.came):
                    signal.setitimer(signal.ITIMER_REAL, self.patience)
                yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, handler)
            signal.setitimer(signal.ITIMER_REAL, *timer)

    @contextmanager
    def _as(self, mode: str) -> Iterator[None]:
        before, self._mode = self._mode, mode
        try:
            yield
        finally:
            self._mode = before

    @contextmanager
    def finishing(self) -> Iterator[None]:
        """What is begun in it is brought to its end, unless Ctrl-C comes twice."""
        with self._as(FINISH):
            yield

    @contextmanager
    def leaving(self) -> Iterator[None]:
        """What may be left at any moment, and is not begun where a signal came before."""
        with self._as(LEAVE):
            if self.came:
                raise KeyboardInterrupt
            yield

    @contextmanager
    def outside(self) -> Iterator[None]:
        """The body of a loop over the trainer; that of train() is part of what is finished."""
        with self._as(OUTSIDE if self._mode == LEAVE else self._mode):
            yield

    @contextmanager
    def held(self) -> Iterator[None]:
        """No signal is an exception inside of it; a second Ctrl-C is one at its end."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        if self.hurry and not self._held:
            raise KeyboardInterrupt

    def acted_on(self) -> None:
        """The run stops for what came."""
        self.came = []
