"""Speed and memory on the CPU beside PyTorch: rollouts against transformers' generate, forward + backward against
autograd, a whole GRPO step against TRL's GRPOTrainer (work.py); same weights, prompts, bfloat16, threads, number of new
tokens.

    pip install '.[oracle]' && python tests/bench/bench_cpu.py [--shape 135m] [--model some.gguf] [--repeats 5]
        [--quick] [--parts step,training]

The model has the shape of SmolLM2-135M (135m) or of Qwen2.5-0.5B (0.5b): random weights, or those of --model (a GGUF or
a Hugging Face folder of that shape). "lean" is our step with recompute=True, "least" also with AdamW's moments in 8
bits and masters in 24, beside the same step of the peer; "update" is what forward + backward take inside our step,
behind a rollout that kept its activations, beside the peer's. Each measurement is a process of its own that loads,
warms up, measures once and reports its peak memory; ours and the peer's alternate. Prints a Markdown table.
"""
from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import replace

from timing import run_child, spread
from work import Work, measure, training_flops, write_model

STEP = Work(prompts=4, generations=8, prompt_length=96, new_tokens=128, micro_batch=8)
# part: (title, what work.py measures, of which work)
PARTS = {"rollout1": ("rollout, 1 sequence", "rollout", replace(STEP, prompts=1, generations=1)),
         "rollout8": ("rollout, 8 sequences", "rollout", replace(STEP, prompts=1)),
         "rollout32": ("rollout, 32 sequences", "rollout", STEP),
         "training": ("forward + backward", "training", STEP),
         "step": ("whole GRPO step", "step", STEP),
         "update": ("forward + backward in that step", "update", STEP),
         "lean": ("whole GRPO step, recompute", "lean", STEP),
         "least": ("whole GRPO step, recompute, moments in 8 bits, masters in 24", "least", STEP)}
# a part whose peer is that of another, measured there if both are asked for
PEERS = {"update": "training", "lean": "step", "least": "step"}


# -- ceilings, measured in the same run --------------------------------------------------------------------------------

def measure_ceilings() -> dict:
    """Large bf16 matrix product (TFLOP/s) and memory reads (GB/s) that PyTorch reaches here: best of five."""
    import torch

    a, b = (torch.randn(2048, 2048, dtype=torch.bfloat16) for _ in range(2))
    stream = torch.randn(1 << 27)
    best = {"matmul": 1e9, "sum": 1e9}
    for _ in range(5):
        for name, call in (("matmul", lambda: a @ b), ("sum", stream.sum)):
            begin = time.perf_counter()
            call()
            best[name] = min(best[name], time.perf_counter() - begin)
    return {"tflops": 2 * 2048**3 / best["matmul"] / 1e12, "gbytes": stream.numel() * 4 / best["sum"] / 1e9}


# -- driver ------------------------------------------------------------------------------------------------------------

def measure_part(side: str, part: str, folder: str) -> dict:
    """In the child: one side of one part, measured once."""
    _, what, work = PARTS[part]
    result = measure(side, what, folder, work)
    return result | {"seconds": result["seconds"][0]}


def table(results: dict, ceilings: list[dict], shape: str) -> str:
    """One row a part: medians with (least-most); the ratio is of runs that stood beside each other."""
    lines = ["| what | grpo | peer | time, peer / grpo | peak MB, grpo / peer | memory ratio |",
             "|---|---|---|---|---|---|"]
    for part, sides in results.items():
        a, b = sides["grpo"], sides["torch"]
        shown = [spread([r["tokens"] / r["seconds"] for r in runs]) + " tok/s" if part.startswith("rollout")
                 else spread([r["seconds"] for r in runs]) + " s" for runs in (a, b)]
        ratio = spread([y["seconds"] / x["seconds"] for x, y in zip(a, b, strict=True)]) + "x" if a and b else ""
        memory = [statistics.median(r["peak_mb"] for r in runs) if runs else float("nan") for runs in (a, b)]
        lines.append(f"| {PARTS[part][0]} | {shown[0]} | {shown[1]} | {ratio} | {memory[0]:.0f} / {memory[1]:.0f} | "
                     f"{memory[0] / memory[1]:.2f} |")
    tflops, gbytes = (statistics.median(c[key] for c in ceilings) for key in ("tflops", "gbytes"))
    lines.append(f"\nCeilings measured here: bf16 matrix product 2048^3 {tflops:.3f} TFLOP/s, memory reads "
                 f"{gbytes:.1f} GB/s.")
    if "training" in results:
        rate = training_flops(shape, STEP) / statistics.median(r["seconds"] for r in results["training"]["grpo"]) / 1e12
        lines.append(f"Forward + backward: {rate:.3f} TFLOP/s of useful work, {rate / tflops:.0%} of that product.")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=("tiny", "135m", "0.5b"), default="135m")
    parser.add_argument("--model", help="GGUF or folder of that shape; default: random weights")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one repetition")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {','.join(PARTS)}")
    parser.add_argument("--sides", default="grpo,torch",
                        help="grpo,torch or one of them (then only raw numbers are printed)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        call, *rest = options.child
        result = {"ceilings": measure_ceilings, "write": write_model, "measure": measure_part}[call](*rest)
        print(json.dumps(result))
        return
    parts, sides = options.parts.split(","), options.sides.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    results = {part: {"grpo": [], "torch": []} for part in parts}
    ceilings, env = [], {"GRPO_NUM_THREADS": str(options.threads), "OMP_NUM_THREADS": str(options.threads)}
    with tempfile.TemporaryDirectory() as folder:
        run_child(__file__, ["--child", "write", folder, options.shape, *([options.model] if options.model else [])],
                  **env)
        for _ in range(1 if options.quick else options.repeats):
            ceilings.append(run_child(__file__, ["--child", "ceilings"], **env))
            for part in parts:
                for side in sides if PEERS.get(part) not in parts else ["grpo"]:
                    asked = PEERS.get(part, part) if side == "torch" else part
                    results[part][side].append(run_child(__file__, ["--child", "measure", side, asked, folder], **env))
                    print(part, side, json.dumps(results[part][side][-1]), file=sys.stderr, flush=True)
    for part in set(parts) & set(PEERS):
        results[part]["torch"] = results[part]["torch"] or results.get(PEERS[part], {}).get("torch", [])
    print(f"python {' '.join(sys.argv)}\n")
    print(table(results, ceilings, options.shape) if len(sides) == 2 else json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
