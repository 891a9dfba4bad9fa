"""Recorded decode steps on the GPU are the steps, at the shape of a real model's layers and for many numbers of
slots."""
import pytest

from checks.exactness import STOPS, make_prompts
from checks.graphs import check_recorded_activations, check_recorded_steps, check_weights_change
from tiny_models import config

SHAPE = config("qwen2", d=896, heads=(14, 2), D=64, F=4864, V=32000, L=2)
PROMPTS = make_prompts((1, 31, 150, 200, 32, 513) * 10, V=97)


@pytest.mark.parametrize("options", [{}, {"repetition_penalty": 1.3, "stop_ids": STOPS, "top_p": 0.9,
                                          "min_new_tokens": 3}], ids=str)
@pytest.mark.parametrize("slots", [1, 5, 40, 100])
def test_recorded_steps_are_the_steps(monkeypatch, slots, options):
    check_recorded_steps(monkeypatch, SHAPE, PROMPTS[:max(2, slots)], slots, 40, options)


def test_recorded_steps_keep_their_activations():
    check_recorded_activations(SHAPE, PROMPTS[:6])


def test_weights_change_under_a_recorded_step():
    check_weights_change(SHAPE, PROMPTS[:6])
