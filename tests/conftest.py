"""Fixtures for tests of the core's operations."""
import numpy as np
import pytest

from grpo import _core
from grpo.errors import DeviceError

TIERS = ("amx", "avx512bf16", "avx512", "avx2", "portable")


@pytest.fixture(params=TIERS)
def tier(request, monkeypatch) -> str:
    """Each CPU tier in turn, chosen by GRPO_CPU; skipped where this CPU lacks it."""
    monkeypatch.setenv("GRPO_CPU", request.param)
    try:
        assert _core.backend("cpu") == ("cpu", request.param)
    except DeviceError as error:
        pytest.skip(str(error))
    return request.param


@pytest.fixture
def ref():
    return _core.Ops("ref")


@pytest.fixture
def cpu(tier):
    return _core.Ops("cpu")


@pytest.fixture
def rng(request) -> np.random.Generator:
    """The same numbers for the same test."""
    return np.random.default_rng(list(request.node.name.encode()))
