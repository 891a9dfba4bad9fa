"""The first Qwen, and Qwen-VL and Qwen-VL-Chat, which are it beside a tower: a ViT of plain blocks, and a resampler
that makes 256 features of any image.

Beyond L = seq_length tokens (2048) two rules change the attention, each by a flag of its own:

use_dynamic_ntk: a sequence whose prompt has T tokens, those of its images among them, turns by a rope of the base
rotary_emb_base * alpha^(D / (D - 2)), D the width of a head: alpha is 1 for T <= L, and else 2^(n + 1) - 1, n the
smallest with T <= 2^n L. Completions never change it, however long they become. Where there is only a text, such as one
that is embedded, it is the prompt.
use_logn_attn: the query at place p, from 0, is scaled by log(p + 1) / log(L) where p + 1 > L.

The model's own code has both only outside training: its sampler draws from one distribution, and a trainer would
differentiate another one. Here they hold in rollout and training alike. Sequences end where that code's table of
logarithms ends, at 32768 tokens, or with a small L where ropes end, at 2^7 L; longer ones are refused.
"""
from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ...errors import FileFormatError
from ..formats.tiktoken import VISUAL_CHAT
from .block import attention, decoder, mlp, score_scale
from .reading import Config, Family
from .rope import rope_parameters
from .spec import ROPES_MAX, Attention, Layer, Mlp, Resampler, Rope, Spec, Vision

PREFIX, TOWER = "transformer.", "transformer.visual."
DEFAULTS = {"num_attention_heads": 32, "kv_channels": None, "layer_norm_epsilon": 1e-6, "rotary_emb_base": 10000.0,
            "rotary_pct": 1.0, "seq_length": 2048, "max_position_embeddings": 8192, "use_dynamic_ntk": True,
            "use_logn_attn": True, "scale_attn_weights": True, "no_bias": True, "tie_word_embeddings": False}
VISION = {"mlp_ratio": 4.0, "n_queries": 256, "patch_size": 14, "image_size": 448, "heads": 16, "layers": 48,
          "width": 1664}
VISION_LIMITS = {"heads": 1024, "layers": 1024, "width": 1 << 17, "patch_size": 1024, "image_size": 1 << 16,
                 "n_queries": 1 << 16, "output_dim": 1 << 17}
# What the model's own code fixes: the side of the tower's table of positions, how wide the resampler's heads are, and
# the longest sequence.
TABLE_SIDE, POOL_HEAD, LONGEST = 16, 128, 32768
TEXT_NAMES = {"embed": ("wte.weight",), "norm": ("ln_f.weight",), "attention_norm": ("ln_1.weight",),
              "qkv": ("attn.c_attn.weight",), "qkv_bias": ("attn.c_attn.bias",), "o": ("attn.c_proj.weight",),
              "mlp_norm": ("ln_2.weight",), "gate_up": ("mlp.w2.weight", "mlp.w1.weight"),
              "down": ("mlp.c_proj.weight",)}


def both(slot: str, name: str) -> dict[str, tuple[str, ...]]:
    """Names of a slot and of its biases."""
    return {slot: (f"{name}.weight",), f"{slot}_bias": (f"{name}.bias",)}


TOWER_NAMES = {"patch": ("conv1.weight",), "position_table": ("positional_embedding",), **both("entry_norm", "ln_pre"),
               **both("attention_norm", "ln_1"), **both("qkv", "attn.in_proj"), **both("o", "attn.out_proj"),
               **both("mlp_norm", "ln_2"), **both("gate_up", "mlp.c_fc"), **both("down", "mlp.c_proj"),
               "pool_query": ("attn_pool.query",), "pool_positions": ("attn_pool.pos_embed",),
               "pool_kv": ("attn_pool.kv_proj.weight",), **both("pool_kv_norm", "attn_pool.ln_kv"),
               **both("pool_query_norm", "attn_pool.ln_q"), "pool_in": ("attn_pool.attn.in_proj_weight",),
               "pool_in_bias": ("attn_pool.attn.in_proj_bias",), **both("pool_out", "attn_pool.attn.out_proj"),
               **both("pool_post_norm", "ln_post"), "pool_project": ("proj",)}


def text(config: Config) -> Spec:
    """The network of a text."""
    if not config.flag("no_bias"):
        config.refuse("no_bias false (biases of the products)")
    if not config.flag("scale_attn_weights"):
        config.refuse("scale_attn_weights false")
    if config.number("rotary_pct", low=0.0, high=1.0) != 1:
        config.refuse("rotary_pct other than 1")
    for key in ("emb_dropout_prob", "attn_dropout_prob"):
        if config.get(key):
            config.refuse(f"{key} {config.get(key)!r:.40} (set it to 0: policy log-probs must be those that were "
                          "sampled)")
    width = config.integer("intermediate_size", 2, 1 << 20)
    if width % 2:
        raise FileFormatError(f"{config.source}: intermediate_size {width} is odd; it counts gate and up together")
    # In the words of the other families: this one halves intermediate_size, and has keys of its own for the rest.
    config = Config({**config.values, "intermediate_size": width // 2, "head_dim": config.get("kv_channels"),
                     "num_key_value_heads": None, "hidden_act": "silu", "rope_theta": config.get("rotary_emb_base"),
                     "rms_norm_eps": config.get("layer_norm_epsilon")}, config.source, config.defaults)
    each = Layer(attention(config, qkv_bias=True), mlp(config))
    if each.attention.heads * each.attention.head_dim != config.size("hidden_size"):
        raise FileFormatError(f"{config.source}: {each.attention.heads} heads of kv_channels {each.attention.head_dim} "
                              f"are not hidden_size {config.size('hidden_size')}")
    return decoder(config, [each] * config.size("num_hidden_layers"), prefix=PREFIX, layer_prefix="h.",
                   names=TEXT_NAMES, **beyond(config, each.attention.head_dim))


def beyond(config: Config, head_dim: int) -> dict[str, Any]:
    """What decoder() is told of sequences of more than seq_length tokens."""
    stretches, logs = config.flag("use_dynamic_ntk"), config.flag("use_logn_attn")
    if not stretches and not logs:
        return {}
    length = config.integer("seq_length", 2 if logs else 1, 1 << 30)
    if not stretches:
        return {"max_positions": max(length, LONGEST), "log_after": length}
    if head_dim == 2:
        config.refuse("use_dynamic_ntk with heads of one pair (kv_channels 2)")
    longest = max(length, min(LONGEST, length << ROPES_MAX - 1))
    plain = rope_parameters(config)
    theta = plain.number("rope_theta", low=1e-3, high=1e12)
    alphas = [2 ** (n + 1) - 1 for n in range(ROPES_MAX) if n == 0 or length << n - 1 < longest]
    ropes = [Config({**plain.values, "rope_theta": theta * alpha ** (head_dim / (head_dim - 2))}, plain.source)
             for alpha in alphas]
    return {"ropes": ropes, "max_positions": longest, "stretch_after": length, "log_after": length if logs else 0}


def size(vision: Config, key: str) -> int:
    """A positive integer of the tower."""
    return vision.integer(key, 1, VISION_LIMITS[key])


def still_attention(width: int, heads: int, **differs: Any) -> Attention:
    """Attention without positions of its own: all heads have keys of their own, q, k, v and the projection back have
    biases."""
    if width % heads:
        raise FileFormatError(f"a width of {width} in {heads} heads")
    return replace(Attention(heads, heads, width // heads, scale=score_scale(width // heads), qkv_bias=True,
                             o_bias=True), **differs)


def see(config: Config) -> Vision:
    """The tower."""
    visual = config.get("visual")
    if not isinstance(visual, Mapping):
        raise FileFormatError(f"{config.source}: visual must be an object, not {visual!r:.80}")
    vision = Config(visual, f"{config.source}: visual", VISION)
    width, out, patch, side, queries = (size(vision, key) for key in
                                        ("width", "output_dim", "patch_size", "image_size", "n_queries"))
    if side % patch:
        raise FileFormatError(f"{vision.source}: image_size {side} is no multiple of patch_size {patch}")
    if math.isqrt(queries) ** 2 != queries:
        raise FileFormatError(f"{vision.source}: n_queries {queries} is not the square of a number")
    if out == width:
        vision.refuse(f"output_dim {out} that is width too (it has no kv_proj)")
    if out < POOL_HEAD:
        raise FileFormatError(f"{vision.source}: output_dim {out} is less than a head of the resampler, {POOL_HEAD}")
    try:
        layer = Layer(still_attention(width, size(vision, "heads"), interleaved=True),
                      Mlp(int(width * vision.number("mlp_ratio", low=1e-3, high=64)), "gelu", gated=False, bias=True))
        resampler = Resampler(queries, still_attention(out, out // POOL_HEAD))
    except FileFormatError as error:
        raise FileFormatError(f"{vision.source}: {error}") from None
    # A rope that turns nothing: the tower knows places by its table alone.
    still = Rope(np.zeros(layer.attention.head_dim // 2, np.float32))
    return Vision(width, (3, 1, patch, patch), (layer,) * size(vision, "layers"), (still,), (), out, side=1,
                  grid_side=side // patch, table_side=TABLE_SIDE, table="bicubic", entry_norm=True, still=True,
                  resampler=resampler, prefix=TOWER, layer_prefix="transformer.resblocks.", names=TOWER_NAMES)


def spec(config: Config) -> Spec:
    """The network of a Qwen config: a text, and where it has "visual" the tower."""
    config = Config(config.values, config.source, DEFAULTS)
    return replace(text(config), vision=see(config) if "visual" in config else None)


# 1.9 M parameters, half of them the tower's
FAMILY = Family("qwen", "QWenLMHeadModel", spec, DEFAULTS,
                tiny={"hidden_size": 128, "num_attention_heads": 2, "num_key_value_heads": None, "head_dim": None,
                      "intermediate_size": 704, "hidden_act": None, "rms_norm_eps": None,
                      "layer_norm_epsilon": 1e-6, "rope_theta": None, "rotary_emb_base": 10000.0, "rope_scaling": None,
                      "seq_length": 2048, "tie_word_embeddings": False},
                vision_key="visual", image_tokens=("<img>", "</img>", "<imgpad>"), chat_template=VISUAL_CHAT,
                tiny_vision={"heads": 3, "image_size": 112, "layers": 2, "mlp_ratio": 3.0, "patch_size": 14,
                             "width": 96, "n_queries": 256})
