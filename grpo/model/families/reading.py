"""Reading a config key by key: sizes, numbers and flags within limits, in errors that name the file and the key."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from ...errors import FileFormatError, UnsupportedModelError
from .spec import Spec

# Far above every published model, far below what would exhaust memory before the weights are looked at.
LIMITS = {"num_hidden_layers": 1024, "hidden_size": 1 << 17, "num_attention_heads": 1024, "num_key_value_heads": 1024,
          "head_dim": 256, "intermediate_size": 1 << 19, "vocab_size": 1 << 22, "sliding_window": 1 << 30,
          "sliding_window_pattern": 1024}


@dataclass(frozen=True)
class Config:
    """A Hugging Face config. source: names the file in errors. defaults: values of keys that the file leaves out."""

    values: Mapping[str, Any]
    source: str = "config.json"
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def get(self, key: str, absent: Any = None) -> Any:
        """The value as it is; absent: for a key that has no default either."""
        return self.values.get(key, self.defaults.get(key, absent))

    def size(self, key: str, absent: int | None = None, null: int | None = None) -> int:
        """A positive integer within LIMITS. absent: value of a missing key that has no default; null: of an explicit
        null."""
        value = self.get(key, absent)
        return self._integer(key, null if value is None else value, 1, LIMITS[key])

    def integer(self, key: str, low: int, high: int) -> int:
        """An integer from low to high."""
        return self._integer(key, self.get(key), low, high)

    def number(self, key: str, absent: float | None = None, *, low: float, high: float) -> float:
        """A number from low to high."""
        value = self.get(key, absent)
        if value is None:
            raise FileFormatError(f"{self.source}: {key} is missing")
        if type(value) not in (int, float) or not low <= value <= high:
            raise FileFormatError(f"{self.source}: {key} must be a number from {low:g} to {high:g}, not {value!r:.80}")
        return float(value)

    def flag(self, key: str) -> bool:
        """True or false; a null or missing key without a default is false."""
        value = self.get(key)
        if value is not None and type(value) is not bool:
            raise FileFormatError(f"{self.source}: {key} must be true or false, not {value!r:.80}")
        return bool(value)

    def refuse(self, what: str) -> NoReturn:
        """UnsupportedModelError: what would change the numbers, and is not run."""
        raise UnsupportedModelError(f"{self.source}: {what} is not supported")

    def _integer(self, key: str, value: Any, low: int, high: int) -> int:
        if value is None:
            raise FileFormatError(f"{self.source}: {key} is missing")
        if type(value) is not int or not low <= value <= high:
            raise FileFormatError(f"{self.source}: {key} must be an integer from {low} to {high}, not {value!r:.80}")
        return value


@dataclass(frozen=True)
class Family:
    """What a file of this folder says of its models.

    model_type, architecture: as in config.json. spec: a config's network. defaults: transformers' values of keys that a
    config leaves out. tiny: keys of grpo.tiny's config that are other ones in this family; None: a key it has not.

    Of a family that sees: defaults are of the text's keys, wherever a config has them; vision_key: of a config, for the
    tower; tiny_vision: what grpo.tiny has there; image_tokens: what grpo.tiny has beside bytes; chat_template: which
    shows images, where it is not Qwen2-VL's. old_names: {what a tensor's name begins with: what it begins with in
    files}."""

    model_type: str
    architecture: str
    spec: Callable[[Config], Spec]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    tiny: Mapping[str, Any] = field(default_factory=dict)
    vision_key: str = "vision_config"
    tiny_vision: Mapping[str, Any] | None = None
    image_tokens: tuple[str, ...] = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    chat_template: str | None = None
    old_names: Mapping[str, str] = field(default_factory=dict)

    def name_in_files(self, name: str) -> str:
        """What transformers calls a tensor of this family in a file."""
        return next((old + name.removeprefix(new) for new, old in self.old_names.items() if name.startswith(new)), name)
