"""AdamW: master weights in two parts, moments in two storages."""
import numpy as np
import pytest

from checks import assert_same_bits
from grpo import _core
from op_statements import normal

SHAPES = [(1, 0), (40001, 0), (1, 1), (5, 3), (33, 24), (70, 77), (3, 1031)]                  # O, C; C = 0: a vector
SETTINGS = 1e-3, 0.9, 0.999, 1e-8, 0.01, 0.7, 0.271, 0.003
STILL = 0.0, 0.9, 0.999, 1e-8, 0.0, 1.0, 0.1, 0.001                                           # lr and decay 0: weights stay


def bits(x):
    return np.ascontiguousarray(x, np.float32).view(np.uint32)


def floats(x):
    return np.asarray(x, np.uint32).view(np.float32)


def split(w):
    """float32 -> (float32 that bfloat16 holds, uint16), as base.h states it."""
    return floats((bits(w) + np.uint32(0x8000)) & np.uint32(0xffff0000)), bits(w).astype(np.uint16)


def join(upper, lower):
    return floats(bits(upper) + lower.astype(np.int16).astype(np.uint32))


def step(ops, w, m, v, g, settings=SETTINGS, whole=False, **keys):
    """(w, m, v) after one step; w: the float32 master. whole: the device stores it as it is (ref)."""
    adamw = ops.adamw if w.ndim == 2 else ops.adamw_vector
    if whole:
        return adamw(w, None, m, v, g, *settings, **keys)
    upper, lower, m, v = adamw(*split(w), m, v, g, *settings, **keys)
    return join(upper, lower), m, v


def state(rng, O, C):
    shape = (O, C) if C else (O,)
    return normal(rng, *shape), normal(rng, *shape), np.square(normal(rng, *shape)), normal(rng, *shape)


@pytest.mark.parametrize("O, C", SHAPES)
def test_adamw(ops, ref, rng, O, C):
    w, m, v, g = state(rng, O, C)
    for got, want in zip(step(ops, w, m, v, g), step(ref, w, m, v, g, whole=True), strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("O, C", [(70, 77), (33, 24)])
def test_a_matrix_is_updated_as_a_vector_is(ops, rng, O, C):
    """Packed or not, piece by piece or not: the same arithmetic."""
    w, m, v, g = state(rng, O, C)
    flat = step(ops, w.ravel(), m.ravel(), v.ravel(), g.ravel())
    assert_same_bits(step(ops, w, m, v, g), [x.reshape(O, C) for x in flat])


@pytest.mark.parametrize("C", [0, 24, 25])
def test_masters_keep_every_bit(ops, C):
    """What is joined and split again is the same float32, to the ends of its range; the working weight is its half-up rounding."""
    upper = np.array([0x0000, 0x8000, 0x0001, 0x3f80, 0xbf80, 0x4049, 0x7f7f, 0xff7f], np.uint32)
    lower = np.array([0, 1, 0x7ffe, 0x7fff, 0x8000, 0x8001, 0xffff, 0x1234], np.uint32)
    w = np.resize(floats((upper[:, None] << 16) | lower), (3, C) if C else 640)
    zero = np.zeros_like(w)
    got = (ops.adamw if C else ops.adamw_vector)(*split(w), zero, zero, zero, *STILL)
    assert_same_bits(got[:1], split(w)[:1])
    assert (got[1] == split(w)[1]).all()
    assert_same_bits([join(*got[:2])], [w])


@pytest.mark.parametrize("first", [0, 48, (1 << 34) + 16])
@pytest.mark.parametrize("O, C", [(70, 0), (33, 24), (7, 77)])
def test_bf16_moments(ops, rng, O, C, first):
    """Updated as float32 ones, then rounded up or down as the Philox bits of seed, step and element say."""
    w, m, v, g = state(rng, O, C)
    m, v = split(m)[0], split(v)[0]
    half = [(bits(x) >> 16).astype(np.uint16) for x in (m, v)]
    want_w, want_m, want_v = step(ops, w, m, v, g)
    got_w, got_m, got_v = step(ops, w, *half, g, seed=(1 << 63) + 7, step=3, first=first)
    assert_same_bits([got_w], [want_w])
    key = ((1 << 63) + 7) ^ int.from_bytes(b"moments", "big")
    quads = [_core.Ops.philox(key, ((first // 4 + q) % (1 << 32), first // 4 + q >> 32, 3, 0)) for q in range((w.size + 3) // 4)]
    random = np.array(quads, np.uint32).ravel()[:w.size].reshape(w.shape)
    for got, want, r in ((got_m, want_m, random & 0xffff), (got_v, want_v, random >> 16)):
        assert got.dtype == np.uint16
        np.testing.assert_array_equal(got, (bits(want) + r) >> 16)
