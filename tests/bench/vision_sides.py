"""Both sides of what bench_vision.py measures of models that see: see, see_training, step, step_all of "grpo" and of
"torch"."""
from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from timing import now, peak_mb
from vision_work import IMAGES, STEP, UNDRAWN, VISION_IDS, SeeingWork

LEAST_SECONDS = 0.6


def timed(call: Callable[[], object]) -> dict[str, float]:
    """Median of calls after one that warms up, and the most memory so far: images come in order of their sizes."""
    seconds: list[float] = []
    call()
    while sum(seconds) < LEAST_SECONDS:
        begin = now()
        call()
        seconds.append(now() - begin)
    return {"seconds": statistics.median(seconds), "peak_mb": peak_mb(STEP)}


def read_image(folder: str, image: str) -> tuple[Any, Any]:
    """(pixels (patches, numbers), grid (1, 3))"""
    import numpy as np

    with np.load(Path(folder) / f"{image}.npz") as found:
        return found["pixels"], found["grid"]


def keep_features(folder: str, side: str, image: str, features: Any) -> None:
    """(levels, cells, width), for the comparison of the sides."""
    import numpy as np

    np.save(Path(folder) / f"{side} {image}.npy", features)


# -- ours -------------------------------------------------------------------------------------------------------------

def grpo_see(folder: str) -> dict:
    """Model.see: pixels to features."""
    import numpy as np

    import grpo

    core, found = grpo.load(folder, device="cpu").core, {}
    for image in IMAGES:
        pixels, grid = read_image(folder, image)
        found[image] = timed(lambda pixels=pixels, grid=grid: core.see([(grid[0], pixels, None)]))
        bits = core.see([(grid[0], pixels, None)])[0]
        keep_features(folder, "grpo", image, (bits.astype(np.uint32) << 16).view(np.float32))
    return found


def grpo_see_training(folder: str) -> dict:
    """Forward and backward of the tower with all its gradients, behind a text of next to no layers whose one completion
    token asks for them: the text counts as ours."""
    import numpy as np

    import grpo
    from grpo import _core
    from grpo.vision.positions import rope_positions

    core, found = grpo.load(folder, device="cpu").core, {}
    trainer = _core.Trainer(core, train_vision="all")
    start, end, token = (VISION_IDS[f"{name}_token_id"] for name in ("vision_start", "vision_end", "image"))
    for image in IMAGES:
        pixels, grid = read_image(folder, image)
        cells = len(pixels) // 4
        ids = np.array([start, *[token] * cells, end], np.int32)
        positions, after = rope_positions(ids, grid, token, 2)
        seen = (positions, after, np.arange(1, 1 + cells, dtype=np.int32), [(grid[0], pixels, None)])
        one = [np.array([9], np.int32)]
        found[image] = timed(lambda ids=ids, seen=seen, one=one: trainer.accumulate(
            [ids], one, np.zeros(1, np.int32), np.ones(1, np.float32), images=[seen]))
    return found


def grpo_step(folder: str, work: SeeingWork, **options: Any) -> dict:
    """With a frozen tower."""
    import side_grpo

    return side_grpo.step(folder, work, **options)


def grpo_step_all(folder: str, work: SeeingWork) -> dict:
    return grpo_step(folder, work, train_vision="all")


def grpo_lean(folder: str, work: SeeingWork) -> dict:
    return grpo_step(folder, work, recompute=True)


def grpo_least(folder: str, work: SeeingWork) -> dict:
    return grpo_step(folder, work, recompute=True, moment_dtype="float8", master_dtype="float24")


def grpo_lean_all(folder: str, work: SeeingWork) -> dict:
    return grpo_step(folder, work, recompute=True, train_vision="all")


# -- the peer's -------------------------------------------------------------------------------------------------------

def load_model(folder: str) -> Any:
    """bfloat16, with PyTorch's scaled_dot_product_attention."""
    import torch
    from transformers import AutoModelForImageTextToText

    return AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation="sdpa")


def levels_of(seen: Any) -> list[Any]:
    """A tower's features: those in place of tokens, and those for the text's layers."""
    return [seen.pooler_output, *getattr(seen, "deepstack_features", [])]


def torch_images(folder: str) -> dict[str, tuple[Any, Any]]:
    import torch

    return {image: tuple(map(torch.from_numpy, read_image(folder, image))) for image in IMAGES}


def torch_see(folder: str) -> dict:
    """The tower alone, no gradient asked for."""
    import torch

    tower, found = load_model(folder).model.visual.eval(), {}
    for image, (pixels, grid) in torch_images(folder).items():
        with torch.inference_mode():
            def call(pixels=pixels, grid=grid):
                return levels_of(tower(pixels.to(torch.bfloat16), grid_thw=grid))

            found[image] = timed(call)
            keep_features(folder, "torch", image, torch.stack(call()).float().numpy())
    return found


def torch_see_training(folder: str) -> dict:
    """The tower alone: forward, and backward from a given gradient of its features."""
    import torch

    tower, found = load_model(folder).model.visual.train(), {}
    for image, (pixels, grid) in torch_images(folder).items():
        with torch.no_grad():
            d = [torch.randn_like(level) for level in levels_of(tower(pixels.to(torch.bfloat16), grid_thw=grid))]

        def call(pixels=pixels, grid=grid, d=d):
            torch.autograd.backward(levels_of(tower(pixels.to(torch.bfloat16), grid_thw=grid)), d)

        found[image] = timed(call)
    return found


def processor_of(folder: str) -> Any:
    """Of Qwen2.5-VL without what reads videos, which needs torchvision."""
    from transformers import PreTrainedTokenizerFast, Qwen2_5_VLProcessor
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    class Processor(Qwen2_5_VLProcessor):
        def check_argument_for_proper_class(self, *arguments):
            pass

    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    return Processor(Qwen2VLImageProcessorPil.from_pretrained(folder), tokenizer, None,
                     chat_template=tokenizer.chat_template)


def torch_step(folder: str, work: SeeingWork, frozen: bool = True) -> dict:
    """TRL's trainer, with a frozen tower."""
    import side_torch

    model = load_model(folder)
    model.model.visual.requires_grad_(not frozen)
    drawing = {"min_new_tokens": work.new_tokens, "suppress_tokens": UNDRAWN}
    return side_torch.step(folder, work, model, processor_of(folder), generation_kwargs=drawing)


def torch_step_all(folder: str, work: SeeingWork) -> dict:
    return torch_step(folder, work, frozen=False)
