"""Model.attention: weights of chosen layers and rows, on every device and CPU tier."""
import numpy as np
import pytest

from checks.exactness import MODELS
from checks.look import check_looking
from tiny_models import relative_error
from tiny_vision import Scene, build_vlm, vlm

WINDOWS = {"mistral": [21, 21], "gemma3": [33, None, 33]}


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
