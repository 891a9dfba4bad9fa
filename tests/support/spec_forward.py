"""What a Spec means: the forward pass of one sequence in NumPy, float32, written to be read."""

from __future__ import annotations

import numpy as np

from grpo.model.families import Layer, Spec

NAMES = {
    "attention_norm": "input_layernorm.weight",
    "attention_post_norm": "post_attention_norm.weight",
    "mlp_norm": "post_attention_layernorm.weight",
    "mlp_post_norm": "post_feedforward_norm.weight",
    "q_norm": "self_attn.q_norm.weight",
    "k_norm": "self_attn.k_norm.weight",
}


def logits(spec: Spec, weights: dict[str, np.ndarray], ids: np.ndarray) -> np.ndarray:
    """(len(ids), vocab_size). weights: by Hugging Face name."""
    embed = weights["model.embed_tokens.weight"]
    x = embed[ids] * np.float32(spec.embed_scale)
    for i, layer in enumerate(spec.layers):
        prefix = f"model.layers.{i}."
        mine = {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}

        def norm(x: np.ndarray, slot: str, mine: dict[str, np.ndarray] = mine) -> np.ndarray:
            return rmsnorm(spec, x, mine[spec.names.get(slot, (NAMES[slot],))[0]])

        def post(x: np.ndarray, slot: str, layer: Layer = layer, norm=norm) -> np.ndarray:
            return norm(x, slot) if layer.post_norms else x

        h = norm(x, "attention_norm")
        x = x + post(attention(spec, layer, mine, h, norm) @ mine["self_attn.o_proj.weight"].T, "attention_post_norm")
        h = norm(x, "mlp_norm")
        gated = gate(layer.mlp.gate, h @ mine["mlp.gate_proj.weight"].T) * (h @ mine["mlp.up_proj.weight"].T)
        x = x + post(gated @ mine["mlp.down_proj.weight"].T, "mlp_post_norm")
    return rmsnorm(spec, x, weights["model.norm.weight"]) @ (embed if spec.tie else weights["lm_head.weight"]).T


def rmsnorm(spec: Spec, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    rstd = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(spec.eps))
    return x * rstd * (np.float32(spec.norm_offset) + w)


def attention(spec: Spec, layer: Layer, mine: dict[str, np.ndarray], h: np.ndarray, norm) -> np.ndarray:
    """(T, heads * head_dim) of h (T, hidden_size)."""
    a, T = layer.attention, len(h)
    q, k, v = (
        h @ mine[f"self_attn.{part}_proj.weight"].T + (mine[f"self_attn.{part}_proj.bias"] if a.qkv_bias else 0)
        for part in "qkv"
    )
    q, k, v = (x.reshape(T, -1, a.head_dim) for x in (q, k, v))
    if a.qk_norm:
        q, k = norm(q, "q_norm"), norm(k, "k_norm")
    q, k = rotated(q, spec, layer), rotated(k, spec, layer)
    k, v = (np.repeat(x, a.heads // a.kv_heads, axis=1) for x in (k, v))
    scores = np.einsum("phd,khd->hpk", q, k) * np.float32(a.scale)
    behind = np.arange(T)[:, None] - np.arange(T)
    seen = (behind >= 0) & ((a.window == 0) | (behind < a.window))
    scores = np.where(seen, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("hpk,khd->phd", weights / weights.sum(-1, keepdims=True), v).reshape(T, -1)


def rotated(x: np.ndarray, spec: Spec, layer: Layer) -> np.ndarray:
    """x (T, heads, head_dim) turned by its positions 0, 1, 2 ..."""
    rope = spec.ropes[layer.attention.rope]
    angles = np.arange(len(x), dtype=np.float32)[:, None, None] * rope.inv_freq
    cos, sin = np.cos(angles) * np.float32(rope.scale), np.sin(angles) * np.float32(rope.scale)
    left, right = np.split(x, 2, axis=-1)
    return np.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1)


def gate(kind: str, x: np.ndarray) -> np.ndarray:
    """silu(x) = x / (1 + e^-x); gelu_tanh: GELU with tanh in place of erf."""
    if kind == "silu":
        return x / (1 + np.exp(-x))
    return 0.5 * x * (1 + np.tanh(np.sqrt(np.float32(2 / np.pi)) * (x + np.float32(0.044715) * x * x * x)))
