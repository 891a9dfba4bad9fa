"""A second thread at a known moment of a call: when the core has let go of the GIL, and at no other."""
import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

NEVER = 3600.0  # seconds after which Python takes the GIL from a thread that keeps it: longer than any test
REPEATS = 100_000  # of a call that Ctrl-C does not end; whether it does is seen in the first few


@contextmanager
def once_the_gil_is_free(action: Callable[[], None]) -> Iterator[threading.Event]:
    """Runs `action` in a second thread. That one waits for the GIL, which Python does not take from this thread: it
    gets it when this thread gives it up by itself, inside of a call. The event says that the action has run."""
    go, done = threading.Event(), threading.Event()

    def wait():
        go.wait()
        action()
        done.set()

    thread, interval = threading.Thread(target=wait, daemon=True), sys.getswitchinterval()
    sys.setswitchinterval(NEVER)
    try:
        thread.start()
        go.set()
        yield done
    finally:
        sys.setswitchinterval(interval)
        thread.join()


def interrupt(call: Callable[[], object]) -> None:
    """Ctrl-C in the middle of `call`, a function of the core with its arguments bound: KeyboardInterrupt, and by the
    core's own look at the signals. Python's look is kept out, since the call is repeated without one step of bytecode
    until it is interrupted; so it does not matter how long a call takes, and one that is deaf to signals returns and is
    counted."""
    returned: list[type] = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background starts with it ignored
    try:
        with pytest.raises(KeyboardInterrupt), once_the_gil_is_free(lambda: os.kill(os.getpid(), signal.SIGINT)):
            returned.extend(map(type, itertools.starmap(call, itertools.repeat((), REPEATS))))
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(returned) < REPEATS, "the call does not look at signals"
