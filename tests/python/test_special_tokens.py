"""Special tokens that files name in any form, and those that the vocabulary does not have."""
import json
import warnings

import pytest

import grpo
import toy
from grpo.errors import ConfigError, GrpoWarning, TokenizerError
from grpo.model.tokenizer import Tokenizer

END = {"content": "<|endoftext|>", "lstrip": False, "normalized": False, "special": True, "__type": "AddedToken"}


def folder(path, said=None, **files):
    """A byte tokenizer's folder, <s> 259 and he 260 among its tokens, with another tokenizer_config.json (None: none)
    and JSON files."""
    written = Tokenizer.bytes(tokens=["he"], special=["<s>"]).save_files()
    del written["chat_template.jinja"], written["tokenizer_config.json"]
    files = {f"{name}.json": json.dumps(value).encode() for name, value in files.items()}
    if said is not None:
        files["tokenizer_config.json"] = json.dumps({"eos_token": "<|im_end|>", **said}).encode()
    for name, data in {**written, **files}.items():
        (path / name).write_bytes(data)
    return path


def quietly(path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return Tokenizer.from_pretrained(path)


@pytest.mark.parametrize("change", [
    {"pad_token": "[PAD]"}, {"unk_token": "<unk>"}, {"bos_token": ""}, {"bos_token": None}, {"bos_token": "<none>"},
    {"pad_token": {"content": "[PAD]"}}, {"mask_token": "<mask>", "cls_token": "<cls>"}, {"pad_token": ["[PAD]"]},
    {"extra_special_tokens": None, "additional_special_tokens": [], "added_tokens_decoder": None},
    {"eos_token": ["<|im_end|>"]}, {"tokenizer_class": "LlamaTokenizerFast"}, {"tokenizer_class": "GemmaTokenizer"}])
def test_what_nothing_uses_is_not_missed(tmp_path, change):
    tokenizer = quietly(folder(tmp_path, change))
    assert tokenizer.special == {"eos_token": "<|im_end|>"} and tokenizer.eos_ids == [258]
    assert tokenizer.bos_id is None and tokenizer.pad_id == 258 and tokenizer.encode("[PAD]a")[-1] == 97


@pytest.mark.parametrize("change, named", [
    ({"eos_token": "<none>"}, "eos_token '<none>': not in the vocabulary, and left out"),
    ({"bos_token": "<none>", "chat_template": "{{ bos_token }}a"}, "bos_token '<none>'"),
    ({"extra_special_tokens": ["<x>", "<|im_end|>"]}, "'<x>': not in"), ({"additional_special_tokens": ["<x>"]}, "<x>"),
    ({"extra_special_tokens": [f"<{i}>" for i in range(9)]}, "'<4>' and 4 more")])
def test_what_is_used_and_left_out_is_said(tmp_path, change, named):
    with pytest.warns(GrpoWarning, match=f"tokenizer_config.json: .*{named}"):
        Tokenizer.from_pretrained(folder(tmp_path, change))


@pytest.mark.parametrize("eos, ids, said", [
    ([258, 99999], [258], "99999"), (-1, [258], "-1"), (None, [258], ""), ([None], [258], ""), ([], [258], ""),
    (1 << 70, [258], str(1 << 70)), ([256, -1, 999], [256, 258], "-1, 999")])
def test_ends_outside_the_vocabulary(tmp_path, eos, ids, said):
    path = folder(tmp_path, {}, generation_config={"eos_token_id": eos})
    if said:
        with pytest.warns(GrpoWarning, match=f"end-of-text id {said} is not an id of this tokenizer"):
            assert Tokenizer.from_pretrained(path).eos_ids == ids
    else:
        assert quietly(path).eos_ids == ids


def test_no_end_is_left(tmp_path):
    with pytest.warns(GrpoWarning, match="999 .* nothing else ends a completion"):
        tokenizer = Tokenizer.from_pretrained(folder(tmp_path, {"eos_token": None}, config={"eos_token_id": 999}))
    assert not tokenizer.eos_ids and tokenizer.pad_id is None


def test_an_end_that_only_the_model_has(tmp_path):
    assert quietly(folder(tmp_path, {}, config={"eos_token_id": 300, "vocab_size": 512})).eos_ids == [300, 258]


def test_a_model_loads_and_says_it_once(tmp_path):
    toy.model("ref").save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [258, 99999]}))
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "pad_token": "[PAD]", "unk_token": "<unk>"}))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert grpo.load(tmp_path, "ref").tokenizer.eos_ids == [258]
    assert [str(w.message).count("99999") for w in caught] == [1]


@pytest.mark.parametrize("name, fits", [("pad_token", True), ("unk_token", True), ("eos_token", False), (None, False)])
def test_a_special_token_past_the_models_rows(tmp_path, name, fits):
    model = toy.model("ref")
    size = model.text_config["vocab_size"]
    model.save_pretrained(tmp_path)
    backend = model.tokenizer._backend
    backend.add_special_tokens([*(f"<{i}>" for i in range(backend.get_vocab_size(), size)), "<pad>"])
    (tmp_path / "tokenizer.json").write_text(backend.to_str())
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, **({name: "<pad>"} if name else {})}))
    if not fits:
        with pytest.raises(TokenizerError, match=f"has ids up to {size}, the model a vocab_size of {size}"):
            grpo.load(tmp_path, "ref")
        return
    with pytest.warns(GrpoWarning, match=rf"no row for the special tokens '<pad>' \({size}\)"):
        loaded = grpo.load(tmp_path, "ref")
    assert len(loaded.generate([[97]], max_new_tokens=1)[0].token_ids) == 1
    with pytest.raises(ConfigError, match=f"token id {size} is outside the vocabulary"):
        loaded.prompt_ids("<pad>a")


@pytest.mark.parametrize("config, files, special", [
    ({"bos_token": END}, {}, {"bos_token": "<|endoftext|>"}), ({"bos_token": ["<s>", "he"]}, {}, {"bos_token": "<s>"}),
    ({"image_token": "<s>"}, {}, {"image_token": "<s>"}),
    ({"extra_special_tokens": {"image_token": "<s>", "x_token": END}}, {},
     {"image_token": "<s>", "x_token": "<|endoftext|>"}),
    ({}, {"special_tokens_map": {"bos_token": END, "pad_token": "<s>"}},
     {"bos_token": "<|endoftext|>", "pad_token": "<s>"}),
    ({"bos_token": "<s>"}, {"special_tokens_map": {"bos_token": "<|endoftext|>"}}, {"bos_token": "<|endoftext|>"}),
    ({"bos_token": "<s>", "added_tokens_decoder": {}}, {"special_tokens_map": {"bos_token": "<|endoftext|>"}},
     {"bos_token": "<s>"}),
    (None, {"special_tokens_map": {"eos_token": "<|im_end|>", "bos_token": "<s>"}}, {"bos_token": "<s>"}),
    ({"tokenizer_class": "Qwen2TokenizerFast"}, {}, {"pad_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}),
    ({"tokenizer_class": "Qwen2Tokenizer", "pad_token": None}, {}, {"unk_token": "<|endoftext|>"})])
def test_forms(tmp_path, config, files, special):
    assert quietly(folder(tmp_path, config, **files)).special == {"eos_token": "<|im_end|>", **special}


def test_several_ends_in_a_list(tmp_path):
    with pytest.warns(GrpoWarning, match="eos_token '<none>': not in the vocabulary"):
        tokenizer = Tokenizer.from_pretrained(
            folder(tmp_path, {"eos_token": ["<none>", "<|im_end|>", {"content": "<|endoftext|>"}]}))
    assert tokenizer.special["eos_token"] == "<|im_end|>" and set(tokenizer.eos_ids) == {256, 258}


@pytest.mark.parametrize("change, text", [
    ({}, "ahe"), ({"image_token": "he"}, "a"), ({"extra_special_tokens": {"image_token": "he"}}, "a"),
    ({"eos_token": "he"}, "a"), ({"pad_token": {"content": "he"}}, "a")])
def test_named_tokens_are_not_decoded(tmp_path, change, text):
    tokenizer = quietly(folder(tmp_path, change))
    assert tokenizer.encode("ahe") == [97, 260] and tokenizer.decode([97, 260]) == text


@pytest.mark.parametrize("change, files", [
    ({"added_tokens_decoder": {"261": {"content": "<x>", "special": True}}}, {}), ({}, {"added_tokens": {"<x>": 261}}),
    (None, {"added_tokens": {"<x>": 261}, "special_tokens_map": {"eos_token": "<|im_end|>"}})])
def test_tokens_that_tokenizer_json_lacks(tmp_path, change, files):
    assert quietly(folder(tmp_path, change, **files)).encode("a<x>") == [97, 261]


@pytest.mark.parametrize("change, named", [
    ({"eos_token": 5}, "eos_token must be text, not 5"), ({"bos_token": {"id": 1}}, "bos_token must be text"),
    ({"extra_special_tokens": [3]}, "extra_special_tokens must be text")])
def test_what_is_no_text(tmp_path, change, named):
    with pytest.raises(TokenizerError, match=f"tokenizer_config.json: {named}"):
        Tokenizer.from_pretrained(folder(tmp_path, change))


@pytest.mark.parametrize("adds", [True, False])
@pytest.mark.parametrize("says", [True, False, None])
def test_tokenizer_json_decides_about_bos(tmp_path, adds, says):
    from tokenizers.processors import TemplateProcessing

    path = folder(tmp_path, {"bos_token": "<s>", **({} if says is None else {"add_bos_token": says})})
    backend = Tokenizer.bytes(tokens=["he"], special=["<s>"])._backend
    if adds:
        backend.post_processor = TemplateProcessing(single=["<s>", "$A"], special_tokens=[("<s>", 259)])
    (path / "tokenizer.json").write_text(backend.to_str())
    if says in (None, adds):
        tokenizer = quietly(path)
    else:
        does = "adds" if adds else "does not add"
        with pytest.warns(GrpoWarning, match=f"add_bos_token {str(says).lower()}, and tokenizer.json {does} '<s>'"):
            tokenizer = Tokenizer.from_pretrained(path)
    assert tokenizer.encode("a", add_special_tokens=True) == [259] * adds + [97]


@pytest.mark.parametrize("flags, ids", [({}, [97]), ({"add_bos_token": True}, [256, 97]),
                                        ({"add_bos_token": True, "add_eos_token": True}, [256, 97, 257])])
def test_flags_without_tokenizer_json(tmp_path, flags, ids):
    from grpo.model.formats.byte_level import byte_alphabet

    vocabulary = {token: i for i, token in enumerate(byte_alphabet())}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    added = {"256": {"content": "<s>", "special": True}, "257": {"content": "</s>", "special": True}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(
        {"tokenizer_class": "Qwen2Tokenizer", "bos_token": "<s>", "eos_token": "</s>", "added_tokens_decoder": added,
         **flags}))
    letters = {vocabulary[byte_alphabet()[97]]: 97}
    found = quietly(tmp_path).encode("a", add_special_tokens=True)
    assert [letters.get(i, i) for i in found] == ids
