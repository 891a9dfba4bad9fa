"""What the Qwen-VL families share: where a config has text and tower, positions of three axes, parts of a tower.

Files have had two layouts: older configs keep the text's keys at their top and call tensors model.* and visual.*, newer
ones have a text_config and model.language_model.*, model.visual.*. Here a model has the newer names; older ones are
read, and `FILE_NAMES` says which of them transformers writes."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...errors import FileFormatError
from .block import score_scale
from .reading import LIMITS, Config
from .spec import Attention, Layer, Merger, Mlp, Rope, Spec, Vision

TEXT, TOWER = "model.language_model.", "model.visual."
OLD_NAMES = {TEXT: "model.", TOWER: "visual."}           # what older files, and transformers' own, begin names with
ROPE_KEYS = ("mrope_section", "mrope_interleaved")
GELUS = {"gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "quick_gelu": "quick_gelu"}
VISION_LIMITS = {"depth": 1024, "hidden_size": 1 << 17, "embed_dim": 1 << 17, "num_heads": 1024, "in_channels": 64,
                 "patch_size": 1024, "spatial_merge_size": 16, "temporal_patch_size": 64, "out_hidden_size": 1 << 17,
                 "intermediate_size": 1 << 19, "num_position_embeddings": 1 << 22, "window_size": 1 << 16,
                 "mlp_ratio": 64}


def text_config(config: Config, defaults: Mapping[str, Any]) -> Config:
    """The text's keys, wherever the file has them. defaults: transformers' values of those that it leaves out."""
    nested = config.get("text_config")
    if nested is not None and not isinstance(nested, Mapping):
        raise FileFormatError(f"{config.source}: text_config must be an object, not {nested!r:.80}")
    values = {key: value for key, value in config.values.items() if key not in ("vision_config", "text_config")}
    if nested is not None:
        values = {**nested, "model_type": config.get("model_type"),
                  "tie_word_embeddings": config.values.get("tie_word_embeddings",
                                                           nested.get("tie_word_embeddings", False))}
    return Config(values, config.source, {"tie_word_embeddings": False, **defaults})


def vision_config(config: Config, defaults: Mapping[str, Any]) -> Config:
    """The tower's keys."""
    nested = config.get("vision_config")
    if not isinstance(nested, Mapping):
        raise FileFormatError(f"{config.source}: vision_config must be an object, not {nested!r:.80}")
    # Files of the first release call channels in_chans.
    values = {"in_channels": nested["in_chans"], **nested} if "in_chans" in nested else nested
    return Config(values, f"{config.source}: vision_config", defaults)


def size(vision: Config, key: str) -> int:
    """A positive integer of a tower."""
    return vision.integer(key, 1, VISION_LIMITS[key])


def text_rope(text: Config, section: Sequence[int], interleaved: bool) -> tuple[Config, np.ndarray]:
    """(the text without the keys of m-RoPE, which axis turns each pair). section: pairs of frames, rows and columns
    where the config does not say. interleaved: these take turns, and what is left over is the frames'; else they
    follow each other."""
    key = "rope_scaling" if text.get("rope_scaling") else "rope_parameters"
    found = text.get(key) or {}
    if not isinstance(found, Mapping):
        raise FileFormatError(f"{text.source}: {key} must be an object, not {found!r:.80}")
    plain = {name: value for name, value in found.items() if name not in ROPE_KEYS}
    for name in ("rope_type", "type"):
        if plain.get(name) == "mrope":
            plain[name] = "default"
    counts = found.get("mrope_section", list(section))
    if not (isinstance(counts, (list, tuple)) and len(counts) == 3
            and all(type(n) is int and 0 <= n <= LIMITS["head_dim"] for n in counts)):
        raise FileFormatError(f"{text.source}: mrope_section must be three numbers of pairs, not {counts!r:.80}")
    if interleaved:
        axis = np.zeros(max(3 * max(counts), sum(counts)), np.int32)
        for number in (1, 2):
            axis[number:3 * counts[number]:3] = number
        axis = axis[:sum(counts)]
    else:
        axis = np.repeat(np.arange(3, dtype=np.int32), counts)
    return Config({**text.values, key: plain}, text.source, text.defaults), axis


def with_axes(spec: Spec, axis: np.ndarray, vision: Vision, source: str) -> Spec:
    """A text's network, whose ropes turn by three axes, beside a tower."""
    if len(vision.mergers) - 1 > len(spec.layers):
        raise FileFormatError(f"{source}: {len(vision.mergers) - 1} deepstack features for {len(spec.layers)} layers")
    ropes = []
    for rope in spec.ropes:
        if len(rope.inv_freq) != len(axis):
            raise FileFormatError(f"{source}: mrope_section has {len(axis)} pairs together, a head has "
                                  f"{len(rope.inv_freq)}")
        ropes.append(replace(rope, axis=axis))
    return replace(spec, ropes=tuple(ropes), axes=3, prefix=TEXT, vision=vision)


def tower_attention(vision: Config, width: int, *, by_window: bool = False) -> Attention:
    """A block's attention: all heads have keys of their own, q, k, v and the projection back have biases."""
    heads = size(vision, "num_heads")
    if width % heads or (width // heads) % 4:
        raise FileFormatError(f"{vision.source}: a width of {width} in {heads} heads; rotary embedding of rows and "
                              "columns needs heads that are multiples of 4 wide")
    head_dim = width // heads
    if head_dim > LIMITS["head_dim"]:
        raise FileFormatError(f"{vision.source}: heads of {head_dim} columns; at most {LIMITS['head_dim']} are run")
    return Attention(heads, heads, head_dim, scale=score_scale(head_dim), qkv_bias=True, o_bias=True,
                     by_window=by_window)


def tower_rope(vision: Config, head_dim: int) -> Rope:
    """Half of a head's pairs turn by the row of a patch, the others by its column."""
    found = vision.get("rope_parameters") or {}
    if not isinstance(found, Mapping) or found.get("rope_type", "axial") not in ("axial", "default"):
        vision.refuse(f"rope_parameters {found!r:.80}")
    theta = Config(found, vision.source, {"rope_theta": 10000.0}).number("rope_theta", low=1e-3, high=1e12)
    quarter = head_dim // 4
    exponent = np.arange(0, 2 * quarter, 2, dtype=np.float32) / np.float32(2 * quarter)
    inv_freq = np.float32(1) / np.power(theta, exponent.astype(np.float64)).astype(np.float32)
    return Rope(np.concatenate([inv_freq, inv_freq]).astype(np.float32),
                axis=np.repeat(np.arange(2, dtype=np.int32), quarter))


def plain_mlp(vision: Config, width: int) -> Mlp:
    """Two products with biases and a GELU between them."""
    name = vision.get("hidden_act")
    if not isinstance(name, str) or name not in GELUS:
        vision.refuse(f"hidden_act {name!r:.80} (only {', '.join(GELUS)})")
    return Mlp(width, GELUS[name], gated=False, bias=True)


def tower(vision: Config, width: int, out: int, layers: Sequence[Layer], mergers: Sequence[Merger],
          names: Mapping[str, tuple[str, ...]], **differs: Any) -> Vision:
    """A tower of these layers. differs: fields in which a family is unlike Qwen2-VL."""
    patch = size(vision, "patch_size")
    found = Vision(width, (size(vision, "in_channels"), size(vision, "temporal_patch_size"), patch, patch),
                   tuple(layers), (tower_rope(vision, layers[0].attention.head_dim),), tuple(mergers), out,
                   side=size(vision, "spatial_merge_size"), prefix=TOWER,
                   names={"attention_norm": ("norm1.weight",), "attention_norm_bias": ("norm1.bias",),
                          "mlp_norm": ("norm2.weight",), "mlp_norm_bias": ("norm2.bias",),
                          "qkv": ("attn.qkv.weight",), "qkv_bias": ("attn.qkv.bias",),
                          "o": ("attn.proj.weight",), "o_bias": ("attn.proj.bias",), **names})
    return replace(found, **differs)
