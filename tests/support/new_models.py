"""Models that are made of specs, as small as they can be: their text; their tower is in towers.py."""
from dataclasses import replace

import numpy as np

from grpo import _core
from grpo.model.families.spec import Attention, Layer, Mlp, Rope, Spec


def f32(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape, dtype=np.float32)


def new_spec(n_layers=1, attention=(), mlp=(), **changes):
    """A small network; attention, mlp: changes of every layer's."""
    heads = replace(Attention(heads=2, kv_heads=1, head_dim=16, scale=0.25, qkv_bias=True), **dict(attention))
    layer = Layer(heads, replace(Mlp(width=32), **dict(mlp)))
    spec = Spec(hidden_size=32, vocab_size=40, layers=(layer,) * n_layers, ropes=(Rope(np.ones(8, np.float32)),),
                eps=1e-6, tie=True)
    return replace(spec, **changes)


def new_model(**changes):
    model = _core.Model("ref", new_spec(**changes))
    for name, shape in model.tensors():
        model.set_tensor(name, 0.3 * f32(*shape))
    return model
