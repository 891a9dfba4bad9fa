"""GGUF block formats against their formulas in plain Python."""

import numpy as np
import pytest
from make_files import BLOCKS, quantised

from grpo import _core
from grpo.errors import ConfigError, FileFormatError


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
        elif kind == "Q4_K":
            s = b[4:16]
            for k in range(8):
                scale, low = (
                    (s[k] & 63, s[k + 4] & 63) if k < 4 else ((s[k + 4] & 15) + 16 * (s[k - 4] >> 6), (s[k + 4] >> 4) + 16 * (s[k] >> 6))
                )
                run = b[16 + 32 * (k // 2) : 48 + 32 * (k // 2)]
                out += [half(at) * scale * ((x >> 4) if k % 2 else (x & 15)) - half(at + 2) * low for x in run]
        elif kind == "Q6_K":
            for i in range(256):
                h, run, j = i // 128, i % 128 // 32, i % 32
                low, pair = b[64 * h + j + 32 * (run % 2)], (b[128 + 32 * h + j] >> (2 * run)) & 3
                q = ((low >> 4) if run > 1 else (low & 15)) + 16 * pair - 32
                out.append(half(at + 208) * signed(b[192 + 8 * h + 2 * run + j // 16]) * q)
    return np.array(out)


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q6_K"])
def test_dequantize_blocks(kind):
    data = quantised(kind, 3 * 256, np.random.default_rng(1))
    np.testing.assert_allclose(_core.dequantize(kind, data, 3 * 256), statement(kind, data), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_dequantize_floats(kind):
    data = quantised(kind, 100, np.random.default_rng(1)) + np.array([0x7F80, 0xFF80, 0x8000, 0x7C00, 0xFC00, 1], "<u2").tobytes()
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
    ],
)
def test_dequantize_checks_sizes(kind, size, count, error):
    with pytest.raises(error):
        _core.dequantize(kind, bytes(size), count)


def test_dequantize_empty():
    assert _core.dequantize("Q8_0", b"", 0).shape == (0,)
