"""The GGUF container written: metadata, and tensors one after another, each let go before the next is asked for."""
from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any, NamedTuple

import numpy as np

from ... import _core
from ...errors import FileFormatError
from .gguf_container import ARRAY, BOOL, NUMBERS, STRING, TYPES

VERSION, ALIGNMENT = 3, 32
U32, I32, F32 = 4, 5, 6                                  # what integers, integers of arrays and floats are written as


class Written(NamedTuple):
    """A tensor to be written: its name there, its type (of TYPES), its shape, row-major, and how its values are had."""

    name: str
    type: str
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]                       # float32

    @property
    def bytes(self) -> int:
        """In the file, without what it is padded with."""
        elements, size = _core.block_formats[self.type]
        return math.prod(self.shape) // elements * size


def write_gguf(file: IO[bytes], metadata: Mapping[str, Any], tensors: Sequence[Written],
               wrote: Callable[[int], None] = lambda size: None) -> None:
    """One file. Values of metadata are str, bool, int, float and lists of one of these; ``wrote`` is told the bytes of
    each tensor. FileFormatError naming a tensor whose numbers its type cannot hold."""
    file.write(_header(metadata, tensors))
    for tensor in tensors:
        array = tensor.read()
        if array.shape != tensor.shape:
            raise FileFormatError(f"tensor {tensor.name} has shape {array.shape}, not {tensor.shape}")
        try:
            blocks = _core.quantize(tensor.type, np.ascontiguousarray(array, np.float32).reshape(-1))
        except FileFormatError as error:
            raise FileFormatError(f"tensor {tensor.name}: {error}, {_largest(array):g} among them; write bf16 or f32") \
                from error
        file.write(blocks.data)
        file.write(b"\0" * (-blocks.nbytes % ALIGNMENT))
        wrote(blocks.nbytes)
        del array, blocks


def _largest(array: np.ndarray) -> float:
    """The number furthest from 0; NaN and infinity before all others."""
    odd = array[~np.isfinite(array)]
    return float(odd[0] if odd.size else array.reshape(-1)[np.abs(array).argmax()])


def size_of(metadata: Mapping[str, Any], tensors: Sequence[Written]) -> int:
    """Bytes of the file that write_gguf writes."""
    return len(_header(metadata, tensors)) + sum(_padded(tensor.bytes) for tensor in tensors)


def _header(metadata: Mapping[str, Any], tensors: Sequence[Written]) -> bytes:
    codes = {name: number for number, name in TYPES.items()}
    parts = [b"GGUF", struct.pack("<IQQ", VERSION, len(tensors), len(metadata))]
    for key, value in metadata.items():
        parts += [_string(key), *_value(value, U32)]
    offset = 0
    for tensor in tensors:
        dims = tensor.shape[::-1]
        parts += [_string(tensor.name), struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, codes[tensor.type], offset)]
        offset += _padded(tensor.bytes)
    header = b"".join(parts)
    return header + b"\0" * (-len(header) % ALIGNMENT)


def _value(value: Any, integer: int) -> Iterator[bytes]:
    """The type's number and the value. integer: the type of integers."""
    if isinstance(value, list):
        kind = _kind(value[0], I32) if value else STRING
        yield struct.pack("<IIQ", ARRAY, kind, len(value))
        yield b"".join(map(_string, value)) if kind == STRING else struct.pack(f"<{len(value)}{NUMBERS[kind]}", *value)
        return
    kind = _kind(value, integer)
    yield struct.pack("<I", kind)
    yield _string(value) if kind == STRING else struct.pack("<" + NUMBERS[kind], value)


def _kind(value: Any, integer: int) -> int:
    return {str: STRING, bool: BOOL, float: F32, int: integer}[type(value)]


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _padded(size: int) -> int:
    return (size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
