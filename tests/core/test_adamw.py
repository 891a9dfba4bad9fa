"""The optimiser's memory: AdamW of every CPU tier, moments in bfloat16 and float8, masters in two parts and in 24 bits,
inside a Trainer."""
import importlib
from pathlib import Path

import numpy as np
import pytest

from checks import assert_same_bits, optim
from checks.exactness import MODELS, assert_same, make_batch
from checks.optim import bits, floats, join, split, step
from grpo import _core, errors
from op_statements import bf16, normal
from tiny_models import build

NAMES = ("model.layers.1.self_attn.k_proj.weight", "model.layers.0.self_attn.q_proj.bias", "model.norm.weight",
         "model.embed_tokens.weight")


@pytest.mark.parametrize("O, C", [*optim.SHAPES, (129, 2050)])
def test_adamw(cpu, ref, rng, O, C):
    optim.test_adamw(cpu, ref, rng, O, C)


@pytest.mark.parametrize("O", [0, 1, 70])
@pytest.mark.parametrize("moment", [np.float32, np.uint16, np.uint8])
@pytest.mark.parametrize("whole", [True, False])
def test_a_matrix_without_columns_stays_as_it_is(cpu, ref, O, moment, whole):
    empty, settings = np.zeros((O, 0), np.float32), optim.SETTINGS
    lower = None if whole else np.zeros((O, 0), np.uint16)
    ops = ref if whole else cpu
    adamw, m = ((ops.adamw_float8, np.zeros(0, np.uint8)) if moment == np.uint8 else
                (ops.adamw, np.zeros((O, 0), moment)))
    got = adamw(empty, lower, m, m, empty, *settings)
    assert [a.size for a in got] == [0] * len(got)


@pytest.mark.parametrize("O, C", [(70, 77), (50, 1040)])
def test_a_matrix_is_updated_as_a_vector_is(cpu, rng, O, C):
    optim.test_a_matrix_is_updated_as_a_vector_is(cpu, rng, O, C)


@pytest.mark.parametrize("C", [0, 24, 25])
def test_masters_keep_every_bit(cpu, C):
    optim.test_masters_keep_every_bit(cpu, C)


@pytest.mark.parametrize("O, C", [(3000, 0), (33, 24), (7, 1077)])
def test_bf16_moments(cpu, rng, O, C):
    optim.test_bf16_moments(cpu, rng, O, C, 48)


@pytest.mark.parametrize("O, C", [*optim.FLOAT8_SHAPES, (40, 2050)])
def test_float8_moments(cpu, rng, O, C):
    optim.test_float8_moments(cpu, rng, O, C, 48)


@pytest.mark.parametrize("moments", optim.MOMENTS)
@pytest.mark.parametrize("O, C", [(3000, 0), (33, 24), (7, 1077), (40, 2056)])
def test_float24_masters(cpu, rng, O, C, moments):
    optim.test_float24_masters(cpu, rng, O, C, moments, 48)


def test_float8_moments_come_back(cpu, rng):
    optim.test_float8_moments_come_back(cpu, rng, 3, 300)


def test_float8_second_moments_stay_above_zero(cpu):
    optim.test_float8_second_moments_stay_above_zero(cpu)


def test_half_up_is_nearest_even_but_for_ties(rng):
    w = np.append(normal(rng, 10000), floats([0x3f808000, 0x3f818000]))
    upper, lower = split(w)
    assert_same_bits([join(upper, lower)], [w])
    np.testing.assert_array_equal(upper[:-2], bf16(w[:-2]))
    assert ((bits(upper[-2:]) >> 16).tolist() == [0x3f81, 0x3f82]
            and (bits(bf16(w[-2:])) >> 16).tolist() == [0x3f80, 0x3f82])


# -- moments in bfloat16 -----------------------------------------------------------------------------------------------


def decayed(ops, whole, v, beta2, **keys):
    """Second moments, bfloat16 bits, after a step without a gradient."""
    zero = np.zeros(v.shape, np.float32)
    return step(ops, zero, np.zeros_like(v), v, zero, (0.0, 0.9, beta2, 1e-8, 0.0, 1.0, 0.1, 0.1), whole, **keys)[2]


def test_rounding_has_no_bias(device):
    """0.999 of a number that bfloat16 holds: both neighbours are drawn, their mean is the number; other keys, other
    draws."""
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


# -- moments in float8 -------------------------------------------------------------------------------------------------

DECAY = 0.0, 0.9, 0.999, 1e-8, 0.0, 1.0, 0.1, 0.1


def decayed_float8(device, m, v, **keys):
    """(m, v), stored bytes, after a step without a gradient."""
    zero, ops = np.zeros((16, 2048), np.float32), _core.Ops(device)
    weight = (zero, None) if device == "ref" else split(zero)
    return ops.adamw_float8(*weight, m, v, zero, *DECAY, **keys)[-2:]


@pytest.mark.parametrize("m, v", [(-1.375, 1.375), (3e-4, 1e-7), (-2e-5, 4e-10)])
def test_float8_rounding_has_no_bias(device, m, v):
    """Both neighbours are drawn, their mean is the number: with three bits of mantissa, and with fewer beside a much
    larger number."""
    x = np.empty((2, 16, 2048), np.float32)
    x[0], x[1], x[:, :, ::256] = m, v, 1.5
    stored = optim.encode_float8(x[0], np.zeros(x[0].size), 15), optim.encode_float8(x[1], np.zeros(x[0].size), 31)
    for i, (top, beta, data) in enumerate(zip((15, 31), (np.float32(0.9), np.float32(0.999)), stored, strict=True)):
        want, draws = beta * optim.decode_float8(data, 16, 2048, top), []
        for seed in range(8):
            got = decayed_float8(device, *stored, seed=seed)[i]
            np.testing.assert_array_equal(got,
                                          optim.encode_float8(want, optim.moment_words(x[0].size, seed, 0, 0)[i], top))
            draws.append(np.abs(optim.decode_float8(got, 16, 2048, top))[:, 1:256])
        want, draws = np.abs(want[0, 1]), np.array(draws)
        low, high = draws.min(), draws.max()
        assert len(np.unique(draws)) == 2 and low < want < high
        assert abs(draws.mean(dtype=np.float64) - want) < 5 * 0.5 * (high - low) / np.sqrt(draws.size)


@pytest.mark.parametrize("size", [3 * 300, 3 * 300 + 3, 3 * 300 + 7])
def test_float8_bytes_are_counted(size):
    zero, data = np.zeros((3, 300), np.float32), np.zeros(size, np.uint8)
    with pytest.raises(ValueError, match="codes .O, C. and exponents"):
        _core.Ops("ref").adamw_float8(zero, None, data, data, zero, *DECAY)


def test_a_noisy_quadratic(monkeypatch):
    """The path of the weights, beside that of float32 moments and masters."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "bench"))
    runs = importlib.import_module("bench_moments").compare(steps=150, runs=1)
    off = {storage: values[0, 2] for storage, values in runs.items()}
    assert off["float32"] == 0 < off["masters in float24"] < 0.001 < off["bfloat16"] < 0.01 < off["float8"] < 0.06
    assert off["both"] < 0.06


# -- in a Trainer ------------------------------------------------------------------------------------------------------


def stepped(device, steps=2, **options):
    """A trainer that has taken some steps."""
    trainer = _core.Trainer(build(MODELS["qwen2"], device), adam_beta2=0.99, **options)
    for seed in range(steps):
        trainer.accumulate(*make_batch(seed))
        trainer.step(1e-2, 1.0)
    return trainer


def state(trainer, kinds=("master", "m", "v")):
    return {f"{kind} {name}": trainer.get_state(kind, name) for kind in kinds for name in NAMES}


SMALLER = pytest.mark.parametrize("dtype", ["bfloat16", "float8"])


@SMALLER
def test_moments_of_a_trainer(device, threads, dtype):
    """All storages start alike, so the first step's weights are the same; smaller moments then are float32's rounded,
    and fit bfloat16."""
    threads(1)
    whole, half = stepped(device, 1), stepped(device, 1, moment_dtype=dtype, seed=5)
    assert (whole.moment_dtype, half.moment_dtype) == ("float32", dtype)
    assert_same(state(whole, ["master"]), state(half, ["master"]))
    for name, x in state(half, ["m", "v"]).items():
        assert not (bits(x) & 0xffff).any()
        want, gap, least = state(whole, ["m", "v"])[name], 2**-7, 0.0
        if dtype == "float8" and x.ndim == 2:
            gap, least = 2**-3, np.abs(want).max() * 2.0 ** (-17 if name.startswith("m ") else -33)
        assert (np.abs(x - want) <= gap * np.abs(want) + least).all()
    threads(3)
    assert_same(state(half), state(stepped(device, 1, moment_dtype=dtype, seed=5)))
    assert any((x != state(half)[name]).any()
               for name, x in state(stepped(device, 1, moment_dtype=dtype, seed=6), ["m"]).items())


def test_a_trainer_holds_what_it_says(device):
    held = {dtype: dict(stepped(device, 1, moment_dtype=dtype).plan()) for dtype in ("float32", "bfloat16", "float8")}
    moments = {dtype: sizes[f"AdamW moments ({dtype})"] for dtype, sizes in held.items()}
    n = sum(int(np.prod(shape)) for _, shape in build(MODELS["qwen2"], device).tensors())
    assert moments["bfloat16"] == held["bfloat16"]["gradients (float32)"] >= 4 * n
    assert moments["float32"] >= 8 * n and 2 * n < moments["float8"] < 2.2 * n
    held["float24"] = dict(stepped(device, 1, master_dtype="float24").plan())
    for dtype, sizes in held.items():
        share = 4 if dtype == "float24" else 2
        assert sizes["master bits beyond bfloat16"] == (0 if device == "ref" else sizes["gradients (float32)"] // share)


def test_masters_of_a_trainer(device, threads):
    """The first step's are float32's, rounded to one of their neighbours among 24 bits; other seeds, other
    neighbours."""
    threads(1)
    whole, short = (stepped(device, 1, master_dtype=dtype, seed=5) for dtype in ("float32", "float24"))
    assert (whole.master_dtype, short.master_dtype) == ("float32", "float24")
    wants = state(whole, ["master"])
    for name, x in state(short, ["master"]).items():
        down = bits(wants[name]) & np.uint32(0xffffff00)
        assert not (bits(x) & 0xff).any() and ((bits(x) == down) | (bits(x) == down + 0x100)).all()
    threads(3)
    assert_same(state(short), state(stepped(device, 1, master_dtype="float24", seed=5)))
    other = state(stepped(device, 1, master_dtype="float24", seed=6), ["master"])
    assert any((x != state(short)[name]).any() for name, x in other.items())


def test_float24_masters_follow_small_steps(device):
    """A step of a tenth of the gap between two numbers of 24 bits moves the mean as it should; to nearest it would move
    nothing."""
    n, ops, gap = 1 << 15, _core.Ops(device), 2.0**-15
    if device == "ref":
        pytest.skip("ref stores float32")
    w, one = np.ones((16, n // 16), np.float32), np.ones((16, n // 16), np.float32)
    upper, lower = w, np.zeros(w.shape, np.uint8)
    for t in range(20):
        upper, lower, _, _ = ops.adamw(upper, lower, one, one, one, 0.1 * gap, 0.9, 0.999, 1e-8, 0.0, 1.0, 1.0, 1.0,
                                       step=t)
    w = join(upper, lower.astype(np.uint16) << 8).astype(np.float64)
    assert len(np.unique(w)) > 3 and w.mean() == pytest.approx(1 - 2 * gap, abs=5 * gap * np.sqrt(20 * 0.1 * 0.9 / n))


@pytest.mark.parametrize("dtype, masters", [("bfloat16", "float32"), ("float8", "float32"), ("float32", "float24"),
                                            ("float8", "float24")])
def test_state_is_read_and_set(device, dtype, masters):
    """master, m and v of one trainer make another one go on with the same bits."""
    options = {"moment_dtype": dtype, "master_dtype": masters, "seed": 3}
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


@pytest.mark.parametrize("dtype, kind, name, values, message", [
    ("bfloat16", "m", NAMES[2], [1.001], "1.001 is no bfloat16 number"),
    ("float8", "m", NAMES[2], [1.001], "1.001 is no bfloat16 number"),
    ("float8", "m", NAMES[0], [1.0625], "1.0625 is no float8 number in its block"),
    ("float8", "m", NAMES[0], [1.0, 1e-9], "1e-09 is no float8 number in its block"),
    ("float8", "v", NAMES[0], [1.0, -1.0], "-1 is no float8 number in its block"),
    ("float8", "v", NAMES[0], [np.nan], "nan is no float8 number in its block"),
    ("float24", "master", NAMES[2], [1.0, 1 + 2**-16], "1.00001526 is no float24 number"),
], ids=str)
def test_what_does_not_fit_is_refused(device, dtype, kind, name, values, message):
    trainer = stepped(device, 0, **{"master_dtype" if kind == "master" else "moment_dtype": dtype})
    before = trainer.get_state(kind, name)
    for method in (trainer.check_state, trainer.set_state):
        with pytest.raises(errors.ConfigError, match=message):
            method(kind, name, np.resize(np.float32(values), before.shape))
    trainer.check_state(kind, name, np.zeros_like(before))           # which fits, and moves nothing
    assert_same_bits([trainer.get_state(kind, name)], [before])


def test_a_weight_that_is_set_is_the_master(device, rng):
    """All its bits, though the working weight has 16 fewer."""
    model = build(MODELS["qwen2"], device)
    trainer = _core.Trainer(model)
    for name in NAMES:
        w = normal(rng, *model.get_tensor(name).shape)
        model.set_tensor(name, w)
        assert_same_bits([trainer.get_state("master", name), model.get_tensor(name)],
                         [w, w if device == "ref" else split(w)[0]])


@pytest.mark.parametrize("value", [1.0, 1 + 2**-16, -1 - 2**-16 + 2**-23, 1 - 2**-24, np.inf, -np.inf, np.nan,
                                   floats(0x7f800001), 3.4028234e38, 1e-44, 0.0])
def test_a_weight_that_is_set_is_rounded_to_nearest(device, value):
    model = build(MODELS["qwen2"], device)
    trainer, x = _core.Trainer(model, master_dtype="float24"), np.float32(value)
    model.set_tensor(NAMES[2], np.full(model.get_tensor(NAMES[2]).shape, x, np.float32))
    want = x if np.isnan(x) else floats(bits(x) + np.uint32(0x80) & np.uint32(0xffffff00))
    got = trainer.get_state("master", NAMES[2])
    if device == "ref":                                # the working weights are the masters, until a step rounds them
        want = x
    np.testing.assert_array_equal(got, np.full_like(got, want))


@pytest.mark.parametrize("options, message", [
    ({"moment_dtype": "float16"}, "moment_dtype is 'float16', must be 'float32', 'bfloat16' or 'float8'"),
    ({"moment_dtype": ""}, "moment_dtype is ''"),
    ({"master_dtype": "float8"}, "master_dtype is 'float8', must be 'float32' or 'float24'")])
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        stepped("ref", 0, **options)
