"""Decode steps that are recorded as CUDA graphs and launched again give what the steps give."""
import numpy as np

from checks.exactness import STOPS, assert_same, gradients_of, make_prompts, rollout_into
from grpo import _core
from tiny_models import build


def check_recorded_steps(monkeypatch, shape, prompts, slots, tokens, options):
    """The same bits recorded and not: from one rollout to the next, with other settings and another shape in
    between."""
    results = []
    for switch in ("0", "1"):
        monkeypatch.setenv("GRPO_CUDA_GRAPHS", switch)
        model = build(shape, "cuda")
        results.append([model.generate(prompts, 2, n, seed=seed, step=seed, temperature=temperature, slots=slots,
                                       **options)
                        for seed, n, temperature in ((1, tokens, 1.0), (1, tokens, 0.7), (2, tokens, 1.0),
                                                     (1, 3 * tokens, 1.0), (1, tokens, 1.0))])
    for eager, recorded in zip(*results, strict=True):
        assert_same(eager, recorded)


def check_recorded_activations(shape, prompts):
    """Steps with and without a store, in turn, and a store that grows."""
    model = build(shape, "cuda")
    store = _core.Store(model)
    for rows in (0, 1000, 4000, 0, 1000):
        store.clear()
        out, there = rollout_into(store if rows else None, model, prompts, 2, 9, rows=rows, seed=3, slots=3,
                                  stop_ids=STOPS)
        assert (out["stored"] >= 0).all() == (rows > 0)
        if rows:
            assert_same(gradients_of(model, prompts, out, 2, **there), gradients_of(model, prompts, out, 2))


def check_weights_change(shape, prompts):
    """A graph reads what stands in memory when it runs; memory that grew is another."""
    model, other = build(shape, "cuda"), build(shape, "cuda", 1)
    for _ in range(2):
        model.generate(prompts, 2, 9, seed=3)
    for name, _ in model.tensors():
        model.set_tensor(name, other.get_tensor(name))
    model.logprobs(prompts, make_prompts([90] * len(prompts), V=97), np.arange(len(prompts), dtype=np.int32))
    assert_same(model.generate(prompts, 2, 9, seed=3), other.generate(prompts, 2, 9, seed=3))
