import os

import pytest

from grpo import _core
from real_gpu import LACKING


def test_there_is_a_gpu():
    if LACKING and os.environ.get("GRPO_TEST_GPU") != "1":
        pytest.skip(LACKING)
    assert not LACKING
    for name, capability, memory in _core.cuda_devices():
        print(f"{name}, compute capability {capability}, {memory / 2**30:.0f} GiB, {_core.cuda_plugin()}, "
              f"{_core.cuda_blas()}")
        assert capability >= (8, 0) and memory > 0
