"""Speed and memory on the CPU beside PyTorch: rollouts against transformers' generate, forward + backward against autograd,
a whole GRPO step against TRL's GRPOTrainer; same weights, same prompts, bfloat16, same threads, same number of new tokens.

    pip install '.[oracle]' && python tests/bench/bench_cpu.py [--shape 135m] [--model some.gguf] [--repeats 5] [--quick] [--parts step,training]

The model has the shape of SmolLM2-135M (135m) or of Qwen2.5-0.5B (0.5b): random weights, or those of --model (a GGUF or a Hugging
Face folder of that shape). "lean" is our step with nothing kept from the rollout, beside the same step of the peer.
Each measurement is a process of its own that loads, warms up, measures once and reports its peak memory; ours and the
peer's alternate. Ends are suppressed on both sides, so every completion has all its tokens. Prints a Markdown table.
"""
from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROMPTS, GENERATIONS, PROMPT_LENGTH, NEW_TOKENS = 4, 8, 96, 128
MICRO_BATCH = 8        # completions the peer takes at a time: as fast as all 32 and a third of the memory
SMOLLM2 = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
         "vocab_size": 49152, "tie_word_embeddings": True, "rms_norm_eps": 1e-5, "max_position_embeddings": 8192,
         "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0}, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
QWEN2 = {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
         "vocab_size": 151936, "tie_word_embeddings": True, "rms_norm_eps": 1e-6, "max_position_embeddings": 32768,
         "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0}, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
SHAPES = {"135m": ("Llama", SMOLLM2), "0.5b": ("Qwen2", QWEN2)}
PARTS = {"rollout1": "rollout, 1 sequence", "rollout8": "rollout, 8 sequences", "rollout32": "rollout, 32 sequences",
         "training": "forward + backward", "step": "whole GRPO step", "lean": "whole GRPO step, nothing kept"}


# -- the model folder both sides load -----------------------------------------------------------------------------------

def word(i: int) -> str:
    """Word number i: four letters, one token each in write_tokenizer's vocabulary."""
    return "".join(chr(97 + i // 26**k % 26) for k in range(4))


def write_tokenizer(folder: Path, vocab_size: int) -> None:
    """A byte-level tokenizer in which every word is one token, so that prompts have exactly PROMPT_LENGTH tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *alphabet]
    names += [f"Ġ{word(i)}" for i in range(vocab_size - len(names))]
    tokenizer = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=names[2], pad_token=names[2], bos_token=names[1]).save_pretrained(folder)


def write_model(folder: str, shape: str, source: str = "") -> None:
    """Weights in bfloat16 where both sides read them, and the tokenizer."""
    if source:
        import grpo

        model = grpo.load(source)
        model.save_pretrained(folder)
        vocab_size = model.config["vocab_size"]
    else:
        import torch
        import transformers

        torch.manual_seed(0)
        family, sizes = SHAPES[shape]
        config = getattr(transformers, f"{family}Config")(**sizes)
        getattr(transformers, f"{family}ForCausalLM")(config).to(torch.bfloat16).save_pretrained(folder)
        vocab_size = sizes["vocab_size"]
    write_tokenizer(Path(folder), vocab_size)


def prompt_texts() -> list[str]:
    return [" ".join(word(7919 * (p * PROMPT_LENGTH + i) % 40000) for i in range(PROMPT_LENGTH)) for p in range(PROMPTS)]


def reward(completions, **columns) -> list[float]:
    """Any number that differs within a group and is the same function on both sides."""
    return [sum(map(ord, text)) % 97 / 97 for text in completions]


def step_options(output_dir: str) -> dict:
    """What GRPOConfig of both sides takes."""
    return {"output_dir": output_dir, "per_device_train_batch_size": MICRO_BATCH, "gradient_accumulation_steps": PROMPTS * GENERATIONS // MICRO_BATCH,
            "num_generations": GENERATIONS, "max_steps": 2, "max_completion_length": NEW_TOKENS, "temperature": 1.0, "beta": 0.0, "learning_rate": 1e-6, "save_strategy": "no",
            "report_to": "none", "logging_steps": 1, "disable_tqdm": True, "generation_kwargs": {"min_new_tokens": NEW_TOKENS}}


class StepClock:
    """Keeps when each optimiser step began and ended; added to a trainer's callbacks."""

    def __init__(self):
        self.times = []

    def on_step_begin(self, *args, **kwargs):
        self.begin = time.perf_counter()

    def on_step_end(self, *args, **kwargs):
        self.times.append(time.perf_counter() - self.begin)


# -- ours -----------------------------------------------------------------------------------------------------------------

def grpo_rollout(folder: str, rows: int) -> dict:
    import grpo

    model = grpo.load(folder)
    group = min(rows, GENERATIONS)
    prompts = [model.prompt_ids(text) for text in prompt_texts()[:rows // group]]
    model.generate_ids(prompts, group, 8, min_new_tokens=8, slots=rows, seed=0)
    begin = time.perf_counter()
    out = model.generate_ids(prompts, group, NEW_TOKENS, min_new_tokens=NEW_TOKENS, slots=rows, seed=1)
    return {"seconds": time.perf_counter() - begin, "tokens": len(out["tokens"])}


def grpo_training(folder: str) -> dict:
    import numpy as np

    import grpo
    from grpo import _core

    model = grpo.load(folder)
    trainer = _core.Trainer(model.core)
    prompts = [np.asarray(model.prompt_ids(text), np.int32) for text in prompt_texts()]
    rng = np.random.default_rng(0)
    completions = [rng.integers(300, 40000, NEW_TOKENS).astype(np.int32) for _ in range(PROMPTS * GENERATIONS)]
    group = np.repeat(np.arange(PROMPTS, dtype=np.int32), GENERATIONS)
    coef = rng.normal(size=len(completions) * NEW_TOKENS).astype(np.float32)
    for _ in range(2):
        begin = time.perf_counter()
        trainer.accumulate(prompts, completions, group, coef)
    return {"seconds": time.perf_counter() - begin, "tokens": len(completions) * (PROMPT_LENGTH + NEW_TOKENS)}


def grpo_lean(folder: str) -> dict:
    return grpo_step(folder, keep_rollout_activations=False)


def grpo_step(folder: str, **options) -> dict:
    import grpo

    clock = StepClock()
    with tempfile.TemporaryDirectory() as runs:
        args = grpo.GRPOConfig(**step_options(f"{runs}/run"), **options)
        rows = [{"prompt": text} for text in prompt_texts()]
        grpo.GRPOTrainer(grpo.load(folder), reward, args=args, train_dataset=rows, callbacks=[clock]).train()
    return {"seconds": clock.times[-1], "tokens": PROMPTS * GENERATIONS * NEW_TOKENS}


# -- the peer -------------------------------------------------------------------------------------------------------------

def torch_model(folder: str):
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)


def torch_prompts(folder: str):
    import torch
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    ids = torch.tensor([tokenizer(text)["input_ids"] for text in prompt_texts()])
    assert ids.shape == (PROMPTS, PROMPT_LENGTH)
    return ids


def torch_rollout(folder: str, rows: int) -> dict:
    import torch

    model = torch_model(folder).eval()
    ids = torch_prompts(folder).repeat_interleave(GENERATIONS, 0)[:rows]
    options = {"attention_mask": torch.ones_like(ids), "do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
    with torch.inference_mode():
        model.generate(ids, max_new_tokens=8, min_new_tokens=8, **options)
        begin = time.perf_counter()
        out = model.generate(ids, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, **options)
    return {"seconds": time.perf_counter() - begin, "tokens": out[:, PROMPT_LENGTH:].numel()}


def torch_training(folder: str) -> dict:
    """MICRO_BATCH rows at a time, logits of the completion's rows only, as TRL computes them."""
    import torch

    model = torch_model(folder).train()
    prompts = torch_prompts(folder).repeat_interleave(GENERATIONS, 0)
    completions = torch.randint(300, 40000, (PROMPTS * GENERATIONS, NEW_TOKENS))
    ids, coef = torch.cat([prompts, completions], 1), torch.randn(completions.shape)
    for _ in range(2):
        begin = time.perf_counter()
        for rows in range(0, len(ids), MICRO_BATCH):
            span = slice(rows, rows + MICRO_BATCH)
            logits = model(ids[span], logits_to_keep=NEW_TOKENS + 1, use_cache=False).logits[:, :-1]
            picked = logits.gather(-1, completions[span, :, None])[..., 0]
            # one row at a time in the log-sum-exp: TRL's way of keeping fp32 logits small
            logps = torch.stack([p - torch.logsumexp(z, -1) for p, z in zip(picked, logits)])
            (logps * coef[span]).sum().backward()
    return {"seconds": time.perf_counter() - begin, "tokens": ids.numel()}


def torch_step(folder: str) -> dict:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    clock = type("Clock", (StepClock, TrainerCallback), {})()
    with tempfile.TemporaryDirectory() as runs:
        # weights and optimiser in bfloat16 without autocast or checkpointing: the fastest setting it has on a CPU
        args = GRPOConfig(**step_options(runs), use_cpu=True, bf16=False, gradient_checkpointing=False)
        GRPOTrainer(torch_model(folder), reward, args=args, processing_class=PreTrainedTokenizerFast.from_pretrained(folder),
                    train_dataset=Dataset.from_dict({"prompt": prompt_texts()}), callbacks=[clock]).train()
    return {"seconds": clock.times[-1], "tokens": PROMPTS * GENERATIONS * NEW_TOKENS}


# -- ceilings, measured in the same run -------------------------------------------------------------------------------------

def measure_ceilings() -> dict:
    """Large bf16 matrix product (TFLOP/s) and memory reads (GB/s) that PyTorch reaches here: best of five."""
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    a, b = (torch.randn(2048, 2048, dtype=torch.bfloat16) for _ in range(2))
    stream = torch.randn(1 << 27)
    best = {"matmul": 1e9, "sum": 1e9}
    for _ in range(5):
        for name, call in (("matmul", lambda: a @ b), ("sum", stream.sum)):
            begin = time.perf_counter()
            call()
            best[name] = min(best[name], time.perf_counter() - begin)
    return {"tflops": 2 * 2048**3 / best["matmul"] / 1e12, "gbytes": stream.numel() * 4 / best["sum"] / 1e9}


def training_flops(shape: str) -> float:
    """Useful floating-point operations of our forward + backward: prompts once a group, head on completion tokens only."""
    s = SHAPES[shape][1]
    d, D = s["hidden_size"], s["hidden_size"] // s["num_attention_heads"]
    width = D * (s["num_attention_heads"] + s["num_key_value_heads"])
    layer = 2 * d * width + 3 * d * s["intermediate_size"]
    rows, head_rows = PROMPTS * (PROMPT_LENGTH + GENERATIONS * (NEW_TOKENS - 1)), PROMPTS * GENERATIONS * NEW_TOKENS
    return 6 * (s["num_hidden_layers"] * layer * rows + s["vocab_size"] * d * head_rows)


# -- driver -----------------------------------------------------------------------------------------------------------------

def peak_mb() -> float:
    """Most memory this process has held, of Linux's /proc (getrusage counts the parent's, too)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measure(side: str, part: str, folder: str) -> dict:
    """In the child: run one side of one part; adds this process's peak memory."""
    call = {"rollout": f"{side}_rollout", "training": f"{side}_training", "step": f"{side}_step", "lean": f"{side}_lean"}[part.rstrip("0123456789")]
    rows = part.removeprefix("rollout")
    result = globals()[call](folder, int(rows)) if rows.isdigit() else globals()[call](folder)
    return result | {"peak_mb": peak_mb()}


def run_child(arguments: list[str], threads: int) -> dict:
    env = os.environ | {"GRPO_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false",
                        "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, __file__, *arguments], env=env, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"bench_cpu.py {' '.join(arguments)} failed with status {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def table(results: dict, ceilings: list[dict], shape: str) -> str:
    """One row a part: medians with (least-most); the ratio is of runs that stood beside each other."""
    lines = ["| what | grpo | peer | time, peer / grpo | peak MB, grpo / peer | memory ratio |", "|---|---|---|---|---|---|"]
    for part, sides in results.items():
        a, b = sides["grpo"], sides["torch"]
        shown = [spread([r["tokens"] / r["seconds"] for r in runs]) + " tok/s" if part.startswith("rollout")
                 else spread([r["seconds"] for r in runs]) + " s" for runs in (a, b)]
        ratio = spread([y["seconds"] / x["seconds"] for x, y in zip(a, b)]) + "x" if a and b else ""
        memory = [statistics.median(r["peak_mb"] for r in runs) if runs else float("nan") for runs in (a, b)]
        lines.append(f"| {PARTS[part]} | {shown[0]} | {shown[1]} | {ratio} | {memory[0]:.0f} / {memory[1]:.0f} | {memory[0] / memory[1]:.2f} |")
    tflops, gbytes = (statistics.median(c[key] for c in ceilings) for key in ("tflops", "gbytes"))
    lines.append(f"\nCeilings measured here: bf16 matrix product 2048^3 {tflops:.3f} TFLOP/s, memory reads {gbytes:.1f} GB/s.")
    if "training" in results:
        rate = training_flops(shape) / statistics.median(r["seconds"] for r in results["training"]["grpo"]) / 1e12
        lines.append(f"Forward + backward: {rate:.3f} TFLOP/s of useful work, {rate / tflops:.0%} of that product.")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="135m")
    parser.add_argument("--model", help="GGUF or folder of that shape; default: random weights")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one repetition")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {','.join(PARTS)}")
    parser.add_argument("--sides", default="grpo,torch", help="grpo,torch or one of them (then only raw numbers are printed)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        call, *rest = options.child
        result = {"ceilings": measure_ceilings, "write": write_model, "measure": measure}[call](*rest)
        print(json.dumps(result))
        return
    parts, sides = options.parts.split(","), options.sides.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    results = {part: {"grpo": [], "torch": []} for part in parts}
    ceilings = []
    with tempfile.TemporaryDirectory() as folder:
        run_child(["--child", "write", folder, options.shape, *([options.model] if options.model else [])], options.threads)
        for _ in range(1 if options.quick else options.repeats):
            ceilings.append(run_child(["--child", "ceilings"], options.threads))
            for part in parts:
                for side in sides if part != "lean" else ["grpo"]:
                    results[part][side].append(run_child(["--child", "measure", side, part, folder], options.threads))
                    print(part, side, json.dumps(results[part][side][-1]), file=sys.stderr, flush=True)
    if "lean" in parts:
        results["lean"]["torch"] = results.get("step", {}).get("torch", [])
    print(f"python {' '.join(sys.argv)}\n")
    print(table(results, ceilings, options.shape) if len(sides) == 2 else json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
