"""The process that renders chat templates for grpo.model.chat. It imports the standard library and jinja2 alone.

A template is somebody else's program. jinja2's sandbox keeps it away from Python; it does not stop a loop in a loop, a
string doubled forty times, or the text of a list that holds itself a thousand times a thousand times. So it is bounded
twice. The parsed template is instrumented: every iteration, call and piece of output is counted, and what could make
something huge in one operation is bounded or not there; that gives errors which say what is wrong, the same on any
machine. What is left, whatever it is, runs into this process's limits of memory and processor time.
"""
from __future__ import annotations

import json
import pickle
import re
import resource
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from datetime import datetime
from multiprocessing.connection import Connection
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import do_indent
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter, SecurityError

MAX_OUTPUT = 16 << 20                                    # characters in all, captured blocks and macros included
MAX_VALUE = 4 << 20                                      # length of any one string or list on the way
MAX_MADE = 256 << 20                                     # of all of them together
MAX_STEPS = 50_000                                       # iterations and calls
MAX_NUMBER = 1000                                        # of indents and format widths
MAX_ERROR = 1000                                         # characters of an error's text
# Of one request, beyond what the process takes without one, and for each byte of the conversation.
MEMORY, MEMORY_A_BYTE = 160 << 20, 16
SECONDS, SECONDS_A_BYTE = 0.4, 1e-7
DONE, FAILED = b"d", b"f"                                # the first byte of a reply; a text follows
FILTERS = ("abs", "attr", "batch", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "filesizeformat",
           "first", "float", "forceescape", "groupby", "int", "items", "last", "length", "list", "lower", "map", "max",
           "min", "pprint", "reject", "rejectattr", "reverse", "round", "safe", "select", "selectattr", "slice", "sort",
           "string", "striptags", "sum", "title", "trim", "truncate", "unique", "upper", "urlencode", "wordcount",
           "wordwrap")
PADDING = ("center", "expandtabs", "ljust", "rjust", "zfill")        # methods of a text whose first argument is a width
LOCALS = ("_loop_vars", "_block_vars")
UNBOUNDED = ("format", "format_map", "translate")        # of a text that has no bounded method in their place
PERCENT = re.compile(r"%(?:\([^()]*\))?[-#0 +]*(\*|\d*)(?:\.(\*|\d*))?")


class Budget:
    """What one rendering may spend."""

    def __init__(self) -> None:
        self.steps, self.output, self.made = MAX_STEPS, MAX_OUTPUT, MAX_MADE

    def step(self) -> None:
        """One more iteration or call. SecurityError past MAX_STEPS."""
        self.steps -= 1
        if self.steps < 0:
            raise SecurityError(f"runs for more than {MAX_STEPS} steps")

    def make(self, length: int) -> None:
        """One more value of this length. SecurityError past MAX_VALUE, or past MAX_MADE in all."""
        self.made -= length
        if length > MAX_VALUE or self.made < 0:
            raise SecurityError(f"makes a value longer than {MAX_VALUE}, or more than {MAX_MADE} in all")

    def emit(self, text: str) -> str:
        """The text, counted as output. SecurityError past MAX_OUTPUT."""
        self.output -= len(text)
        if self.output < 0:
            raise SecurityError(f"writes more than {MAX_OUTPUT} characters")
        return text


_budget: ContextVar[Budget] = ContextVar("budget")


def _bounded(value: Any) -> Any:
    if isinstance(value, (str, bytes, list, tuple)):
        _budget.get().make(len(value))
    return value


def _counted(items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        _budget.get().step()
        yield item


def _emitted(value: Any) -> Any:
    return _budget.get().emit(value if isinstance(value, str) else str(value))


def _join(items: Iterable[Any], separator: str = "", attribute: Any = None) -> str:
    if attribute is not None:
        raise SecurityError("join with an attribute is not supported; use map(attribute=...) | join")
    texts = [str(item) for item in _counted(items)]
    _budget.get().make(sum(map(len, texts)) + len(separator) * len(texts))
    return separator.join(texts)


def _replace(text: Any, old: str, new: str, count: int = -1) -> str:
    text = str(text)
    _budget.get().make(len(text) + (text.count(old) if count < 0 else count) * len(new))
    return text.replace(old, new, count)


def _indent(text: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    size = len(width) if isinstance(width, str) else width
    if size > MAX_NUMBER:
        raise SecurityError(f"indent: width {size} is over {MAX_NUMBER}")
    _budget.get().make(len(text) + (text.count("\n") + 1) * size)
    return do_indent(text, width, first, blank)


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None,
            sort_keys: bool = False) -> str:
    """No HTML escaping, unlike Jinja's own filter: that is what models were trained on."""
    if isinstance(indent, str) or (indent or 0) > MAX_NUMBER:
        raise SecurityError(f"tojson: indent is a number up to {MAX_NUMBER}")
    return _bounded(json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                               sort_keys=sort_keys))


def _width(value: Any, what: str) -> None:
    """SecurityError for a width over MAX_NUMBER."""
    if isinstance(value, int) and value > MAX_NUMBER:
        raise SecurityError(f"{what}: width {value!r:.20} is over {MAX_NUMBER}")


def _center(text: Any, width: int = 80) -> str:
    _width(width, "center")
    return str(text).center(width)


def _percent(text: Any, *values: Any, **named: Any) -> str:
    """Python's % formatting, each width and precision up to MAX_NUMBER."""
    text = str(text)
    for widths in PERCENT.findall(text):
        for width in widths:
            if width == "*":
                raise SecurityError("% formatting: a width is a number in the text, not *")
            _width(int(width[:9] or 0), "% formatting")
    return _bounded(text % (named or values))


class _Formatter(SandboxedFormatter):
    """str.format, each width and precision up to MAX_NUMBER."""

    def format_field(self, value: Any, format_spec: str) -> Any:
        for width in re.findall(r"\d+", format_spec):
            _width(int(width[:9]), "format")
        return _bounded(super().format_field(value, format_spec))


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


class _GenerationTag(Extension):
    """{% generation %}…{% endgeneration %} marks the assistant's words for training masks; here it is its body."""

    tags = {"generation"}

    def parse(self, parser: jinja2.parser.Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"*", "**", "%", "+"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols])
        self.filters = {name: self.filters[name] for name in FILTERS}
        self.filters |= {"join": _join, "replace": _replace, "indent": _indent, "tojson": _tojson,
                         "format": _percent, "center": _center, "_bounded": _bounded, "_counted": _counted,
                         "_emitted": _emitted}
        self.globals = {name: self.globals[name] for name in ("range", "dict", "namespace", "cycler", "joiner")}
        self.globals |= {"raise_exception": _raise_exception,
                         "strftime_now": lambda form: datetime.now().strftime(form)}

    def call(self, context: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        _budget.get().step()
        owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
        if isinstance(function, LoopContext) and args:
            args = (_counted(args[0]), *args[1:])
        elif isinstance(owner, (str, bytes)):
            if name == "join" and isinstance(owner, str):
                items = list(_counted(args[0]))
                _budget.get().make(sum(map(len, items)) + len(owner) * len(items))
                return owner.join(items)
            if name == "replace":
                # In loops and blocks jinja2 hands on what is set there, for functions that take a context.
                return _replace(owner, *args, **{k: v for k, v in kwargs.items() if k not in LOCALS})
            if name in PADDING and args:
                _width(args[0], name)
        return _bounded(super().call(context, function, *args, **kwargs))

    def is_safe_attribute(self, owner: Any, name: str, value: Any) -> bool:
        unbounded = isinstance(owner, (str, bytes)) and name in UNBOUNDED
        return not unbounded and super().is_safe_attribute(owner, name, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """A bounded method in place of str.format and str.format_map."""
        text, name = getattr(value, "__self__", None), getattr(value, "__name__", "")
        if type(text) is not str or name not in ("format", "format_map"):
            return None
        formatter = _Formatter(self)
        if name == "format":
            return lambda *values, **named: formatter.vformat(text, values, named)
        return lambda named: formatter.vformat(text, (), named)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "*":
            for sequence, count in ((left, right), (right, left)):
                if isinstance(sequence, (str, list, tuple)) and isinstance(count, int):
                    _budget.get().make(len(sequence) * count)
        if operator == "%" and isinstance(left, str):
            return _percent(left, **right) if isinstance(right, dict) else \
                _percent(left, *(right if isinstance(right, tuple) else (right,)))
        if operator in ("*", "**") and isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length() * max(right, 1) if operator == "**" else left.bit_length() + right.bit_length()
            if bits > 4096:
                raise SecurityError("makes a number of more than 4096 bits")
        return _bounded(super().call_binop(context, operator, left, right))

    def instrument(self, source: str) -> nodes.Template:
        """The parsed template with every loop counted and every output, joined or captured text bounded."""
        def filtered(node: Any, name: str, at: nodes.Node) -> nodes.Filter:
            return nodes.Filter(node, name, [], [], None, None, lineno=at.lineno, environment=self)

        tree = self.parse(source)
        for output in list(tree.find_all(nodes.Output)):
            output.nodes = [filtered(nodes.Const(node.data, lineno=node.lineno, environment=self)
                                     if isinstance(node, nodes.TemplateData) else node, "_emitted", node)
                            for node in output.nodes]
        for loop in tree.find_all(nodes.For):
            loop.iter = filtered(loop.iter, "_counted", loop)
        for block in tree.find_all(nodes.AssignBlock):
            block.filter = filtered(block.filter, "_bounded", block)
        for concat in list(tree.find_all(nodes.Concat)):
            if len(concat.nodes) > 64:
                raise SecurityError("joins more than 64 values with ~")
            concat.nodes = [filtered(nodes.Concat(concat.nodes, lineno=concat.lineno, environment=self), "_bounded",
                                     concat)]
        return tree


def serve(connection: Connection) -> None:
    """Answers requests (compile, source) and (render, source, messages, variables) until the pipe closes: with the
    names that a template reads, one a line, or with the rendered text, or why there is none."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)         # Ctrl-C is the parent's, which then ends this process
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with open("/proc/self/statm", encoding="ascii") as file:
        own = int(file.read().split()[0]) * resource.getpagesize()
    environment = _Environment()
    templates: dict[str, jinja2.Template] = {}           # by their sources
    before = resource.getrlimit(resource.RLIMIT_AS)
    most = sys.maxsize if before[1] == resource.RLIM_INFINITY else before[1]
    while True:
        try:
            data = connection.recv_bytes()
        except (EOFError, ConnectionError):
            return
        resource.setrlimit(resource.RLIMIT_AS, (min(own + MEMORY + MEMORY_A_BYTE * len(data), most), before[1]))
        signal.setitimer(signal.ITIMER_PROF, SECONDS + SECONDS_A_BYTE * len(data))    # SIGPROF ends the process
        try:
            reply = DONE + _answer(environment, templates, *pickle.loads(data)).encode("utf-8", "surrogatepass")
        except (MemoryError, RecursionError) as error:
            reply = FAILED + f"takes too much memory: {type(error).__name__}".encode()
        except Exception as error:
            reply = FAILED + (str(error) or type(error).__name__)[:MAX_ERROR].encode("utf-8", "backslashreplace")
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, before)
        connection.send_bytes(reply)


def _answer(environment: _Environment, templates: dict[str, jinja2.Template], what: str, source: str,
            *arguments: Any) -> str:
    if what == "compile":
        tree = environment.instrument(source)
        variables = meta.find_undeclared_variables(tree)
        templates[source] = environment.from_string(tree)
        return "\n".join(sorted(variables))
    messages, variables = arguments
    _budget.set(Budget())
    return templates[source].render(messages=messages, **variables)
