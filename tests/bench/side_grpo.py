"""Our side of what work.py names."""
from __future__ import annotations

import tempfile
import time
from collections.abc import Callable

from timing import peak_mb, repeated
from work import WORDS, StepClock, Work, reward, step_options, token_budget_on


def generating(folder: str, work: Work) -> Callable[[], dict]:
    """What rolls out once, warmed up; its result is generate_ids()'s."""
    import grpo

    model = grpo.load(folder, device=work.device)
    prompts = [model.prompt_ids(text) for text in work.prompt_texts()]
    model.generate_ids(prompts, work.generations, 8, min_new_tokens=8, slots=work.rows, seed=0)
    return lambda: model.generate_ids(prompts, work.generations, work.new_tokens, min_new_tokens=work.new_tokens,
                                      slots=work.rows, seed=1)


def rollout(folder: str, work: Work) -> dict:
    generate, decode = generating(folder, work), []

    def call() -> int:
        out = generate()
        decode.append(out["decode_seconds"])
        return len(out["tokens"])

    return repeated(call, work) | {"decode_seconds": decode}


def first_tokens(folder: str, work: Work) -> dict:
    """From nothing to a rollout: no warm-up."""
    import grpo

    model = grpo.load(folder, device=work.device)
    prompts = [model.prompt_ids(text) for text in work.prompt_texts()]
    model.generate_ids(prompts, work.generations, work.new_tokens, min_new_tokens=work.new_tokens, slots=work.rows,
                       seed=1)
    return {"end": time.time()}


def mismatch(folder: str, work: Work) -> dict:
    """Log-probs of a rollout against those of training on the same tokens."""
    import numpy as np

    import grpo

    model = grpo.load(folder, device=work.device)
    prompts = [np.asarray(model.prompt_ids(text), np.int32) for text in work.prompt_texts()]
    out = model.generate_ids(prompts, work.generations, work.new_tokens, min_new_tokens=work.new_tokens,
                             slots=work.rows, seed=1)
    completions = np.split(out["tokens"], np.cumsum(out["lengths"])[:-1])
    logps, _ = model.core.logprobs(prompts, completions,
                                   np.repeat(np.arange(work.prompts, dtype=np.int32), work.generations))
    difference = np.abs(logps - out["policy_logprobs"])
    return {"mean": float(difference.mean()), "max": float(difference.max())}


def training(folder: str, work: Work) -> dict:
    import numpy as np

    import grpo
    from grpo import _core

    model = grpo.load(folder, device=work.device)
    trainer = _core.Trainer(model.core, token_budget=token_budget_on(work.device))
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


def step(folder: str, work: Work, **options) -> dict:
    import grpo

    clock = StepClock()
    with tempfile.TemporaryDirectory() as runs:
        args = grpo.GRPOConfig(**step_options(f"{runs}/run", work) | options)
        trainer = grpo.GRPOTrainer(grpo.load(folder, device=work.device), reward, args=args,
                                   train_dataset=work.dataset(), callbacks=[clock])
        trainer.train()
    steps = [record for record in trainer.state.log_history if "step_time" in record]
    shares = {name: value for name, value in steps[-1].items() if name.startswith("time_share/")}
    return {"seconds": clock.times[1:], "tokens": work.rows * work.new_tokens, "peak_mb": peak_mb(work), **shares,
            "difference": max(record["sampling/sampling_logp_difference/max"] for record in steps)}


def update(folder: str, work: Work) -> dict:
    """Forward and backward as a part of the last step."""
    whole = step(folder, work)
    return whole | {"seconds": [whole["seconds"][-1] * whole["time_share/update"]]}


def lean(folder: str, work: Work) -> dict:
    return step(folder, work, recompute=True)


def least(folder: str, work: Work) -> dict:
    return step(folder, work, recompute=True, moment_dtype="float8", master_dtype="float24")


def planned(folder: str, work: Work) -> dict:
    """step() once, and the memory that its plan promised."""
    import grpo
    from grpo.planning.memory import training_plan

    options = grpo.GRPOConfig(**step_options("", work), max_prompt_length=work.prompt_length)
    config = grpo.load(folder, device=work.device).config
    return {**step(folder, work), "planned_mb": training_plan(config, "the model", options, work.device).total / 2**20}
