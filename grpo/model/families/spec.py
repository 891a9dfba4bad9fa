"""A network as data: what a family's file makes of a config, and all that the core is told of it besides weights.

The block that a `Layer` describes, on the residual stream x (rows, hidden_size):

    h  = norm(x; attention_norm)
    q, k, v = h Wq^T, h Wk^T, h Wv^T              (+ bias where qkv_bias; a norm of each head's q and k where qk_norm)
    q, k = rope(q), rope(k)                       with ropes[attention.rope]
    y  = softmax(scale q k^T) v                   over the keys k <= p, and p - k < window where there is one
    x += post(y Wo^T; attention_post_norm)        post: a norm where post_norms, else nothing
    h  = norm(x; mlp_norm)
    x += post((gate(h Wgate^T) * (h Wup^T)) Wdown^T; mlp_post_norm)

norm(x; w) = x / sqrt(mean(x^2) + eps) * (norm_offset + w). Before the first block x = embed_scale * embed[id], after
the last one logits = norm(x; norm) head^T, where head is embed if tie. The oracle tests say the same in NumPy
(spec_forward.py).
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ...errors import FileFormatError

if TYPE_CHECKING:
    from numpy.typing import NDArray

GATES = ("silu", "gelu_tanh")
LAYER_SLOTS = ("attention_norm", "qkv", "qkv_bias", "q_norm", "k_norm", "o", "attention_post_norm",
               "mlp_norm", "gate_up", "down", "mlp_post_norm")
MODEL_SLOTS = ("embed", "norm", "head")


@dataclass(frozen=True)
class Attention:
    """heads of queries over kv_heads of keys and values, each head_dim wide.

    scale: of the scores, before the softmax. window: keys that a query sees, its own included; 0: all before it.
    rope: which of `Spec.ropes`. qkv_bias: q, k and v have biases. qk_norm: one norm weight (head_dim,) for all heads of
    q, and one for k."""

    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    window: int = 0
    rope: int = 0
    qkv_bias: bool = False
    qk_norm: bool = False


@dataclass(frozen=True)
class Mlp:
    """A gated linear unit: hidden_size to twice width, back from width. gate: one of GATES, of the gate's half."""

    width: int
    gate: str = "silu"


@dataclass(frozen=True)
class Layer:
    """One block. post_norms: a norm after each half too, before it joins the residual stream."""

    attention: Attention
    mlp: Mlp
    post_norms: bool = False


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding of a head's pairs (j, j + head_dim / 2).

    inv_freq: (head_dim / 2,) float32, radians a position. scale: of cos and sin (YaRN's attention factor)."""

    inv_freq: NDArray[np.float32]
    scale: float = 1.0


@dataclass(frozen=True)
class Spec:
    """A whole network.

    eps: of every norm. norm_offset: added to the weight of every norm. embed_scale: of the rows of the embedding.
    tie: the head is the embedding. max_positions: the longest sequence, in tokens, for which this spec says what the
    model computes; 0: no limit. names: Hugging Face names of the tensors of a slot (LAYER_SLOTS without
    "model.layers.N.", MODEL_SLOTS whole), for those slots whose tensors are not called what Llama's are."""

    hidden_size: int
    vocab_size: int
    layers: tuple[Layer, ...]
    ropes: tuple[Rope, ...]
    eps: float
    norm_offset: float = 0.0
    embed_scale: float = 1.0
    tie: bool = False
    max_positions: int = 0
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def check(spec: Spec, source: str) -> Spec:
    """The spec; FileFormatError naming the layer and what is wrong where its numbers contradict each other."""
    def require(true: bool, wrong: str) -> None:
        if not true:
            raise FileFormatError(f"{source}: {wrong}")

    require(bool(spec.layers), "a network without layers")
    for i, rope in enumerate(spec.ropes):
        freq = rope.inv_freq
        require(freq.ndim == 1 and freq.dtype == np.float32 and bool(np.isfinite(freq).all() and (freq >= 0).all()),
                f"frequencies of rope {i} are not a row of finite float32 numbers")
        require(0 < rope.scale < np.inf, f"scale {rope.scale:g} of rope {i} is not positive and finite")
    for i, layer in enumerate(spec.layers):
        a, where = layer.attention, f"layer {i}:"
        require(min(a.heads, a.kv_heads, a.head_dim, layer.mlp.width) > 0, f"{where} a size is not positive")
        require(a.heads % a.kv_heads == 0,
                f"{where} num_attention_heads {a.heads} is not a multiple of num_key_value_heads {a.kv_heads}")
        require(a.head_dim % 2 == 0, f"{where} head_dim {a.head_dim} is odd; rotary embedding needs pairs")
        require(0 < a.scale < np.inf, f"{where} the scale of the scores is {a.scale:g}")
        require(a.window >= 0, f"{where} sliding_window {a.window} is negative")
        require(0 <= a.rope < len(spec.ropes), f"{where} there is no rope {a.rope}")
        pairs = len(spec.ropes[a.rope].inv_freq)
        require(pairs == a.head_dim // 2, f"{where} rope {a.rope} has {pairs} frequencies, head_dim is {a.head_dim}")
        require(layer.mlp.gate in GATES, f"{where} gate {layer.mlp.gate!r} is none of {', '.join(GATES)}")
    unknown = [slot for slot in spec.names if slot not in LAYER_SLOTS + MODEL_SLOTS]
    require(not unknown, f"names of slots that there are not: {', '.join(unknown)}")
    return spec
