"""From what a user types to files on this machine: a path stays a path, a hub id is downloaded into the library's
cache."""
from __future__ import annotations

import os
import re
from pathlib import Path

from ..errors import ConfigError, FileFormatError
from .paths import path_of

FILES = ["*.safetensors", "*.json", "*.jinja", "merges.txt", "*.tiktoken"]


def resolve(path_or_id: str | os.PathLike[str], files: list[str] = FILES, what: str = "path_or_id") -> Path:
    """A local file or folder for a path or a Hugging Face id ("Qwen/Qwen2.5-0.5B-Instruct"). files: those of an id that
    are wanted; what: the argument, for errors.

    The token, the cache and offline mode are those of huggingface_hub (HF_TOKEN, HF_HOME, HF_HUB_OFFLINE).
    Raises FileFormatError for a path that is not there, ConfigError naming an id that cannot be had, or the argument
    that is no path.
    """
    path = path_of(path_or_id, what)
    text = os.fspath(path_or_id)
    if path.exists():
        return path
    is_id = re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?",
                         text) and not text.lower().endswith((".gguf", ".safetensors", ".bin", ".pt"))
    if not isinstance(path_or_id, str) or not is_id or ".." in text or "--" in text:
        raise FileFormatError(f"{text}: no such file or folder")
    return _download(text, files)


def _download(repo_id: str, files: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        return Path(snapshot_download(repo_id, allow_patterns=files, ignore_patterns=["*/*"]))
    except GatedRepoError as error:
        raise ConfigError(f"{repo_id}: gated on the hub; accept its terms there and set HF_TOKEN") from error
    except RepositoryNotFoundError as error:
        raise ConfigError(f"{repo_id}: no such folder here and no such model on the hub (a private one needs "
                          "HF_TOKEN)") from error
    except LocalEntryNotFoundError as error:
        raise ConfigError(f"{repo_id}: no such folder here, not in the local hub cache, and the hub cannot be "
                          "reached") from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise ConfigError(f"{repo_id}: download failed: {error!s:.300}") from error
