"""Everything that can be an image, and everything that only looks like one: pixels, or one typed error that begins with
which image it is, after little work."""
import base64
import io
import json
import struct
import sys
import time
import warnings
import zlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageOps

import grpo
from grpo import ImageError
from grpo.errors import ConfigError, FileFormatError, GrpoWarning, UnsupportedModelError
from grpo.vision import Processor, preprocess, read_image, read_images
from processes import fresh

decoding = sys.modules["grpo.vision.decode"]
SECONDS = 1.0                                   # that a broken file may take
FORMATS = {"PNG": {}, "JPEG": {"quality": 90}, "GIF": {}, "WEBP": {"lossless": True}, "BMP": {}, "TIFF": {}, "PPM": {},
           "JPEG2000": {}}
EXACT = ("PNG", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000")


@pytest.fixture
def pixels(rng):
    return rng.integers(0, 256, (21, 34, 3)).astype(np.uint8)


def save(image, kind="PNG", **options):
    file = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(file, kind, **options)
    return file.getvalue()


def on_white(image):
    """What shows of a PIL image on white paper, in exact arithmetic."""
    rgba = np.asarray(image.convert("RGBA")).astype(np.float64)
    alpha = rgba[:, :, 3:] / 255
    return alpha * rgba[:, :, :3] + (1 - alpha) * 255


# -- where images come from -----------------------------------------------------------------------------------------


def test_every_source_gives_the_same_pixels(tmp_path, pixels):
    path = tmp_path / "a photo ü.png"
    path.write_bytes(data := save(pixels))
    uri = "data:image/png;base64," + base64.b64encode(data).decode()
    sources = [Image.fromarray(pixels), path, str(path), path.as_uri(), f"file://localhost{path.as_uri()[7:]}", data,
               bytearray(data), memoryview(data), {"bytes": data, "path": None}, {"bytes": data, "path": "gone.png"},
               {"path": str(path)}, {"bytes": None, "path": path}, uri, pixels, pixels.copy(order="F"),
               np.moveaxis(pixels, 2, 0), pixels[::-1][::-1]]
    for source in sources:
        got = read_image(source)
        assert (got == pixels).all() and got.dtype == np.uint8 and got.flags.c_contiguous


class Interface:
    """What NumPy can read, and nothing more."""

    def __init__(self, array):
        self.__array_interface__, self.array = array.__array_interface__, array


class Capsule:
    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


@pytest.mark.parametrize("wrap", [Interface, Capsule])
def test_arrays_of_other_libraries(pixels, wrap):
    assert (read_image(wrap(pixels)) == pixels).all()


def test_arrays_of_few_channels(rng):
    grey, four = rng.integers(0, 256, (5, 7)).astype(np.uint8), rng.integers(0, 256, (5, 7, 4)).astype(np.uint8)
    want = np.repeat(grey[:, :, None], 3, axis=2)
    for shape in ((5, 7), (5, 7, 1), (1, 5, 7)):
        assert (read_image(grey.reshape(shape)) == want).all()
    assert (np.abs(read_image(four) - on_white(Image.fromarray(four))) <= 0.5).all()
    assert (read_image(np.moveaxis(four, 2, 0)) == read_image(four)).all()
    narrow = np.zeros((3, 9, 3), np.uint8)      # the last axis is the colour wherever it can be
    assert read_image(narrow).shape == (3, 9, 3)


@pytest.mark.parametrize("source, said", [
    ("gone.png", r"image 3 \(gone.png\): there is no such file"), ("", "image 3: is a folder"),
    (".", r"image 3 \(.\): is a folder"),
    ("https://example.org/x.png", r"image 3 \(https://example.org/x.png\): nothing is fetched from the net"),
    ("http://x", "nothing is fetched"), ("file://elsewhere/x.png", "this machine, not of 'elsewhere'"),
    ("a\0b", "zero byte"), ("data:image/png;base64", "a comma"), ("data:image/png;base64,a?", "base64 is broken"),
    ("data:image/png;base64,", "has no bytes"), ("data:,words", "no image of a kind that is read"),
    (b"", "image 3: has no bytes"), (b"hello world", "no image of a kind"), ({}, "must have 'bytes' or 'path'"),
    ({"url": "x"}, "not .'url'."), ({"bytes": "text"}, "'bytes' must be bytes, not str"),
    ({"bytes": None, "path": None}, "must have"), ({"bytes": None, "path": "gone.png"}, r"\(gone.png\): there is no"),
    (None, "NoneType is no image"), (3, "int is no image"), ([1, 2], "list is no image"),
    (np.zeros((4, 4, 3), np.float32), r"array of float32 must be made uint8 .* first: \(x \* 255\)"),
    (np.zeros((4, 4, 3), np.int64), "array of int64 must be made uint8"), (np.zeros((4, 4), bool), "array of bool"),
    (np.zeros((5, 5, 2), np.uint8), r"not \(5, 5, 2\)"), (np.zeros(4, np.uint8), r"not \(4,\)"),
    (np.zeros((2, 4, 4, 3), np.uint8), r"not \(2, 4, 4, 3\)"), (np.zeros((0, 4, 3), np.uint8), "has 4 x 0 pixels"),
    (np.zeros((4, 0), np.uint8), "has 0 x 4 pixels"),
])
def test_what_is_no_image(tmp_path, monkeypatch, source, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImageError, match=said) as caught:
        read_image(source, "image 3")
    assert str(caught.value).startswith("image 3") and isinstance(caught.value, ValueError)


def test_what_is_no_regular_file(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageError, match="is no regular file"):
        read_image(tmp_path / "pipe")


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    (tmp_path / "x.png").write_bytes(b"x")

    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(ImageError, match=r"x.png\): cannot be read: PermissionError"):
        read_image(tmp_path / "x.png")


@pytest.mark.parametrize("data", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"<svg width='9' height='9'/>",
                                  b"%PDF-1.4\n", b"RIFF\0\0\0\0WAVEfmt ", b"\0\0\0\x18ftypmp42", b"\0" * 64])
def test_other_files(data):
    with pytest.raises(ImageError, match="no image of a kind that is read"):
        read_image(data)


# -- several at once ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3])
def test_files_are_decoded_by_threads(tmp_path, rng, threads, count):
    threads(count)
    images = [rng.integers(0, 256, (9 + i, 7, 3)).astype(np.uint8) for i in range(20)]
    (tmp_path / "x.png").write_bytes(save(images[7]))
    sources = [save(image) if i % 2 else Image.fromarray(image) for i, image in enumerate(images)]
    sources[7] = tmp_path / "x.png"
    for got, want in zip(read_images(sources, ["x"] * 20), images, strict=True):
        assert (got == want).all()
    again = Image.open(io.BytesIO(save(images[3])))                       # one object, undecoded, many times
    assert all((got == images[3]).all() for got in read_images([again] * 20, ["x"] * 20))
    sources[5] = sources[11] = b"broken"
    with pytest.raises(ImageError, match="^image 5: "):                   # the first, whichever fails first
        preprocess(sources, Processor.of("qwen2_vl"))


def test_warnings_that_are_errors(monkeypatch):
    monkeypatch.setattr(decoding, "_said_first_frame", False)
    data = save(Image.new("L", (3, 3)), "GIF", save_all=True, append_images=[Image.new("L", (3, 3), 9)])
    warnings.simplefilter("error", GrpoWarning)
    with pytest.raises(GrpoWarning, match="image 1: holds several"):
        preprocess([save(Image.new("L", (3, 3))), data, data], Processor.of("qwen2_vl"))


# -- modes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV", "LAB", "RGBX"])
def test_modes_without_transparency(pixels, mode):
    image = Image.fromarray(pixels)
    image = image.convert("P", palette=Image.Palette.ADAPTIVE) if mode == "P" else (
        Image.merge("LAB", image.split()) if mode == "LAB" else image.convert(mode))
    assert (read_image(image) == np.asarray(image.convert("RGB"))).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "La", "RGBa"])
def test_transparency_is_laid_on_white(rng, mode):
    rgba = Image.fromarray(rng.integers(0, 256, (9, 8, 4)).astype(np.uint8))
    image = {"RGBA": lambda: rgba, "LA": lambda: rgba.convert("LA"), "PA": lambda: rgba.convert("LA").convert("PA"),
             "La": lambda: rgba.convert("LA").convert("La"), "RGBa": lambda: rgba.convert("RGBa")}[mode]()
    assert image.mode == mode
    plain = image.convert({"La": "LA"}.get(mode, mode) if mode != "RGBa" else "RGBA")
    assert (np.abs(read_image(image) - on_white(plain)) <= 1).all()
    clear = Image.new("RGBA", (3, 2), (10, 20, 30, 0))
    assert (read_image(clear) == 255).all()


@pytest.mark.parametrize("mode, transparent", [("P", 1), ("L", 9), ("RGB", (1, 2, 3))])
def test_a_transparent_colour(mode, transparent):
    image = Image.new(mode, (4, 3), transparent)
    if mode == "P":
        image.putpalette([0, 0, 0, 50, 60, 70])
    image.putpixel((0, 0), 0 if mode != "RGB" else (9, 9, 9))
    got = read_image(save(image, transparency=transparent))
    assert (got[1:] == 255).all() and (got[0, 0] == ([9] * 3 if mode == "RGB" else [0] * 3)).all()


@pytest.mark.parametrize("order", ["<", ">"])
def test_greys_of_16_bits(order):
    greys = np.array([[0, 255, 256], [4660, 65280, 65535]], order + "u2")
    want = np.repeat((greys.astype(int) >> 8)[:, :, None], 3, axis=2)
    image = Image.fromarray(greys)
    assert image.mode.startswith("I;16")
    assert (read_image(image) == want).all()
    assert (read_image(save(greys.astype("<u2"))) == want).all() and (read_image(save(image, "TIFF")) == want).all()


@pytest.mark.parametrize("greys, said", [
    (np.array([[0, 256]], np.int32), "greys are 0 to 256"), (np.array([[-1, 5]], np.int32), "-1 to 5"),
    (np.array([[0, 300.5]], np.float32), "300.5"), (np.array([[0, np.nan]], np.float32), "nan"),
    (np.array([[0, np.inf]], np.float32), "nan"), (np.array([[0, 0.5]], np.float32), "greys are 0 to 1"),
])
def test_greys_out_of_range(greys, said):
    with pytest.raises(ImageError, match=said):
        read_image(Image.fromarray(greys))


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_greys_in_range(dtype):
    image = Image.fromarray(np.array([[0, 1, 77, 255]], dtype))
    assert (read_image(image) == np.asarray(image.convert("RGB"))).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_files_are_turned_upright(pixels, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    data = save(pixels, exif=exif)
    image = Image.open(io.BytesIO(data))
    assert (read_image(data) == np.asarray(ImageOps.exif_transpose(image))).all()
    assert (read_image(image) == pixels).all()                                # an object is taken as it is
    assert read_image(data).shape == ((21, 34, 3) if orientation < 5 else (34, 21, 3))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_of_several_pictures(monkeypatch, kind):
    monkeypatch.setattr(decoding, "_said_first_frame", False)
    frames = [Image.new("RGB", (5, 4), colour) for colour in ((200, 0, 0), (0, 200, 0))]
    data = save(frames[0], kind, save_all=True, append_images=frames[1:], **FORMATS[kind])
    with pytest.warns(GrpoWarning, match=r"image 3: holds several pictures, the first is taken \(said once"):
        assert (read_image(data, "image 3") == np.asarray(frames[0])).all()
    assert (read_image(data) == np.asarray(frames[0])).all()                  # a second warning would be an error


@pytest.fixture(autouse=True)
def warnings_are_errors(recwarn):
    yield
    assert not [w for w in recwarn if issubclass(w.category, GrpoWarning)]


# -- limits and hostile files ---------------------------------------------------------------------------------------


def png(width, height, *chunks):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*c) for c in (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), *chunks, (b"IEND", b"")))


def quickly(data):
    """Pixels, or None for an ImageError that names the image."""
    begin = time.perf_counter()
    try:
        got = read_image(data, "image 3")
    except ImageError as error:
        assert str(error).startswith("image 3: ")
        got = None
    assert time.perf_counter() - begin < SECONDS
    assert got is None or got.dtype == np.uint8 and got.ndim == 3 and got.shape[2] == 3
    return got


@pytest.mark.parametrize("data", [
    png(60000, 60000), png(20000, 10000), png(2**31 - 1, 1), png(2**31 - 1, 2**31 - 1), png(0, 5), png(5, 0),
    png(100, 100, (b"IDAT", zlib.compress(b""))), png(100, 100, (b"IDAT", zlib.compress(bytes(20 << 20)))[:2]),
    png(4, 4, (b"zTXt", b"a\0\0" + zlib.compress(bytes(80 << 20))), (b"IDAT", zlib.compress(bytes(52)))),
    png(4, 4, *[(b"tEXt", b"k\0" + bytes(1000))] * 2000, (b"IDAT", zlib.compress(bytes(52)))),
    b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\2\2\x4c\1\0;",
    b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, 2**31 - 1, 2**31 - 1, 1, 24, 0, 0, 0, 0, 0, 0),
    b"P6 99999999 99999999 255\n", b"P6 4 4 255\n", b"P6 -4 4 255\n", b"P6 4 4 99999999\n",
], ids=range(16))
def test_files_that_claim_much(data):
    quickly(data)


def test_the_limit_of_pixels(pixels):
    for source in (save(pixels), Image.fromarray(pixels), pixels):
        assert read_image(source, pixel_limit=21 * 34).shape == (21, 34, 3)
        with pytest.raises(ImageError, match="has 34 x 21 pixels, more than the limit of 713"):
            read_image(source, pixel_limit=713)
    with pytest.raises(ImageError, match="image 0: has 34 x 21 pixels, more than the limit of 9"):
        preprocess([pixels], Processor.of("qwen2_vl"), pixel_limit=9)


def test_pillows_own_limit(pixels, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    with pytest.raises(ImageError, match="larger than Pillow's own limit, PIL.Image.MAX_IMAGE_PIXELS"):
        read_image(save(pixels))


@pytest.mark.parametrize("kind", FORMATS)
def test_truncated_files(pixels, kind):
    data = save(pixels, kind, **FORMATS[kind])
    whole = quickly(data)
    assert kind not in EXACT or (whole == pixels).all()
    broken = 0
    for length in sorted({*range(1, 60), *range(60, len(data), max(1, len(data) // 60)), len(data) - 1}):
        got = quickly(data[:length])
        broken += got is None
        assert got is None or got.shape == whole.shape
    assert broken > 55
    with pytest.raises(ImageError, match=r"image 3: cannot be read: \w+"):
        read_image(data[:len(data) * 3 // 4], "image 3")


@pytest.mark.parametrize("kind", FORMATS)
def test_flipped_bits(pixels, rng, monkeypatch, kind):
    monkeypatch.setattr(decoding, "_said_first_frame", True)
    data = save(pixels, kind, **FORMATS[kind])
    for _ in range(100):
        broken = bytearray(data)
        for at in rng.integers(0, min(len(data), 400), rng.integers(1, 4)):
            broken[at] ^= 1 << int(rng.integers(8))
        quickly(bytes(broken))


def test_a_truncated_file_is_named(tmp_path, pixels):
    (tmp_path / "half.jpg").write_bytes(save(pixels, "JPEG")[:-200])
    with pytest.raises(ImageError, match=r"image 1 \(.*half.jpg\): cannot be read: OSError: .*truncated"):
        preprocess([pixels, tmp_path / "half.jpg"], Processor.of("qwen2_vl"))


def test_a_truncated_pil_image(pixels):
    with pytest.raises(ImageError, match="image 0: cannot be read: OSError"):
        preprocess([Image.open(io.BytesIO(save(pixels)[:900]))], Processor.of("qwen2_vl"))


# -- preprocess -----------------------------------------------------------------------------------------------------


def test_one_image_and_several(pixels):
    processor = Processor.of("qwen2_vl")
    one, two = preprocess(pixels, processor), preprocess([pixels, pixels], processor)
    assert one["pixel_values"].shape == (24, 1176) and one["image_grid_thw"].tolist() == [[1, 4, 6]]
    assert (two["pixel_values"] == np.tile(one["pixel_values"], (2, 1))).all()
    assert (preprocess(np.stack([pixels, pixels]), processor)["pixel_values"] == two["pixel_values"]).all()
    none = preprocess([], processor)
    assert none["pixel_values"].shape == (0, 1176) and none["image_grid_thw"].shape == (0, 3)
    assert one["pixel_values"].dtype == np.float32 and one["image_grid_thw"].dtype == np.int64


def test_a_model_stands_for_its_processor(pixels):
    class Seeing:
        processor = Processor.of("qwen3_vl")

    assert preprocess([pixels], Seeing())["pixel_values"].shape == (308, 1536)
    for blind in (object(), None, 3):
        with pytest.raises(ConfigError, match="needs a Processor or a model that sees images"):
            preprocess([pixels], blind)


def test_limits_and_places(pixels):
    processor = Processor.of("qwen2_vl")
    assert preprocess([pixels], processor, min_pixels=784, max_pixels=784)["image_grid_thw"].tolist() == [[1, 2, 2]]
    wide = np.zeros((1, 201, 3), np.uint8)
    with pytest.raises(ImageError, match="^row 7: 1 x 201 pixels: one side is more than 200 times the other"):
        preprocess([pixels, wide], processor, places=["row 6", "row 7"])
    with pytest.raises(ConfigError, match="places names 1 of 2"):
        preprocess([pixels, wide], processor, places=["row 6"])
    for limits in ({"min_pixels": 0}, {"max_pixels": "many"}, {"min_pixels": 10**6, "max_pixels": 10}):
        with pytest.raises(ConfigError, match="m.._pixels"):
            preprocess([pixels], processor, **limits)


def test_importing_grpo_brings_no_images():
    assert fresh("import grpo; print('PIL' in sys.modules, 'grpo.vision' in sys.modules)") == "False False"
    assert fresh("import grpo; grpo.vision.Processor; print('PIL' in sys.modules)") == "False"


# -- processors -----------------------------------------------------------------------------------------------------


def write(folder, name="preprocessor_config.json", **values):
    (folder / name).write_text(json.dumps(values))
    return folder


CONFIG = {"model_type": "qwen2_5_vl", "vision_config": {"patch_size": 14, "spatial_merge_size": 2}}


def test_a_folder_without_processor():
    for family, limits in {"qwen2_vl": (3136, 12845056), "qwen2_5_vl": (3136, 12845056),
                           "qwen3_vl": (65536, 16777216)}.items():
        with pytest.warns(GrpoWarning, match="no preprocessor_config.json: images are seen as is usual for " + family):
            got = Processor.read(None, {"model_type": family})
        assert got == Processor.of(family) and (got.min_pixels, got.max_pixels) == limits
        tower = {"patch_size": 4, "spatial_merge_size": 3, "temporal_patch_size": None}
        with pytest.warns(GrpoWarning, match="no preprocessor_config.json"):
            assert Processor.read(None, {"model_type": family, "vision_config": tower}) == replace(
                got, patch_size=4, merge_size=3)


@pytest.mark.parametrize("values, limits", [
    ({}, (3136, 1003520)), ({"min_pixels": 784, "max_pixels": 7840}, (784, 7840)),
    ({"max_pixels": None}, (3136, 1003520)),
    ({"size": {"shortest_edge": 784, "longest_edge": 9999}}, (784, 9999)),
    ({"size": {"shortest_edge": 784, "longest_edge": 9999}, "max_pixels": 7840}, (784, 7840)),
    ({"size": {"min_pixels": 784, "max_pixels": 9999}}, (784, 9999)), ({"size": {"longest_edge": 9999}}, (3136, 9999)),
])
def test_limits_of_a_file(tmp_path, values, limits):
    got = Processor.read(write(tmp_path, image_processor_type="Qwen2VLImageProcessor", **values), CONFIG)
    assert (got.min_pixels, got.max_pixels) == limits


def test_every_key(tmp_path):
    values = {"patch_size": 16, "temporal_patch_size": 1, "merge_size": 3, "image_mean": [0.1, 0.2, 0.3],
              "image_std": 0.5, "rescale_factor": 0.5, "do_normalize": False, "do_rescale": False, "do_resize": False}
    got = Processor.read(write(tmp_path, **values), {"model_type": "qwen3_vl"})
    assert got == Processor("qwen3_vl", 16, 1, 3, 3136, 1003520, (0.1, 0.2, 0.3), (0.5, 0.5, 0.5), None, None, 0.5,
                            False, False, False)


def test_nested_values_come_first(tmp_path):
    write(tmp_path, max_pixels=7840)
    assert Processor.read(write(tmp_path, "processor_config.json", processor_class="x"), CONFIG).max_pixels == 7840
    nested = write(tmp_path, "processor_config.json", image_processor={"max_pixels": 8624})
    assert Processor.read(nested, CONFIG).max_pixels == 8624


@pytest.mark.parametrize("values, error, said", [
    ({"patch_size": 0}, FileFormatError, "patch_size must be an integer from 1 to 128, not 0"),
    ({"patch_size": 14.0}, FileFormatError, "patch_size"), ({"merge_size": True}, FileFormatError, "merge_size"),
    ({"patch_size": 16}, FileFormatError, "patch_size is 16, but config.json's vision_config.patch_size is 14"),
    ({"merge_size": 1}, FileFormatError, "vision_config.spatial_merge_size is 2"),
    ({"image_mean": [1, 2]}, FileFormatError, "image_mean must be 3 numbers"),
    ({"image_std": [1, 0, 1]}, FileFormatError, "image_std must not be 0"),
    ({"image_mean": ["a", 2, 3]}, FileFormatError, "image_mean"), ({"rescale_factor": "x"}, FileFormatError, "rescale"),
    ({"image_mean": float("nan")}, FileFormatError, "image_mean"), ({"do_resize": "yes"}, FileFormatError, "do_resize"),
    ({"min_pixels": 10**9, "max_pixels": 9}, FileFormatError, "min_pixels 1000000000 is more than"),
    ({"max_pixels": -1}, FileFormatError, "longest_edge"), ({"max_pixels": 1e6}, FileFormatError, "longest_edge"),
    ({"resample": 2}, UnsupportedModelError, "resample 2 is not supported, only 3"),
    ({"do_center_crop": True}, UnsupportedModelError, "do_center_crop"),
    ({"do_pad": True}, UnsupportedModelError, "do_pad"), ({"size": 448}, UnsupportedModelError, "size 448"),
    ({"size": {"height": 448, "width": 448}}, UnsupportedModelError, "size"),
    ({"image_processor_type": "CLIPImageProcessor"}, UnsupportedModelError, "image_processor_type 'CLIPImageProc"),
])
def test_files_that_are_refused(tmp_path, values, error, said):
    with pytest.raises(error, match=said) as caught:
        Processor.read(write(tmp_path, **values), CONFIG)
    assert "preprocessor_config.json" in str(caught.value)


@pytest.mark.parametrize("text, said", [("", "not JSON"), ("[]", "holds a JSON list"), ("\xff", "not JSON"),
                                        ("[" * 100000, "not JSON"), (" " * (1 << 21), "larger than the limit")])
def test_broken_files(tmp_path, text, said):
    (tmp_path / "preprocessor_config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(FileFormatError, match=said):
        Processor.read(tmp_path, CONFIG)
    write(tmp_path, "processor_config.json", image_processor=3)
    with pytest.raises(FileFormatError, match="image_processor must be an object"):
        Processor.read(tmp_path, CONFIG)


@pytest.mark.parametrize("config", [{}, {"model_type": "llama"}, {"model_type": None}, {"model_type": "qwen"},
                                    {"model_type": ["qwen2_vl"]}])
def test_models_without_eyes(config):
    with pytest.raises(UnsupportedModelError, match="no images for models of type|sees no images"):
        Processor.read(None, config)


def test_qwen_vl_chat(pixels):
    visual = {"heads": 16, "image_size": 448, "layers": 48, "output_dim": 4096, "patch_size": 14, "width": 1664}
    processor = Processor.read(None, {"model_type": "qwen", "visual": visual})
    assert processor == Processor.of("qwen") and processor.to_json() is None
    assert processor.tokens(480, 640) == 256 and processor.grid(1, 1000) == (1, 32, 32)
    inputs = preprocess([pixels, np.zeros((1, 999, 3), np.uint8)], processor)
    assert inputs["pixel_values"].shape == (2048, 588) and inputs["image_grid_thw"].tolist() == [[1, 32, 32]] * 2
    with pytest.raises(ConfigError, match="every image as 448 x 448"):
        preprocess([pixels], processor, max_pixels=100)
    small = Processor.read(None, {"model_type": "qwen", "visual": {"image_size": 56, "n_queries": 4}})
    assert small.grid(9, 9) == (1, 4, 4) and small.tokens(9, 9) == 4
    for broken in ({"image_size": 450}, {"image_size": "big"}, {"n_queries": 0}):
        with pytest.raises(FileFormatError, match="visual"):
            Processor.read(None, {"model_type": "qwen", "visual": broken})


def test_images_that_are_not_resized(tmp_path, pixels):
    processor = Processor.read(write(tmp_path, do_resize=False), CONFIG)
    assert processor.grid(56, 84) == (1, 4, 6)
    with pytest.raises(ImageError, match="image 0: has 34 x 21 pixels; .*do_resize is false.* multiples of 28"):
        preprocess([pixels], processor)


def test_tokens_are_rows_by_blocks(pixels):
    for family in ("qwen2_vl", "qwen3_vl"):
        processor = Processor.of(family)
        inputs = preprocess([pixels], processor)
        assert inputs["image_grid_thw"].tolist() == [list(processor.grid(21, 34))]
        assert len(inputs["pixel_values"]) == 4 * processor.tokens(21, 34)


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_a_processor_comes_back(tmp_path, family):
    processor = Processor.of(family).with_limits(784, 78400)
    assert Processor.read(write(tmp_path, **processor.to_json()), {"model_type": family}) == processor


def test_it_is_public():
    assert grpo.vision.preprocess is preprocess and grpo.ImageError is ImageError
