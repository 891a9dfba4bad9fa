"""GGUF: container, metadata and tensors of a llama, qwen2 or qwen3 model, as Hugging Face names and layouts.

Every count in the file is checked against what is left of the file before anything is made of it. Tensors are read into
owned memory one at a time and dequantised by the core.
"""
from __future__ import annotations

import math
import os
import re
import struct
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from ... import _core
from ...errors import FileFormatError, UnsupportedModelError
from ..architectures import gguf_config
from ..families import spec_of

MAX_TENSORS, MAX_KEYS, MAX_STRING, MAX_ARRAY, MAX_HEADER = 1 << 20, 1 << 16, 16 << 20, 1 << 24, 512 << 20
MAX_NAME, MAX_DIMS, MAX_ALIGNMENT, MAX_NESTING = 64, 4, 1 << 20, 4
STRING, ARRAY, BOOL = 8, 9, 7
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
TYPES = {0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24),
         8: ("Q8_0", 32, 34), 12: ("Q4_K", 256, 144), 14: ("Q6_K", 256, 210), 30: ("BF16", 1, 2)}   # id: (name, elements, bytes)
OTHER_TYPES = {10: "Q2_K", 11: "Q3_K", 13: "Q5_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL",
               21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M"}
NAMES = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight", "output.weight": "lm_head.weight"}
LAYER_NAMES = {"attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
               "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
               "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}


class Tensor(NamedTuple):
    type: str
    shape: tuple[int, ...]                               # row-major, as PyTorch has it
    offset: int                                          # within the file
    bytes: int


class _Cursor:
    """Reads the header forward, a few MiB at a time."""

    def __init__(self, file: IO[bytes], size: int, source: str) -> None:
        self._file, self._size, self.source = file, size, source
        self._data, self._position, self._start = b"", 0, 0

    def tell(self) -> int:
        return self._start + self._position

    def remaining(self) -> int:
        return self._size - self.tell()

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
        try:
            return self.take(length, what).decode("utf-8")
        except UnicodeDecodeError as error:
            raise FileFormatError(f"{self.source}: {what} is not UTF-8") from error

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
            raise FileFormatError(f"{self.source}: {what} claims {count} elements; {self.remaining()} bytes are left, the limit is {MAX_ARRAY}")
        if depth >= MAX_NESTING:
            raise FileFormatError(f"{self.source}: {what} nests arrays deeper than {MAX_NESTING}")
        if kind in (STRING, ARRAY):
            return [self.value(kind, what, depth + 1) for _ in range(count)]
        return list(struct.unpack(f"<{count}{NUMBERS[kind]}", self.take(count * smallest, what)))


class GgufFile:
    """One model file: `metadata` (plain Python values), `config` (Hugging Face keys), tensors by Hugging Face name."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.source = str(self.path)
        try:
            self._file: IO[bytes] = open(self.path, "rb", buffering=0)
            self._size = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise FileFormatError(f"{self.path}: cannot be read: {error.strerror}") from error
        try:
            self.metadata, self._tensors = self._read_header()
            self.config = self._read_config()
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        self._file.close()

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """By Hugging Face name."""
        return {name: tensor.shape for name, tensor in self._tensors.items() if name != "rope_freqs.weight"}

    def read(self, name: str) -> np.ndarray:
        """float32, q and k rows in Hugging Face order."""
        array = self._dequantized(name)
        permuted = re.fullmatch(r".*\.self_attn\.([qk])_proj\.(weight|bias)", name)
        if not permuted or self.config["model_type"] != "llama":
            return array
        heads = self.config["num_attention_heads" if permuted[1] == "q" else "num_key_value_heads"]
        if array.shape[0] % (2 * heads):
            raise FileFormatError(f"{self.path}: tensor {name}: {array.shape[0]} rows are not {heads} heads of pairs")
        # "llama" files rotate adjacent rows (2j, 2j + 1) of a head; Hugging Face rotates (j, j + D/2).
        pairs = array.reshape(heads, -1, 2, *array.shape[1:])
        return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(array.shape)

    def _dequantized(self, name: str) -> np.ndarray:
        tensor = self._tensors[name]
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
        cursor = _Cursor(self._file, self._size, self.source)
        if self._size < 24 or cursor.take(4, "the magic") != b"GGUF":
            raise FileFormatError(f"{self.path}: not a GGUF file")
        version = cursor.number("I", "the version")
        if version not in (2, 3):
            raise FileFormatError(f"{self.path}: GGUF version {version} (of a little-endian file) is not supported; 2 and 3 are")
        tensor_count, key_count = cursor.number("Q", "the tensor count"), cursor.number("Q", "the key count")
        if tensor_count > MAX_TENSORS or key_count > MAX_KEYS:
            raise FileFormatError(f"{self.path}: claims {tensor_count} tensors and {key_count} keys; limits are {MAX_TENSORS} and {MAX_KEYS}")
        metadata: dict[str, Any] = {}
        for i in range(key_count):
            key = cursor.string(f"metadata key {i}", 65535)
            if key in metadata:
                raise FileFormatError(f"{self.path}: metadata key {key!r:.100} appears twice")
            metadata[key] = cursor.value(cursor.number("I", key), f"metadata {key!r:.100}")
        infos = [self._tensor_info(cursor, i) for i in range(tensor_count)]
        return metadata, self._place(infos, cursor.tell(), self._alignment(metadata))

    def _alignment(self, metadata: dict[str, Any]) -> int:
        value = metadata.get("general.alignment", 32)
        if type(value) is not int or not 1 <= value <= MAX_ALIGNMENT or value & (value - 1):
            raise FileFormatError(f"{self.path}: general.alignment {value!r:.40} is not a power of two up to {MAX_ALIGNMENT}")
        return value

    def _tensor_info(self, cursor: _Cursor, i: int) -> tuple[str, Tensor]:
        name = cursor.string(f"name of tensor {i}", MAX_NAME)
        rank = cursor.number("I", f"tensor {name!r}")
        if not 1 <= rank <= MAX_DIMS:
            raise FileFormatError(f"{self.path}: tensor {name!r}: {rank} dimensions; 1 to {MAX_DIMS} are possible")
        dims = struct.unpack(f"<{rank}Q", cursor.take(8 * rank, f"tensor {name!r}"))
        kind, offset = cursor.number("I", f"tensor {name!r}"), cursor.number("Q", f"tensor {name!r}")
        if kind not in TYPES:
            error = UnsupportedModelError if kind in OTHER_TYPES else FileFormatError
            raise error(f"{self.path}: tensor {name!r}: type {OTHER_TYPES.get(kind, kind)} is not supported; "
                        f"supported: {', '.join(t[0] for t in TYPES.values())}")
        label, elements, size = TYPES[kind]
        if min(dims) < 1 or dims[0] % elements:
            raise FileFormatError(f"{self.path}: tensor {name!r}: dimensions {dims} are not whole {label} blocks of {elements}")
        return name, Tensor(label, dims[::-1], offset, math.prod(dims) // elements * size)

    def _place(self, infos: list[tuple[str, Tensor]], end: int, alignment: int) -> dict[str, Tensor]:
        """Offsets from the start of the file, checked: aligned, inside, apart."""
        data, tensors, reached = (end + alignment - 1) // alignment * alignment, {}, 0
        for name, tensor in sorted(infos, key=lambda item: item[1].offset):
            if tensor.offset % alignment:
                raise FileFormatError(f"{self.path}: tensor {name!r}: offset {tensor.offset} is not a multiple of {alignment}")
            if tensor.offset < reached:
                raise FileFormatError(f"{self.path}: tensor {name!r}: its data overlaps another's")
            reached = tensor.offset + tensor.bytes
            if data + reached > self._size:
                raise FileFormatError(f"{self.path}: tensor {name!r}: needs bytes up to {data + reached}, the file has {self._size}")
            hf_name = _hugging_face_name(name)
            if hf_name in tensors:
                raise FileFormatError(f"{self.path}: tensor {name!r} appears twice")
            tensors[hf_name] = tensor._replace(offset=data + tensor.offset)
        return tensors

    def _read_config(self) -> dict[str, Any]:
        embedding = self._tensors.get("model.embed_tokens.weight")
        if embedding is None or len(embedding.shape) != 2:
            raise FileFormatError(f"{self.path}: no token_embd.weight with two dimensions")
        divisors = self._dequantized("rope_freqs.weight") if "rope_freqs.weight" in self._tensors else None
        config = gguf_config(self.metadata, embedding.shape[0], "lm_head.weight" not in self._tensors, divisors, self.source)
        spec_of(config, self.source)
        return config


def _hugging_face_name(name: str) -> str:
    layer = re.fullmatch(r"blk\.(\d{1,6})\.(\w+)\.(weight|bias)", name)
    if layer and layer[2] in LAYER_NAMES:
        return f"model.layers.{int(layer[1])}.{LAYER_NAMES[layer[2]]}.{layer[3]}"
    return NAMES.get(name, name)
