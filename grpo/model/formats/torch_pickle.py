"""The pickles in files of torch.save, read without running anything.

Python's unpickler is not used: `pickletools` names the opcodes, and those that such files need are carried out here on
plain values. A pickle may name a few things of torch, which become descriptions of tensors; every other name, and
every opcode that could call or import, is refused.
"""
from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import IO, Any, NamedTuple

from ...errors import FileFormatError, UnsupportedModelError

MAX_OPCODES = 4_000_000                                  # a tensor takes about 40
TENSOR, PARAMETER = "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"
DICT = "collections OrderedDict"
STORAGES = {"Float": "F32", "Half": "F16", "BFloat16": "BF16", "Double": "F64", "Long": "I64", "Int": "I32",
            "Short": "I16", "Char": "I8", "Byte": "U8", "Bool": "BOOL"}              # dtypes as safetensors has them


class Name(NamedTuple):
    """Something that a pickle names, as "module name"."""

    text: str


class Storage(NamedTuple):
    """A run of numbers beside the pickle."""

    dtype: str
    key: str
    numel: int


class Tensor(NamedTuple):
    """A view of a storage; offset and stride count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def read_pickle(stream: IO[bytes], source: str) -> Any:
    """What the pickle that begins here describes: dicts, lists, tuples, texts, numbers, `Storage` and `Tensor`. The
    stream is left behind it. FileFormatError for what is damaged, UnsupportedModelError for what is none of these."""
    machine = _Machine(source)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if count == MAX_OPCODES:
                raise FileFormatError(f"{source}: a pickle of more than {MAX_OPCODES} opcodes")
            step = _STEPS.get(opcode.name)
            if step is None:
                raise UnsupportedModelError(f"{source}: the pickle's opcode {opcode.name} is none of a file of tensors")
            step(machine, argument)
        return machine.stack.pop()
    except (FileFormatError, UnsupportedModelError):
        raise
    except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError) as error:
        raise FileFormatError(f"{source}: the pickle is damaged: {error!s:.200}") from error


class _Machine:
    """The stack, the marks on it, and what was put aside."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def bad(self, why: str) -> FileFormatError:
        return FileFormatError(f"{self.source}: the pickle is damaged: {why}")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def above_mark(self) -> list[Any]:
        begin = self.marks.pop()
        items = self.stack[begin:]
        del self.stack[begin:]
        return items

    def name(self, text: str) -> None:
        """Any storage and the few functions; what else is named is refused, before anything is done with it."""
        if text not in (TENSOR, PARAMETER, DICT) and not _dtype_of(text):
            raise UnsupportedModelError(f"{self.source}: the pickle names {text.replace(' ', '.', 1)!r:.200}, which is "
                                        "not part of a tensor; nothing of it was run")
        self.push(Name(text))

    def stack_name(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if type(name) is not str or type(module) is not str:
            raise self.bad("a name is not text")
        self.name(f"{module} {name}")

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def tuple(self, size: int) -> None:
        if size > len(self.stack):
            raise self.bad("a tuple of more than there is")
        items = self.stack[-size:]
        del self.stack[-size:]
        self.push(tuple(items))

    def append(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise self.bad("appends to what is no list")
        self.stack[-1].extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise self.bad("sets items of what is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (str, int):              # hashing a deep tuple would end the process
                raise self.bad(f"a key of a dict is a {type(key).__name__}")
            target[key] = value

    def build(self) -> None:
        """Attributes: only an OrderedDict has some, the versions of modules, and they are let go."""
        self.stack.pop()
        if type(self.stack[-1]) is not dict:
            raise self.bad(f"sets attributes of a {type(self.stack[-1]).__name__}")

    def persistent(self) -> None:
        match self.stack.pop():
            case ("storage", Name(kind), str(key), str(), int(numel), *rest) if rest in ([], [None]) and numel >= 0:
                dtype = _dtype_of(kind)
                if dtype is None:
                    raise self.bad(f"a storage of kind {kind!r:.80}")
                self.push(Storage(dtype, key, numel))
            case _:
                raise self.bad("refers to what is no storage")

    def reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        match function, arguments:
            case Name(text), () if text == DICT:
                self.push({})
            case Name(text), (Tensor() as tensor, *_) if text == PARAMETER:
                self.push(tensor)
            case Name(text), (Storage() as storage, int(offset), tuple(shape), tuple(stride), *_) if text == TENSOR:
                if any(type(number) is not int or not 0 <= number < 1 << 63 for number in (offset, *shape, *stride)):
                    raise self.bad("an offset, size or stride is no count")
                self.push(Tensor(storage, offset, shape, stride))
            case _:
                raise self.bad("makes something from what it is not made of")


def _dtype_of(name: str) -> str | None:
    kind = name.removeprefix("torch ").removesuffix("Storage")
    return STORAGES.get(kind) if name == f"torch {kind}Storage" else None


def _pass(machine: _Machine, argument: Any) -> None:
    """PROTO, FRAME, STOP: nothing on the stack."""


_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), _pass),
    **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BININT", "BININT1", "BININT2", "LONG1",
                     "BINFLOAT"), _Machine.push),
    "NONE": lambda m, _: m.push(None),
    "NEWTRUE": lambda m, _: m.push(True),
    "NEWFALSE": lambda m, _: m.push(False),
    "EMPTY_DICT": lambda m, _: m.push({}),
    "EMPTY_LIST": lambda m, _: m.push([]),
    "EMPTY_TUPLE": lambda m, _: m.push(()),
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "TUPLE": lambda m, _: m.push(tuple(m.above_mark())),
    "TUPLE1": lambda m, _: m.tuple(1),
    "TUPLE2": lambda m, _: m.tuple(2),
    "TUPLE3": lambda m, _: m.tuple(3),
    "APPEND": lambda m, _: m.append([m.stack.pop()]),
    "APPENDS": lambda m, _: m.append(m.above_mark()),
    "SETITEM": lambda m, _: m.set_items([m.stack.pop(-2), m.stack.pop()]),
    "SETITEMS": lambda m, _: m.set_items(m.above_mark()),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda m, index: m.push(m.memo[index])),
    "MEMOIZE": lambda m, _: m.put(len(m.memo)),
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": lambda m, _: m.stack_name(),
    "BINPERSID": lambda m, _: m.persistent(),
    "REDUCE": lambda m, _: m.reduce(),
    "BUILD": lambda m, _: m.build(),
}
