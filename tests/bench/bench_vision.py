"""Speed of vision-language models on the CPU beside transformers and TRL: the same images, weights and threads.

    pip install '.[oracle]' && python tests/bench/bench_vision.py [--parts pixels,towers,steps] [--repeats 5]
        [--towers Qwen2-VL] [--threads 2] [--quick] [--clock cpu]

pixels: images to pixel_values, Qwen2-VL's rule, beside transformers' Pillow processor; batches of photo-like images
that PIL has decoded.
towers: pixel_values to features, and that with the gradients of all of the tower's weights, beside transformers' own
module in bfloat16 with PyTorch's scaled_dot_product_attention. The peer's backward starts from a given gradient of the
features; ours includes a text of one to three thin layers, which makes that gradient.
steps: a whole GRPO step of a Qwen2.5-VL of 154 million parameters beside TRL's GRPOTrainer: 4 prompts of an image of
224 x 224 and 32 words, 8 completions of 64 tokens each; with a frozen tower, and with everything trained; "recompute"
is ours beside the same step of the peer.

Every measurement is a process of its own that warms up; ours and the peer's alternate, and their pixels and features
are compared. On a machine that is busy with other things, --threads 1 --clock cpu measures the time that each process
ran instead of what a clock on the wall says: threads there wait for each other. Prints a Markdown table for each part.
"""
from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import vision_sides
from timing import CLOCKS, now, run_child, spread
from vision_work import IMAGES, STEP, TOWERS, TRIAL, photos, write_model, write_tower

SIDES = ("grpo", "torch")

# -- pixels: from images to what a tower reads ------------------------------------------------------------------------

# name: (height, width) of each image of a batch
BATCHES = {"32 of 224 x 224": [(224, 224)] * 32, "16 of 480 x 640": [(480, 640)] * 16,
           "8 of 1000 x 750": [(1000, 750)] * 8,
           "16 of 224 .. 1000": [(224 + 49 * i % 777, 224 + 171 * i % 777) for i in range(16)],
           "1 of 3000 x 4000": [(3000, 4000)]}


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
        begin = now()
        call()
        seconds.append(now() - begin)
    return {"seconds": min(seconds), "checksum": checksum}


def pixels(measure: Callable[..., dict], repeats: int, options: argparse.Namespace) -> str:
    """The part's table; --quick: of its first row."""
    lines = ["| images | grpo, ms an image | transformers (Pillow), ms an image | transformers / grpo |",
             "|---|---|---|---|"]
    for batch, sizes in list(BATCHES.items())[:1 if options.quick else None]:
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


# -- towers: from pixels to features, and back ------------------------------------------------------------------------

KINDS = {"see": "forward", "see_training": "forward + backward"}
MOST_APART = 0.03                            # of |features|, after layers that round to bfloat16 in places of their own


def measure_tower(side: str, kind: str, folder: str) -> dict:
    """In the child: {image: seconds and memory}; or with "write", a tower of the name `kind`."""
    return write_tower(folder, kind) if side == "write" else getattr(vision_sides, f"{side}_{kind}")(folder)


def compare_features(folder: str, name: str) -> None:
    """Both sides saw the same."""
    import numpy as np

    for image in IMAGES:
        ours, theirs = (np.load(Path(folder) / f"{side} {image}.npy") for side in SIDES)
        apart = float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
        print(f"{name}, {image}: features {apart:.4f} apart", file=sys.stderr)
        if ours.shape != theirs.shape or not apart < MOST_APART:
            raise SystemExit(f"{name}, {image}: the two sides saw different features")


def alternate(measure: Callable[..., dict], repeats: int, *arguments: str) -> dict[str, list[dict]]:
    """What each side's runs returned, ours and the peer's by turns."""
    runs: dict[str, list[dict]] = {side: [] for side in SIDES}
    for _ in range(repeats):
        for side in SIDES:
            runs[side].append(measure(side, *arguments))
            print(side, *arguments[:1], json.dumps(runs[side][-1]), file=sys.stderr, flush=True)
    return runs


def row_of(ours: list[dict], theirs: list[dict], scale: float, digits: int) -> str:
    """Times, their ratio in runs that stood beside each other, peaks of memory and their ratio."""
    times = [spread([scale * run["seconds"] for run in runs], digits) for runs in (ours, theirs)]
    ratio = spread([b["seconds"] / a["seconds"] for a, b in zip(ours, theirs, strict=True)])
    peaks = [statistics.median(run["peak_mb"] for run in runs) for runs in (ours, theirs)]
    return (f"{times[0]} | {times[1]} | {ratio} | {peaks[0]:.0f} / {peaks[1]:.0f} | {peaks[0] / peaks[1]:.2f} |")


def towers(measure: Callable[..., dict], repeats: int, options: argparse.Namespace) -> str:
    """The part's table; --quick: of a tiny tower."""
    lines = ["| tower | image | what | grpo, ms | PyTorch, ms | PyTorch / grpo | peak MB, grpo / PyTorch | ratio |",
             "|---|---|---|---|---|---|---|---|"]
    for name in ["tiny"] if options.quick else options.towers.split(","):
        with tempfile.TemporaryDirectory() as folder:
            measure("write", name, folder)
            found = {kind: alternate(measure, repeats, kind, folder) for kind in KINDS}
            compare_features(folder, name)
        for image in IMAGES:
            for kind, title in KINDS.items():
                ours, theirs = ([run[image] for run in found[kind][side]] for side in SIDES)
                lines.append(f"| {name} | {image} | {title} | {row_of(ours, theirs, 1e3, 0)}")
    return "\n".join(lines)


# -- steps: GRPO of a model that sees ---------------------------------------------------------------------------------

# title: (what ours does, what the peer does)
STEPS = {"tower frozen": ("step", "step"), "tower frozen, recompute": ("lean", "step"),
         "tower frozen, recompute, moments in 8 bits, masters in 24": ("least", "step"),
         "all trained": ("step_all", "step_all"), "all trained, recompute": ("lean_all", "step_all")}


def measure_step(side: str, what: str, folder: str, trial: str = "") -> dict:
    """In the child: a step; or with "write", the model of the name `what`."""
    if side == "write":
        return write_model(folder, what)
    result = getattr(vision_sides, f"{side}_{what}")(folder, TRIAL if trial else STEP)
    return result | {"seconds": result["seconds"][0]}


def steps(measure: Callable[..., dict], repeats: int, options: argparse.Namespace) -> str:
    """The part's table; --quick: of a tiny model's."""
    lines = ["| whole GRPO step | grpo, s | TRL, s | TRL / grpo | peak MB, grpo / TRL | ratio |",
             "|---|---|---|---|---|---|"]
    found: dict[tuple[str, str], list[dict]] = {}
    with tempfile.TemporaryDirectory() as folder:
        measure("write", "tiny" if options.quick else "step", folder)
        wanted = list(dict.fromkeys((side, what) for pair in STEPS.values()
                                    for side, what in zip(SIDES, pair, strict=True)))
        for _ in range(repeats):
            for side, what in wanted:
                run = measure(side, what, folder, *(["trial"] if options.quick else []))
                found.setdefault((side, what), []).append(run)
                print(side, what, json.dumps(run), file=sys.stderr, flush=True)
    for title, pair in STEPS.items():
        ours, theirs = (found[key] for key in zip(SIDES, pair, strict=True))
        lines.append(f"| {title} | {row_of(ours, theirs, 1, 2)}")
    return "\n".join(lines)


# -- driver -----------------------------------------------------------------------------------------------------------

PARTS = {"pixels": (pixels, measure_pixels), "towers": (towers, measure_tower), "steps": (steps, measure_step)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {','.join(PARTS)}")
    parser.add_argument("--towers", default=",".join(TOWERS), help=f"of {','.join(TOWERS)}")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one repetition of the least of each part")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        part, *arguments = options.child
        print(json.dumps(PARTS[part][1](*arguments)))
        return
    parts = options.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if unknown := set(options.towers.split(",")) - set(TOWERS):
        parser.error(f"no tower {', '.join(sorted(unknown))}; there are {', '.join(TOWERS)}")
    environment = {"GRPO_NUM_THREADS": str(options.threads), "OMP_NUM_THREADS": str(options.threads),
                   "BENCH_CLOCK": options.clock}
    print(f"python {' '.join(sys.argv)}")
    for part in parts:
        def measure(*arguments: str, part: str = part) -> dict:
            return run_child(__file__, ["--child", part, *arguments], **environment)

        table = PARTS[part][0](measure, 1 if options.quick else options.repeats, options)
        print(f"\n{part}\n\n{table}", flush=True)


if __name__ == "__main__":
    main()
