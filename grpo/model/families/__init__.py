"""Model families: what a Hugging Face ``config.json`` means, as a `Spec`, which is all the core is told of a network.

A family is a file of this folder, found by its name: a config's model_type, without a "_text" at its end. It has a
FAMILY (reading.Family), whose function makes a Spec of a Config. Keys that a config leaves out take the values that
transformers gives them. Everything that changes the numbers and that is not run is refused by the name of the key, and
of the layer where it is one's. A config of another model_type is read where all of its keys are understood.

>>> spec_of({"model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
...          "num_attention_heads": 4, "vocab_size": 256}).layers[1].attention.head_dim
16
"""
from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from ...errors import FileFormatError, UnsupportedModelError
from .block import refuse_foreign
from .foreign import in_known_words
from .reading import Config, Family
from .rope import llama3_scale, rope_of, rope_parameters
from .spec import Attention, Layer, Mlp, Rope, Spec, check

__all__ = ["Attention", "Config", "Family", "Layer", "Mlp", "Rope", "Spec", "check", "families",
           "known_words", "llama3_scale", "rope_of", "rope_parameters", "spec_of", "text_of"]


@functools.cache
def families() -> Mapping[str, Family]:
    """By the name of their file: the modules of this folder that have a FAMILY."""
    modules = {name: importlib.import_module(f"{__name__}.{name}") for _, name, _ in pkgutil.iter_modules(__path__)}
    return {name: module.FAMILY for name, module in modules.items() if hasattr(module, "FAMILY")}


def spec_of(config: Mapping[str, Any], source: str = "config.json") -> Spec:
    """The network of a Hugging Face config, in the old or the transformers-v5 spelling.

    ``source`` names the file in errors. Raises FileFormatError for a missing or impossible value and
    UnsupportedModelError for anything that is not run."""
    config = known_words(config, source)
    family = family_of(config, source)
    sees = family.tiny_vision is not None
    refuse_foreign(Config(config, source), *([family.vision_key] if sees else []))
    text = Config(text_of(config), source, family.defaults)
    refuse_foreign(text)
    text.number("max_position_embeddings", 1, low=1, high=1e9)
    return check(family.spec(Config(config, source) if sees else text), source)


def text_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A config's keys of the text: those of its text_config, or its own."""
    nested = config.get("text_config")
    if isinstance(nested, Mapping):
        return nested
    return {key: value for key, value in config.items() if key not in ("text_config", "vision_config")} \
        if "vision_config" in config else config


def known_words(config: Mapping[str, Any], source: str) -> Mapping[str, Any]:
    """The config; of a model_type that no file here has, what it says in the words of one that has (`foreign`).
    UnsupportedModelError, with the key or the name, where it says something else."""
    kind = config.get("model_type")
    if kind is None:
        raise FileFormatError(f"{source}: no model_type")
    family = families().get(kind.removesuffix("_text")) if isinstance(kind, str) else None
    if family is not None and family.model_type == kind:
        return config
    known = ", ".join(family.model_type for family in families().values())
    if family is not None or "vision_config" in config:
        raise UnsupportedModelError(f"{source}: model_type {kind!r:.80} (multimodal) is not supported; supported: "
                                    f"{known}")
    return in_known_words(config, source, known)


def family_of(config: Mapping[str, Any], source: str) -> Family:
    """The family of a config."""
    return families()[known_words(config, source)["model_type"].removesuffix("_text")]
