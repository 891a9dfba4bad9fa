"""A network as data: what a family's file makes of a config, and all that the core is told of it besides weights.

The block that a `Layer` describes, on the residual stream x (rows, hidden_size):

    h  = norm(x; attention_norm)
    q, k, v = h Wq^T, h Wk^T, h Wv^T              (+ bias where qkv_bias; a norm of each head's q and k where qk_norm)
    q, k = rope(q), rope(k)                       with ropes[attention.rope]; of long prompts: stretch_after
    q = max(1, log(p + 1) / log(log_after)) q     at place p, where there is log_after
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
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ...errors import FileFormatError

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROPES_MAX = 8                                            # as many as the core holds
GATES = ("silu", "gelu_tanh")
TABLES = ("bilinear", "bicubic")
GELUS = ("gelu", "gelu_tanh", "quick_gelu")
LAYER_SLOTS = ("attention_norm", "attention_norm_bias", "qkv", "qkv_bias", "q_norm", "k_norm", "o", "o_bias",
               "attention_post_norm", "mlp_norm", "mlp_norm_bias", "gate_up", "gate_up_bias", "down", "down_bias",
               "mlp_post_norm")
MODEL_SLOTS = ("embed", "norm", "head")
VISION_SLOTS = ("patch", "patch_bias", "position_table", "entry_norm", "entry_norm_bias", "merger_norm",
                "merger_norm_bias", "merger_up", "merger_up_bias", "merger_down", "merger_down_bias", "pool_query",
                "pool_positions", "pool_kv", "pool_kv_norm", "pool_kv_norm_bias", "pool_query_norm",
                "pool_query_norm_bias", "pool_in", "pool_in_bias", "pool_out", "pool_out_bias", "pool_post_norm",
                "pool_post_norm_bias", "pool_project")


@dataclass(frozen=True)
class Attention:
    """heads of queries over kv_heads of keys and values, each head_dim wide.

    scale: of the scores, before the softmax. window: keys that a query sees, its own included; 0: all before it.
    rope: which of `Spec.ropes`. qkv_bias: q, k and v have biases; o_bias: the projection back has one. qk_norm: one
    norm weight (head_dim,) for all heads of q, and one for k. by_window: rows of a tower see their window of the image
    only. interleaved: the one tensor of q, k and v in files has these three of the first head, then of the next."""

    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    window: int = 0
    rope: int = 0
    qkv_bias: bool = False
    qk_norm: bool = False
    o_bias: bool = False
    by_window: bool = False
    interleaved: bool = False


@dataclass(frozen=True)
class Mlp:
    """A gated linear unit: hidden_size to twice width, back from width. gate: one of GATES, of the gate's half. Not
    gated: hidden_size to width, gate (one of GELUS), back. bias: both products have one."""

    width: int
    gate: str = "silu"
    gated: bool = True
    bias: bool = False


@dataclass(frozen=True)
class Layer:
    """One block. post_norms: a norm after each half too, before it joins the residual stream."""

    attention: Attention
    mlp: Mlp
    post_norms: bool = False


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding of a head's pairs (j, j + head_dim / 2).

    inv_freq: (head_dim / 2,) float32, radians a position. scale: of cos and sin (YaRN's attention factor). axis:
    (head_dim / 2,) int32, which number of a position turns the pair; None: positions have one."""

    inv_freq: NDArray[np.float32]
    scale: float = 1.0
    axis: NDArray[np.int32] | None = None


@dataclass(frozen=True)
class Merger:
    """What turns a cell of patches into one feature: norm, product, GELU, product, both of them with biases.

    prefix: of its tensors' names, after the tower's. after: the layer whose result it reads. joined: the norm is of the
    cell's rows side by side, not of each."""

    prefix: str
    after: int
    joined: bool = False


@dataclass(frozen=True)
class Resampler:
    """What turns all patches of an image into as many features as there are queries, which are parameters.

    Queries and patches, each normed and the patches projected before it, are given positions of a fixed table, which
    is interpolated bicubically to the patches' grid; attention of its own, with products and biases of its own, lets
    the queries see the patches; a norm and a product make features of what they saw (csrc/net/resampler.h)."""

    queries: int
    attention: Attention


@dataclass(frozen=True)
class Vision:
    """A tower: patches of images in, features out, which enter a text's rows in place of its image tokens.

    Before the first block x = patch Wpatch^T (+ bias), and the rows of a square table of positions, interpolated
    to the image's grid (table: one of TABLES), where table_side is not 0, and a norm of both where entry_norm. Its
    blocks are those of a text, except that rows see all of their image (or window), and that norms may be LayerNorms
    ("layer"). Positions have two axes, row and column of a patch. side x side patches are a cell; window: cells along
    each side of a window, 0: none. The features of the last merger stand in place of tokens; those of the mergers
    before it are added to the residual stream after the text's layers 0, 1, ... (DeepStack). In place of mergers there
    may be a resampler. out: columns of a feature; gelu: of the mergers, one of GELUS. patch_shape: channels, frames,
    height and width of a patch; still: files have no dimension of frames. grid_side: of the square grid of patches that
    every image has; 0: any."""

    hidden_size: int
    patch_shape: tuple[int, int, int, int]
    layers: tuple[Layer, ...]
    ropes: tuple[Rope, ...]
    mergers: tuple[Merger, ...]
    out: int
    eps: float = 1e-6
    norm: str = "layer"
    side: int = 2
    window: int = 0
    grid_side: int = 0
    table_side: int = 0
    table: str = "bilinear"
    entry_norm: bool = False
    patch_bias: bool = False
    still: bool = False
    resampler: Resampler | None = None
    gelu: str = "gelu"
    prefix: str = "model.visual."
    layer_prefix: str = "blocks."
    axes: int = 2
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Spec:
    """A whole network.

    eps: of every norm. norm_offset: added to the weight of every norm. embed_scale: of the rows of the embedding.
    tie: the head is the embedding. max_positions: the longest sequence, in tokens, for which this spec says what the
    model computes; 0: no limit. stretch_after: where a prompt has T tokens, its whole sequence turns by the rope n
    after the layer's, n the smallest with T <= 2^n stretch_after; 0: by the layer's, whatever T. log_after: the base of
    the logarithm that scales queries beyond so many tokens; 0: none are scaled. axes: numbers of a token's place; 3
    (frame, row, column) among images. prefix: of tensors' names, layer_prefix: after it, of a layer's. vision: the
    tower. names: Hugging Face names of the tensors of a slot (LAYER_SLOTS without what stands before it, MODEL_SLOTS
    whole), for those slots whose tensors are not called what Llama's are."""

    hidden_size: int
    vocab_size: int
    layers: tuple[Layer, ...]
    ropes: tuple[Rope, ...]
    eps: float
    norm_offset: float = 0.0
    embed_scale: float = 1.0
    tie: bool = False
    max_positions: int = 0
    stretch_after: int = 0
    log_after: int = 0
    axes: int = 1
    prefix: str = "model."
    layer_prefix: str = "layers."
    vision: Vision | None = None
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


Network = TypeVar("Network", Spec, Vision)


def check(spec: Network, source: str) -> Network:
    """The spec; FileFormatError naming the layer and what is wrong where its numbers contradict each other."""
    def require(true: bool, wrong: str) -> None:
        if not true:
            raise FileFormatError(f"{source}: {wrong}")

    require(bool(spec.layers), "a network without layers")
    if isinstance(spec, Spec) and spec.vision is not None:
        check(spec.vision, f"{source}: vision")
        require(spec.vision.out == spec.hidden_size,
                f"features of {spec.vision.out} columns for a text of hidden_size {spec.hidden_size}")
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
        gates = GATES if layer.mlp.gated else GELUS
        require(layer.mlp.gate in gates, f"{where} gate {layer.mlp.gate!r} is none of {', '.join(gates)}")
    unknown = [slot for slot in spec.names if slot not in LAYER_SLOTS + MODEL_SLOTS + VISION_SLOTS]
    require(not unknown, f"names of slots that there are not: {', '.join(unknown)}")
    return spec
