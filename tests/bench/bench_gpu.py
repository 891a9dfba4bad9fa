"""Numbers of a card, in one call of at most eight minutes: ceilings, decoding, training, a whole GRPO step (work.py),
ours and peers'.

    PYTHONPATH=. python tests/bench/bench_gpu.py [--shapes 0.5b,1.5b] [--parts decode128,training,step]
        [--sides grpo,transformers]
    [--seconds 480]

Needs PyTorch and transformers for the ceilings, the weights and the peers; TRL for the peer's step ("no TRL" without
it). Peers: transformers is generate(), autograd in micro-batches and TRL's GRPOTrainer; static is generate() with a
static cache, which it compiles; graph is torch_decode.py, a decode loop in CUDA graphs; compiled is torch.compile with
a loss in chunks. Beside ours stand its floor and what grpo.step_time predicts, from the ceilings of the same call.
Decoding: prompts of 384 tokens, 256 new ones. Training: 36 sequences of 150 + 300 tokens, nothing shared, as a share of
989 TFLOP/s. Step: 8 prompts of 150 tokens x 16 completions of 300, on-policy. A peer that fails is named with its
error, and so are parts that no time is left for; the exit code is 1 if one of ours is missing.
--device cpu --shapes tiny tries the script itself.
"""
from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import replace

from card_table import Call, Row, main
from timing import spread
from work import Work, measure, phases, training_flops

from grpo.planning import step_time
from grpo.planning.cards import Ceilings

DATASHEET = 989e12
DECODE = Work(prompts=8, generations=16, prompt_length=384, new_tokens=256, micro_batch=128, device="cuda", repeats=5)
STEP = Work(prompts=8, generations=16, prompt_length=150, new_tokens=300, micro_batch=16, device="cuda", repeats=3)
ROLLOUTS = {"grpo": ("grpo", "rollout"), "graph": ("torch", "graph_rollout"), "transformers": ("torch", "rollout"),
            "static": ("torch", "static_rollout")}
UPDATES = {"grpo": ("grpo", "training"), "transformers": ("torch", "training"),
           "compiled": ("torch", "compiled_training")}
STEPS = {"grpo": ("grpo", "step"), "transformers": ("torch", "step")}
# part: (title, what of step_time's phases, work, {who: what measures it})
PARTS = {"decode128": ("decode, 128 sequences", "rollout", DECODE, ROLLOUTS),
         "training": ("forward + backward, 16,200 tokens", "training",
                      replace(STEP, prompts=36, generations=1, micro_batch=12, repeats=5),
                      UPDATES),
         "step": ("GRPO step, beta 0", "step", STEP, STEPS),
         "decode1": ("decode, 1 sequence", "rollout", replace(DECODE, prompts=1, generations=1), ROLLOUTS),
         "step_kl": ("GRPO step, beta 0.04", "step", STEP, STEPS)}
SIDES = ("grpo", "transformers", "static", "graph", "compiled")
TRIAL = {"prompt_length": 24, "new_tokens": 8, "repeats": 2}                    # of --device cpu


def part_work(part: str, device: str) -> Work:
    work = replace(PARTS[part][2], device=device)
    return work if device == "cuda" else replace(work, **TRIAL)


def measure_part(who: str, part: str, folder: str, device: str) -> dict:
    """In the child: one side of one part."""
    options = {"beta": 0.04} if part == "step_kl" else {}
    return measure(*PARTS[part][3][who], folder, part_work(part, device), **options)


def our_row(shape: str, part: str, ours: dict, at: Ceilings, device: str) -> str:
    work, what = part_work(part, device), PARTS[part][1]
    found = phases(shape, work, what, scorings=part == "step_kl")
    seconds = statistics.median(ours["seconds"])
    if what == "rollout":
        decode = statistics.median(ours["decode_seconds"])
        note = (f"{step_time.floor(found[1:], at) / decode:.0%} of the decode's floor "
                f"({1e3 * decode / work.new_tokens:.2f} ms a token)")
    elif what == "training":
        note = f"{training_flops(shape, work) / seconds / DATASHEET:.0%} of 989 TFLOP/s"
    else:
        spent = [f"{key.removeprefix('time_share/')} {value * ours['seconds'][-1]:.2f} s"
                 for key, value in ours.items() if "share/" in key]
        note = f"{', '.join(spent)}; log-prob difference {ours['difference']}"
    predicted = f"{step_time.floor(found, at):.3f}, {step_time.expected(found, at, device):.3f}"
    measured = spread(ours["seconds"], 3)
    return f"| {shape} | {PARTS[part][0]} | grpo | {predicted} | {measured} | | {ours['peak_mb']:.0f} | {note} |"


def peer_row(shape: str, part: str, who: str, peer: dict, ours: dict | None) -> str:
    title = f"| {shape} | {PARTS[part][0]} | {who} | |"
    if "why" in peer:
        return f"{title} | | | {peer['why']} |"
    ratio = spread([statistics.median(peer["seconds"]) / one for one in ours["seconds"]]) + "x" if ours else ""
    return f"{title} {spread(peer['seconds'], 3)} | {ratio} | {peer['peak_mb']:.0f} | |"


def table_rows(call: Call) -> Iterator[Row]:
    for shape in call.options.shapes:
        with call.weights(shape) as folder:
            for part in call.options.parts:
                yield from rows_of_part(call, shape, part, folder)


def rows_of_part(call: Call, shape: str, part: str, folder: str) -> Iterator[Row]:
    ours = None
    for who in (who for who in PARTS[part][3] if who in call.options.sides):
        result = call.measure(who, part, folder, needs="TRL" if who != "grpo" and PARTS[part][1] == "step" else "")
        if who == "grpo" and "why" not in result:
            ours = result
            yield our_row(shape, part, ours, call.at, call.options.device), ""
        else:
            yield peer_row(shape, part, who, result, ours), f"{shape}, {part}: {result['why']}" if who == "grpo" else ""


if __name__ == "__main__":
    main(__file__, __doc__, PARTS, "0.5b,1.5b", measure_part,
         "| shape | what | who | floor, predicted, s | measured, s | grpo is faster | card's MB | |", table_rows, SIDES)
