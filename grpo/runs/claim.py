"""A run folder belongs to the process that writes it: run.lock names host and process, and the system's lock on that
file lasts as long as the process.

The system's lock alone decides between processes of one machine: it goes with its owner, however that ends, so a file
that is left over is taken over without a word. Other machines see it on some network file systems and not on others,
so there the name in the file counts, and a person decides. Where a file system has no locks, the process's number is
asked for.
"""
import contextlib
import errno
import fcntl
import json
import os
import socket
from pathlib import Path
from typing import Any

from ..errors import RunFolderError

LOCK = "run.lock"
BOOT = "/proc/sys/kernel/random/boot_id"     # the same in all containers of a machine

NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)

_held: set[int] = set()                      # descriptors of this process's claims


def _forget_in_child() -> None:
    """A forked child must not keep the claim of a parent that is gone."""
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_forget_in_child)


class ClaimedError(RunFolderError):
    """Another process has the folder."""


class Claim:
    """The exclusive right to write a folder, until release() or the end of the process. Raises ClaimedError naming the
    process that has it."""

    def __init__(self, folder: Path):
        self.path, self._owner = folder / LOCK, os.getpid()
        while (descriptor := self._locked()) is None:      # a claim that was given up in between
            pass
        self._descriptor = descriptor
        _held.add(descriptor)
        try:
            self._sign()
        except BaseException:
            self._close()
            raise

    def _locked(self) -> int | None:
        """The lock file, locked; None where it is not the folder's any more."""
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise RunFolderError(f"{self.path.parent} cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(self.path)):
                    return descriptor
            os.close(descriptor)
            return None
        except BlockingIOError:
            owner = read_owner(descriptor)
            os.close(descriptor)
            raise ClaimedError(f"{self.path.parent} is being written by {name(owner)}; wait for it, stop it, or "
                               "give another output_dir") from None
        except OSError as error:
            owner = read_owner(descriptor)
            if error.errno in NO_LOCKS and not runs_here(owner):
                return descriptor
            os.close(descriptor)
            if error.errno in NO_LOCKS:
                raise ClaimedError(f"{self.path.parent} is being written by {name(owner)}") from error
            raise RunFolderError(f"{self.path} cannot be locked: {error.strerror}") from error

    def _sign(self) -> None:
        """Writes who holds the folder. RunFolderError where a process of another machine does."""
        owner, me = read_owner(self._descriptor), identity()
        if owner and not same_machine(owner, me):
            raise ClaimedError(f"{self.path.parent} is claimed by {name(owner)}, another machine, where this one "
                               f"cannot see whether it still runs; if it does not, delete {self.path} and start "
                               "again")
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, json.dumps(me).encode(), 0)
        except OSError as error:
            raise RunFolderError(f"{self.path} cannot be written: {error.strerror}") from error

    def release(self) -> None:
        """Gives the folder up; the file goes first, so that whoever waits for it sees that it is gone."""
        if self._owner != os.getpid() or self._descriptor not in _held:
            return
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(self._descriptor), os.stat(self.path)):
                self.path.unlink()
        self._close()

    def _close(self) -> None:
        _held.discard(self._descriptor)
        os.close(self._descriptor)


def identity() -> dict[str, Any]:
    """This process, as other machines may know it."""
    try:
        boot = Path(BOOT).read_text(encoding="ascii").strip()
    except OSError:
        boot = None
    return {"host": socket.gethostname(), "pid": os.getpid(), "boot": boot}


def same_machine(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two processes are under one kernel, or under one host's name (the machine was started again)."""
    return a.get("host") == b.get("host") or (a.get("boot") is not None and a.get("boot") == b.get("boot"))


def runs_here(owner: dict[str, Any]) -> bool:
    """Whether a process of this machine is still there."""
    pid = owner.get("pid")
    return same_machine(owner, identity()) and isinstance(pid, int) and os.path.exists(f"/proc/{pid}")


def read_owner(descriptor: int) -> dict[str, Any]:
    """Who signed a lock file; empty where nobody did, or it cannot be read."""
    try:
        owner = json.loads(os.pread(descriptor, 4096, 0))
    except (OSError, ValueError):
        return {}
    return owner if isinstance(owner, dict) else {}


def name(owner: dict[str, Any]) -> str:
    """A process, as errors name it."""
    if not owner:
        return "another process"
    here = " (this one: a loop over a trainer is not over)" if owner == identity() else ""
    return f"process {owner.get('pid', '?')} on {owner.get('host', 'an unknown host')}{here}"
