"""Images to what a vision tower reads: the operations against NumPy on every tier, sizes, whole batches, bad values.
Pillow and transformers: tests/oracle/test_oracle_vision_pixels.py."""
import math

import numpy as np
import pytest

import op_statements as statement
from checks import assert_same_bits, images as checks
from grpo import _core
from grpo.errors import ConfigError, DeviceError
from op_statements import normal
from processes import fresh

RULE = {"patch_size": 2, "merge_size": 2, "temporal_patch_size": 2}


def image(rng, *shape):
    return rng.integers(0, 256, (*shape, 3)).astype(np.uint8)


# -- operations ------------------------------------------------------------------------------------------------------


@pytest.fixture
def ops(device):
    return _core.Ops(device)


@pytest.mark.parametrize("H, M, N, C, taps", [*checks.PASSES, (40, 300, 160, 3, 9), (1, 90, 55, 999, 6),
                                              (100, 5, 7, 3, 5), (8, 1000, 3, 3, 900)])
def test_resample(ops, rng, H, M, N, C, taps):
    checks.test_resample(ops, rng, H, M, N, C, taps)


@pytest.mark.parametrize("C", [3, 80])
def test_sums_at_the_ends_of_their_range(ops, C):
    checks.test_sums_at_the_ends_of_their_range(ops, C)


@pytest.mark.parametrize("H, W, P, T, G", checks.IMAGES)
def test_patches(ops, rng, H, W, P, T, G):
    checks.test_patches(ops, rng, H, W, P, T, G)


def test_no_image_is_no_work(ops):
    checks.test_no_image_is_no_work(ops)


@pytest.mark.parametrize("change, said", [
    ({"P": 0}, "positive"), ({"T": 0}, "positive"), ({"G": 0}, "positive"), ({"P": 3}, "divide"), ({"G": 3}, "divide"),
])
def test_patches_of_impossible_sizes(ref, change, said):
    sizes = {"P": 2, "T": 1, "G": 2} | change
    with pytest.raises(ValueError, match=said):
        ref.patches(np.zeros((4, 8, 3), np.uint8), np.zeros((3, 256), np.float32), **sizes)


@pytest.mark.parametrize("first", [[0, 4], [3, 2], [4, 4]])
def test_taps_that_leave_the_image(ref, first):
    with pytest.raises(ValueError, match="first must ascend"):
        ref.resample(np.zeros((1, 5, 3), np.uint8), np.array(first, np.int32), np.zeros((2, 2), np.int32))


# -- whole images ----------------------------------------------------------------------------------------------------


def taps_of(from_, to):
    """Pillow's bicubic filter from its definition: (first, weight)."""
    scale = from_ / to
    stretch = max(1.0, scale)

    def kernel(x):
        x = abs(x)
        return (1.5 * x - 2.5) * x * x + 1 if x < 1 else (((x - 5) * x + 8) * x - 4) * -0.5 if x < 2 else 0.0

    rows = []
    for n in range(to):
        center = (n + 0.5) * scale
        begin, end = max(0, int(center - 2 * stretch + 0.5)), min(from_, int(center + 2 * stretch + 0.5))
        w = [kernel((k - center + 0.5) / stretch) for k in range(begin, end)]
        rows.append((begin, [math.floor(abs(x) / sum(w) * 2**22 + 0.5) * (1 if x >= 0 else -1) for x in w]))
    longest = max(len(w) for _, w in rows)
    starts = [min(begin, from_ - longest) for begin, _ in rows]
    weight = np.zeros((to, longest), np.int32)
    for n, (begin, w) in enumerate(rows):
        weight[n, begin - starts[n]:begin - starts[n] + len(w)] = w
    return np.array(starts, np.int32), weight


def resize(pixels, height, width):
    """Both passes as Pillow 13 orders them."""
    def over_rows(pixels):
        return pixels if pixels.shape[1] == width else statement.resample(pixels, *taps_of(pixels.shape[1], width))

    def over_columns(pixels):
        if len(pixels) == height:
            return pixels
        wide = pixels.reshape(1, len(pixels), -1)
        return statement.resample(wide, *taps_of(len(pixels), height)).reshape(height, -1, 3)

    shrinks = len(pixels) - height
    if shrinks > 0 and shrinks > 2 * (pixels.shape[1] - width):
        return over_rows(over_columns(pixels))
    return over_columns(over_rows(pixels))


@pytest.mark.parametrize("sizes", [
    [((20, 31), (20, 32))], [((20, 32), (28, 32))], [((20, 32), (20, 32))], [((1, 1), (8, 12))], [((90, 40), (8, 36))],
    [((90, 40), (8, 4))], [((7, 300), (4, 40))], [((300, 3), (60, 4)), ((5, 9), (12, 4)), ((64, 64), (4, 64))], [],
])
def test_preprocess(device, rng, sizes):
    images, table = [image(rng, *before) for before, _ in sizes], normal(rng, 3, 256)
    rows, grid = _core.preprocess(images, np.array([after for _, after in sizes], np.int32).reshape(-1, 2), table=table,
                                  device=device, **RULE)
    want = [statement.patches(resize(pixels, *after), table, 2, 2, 2)
            for pixels, (_, after) in zip(images, sizes, strict=True)]
    assert_same_bits([rows], [np.concatenate(want) if want else np.zeros((0, 24), np.float32)])
    assert grid.tolist() == [[1, height // 2, width // 2] for _, (height, width) in sizes]


def test_threads_change_no_bit(rng, threads):
    images, sizes, table = ([image(rng, 70, 51), image(rng, 33, 120)], np.array([[44, 96], [64, 36]], np.int32),
                            normal(rng, 3, 256))
    seen = []
    for count in (1, 2, 3, 4):
        threads(count)
        seen.append(_core.preprocess(images, sizes, table=table, device="cpu", **RULE)[0])
    assert_same_bits(seen[1:], seen[:1] * 3)


@pytest.mark.parametrize("width", [3, 4, 5, 8, 21])
def test_nothing_is_read_beyond_an_image(tier, width):
    """Its last byte is the last of a page, and the next page cannot be read."""
    code = f"""
import ctypes, mmap
import numpy as np
from grpo import _core
page = mmap.PAGESIZE
memory = mmap.mmap(-1, 2 * page)
view = np.frombuffer(memory, np.uint8)
libc = ctypes.CDLL(None, use_errno=True)
assert libc.mprotect(ctypes.c_void_p(view.ctypes.data + page), page, 0) == 0
for height in (1, 2, 9, 16):
    image = view[page - 3 * height * {width}:page].reshape(height, {width}, 3)
    for size in ([height + height % 2 + 2, 20], [4, 4], [40, 2]):
        _core.preprocess([image], np.array([size], np.int32), table=np.zeros((3, 256), np.float32), patch_size=2,
                         merge_size=1, temporal_patch_size=1, device="cpu")
print("read")
"""
    assert fresh(code) == "read"


# -- sizes -----------------------------------------------------------------------------------------------------------


def python_size(height, width, factor, low, high):
    h, w = round(height / factor) * factor, round(width / factor) * factor
    if h * w > high:
        beta = math.sqrt(height * width / high)
        return (max(factor, math.floor(height / beta / factor) * factor),
                max(factor, math.floor(width / beta / factor) * factor))
    if h * w < low:
        beta = math.sqrt(low / (height * width))
        return math.ceil(height * beta / factor) * factor, math.ceil(width * beta / factor) * factor
    return h, w


@pytest.mark.parametrize("size, hub, own, qwen3", [
    ((224, 224), (224, 224), (224, 224), (256, 256)), ((480, 640), (476, 644), (476, 644), (480, 640)),
    ((1080, 1920), (1092, 1932), (728, 1316), (1088, 1920)), ((70, 70), (56, 56), (56, 56), (256, 256)),
    ((98, 98), (112, 112), (112, 112), (256, 256)), ((20, 20), (56, 56), (56, 56), (256, 256)),
    ((100, 50), (112, 56), (112, 56), (384, 192)), ((13, 300), (28, 280), (28, 280), (64, 1248)),
    ((3000, 4000), (2996, 4004), (840, 1148), (3008, 4000)),
    ((5000, 7000), (3024, 4228), (840, 1176), (3456, 4832)),
])
def test_sizes_that_are_known(size, hub, own, qwen3):
    assert _core.smart_resize(*size, 28, 3136, 12845056) == hub
    assert _core.smart_resize(*size, 28, 3136, 1003520) == own
    assert _core.smart_resize(*size, 32, 65536, 16777216) == qwen3


def test_sizes_against_python(rng):
    for _ in range(3000):
        height, width = (int(x) for x in np.exp(rng.uniform(0, 9, 2)))
        factor, low = int(rng.choice([1, 14, 28, 32])), int(np.exp(rng.uniform(0, 14)))
        limits = factor, low, low + int(np.exp(rng.uniform(0, 16)))
        if max(height, width) > 200 * min(height, width):
            with pytest.raises(ConfigError, match="200 times"):
                _core.smart_resize(height, width, *limits)
        else:
            assert _core.smart_resize(height, width, *limits) == python_size(height, width, *limits)


def test_the_narrowest_image():
    assert _core.smart_resize(1, 200, 28, 3136, 1003520) == (28, 812)
    for size in ((1, 201), (201, 1)):
        with pytest.raises(ConfigError, match=f"{size[0]} x {size[1]} pixels: one side is more than 200 times"):
            _core.smart_resize(*size, 28, 3136, 1003520)


@pytest.mark.parametrize("arguments", [(0, 5, 28, 1, 9), (5, -1, 28, 1, 9), (5, 5, 0, 1, 9), (5, 5, 28, 0, 9),
                                       (5, 5, 28, 9, 8), (5, 5, 28, 1 << 62, 1 << 62)])
def test_impossible_sizes(arguments):
    with pytest.raises(ConfigError):
        _core.smart_resize(*arguments)


# -- bad values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change, error, said", [
    ({"sizes": [[4, 6]]}, ValueError, "sizes.0. is 4 x 6, must be whole blocks of 4 x 4"),
    ({"sizes": [[0, 4]]}, ValueError, "sizes.0."), ({"sizes": [[-4, 4]]}, ValueError, "sizes.0."),
    ({"sizes": [[4, 1 << 30]]}, ValueError, "sizes.0."),
    ({"sizes": [[4, 4]] * 2}, ValueError, "sizes must be .1, 2."), ({"sizes": [[4]]}, ValueError, "sizes must be"),
    ({"images": [np.zeros((4, 4, 4), np.uint8)]}, ValueError, "images.0. is .4, 4, 4., must be"),
    ({"images": [np.zeros((0, 4, 3), np.uint8)]}, ValueError, "images.0. is"),
    ({"images": [np.zeros((4, 4, 3), np.float32)]}, TypeError, "images.0. must have dtype uint8"),
    ({"images": 3}, TypeError, "images must be a list"), ({"patch_size": 0}, ValueError, "patch_size 0"),
    ({"merge_size": -1}, ValueError, "merge_size -1"), ({"temporal_patch_size": 1 << 20}, ValueError, "must be in"),
    ({"table": np.zeros((3, 255), np.float32)}, ValueError, "table must be .3, 256."),
    ({"device": "abacus"}, DeviceError, "abacus"),
])
def test_bad_values(change, error, said):
    arguments = {"images": [np.zeros((5, 5, 3), np.uint8)], "sizes": [[4, 4]], "device": "ref",
                 "table": np.zeros((3, 256), np.float32), **RULE} | change
    with pytest.raises(error, match=said):
        _core.preprocess(arguments.pop("images"), np.array(arguments.pop("sizes"), np.int32), **arguments)
