"""Chat templates: Jinja text from a model's files, rendered as transformers renders it, by a process that has little
memory and little time (grpo/model/template_process.py).

One such process serves all templates. It starts with the first, and anew after a template that it did not survive.
"""
from __future__ import annotations

import atexit
import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

from ..errors import TokenizerError

MAX_TEMPLATE = 1 << 20                                   # characters of source
MAX_TEMPLATES = 64                                       # that a process keeps
MOST_SECONDS = 60.0                                      # until a reply: for a machine that is busy with other things
PROGRAM = Path(__file__).with_name("template_process.py")
START = ("import runpy, sys; from multiprocessing.connection import Connection; c = Connection(int(sys.argv[1])); "
         "sys.path[:] = c.recv(); runpy.run_path(sys.argv[2])['serve'](c)")
DONE, FAILED = b"d", b"f"                                # the first byte of a reply
PROBE = "Is this shown?"


class _Lost(Exception):
    """The process ended without a reply."""


class _Process:
    """The process that renders, and the sources that it knows."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._known: dict[str, str] = {}     # source: the names that it reads, one a line

    def variables(self, source: str) -> str:
        """The names that a template reads, one a line. TokenizerError where it does not parse."""
        with self._lock:
            return self._compile(source)

    def render(self, source: str, messages: Sequence[Mapping[str, Any]], variables: Mapping[str, Any]) -> str:
        """A template's text. TokenizerError with what it says, or that it takes too much."""
        try:
            request = pickle.dumps(("render", source, messages, variables))
        except Exception as error:
            raise TokenizerError(f"what it is given must be plain values: {error!s:.200}") from error
        with self._lock:
            self._compile(source)
            return self._ask(request)

    def stop(self) -> None:
        """Ends the process, whatever it is doing."""
        if self._process is not None:
            self._connection.close()
            self._process.kill()
            self._process.wait()
        self._process, self._known = None, {}

    def _start(self) -> None:
        self._connection, other = Pipe()
        with other:
            # What is preloaded into this process, a sanitiser's memory say, would count against the other's limits.
            environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
            # -P: a file of the working directory must not stand for a library.
            self._process = subprocess.Popen([sys.executable, "-P", "-c", START, str(other.fileno()), str(PROGRAM)],
                                             pass_fds=[other.fileno()], stdin=subprocess.DEVNULL, env=environment)
        self._connection.send([path or os.getcwd() for path in sys.path])

    def _compile(self, source: str) -> str:
        if source not in self._known:
            if self._process is None or len(self._known) >= MAX_TEMPLATES:
                self.stop()
                self._start()
            self._known[source] = self._ask(pickle.dumps(("compile", source)))
        return self._known[source]

    def _ask(self, request: bytes) -> str:
        try:
            self._connection.send_bytes(request)
            if not self._connection.poll(MOST_SECONDS):
                raise _Lost
            reply = self._connection.recv_bytes()
            if reply[:1] not in (DONE, FAILED):
                raise _Lost
        except (_Lost, EOFError, ConnectionError) as error:
            self.stop()
            raise TokenizerError("takes too much time or memory") from error
        except BaseException:                # also Ctrl-C: a late answer must not be taken for the next one's
            self.stop()
            raise
        if reply[:1] == FAILED:
            raise TokenizerError(reply[1:].decode())
        return reply[1:].decode("utf-8", "surrogatepass")


_process = _Process()
atexit.register(lambda: _process.stop())


def _forget() -> None:
    """A child of fork starts a process of its own: two askers on one pipe would get each other's answers."""
    global _process
    _process = _Process()


os.register_at_fork(after_in_child=_forget)


class ChatTemplate:
    """A template that parses; ``origin`` names the file it came from in errors."""

    def __init__(self, source: str, origin: str) -> None:
        self.source, self._origin = source, origin
        self._refusals: dict[bool, str] = {}               # of parts without images, and with them
        if len(source) > MAX_TEMPLATE:
            raise TokenizerError(f"{origin}: chat template of {len(source)} characters is over the limit of "
                                 f"{MAX_TEMPLATE}")
        try:
            self.variables = set(_process.variables(source).splitlines())           # names that it reads
        except TokenizerError as error:
            raise TokenizerError(f"{origin}: chat template does not parse: {error}") from error

    def render(self, messages: Sequence[Mapping[str, Any]], **variables: Any) -> str:
        """The prompt text; of an image part the template sees {"type": "image"}. TokenizerError with the template's own
        message when it refuses the conversation, and where it would pass over parts or images in silence."""
        messages = [plain_parts(message) for message in messages]
        listed = [message["content"] for message in messages if isinstance(message.get("content"), list)]
        images = any(part.get("type") == "image" for content in listed for part in content)
        if listed and (refusal := self._refusal(images, variables)):
            raise TokenizerError(f"{self._origin}: {refusal}")
        return self._render(messages, variables)

    def _refusal(self, images: bool, variables: Mapping[str, Any]) -> str:
        """Why the template cannot be given parts, or images among them; empty where it shows them, which is not how
        Python or JSON would write them."""
        if images not in self._refusals:
            text = [{"type": "text", "text": PROBE}]
            try:
                plain = shown = self._render([{"role": "user", "content": text}], variables)
                if images:
                    shown = self._render([{"role": "user", "content": [{"type": "image"}, *text]}], variables)
                why = "" if PROBE in shown and repr(PROBE) not in shown and json.dumps(PROBE) not in shown else "parts"
            except TokenizerError as error:
                plain, shown, why = "", "", f"parts ({error})"
            if why:
                why = f"the chat template takes the content of messages as text, not in {why}"
            elif images and shown == plain:
                why = "the chat template shows no images: it is that of a model of text"
            self._refusals[images] = why
        return self._refusals[images]

    def _render(self, messages: Sequence[Mapping[str, Any]], variables: Mapping[str, Any]) -> str:
        try:
            return _process.render(self.source, [{k: v for k, v in message.items() if v is not None}
                                                 for message in messages], variables)
        except TokenizerError as error:
            raise TokenizerError(f"{self._origin}: chat template: {error}") from error


def plain_parts(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """The message with every image part as {"type": "image"}, whatever it holds, and without what a table adds to parts
    that lack it: None. What the template's process is sent must be plain values."""
    content = message.get("content")
    return {**message, "content": [_plain_part(part) for part in content]} if isinstance(content, list) else message


def _plain_part(part: Any) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not isinstance(part, Mapping):
        raise TokenizerError(f"a part of a message is {type(part).__name__}, not a dict with a type")
    held = {name: value for name, value in part.items() if value is not None}
    kind = held.get("type", next((name for name in ("image", "image_url", "text") if name in held), None))
    if kind in ("image", "image_url"):
        return {"type": "image"}
    return {"type": kind, **held} if kind is not None else held
