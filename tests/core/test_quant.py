"""GGUF block formats against their formulas in plain Python."""

import zlib

import numpy as np
import pytest

from grpo import _core
from grpo.errors import ConfigError, FileFormatError
from grpo.model.formats.safetensors import to_bfloat16_bits
from make_files import BLOCKS, HALVES, quantised

QUANTISED = [kind for kind, (elements, _) in BLOCKS.items() if elements > 1]
IQ4 = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
# Of golden_blocks, by the public `gguf` package's NumPy code: CRC-32 of the float32s, three values of the second block.
GOLDEN = {
    "Q4_0": (0x24853DCE, [-3.0, -6.0, -9.0]),
    "Q4_1": (0xF22A7C2C, [-6.25, -9.25, -3.25]),
    "Q5_0": (0x8C2D7B01, [3.0, -0.0, 13.5]),
    "Q5_1": (0x87908CF2, [-12.25, -15.25, -18.25]),
    "Q8_0": (0x8116E4D3, [105.0, -66.0, -79.5]),
    "Q2_K": (0x0AAE8B04, [1.75, 0.5, -47.25]),
    "Q3_K": (0x756C28ED, [-192.0, 112.5, -0.0]),
    "Q4_K": (0xBBBFD75E, [6.0, -180.5, -38.25]),
    "Q5_K": (0xB535A5CC, [6.0, -180.5, -443.25]),
    "Q6_K": (0xFCBB8735, [2304.0, 793.5, 2730.0]),
    "IQ4_NL": (0xE82C1EB0, [-37.5, -79.5, -133.5]),
    "IQ4_XS": (0xF2FD07A2, [-6.0, -4237.5, -3898.5]),
}
# Ordinary, negative, subnormal, largest.
SCALES = ((0.0371, 0.0123), (-1.5, -0.25), (2.0**-24, 3 * 2.0**-24), (65504.0, 0.5))


def golden_blocks(kind):
    """Four blocks of bytes that differ, with the scales (and mins, where the format has them) of SCALES."""
    blocks = (37 * np.arange(BLOCKS[kind][1]) + 101 * np.arange(len(SCALES))[:, None] + 11).astype(np.uint8)
    for i, at in enumerate(HALVES[kind]):
        blocks[:, at : at + 2] = np.array(SCALES, "<f2")[:, i, None].view(np.uint8)
    return blocks.tobytes()


def statement(kind, data):
    """The value formulas of the formats in plain Python, one element at a time."""

    def half(at):
        return float(np.frombuffer(data[at : at + 2], "<f2")[0])

    def signed(byte):
        return byte - 256 if byte > 127 else byte

    out = []
    for at in range(0, len(data), BLOCKS[kind][1]):
        b = data[at : at + BLOCKS[kind][1]]
        if kind in ("Q4_0", "Q4_1"):
            q = b[2:] if kind == "Q4_0" else b[4:]
            nibbles = [x & 15 for x in q] + [x >> 4 for x in q]
            out += [half(at) * (n - 8) if kind == "Q4_0" else half(at) * n + half(at + 2) for n in nibbles]
        elif kind in ("Q5_0", "Q5_1"):
            skip = 2 if kind == "Q5_0" else 4
            high, q = int.from_bytes(b[skip : skip + 4], "little"), b[skip + 4 :]
            fives = [(n | ((high >> i) & 1) << 4) for i, n in enumerate([x & 15 for x in q] + [x >> 4 for x in q])]
            out += [half(at) * (n - 16) if kind == "Q5_0" else half(at) * n + half(at + 2) for n in fives]
        elif kind == "Q8_0":
            out += [half(at) * signed(x) for x in b[2:]]
        elif kind in ("Q4_K", "Q5_K"):
            s, start = b[4:16], 16 if kind == "Q4_K" else 48
            for k in range(8):
                scale, low = (
                    (s[k] & 63, s[k + 4] & 63)
                    if k < 4
                    else ((s[k + 4] & 15) + 16 * (s[k - 4] >> 6), (s[k + 4] >> 4) + 16 * (s[k] >> 6))
                )
                run = b[start + 32 * (k // 2) : start + 32 + 32 * (k // 2)]
                q = [(x >> 4) if k % 2 else (x & 15) for x in run]
                if kind == "Q5_K":
                    q = [n + 16 * (b[16 + j] >> k & 1) for j, n in enumerate(q)]
                out += [half(at) * scale * n - half(at + 2) * low for n in q]
        elif kind == "Q2_K":
            for i in range(256):
                q = b[16 + 32 * (i // 128) + i % 32] >> 2 * (i % 128 // 32) & 3
                out.append(half(at + 80) * (b[i // 16] & 15) * q - half(at + 82) * (b[i // 16] >> 4))
        elif kind == "Q3_K":
            # 16 low nibbles in the order 0 8 1 9 ..., then 16 pairs in the order 0 4 8 12 1 ...
            s = int.from_bytes(b[96:108], "little")
            for i in range(256):
                k = i // 16
                nibble, pair = s >> 8 * (k % 8) + 4 * (k // 8) & 15, s >> 64 + 8 * (k % 4) + 2 * (k // 4) & 3
                q = b[32 + 32 * (i // 128) + i % 32] >> 2 * (i % 128 // 32) & 3
                q -= 0 if b[i % 32] >> i // 32 & 1 else 4
                out.append(half(at + 108) * (nibble + 16 * pair - 32) * q)
        elif kind in ("IQ4_NL", "IQ4_XS"):
            for i in range(BLOCKS[kind][0]):
                k, byte = i // 32, b[(2 if kind == "IQ4_NL" else 8) + 16 * (i // 32) + i % 16]
                scale = 1
                if kind == "IQ4_XS":
                    scale = (b[4 + k // 2] >> 4 * (k % 2) & 15) + 16 * (b[2 + k // 4] >> 2 * (k % 4) & 3) - 32
                out.append(half(at) * scale * IQ4[byte >> 4 if i % 32 > 15 else byte & 15])
        elif kind == "Q6_K":
            for i in range(256):
                h, run, j = i // 128, i % 128 // 32, i % 32
                low, pair = b[64 * h + j + 32 * (run % 2)], (b[128 + 32 * h + j] >> (2 * run)) & 3
                q = ((low >> 4) if run > 1 else (low & 15)) + 16 * pair - 32
                out.append(half(at + 208) * signed(b[192 + 8 * h + 2 * run + j // 16]) * q)
    return np.array(out)


def test_formats_and_their_blocks():
    assert _core.block_formats == BLOCKS


@pytest.mark.parametrize("kind", GOLDEN)
def test_golden_blocks(kind):
    """Bit for bit, whatever the scale."""
    elements = BLOCKS[kind][0]
    got = _core.dequantize(kind, golden_blocks(kind), len(SCALES) * elements)
    checksum, values = GOLDEN[kind]
    assert got[elements:][[0, elements // 3, elements - 1]].tolist() == values
    assert zlib.crc32(got.astype("<f4").tobytes()) == checksum


@pytest.mark.parametrize("kind", QUANTISED)
def test_dequantize_blocks(kind):
    data = quantised(kind, 3 * 256, np.random.default_rng(1))
    np.testing.assert_allclose(_core.dequantize(kind, data, 3 * 256), statement(kind, data), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_dequantize_floats(kind):
    data = (
        quantised(kind, 100, np.random.default_rng(1))
        + np.array([0x7F80, 0xFF80, 0x8000, 0x7C00, 0xFC00, 1], "<u2").tobytes()
    )
    expected = {
        "F32": np.frombuffer(data, "<f4"),
        "F16": np.frombuffer(data, "<f2").astype(np.float32),
        "BF16": (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32),
    }[kind]
    np.testing.assert_array_equal(_core.dequantize(kind, data, len(expected)), expected)


@pytest.mark.parametrize(
    "kind, size, count, error",
    [
        ("Q4_0", 18, 31, FileFormatError),
        ("Q4_0", 17, 32, FileFormatError),
        ("Q4_0", 36, 32, FileFormatError),
        ("Q6_K", 210, 1 << 62, FileFormatError),
        ("F32", 4, 0, FileFormatError),
        ("Q4_0", 0, -32, ValueError),
        ("Q9", 18, 32, ConfigError),
        ("Q4_0", 19, 32, FileFormatError),
        ("Q2_K", 84, 128, FileFormatError),
        ("Q2_K", 84, 512, FileFormatError),
        ("IQ4_XS", 135, 256, FileFormatError),
    ],
)
def test_dequantize_checks_sizes(kind, size, count, error):
    with pytest.raises(error):
        _core.dequantize(kind, bytes(size), count)


def test_dequantize_empty():
    assert _core.dequantize("Q8_0", b"", 0).shape == (0,)


def q8_0(block):
    """ggml's reference in plain Python: 32 float32 -> (half, 32 int8), halves away from zero."""
    scale = np.float32(np.abs(block).max()) / np.float32(127)
    inverse = np.float32(1) / scale if scale else np.float32(0)
    scaled = [float(np.float32(x * inverse)) for x in block]
    whole = [int(abs(x) + 0.5) * (1 if x > 0 else -1) for x in scaled]
    return np.float16(scale).tobytes() + np.array(whole, np.int8).tobytes()


def test_q8_0_is_written_as_by_ggml(rng):
    sizes = np.array([0, 1e-30, 1e-6, 1e-3, 1, 300, 1e6], np.float32)
    blocks = rng.standard_normal((len(sizes), 32)).astype(np.float32) * sizes[:, None]
    blocks[4] = (np.arange(32) - 15.5) * 2  # halves: the largest is 31 = 127 steps of 31 / 127
    blocks[5, :4] = [127, 0.5, -0.5, 2.5]
    blocks[5, 4:] = 0
    assert _core.quantize("Q8_0", blocks.ravel()).tobytes() == b"".join(map(q8_0, blocks))


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_floats_are_written_to_the_nearest(kind, rng):
    """Ties to even, subnormals of halves, and signs of zero."""
    values = np.concatenate(
        [
            rng.standard_normal(4000) * 10.0 ** rng.uniform(-9, 4, 4000),
            np.arange(4096) * 2.0**-26,
            [0.0, -0.0, 65504.0, 65519.996, 1 + 2.0**-11, 1 + 3 * 2.0**-11, 1 + 2.0**-8, 1 + 3 * 2.0**-8],
        ]
    ).astype(np.float32)
    values = np.concatenate([values, -values])
    want = {"F32": values, "F16": values.astype(np.float16), "BF16": to_bfloat16_bits(values)}[kind]
    got = _core.quantize(kind, values)
    assert got.tobytes() == want.tobytes()
    np.testing.assert_array_equal(_core.quantize(kind, _core.dequantize(kind, got.tobytes(), len(values))), got)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 1e38])
def test_what_a_format_cannot_hold(value):
    array = np.zeros(96, np.float32)
    array[70] = value
    for kind, named in (("Q8_0", "elements 64 to 95"), ("F16", "elements 70 to 70")):
        with pytest.raises(FileFormatError, match=f"{kind} cannot hold a number of {named}"):
            _core.quantize(kind, array)
    for kind in ("F32", "BF16"):
        _core.quantize(kind, array)


@pytest.mark.parametrize(
    "kind, count, error", [("Q8_0", 31, FileFormatError), ("Q4_0", 32, ConfigError), ("Q9", 32, ConfigError)]
)
def test_quantize_checks_its_arguments(kind, count, error):
    with pytest.raises(error):
        _core.quantize(kind, np.zeros(count, np.float32))
    with pytest.raises(TypeError):
        _core.quantize("F32", np.zeros(count))
