"""Paths that a caller gives: what the system cannot take for one is a ConfigError that names the argument."""
from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from ..errors import ConfigError

NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)   # nothing is wrong with such a path itself


def path_of(given: Any, what: str) -> Path:
    """The path that is meant, with ~ as somebody's home. what: the argument, for errors. ConfigError for what is no
    path: another type, an empty text, NUL, half a surrogate pair, a home of nobody, a name too long for the system.

    >>> path_of("model.gguf", "path").name
    'model.gguf'
    """
    try:
        text = os.fspath(given)
    except TypeError:
        text = None
    if not isinstance(text, str):
        raise ConfigError(f"{what} must be a path, not {given!r:.80}")
    if not text:
        raise ConfigError(f"{what} is empty; give a path")
    try:
        path = Path(text).expanduser()
        os.lstat(path)
    except UnicodeEncodeError as error:
        raise ConfigError(f"{what} {text!a:.120} holds half a surrogate pair, which no path does") from error
    except ValueError as error:                          # NUL
        raise ConfigError(f"{what} {text!a:.120} is no path: {error}") from error
    except RuntimeError as error:
        raise ConfigError(f"{what} {text!a:.120}: there is no user of that name to have a home; write ./ before a "
                          "name that begins with ~") from error
    except OSError as error:
        if error.errno not in NOT_THERE:
            raise ConfigError(f"{what} {text!a:.120}: {error.strerror}") from error
    return path
