"""How a GRPO step's time grows with the length of completions, the size of groups and the size of the model, on the
CPU.

    python tests/bench/bench_growth.py [--repeats 3] [--quick]

One prompt of 96 tokens, random weights, every completion full length. Each time is the median of steps after the first;
"exponent" is log(time ratio) / log(work ratio) between neighbours: 1 is linear, below 1 means that a fixed cost or a
slow small size still shows. Work: tokens of the completions, or parameters. Prints a Markdown table.
"""
import argparse
import math
import statistics
import sys
import tempfile

import numpy as np
from work import StepClock

import grpo
from grpo.planning.shapes import SHAPES

MODELS = {"tiny": {**SHAPES["Qwen2.5-0.5B"], "hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 3,
                   "num_attention_heads": 3,
                   "num_key_value_heads": 1, "vocab_size": 512},
          "135m": SHAPES["SmolLM2-135M"], "0.5b": SHAPES["Qwen2.5-0.5B"]}
PROMPT_LENGTH, NEW_TOKENS = 96, 128
LENGTHS, GROUPS = (64, 128, 256, 512, 1024), (2, 4, 8, 16, 32)


def random_model(name: str) -> grpo.Model:
    """Weights of std 0.02 under a byte tokenizer; only the shape matters."""
    sizes = MODELS[name]
    known = [key for key in sizes if key in grpo.tiny().config and key != "model_type"]
    return grpo.load(grpo.tiny(arch=sizes["model_type"], **{key: sizes[key] for key in known}), device="cpu")


def step_seconds(model: grpo.Model, group: int, length: int, repeats: int) -> float:
    """Median time of a step, the first one aside."""
    clock = StepClock()
    with tempfile.TemporaryDirectory() as runs:
        args = grpo.GRPOConfig(output_dir=f"{runs}/run", prompts_per_step=1, num_generations=group,
                               max_completion_length=length,
                               max_steps=1 + repeats, learning_rate=1e-6, save_strategy="no", disable_tqdm=True,
                               logging_steps=10**6,
                               generation_kwargs={"min_new_tokens": length}, eval_strategy="no")
        rows = [{"prompt": "".join(chr(97 + i % 26) for i in range(PROMPT_LENGTH))}]
        reward = lambda completions, **columns: list(np.arange(len(completions)) % 7 / 7)  # noqa: E731
        grpo.GRPOTrainer(model, reward, args=args, train_dataset=rows, callbacks=[clock]).train()
    return statistics.median(clock.times[1:])


def show(title: str, points: list[tuple[str, float, float]]) -> None:
    """points: (label, work, seconds)."""
    print(f"\n| {title} | step, s | exponent |\n|---|---|---|")
    for i, (label, work, seconds) in enumerate(points):
        before = points[i - 1] if i else None
        exponent = f"{math.log(seconds / before[2]) / math.log(work / before[1]):.2f}" if before else ""
        print(f"| {label} | {seconds:.3f} | {exponent} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one repetition, the shorter half")
    options = parser.parse_args()
    repeats, keep = (1, 3) if options.quick else (options.repeats, 5)
    print(f"python {' '.join(sys.argv)}; tier {grpo._core.backend('cpu')[1]}, {grpo._core.get_num_threads()} threads")
    model = random_model("135m")
    show("completion length (135m, group of 8)",
         [(str(n), n, step_seconds(model, 8, n, repeats)) for n in LENGTHS[:keep]])
    show(f"group size (135m, {NEW_TOKENS} tokens)",
         [(str(g), g, step_seconds(model, g, NEW_TOKENS, repeats)) for g in GROUPS[:keep]])
    points = []
    for name in MODELS:
        model = random_model(name)
        points.append((f"{name}, {model.num_parameters() / 1e6:.1f} M", model.num_parameters(),
                       step_seconds(model, 8, NEW_TOKENS, repeats)))
    show(f"model (group of 8, {NEW_TOKENS} tokens)", points)


if __name__ == "__main__":
    main()
