"""Qwen3-VL, dense: the text is Qwen3 with positions whose axes take turns; the tower adds a table of positions, and
what its middle layers see is added to the text's first ones (DeepStack)."""
import math

from ...errors import FileFormatError
from . import qwen3
from .qwen_vl import plain_mlp, size, text_config, text_rope, tower, tower_attention, vision_config, with_axes
from .reading import Config, Family
from .spec import Layer, Merger, Spec, Vision

TEXT = {**qwen3.FAMILY.defaults, "max_position_embeddings": 128000, "rope_theta": 500000.0}
VISION = {"depth": 27, "hidden_size": 1152, "hidden_act": "gelu_pytorch_tanh", "intermediate_size": 4304,
          "num_heads": 16, "in_channels": 3, "patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2,
          "out_hidden_size": 3584, "num_position_embeddings": 2304, "deepstack_visual_indexes": [8, 16, 24]}


def see(config: Config) -> Vision:
    """The tower."""
    vision = vision_config(config, VISION)
    width, depth, table = (size(vision, key) for key in ("hidden_size", "depth", "num_position_embeddings"))
    side, deep = math.isqrt(table), vision.get("deepstack_visual_indexes")
    if side * side != table:
        raise FileFormatError(f"{vision.source}: num_position_embeddings {table} is not the square of a number")
    if not isinstance(deep, list) or any(type(i) is not int or not 0 <= i < depth for i in deep) \
            or sorted(set(deep)) != deep:
        raise FileFormatError(f"{vision.source}: deepstack_visual_indexes must be ascending layers below {depth}, not "
                              f"{deep!r:.80}")
    layer = Layer(tower_attention(vision, width), plain_mlp(vision, size(vision, "intermediate_size")))
    mergers = [Merger(f"deepstack_merger_list.{k}.", after, joined=True) for k, after in enumerate(deep)]
    return tower(vision, width, size(vision, "out_hidden_size"), [layer] * depth,
                 [*mergers, Merger("merger.", depth - 1)],
                 {"gate_up": ("mlp.linear_fc1.weight",), "gate_up_bias": ("mlp.linear_fc1.bias",),
                  "down": ("mlp.linear_fc2.weight",), "down_bias": ("mlp.linear_fc2.bias",)},
                 table_side=side, patch_bias=True)


def spec(config: Config) -> Spec:
    """The network of a Qwen3-VL config, text and tower."""
    plain, axis = text_rope(text_config(config, TEXT), (24, 20, 20), interleaved=True)
    return with_axes(qwen3.spec(plain), axis, see(config), config.source)


FAMILY = Family("qwen3_vl", "Qwen3VLForConditionalGeneration", spec, TEXT,
                tiny_vision={"depth": 4, "hidden_size": 96, "num_heads": 3, "intermediate_size": 144,
                             "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 2]})
