"""AdamW: master weights in two parts and two storages, moments in three."""
import numpy as np
import pytest

from checks import assert_same_bits
from grpo import _core
from op_statements import normal

SHAPES = [(1, 0), (40001, 0), (1, 1), (5, 3), (33, 24), (70, 77), (3, 1031)]                  # O, C; C = 0: a vector
SETTINGS = 1e-3, 0.9, 0.999, 1e-8, 0.01, 0.7, 0.271, 0.003
STILL = 0.0, 0.9, 0.999, 1e-8, 0.0, 1.0, 0.1, 0.001  # lr and decay 0: weights stay


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
    """What is joined and split again is the same float32, to the ends of its range; the working weight is its half-up
    rounding."""
    upper = np.array([0x0000, 0x8000, 0x0001, 0x3f80, 0xbf80, 0x4049, 0x7f7f, 0xff7f], np.uint32)
    lower = np.array([0, 1, 0x7ffe, 0x7fff, 0x8000, 0x8001, 0xffff, 0x1234], np.uint32)
    w = np.resize(floats((upper[:, None] << 16) | lower), (3, C) if C else 640)
    zero = np.zeros_like(w)
    got = (ops.adamw if C else ops.adamw_vector)(*split(w), zero, zero, zero, *STILL)
    assert_same_bits(got[:1], split(w)[:1])
    assert (got[1] == split(w)[1]).all()
    assert_same_bits([join(*got[:2])], [w])


def rounding_words(n, seed, step, first):
    """The Philox word of each of n elements."""
    key = seed ^ int.from_bytes(b"moments", "big")
    quads = [_core.Ops.philox(key, ((first // 4 + q) % (1 << 32), first // 4 + q >> 32, step, 0))
             for q in range((n + 3) // 4)]
    return np.array(quads, np.uint32).ravel()[:n]


def moment_words(n, seed, step, first):
    """Their lower and upper halves: the random bits of m and of v."""
    words = rounding_words(n, seed, step, first)
    return words & 0xffff, words >> 16


def round_float24(w, seed, step, first):
    """Up or down to 24 bits, by 8 that are mixed from each element's word."""
    random = rounding_words(w.size, seed, step, first) * np.uint32(0x9e3779b9) >> 24
    return floats(bits(w) + random.reshape(w.shape) & np.uint32(0xffffff00))


MOMENTS = {"float32": lambda x, O, C, top: x, "bfloat16": lambda x, O, C, top: (bits(x) >> 16).astype(np.uint16),
           "float8": lambda x, O, C, top: encode_float8(x, np.zeros(O * C), top)}


@pytest.mark.parametrize("first", [0, (1 << 34) + 16])
@pytest.mark.parametrize("moments", MOMENTS)
@pytest.mark.parametrize("O, C", [(70, 0), (33, 24), (7, 77), (2, 1288)])
def test_float24_masters(ops, rng, O, C, moments, first):
    """Updated as float32 ones from the same 24 bits, with the same moments, then rounded up or down as the Philox bits
    say."""
    if moments == "float8" and not C:
        pytest.skip("vectors have no float8 moments")
    w, m, v, g = state(rng, O, C)
    upper, lower = split(floats(bits(w) & np.uint32(0xffffff00)))
    stored, keys = ([MOMENTS[moments](x, O, C, top) for x, top in ((m, 15), (v, 31))],
                    dict(seed=(1 << 63) + 7, step=3, first=first))
    adamw = ops.adamw_float8 if moments == "float8" else ops.adamw if C else ops.adamw_vector
    want_upper, want_lower, *want_moments = adamw(upper, lower, *stored, g, *SETTINGS, **keys)
    got_upper, got_lower, *got_moments = adamw(upper, (lower >> 8).astype(np.uint8), *stored, g, *SETTINGS, **keys)
    assert got_lower.dtype == np.uint8
    want = round_float24(join(want_upper, want_lower), **keys)
    assert_same_bits([join(got_upper, got_lower.astype(np.uint16) << 8), got_upper], [want, split(want)[0]])
    for got, whole in zip(got_moments, want_moments, strict=True):
        np.testing.assert_array_equal(got, whole)


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
    for got, want, r in zip((got_m, got_v), (want_m, want_v), moment_words(w.size, (1 << 63) + 7, 3, first),
                            strict=True):
        assert got.dtype == np.uint16
        np.testing.assert_array_equal(got, (bits(want) + r.reshape(w.shape)) >> 16)


# -- moments in 8 bits: a statement in float64 of what base/float8.h says in bits. top: highest exponent of a code, 15
# (m) or 31 (v)


def blocks_of(O, C):
    return [np.s_[row, c:c + 256] for row in range(O) for c in range(0, C, 256)]


def split_float8(data, O, C):
    """Stored bytes as codes (O, C) and exponents, one a block."""
    return data[:O * C].reshape(O, C), data[O * C:].astype(np.int64)


def decode_float8(data, O, C, top):
    """float32 (O, C) of stored bytes."""
    codes, exponents = split_float8(data, O, C)
    number = (codes & (8 * top + 7)).astype(np.int64)
    value = np.where(number < 8, number / 8 * 2.0**-126, (1 + number % 8 / 8) * 2.0 ** (number // 8 - 127))
    for block, exponent in zip(blocks_of(O, C), exponents, strict=True):
        value[block] *= 2.0**exponent
    return np.float32(np.where(codes > 8 * top + 7, -value, value))


def encode_float8(x, random, top):
    """Stored bytes of x (O, C); random (O * C) in [0, 2^16), or None where the numbers fit."""
    codes, exponents = np.zeros(x.shape, np.uint8), []
    random = np.full(x.shape, 0.5) if random is None else (random.reshape(x.shape) + 0.5) / 65536
    for block in blocks_of(*x.shape):
        size = np.abs(np.float64(x[block]))
        highest = (np.frexp(size.max())[1] - 1 + (size.max() > 1.875 * 2.0 ** (np.frexp(size.max())[1] - 1))
                   if size.max() else -127)
        exponents.append(max(3, min(254, highest + 127) - top))
        scaled = size / 2.0 ** exponents[-1] * 2.0**126                   # 1: the smallest normal code
        lead = np.maximum(0, np.frexp(scaled)[1] - 1)                     # the code's exponent, less one
        code = 8 * lead + np.floor(scaled / 2.0**lead * 8 + random[block])
        code = np.minimum(code, 8 * top + 7)
        codes[block] = (np.where((top == 31) & (code == 0) & (size > 0), 1, code)
                        + np.where((top == 15) & (np.signbit(x[block])), 128, 0))
    return np.concatenate([codes.ravel(), np.array(exponents, np.uint8)])


def spread(rng, O, C, powers):
    """Normal numbers of very different sizes, in a block and from block to block."""
    return (normal(rng, O, C)
            * np.exp2(rng.integers(-powers, powers, (O, C)) + rng.integers(-3, 4, (O, 1)) * 15).astype(np.float32))


FLOAT8_SHAPES = [(1, 1), (2, 255), (3, 256), (2, 257), (17, 24), (33, 72), (5, 77), (2, 1288)]


@pytest.mark.parametrize("first", [0, (1 << 34) + 16])
@pytest.mark.parametrize("O, C", FLOAT8_SHAPES)
def test_float8_moments(ops, rng, O, C, first):
    """Updated as float32 ones, then rounded to their block's exponent, up or down as the Philox bits say."""
    w, g = normal(rng, O, C), spread(rng, O, C, 12)
    stored = [encode_float8(spread(rng, O, C, 8), np.zeros(O * C), 15),
              encode_float8(np.square(spread(rng, O, C, 8)), np.zeros(O * C), 31)]
    m, v = (decode_float8(data, O, C, top) for data, top in zip(stored, (15, 31), strict=True))
    want_w, *want = step(ops, w, m, v, g)
    upper, lower, *got = ops.adamw_float8(*split(w), *stored, g, *SETTINGS, seed=(1 << 63) + 7, step=3, first=first)
    assert_same_bits([join(upper, lower)], [want_w])
    for data, x, r, top in zip(got, want, moment_words(w.size, (1 << 63) + 7, 3, first), (15, 31), strict=True):
        np.testing.assert_array_equal(data, encode_float8(x, r, top))


@pytest.mark.parametrize("O, C", [(3, 300)])
def test_float8_moments_come_back(ops, rng, O, C):
    """What was rounded once is kept by a step that changes nothing (both decays 1), whatever its random bits; also at
    the ends of float32's range."""
    x = spread(rng, O, C, 20)
    x[1] *= np.float32(2.0**-100)
    x[2, :10] = [3.4e38, -3.4e38, 1e38, 1e-38, -1e-45, 1.99, 0.0, -0.0, 1.875, 2.0]
    kept = 0.0, 1.0, 1.0, 1e-8, 0.0, 0.0, 0.1, 0.1
    zero = np.zeros((O, C), np.float32)
    stored = encode_float8(x, np.zeros(O * C), 15), encode_float8(np.abs(x), np.zeros(O * C), 31)
    for seed in (1, 2):
        got = ops.adamw_float8(*split(zero), *stored, zero, *kept, seed=seed)[2:]
        for data, before, top in zip(got, stored, (15, 31), strict=True):
            np.testing.assert_array_equal(decode_float8(data, O, C, top), decode_float8(before, O, C, top))


def test_float8_second_moments_stay_above_zero(ops):
    """Whatever is beside them: m / (sqrt(v) + eps) is bounded by that. A first moment may round to 0."""
    O, C = 4, 256
    g = np.full((O, C), 1e-18, np.float32)
    g[:, 7] = 1.0
    zero, none = np.zeros((O, C), np.float32), np.zeros(O * C + O, np.uint8)
    m, v = ops.adamw_float8(*split(zero), none, none, g, *SETTINGS)[2:]
    assert (decode_float8(v, O, C, 31) > 0).all() and (decode_float8(m, O, C, 15) == 0).sum() == O * (C - 1)
