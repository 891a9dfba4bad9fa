"""GRPO_PROFILE=1: what every op of a run took, beside what this machine can do. Printed at the end, and kept in
profile.txt."""
from typing import Any

from .. import _core
from ..planning import measure
from ..runs import say
from .callbacks import TrainerCallback


class Profile(TrainerCallback):
    """Counts from the first step on."""

    def __init__(self, device: str) -> None:
        self.device = device

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measures the ceilings and starts to count."""
        self.ceilings = measure(self.device)
        _core.profile_start()

    def on_train_end(self, args: Any, state: Any, control: Any, run: Any = None, **kwargs: Any) -> None:
        """Prints the table and keeps it in the run folder."""
        text = table(_core.profile(), *self.ceilings)
        (run.path / "profile.txt").write_text(text + "\n", encoding="utf-8")
        say(text)


def table(lines: list[tuple[str, int, float, float, float]], flops: float, memory: float) -> str:
    """Ops by falling time. %: of the ceiling that binds, the larger of arithmetic and bytes."""
    total = sum(seconds for _, _, seconds, _, _ in lines) or 1.0
    rows = [f"{'op':<18}{'calls':>9}{'ms':>11}{'share':>8}{'TFLOP/s':>10}{'GB/s':>8}{'of ceiling':>12}"]
    for op, calls, seconds, work, moved in sorted((line for line in lines if line[1]), key=lambda line: -line[2]):
        floor = max(work / flops, moved / memory)
        arithmetic = f"{work / seconds / 1e12:>10.3f}" if work else " " * 10
        traffic = f"{moved / seconds / 1e9:>8.1f}{floor / seconds:>12.0%}" if moved else " " * 8
        rows.append(f"{op:<18}{calls:>9}{seconds * 1e3:>11.1f}{seconds / total:>8.1%}{arithmetic}{traffic}")
    return "\n".join([*rows, f"{'all':<18}{'':>9}{total * 1e3:>11.1f}",
                      f"ceilings measured at the start: {flops / 1e12:.3f} TFLOP/s (a large product), "
                      f"{memory / 1e9:.1f} GB/s (read once)"])
