"""What tests/ says of every device, on a real GPU, and what only a GPU can show. Needs pytest, NumPy and the built
package.

Without a GPU nothing here is collected but the test that says why. GRPO_TEST_GPU=1: then it fails."""
import pytest

from grpo import _core
from real_gpu import LACKING

collect_ignore_glob = ["test_gpu_*.py"] if LACKING else []


@pytest.fixture
def device() -> str:
    return "cuda"


@pytest.fixture
def ops():
    return _core.Ops("cuda")
