"""Small random Qwen-VLs of the core, prompts with images of noise, and what the core takes for them."""
from __future__ import annotations

from dataclasses import replace

import numpy as np

from tiny_models import round_to_bf16

PATCH, WORDS, IMG, V = 4, 50, 50, 53


def qwen_vl(*, d: int = 128, heads: int = 2, F: int = 88, L: int = 2, side: int = 4, queries: int = 4,
            width: int = 72, tower_heads: int = 3, layers: int = 2, ratio: float = 1.7, **keys) -> dict:
    """A config whose images have side x side patches."""
    visual = {"heads": tower_heads, "image_size": side * PATCH, "patch_size": PATCH, "width": width, "layers": layers,
              "mlp_ratio": ratio, "output_dim": d, "n_queries": queries, "image_start_id": IMG}
    return {"model_type": "qwen", "hidden_size": d, "num_hidden_layers": L, "num_attention_heads": heads,
            "kv_channels": d // heads, "intermediate_size": F, "layer_norm_epsilon": 1e-6, "rotary_emb_base": 10000,
            "vocab_size": V, "max_position_embeddings": 8192, "seq_length": 2048, "tie_word_embeddings": False,
            "visual": visual} | keys


def spec_of(config: dict, table_side: int = 16):
    """The network of a config; table_side: of the tower's table of positions, which files have at 16."""
    from grpo.model import families

    spec = families.spec_of(config)
    return replace(spec, vision=replace(spec.vision, table_side=table_side))


def make_weights(tensors, seed: int = 7) -> dict[str, np.ndarray]:
    """bfloat16 numbers by name."""
    rng = np.random.default_rng(seed)
    made = {}
    for name, shape in tensors:
        x = rng.standard_normal(shape)
        if len(shape) == 1:
            x = 1 + 0.3 * x if name.endswith("weight") else 0.2 * x
        elif name.endswith(("embed", "positional_embedding", "query", "wte.weight")):
            x *= 0.7
        else:
            x *= 1.3 / np.sqrt(np.prod(shape[1:]))
        made[name] = round_to_bf16(x)
    return made


def build(config: dict, device: str, weights=None, table_side: int = 16):
    """(the core's model, its weights by name)"""
    from grpo import _core

    core = _core.Model(device, spec_of(config, table_side))
    weights = make_weights(core.tensors()) if weights is None else weights
    for name, _ in core.tensors():
        core.set_tensor(name, weights[name])
    return core, weights


def noise(config: dict, count: int, seed: int = 0) -> list[np.ndarray]:
    """Patches of images."""
    visual = config["visual"]
    patches = (visual["image_size"] // visual["patch_size"]) ** 2
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((patches, 3 * visual["patch_size"] ** 2)).astype(np.float32) for _ in range(count)]


def entries(config: dict, pixels, features=None) -> list[tuple]:
    """Images as the core takes them."""
    side = config["visual"]["image_size"] // config["visual"]["patch_size"]
    grid = np.array([1, side, side], np.int64)
    return [(grid, None if features is not None else x, None if features is None else features[i])
            for i, x in enumerate(pixels)]


def prompt(config: dict, pixels, features=None, words: int = 3, seed: int = 1):
    """(ids, places of features, what the core takes beside them): words, then the images with a word after each."""
    queries, rng = config["visual"]["n_queries"], np.random.default_rng(seed)
    ids, places = list(rng.integers(0, WORDS, words)), []
    for _ in pixels:
        places += range(len(ids) + 1, len(ids) + 1 + queries)
        ids += [IMG, *[IMG + 2] * queries, IMG + 1, int(rng.integers(0, WORDS))]
    ids, places = np.array(ids, np.int32), np.array(places, np.int32)
    return ids, places, (np.arange(len(ids), dtype=np.int32)[None], len(ids), places,
                         entries(config, pixels, features)) if len(pixels) else None


def widened(features: np.ndarray) -> np.ndarray:
    """Features as float32."""
    return (features.astype(np.uint32) << 16).view(np.float32) if features.dtype == np.uint16 else features
