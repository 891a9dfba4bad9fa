"""The peers' side of what work.py names: transformers and TRL as they come, and the best that PyTorch can be made to
do."""
from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable

from timing import peak_mb, repeated, waiter
from work import WORDS, StepClock, Work, reward, step_options

SAMPLING = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
LOSS_ROWS = 2048               # completion tokens whose logits are there at a time, in the chunked loss


def load(folder: str, device: str):
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).to(device)


def prompt_ids(folder: str, work: Work):
    """(prompts, prompt_length)"""
    import torch
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    ids = torch.tensor([tokenizer(text)["input_ids"] for text in work.prompt_texts()], device=work.device)
    assert ids.shape == (work.prompts, work.prompt_length)
    return ids


def generating(folder: str, work: Work, **settings) -> Callable[[], int]:
    """generate() of transformers, sampling at temperature 1, warmed up."""
    import torch

    model = load(folder, work.device).eval()
    ids = prompt_ids(folder, work).repeat_interleave(work.generations, 0)
    options = {"attention_mask": torch.ones_like(ids), **SAMPLING, **settings}

    def call(new_tokens: int = work.new_tokens) -> int:
        with torch.inference_mode():
            return model.generate(ids, max_new_tokens=new_tokens, min_new_tokens=new_tokens,
                                  **options)[:, work.prompt_length:].numel()

    call(work.new_tokens if settings else 8)
    return call


def decoding(folder: str, work: Work) -> Callable[[], int]:
    """The same of torch_decode.py."""
    from torch_decode import Decoder

    ids = prompt_ids(folder, work)
    decoder = Decoder(load(folder, work.device).eval(), work.rows, work.prompt_length + work.new_tokens)

    def call() -> int:
        return decoder.generate(ids, work.generations, work.new_tokens)[0].numel()

    call()
    return call


def rollout(folder: str, work: Work) -> dict:
    return repeated(generating(folder, work), work, waiter(work.device))


def static_rollout(folder: str, work: Work) -> dict:
    """With a static cache, for which transformers compiles the decode step (not in a trial on a CPU)."""
    return repeated(generating(folder, work, cache_implementation="static", disable_compile=work.device == "cpu"), work,
                    waiter(work.device))


def graph_rollout(folder: str, work: Work) -> dict:
    return repeated(decoding(folder, work), work, waiter(work.device))


def first_tokens(folder: str, work: Work) -> dict:
    """From nothing to a rollout: no warm-up."""
    import torch

    ids = prompt_ids(folder, work).repeat_interleave(work.generations, 0)
    with torch.inference_mode():
        load(folder, work.device).eval().generate(ids, attention_mask=torch.ones_like(ids),
                                                  max_new_tokens=work.new_tokens,
                                                  min_new_tokens=work.new_tokens, **SAMPLING).cpu()
    return {"end": time.time()}


def mismatch(folder: str, work: Work) -> dict:
    """Log-probs of generate() against those of the forward pass that a trainer makes of the same tokens."""
    import torch

    model, ids = load(folder, work.device).eval(), prompt_ids(folder, work).repeat_interleave(work.generations, 0)
    with torch.inference_mode():
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=work.new_tokens,
                             min_new_tokens=work.new_tokens,
                             return_dict_in_generate=True, output_logits=True, **SAMPLING)
        tokens = out.sequences[:, work.prompt_length:]
        drawn = torch.stack([z.float().log_softmax(-1).gather(-1, tokens[:, i, None])[:, 0]
                             for i, z in enumerate(out.logits)], 1)
    return beside_forward(model, out.sequences, drawn, work)


def graph_mismatch(folder: str, work: Work) -> dict:
    """The same of torch_decode.py, a sampler that is another program than the trainer."""
    import torch
    from torch_decode import Decoder

    model, ids = load(folder, work.device).eval(), prompt_ids(folder, work)
    tokens, drawn = Decoder(model, work.rows, work.prompt_length
                            + work.new_tokens).generate(ids, work.generations, work.new_tokens)
    return beside_forward(model, torch.cat([ids.repeat_interleave(work.generations, 0), tokens], 1), drawn, work)


def beside_forward(model, sequences, drawn, work: Work) -> dict:
    """Mean and largest difference of log-probs `drawn` (rows, new_tokens) from the forward pass's."""
    import torch

    differences = []
    with torch.inference_mode():
        for ids, logps in zip(sequences.split(work.micro_batch), drawn.split(work.micro_batch), strict=True):
            z = model(ids, logits_to_keep=work.new_tokens + 1, use_cache=False).logits[:, :-1].float()
            seen = z.gather(-1, ids[:, work.prompt_length:, None])[..., 0]
            differences.append((seen - z.logsumexp(-1) - logps).abs())
    difference = torch.cat(differences)
    return {"mean": difference.mean().item(), "max": difference.max().item()}


def training(folder: str, work: Work) -> dict:
    return trained(plain_backward, folder, work)


def compiled_training(folder: str, work: Work) -> dict:
    return trained(compiled_backward, folder, work)


def plain_backward(model, work: Work) -> Callable:
    """Logits of the completion's rows only, as TRL computes them."""
    import torch

    def backward(ids, completions, coef) -> None:
        logits = model(ids, logits_to_keep=work.new_tokens + 1, use_cache=False).logits[:, :-1]
        picked = logits.gather(-1, completions[:, :, None])[..., 0]
        # one row at a time in the log-sum-exp: TRL's way of keeping fp32 logits small
        logps = torch.stack([p - torch.logsumexp(z, -1) for p, z in zip(picked, logits, strict=True)])
        (logps * coef).sum().backward()

    return backward


def compiled_backward(model, work: Work) -> Callable:
    """The layers through torch.compile; logits, loss and their backward LOSS_ROWS tokens at a time, never kept."""
    import torch
    import torch.nn.functional as F

    # eager: a trial of the script
    compiled = functools.partial(torch.compile, backend="inductor" if work.device == "cuda" else "eager")

    @compiled
    def loss(hidden, weight, completions, coef):
        z = F.linear(hidden, weight).float()
        return ((z.gather(-1, completions[:, None])[:, 0] - z.logsumexp(-1)) * coef).sum()

    layers = compiled(model.model)

    def backward(ids, completions, coef) -> None:
        hidden = layers(input_ids=ids, use_cache=False).last_hidden_state[:, -work.new_tokens - 1:-1]
        flat = hidden.detach().flatten(0, 1).requires_grad_()
        for rows, *rest in zip(flat.split(LOSS_ROWS), completions.flatten().split(LOSS_ROWS),
                               coef.flatten().split(LOSS_ROWS), strict=True):
            loss(rows, model.lm_head.weight, *rest).backward()
        hidden.backward(flat.grad.view_as(hidden))

    return backward


def trained(make: Callable, folder: str, work: Work) -> dict:
    """Times the backward pass that `make` gives over micro-batches of all rows."""
    import torch

    backward = make(load(folder, work.device).train(), work)
    prompts = prompt_ids(folder, work).repeat_interleave(work.generations, 0)
    completions = torch.randint(300, WORDS, (work.rows, work.new_tokens), device=work.device)
    ids, coef = torch.cat([prompts, completions], 1), torch.randn(completions.shape, device=work.device)

    def call() -> int:
        for part in zip(*(tensor.split(work.micro_batch) for tensor in (ids, completions, coef)), strict=True):
            backward(*part)
        return ids.numel()

    call()
    return repeated(call, work, waiter(work.device))


def step(folder: str, work: Work, model=None, processor=None, **options) -> dict:
    """model, processor: in place of the folder's language model and tokenizer."""
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    clock = type("Clock", (StepClock, TrainerCallback), {})()
    with tempfile.TemporaryDirectory() as runs:
        # weights and optimiser in bfloat16 without autocast or checkpointing: the fastest setting it has
        args = GRPOConfig(**step_options(runs, work) | options, use_cpu=work.device == "cpu", bf16=False,
                          gradient_checkpointing=False)
        GRPOTrainer(model or load(folder, work.device), reward, args=args,
                    processing_class=processor or PreTrainedTokenizerFast.from_pretrained(folder),
                    train_dataset=Dataset.from_list(work.dataset()), callbacks=[clock]).train()
    return {"seconds": clock.times[1:], "tokens": work.rows * work.new_tokens, "peak_mb": peak_mb(work)}


