"""Gemma 3's text models (gemma3_text: 270M, 1B, and larger ones without their vision tower).

Norm weights are stored as w - 1; a norm before and after each half of a block; norms of q and k; GELU gates; five
layers with a window, then one without, each kind with a rope base of its own; the embedding scaled by
sqrt(hidden_size); scores scaled by query_pre_attn_scalar^(-1/2). transformers in bfloat16 rounds the scale of the
embedding too (sqrt(3072) to 55.5); here it is the number itself, as in its float32."""
from collections.abc import Mapping
from dataclasses import replace

from .block import FULL, SLIDING, attention, decoder, layer_types, mlp, refuse_biases, score_scale, windows
from .reading import Config, Family
from .rope import complete
from .spec import Layer, Spec

KINDS = (FULL, SLIDING)                                  # the order of the ropes
THETAS = {FULL: ("rope_theta", 1e6), SLIDING: ("rope_local_base_freq", 1e4)}
NAMES = {"attention_norm": ("input_layernorm.weight",), "attention_post_norm": ("post_attention_layernorm.weight",),
         "mlp_norm": ("pre_feedforward_layernorm.weight",), "mlp_post_norm": ("post_feedforward_layernorm.weight",)}


def spec(config: Config) -> Spec:
    """The network of a Gemma 3 text config."""
    refuse_biases(config, "attention_bias", "mlp_bias")
    for key in ("final_logit_softcapping", "attn_logit_softcapping"):
        if config.get(key) is not None:
            config.refuse(f"{key} {config.get(key)!r:.40}")
    if config.flag("use_bidirectional_attention"):
        config.refuse("use_bidirectional_attention")
    scale = score_scale(config.number("query_pre_attn_scalar", low=1e-3, high=1e6))
    everywhere = attention(config, scale=scale, qk_norm=True)
    gated = mlp(config, "hidden_activation")
    window = config.size("sliding_window") if config.get("sliding_window") is not None else 0
    kinds = layer_types(config, pattern(config))
    layers = [Layer(replace(everywhere, window=each, rope=KINDS.index(kind)), gated, post_norms=True)
              for kind, each in zip(kinds, windows(config, kinds, window), strict=True)]
    return decoder(config, layers, [rope_of_kind(config, kind) for kind in KINDS], norm_offset=1.0,
                   embed_scale=config.size("hidden_size") ** 0.5, names=NAMES)


def pattern(config: Config) -> list[str]:
    """The types of layers where no key lists them: every sixth is a full one."""
    every = config.size("sliding_window_pattern")
    return [SLIDING if (i + 1) % every else FULL for i in range(config.size("num_hidden_layers"))]


def rope_of_kind(config: Config, kind: str) -> Config:
    """Of the layers of one kind. The old keys rope_theta and rope_scaling are those of full layers; sliding ones have
    rope_local_base_freq and are never scaled. The new key rope_parameters has both, by name."""
    new, old = config.get("rope_parameters") or {}, config.get("rope_scaling") or {}
    if not isinstance(new, Mapping) or not set(new) <= set(KINDS):
        config.refuse(f"rope_parameters {new!r:.100} of gemma3_text (only by layer type, {' and '.join(KINDS)})")
    of_kind = new.get(kind) or {}
    for found in (old, of_kind):
        if not isinstance(found, Mapping) or not found.get("truncate", True):    # transformers truncates all the same
            config.refuse(f"{found!r:.100} as rope of {kind} layers")
    found = {**of_kind, **old} if kind == FULL else of_kind
    return complete(config, found, f"{config.source}: rope of {kind} layers", *THETAS[kind])


FAMILY = Family(
    "gemma3_text", "Gemma3ForCausalLM", spec,
    defaults={"num_key_value_heads": 4, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh",
              "max_position_embeddings": 131072, "tie_word_embeddings": True, "query_pre_attn_scalar": 256,
              "sliding_window": 4096, "sliding_window_pattern": 6, "layer_types": None, "rope_local_base_freq": 1e4},
    tiny={"hidden_act": None, "hidden_activation": "gelu_pytorch_tanh", "num_hidden_layers": 6,
          "query_pre_attn_scalar": 64, "sliding_window": 64, "sliding_window_pattern": 6, "rope_theta": 1e6,
          "rope_local_base_freq": 1e4})
