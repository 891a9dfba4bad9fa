"""Products, head and sampler at the sizes of real models, which the emulator cannot reach: grids of many tiles, every
loop over blocks of rows and of the vocabulary, every tile beside every other."""
import numpy as np
import pytest

from checks import assert_same_bits, real
from checks.gemm import TILES, check_naive, check_sums, double, operands, own_kernels  # noqa: F401
from checks.head import check_head, problem
from checks.sample import check_draws
from grpo import _core
from op_statements import bf16, normal, sample_keys

# N, C, O
SHAPES = [(1, 896, 4864), (16, 4864, 896), (128, 896, 1152), (1000, 896, 4864), (3000, 1536, 520), (2049, 520, 1536)]


@pytest.mark.parametrize("N, C, O", SHAPES)
def test_products(ops, rng, N, C, O):
    x, W, b, y, dy = operands(rng, N, C, O)
    x64, W64, dy64 = double(x, W, dy)
    dW = normal(rng, O, C)
    want = x64 @ W64.T
    check_naive(ops.linear_add(y, x, W, b), want + b + y, bf16(bf16(bf16(x @ W.T) + b) + y))
    check_sums(ops.logits(x, W), want, np.abs(x64) @ np.abs(W64).T)
    check_naive(ops.linear_dx(dy, W), dy64 @ W64, bf16(dy @ W))
    check_sums(ops.linear_dw(dW, None, dy, x), dW + dy64.T @ x64, np.abs(dW) + np.abs(dy64).T @ np.abs(x64))


@pytest.mark.parametrize("N, C, O", [(1000, 896, 4864), (129, 4864, 896)])
def test_the_tile_changes_no_bit(ops, rng, monkeypatch, N, C, O):
    x, W, b, y, dy = operands(rng, N, C, O)
    dW, db = normal(rng, O, C), normal(rng, O)
    results = []
    for tile in ("", *TILES):
        monkeypatch.setenv("GRPO_CUDA_TILE", tile)
        ops = _core.Ops("cuda")
        results.append([ops.linear_add(y, x, W, b), ops.logits(x, W), ops.linear_dx(dy, W),
                        *ops.linear_dw(dW, db, dy, x)])
    for other in results[1:]:
        assert_same_bits(other, results[0])


def test_head_over_blocks_of_rows_and_ids(ops, rng):
    check_head(ops, *problem(rng, 4200, 96, 9000), 0.7)


def test_head_does_not_see_the_batch_or_its_split(ops, rng):
    h, W, target, coef, ecoef, dW = problem(rng, 4200, 128, 9000)
    logp, entropy, dh, whole = ops.head_bwd(dW, h, W, target, coef, ecoef)
    parts, split = [], dW
    for begin, end in ((0, 32), (32, 160), (160, 2080), (2080, 4200)):
        rows = slice(begin, end)
        *part, split = ops.head_bwd(split, h[rows], W, target[rows], coef[rows], ecoef[rows])
        parts.append(part)
    assert_same_bits([np.concatenate(part) for part in zip(*parts, strict=True)] + [split], [logp, entropy, dh, whole])
    for rows in (slice(7, 8), slice(90, 106), slice(4095, 4160)):
        assert_same_bits(ops.head(h[rows], W, target[rows]), [logp[rows], entropy[rows]])


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.6, "top_k": 50}, {"top_p": 0.9},
                                      {"min_p": 0.05, "repetition_penalty": 1.2},
                                      {"temperature": 1.2, "top_k": 20, "top_p": 0.8, "repetition_penalty": 1.1}],
                         ids=str)
def test_sampling_from_a_large_vocabulary(ops, rng, settings):
    S, C, V = 130, 64, 151936
    h, W = real(rng, S, C, scale=0.4), real(rng, V, C)                  # logits with a spread of about 3
    seen, keys = (rng.random((S, V)) < 0.01).astype(np.uint8), sample_keys(S)
    ids, logp, policy_logp, entropy, *_ = ops.sample(h, W, keys, seed=7, step=1, seen=seen, **settings)
    inv_temperature = float(np.float32(1) / np.float32(settings.get("temperature", 1)))
    assert_same_bits([policy_logp, entropy], ops.head(h, W, ids, inv_temperature))
    some = slice(0, 20)
    check_draws(h[some].astype(np.float64) @ W.T, ids[some], logp[some], keys[some], 7, 1, settings, seen[some],
                atol=1e-4)
