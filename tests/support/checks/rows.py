"""What works on rows one by one, sums of squares and mixing."""
import numpy as np
import pytest

from checks import assert_same_bits, check_float, check_rounded, real
from op_statements import AXES, bf16, inv_freq, normal

HEADS = [(1, 1, 16), (4, 2, 16), (9, 3, 64), (3, 1, 80), (5, 1, 104), (2, 2, 128), (1, 1, 6), (2, 1, 256), (2, 2, 72)]
SIZES = [(1, 1), (1, 16), (3, 5), (2, 64), (33, 80), (70, 31), (5, 577), (2, 2056)]               # N, C
# a tower's rows; rows that a block of a GPU takes in two rounds; 48 KB of sums
WIDE = [(33, 1280), (2, 1100), (1, 8200), (1, 12288)]
EPS = 1e-6


def tables(ops, rng, N, D):
    positions = rng.integers(0, 5000, N).astype(np.int32)
    return ops.rope_table(positions[None], (10000.0 ** (-np.arange(D // 2) * 2 / D)).astype(np.float32)[None])


@pytest.mark.parametrize("N, C", [*SIZES, (300, 8)])
def test_rows_by_index(ops, ref, rng, N, C):
    E, src, dE = real(rng, 11, C), real(rng, N, C), normal(rng, 11, C)
    ids = rng.integers(11, size=N).astype(np.int32)
    assert_same_bits([ops.embed(E, ids), ops.gather_rows(E, ids)], [E[ids], E[ids]])
    some = rng.permutation(11)[:min(N, 11)].astype(np.int32)
    replaced = E.copy()
    replaced[some] = src[:len(some)]
    assert_same_bits([ops.put_rows(E, src[:len(some)], some)], [replaced])
    assert_same_bits([ops.embed_dw(dE, src, ids)], [ref.embed_dw(dE, src, ids)])      # fp32 additions, rows in order
    added = E.copy()
    for row, i in enumerate(ids):
        added[i] = bf16(added[i] + src[row])                # rounded at each addition, rows in order
    assert_same_bits([ops.scatter_rows_add(E, src, ids)], [added])


@pytest.mark.parametrize("scale", [30.2, 0.0625])
@pytest.mark.parametrize("N, C", SIZES)
def test_scaled_embedding(ops, ref, rng, N, C, scale):
    E, dy, dE = real(rng, 11, C), real(rng, N, C), normal(rng, 11, C)
    ids = rng.integers(11, size=N).astype(np.int32)
    assert_same_bits([ops.embed(E, ids, scale)], [bf16(E[ids] * np.float32(scale))])          # rounded once
    check_float(ops.embed_dw(dE, dy, ids, scale), ref.embed_dw(dE, dy, ids, scale))


def taps(rng, N, K, V):
    """K ids below V of each of N rows, some of them twice, and their weights, some of them 0."""
    ids, weights = rng.integers(V, size=(N, K)).astype(np.int32), normal(rng, N, K)
    ids[::3, K // 2] = ids[::3, 0]
    weights[1::4, -1] = 0
    return ids, weights


@pytest.mark.parametrize("K", [1, 2, 4, 16])
@pytest.mark.parametrize("N, C", SIZES)
def test_mixed_embedding(ops, ref, rng, N, C, K):
    """The order of the sum shows in float32, where embed_mix_dw writes it: row after row, k after k."""
    (ids, weights), E, dy, dE, scale = taps(rng, N, K, 11), real(rng, 11, C), real(rng, N, C), normal(rng, 11, C), 1.7
    check_rounded(ops.embed_mix(E, ids, weights), ref.embed_mix(E, ids, weights), noise=1e-6)
    check_rounded(ops.embed_mix(E, ids, weights, scale), ref.embed_mix(E, ids, weights, scale), noise=1e-6)
    check_float(ops.embed_mix_dw(dE, dy, ids, weights, scale), ref.embed_mix_dw(dE, dy, ids, weights, scale), 1e-5)
    halves = np.exp2(rng.integers(-3, 3, (N, K))).astype(np.float32)            # products are exact
    want = dE.copy()
    for row in range(N):
        for k in range(K):
            want[ids[row, k]] += halves[row, k] * dy[row]
    assert_same_bits([ops.embed_mix_dw(dE, dy, ids, halves)], [want])


@pytest.mark.parametrize("scale", [1.0, 30.2])
@pytest.mark.parametrize("N, C", SIZES)
def test_a_mix_of_one_has_the_bits_of_an_embedding(ops, rng, N, C, scale):
    E, dy, dE, one = real(rng, 11, C), real(rng, N, C), normal(rng, 11, C), np.ones((N, 1), np.float32)
    E[::2, ::3] = -0.0
    ids = rng.integers(11, size=(N, 1)).astype(np.int32)
    assert_same_bits([ops.embed_mix(E, ids, one, scale), ops.embed_mix_dw(dE, dy, ids, one, scale)],
                     [ops.embed(E, ids[:, 0], scale), ops.embed_dw(dE, dy, ids[:, 0], scale)])


@pytest.mark.parametrize("K", [3, 9000])
def test_mixes_of_many_ids(ops, rng, K):
    """More than a GPU searches in one launch."""
    N, V = -(-18500 // K), 40
    (ids, _), dy, dE = taps(rng, N, K, V), np.ones((N, 1), np.float32), np.zeros((V, 1), np.float32)
    added = ops.embed_mix_dw(dE, dy, ids, np.ones((N, K), np.float32))
    assert_same_bits([added], [np.bincount(ids.ravel(), minlength=V).astype(np.float32)[:, None]])


@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.parametrize("N, C", [*SIZES, *WIDE])
def test_rmsnorm(ops, ref, rng, N, C, offset):
    x, dy, dx, w, dw = real(rng, N, C), real(rng, N, C), real(rng, N, C), real(rng, C), normal(rng, C)
    y, rstd = ops.rmsnorm(x, w, EPS, offset)
    want_y, want_rstd = ref.rmsnorm(x, w, EPS, offset)
    check_rounded(y, want_y)
    check_float(rstd, want_rstd)
    summed, same_rstd = ops.rmsnorm_add(dx, x, w, EPS, offset)
    check_rounded(summed, ref.rmsnorm_add(dx, x, w, EPS, offset)[0], noise=1e-6)
    assert_same_bits([same_rstd], [rstd])
    got_dx, got_dw = ops.rmsnorm_bwd_add(dx, dw, dy, x, w, want_rstd, offset)
    want_dx, want_dw = ref.rmsnorm_bwd_add(dx, dw, dy, x, w, want_rstd, offset)
    check_rounded(got_dx, want_dx)
    check_float(got_dw, want_dw)


@pytest.mark.parametrize("N, C", [*SIZES, *WIDE])
def test_layernorm(ops, ref, rng, N, C):
    """Rows far from zero, whose variance is not the mean square less the squared mean."""
    x = bf16(real(rng, N, C) + 30 * normal(rng, N, 1))
    w, b, dy, dx, dw, db = real(rng, C), real(rng, C), real(rng, N, C), real(rng, N, C), normal(rng, C), normal(rng, C)
    want_y, want_mean, want_rstd = ref.layernorm(x, w, b, EPS)
    y, mean, rstd = ops.layernorm(x, w, b, EPS)
    check_rounded(y, want_y, noise=1e-5)
    check_float(mean, want_mean)
    check_float(rstd, want_rstd)
    got = ops.layernorm_bwd_add(dx, dw, db, dy, x, w, want_mean, want_rstd)
    want = ref.layernorm_bwd_add(dx, dw, db, dy, x, w, want_mean, want_rstd)
    check_rounded(got[0], want[0], noise=1e-5)
    check_float(got[1], want[1], 1e-5)
    check_float(got[2], want[2])


@pytest.mark.parametrize("theta", [1e4, 1e6])
def test_rope_table_at_large_positions(ops, ref, theta):
    positions = np.array([0, 1, 2, 31, 1000, 32767, 100000, 1 << 20], np.int32)
    frequencies = (theta ** (-np.arange(40) / 40)).astype(np.float32)[None]
    for got, want in zip(ops.rope_table(positions[None], frequencies), ref.rope_table(positions[None], frequencies),
                         strict=True):
        assert np.abs(got - want).max() <= 2.0**-24


def test_scaled_rope_table(ops, rng):
    """Every element times scale, once more rounded."""
    positions, scale = rng.integers(0, 9000, (1, 33)).astype(np.int32), np.float32(1.2079)
    frequencies = inv_freq(np.zeros(20, int), 1e4)[None]
    assert_same_bits(ops.rope_table(positions, frequencies, scale=scale),
                     [scale * part for part in ops.rope_table(positions, frequencies)])


@pytest.mark.parametrize("N", [1, 33])
@pytest.mark.parametrize("name", AXES)
def test_rope_table_of_several_axes(ops, rng, name, N):
    """Pair j has the bits of a table of its axis alone, in a batch as in a row alone."""
    axis = AXES[name].astype(np.int32)
    positions, frequencies = rng.integers(0, 9000, (axis.max() + 1, N)).astype(np.int32), inv_freq(axis, 1e6)[None]
    table = ops.rope_table(positions, frequencies, axis)
    alone = [ops.rope_table(row[None], frequencies) for row in positions]
    for part, got in enumerate(table):
        assert_same_bits([got], [np.stack([alone[a][part][:, j] for j, a in enumerate(axis)], axis=1)])
    assert_same_bits(ops.rope_table(positions[:, -1:].copy(), frequencies, axis), [part[-1:] for part in table])


@pytest.mark.parametrize("axes", [1, 2])
def test_rope_table_of_several_ropes(ops, rng, axes):
    """A row has the bits of a table of its rope alone, in a batch as in a row alone."""
    N, half, ropes = 41, 20, 5
    positions, which = rng.integers(0, 9000, (axes, N)).astype(np.int32), rng.integers(0, ropes, N).astype(np.int32)
    frequencies = np.exp(-9 * rng.random((ropes, half))).astype(np.float32)
    axis = np.arange(half, dtype=np.int32) % axes
    table = ops.rope_table(positions, frequencies, axis, which, scale=1.3)
    alone = [ops.rope_table(positions, rope[None], axis, scale=1.3) for rope in frequencies]
    for part, got in enumerate(table):
        assert_same_bits([got], [np.stack([alone[which[i]][part][i] for i in range(N)])])
    assert_same_bits(ops.rope_table(positions[:, -1:].copy(), frequencies, axis, which[-1:], scale=1.3),
                     [part[-1:] for part in table])


@pytest.mark.parametrize("length", [2, 16, 2048, 1 << 30])
def test_log_scale(ops, length):
    positions = np.unique(np.clip([0, 1, 14, 15, 16, 31, 2046, 2047, 2048, 4095, 32767, 10**6, length - 2, length - 1,
                                   length, 3 * length - 1], 0, (1 << 31) - 2)).astype(np.int32)
    got, want = ops.log_scale(positions, length), np.log(positions + 1.0) / np.log(length)
    within = positions < length
    assert (got[within] == 1).all() and (got[~within] >= 1).all()
    np.testing.assert_allclose(got[~within], want[~within], rtol=3e-7)
    assert_same_bits([ops.log_scale(positions[-1:], length)], [got[-1:]])


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("Hq, Hkv, D", HEADS)
def test_scaled_queries(ops, ref, rng, Hq, Hkv, D, norm):
    """Rounded once; a scale of 1 has the bits of none, and keys have no other."""
    N, first_key = 35, Hq * D
    x, d = real(rng, N, (Hq + 2 * Hkv) * D), real(rng, N, (Hq + 2 * Hkv) * D)
    wq, wk = (real(rng, D), real(rng, D)) if norm else (None, None)
    dwq, dwk = (normal(rng, D), normal(rng, D)) if norm else (None, None)
    table = tables(ref, rng, N, D)
    scale = np.where(rng.random(N) < 0.3, 1, 1 + rng.random(N)).astype(np.float32)

    def run(ops, q_scale):
        back = ops.rope_bwd(d, dwq, dwk, x, wq, wk, EPS, *table, q_scale, Hq, Hkv, D)
        return [ops.rope(x, wq, wk, EPS, *table, q_scale, Hq, Hkv, D), *(back if norm else [back])]

    plain, got, want = run(ops, None), run(ops, scale), run(ref, scale)
    assert_same_bits(run(ops, np.ones(N, np.float32)), plain)
    for k in range(2):
        check_rounded(got[k], want[k])
        assert_same_bits([got[k][:, first_key:], got[k][scale == 1]], [plain[k][:, first_key:], plain[k][scale == 1]])
    for k in range(2, len(got)):
        check_float(got[k], want[k])


@pytest.mark.parametrize("norm, offset", [(False, 0.0), (True, 0.0), (True, 1.0)])
@pytest.mark.parametrize("N", [1, 35])
@pytest.mark.parametrize("Hq, Hkv, D", HEADS)
def test_rope(ops, ref, rng, Hq, Hkv, D, N, norm, offset):
    x, d = real(rng, N, (Hq + 2 * Hkv) * D), real(rng, N, (Hq + 2 * Hkv) * D)
    wq, wk = (real(rng, D), real(rng, D)) if norm else (None, None)
    dwq, dwk = (normal(rng, D), normal(rng, D)) if norm else (None, None)
    cos, sin = tables(ref, rng, N, D)
    check_rounded(ops.rope(x, wq, wk, EPS, cos, sin, None, Hq, Hkv, D, offset),
                  ref.rope(x, wq, wk, EPS, cos, sin, None, Hq, Hkv, D, offset))
    got = ops.rope_bwd(d, dwq, dwk, x, wq, wk, EPS, cos, sin, None, Hq, Hkv, D, offset)
    want = ref.rope_bwd(d, dwq, dwk, x, wq, wk, EPS, cos, sin, None, Hq, Hkv, D, offset)
    if not norm:
        check_rounded(got, want)
        return
    check_rounded(got[0], want[0])
    check_float(got[1], want[1])
    check_float(got[2], want[2])


@pytest.mark.parametrize("gate", range(2))
@pytest.mark.parametrize("N, F", SIZES)
def test_glu(ops, ref, rng, N, F, gate):
    gu, dy = real(rng, N, 2 * F, scale=3), real(rng, N, F)
    check_rounded(ops.glu(gu, gate), ref.glu(gu, gate))
    check_rounded(ops.glu_bwd(dy, gu, gate), ref.glu_bwd(dy, gu, gate))


@pytest.mark.parametrize("gate", range(2))
def test_glu_far_from_zero(ops, ref, gate):
    g = np.array([-1e30, -300, -100, -88, -20, 0, 20, 88, 100, 300, 1e30], np.float32)
    gu, dy = bf16(np.concatenate([g, np.ones_like(g)])[None]), np.ones((1, len(g)), np.float32)
    for got, want in [(ops.glu(gu, gate), ref.glu(gu, gate)), (ops.glu_bwd(dy, gu, gate), ref.glu_bwd(dy, gu, gate))]:
        np.testing.assert_allclose(got, want, rtol=2.0**-8, atol=1e-30)


@pytest.mark.parametrize("kind", range(3))
@pytest.mark.parametrize("N, F", SIZES)
def test_gelu(ops, ref, rng, N, F, kind):
    z, d = real(rng, N, F, scale=3), real(rng, N, F)
    check_rounded(ops.gelu(z, kind), ref.gelu(z, kind))
    check_rounded(ops.gelu_bwd(d, z, kind), ref.gelu_bwd(d, z, kind))


@pytest.mark.parametrize("kind", range(3))
def test_gelu_everywhere(ops, ref, kind):
    """Every magnitude that bfloat16 has: small results keep their digits, large arguments are no NaN."""
    z = (np.arange(0x7f80, dtype=np.uint32) << 16).view(np.float32)
    z, d = np.stack([z, -z]), np.ones((2, len(z)), np.float32)
    for got, want in [(ops.gelu(z, kind), ref.gelu(z, kind)), (ops.gelu_bwd(d, z, kind), ref.gelu_bwd(d, z, kind))]:
        near = np.abs(want) < 1e38                              # where the last rounding makes no infinity
        np.testing.assert_allclose(got[near], want[near], rtol=2.0**-8, atol=1e-30)
    assert np.isnan(ops.gelu(np.full((1, 3), np.nan, np.float32), kind)).all()


@pytest.mark.parametrize("n", [0, 1, 15, 16384, 40001])
def test_sum_squares_and_lerp(ops, ref, rng, n):
    w, g = normal(rng, n), normal(rng, n)
    np.testing.assert_allclose(ops.lerp(w, g, 0.3), ref.lerp(w, g, 0.3), rtol=1e-6, atol=1e-6)
    assert ops.sum_squares(g) == pytest.approx(float(np.sum(np.square(np.float64(g)))), rel=1e-12)


def test_sum_squares_of_large_and_bad_numbers(ops):
    g = np.ones(20000, np.float32)
    g[17000] = 1e30
    assert ops.sum_squares(g) == pytest.approx(1e60, rel=1e-6)
    for bad in (np.inf, np.nan):
        g[3] = bad
        assert not np.isfinite(ops.sum_squares(g))


@pytest.mark.parametrize("C", [48, 77])
def test_a_row_is_the_same_alone_and_in_any_batch(ops, rng, C):
    """Rollout = training."""
    N, Hq, Hkv, D = 37, 3, 1, 16
    x, dy, dx, w = real(rng, N, C), real(rng, N, C), real(rng, N, C), real(rng, C)
    gu, dh, qkv = real(rng, N, 2 * C), real(rng, N, C), real(rng, N, (Hq + 2 * Hkv) * D)
    wq, wk, zeros = real(rng, D), real(rng, D), np.zeros(D, np.float32)
    cos, sin = tables(ops, rng, N, D)
    q_scale = ops.log_scale(np.arange(N, dtype=np.int32), 16)
    ids, weights = taps(rng, N, 4, len(x))

    def table(rows):
        return cos[rows], sin[rows], q_scale[rows]

    def run(rows):
        y, rstd = ops.rmsnorm(x[rows], w, EPS)
        heads, zero, normed = (Hq, Hkv, D), np.zeros(C, np.float32), ops.layernorm(x[rows], w, w, EPS)
        return [y, rstd, ops.rmsnorm_bwd_add(dx[rows], zero, dy[rows], x[rows], w, rstd)[0],
                *ops.rmsnorm_add(dx[rows], x[rows], w, EPS, 1.0), *(ops.glu(gu[rows], gate) for gate in range(2)),
                *(ops.glu_bwd(dh[rows], gu[rows], gate) for gate in range(2)),
                *(ops.gelu(gu[rows], kind) for kind in range(3)),
                *(ops.gelu_bwd(gu[rows], gu[rows], kind) for kind in range(3)), *normed,
                ops.layernorm_bwd_add(dx[rows], zero, zero, dy[rows], x[rows], w, *normed[1:])[0],
                ops.embed_mix(x, ids[rows], weights[rows]),
                ops.rope(qkv[rows], wq, wk, EPS, *table(rows), *heads),
                ops.rope_bwd(qkv[rows], zeros, zeros, qkv[rows], wq, wk, EPS, *table(rows), *heads)[0]]

    whole = run(slice(None))
    for rows in (slice(0, 1), slice(5, 8), slice(20, 37)):
        assert_same_bits(run(rows), [part[rows] for part in whole])


@pytest.mark.parametrize("split", [32, 64])
@pytest.mark.parametrize("C", [70, 96])
def test_weight_gradients_do_not_depend_on_the_split(ops, rng, C, split):
    """Same seed, same run."""
    N, Hq, Hkv, D = 90, 3, 1, 80
    x, dy, w = real(rng, N, C), real(rng, N, C), real(rng, C)
    qkv, d = real(rng, N, (Hq + 2 * Hkv) * D), real(rng, N, (Hq + 2 * Hkv) * D)
    wq, wk, ids = real(rng, D), real(rng, D), rng.integers(5, size=N).astype(np.int32)
    (mixed, weights), (cos, sin) = taps(rng, N, 4, 5), tables(ops, rng, N, D)
    q_scale = ops.log_scale(np.arange(N, dtype=np.int32), 16)
    _, rstd = ops.rmsnorm(x, w, EPS)
    _, mean, layer_rstd = ops.layernorm(x, w, w, EPS)

    def add(sums, rows):
        dw, layer_dw, layer_db, dwq, dwk, dE, table = sums
        _, dw = ops.rmsnorm_bwd_add(x[rows], dw, dy[rows], x[rows], w, rstd[rows])
        _, layer_dw, layer_db = ops.layernorm_bwd_add(x[rows], layer_dw, layer_db, dy[rows], x[rows], w, mean[rows],
                                                      layer_rstd[rows])
        _, dwq, dwk = ops.rope_bwd(d[rows], dwq, dwk, qkv[rows], wq, wk, EPS, cos[rows], sin[rows], q_scale[rows], Hq,
                                   Hkv, D)
        return (dw, layer_dw, layer_db, dwq, dwk, ops.embed_dw(dE, dy[rows], ids[rows]),
                ops.embed_mix_dw(table, dy[rows], mixed[rows], weights[rows], 1.7))

    start = *(normal(rng, n) for n in (C, C, C, D, D)), normal(rng, 5, C), normal(rng, 5, C)
    assert_same_bits(add(add(start, slice(0, split)), slice(split, N)), add(start, slice(0, N)))


def test_no_rows_are_no_work(ops):
    none, ids = np.zeros((0, 16), np.float32), np.zeros(0, np.int32)
    E, w = np.ones((3, 16), np.float32), np.ones(16, np.float32)
    assert (ops.embed(E, ids).shape == (0, 16) and ops.glu(none, 0).shape == (0, 8)
            and ops.rmsnorm(none, w, EPS)[0].shape == (0, 16))
    assert (ops.gelu(none, 0).shape == ops.gelu_bwd(none, none, 0).shape == ops.layernorm(none, w, w, EPS)[0].shape
            == (0, 16))
    assert_same_bits([ops.embed_dw(E, none, ids), ops.scatter_rows_add(E, none, ids)], [E, E])
    for N, K in [(0, 4), (2, 0)]:
        ids, weights, zeros = np.zeros((N, K), np.int32), np.zeros((N, K), np.float32), np.zeros((N, 16), np.float32)
        assert (ops.embed_mix(E, ids, weights) == zeros).all()
        assert_same_bits([ops.embed_mix_dw(E, zeros, ids, weights)], [E])
    assert_same_bits([ops.rmsnorm_bwd_add(none, w, none, none, w, w[:0])[1]], [w])
    assert_same_bits(ops.layernorm_bwd_add(none, w, w, none, none, w, w[:0], w[:0])[1:], [w, w])
