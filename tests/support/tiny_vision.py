"""Small random models that see: Hugging Face configs of the Qwen-VL families, prompts with images of noise, and what
the core takes for them."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from grpo.vision.positions import rope_positions
from tiny_models import build, random_weights

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
TOWER = "model.visual."
WORDS, IMAGE, VIDEO, START, END, V = 120, 127, 128, 129, 130, 131          # ids of text lie below WORDS
TOWERS = {
    "qwen2_vl": {"depth": 2, "embed_dim": 32, "num_heads": 2, "mlp_ratio": 2},
    "qwen2_5_vl": {"depth": 3, "hidden_size": 32, "num_heads": 2, "intermediate_size": 44, "window_size": 16,
                   "fullatt_block_indexes": [1]},
    "qwen3_vl": {"depth": 3, "hidden_size": 32, "num_heads": 2, "intermediate_size": 44, "num_position_embeddings": 25,
                 "deepstack_visual_indexes": [0, 1]},
}


def vlm(family: str, *, heads: tuple[int, int] = (4, 2), D: int = 16, d: int | None = None, F: int = 56, L: int = 2,
        tie: bool = True, tower: dict | None = None, **keys) -> dict:
    """A config of ``family``; heads = (query, key/value). d: Qwen3-VL's alone, where heads x D is not the width. tower:
    keys of the vision_config; patches are 4 pixels wide unless it says otherwise."""
    pairs, width = D // 2, d if d is not None and family == "qwen3_vl" else heads[0] * D
    section = [pairs - 2 * (pairs // 3), pairs // 3, pairs // 3]
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": section}
    text = {"hidden_size": width, "intermediate_size": F, "num_hidden_layers": L, "num_attention_heads": heads[0],
            "num_key_value_heads": heads[1], "vocab_size": V, "hidden_act": "silu", "rms_norm_eps": 1e-6,
            "max_position_embeddings": 4096, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
            "rope_parameters": rope}
    if family == "qwen3_vl":
        text |= {"head_dim": D}
        rope["mrope_interleaved"] = True
    vision = {"in_channels": 3, "patch_size": 4, "temporal_patch_size": 2, "spatial_merge_size": 2,
              ("hidden_size" if family == "qwen2_vl" else "out_hidden_size"): width}
    made = vision | TOWERS[family] | (tower or {})
    if not tower or "deepstack_visual_indexes" not in tower:          # one layer of the text takes one of them
        made |= {key: made[key][:L] for key in ("deepstack_visual_indexes",) if key in made}
    return {"model_type": family, "tie_word_embeddings": tie, "image_token_id": IMAGE, "video_token_id": VIDEO,
            "vision_start_token_id": START, "vision_end_token_id": END, "text_config": text | keys,
            "vision_config": made}


def make_weights(tensors: list[tuple[str, tuple[int, ...]]], seed: int = 7) -> dict[str, np.ndarray]:
    """As random_weights, but with gentler products: bfloat16's error is not to grow over a tower and a text on top."""
    return {name: w / 2 if w.ndim > 1 and not name.endswith(("embed_tokens.weight", "lm_head.weight")) else w
            for name, w in random_weights(tensors, seed).items()}


def build_vlm(config: dict, device: str, seed: int = 7):
    """The core's Model of a config, with such weights."""
    from grpo import _core
    from grpo.model.families import spec_of

    return build(config, device, make_weights(_core.Model("ref", spec_of(config)).tensors(), seed))


def make_pixels(config: dict, grids: Sequence[Sequence[int]], seed: int = 0) -> list[np.ndarray]:
    """Noise for images of these grids, (patches, numbers of a patch) each."""
    vision, rng = config["vision_config"], np.random.default_rng([seed, 7])
    columns = vision["in_channels"] * vision["temporal_patch_size"] * vision["patch_size"] ** 2
    return [rng.standard_normal((int(np.prod(grid)), columns)).astype(np.float32) for grid in grids]


def make_prompt(config: dict, grids: Sequence[Sequence[int]], seed: int = 0, words: int = 5) -> np.ndarray:
    """Ids: some words before, between and after images; neighbours may touch."""
    rng, merge = np.random.default_rng([seed, 8]), config["vision_config"]["spatial_merge_size"]
    ids = rng.integers(0, WORDS, words).tolist()
    for grid in grids:
        ids += [START] + [IMAGE] * (int(np.prod(grid)) // merge**2) + [END]
        ids += rng.integers(0, WORDS, rng.integers(0, words + 1)).tolist()
    return np.array(ids, np.int32)


def images_of(config: dict, ids: np.ndarray, grids: Sequence[Sequence[int]], pixels=None, features=None):
    """What the core takes for one prompt's images; None where it has none."""
    if not len(grids):
        return None
    nothing = [None] * len(grids)
    positions, after = rope_positions(ids, grids, IMAGE, config["vision_config"]["spatial_merge_size"])
    return (positions, after, np.flatnonzero(ids == IMAGE).astype(np.int32),
            list(zip(map(np.int64, grids), pixels or nothing, features or nothing, strict=True)))


class Scene:
    """Prompts of a config, a list of grids each, as the core takes them: ``prompts``, ``pixels`` and ``images`` (these
    with pixels)."""

    def __init__(self, config: dict, sets: Sequence[Sequence[Sequence[int]]], seed: int = 0) -> None:
        self.config, self.sets = config, sets
        self.prompts = [make_prompt(config, grids, seed + i) for i, grids in enumerate(sets)]
        self.pixels = [make_pixels(config, grids, seed + i) for i, grids in enumerate(sets)]
        self.images = [images_of(config, *each) for each in zip(self.prompts, sets, self.pixels, strict=True)]

    def pictures(self) -> list[tuple]:
        """All images of all prompts, for Model.see()."""
        return [picture for some in self.images if some for picture in some[3]]

    def seen(self, model, **options) -> list:
        """The images with features too."""
        made = iter(model.see(self.pictures(), **options))
        return [some and (*some[:3], [(grid, pixels, next(made)) for grid, pixels, _ in some[3]])
                for some in self.images]


def reals(array: np.ndarray) -> np.ndarray:
    """Features as float32, whatever the device stores."""
    return (array.astype(np.uint32) << 16).view(np.float32) if array.dtype == np.uint16 else array
