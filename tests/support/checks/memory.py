"""Memory, transfers and the storages."""
import numpy as np
import pytest

from checks import assert_same_bits
from grpo import _core
from op_statements import bf16, normal

SIZES = [(1, 1), (1, 16), (3, 5), (2, 64), (33, 80), (40, 31)]


@pytest.mark.parametrize("n", [0, 1, 7, 8, 1003])
def test_storages_round_to_nearest(ops, rng, n):
    x = normal(rng, n)
    x[:2] = [1.00390625, 1.01171875][:n]                    # half way between two bfloat16 numbers: ties go to even
    assert_same_bits([ops.cast(x), ops.vector_set(x)], [bf16(x), bf16(x)])


def test_storages_keep_what_is_not_finite(ops):
    x = np.array([np.inf, -np.inf, np.nan, 3.4e38, -0.0, 1e-40] * 3, np.float32)
    got = ops.cast(x)
    np.testing.assert_array_equal(got, bf16(x))
    assert np.signbit(got[4])


@pytest.mark.parametrize("O, C", SIZES)
def test_rows_of_a_weight(ops, rng, O, C):
    W, rows = normal(rng, O, C), normal(rng, max(1, O // 2), C)
    assert_same_bits([ops.weight_get(W, 0, O), ops.weight_get(W, O // 2, O - O // 2)], [bf16(W), bf16(W[O // 2:])])
    want = bf16(W)
    want[O - len(rows):] = bf16(rows)
    assert_same_bits([ops.weight_set(W, rows, O - len(rows))], [want])


def test_large_transfers_arrive_whole(ops, rng):
    x = normal(rng, 3 * (1 << 20) + 5)                      # several pieces of the upload ring, several turns of it
    assert_same_bits([ops.copy(x), ops.zero(x)], [x, np.zeros_like(x)])


def test_memory_is_counted_and_given_back(ops):
    ops.cast(np.ones(1000, np.float32))                     # makes the scratch
    before = _core.memory_in_use()
    for _ in range(3):
        ops.cast(np.ones(1000, np.float32))
    assert _core.memory_in_use() == before
