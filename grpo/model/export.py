"""A model as one .gguf: the network, the tokenizer and the tensors, streamed from the device into the file."""
from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .. import _core
from ..errors import CheckpointError, ConfigError, FileFormatError, UnsupportedModelError, did_you_mean, note
from .finite import Looked
from .formats.folder import FolderWriter
from .formats.gguf_metadata import gguf_metadata
from .formats.gguf_names import KEYS, ROPE_DIVISORS, gguf_name, to_gguf
from .formats.gguf_writing import Written, size_of, write_gguf
from .paths import path_of
from .tokenizer import Tokenizer

# dtype: (ggml's type of matrices, general.file_type)
DTYPES = {"bf16": ("BF16", 32), "f16": ("F16", 1), "q8_0": ("Q8_0", 7), "f32": ("F32", 0)}
OTHER_NAMES = {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}
QUANTIZATION_VERSION = 2                                 # of ggml's blocks


class Model(Protocol):
    """What is written: a grpo.Model's parts."""

    core: _core.Model
    config: dict[str, Any]
    tokenizer: Tokenizer
    text_config: Mapping[str, Any]
    dtype: str
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Exported:
    """What was written. types: how many tensors of each type; fallen: those that are F16 because their rows are no
    whole blocks of Q8_0."""

    path: Path
    architecture: str
    bytes: int
    types: dict[str, int]
    fallen: list[str]


def export_gguf(model: Model, path: str | os.PathLike[str], dtype: str | None = None, name: str | None = None,
                wrote: Callable[[int], None] = lambda size: None) -> Exported:
    """What Model.save_gguf says; ``wrote`` is told the bytes of each tensor. Beside the model one tensor is in
    memory."""
    kind, path = kind_of(dtype or model.dtype), target_of(path, model.files)
    check_name(name)
    metadata, divisors = gguf_metadata(model.config, str(path))
    architecture = metadata.pop("general.architecture")
    metadata = {"general.architecture": architecture, "general.type": "model", "general.name": name or plain(path.stem),
                "general.file_type": DTYPES[kind][1], "general.quantization_version": QUANTIZATION_VERSION, **metadata,
                **model.tokenizer.to_gguf(model.text_config["vocab_size"])}
    heads = {key: metadata[f"{architecture}.{KEYS[key]}"] for key in ("num_attention_heads", "num_key_value_heads")}
    looked = Looked(model.core.get_tensor)
    tensors = _tensors(model, looked, architecture, heads, DTYPES[kind][0], path)
    if divisors is not None:
        tensors.insert(0, Written(ROPE_DIVISORS, "F32", divisors.shape, lambda: divisors))
    size = size_of(metadata, tensors)
    replaced = os.path.lexists(path)
    with FolderWriter(path.parent, last=path.name) as folder:
        free = shutil.disk_usage(path.parent).free
        if size > free:
            raise CheckpointError(f"{path}: {size} bytes are needed, {free} are free")
        with folder.open(path.name) as file:
            try:
                write_gguf(file, metadata, tensors, wrote)
            except FileFormatError as error:
                raise FileFormatError(f"{path}: {error}") from error
    looked.say(str(path))
    if replaced:
        note(f"{path}: was there, and is replaced")
    types = [tensor.type for tensor in tensors]
    return Exported(path, architecture, size, {each: types.count(each) for each in dict.fromkeys(types)},
                    [tensor.name for tensor in tensors if tensor.type == "F16" and kind == "q8_0"])


def target_of(path: str | os.PathLike[str], files: Sequence[Path] = (), what: str = "path") -> Path:
    """The .gguf that may be written at a path. files: those that the model was read from, none of which is written
    over, by whatever name; what: the argument, for errors. ConfigError."""
    target = path_of(path, what)
    if target.suffix.lower() != ".gguf" or target.is_dir():
        raise ConfigError(f"{target}: a GGUF is a file whose name ends in .gguf")
    for file in files:
        if target.exists() and file.exists() and os.path.samefile(target, file):
            also = "" if target == file else f", which is {file},"
            raise ConfigError(f"{target}: the model was read from this file{also} and it is not written over; give "
                              "another name")
    return target


def check_name(name: str | None) -> None:
    """ConfigError for a general.name that no file can hold."""
    if name is not None and not isinstance(name, str):
        raise ConfigError(f"name must be text, not {name!r:.80}")
    try:
        (name or "").encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"name {name!r:.80} holds half a surrogate pair") from error


def plain(name: str) -> str:
    """A file's name as text that UTF-8 has: bytes of it that are none become question marks."""
    return os.fsencode(name).decode("utf-8", "replace")


def kind_of(dtype: str) -> str:
    """The key of DTYPES that is meant. ConfigError."""
    kind = OTHER_NAMES.get(str(dtype).lower(), str(dtype).lower())
    if kind not in DTYPES:
        raise ConfigError(f"dtype {dtype!r} is not written as GGUF{did_you_mean(kind, DTYPES)} "
                          f"Choose from {', '.join(DTYPES)}.")
    return kind


def _tensors(model: Model, read: Callable[[str], np.ndarray], architecture: str, heads: Mapping[str, int],
             matrices: str, path: Path) -> list[Written]:
    tensors = []
    for name, shape in model.core.tensors():
        stored = gguf_name(name, architecture)
        if stored is None:
            raise UnsupportedModelError(f"{path}: tensor {name} has no name in a GGUF of architecture {architecture}")
        tensors.append(Written(stored, _type(tuple(shape), matrices), tuple(shape),
                               partial(_values, read, name, heads, architecture, str(path))))
    return tensors


def _values(read: Callable[[str], np.ndarray], name: str, heads: Mapping[str, int], architecture: str,
            source: str) -> np.ndarray:
    return to_gguf(read(name), name, heads, architecture, source)


def _type(shape: tuple[int, ...], matrices: str) -> str:
    """Norms and biases stay as they are; rows that are no whole blocks become halves, as llama.cpp has it."""
    if len(shape) == 1:
        return "F32"
    return "F16" if matrices == "Q8_0" and shape[-1] % 32 else matrices
