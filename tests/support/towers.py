"""A tower, as small as one can be, for models that are made of specs."""
import numpy as np

from grpo.model.families.spec import Attention, Layer, Merger, Mlp, Rope, Vision


def new_tower():
    """What sees for new_spec()'s text: patches of 2 x 2 pixels, four of them a cell."""
    layer = Layer(Attention(heads=2, kv_heads=2, head_dim=8, scale=0.25, qkv_bias=True, o_bias=True),
                  Mlp(width=24, gate="gelu", gated=False, bias=True))
    rope = Rope(np.ones(4, np.float32), axis=np.array([0, 0, 1, 1], np.int32))
    return Vision(16, (3, 1, 2, 2), (layer,) * 2, (rope,), (Merger("merger.", 1),), 32,
                  names={"gate_up": ("fc1.weight",), "gate_up_bias": ("fc1.bias",)})


def image():
    """Eight patches, two cells of it."""
    return (np.array([1, 4, 2]), np.random.default_rng(20).standard_normal((8, 12), dtype=np.float32), None)
