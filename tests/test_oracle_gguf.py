"""GGUF against the public packages gguf and sentencepiece."""

import struct

import numpy as np
import pytest
from make_files import BLOCKS, sentencepiece_metadata

from grpo import _core
from grpo.formats.gguf import GgufFile
from grpo.tokenizer import Tokenizer

gguf = pytest.importorskip("gguf")
pytestmark = pytest.mark.oracle

TEXTS = [
    "Hello world",
    " Hello  world ",
    "a    b" + " " * 40 + "c",
    "def f(x):\n    return x\n\n\n\tpass\t\t# 3.14159",
    "12345 + 67890 = 80235",
    "日本語テスト、中文测试。한국어 العربية עברית हिन्दी ไทย",
    "🙂👩\u200d👩\u200d👧🏽 🇩🇪 ᚠ 𓀀 \x00\x7f",
    "é e\u0301 ﬁ ½ Ａ \u00a0\u2003\u200b",
    "aaaaaaaaaaa bbbb abababababab abcabcbcbc",
    "<table><tr><td>x</td></tr></table> <0x41> [multimodal]",
    "It's John's; don't! (\"quoted\") e.g. https://example.org/a?b=c&d=%20",
]


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning", "ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize("kind", [kind for kind, (elements, _) in BLOCKS.items() if elements > 1])
def test_every_block_dequantises_to_the_same_bits(kind, rng):
    """Random bytes, so that scales and mins of every kind come up: negative, subnormal, infinite, NaN."""
    elements, size = BLOCKS[kind]
    blocks = rng.integers(0, 256, (4000, size), np.uint8)
    want = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[kind]).ravel()
    got = _core.dequantize(kind, blocks.tobytes(), len(blocks) * elements)
    number = ~np.isnan(want)
    np.testing.assert_array_equal(np.isnan(got), ~number)
    np.testing.assert_array_equal(got[number].view(np.uint32), want[number].view(np.uint32))


def field(number, payload):
    """A field of a protocol-buffer message: int, float, bytes or str."""
    if isinstance(payload, float):
        return bytes([number << 3 | 5]) + struct.pack("<f", payload)
    if isinstance(payload, int):
        return varint(number << 3) + varint(payload)
    data = payload.encode() if isinstance(payload, str) else payload
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(number):
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def sentencepiece_processor(metadata):
    """sentencepiece's own BPE with the vocabulary of a GGUF. A user-defined token stands there with its spaces as they are."""
    library = pytest.importorskip("sentencepiece")
    tokens, scores, types = (metadata[f"tokenizer.ggml.{key}"] for key in ("tokens", "scores", "token_type"))
    unknown, prefix = metadata["tokenizer.ggml.unknown_token_id"], metadata.get("tokenizer.ggml.add_space_prefix", True)
    pieces = b"".join(
        field(1, field(1, token.replace(" ", "▁")) + field(2, score) + field(3, 2 if i == unknown else kind))
        for i, (token, score, kind) in enumerate(zip(tokens, scores, types, strict=True))
    )
    special = field(40, unknown) + field(45, tokens[unknown])
    for number, key in ((41, "bos"), (42, "eos")):
        special += field(number, metadata[f"tokenizer.ggml.{key}_token_id"])
        special += field(number + 5, tokens[metadata[f"tokenizer.ggml.{key}_token_id"]])
    trainer = field(3, 2) + field(35, 1) + special
    normalizer = field(1, "identity") + field(3, int(prefix)) + field(4, 0) + field(5, 1)
    return library.SentencePieceProcessor(model_proto=pieces + field(2, trainer) + field(3, normalizer))


def test_tiny_vocabulary_splits_as_sentencepiece():
    for prefix in (True, False):
        metadata = {**sentencepiece_metadata(), "tokenizer.ggml.add_space_prefix": prefix}
        ours, theirs = Tokenizer.from_gguf(metadata), sentencepiece_processor(metadata)
        letters = np.random.default_rng(0).choice(list("aabbcc \né"), (200, 12))
        for text in ["", *TEXTS, *map("".join, letters)]:
            assert ours.encode(text) == theirs.encode(text), text


def test_gemma_splits_as_sentencepiece(gemma3_gguf):
    file = GgufFile(gemma3_gguf)
    file.close()
    ours, theirs = Tokenizer.from_gguf(file.metadata), sentencepiece_processor(file.metadata)
    rng = np.random.default_rng(0)
    characters = [chr(c) for c in (*range(32, 127), *range(0xC0, 0x180), *range(0x4E00, 0x4E40), *range(0x1F600, 0x1F640))]
    random = ["".join(rng.choice(characters, 30)) for _ in range(100)]
    words = [file.metadata["tokenizer.ggml.tokens"][i] for i in rng.integers(300, 236000, 3000)]
    for text in [*TEXTS, *random, *("".join(words[i : i + 6]).replace("▁", " ") for i in range(0, 3000, 6))]:
        ids = ours.encode(text)
        assert ids == theirs.encode(text), text
        assert ours.decode(ids) == text
