"""What is around the speed of a card, in one call of at most eight minutes: cold start, memory, the host's share,
rollout against training.

    PYTHONPATH=. python tests/bench/bench_gpu_run.py [--shapes 0.5b] [--parts cold,memory,host,mismatch] [--seconds 480]

cold: from the start of a process to 128 x 16 tokens, weights in the page cache, and what is installed for it. memory:
what the card has given out after GRPO steps of 8 x 16 x 300 tokens, beside what the plan promised, and TRL's. host: the
part of a rollout of 128 x 64 tokens in which no kernel runs; kernels are seen by torch.profiler, which sees ours too,
and set against the time of a rollout that it does not watch. mismatch: log-probs of 128 x 64 sampled tokens against
those of a forward pass over the same tokens with the same weights. Peers: transformers is generate() (and TRL's
trainer), graph is torch_decode.py. Needs PyTorch and transformers, TRL for memory.
--device cpu --shapes tiny tries the script itself (the profiler then sees PyTorch's operators and nothing of ours).
"""
from __future__ import annotations

import importlib.metadata
import importlib.util
import statistics
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from card_table import Call, Row, main
from timing import seconds_of, spread
from work import Work, measure

SHORT = Work(prompts=8, generations=16, prompt_length=150, new_tokens=64, micro_batch=16, device="cuda")
STEP = replace(SHORT, new_tokens=300)
# part: (title, work, {who: (side, what)}, how often)
PARTS = {
    "cold": ("cold start to 128 x 16 tokens", replace(SHORT, new_tokens=16),
             {"grpo": ("grpo", "first_tokens"), "transformers": ("torch", "first_tokens")}, 3),
    "memory": ("memory of a GRPO step", STEP, {"grpo": ("grpo", "planned"), "transformers": ("torch", "step")}, 1),
    "host": ("rollout, no kernel runs", SHORT,
             {"grpo": ("grpo", "generating"), "graph": ("torch", "decoding"), "transformers": ("torch", "generating")},
             1),
    "mismatch": ("log-probs, rollout against training", SHORT,
                 {"grpo": ("grpo", "mismatch"), "graph": ("torch", "graph_mismatch"),
                  "transformers": ("torch", "mismatch")}, 1),
}
SIDES = ("grpo", "graph", "transformers")
TRIAL = {"prompt_length": 24, "new_tokens": 4}                    # of --device cpu


def measure_part(who: str, part: str, folder: str, device: str) -> dict:
    """In the child: one side of one part, with the moment at which it ended."""
    _, work, sides, _ = PARTS[part]
    work = replace(work, device=device, **({} if device == "cuda" else TRIAL))
    if part == "host":
        return host_share(measure(*sides[who], folder, work), device)
    return measure(*sides[who], folder, work)


def host_share(call, device: str) -> dict:
    """{"seconds": of each call, "busy": seconds of one in which a kernel ran}."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    torch.zeros(1, device=device)                    # PyTorch has opened the device when the profiler begins
    seconds = seconds_of(call, device, 5)
    kind = ProfilerActivity.CUDA if device == "cuda" else ProfilerActivity.CPU
    with profile(activities=[kind]) as watched:
        call()
        if device == "cuda":
            torch.cuda.synchronize()
    spans = [(event.time_range.start, event.time_range.end)
             for event in watched.events() if event.device_type.name == device.upper()]
    return {"seconds": seconds, "busy": covered(spans) / 1e6}


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Length of the union of intervals.

    >>> covered([(0, 2), (1, 3), (5, 6)])
    4
    """
    total = at = 0
    for start, end in sorted(spans):
        total += max(0, end - max(start, at))
        at = max(at, end)
    return total


def installed_mb(who: str) -> float:
    """Of the package itself: the compiled core and its Python; or PyTorch, transformers and what they bring for the
    GPU."""
    if who == "grpo":
        files = [path
                 for path in Path(importlib.util.find_spec("grpo").origin).parent.rglob("*") if path.suffix != ".pyc"]
    else:
        names = {str(one.metadata["Name"]).lower() for one in importlib.metadata.distributions()}
        needed = [name for name in names if name in ("torch", "transformers", "tokenizers", "safetensors", "triton")
                  or name.startswith("nvidia-")]
        files = [Path(str(file.locate())) for name in needed for file in importlib.metadata.files(name) or ()]
    return sum(path.stat().st_size for path in files if path.is_file()) / 2**20


def figures(part: str, who: str, found: list[dict]) -> tuple[str, float | None]:
    """What a row says, and the number by which it stands beside ours."""
    one = found[0]
    if part == "cold":
        took = [result["took"] for result in found]
        return f"{spread(took)} s; {installed_mb(who):.0f} MB installed", statistics.median(took)
    if part == "memory":
        return (f"{one['peak_mb']:.0f} MB" + (f", planned {one['planned_mb']:.0f} MB" if who == "grpo" else ""),
                one["peak_mb"])
    if part == "host":
        wall = statistics.median(one["seconds"])
        return f"{max(0.0, 1 - one['busy'] / wall):.1%} of {wall:.3f} s", wall
    return f"mean {one['mean']:.2g}, largest {one['max']:.2g}", None


def table_rows(call: Call) -> Iterator[Row]:
    for shape in call.options.shapes:
        with call.weights(shape) as folder:
            for part in call.options.parts:
                _, _, sides, times = PARTS[part]
                found: dict[str, list[dict]] = {who: [] for who in sides if who in call.options.sides}
                for who in [*found] * times:                     # sides take turns
                    found[who].append(measure_side(call, who, part, folder))
                ours = missing(found.get("grpo", []))
                yield "\n".join(rows_of_part(shape, part, found)), f"{shape}, {part}: {ours}" if ours else ""


def measure_side(call: Call, who: str, part: str, folder: str) -> dict:
    begin = time.time()
    result = call.measure(who, part, folder, needs="TRL" if part == "memory" and who != "grpo" else "")
    return {**result, "took": result["end"] - begin} if "end" in result else result


def rows_of_part(shape: str, part: str, found: dict[str, list[dict]]) -> Iterable[str]:
    """One a side; peers' with how many times ours they take."""
    ours = None
    for who, results in found.items():
        text, number = missing(results) or "", None
        if not text:
            text, number = figures(part, who, results)
        ours = number if who == "grpo" else ours
        beside = f"{number / ours:.1f}x" if ours and number and who != "grpo" else ""
        yield f"| {shape} | {PARTS[part][0]} | {who} | {text} | {beside} |"


def missing(results: list[dict]) -> str | None:
    return next((result["why"] for result in results if "why" in result), None)


if __name__ == "__main__":
    main(__file__, __doc__, PARTS, "0.5b", measure_part, "| shape | what | who | measured | beside ours |", table_rows,
         SIDES)
