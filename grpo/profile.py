"""GRPO_PROFILE=1: what every op of a run took, beside what this machine can do. Printed at the end, and kept in profile.txt."""
from typing import Any

import numpy as np

from . import _core
from .callbacks import TrainerCallback
from .runfolder import say

# of the products and of the sums that show the ceilings: enough to fill the device, and more than its caches hold
SIDE, ELEMENTS, TURNS = {"cpu": 1024, "cuda": 8192}, {"cpu": 1 << 25, "cuda": 1 << 28}, 5


class Profile(TrainerCallback):
    """Counts from the first step on."""

    def __init__(self, device: str):
        self.device = device

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.ceilings = ceilings(self.device)
        _core.profile_start()

    def on_train_end(self, args: Any, state: Any, control: Any, run: Any = None, **kwargs: Any) -> None:
        text = table(_core.profile(), *self.ceilings)
        (run.path / "profile.txt").write_text(text + "\n", encoding="utf-8")
        say(text)


def ceilings(device: str) -> tuple[float, float]:
    """FLOP/s of a large product and bytes/s of reading memory, best of a few: what the ops are measured against.

    Results are inf on "ref", which makes no claim."""
    if device == "ref":
        return float("inf"), float("inf")
    ops, rng = _core.Ops(device), np.random.default_rng(0)
    ops.repeat = TURNS
    side, elements = SIDE[device], ELEMENTS[device]
    x, w = (rng.standard_normal((side, side), dtype=np.float32) for _ in range(2))
    ops.linear(x, w)
    product = 2 * side**3 / ops.seconds
    ops.sum_squares(np.tile(rng.standard_normal(1 << 20, dtype=np.float32), elements >> 20))
    return product, 4 * elements / ops.seconds


def table(lines: list[tuple[str, int, float, float, float]], flops: float, memory: float) -> str:
    """Ops by falling time. %: of the ceiling that binds, the larger of arithmetic and bytes."""
    total = sum(seconds for _, _, seconds, _, _ in lines) or 1.0
    rows = [f"{'op':<18}{'calls':>9}{'ms':>11}{'share':>8}{'TFLOP/s':>10}{'GB/s':>8}{'of ceiling':>12}"]
    for op, calls, seconds, work, moved in sorted((line for line in lines if line[1]), key=lambda line: -line[2]):
        floor = max(work / flops, moved / memory)
        rows.append(f"{op:<18}{calls:>9}{seconds * 1e3:>11.1f}{seconds / total:>8.1%}" + (f"{work / seconds / 1e12:>10.3f}" if work else " " * 10) +
                    (f"{moved / seconds / 1e9:>8.1f}" if moved else " " * 8) + (f"{floor / seconds:>12.0%}" if moved else ""))
    return "\n".join([*rows, f"{'all':<18}{'':>9}{total * 1e3:>11.1f}",
                      f"ceilings measured at the start: {flops / 1e12:.3f} TFLOP/s (a large product), {memory / 1e9:.1f} GB/s (read once)"])
