"""A config that is a dict and is also asked by attributes, as transformers' configs are."""
from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import did_you_mean

# What a config of transformers has, whether its file says it or not.
OF_CONFIG: dict[str, Any] = {"use_cache": True, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
                             "is_encoder_decoder": False, "architectures": None, "quantization_config": None}
OF_GENERATION: dict[str, Any] = dict.fromkeys(
    ("max_new_tokens", "max_length", "min_new_tokens", "do_sample", "temperature", "top_k", "top_p", "min_p",
     "repetition_penalty", "bos_token_id", "eos_token_id", "pad_token_id", "stop_strings", "suppress_tokens",
     "num_return_sequences"))
FILE = "config.json"


class ConfigView(dict[str, Any]):
    """A dict whose keys are attributes too, and so are those of the dicts in it. absent: what an attribute is that has
    no key. guard: is told which attribute is to be set, and what the dict would become; it may refuse that by an error.

    >>> config = ConfigView({"model_type": "qwen2", "text_config": {"hidden_size": 64}})
    >>> config.use_cache = False
    >>> config.text_config.hidden_size, config["use_cache"], isinstance(config, dict)
    (64, False, True)
    """

    def __init__(self, values: Mapping[str, Any] = {}, absent: Mapping[str, Any] = OF_CONFIG,  # noqa: B006
                 guard: Callable[[str, dict[str, Any]], None] | None = None, file: str = FILE) -> None:
        super().__init__({key: self._part(key, value, absent) for key, value in values.items()})
        for name, value in (("_absent", absent), ("_guard", guard), ("_file", file)):
            object.__setattr__(self, name, value)

    def _part(self, key: str, value: Any, absent: Mapping[str, Any]) -> Any:
        if not isinstance(value, dict):
            return value
        return ConfigView(value, absent, lambda name, changed: self._checked(f"{key}.{name}", {**self, key: changed}))

    def _checked(self, name: str, changed: dict[str, Any]) -> None:
        guard = vars(self)["_guard"]
        if guard is not None:
            guard(name, changed)

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        absent = vars(self).get("_absent", {})
        if name in absent:
            return absent[name]
        raise AttributeError(f"the config has no {name!r}{did_you_mean(name, self)}")

    def __setattr__(self, name: str, value: Any) -> None:
        self._checked(name, {**self, name: value})
        self[name] = self._part(name, value, vars(self)["_absent"])

    def __reduce__(self) -> tuple[Any, ...]:
        return ConfigView, (plain(self), dict(vars(self)["_absent"]), None, vars(self)["_file"])

    def to_dict(self) -> dict[str, Any]:
        """A plain dict of it."""
        return plain(self)

    def to_json_string(self) -> str:
        """Its JSON, as in a file."""
        return json.dumps(self, indent=2, ensure_ascii=False) + "\n"

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Writes its file, config.json or generation_config.json, into a folder."""
        from .formats.folder import FolderWriter

        with FolderWriter(Path(folder)) as writer:
            writer.write(vars(self)["_file"], self.to_json_string().encode())


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same without attributes."""
    return {key: plain(value) if isinstance(value, ConfigView) else value for key, value in values.items()}
