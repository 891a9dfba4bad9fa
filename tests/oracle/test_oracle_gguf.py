"""GGUF against the public packages gguf, sentencepiece and transformers."""

import struct

import numpy as np
import pytest

import grpo
from grpo import _core
from grpo.model.formats.gguf import GgufFile
from grpo.model.tokenizer import Tokenizer
from make_files import BLOCKS, gguf as gguf_bytes, gguf_tensors, model_metadata, sentencepiece_metadata

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
    """sentencepiece's own BPE with the vocabulary of a GGUF, which writes user-defined tokens with plain spaces."""
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
    ranges = range(32, 127), range(0xC0, 0x180), range(0x4E00, 0x4E40), range(0x1F600, 0x1F640)
    characters = [chr(c) for some in ranges for c in some]
    random = ["".join(rng.choice(characters, 30)) for _ in range(100)]
    words = [file.metadata["tokenizer.ggml.tokens"][i] for i in rng.integers(300, 236000, 3000)]
    for text in [*TEXTS, *random, *("".join(words[i : i + 6]).replace("▁", " ") for i in range(0, 3000, 6))]:
        ids = ours.encode(text)
        assert ids == theirs.encode(text), text
        assert ours.decode(ids) == text


TINY = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 7,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": 300,
    "max_position_embeddings": 512,
    "sliding_window": 8,
    "pad_token_id": None,
}


@pytest.mark.parametrize("kind", ["Gemma3", "Mistral"])
def test_a_model_of_transformers_comes_back(kind, tmp_path):
    """transformers' model -> GGUF -> config and values -> the same logits in transformers."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config_class = transformers.Gemma3TextConfig if kind == "Gemma3" else transformers.MistralConfig
    model_class = getattr(transformers, f"{kind}ForCausalLM")
    torch.manual_seed(0)
    model = model_class(config_class(**TINY, tie_word_embeddings=True, query_pre_attn_scalar=32)).eval()
    state = {name: value.detach().float() for name, value in model.state_dict().items() if name != "lm_head.weight"}
    for name, value in state.items():
        if name.endswith("norm.weight"):
            value.copy_(torch.randint(-64, 64, value.shape) / 128)
    model.load_state_dict(state, strict=False)

    config = {"model_type": "gemma3_text" if kind == "Gemma3" else "mistral", **model.config.to_dict()}
    tensors = gguf_tensors({name: value.numpy() for name, value in state.items()}, config)
    (tmp_path / "x.gguf").write_bytes(gguf_bytes(model_metadata(config), tensors))
    file = GgufFile(tmp_path / "x.gguf")
    again = model_class(config_class(**file.config)).eval()
    read, saved = again.config.to_dict(), model.config.to_dict()
    for key in ("rope_parameters", "layer_types", "sliding_window", "head_dim"):
        assert read.get(key) == saved.get(key), key
    if kind == "Gemma3":  # in transformers' own spelling, every key
        assert {key: read[key] for key in file.config} == file.config
    values = {name: torch.from_numpy(file.read(name)) for name in file.shapes()}
    file.close()
    assert not again.load_state_dict(values, strict=False).unexpected_keys
    ids = torch.randint(0, 300, (2, 40))
    with torch.no_grad():
        assert torch.equal(again(ids).logits, model(ids).logits)


def test_gemma_weights_make_sense_to_transformers(gemma3_gguf):
    """Names, norms and config of the real file: its text is likely, and continued."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    file = GgufFile(gemma3_gguf)
    tokenizer = Tokenizer.from_gguf(file.metadata)
    model = transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**file.config)).eval()
    values = {name: torch.from_numpy(file.read(name)) for name in file.shapes()}
    file.close()
    assert model.load_state_dict(values, strict=False).missing_keys == ["lm_head.weight"]
    text = (
        "The Sun is the star at the center of the Solar System. It is a massive, nearly perfect sphere of hot plasma."
    )
    ids = torch.tensor([tokenizer.encode(text, add_special_tokens=True)])
    with torch.no_grad():
        assert model(ids, labels=ids).loss < 2.5
        ids = torch.tensor([tokenizer.encode("One, two, three, four, five, six, seven,", add_special_tokens=True)])
        completion = model.generate(ids, max_new_tokens=4, do_sample=False)[0, ids.shape[1] :]
        assert tokenizer.decode(completion.tolist()) == " eight, nine,"


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16", "q8_0"])
def test_a_written_file_is_read_by_the_library(dtype, tmp_path):
    """gguf's own reader: every key with its type, every tensor with its numbers, those of its own quantiser."""
    model = grpo.load(grpo.tiny("llama", hidden_size=64, intermediate_size=96, num_attention_heads=4), device="ref")
    model.save_gguf(tmp_path / "x.gguf", dtype)
    file, reader = GgufFile(tmp_path / "x.gguf"), gguf.GGUFReader(tmp_path / "x.gguf")
    for key, value in file.metadata.items():
        assert reader.get_field(key).contents() == value, key
    wanted = {tensor.name: tensor for tensor in reader.tensors}
    kind = gguf.GGMLQuantizationType[dtype.upper()]
    state = {name: array for name, _, _, array in gguf_tensors(model.state_dict(), model.config)}
    assert wanted.keys() == state.keys()
    for name, data in state.items():
        tensor = wanted[name]
        array = np.frombuffer(data, "<f4").reshape(tensor.shape[::-1].tolist())
        own = gguf.quants.quantize(array, kind if array.ndim > 1 else gguf.GGMLQuantizationType.F32)
        assert tensor.data.tobytes() == own.tobytes(), name
    assert reader.get_field("general.alignment") is None and all(
        tensor.data_offset % 32 == 0 for tensor in reader.tensors
    )
    file.close()
