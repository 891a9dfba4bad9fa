"""The emulator runs a block's threads in any order that barriers allow, and lets cp.async land late or at once: no bit
changes."""
import numpy as np
import pytest

from checks import assert_same_bits
from checks.order import attention, gemm_and_head


@pytest.mark.parametrize("capability, results", [("80", gemm_and_head), ("90", gemm_and_head), ("80", attention)],
                         indirect=["capability"])
@pytest.mark.parametrize("variable, value", [("ORDER", "reverse"), ("ORDER", "1"), ("ORDER", "2"), ("COPY", "early")])
def test_threads_and_copies_in_any_order(capability, ops, monkeypatch, variable, value, results):
    want = results(ops, np.random.default_rng(0))
    monkeypatch.setenv(f"GRPO_CUDA_HOST_{variable}", value)
    assert_same_bits(results(ops, np.random.default_rng(0)), want)
