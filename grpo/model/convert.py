"""A folder of PyTorch's pickles becomes one of safetensors: the tensors by their names, bit for bit, and the files that
say what the model is. No code of either is run."""
from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np

from ..errors import CheckpointError, ConfigError, FileFormatError
from .folders import ADAPTER_CONFIG, adapter_advice
from .formats.folder import FolderWriter
from .formats.safetensors import BITS, INDEX_FILE, MAX_HEADER, SINGLE_FILE, write_tensors
from .formats.strict_json import read_object
from .formats.torch_file import TorchFile

PICKLES = ("*.bin", "*.pt", "*.pth")
NO_WEIGHTS = re.compile(r"training_args|optimizer|scheduler|scaler|rng_state")     # what trainers leave beside a model
COPIED = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "*.md", "LICENSE*", "NOTICE*")
FILES = [*PICKLES, *COPIED]                              # of a hub id


@dataclass
class Shard:
    """A file that was converted, and what came of it. left_out: what is no tensor, by name: its type. shared: tensors
    that were views of the same numbers, by name: the first of them; each is written whole."""

    source: str
    target: str
    tensors: dict[str, tuple[str, tuple[int, ...]]]      # name: (dtype, shape)
    bytes: int
    inside: str | None
    left_out: dict[str, str]
    shared: dict[str, str]


@dataclass
class Conversion:
    """What a folder holds: the pickles in their order, what is copied, what stays behind."""

    pickles: list[Path]
    listed: dict[str, str] | None = None                 # of the index: tensor name: file name
    copied: list[Path] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def targets(self) -> list[str]:
        """The names of the safetensors files."""
        if self.listed is None:
            return [SINGLE_FILE]
        n = len(self.pickles)
        return [f"model-{i + 1:05d}-of-{n:05d}.safetensors" for i in range(n)]


def look_at(source: Path) -> Conversion:
    """What there is to convert: a folder, or one file, of which only the tensors are taken. FileFormatError where there
    are no pickles, or an index that does not fit them."""
    if not source.is_dir():
        if not source.is_file():
            raise FileFormatError(f"{source}: no such file or folder")
        return Conversion([source])
    files = sorted(path for path in source.iterdir() if path.is_file())
    if ready := [path.name for path in files if path.match("*.safetensors")]:
        raise ConfigError(f"{source}: has {ready[0]}: it can be loaded as it is")
    weights = [path for path in files if any(map(path.match, PICKLES)) and not NO_WEIGHTS.search(path.name)]
    if (source / ADAPTER_CONFIG).is_file() and all(path.name.startswith("adapter_") for path in weights):
        raise FileFormatError(f"{source}: {adapter_advice(source)}")
    index = [path for path in files if path.name.endswith((".bin.index.json", ".pt.index.json"))]
    if len(index) > 1:
        raise FileFormatError(f"{source}: has several indices of weights: {', '.join(p.name for p in index)}")
    if index:
        found = Conversion(*_listed(index[0], weights))
    else:
        named = [path for path in weights if path.name == "pytorch_model.bin"] or weights
        if not named:
            raise FileFormatError(f"{source}: has no weights in {', '.join(PICKLES)}")
        if len(named) > 1:
            raise FileFormatError(f"{source}: has several files of weights and no index: "
                                  f"{', '.join(path.name for path in named[:5])}; name the one to convert")
        found = Conversion(named)
    found.copied = [path for path in files if any(map(path.match, COPIED)) and path not in index]
    used = {*found.pickles, *found.copied, *index}
    found.left = sorted(path.name + "/" * path.is_dir() for path in source.iterdir() if path not in used)
    return found


def convert(source: Path, destination: Path, *, done: Callable[[Shard], None] = lambda shard: None,
            wrote: Callable[[int], None] = lambda size: None) -> Conversion:
    """Writes the tensors of `source` and copies its other files into `destination`, which appear together.

    ``done`` is told of each file of weights, ``wrote`` the bytes as they are written. Beside its own buffers it holds
    one storage in memory. ConfigError for a destination that holds something else; FileFormatError,
    UnsupportedModelError, CheckpointError name what is wrong."""
    found = look_at(source)
    targets = found.targets()
    written = [*targets, *([INDEX_FILE] if found.listed is not None else []), *(path.name for path in found.copied)]
    for leftover in _leftovers(destination, written, found):
        leftover.unlink()
    shards: list[Shard] = []
    with FolderWriter(destination) as folder:
        for pickle, target in zip(found.pickles, targets, strict=True):
            with closing(TorchFile(pickle)) as file:
                _check_index(found, pickle, file, shards)
                shards.append(_shard(file, target))
                _write(folder.open(target), shards[-1], file, wrote)
            done(shards[-1])
        if found.listed is not None:
            folder.write(INDEX_FILE, _index(shards))
        for path in found.copied:
            with open(path, "rb") as old, folder.open(path.name) as new:
                shutil.copyfileobj(old, new)
    return found


def _write(target: IO[bytes], shard: Shard, file: TorchFile, wrote: Callable[[int], None]) -> None:
    def read(name: str) -> np.ndarray:
        array = file.read(name)
        wrote(array.nbytes)
        return array

    write_tensors(target, [(name, *kind) for name, kind in shard.tensors.items()], read)


def _listed(index: Path, weights: list[Path]) -> tuple[list[Path], dict[str, str]]:
    listed = read_object(index, MAX_HEADER).get("weight_map")
    if not isinstance(listed, dict) or not listed or any(type(name) is not str for name in listed.values()):
        raise FileFormatError(f"{index}: weight_map must map tensor names to file names")
    here = {path.name: path for path in weights}
    for name in sorted(set(listed.values())):
        if name not in here:                             # also what is no plain name
            raise FileFormatError(f"{index}: {name!r:.200} is no file of weights beside it")
    return [here[name] for name in sorted(set(listed.values()))], listed


def _check_index(found: Conversion, pickle: Path, file: TorchFile, before: list[Shard]) -> None:
    for shard in before:
        if twice := shard.tensors.keys() & file.entries.keys():
            raise FileFormatError(f"{pickle}: tensor {min(twice)} lies in {shard.source} too")
    if found.listed is None:
        return
    should = {name for name, owner in found.listed.items() if owner == pickle.name}
    if wrong := should ^ file.entries.keys():
        name = min(wrong)
        raise FileFormatError(f"{pickle}: tensor {name:.200} is {'missing' if name in should else 'not of this file'}, "
                              "the index says")


def _shard(file: TorchFile, target: str) -> Shard:
    tensors = {name: (entry.dtype, entry.shape) for name, entry in file.entries.items()}
    size = sum(math.prod(shape) * BITS[dtype] // 8 for dtype, shape in tensors.values())
    return Shard(file.path.name, target, tensors, size, file.inside, file.left_out, file.shared())


def _index(shards: list[Shard]) -> bytes:
    index = {"metadata": {"total_size": sum(shard.bytes for shard in shards)},
             "weight_map": {name: shard.target for shard in shards for name in shard.tensors}}
    return json.dumps(index, indent=2, sort_keys=True).encode() + b"\n"


def _leftovers(destination: Path, written: list[str], found: Conversion) -> list[Path]:
    """What an interrupted conversion left in the destination. ConfigError where there is something else,
    CheckpointError where there is no room."""
    if destination.exists() and not destination.is_dir():
        raise ConfigError(f"{destination}: is a file; give a folder to write into")
    leftovers = []
    for path in sorted(destination.iterdir()) if destination.is_dir() else []:
        temporary = re.fullmatch(r"\.(.+)\.\d+\.tmp", path.name)
        if temporary and temporary[1] in written:
            leftovers.append(path)
        elif path.name not in written:
            raise ConfigError(f"{destination}: holds {path.name:.200}, which is not of this conversion; give a folder "
                              "that is new or empty")
    there = next(path for path in [destination, *destination.absolute().parents] if path.exists())
    needed, free = sum(path.stat().st_size for path in found.pickles), shutil.disk_usage(there).free
    if needed > free:
        raise CheckpointError(f"{destination}: {needed} bytes are needed, {free} are free")
    return leftovers
