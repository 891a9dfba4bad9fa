"""The cpu backend's matrix products beside PyTorch's (oneDNN, MKL), at the shapes of SmolLM2-135M and Qwen2.5-0.5B.

    pip install '.[oracle]' && GRPO_NUM_THREADS=2 python tests/bench/bench_gemm.py [--quick] [--rows 1,8,64]
        [--kinds linear]
    GRPO_CPU=avx2 ONEDNN_MAX_CPU_ISA=AVX2 python tests/bench/bench_gemm.py --dtype float32    # a tier beside its like

The two take turns on the same numbers; each turn counts its fastest call, each cell of the table is the median over
turns of PyTorch's time / ours. --dtype is the peer's; ours is bfloat16. Weights stay in cache where they fit, on both
sides; in a model's decode step they come from memory.
"""
from __future__ import annotations

import argparse
import math
import statistics
import sys
import time

import numpy as np
import torch

from grpo import _core

SHAPES = {                                   # (O, C)
    "135M qkv": (960, 576), "135M o": (576, 576), "135M gate, up": (3072, 576), "135M down": (576, 1536),
    "135M head": (49152, 576),
    "0.5B qkv": (1152, 896), "0.5B o": (896, 896), "0.5B gate, up": (9728, 896), "0.5B down": (896, 4864),
    "1B qkv": (3072, 2048),
}
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 512, 2048)
BACKWARD_ROWS = (128, 512, 2048)             # the backward runs on training batches alone
SETTLE = 0.03  # seconds between turns: the other side's idle threads spin for some milliseconds


def operands(kind: str, M: int, O: int, C: int, dtype: torch.dtype) -> tuple[dict, object]:
    """Arguments of our operation, and PyTorch's statement of it."""
    rng = np.random.default_rng(0)
    x, dy, W = (rng.standard_normal(shape, dtype=np.float32) for shape in ((M, C), (M, O), (O, C)))
    tx, tdy, tW = (torch.from_numpy(a).to(dtype) for a in (x, dy, W))
    if kind == "linear":
        return {"x": x, "W": W}, lambda: torch.nn.functional.linear(tx, tW)
    if kind == "linear_dx":
        return {"dy": dy, "W": W}, lambda: tdy @ tW
    return {"dW": np.zeros((O, C), np.float32), "db": None, "dy": dy, "x": x}, lambda: tdy.T @ tx


def fastest(call, repeat: int) -> float:
    best = math.inf
    for _ in range(repeat):
        begin = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - begin)
    return best


def compare(ops, kind: str, M: int, O: int, C: int, turns: int, dtype: torch.dtype) -> tuple[float, float, float]:
    """Medians over turns: PyTorch's time / ours, our GFLOP/s, PyTorch's."""
    flops = 2.0 * M * O * C
    arguments, peer = operands(kind, M, O, C, dtype)
    ops.repeat = repeat = max(3, min(200, int(2e9 / flops)))
    ratios, ours, theirs = [], [], []
    fastest(peer, 2)
    for _ in range(turns):
        time.sleep(SETTLE)
        getattr(ops, kind)(**arguments)
        ours.append(ops.seconds)
        time.sleep(SETTLE)
        theirs.append(fastest(peer, repeat))
        ratios.append(theirs[-1] / ours[-1])
    return statistics.median(ratios), flops / statistics.median(ours) / 1e9, flops / statistics.median(theirs) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default=",".join(map(str, ROWS)))
    parser.add_argument("--kinds", default="linear,linear_dx,linear_dw")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--quick", action="store_true", help="one turn, three numbers of rows")
    options = parser.parse_args()
    rows = [1, 32, 512] if options.quick else [int(m) for m in options.rows.split(",")]
    torch.set_num_threads(_core.get_num_threads())
    ops = _core.Ops("cpu")
    print(f"python {' '.join(sys.argv)}\n"
          f"tier {_core.backend('cpu')[1]}, {_core.get_num_threads()} threads; PyTorch {torch.__version__}, "
          f"{options.dtype}\n")
    for kind in options.kinds.split(","):
        wanted = [m for m in rows if kind == "linear" or m in BACKWARD_ROWS]
        print(f"\n{kind}: PyTorch's time / ours (our GFLOP/s)\n\n| shape (O, C) | "
              + " | ".join(f"M = {m}" for m in wanted) + " |\n|---" + "|---" * len(wanted) + "|")
        ratios = []
        for name, (O, C) in SHAPES.items():
            cells = [compare(ops, kind, m, O, C, 1 if options.quick else options.turns, getattr(torch, options.dtype))
                     for m in wanted]
            ratios += [cell[0] for cell in cells]
            print(f"| {name} ({O}, {C}) | " + " | ".join(f"{ratio:.2f} ({ours:.0f})" for ratio, ours, _ in cells)
                  + " |", flush=True)
        print(f"\ngeometric mean {math.exp(statistics.mean(map(math.log, ratios))):.2f}, least {min(ratios):.2f}")


if __name__ == "__main__":
    main()
