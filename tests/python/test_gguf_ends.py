"""What ends a completion of a GGUF, its chat templates by name, and what is said when one is written over or odd."""
import json
import os
import warnings

import numpy as np
import pytest
from tokenizers import normalizers

import bpe_tokenizers
import grpo
from grpo import cli
from grpo.errors import ConfigError, FileFormatError, GrpoWarning, TokenizerError, UnsupportedModelError
from grpo.model.chat_files import gguf_templates, templates_of_gguf
from grpo.model.formats.gguf import GgufFile, is_gguf
from grpo.model.formats.gguf_tokenizer import ENDS, end_texts
from grpo.model.tokenizer import Tokenizer
from make_files import byte_level_metadata, gguf, gguf_shards, gguf_tensors, model_metadata

SMALL = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2,
         "num_hidden_layers": 1}
NORMAL, CONTROL, USER = 1, 3, 4


def metadata(texts, kind=CONTROL, **changes):
    """Bytes, and then tokens of these texts."""
    base = byte_level_metadata()
    found = {**base, "tokenizer.ggml.tokens": base["tokenizer.ggml.tokens"][:257] + list(texts),
             "tokenizer.ggml.token_type": [NORMAL] * 257 + [kind] * len(texts),
             **{f"tokenizer.ggml.{key}": value for key, value in changes.items()}}
    return {key: value for key, value in found.items() if value is not None}


def ends(*given, **changes):
    with warnings.catch_warnings():
        warnings.simplefilter("error", GrpoWarning)
        found = Tokenizer.from_gguf(metadata(*given, **changes))
    return [found._backend.id_to_token(i) for i in found.eos_ids]


@pytest.mark.parametrize("text", ENDS)
def test_ends_by_their_texts(text):
    eos = {"eos_token_id": 257, "padding_token_id": None}
    assert ends(["<end>", text, "other"], **eos) == ["<end>", text]
    assert ends(["<end>", text, "other"], USER, **eos) == ["<end>", *([text] if text != "</s>" else [])]
    assert ends(["<end>", text, "other"], NORMAL, **eos) == ["<end>"]
    assert ends([text, "other"], eos_token_id=None, padding_token_id=None) == [text]
    read = Tokenizer.from_gguf(metadata(["<end>", text], **eos))
    assert read.encode(f"a{text}") == [*read.encode("a"), 258] and read.decode([258]) == ""


@pytest.mark.parametrize("texts, found", [
    (["<|eot_id|>", "<|end_of_text|>", "<|eom_id|>"], [0, 1, 2]), (["<|end|>", "<|return|>"], [0, 1]),
    (["<|end|>", "<|return|>", "<|call|>"], [1, 2]), (["<|end|>", "<|flush|>", "<|calls|>"], [1, 2]),
    (["</s>", "<|tool_response>"], [1]), (["<|fim_pad|>", "<|file_sep|>", "<s>"], [])])
def test_ends_beside_each_other(texts, found):
    assert end_texts(texts, [CONTROL] * len(texts)) == [texts[i] for i in found]


def test_ends_of_a_file_without_types():
    assert end_texts(["a", "</s>", "<|im_end|>"], [NORMAL] * 3, typed=False) == ["</s>", "<|im_end|>"]


def test_no_end_is_said():
    with pytest.warns(GrpoWarning, match="nothing ends a completion: there is no tokenizer.ggml.eos_token_id"):
        assert Tokenizer.from_gguf(metadata(["<a>", "<b>"], eos_token_id=None, padding_token_id=None)).eos_ids == []


def test_no_end_of_a_folder_is_said(tmp_path):
    model = grpo.load(grpo.tiny("llama", **SMALL), device="ref")
    model.save_pretrained(tmp_path)
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        held = json.loads((tmp_path / name).read_text())
        (tmp_path / name).write_text(json.dumps({k: v for k, v in held.items() if not k.startswith("eos_token")}))
    with pytest.warns(GrpoWarning, match="nothing ends a completion: there is no eos_token_id"):
        assert grpo.load(tmp_path, device="ref").tokenizer.eos_ids == []


# -- chat templates -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("templates", [{"default": "D{{ messages }}", "tool_use": "T", "rag": "R"},
                                       {"a": "A", "b": "B"}, {"default": "D"}, {"a-b c": "A"}])
def test_chat_templates_by_name(templates, tmp_path):
    tokenizer = Tokenizer.bytes()
    tokenizer.chat_templates, tokenizer.chat_template = dict(templates), templates.get("default")
    grpo.load(grpo.tiny("llama", **SMALL), device="ref", tokenizer=tokenizer).save_gguf(tmp_path / "x.gguf")
    file = GgufFile(tmp_path / "x.gguf")
    file.close()
    others = [name for name in templates if name != "default"]
    assert file.metadata.get("tokenizer.chat_templates", []) == others
    assert all(file.metadata[f"tokenizer.chat_template.{name}"] == templates[name] for name in others)
    assert file.metadata.get("tokenizer.chat_template") == templates.get("default")
    read = Tokenizer.from_gguf(file.metadata)
    assert read.chat_templates == templates and read.chat_template == templates.get("default")


def test_a_template_that_was_set_goes_over_the_default():
    assert templates_of_gguf(gguf_templates({"default": "D", "a": "A"}, "S"), "x") == {"default": "S", "a": "A"}


# -- files that are there -----------------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path):
    grpo.load(grpo.tiny("llama", **SMALL), device="ref").save_gguf(tmp_path / "x.gguf")
    return tmp_path / "x.gguf"


def test_a_model_is_not_written_over_its_file(written, tmp_path, monkeypatch, capsys):
    before = written.read_bytes()
    (tmp_path / "link.gguf").symlink_to(written)
    os.link(written, tmp_path / "hard.gguf")
    monkeypatch.chdir(tmp_path)
    for source in (written, tmp_path / "link.gguf"):
        model = grpo.load(source, device="ref")
        for path in (written, tmp_path / "link.gguf", tmp_path / "hard.gguf", "x.gguf", tmp_path / "." / "x.gguf"):
            with pytest.raises(ConfigError, match="the model was read from this file"):
                model.save_gguf(path, "q8_0")
            assert cli.main(["export", str(source), "--output", str(path)]) == 1
            assert "the model was read from this file" in capsys.readouterr().err
    assert written.read_bytes() == before
    model.save_gguf(tmp_path / "other.gguf")


def test_a_model_is_not_written_over_a_part(tmp_path):
    model = grpo.load(grpo.tiny("llama", **SMALL), device="ref")
    kinds = {**model_metadata(model.config), **byte_level_metadata()}
    for name, data in gguf_shards(kinds, gguf_tensors(model.state_dict(), model.config), (4, 3, 4)).items():
        (tmp_path / name).write_bytes(data)
    names = sorted(path.name for path in tmp_path.iterdir())
    read = grpo.load(tmp_path / names[0], device="ref")
    for name in names:
        with pytest.raises(ConfigError, match="the model was read from this file"):
            read.save_gguf(tmp_path / name)


def test_what_is_replaced_is_said(written, capsys):
    model = grpo.load(grpo.tiny("llama", **SMALL), device="ref")
    model.save_gguf(written)
    assert capsys.readouterr().err.count(f"{written}: was there, and is replaced\n") == 1
    model.save_gguf(written.with_name("new.gguf"))
    assert not capsys.readouterr().err


def test_other_names_of_a_gguf(written, tmp_path, capsys):
    assert cli.main(["export", str(written), "--output", str(tmp_path / "a.GGUF")]) == 0
    assert (tmp_path / "a.GGUF").is_file()
    (tmp_path / "sha256-0a1b").write_bytes(written.read_bytes())         # as some programs keep them
    for name in ("a.GGUF", "sha256-0a1b"):
        assert is_gguf(tmp_path / name) and grpo.load(tmp_path / name, device="ref").config["hidden_size"] == 64
        assert grpo.load(grpo.tiny("llama", **SMALL), device="ref", tokenizer=tmp_path / name).tokenizer.eos_ids
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "b.GGUF").write_bytes(written.read_bytes())
    assert grpo.load(tmp_path / "only", device="ref").config["hidden_size"] == 64


# -- what is said of numbers and tokenizers -----------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_said(value, tmp_path):
    model = grpo.load(grpo.tiny("llama", **SMALL), device="ref")
    name = "model.layers.0.mlp.up_proj.weight"
    array = model.core.get_tensor(name).copy()
    array[1, 2] = value
    model.core.set_tensor(name, array)
    for dtype in ("f32", "bf16"):
        with pytest.warns(GrpoWarning, match=f"NaN or infinity among the weights .* of {name}"):
            model.save_gguf(tmp_path / "x.gguf", dtype)
    with pytest.warns(GrpoWarning, match=f"NaN or infinity among the weights .* of {name}"):
        model.save_pretrained(tmp_path / "folder")
    for dtype in ("f16", "q8_0"):
        with pytest.raises(FileFormatError, match=rf"blk.0.ffn_up.weight: .* {value:g} among them"):
            model.save_gguf(tmp_path / "y.gguf", dtype)


def test_a_number_that_a_half_does_not_hold_is_said(tmp_path):
    model = grpo.load(grpo.tiny("llama", **SMALL), device="ref")
    array = model.core.get_tensor("model.layers.0.mlp.up_proj.weight").copy()
    array[3, 4] = -70000
    model.core.set_tensor("model.layers.0.mlp.up_proj.weight", array)
    with pytest.raises(FileFormatError, match="blk.0.ffn_up.weight: F16 cannot hold .*, -70000 among them; write bf16"):
        model.save_gguf(tmp_path / "x.gguf", "f16")


def exported(backend, tmp_path, **special):
    tokenizer = Tokenizer(backend, special=special, source="here")
    grpo.load(grpo.tiny("llama", vocab_size=700, **SMALL), device="ref", tokenizer=tokenizer).save_gguf(
        tmp_path / "x.gguf")


@pytest.mark.parametrize("form", ["NFC", "NFKC"])
def test_text_that_is_normalised_is_said(form, tmp_path):
    backend = bpe_tokenizers.byte_level("qwen2")
    if form == "NFC":
        with pytest.warns(GrpoWarning, match=r"normalised by this tokenizer \(NFC\), which llama.cpp does not do"):
            exported(backend, tmp_path, eos_token="<|end_of_text|>")
        return
    backend.normalizer = normalizers.NFKC()
    with pytest.raises(TokenizerError, match='qwen2, but its normalizer is {"type": "NFKC"}, there {"type": "NFC"}'):
        exported(backend, tmp_path, eos_token="<|end_of_text|>")


def test_whole_words_that_no_name_has(tmp_path):
    from tokenizers import models

    backend = bpe_tokenizers.byte_level("gpt-2")
    described = json.loads(backend.to_str())["model"]
    merges = [tuple(each) for each in described["merges"]]
    backend.model = models.BPE(vocab=described["vocab"], merges=merges, ignore_merges=True)
    with pytest.raises(TokenizerError, match="calls gpt-2, but its ignore_merges is true, there false"):
        exported(backend, tmp_path, eos_token="<|end_of_text|>")


def test_text_after_special_tokens_is_said(tmp_path):
    """Metaspace puts a space before a text's first word only; SentencePiece, and so a GGUF, after each special
    token."""
    with pytest.warns(GrpoWarning, match=r"text after a special token \(so every chat prompt\).* beginning of a text"):
        exported(bpe_tokenizers.sentencepiece("first"), tmp_path, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


# -- faults in the file's own words -------------------------------------------------------------------------------


def test_faults_have_the_names_of_the_file(tmp_path):
    model = grpo.load(grpo.tiny("qwen2", **SMALL), device="ref")
    kinds = {**model_metadata(model.config), **byte_level_metadata()}
    tensors = gguf_tensors(model.state_dict(), model.config)
    (tmp_path / "x.gguf").write_bytes(gguf(kinds, [each for each in tensors if each[0] != "blk.0.attn_q.bias"]))
    with pytest.raises(FileFormatError, match=r"do not fit the metadata:\n  blk.0.attn_q.bias is missing"):
        grpo.load(tmp_path / "x.gguf", device="ref")
    (tmp_path / "x.gguf").write_bytes(gguf({**kinds, "qwen2.feed_forward_length": 128}, tensors))
    with pytest.raises(FileFormatError, match=r"ffn_down.weight has shape \(64, 96\), the metadata says \(64, 128"):
        grpo.load(tmp_path / "x.gguf", device="ref")
    (tmp_path / "x.gguf").write_bytes(gguf(kinds, [*tensors, ("blk.0.foo.weight", "F32", (4,), b"\0" * 16)]))
    with pytest.raises(FileFormatError, match="blk.0.foo.weight is not a tensor of this model"):
        grpo.load(tmp_path / "x.gguf", device="ref")
    (tmp_path / "x.gguf").write_bytes(gguf({**kinds, "qwen2.attention.head_count": 2000}, tensors))
    with pytest.raises(FileFormatError, match="qwen2.attention.head_count must be an integer from 1 to 1024"):
        grpo.load(tmp_path / "x.gguf", device="ref")
    (tmp_path / "x.gguf").write_bytes(gguf({**kinds, "qwen2.rope.scaling.type": "longrope"}, tensors))
    with pytest.raises(UnsupportedModelError, match="rope scaling 'longrope' is not supported; linear, yarn and"):
        grpo.load(tmp_path / "x.gguf", device="ref")


@pytest.mark.parametrize("name, near", [("llama-bpf", "did you mean 'llama-bpe'"), ("LLAMA3", "did you mean 'llama3'"),
                                        ("zzz", r"supported \(gpt-2, smollm, ")])
def test_a_way_to_cut_that_is_not_known_names_the_closest(name, near):
    with pytest.raises(TokenizerError, match=rf"'{name}' .*{near}.*tokenizer=FOLDER") as caught:
        Tokenizer.from_gguf(byte_level_metadata(name))
    assert len(str(caught.value)) < 600
