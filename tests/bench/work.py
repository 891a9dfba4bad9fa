"""What the benchmarks measure, for us and for the peers: a rollout, forward + backward, a whole GRPO step.

All sides load one folder of bfloat16 weights. Ends are suppressed, so every completion has all its tokens. side_grpo.py
and side_torch.py do the work: each call loads, warms up, measures and returns {"seconds": of each repeat, "tokens": of
one, "peak_mb": most memory of the process, or what the card has given out, ...}.
"""
from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

from timing import now

from grpo.planning.shapes import SHAPES as KNOWN

IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
SHAPES = {"tiny": {**KNOWN["SmolLM2-135M"], "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
                   "num_attention_heads": 4,
                   "num_key_value_heads": 2, "vocab_size": 4096},
          "135m": KNOWN["SmolLM2-135M"], "0.5b": KNOWN["Qwen2.5-0.5B"], "1.5b": KNOWN["Qwen2.5-1.5B"],
          "3b": KNOWN["Qwen2.5-3B"],
          "7b": KNOWN["Qwen2.5-7B"]}
# what a measurement takes of step_time's phases
PHASES = {"rollout": ("prefill", "decode"), "training": ("forward + backward", "head"), "step": None}


@dataclass(frozen=True)
class Work:
    """What both sides do. micro_batch: completions that the peer takes at a time. repeats: measurements after the
    warm-up."""

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
        return [" ".join(word(7919 * (p * self.prompt_length + i) % WORDS) for i in range(self.prompt_length))
                for p in range(self.prompts)]

    def dataset(self) -> list:
        """The rows of the data set, for both sides."""
        return [{"prompt": text} for text in self.prompt_texts()]


# -- the model folder both sides load ----------------------------------------------------------------------------------

WORDS = 3500           # fewer than the smallest vocabulary has


def word(i: int) -> str:
    """Word number i: four letters, one token each in write_tokenizer's vocabulary."""
    return "".join(chr(97 + i // 26**k % 26) for k in range(4))


def write_tokenizer(folder: Path, vocab_size: int, special: tuple[str, ...] = (), template: str | None = None) -> None:
    """A byte-level tokenizer in which every word is one token, so that a prompt has as many tokens as words. special:
    what is one token besides, from id 3 on; template: for chats."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *special, *alphabet]
    names += [f"Ġ{word(i)}" for i in range(vocab_size - len(names))]
    tokenizer = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=names[2], pad_token=names[2],
                            bos_token=names[1], extra_special_tokens=list(special),
                            chat_template=template).save_pretrained(folder)


def write_model(folder: str, shape: str, source: str = "", device: str = "cpu") -> None:
    """Weights in bfloat16, and the tokenizer. source: a GGUF or folder of that shape; else random weights, drawn on the
    device."""
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
            made = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**sizes, **IDS))
            model = made.to(torch.bfloat16)
        model.save_pretrained(folder)
        vocab_size = sizes["vocab_size"]
    write_tokenizer(Path(folder), vocab_size)


def phases(shape: str, work: Work, what: str = "step", scorings: int = 0) -> list:
    """The phases of grpo.step_time that a measurement takes: of a "rollout", "training" or a "step"."""
    from grpo.planning import step_time

    step = step_time.Step(work.prompts, work.generations, work.prompt_length, work.new_tokens, work.rows,
                          token_budget_on(work.device), scorings=scorings)
    found = step_time.phases(step_time.Shape.of(SHAPES[shape]), step, work.device)
    return [phase for phase in found if not PHASES[what] or phase.name in PHASES[what]]


def training_flops(shape: str, work: Work) -> float:
    """Useful floating-point operations of our forward + backward: prompts once a group, head on completion tokens
    only."""
    return sum(part.flops for phase in phases(shape, work, "training")
               for part in phase.parts if part.kind == "products" and not part.extra)


# -- a GRPO step, for both ---------------------------------------------------------------------------------------------

def reward(completions, **columns) -> list[float]:
    """Any number that differs within a group and is the same function on both sides."""
    texts = [each if isinstance(each, str) else each[-1]["content"] for each in completions]
    return [sum(map(ord, text)) % 97 / 97 for text in texts]


def step_options(output_dir: str, work: Work) -> dict:
    """What GRPOConfig of both sides takes."""
    return {"output_dir": output_dir, "per_device_train_batch_size": work.micro_batch,
            "num_generations": work.generations,
            "gradient_accumulation_steps": work.rows // work.micro_batch, "max_steps": 1 + work.repeats,
            "max_completion_length": work.new_tokens,
            "temperature": 1.0, "beta": 0.0, "learning_rate": 1e-6, "save_strategy": "no", "report_to": "none",
            "logging_steps": 1,
            "disable_tqdm": True, "generation_kwargs": {"min_new_tokens": work.new_tokens}}


class StepClock:
    """Keeps when each optimiser step began and ended; added to a trainer's callbacks."""

    def __init__(self):
        self.times = []

    def on_step_begin(self, *args, **kwargs):
        self.begin = now()

    def on_step_end(self, *args, **kwargs):
        self.times.append(now() - self.begin)


def token_budget_on(device: str) -> int:
    import grpo

    return grpo.GRPOConfig().token_budget_on(device)


def measure(side: str, what: str, folder: str, work: Work, **options) -> dict:
    """One side ("grpo", "torch") of something: rollout(), training(), ... of its file."""
    return getattr(importlib.import_module(f"side_{side}"), what)(folder, work, **options)
