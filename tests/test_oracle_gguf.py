"""GGUF against the public `gguf` package and transformers."""

import numpy as np
import pytest
from make_files import BLOCKS

from grpo import _core

gguf = pytest.importorskip("gguf")
pytestmark = pytest.mark.oracle


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning", "ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize("kind", [kind for kind, (elements, _) in BLOCKS.items() if elements > 1])
def test_every_block_dequantises_to_the_same_bits(kind, rng):
    """Random bytes, so that scales and mins of every kind come up: negative, subnormal, infinite, NaN."""
    elements, size = BLOCKS[kind]
    blocks = rng.integers(0, 256, (4000, size), np.uint8)
    want = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[kind]).ravel()
    got = _core.dequantize(kind, blocks.tobytes(), len(blocks) * elements)
    number = ~np.isnan(want)
    np.testing.assert_array_equal(np.isnan(got), ~number)
    np.testing.assert_array_equal(got[number].view(np.uint32), want[number].view(np.uint32))
