"""Models that see, given what they cannot see: each is an error that names it, or costs nothing."""
import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import grpo
from grpo import ConfigError, DatasetError, FileFormatError, GrpoWarning, ImageError, _core
from grpo.model.families import spec_of
from grpo.vision.decode import image_size, read_image

PIL = pytest.importorskip("PIL.Image")
SIZES = {"num_hidden_layers": 1, "hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 96}
TOWER = {"depth": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48, "fullatt_block_indexes": [1]}
CHAT = [{"role": "user", "content": "what"}]


def nothing(completions, **columns):
    return [0.0] * len(completions)


def spec(**vision):
    return grpo.tiny("qwen2_5_vl", vision_config={**TOWER, **vision}, initializer_range=0.06, **SIZES)


@pytest.fixture
def model():
    return grpo.load(spec(), device="cpu")


@pytest.fixture
def picture():
    return PIL.fromarray(np.random.default_rng(1).integers(0, 255, (56, 84, 3), np.uint8))


def logps(model, picture):
    encoded = model.encode_prompt(CHAT, picture)
    return model.logprobs(encoded.ids, [[1, 2]], images=encoded.images)[0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_of_a_turned_tiff(orientation):
    exif, file = PIL.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    PIL.new("RGB", (30, 20)).save(file, "TIFF", exif=exif)
    assert image_size(file.getvalue()) == read_image(file.getvalue()).shape[:2]


def test_an_image_that_changes_its_shape(model, tmp_path):
    path = tmp_path / "a.png"
    PIL.new("RGB", (84, 56)).save(path)
    encoded = model.encode_prompt(CHAT, path)
    PIL.new("RGB", (56, 84)).save(path)                  # as many tokens
    with pytest.raises(ImageError, match="has another size now"):
        model.logprobs(encoded.ids, [[1]], images=encoded.images)


def test_images_that_are_gone(model, picture):
    encoded = model.encode_prompt(CHAT, picture)
    picture.close()
    with pytest.raises(ImageError, match="cannot be read"):
        model.logprobs(encoded.ids, [[1]], images=encoded.images)


@pytest.mark.parametrize("change", [lambda data, array: b"", lambda data, array: data[:40],
                                    lambda data, array: data[:-3], lambda data, array: b"PK\3\4junk",
                                    lambda data, array: saved(array[:, :1]), lambda data, array: saved(array.ravel()),
                                    lambda data, array: saved(array.astype(np.float32)),
                                    lambda data, array: data.replace(b"False", b"Fal((")])
def test_kept_features_that_are_broken(model, picture, tmp_path, change):
    model.sight.keep(1 << 30, tmp_path)
    expected = logps(model, picture)
    (path,) = tmp_path.rglob("*.npy")
    data = path.read_bytes()
    path.write_bytes(change(data, np.load(path)))
    model.sight.keep(1 << 30, tmp_path)
    with pytest.warns(GrpoWarning, match="made again"):
        assert np.array_equal(logps(model, picture), expected)
    assert path.read_bytes() == data


def saved(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize("vision", [{"num_heads": 4}, {"window_size": 28}])
def test_kept_features_are_of_one_network(picture, tmp_path, vision):
    one, other = grpo.load(spec(), device="cpu"), grpo.load(spec(**vision), device="cpu")      # of the same weights
    expected = logps(other, picture)
    for each in (one, other):
        each.sight.keep(1 << 30, tmp_path)
    assert not np.array_equal(logps(one, picture), expected)
    assert np.array_equal(logps(other, picture), expected)


def test_pixels_are_prepared_a_few_images_at_a_time(model, monkeypatch):
    images = [np.full((56, 56 + 28 * (i % 3), 3), i, np.uint8) for i in range(7)]
    expected = [each.token_ids for each in model.generate([CHAT] * 7, images=images, max_new_tokens=3)]
    asked = []
    monkeypatch.setattr("grpo.vision.pictures.MOST_NUMBERS", 40_000)
    monkeypatch.setattr("grpo.vision.pictures.read_pixels", lambda some, read=grpo.vision.pictures.read_pixels:
                        (asked.append(len(some)), read(some))[1])
    model.sight.keep(1 << 30, None)
    found = [each.token_ids for each in model.generate([CHAT] * 7, images=images, max_new_tokens=3)]
    assert found == expected and sum(asked) == 7 and max(asked) < 7


@pytest.mark.parametrize("token", ["image_token_id", "video_token_id"])
def test_placeholders_without_images(model, token):
    ids = [1, model.sight.tokens[token], 2]
    for call in (lambda: model.logprobs(ids, [[1]]), lambda: model.logprob_grads(ids, [[1]], [[1.0]]),
                 lambda: model.generate([ids], max_new_tokens=1), lambda: model.encode_prompt(ids)):
        with pytest.raises(ImageError, match=r"\(token 26"):
            call()


def test_one_image_without_a_list(model, picture):
    ids = model.encode_prompt(CHAT, [picture]).ids
    for image in (picture, np.asarray(picture), (picture,), [[picture]]):
        assert np.array_equal(model.encode_prompt(CHAT, image).ids, ids)
    for wrong in (5, object(), {1}):
        with pytest.raises(ImageError, match="no image"):
            model.encode_prompt(CHAT, wrong)
    with pytest.raises(ImageError, match="sees no images"):
        grpo.load(grpo.tiny(**SIZES), device="cpu").encode_prompt(CHAT, np.asarray(picture))


def test_an_unreadable_image_names_its_prompt(model, picture):
    file = io.BytesIO()
    picture.save(file, "PNG")
    with pytest.raises(ImageError, match="prompt 1: .*image 0"):
        model.generate([CHAT, CHAT], images=[picture, file.getvalue()[:500]], max_new_tokens=1)


def test_ids_beyond_the_vocabulary(model):
    with pytest.raises(ConfigError, match="outside the vocabulary"):
        model.generate([[99999]], max_new_tokens=1)


def test_prompts_longer_than_the_positions(picture):
    model = grpo.load(grpo.tiny("qwen2_5_vl", vision_config=TOWER, max_position_embeddings=20, **SIZES), device="cpu")
    rows, config = [{"prompt": CHAT, "image": picture}], {"max_steps": 1, "max_completion_length": 4}
    with pytest.raises(DatasetError, match="the limit is 16"):
        grpo.GRPOTrainer(model, nothing, grpo.GRPOConfig(**config), rows)
    kept = [{"prompt": "hi"}, *rows]
    trainer = grpo.GRPOTrainer(model, nothing, grpo.GRPOConfig(on_long_prompt="drop", **config), kept)
    assert len(trainer.stream) == 1


@pytest.mark.parametrize("sizes", [(64, 32, 1024), (63, 63, 1023), (64, 64, 1024)])
def test_patches_of_too_many_numbers(sizes):
    channels, frames, side = sizes
    network = spec_of(spec(in_channels=channels, temporal_patch_size=frames, patch_size=14, window_size=1 << 15).config)
    vision = replace(network.vision, patch_shape=(channels, frames, side, side))
    with pytest.raises(ConfigError, match="numbers"):
        _core.Model("cpu", replace(network, vision=vision))


@pytest.mark.parametrize("change", [
    lambda c: c["vision_config"].update(hidden_size=1024, num_heads=2),
    lambda c: c["text_config"].update(rope_parameters={"mrope_section": [1 << 40, 0, 0]})])
def test_configs_that_are_refused(change):
    config = spec().config
    change(config)
    with pytest.raises(FileFormatError):
        spec_of(config)


def test_mixing_with_another_tower(model):
    other = grpo.load(spec(depth=1, fullatt_block_indexes=[0]), device="cpu")
    before = model.state_dict()
    other.core.set_tensor("model.language_model.norm.weight", np.zeros(64, np.float32))
    with pytest.raises(ConfigError, match="one shape"):
        model.core.mix(other.core, 0.5)
    assert all(np.array_equal(before[name], array) for name, array in model.state_dict().items())


def test_the_core_asks_for_features(model, picture):
    encoded = model.encode_prompt(CHAT, picture)
    (positions, after, tokens, images), = model.core_images([encoded.ids], [encoded.images])
    blind = [(positions, after, tokens, [(images[0][0], None, None)])]
    one, group = [np.array([1], np.int32)], np.zeros(1, np.int32)
    for call in (lambda: model.core.logprobs([encoded.ids], one, group, images=blind),
                 lambda: model.core.generate([encoded.ids], 1, 1, images=blind, stop_ids=one[0]),
                 lambda: model.core.logits(encoded.ids, blind[0])):
        with pytest.raises(ConfigError, match="image 0 of prompt 0 has no features"):
            call()


def test_a_processor_is_a_processor(model):
    with pytest.raises(ConfigError, match="processor must be"):
        model.processor = 5


def test_a_tower_without_room():
    """In a process of its own, whose memory is limited: the text fits, the tower does not."""
    resource = pytest.importorskip("resource")
    code = ("import grpo, resource; from grpo import _core; from grpo.model.families import spec_of\n"
            "big = {'depth': 300, 'embed_dim': 4096, 'num_heads': 16}\n"
            "spec = spec_of(grpo.tiny('qwen2_vl', vision_config=big).config)\n"
            "resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))\n"
            "try: _core.Model('cpu', spec)\n"
            "except grpo.OutOfMemoryError: print('said')")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False,
                          cwd=Path(grpo.__file__).parents[1])
    assert resource and (done.returncode, done.stdout) == (0, "said\n"), done.stderr[-2000:]
