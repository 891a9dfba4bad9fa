"""What Model.attention() must be on any device: weights of whatever split, rows and layers, with the same bits."""
import numpy as np
import pytest

from checks import assert_same_bits
from checks.exactness import MODELS
from tiny_models import build, relative_error
from tiny_vision import Scene, build_vlm, vlm

WINDOWS = {"mistral": [21, 21], "gemma3": [33, None, 33]}


def check_looking(config: dict, device: str, length: int = 75) -> np.ndarray:
    """All weights of a sequence of a text model, (layers, length - 1 rows, heads, length - 1 keys)."""
    model, layers = build(config, device), config["num_hidden_layers"]
    ids = np.random.default_rng(3).integers(0, config["vocab_size"], length).astype(np.int32)
    rows, deep = np.arange(length - 1, dtype=np.int32), np.arange(layers, dtype=np.int32)
    # what is prompt and what is completion, where no prompt stretches ropes otherwise than another
    splits = (40, 33, 64) if "seq_length" in config else (1, 31, 32, length - 1)
    whole = model.attention(ids[:splits[0]], ids[splits[0]:], deep, rows)
    assert whole.shape == (layers, length - 1, config["num_attention_heads"], length - 1)
    np.testing.assert_allclose(whole.sum(-1), 1, atol=2e-3 if model.dtype == "bfloat16" else 1e-5)
    assert not whole.transpose(0, 2, 1, 3)[:, :, ~np.tri(length - 1, dtype=bool)].any()
    for split in splits[1:]:
        assert_same_bits([model.attention(ids[:split], ids[split:], deep, rows)], [whole])
    model.logprobs([ids, ids[:9]], [ids[:40], ids[3:4]], np.arange(2, dtype=np.int32))      # another batch between
    some, last = rows[[3, 40, 66]], deep[-1:]
    assert_same_bits([model.attention(ids[:40], ids[40:], last, some)], [np.ascontiguousarray(whole[-1:, some])])
    short = model.attention(ids[:40], ids[40:50], deep, rows[:49])   # without what comes after
    assert_same_bits([short], [np.ascontiguousarray(whole[:, :49, :, :49])])
    return whole


@pytest.mark.parametrize("name", MODELS)
def test_looking(device, name):
    whole = check_looking(MODELS[name], device)
    for layer, window in zip(whole, WINDOWS.get(name, [None] * len(whole)), strict=True):
        assert bool(layer[-1, 0, 0]) is (window is None)             # the last row and the first key
        if window:
            assert layer[-1, :, -window:].all() and not layer[-1, :, :-window].any()


def test_devices_agree(device):
    name = "qwen2"
    assert relative_error(check_looking(MODELS[name], device), check_looking(MODELS[name], "ref")) < 0.03


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_images_are_keys(device, family):
    """Another image changes what the rows after it see, and no row before it."""
    config = vlm(family)
    scene, other = (Scene(config, [[(1, 4, 6), (1, 2, 4)]], seed) for seed in (0, 1))
    model, prompt = build_vlm(config, device), scene.prompts[0]
    images = scene.seen(model)[0]
    changed = (*images[:3], [images[3][0], other.seen(model)[0][3][1]])
    rows, layers = np.arange(len(prompt) + 3, dtype=np.int32), np.arange(2, dtype=np.int32)
    first, second = (model.attention(prompt, np.arange(4, dtype=np.int32), layers, rows, images=some)
                     for some in (images, changed))
    begins = images[2][int(np.prod(images[3][0][0])) // 4]            # of the second image
    assert (first[:, :begins] == second[:, :begins]).all() and (first[0, -1] != second[0, -1]).any()
    np.testing.assert_allclose(first.sum(-1), 1, atol=5e-3)
