"""Calls with nothing to run, first or later: empty results or typed errors, whatever the object did before."""
import numpy as np
import pytest

import grpo
from checks.exactness import make_prompts
from grpo import _core
from tiny_models import build, config

MODEL = config("qwen2", d=32, heads=(4, 2), D=16, F=48, V=97, L=2)
IDS, NUMBERS = np.int32, np.float32
NOTHING = {
    "no prompts": ([], [], np.zeros(0, IDS)),
    "no completions": (make_prompts([5, 9], V=97), [], np.zeros(0, IDS)),
    "empty completions": (make_prompts([5, 9], V=97), [np.zeros(0, IDS)] * 3, np.array([0, 0, 1], IDS)),
}
LOSS = {"loss": {}, "normalizer": {"tokens": 0.0, "sequences": 0.0}}


def calls(model, trainer, batch):
    """Every entry that takes groups; what it gives for tokens."""
    empty, n = np.zeros(0, NUMBERS), len(batch[1])
    numbers = {"old_logps": empty, "advantages": np.zeros(n, NUMBERS), "mask": np.zeros(0, np.uint8), "ref_logps": None}
    return {
        "logprobs": lambda: model.logprobs(*batch)[0],
        "logprob_grads": lambda: model.logprob_grads(*batch, empty)[0],
        "accumulate": lambda: trainer.accumulate(*batch, empty)[0],
        "accumulate_loss": lambda: trainer.accumulate_loss(*batch, **numbers, **LOSS)[2],
        "generate": lambda: model.generate([], 2, 3)["tokens"],
        "embed": lambda: model.embed([])[:, 0],
    }


@pytest.mark.parametrize("name", calls(None, None, NOTHING["no prompts"]))
@pytest.mark.parametrize("batch", NOTHING.values(), ids=list(NOTHING))
@pytest.mark.parametrize("recompute", [False, True])
def test_nothing_first_and_later(device, name, batch, recompute):
    model = build(MODEL, device)
    trainer = _core.Trainer(model, recompute=recompute)
    call = calls(model, trainer, batch)[name]
    assert len(call()) == 0
    prompts, completions = make_prompts([5, 9], V=97), make_prompts([7, 3], V=97, seed=2)
    trainer.accumulate(prompts, completions, np.arange(2, dtype=IDS), np.ones(10, NUMBERS))
    model.logprobs(prompts, completions, np.arange(2, dtype=IDS))
    assert len(call()) == 0
    gradient = trainer.gradient("model.norm.weight")
    assert gradient.any() and np.isfinite(trainer.step(1e-3))


@pytest.mark.parametrize("completions", [[[]], [[], []]])
def test_empty_completions_from_the_public_api(completions):
    model = grpo.load(grpo.tiny(num_hidden_layers=1))
    assert [len(logps) for logps in model.logprobs([72, 105] if len(completions) == 1 else [[72], [105]], completions)
            ] == [0] * len(completions)
