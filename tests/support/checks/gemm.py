"""linear, its gradients and logits: against float64, and the bits that must not change with the batch, its split or the
tile that a GPU chooses."""
import numpy as np
import pytest

from checks import assert_same_bits, real
from grpo import _core
from grpo.errors import ConfigError
from op_statements import bf16, normal

SHAPES = [  # N, C, O: odd ones, and multiples of 8 around the tiles' edges
    (1, 1, 1), (1, 5, 3), (2, 32, 32), (3, 33, 31), (4, 64, 100), (5, 577, 65), (7, 31, 257), (17, 64, 129),
    (1, 520, 24),
    (12, 48, 40), (16, 136, 88), (33, 72, 200), (65, 8, 136), (96, 70, 33), (129, 96, 264), (300, 129, 65),
    (300, 40, 48),
]
BITS = [(300, 97, 130), (300, 96, 136)]
TILES = ["16x16", "16x64", "32x32", "64x16", "64x32", "64x64", "128x128", "128x256"]


@pytest.fixture(autouse=True)
def own_kernels(monkeypatch):
    monkeypatch.setenv("GRPO_CUDA_GEMM", "own")


def operands(rng, N, C, O):
    """x (N, C), W (O, C), b (O), y (N, O), dy (N, O)."""
    return [real(rng, *shape) for shape in ((N, C), (O, C), (O,), (N, O), (N, O))]


def double(*arrays):
    return [np.asarray(a, np.float64) for a in arrays]


def check_naive(got, want, naive):
    """`got` is off by at most twice what the naive bfloat16 computation is off."""
    assert np.abs(got - want).max() <= 2 * np.abs(naive - want).max() + 1e-30


def check_sums(got, want, magnitude):
    """fp32 sums: `magnitude` is the sum of the terms' absolute values. Tensor cores truncate after every 8 or 16 terms:
    over 4864 of them that was 1.4 times 2^-20 in an exact computation."""
    assert (np.abs(got - want) <= 2.0**-19 * magnitude).all()


@pytest.mark.parametrize("N, C, O", SHAPES)
def test_linear(ops, rng, N, C, O):
    x, W, b, y, _ = operands(rng, N, C, O)
    x64, W64 = double(x, W)
    want, naive = x64 @ W64.T, bf16(x @ W.T)
    check_naive(ops.linear(x, W), want, naive)
    check_naive(ops.linear(x, W, b), want + b, bf16(naive + b))
    check_naive(ops.linear_add(y, x, W, b), want + b + y, bf16(bf16(naive + b) + y))
    check_sums(ops.logits(x, W), want, np.abs(x64) @ np.abs(W64).T)


@pytest.mark.parametrize("N, C, O", SHAPES)
def test_linear_gradients(ops, rng, N, C, O):
    x, W, _, _, dy = operands(rng, N, C, O)
    x64, W64, dy64 = double(x, W, dy)
    check_naive(ops.linear_dx(dy, W), dy64 @ W64, bf16(dy @ W))
    dW, db = normal(rng, O, C), normal(rng, O)
    got_dW, got_db = ops.linear_dw(dW, db, dy, x)
    check_sums(got_dW, dW + dy64.T @ x64, np.abs(dW) + np.abs(dy64).T @ np.abs(x64))
    check_sums(got_db, db + dy64.sum(0), np.abs(db) + np.abs(dy64).sum(0))
    assert_same_bits([ops.linear_dw(dW, None, dy, x)], [got_dW])


def test_no_rows(ops, rng):
    x, W, b, y, dy = operands(rng, 0, 24, 40)
    dW, db = normal(rng, 40, 24), normal(rng, 40)
    assert (ops.linear_add(y, x, W, b).shape == ops.logits(x, W).shape == (0, 40)
            and ops.linear_dx(dy, W).shape == (0, 24))
    assert_same_bits(ops.linear_dw(dW, db, dy, x), [dW, db])


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("N, C, O", [(1, 64, 128), (150, 136, 328)])
def test_the_tile_changes_no_bit(ops, rng, monkeypatch, tile, N, C, O):
    x, W, b, y, dy = operands(rng, N, C, O)
    dW, db = normal(rng, O, C), normal(rng, O)

    def everything(ops):
        return ops.linear_add(y, x, W, b), ops.logits(x, W), ops.linear_dx(dy, W), *ops.linear_dw(dW, db, dy, x)

    want = everything(ops)
    monkeypatch.setenv("GRPO_CUDA_TILE", tile)
    assert_same_bits(everything(_core.Ops("cuda")), want)


@pytest.mark.parametrize("variable, value, said", [("TILE", "large", "128x64"), ("WGMMA", "yes", "0 or 1")])
def test_bad_switches(ops, monkeypatch, variable, value, said):
    monkeypatch.setenv(f"GRPO_CUDA_{variable}", value)
    with pytest.raises(ConfigError, match=f"GRPO_CUDA_{variable}={value}.*{said}"):
        _core.Ops("cuda")


def check_rows(ops, rng, N, C, O):
    x, W, b, y, dy = operands(rng, N, C, O)

    def products(rows):
        return (ops.linear(x[rows], W), ops.linear_add(y[rows], x[rows], W, b), ops.logits(x[rows], W),
                ops.linear_dx(dy[rows], W))

    whole, start = products(slice(None)), 0
    for n in (1, 2, 7, 15, 16, 17, 33, 64, 65):
        rows = slice(start, start + n)
        assert_same_bits(products(rows), [array[rows] for array in whole])
        start += n


@pytest.mark.parametrize("N, C, O", BITS)
def test_a_row_is_the_same_alone_and_in_any_batch(ops, rng, N, C, O):
    check_rows(ops, rng, N, C, O)


@pytest.mark.parametrize("N, C, O", BITS)
@pytest.mark.parametrize("cuts", [[32], [96, 160], [32, 64, 288]])
def test_weight_gradients_do_not_see_the_split(ops, rng, N, C, O, cuts):
    x, _, _, _, dy = operands(rng, N, C, O)
    whole = split = normal(rng, O, C), normal(rng, O)
    for begin, end in zip([0, *cuts], [*cuts, N], strict=True):
        split = ops.linear_dw(*split, dy[begin:end], x[begin:end])
    assert_same_bits(split, ops.linear_dw(*whole, dy, x))


@pytest.mark.parametrize("N, C, O", [(1, 33, 35), (13, 33, 35), (100, 35, 33), (40, 32, 32), (4, 40, 72)])
def test_nan_stays_where_it_belongs(ops, rng, N, C, O):
    x, W, b, y, dy = operands(rng, N, C, O)
    dW, db = normal(rng, O, C), normal(rng, O)
    n, c, o = N // 2, C // 2, O - 1
    clean_y, clean_dx, (clean_dW, clean_db) = (ops.linear_add(y, x, W, b), ops.linear_dx(dy, W),
                                               ops.linear_dw(dW, db, dy, x))

    def poisoned(array, *index):
        array = array.copy()
        array[index] = np.nan
        return array

    def same_except(got, want, *index):
        np.testing.assert_array_equal(got, poisoned(want, *index))

    every = slice(None)
    same_except(ops.linear_add(y, poisoned(x, n), W, b), clean_y, n)
    same_except(ops.linear_add(y, x, poisoned(W, o), b), clean_y, every, o)
    same_except(ops.linear_dx(poisoned(dy, n), W), clean_dx, n)
    same_except(ops.linear_dx(dy, poisoned(W, every, c)), clean_dx, every, c)
    same_except(ops.linear_dw(dW, db, dy, poisoned(x, every, c))[0], clean_dW, every, c)
    for got, want in zip(ops.linear_dw(dW, db, poisoned(dy, every, o), x), (clean_dW, clean_db), strict=True):
        same_except(got, want, o)
