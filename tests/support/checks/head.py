"""The fused head: against float64, and the bits that must not change with the batch, its split or the tile."""
import numpy as np
import pytest

from checks import assert_same_bits, check_float, real
from grpo import _core
from op_statements import bf16, head, log_softmax, normal

SHAPES = [(1, 1, 1), (1, 8, 40), (5, 33, 257), (40, 64, 1000), (70, 31, 33), (130, 24, 320), (65, 72, 64)]  # R, C, V


def problem(rng, R, C, V):
    """h (R, C), W (V, C), target, coef, ecoef (R), dW (V, C)."""
    h, W = bf16(normal(rng, R, C) / np.sqrt(C)), real(rng, V, C)
    return h, W, rng.integers(V, size=R).astype(np.int32), normal(rng, R), normal(rng, R), normal(rng, V, C)


def check_head(ops, h, W, target, coef, ecoef, dW, inv_temperature):
    """Statistics, and both gradients with and without a coefficient on the entropy."""
    h64, W64, inv = h.astype(np.float64), W.astype(np.float64), float(np.float32(inv_temperature))
    all_logp = log_softmax(h64 @ W64.T * inv)
    want_logp, want_entropy = head(h64, W64, target, inv)
    logp, entropy = ops.head(h, W, target, inv)
    limit = 1e-6 * (1 + np.abs(all_logp).max())
    assert np.abs(logp - want_logp).max() <= limit and np.abs(entropy - want_entropy).max() <= limit
    p, hit = np.exp(all_logp), np.arange(len(W)) == target[:, None]
    for e in (None, ecoef):
        dz = coef[:, None] * (hit - p) - (0 if e is None else e[:, None] * p * (all_logp + want_entropy[:, None]))
        dz *= inv
        same_logp, same_entropy, dh, got_dW = ops.head_bwd(dW, h, W, target, coef, e, inv)
        assert_same_bits([same_logp, same_entropy], [logp, entropy])
        rounded = bf16(dz)
        assert np.abs(dh - dz @ W64).max() <= 2 * np.abs(bf16(rounded @ W) - dz @ W64).max() + 1e-6
        assert np.abs(got_dW - (dW + dz.T @ h64)).max() <= 2 * np.abs(rounded.T @ h - dz.T @ h64).max() + 1e-6


@pytest.mark.parametrize("R, C, V", SHAPES)
@pytest.mark.parametrize("inv_temperature", [1.0, 0.7])
def test_head(ops, rng, R, C, V, inv_temperature):
    check_head(ops, *problem(rng, R, C, V), inv_temperature)


def test_no_rows(ops, rng):
    h, W, target, coef, ecoef, dW = problem(rng, 0, 24, 40)
    assert_same_bits(ops.head_bwd(dW, h, W, target, coef, ecoef)[2:], [h, dW])


@pytest.mark.parametrize("tile", ["16x128", "64x128", "128x128", "64x64", "128x256"])
def test_the_tile_changes_no_bit(ops, rng, monkeypatch, tile):
    h, W, target, coef, ecoef, dW = problem(rng, 130, 40, 600)
    want = ops.head_bwd(dW, h, W, target, coef, ecoef, 0.7)
    monkeypatch.setenv("GRPO_CUDA_TILE", tile)
    assert_same_bits(_core.Ops("cuda").head_bwd(dW, h, W, target, coef, ecoef, 0.7), want)


@pytest.mark.parametrize("C", [31, 40])
def test_a_row_is_the_same_alone_and_in_any_batch(ops, rng, C):
    h, W, target, coef, ecoef, dW = problem(rng, 140, C, 300)
    whole = ops.head_bwd(dW, h, W, target, coef, ecoef)[:3]
    start = 0
    for n in (1, 2, 13, 16, 17, 64, 27):
        rows = slice(start, start + n)
        part = ops.head_bwd(dW, h[rows], W, target[rows], coef[rows], ecoef[rows])[:3]
        assert_same_bits(part, [array[rows] for array in whole])
        start += n


@pytest.mark.parametrize("cuts", [[32], [96, 160], [32, 64, 288]])
def test_weight_gradients_do_not_see_the_split(ops, rng, cuts):
    h, W, target, coef, _, dW = problem(rng, 300, 40, 130)
    split = dW
    for begin, end in zip([0, *cuts], [*cuts, 300], strict=True):
        split = ops.head_bwd(split, h[begin:end], W, target[begin:end], coef[begin:end])[3]
    assert_same_bits([split], [ops.head_bwd(dW, h, W, target, coef)[3]])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_row_that_is_not_finite_keeps_it_to_itself(ops, rng, bad):
    h, W, target, coef, ecoef, dW = problem(rng, 20, 24, 130)
    want = ops.head_bwd(dW, h, W, target, coef, ecoef)
    h[7, 3] = bad
    got = ops.head_bwd(dW, h, W, target, coef, ecoef)
    others = np.delete(np.arange(20), 7)
    assert_same_bits([array[others] for array in got[:3]], [array[others] for array in want[:3]])
    assert all(np.isnan(array[7]).all() for array in got[:3])


def test_logits_far_apart(ops, ref, rng):
    """Probabilities from 1 to far below what fp32 holds."""
    h, W = (np.ones((3, 8), np.float32),
            bf16(np.linspace(-400, 400, 300, dtype=np.float32))[:, None] * np.ones((1, 8), np.float32))
    target = np.array([0, 150, 299], np.int32)
    coef = np.ones(3, np.float32)
    got = ops.head_bwd(np.zeros_like(W), h, W, target, coef, coef)
    want = ref.head_bwd(np.zeros_like(W), h, W, target, coef, coef)
    np.testing.assert_allclose(got[:2], want[:2], rtol=1e-6, atol=1e-6)
    check_float(got[2], want[2], 2.0**-8)                   # dz is rounded to bfloat16
    check_float(got[3], want[3], 2.0**-8)
