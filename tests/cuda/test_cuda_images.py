import numpy as np
import pytest

from checks.images import *  # noqa: F403
from grpo import _core


@pytest.mark.parametrize("size", [(40, 24), (8, 60), (20, 16), (16, 12)])
def test_preprocess(emulated, rng, size):
    """Whole images, up and down, either pass first or alone: what ref makes of them."""
    images = [rng.integers(0, 256, shape).astype(np.uint8) for shape in [(20, 31, 3), (16, 24, 3), (33, 12, 3)]]
    rule = {"table": rng.standard_normal((3, 256), np.float32), "patch_size": 2, "merge_size": 2,
            "temporal_patch_size": 2}
    sizes = np.array([size] * 3, np.int32)
    got, want = (_core.preprocess(images, sizes, device=device, **rule) for device in (emulated, "ref"))
    assert (got[0] == want[0]).all() and (got[1] == want[1]).all()
