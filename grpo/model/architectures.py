"""What GGUF metadata means, as a Hugging Face config."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import FileFormatError, UnsupportedModelError
from .families import Config, families, llama3_scale, rope_of, rope_parameters

ARCHITECTURES = ("llama", "qwen2", "qwen3")


def gguf_config(metadata: Mapping[str, Any], vocab_size: int, tie: bool, rope_divisors: np.ndarray | None = None,
                source: str = "GGUF") -> dict[str, Any]:
    """A Hugging Face config that says what GGUF metadata says, so that a saved copy opens elsewhere.

    ``vocab_size``: rows of token_embd; ``tie``: no output.weight; ``rope_divisors``: rope_freqs.weight (D/2) or None.
    """
    kind = metadata.get("general.architecture")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        raise UnsupportedModelError(f"{source}: architecture {kind!r:.80} is not supported; supported: {', '.join(ARCHITECTURES)}")

    def get(key: str, absent: Any = None) -> Any:
        value = metadata.get(f"{kind}.{key}", absent)
        if isinstance(value, list):                       # per-layer arrays of one repeated value are met in the wild
            if not value or any(item != value[0] for item in value):
                raise UnsupportedModelError(f"{source}: {kind}.{key} differs by layer, which is not supported")
            value = value[0]
        if value is None:
            raise FileFormatError(f"{source}: metadata {kind}.{key} is missing")
        return value

    if get("expert_count", 0):
        raise UnsupportedModelError(f"{source}: a mixture of experts is not supported")
    if get("attention.sliding_window", 0):
        raise UnsupportedModelError(f"{source}: sliding-window attention is not supported")
    config = {
        "architectures": [families()[kind].architecture], "model_type": kind, "hidden_size": get("embedding_length"),
        "intermediate_size": get("feed_forward_length"), "num_hidden_layers": get("block_count"),
        "num_attention_heads": get("attention.head_count"),
        "num_key_value_heads": get("attention.head_count_kv", get("attention.head_count")), "hidden_act": "silu",
        # Stored as float32; its shortest decimal is what the original config said (1e-05, not 9.999999747378752e-06).
        "rms_norm_eps": _shortest(get("attention.layer_norm_rms_epsilon"), "layer_norm_rms_epsilon", source),
        "rope_theta": _shortest(get("rope.freq_base", 10000.0), "rope.freq_base", source),
        "max_position_embeddings": get("context_length"), "vocab_size": vocab_size, "tie_word_embeddings": tie,
    }
    heads, width = Config(config, source).size("num_attention_heads"), Config(config, source).size("hidden_size")
    head_dim = get("attention.key_length", width // heads)
    if get("attention.value_length", head_dim) != head_dim or get("rope.dimension_count", head_dim) != head_dim:
        raise UnsupportedModelError(f"{source}: value heads or rotary dimensions that differ from key_length {head_dim!r} are not supported")
    if kind == "qwen3" or head_dim != width // heads:
        config["head_dim"] = head_dim
    scaling = get("rope.scaling.type", "none")
    if scaling == "linear":
        config["rope_scaling"] = {"rope_type": "linear", "factor": get("rope.scaling.factor")}
    elif scaling != "none":
        raise UnsupportedModelError(f"{source}: rope scaling {scaling!r:.80} is not supported; linear and llama3 are")
    if rope_divisors is not None:
        config["rope_scaling"] = _llama3_from_divisors(rope_divisors, config, head_dim, source)
    return config


def _shortest(value: Any, key: str, source: str) -> float:
    return float(str(np.float32(Config({key: value}, source).number(key, low=0.0, high=1e12))))


def _llama3_from_divisors(divisors: np.ndarray, config: Mapping[str, Any], head_dim: int, source: str) -> dict[str, Any]:
    """rope_freqs.weight holds 1/llama3_scale for low 1, high 4, length 8192 (Llama 3.1 to 3.3); its largest entry is the factor."""
    factor = float(divisors.max(initial=0.0))
    plain = rope_of(rope_parameters(Config(config, source)), Config({"head_dim": head_dim}, source).size("head_dim")).inv_freq
    if divisors.shape != plain.shape or not factor >= 1 or not divisors.min() > 0 or \
            not np.allclose(1 / divisors, llama3_scale(plain, factor, 1.0, 4.0, 8192.0), rtol=1e-4):
        raise UnsupportedModelError(f"{source}: rope_freqs.weight is not the llama3 scaling (low 1, high 4, original length 8192)")
    return {"rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192}
