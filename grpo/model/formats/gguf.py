"""GGUF models of one file or several: config, tensor names and values as Hugging Face has them."""
from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import FileFormatError, note
from .gguf_config import gguf_config
from .gguf_container import GgufContainer
from .gguf_keys import refuse_other_kinds
from .gguf_names import ROPE_DIVISORS, from_gguf, gguf_name, hugging_face_name

SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})(\.gguf)", re.I)
MAGICS = (b"GGUF", b"FUGG")                              # the second of one whose bytes are in the other order
# Heads of rerankers; constants that are made anew.
OTHERS = re.compile(r"cls(\.\w+)?\.(weight|bias)|blk\.\d+\.attn_rot_embd(\.weight)?")


class GgufFile:
    """A model: `metadata` (plain Python values), `config` (Hugging Face keys), tensors by Hugging Face name.

    A model split over several files (name-00001-of-00003.gguf) is opened by any of them, the others beside it.
    """

    says = "the metadata"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.source = str(self.path)
        self._files: list[GgufContainer] = []
        try:
            self._open()
            self.metadata = self._files[0].metadata
            refuse_other_kinds(self.metadata, self.source)
            self._places = self._find_tensors()
            if others := [name for name in self._places if OTHERS.fullmatch(name)]:
                note(f"{self.source}: {len(others)} tensor(s) left out, which are no weights of this model: "
                     f"{', '.join(others[:3])}{', ...' if len(others) > 3 else ''}")
                self._places = {name: place for name, place in self._places.items() if name not in others}
            self.config = self._read_config()
        except BaseException:
            self.close()
            raise

    @property
    def files(self) -> tuple[Path, ...]:
        """All that the model is split over."""
        return tuple(file.path for file in self._files)

    def stored_name(self, name: str) -> str:
        """What the file calls, or would call, a tensor of a Hugging Face name."""
        return gguf_name(name, str(self.metadata.get("general.architecture"))) or name

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
        """The file, and the others that it says the model is split over, in their order."""
        given = GgufContainer(self.path)
        self._files.append(given)
        count = _split_number(given, "split.count", 1)
        if count <= 1:
            return
        number, named = _split_number(given, "split.no"), SHARD.fullmatch(self.path.name)
        if not named or (int(named[2]), int(named[3])) != (number + 1, count):
            raise FileFormatError(f"{self.path}: is shard {number + 1} of {count} and must be named "
                                  f"...-{number + 1:05d}-of-{count:05d}.gguf, as the others are found by their names")
        paths = [self.path.with_name(f"{named[1]}-{i + 1:05d}-of-{count:05d}{named[4]}") for i in range(count)]
        if missing := [path.name for path in paths if not path.exists()]:
            shown = ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
            raise FileFormatError(f"{self.path}: is one of {count} files of a model, and of the others beside it "
                                  f"{shown} {'is' if len(missing) == 1 else 'are'} missing; download them into "
                                  f"{self.path.parent}")
        for i, path in enumerate(paths):
            shard = given if i == number else GgufContainer(path)
            if shard is not given:
                self._files.append(shard)
            if "split.count" not in shard.metadata:
                raise FileFormatError(f"{path}: lies where part {i + 1} of {count} of {self.path.name} should, and "
                                      "does not say that it is a part of a model (split.count); download it again")
            claim = _split_number(shard, "split.no") + 1, _split_number(shard, "split.count")
            if claim != (i + 1, count):
                raise FileFormatError(f"{path}: says that it is shard {claim[0]} of {claim[1]}, not {i + 1} of {count}")
        self._files.sort(key=lambda file: file.path.name)

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


def is_gguf(path: Path) -> bool:
    """Whether a path is that of a GGUF: by its name, or by its first bytes where it is a file.

    >>> is_gguf(Path("a.GGUF")), is_gguf(Path("a.safetensors"))
    (True, False)
    """
    if path.suffix.lower() == ".gguf":
        return True
    try:
        if not path.is_file():
            return False
        with open(path, "rb") as file:
            return file.read(4) in MAGICS
    except OSError:                                      # who opens it says what is wrong
        return False
