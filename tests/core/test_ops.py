"""ref, the oracle: forward operations against NumPy in float64, backward operations against finite differences of
it."""
import numpy as np
import pytest

import checks.rows
import op_statements as np64
from checks import attention
from grpo import _core
from op_statements import decode_completions, group_segments, normal, relative_error

HEADS = [(1, 1, 16), (4, 2, 16), (8, 1, 64), (3, 3, 80), (6, 2, 104), (7, 1, 128)]        # Hq, Hkv, D
BATCHES = {                                                                               # prompt, completions...
    "one": [(7,)],
    "shared": [(5, 3, 0, 4)],
    "below a tile": [(31, 2, 1)],
    "a tile": [(32, 33, 1)],
    "above a tile": [(33, 31, 2)],
    "two groups": [(64, 1, 3), (1, 5)],
}
EPS = 1e-6
TOLERANCE = 1e-5                                        # of the largest element: float32 storage, float64 judge


def check_gradients(rng, forward, inputs, gradients):
    """`gradients` against central differences of `forward`, a scalar function of float64 arrays: along random
    directions and at random single elements. Both are dicts by input name."""
    x = {name: np.asarray(value, np.float64) for name, value in inputs.items()}
    for name, gradient in gradients.items():
        assert np.isfinite(gradient).all(), name
        directions = [rng.standard_normal(x[name].shape) for _ in range(3)]
        for flat in rng.integers(x[name].size, size=25):
            directions.append(np.zeros(x[name].shape))
            directions[-1].flat[flat] = 1
        for d in directions:
            h = 1e-4 / np.sqrt((d * d).mean() * d.size)
            numerical = (forward(**x | {name: x[name] + h * d}) - forward(**x | {name: x[name] - h * d})) / (2 * h)
            scale = np.abs(gradient).max() * np.sqrt((d * d).sum())
            assert abs((gradient * d).sum() - numerical) <= TOLERANCE * scale + 1e-9, name


def close(got, want):
    assert got.shape == np.shape(want)
    assert relative_error(got, want) <= 1e-6


# -- weights, rows, linear ------------------------------------------------------------------------------------------


def test_weight_rows(ref, rng):
    W, part = normal(rng, 37, 45), normal(rng, 5, 45)
    new = ref.weight_set(W, part, 30)
    assert (new[30:35] == part).all() and (np.delete(new, range(30, 35), 0) == np.delete(W, range(30, 35), 0)).all()
    assert (ref.weight_get(W, 7, 9) == W[7:16]).all()


@pytest.mark.parametrize("copy", ["copy", "cast", "vector_set"])
def test_float_storage_is_exact(ref, rng, copy):
    x = normal(rng, 33)
    assert (getattr(ref, copy)(x) == x).all()


def test_zero(ref, rng):
    assert (ref.zero(normal(rng, 9)) == 0).all()


def test_embed_and_rows(ref, rng):
    E, src = normal(rng, 11, 6), normal(rng, 5, 6)
    ids = np.array([3, 10, 3, 0, 3], np.int32)
    assert (ref.embed(E, ids) == E[ids]).all()
    close(ref.embed(E, ids, 1.7), 1.7 * E[ids])
    assert (ref.gather_rows(E, ids) == E[ids]).all()
    replaced = E.copy()
    replaced[[7, 0]] = src[:2]
    assert (ref.put_rows(E, src[:2], np.array([7, 0], np.int32)) == replaced).all()
    added = E.copy()
    np.add.at(added, ids, src)
    assert (ref.embed_dw(E, src, ids) == added).all()
    scaled = E.astype(np.float64)
    np.add.at(scaled, ids, 1.7 * src.astype(np.float64))
    close(ref.embed_dw(E, src, ids, 1.7), scaled)
    assert (ref.scatter_rows_add(E, src, ids) == added).all()


@pytest.mark.parametrize("scale", [1.0, 1.7])
@pytest.mark.parametrize("N, K, C", [(1, 1, 1), (5, 4, 6), (20, 16, 33)])
def test_embed_mix(ref, rng, N, K, C, scale):
    """The ids of a row may be the same."""
    E, dy, dE0 = normal(rng, 3, C), normal(rng, N, C), normal(rng, 3, C)
    ids, weights = rng.integers(3, size=(N, K), dtype=np.int32), normal(rng, N, K)
    close(ref.embed_mix(E, ids, weights, scale), np64.embed_mix(E.astype(np.float64), ids, weights, scale))
    dE = ref.embed_mix_dw(dE0, dy, ids, weights, scale)
    check_gradients(rng, lambda E: (dE0 * E).sum() + (dy * np64.embed_mix(E, ids, weights, scale)).sum(), {"E": E},
                    {"E": dE})


def test_a_mix_of_one_has_the_bits_of_an_embedding(ref, rng):
    checks.rows.test_a_mix_of_one_has_the_bits_of_an_embedding(ref, rng, 5, 7, 1.7)


@pytest.mark.parametrize("N, C, O", [(1, 1, 1), (3, 17, 5), (33, 100, 64), (70, 7, 129)])
def test_linear(ref, rng, N, C, O):
    x, W, b, y0, dy = normal(rng, N, C), normal(rng, O, C), normal(rng, O), normal(rng, N, O), normal(rng, N, O)
    want = x.astype(np.float64) @ W.astype(np.float64).T
    close(ref.linear(x, W), want)
    close(ref.linear(x, W, b), want + b)
    close(ref.linear_add(y0, x, W, b), y0 + want + b)
    close(ref.linear_dx(dy, W), dy.astype(np.float64) @ W)
    dW0, db0 = normal(rng, O, C), normal(rng, O)
    dW, db = ref.linear_dw(dW0, db0, dy, x)
    close(dW, dW0 + dy.astype(np.float64).T @ x)
    close(db, db0 + dy.astype(np.float64).sum(0))
    assert (ref.linear_dw(dW0, None, dy, x) == dW).all()


# -- norms, rope, activations ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.parametrize("N, C", [(1, 1), (5, 33), (40, 100)])
def test_rmsnorm(ref, rng, N, C, offset):
    x, w, dy, dx0, dw0 = normal(rng, N, C), normal(rng, C), normal(rng, N, C), normal(rng, N, C), normal(rng, C)
    y, rstd = ref.rmsnorm(x, w, EPS, offset)
    want = np64.rmsnorm(x.astype(np.float64), w, EPS, offset)
    close(y, want)
    close(rstd, 1 / np.sqrt((x.astype(np.float64) ** 2).mean(1) + EPS))
    summed, same_rstd = ref.rmsnorm_add(dx0, x, w, EPS, offset)
    close(summed, dx0 + want)
    assert (same_rstd == rstd).all()
    dx, dw = ref.rmsnorm_bwd_add(dx0, dw0, dy, x, w, rstd, offset)
    check_gradients(rng, lambda x, w: (dx0 * x).sum() + (dw0 * w).sum() + (dy * np64.rmsnorm(x, w, EPS, offset)).sum(),
                    {"x": x, "w": w},
                    {"x": dx, "w": dw})


@pytest.mark.parametrize("N, C", [(1, 2), (5, 33), (40, 100)])
def test_layernorm(ref, rng, N, C):
    x, w, b, dy, dx0, dw0, db0 = (normal(rng, *shape) for shape in [(N, C), (C,), (C,), (N, C), (N, C), (C,), (C,)])
    x += 10 * normal(rng, N, 1)
    y, mean, rstd = ref.layernorm(x, w, b, EPS)
    x64 = x.astype(np.float64)
    close(y, np64.layernorm(x64, w, b, EPS))
    close(mean, x64.mean(1))
    close(rstd, 1 / np.sqrt(x64.var(1) + EPS))
    dx, dw, db = ref.layernorm_bwd_add(dx0, dw0, db0, dy, x, w, mean, rstd)
    check_gradients(
        rng, lambda x, w, b: (dx0 * x).sum() + (dw0 * w).sum() + (db0 * b).sum()
        + (dy * np64.layernorm(x, w, b, EPS)).sum(),
        {"x": x, "w": w, "b": b}, {"x": dx, "w": dw, "b": db})


def test_rope_table_at_large_positions(ref):
    pos = np.array([0, 1, 31, 32767, 131071, 10**6], np.int32)
    inv_freq = (1e6 ** (-np.arange(0, 128, 2) / 128)).astype(np.float32)
    angle = (pos.astype(np.float32)[:, None] * inv_freq).astype(np.float64)
    cos, sin = ref.rope_table(pos[None], inv_freq[None])
    assert np.abs(cos - np.cos(angle)).max() < 1e-7 and np.abs(sin - np.sin(angle)).max() < 1e-7
    scaled = ref.rope_table(pos[None], inv_freq[None], scale=1.3)
    for got, want in zip(scaled, (np.cos(angle), np.sin(angle)), strict=True):
        close(got, np.float32(1.3) * want)


@pytest.mark.parametrize("name", np64.AXES)
def test_rope_table_of_several_axes(ref, rng, name):
    axis = np64.AXES[name].astype(np.int32)
    pos, inv_freq = rng.integers(0, 9000, (axis.max() + 1, 7)).astype(np.int32), np64.inv_freq(axis, 1e6)
    angle = (pos[axis].T.astype(np.float32) * inv_freq).astype(np.float64)
    cos, sin = ref.rope_table(pos, inv_freq[None], axis)
    assert np.abs(cos - np.cos(angle)).max() < 1e-7 and np.abs(sin - np.sin(angle)).max() < 1e-7


@pytest.mark.parametrize("axes", [1, 2])
def test_rope_table_of_several_ropes(ref, rng, axes):
    checks.rows.test_rope_table_of_several_ropes(ref, rng, axes)


@pytest.mark.parametrize("length", [2, 16, 2048, 1 << 30])
def test_log_scale(ref, length):
    checks.rows.test_log_scale(ref, length)


@pytest.mark.parametrize("Hq, Hkv, D", HEADS)
@pytest.mark.parametrize("norms, offset", [(False, 0.0), (True, 0.0), (True, 1.0)])
@pytest.mark.parametrize("scaled", [False, True])
def test_rope(ref, rng, Hq, Hkv, D, norms, offset, scaled):
    N = 5
    x, d = normal(rng, N, (Hq + 2 * Hkv) * D), normal(rng, N, (Hq + 2 * Hkv) * D)
    wq, wk = (normal(rng, D), normal(rng, D)) if norms else (None, None)
    table = ref.rope_table(np.arange(3, 3 + N, dtype=np.int32)[None],
                           (1e4 ** (-np.arange(0, D, 2) / D)).astype(np.float32)[None])
    table = [*table, 1 + rng.random(N).astype(np.float32) if scaled else None]
    close(ref.rope(x, wq, wk, EPS, *table, Hq, Hkv, D, offset),
          np64.rope(x.astype(np.float64), wq, wk, EPS, *table, Hq, Hkv, D, offset))
    if not norms:
        dx = ref.rope_bwd(d, None, None, x, None, None, EPS, *table, Hq, Hkv, D)
        check_gradients(rng, lambda x: (d * np64.rope(x, None, None, EPS, *table, Hq, Hkv, D)).sum(), {"x": x},
                        {"x": dx})
        return
    dwq0, dwk0 = normal(rng, D), normal(rng, D)
    dx, dwq, dwk = ref.rope_bwd(d, dwq0, dwk0, x, wq, wk, EPS, *table, Hq, Hkv, D, offset)
    check_gradients(
        rng, lambda x, wq, wk: (d * np64.rope(x, wq, wk, EPS, *table, Hq, Hkv, D, offset)).sum() + (dwq0 * wq).sum()
        + (dwk0 * wk).sum(),
        {"x": x, "wq": wq, "wk": wk}, {"x": dx, "wq": dwq, "wk": dwk})


@pytest.mark.parametrize("N, F", [(1, 1), (4, 33), (9, 100)])
@pytest.mark.parametrize("gate", range(2))
def test_glu(ref, rng, N, F, gate):
    gu, dy = 3 * normal(rng, N, 2 * F), normal(rng, N, F)
    close(ref.glu(gu, gate), np64.glu(gu.astype(np.float64), gate))
    check_gradients(rng, lambda gu: (dy * np64.glu(gu, gate)).sum(), {"gu": gu}, {"gu": ref.glu_bwd(dy, gu, gate)})


@pytest.mark.parametrize("kind", range(3))
@pytest.mark.parametrize("N, F", [(1, 1), (9, 100)])
def test_gelu(ref, rng, N, F, kind):
    z, d = 3 * normal(rng, N, F), normal(rng, N, F)
    close(ref.gelu(z, kind), np64.gelu(z.astype(np.float64), kind))
    check_gradients(rng, lambda z: (d * np64.gelu(z, kind)).sum(), {"z": z}, {"z": ref.gelu_bwd(d, z, kind)})


# -- attention ------------------------------------------------------------------------------------------------------


def attention_case(rng, batch, Hq, Hkv, D, gap=3):
    """Segments of BATCHES[batch] with `gap` rows that belong to none at the end."""
    segments, N = group_segments(*BATCHES[batch])
    return segments, normal(rng, N + gap, (Hq + 2 * Hkv) * D), normal(rng, N + gap, Hq * D)


@pytest.mark.parametrize("Hq, Hkv, D", HEADS)
@pytest.mark.parametrize("batch", BATCHES)
def test_attention(ref, rng, batch, Hq, Hkv, D):
    segments, qkv, dy = attention_case(rng, batch, Hq, Hkv, D)
    y, lse = ref.attention(qkv, segments, Hq, Hkv, D)
    want_y, want_lse = np64.attention(qkv.astype(np.float64), segments, Hq, Hkv, D)
    close(y, want_y)
    close(lse[:-3], want_lse[:-3])
    assert (y[-3:] == 0).all()
    dqkv = ref.attention_bwd(dy, y, lse, qkv, segments, Hq, Hkv, D)
    assert (dqkv[-3:] == 0).all()
    check_gradients(rng, lambda qkv: (dy * np64.attention(qkv, segments, Hq, Hkv, D)[0]).sum(), {"qkv": qkv},
                    {"qkv": dqkv})


@pytest.mark.parametrize("scale", [0.3, 1 / np.sqrt(80)])
def test_attention_of_another_scale(ref, rng, scale):
    heads = Hq, Hkv, D = 4, 2, 6
    segments, qkv, dy = attention_case(rng, "shared", Hq, Hkv, D)
    y, lse = ref.attention(qkv, segments, *heads, scale=scale)
    want_y, want_lse = np64.attention(qkv.astype(np.float64), segments, *heads, scale)
    close(y, want_y)
    close(lse[:-3], want_lse[:-3])
    dqkv = ref.attention_bwd(dy, y, lse, qkv, segments, *heads, scale=scale)
    check_gradients(rng, lambda qkv: (dy * np64.attention(qkv, segments, *heads, scale)[0]).sum(), {"qkv": qkv},
                    {"qkv": dqkv})


@pytest.mark.parametrize("Hq, Hkv, D, window", [*((4, 2, 6, window) for window in [1, 2, 31, 32, 33, 64, 100, 10**6]),
                                                (1, 1, 16, 5), (4, 1, 256, 33)])
def test_windows(ref, rng, Hq, Hkv, D, window):
    segments, N = group_segments((75, 60, 3), (40,))
    qkv, dy, heads = normal(rng, N, (Hq + 2 * Hkv) * D), normal(rng, N, Hq * D), (Hq, Hkv, D)
    y, lse = ref.attention(qkv, segments, *heads, window)
    want_y, want_lse = np64.attention(qkv.astype(np.float64), segments, *heads, window=window)
    close(y, want_y)
    close(lse, want_lse)
    dqkv = ref.attention_bwd(dy, y, lse, qkv, segments, *heads, window)
    check_gradients(rng, lambda qkv: (dy * np64.attention(qkv, segments, *heads, window=window)[0]).sum(), {"qkv": qkv},
                    {"qkv": dqkv})
    rows, decoded = decode_completions(ref, qkv, segments, *heads, window=window)
    assert all((mine == theirs[rows]).all() for mine, theirs in zip(decoded, (y, lse), strict=True))


@pytest.mark.parametrize("sight", attention.SIGHTS.values(), ids=attention.SIGHTS)
@pytest.mark.parametrize("view", attention.VIEWS)
@pytest.mark.parametrize("Hq, Hkv, D", [(1, 1, 16), (4, 2, 6)])
def test_sights(ref, rng, Hq, Hkv, D, view, sight):
    segments, heads = np.array(attention.VIEWS[view], np.int32), (Hq, Hkv, D)
    N = (segments[:, 0] + segments[:, 1]).max() + 3
    qkv, dy = normal(rng, N, (Hq + 2 * Hkv) * D), normal(rng, N, Hq * D)
    y, lse = ref.attention(qkv, segments, *heads, sight=sight)
    want_y, want_lse = np64.attention(qkv.astype(np.float64), segments, *heads, sight=sight)
    close(y, want_y)
    close(lse, want_lse)
    blind = ~np64.visible(segments, N, sight=sight).any(1)
    dqkv = ref.attention_bwd(dy, y, lse, qkv, segments, *heads, sight=sight)
    assert blind[-3:].all() and not y[blind].any() and not lse[blind].any() and not dqkv[blind, :Hq * D].any()
    check_gradients(rng, lambda qkv: (dy * np64.attention(qkv, segments, *heads, sight=sight)[0]).sum(), {"qkv": qkv},
                    {"qkv": dqkv})


@pytest.mark.parametrize("shape", [{}, {"window": 3}, {"window": 40}, {"sight": 1}, {"sight": 2}, {"scale": 0.3}],
                         ids=str)
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("Hq, Hkv, D", [(1, 1, 16), (4, 2, 6)])
def test_attention_weights(ref, rng, Hq, Hkv, D, batch, shape):
    segments, qkv, _ = attention_case(rng, batch, Hq, Hkv, D)
    y, lse = ref.attention(qkv, segments, Hq, Hkv, D, **shape)
    index = np.r_[rng.permutation(len(qkv)), 0].astype(np.int32)                     # in any order, one twice
    p = ref.attention_weights(lse, qkv, index, segments, Hq, Hkv, D, **shape)
    close(p, np64.attention_weights(qkv.astype(np.float64), segments, index, Hq, Hkv, D, **shape))
    sees = np64.visible(segments, len(qkv), shape.get("window", 0), shape.get("sight", 0))[index]
    assert not p[~np.broadcast_to(sees[:, None], p.shape)].any()
    np.testing.assert_allclose(p.sum(-1), np.broadcast_to(sees.any(1)[:, None], p.shape[:2]), atol=1e-6)
    values = np.repeat(np64.split_heads(qkv, Hq, Hkv, D)[2], Hq // Hkv, axis=1)      # what they weigh is y
    close(np.einsum("rhj,jhd->rhd", p, values).reshape(len(index), -1), y[index])


@pytest.mark.parametrize("Hq, Hkv, D", HEADS)
@pytest.mark.parametrize("batch", ["shared", "below a tile", "a tile", "above a tile", "two groups"])
def test_decoding_has_the_bits_of_attention(ref, rng, batch, Hq, Hkv, D):
    segments, qkv, _ = attention_case(rng, batch, Hq, Hkv, D)
    packed = ref.attention(qkv, segments, Hq, Hkv, D)
    rows, decoded = decode_completions(ref, qkv, segments, Hq, Hkv, D)
    assert rows and all((mine == theirs[rows]).all() for mine, theirs in zip(decoded, packed, strict=True))


def test_a_completion_does_not_depend_on_its_batch(ref, rng):
    Hq, Hkv, D = 4, 2, 16
    segments, N = group_segments((40, 9, 17))
    qkv = normal(rng, N, (Hq + 2 * Hkv) * D)
    y, _ = ref.attention(qkv, segments, Hq, Hkv, D)
    alone, rows = group_segments((40, 17))
    y_alone, _ = ref.attention(np.delete(qkv, range(40, 49), 0), alone, Hq, Hkv, D)
    assert (y_alone[40:] == y[49:]).all() and (y_alone[:40] == y[:40]).all()


# -- head -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("R, C, V", [(1, 3, 2), (6, 17, 50), (33, 8, 131)])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("with_entropy", [False, True])
def test_head(ref, rng, R, C, V, temperature, with_entropy):
    h, W, coef, ecoef = normal(rng, R, C), normal(rng, V, C), normal(rng, R), normal(rng, R) * with_entropy
    target = rng.integers(V, size=R, dtype=np.int32)
    inv = float(np.float32(1 / temperature))
    logp, entropy = ref.head(h, W, target, inv)
    want_logp, want_entropy = np64.head(h.astype(np.float64), W.astype(np.float64), target, inv)
    close(logp, want_logp)
    close(entropy, want_entropy)
    dW0 = normal(rng, V, C)
    *same, dh, dW = ref.head_bwd(dW0, h, W, target, coef, ecoef if with_entropy else None, inv)
    assert (same[0] == logp).all() and (same[1] == entropy).all()

    def objective(h, W):
        logp, entropy = np64.head(h, W, target, inv)
        return (dW0 * W).sum() + (coef * logp + ecoef * entropy).sum()

    check_gradients(rng, objective, {"h": h, "W": W}, {"h": dh, "W": dW})


def test_logits(ref, rng):
    h, W = normal(rng, 4, 19), normal(rng, 33, 19)
    close(ref.logits(h, W), h.astype(np.float64) @ W.T)


# -- bits that do not depend on the batch: rollout = training; same seed, same run -------------------------------------


def test_rows_do_not_depend_on_the_batch(ref, rng):
    x, W, h = normal(rng, 40, 33), normal(rng, 21, 33), normal(rng, 40, 33)
    target = rng.integers(21, size=40, dtype=np.int32)
    for rows in (slice(3, 4), slice(10, 37)):
        assert (ref.linear(x[rows], W) == ref.linear(x, W)[rows]).all()
        for part, whole in zip(ref.head(h[rows], W, target[rows]), ref.head(h, W, target), strict=True):
            assert (part == whole[rows]).all()


@pytest.mark.parametrize("split", [32, 64])
def test_gradients_of_weights_do_not_depend_on_the_split(ref, rng, split):
    N, C, O = 90, 20, 11
    x, dy, W = normal(rng, N, C), normal(rng, N, O), normal(rng, O, C)
    w, rstd, coef = normal(rng, C), ref.rmsnorm(x, np.ones(C, np.float32), EPS)[1], normal(rng, N)
    ids, mean = rng.integers(O, size=N, dtype=np.int32), normal(rng, N)
    mixed, weights = rng.integers(O, size=(N, 4), dtype=np.int32), normal(rng, N, 4)
    zero = np.zeros((O, C), np.float32)
    parts = slice(0, split), slice(split, N)
    operations = {
        "linear_dw": lambda g, s: ref.linear_dw(g, None, dy[s], x[s]),
        "embed_dw": lambda g, s: ref.embed_dw(g, x[s], ids[s]),
        "embed_mix_dw": lambda g, s: ref.embed_mix_dw(g, x[s], mixed[s], weights[s]),
        "rmsnorm_bwd_add": lambda g, s: ref.rmsnorm_bwd_add(x[s], g[0], x[s], x[s], w, rstd[s])[1][None],
        "layernorm_bwd_add": lambda g, s: np.stack(ref.layernorm_bwd_add(x[s], g[0], g[1], x[s], x[s], w, mean[s],
                                                                         rstd[s])[1:]),
        "head": lambda g, s: ref.head_bwd(g, x[s], W, ids[s], coef[s])[3],
    }
    for name, run in operations.items():
        in_two = run(run(zero, parts[0]), parts[1])
        assert (in_two == run(zero, slice(0, N))).all(), name


# -- optimiser ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adamw(ref, rng, weight_decay):
    n, lr, beta1, beta2, eps, scale = 37, 1e-2, 0.9, 0.99, 1e-8, 0.5
    w = normal(rng, n)
    want, m64, v64 = w.astype(np.float64), np.zeros(n), np.zeros(n)
    m, v = np.zeros((2, n), np.float32)
    for t in range(1, 4):
        g = normal(rng, n)
        w, m, v = ref.adamw_vector(w, None, m, v, g, lr, beta1, beta2, eps, weight_decay, scale, 1 - beta1**t,
                                   1 - beta2**t)
        want *= 1 - lr * weight_decay
        m64 = beta1 * m64 + (1 - beta1) * scale * g
        v64 = beta2 * v64 + (1 - beta2) * (scale * g.astype(np.float64)) ** 2
        want -= lr / (1 - beta1**t) * m64 / (np.sqrt(v64 / (1 - beta2**t)) + eps)
        close(w, want)
    close(m, m64)
    close(v, v64)


def test_sum_squares_and_lerp(ref, rng):
    g, src = normal(rng, 1003), normal(rng, 1003)
    assert ref.sum_squares(g) == pytest.approx((g.astype(np.float64) ** 2).sum(), rel=1e-14)
    assert np.isinf(ref.sum_squares(np.array([1, np.inf], np.float32)))
    assert np.isnan(ref.sum_squares(np.array([1, np.nan], np.float32)))
    close(ref.lerp(g, src, 0.25), 0.75 * g.astype(np.float64) + 0.25 * src)
    assert (ref.lerp(g, src, 1.0) == src).all() and (ref.lerp(g, src, 0.0) == g).all()


@pytest.mark.parametrize("missing, message", [
    (("dwq",), "dwq and dwk"), (("dwk",), "dwq and dwk"), (("dwq", "dwk"), "dwq and dwk"), (("wq",), "wq and wk"),
    (("wk",), "wq and wk")])
def test_the_weights_of_a_norm_go_together(device, rng, missing, message):
    given = {name: normal(rng, 4) for name in ("dwq", "dwk", "wq", "wk")} | dict.fromkeys(missing)
    rows = {name: normal(rng, 3, n) for name, n in (("x", 16), ("d", 16), ("cos", 2), ("sin", 2))}
    heads = dict(eps=1e-6, Hq=2, Hkv=1, D=4)
    with pytest.raises(ValueError, match=message):
        _core.Ops(device).rope_bwd(**rows, **given, **heads)
    if "wq and wk" in message:
        with pytest.raises(ValueError, match=message):
            _core.Ops(device).rope(rows["x"], given["wq"], given["wk"], heads["eps"], rows["cos"], rows["sin"], None,
                                   2, 1, 4)
