import pytest

from checks.gemm import *  # noqa: F403
from grpo import _core


@pytest.fixture(autouse=True, params=["0", "1"])
def wgmma(request, monkeypatch) -> str:
    """Products by mma.sync, then by wgmma on a GPU that has it."""
    monkeypatch.setenv("GRPO_CUDA_WGMMA", request.param)
    if request.param == "1" and _core.cuda_devices()[0][1] != (9, 0):
        pytest.skip("this GPU has no wgmma")
    return request.param


def test_what_multiplies(wgmma):
    assert _core.cuda_products().split()[0] == ("wgmma" if wgmma == "1" else "mma.sync")
