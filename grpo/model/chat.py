"""Chat templates: Jinja text from a model's files, rendered as transformers renders it, by a process that has little
memory and little time (grpo/model/template_process.py).

One such process serves all templates. It starts with the first, and anew after a template that it did not survive.
"""
from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import re
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

from ..errors import TokenizerError, warn
from .chat_messages import REASONING, joined, plain, plain_message, shows_images, without_silent_calls

MAX_TEMPLATE = 1 << 20                                   # characters of source
MAX_TEMPLATES = 64                                       # that a process keeps
MOST_SECONDS = 60.0                                      # until a reply: for a machine that is busy with other things
PROGRAM = Path(__file__).with_name("template_process.py")
START = ("import runpy, sys; from multiprocessing.connection import Connection; c = Connection(int(sys.argv[1])); "
         "sys.path[:] = c.recv(); runpy.run_path(sys.argv[2])['serve'](c)")
DONE, FAILED = b"d", b"f"                                # the first byte of a reply
MARK = "\ue000END\ue000"                                # stands where a message that is gone on with ends
PROBE = "Is this shown?"
TEXT_PART = [{"type": "text", "text": PROBE}]
LISTED = re.compile(r"""["']text["']\s*:\s*["']""" + re.escape(PROBE))       # parts as Python or JSON writes them
CALL: dict[str, Any] = {"id": "abcdef123", "type": "function", "function": {"name": "f", "arguments": {}}}
ASKS_FOR_NONE = re.compile(r"(?:\bis(?:\s+not)?|[=!]=)\s+none\b", re.IGNORECASE)


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
        self._probes: dict[tuple[str, str], str | None] = {}         # by role and content
        self._said = False                                 # that texts are lost, or that they are not
        if len(source) > MAX_TEMPLATE:
            raise TokenizerError(f"{origin}: chat template of {len(source)} characters is over the limit of "
                                 f"{MAX_TEMPLATE}")
        try:
            self.variables = set(_process.variables(source).splitlines())           # names that it reads
        except TokenizerError as error:
            raise TokenizerError(f"{origin}: chat template does not parse: {error}") from error

    def render(self, messages: Sequence[Mapping[str, Any]], **variables: Any) -> str:
        """The prompt text; of an image part the template sees {"type": "image"}. Parts are joined where the template
        takes the content of such messages as text. TokenizerError with the template's own message when it refuses the
        conversation, for a part that is no text where it takes texts, and where it would pass over images in
        silence."""
        given = [plain_message(message, i) for i, message in enumerate(messages)]
        variables = plain(variables, f"{self._origin}: chat template")
        for i, message in enumerate(given):
            if not isinstance(message.get("content"), list):
                self._note_lost_text(message, variables)
            elif not self._takes_parts(message["role"], variables):
                given[i] = joined(message, i, self._origin)
            elif shows_images(message) and not self._shows_images(message["role"], variables):
                raise TokenizerError(f"{self._origin}: message {i}: the chat template shows no images: it is that of a "
                                     "model of text")
        return self._render(given, variables)

    def render_open(self, messages: Sequence[Mapping[str, Any]], field: str, **variables: Any) -> str:
        """As render, up to the end of a field of the last message, which is to be gone on with. TokenizerError where
        there is no such text, or the template does not show it."""
        last = plain_message(messages[-1], len(messages) - 1)
        value = last.get(field)
        if isinstance(value, list):
            texts = [part for part in value if isinstance(part.get("text"), str)] or [{}]
            value = texts[-1].get("text")
            texts[-1]["text"] = f"{value}{MARK} "
        elif isinstance(value, str):
            last |= {name: f"{value}{MARK} " for name in (REASONING if field in REASONING else (field,))
                     if last.get(name) == value}
        if not isinstance(value, str):
            raise TokenizerError(f"{self._origin}: continue_final_message: the last message has no text in "
                                 f"{field!r:.40}")
        text = self.render([*messages[:-1], last], **variables)
        end = text.rfind(MARK)
        if end < 0 or value.strip() not in text:
            raise TokenizerError(f"{self._origin}: continue_final_message: the chat template does not show "
                                 f"{field!r:.40} of the last message as it is")
        return text[:end] if text.startswith(f"{MARK} ", end) else text[:end].rstrip()

    def _takes_parts(self, role: str, variables: Mapping[str, Any]) -> bool:
        """Whether the template shows the text of parts, which is not how Python or JSON would write them. Where it
        refuses to say so for a role, it is as for users."""
        shown = self._probed(role, TEXT_PART, variables)
        if shown is None and self._probed(role, PROBE, variables) is None and role != "user":
            return self._takes_parts("user", variables)
        return shown is not None and PROBE in shown and not LISTED.search(shown)

    def _shows_images(self, role: str, variables: Mapping[str, Any]) -> bool:
        return self._probed(role, [{"type": "image"}, *TEXT_PART], variables) != \
            self._probed(role, TEXT_PART, variables)

    def _note_lost_text(self, message: Mapping[str, Any], variables: Mapping[str, Any]) -> None:
        """Says that a template of parts alone, which some models of images have, passes over texts."""
        if self._said or not message.get("content"):
            return
        self._said = True
        shown = self._probed("user", PROBE, variables)
        if shown is not None and PROBE not in shown and self._takes_parts("user", variables):
            warn(f"{self._origin}: the chat template passes over the content of messages that is text; give it in "
                 "parts: [{'type': 'text', 'text': ...}]")

    def _probed(self, role: str, content: Any, variables: Mapping[str, Any]) -> str | None:
        """What the template makes of a message of this role and content, where others need not stand before it; None
        where it refuses."""
        key = role, repr(content)
        if key not in self._probes:
            other = content if isinstance(content, str) else TEXT_PART
            user, probe = {"role": "user", "content": _without_probe(other)}, {"role": role, "content": content}
            call = {"role": "assistant", "content": "", "tool_calls": [CALL]}
            conversations: list[list[dict[str, Any]]] = {
                "user": [[probe], [{**user, "role": "system"}, probe]],
                "assistant": [[user, probe]],
                "tool": [[user, call, {**probe, "name": "f", "tool_call_id": CALL["id"]}], [user, call, probe]],
            }.get(role, [[probe, user], [user, probe]])
            self._probes[key] = None
            for conversation in conversations:
                with contextlib.suppress(TokenizerError):
                    self._probes[key] = self._render(conversation, variables)
                    break
        return self._probes[key]

    def _render(self, messages: Sequence[Mapping[str, Any]], variables: Mapping[str, Any]) -> str:
        try:
            if any("content" in message and message["content"] is None for message in messages):
                return self._with_silent_calls(messages, variables)
            return _process.render(self.source, messages, variables)
        except TokenizerError as error:
            raise TokenizerError(f"{self._origin}: chat template: {error}") from error

    def _with_silent_calls(self, messages: Sequence[Mapping[str, Any]], variables: Mapping[str, Any]) -> str:
        """Tool calls whose content is None, which some templates ask for and others print or stumble over: None where
        the template asks for it and prints none of it, else no content, else, where it shows calls, an empty one."""
        def rendered(content: Any) -> str | TokenizerError:
            try:
                return _process.render(self.source, without_silent_calls(messages, content), variables)
            except TokenizerError as error:
                return error

        absent = rendered(...)
        if ASKS_FOR_NONE.search(self.source):
            kept, most = rendered(None), absent.count("None") if isinstance(absent, str) else 0
            if isinstance(kept, str) and kept.count("None") <= most:
                return kept
        if isinstance(absent, TokenizerError) and "tool_calls" in self.source:
            empty = rendered("")
            absent = empty if isinstance(empty, str) else absent
        if isinstance(absent, TokenizerError):
            raise absent
        return absent


def _without_probe(content: Any) -> Any:
    return "1" if isinstance(content, str) else [{"type": "text", "text": "1"}]
