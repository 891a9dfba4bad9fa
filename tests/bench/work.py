"""What the benchmarks measure, for us and for the peer: a rollout, forward + backward, a whole GRPO step.

Both sides load one folder of bfloat16 weights. Ends are suppressed, so every completion has all its tokens. The peer is
transformers' generate, autograd, and TRL's GRPOTrainer. Each call loads, warms up, measures and returns {"seconds": of each
repeat, "tokens": of one, "peak_mb": most memory of the process, or what the card has given out, ...}.
"""
from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from grpo.shapes import SHAPES as KNOWN

IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
SHAPES = {"tiny": {**KNOWN["SmolLM2-135M"], "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 1,
                   "num_key_value_heads": 1, "vocab_size": 4096},
          "135m": KNOWN["SmolLM2-135M"], "0.5b": KNOWN["Qwen2.5-0.5B"], "1.5b": KNOWN["Qwen2.5-1.5B"], "3b": KNOWN["Qwen2.5-3B"],
          "7b": KNOWN["Qwen2.5-7B"]}
# what a measurement takes of step_time's phases
PHASES = {"rollout": ("prefill", "decode"), "training": ("forward + backward", "head"), "step": None}


@dataclass(frozen=True)
class Work:
    """What both sides do. micro_batch: completions that the peer takes at a time. repeats: measurements after the warm-up."""

    prompts: int
    generations: int
    prompt_length: int
    new_tokens: int
    micro_batch: int
    device: str = "cpu"
    repeats: int = 1

    @property
    def rows(self) -> int:
        return self.prompts * self.generations

    def prompt_texts(self) -> list[str]:
        """Prompts of prompt_length words, all different."""
        return [" ".join(word(7919 * (p * self.prompt_length + i) % WORDS) for i in range(self.prompt_length)) for p in range(self.prompts)]


# -- the model folder both sides load -----------------------------------------------------------------------------------

WORDS = 3500           # fewer than the smallest vocabulary has


def word(i: int) -> str:
    """Word number i: four letters, one token each in write_tokenizer's vocabulary."""
    return "".join(chr(97 + i // 26**k % 26) for k in range(4))


def write_tokenizer(folder: Path, vocab_size: int) -> None:
    """A byte-level tokenizer in which every word is one token, so that a prompt has as many tokens as words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *alphabet]
    names += [f"Ġ{word(i)}" for i in range(vocab_size - len(names))]
    tokenizer = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=names[2], pad_token=names[2], bos_token=names[1]).save_pretrained(folder)


def write_model(folder: str, shape: str, source: str = "", device: str = "cpu") -> None:
    """Weights in bfloat16, and the tokenizer. source: a GGUF or folder of that shape; else random weights, drawn on the device."""
    if source:
        import grpo

        model = grpo.load(source)
        model.save_pretrained(folder)
        vocab_size = model.config["vocab_size"]
    else:
        import torch
        import transformers

        torch.manual_seed(0)
        sizes = SHAPES[shape]
        with torch.device(device):
            model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**sizes, **IDS)).to(torch.bfloat16)
        model.save_pretrained(folder)
        vocab_size = sizes["vocab_size"]
    write_tokenizer(Path(folder), vocab_size)


def phases(shape: str, work: Work, what: str = "step", scorings: int = 0) -> list:
    """The phases of grpo.step_time that a measurement takes: of a "rollout", "training" or a "step"."""
    from grpo import step_time

    step = step_time.Step(work.prompts, work.generations, work.prompt_length, work.new_tokens, work.rows,
                          grpo_token_budget(work.device), scorings=scorings)
    found = step_time.phases(step_time.Shape.of(SHAPES[shape]), step, work.device)
    return [phase for phase in found if not PHASES[what] or phase.name in PHASES[what]]


def training_flops(shape: str, work: Work) -> float:
    """Useful floating-point operations of our forward + backward: prompts once a group, head on completion tokens only."""
    return sum(part.flops for phase in phases(shape, work, "training") for part in phase.parts if part.kind == "products" and not part.extra)


# -- a GRPO step, for both ----------------------------------------------------------------------------------------------

def reward(completions, **columns) -> list[float]:
    """Any number that differs within a group and is the same function on both sides."""
    return [sum(map(ord, text)) % 97 / 97 for text in completions]


def step_options(output_dir: str, work: Work) -> dict:
    """What GRPOConfig of both sides takes."""
    return {"output_dir": output_dir, "per_device_train_batch_size": work.micro_batch, "num_generations": work.generations,
            "gradient_accumulation_steps": work.rows // work.micro_batch, "max_steps": 1 + work.repeats, "max_completion_length": work.new_tokens,
            "temperature": 1.0, "beta": 0.0, "learning_rate": 1e-6, "save_strategy": "no", "report_to": "none", "logging_steps": 1,
            "disable_tqdm": True, "generation_kwargs": {"min_new_tokens": work.new_tokens}}


class StepClock:
    """Keeps when each optimiser step began and ended; added to a trainer's callbacks."""

    def __init__(self):
        self.times = []

    def on_step_begin(self, *args, **kwargs):
        self.begin = time.perf_counter()

    def on_step_end(self, *args, **kwargs):
        self.times.append(time.perf_counter() - self.begin)


# -- ours ---------------------------------------------------------------------------------------------------------------

def grpo_token_budget(device: str) -> int:
    import grpo

    return grpo.GRPOConfig().token_budget_on(device)


def grpo_rollout(folder: str, work: Work) -> dict:
    import grpo

    model = grpo.load(folder, device=work.device)
    prompts = [model.prompt_ids(text) for text in work.prompt_texts()]
    model.generate_ids(prompts, work.generations, 8, min_new_tokens=8, slots=work.rows, seed=0)
    decode = []

    def call() -> int:
        out = model.generate_ids(prompts, work.generations, work.new_tokens, min_new_tokens=work.new_tokens, slots=work.rows, seed=1)
        decode.append(out["decode_seconds"])
        return len(out["tokens"])

    return repeated(call, work) | {"decode_seconds": decode}


def grpo_training(folder: str, work: Work) -> dict:
    import numpy as np

    import grpo
    from grpo import _core

    model = grpo.load(folder, device=work.device)
    trainer = _core.Trainer(model.core, token_budget=grpo_token_budget(work.device))
    prompts = [np.asarray(model.prompt_ids(text), np.int32) for text in work.prompt_texts()]
    rng = np.random.default_rng(0)
    completions = [rng.integers(300, WORDS, work.new_tokens).astype(np.int32) for _ in range(work.rows)]
    group = np.repeat(np.arange(work.prompts, dtype=np.int32), work.generations)
    coef = rng.normal(size=work.rows * work.new_tokens).astype(np.float32)

    def call() -> int:
        trainer.accumulate(prompts, completions, group, coef)
        return work.rows * (work.prompt_length + work.new_tokens)

    call()
    return repeated(call, work)


def grpo_step(folder: str, work: Work, **options) -> dict:
    import grpo

    clock = StepClock()
    with tempfile.TemporaryDirectory() as runs:
        args = grpo.GRPOConfig(**step_options(f"{runs}/run", work) | options)
        rows = [{"prompt": text} for text in work.prompt_texts()]
        trainer = grpo.GRPOTrainer(grpo.load(folder, device=work.device), reward, args=args, train_dataset=rows, callbacks=[clock])
        trainer.train()
    steps = [record for record in trainer.state.log_history if "step_time" in record]
    shares = {name: value for name, value in steps[-1].items() if name.startswith("time_share/")}
    return {"seconds": clock.times[1:], "tokens": work.rows * work.new_tokens, "peak_mb": peak_mb(work), **shares,
            "difference": max(record["sampling/sampling_logp_difference/max"] for record in steps)}


def grpo_lean(folder: str, work: Work) -> dict:
    return grpo_step(folder, work, keep_rollout_activations=False)


# -- the peer -----------------------------------------------------------------------------------------------------------

def torch_model(folder: str, device: str):
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).to(device)


def torch_prompts(folder: str, work: Work):
    import torch
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    ids = torch.tensor([tokenizer(text)["input_ids"] for text in work.prompt_texts()], device=work.device)
    assert ids.shape == (work.prompts, work.prompt_length)
    return ids.repeat_interleave(work.generations, 0)


def torch_rollout(folder: str, work: Work) -> dict:
    import torch

    model = torch_model(folder, work.device).eval()
    ids = torch_prompts(folder, work)
    options = {"attention_mask": torch.ones_like(ids), "do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}

    def call(new_tokens: int = work.new_tokens) -> int:
        with torch.inference_mode():
            return model.generate(ids, max_new_tokens=new_tokens, min_new_tokens=new_tokens, **options)[:, work.prompt_length:].numel()

    call(8)
    return repeated(call, work, torch_wait(work))


def torch_training(folder: str, work: Work) -> dict:
    """micro_batch rows at a time, logits of the completion's rows only, as TRL computes them."""
    import torch

    model = torch_model(folder, work.device).train()
    completions = torch.randint(300, WORDS, (work.rows, work.new_tokens), device=work.device)
    ids, coef = torch.cat([torch_prompts(folder, work), completions], 1), torch.randn(completions.shape, device=work.device)

    def call() -> int:
        for rows in range(0, len(ids), work.micro_batch):
            span = slice(rows, rows + work.micro_batch)
            logits = model(ids[span], logits_to_keep=work.new_tokens + 1, use_cache=False).logits[:, :-1]
            picked = logits.gather(-1, completions[span, :, None])[..., 0]
            # one row at a time in the log-sum-exp: TRL's way of keeping fp32 logits small
            logps = torch.stack([p - torch.logsumexp(z, -1) for p, z in zip(picked, logits)])
            (logps * coef[span]).sum().backward()
        return ids.numel()

    call()
    return repeated(call, work, torch_wait(work))


def torch_wait(work: Work) -> Callable[[], None]:
    """What waits until the device has done what it was told."""
    import torch

    return torch.cuda.synchronize if work.device == "cuda" else lambda: None


def torch_step(folder: str, work: Work, **options) -> dict:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    clock = type("Clock", (StepClock, TrainerCallback), {})()
    with tempfile.TemporaryDirectory() as runs:
        # weights and optimiser in bfloat16 without autocast or checkpointing: the fastest setting it has
        args = GRPOConfig(**step_options(runs, work) | options, use_cpu=work.device == "cpu", bf16=False, gradient_checkpointing=False)
        GRPOTrainer(torch_model(folder, work.device), reward, args=args, processing_class=PreTrainedTokenizerFast.from_pretrained(folder),
                    train_dataset=Dataset.from_dict({"prompt": work.prompt_texts()}), callbacks=[clock]).train()
    return {"seconds": clock.times[1:], "tokens": work.rows * work.new_tokens, "peak_mb": peak_mb(work)}


# -- measuring ----------------------------------------------------------------------------------------------------------

def repeated(call: Callable[[], int], work: Work, wait: Callable[[], None] = lambda: None) -> dict:
    """Times call, which says how many tokens it had to do with."""
    seconds = []
    wait()
    for _ in range(work.repeats):
        begin = time.perf_counter()
        tokens = call()
        wait()
        seconds.append(time.perf_counter() - begin)
    return {"seconds": seconds, "tokens": tokens, "peak_mb": peak_mb(work)}


def peak_mb(work: Work) -> float:
    """Most memory this process has held, of Linux's /proc (getrusage counts the parent's, too). On a card what it has given out:
    neither side hands any back before it ends."""
    if work.device == "cuda":
        query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
        return float(subprocess.run(query, capture_output=True, text=True, check=True).stdout)
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def measure(side: str, part: str, folder: str, work: Work, **options) -> dict:
    """One side ("grpo", "torch") of one part ("rollout", "training", "step", "lean")."""
    return globals()[f"{side}_{part}"](folder, work, **options)


def run_child(script: str, arguments: list[str], **env: str) -> dict:
    """Runs the script in a process of its own; its last line of output is the result."""
    done = subprocess.run([sys.executable, script, *arguments], stdout=subprocess.PIPE, text=True,
                          env=os.environ | {"TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore"} | env)
    if done.returncode:
        raise SystemExit(f"{script} {' '.join(arguments)} failed with status {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def spread(values: list[float], digits: int = 2) -> str:
    """Median (least-most)."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"
