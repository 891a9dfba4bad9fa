"""The optimiser's memory: AdamW of every CPU tier, moments in bfloat16, and masters in two parts inside a Trainer."""
import numpy as np
import pytest

from checks import assert_same_bits, optim
from checks.optim import bits, floats, join, split, step
from grpo import _core, errors
from op_statements import bf16, normal
from test_exactness import MODELS, assert_same, make_batch
from tiny_models import build

NAMES = ("model.layers.1.self_attn.k_proj.weight", "model.layers.0.self_attn.q_proj.bias", "model.norm.weight", "model.embed_tokens.weight")


@pytest.mark.parametrize("O, C", [*optim.SHAPES, (129, 2050)])
def test_adamw(cpu, ref, rng, O, C):
    optim.test_adamw(cpu, ref, rng, O, C)


@pytest.mark.parametrize("O, C", [(70, 77), (50, 1040)])
def test_a_matrix_is_updated_as_a_vector_is(cpu, rng, O, C):
    optim.test_a_matrix_is_updated_as_a_vector_is(cpu, rng, O, C)


@pytest.mark.parametrize("C", [0, 24, 25])
def test_masters_keep_every_bit(cpu, C):
    optim.test_masters_keep_every_bit(cpu, C)


@pytest.mark.parametrize("O, C", [(3000, 0), (33, 24), (7, 1077)])
def test_bf16_moments(cpu, rng, O, C):
    optim.test_bf16_moments(cpu, rng, O, C, 48)


def test_half_up_is_nearest_even_but_for_ties(rng):
    w = np.append(normal(rng, 10000), floats([0x3f808000, 0x3f818000]))
    upper, lower = split(w)
    assert_same_bits([join(upper, lower)], [w])
    np.testing.assert_array_equal(upper[:-2], bf16(w[:-2]))
    assert (bits(upper[-2:]) >> 16).tolist() == [0x3f81, 0x3f82] and (bits(bf16(w[-2:])) >> 16).tolist() == [0x3f80, 0x3f82]


# -- moments in bfloat16 ----------------------------------------------------------------------------------------------------


def decayed(ops, whole, v, beta2, **keys):
    """Second moments, bfloat16 bits, after a step without a gradient."""
    zero = np.zeros(v.shape, np.float32)
    return step(ops, zero, np.zeros_like(v), v, zero, (0.0, 0.9, beta2, 1e-8, 0.0, 1.0, 0.1, 0.1), whole, **keys)[2]


def test_rounding_has_no_bias(device):
    """0.999 of a number that bfloat16 holds: both neighbours are drawn, their mean is the number; other keys, other draws."""
    n, ops, v = 1 << 15, _core.Ops(device), np.full(1 << 15, 0x3f8a, np.uint16)
    want, drawn = np.float32(0.999) * floats([0x3f8a0000]), []
    low, high = floats([bits(want)[0] >> 16 << 16, (bits(want)[0] >> 16) + 1 << 16])
    for keys in ({}, {"step": 1}, {"seed": 1}, {"first": n}):
        got = floats(decayed(ops, device == "ref", v, 0.999, **keys).astype(np.uint32) << 16)
        assert set(got.tolist()) == {low, high}
        assert abs(got.mean(dtype=np.float64) - want[0]) < 5 * 0.5 * (high - low) / np.sqrt(n)
        drawn.append(got)
    assert len({got.tobytes() for got in drawn}) == 4


def test_second_moments_decay(cpu):
    """Rounded to nearest, 0.999 v is v again for ever; rounded stochastically, v follows 0.999^t."""
    v = np.full(8192, 0x3f8a, np.uint16)
    start = floats(v.astype(np.uint32) << 16)
    np.testing.assert_array_equal(bf16(np.float32(0.999) * start), start)
    for t in range(700):
        v = decayed(cpu, False, v, 0.999, step=t)
    assert floats(v.astype(np.uint32) << 16).mean() == pytest.approx(start[0] * 0.999**700, rel=0.02)


# -- in a Trainer -----------------------------------------------------------------------------------------------------------


def stepped(device, steps=2, **options):
    """A trainer that has taken some steps."""
    trainer = _core.Trainer(build(MODELS["qwen2"], device), adam_beta2=0.99, **options)
    for seed in range(steps):
        trainer.accumulate(*make_batch(seed))
        trainer.step(1e-2, 1.0)
    return trainer


def state(trainer, kinds=("master", "m", "v")):
    return {f"{kind} {name}": trainer.get_state(kind, name) for kind in kinds for name in NAMES}


def test_moments_of_a_trainer(device, threads):
    """Both storages start alike, so the first step's weights are the same; bfloat16 moments then are float32's rounded."""
    threads(1)
    whole, half = stepped(device, 1), stepped(device, 1, moment_dtype="bfloat16", seed=5)
    assert (whole.moment_dtype, half.moment_dtype) == ("float32", "bfloat16")
    assert_same(state(whole, ["master"]), state(half, ["master"]))
    for name, x in state(half, ["m", "v"]).items():
        assert not (bits(x) & 0xffff).any()
        np.testing.assert_allclose(x, state(whole, ["m", "v"])[name], rtol=2**-7)
    threads(3)
    assert_same(state(half), state(stepped(device, 1, moment_dtype="bfloat16", seed=5)))
    assert any((x != state(half)[name]).any() for name, x in state(stepped(device, 1, moment_dtype="bfloat16", seed=6), ["m"]).items())


def test_a_trainer_holds_what_it_says(device):
    trainer = stepped(device, 1, moment_dtype="bfloat16")
    held, n = dict(trainer.plan()), sum(x.size for x in state(trainer, ["m"]).values())
    moments, grads = held["AdamW moments (bfloat16)"], held["gradients (float32)"]
    assert moments == grads > 4 * n and held["master bits beyond bfloat16"] == (0 if device == "ref" else grads // 2)


def test_state_is_read_and_set(device):
    """master, m and v of one trainer make another one go on with the same bits."""
    options = {"moment_dtype": "bfloat16", "seed": 3}
    first, second = stepped(device, 2, **options), stepped(device, 0, **options)
    names = [name for name, _ in build(MODELS["qwen2"], device).tensors()]
    for kind in ("master", "m", "v"):
        for name in names:
            second.set_state(kind, name, first.get_state(kind, name))
    second.steps_taken = 2
    assert_same(state(first), state(second))
    for trainer in (first, second):
        trainer.accumulate(*make_batch(9))
        trainer.step(1e-2, 1.0)
    assert_same(state(first), state(second))


def test_what_bfloat16_moments_cannot_hold_is_refused(device):
    trainer = stepped(device, 0, moment_dtype="bfloat16")
    with pytest.raises(errors.ConfigError, match="1.001 is no bfloat16 number"):
        trainer.set_state("m", NAMES[2], np.full(48, 1.001, np.float32))


def test_a_weight_that_is_set_is_the_master(device, rng):
    """All its bits, though the working weight has 16 fewer."""
    model = build(MODELS["qwen2"], device)
    trainer = _core.Trainer(model)
    for name in NAMES:
        w = normal(rng, *model.get_tensor(name).shape)
        model.set_tensor(name, w)
        assert_same_bits([trainer.get_state("master", name), model.get_tensor(name)], [w, w if device == "ref" else split(w)[0]])


@pytest.mark.parametrize("options", [{"moment_dtype": "float16"}, {"moment_dtype": ""}])
def test_wrong_options(options):
    with pytest.raises(ValueError, match="moment_dtype"):
        stepped("ref", 0, **options)
