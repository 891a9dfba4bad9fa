"""Speed of vision-language models on the CPU beside transformers: the same images, weights and threads.

    pip install '.[oracle]' && python tests/bench/bench_vision.py [--parts pixels] [--repeats 5] [--threads 2]
        [--quick]

pixels: images to pixel_values, Qwen2-VL's rule, beside transformers' Pillow processor; batches of photo-like images
that PIL has decoded. Every measurement is a process of its own that warms up once; ours and the peer's alternate, and
their results are compared. Prints a Markdown table for each part.
"""
from __future__ import annotations

import argparse
import json
import sys
import time
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from timing import run_child, spread

if TYPE_CHECKING:
    from PIL.Image import Image

SIDES = ("grpo", "torch")

# -- pixels: from images to what a tower reads ------------------------------------------------------------------------

# name: (height, width) of each image of a batch
BATCHES = {"32 of 224 x 224": [(224, 224)] * 32, "16 of 480 x 640": [(480, 640)] * 16,
           "8 of 1000 x 750": [(1000, 750)] * 8,
           "16 of 224 .. 1000": [(224 + 49 * i % 777, 224 + 171 * i % 777) for i in range(16)],
           "1 of 3000 x 4000": [(3000, 4000)]}


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


def measure_pixels(side: str, batch: str) -> dict:
    """In the child: one batch, several times; the least, since a batch takes milliseconds."""
    from grpo.vision import Processor, preprocess

    images, processor = photos(BATCHES[batch]), Processor.of("qwen2_vl")
    if side == "grpo":
        def call() -> dict:
            return preprocess(images, processor)
    else:
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

        peer = Qwen2VLImageProcessorPil(**processor.to_json())

        def call() -> dict:
            return peer(images, return_tensors="np")
    checksum = zlib.crc32(call()["pixel_values"].tobytes())
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
    return {"seconds": min(seconds), "checksum": checksum}


def pixels(measure: Callable[[str, str], dict], repeats: int, quick: bool) -> str:
    """The part's table; quick: of its first row."""
    lines = ["| images | grpo, ms an image | transformers (Pillow), ms an image | transformers / grpo |",
             "|---|---|---|---|"]
    for batch, sizes in list(BATCHES.items())[:1 if quick else None]:
        runs = {side: [] for side in SIDES}
        for _ in range(repeats):
            for side in SIDES:
                runs[side].append(measure(side, batch))
        if len({run["checksum"] for side in SIDES for run in runs[side]}) > 1:
            raise SystemExit(f"{batch}: the two sides made different pixels")
        ours, theirs = ([1e3 * run["seconds"] / len(sizes) for run in runs[side]] for side in SIDES)
        ratio = spread([b / a for a, b in zip(ours, theirs, strict=True)])
        lines.append(f"| {batch} | {spread(ours)} | {spread(theirs)} | {ratio} |")
    return "\n".join(lines)


# -- driver -----------------------------------------------------------------------------------------------------------

PARTS = {"pixels": (pixels, measure_pixels)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {','.join(PARTS)}")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one repetition of the least of each part")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        part, *arguments = options.child
        print(json.dumps(PARTS[part][1](*arguments)))
        return
    parts = options.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    threads = {"GRPO_NUM_THREADS": str(options.threads), "OMP_NUM_THREADS": str(options.threads)}
    print(f"python {' '.join(sys.argv)}")
    for part in parts:
        def measure(*arguments: str, part: str = part) -> dict:
            return run_child(__file__, ["--child", part, *arguments], **threads)

        table = PARTS[part][0](measure, 1 if options.quick else options.repeats, options.quick)
        print(f"\n{part}\n\n{table}", flush=True)


if __name__ == "__main__":
    main()
