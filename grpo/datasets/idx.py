"""IDX files, in which MNIST comes: a magic number, the sizes, the bytes; gzipped or not."""
import functools
import gzip
import os
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DatasetError

U8 = NDArray[np.uint8]
FILES = {"train": "train", "test": "t10k"}   # the official splits
MAX_BYTES = 1 << 30                          # of a file, unpacked
UNSIGNED_BYTE = 0x08


def read(path: Path, axes: int) -> U8:
    """The array in a file of unsigned bytes, with so many axes. DatasetError that names the file and what is wrong."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"{path}: cannot be read: {error}") from error
    if len(data) > MAX_BYTES:
        raise DatasetError(f"{path}: holds more than {MAX_BYTES} bytes")
    magic, header = bytes([0, 0, UNSIGNED_BYTE, axes]), 4 + 4 * axes
    if data[:4] != magic:
        raise DatasetError(f"{path}: magic number {data[:4].hex() or 'missing'}, not {magic.hex()}: no IDX file of "
                           f"{'images' if axes == 3 else 'labels'}")
    if len(data) < header:
        raise DatasetError(f"{path}: truncated: its header has {len(data)} of {header} bytes")
    shape = [int(n) for n in np.frombuffer(data, ">u4", axes, 4)]
    expected = header + int(np.prod(shape, dtype=object))
    if len(data) != expected:
        raise DatasetError(f"{path}: {'truncated' if len(data) < expected else 'too long'}: {len(data)} bytes, and "
                           f"{expected} for {' x '.join(map(str, shape))}")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


@functools.lru_cache(4)
def images(folder: str, split: str) -> U8:
    """(n, height, width) of a split's file of images."""
    return read(find(folder, split, "images-idx3-ubyte"), 3)


@functools.lru_cache(4)
def labels(folder: str, split: str) -> U8:
    """(n) digits of a split's file of labels, checked to be digits and as many as there are images."""
    path = find(folder, split, "labels-idx1-ubyte")
    found, shown = read(path, 1), len(images(folder, split))
    if len(found) != shown:
        raise DatasetError(f"{path}: {len(found)} labels for {shown} images")
    if not len(found):
        raise DatasetError(f"{path}: holds no labels")
    if (wrong := np.flatnonzero(found > 9)).size:
        raise DatasetError(f"{path}: label {int(wrong[0])} is {int(found[wrong[0]])}, not a digit")
    return found


def find(folder: str, split: str, what: str) -> Path:
    """A split's file, named with - or . before idx, gzipped or not."""
    names = [f"{FILES[split]}-{name}{packed}" for name in (what, what.replace("-idx", ".idx"))
             for packed in ("", ".gz")]
    found = next((path for name in names if (path := Path(folder, name)).is_file()), None)
    if found is None:
        there = ", ".join(sorted(os.listdir(folder))[:5]) if os.path.isdir(folder) else "no folder"
        raise DatasetError(f"{folder}: has none of {', '.join(names)}; there: {there or 'nothing'}")
    return found
