"""Decode on the emulated GPU: windows of steps, recorded as graphs, and how seldom the host waits."""
import ctypes

import pytest

from checks.exactness import ENDINGS, STOPS, check_where_it_is_not_finite, check_windows, completions_of, make_prompts
from checks.graphs import check_recorded_activations, check_recorded_steps, check_weights_change
from grpo import _core
from grpo.errors import ConfigError
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
