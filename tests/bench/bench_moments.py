"""What AdamW loses where its moments, or the weights it updates, are stored in fewer bits: a noisy quadratic, beside
float32.

    python tests/bench/bench_moments.py [--steps 400] [--runs 8] [--rate 0.01]

loss = sum of h w^2 / 2 over a matrix (16, 512), h from 1e-4 to 1 within every row, so that elements which share an
exponent have gradients of very different sizes; the gradient h w comes with normal noise of 0.1 sqrt(h). The rate falls
linearly from --rate to 0. All storages see the same starts and noise. Prints a Markdown table, means over the runs:
"loss": the last over the first; "beside float32": that loss over float32's, with its standard error; "off": |w - w of
float32| over |w of float32 - start|.
"""
import argparse

import numpy as np
from numpy.typing import NDArray

from grpo import _core

O, C = 16, 512
BETA1, BETA2, EPS, NOISE = 0.9, 0.999, 1e-8, 0.1
CURVATURE = np.tile(np.geomspace(1e-4, 1, C, dtype=np.float32), (O, 1))
EMPTY = {"float32": np.zeros((O, C), np.float32), "bfloat16": np.zeros((O, C), np.uint16),
         "float8": np.zeros(O * C + O * -(-C // 256), np.uint8)}
# moments, bits beyond bfloat16
STORAGES = {"float32": ("float32", 16), "bfloat16": ("bfloat16", 16), "float8": ("float8", 16),
            "masters in float24": ("float32", 8), "both": ("float8", 8)}


def loss(w: NDArray) -> float:
    return float((CURVATURE * np.square(w, dtype=np.float64)).sum() / 2)


def descend(storage: str, start: NDArray, steps: int, seed: int, rate: float) -> NDArray:
    """The weights (O, C) after so many steps."""
    moments, more = STORAGES[storage]
    ops, noise, m, v = _core.Ops("cpu"), np.random.default_rng(seed), EMPTY[moments], EMPTY[moments]
    adamw = ops.adamw_float8 if moments == "float8" else ops.adamw
    upper, lower, w = start, np.zeros((O, C), np.uint16 if more == 16 else np.uint8), start
    for t in range(1, steps + 1):
        g = CURVATURE * w + NOISE * np.sqrt(CURVATURE) * noise.standard_normal((O, C), dtype=np.float32)
        now = rate * (1 - (t - 1) / steps)
        upper, lower, m, v = adamw(upper, lower, m, v, g, now, BETA1, BETA2, EPS, 0.0, 1.0, 1 - BETA1**t, 1 - BETA2**t,
                                   seed=seed, step=t)
        w = joined(upper, lower.astype(np.uint16) << (16 - more))
    return w


def joined(upper: NDArray, lower: NDArray) -> NDArray:
    """The float32 of a working weight and the 16 bits that it lacks, as base.h states it."""
    return (upper.view(np.uint32) + lower.astype(np.int16).astype(np.uint32)).view(np.float32)


def compare(steps: int, runs: int, rate: float = 1e-2) -> dict[str, NDArray]:
    """(runs, 3) by storage: last loss over the first, over float32's last, and how far the weights are off."""
    rows: dict[str, list] = {storage: [] for storage in STORAGES}
    for seed in range(runs):
        start = np.random.default_rng(1000 + seed).standard_normal((O, C), dtype=np.float32)
        start = (start.view(np.uint32) & np.uint32(0xffff0000)).view(np.float32)  # as loaded weights are
        ends = {storage: descend(storage, start, steps, seed, rate) for storage in STORAGES}
        whole = ends["float32"]
        for storage, w in ends.items():
            off = np.linalg.norm(w - whole) / np.linalg.norm(whole - start)
            rows[storage].append((loss(w) / loss(start), loss(w) / loss(whole), off))
    return {storage: np.array(values) for storage, values in rows.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--rate", type=float, default=1e-2)
    given = parser.parse_args()
    print("| storage | loss | beside float32 | off |\n|---|---|---|---|")
    for storage, values in compare(given.steps, given.runs, given.rate).items():
        (last, ratio, off), error = values.mean(0), values[:, 1].std() / len(values) ** 0.5
        print(f"| {storage} | {last:.2g} | {ratio:.4f} +- {error:.4f} | {off:.4f} |")


if __name__ == "__main__":
    main()
