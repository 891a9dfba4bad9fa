"""linear and its gradients, head and packed weights on every CPU tier: against float64, and the bits that must not
change with batch, neighbours, threads or split (rollout = training; same seed, same run)."""
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from checks import gemm
from checks.gemm import double, operands
from grpo import _core
from grpo.errors import ConfigError, DeviceError
from op_statements import bf16, head, log_softmax, normal

ROOT = Path(__file__).resolve().parents[2]
SHAPES = [  # N, C, O: around pairs, panels (32), tiles, blocks (96, 512, 1024)
    (1, 1, 1), (1, 5, 3), (2, 32, 32), (3, 33, 31), (4, 64, 100), (5, 577, 65), (6, 100, 130), (7, 31, 257),
    (12, 48, 40),
    (13, 200, 96), (17, 64, 129), (33, 2049, 33), (96, 70, 33), (97, 1030, 34), (20, 33, 2050), (300, 129, 65),
    (600, 40, 48),
]
# C odd: the last pair of a row reaches into the next; rows cache ways apart
BITS = [(300, 97, 130), (300, 96, 33), (26, 2048, 64), (26, 64, 2048)]


# -- against float64 ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("N, C, O", SHAPES)
def test_linear(cpu, rng, N, C, O):
    gemm.test_linear(cpu, rng, N, C, O)


@pytest.mark.parametrize("N, C, O", SHAPES)
def test_linear_gradients(cpu, rng, N, C, O):
    gemm.test_linear_gradients(cpu, rng, N, C, O)


@pytest.mark.parametrize("R, C, V", [(1, 1, 1), (1, 8, 40), (5, 33, 257), (40, 64, 5000), (70, 31, 33), (600, 24, 31)])
@pytest.mark.parametrize("inv_temperature", [1.0, 0.7])
def test_head(cpu, rng, R, C, V, inv_temperature):
    h, W = bf16(normal(rng, R, C) / np.sqrt(C)), bf16(normal(rng, V, C))
    target = rng.integers(V, size=R).astype(np.int32)
    coef, ecoef, dW = normal(rng, R), normal(rng, R), normal(rng, V, C)
    h64, W64 = double(h, W)
    inv_temperature = float(np.float32(inv_temperature))
    all_logp = log_softmax(h64 @ W64.T * inv_temperature)
    want_logp, want_entropy = head(h64, W64, target, inv_temperature)
    logp, entropy = cpu.head(h, W, target, inv_temperature)
    limit = 1e-6 * (1 + np.abs(all_logp).max())
    assert np.abs(logp - want_logp).max() <= limit and np.abs(entropy - want_entropy).max() <= limit

    p, hit = np.exp(all_logp), np.eye(V)[target]
    for e in (None, ecoef):
        dz = coef[:, None] * (hit - p) - (0 if e is None else e[:, None] * p * (all_logp + want_entropy[:, None]))
        dz *= inv_temperature
        got_logp, got_entropy, dh, got_dW = cpu.head_bwd(dW, h, W, target, coef, e, inv_temperature)
        assert (got_logp == logp).all() and (got_entropy == entropy).all()
        rounded = bf16(dz)
        assert np.abs(dh - dz @ W64).max() <= 2 * np.abs(bf16(rounded @ W) - dz @ W64).max() + 1e-6
        assert np.abs(got_dW - (dW + dz.T @ h64)).max() <= 2 * np.abs(rounded.T @ h - dz.T @ h64).max() + 1e-6


# -- bits: rollout = training; same seed, same run ---------------------------------------------------------------------


@pytest.mark.parametrize("N, C, O", BITS)
def test_a_row_is_the_same_alone_and_in_any_batch(cpu, rng, N, C, O):
    x, W, b, y, dy = operands(rng, N, C, O)
    target = rng.integers(O, size=N).astype(np.int32)
    whole = cpu.linear_add(y, x, W, b), cpu.logits(x, W), cpu.linear_dx(dy, W), *cpu.head(x, W, target)
    start = 0
    for n in (1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 16, 17, 25, 97):
        if start + n > N:
            break
        rows = slice(start, start + n)
        part = (cpu.linear_add(y[rows], x[rows], W, b), cpu.logits(x[rows], W), cpu.linear_dx(dy[rows], W),
                *cpu.head(x[rows], W, target[rows]))
        for got, want in zip(part, whole, strict=True):
            assert (got == want[rows]).all(), n
        start += n


@pytest.mark.parametrize("N, C, O", [(1, 33, 35), (2, 33, 35), (4, 33, 35), (13, 33, 35), (100, 35, 33), (40, 32, 32)])
def test_nan_stays_where_it_belongs(cpu, rng, N, C, O):
    x, W, b, y, dy = operands(rng, N, C, O)
    dW, db = normal(rng, O, C), normal(rng, O)
    n, c, o = N // 2, C // 2, O - 1
    clean_y, clean_dx, (clean_dW, clean_db) = (cpu.linear_add(y, x, W, b), cpu.linear_dx(dy, W),
                                               cpu.linear_dw(dW, db, dy, x))

    def poisoned(array, *index):
        array = array.copy()
        array[index] = np.nan
        return array

    def same_except(got, want, *index):
        assert np.isnan(got[index]).all()
        assert (poisoned(got, *index) == poisoned(want, *index)).sum() == np.size(want) - np.size(want[index])

    every = slice(None)
    same_except(cpu.linear_add(y, poisoned(x, n), W, b), clean_y, n)
    same_except(cpu.linear_add(y, x, poisoned(W, o), b), clean_y, every, o)
    same_except(cpu.linear_dx(poisoned(dy, n), W), clean_dx, n)
    same_except(cpu.linear_dx(dy, poisoned(W, every, c)), clean_dx, every, c)
    same_except(cpu.linear_dw(dW, db, dy, poisoned(x, every, c))[0], clean_dW, every, c)
    for got, want in zip(cpu.linear_dw(dW, db, poisoned(dy, every, o), x), (clean_dW, clean_db), strict=True):
        same_except(got, want, o)


@pytest.mark.parametrize("N, C, O", [*BITS, (2, 40, 100), (1100, 40, 35)])
def test_threads_change_no_bit(cpu, rng, N, C, O):
    x, W, b, y, dy = operands(rng, N, C, O)
    dW, db, coef = normal(rng, O, C), normal(rng, O), normal(rng, N)
    target = rng.integers(O, size=N).astype(np.int32)

    def everything():
        return (cpu.linear_add(y, x, W, b), cpu.logits(x, W), cpu.linear_dx(dy, W), *cpu.linear_dw(dW, db, dy, x),
                *cpu.head_bwd(dW, x, W, target, coef), cpu.weight_get(W, 0, O))

    before = _core.get_num_threads()
    try:
        _core.set_num_threads(1)
        one = everything()
        for threads in (2, 3, 4):
            _core.set_num_threads(threads)
            assert all((a == b).all() for a, b in zip(everything(), one, strict=True)), threads
    finally:
        _core.set_num_threads(before)


@pytest.mark.parametrize("N, C, O", [*BITS, (1060, 33, 40)])
def test_weight_gradients_do_not_see_the_split(cpu, rng, N, C, O):
    x, W, _, _, dy = operands(rng, N, C, O)
    dW, db, coef = normal(rng, O, C), normal(rng, O), normal(rng, N)
    target = rng.integers(O, size=N).astype(np.int32)
    whole, whole_head = cpu.linear_dw(dW, db, dy, x), cpu.head_bwd(dW, x, W, target, coef)[3]
    for cuts in ([32], [96, 160], [32, 64, 288]):
        split, split_head = (dW, db), dW
        for begin, end in zip([0, *cuts], [*cuts, N], strict=True):
            split = cpu.linear_dw(*split, dy[begin:end], x[begin:end])
            split_head = cpu.head_bwd(split_head, x[begin:end], W, target[begin:end], coef[begin:end])[3]
        assert (split[0] == whole[0]).all() and (split[1] == whole[1]).all() and (split_head == whole_head).all()


# -- storage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("O, C", [(1, 1), (7, 33), (32, 32), (40, 31), (130, 97)])
def test_weights_are_set_and_read_by_rows(cpu, rng, O, C):
    W = normal(rng, O, C)
    assert (cpu.weight_get(W, 0, O) == bf16(W)).all()
    for row, rows in {(0, O), (O // 3, O - O // 3), (O // 2, 1), (0, (O + 1) // 2)}:
        part = normal(rng, rows, C)
        want = bf16(W)
        want[row:row + rows] = bf16(part)
        assert (cpu.weight_set(W, part, row) == want).all()
        assert (cpu.weight_get(W, row, rows) == bf16(W)[row:row + rows]).all()


def test_rounding(cpu):
    ties = np.array([0x3f808000, 0x3f818000, 0x3f808001, 0x3f807fff, 0x00010000, 0x00008000, 0x7f7fffff],
                    np.uint32).view(np.float32)
    x = np.concatenate([ties, -ties, np.float32([0, -0.0, np.inf, -np.inf, np.nan])])
    for got in (cpu.cast(x), cpu.vector_set(x), cpu.weight_get(x[None], 0, 1)[0]):
        assert np.array_equal(got, bf16(x), equal_nan=True) and (np.signbit(got) == np.signbit(x)).all()


# -- tiers -------------------------------------------------------------------------------------------------------------


def test_unknown_tier_is_an_error_that_lists_them(monkeypatch):
    monkeypatch.setenv("GRPO_CPU", "sse9")
    with pytest.raises(ConfigError, match="sse9.*portable"):
        _core.Ops("cpu")


def test_a_tier_is_there_or_says_what_is_missing(monkeypatch):
    for tier in ("amx", "avx512bf16", "avx512", "avx2", "portable"):
        monkeypatch.setenv("GRPO_CPU", tier)
        try:
            assert _core.backend("cpu") == ("cpu", tier)
        except DeviceError as error:
            assert tier != "portable" and f"GRPO_CPU={tier}: this CPU lacks " in str(error)


def test_amx_tiles_in_software(tmp_path):
    """The amx tier's blocking, with TDPBF16PS emulated: bit for bit the portable tier, inside array bounds."""
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    if not shutil.which(compiler):
        pytest.skip(f"no C compiler ({compiler})")
    csrc, program = ROOT / "csrc", tmp_path / "amx_emulation"
    sources = [ROOT / "tests/core/amx_emulation.c", csrc / "cpu/cpu.c", csrc / "cpu/tier_portable.c",
               csrc / "base/base.c", csrc / "base/threads.c"]
    subprocess.run([compiler, "-std=gnu11", "-O1", "-ffp-contract=off", "-fno-math-errno", "-DCPU_PORTABLE_ONLY",
                    f"-I{csrc}",
                    *map(str, sources), "-lm", "-lpthread", "-o", str(program)], check=True)
    result = subprocess.run([program], capture_output=True, text=True, env={**os.environ, "GRPO_NUM_THREADS": "3"})
    assert result.returncode == 0, result.stdout + result.stderr
