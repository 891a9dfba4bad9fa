"""safetensors: an own reader that trusts nothing, and a writer.

The reader reads into memory that it owns: a file cut short under a mapping would kill the process, here it is an error.
Own code because bfloat16 must arrive as it is (uint16 bits), and because what a header may claim has to be bounded.
"""
from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from ...errors import ConfigError, FileFormatError, UnsupportedModelError
from .stand_ins import LONGEST, refuse_stand_in, there
from .strict_json import parse_object, read_object

MAX_HEADER, MAX_TENSORS, MAX_RANK, MAX_NAME = 100_000_000, 200_000, 8, 1024
INDEX_FILE, SINGLE_FILE = "model.safetensors.index.json", "model.safetensors"
BITS = {"BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
        "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
        "C64": 64}
ADAPTER = "adapter_model.safetensors"
ADAPTER_ALONE = (f"has {ADAPTER} alone, which is a PEFT adapter without its adapter_config.json, not a model: load the "
                 "model that it is for, or merge the two with peft (merge_and_unload) and give the folder saved then")
SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
READABLE = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "F64": "<f8"}
WRITABLE = {"float32": "F32", "bfloat16": "BF16"}


class Entry(NamedTuple):
    """Where a tensor lies in its file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int                                  # offsets within the file, not within the data section
    end: int


class SafetensorsFile:
    """One file: `entries` by name, `read` one tensor at a time. Raises FileFormatError naming the file and the
    tensor."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            self._file: IO[bytes] = open(self.path, "rb", buffering=0)
            self._size = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise FileFormatError(f"{self.path}: cannot be read: {error.strerror}") from error
        try:
            self.entries = self._read_header()
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Closes the file; nothing can be read after it."""
        self._file.close()

    def read(self, name: str) -> np.ndarray:
        """float32, float16, or uint16 holding bfloat16 bits; float64 is rounded to float32."""
        entry = self.entries[name]
        if entry.dtype not in READABLE:
            raise UnsupportedModelError(f"{self.path}: tensor {name} has dtype {entry.dtype}; readable: "
                                        f"{', '.join(READABLE)}")
        array = np.empty(entry.shape, np.dtype(READABLE[entry.dtype]))
        self._read_into(array.data.cast("B") if array.size else memoryview(b""), entry.begin, name)
        if entry.dtype == "F64":
            return array.astype(np.float32)
        return array.astype(array.dtype.newbyteorder("="), copy=False)

    def _read_into(self, view: memoryview, offset: int, what: str) -> None:
        self._file.seek(offset)
        while len(view):
            count = self._file.readinto(view)  # type: ignore[attr-defined]
            if not count:
                raise FileFormatError(f"{self.path}: ends inside {what}")
            view = view[count:]

    def _read_header(self) -> dict[str, Entry]:
        refuse_stand_in(self._file.read(LONGEST), self.path)
        if self._size < 8:
            raise FileFormatError(f"{self.path}: {self._size} bytes are too few for a safetensors file")
        prefix = bytearray(8)
        self._read_into(memoryview(prefix), 0, "the header length")
        length = int.from_bytes(prefix, "little")
        if length > MAX_HEADER or length > self._size - 8:
            raise FileFormatError(f"{self.path}: header of {length} bytes does not fit (file {self._size}, limit "
                                  f"{MAX_HEADER})")
        header = bytearray(length)
        self._read_into(memoryview(header), 8, "the header")
        if header[:1] != b"{":
            raise FileFormatError(f"{self.path}: header does not begin with '{{'")
        tensors = parse_object(bytes(header), str(self.path))
        metadata = tensors.pop("__metadata__", {})
        if not isinstance(metadata, dict) or any(type(value) is not str for value in metadata.values()):
            raise FileFormatError(f"{self.path}: __metadata__ must map strings to strings")
        if len(tensors) > MAX_TENSORS:
            raise FileFormatError(f"{self.path}: {len(tensors)} tensors are more than the limit of {MAX_TENSORS}")
        start = 8 + length
        entries = {name: self._entry(name, value, start) for name, value in tensors.items()}
        self._check_layout(entries, start)
        return entries

    def _entry(self, name: str, value: Any, start: int) -> Entry:
        def bad(why: str) -> FileFormatError:
            return FileFormatError(f"{self.path}: tensor {name!r:.200}: {why}")

        if why := fault_of_name(name):
            raise bad(why)
        if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
            raise bad("needs exactly dtype, shape and data_offsets")
        dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
        if not isinstance(dtype, str) or dtype not in BITS:
            raise bad(f"unknown dtype {dtype!r:.40}")
        if not _is_counts(shape) or len(shape) > MAX_RANK:
            raise bad(f"shape must be at most {MAX_RANK} non-negative integers")
        if not _is_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
            raise bad("data_offsets must be two non-negative integers, the first not above the second")
        if math.prod(shape) * BITS[dtype] != (offsets[1] - offsets[0]) * 8:
            raise bad(f"shape {shape!r:.100} of {dtype} does not take {offsets[1] - offsets[0]} bytes")
        return Entry(dtype, tuple(shape), start + offsets[0], start + offsets[1])

    def _check_layout(self, entries: dict[str, Entry], position: int) -> None:
        for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
            if entry.begin != position:
                raise FileFormatError(f"{self.path}: tensor {name!r:.200}: its data overlaps another's or leaves a "
                                      "hole before it")
            position = entry.end
        if position != self._size:
            raise FileFormatError(f"{self.path}: header describes {position} bytes, the file has {self._size}")


def fault_of_name(name: str) -> str | None:
    """Why no tensor can have this name; None where one can."""
    try:
        too_long = len(name.encode()) > MAX_NAME
    except UnicodeEncodeError:
        return "its name holds half a surrogate pair"
    if too_long or not name or "\0" in name or name == "__metadata__":
        return f"a name has 1 to {MAX_NAME} bytes and no NUL, and is not __metadata__"
    return None


def _is_counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 63 for item in value)


class SafetensorsFolder:
    """All weights of a Hugging Face folder: one model.safetensors, or the shards that its index lists."""

    def __init__(self, folder: Path) -> None:
        self.source = str(folder)
        self._owner: dict[str, SafetensorsFile] = {}
        single, index = folder / SINGLE_FILE, folder / INDEX_FILE
        self._files: list[SafetensorsFile] = []
        try:
            if there(single):
                self.source = str(single)
                self._files = [SafetensorsFile(single)]
                self._owner = dict.fromkeys(self._files[0].entries, self._files[0])
            elif there(index):
                self._open_shards(folder, index)
            else:
                raise _no_weights(folder)
        except BaseException:
            self.close()
            raise

    def _open_shards(self, folder: Path, index: Path) -> None:
        listed = read_object(index, MAX_HEADER).get("weight_map")
        if not isinstance(listed, dict) or not listed or any(type(name) is not str for name in listed.values()):
            raise FileFormatError(f"{index}: weight_map must map tensor names to file names")
        for shard in sorted(set(listed.values())):
            if shard in ("", ".", "..") or any(c in shard for c in "/\\:\0") or not shard.endswith(".safetensors"):
                raise FileFormatError(f"{index}: {shard!r:.200} is not a plain .safetensors file name")
            if not there(folder / shard):
                raise FileFormatError(f"{index}: shard {shard} is missing from {folder}")
            self._files.append(SafetensorsFile(folder / shard))
            for name in self._files[-1].entries:
                if name in self._owner:
                    raise FileFormatError(f"{index}: tensor {name} lies in both {self._owner[name].path.name} and "
                                          f"{shard}")
                if name not in listed:
                    raise FileFormatError(f"{index}: tensor {name} lies in {shard}, and the index does not have it; "
                                          "download the index again, or save the model again")
                if listed[name] != shard:
                    raise FileFormatError(f"{index}: tensor {name} lies in {shard}, the index says {listed[name]}")
                self._owner[name] = self._files[-1]
        missing = [name for name in listed if name not in self._owner]
        if missing:
            raise FileFormatError(f"{index}: tensor {missing[0]} is not in {listed[missing[0]]} ({len(missing)} such)")

    @property
    def files(self) -> tuple[Path, ...]:
        """All that the weights lie in."""
        return tuple(file.path for file in self._files)

    def close(self) -> None:
        """Closes the files; nothing can be read after it."""
        for file in self._files:
            file.close()

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of every tensor, by name."""
        return {name: file.entries[name].shape for name, file in self._owner.items()}

    def read(self, name: str) -> np.ndarray:
        """As SafetensorsFile.read."""
        return self._owner[name].read(name)


def _no_weights(folder: Path) -> FileFormatError:
    pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
    if pickles:
        return FileFormatError(f"{folder}: {pickle_advice(pickles[0])}")
    others = sorted(path.name for path in folder.glob("*.safetensors"))
    if others == [ADAPTER]:
        return FileFormatError(f"{folder}: {ADAPTER_ALONE}")
    has = f"; it has {', '.join(others[:5])}{', ...' if len(others) > 5 else ''}" if others else ""
    if SHARD.fullmatch(others[0] if others else ""):
        has += f", whose index {INDEX_FILE} is missing: download it from where the model is from"
    return FileFormatError(f"{folder}: has neither {SINGLE_FILE} nor {INDEX_FILE}{has}")


def pickle_advice(name: str) -> str:
    """Pickles can run code when opened, so they never are."""
    return (f"{name} is a PyTorch pickle, which is not loaded: opening one can run code. `grpo convert FOLDER "
            "NEW_FOLDER` takes its tensors without that and writes safetensors")


def to_bfloat16_bits(array: np.ndarray) -> np.ndarray:
    """float32 -> uint16, rounded to nearest, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    rounded = ((bits
                + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)).astype(np.uint16)
    nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    return np.where(nan, ((bits >> np.uint32(16)) | np.uint32(0x40)).astype(np.uint16), rounded)


def from_bfloat16_bits(bits: np.ndarray) -> np.ndarray:
    """uint16 -> float32, exactly."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def parse_size(size: int | str) -> int:
    """Bytes of "5GB", "200MB" or an int."""
    units = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}
    text = str(size).strip().upper()
    for unit, factor in units.items():
        if text.endswith(unit) and text[: -len(unit)].strip().isdigit():
            return int(text[: -len(unit)]) * factor
    if text.isdigit() and int(text) > 0:
        return int(text)
    raise ConfigError(f"max_shard_size {size!r:.40} is not a size; write 5GB, 500MB or a number of bytes")


def write_weights(open_file: Callable[[str], IO[bytes]], tensors: list[tuple[str, tuple[int, ...]]],
                  read: Callable[[str], np.ndarray], dtype: str, max_shard_size: int | str = "5GB") -> list[str]:
    """Writes tensors as model.safetensors, or as shards and their index when they pass ``max_shard_size``.

    ``open_file`` opens a new file by plain name, ``read`` gives float32 by tensor name; dtype "bfloat16" or "float32".
    Returns the names written.
    """
    width = BITS[WRITABLE[dtype]] // 8
    shards = list(_split(tensors, width, parse_size(max_shard_size)))
    if len(shards) == 1:
        _write_file(open_file(SINGLE_FILE), shards[0], read, dtype)
        return [SINGLE_FILE]
    names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    for name, shard in zip(names, shards, strict=True):
        _write_file(open_file(name), shard, read, dtype)
    total = sum(math.prod(shape) for _, shape in tensors)
    index = {"metadata": {"total_parameters": total, "total_size": total * width},
             "weight_map": {tensor: name for name, shard in zip(names, shards, strict=True) for tensor, _ in shard}}
    with open_file(INDEX_FILE) as file:
        file.write(json.dumps(index, indent=2, sort_keys=True).encode() + b"\n")
    return [*names, INDEX_FILE]


def _split(tensors: Iterable[tuple[str, tuple[int, ...]]], width: int,
           limit: int) -> Iterator[list[tuple[str, tuple[int, ...]]]]:
    shard: list[tuple[str, tuple[int, ...]]] = []
    size = 0
    for name, shape in tensors:
        bytes_ = math.prod(shape) * width
        if shard and size + bytes_ > limit:
            yield shard
            shard, size = [], 0
        shard.append((name, shape))
        size += bytes_
    yield shard


def _write_file(file: IO[bytes], tensors: list[tuple[str, tuple[int, ...]]], read: Callable[[str], np.ndarray],
                dtype: str) -> None:
    def numbers(name: str) -> np.ndarray:
        array = read(name)
        return to_bfloat16_bits(array) if dtype == "bfloat16" else np.ascontiguousarray(array, np.float32)

    write_tensors(file, [(name, WRITABLE[dtype], shape) for name, shape in tensors], numbers)


def write_tensors(file: IO[bytes], tensors: list[tuple[str, str, tuple[int, ...]]],
                  read: Callable[[str], np.ndarray]) -> None:
    """One file of tensors (name, dtype of BITS, shape), which it closes. ``read`` gives an array of that shape and
    width by name; each is let go before the next is asked for."""
    header: dict[str, dict[str, Any]] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, kind, shape in tensors:
        end = offset + math.prod(shape) * BITS[kind] // 8
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    # the data section starts at a multiple of 8, as readers that map it expect
    text += b" " * (-len(text) % 8)
    with file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, _, shape in tensors:
            array = read(name)
            if array.shape != tuple(shape):
                raise ConfigError(f"tensor {name} has shape {array.shape}, not {tuple(shape)}")
            file.write(array.astype(array.dtype.newbyteorder("<"), copy=False).data)
            del array
