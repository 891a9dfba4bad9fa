"""First numbers of a card, in one call of at most eight minutes: ceilings, decoding, training, a whole GRPO step (work.py),
ours and beside transformers and TRL.

    python tests/bench/bench_gpu.py [--shapes 0.5b,1.5b] [--parts decode,training,step] [--sides grpo,torch] [--seconds 480]

Needs PyTorch and transformers for the ceilings, the weights and the peer; TRL for the peer's step ("no TRL" without it).
Beside each stand its floor and what grpo.step_time predicts, from the ceilings of the same call. Decoding: prompts of 384
tokens, 256 new ones. Training: 36 sequences of 150 + 300 tokens, nothing
shared, as a share of 989 TFLOP/s. Step: 8 prompts of 150 tokens x 16 completions of 300, on-policy.
Parts that no time is left for are named, not left out. --device cpu --shapes tiny tries the script itself.
"""
from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import tempfile
import time
from dataclasses import replace

from grpo import step_time
from grpo.cards import Ceilings
from work import SHAPES, Work, measure, phases, run_child, spread, training_flops, write_model

DATASHEET = 989e12
DECODE = Work(prompts=8, generations=16, prompt_length=384, new_tokens=256, micro_batch=128, device="cuda", repeats=3)
STEP = Work(prompts=8, generations=16, prompt_length=150, new_tokens=300, micro_batch=16, device="cuda", repeats=3)
PARTS = {"decode1": ("decode, 1 sequence", "rollout", replace(DECODE, prompts=1, generations=1)),
         "decode128": ("decode, 128 sequences", "rollout", DECODE),
         "training": ("forward + backward, 16,200 tokens", "training", replace(STEP, prompts=36, generations=1, micro_batch=12)),
         "step": ("GRPO step, beta 0", "step", STEP),
         "step_kl": ("GRPO step, beta 0.04", "step", STEP)}
TRIAL = {"prompt_length": 24, "new_tokens": 8}                    # of --device cpu


def measure_ceilings(device: str) -> dict:
    """Copy (GB/s, bytes read and written) and bf16 product (TFLOP/s) of random data: medians of ten by events."""
    import torch

    side, elements = (8192, 1 << 32) if device == "cuda" else (256, 1 << 20)
    a, b = (torch.randn(side, side, dtype=torch.bfloat16, device=device) for _ in range(2))
    source = torch.empty(elements, dtype=torch.uint8, device=device).random_()
    target = torch.empty_like(source)
    copy, product = device_seconds(lambda: target.copy_(source), device), device_seconds(lambda: a @ b, device)
    return {"gbytes": 2 * elements / copy / 1e9, "tflops": 2 * side**3 / product / 1e12}


def device_seconds(call, device: str) -> float:
    import torch

    def once() -> float:
        if device == "cpu":
            begin = time.perf_counter()
            call()
            return time.perf_counter() - begin
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3

    return statistics.median([once() for _ in range(13)][3:])


def part_work(part: str, device: str) -> Work:
    work = replace(PARTS[part][2], device=device)
    return work if device == "cuda" else replace(work, **TRIAL)


def measure_part(side: str, part: str, folder: str, device: str) -> dict:
    """In the child: one side of one part."""
    options = {"beta": 0.04} if part == "step_kl" else {}
    return measure(side, PARTS[part][1], folder, part_work(part, device), **options)


def row(shape: str, part: str, sides: dict, at: Ceilings, device: str) -> str:
    """One row of the table."""
    work, ours, peer = part_work(part, device), sides["grpo"], sides.get("torch")
    found = phases(shape, work, PARTS[part][1], scorings=part == "step_kl")
    seconds = statistics.median(ours["seconds"])
    if part.startswith("decode"):
        decode = statistics.median(ours["decode_seconds"])
        share = f"{step_time.floor(found[1:], at) / decode:.0%} of the decode's floor ({1e3 * decode / work.new_tokens:.2f} ms a token)"
    elif part == "training":
        share = f"{training_flops(shape, work) / seconds / DATASHEET:.0%} of 989 TFLOP/s"
    else:
        spent = [f"{key.removeprefix('time_share/')} {value * ours['seconds'][-1]:.2f} s" for key, value in ours.items() if "share/" in key]
        share = f"{', '.join(spent)}; log-prob difference {ours['difference']}"
    ratio = spread([statistics.median(peer["seconds"]) / one for one in ours["seconds"]]) + "x" if peer else ""
    theirs = spread(peer["seconds"], 3) if peer else sides.get("why", "")
    memory = f"{ours['peak_mb']:.0f}" + (f" / {peer['peak_mb']:.0f}" if peer else "")
    predicted = f"{step_time.floor(found, at):.3f}, {step_time.expected(found, at, device):.3f}"
    return f"| {shape} | {PARTS[part][0]} | {predicted} | {spread(ours['seconds'], 3)} | {theirs} | {ratio} | {memory} | {share} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="0.5b,1.5b", help=f"of {','.join(SHAPES)}")
    parser.add_argument("--parts", default="decode128,training,step,decode1,step_kl", help=f"of {','.join(PARTS)}")
    parser.add_argument("--sides", default="grpo,torch", help="grpo, or grpo,torch")
    parser.add_argument("--seconds", type=float, default=480, help="start nothing after so many")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        call, *rest = options.child
        print(json.dumps({"ceilings": measure_ceilings, "write": write_model, "measure": measure_part}[call](*rest)))
        return
    shapes, parts, sides = (value.split(",") for value in (options.shapes, options.parts, options.sides))
    if unknown := set(parts) - set(PARTS) | set(shapes) - set(SHAPES):
        parser.error(f"there is no {', '.join(sorted(unknown))}; parts are {', '.join(PARTS)}, shapes {', '.join(SHAPES)}")
    begin, skipped = time.monotonic(), []
    measured = run_child(__file__, ["--child", "ceilings", options.device])
    print(f"python {' '.join(sys.argv)}\n\nCeilings: copy {measured['gbytes']:.0f} GB/s, bf16 product {measured['tflops']:.1f} TFLOP/s.\n")
    at = Ceilings(measured["tflops"] * 1e12, measured["gbytes"] * 1e9, "measured in this call")
    print("| shape | what | floor, predicted, s | grpo, s | peer, s | peer / grpo | card's MB, grpo / peer | share |\n|" + "---|" * 8, flush=True)
    for shape in shapes:
        with tempfile.TemporaryDirectory() as folder:
            run_child(__file__, ["--child", "write", folder, shape, "", options.device])
            for part in parts:
                results = {}
                for side in sides:
                    if time.monotonic() - begin > options.seconds:
                        skipped.append(f"{shape} {part} ({side})")
                    elif side == "torch" and PARTS[part][1] == "step" and importlib.util.find_spec("trl") is None:
                        results["why"] = "no TRL"
                    else:
                        results[side] = run_child(__file__, ["--child", "measure", side, part, folder, options.device])
                if "grpo" in results:
                    print(row(shape, part, results, at, options.device), flush=True)
    if skipped:
        print(f"\nNo time was left for {', '.join(skipped)}.")


if __name__ == "__main__":
    main()
