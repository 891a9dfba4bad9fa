"""What a GGUF's metadata says, as the config.json that transformers has for the same model."""
from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import FileFormatError, UnsupportedModelError
from ..families import llama3_scale
from .gguf_keys import refuse_unknown
from .gguf_names import ARCHITECTURES, KEYS, LOCAL_THETA, PATTERN, ROTATED, VALUE_LENGTH

MAX_COUNT = 1 << 31
MAX_LAYERS = 1 << 16                                     # a list of this many kinds is still made without harm
GEMMA3_PERIOD, GEMMA3_LOCAL_THETA, GEMMA3_WINDOW = 6, 10000.0, 4096
GEMMA3_27B_LAYERS = 62


@dataclass(frozen=True)
class _Metadata:
    """The keys of one architecture."""

    values: Mapping[str, Any]
    architecture: str
    source: str

    def get(self, key: str, absent: Any = None) -> Any:
        value = self.values.get(f"{self.architecture}.{key}", absent)
        if isinstance(value, list):                      # per-layer arrays of one repeated value are met in the wild
            if not value or any(item != value[0] for item in value):
                raise self.refusal(f"{self.architecture}.{key} that differs by layer")
            value = value[0]
        if value is None:
            raise FileFormatError(f"{self.source}: metadata {self.architecture}.{key} is missing")
        return value

    def has(self, key: str) -> bool:
        return f"{self.architecture}.{key}" in self.values

    def count(self, key: str, absent: int | None = None, low: int = 1, high: int = MAX_COUNT) -> int:
        value = self.get(key, absent)
        if type(value) is not int or not low <= value <= high:
            raise FileFormatError(f"{self.source}: {self.architecture}.{key} must be an integer from {low} to {high}, "
                                  f"not {value!r:.80}")
        return value

    def number(self, key: str, absent: float | None = None, low: float = 0.0) -> float:
        """A float32's shortest decimal is what the original config said (1e-05, not 9.999999747378752e-06)."""
        value = self.get(key, absent)
        if type(value) not in (int, float) or not low <= value <= 1e12:
            raise FileFormatError(f"{self.source}: {self.architecture}.{key} must be a number from {low:g} to 1e+12, "
                                  f"not {value!r:.80}")
        return float(str(np.float32(value)))

    def theta(self, key: str = KEYS["rope_theta"], absent: float | None = 10000.0) -> float:
        return self.number(key, absent, low=1e-3)

    def refusal(self, what: str) -> UnsupportedModelError:
        return UnsupportedModelError(f"{self.source}: {what} is not supported")


def gguf_config(metadata: Mapping[str, Any], vocab_size: int, tie: bool, rope_divisors: np.ndarray | None = None,
                source: str = "GGUF") -> dict[str, Any]:
    """A Hugging Face config that says what GGUF metadata says, so that a saved copy opens elsewhere.

    ``vocab_size``: rows of token_embd; ``tie``: no output.weight; ``rope_divisors``: rope_freqs.weight (D/2) or None.
    """
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str) or architecture not in ARCHITECTURES:
        raise UnsupportedModelError(f"{source}: architecture {architecture!r:.80} is not supported; "
                                    f"supported: {', '.join(ARCHITECTURES)}")
    keys = _Metadata(metadata, architecture, source)
    if keys.get("expert_count", 0):
        raise keys.refusal("a mixture of experts")
    model_type, model_class = ARCHITECTURES[architecture]
    heads, width = keys.count(KEYS["num_attention_heads"]), keys.count(KEYS["hidden_size"])
    config: dict[str, Any] = {
        "architectures": [model_class], "model_type": model_type, "hidden_size": width,
        "intermediate_size": keys.count(KEYS["intermediate_size"]),
        "num_hidden_layers": keys.count(KEYS["num_hidden_layers"], high=MAX_LAYERS), "num_attention_heads": heads,
        "num_key_value_heads": keys.count(KEYS["num_key_value_heads"], heads),
        "rms_norm_eps": keys.number(KEYS["rms_norm_eps"]),
        "max_position_embeddings": keys.count(KEYS["max_position_embeddings"]), "vocab_size": vocab_size,
        "tie_word_embeddings": tie,
    }
    head_dim = keys.count(KEYS["head_dim"], width // heads)
    if any(keys.get(key, head_dim) != head_dim for key in (VALUE_LENGTH, ROTATED)):
        raise keys.refusal(f"a width of value heads or of rotation that differs from key_length {head_dim}")
    if architecture in ("qwen3", "gemma3") or head_dim != width // heads:
        config["head_dim"] = head_dim
    refuse_unknown(metadata, config, head_dim, source)
    scaling = _rope_scaling(keys, config["max_position_embeddings"])
    if rope_divisors is not None:
        if scaling:
            raise keys.refusal("rope_freqs.weight beside rope.scaling")
        scaling = _llama3_from_divisors(keys, rope_divisors, head_dim)
    if architecture == "gemma3":
        return config | _gemma3(keys, config, scaling)
    return config | _silu_family(keys, scaling)


def _silu_family(keys: _Metadata, scaling: dict[str, Any] | None) -> dict[str, Any]:
    """The rest of a llama, Mistral or Qwen."""
    config: dict[str, Any] = {"hidden_act": "silu", "rope_theta": keys.theta()}
    if scaling:
        config["rope_scaling"] = scaling
    window = keys.count(KEYS["sliding_window"], 0, low=0)
    if not window:
        return config
    if keys.architecture != "llama" or keys.has(PATTERN):
        raise keys.refusal(f"sliding-window attention of {keys.architecture}, or of some layers only,")
    # A Mistral: llama.cpp has no architecture of its own for it.
    return config | {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": window}


def _gemma3(keys: _Metadata, config: Mapping[str, Any], scaling: dict[str, Any] | None) -> dict[str, Any]:
    """The rest of a Gemma 3, with rope parameters by kind of layer, as transformers 5 saves them."""
    layers, heads = config["num_hidden_layers"], config["num_attention_heads"]
    # The scale of the scores is in no key: llama.cpp too tells the 27B by its layers.
    scalar = config["hidden_size"] // heads if layers == GEMMA3_27B_LAYERS else config["head_dim"]
    window = keys.count(KEYS["sliding_window"], 0, low=0)
    kinds = ["sliding_attention" if local else "full_attention" for local in _local_layers(keys, layers, window)]
    local_theta = keys.theta(LOCAL_THETA, GEMMA3_LOCAL_THETA)
    rope = {
        "full_attention": {"rope_type": "default", **(scaling or {}), "rope_theta": keys.theta(absent=None)},
        "sliding_attention": {"rope_type": "default", "rope_theta": local_theta},
    }
    return {
        "hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": scalar, "rope_parameters": rope,
        "sliding_window": window or GEMMA3_WINDOW,       # transformers wants a number where no layer has a window, too
        "layer_types": kinds,
        "attn_logit_softcapping": keys.number("attn_logit_softcapping", 0.0) or None,
        "final_logit_softcapping": keys.number("final_logit_softcapping", 0.0) or None,
    }


def _local_layers(keys: _Metadata, layers: int, window: int) -> list[bool]:
    """Which layers have the window: all but each sixth, unless the file has a period or a list of its own."""
    pattern = keys.values.get(f"{keys.architecture}.{PATTERN}", GEMMA3_PERIOD)
    if not window:
        return [False] * layers
    if type(pattern) is int and pattern >= 0:            # the last of each period sees everything; 0: none does
        return [pattern == 0 or i % pattern < pattern - 1 for i in range(layers)]
    if isinstance(pattern, list) and len(pattern) == layers and all(item in (0, 1) for item in pattern):
        return [bool(item) for item in pattern]
    raise FileFormatError(f"{keys.source}: {keys.architecture}.{PATTERN} must be a period, or a flag for "
                          f"each of {layers} layers, not {pattern!r:.80}")


def _rope_scaling(keys: _Metadata, context_length: int) -> dict[str, Any] | None:
    """rope_scaling of the config, or None. A factor without a type is linear; its old key is scale_linear."""
    kind = keys.get("rope.scaling.type", "linear")
    factor = keys.number("rope.scaling.factor" if keys.has("rope.scaling.factor") else "rope.scale_linear", 0.0)
    if keys.number("rope.scaling.alpha", 0.0):
        raise keys.refusal("rope.scaling.alpha")
    if kind == "yarn":
        return _yarn(keys, keys.number("rope.scaling.factor"), context_length)
    if kind not in ("none", "linear"):
        raise UnsupportedModelError(f"{keys.source}: rope scaling {kind!r:.80} is not supported; linear, yarn and "
                                    "llama3 are")
    if keys.number("rope.scaling.attn_factor", 1.0) != 1:
        raise keys.refusal("rope.scaling.attn_factor without yarn")
    return {"rope_type": "linear", "factor": factor} if kind == "linear" and factor not in (0, 1) else None


def _yarn(keys: _Metadata, factor: float, context_length: int) -> dict[str, Any]:
    """YaRN's parameters, those that the file has."""
    original = keys.count("rope.scaling.original_context_length", context_length)
    rope: dict[str, Any] = {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original}
    for name in ("beta_fast", "beta_slow"):
        if keys.has(f"rope.scaling.yarn_{name}"):
            rope[name] = keys.number(f"rope.scaling.yarn_{name}")
    if keys.number("rope.scaling.yarn_ext_factor", 1.0) != 1:
        raise keys.refusal("rope.scaling.yarn_ext_factor other than 1")
    log_multiplier = keys.number("rope.scaling.yarn_log_multiplier", 0.0)
    if log_multiplier:
        rope |= {"mscale": 1.0, "mscale_all_dim": log_multiplier}
    usual = 0.1 * math.log(max(factor, 1)) + 1           # what transformers and llama.cpp scale cos and sin by
    if keys.has("rope.scaling.yarn_attn_factor"):
        # llama.cpp's converter writes two keys of a config.json here: attention_factor, which is the whole factor, and
        # attn_factor, which multiplies the usual one and which neither llama.cpp nor transformers reads. Where it is
        # met (DeepSeek-R1-0528-Qwen3) it would undo the usual one.
        written = keys.number("rope.scaling.yarn_attn_factor")
        rope["attn_factor" if math.isclose(written * usual, 1, rel_tol=1e-4) else "attention_factor"] = written
    multiplier = keys.number("rope.scaling.attn_factor", 1.0)
    if multiplier != 1:
        rope["attention_factor"] = rope.get("attention_factor", usual) * multiplier
    return rope


def _llama3_from_divisors(keys: _Metadata, divisors: np.ndarray, head_dim: int) -> dict[str, Any]:
    """rope_freqs.weight holds 1/llama3_scale; its largest entry is the factor. Those of Llama 3.1 to 3.3 have low 1,
    high 4 and length 8192, others another length; or else the entries between 1 and the factor say what high and length
    are for low 1."""
    factor = float(str(divisors.max(initial=np.float32(0))))
    plain = keys.theta() ** -(np.arange(0, head_dim, 2) / head_dim)
    if divisors.shape != plain.shape or not factor >= 1 or not divisors.min() > 0:
        raise keys.refusal("rope_freqs.weight that is not one divisor, from 1, a pair of a head")
    tried = [(4.0, 8192.0), *((4.0, 2.0**n) for n in range(5, 21))]
    between = (divisors > 1 + 1e-6) & (divisors < factor * (1 - 1e-6))
    if between.sum() > 1:
        # (turns - low) / (high - low), with turns = length * frequency / 2 pi, is a straight line of the frequency
        share = (1 / divisors[between].astype(np.float64) - 1 / factor) / (1 - 1 / factor)
        slope, shift = np.polyfit(plain[between], share, 1)
        high = 1 - 1 / shift if shift < 0 else 0.0
        tried.append((round(float(high), 3), float(round(2 * math.pi * slope * (high - 1)))))
    for high, length in tried:
        if high > 1 and length >= 1 and \
                np.allclose(1 / divisors, llama3_scale(plain, factor, 1.0, high, length), rtol=1e-4):
            return {"rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": high,
                    "original_max_position_embeddings": int(length)}
    raise keys.refusal("rope_freqs.weight other than llama3's scaling (of low 1, high 4 and length 8192, or with "
                       "entries that say others)")
