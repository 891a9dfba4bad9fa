"""The other end of grpo.rewards.deadline: a process that imports one reward and answers calls of it until its pipe
closes."""
import importlib
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ..options import load_file
from .values import plain


def serve(connection: Connection) -> None:
    """Sends ("ready",), then for each (positional, named, tools) what answer() makes of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)             # Ctrl-C is the parent's, which then ends this process
    try:
        function = find(*connection.recv())
        connection.send(("ready",))
    except BaseException as error:
        connection.send(("failed", type(error).__name__, str(error)))
        return
    while True:
        try:
            positional, named, tools = connection.recv()
        except EOFError:
            return
        reply = answer(function, positional, named, tools)
        try:
            connection.send(reply)
        except Exception as error:                           # a result that cannot be pickled
            connection.send(("failed", type(error).__name__, str(error)))


def find(module: str, file: str | None, name: str) -> Callable:
    """The function, by import or, where its module was loaded from a file, from that file."""
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError:
        if file is None:
            raise
        found = load_file(Path(file), "reward")
    return getattr(found, name)


def answer(function: Callable, positional: list, named: dict[str, Any], tools: list[str]) -> tuple:
    """("done", result, said) or ("failed", kind, message) of one call. tools: which of log_extra and log_metric the
    function wants; said: what it gave them."""
    said: list[tuple] = []
    for tool in tools:
        convert: Callable[[Any], Any] = list if tool == "log_extra" else float
        named[tool] = lambda name, value, tool=tool, convert=convert: said.append((tool, name, convert(value)))
    try:
        return "done", plain(function(*positional, **named)), said
    except BaseException as error:
        return "failed", type(error).__name__, str(error)
