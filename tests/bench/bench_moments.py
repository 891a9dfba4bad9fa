"""What AdamW loses where its moments are stored in fewer bits: a noisy quadratic, beside float32 moments.

    python tests/bench/bench_moments.py [--steps 400] [--runs 8]

loss = sum of h w^2 / 2 over a matrix (16, 512), h from 1e-4 to 1 within every row, so that elements which share an exponent have
gradients of very different sizes; the gradient h w comes with normal noise of 0.1 sqrt(h). The rate falls linearly from 0.01 to 0. All
storages see the same starts and noise. Prints a Markdown table, means over the runs: "loss": the last over the first; "beside float32":
that loss over float32's, with its standard error; "off": |w - w of float32| over |w of float32 - start|.
"""
import argparse

import numpy as np
from numpy.typing import NDArray

from grpo import _core

O, C = 16, 512
BETA1, BETA2, EPS, RATE, NOISE = 0.9, 0.999, 1e-8, 1e-2, 0.1
CURVATURE = np.tile(np.geomspace(1e-4, 1, C, dtype=np.float32), (O, 1))
EMPTY = {"float32": np.zeros((O, C), np.float32), "bfloat16": np.zeros((O, C), np.uint16),
         "float8": np.zeros(O * C + O * -(-C // 256), np.uint8)}


def loss(w: NDArray) -> float:
    return float((CURVATURE * np.square(w, dtype=np.float64)).sum() / 2)


def descend(storage: str, start: NDArray, steps: int, seed: int) -> NDArray:
    """The weights (O, C) after so many steps."""
    ops, noise, w, m, v = _core.Ops("ref"), np.random.default_rng(seed), start, EMPTY[storage], EMPTY[storage]
    adamw = ops.adamw_float8 if storage == "float8" else ops.adamw
    for t in range(1, steps + 1):
        g = CURVATURE * w + NOISE * np.sqrt(CURVATURE) * noise.standard_normal((O, C), dtype=np.float32)
        rate = RATE * (1 - (t - 1) / steps)
        w, m, v = adamw(w, None, m, v, g, rate, BETA1, BETA2, EPS, 0.0, 1.0, 1 - BETA1**t, 1 - BETA2**t, seed=seed, step=t)
    return w


def compare(steps: int, runs: int) -> dict[str, NDArray]:
    """(runs, 3) by storage: last loss over the first, over float32's last, and how far the weights are off."""
    rows: dict[str, list] = {storage: [] for storage in EMPTY}
    for seed in range(runs):
        start = np.random.default_rng(1000 + seed).standard_normal((O, C), dtype=np.float32)
        ends = {storage: descend(storage, start, steps, seed) for storage in EMPTY}
        whole = ends["float32"]
        for storage, w in ends.items():
            off = np.linalg.norm(w - whole) / np.linalg.norm(whole - start)
            rows[storage].append((loss(w) / loss(start), loss(w) / loss(whole), off))
    return {storage: np.array(values) for storage, values in rows.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--runs", type=int, default=8)
    given = parser.parse_args()
    print("| moments | loss | beside float32 | off |\n|---|---|---|---|")
    for storage, values in compare(given.steps, given.runs).items():
        (last, ratio, off), error = values.mean(0), values[:, 1].std() / len(values) ** 0.5
        print(f"| {storage} | {last:.2g} | {ratio:.4f} +- {error:.4f} | {off:.4f} |")


if __name__ == "__main__":
    main()
