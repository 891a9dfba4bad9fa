"""The first Qwen's tokenizer, from the ranks in qwen.tiktoken: against the same vocabulary's tokenizer.json, its
special tokens, its chats, and files that are refused. tiktoken itself: tests/oracle/test_oracle_tiktoken.py."""
import base64
import json
import random
import warnings
from pathlib import Path

import numpy as np
import pytest

from grpo.errors import TokenizerError
from grpo.model.formats.byte_level import byte_alphabet
from grpo.model.tokenizer import Tokenizer
from grpo.model.tokenizer_sources import of_folder

QWEN3 = Path(__file__).parents[3] / "shared/data/qwen3-tokenizer"
BYTES = [bytes([byte]) for byte in range(256)]
SMALL = [*BYTES, b"he", b"ll", b"llo", b"hello", b"\n\n", "é".encode(), b" a"]
USER = [{"role": "user", "content": "hi"}]


def lines(tokens):
    return b"".join(base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(tokens))


def folder(path, tokens=SMALL, visual=True, **files):
    path.mkdir(exist_ok=True)
    files = {"config.json": {"visual": {"layers": 1}} if visual else {}, "qwen.tiktoken": lines(tokens),
             "tokenizer_config.json": {"tokenizer_class": "QWenTokenizer"}, **files}
    for name, data in files.items():
        (path / name).write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
    return path


@pytest.fixture
def small(tmp_path):
    return Tokenizer.from_pretrained(folder(tmp_path / "small"))


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """(from ranks, from tokenizer.json) of one vocabulary, that of every Qwen."""
    if not QWEN3.is_dir():
        pytest.skip(f"needs the Qwen3 tokenizer in {QWEN3}")
    vocabulary = json.loads((QWEN3 / "tokenizer.json").read_text())["model"]["vocab"]
    to_byte = {char: byte for byte, char in enumerate(byte_alphabet())}
    tokens = [bytes(to_byte[char] for char in text) for text in sorted(vocabulary, key=vocabulary.get)]
    path = folder(tmp_path_factory.mktemp("qwen") / "vl", tokens,
                  **{"generation_config.json": {"chat_format": "chatml", "eos_token_id": 151643}})
    return Tokenizer.from_pretrained(path), Tokenizer.from_pretrained(QWEN3)


def texts():
    """Source code, and random runs of letters, digits, spaces, marks and what lies far out in Unicode."""
    rng = random.Random(0)
    pools = ["abcdefghijklmnopqrstuvwxyz  ", "ABCabc012 \n\t",
             "é中文русский日本語한국어 ", "\u0301\u0327a e\u00a0\u3000 \r\n",
             "🙂👩‍👩‍👧﷽\x00\x1b", " ", "'st're've'd ll'M", "0123456789", "!@#$%^&*()_+{}|:<>?\n\r "]
    found = [path.read_text() for path in sorted(Path(__file__).parent.glob("test_r*.py"))[:5]]
    found += ["".join(rng.choice(rng.choice(pools)) for _ in range(rng.randrange(200))) for _ in range(1000)]
    found += ["".join(chr(rng.choice([rng.randrange(0x20, 0x250), rng.randrange(0x3000, 0x9fff),
                                      rng.randrange(0x10000, 0x1ffff)])) for _ in range(60)) for _ in range(300)]
    return [text for text in found if "<think" not in text and "<tool" not in text and "<|" not in text]


def test_encodes_as_tokenizer_json(pair):
    """And decodes."""
    mine, theirs = pair
    for text in texts():
        ids = mine.encode(text)
        assert ids == theirs.encode(text), text
        assert mine.decode(ids) == theirs.decode(ids)


# Made with the vocabulary's original tools.
@pytest.mark.parametrize("text, ids", [
    ("You are a helpful assistant.", [2610, 525, 264, 10950, 17847, 13]), ("Picture 1:", [24669, 220, 16, 25]),
    ("Describe this image.", [74785, 419, 2168, 13]), ("Café déjà vu.", [34, 2577, 963, 45839, 32514, 13]),
    ("I'm don't we're I'M", [40, 2776, 1513, 944, 582, 2299, 358, 27603]),
    ("中文 English123，测试！🙂", [104811, 6364, 16, 17, 18, 3837, 81705, 6313, 145080]),
    (" \t  x\n\n \t", [65497, 856, 271, 7018]), ("<think>", [13708, 766, 29]),
    ("<|endoftext|><|im_start|><|im_end|><|extra_0|><|extra_204|>", [151643, 151644, 151645, 151646, 151850]),
    ("<ref></ref><box></box><quad></quad><img></img><imgpad>", [*range(151851, 151860)]),
])
def test_vectors(pair, text, ids):
    assert pair[0].encode(text) == ids


def test_a_chat_of_the_original(pair):
    """An image's place, and then what is asked of it; the default system message."""
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Describe this image."}]}]
    ids = [151644, 8948, 198, 2610, 525, 264, 10950, 17847, 13, 151645, 198, 151644, 872, 198, 24669, 220, 16, 25,
           151857, 151859, 151858, 198, 74785, 419, 2168, 13, 151645, 198, 151644, 77091, 198]
    assert pair[0].apply_chat_template(chat, tokenize=True) == ids
    assert pair[0].eos_ids == [151645, 151643, 151644] and pair[0].pad_id == 151643 and pair[0].vocab_size == 151860


def test_a_newline_that_begins_a_message_stays_one(pair):
    """Role, newline and content are encoded apart."""
    chat = [{"role": "system", "content": "\n"}, {"role": "user", "content": "\n\nhi\n"}]
    assert pair[0].apply_chat_template(chat, tokenize=True) == [
        151644, 8948, 198, 198, 151645, 198, 151644, 872, 198, 271, 6023, 198, 151645, 198, 151644, 77091, 198]
    assert pair[0].encode("user\n\n\nhi") == pair[1].encode("user\n\n\nhi")              # no message begins here


def test_ids(small):
    n = len(SMALL)
    assert small.encode("hello") == [SMALL.index(b"hello")]
    assert small.encode("hell") == [SMALL.index(b"he"), SMALL.index(b"ll")]
    assert small.encode("e\u0301") == small.encode("é") == [SMALL.index("é".encode())]               # NFC
    assert small.encode("<|endoftext|><imgpad>") == [n, n + 216] and small.vocab_size == n + 217
    assert small.eos_ids == [n + 2, n, n + 1] and small.pad_id == n and small.bos_id is None


def test_a_token_that_no_merge_makes_is_found_whole(tmp_path):
    """b"xyz" is neither x + yz nor xy + z here."""
    tokenizer = Tokenizer.from_pretrained(folder(tmp_path / "x", [*BYTES, b"xyz"]))
    assert tokenizer.encode("xyz") == [256] and tokenizer.encode("xyzz") == [*b"xyzz"]


def test_what_is_decoded(small):
    """Boxes are part of an answer; what frames messages and images is not."""
    text = "<ref>a</ref><box>(1,2)</box><quad></quad>"
    assert small.decode(small.encode(f"<|im_start|>{text}<img><imgpad></img><|extra_3|><|im_end|>")) == text
    offsets, pieces = small.token_bytes()
    for text in ("hello é", "<box>", "\x00ÿ"):
        assert b"".join(pieces[offsets[i]:offsets[i + 1]] for i in small.encode(text)) == text.encode()
    assert np.array_equal(np.diff(offsets)[:256], np.ones(256))


def test_without_a_tower(tmp_path):
    tokenizer = Tokenizer.from_pretrained(folder(tmp_path / "x", visual=False))
    assert tokenizer.vocab_size == len(SMALL) + 208 and len(tokenizer.encode("<img>")) == 5
    with pytest.raises(TokenizerError, match="this model takes no part of type image"):
        tokenizer.apply_chat_template([{"role": "user", "content": [{"type": "image"}]}])


def test_chats(small):
    system = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    assert small.apply_chat_template(USER) == f"{system}<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    chat = [{"role": "system", "content": "S"}, {"role": "user", "content": [{"type": "image"}, {"type": "image"},
                                                                           {"type": "text", "text": "a "}]},
            {"role": "assistant", "content": " b"}, {"role": "user", "content": [{"type": "image"}]}]
    assert small.apply_chat_template(chat, add_generation_prompt=False) == (
        "<|im_start|>system\nS<|im_end|>\n"
        "<|im_start|>user\nPicture 1:<img><imgpad></img>\nPicture 2:<img><imgpad></img>\na <|im_end|>\n"
        "<|im_start|>assistant\n b<|im_end|>\n<|im_start|>user\nPicture 3:<img><imgpad></img>\n<|im_end|>\n")
    with pytest.raises(TokenizerError, match="takes no part of type video"):
        small.apply_chat_template([{"role": "user", "content": [{"type": "video"}]}])


@pytest.mark.parametrize("files, ends, template", [
    ({"generation_config.json": {"chat_format": "raw", "eos_token_id": 263}}, [263], None),
    ({"generation_config.json": {"chat_format": "chatml", "eos_token_id": 263}}, [265, 263, 264], None),
    ({"generation_config.json": {"eos_token_id": 7}}, [265, 263, 264, 7], None),
    ({"tokenizer_config.json": {"eos_token": "<|extra_0|>", "chat_template": "T"}}, [265, 263, 264, 266], "T"),
])
def test_what_the_folder_says_counts(tmp_path, files, ends, template):
    tokenizer = Tokenizer.from_pretrained(folder(tmp_path / "x", **files))
    assert tokenizer.eos_ids == ends and (template is None or tokenizer.chat_template == template)


def test_saved_files_read_back(small, tmp_path):
    small.save_pretrained(tmp_path / "copy")
    assert (tmp_path / "copy" / "qwen.tiktoken").read_bytes() == lines(SMALL)
    (tmp_path / "copy" / "config.json").write_text('{"visual": {}}')                  # the model's, which is not here
    copy = Tokenizer.from_pretrained(tmp_path / "copy")
    assert copy.apply_chat_template(USER, tokenize=True) == small.apply_chat_template(USER, tokenize=True)
    assert copy.vocab_size == small.vocab_size


def test_a_model_folder_has_it(tmp_path):
    """Without a warning; a tokenizer.json beside it is what is read."""
    path = folder(tmp_path / "x")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert of_folder(path, []).encode("hello") == [SMALL.index(b"hello")]
    (path / "tokenizer.json").write_bytes(Tokenizer.bytes().save_files()["tokenizer.json"])
    assert of_folder(path, []).encode("hello") == [*b"hello"]


@pytest.mark.parametrize("data, message", [
    (b"", "0 ranks"), (lines(BYTES[:-1]), "256 bytes is missing"), (lines([*BYTES, b"ab", b"ab"]), "stands twice"),
    (lines(SMALL) + b"YQ==\n", "line 264"), (lines(SMALL) + b"YQ== -1\n", "line 264"),
    (lines(SMALL) + b"YQ== 1.5\n", "line 264"), (lines(SMALL) + b"YQ== 3\n", "line 264"),
    (lines(SMALL) + b"YQ== 264\n", "264 ranks that are not 0, 1, 2"), (lines(SMALL) + b"YQ 263\n", "line 264"),
    (lines(SMALL) + b"Y*Q= 263\n", "line 264"), (lines(SMALL) + b" 263\n", "line 264"),
    (lines(SMALL) + b"YQ== 99999999999999999999\n", "line 264"), (lines(SMALL) + b"\n", "line 264"),
    (lines([*BYTES, b"x" * 1025]), "1 to 1024 bytes"), (b"\xff\xfe\x00", "line 1"),
    (b"".join(b"%s %d\n" % (base64.b64encode(b"%d" % i), i) for i in range((1 << 18) + 1)), "more than 262144 tokens"),
], ids=range(16))
def test_files_that_are_refused(tmp_path, data, message):
    path = folder(tmp_path / "x", **{"qwen.tiktoken": data})
    with pytest.raises(TokenizerError) as caught:
        Tokenizer.from_pretrained(path)
    assert message in str(caught.value) and str(path / "qwen.tiktoken") in str(caught.value)
    assert len(str(caught.value)) < 400
