"""Resampling and patches: bytes and tables, so the bits are those of the statement in NumPy on any device."""
import numpy as np
import pytest

import op_statements as statement
from checks import assert_same_bits
from op_statements import normal

# H, M, N, C, taps: passes over rows (C = 3) and over columns, few and many taps, ends of vectors
PASSES = [(1, 1, 1, 1, 1), (2, 5, 2, 3, 2), (9, 33, 17, 3, 5), (3, 7, 64, 3, 7), (1, 40, 13, 100, 9), (1, 3, 5, 257, 3),
          (20, 200, 6, 3, 130), (17, 66, 9, 3, 64), (2, 4, 9, 7, 4), (1, 9, 3, 384, 2), (3, 20, 1, 3, 4)]
# H, W, P, T, G
IMAGES = [(1, 1, 1, 1, 1), (4, 8, 2, 2, 2), (28, 56, 14, 2, 2), (64, 32, 16, 2, 2), (15, 10, 5, 1, 1),
          (18, 36, 3, 3, 3)]


def pass_case(rng, H, M, N, C, taps):
    """Sums that leave 0..255 on both sides."""
    first = np.sort(rng.integers(0, M - taps + 1, N)).astype(np.int32)
    weight = (rng.normal(1 / taps, 1 / taps, (N, taps)) * 2**22).astype(np.int32)
    weight[np.abs(weight).sum(1) > 2**31 / 256] //= 8
    return rng.integers(0, 256, (H, M, C)).astype(np.uint8), first, weight


@pytest.mark.parametrize("H, M, N, C, taps", PASSES)
def test_resample(ops, rng, H, M, N, C, taps):
    case = pass_case(rng, H, M, N, C, taps)
    assert_same_bits([ops.resample(*case)], [statement.resample(*case)])


@pytest.mark.parametrize("C", [3, 80])
def test_sums_at_the_ends_of_their_range(ops, C):
    """The largest and the least sums that an int32 holds, and ties, which go up."""
    src = np.full((1, 2, C), 255, np.uint8)
    src[:, 1] = 1
    half = 2**21
    weight = np.array([[4 * half, 0], [-4 * half, 0], [0, half], [0, half - 1], [0, -half], [0, -half - 1],
                       [0, 3 * half]], np.int32)
    first = np.zeros(len(weight), np.int32)
    got = ops.resample(src, first, weight)
    assert got[0, :, 0].tolist() == [255, 0, 1, 0, 0, 0, 2] and (got == got[:, :, :1]).all()
    assert_same_bits([got], [statement.resample(src, first, weight)])


@pytest.mark.parametrize("H, W, P, T, G", IMAGES)
def test_patches(ops, rng, H, W, P, T, G):
    src, table = rng.integers(0, 256, (H, W, 3)).astype(np.uint8), normal(rng, 3, 256)
    assert_same_bits([ops.patches(src, table, P, T, G)], [statement.patches(src, table, P, T, G)])


def test_no_image_is_no_work(ops):
    none, table = np.zeros((0, 8, 3), np.uint8), np.zeros((3, 256), np.float32)
    assert ops.patches(none, table, 2, 1, 2).shape == (0, 12)
    assert ops.resample(none, np.zeros(3, np.int32), np.ones((3, 2), np.int32)).shape == (0, 3, 3)
