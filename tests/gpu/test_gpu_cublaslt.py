"""cuBLASLt on this GPU, at the sizes of real models. Nobody promises that a row's bits do not depend on the rows beside
it (rollout = training); whether they do is looked at here. A failure with "cublaslt" says what GRPO_CUDA_GEMM=cublaslt
costs on this GPU: log-probs of a rollout that differ from training's; one with "auto", that GRPO_CUDA_GEMM=own is
needed for gradients that do not depend on the micro-batches (same seed, same run)."""
import numpy as np
import pytest

from checks import real
from checks.gemm import check_naive, check_rows
from grpo import _core
from grpo.model.devices import search_packages
from op_statements import bf16

SIZES = [(896, 1152), (896, 9728), (4864, 896), (3584, 4608), (18944, 3584)]  # C, O of 0.5B and 7B


@pytest.fixture(autouse=True)
def library():
    search_packages()
    if _core.cuda_blas().startswith("none"):
        pytest.skip(f"cuBLASLt: {_core.cuda_blas()}; pip install nvidia-cublas brings it")


@pytest.mark.parametrize("mode", ["auto", "cublaslt"])
@pytest.mark.parametrize("C, O", SIZES)
def test_a_row_is_the_same_alone_and_in_any_batch(ops, rng, monkeypatch, mode, C, O):
    monkeypatch.setenv("GRPO_CUDA_GEMM", mode)
    check_rows(ops, rng, 1000, C, O)


def test_the_bias_is_added_before_rounding(ops, rng, monkeypatch):
    monkeypatch.setenv("GRPO_CUDA_GEMM", "cublaslt")
    x, W, b, y = (real(rng, *shape) for shape in ((300, 896), (1152, 896), (1152,), (300, 1152)))
    want = np.float64(x) @ np.float64(W).T + b
    check_naive(ops.linear(x, W, b), want, bf16(want.astype(np.float32)))
    check_naive(ops.linear_add(y, x, W, b), want + y, bf16((want + y).astype(np.float32)))
