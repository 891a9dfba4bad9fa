"""The config reader: what a Hugging Face ``config.json`` means for the core.

`core_arguments` turns a config into the keyword arguments of ``_core.Model``. Keys that a file leaves out take the
values transformers gives them. Everything that changes the numbers and that the core does not run is refused by name.
"""
from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .errors import FileFormatError, UnsupportedModelError


@dataclass(frozen=True)
class Family:
    """What a ``model_type`` implies; ``defaults`` are transformers' values for keys the file leaves out."""

    architecture: str
    qkv_bias: bool = False
    qk_norm: bool = False
    defaults: Mapping[str, Any] = field(default_factory=dict)


FAMILIES = {
    "llama": Family("LlamaForCausalLM"),
    "qwen2": Family("Qwen2ForCausalLM", qkv_bias=True, defaults={"num_key_value_heads": 32}),
    "qwen3": Family("Qwen3ForCausalLM", qk_norm=True, defaults={"num_key_value_heads": 32, "head_dim": 128}),
}
# Far above every published model, far below what would exhaust memory before the weights are looked at.
LIMITS = {"num_hidden_layers": 1024, "hidden_size": 1 << 17, "num_attention_heads": 1024, "num_key_value_heads": 1024,
          "head_dim": 256, "intermediate_size": 1 << 19, "vocab_size": 1 << 22}


def core_arguments(config: Mapping[str, Any], source: str = "config.json") -> dict[str, Any]:
    """Keyword arguments of ``_core.Model`` for a Hugging Face config, in the old or the transformers-v5 spelling.

    ``source`` names the file in errors. Raises FileFormatError for a missing or impossible value and
    UnsupportedModelError for anything that the core does not run.

    >>> core_arguments({"model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    ...                 "num_attention_heads": 4, "vocab_size": 256})["head_dim"]
    16
    """
    family = _family(config, source)
    _refuse_unsupported(config, source)
    _number(config, "max_position_embeddings", source, 1, low=1, high=1e9)
    n_heads = _size(config, "num_attention_heads", source)
    n_kv_heads = _size(config, "num_key_value_heads", source, family.defaults.get("num_key_value_heads", n_heads), n_heads)
    d_model = _size(config, "hidden_size", source)
    head_dim = _size(config, "head_dim", source, family.defaults.get("head_dim"), d_model // n_heads)
    derived = config.get("head_dim", family.defaults.get("head_dim")) is None
    if derived and d_model % n_heads:
        raise FileFormatError(f"{source}: hidden_size {d_model} is not a multiple of num_attention_heads {n_heads}")
    if n_heads % n_kv_heads:
        raise FileFormatError(f"{source}: num_attention_heads {n_heads} is not a multiple of num_key_value_heads {n_kv_heads}")
    if head_dim % 2:
        raise FileFormatError(f"{source}: head_dim {head_dim} is odd; rotary embedding needs pairs")
    return {
        "n_layers": _size(config, "num_hidden_layers", source), "d_model": d_model, "n_heads": n_heads,
        "n_kv_heads": n_kv_heads, "head_dim": head_dim, "d_ff": _size(config, "intermediate_size", source),
        "vocab_size": _size(config, "vocab_size", source),
        "rms_eps": _number(config, "rms_norm_eps", source, 1e-6, low=0.0, high=1.0),
        "tie": _flag(config, "tie_word_embeddings", source), "qkv_bias": family.qkv_bias, "qk_norm": family.qk_norm,
        "inv_freq": inverse_frequencies(config, head_dim, source),
    }


def inverse_frequencies(config: Mapping[str, Any], head_dim: int, source: str = "config.json") -> np.ndarray:
    """(head_dim / 2,) float32: theta^(-2j/D), scaled as the config's rope parameters say (default, linear, llama3)."""
    rope, kind = rope_parameters(config, source)
    theta = _number(rope, "rope_theta", source, config.get("rope_theta", 10000.0), low=1e-3, high=1e12)
    exponent = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    # The power in double, rounded once: agrees with torch's float32 power in all but the odd last bit.
    inv_freq = np.float32(1) / np.power(float(theta), exponent.astype(np.float64)).astype(np.float32)
    if kind == "default":
        return inv_freq
    factor = _number(rope, "factor", source, low=1e-3, high=1e6)
    if kind == "linear":
        return (inv_freq / np.float32(factor)).astype(np.float32)
    return (inv_freq * llama3_scale(inv_freq, factor, _number(rope, "low_freq_factor", source, low=1e-6, high=1e6),
                                    _number(rope, "high_freq_factor", source, low=1e-6, high=1e6),
                                    _number(rope, "original_max_position_embeddings", source,
                                            config.get("max_position_embeddings"), low=1, high=1e9))).astype(np.float32)


def llama3_scale(inv_freq: np.ndarray, factor: float, low: float, high: float, original_length: float) -> np.ndarray:
    """What Llama 3.1's scaling multiplies each inverse frequency by: 1 for short wavelengths, 1/factor for long ones."""
    turns = original_length * inv_freq.astype(np.float64) / (2 * math.pi)
    smooth = (turns - low) / (high - low) if high != low else np.zeros_like(turns)
    return np.where(turns > high, 1.0, np.where(turns < low, 1 / factor, (1 - smooth) / factor + smooth))


def rope_parameters(config: Mapping[str, Any], source: str) -> tuple[Mapping[str, Any], str]:
    """The rope dict of a config and its type, "default", "linear" or "llama3"; anything else is refused by name."""
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if isinstance(rope, Mapping) and set(rope) == {"full_attention"}:
        rope = rope["full_attention"]
    if not isinstance(rope, Mapping) or any(isinstance(value, Mapping) for value in rope.values()):
        raise UnsupportedModelError(f"{source}: rope parameters that differ by layer are not supported: {rope!r:.200}")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if "mrope_section" in rope or kind == "mrope":
        raise UnsupportedModelError(f"{source}: multimodal rope (mrope) is not supported yet")
    if kind not in ("default", "linear", "llama3"):
        raise UnsupportedModelError(f"{source}: rope scaling {kind!r:.80} is not supported; default, linear and llama3 are")
    if rope.get("partial_rotary_factor", config.get("partial_rotary_factor")) not in (None, 1, 1.0):
        raise UnsupportedModelError(f"{source}: partial_rotary_factor other than 1 is not supported")
    return rope, kind


def _family(config: Mapping[str, Any], source: str) -> Family:
    kind = config.get("model_type")
    if isinstance(kind, str) and kind in FAMILIES:
        return FAMILIES[kind]
    if kind is None:
        raise FileFormatError(f"{source}: no model_type")
    known = ", ".join(FAMILIES)
    why = " (multimodal)" if "vision_config" in config or "_vl" in str(kind) else " (mixture of experts)" if "_moe" in str(kind) else ""
    raise UnsupportedModelError(f"{source}: model_type {kind!r:.80}{why} is not supported; supported: {known}")


def _refuse_unsupported(config: Mapping[str, Any], source: str) -> None:
    """Everything that would change the numbers and that the core does not compute."""
    def refuse(what: str) -> None:
        raise UnsupportedModelError(f"{source}: {what} is not supported")

    kind = config["model_type"]
    if config.get("hidden_act", "silu") not in ("silu", "swish"):
        refuse(f"hidden_act {config['hidden_act']!r:.80} (only silu)")
    if kind != "qwen2" and _flag(config, "attention_bias", source):
        refuse(f"attention_bias of {kind} (it puts a bias on o_proj)")
    if kind == "llama" and _flag(config, "mlp_bias", source):
        refuse("mlp_bias")
    layers = _size(config, "num_hidden_layers", source)
    if _flag(config, "use_sliding_window", source) and config.get("sliding_window") is not None \
            and not (isinstance(config.get("max_window_layers"), int) and config["max_window_layers"] >= layers):
        refuse(f"sliding-window attention (use_sliding_window with sliding_window={config['sliding_window']!r:.40})")
    kinds = config.get("layer_types") or []
    other = next((t for t in kinds if t != "full_attention"), None) if isinstance(kinds, list) else kinds
    if other is not None:
        refuse(f"layer type {other!r:.80} (only full_attention)")
    for key, what in (("quantization_config", "a quantised checkpoint (quantization_config)"),
                      ("vision_config", "a multimodal model (vision_config)"), ("num_experts", "a mixture of experts (num_experts)"),
                      ("num_local_experts", "a mixture of experts (num_local_experts)"),
                      ("rope_interleaved", "rope_interleaved")):
        if config.get(key):
            refuse(what)
    if config.get("attention_dropout"):
        refuse(f"attention_dropout {config['attention_dropout']!r:.40} (set it to 0: policy log-probs must be those that were sampled)")


def _size(config: Mapping[str, Any], key: str, source: str, absent: int | None = None, null: int | None = None) -> int:
    """A positive integer within LIMITS. ``absent``: value of a missing key; ``null``: value of an explicit null."""
    value = config.get(key, absent)
    value = null if value is None else value
    if value is None:
        raise FileFormatError(f"{source}: {key} is missing")
    if type(value) is not int or not 1 <= value <= LIMITS[key]:
        raise FileFormatError(f"{source}: {key} must be an integer from 1 to {LIMITS[key]}, not {value!r:.80}")
    return value


def _number(config: Mapping[str, Any], key: str, source: str, absent: Any = None, *, low: float, high: float) -> float:
    value = config.get(key, absent)
    if value is None:
        raise FileFormatError(f"{source}: {key} is missing")
    if type(value) not in (int, float) or not low <= value <= high:
        raise FileFormatError(f"{source}: {key} must be a number from {low:g} to {high:g}, not {value!r:.80}")
    return float(value)


def _flag(config: Mapping[str, Any], key: str, source: str) -> bool:
    value = config.get(key)
    if value is not None and type(value) is not bool:
        raise FileFormatError(f"{source}: {key} must be true or false, not {value!r:.80}")
    return bool(value)
