"""Files of data sets from the net, into a cache: what is there under a file's own name is whole and as it was
published.

A file comes as NAME.part and gets its name when its checksum is right. What was interrupted goes on where it stopped,
where the server can do that, and else anew.
"""
import contextlib
import fcntl
import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO

from ..errors import DatasetError, note

CACHE, HF_OFFLINE = "GRPO_CACHE", "HF_HUB_OFFLINE"
CHUNK = 1 << 20
TIMEOUT = 60                                 # seconds without a byte


@dataclass(frozen=True)
class RemoteFile:
    """A file of the net. md5: what its bytes hash to, in hexadecimal; most: bytes that it has at most."""

    url: str
    md5: str
    most: int

    @property
    def name(self) -> str:
        """What it is called in a folder."""
        return self.url.rpartition("/")[2]


def cache_folder(name: str) -> Path:
    """Where the files of a data set are kept: in $GRPO_CACHE, or in ~/.cache/grpo."""
    parent = os.environ.get(CACHE) or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "grpo")
    return Path(parent).expanduser() / "datasets" / name


def fetch(file: RemoteFile, folder: Path) -> Path:
    """The file in folder, downloaded where it is not there. DatasetError that names the address where it cannot be had
    or is not what was published."""
    path = folder / file.name
    if path.is_file():
        return path
    if os.environ.get(HF_OFFLINE, "").casefold() in ("1", "true", "yes", "on"):
        raise DatasetError(f"{path} is not there, and {HF_OFFLINE} is set: download it from {file.url}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(path.with_name(file.name + ".lock")):
            if not path.is_file():           # another process may have had it meanwhile
                download(file, path)
    except (OSError, HTTPException) as error:            # URLError is an OSError
        raise DatasetError(f"{file.url} cannot be downloaded to {folder}: {error}; the same call goes on where it "
                           "stopped") from error
    return path


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """The right to write a file, waited for; it goes with the process."""
    with open(path, "ab") as lock:
        with contextlib.suppress(OSError):   # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def download(file: RemoteFile, path: Path) -> None:
    """Downloads a file; what is there of it already is kept, and left out where the whole then turns out wrong."""
    part = path.with_name(path.name + ".part")
    note(f"downloading {file.url} to {path.parent}")
    begun = part.stat().st_size if part.is_file() else 0
    receive(file, part, begun)
    found = md5_of(part)
    if found != file.md5 and begun:          # the beginning may have been of another file
        part.unlink()
        receive(file, part, 0)
        found = md5_of(part)
    if found != file.md5:
        size = part.stat().st_size
        part.unlink()
        raise DatasetError(f"{file.url}: its {size} bytes have the MD5 sum {found}, not {file.md5}: what came is not "
                           "the file that was published")
    part.replace(path)


def receive(file: RemoteFile, part: Path, begun: int) -> None:
    """Writes a file's bytes to part, from the byte begun on where the server does that, else all of them."""
    request = urllib.request.Request(file.url, headers={"Range": f"bytes={begun}-"} if begun else {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            goes_on = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {begun}-")
            expected = answer.headers.get("Content-Length")
            with open(part, "ab" if goes_on else "wb") as out:
                came = copy(answer, out, file, begun if goes_on else 0)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not begun:   # 416: there is nothing after what is there
            raise
        return
    if expected is not None and came != int(expected):
        raise OSError(f"the connection ended after {came} of {expected} bytes")


def copy(answer: BinaryIO, out: BinaryIO, file: RemoteFile, begun: int) -> int:
    """Writes what comes; the number of bytes."""
    came = 0
    while data := answer.read(CHUNK):
        came += len(data)
        if begun + came > file.most:
            raise DatasetError(f"{file.url}: more than the {file.most} bytes that the file can have came")
        out.write(data)
    return came


def md5_of(path: Path) -> str:
    """The MD5 sum of a file, in hexadecimal."""
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while data := file.read(CHUNK):
            digest.update(data)
    return digest.hexdigest()
