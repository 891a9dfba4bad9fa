"""Every error this package raises on purpose. Each is also the builtin that people already catch."""
import difflib
import sys
import warnings
from collections.abc import Iterable
from types import FrameType


class GrpoError(Exception):
    """Base of all errors of this package."""


class ConfigError(GrpoError, ValueError):
    """A value the caller chose is wrong; the message names it and what is allowed."""


class FileFormatError(GrpoError, ValueError):
    """A file is missing pieces, truncated or malformed; the message names the file and the place."""


class CheckpointError(GrpoError, OSError):
    """A checkpoint could not be written or read."""


class CheckpointCorruptError(CheckpointError):
    """A checkpoint's bytes differ from its manifest."""


class CheckpointMismatchError(CheckpointError, ValueError):
    """A checkpoint belongs to another model or configuration."""


class RunFolderError(GrpoError, OSError):
    """A run folder cannot be written, is gone, or belongs to another process; the message names it."""


class UnsupportedModelError(GrpoError, NotImplementedError):
    """An architecture, option or tensor type that this package does not run."""


class TokenizerError(GrpoError, ValueError):
    """The tokenizer is missing, broken, or does not fit the model."""


class DatasetError(GrpoError, ValueError):
    """A data set is empty or a row is wrong; the message names the row."""


class ImageError(GrpoError, ValueError):
    """An image cannot be read, or is none that a model can be shown; the message begins with which."""


class RewardError(GrpoError, RuntimeError):
    """A reward function raised or returned something unusable; the message names the function and the row."""


class DeviceError(GrpoError, RuntimeError):
    """The device asked for is not there."""


class OutOfMemoryError(GrpoError, MemoryError):
    """The plan does not fit; the message says who wants how much and what to shrink."""


class NonFiniteError(GrpoError, FloatingPointError):
    """NaN or infinity where a number should be; weights were left as they were."""


class BusyError(GrpoError, RuntimeError):
    """The object is already running a call on another thread."""


class GrpoWarning(UserWarning):
    """Something a user should know that does not stop the run."""


def warn(text: str) -> None:
    """A GrpoWarning that points at the line outside of this package from which it came."""
    frame: FrameType | None = sys._getframe(1)
    level = 2
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == __package__:
        frame, level = frame.f_back, level + 1
    warnings.warn(text, GrpoWarning, stacklevel=level)


def note(text: str) -> None:
    """A line on standard error: what changes no result, but should not be passed over in silence."""
    print(text, file=sys.stderr, flush=True)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """'; did you mean ...?' or '.', for the end of an error message."""
    close = difflib.get_close_matches(str(name), sorted(known), n=2, cutoff=0.6)
    return f"; did you mean {' or '.join(repr(c) for c in close)}?" if close else "."
