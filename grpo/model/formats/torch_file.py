"""Files of torch.save: a zip archive, or the older run of pickles and numbers. `TorchFile` tells what tensors lie in
one and reads them, one storage in memory at a time. What a file claims is checked against its size before it is
believed."""
from __future__ import annotations

import io
import math
import os
import zipfile
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from ...errors import FileFormatError, UnsupportedModelError
from .safetensors import BITS, MAX_RANK, MAX_TENSORS, fault_of_name
from .stand_ins import LONGEST, refuse_stand_in
from .torch_pickle import Storage, Tensor, read_pickle

MAX_PICKLE = 64 << 20                    # also of anything else that is read at once, but for a storage
PIECE = 16 << 20                         # of a storage
MOST_VIEWS = 16                          # bytes of tensors for each byte of their storages
LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."              # the pickle of a number that begins the older files
NUMPY = {"F32": "<f4", "F64": "<f8", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
         "U8": "u1", "BOOL": "u1"}


class Entry(NamedTuple):
    """A tensor: dtype as safetensors has it, and the view of a storage that it is."""

    dtype: str
    shape: tuple[int, ...]
    view: Tensor


class TorchFile:
    """One file: `entries` by name, those of one storage behind each other; `read` for each.

    left_out: what else lay in the state dict, with its type. inside: the key of the file's dict that is the state dict,
    or None. Raises FileFormatError or UnsupportedModelError, which name the file and the tensor."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            self._file = _Bounded(open(self.path, "rb", buffering=0))
        except OSError as error:
            raise FileFormatError(f"{self.path}: cannot be read: {error.strerror}") from error
        try:
            refuse_stand_in(self._file.peek(LONGEST)[:LONGEST], self.path)
            begin = self._file.read(len(LEGACY))
            if begin[:4] not in (b"PK\x03\x04", LEGACY[:4]):
                raise FileFormatError(f"{self.path}: begins with {begin[:8]!r}, neither a zip archive nor an older "
                                      "file of torch.save")
            self._container: _Zip | _Legacy = (_Zip if begin[:2] == b"PK" else _Legacy)(self._file, str(self.path))
            root = self._container.root
            state, self.inside = self._state_dict(root)
            self.left_out = {str(name): type(value).__name__ for held in (root, state) for name, value in held.items()
                             if not isinstance(value, Tensor) and value is not state}
            self.entries = self._entries({name: value for name, value in state.items() if isinstance(value, Tensor)})
        except BaseException:
            self._file.close()
            raise
        self._loaded: tuple[str, np.ndarray] | None = None

    def close(self) -> None:
        """Closes the file; nothing can be read after it."""
        self._file.close()
        self._loaded = None

    def shared(self) -> dict[str, str]:
        """Tensors that lie where an earlier one does (tied weights, say), and that one."""
        first: dict[Tensor, str] = {}
        owners = {name: first.setdefault(entry.view, name) for name, entry in self.entries.items()}
        return {name: owner for name, owner in owners.items() if owner != name}

    def read(self, name: str) -> np.ndarray:
        """The tensor's numbers, little-endian and in order; bfloat16 as its bits in uint16, bool as bytes."""
        dtype, shape, view = self.entries[name]
        if 0 in shape:
            return np.empty(shape, NUMPY[dtype])
        if self._loaded is None or self._loaded[0] != view.storage.key:
            self._loaded = None                                     # before the next one is made
            data = np.empty(view.storage.numel * BITS[dtype] // 8, np.uint8)
            self._container.read_into(view.storage.key, data.data)
            self._loaded = view.storage.key, data
        numbers = self._loaded[1].view(NUMPY[dtype])[view.offset:]
        strides = [stride * numbers.itemsize for stride in view.stride]
        return np.asarray(np.lib.stride_tricks.as_strided(numbers, shape, strides, writeable=False), order="C")

    def _state_dict(self, root: Any) -> tuple[dict[Any, Any], str | None]:
        if not isinstance(root, dict):
            raise UnsupportedModelError(f"{self.path}: holds a {type(root).__name__}, not a dict of tensors")
        found = {None: root} | {name: value for name, value in root.items() if isinstance(value, dict)}
        found = {name: value for name, value in found.items() if any(isinstance(v, Tensor) for v in value.values())}
        if not found or (None not in found and len(found) > 1):
            has = ", ".join(f"{name!r:.40} ({type(value).__name__})" for name, value in [*root.items()][:10])
            raise UnsupportedModelError(f"{self.path}: is no dict of tensors, nor holds just one; it has "
                                        f"{has or 'nothing'}")
        name, state = next(iter(found.items()))
        return state, name

    def _entries(self, tensors: dict[Any, Tensor]) -> dict[str, Entry]:
        if len(tensors) > MAX_TENSORS:
            raise FileFormatError(f"{self.path}: {len(tensors)} tensors are more than the limit of {MAX_TENSORS}")
        storages: dict[str, Storage] = {}
        groups: dict[str, dict[str, Entry]] = {}
        for name, tensor in tensors.items():
            why = "its name is no text" if type(name) is not str else fault_of_name(name)
            why = why or _fault_of_view(tensor) or self._fault_of_storage(tensor.storage, storages)
            if why:
                raise FileFormatError(f"{self.path}: tensor {name!r:.200}: {why}")
            groups.setdefault(tensor.storage.key, {})[name] = Entry(tensor.storage.dtype, tensor.shape, tensor)
        entries = {name: entry for group in groups.values() for name, entry in group.items()}
        there = sum(storage.numel * BITS[storage.dtype] for storage in storages.values())
        wanted = sum(math.prod(entry.shape) * BITS[entry.dtype] for entry in entries.values())
        if wanted > MOST_VIEWS * there:
            raise FileFormatError(f"{self.path}: its tensors take {wanted // 8} bytes, more than {MOST_VIEWS} times "
                                  f"the {there // 8} that they are views of")
        return entries

    def _fault_of_storage(self, storage: Storage, known: dict[str, Storage]) -> str | None:
        if known.setdefault(storage.key, storage) != storage:
            return f"its storage {storage.key!r:.40} is said to be of different types or lengths"
        size, takes = self._container.size_of(storage.key), storage.numel * BITS[storage.dtype] // 8
        if size is None:
            return f"its storage {storage.key!r:.40} is not in the file"
        return f"its storage {storage.key!r:.40} has {size} bytes, not {takes}" if size != takes else None


def _fault_of_view(tensor: Tensor) -> str | None:
    shape, stride, numel = tensor.shape, tensor.stride, tensor.storage.numel
    if len(shape) > MAX_RANK or len(shape) != len(stride):
        return f"a tensor has at most {MAX_RANK} dimensions, each with a stride"
    if 0 in shape:
        return None
    last = tensor.offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if last >= numel:
        return f"shape {shape!r:.100} at {tensor.offset} ends at element {last}, its storage has {numel}"
    return f"shape {shape!r:.100} repeats elements of its storage of {numel}" if math.prod(shape) > numel else None


class _Bounded(io.BufferedReader):
    """A file of which no more is read at once than MAX_PICKLE, whatever a length in it says."""

    raw: io.FileIO

    def __init__(self, raw: io.FileIO) -> None:
        super().__init__(raw)
        self.size = os.fstat(raw.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, self.size - self.tell())
        size = left if size is None or size < 0 else min(size, left)
        if size > MAX_PICKLE:
            raise FileFormatError(f"{self.raw.name}: {size} bytes in one piece are over the limit of {MAX_PICKLE}")
        return super().read(size)


class _Zip:
    """archive/data.pkl, and archive/data/KEY for each storage, uncompressed."""

    def __init__(self, file: _Bounded, source: str) -> None:
        self._source = source
        try:
            self._zip = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, NotImplementedError, OSError, OverflowError, ValueError) as error:
            if isinstance(error, FileFormatError):
                raise
            raise FileFormatError(f"{source}: not a whole zip archive: {error!s:.200}") from error
        self._check(self._zip.infolist(), file.size)
        pickles = [name for name in self._zip.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise FileFormatError(f"{source}: a zip archive, but not of torch.save: it has no one FOLDER/data.pkl")
        self._folder = pickles[0].removesuffix("data.pkl")
        if f"{self._folder}constants.pkl" in self._infos:
            raise UnsupportedModelError(f"{source}: a TorchScript program; only tensors of torch.save are read")
        if (order := self._whole(f"{self._folder}byteorder", b"little")) != b"little":
            raise UnsupportedModelError(f"{source}: its numbers are {order!r:.20} endian")
        self.root = read_pickle(io.BytesIO(self._whole(pickles[0])), f"{source}: {pickles[0]:.200}")

    def size_of(self, key: str) -> int | None:
        """Bytes of a storage; None where there is none."""
        info = self._infos.get(f"{self._folder}data/{key}")
        return None if info is None else info.file_size

    def read_into(self, key: str, view: memoryview) -> None:
        """The bytes of a storage, of size_of()."""
        self._read_into(f"{self._folder}data/{key}", view)

    def _check(self, infos: list[zipfile.ZipInfo], size: int) -> None:
        self._infos = {info.filename: info for info in infos}
        if len(self._infos) != len(infos):
            raise FileFormatError(f"{self._source}: a name stands twice in the archive")
        for info in infos:
            if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.file_size != info.compress_size:
                raise FileFormatError(f"{self._source}: {info.filename!r:.200} is compressed or encrypted, which "
                                      "torch.save does not do")
        if (said := sum(info.file_size for info in infos)) > size:
            raise FileFormatError(f"{self._source}: what is in the archive would take {said} bytes, the file has "
                                  f"{size}")

    def _whole(self, name: str, missing: bytes = b"") -> bytes:
        info = self._infos.get(name)
        if info is None:
            return missing
        if info.file_size > MAX_PICKLE:
            raise FileFormatError(f"{self._source}: {name!r:.200} has {info.file_size} bytes, the limit is "
                                  f"{MAX_PICKLE}")
        data = bytearray(info.file_size)
        self._read_into(name, memoryview(data))
        return bytes(data)

    def _read_into(self, name: str, view: memoryview) -> None:
        """zipfile compares the checksum when the last byte is read."""
        try:
            with self._zip.open(name) as file:
                _fill(file, view)
                if file.read(1):
                    raise EOFError("it is longer than it says")
        except (zipfile.BadZipFile, EOFError, NotImplementedError, OSError, RuntimeError) as error:
            raise FileFormatError(f"{self._source}: {name!r:.200} is damaged: {error!s:.200}") from error


class _Legacy:
    """Five pickles: a mark, a version, the machine it was written on, the state dict, the keys of storages; and the
    storages in that order, each behind its count of elements."""

    def __init__(self, file: _Bounded, source: str) -> None:
        self._file, self._source = file, source
        file.seek(0)
        head = io.BytesIO(file.read(min(file.size, MAX_PICKLE)))
        _, version, system, self.root, keys = (read_pickle(head, source) for _ in range(5))
        if version != 1001 or not isinstance(system, dict) or system.get("little_endian") is not True:
            raise UnsupportedModelError(f"{source}: of another version of torch.save, or not little-endian")
        if not isinstance(keys, list) or any(type(key) is not str for key in keys) or len(set(keys)) != len(keys):
            raise FileFormatError(f"{source}: the keys of its storages are not a list of different texts")
        self._place(keys, head.tell())

    def size_of(self, key: str) -> int | None:
        """Bytes of a storage; None where there is none."""
        place = self._places.get(key)
        return None if place is None else place[1]

    def read_into(self, key: str, view: memoryview) -> None:
        """The bytes of a storage, of size_of()."""
        self._file.seek(self._places[key][0])
        try:
            _fill(self._file, view)
        except EOFError as error:
            raise FileFormatError(f"{self._source}: ends inside storage {key!r:.40}") from error

    def _place(self, keys: list[str], position: int) -> None:
        widths = {storage.key: BITS[storage.dtype] // 8 for storage in _storages(self.root)}
        self._places: dict[str, tuple[int, int]] = {}
        for key in keys:
            if key not in widths:
                raise FileFormatError(f"{self._source}: no tensor says of what type storage {key!r:.40} is")
            self._file.seek(position)
            count = self._file.read(8)
            self._places[key] = position + 8, int.from_bytes(count, "little", signed=True) * widths[key]
            position += 8 + self._places[key][1]
            if len(count) < 8 or self._places[key][1] < 0 or position > self._file.size:
                raise FileFormatError(f"{self._source}: ends inside storage {key!r:.40}")
        if position != self._file.size:
            raise FileFormatError(f"{self._source}: {self._file.size - position} bytes follow the last storage")


def _storages(root: Any) -> list[Storage]:
    """Those of all tensors in it, however deep."""
    found, seen, pending = [], set(), [root]
    while pending:
        value = pending.pop()
        if isinstance(value, Tensor):
            found.append(value.storage)
        elif isinstance(value, (dict, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            pending += value.values() if isinstance(value, dict) else value
    return found


def _fill(file: IO[bytes], view: memoryview) -> None:
    while len(view):
        piece = file.read(min(len(view), PIECE))
        if not piece:
            raise EOFError("it ends early")
        view[:len(piece)] = piece
        view = view[len(piece):]
