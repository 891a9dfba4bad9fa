"""Qwen2.5-VL: Qwen2-VL with RMSNorms and gated MLPs in the tower, most of whose layers see a window of the image."""
from ...errors import FileFormatError
from .block import mlp
from .qwen2_vl import MERGER, TEXT, text
from .qwen_vl import OLD_NAMES, size, text_config, text_rope, tower, tower_attention, vision_config, with_axes
from .reading import Config, Family
from .spec import Layer, Merger, Mlp, Spec, Vision

VISION = {"depth": 32, "hidden_size": 3584, "hidden_act": "silu", "intermediate_size": 3420, "num_heads": 16,
          "in_channels": 3, "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 112,
          "out_hidden_size": 3584, "fullatt_block_indexes": [7, 15, 23, 31]}


def see(config: Config) -> Vision:
    """The tower."""
    vision = vision_config(config, VISION)
    width, depth = size(vision, "hidden_size"), size(vision, "depth")
    whole, cell = vision.get("fullatt_block_indexes"), size(vision, "patch_size") * size(vision, "spatial_merge_size")
    if not isinstance(whole, list) or any(type(i) is not int for i in whole):
        raise FileFormatError(f"{vision.source}: fullatt_block_indexes must be a list of layers, not {whole!r:.80}")
    window = size(vision, "window_size") // cell
    if not window:
        raise FileFormatError(f"{vision.source}: window_size {size(vision, 'window_size')} is less than the {cell} "
                              "pixels of a merged patch")
    gated = mlp(vision)
    layers = [Layer(tower_attention(vision, width, by_window=i not in whole), Mlp(gated.width, gated.gate, bias=True))
              for i in range(depth)]
    return tower(vision, width, size(vision, "out_hidden_size"), layers, [Merger("merger.", depth - 1)],
                 {"gate_up_bias": ("mlp.gate_proj.bias", "mlp.up_proj.bias"), **MERGER}, norm="rms", window=window)


def spec(config: Config) -> Spec:
    """The network of a Qwen2.5-VL config, text and tower."""
    plain, axis = text_rope(text_config(config, TEXT), (16, 24, 24), interleaved=False)
    return with_axes(text(plain), axis, see(config), config.source)


FAMILY = Family("qwen2_5_vl", "Qwen2_5_VLForConditionalGeneration", spec, TEXT, old_names=OLD_NAMES,
                tiny_vision={"depth": 4, "hidden_size": 96, "num_heads": 3, "intermediate_size": 144,
                             "window_size": 56, "fullatt_block_indexes": [1, 3]})
