"""Decode on the emulated GPU: windows of steps, recorded as graphs, and how seldom the host waits."""
import ctypes

import numpy as np
import pytest

from grpo import _core
from grpo.errors import ConfigError
from test_exactness import (ENDINGS, STOPS, assert_same, check_where_it_is_not_finite, check_windows, completions_of, gradients_of,
                            make_prompts)
from tiny_models import build, config

SMALL = config("qwen3", d=16, heads=(2, 1), D=16, F=24, V=97)
PROMPTS = make_prompts((1, 33), V=97)


@pytest.fixture
def counts(emulated_plugin):
    """(waits of the host, graphs that it launched) since the last call."""
    def call():
        waits, graphs = ctypes.c_int(), ctypes.c_int()
        ctypes.CDLL(str(emulated_plugin)).cuda_host_counts(ctypes.byref(waits), ctypes.byref(graphs))
        return waits.value, graphs.value

    return call


@pytest.mark.parametrize("options", ENDINGS.values(), ids=ENDINGS)
def test_windows(emulated, options):
    check_windows(build(SMALL, emulated), options, slots=3, tokens=10, lengths=(1, 33), num_generations=2)


def test_where_it_is_not_finite(emulated):
    check_where_it_is_not_finite(build(SMALL | {"tie_word_embeddings": False}, emulated))


def check_recorded_steps(monkeypatch, shape, prompts, slots, tokens, options):
    """The same bits recorded and not: from one rollout to the next, with other settings and another shape in between."""
    results = []
    for switch in ("0", "1"):
        monkeypatch.setenv("GRPO_CUDA_GRAPHS", switch)
        model = build(shape, "cuda")
        results.append([model.generate(prompts, 2, n, seed=seed, step=seed, temperature=temperature, slots=slots, **options)
                        for seed, n, temperature in ((1, tokens, 1.0), (1, tokens, 0.7), (2, tokens, 1.0), (1, 3 * tokens, 1.0), (1, tokens, 1.0))])
    for eager, recorded in zip(*results, strict=True):
        assert_same(eager, recorded)


def check_recorded_activations(shape, prompts):
    """Steps with and without a store, in turn, and a store that grows."""
    model = build(shape, "cuda")
    for rows in (0, 1000, 4000, 0, 1000):
        out = model.generate(prompts, 2, 9, seed=3, slots=3, stop_ids=STOPS, keep_rows=rows)
        assert (out["kept"] >= 0).all() == (rows > 0)
        if rows:
            assert_same(gradients_of(model, prompts, out, 2, kept=out["kept"]), gradients_of(model, prompts, out, 2))


def check_weights_change(shape, prompts):
    """A graph reads what stands in memory when it runs; memory that grew is another."""
    model, other = build(shape, "cuda"), build(shape, "cuda", 1)
    for _ in range(2):
        model.generate(prompts, 2, 9, seed=3)
    for name, _ in model.tensors():
        model.set_tensor(name, other.get_tensor(name))
    model.logprobs(prompts, make_prompts([90] * len(prompts), V=97), np.arange(len(prompts), dtype=np.int32))
    assert_same(model.generate(prompts, 2, 9, seed=3), other.generate(prompts, 2, 9, seed=3))


@pytest.mark.parametrize("options", [{}, {"repetition_penalty": 1.3, "stop_ids": STOPS, "top_p": 0.9}], ids=str)
def test_recorded_steps_are_the_steps(emulated, monkeypatch, options):
    check_recorded_steps(monkeypatch, SMALL, PROMPTS, 3, 6, options)


def test_recorded_steps_keep_their_activations(emulated):
    check_recorded_activations(SMALL, PROMPTS)


def test_weights_change_under_a_recorded_step(emulated):
    check_weights_change(SMALL, PROMPTS)


@pytest.mark.parametrize("switch", ["0", "1"])
def test_graphs_are_launched(emulated, counts, monkeypatch, switch):
    monkeypatch.setenv("GRPO_CUDA_GRAPHS", switch)
    model = build(SMALL, emulated)
    counts()
    model.generate(PROMPTS, 2, 6)
    assert counts()[1] == (4 if switch == "1" else 0)       # five steps, the first of a key as it comes
    model.generate(make_prompts((60, 7), V=97), 2, 6, seed=1, temperature=1.0)
    assert counts()[1] == (5 if switch == "1" else 0)       # other prompts, the same graph


def test_the_host_waits_once_a_window(emulated, counts):
    model, waits = build(SMALL, emulated), []
    for tokens, lookahead in ((33, 0), (17, 0), (33, 0), (17, 1), (33, 1)):
        counts()
        out = model.generate(PROMPTS, 2, tokens, seed=3, lookahead=lookahead)
        assert (out["lengths"] == tokens).all() and len(completions_of(out)) == 4
        waits.append(counts()[0])
    assert waits[2] - waits[1] == 16 // 8 and waits[4] - waits[3] == 16


def test_a_switch_that_cannot_be(emulated, monkeypatch):
    monkeypatch.setenv("GRPO_CUDA_GRAPHS", "yes")
    with pytest.raises(ConfigError, match="GRPO_CUDA_GRAPHS=yes: must be 0 or 1"):
        _core.Ops(emulated)
