"""Metadata of GGUF files: names of ways to split text, names that are missing, and keys that nothing here reads."""

import re
import warnings

import pytest

import grpo
from grpo.errors import FileFormatError, GrpoWarning, TokenizerError, UnsupportedModelError
from grpo.model.formats.gguf import GgufFile
from grpo.model.formats.gguf_config import gguf_config
from grpo.model.formats.gguf_splits import OF_NAME
from grpo.model.tokenizer import Tokenizer
from make_files import byte_level_metadata, gguf, model_metadata

SMALL = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "head_dim": 16, "rms_norm_eps": 1e-6, "max_position_embeddings": 256,
         "rope_theta": 1e4}
QWEN = ["Hello", " world", "'S", " ", "1", "2", "3", "4", "!!", "\n\n", " ", " x"]
LLAMA3 = ["Hello", " world", "'S", " ", "123", "4", "!!", "\n\n", " ", " x"]
GPT2 = ["Hello", " world", "'", "S", " 1234", "!!", "\n\n ", " x"]
DIGITS = ["Hello", " world", "'", "S", " ", "1", "2", "3", "4", "!!", "\n\n ", " x"]
TEXT = "Hello world'S 1234!!\n\n  x"
# Names of src/llama-vocab.cpp that stand for the same rule there.
ALIASES = {
    "llama-bpe": ["llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"],
    "qwen2": ["deepseek-r1-qwen", "f2llmv2", "megrez", "kormo", "stablelm2", "hunyuan", "solar-open", "grok-2"],
    "gpt-2": ["phi-2", "jina-es", "jina-de", "gigachat", "jina-v2-es", "jina-v2-de", "a.x-4.0", "mellum",
              "modern-bert", "exaone4", "mpt", "olmo", "jais", "trillion", "granite-docling"],
    "smollm": ["starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"],
    "dbrx": ["smaug-bpe", "glm4", "chatglm-bpe"],
    "gpt-4o": ["llama4", "kanana2", "talkie", "minimax-m2"],
    "deepseek-v3": ["hunyuan-dense", "joyai-llm", "hy_v4"],
    "bailingmoe": ["bailingmoe2", "llada-moe"],
    "bloom": ["gpt3-finnish", "poro-chat"],
}


def pieces(pre, text):
    """How a text is cut, bytes above ASCII as they came."""
    backend = Tokenizer.from_gguf(byte_level_metadata(pre))._backend
    return [text[start:end] for _, (start, end) in backend.pre_tokenizer.pre_tokenize_str(text)]


@pytest.mark.parametrize("pre, cut", [
    *((name, QWEN) for name in ("qwen2", *ALIASES["qwen2"], "bailingmoe", "qwen35")),
    *((name, LLAMA3) for name in ("llama-bpe", *ALIASES["llama-bpe"], "dbrx", *ALIASES["dbrx"])),
    *((name, GPT2) for name in ("gpt-2", *ALIASES["gpt-2"])),
    *((name, DIGITS) for name in ("smollm", *ALIASES["smollm"])),
    ("tekken", ["Hello", " world", "'S", " ", "1", "2", "3", "4", "!!\n\n", " ", " x"]),
    *((name, ["Hello", " world'S", " ", "123", "4", "!!\n\n", " ", " x"]) for name in ("gpt-4o", *ALIASES["gpt-4o"])),
    *((name, ["Hello", " world", "'S", " ", "123", "4", "!!\n\n", " ", " x"])
      for name in ("deepseek-v3", *ALIASES["deepseek-v3"])),
])
def test_names_of_splits(pre, cut):
    if cut in (QWEN, LLAMA3):                            # marks take the line ends that follow them
        cut = [*cut[:-4], "!!\n\n", " ", " x"]
    assert pieces(pre, TEXT) == cut


@pytest.mark.parametrize("pre, text, cut", [
    ("tekken", "HelloWorld camelCase", ["Hello", "World", " camel", "Case"]),
    ("gpt-4o", "HelloWorld's 12345", ["Hello", "World's", " ", "123", "45"]),
    ("llama-bpe", "HelloWorld's 12345", ["HelloWorld", "'s", " ", "123", "45"]),
    ("deepseek-v3", "abc我想12345 (x)", ["abc", "我想", "123", "45", " (", "x", ")"]),
    ("deepseek-coder", "def f(x):\n  12", ["def", " f", "(", "x", "):", "\n", "  ", "1", "2"]),
    ("seed-coder", "a!!\n12", ["a", "!!", "\n", "1", "2"]),
    ("qwen35", "क्षि 12", ["क्षि", " ", "1", "2"]),
    ("minicpm5", "abc12345", ["abc", "123", "45"]),
    ("viking", "abc 123, x", ["abc", " ", "1", "2", "3", ",", " x"]),
    ("bloom", "abc 123, x", ["abc", " 123", ",", " x"]),
    ("bailingmoe", "it's\n\n12", ["it", "'s", "\n\n", "1", "2"]),
])
def test_what_is_told_apart(pre, text, cut):
    assert pieces(pre, text) == cut


def test_aliases_are_all_there():
    assert len(OF_NAME) == sum(1 + len(names) for names in ALIASES.values()) + 6
    for name, others in ALIASES.items():
        assert all(OF_NAME[other]._replace(nfc=False) == OF_NAME[name]._replace(nfc=False) for other in others)


@pytest.mark.parametrize("pre", ["kimi-k2", "superbpe", "deepseek-llm", "falcon", "afmoe", "no-such", "LLAMA3", 3])
def test_other_splits_are_refused_by_name(pre):
    with pytest.raises(TokenizerError, match=re.escape(repr(pre)) + ".*tokenizer="):
        Tokenizer.from_gguf(byte_level_metadata(pre), "x.gguf")


def without_pre(architecture=None, token=None, pre=None):
    metadata = {**byte_level_metadata(), "general.architecture": architecture, "tokenizer.ggml.pre": pre}
    if token:
        metadata["tokenizer.ggml.tokens"] = [*metadata["tokenizer.ggml.tokens"][:-2], token, "<|x|>"]
    return {key: value for key, value in metadata.items() if value is not None}


@pytest.mark.parametrize("pre", [None, "default", ""])
@pytest.mark.parametrize("architecture, token, name", [
    ("qwen2", None, "qwen2"), ("qwen3", None, "qwen2"), ("llama", "<|begin_of_text|>", "llama-bpe"),
    ("qwen2", "<|begin_of_text|>", "qwen2")])
def test_a_split_that_is_certain_is_said(architecture, token, name, pre, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = Tokenizer.from_gguf(without_pre(architecture, token, pre), "x.gguf")
    said = capfd.readouterr().err
    assert said.startswith("x.gguf: does not say") and f"split as {name}, as" in said
    want = Tokenizer.from_gguf({**without_pre(architecture, token), "tokenizer.ggml.pre": name})
    assert got.save_files() == want.save_files()


@pytest.mark.parametrize("metadata", [without_pre(), without_pre("llama"), without_pre("llama", pre="default"),
                                      {**without_pre(), "general.architecture": ["qwen2"]}])
def test_a_split_that_is_assumed_is_warned_of(metadata):
    with pytest.warns(GrpoWarning, match="x.gguf: does not say .* assumed to be gpt-2's .*tokenizer="):
        got = Tokenizer.from_gguf(metadata, "x.gguf")
    assert got.save_files() == Tokenizer.from_gguf(byte_level_metadata("gpt-2")).save_files()


@pytest.mark.parametrize("key", ["normalizer.lowercase", "normalizer.strip_accents", "add_sep_token"])
def test_normalizers_are_refused(key):
    assert Tokenizer.from_gguf({**byte_level_metadata(), f"tokenizer.ggml.{key}": False}).encode("he") == [256]
    with pytest.raises(TokenizerError, match=key):
        Tokenizer.from_gguf({**byte_level_metadata(), f"tokenizer.ggml.{key}": True})


# -- keys --------------------------------------------------------------------------------------------------------------


def config_of(architecture, **keys):
    metadata = model_metadata({**SMALL, "model_type": architecture})
    a = metadata["general.architecture"]
    added = {f"{a}.{key}": value for key, value in keys.items()}
    return gguf_config({**metadata, **added}, 300, True, None, "x.gguf")


@pytest.mark.parametrize("key, neutral, others", [
    ("logit_scale", [1.0, 0.0], [0.0625, 16.0]),
    ("embedding_scale", [1.0], [12.0]),
    ("residual_scale", [1.0], [0.22]),
    ("attention.scale", [0.25, 0.0], [0.0078125]),
    ("attn_logit_softcapping", [0.0], [50.0]),
    ("final_logit_softcapping", [0.0], [30.0]),
    ("attention.clamp_kqv", [0.0], [8.0]),
    ("attention.max_alibi_bias", [0.0], [8.0]),
    ("use_parallel_residual", [False], [True]),
    ("attention.causal", [True], [False]),
    ("expert_used_count", [0], [2]),
    ("attention.temperature_length", [0], [8192]),
    ("attention.q_lora_rank", [0], [1536]),
    ("attention.key_length_swa", [16], [8]),
    ("rope.dimension_sections", [[0, 0, 0, 0]], [[16, 24, 24, 0]]),
    ("nextn_predict_layers", [0], [1]),
    ("hidden_activation", ["silu"], ["gelu", "relu2"]),
    ("tensor_data_layout", ["Meta AI original pth"], ["reordered"]),
    ("embedding_length_out", [64], [128]),
    ("rope.freq_base_swa", [1e4], [1e6]),
    ("rope.scaling.yarn_attn_factor", [1.0], [0.9]),
    ("rope.scaling.yarn_ext_factor", [0.0, 1.0], [0.5]),
    ("swin_norm", [False], [True]),
    ("full_attention_interval", [1], [4]),
    ("vocab_size", [300, 299], []),
    ("pooling_type", [0, 3], []),
    ("rope.scaling.finetuned", [True, False], []),
    ("attention.layer_norm_epsilon", [1e-5], []),
    ("some.new.key", [], [0, 1, "x", [1]]),
    ("vision.block_count", [], [27]),
])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_keys_that_change_numbers(architecture, key, neutral, others):
    plain = config_of(architecture)
    for value in neutral:
        assert config_of(architecture, **{key: value}) == plain
    for value in others:
        with pytest.raises(UnsupportedModelError, match=rf"x\.gguf: metadata {architecture}\.{re.escape(key)} = "):
            config_of(architecture, **{key: value})


def test_keys_of_others_are_left_alone():
    metadata = {**model_metadata({**SMALL, "model_type": "llama"}), "quantize.imatrix.file": "x", "general.author": "y",
                "llamas.logit_scale": 2.0, "mradermacher.quantized_by": "z"}
    assert gguf_config(metadata, 300, True) == config_of("llama")
    with pytest.raises(UnsupportedModelError, match="xIELU"):
        gguf_config({**metadata, "xielu.alpha_p": [0.8]}, 300, True)


def test_yarn_reads_its_own_keys():
    assert config_of("llama", **{"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0,
                                 "rope.scaling.yarn_attn_factor": 1.25})["rope_scaling"]["attention_factor"] == 1.25


@pytest.mark.parametrize("metadata, said", [
    ({"general.type": "adapter", "general.architecture": "llama", "adapter.type": "lora"}, "a LoRA adapter"),
    ({"general.architecture": "llama", "adapter.type": "lora"}, "a LoRA adapter"),
    ({"general.type": "mmproj", "general.architecture": "clip"}, "the tower of a model that sees"),
    ({"general.architecture": "clip"}, "the tower of a model that sees"),
    ({"general.type": "imatrix"}, "an importance matrix"),
])
def test_a_gguf_that_is_no_model(metadata, said, tmp_path):
    (tmp_path / "x.gguf").write_bytes(gguf(metadata, []))
    with pytest.raises(FileFormatError, match=f"x.gguf: is {said}"):
        grpo.load(tmp_path / "x.gguf", device="ref")


def test_a_gguf_that_says_it_is_a_model(tmp_path):
    (tmp_path / "x.gguf").write_bytes(gguf({"general.type": "model"}, []))
    with pytest.raises(FileFormatError, match="no token_embd.weight"):
        GgufFile(tmp_path / "x.gguf")
