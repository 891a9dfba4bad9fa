"""Matrices of numbers in MATLAB's files of version 5 (.mat), as the labels of older data sets come.

What is read are real numeric matrices, compressed or not, of little- or big-endian files; what else a file holds is an
error.
"""
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import FileFormatError

MAX_FILE = 1 << 22                           # bytes
MAX_MATRIX = 1 << 24                         # bytes, uncompressed
HEADER = 128
# numbers as they are stored, by the type's number, and the classes of matrices that hold numbers
STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
MATRIX, COMPRESSED = 14, 15
COMPLEX = 0x800


def read_matrices(path: Path) -> dict[str, NDArray]:
    """{name: matrix} of a file. FileFormatError that names it, where it is no such file, cut off, or holds anything but
    real numeric matrices."""
    if (size := path.stat().st_size) > MAX_FILE:
        raise FileFormatError(f"{path}: {size} bytes are more than the {MAX_FILE >> 20} MiB that are read of a .mat "
                              "file")
    data = path.read_bytes()
    order = {b"IM": "<", b"MI": ">"}.get(data[126:HEADER])
    if order is None or data[124:126] != struct.pack(order + "H", 0x0100):
        raise FileFormatError(f"{path}: is no MATLAB file of version 5")
    found = {}
    for kind, content in elements(data[HEADER:], order, str(path)):
        if kind == COMPRESSED:
            kind, content = next(elements(inflated(content, str(path)), order, str(path)), (0, b""))
        if kind != MATRIX:
            raise FileFormatError(f"{path}: holds something of type {kind}; numeric matrices are read")
        name, matrix = matrix_of(content, order, str(path))
        found[name] = matrix
    return found


def elements(data: bytes, order: str, where: str) -> Iterator[tuple[int, bytes]]:
    """(type, content) of elements that follow each other, each padded to 8 bytes; those of up to 4 bytes are packed
    with their type."""
    at = 0
    while at < len(data):
        if at + 8 > len(data):
            raise FileFormatError(f"{where}: is cut off")
        kind, size = struct.unpack_from(order + "II", data, at)
        begin, end = at + 8, at + 8 + size
        if kind >> 16:                       # the packed form: size and type share a word
            kind, size = kind & 0xffff, kind >> 16
            if size > 4:
                raise FileFormatError(f"{where}: a packed element says that it has {size} bytes")
            begin, end, after = at + 4, at + 4 + size, at + 8
        else:
            after = end if kind == COMPRESSED else end + -size % 8
        if end > len(data):
            raise FileFormatError(f"{where}: is cut off")
        yield kind, data[begin:end]
        at = after


def inflated(content: bytes, where: str) -> bytes:
    """What was compressed, up to MAX_MATRIX bytes."""
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(content, MAX_MATRIX)
    except zlib.error as error:
        raise FileFormatError(f"{where}: {error}") from error
    if not unpacker.eof:
        raise FileFormatError(f"{where}: is cut off, or a matrix has more than {MAX_MATRIX >> 20} MiB")
    return data


def matrix_of(content: bytes, order: str, where: str) -> tuple[str, NDArray]:
    """(name, values) of a matrix's element: flags, dimensions, name, numbers column by column."""
    parts = list(elements(content, order, where))
    if len(parts) < 4 or len(parts[0][1]) != 8 or parts[1][0] != 5 or len(parts[1][1]) % 4 or parts[2][0] != 1:
        raise FileFormatError(f"{where}: a matrix without flags, dimensions, name and numbers")
    flags, _ = struct.unpack(order + "II", parts[0][1])
    shape = np.frombuffer(parts[1][1], order + "i4").tolist()
    name = parts[2][1].decode("ascii", "replace")
    kind, numbers = parts[3]
    if flags & 0xff not in CLASSES or flags & COMPLEX or kind not in STORED:
        raise FileFormatError(f"{where}: {name!r} is no real numeric matrix")
    values = np.frombuffer(numbers[:len(numbers) - len(numbers) % int(STORED[kind][1])], order + STORED[kind])
    count = 1
    for side in shape:
        count *= side
    if len(shape) < 2 or min(shape) < 0 or count != len(values):
        raise FileFormatError(f"{where}: {name!r} has {len(values)} numbers for its dimensions {shape}")
    return name, values.reshape(shape, order="F").astype(CLASSES[flags & 0xff])
