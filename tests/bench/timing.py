"""How the benchmarks measure: ceilings, repeats, memory, processes of their own."""
from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from work import Work


# On a busy machine, BENCH_CLOCK=cpu with one thread: what this process ran, whoever else ran meanwhile.
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
now = CLOCKS[os.environ.get("BENCH_CLOCK", "wall")]


def seconds_of(call: Callable[[], object], device: str, repeats: int = 10) -> list[float]:
    """Of `repeats` calls after one that warms up: host clock, until the device has done what it was told."""
    wait, seconds = waiter(device), []
    for _ in range(1 + repeats):
        wait()
        begin = now()
        call()
        wait()
        seconds.append(now() - begin)
    return seconds[1:]


def waiter(device: str) -> Callable[[], None]:
    """What waits until PyTorch's device is done."""
    import torch

    return torch.cuda.synchronize if device == "cuda" else lambda: None


def measure_ceilings(device: str) -> dict:
    """Copy (GB/s, bytes read and written) and bf16 product (TFLOP/s) that PyTorch reaches on random data: medians of
    ten."""
    import torch

    side, elements = (8192, 1 << 32) if device == "cuda" else (256, 1 << 20)
    a, b = (torch.randn(side, side, dtype=torch.bfloat16, device=device) for _ in range(2))
    source = torch.empty(elements, dtype=torch.uint8, device=device).random_()
    target = torch.empty_like(source)
    copy, product = (statistics.median(seconds_of(call, device))
                     for call in (lambda: target.copy_(source), lambda: a @ b))
    return {"gbytes": 2 * elements / copy / 1e9, "tflops": 2 * side**3 / product / 1e12}


def repeated(call: Callable[[], int], work: Work, wait: Callable[[], None] = lambda: None) -> dict:
    """Times call, which says how many tokens it had to do with."""
    seconds = []
    wait()
    for _ in range(work.repeats):
        begin = now()
        tokens = call()
        wait()
        seconds.append(now() - begin)
    return {"seconds": seconds, "tokens": tokens, "peak_mb": peak_mb(work)}


def peak_mb(work: Work) -> float:
    """Most memory this process has held, of Linux's /proc (getrusage counts the parent's, too). On a card what it has
    given out: neither side hands any back before it ends."""
    if work.device == "cuda":
        query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
        return float(subprocess.run(query, capture_output=True, text=True, check=True).stdout)
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def run_child(script: str, arguments: list[str], **env: str) -> dict:
    """Runs the script in a process of its own; its last line of output is the result."""
    result = try_child(script, arguments, None, **env)
    if "why" in result:
        raise SystemExit(f"{script} {' '.join(arguments)}: {result['why']}")
    return result


def try_child(script: str, arguments: list[str], timeout: float | None, **env: str) -> dict:
    """run_child(), with {"why": ...} where it failed or took longer than `timeout` seconds."""
    try:
        done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, timeout=timeout,
                              env=os.environ | {"TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore"} | env)
    except subprocess.TimeoutExpired:
        return {"why": "no time was left"}
    sys.stderr.write(done.stderr)
    if done.returncode:
        return {"why": f"failed: {(done.stderr.strip().splitlines() or [f'status {done.returncode}'])[-1][:160]}"}
    return json.loads(done.stdout.splitlines()[-1]) or {}


def spread(values: list[float], digits: int = 2) -> str:
    """Median (least-most)."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"
