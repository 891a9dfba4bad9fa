"""What Model.attention() must be on any device: weights of whatever split, rows and layers, with the same bits."""
import numpy as np

from checks import assert_same_bits
from tiny_models import build


def check_looking(config: dict, device: str, length: int = 75) -> np.ndarray:
    """All weights of a sequence of a text model, (layers, length - 1 rows, heads, length - 1 keys)."""
    model, layers = build(config, device), config["num_hidden_layers"]
    ids = np.random.default_rng(3).integers(0, config["vocab_size"], length).astype(np.int32)
    rows, deep = np.arange(length - 1, dtype=np.int32), np.arange(layers, dtype=np.int32)
    whole = model.attention(ids[:1], ids[1:], deep, rows)
    assert whole.shape == (layers, length - 1, config["num_attention_heads"], length - 1)
    np.testing.assert_allclose(whole.sum(-1), 1, atol=2e-3 if model.dtype == "bfloat16" else 1e-5)
    assert not whole.transpose(0, 2, 1, 3)[:, :, ~np.tri(length - 1, dtype=bool)].any()
    for split in (31, 32, length - 1):                               # what is prompt and what is completion
        assert_same_bits([model.attention(ids[:split], ids[split:], deep, rows)], [whole])
    model.logprobs([ids, ids[:9]], [ids[:40], ids[3:4]], np.arange(2, dtype=np.int32))      # another batch between
    some, last = rows[[3, 40, 66]], deep[-1:]
    assert_same_bits([model.attention(ids[:40], ids[40:], last, some)], [np.ascontiguousarray(whole[-1:, some])])
    short = model.attention(ids[:40], ids[40:50], deep, rows[:49])   # without what comes after
    assert_same_bits([short], [np.ascontiguousarray(whole[:, :49, :, :49])])
    return whole
