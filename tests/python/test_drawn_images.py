"""Images that are drawn when they are looked at: the pixels and sizes of what was drawn, and no drawing before that."""
import numpy as np
import pytest
from PIL import Image

import grpo
from grpo import ImageError
from grpo.datasets.pictures import picture_key
from grpo.vision import Drawn, preprocess, read_image
from grpo.vision.decode import image_bytes, image_size

drawings: list[tuple] = []


def rings(level, as_picture):
    drawings.append((level, as_picture))
    pixels = np.full((56, 84, 3), level, np.uint8)
    pixels[10:20] = 255 - level
    return Image.fromarray(pixels) if as_picture else pixels


@pytest.fixture(autouse=True)
def forget():
    drawings.clear()


@pytest.mark.parametrize("as_picture", [False, True])
def test_a_drawing_is_the_image_that_it_draws(as_picture):
    drawn, plain = Drawn(rings, (9, as_picture), 56, 84), rings(9, False)
    assert np.array_equal(read_image(drawn), plain)
    model = grpo.vision.Processor.of("qwen2_5_vl")
    assert np.array_equal(preprocess([drawn], model)["pixel_values"], preprocess([plain], model)["pixel_values"])


def test_its_size_and_its_key_cost_no_drawing():
    one, same, other = Drawn(rings, (9, True), 56, 84), Drawn(rings, (9, True), 56, 84), Drawn(rings, (8, True), 56, 84)
    assert image_size(one) == (56, 84)
    assert image_bytes(one) == image_bytes(same) != image_bytes(other)
    assert picture_key(one) == picture_key(same) != picture_key(other)
    assert not drawings


def test_a_limit_holds_before_it_is_drawn():
    with pytest.raises(ImageError, match="row 3: has 84 x 56 pixels, more than the limit"):
        image_size(Drawn(rings, (9, True), 56, 84), "row 3", pixel_limit=100)
    assert not drawings


def test_another_size_than_it_says_is_an_error():
    with pytest.raises(ImageError, match=r"row 3: .*rings drew \(56, 84\).*\(56, 85\)"):
        read_image(Drawn(rings, (9, False), 56, 85), "row 3")


def test_a_run_on_drawings():
    model = grpo.load(grpo.tiny("qwen2_5_vl"))
    rows = [{"prompt": [{"role": "user", "content": "Which?"}], "image": Drawn(rings, (level, True), 56, 84)}
            for level in (3, 200)]
    config = grpo.GRPOConfig(max_steps=3, prompts_per_step=2, num_generations=2, max_completion_length=4)
    grpo.GRPOTrainer(model, lambda completions, **_: [float(i) for i in range(len(completions))], config, rows).train()
    assert sorted(drawings) == [(3, True), (200, True)]           # once each: a frozen tower's features are kept
