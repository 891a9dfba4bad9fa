"""Files that grpo writes as GGUF, in llama.cpp: the same ids of texts, the same log-probs.

llama-cpp-python is published as source alone and takes minutes to build, so these are skipped where it is not
installed: pip install llama-cpp-python."""

import warnings

import numpy as np
import pytest

import bpe_tokenizers
import grpo
from grpo.errors import GrpoWarning
from grpo.model.formats.gguf_vocabulary import PROBES
from grpo.model.tokenizer import Tokenizer

llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed (it is built from source)")
pytestmark = pytest.mark.oracle

F32 = 0  # ggml's number of the type, for the cache
SMALL = {"hidden_size": 128, "intermediate_size": 160, "num_attention_heads": 4, "num_key_value_heads": 2}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
TEXT = "The Sun is the star at the center of the Solar System: 4.6 billion years old, ünlike 日本. "
# Mean |difference| of log-probs. llama.cpp rounds the other factor of a product to the type of the matrix, and takes
# GELU of Gemma from a table of halves.
NOISE = {"f32": 1e-6, "f16": 3e-4, "bf16": 3e-3, "q8_0": 1e-2}
GELU_NOISE = 5e-4


def opened(path):
    """The file in llama.cpp, with a cache that rounds nothing."""
    return llama_cpp.Llama(
        str(path), n_ctx=512, n_batch=512, logits_all=True, verbose=False, type_k=F32, type_v=F32, n_gpu_layers=0
    )


def logps_of(llama, ids):
    """Of every id after the first, float64."""
    llama.reset()
    llama.eval(ids)
    logits = np.array(llama.scores[: len(ids)], np.float64)
    top = logits.max(1, keepdims=True)
    logps = logits - top - np.log(np.exp(logits - top).sum(1, keepdims=True))
    return logps[np.arange(len(ids) - 1), ids[1:]]


def difference(model, llama, ids):
    return np.abs(model.logprobs(ids[:1], [ids[1:]])[0] - logps_of(llama, ids))


def check_tokens(tokenizer, llama, texts):
    for text in texts:
        for added in (False, True):
            theirs = llama.tokenize(text.encode(), add_bos=added, special=True)
            assert tokenizer.encode(text, add_special_tokens=added) == theirs, text


def save(model, path, dtype):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GrpoWarning)
        model.save_gguf(path, dtype)
    return opened(path)


@pytest.mark.parametrize("dtype", NOISE)
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3", "gemma3"])
def test_families_and_dtypes(family, dtype, tmp_path):
    window = {"mistral": {"sliding_window": 512}, "gemma3": {"sliding_window": 16, "query_pre_attn_scalar": 32}}
    model = grpo.load(grpo.tiny(family, **SMALL, vocab_size=270, **window.get(family, {})), device="ref")
    llama = save(model, tmp_path / "x.gguf", dtype)
    check_tokens(model.tokenizer, llama, [*PROBES, "a<|im_end|> b<|im_start|>c"])
    ids = model.tokenizer.encode(TEXT * 2)
    back = grpo.load(tmp_path / "x.gguf", device="ref")
    assert difference(back, llama, ids).mean() < max(NOISE[dtype], GELU_NOISE if family == "gemma3" else 0)


@pytest.mark.parametrize(
    "family, sizes",
    [
        ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}),
        ("llama", {"rope_scaling": LLAMA3, "rope_theta": 5e5}),
        ("llama", {"rope_scaling": YARN}),
        ("qwen2", {"rope_scaling": YARN, "tie_word_embeddings": False}),
        ("qwen3", {"rope_scaling": {**YARN, "attention_factor": 1.3}, "head_dim": 64}),
        ("qwen3", {"rope_scaling": {**YARN, "mscale": 1.0, "mscale_all_dim": 0.5}}),
        ("gemma3", {"rope_scaling": {"rope_type": "linear", "factor": 8.0}}),
        ("gemma3", {"sliding_window_pattern": 2, "rope_local_base_freq": 5e3}),
        ("gemma3", {"sliding_window_pattern": 1}),
    ],
)
def test_ropes_and_windows(family, sizes, tmp_path):
    window = {"sliding_window": 16, "query_pre_attn_scalar": 32} if family == "gemma3" else {}
    model = grpo.load(grpo.tiny(family, **{**SMALL, **window, **sizes}), device="ref")
    ids = model.tokenizer.encode(TEXT * 2)
    llama = save(model, tmp_path / "x.gguf", "f32")
    assert difference(model, llama, ids).max() < (1e-3 if family == "gemma3" else 3e-6)


@pytest.mark.parametrize("kind", ["gpt-2", "smollm", "qwen2", "llama-bpe", "prepend", "no"])
def test_tokenizers(kind, tmp_path):
    """Not letters with combining accents in Qwen's, which its own tokenizer composes (NFC) and llama.cpp does not."""
    if kind in ("prepend", "no"):
        special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
        tokenizer = Tokenizer(bpe_tokenizers.sentencepiece(kind), special=special)
    else:
        begin, end, *ends = bpe_tokenizers.SPECIALS
        special = {"bos_token": begin, "eos_token": end}
        tokenizer = Tokenizer(bpe_tokenizers.byte_level(kind), special=special, eos_ids=[2, 3])
    model = grpo.load(grpo.tiny("llama", **SMALL, vocab_size=650), tokenizer=tokenizer, device="ref")
    llama = save(model, tmp_path / "x.gguf", "q8_0")
    marked = [f"a {token} b{token}c" for token in special.values()]
    check_tokens(tokenizer, llama, [*PROBES, *bpe_tokenizers.LINES, *marked])
    for i in tokenizer.eos_ids:
        assert llama_cpp.llama_vocab_is_eog(llama_cpp.llama_model_get_vocab(llama.model), i)


@pytest.mark.parametrize("dtype", ["f32", "q8_0"])
@pytest.mark.parametrize("source", ["smollm2_gguf", "gemma3_gguf"])
def test_real_models(source, dtype, request, tmp_path):
    """Of quantised files, dequantised: f32 as near as two orders of summing are, q8_0 within what rounding of
    activations costs llama.cpp with any such file."""
    model = grpo.load(request.getfixturevalue(source), device="ref")
    llama = save(model, tmp_path / "x.gguf", dtype)
    texts = [*PROBES, *bpe_tokenizers.LINES]
    if model.tokenizer.chat_template:
        texts.append(model.tokenizer.apply_chat_template([{"role": "user", "content": "Héllo 12?"}]))
        assert llama.metadata["tokenizer.chat_template"] == model.tokenizer.chat_template
    check_tokens(model.tokenizer, llama, texts)
    ids = model.tokenizer.encode(TEXT * 2, add_special_tokens=True)
    back = grpo.load(tmp_path / "x.gguf", device="ref")
    limit = 0.1 if dtype == "q8_0" else 1e-3 if source == "gemma3_gguf" else 1e-5
    assert difference(back, llama, ids).mean() < limit


def test_blocks_are_those_of_its_own_quantiser(smollm2_gguf, tmp_path):
    """llama.cpp's Q8_0 and F16 of the F32 file: every tensor byte for byte, but for those that it writes as another
    type."""
    from grpo.model.formats.gguf_container import GgufContainer

    model = grpo.load(smollm2_gguf, device="ref")
    model.save_gguf(tmp_path / "f32.gguf", "f32")
    for dtype, number in (("q8_0", 7), ("f16", 1), ("bf16", 32)):
        model.save_gguf(tmp_path / "ours.gguf", dtype)
        options = llama_cpp.llama_model_quantize_default_params()
        options.ftype, options.nthread = number, 2
        sources = [str(tmp_path / name).encode() for name in ("f32.gguf", "theirs.gguf")]
        assert llama_cpp.llama_model_quantize(*sources, options) == 0
        ours, theirs = (GgufContainer(tmp_path / name) for name in ("ours.gguf", "theirs.gguf"))
        assert {name: tensor.type for name, tensor in ours.tensors.items()} == {
            name: tensor.type for name, tensor in theirs.tensors.items()
        }
        for name in ours.tensors:
            np.testing.assert_array_equal(ours.read(name), theirs.read(name), err_msg=name)
