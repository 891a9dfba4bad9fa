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
    prompt it stands for. key: of its content and of how it is seen."""

    source: Any
    grid: NDArray[np.int64]
    tokens: int
    place: str
    processor: Processor
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


def read_pixels(pictures: Sequence[Picture]) -> list[NDArray[np.float32]]:
    """Pixels of images, (patches, numbers of a patch) each, all decoded and prepared together."""
    from . import preprocess

    found: dict[int, NDArray[np.float32]] = {}
    for processor in dict.fromkeys(each.processor for each in pictures):
        some = list({id(each): each for each in pictures if each.processor == processor}.values())
        out = preprocess([each.source for each in some], processor, places=[each.place for each in some])
        ends = np.cumsum(out["image_grid_thw"].prod(axis=1))
        for each, grid, rows in zip(some, out["image_grid_thw"], np.split(out["pixel_values"], ends[:-1]), strict=True):
            if not np.array_equal(grid, each.grid):      # its prompt has places for the image that it was
                raise ImageError(f"{each.place}: has another size now than when its prompt was made")
            found[id(each)] = rows
    return [found[id(each)] for each in pictures]


class FeatureCache:
    """Features of images that a tower has seen, by content, for as long as its weights are what they were.

    limit: bytes of memory, those used longest ago go first. folder: where they are kept on disk too, for other runs;
    fingerprint: of the tower's weights, by which they are told apart there.

    >>> FeatureCache(limit=1 << 20).bytes
    0
    """

    def __init__(self, limit: int = CACHE_BYTES, folder: Path | None = None, fingerprint: str = "") -> None:
        self.limit, self.bytes = limit, 0
        self.folder = folder / fingerprint if folder is not None else None
        self._kept: OrderedDict[bytes, Features] = OrderedDict()

    def get(self, key: bytes) -> Features | None:
        """What the tower made of an image, or None."""
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        elif self.folder is not None:
            found = self._read(self.folder / f"{key.hex()}.npy")
            if found is not None:
                self._keep(key, found)
        return found

    def put(self, key: bytes, features: Features) -> None:
        """Keeps the features of an image."""
        self._keep(key, features)
        if self.folder is not None:
            self._write(self.folder / f"{key.hex()}.npy", features)

    def fits(self, features: Features, picture: Picture, core: _core.Model) -> bool:
        """Whether what was kept can be what the tower makes of an image; said where it cannot."""
        dtype = np.uint16 if core.dtype == "bfloat16" else np.float32
        if features.ndim == 3 and features.shape[1] == picture.tokens and features.dtype == dtype:
            return True
        warn(f"{picture.place}: features that were kept in {self.folder} are of another shape, and are made again")
        return False

    def _keep(self, key: bytes, features: Features) -> None:
        if features.nbytes > self.limit:
            return
        self.bytes -= self._kept.pop(key).nbytes if key in self._kept else 0
        self._kept[key] = features
        self.bytes += features.nbytes
        while self.bytes > self.limit:
            self.bytes -= self._kept.popitem(last=False)[1].nbytes

    def _read(self, path: Path) -> Features | None:
        try:
            if not path.is_file():
                return None
            with open(path, "rb") as file:
                found = np.lib.format.read_array(file, allow_pickle=False)
            return np.ascontiguousarray(found, found.dtype.newbyteorder("="))
        except Exception as error:             # NumPy fails in many ways on a file that is broken
            warn(f"{path}: kept features cannot be read and are made again: {type(error).__name__}: {error}")
            return None

    def _write(self, path: Path, features: Features) -> None:
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb") as file:
                np.save(file, features, allow_pickle=False)
            temporary.replace(path)
        except (OSError, ValueError) as error:
            self.folder = None
            warn(f"{path.parent}: features of images are not kept on disk: {error}")


def see(core: _core.Model, pictures: Sequence[Picture], cache: FeatureCache) -> list[Features]:
    """What a model's tower makes of images: from the cache, or of those that are not there, MOST_NUMBERS of pixels
    at a time."""
    found: dict[bytes, Features] = {}
    for each in pictures:
        if each.key not in found:
            kept = cache.get(each.key)
            if kept is not None and cache.fits(kept, each, core):
                found[each.key] = kept
    new = list({each.key: each for each in pictures if each.key not in found}.values())
    for some in _portions(new):
        seen = core.see([(each.grid, pixels, None) for each, pixels in zip(some, read_pixels(some), strict=True)])
        for each, features in zip(some, seen, strict=True):
            found[each.key] = features
            cache.put(each.key, features)
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
