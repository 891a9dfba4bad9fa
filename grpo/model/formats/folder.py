"""Files that appear whole or not at all: written under a temporary name, synced, then renamed together."""
from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import IO

from ...errors import CheckpointError


class FolderWriter:
    """Writes files into a folder; none is visible before `commit`, and an exception leaves the folder as it was.

    >>> with FolderWriter(Path("model")) as folder:                                                # doctest: +SKIP
    ...     folder.write("config.json", b"{}")
    """

    def __init__(self, folder: Path, last: str = "config.json") -> None:
        self.folder, self._last = folder, last
        self._pending: dict[str, Path] = {}
        self._stale: list[str] = []
        self._made: list[Path] = []                      # folders, which an exception leaves none of
        self._make(folder)

    def __enter__(self) -> FolderWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is None:
            self.commit()
            return
        for temporary in self._pending.values():
            temporary.unlink(missing_ok=True)
        for made in reversed(self._made):
            with contextlib.suppress(OSError):           # others may have come to use it
                made.rmdir()
        if isinstance(error, OSError) and not isinstance(error, CheckpointError):
            raise CheckpointError(f"{self.folder}: writing failed: {error}") from error

    def open(self, name: str) -> IO[bytes]:
        """A new file for writing, seen as ``name`` after commit; a name may begin with a folder."""
        path = self.folder / name
        self._make(path.parent)
        self._pending[name] = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        return open(self._pending[name], "wb")

    def _make(self, folder: Path) -> None:
        """The folder and those that it lies in, where they are not there."""
        missing = [each for each in (folder, *folder.parents) if not each.exists()]
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"{folder}: cannot be made: {error.strerror}") from error
        self._made += reversed(missing)

    def write(self, name: str, data: bytes) -> None:
        """A file of these bytes, seen as ``name`` after commit."""
        with self.open(name) as file:
            file.write(data)

    def remove(self, name: str) -> None:
        """A file of an earlier save that would contradict this one; deleted by commit."""
        self._stale.append(name)

    def commit(self) -> None:
        """Sync everything, then rename; ``last`` is renamed last, so a folder that has it has the rest."""
        for temporary in self._pending.values():
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
        for name in self._stale:
            (self.folder / name).unlink(missing_ok=True)
        for name in sorted(self._pending, key=lambda name: name == self._last):
            os.replace(self._pending[name], self.folder / name)
        self._pending = {}
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
