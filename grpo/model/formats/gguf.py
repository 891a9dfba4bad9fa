"""GGUF models of one file or several: config, tensor names and values as Hugging Face has them."""
from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import FileFormatError
from .gguf_config import gguf_config
from .gguf_container import GgufContainer
from .gguf_names import ROPE_DIVISORS, from_gguf, hugging_face_name

SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")


class GgufFile:
    """A model: `metadata` (plain Python values), `config` (Hugging Face keys), tensors by Hugging Face name.

    A model split over several files (name-00001-of-00003.gguf) is opened by its first.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.source = str(self.path)
        self._files: list[GgufContainer] = []
        try:
            self._open()
            self.metadata = self._files[0].metadata
            self._places = self._find_tensors()
            self.config = self._read_config()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes the files; nothing can be read after it."""
        for file in self._files:
            file.close()

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """By Hugging Face name."""
        return {name: file.tensors[stored].shape for name, (file, stored) in self._places.items()
                if name != ROPE_DIVISORS}

    def read(self, name: str) -> np.ndarray:
        """float32, as Hugging Face has it: q and k rows in its order, Gemma's norm weights as what is added to 1."""
        file, stored = self._places[name]
        architecture = self.metadata["general.architecture"]
        return from_gguf(file.read(stored), name, self.config, architecture, str(file.path))

    def _open(self) -> None:
        """The file, and the others that it says the model is split over."""
        first = GgufContainer(self.path)
        self._files.append(first)
        count = _split_number(first, "split.count", 1)
        if count <= 1:
            return
        number, named = _split_number(first, "split.no"), SHARD.fullmatch(self.path.name)
        if not named or (int(named[2]), int(named[3])) != (number + 1, count):
            raise FileFormatError(f"{self.path}: is shard {number + 1} of {count} and must be named "
                                  f"...-{number + 1:05d}-of-{count:05d}.gguf, as the others are found by their names")
        paths = [self.path.with_name(f"{named[1]}-{i + 1:05d}-of-{count:05d}.gguf") for i in range(count)]
        if number:
            raise FileFormatError(f"{self.path}: is shard {number + 1} of {count}; load the first, {paths[0]}")
        for i, path in enumerate(paths[1:], 1):
            if not path.exists():
                raise FileFormatError(f"{path}: is missing; {self.path} is the first of {count} files")
            shard = GgufContainer(path)
            self._files.append(shard)
            claim = _split_number(shard, "split.no") + 1, _split_number(shard, "split.count")
            if claim != (i + 1, count):
                raise FileFormatError(f"{path}: says that it is shard {claim[0]} of {claim[1]}, not {i + 1} of {count}")

    def _find_tensors(self) -> dict[str, tuple[GgufContainer, str]]:
        """By Hugging Face name: the file and the name there."""
        places: dict[str, tuple[GgufContainer, str]] = {}
        architecture = self.metadata.get("general.architecture")
        for file in self._files:
            for stored in file.tensors:
                name = hugging_face_name(stored, architecture)
                if name in places:
                    raise FileFormatError(f"{file.path}: tensor {stored!r} is in {places[name][0].path}, too")
                places[name] = file, stored
        if len(self._files) > 1:
            total = _split_number(self._files[0], "split.tensors.count")
            if total != len(places):
                raise FileFormatError(f"{self.path}: split.tensors.count is {total}, the {len(self._files)} files have "
                                      f"{len(places)} tensors")
        return places

    def _read_config(self) -> dict[str, Any]:
        shape = self.shapes().get("model.embed_tokens.weight")
        if shape is None or len(shape) != 2:
            raise FileFormatError(f"{self.path}: no token_embd.weight with two dimensions")
        place = self._places.get(ROPE_DIVISORS)
        divisors = place[0].read(place[1]) if place else None
        return gguf_config(self.metadata, shape[0], "lm_head.weight" not in self._places, divisors, self.source)


def _split_number(file: GgufContainer, key: str, absent: int | None = None) -> int:
    value = file.metadata.get(key, absent)
    if type(value) is not int or not 0 <= value < 1 << 31:
        raise FileFormatError(f"{file.path}: metadata {key} must be a count, not {value!r:.40}")
    return value
