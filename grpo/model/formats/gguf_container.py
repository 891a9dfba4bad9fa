"""The GGUF container: metadata and tensors of one file as it names them, read with limits.

Every count in the file is checked against what is left of the file before anything is made of it. Tensors are read into
owned memory one at a time and dequantised by the core.
"""
from __future__ import annotations

import math
import os
import struct
import sys
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from ... import _core
from ...errors import FileFormatError, UnsupportedModelError
from .stand_ins import LONGEST, refuse_stand_in

MAX_TENSORS, MAX_KEYS, MAX_STRING, MAX_ARRAY, MAX_HEADER = 1 << 20, 1 << 16, 16 << 20, 1 << 24, 512 << 20
# Bytes of the Python values that a header becomes: a vocabulary of 262,144 tokens with its merges takes about 95 MB.
MAX_VALUES = 144 << 20
NUMBER_SIZE, ARRAY_SIZE, TENSOR_SIZE = 40, 72, 400       # of each, with its place in a list or dict
LONG_STRING = 1 << 16                                    # is counted before it is made
MAX_NAME, MAX_DIMS, MAX_ALIGNMENT, MAX_NESTING = 64, 4, 1 << 20, 4
STRING, ARRAY, BOOL = 8, 9, 7
OLDER = {b"lmgg": "GGML", b"fmgg": "GGMF", b"tjgg": "GGJT", b"algg": "GGLA"}
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
# ggml's numbers of types. The core has the block sizes of those that it dequantises; the others are refused.
TYPES = {0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K",
         12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S",
         20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64",
         29: "IQ1_M", 30: "BF16", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4"}


class Tensor(NamedTuple):
    """Where a tensor lies in its file."""

    type: str
    shape: tuple[int, ...]                               # row-major, as PyTorch has it
    offset: int                                          # within the file
    bytes: int


class _Cursor:
    """Reads the header forward, a few MiB at a time."""

    def __init__(self, file: IO[bytes], size: int, source: str) -> None:
        self._file, self._size, self.source = file, size, source
        self._data, self._position, self._start = b"", 0, 0
        self._values = 0

    def tell(self) -> int:
        return self._start + self._position

    def remaining(self) -> int:
        return self._size - self.tell()

    def make(self, size: int) -> None:
        """Counts the memory of values before they are made. FileFormatError past MAX_VALUES."""
        self._values += size
        if self._values > MAX_VALUES:
            raise FileFormatError(f"{self.source}: the header's values take more than the limit of {MAX_VALUES} bytes")

    def need(self, count: int, what: str) -> None:
        if count > self.remaining():
            raise FileFormatError(f"{self.source}: ends inside {what}")
        if self.tell() + count > MAX_HEADER:
            raise FileFormatError(f"{self.source}: header is over the limit of {MAX_HEADER} bytes")
        if self._position + count > len(self._data):
            rest = self._data[self._position:]
            self._start, self._position = self.tell(), 0
            self._data = rest + self._file.read(max(count - len(rest), 4 << 20))
            if count > len(self._data):
                raise FileFormatError(f"{self.source}: ends inside {what}")

    def take(self, count: int, what: str) -> bytes:
        self.need(count, what)
        self._position += count
        return self._data[self._position - count:self._position]

    def number(self, code: str, what: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code), what))[0]

    def string(self, what: str, limit: int = MAX_STRING) -> str:
        length = self.number("Q", what)
        if length > limit:
            raise FileFormatError(f"{self.source}: {what} of {length} bytes is over the limit of {limit}")
        if length > LONG_STRING:
            self.make(4 * length)
        try:
            text = self.take(length, what).decode("utf-8")
        except UnicodeDecodeError as error:
            raise FileFormatError(f"{self.source}: {what} is not UTF-8") from error
        if length <= LONG_STRING:
            self.make(sys.getsizeof(text) + 8)
        return text

    def value(self, kind: int, what: str, depth: int = 0) -> Any:
        if kind == STRING:
            return self.string(what)
        if kind == ARRAY:
            return self._array(what, depth)
        if kind not in NUMBERS:
            raise FileFormatError(f"{self.source}: {what} has unknown value type {kind}")
        number = self.number(NUMBERS[kind], what)
        return bool(number) if kind == BOOL else number

    def _array(self, what: str, depth: int) -> list[Any]:
        kind, count = self.number("I", what), self.number("Q", what)
        smallest = {STRING: 8, ARRAY: 12}.get(kind) or (struct.calcsize("<" + NUMBERS[kind]) if kind in NUMBERS else 0)
        if not smallest:
            raise FileFormatError(f"{self.source}: {what} has unknown element type {kind}")
        if count > MAX_ARRAY or count * smallest > self.remaining():
            raise FileFormatError(f"{self.source}: {what} claims {count} elements; {self.remaining()} bytes are left, "
                                  f"the limit is {MAX_ARRAY}")
        if depth >= MAX_NESTING:
            raise FileFormatError(f"{self.source}: {what} nests arrays deeper than {MAX_NESTING}")
        self.make(ARRAY_SIZE + (count * NUMBER_SIZE if kind in NUMBERS else 8 * count))
        if kind in (STRING, ARRAY):
            return [self.value(kind, what, depth + 1) for _ in range(count)]
        return list(struct.unpack(f"<{count}{NUMBERS[kind]}", self.take(count * smallest, what)))


class GgufContainer:
    """One file: `metadata` (plain Python values) and `tensors`, by the names that the file gives them."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            self._file: IO[bytes] = open(self.path, "rb", buffering=0)
            self._size = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise FileFormatError(f"{self.path}: cannot be read: {error.strerror}") from error
        try:
            self.metadata, self.tensors = self._read_header()
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Closes the file; nothing can be read after it."""
        self._file.close()

    def read(self, name: str) -> np.ndarray:
        """A tensor's values, float32."""
        tensor = self.tensors[name]
        data = bytearray(tensor.bytes)
        view = memoryview(data)
        self._file.seek(tensor.offset)
        while len(view):
            count = self._file.readinto(view)  # type: ignore[attr-defined]
            if not count:
                raise FileFormatError(f"{self.path}: ends inside tensor {name}")
            view = view[count:]
        return _core.dequantize(tensor.type, data, math.prod(tensor.shape)).reshape(tensor.shape)

    def _read_header(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        refuse_stand_in(self._file.read(LONGEST), self.path)
        self._file.seek(0)
        cursor = _Cursor(self._file, self._size, str(self.path))
        magic = cursor.take(min(4, self._size), "the magic")
        if magic in OLDER:
            raise UnsupportedModelError(f"{self.path}: is of {OLDER[magic]}, the format before GGUF; convert it with "
                                        "llama.cpp's convert_llama_ggml_to_gguf.py, or take a .gguf of the same model")
        if self._size < 24 or magic not in (b"GGUF", b"FUGG"):
            raise FileFormatError(f"{self.path}: not a GGUF file")
        version = cursor.number("I", "the version")
        if not version & 0xFFFF or magic == b"FUGG":
            raise UnsupportedModelError(f"{self.path}: is a big-endian GGUF; turn its bytes with llama.cpp's "
                                        "gguf-py/gguf/scripts/gguf_convert_endian.py FILE little, or take the "
                                        "little-endian file of the same model")
        if version not in (2, 3):
            raise FileFormatError(f"{self.path}: GGUF version {version} is not supported; "
                                  "2 and 3 are")
        tensor_count, key_count = cursor.number("Q", "the tensor count"), cursor.number("Q", "the key count")
        if tensor_count > MAX_TENSORS or key_count > MAX_KEYS:
            raise FileFormatError(f"{self.path}: claims {tensor_count} tensors and {key_count} keys; "
                                  f"limits are {MAX_TENSORS} and {MAX_KEYS}")
        metadata: dict[str, Any] = {}
        for i in range(key_count):
            key = cursor.string(f"metadata key {i}", 65535)
            cursor.make(2 * ARRAY_SIZE)
            if key in metadata:
                raise FileFormatError(f"{self.path}: metadata key {key!r:.100} appears twice")
            metadata[key] = cursor.value(cursor.number("I", key), f"metadata {key!r:.100}")
        infos = [self._tensor_info(cursor, i) for i in range(tensor_count)]
        return metadata, self._place(infos, cursor.tell(), self._alignment(metadata))

    def _alignment(self, metadata: dict[str, Any]) -> int:
        value = metadata.get("general.alignment", 32)
        if type(value) is not int or not 1 <= value <= MAX_ALIGNMENT or value & (value - 1):
            raise FileFormatError(f"{self.path}: general.alignment {value!r:.40} is not a power of two "
                                  f"up to {MAX_ALIGNMENT}")
        return value

    def _tensor_info(self, cursor: _Cursor, i: int) -> tuple[str, Tensor]:
        name = cursor.string(f"name of tensor {i}", MAX_NAME)
        cursor.make(TENSOR_SIZE)
        rank = cursor.number("I", f"tensor {name!r}")
        if not 1 <= rank <= MAX_DIMS:
            raise FileFormatError(f"{self.path}: tensor {name!r}: {rank} dimensions; 1 to {MAX_DIMS} are possible")
        dims = struct.unpack(f"<{rank}Q", cursor.take(8 * rank, f"tensor {name!r}"))
        kind, offset = cursor.number("I", f"tensor {name!r}"), cursor.number("Q", f"tensor {name!r}")
        label = TYPES.get(kind)
        if label not in _core.block_formats:
            error = UnsupportedModelError if label else FileFormatError
            raise error(f"{self.path}: tensor {name!r}: type {label or kind} is not supported; "
                        f"supported: {', '.join(_core.block_formats)}")
        elements, size = _core.block_formats[label]
        if min(dims) < 1 or dims[0] % elements:
            raise FileFormatError(f"{self.path}: tensor {name!r}: dimensions {dims} are not whole {label} blocks "
                                  f"of {elements}")
        return name, Tensor(label, dims[::-1], offset, math.prod(dims) // elements * size)

    def _place(self, infos: list[tuple[str, Tensor]], end: int, alignment: int) -> dict[str, Tensor]:
        """Offsets from the start of the file, checked: aligned, inside, apart."""
        tensors: dict[str, Tensor] = {}
        data, reached = (end + alignment - 1) // alignment * alignment, 0
        for name, tensor in sorted(infos, key=lambda item: item[1].offset):
            if tensor.offset % alignment:
                raise FileFormatError(f"{self.path}: tensor {name!r}: offset {tensor.offset} is not a multiple "
                                      f"of {alignment}")
            if tensor.offset < reached:
                raise FileFormatError(f"{self.path}: tensor {name!r}: its data overlaps another's")
            reached = tensor.offset + tensor.bytes
            if data + reached > self._size:
                raise FileFormatError(f"{self.path}: tensor {name!r}: needs bytes up to {data + reached}, "
                                      f"the file has {self._size}")
            if name in tensors:
                raise FileFormatError(f"{self.path}: tensor {name!r} appears twice")
            tensors[name] = tensor._replace(offset=data + tensor.offset)
        return tensors
