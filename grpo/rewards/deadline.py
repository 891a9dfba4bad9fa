"""Calls that may take so long and no longer.

A function that another Python process can import is called there: one process a reward, started with its first call,
ended when a call overruns or when the function takes it down, and started anew for the next. What it prints appears as
usual; what it keeps in module globals stays with it. Everything else (closures, lambdas, functions of a script or a
notebook, methods) is called in a thread, which can only be left behind.
"""
import inspect
import pickle
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

START_SECONDS = 60.0                         # for a process to import the function
START = ("import sys; from multiprocessing.connection import Connection; c = Connection(int(sys.argv[1])); sys.path[:] "
         "= c.recv(); from grpo.rewards.worker import serve; serve(c)")


class WorkerError(Exception):
    """What went wrong in a reward's own process. kind: the name of the exception there."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind


class Worker:
    """A process that calls one function."""

    # both are there while the process is: from start() to stop()
    process: subprocess.Popen
    connection: Connection

    def __init__(self, function: Callable):
        self.place = (function.__module__, getattr(sys.modules[function.__module__], "__file__", None),
                      function.__qualname__)
        self.running = False

    def call(self, positional: list, named: dict[str, Any], tools: list[str],
             seconds: float | None) -> tuple[Any, list[tuple]]:
        """(result, what the function said to its tools). Raises TimeoutError, and WorkerError for what the function
        raised or did."""
        try:
            if not self.running:
                self.start()
            self.send((positional, named, tools))
            reply = self.reply(seconds)
        except BaseException:                # also Ctrl-C: a late answer must not be taken for the next one's
            self.stop()
            raise
        if reply[0] == "failed":
            raise WorkerError(*reply[1:])
        return reply[1:]

    def start(self) -> None:
        """Starts the process and waits until it has imported the function. Raises WorkerError where it cannot."""
        self.connection, other = Pipe()
        with other:
            self.process = subprocess.Popen([sys.executable, "-c", START, str(other.fileno())],
                                            pass_fds=[other.fileno()], stdin=subprocess.DEVNULL)
        self._finalizer = weakref.finalize(self, end, self.process, self.connection)
        self.running = True
        self.connection.send(sys.path)
        self.connection.send(self.place)
        reply = self.reply(START_SECONDS)
        if reply[0] == "failed":
            self.stop()
            raise WorkerError(reply[1], f"{reply[2]} (when its own process imported it)")

    def send(self, request: tuple) -> None:
        """Sends one request; WorkerError where an argument cannot be pickled."""
        try:
            self.connection.send(request)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            message = f"{error}: an argument cannot be sent to its process (mark it process=False)"
            raise WorkerError(type(error).__name__, message) from error

    def reply(self, seconds: float | None) -> tuple:
        """The process's next answer."""
        if not self.connection.poll(seconds):
            raise TimeoutError
        try:
            return self.connection.recv()
        except (EOFError, ConnectionError) as error:
            raise WorkerError("SystemExit", f"the function ended its process, {how(self.process.wait())}") from error

    def stop(self) -> None:
        """Ends the process, whatever it is doing."""
        if self.running:
            self._finalizer()
            self.running = False


def end(process: subprocess.Popen, connection: Connection) -> None:
    """Kills a process and closes our end of its pipe."""
    process.kill()
    process.wait()
    connection.close()


def how(code: int) -> str:
    """How a process ended, in words."""
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"


def why_here(function: Callable, asked: set[str]) -> str | None:
    """Why a function that asks for these arguments cannot be called in a process of its own; None when it can."""
    if inspect.iscoroutinefunction(function):
        return "it is a coroutine function"
    if not inspect.isfunction(function) or "<" in function.__qualname__:
        return "it is not a function at the top level of a module"
    module = sys.modules.get(function.__module__)
    if function.__module__ == "__main__" or module is None:
        return "it belongs to the script or notebook that runs; put it in a module of its own"
    if getattr(module, function.__qualname__, None) is not function:
        return f"{function.__module__}.{function.__qualname__} is another object"
    if unsendable := sorted(asked & {"embed", "tokenizer"}):
        return f"it asks for {unsendable[0]}, which only this process has"
    return None


def in_thread(seconds: float | None, call: Callable) -> Any:
    """call(), or TimeoutError after so many seconds; a call that overruns is left behind in its thread."""
    if seconds is None:
        return call()
    outcome: list = []

    def target() -> None:
        try:
            outcome.append((call(), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise TimeoutError
    value, error = outcome[0]
    if error is not None:
        raise error
    return value
