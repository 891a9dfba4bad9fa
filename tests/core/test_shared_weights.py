"""Weights know nobody: several trainers, a mixture and a store on one model, each with a state of its own."""
import numpy as np
import pytest

from checks.exactness import assert_same, make_prompts
from grpo import _core
from tiny_models import build, config

MODEL = config("qwen3", d=32, heads=(4, 2), D=16, F=48, V=97, L=2)
STORAGE = [("float32", "float32"), ("float32", "float24"), ("float24", "float32"), ("float24", "float24")]


def train(trainer, steps=1, seed=0):
    """A few steps on random tokens; small ones, so that the bits beyond bfloat16 matter."""
    for step in range(steps):
        prompts, completions = (make_prompts(lengths, V=97, seed=seed + step + lengths[0])
                                for lengths in ([5, 9], [7, 3]))
        trainer.accumulate(prompts, completions, np.arange(2, dtype=np.int32), np.ones(10, np.float32))
        trainer.step(1e-4)


def masters(trainer, model):
    return {name: trainer.get_state("master", name) for name, _ in model.tensors()}


def working(model):
    return {name: model.get_tensor(name) for name, _ in model.tensors()}


@pytest.mark.parametrize("storage", STORAGE, ids="-".join)
def test_a_second_trainer_leaves_the_first_ones_masters(device, storage):
    model = build(MODEL, device)
    first = _core.Trainer(model, master_dtype=storage[0])
    train(first, 3)
    before, weights = masters(first, model), working(model)
    second = _core.Trainer(model, master_dtype=storage[1])
    assert_same(masters(first, model), before)
    assert_same(masters(second, model), weights)             # it begins from the working weights
    train(first)
    alone = build(MODEL, device)
    other = _core.Trainer(alone, master_dtype=storage[0])
    train(other, 3)
    train(other)
    assert_same(masters(first, model), masters(other, alone))   # as if the second had never been made


def test_the_step_of_one_is_where_the_other_begins(device):
    model = build(MODEL, device)
    first, second = _core.Trainer(model), _core.Trainer(model)
    train(first, 2)
    train(second, 1, seed=9)
    assert_same(masters(first, model), working(model))
    assert (any((masters(second, model)[name] != working(model)[name]).any() for name in working(model))
            == (device != "ref"))


@pytest.mark.parametrize("setter", ["set_tensor", "set_state"])
def test_set_weights_reach_every_trainer(device, setter):
    model = build(MODEL, device)
    trainers = [_core.Trainer(model), _core.Trainer(model)]
    train(trainers[0])
    name, shape = model.tensors()[-1]
    wanted = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    model.set_tensor(name, wanted) if setter == "set_tensor" else trainers[1].set_state("master", name, wanted)
    for trainer in trainers:
        assert_same(trainer.get_state("master", name), wanted)
    del trainers[1]
    model.set_tensor(name, -wanted)
    assert_same(trainers[0].get_state("master", name), -wanted)


@pytest.mark.parametrize("storage", STORAGE, ids="-".join)
def test_masters_that_are_set_are_exact_whoever_else_is_there(device, storage):
    """A number may round to one bfloat16 by way of float24 and to another without."""
    model = build(MODEL, device)
    trainers = [_core.Trainer(model, master_dtype=dtype) for dtype in storage]
    name, shape = model.tensors()[-1]
    bits = 0x3f807f80 + np.arange(np.prod(shape), dtype=np.uint32) % 256
    for trainer, dtype in zip(trainers, storage, strict=True):
        wanted = (bits & 0xffffff00 if dtype == "float24" else bits).view(np.float32).reshape(shape)
        trainer.set_state("master", name, wanted)
        assert_same(trainer.get_state("master", name), wanted)


@pytest.mark.parametrize("order", [("float32", "float24"), ("float24", "float32"), ("float24", "float32", "float24")],
                         ids="-".join)
@pytest.mark.parametrize("setter", ["set_tensor", "float32", "float24"])
def test_masters_of_two_widths(device, order, setter):
    """What is set is what float32 masters hold, to the last bit, whichever trainer is the newest; and what float24
    masters hold where they can."""
    model = build(MODEL, device)
    trainers = [(storage, _core.Trainer(model, master_dtype=storage)) for storage in order]
    name, shape = model.tensors()[-1]
    # numbers whose lower half is just below or above the half that bfloat16 rounds at, and any others
    low = np.resize(np.array([0x7fff, 0x8000, 0x7f80, 0x8080, 0x7f7f, 0xffff, 0x1234], np.uint32), shape)
    if setter == "float24":
        low &= 0xff00
    wanted = (np.random.default_rng(3).normal(size=shape).astype(np.float32).view(np.uint32) & 0xffff0000 | low)
    wanted = wanted.view(np.float32)
    if setter == "set_tensor":
        model.set_tensor(name, wanted)
    else:
        dict(trainers)[setter].set_state("master", name, wanted)
    for storage, trainer in trainers:
        held = trainer.get_state("master", name)
        if storage == "float32" or setter == "float24":
            assert_same(held, wanted)
        np.testing.assert_allclose(held, wanted, rtol=2.0**-15)


def test_tensors_beside_the_one_that_is_set_keep_their_masters(device):
    model = build(MODEL, device)
    trainer = _core.Trainer(model)
    train(trainer, 2)
    before = masters(trainer, model)
    name = "model.layers.1.self_attn.k_proj.weight"          # stored in one matrix with q and v
    model.set_tensor(name, np.zeros_like(before[name]))
    assert_same(masters(trainer, model), before | {name: np.zeros_like(before[name])})


def test_a_mixture_moves_the_weights_of_trainers(device):
    model, other = build(MODEL, device), build(MODEL, device, 1)
    trainer = _core.Trainer(model)
    train(trainer)
    model.mix(other, 0.25)
    mixed = {name: model.get_tensor(name) for name, _ in model.tensors()}
    rounded = masters(trainer, model)
    assert all(np.abs(mixed[n] - rounded[n]).max() <= np.abs(mixed[n]).max() / 128 for n in mixed)
