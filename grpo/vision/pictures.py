"""Images as a model takes them: what its tower reads, and what it made of them, kept while the tower stands still."""
from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from ..errors import ImageError, warn
from .decode import image_bytes, image_size
from .processor import Processor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Features = NDArray[Any]                  # (levels, tokens, hidden_size) float32, or uint16 holding bfloat16 bits

CACHE_BYTES = 1 << 30
MOST_NUMBERS = 1 << 26                       # of pixels that are prepared at once: 256 MB


@dataclass(eq=False)
class Picture:
    """One image of a prompt.

    source: as it was given. grid: (3,) int64 frames, rows and columns of its patches. tokens: how many tokens of the
    prompt it stands for. key: of its content and of how it is seen. pixels: (patches, numbers of a patch) float32, once
    they were needed."""

    source: Any
    grid: NDArray[np.int64]
    tokens: int
    place: str
    processor: Processor
    pixels: NDArray[np.float32] | None = None
    _key: bytes | None = field(default=None, repr=False)

    @property
    def key(self) -> bytes:
        """16 bytes that tell it from other images, and from itself seen in another size."""
        if self._key is None:
            digest = hashlib.blake2b(repr(self.processor).encode(), digest_size=16)
            digest.update(image_bytes(self.source, self.place))
            self._key = digest.digest()
        return self._key


def look(images: Iterable[Any], processor: Processor, where: str = "the prompt") -> list[Picture]:
    """Images of one prompt, of whose files only the beginnings are read: their sizes say how many tokens they are.

    ImageError that names the place of one that cannot be read."""
    found = []
    for i, image in enumerate(images):
        if isinstance(image, Picture):
            found.append(image)
            continue
        place = f"{where}: image {i}"
        height, width = image_size(image, place)
        grid = processor.grid(height, width, place)
        found.append(Picture(image, np.array(grid, np.int64), processor.tokens(height, width), place, processor))
    return found


def read_pixels(pictures: Sequence[Picture]) -> None:
    """Decodes and prepares those that have no pixels yet, all of them together."""
    from . import preprocess

    missing = list({id(each): each for each in pictures if each.pixels is None}.values())
    for processor in dict.fromkeys(each.processor for each in missing):
        some = [each for each in missing if each.processor == processor]
        out = preprocess([each.source for each in some], processor, places=[each.place for each in some])
        ends = np.cumsum(out["image_grid_thw"].prod(axis=1))
        for each, grid, rows in zip(some, out["image_grid_thw"], np.split(out["pixel_values"], ends[:-1]), strict=True):
            if not np.array_equal(grid, each.grid):      # its prompt has places for the image that it was
                raise ImageError(f"{each.place}: has changed since it was looked at: {grid.tolist()} patches, and the "
                                 f"prompt was made for {each.grid.tolist()}")
            each.pixels = rows


class FeatureCache:
    """Features of images that a tower has seen, by content, for as long as its weights are what they were.

    limit: bytes of memory, those used longest ago go first. folder: where they are kept on disk too, for other runs;
    fingerprint: of the tower, by which they are told apart there. shape: (levels, hidden_size) of what it makes; other
    files are made again.

    >>> FeatureCache(limit=1 << 20).bytes
    0
    """

    def __init__(self, limit: int = CACHE_BYTES, folder: Path | None = None, fingerprint: str = "",
                 shape: tuple[int, int] | None = None) -> None:
        self.limit, self.bytes, self.hits, self.misses, self.shape = limit, 0, 0, 0, shape
        self.folder = folder / fingerprint if folder is not None else None
        self._kept: OrderedDict[bytes, Features] = OrderedDict()

    def get(self, key: bytes, tokens: int, dtype: str) -> Features | None:
        """What the tower made of an image of so many tokens, or None. dtype: the tower's."""
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        elif self.folder is not None:
            found = self._read(self.folder / f"{key.hex()}.npy", tokens, "<f4" if dtype == "float32" else "<u2")
            if found is not None:
                self._keep(key, found)
        self.hits += found is not None
        self.misses += found is None
        return found

    def put(self, key: bytes, features: Features) -> None:
        """Keeps the features of an image."""
        self._keep(key, features)
        if self.folder is not None:
            self._write(self.folder / f"{key.hex()}.npy", features)

    def _keep(self, key: bytes, features: Features) -> None:
        if features.nbytes > self.limit or key in self._kept:
            return
        self._kept[key] = features
        self.bytes += features.nbytes
        while self.bytes > self.limit:
            self.bytes -= self._kept.popitem(last=False)[1].nbytes

    def _read(self, path: Path, tokens: int, dtype: str) -> Features | None:
        try:
            if not path.is_file():
                return None
            with open(path, "rb") as file:
                found = np.lib.format.read_array(file, allow_pickle=False)
            levels, columns = self.shape or (found.shape[0], found.shape[-1])
            if found.shape != (levels, tokens, columns) or found.dtype != np.dtype(dtype):
                raise ValueError(f"they are {found.dtype} of shape {found.shape}")
            return np.ascontiguousarray(found, found.dtype.newbyteorder("="))
        except Exception as error:             # NumPy fails in many ways on a file that is broken
            warn(f"{path}: kept features cannot be read and are made again: {type(error).__name__}: {error}")
            return None

    def _write(self, path: Path, features: Features) -> None:
        temporary = path.with_suffix(f".{os.getpid()}.tmp")            # another run may write the same file
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb") as file:
                np.save(file, features, allow_pickle=False)
            temporary.replace(path)
        except (OSError, ValueError) as error:
            self.folder = None
            warn(f"{path.parent}: features of images are not kept on disk: {error}")


def see(core: _core.Model, pictures: Sequence[Picture], cache: FeatureCache, *,
        keep_pixels: bool = False) -> list[Features]:
    """What a model's tower makes of images: from the cache, or of those that are not there, MOST_NUMBERS of pixels
    at a time. keep_pixels: for a tower that is trained, which reads them again."""
    found: dict[bytes, Features] = {}
    new: dict[bytes, Picture] = {}
    for each in pictures:
        if each.key in found or each.key in new:
            continue
        kept = cache.get(each.key, each.tokens, core.dtype)
        if kept is None:
            new[each.key] = each
        else:
            found[each.key] = kept
    for some in _portions(list(new.values())):
        read_pixels(some)
        for each, features in zip(some, core.see([(each.grid, each.pixels, None) for each in some]), strict=True):
            found[each.key] = features
            cache.put(each.key, features)
            if not keep_pixels:
                each.pixels = None
    return [found[each.key] for each in pictures]


def _portions(pictures: list[Picture]) -> Iterator[list[Picture]]:
    """Lists of those whose pixels are within MOST_NUMBERS together, one at least."""
    some: list[Picture] = []
    numbers = 0
    for each in pictures:
        processor = each.processor
        more = int(each.grid.prod()) * 3 * processor.temporal_patch_size * processor.patch_size**2
        if some and numbers + more > MOST_NUMBERS:
            yield some
            some, numbers = [], 0
        some.append(each)
        numbers += more
    if some:
        yield some
