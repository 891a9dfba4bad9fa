"""What bench_vision.py measures, for us and for the peers: towers on images of three sizes, and a whole GRPO step of a
model that sees. Both sides load one folder of random bfloat16 weights."""
from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from work import IDS, Work, write_tokenizer

if TYPE_CHECKING:
    from PIL.Image import Image

VISION_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
VISION_IDS = {name: 3 + i for i, name in enumerate(("vision_start_token_id", "vision_end_token_id", "image_token_id",
                                                    "video_token_id"))}
UNDRAWN = [VISION_IDS["image_token_id"], VISION_IDS["video_token_id"]]
TEMPLATE = ("{% for m in messages %}<|im_start|>{% if m.content is string %}{{ m.content }}{% else %}"
            "{% for part in m.content %}{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
            "{% elif 'text' in part %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>{% endfor %}"
            "{% if add_generation_prompt %}<|im_start|>{% endif %}")

# -- models -----------------------------------------------------------------------------------------------------------

WINDOWS = {"depth": 8, "hidden_size": 640, "num_heads": 8, "intermediate_size": 1710, "window_size": 112,
           "fullatt_block_indexes": [3, 7]}
# Next to nothing: a hundredth of the tower's work.
SCANT = {"hidden_size": 1024, "intermediate_size": 32, "num_attention_heads": 8, "num_key_value_heads": 1,
         "num_hidden_layers": 1, "vocab_size": 512}
# name: (model_type, text, tower). Heads are as wide as those of the real towers: 80, of Qwen3-VL 72.
MODELS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "Qwen2.5-VL": ("qwen2_5_vl", SCANT, {**WINDOWS, "out_hidden_size": 1024}),
    "Qwen2-VL": ("qwen2_vl", SCANT, {"depth": 8, "embed_dim": 640, "num_heads": 8, "hidden_size": 1024}),
    "Qwen3-VL": ("qwen3_vl", {**SCANT, "num_hidden_layers": 3, "num_attention_heads": 1, "head_dim": 128},
                 {"depth": 8, "hidden_size": 576, "num_heads": 8, "intermediate_size": 2152, "out_hidden_size": 1024,
                  "deepstack_visual_indexes": [2, 4, 6]}),
    # 154 million: 106 of text, layers of SmolLM2-135M's shape, and 48 of tower
    "step": ("qwen2_5_vl", {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 22,
                            "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152},
             {**WINDOWS, "out_hidden_size": 576}),
    "tiny": ("qwen2_5_vl", {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
                            "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 4096},
             {**WINDOWS, "depth": 2, "hidden_size": 64, "num_heads": 2, "intermediate_size": 96,
              "fullatt_block_indexes": [1], "out_hidden_size": 64}),
}
TOWERS = ("Qwen2.5-VL", "Qwen2-VL", "Qwen3-VL")


def config_of(name: str) -> dict[str, Any]:
    """The Hugging Face config of a model of MODELS."""
    family, text, tower = MODELS[name]
    width = text.get("head_dim", text["hidden_size"] // text["num_attention_heads"])
    frames, rows = width // 8, (width // 2 - width // 8) // 2
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [frames, rows, rows]}
    return {"model_type": family, "tie_word_embeddings": True, **VISION_IDS, **IDS, "vision_config": tower,
            "text_config": {"model_type": f"{family}_text", "rms_norm_eps": 1e-6, "max_position_embeddings": 4096,
                            "tie_word_embeddings": True, "head_dim": width, "rope_parameters": rope, **IDS, **text}}


def write_model(folder: str, name: str) -> dict:
    """Random weights, tokenizer and processor of a model of MODELS. {"parameters": how many}"""
    import torch
    import transformers

    from grpo.vision import Processor

    torch.manual_seed(0)
    config = config_of(name)
    made = transformers.AutoModelForImageTextToText.from_config(transformers.AutoConfig.for_model(**config))
    made.to(torch.bfloat16).save_pretrained(folder)
    write_tokenizer(Path(folder), config["text_config"]["vocab_size"], VISION_TOKENS, TEMPLATE)
    (Path(folder) / "preprocessor_config.json").write_text(json.dumps(Processor.of(config["model_type"]).to_json()))
    return {"parameters": sum(each.numel() for each in made.parameters())}


# -- images -----------------------------------------------------------------------------------------------------------

# (height, width); the towers see the last as 756 x 1036, Qwen3-VL's as it is
IMAGES = {"224 x 224": (224, 224), "448 x 448": (448, 448), "768 x 1024": (768, 1024)}


def photos(sizes: list[tuple[int, int]]) -> list[Image]:
    """Smooth colours with some noise, as PIL has decoded them."""
    import numpy as np
    from PIL import Image

    rng, images = np.random.default_rng(0), []
    for height, width in sizes:
        coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3)).astype(np.uint8)).resize((width, height))
        images.append(Image.fromarray((np.asarray(coarse) // 8 * 7 + rng.integers(0, 31, (height, width, 3))).astype(
            np.uint8)))
    return images


def write_tower(folder: str, name: str) -> dict:
    """write_model(), and what its tower reads of each of IMAGES: {image}.npz with pixels and grid."""
    import numpy as np

    from grpo.vision import Processor, preprocess

    processor = Processor.of(MODELS[name][0]).with_limits(min_pixels=1)
    for image, size in IMAGES.items():
        seen = preprocess(photos([size]), processor)
        np.savez(Path(folder) / f"{image}.npz", pixels=seen["pixel_values"], grid=seen["image_grid_thw"])
    return write_model(folder, name)


# -- a step -----------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class SeeingWork(Work):
    """A step whose prompts have an image of 224 x 224 before their words."""

    def dataset(self) -> list[Mapping[str, Any]]:
        """The rows of the data set, for both sides: new images in each step, for what a frozen tower saw is kept."""
        texts = replace(self, prompts=self.prompts * (1 + self.repeats)).prompt_texts()
        return [{"prompt": [{"role": "user", "content": text}], "image": image}
                for text, image in zip(texts, photos([IMAGES["224 x 224"]] * len(texts)), strict=True)]


STEP = SeeingWork(prompts=4, generations=8, prompt_length=32, new_tokens=64, micro_batch=8)
TRIAL = SeeingWork(prompts=2, generations=4, prompt_length=8, new_tokens=4, micro_batch=4)
