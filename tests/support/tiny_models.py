"""Small random models that tests share: Hugging Face configs, reproducible weights, and `build`, which puts them in the
core.

Weights come from Philox's raw 64-bit stream, which NumPy promises to keep, so a golden file needs to store no weights.
They are bfloat16 numbers: every device then holds the same ones and only arithmetic differs.
"""
from __future__ import annotations

import numpy as np


def config(family: str, *, d: int, heads: tuple[int, int], D: int, F: int, V: int, L: int = 1, tie: bool = True,
           **keys) -> dict:
    """A Hugging Face config of ``family`` (a model_type); heads = (query, key/value)."""
    return {"model_type": family, "hidden_size": d, "num_hidden_layers": L, "num_attention_heads": heads[0],
            "num_key_value_heads": heads[1],
            "head_dim": D, "intermediate_size": F, "vocab_size": V, "tie_word_embeddings": tie,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-6, "hidden_act": "silu",
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}} | keys


def mistral(*, window: int | None, **sizes) -> dict:
    """A Mistral whose tokens see ``window`` keys, or all."""
    return config("mistral", sliding_window=window, **sizes)


def gemma3(*, window: int, layers: str, query_scalar: int = 20, full_rope: dict | None = None, **sizes) -> dict:
    """A Gemma 3 text model with a layer a letter of ``layers``: "s" sees ``window`` keys, "f" all of them."""
    kinds = {"s": "sliding_attention", "f": "full_attention"}
    ropes = {"full_attention": {"rope_type": "default", "rope_theta": 1e6} | (full_rope or {}),
             "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}
    # without a pad token, whose embedding PyTorch gives no gradient
    made = config("gemma3_text", L=len(layers), layer_types=[kinds[letter] for letter in layers], sliding_window=window,
                  query_pre_attn_scalar=query_scalar, hidden_activation="gelu_pytorch_tanh", rope_parameters=ropes,
                  pad_token_id=None, **sizes)
    return {key: value for key, value in made.items() if key != "hidden_act"}


def qwen(*, d: int, heads: int, F: int, V: int, L: int = 1, seq_length: int, **keys) -> dict:
    """A first Qwen, whose ropes stretch with prompts of more than ``seq_length`` tokens, and whose queries are scaled
    beyond them."""
    return {"model_type": "qwen", "hidden_size": d, "num_hidden_layers": L, "num_attention_heads": heads,
            "kv_channels": d // heads, "intermediate_size": 2 * F, "vocab_size": V, "tie_word_embeddings": False,
            "layer_norm_epsilon": 1e-6, "rotary_emb_base": 10000, "seq_length": seq_length} | keys


def round_to_bf16(x: np.ndarray) -> np.ndarray:
    """Nearest bfloat16, ties to even, as float32."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000).astype(np.uint32).view(np.float32)


def random_tensor(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Uniform numbers that depend on (name, shape, seed) alone; scaled so that logits have a spread of a few units."""
    key = int.from_bytes(name.encode()[-8:], "little") ^ (sum(name.encode()) << 32) ^ seed
    raw = np.random.Philox(key=key).random_raw(int(np.prod(shape))) >> 11
    uniform = (raw * 2.0**-52 - 1).reshape(shape)
    if len(shape) > 1:
        scale = 1.0 if name.endswith(("embed_tokens.weight", "lm_head.weight")) else 2.0
        return round_to_bf16(uniform * scale / np.sqrt(np.prod(shape[1:])) * 1.7)
    return round_to_bf16(uniform * 0.3 if name.endswith(".bias") else 1 + uniform * 0.4)


def random_weights(tensors: list[tuple[str, tuple[int, ...]]], seed: int) -> dict[str, np.ndarray]:
    return {name: random_tensor(name, tuple(shape), seed) for name, shape in tensors}


def build(config: dict, device: str, weights: dict[str, np.ndarray] | int = 0):
    """The core's Model of a Hugging Face config; ``weights``: by tensor name, or a seed."""
    from grpo import _core
    from grpo.model.families import spec_of

    model = _core.Model(device, spec_of(config))
    if isinstance(weights, int):
        weights = random_weights(model.tensors(), weights)
    for name, _ in model.tensors():
        model.set_tensor(name, np.ascontiguousarray(weights[name], np.float32))
    return model


def relative_error(got: np.ndarray, want: np.ndarray) -> float:
    """|got - want| / |want| in the 2-norm."""
    want = np.asarray(want, np.float64)
    return float(np.linalg.norm(np.asarray(got, np.float64) - want) / max(np.linalg.norm(want), 1e-30))
