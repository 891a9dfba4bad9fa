"""Models written as GGUF and read back: every family, dtype, rope and tokenizer; what GGUF cannot say is refused."""

import warnings

import numpy as np
import pytest

import bpe_tokenizers
import grpo
from grpo import _core, cli
from grpo.errors import (
    CheckpointError,
    ConfigError,
    FileFormatError,
    GrpoWarning,
    TokenizerError,
    UnsupportedModelError,
)
from grpo.model.export import export_gguf
from grpo.model.formats.gguf import GgufFile
from grpo.model.formats.gguf_container import GgufContainer
from grpo.model.formats.gguf_names import GEMMA3_LAYER_NAMES, LAYER_NAMES, NAMES, gguf_name, hugging_face_name
from grpo.model.formats.gguf_splits import OF_NAME
from grpo.model.formats.gguf_vocabulary import PROBES
from grpo.model.tokenizer import Tokenizer
from make_files import gguf_tensors, model_metadata

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma3")
SMALL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
}
GEMMA = {"query_pre_attn_scalar": 16, "num_hidden_layers": 7, "sliding_window": 16}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def tiny(family, device="ref", tokenizer=None, **sizes):
    sizes = {
        **SMALL,
        **(GEMMA if family == "gemma3" else {"sliding_window": None} if family == "mistral" else {}),
        **sizes,
    }
    return grpo.load(grpo.tiny(family, **sizes), device=device, tokenizer=tokenizer)


def shaken(model):
    """The model with norms and biases that are not all the same."""
    rng = np.random.default_rng(0)
    for name, shape in model.core.tensors():
        if len(shape) == 1:
            model.core.set_tensor(
                name, (rng.integers(-64, 64, shape) / 128 + (0.75 if "norm" in name else 0)).astype("f4")
            )
    return model


def logps(model):
    ids = [i % 256 for i in range(40, 340, 7)]
    return model.logprobs(ids[:5], [ids[5:]])[0]


def q8_0(array):
    """What is left of numbers: 32 of them are whole numbers to 127 of a scale, which is a half."""
    blocks = array.reshape(-1, 32)
    scale = np.abs(blocks).max(1, keepdims=True) / np.float32(127)
    scaled = blocks * np.where(scale > 0, 1 / np.where(scale > 0, scale, 1), 0).astype(np.float32)
    whole = np.trunc(scaled + np.copysign(np.float32(0.5), scaled))
    return (whole * scale.astype(np.float16).astype(np.float32)).reshape(array.shape)


ROUNDED = {
    "f32": lambda x: x,
    "f16": lambda x: x.astype(np.float16).astype(np.float32),
    "q8_0": q8_0,
    "bf16": lambda x: _core.dequantize("BF16", _core.quantize("BF16", x.ravel()), x.size).reshape(x.shape),
}


@pytest.mark.parametrize("dtype", ROUNDED)
@pytest.mark.parametrize("family", FAMILIES)
def test_values_come_back(family, dtype, tmp_path):
    """Matrices rounded by the type's rule, everything else as it was; the config says the same network."""
    model = shaken(tiny(family, tie_word_embeddings=family in ("gemma3", "qwen2")))
    model.save_gguf(tmp_path / "x.gguf", dtype)
    back = grpo.load(tmp_path / "x.gguf", device="ref")
    state, read = model.state_dict(), back.state_dict()
    assert state.keys() == read.keys()
    for name, array in state.items():
        want = ROUNDED[dtype](array) if array.ndim == 2 else array
        np.testing.assert_array_equal(read[name], want, err_msg=name)
        model.core.set_tensor(name, want)
    np.testing.assert_array_equal(logps(back), logps(model))
    assert back.tokenizer.encode("Hi, ü🙂<|im_end|>") == model.tokenizer.encode("Hi, ü🙂<|im_end|>")
    assert (back.tokenizer.chat_template, back.tokenizer.eos_ids, back.tokenizer.special) == (
        model.tokenizer.chat_template,
        model.tokenizer.eos_ids,
        model.tokenizer.special,
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_the_default_loses_nothing(family, tmp_path):
    """None is the device's dtype: bfloat16 weights come back bit for bit, and so do their log-probs."""
    model = tiny(family, "cpu")
    model.save_gguf(tmp_path / "x.gguf")
    back = grpo.load(tmp_path / "x.gguf", device="cpu")
    state = back.state_dict()
    assert all(np.array_equal(array, state[name]) for name, array in model.state_dict().items())
    np.testing.assert_array_equal(logps(back), logps(model))
    types = {tensor.type for tensor in GgufContainer(tmp_path / "x.gguf").tensors.values()}
    assert types == {"BF16", "F32"}
    assert tiny(family).save_gguf(tmp_path / "y.gguf") is None
    assert {tensor.type for tensor in GgufContainer(tmp_path / "y.gguf").tensors.values()} == {"F32"}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_file_is_that_of_the_statement(family, tmp_path):
    """Names, values and keys are those that make_files writes, which knows nothing of the writer's tables."""
    model = shaken(tiny(family))
    model.save_gguf(tmp_path / "x.gguf")
    file = GgufContainer(tmp_path / "x.gguf")
    want = {name: np.frombuffer(data, "<f4") for name, _, _, data in gguf_tensors(model.state_dict(), model.config)}
    assert file.tensors.keys() == want.keys()
    for name, array in want.items():
        np.testing.assert_array_equal(file.read(name).ravel(), array, err_msg=name)
    keys = model_metadata({**model.config, "rope_parameters": model.config})
    assert {key: file.metadata.get(key) for key in keys} == {
        key: pytest.approx(value) if type(value) is float else value for key, value in keys.items()
    }


def test_metadata(tmp_path):
    model = tiny("llama", vocab_size=262)
    model.save_gguf(tmp_path / "x.gguf", "q8_0", name="A name")
    metadata = GgufContainer(tmp_path / "x.gguf").metadata
    own = {key: value for key, value in metadata.items() if not key.startswith("tokenizer.")}
    assert own == {
        "general.architecture": "llama",
        "general.type": "model",
        "general.name": "A name",
        "general.file_type": 7,
        "general.quantization_version": 2,
        "llama.context_length": 4096,
        "llama.embedding_length": 64,
        "llama.block_count": 2,
        "llama.feed_forward_length": 96,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.attention.layer_norm_rms_epsilon": float(np.float32(1e-6)),
        "llama.attention.key_length": 16,
        "llama.attention.value_length": 16,
        "llama.rope.dimension_count": 16,
        "llama.rope.freq_base": 10000.0,
        "llama.vocab_size": 262,
    }
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    assert tokens[256:] == ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "[PAD259]", "[PAD260]", "[PAD261]"]
    assert types == [1] * 256 + [3] * 3 + [5] * 3
    assert {
        key: metadata[f"tokenizer.ggml.{key}"]
        for key in ("model", "pre", "merges", "eos_token_id", "eot_token_id", "padding_token_id", "add_bos_token")
    } == {
        "model": "gpt2",
        "pre": "gpt-2",
        "merges": [],
        "eos_token_id": 258,
        "eot_token_id": 256,
        "padding_token_id": 256,
        "add_bos_token": 0,
    }
    assert metadata["tokenizer.chat_template"] == model.tokenizer.chat_template
    export_gguf(model, tmp_path / "of-the-file.gguf", None)
    assert GgufContainer(tmp_path / "of-the-file.gguf").metadata["general.name"] == "of-the-file"


def test_keys_that_a_config_leaves_out(tmp_path):
    """As many heads of keys as of queries, and the lengths that transformers gives."""
    model = tiny("llama", num_key_value_heads=4)
    for key in ("num_key_value_heads", "head_dim", "max_position_embeddings", "rms_norm_eps", "rope_theta"):
        del model.config[key]
    model.save_gguf(tmp_path / "x.gguf")
    back = grpo.load(tmp_path / "x.gguf", device="ref")
    np.testing.assert_array_equal(logps(back), logps(model))
    assert back.config["max_position_embeddings"] == 2048


@pytest.mark.parametrize("architecture, names", [("llama", LAYER_NAMES), ("gemma3", GEMMA3_LAYER_NAMES)])
def test_names_go_both_ways(architecture, names):
    for stored in [*NAMES, *(f"blk.12.{name}.{kind}" for name in names for kind in ("weight", "bias"))]:
        assert gguf_name(hugging_face_name(stored, architecture), architecture) == stored
    assert gguf_name("model.layers.0.self_attn.sinks.weight", architecture) is None
    assert gguf_name("lm_head.bias", architecture) is None


@pytest.mark.parametrize(
    "scaling, keys",
    [
        (None, {}),
        ({"rope_type": "linear", "factor": 3.3}, {"type": "linear", "factor": 3.3}),
        (YARN, {"type": "yarn", "factor": 4.0, "original_context_length": 64}),
        (
            {**YARN, "attention_factor": 1.25},
            {"type": "yarn", "factor": 4.0, "original_context_length": 64, "attn_factor": 1.25 / (0.1 * np.log(4) + 1)},
        ),
        (
            {**YARN, "mscale": 0.7, "mscale_all_dim": 0.5},
            {
                "type": "yarn",
                "factor": 4.0,
                "original_context_length": 64,
                "attn_factor": (0.07 * np.log(4) + 1) / (0.05 * np.log(4) + 1) / (0.1 * np.log(4) + 1),
            },
        ),
        (LLAMA3, {}),
        ({**LLAMA3, "original_max_position_embeddings": 64, "factor": 32.0}, {}),
        ({**LLAMA3, "original_max_position_embeddings": 700, "high_freq_factor": 8.0}, {}),
    ],
)
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gemma3"])
def test_ropes(family, scaling, keys, tmp_path):
    if scaling and scaling["rope_type"] == "llama3" and family != "llama":
        with pytest.raises(UnsupportedModelError, match="llama3 is not written"):
            tiny(family, rope_scaling=scaling).save_gguf(tmp_path / "x.gguf")
        return
    model = (
        tiny(family, rope_theta=5e5, rope_scaling=scaling, head_dim=64)
        if family != "gemma3"
        else tiny(family, rope_scaling=scaling, head_dim=64, query_pre_attn_scalar=64, rope_local_base_freq=5e3)
    )
    model.save_gguf(tmp_path / "x.gguf")
    file = GgufContainer(tmp_path / "x.gguf")
    prefix = f"{file.metadata['general.architecture']}.rope.scaling."
    found = {key.removeprefix(prefix): value for key, value in file.metadata.items() if key.startswith(prefix)}
    assert found == {
        key: value if isinstance(value, str) else pytest.approx(value, rel=1e-6) for key, value in keys.items()
    }
    assert ("rope_freqs.weight" in file.tensors) == bool(scaling and scaling["rope_type"] == "llama3")
    np.testing.assert_allclose(logps(grpo.load(tmp_path / "x.gguf", device="ref")), logps(model), atol=1e-6)


@pytest.mark.parametrize(
    "family, sizes, said",
    [
        ("llama", {"rope_scaling": {**YARN, "beta_fast": 24.0}}, "beta_fast 24"),
        ("llama", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "dynamic is not written"),
        ("mistral", {"sliding_window": 16}, "sees 16 tokens back"),
    ],
)
def test_what_another_program_computes_otherwise_is_said(family, sizes, said, tmp_path):
    model = tiny(family, **sizes)
    with pytest.warns(GrpoWarning, match=said):
        model.save_gguf(tmp_path / "x.gguf")
    back = grpo.load(tmp_path / "x.gguf", device="ref")
    np.testing.assert_array_equal(logps(back), logps(model))


@pytest.mark.parametrize(
    "sizes, pattern",
    [({}, None), ({"sliding_window_pattern": 2}, [1, 0, 1, 0, 1, 0, 1]), ({"sliding_window_pattern": 1}, None)],
)
def test_windows_of_gemma(sizes, pattern, tmp_path):
    model = tiny("gemma3", **sizes)
    model.save_gguf(tmp_path / "x.gguf")
    metadata = GgufContainer(tmp_path / "x.gguf").metadata
    assert metadata.get("gemma3.attention.sliding_window_pattern") == pattern
    assert ("gemma3.attention.sliding_window" in metadata) == (sizes.get("sliding_window_pattern") != 1)
    np.testing.assert_array_equal(logps(grpo.load(tmp_path / "x.gguf", device="ref")), logps(model))


@pytest.mark.parametrize(
    "family, sizes, named",
    [
        ("qwen2", {"use_sliding_window": True, "max_window_layers": 1, "sliding_window": 16}, "sliding-window"),
        ("gemma3", {"query_pre_attn_scalar": 32}, "attention scale"),
        ("llama", {"rope_scaling": {**YARN, "truncate": False}}, "frequencies"),
        ("qwen2_vl", {}, "sees images"),
        ("qwen", {}, "sees images"),
    ],
)
def test_what_gguf_has_no_word_for(family, sizes, named, tmp_path):
    sizes = {**SMALL, **(GEMMA if family == "gemma3" else {}), **sizes} if "q" not in family or sizes else {}
    model = grpo.load(grpo.tiny(family, **sizes), device="ref")
    with pytest.raises(UnsupportedModelError, match=named) as caught:
        model.save_gguf(tmp_path / "x.gguf")
    assert str(tmp_path / "x.gguf") in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_rows_that_are_no_whole_blocks_are_halves(tmp_path):
    model = tiny("llama", hidden_size=80, num_attention_heads=5, num_key_value_heads=1, head_dim=16)
    done = export_gguf(model, tmp_path / "x.gguf", "q8_0")
    types = {name: tensor.type for name, tensor in GgufContainer(tmp_path / "x.gguf").tensors.items()}
    assert {name for name, kind in types.items() if kind == "Q8_0"} == {f"blk.{i}.ffn_down.weight" for i in range(2)}
    assert sorted(done.fallen) == sorted(name for name, kind in types.items() if kind == "F16")
    assert done.types == {kind: list(types.values()).count(kind) for kind in ("F16", "F32", "Q8_0")}
    assert done.bytes == (tmp_path / "x.gguf").stat().st_size


# -- files --------------------------------------------------------------------------------------------------------


def test_an_old_file_stays_where_a_new_one_cannot_be_written(tmp_path):
    model, path = tiny("llama"), tmp_path / "x.gguf"
    model.save_gguf(path, "f16")
    before = path.read_bytes()
    name = "model.layers.1.mlp.down_proj.weight"
    array = model.core.get_tensor(name)
    array[3, 2] = 1e6
    model.core.set_tensor(name, array)
    with pytest.raises(
        FileFormatError, match=r"x\.gguf: tensor blk\.1\.ffn_down\.weight: F16 cannot hold.*bf16 or f32"
    ):
        model.save_gguf(path, "f16")
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["x.gguf"]
    model.save_gguf(path, "f32")
    assert grpo.load(path, device="ref").core.get_tensor(name)[3, 2] == 1e6


@pytest.mark.parametrize("name", ["x", "x.bin", "folder.gguf"])
def test_the_file_is_named_gguf(name, tmp_path):
    (tmp_path / "folder.gguf").mkdir()
    with pytest.raises(ConfigError, match=r"ends in \.gguf"):
        tiny("llama").save_gguf(tmp_path / name)


@pytest.mark.parametrize("dtype", ["q4_k", "int8", "Q8"])
def test_other_dtypes(dtype, tmp_path):
    with pytest.raises(ConfigError, match="is not written as GGUF.*Choose from bf16, f16, q8_0, f32"):
        tiny("llama").save_gguf(tmp_path / "x.gguf", dtype)


def test_no_room(tmp_path, monkeypatch):
    import collections

    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10, 9, 1))
    with pytest.raises(CheckpointError, match="bytes are needed, 1 are free"):
        tiny("llama").save_gguf(tmp_path / "x.gguf")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_made(tmp_path):
    tiny("llama").save_gguf(tmp_path / "a" / "b" / "x.gguf", "bfloat16")
    assert grpo.load(tmp_path / "a" / "b" / "x.gguf", device="ref")


# -- tokenizers ---------------------------------------------------------------------------------------------------


def saved(backend, tmp_path, special, eos_ids=(), rows=700):
    """(tokenizer, the one of its model's GGUF, the metadata there)"""
    tokenizer = Tokenizer(backend, special=special, eos_ids=eos_ids, source="here")
    tiny("llama", tokenizer=tokenizer, vocab_size=rows).save_gguf(tmp_path / "x.gguf", "q8_0")
    file = GgufFile(tmp_path / "x.gguf")
    file.close()
    return tokenizer, Tokenizer.from_gguf(file.metadata), file.metadata


TEXTS = [*PROBES, "a<|eot_id|> b <|begin_of_text|>c", "x" * 70, *bpe_tokenizers.LINES]


@pytest.mark.parametrize("kind", ["gpt-2", "smollm", "qwen2", "llama-bpe"])
def test_byte_level_tokenizers(kind, tmp_path):
    begin, end = bpe_tokenizers.SPECIALS[:2]
    ours, read, metadata = saved(
        bpe_tokenizers.byte_level(kind), tmp_path, {"bos_token": begin, "eos_token": end}, [3, 2]
    )
    assert metadata["tokenizer.ggml.pre"] == kind and metadata["tokenizer.ggml.model"] == "gpt2"
    assert metadata["tokenizer.ggml.add_bos_token"] == (kind == "llama-bpe")
    assert (metadata["tokenizer.ggml.eot_token_id"], metadata["tokenizer.ggml.eom_token_id"]) == (2, 3)
    assert set(read.eos_ids) == set(ours.eos_ids) == {1, 2, 3} and read.special == ours.special
    for text in TEXTS:
        for added in (False, True):
            assert read.encode(text, added) == ours.encode(text, added), text
        assert read.decode(read.encode(text)) == ours.decode(ours.encode(text))


@pytest.mark.parametrize("space", ["prepend", "no"])
def test_sentencepiece_tokenizers(space, tmp_path):
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    ours, read, metadata = saved(bpe_tokenizers.sentencepiece(space), tmp_path, special)
    assert metadata["tokenizer.ggml.model"] == "llama"
    assert metadata["tokenizer.ggml.add_space_prefix"] == (space == "prepend")
    assert metadata["tokenizer.ggml.token_type"][:4] == [2, 3, 3, 6]
    for text in [*TEXTS, "a<s> b </s>c"]:
        for added in (False, True):
            assert read.encode(text, added) == ours.encode(text, added), text


def test_a_space_that_is_put_once_is_said(tmp_path):
    """Metaspace adds none to a text that begins with one; SentencePiece, and so GGUF, does."""
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    with pytest.warns(GrpoWarning, match="beginning of a text"):
        ours, read, _ = saved(bpe_tokenizers.sentencepiece("first"), tmp_path, special)
    assert all(read.encode(text) == ours.encode(text) for text in PROBES if text[0] != " ")


def test_tokens_that_the_user_adds(tmp_path):
    tokenizer = Tokenizer.bytes(["<answer>", "</answer>"])
    grpo.load(grpo.tiny("qwen3", tokens=["<answer>", "</answer>"], **SMALL), device="ref").save_gguf(
        tmp_path / "x.gguf"
    )
    read = grpo.load(tmp_path / "x.gguf", device="ref").tokenizer
    for text in ("<answer>4</answer>", "<answer> <|im_end|>"):
        assert read.encode(text) == tokenizer.encode(text)
    assert read.special_ids == tokenizer.special_ids


def test_a_fourth_id_that_ends_a_completion_is_said(tmp_path):
    with pytest.warns(GrpoWarning, match="keys for three"):
        _, read, _ = saved(bpe_tokenizers.byte_level("qwen2"), tmp_path, {"eos_token": "<|end_of_text|>"}, [0, 9, 10])
    assert read.eos_ids == [1, 0, 9, 2, 3]               # the last two by their texts


def test_ids_that_end_a_completion_by_their_texts_need_no_key(tmp_path):
    tokenizer = bpe_tokenizers.byte_level("smollm")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours, read, _ = saved(tokenizer, tmp_path, {"eos_token": "<|end_of_text|>"}, [0, 2, 3])
    assert set(read.eos_ids) == set(ours.eos_ids) == {0, 1, 2, 3}


def test_ids_that_will_end_a_completion_elsewhere_are_said(tmp_path, capsys):
    saved(bpe_tokenizers.byte_level("smollm"), tmp_path, {"eos_token": "<|end_of_text|>"}, [2])
    assert "'<|eom_id|>' will end a completion in what reads the GGUF" in capsys.readouterr().err


@pytest.mark.parametrize("split, name, said", [("qwen2", "megrez", False), ("qwen35", "qwen35", True)])
def test_text_that_is_not_normalised(split, name, said, tmp_path):
    """Some ways of cutting have a name with NFC and one without; where there is only the one with it, that is said."""
    from tokenizers import Regex, normalizers, pre_tokenizers

    backend = bpe_tokenizers.byte_level("qwen2")
    backend.normalizer = normalizers.Sequence([])
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(OF_NAME[split].regex), "isolated"),
            pre_tokenizers.ByteLevel(False, use_regex=False),
        ]
    )
    with pytest.warns(GrpoWarning, match="NFC") if said else warnings.catch_warnings():
        _, read, metadata = saved(backend, tmp_path, {"eos_token": "<|end_of_text|>"})
    assert metadata["tokenizer.ggml.pre"] == name


def refused():
    from tokenizers import Regex, Tokenizer as Backend, models, pre_tokenizers, processors

    words = Backend(models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>"))
    yield "WordLevel", words
    yield "neither of bytes nor", Backend(models.BPE({"a": 0, "b": 1}, []))
    other = bpe_tokenizers.byte_level("qwen2")
    other.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"\w+|\W+"), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    yield "the way in which this tokenizer splits", other
    framed = bpe_tokenizers.byte_level("gpt-2")
    framed.post_processor = processors.TemplateProcessing(
        single=["<|eot_id|>", "$A"], special_tokens=[("<|eot_id|>", 2)]
    )
    yield "neither BOS nor EOS", framed


@pytest.mark.parametrize("named, backend", [pytest.param(*each, id=each[0]) for each in refused()])
def test_tokenizers_that_gguf_has_no_word_for(named, backend, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GrpoWarning)  # a vocabulary of two letters gives no text back
        tokenizer = Tokenizer(backend, source="here")
    with pytest.raises(TokenizerError, match=f"here.*{named}"):
        tiny("llama", tokenizer=tokenizer, vocab_size=700).save_gguf(tmp_path / "x.gguf")
    assert not list(tmp_path.iterdir())


def test_a_model_without_a_tokenizer(tmp_path):
    from grpo.model.tokenizer_sources import NoTokenizer

    model = tiny("llama", tokenizer=NoTokenizer("here", [258]))
    with pytest.warns(GrpoWarning, match="no tokenizer to be written"):
        model.save_gguf(tmp_path / "x.gguf")
    with pytest.warns(GrpoWarning, match="no vocabulary"):
        back = grpo.load(tmp_path / "x.gguf", device="ref")
    assert back.tokenizer.eos_ids == [258]
    np.testing.assert_array_equal(logps(back), logps(model))


# -- the command --------------------------------------------------------------------------------------------------


def run(*words):
    return cli.main([str(word) for word in words])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "run"
    sizes = [
        "--model.hidden_size",
        32,
        "--model.num_hidden_layers",
        1,
        "--model.num_attention_heads",
        2,
        "--model.intermediate_size",
        64,
    ]
    assert (
        run(
            "train",
            *sizes,
            "--sft",
            "none",
            "--max_steps",
            2,
            "--prompts_per_step",
            2,
            "--num_generations",
            2,
            "--max_completion_length",
            8,
            "--eval_size",
            4,
            "--save_steps",
            1,
            "--disable_tqdm",
            "--output_dir",
            folder,
        )
        == 0
    )
    return folder


@pytest.mark.parametrize("words, step", [([], 2), (["--step", 1], 1), (["--checkpoint", "latest"], 2)])
def test_a_run_is_exported(trained, words, step, tmp_path, capsys):
    assert run("export", trained, "--output", tmp_path / "x.gguf", *words) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{tmp_path / 'x.gguf'}: ") and "architecture " in said and "BF16" in said
    ours = grpo.load(trained / "checkpoints" / f"step-{step}", device="cpu").state_dict()
    read = grpo.load(tmp_path / "x.gguf", device="cpu").state_dict()
    assert all(np.array_equal(array, read[name]) for name, array in ours.items())


def test_a_file_of_float32_loses_nothing(tmp_path, capsys):
    model = tiny("llama")
    model.save_pretrained(tmp_path / "folder")
    assert run("export", tmp_path / "folder", "--output", tmp_path / "x.gguf", "--dtype", "f32", "--name", "N") == 0
    read = grpo.load(tmp_path / "x.gguf", device="ref").state_dict()
    assert all(np.array_equal(array, read[name]) for name, array in model.state_dict().items())
    assert GgufContainer(tmp_path / "x.gguf").metadata["general.name"] == "N"
    assert run("export", tmp_path / "x.gguf", "--output", tmp_path / "again", "--dtype", "f32") == 0
    again = grpo.load(tmp_path / "again", device="ref").state_dict()
    assert all(np.array_equal(array, again[name]) for name, array in model.state_dict().items())
    assert run("export", tmp_path / "again", "--output", tmp_path / "x.gguf", "--dtype", "q8_0") == 0
    printed = capsys.readouterr()
    assert "Q8_0" in printed.out and printed.err.count("x.gguf: was there, and is replaced") == 1


@pytest.mark.parametrize(
    "words, code, said",
    [
        (["--output", "{}/x.gguf", "--dtype", "q9"], 1, "q9"),
        (["--output", "{}/new", "--dtype", "q8_0"], 1, "a folder is written as bf16 or f32"),
        (["--output", "{}/new", "--name", "x"], 1, "goes into a GGUF"),
        (["--output", "{}/full"], 1, "not empty"),
        (["--output", "{}/x.gguf", "--step", "7"], 1, "no checkpoint"),
        ([], 2, "--output"),
    ],
)
def test_what_the_command_refuses(trained, words, code, said, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    assert run("export", trained, *[word.format(tmp_path) for word in words]) == code
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
