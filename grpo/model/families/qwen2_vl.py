"""Qwen2-VL: the text is Qwen2 with positions of three axes; the tower has LayerNorms, plain MLPs and one merger."""

from . import qwen2
from .block import attention, refuse_biases
from .qwen_vl import (
    OLD_NAMES,
    plain_mlp,
    size,
    text_config,
    text_rope,
    tower,
    tower_attention,
    vision_config,
    with_axes,
)
from .reading import Config, Family
from .spec import Layer, Merger, Spec, Vision

TEXT = {**qwen2.DEFAULTS, "num_key_value_heads": 8, "max_window_layers": 80, "rms_norm_eps": 1e-5,
        "rope_theta": 1000000.0}
VISION = {"depth": 32, "embed_dim": 1280, "hidden_size": 3584, "hidden_act": "quick_gelu", "mlp_ratio": 4,
          "num_heads": 16, "in_channels": 3, "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2}
MERGER = {"merger_norm": ("ln_q.weight",), "merger_norm_bias": ("ln_q.bias",), "merger_up": ("mlp.0.weight",),
          "merger_up_bias": ("mlp.0.bias",), "merger_down": ("mlp.2.weight",), "merger_down_bias": ("mlp.2.bias",)}


def text(config: Config) -> Spec:
    """The network of a text without what sees; its axes are those of its rope."""
    refuse_biases(config, "mlp_bias")
    return qwen2.windowed(config, attention(config, qkv_bias=True))


def see(config: Config) -> Vision:
    """The tower."""
    vision = vision_config(config, VISION)
    width, depth = size(vision, "embed_dim"), size(vision, "depth")
    layer = Layer(tower_attention(vision, width), plain_mlp(vision, width * size(vision, "mlp_ratio")))
    return tower(vision, width, size(vision, "hidden_size"), [layer] * depth, [Merger("merger.", depth - 1)],
                 {"gate_up": ("mlp.fc1.weight",), "gate_up_bias": ("mlp.fc1.bias",), "down": ("mlp.fc2.weight",),
                  "down_bias": ("mlp.fc2.bias",), **MERGER})


def spec(config: Config) -> Spec:
    """The network of a Qwen2-VL config, text and tower."""
    plain, axis = text_rope(text_config(config, TEXT), (16, 24, 24), interleaved=False)
    return with_axes(text(plain), axis, see(config), config.source)


TINY_VISION = {"depth": 3, "embed_dim": 96, "num_heads": 3, "mlp_ratio": 3}
FAMILY = Family("qwen2_vl", "Qwen2VLForConditionalGeneration", spec, TEXT, old_names=OLD_NAMES,
                tiny_vision=TINY_VISION)
