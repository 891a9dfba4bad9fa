"""Arrays of a checkpoint, read with care: a hash says that a file is whole, not that it is what it should be."""
import io
import os
import stat
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointCorruptError


def open_regular(path: Path) -> io.BufferedReader:
    """A file opened for reading. OSError for a device, a pipe or a socket, of which no byte is waited for."""
    file = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError("is not a regular file")
    return file


def read_arrays(path: Path) -> dict[str, Any]:
    """The arrays of an .npz as numpy.savez writes it, by name: without pickles or compression, so that they take no
    more memory than the file has bytes. CheckpointCorruptError for anything else."""
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise ValueError("holds a compressed array")
            if sum(member.file_size for member in members) > os.fstat(file.fileno()).st_size:
                raise ValueError("claims more bytes than it has")
            arrays = {member.filename.removesuffix(".npy"): _array(archive.read(member)) for member in members}
            if len(arrays) != len(members):
                raise ValueError("holds an array twice")
            return arrays
    except Exception as error:               # zipfile and numpy raise many kinds for what they cannot read
        raise CheckpointCorruptError(f"{path}: cannot be read: {error!s:.200}") from error


def _array(data: bytes) -> np.ndarray:
    """One .npy, whose header must say as many bytes as there are."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f".npy version {version} is not supported")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    if dtype.hasobject or not dtype.itemsize:
        raise ValueError(f"an array of {dtype} is not supported")
    values = np.frombuffer(data, dtype, offset=stream.tell())
    return values.reshape(shape, order="F" if fortran else "C").copy()
