"""Classes of transformers 5 that cut text in a way of their own: where their ids differ from ours, that is said."""
import json
import warnings

import pytest
from tokenizers import processors

import bpe_tokenizers
from grpo.errors import GrpoWarning
from grpo.model.tokenizer import Tokenizer
from grpo.model.tokenizer_classes import TEXTS

transformers = pytest.importorskip("transformers")
pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore::grpo.errors.GrpoWarning")]
BYTES = ("GPT2Tokenizer", "GPT2TokenizerFast", "CodeGenTokenizer", "GPTNeoXTokenizerFast", "Qwen2Tokenizer",
         "CohereTokenizerFast", "RobertaTokenizer", "LlamaTokenizerFast", "PreTrainedTokenizerFast",
         "BloomTokenizerFast")
PIECES = ("LlamaTokenizer", "LlamaTokenizerFast", "CodeLlamaTokenizer", "GemmaTokenizer", "PreTrainedTokenizerFast")
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
KEYS = ({}, {"add_prefix_space": True}, {"add_prefix_space": False}, {"legacy": True}, {"legacy": False})


def saved(folder, backend, name, kind, special, **keys):
    backend.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"model_type": kind}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name, **special, **keys}))


def compare(folder):
    """(whether all ids are the same as transformers', what was said)"""
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ours = Tokenizer.from_pretrained(folder)
    said = [str(each.message) for each in caught if issubclass(each.category, GrpoWarning)]
    same = all(theirs(text, add_special_tokens=added).input_ids == ours.encode(text, added)
               for text in (*TEXTS, "a") for added in (False, True))
    return same, [text for text in said if "transformers 5 for this model" in text]


@pytest.mark.parametrize("name", BYTES)
@pytest.mark.parametrize("kind", ["llama", "qwen2", "mistral", "qwen3"])
@pytest.mark.parametrize("split", ["gpt-2", "smollm", "qwen2"])
def test_byte_level(name, kind, split, tmp_path):
    begin, end = bpe_tokenizers.SPECIALS[:2]
    for keys in KEYS[:3]:
        for adds in (False, True):
            backend = bpe_tokenizers.byte_level(split)
            if adds:
                backend.post_processor = processors.TemplateProcessing(
                    single=f"{begin} $A", special_tokens=[(begin, backend.token_to_id(begin))])
            saved(tmp_path, backend, name, kind, {"bos_token": begin, "eos_token": end}, **keys)
            same, said = compare(tmp_path)
            assert same == (not said), (keys, adds, said)


@pytest.mark.parametrize("name", PIECES)
@pytest.mark.parametrize("kind", ["llama", "mistral"])
@pytest.mark.parametrize("space", ["prepend", "first", "no"])
def test_sentencepiece(name, kind, space, tmp_path):
    for keys in KEYS:
        saved(tmp_path, bpe_tokenizers.sentencepiece(space), name, kind, SPECIAL, **keys)
        same, said = compare(tmp_path)
        assert same == (not said), (keys, said)


@pytest.mark.parametrize("name", ["PreTrainedTokenizerFast", "GPT2Tokenizer", "Foo"])
def test_special_tokens_that_are_split(name, tmp_path):
    begin, end = bpe_tokenizers.SPECIALS[:2]
    saved(tmp_path, bpe_tokenizers.byte_level("gpt-2"), name, "llama", {"bos_token": begin, "eos_token": end},
          split_special_tokens=True)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    with pytest.warns(GrpoWarning, match="split_special_tokens is true"):
        ours = Tokenizer.from_pretrained(tmp_path)
    for text in (f"a{begin}b", f"{end} c"):
        assert ours.encode(text) == theirs(text, add_special_tokens=False).input_ids
        assert end not in ours._backend.encode(text).tokens
