"""Pixels against Pillow and against the Pillow processors of transformers: every number the same, over sizes, modes and
limits."""
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, __version__ as pillow_version

from grpo import _core
from grpo.vision import Processor, preprocess

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.oracle

PIL_CLASS = "transformers.models.qwen2_vl.image_processing_pil_qwen2_vl"
# Pillow 13 begins with the columns where the height shrinks by more than twice what the width does; earlier releases
# always began with the rows.
NEW_ORDER = int(pillow_version.split(".")[0]) >= 13
BYTES = np.tile(np.arange(256, dtype=np.float32), (3, 1))


def noise(rng, height, width):
    """Levels that overshoot most where they are only two."""
    levels = rng.integers(0, 256, (height, width, 3))
    return (levels if rng.integers(2) else (levels > 127) * 255).astype(np.uint8)


def resized(pixels, height, width):
    rows, _ = _core.preprocess([pixels], np.array([[height, width]], np.int32), table=BYTES, patch_size=1, merge_size=1,
                               temporal_patch_size=1, device="cpu")
    return rows.astype(np.uint8).reshape(height, width, 3)


def pillow(pixels, height, width):
    """Pillow's two passes in the order of Pillow 13, whichever is installed."""
    before, after = pixels.shape[:2], (height, width)
    shrinks = before[0] - height
    if not NEW_ORDER and shrinks > 0 and shrinks > 2 * (before[1] - width):
        pixels = np.asarray(Image.fromarray(pixels).resize((before[1], height), Image.Resampling.BICUBIC))
    return np.asarray(Image.fromarray(pixels).resize(after[::-1], Image.Resampling.BICUBIC))


def test_resize_over_many_sizes(tier, rng):
    for _ in range(200):
        before, after = np.exp(rng.uniform(0, 6, (2, 2))).astype(int)
        pixels = noise(rng, *before)
        assert (resized(pixels, *after) == pillow(pixels, *after)).all(), (before, after)


@pytest.mark.parametrize("before, after", [
    ((3999, 2001), (1003, 499)), ((2001, 3999), (56, 112)), ((601, 799), (3997, 2999)), ((1, 1), (3000, 3000)),
    ((1, 3999), (1, 28)), ((3999, 1), (28, 1)), ((4000, 3), (3, 4000)), ((3, 4000), (4000, 3)), ((1, 4000), (28, 28)),
    ((4000, 4000), (3999, 4001)), ((333, 777), (333, 28)), ((333, 777), (28, 777)), ((333, 777), (333, 777)),
])
def test_resize_of_large_and_narrow_images(rng, before, after):
    pixels = noise(rng, *before)
    assert (resized(pixels, *after) == pillow(pixels, *after)).all()


def test_the_order_of_passes(rng):
    """On both sides of where it changes, and where it makes a difference."""
    different = 0
    for height, width, new_width in [(60, 50, 40), (90, 40, 44), (60, 50, 30), (90, 40, 39)]:
        threshold = height - max(0, 2 * (width - new_width))
        for new_height in (threshold - 1, threshold, threshold + 1):
            pixels = noise(rng, height, width)
            want = pillow(pixels, new_height, new_width)
            assert (resized(pixels, new_height, new_width) == want).all()
            rows_first = Image.fromarray(pixels).resize((new_width, height), Image.Resampling.BICUBIC)
            rows_first = rows_first.resize((new_width, new_height), Image.Resampling.BICUBIC)
            different += (np.asarray(rows_first) != want).any()
    assert different >= 4


# -- processors -----------------------------------------------------------------------------------------------------


def peer(processor):
    """transformers' Pillow processor with the same file."""
    module = pytest.importorskip(PIL_CLASS)
    return module.Qwen2VLImageProcessorPil(**processor.to_json())


def check(images, processor, **limits):
    if not NEW_ORDER:
        pytest.skip("this Pillow always begins with the rows")
    changed = processor.with_limits(limits.get("min_pixels"), limits.get("max_pixels"))
    want = peer(changed)(images, return_tensors="np")
    got = preprocess(images, processor, **limits)
    assert (got["image_grid_thw"] == want["image_grid_thw"]).all()
    assert got["pixel_values"].dtype == want["pixel_values"].dtype == np.float32
    assert got["image_grid_thw"].dtype == want["image_grid_thw"].dtype == np.int64
    assert got["pixel_values"].shape == want["pixel_values"].shape
    assert (got["pixel_values"].view(np.int32) == want["pixel_values"].view(np.int32)).all()


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("limits", [{}, {"max_pixels": 401408}, {"min_pixels": 262144, "max_pixels": 401408},
                                    {"min_pixels": 1, "max_pixels": 3000}])
def test_pixels_and_grids(rng, family, limits):
    sizes = [(224, 224), (480, 640), (70, 70), (98, 98), (20, 20), (100, 50), (13, 300), (1, 1), (1, 200), (301, 2),
             *np.exp(rng.uniform(0, 6.5, (12, 2))).astype(int).tolist()]
    images = [Image.fromarray(noise(rng, h, w)) for h, w in sizes if max(h, w) <= 200 * min(h, w)]
    check(images, Processor.of(family), **limits)


@pytest.mark.parametrize("size", [(1080, 1920), (3001, 2003)])
def test_large_images(rng, size):
    check([Image.fromarray(noise(rng, *size))], Processor.of("qwen2_5_vl"))
    check([Image.fromarray(noise(rng, *size))], Processor.of("qwen3_vl"), max_pixels=401408)


@pytest.mark.parametrize("change", [
    {"do_normalize": False}, {"do_rescale": False}, {"do_rescale": False, "do_normalize": False},
    {"rescale_factor": 1 / 127.5}, {"image_mean": [0.0, 0.1, 0.2], "image_std": [1.0, 0.3, 7.0]},
    {"patch_size": 7, "merge_size": 3, "temporal_patch_size": 1},
])
def test_other_keys(tmp_path, rng, change):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(Processor.of("qwen2_vl").to_json() | change))
    check([Image.fromarray(noise(rng, 61, 87))], Processor.read(tmp_path, {"model_type": "qwen2_vl"}))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV", "RGBA", "LA", "PA", "I", "F"])
def test_modes(rng, mode):
    image = Image.fromarray(rng.integers(0, 256, (40, 60, 4)).astype(np.uint8))
    image = image.convert("LA").convert("PA") if mode == "PA" else image if mode == "RGBA" else (
        image.convert("RGB").convert(mode) if mode != "LA" else image.convert("LA"))
    assert image.mode == mode
    check([image], Processor.of("qwen2_vl"))


def test_a_transparent_colour(rng):
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 3, (40, 60)).astype(np.uint8)).save(file, "PNG", transparency=1)
    check([Image.open(file)], Processor.of("qwen2_vl"))


@pytest.mark.parametrize("shape", [(40, 60, 3), (40, 60, 4), (40, 60, 1), (3, 40, 60), (4, 40, 60)])
def test_arrays(rng, shape):
    check([rng.integers(0, 256, shape).astype(np.uint8)], Processor.of("qwen2_vl"))


def test_tensors(rng):
    torch = pytest.importorskip("torch")
    check([torch.from_numpy(rng.integers(0, 256, (3, 40, 60)).astype(np.uint8))], Processor.of("qwen3_vl"))


def test_files_turned_as_transformers_does(tmp_path, rng):
    load_image = pytest.importorskip("transformers.image_utils").load_image
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[274] = orientation
        path = tmp_path / f"{orientation}.png"
        Image.fromarray(noise(rng, 30, 50)).save(path, exif=exif)
        got, want = (preprocess([image], Processor.of("qwen2_vl")) for image in (path, load_image(str(path))))
        assert (got["pixel_values"] == want["pixel_values"]).all()
        assert (got["image_grid_thw"] == want["image_grid_thw"]).all()


# -- files that transformers reads and writes -----------------------------------------------------------------------


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_transformers_reads_our_file(tmp_path, rng, family):
    """AutoImageProcessor finds its class; then it sees as we do."""
    processor = Processor.of(family).with_limits(max_pixels=78400)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor.to_json()))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family}))
    loaded = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    image = Image.fromarray(noise(rng, 333, 400))
    want, got = loaded([image], return_tensors="np"), preprocess([image], processor)
    assert (got["image_grid_thw"] == want["image_grid_thw"]).all()
    assert not NEW_ORDER or (got["pixel_values"] == want["pixel_values"]).all()


@pytest.mark.parametrize("nested", [False, True])
def test_we_read_transformers_file(tmp_path, nested):
    processor = Processor.of("qwen3_vl")
    values = json.loads(peer(processor).to_json_string())
    name = "processor_config.json" if nested else "preprocessor_config.json"
    (tmp_path / name).write_text(json.dumps({"image_processor": values} if nested else values))
    assert Processor.read(tmp_path, {"model_type": "qwen3_vl"}) == processor


def test_defaults_are_those_of_the_class(tmp_path):
    """Of a file that says nothing."""
    (tmp_path / "preprocessor_config.json").write_text("{}")
    ours, theirs = Processor.read(tmp_path, {"model_type": "qwen3_vl"}), pytest.importorskip(
        PIL_CLASS).Qwen2VLImageProcessorPil()
    for key in ("patch_size", "temporal_patch_size", "merge_size", "rescale_factor", "do_resize", "do_rescale",
                "do_normalize"):
        assert getattr(ours, key) == getattr(theirs, key)
    assert (ours.min_pixels, ours.max_pixels) == (theirs.size["shortest_edge"], theirs.size["longest_edge"])
    assert list(ours.mean) == list(theirs.image_mean) and list(ours.std) == list(theirs.image_std)


def test_token_counts():
    for family in ("qwen2_vl", "qwen3_vl"):
        processor = Processor.of(family)
        theirs = peer(processor)
        for height, width in [(480, 640), (1, 1), (70, 70), (3000, 4000), (13, 300)]:
            patches = theirs.get_number_of_image_patches(height, width)
            assert processor.tokens(height, width) == patches // processor.merge_size**2


# -- the benchmark --------------------------------------------------------------------------------------------------


def test_the_benchmark_compares_the_same_pixels():
    script = Path(__file__).parents[1] / "bench" / "bench_vision.py"
    done = subprocess.run([sys.executable, script, "--parts", "pixels", "--quick"], capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
    assert done.returncode == 0, done.stderr
    assert [line.count("|") for line in done.stdout.splitlines() if line.startswith("|")] == [5, 5, 5]


# -- Qwen-VL-Chat: its own code, of which this is a statement -------------------------------------------------------


def test_qwen_vl_chat(rng):
    """Resize((448, 448), BICUBIC), ToTensor, Normalize in float32; the patches of a 14 x 14 convolution."""
    processor = Processor.of("qwen")
    for size in [(448, 448), (480, 640), (30, 1000), (1, 1), (1000, 200)]:
        pixels = noise(rng, *size)
        got = preprocess([pixels], processor)
        assert got["image_grid_thw"].tolist() == [[1, 32, 32]]
        plane = pillow(pixels, 448, 448).astype(np.float32).transpose(2, 0, 1) / np.float32(255)
        plane = (plane - np.array(processor.mean, np.float32)[:, None, None]) / np.array(processor.std,
                                                                                        np.float32)[:, None, None]
        want = plane.reshape(3, 32, 14, 32, 14).transpose(1, 3, 0, 2, 4).reshape(1024, 588)
        assert (got["pixel_values"] == want).all()
