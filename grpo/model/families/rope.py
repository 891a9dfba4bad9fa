"""Rotary position embedding as data: what a config's rope parameters, in either spelling, make of plain frequencies.

Types are those of transformers, and so are their numbers: default, linear, llama3, yarn and dynamic.

"dynamic" (NTK) stretches its base once a sequence is longer than max_position_embeddings, by how long it is by then:
keys that are in the cache already would have to change, and log-probs of a prefix depend on what comes after it. Up to
that length it is the plain rope, and that is what it is here: `max_positions` says where it ends, and longer sequences
are refused.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import UnsupportedModelError, warn
from .reading import Config
from .spec import Rope

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Frequencies = NDArray[np.float32]
    Scaling = Callable[[Config, Frequencies], tuple[Frequencies, float]]

UNTYPED = ("llama", "mistral")
THETA = 10000.0                                          # where no key says so
LENGTHS = {"low": 1, "high": 1e9}
FACTORS = {"low": 1e-6, "high": 1e6}


def rope_of(parameters: Config, head_dim: int) -> Rope:
    """(head_dim / 2,) frequencies theta^(-2j/D), scaled as the rope parameters say, and the scale of cos and sin."""
    exponent = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    # The power in double, rounded once: agrees with torch's float32 power in all but the odd last bit.
    theta = parameters.number("rope_theta", low=1e-3, high=1e12)
    powers = np.power(theta, exponent.astype(np.float64)).astype(np.float32)
    return Rope(*SCALINGS[parameters.get("rope_type")](parameters, np.float32(1) / powers))


def max_positions(*ropes: Config) -> int:
    """The longest sequence, in tokens, for which rope parameters mean fixed frequencies; 0: there is no such limit."""
    dynamic = [each for each in ropes if each.get("rope_type") == "dynamic"]
    return min((int(each.number("max_position_embeddings", **LENGTHS)) for each in dynamic), default=0)


def rope_parameters(config: Config) -> Config:
    """Rope parameters of all layers of a config, complete: rope_type, rope_theta, the lengths, and the type's own.

    By type of layer they may be where configs have types of layers. Those of Llama and Mistral have none, and
    transformers passes such parameters over; they are refused."""
    found = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if isinstance(found, Mapping) and set(found) == {"full_attention"} and config.get("model_type") not in UNTYPED:
        found = found["full_attention"]
    if not isinstance(found, Mapping) or any(isinstance(value, Mapping) for value in found.values()):
        config.refuse(f"rope parameters by layer ({found!r:.200})")
    if "original_max_position_embeddings" in config:     # beside the rope parameters it goes over theirs
        found = {**found, "original_max_position_embeddings": config.get("original_max_position_embeddings")}
    return complete(config, found, config.source)


def complete(config: Config, found: Mapping[str, Any], where: str, theta: str = "rope_theta",
             plain: float = THETA) -> Config:
    """Rope parameters with what the rest of the config says. where: names them in errors. theta: the config's key for
    the base; plain: the base without it."""
    kind = found.get("rope_type", found.get("type", "default"))
    if "mrope_section" in found or kind == "mrope":
        raise UnsupportedModelError(f"{where}: multimodal rope (mrope) is not supported yet")
    if not isinstance(kind, str) or kind not in SCALINGS:
        raise UnsupportedModelError(f"{where}: rope scaling {kind!r:.80} is not supported; {', '.join(SCALINGS)} are")
    if found.get("partial_rotary_factor", config.get("partial_rotary_factor")) not in (None, 1, 1.0):
        raise UnsupportedModelError(f"{where}: partial_rotary_factor other than 1 is not supported")
    longest = config.get("max_position_embeddings")
    return Config({**found, "rope_type": kind, "rope_theta": found.get("rope_theta", config.get(theta, plain)),
                   "max_position_embeddings": longest,
                   "original_max_position_embeddings": found.get("original_max_position_embeddings", longest)}, where)


# -- the types: (parameters, plain frequencies) -> (frequencies, scale of cos and sin) --------------------------------

def default(parameters: Config, plain: Frequencies) -> tuple[Frequencies, float]:
    """Nothing is scaled."""
    return plain, 1.0


def linear(parameters: Config, plain: Frequencies) -> tuple[Frequencies, float]:
    """Positions divided by a factor."""
    return (plain / np.float32(parameters.number("factor", low=1e-3, high=1e6))).astype(np.float32), 1.0


def llama3(parameters: Config, plain: Frequencies) -> tuple[Frequencies, float]:
    """Llama 3.1's: long wavelengths divided by a factor, short ones left alone."""
    scale = llama3_scale(plain, parameters.number("factor", low=1e-3, high=1e6),
                         parameters.number("low_freq_factor", **FACTORS),
                         parameters.number("high_freq_factor", **FACTORS),
                         parameters.number("original_max_position_embeddings", **LENGTHS))
    return (plain * scale).astype(np.float32), 1.0


def llama3_scale(inv_freq: np.ndarray, factor: float, low: float, high: float, original_length: float) -> np.ndarray:
    """What Llama 3.1's scaling multiplies each inverse frequency by: 1 for short wavelengths, 1/factor for long."""
    turns = original_length * inv_freq.astype(np.float64) / (2 * math.pi)
    smooth = (turns - low) / (high - low) if high != low else np.zeros_like(turns)
    return np.where(turns > high, 1.0, np.where(turns < low, 1 / factor, (1 - smooth) / factor + smooth))


def yarn(parameters: Config, plain: Frequencies) -> tuple[Frequencies, float]:
    """YaRN (Peng et al. 2023): pairs that turn often keep their frequency, those that hardly turn have it divided by
    the factor, and between them it is a mix; cos and sin are scaled, which makes the softmax sharper."""
    original = parameters.number("original_max_position_embeddings", **LENGTHS)
    given = "factor" not in parameters or parameters.get("factor") is not None
    factor = parameters.number("factor", low=1e-3, high=1e6) if given \
        else parameters.number("max_position_embeddings", **LENGTHS) / original
    theta = parameters.number("rope_theta", low=1 + 1e-6, high=1e12)

    def pair_of(turns: float) -> float:
        """The pair that turns so often within the original length."""
        return 2 * len(plain) * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low = pair_of(optional(parameters, "beta_fast", **FACTORS) or 32.0)
    high = pair_of(optional(parameters, "beta_slow", **FACTORS) or 1.0)
    if parameters.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, 2 * len(plain) - 1)
    span = np.float32(high - low if high != low else 0.001)
    divided = np.clip((np.arange(len(plain), dtype=np.float32) - np.float32(low)) / span, 0, 1)
    mixed = plain / np.float32(factor) * divided + plain * (1 - divided)
    return mixed.astype(np.float32), attention_factor(parameters, factor)


def attention_factor(parameters: Config, factor: float) -> float:
    """Of YaRN: as given, or 0.1 ln(factor) + 1, or a quotient of two such with mscale and mscale_all_dim in them."""
    def grown(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1 if factor > 1 else 1.0

    if "attn_factor" in parameters and "attention_factor" not in parameters:
        warn(f"{parameters.source}: attn_factor of a rope is ignored, as by transformers; attention_factor is its key")
    given = optional(parameters, "attention_factor", **FACTORS)
    if given is not None:
        return given
    mscale, all_dim = (optional(parameters, key, low=0, high=1e6) for key in ("mscale", "mscale_all_dim"))
    return grown(mscale) / grown(all_dim) if mscale and all_dim else grown(1.0)


def optional(parameters: Config, key: str, *, low: float, high: float) -> float | None:
    """A number, or None where the key is missing or null."""
    return None if parameters.get(key) is None else parameters.number(key, low=low, high=high)


SCALINGS: dict[str, Scaling] = {"default": default, "linear": linear, "llama3": llama3, "yarn": yarn,
                                "dynamic": default}      # up to max_positions; see above
