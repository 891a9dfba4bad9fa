import pytest

from checks.gemm import *  # noqa: F403
from grpo import _core
from processes import fresh

pytestmark = pytest.mark.usefixtures("capability")


@pytest.mark.parametrize("switch, name", [("", {"80": "mma.sync (this GPU has no wgmma)", "90": "wgmma"}),
                                          ("0", {"80": "mma.sync (this GPU has no wgmma)",
                                                 "90": "mma.sync (GRPO_CUDA_WGMMA=0)"})])
def test_what_multiplies(capability, emulated, monkeypatch, switch, name):
    monkeypatch.setenv("GRPO_CUDA_WGMMA", switch)
    assert _core.cuda_products() == name[capability]


def test_wrong_first_products(emulated_plugin):
    """A GPU whose wgmma is not what the kernels take it for: they do without."""
    assert fresh(f"""
import os
os.environ.update(GRPO_CUDA_LIBRARY={str(emulated_plugin)!r}, GRPO_CUDA_HOST_SM="90", GRPO_CUDA_HOST_WGMMA="wrong")
import numpy as np
from grpo import _core
print(_core.cuda_products(), _core.Ops("cuda").linear(np.ones((3, 40), np.float32), np.ones((8, 40), np.float32)).sum())
""").strip() == "mma.sync (wgmma gave wrong products on this GPU) 960.0"
