"""Where a model's tokenizer comes from: its own files, what a caller gives in their place, or nowhere.

A model without a tokenizer runs on token ids: everything that needs none works, and text is a TokenizerError.
"""
from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ..errors import ConfigError, FileFormatError, TokenizerError, warn
from .formats import tiktoken
from .formats.gguf import GgufFile, is_gguf
from .formats.stand_ins import there
from .formats.strict_json import read_bytes
from .hub import resolve
from .special_tokens import end_ids
from .tokenizer import MAX_TOKENIZER_JSON, Tokenizer, load_backend

FILES = ["tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "*.tiktoken",
         "chat_template.*", "additional_chat_templates/*.jinja", "generation_config.json", "config.json"]
OWN = ("tokenizer.json", "vocab.json", tiktoken.FILE)    # of which a folder with a tokenizer has one
NO_VOCABULARY = (None, "none", "no_vocab")               # tokenizer.ggml.model of a GGUF without one


class NoTokenizer(Tokenizer):
    """Stands where a model has no tokenizer: it knows the ids that end a completion, and refuses text by a
    TokenizerError."""

    def __init__(self, source: str, eos_ids: Sequence[int] = ()) -> None:
        self._source = source
        self.special: dict[str, str] = {}
        self.vocab_size = 0
        self.eos_ids = list(eos_ids)
        self.bos_id = None
        self.pad_id = self.eos_ids[0] if self.eos_ids else None
        self.chat_template = None
        self.chat_templates: dict[str, str] = {}

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        """TokenizerError."""
        self._refuse(f"cannot encode {text!r:.80}")

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """TokenizerError; `Model.text_of` has an empty text in its place."""
        self._refuse("cannot decode ids")

    def apply_chat_template(self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool | None = None,
                            tokenize: bool = False, **variables: Any) -> NoReturn:
        """TokenizerError."""
        self._refuse("cannot render a conversation")

    def token_bytes(self, vocab_size: int | None = None) -> tuple[np.ndarray, bytes]:
        """TokenizerError."""
        self._refuse("cannot tell the text of ids, which stop strings need")

    @property
    def special_ids(self) -> set[int]:
        """None are known."""
        return set()

    def save_files(self) -> dict[str, bytes]:
        """There are none."""
        return {}

    def to_gguf(self, rows: int) -> dict[str, Any]:
        """That there is none, and the id that ends a completion."""
        warn(f"{self._source}: there is no tokenizer to be written, so the GGUF takes token ids alone")
        return {"tokenizer.ggml.model": "none", **({"tokenizer.ggml.eos_token_id": self.eos_ids[0]}
                                                   if self.eos_ids else {})}

    def _refuse(self, what: str) -> NoReturn:
        raise TokenizerError(f"{self._source}: {what}: the model has no tokenizer. Give token ids, or load it with "
                             "tokenizer=, a folder, a file or a tokenizer")


def of_folder(folder: Path, eos_ids: Sequence[int]) -> Tokenizer:
    """A model folder's own. Without one a GrpoWarning says so, and token ids are all that the model takes.
    eos_ids: those of the model's config."""
    if any(there(folder / name) for name in OWN):
        return Tokenizer.from_pretrained(folder)
    other = " (tokenizer.model alone is not read; transformers' save_pretrained writes tokenizer.json)" \
        if (folder / "tokenizer.model").is_file() else ""
    read = f"tokenizer.json (nor vocab.json and merges.txt, nor {tiktoken.FILE})"
    return without(str(folder), f"has no {read}{other}", eos_ids)


def of_gguf(metadata: Mapping[str, Any], source: str) -> Tokenizer:
    """The tokenizer in a GGUF's metadata; without one as of_folder."""
    if "tokenizer.ggml.tokens" in metadata or metadata.get("tokenizer.ggml.model") not in NO_VOCABULARY:
        return Tokenizer.from_gguf(metadata, source)
    eos = metadata.get("tokenizer.ggml.eos_token_id")
    return without(source, "has no vocabulary (tokenizer.ggml.tokens)", [eos] if type(eos) is int else [])


def without(source: str, reason: str, eos_ids: Sequence[int]) -> NoTokenizer:
    """The place of a tokenizer that is not there, said on one line."""
    warn(f"{source}: {reason}, so the model takes token ids alone; give one with tokenizer=")
    return NoTokenizer(source, eos_ids)


def given(tokenizer: Any, eos_ids: Sequence[int] = ()) -> Tokenizer:
    """What a caller means by a tokenizer.

    A Tokenizer stays as it is. A path or hub id is a folder, a tokenizer.json or a .gguf; other objects are a
    tokenizers.Tokenizer, or have a save_pretrained as those of transformers do. eos_ids: those of the model's config,
    which end a completion beside the tokenizer's own. ConfigError for anything else, TokenizerError for what cannot be
    read."""
    if isinstance(tokenizer, Tokenizer):
        return tokenizer
    if isinstance(tokenizer, (str, os.PathLike)):
        found = from_path(resolve(tokenizer, FILES, "tokenizer"))
    elif hasattr(tokenizer, "to_str") and hasattr(tokenizer, "get_vocab"):
        found = from_json(tokenizer.to_str().encode(), "tokenizer=")
    elif hasattr(tokenizer, "save_pretrained"):
        found = of_files_of(tokenizer)
    else:
        raise ConfigError("tokenizer= takes a grpo.Tokenizer, a folder, a tokenizer.json, a .gguf, or a tokenizer of "
                          f"tokenizers or transformers, not {tokenizer!r:.80}")
    ends = [*(i for i in eos_ids if i < found.vocab_size), *found.eos_ids]
    found.eos_ids = list(dict.fromkeys(ends))
    return found


def of_files_of(tokenizer: Any) -> Tokenizer:
    """The tokenizer that an object of transformers, a tokenizer or a processor, writes. TokenizerError names its class
    where that is none that is read."""
    name = type(tokenizer).__name__
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        try:
            return Tokenizer.from_pretrained(folder, f"the given {name}")
        except TokenizerError as error:
            wrote = ", ".join(sorted(path.name for path in Path(folder).iterdir())) or "nothing"
            advice = "" if "tokenizer.json" in wrote else "; give the fast one: AutoTokenizer.from_pretrained(..., " \
                "use_fast=True)"
            raise TokenizerError(f"the given {name}: {error!s:.300} (its save_pretrained() wrote {wrote}){advice}"
                                 ) from error


def of_object(name_or_path: str, source: str, eos_ids: Sequence[int]) -> Tokenizer:
    """The tokenizer beside the weights that a model object was loaded from, a folder or a hub id; without one as
    of_folder."""
    if not name_or_path:
        return without(source, "was loaded from no folder that would have a tokenizer", eos_ids)
    try:
        folder = resolve(name_or_path, FILES)
    except (FileFormatError, ConfigError) as error:
        return without(source, f"has no tokenizer ({error!s:.200})", eos_ids)
    return of_folder(folder, eos_ids)


def from_path(path: Path) -> Tokenizer:
    """The tokenizer in a folder, a tokenizer.json or a .gguf."""
    if path.is_dir():
        return Tokenizer.from_pretrained(path)
    if is_gguf(path):
        file = GgufFile(path)
        file.close()
        return Tokenizer.from_gguf(file.metadata, str(path))
    if path.suffix == ".json":
        return from_json(read_bytes(path, MAX_TOKENIZER_JSON), str(path))
    raise TokenizerError(f"{path}: a tokenizer is a folder, a tokenizer.json or a .gguf")


def from_json(data: bytes, source: str) -> Tokenizer:
    """A tokenizer.json, which does not say what ends a completion."""
    return Tokenizer(load_backend(data, source), files={"tokenizer.json": data}, source=source)


def eos_ids_of(*configs: Mapping[str, Any], vocab_size: int, source: str) -> list[int]:
    """eos_token_id, an id or several, of the first of a model's configs that has it, without what is no id of the
    vocabulary: that is said here where the folder, source, has no tokenizer to say it. FileFormatError for what is no
    number."""
    found: Any = next((config["eos_token_id"] for config in configs if config.get("eos_token_id") is not None), [])
    try:
        ids, out = end_ids(found if isinstance(found, list) else [found], vocab_size, source)
    except TokenizerError as error:
        raise FileFormatError(str(error)) from error
    if out and not any((Path(source) / name).exists() for name in OWN):
        warn(f"{source}: end-of-text id {', '.join(map(str, out))} is not a token id (0 to {vocab_size - 1}), and left "
             "out" + ("" if ids else "; nothing else ends a completion"))
    return ids
