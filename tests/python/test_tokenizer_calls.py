"""A tokenizer called as those of transformers are."""
import sys

import numpy as np
import pytest

import grpo
import toy
from grpo.errors import ConfigError, TokenizerError

TOKENIZER = grpo.Tokenizer.bytes()


def test_rows_are_filled_up_on_the_left():
    batch = TOKENIZER(["a", "bcd"], padding=True, return_tensors="np")
    assert batch.input_ids.tolist() == [[256, 256, 97], [98, 99, 100]]
    assert batch["attention_mask"].tolist() == [[0, 0, 1], [1, 1, 1]]
    right = TOKENIZER(["a", "bcd"], padding="max_length", max_length=4, padding_side="right")
    assert right.input_ids == [[97, 256, 256, 256], [98, 99, 100, 256]]
    assert right.attention_mask == [[1, 0, 0, 0], [1, 1, 1, 0]]
    assert TOKENIZER("abc", truncation=True, max_length=2) == {"input_ids": [97, 98], "attention_mask": [1, 1]}
    assert TOKENIZER("abc", return_tensors="np").to("cpu").input_ids.shape == (1, 3)


def test_a_model_goes_on_with_them():
    model = toy.model()
    out = model.generate(**model.tokenizer(["a", "bcd"], padding=True, return_tensors="np"), max_new_tokens=3)
    texts = model.tokenizer.batch_decode(out, skip_special_tokens=True)
    assert texts[0].startswith("a") and texts[1].startswith("bcd") and out.shape[1] <= 6


def test_special_tokens_one_by_one():
    tokenizer = grpo.Tokenizer.bytes()
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<|im_end|>", 258)
    assert (tokenizer.pad_token, tokenizer.pad_token_id, tokenizer.bos_token, tokenizer.bos_token_id) == (
        "<|endoftext|>", 256, None, None)
    assert len(tokenizer) == 259 and tokenizer and tokenizer.unk_token is None
    tokenizer.pad_token = tokenizer.eos_token
    assert tokenizer.pad_token_id == 258 and tokenizer(["a", "bc"], padding=True).input_ids[0] == [258, 97]
    assert tokenizer.convert_tokens_to_ids(["<|im_start|>", "a"]) == [257, 97]
    with pytest.raises(TokenizerError, match="'<pad>' is not a token"):
        tokenizer.pad_token = "<pad>"


@pytest.mark.parametrize("options, named", [
    (dict(return_tensors="tf"), "return_tensors='tf'"), (dict(return_tensors="np"), "different lengths"),
    (dict(truncation=True), "max_length"), (dict(padding="max_length"), "max_length"),
])
def test_what_is_not_made_is_refused(options, named):
    with pytest.raises(ConfigError, match=named):
        TOKENIZER(["a", "bc"], **options)


def test_tensors_of_torch_need_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ConfigError, match="return_tensors='pt'"):
        TOKENIZER("a", return_tensors="pt")


def test_an_attribute_that_is_not_there_is_named():
    with pytest.raises(AttributeError, match="input_ids, attention_mask, and no 'pixel_values'"):
        getattr(TOKENIZER("a"), "pixel_values")  # noqa: B009
    assert isinstance(np.asarray(TOKENIZER("a").input_ids), np.ndarray)
