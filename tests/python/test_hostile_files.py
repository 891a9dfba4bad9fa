"""Files made to hurt: each must give one typed error that names the file, after little work, whatever it claims about
itself."""

import json
import struct
import sys
from contextlib import contextmanager

import numpy as np
import pytest

import grpo
from make_files import (
    byte_level_metadata,
    gguf,
    gguf_tensors,
    model_metadata,
    safetensors,
    sentencepiece_metadata,
    string,
)

CALLS = 5_000_000  # of functions, while a file is read: seconds on a slow machine; the same number on any
SMALL = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 4,
         "num_key_value_heads": 2}
BIG = 1 << 63


@pytest.fixture(scope="module")
def model():
    return grpo.load(grpo.tiny("llama", **SMALL), device="ref")


@pytest.fixture(scope="module")
def good(model, tmp_path_factory):
    """The files of a well-formed folder, by name."""
    folder = tmp_path_factory.mktemp("good")
    model.save_pretrained(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@contextmanager
def few_calls():
    """What happens in it takes no more than so many calls of functions."""
    left = CALLS

    def count(frame, event, argument):
        nonlocal left
        left -= event in ("call", "c_call")
        if left < 0:
            raise AssertionError("too much work")

    sys.setprofile(count)
    try:
        yield
    finally:
        sys.setprofile(None)
        assert left >= 0, "too much work"


def refused(path):
    with pytest.raises(grpo.GrpoError) as caught, few_calls():
        loaded = grpo.load(path, device="ref")
        loaded.tokenizer.apply_chat_template([{"role": "user", "content": "hi"}])
    assert str(path) in str(caught.value) and len(str(caught.value)) < 2500


def entry(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


SAFETENSORS = {
    "empty file": b"",
    "seven bytes": b"\0" * 7,
    "header length 2^64-1": struct.pack("<Q", 2**64 - 1) + b"{}",
    "header longer than the file": safetensors({}, length=100),
    "header over the limit": struct.pack("<Q", 200_000_000) + b"{}",
    "header of nothing": safetensors(b""),
    "not JSON": safetensors(b"{hello}"),
    "not an object": safetensors(b"[]"),
    "leading space": safetensors(b" {}"),
    "not UTF-8": safetensors(b'{"\xff": 1}'),
    "nested a hundred thousand deep": safetensors(b'{"a":' + b"[" * 100_000),
    "duplicate tensor": safetensors(
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        b"\0" * 4
    ),
    "duplicate field": safetensors(b'{"a":{"dtype":"F32","dtype":"F16","shape":[1],"data_offsets":[0,4]}}', b"\0" * 4),
    "NaN": safetensors(b'{"a":NaN}'),
    "a number of ten thousand digits": safetensors(b'{"a":' + b"9" * 10_000 + b"}"),
    "half a surrogate pair": safetensors(b'{"\\ud800":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}', b"\0" * 4),
    "metadata of numbers": safetensors({"__metadata__": {"a": 1}}),
    "metadata is a list": safetensors({"__metadata__": []}),
    "a tensor that is a number": safetensors({"a": 1}),
    "a missing field": safetensors({"a": {"dtype": "F32", "shape": [1]}}, b"\0" * 4),
    "an extra field": safetensors({"a": {**entry([1], 0, 4), "more": 1}}, b"\0" * 4),
    "unknown dtype": safetensors({"a": entry([1], 0, 4, "F31")}, b"\0" * 4),
    "dtype is a list": safetensors({"a": entry([1], 0, 4, ["F32"])}, b"\0" * 4),
    "negative dimension": safetensors({"a": entry([-1, -1], 0, 4)}, b"\0" * 4),
    "fractional dimension": safetensors({"a": entry([1.0], 0, 4)}, b"\0" * 4),
    "true as a dimension": safetensors({"a": entry([True], 0, 4)}, b"\0" * 4),
    "dimensions that wrap to 4": safetensors({"a": entry([4194305, 4194305, 211106198978564], 0, 16)}, b"\0" * 16),
    "rank 9": safetensors({"a": entry([1] * 9, 0, 4)}, b"\0" * 4),
    "offsets backwards": safetensors({"a": entry([1], 4, 0)}, b"\0" * 4),
    "offsets past the end": safetensors({"a": entry([4], 0, 16)}, b"\0" * 4),
    "offsets of 2^63": safetensors({"a": entry([0], BIG, BIG)}),
    "negative offsets": safetensors({"a": entry([1], -4, 0)}, b"\0" * 4),
    "three offsets": safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 4]}}, b"\0" * 4),
    "overlap": safetensors({"a": entry([1], 0, 4), "b": entry([1], 0, 4)}, b"\0" * 4),
    "hole": safetensors({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, b"\0" * 12),
    "hole at the start": safetensors({"a": entry([1], 4, 8)}, b"\0" * 8),
    "bytes after the last tensor": safetensors({"a": entry([1], 0, 4)}, b"\0" * 5),
    "name with NUL": safetensors({"a\0": entry([1], 0, 4)}, b"\0" * 4),
    "name of 2000 bytes": safetensors({"a" * 2000: entry([1], 0, 4)}, b"\0" * 4),
    "no name": safetensors({"": entry([1], 0, 4)}, b"\0" * 4),
    "no tensor of the model": safetensors({"a": entry([1], 0, 4)}, b"\0" * 4),
    "embedding of integers": safetensors({"model.embed_tokens.weight": entry([259, 64], 0, 259 * 64, "U8")},
                                         b"\0" * (259 * 64)),
    "a pickle": b"\x80\x04\x95" + b"\0" * 64,
}


def write(folder, files):
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize("data", SAFETENSORS.values(), ids=SAFETENSORS)
def test_safetensors(data, good, tmp_path):
    refused(write(tmp_path / "model", {**good, "model.safetensors": data}))


def test_every_truncation_of_a_small_file(good, tmp_path):
    """Cut anywhere in the header, and at a hundred places of the data."""
    whole = good["model.safetensors"]
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    write(tmp_path, good)
    for size in [*range(0, header, 7), *range(header, len(whole), (len(whole) - header) // 100)]:
        (tmp_path / "model.safetensors").write_bytes(whole[:size])
        refused(tmp_path)


def test_a_file_that_shrinks_while_it_is_read(good, tmp_path):
    from grpo.model.formats.safetensors import SafetensorsFile

    (tmp_path / "x.safetensors").write_bytes(good["model.safetensors"])
    file = SafetensorsFile(tmp_path / "x.safetensors")
    name = max(file.entries, key=lambda n: file.entries[n].end)
    (tmp_path / "x.safetensors").write_bytes(good["model.safetensors"][:-10])
    with pytest.raises(grpo.FileFormatError, match="ends inside"):
        file.read(name)


INDEX = {
    "a path": {"weight_map": {"a": "../model.safetensors"}},
    "an absolute path": {"weight_map": {"a": "/etc/passwd"}},
    "a backslash": {"weight_map": {"a": "..\\x.safetensors"}},
    "a number": {"weight_map": {"a": 5}},
    "a list": {"weight_map": []},
    "nothing": {},
    "an empty map": {"weight_map": {}},
    "another extension": {"weight_map": {"a": "config.json"}},
    "dots": {"weight_map": {"a": ".."}},
    "a missing shard": {"weight_map": {"a": "gone.safetensors"}},
    "a NUL": {"weight_map": {"a": "a\0.safetensors"}},
    "a tensor in no shard": {"weight_map": {"model.norm.weight": "s.safetensors", "ghost": "s.safetensors"}},
    "a tensor not listed": {"weight_map": {"ghost": "s.safetensors"}},
    "a tensor in two shards": {"weight_map": {"model.norm.weight": "s.safetensors", "x": "t.safetensors"}},
}


@pytest.mark.parametrize("index", INDEX.values(), ids=INDEX)
def test_index(index, good, tmp_path):
    shard = safetensors({"model.norm.weight": entry([64], 0, 256)}, b"\0" * 256)
    files = {name: data for name, data in good.items() if name != "model.safetensors"}
    refused(
        write(
            tmp_path / "model",
            {**files, "s.safetensors": shard, "t.safetensors": shard,
             "model.safetensors.index.json": json.dumps(index).encode()},
        )
    )


CONFIG = {
    "empty": b"",
    "not JSON": b"{",
    "a list": b"[]",
    "nested": b'{"a":' * 30_000,
    "nested within reason": b'{"a":' + b"[" * 100 + b"]" * 100 + b"}",
    "NaN": b'{"rms_norm_eps": NaN}',
    "not UTF-8": b'{"a": "\xff"}',
    "half a surrogate": b'{"a": "\\udfff"}',
    "infinite": b'{"a": 1e999}',
    "twice": b'{"a": 1, "a": 2}',
    "ten thousand digits": b'{"a": ' + b"1" * 10_000 + b"}",
}
CHANGES = {
    "no model_type": {"model_type": None},
    "model_type is a list": {"model_type": ["llama"]},
    "unknown model_type": {"model_type": "x" * 5000, "number_of_x": 1},
    "a billion layers": {"num_hidden_layers": 10**9},
    "a thousand layers": {"num_hidden_layers": 1000},
    "no layers": {"num_hidden_layers": 0},
    "layers as text": {"num_hidden_layers": "1"},
    "layers as true": {"num_hidden_layers": True},
    "width 2^60": {"hidden_size": 1 << 60},
    "width 131072": {"hidden_size": 131072},
    "negative width": {"hidden_size": -64},
    "no heads": {"num_attention_heads": 0},
    "5 heads": {"num_attention_heads": 5, "head_dim": None},
    "3 key heads": {"num_key_value_heads": 3},
    "odd head": {"head_dim": 15},
    "huge head": {"head_dim": 1 << 20},
    "vocabulary 2^22": {"vocab_size": 1 << 22},
    "eps as text": {"rms_norm_eps": "1e-6"},
    "negative eps": {"rms_norm_eps": -1},
    "theta 0": {"rope_theta": 0},
    "theta is a list": {"rope_theta": []},
    "tie as a number": {"tie_word_embeddings": 1},
    "rope is a number": {"rope_scaling": 7},
    "rope type is a dict": {"rope_scaling": {"rope_type": {}}},
    "factor 0": {"rope_scaling": {"type": "linear", "factor": 0}},
    "no factor": {"rope_scaling": {"type": "linear"}},
    "untied without head": {"tie_word_embeddings": False},
    "layer types are numbers": {"layer_types": [1, 2]},
    "layer_types is a number": {"layer_types": 5},
    "wrong feed-forward": {"intermediate_size": 100},
    "window as text": {"use_sliding_window": "no"},
    "act is a list": {"hidden_act": ["silu"]},
    "max_position as text": {"max_position_embeddings": "many"},
}


@pytest.mark.parametrize("data", CONFIG.values(), ids=CONFIG)
def test_config_bytes(data, good, tmp_path):
    refused(write(tmp_path / "model", {**good, "config.json": data}))


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_config_values(change, good, tmp_path):
    refused(write(tmp_path / "model",
                  {**good, "config.json": json.dumps({**json.loads(good["config.json"]), **change}).encode()}))


TOKENIZER = {
    "empty": b"",
    "an object": b"{}",
    "a list": b"[]",
    "not UTF-8": b"\xff\xfe",
    "deep": b"[" * 200_000,
    "no vocabulary": b'{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,'
    b'"pre_tokenizer":null,"post_processor":null,'
    b'"decoder":null,"model":{"type":"BPE","vocab":{},"merges":[]}}',
    "a merge of nothing": b'{"version":"1.0","added_tokens":[],'
    b'"model":{"type":"BPE","vocab":{"a":0},"merges":["b c"]}}',
    "an id of 2^32-1": b'{"version":"1.0","added_tokens":[],'
    b'"model":{"type":"BPE","vocab":{"a":4294967295},"merges":[]}}',
    "a regex that does not parse": b'{"version":"1.0","added_tokens":[],'
    b'"pre_tokenizer":{"type":"Split","pattern":{"Regex":"("},"behavior":"Isolated","invert":false},'
    b'"model":{"type":"BPE","vocab":{"a":0},"merges":[]}}',
}


@pytest.mark.parametrize("data", TOKENIZER.values(), ids=TOKENIZER)
def test_tokenizer_json(data, good, tmp_path):
    refused(write(tmp_path / "model", {**good, "tokenizer.json": data}))


def test_a_token_past_the_vocabulary(good, tmp_path):
    tokenizer = json.loads(good["tokenizer.json"])
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][-1], "id": 259, "content": "<more>"})
    refused(write(tmp_path / "model", {**good, "tokenizer.json": json.dumps(tokenizer).encode()}))


TEMPLATES = {
    "does not parse": "{% for %}",
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "doubling by ~": "{% set n = namespace(s='aaaa') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    "doubling by +": "{% set n = namespace(s='aaaa') %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}",
    "doubling a list": "{% set n = namespace(s=[1]) %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}",
    "doubling by a block": "{% set n = namespace(s='aaaa') %}{% for i in range(60) %}{% set x %}{{ n.s }}{{ n.s }}{% "
    "endset %}{% set n.s = x %}{% endfor %}",
    "doubling by a macro": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "doubling by join": "{% set n = namespace(s='aaaa') %}{% for i in range(60) %}{% set n.s = [n.s, n.s] | join %}{% "
    "endfor %}",
    "doubling by replace": "{% set n = namespace(s='aaaa') %}{% for i in range(60) %}{% set n.s = n.s | replace('a', "
    "'aa') %}{% endfor %}",
    "many values that fit": "{% set n = namespace(s=[]) %}{% for i in range(9999) %}{% set n.s = n.s + ['a' * 4000000] "
    "%}{% endfor %}",
    "endless macro": "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "recursive loop": "{% for x in range(9) recursive %}{{ loop(range(9)) }}{% endfor %}",
    "a string times 10^10": "{{ 'a' * 10**10 }}",
    "10^(10^10)": "{{ 10 ** (10 ** 10) }}",
    "a list times 10^10": "{{ [1] * 10**10 }}",
    "squares": "{% set n = namespace(s=9) %}{% for i in range(60) %}{% set n.s = n.s * n.s %}{% endfor %}",
    "centred": "{{ 'a'.center(10**10) }}",
    "centred by filter": "{{ 'a' | center(10**10) }}",
    "formatted": "{{ '%10000000000d' % 1 }}",
    "formatted by method": "{{ '{:>10000000000}'.format(1) }}",
    "formatted by filter": "{{ '%10000000000d' | format(1) }}",
    "indented": "{{ 'a\nb' | indent(10**10) }}",
    "tojson indented": "{{ [1] | tojson(indent=10**10) }}",
    "class": "{{ ''.__class__.__mro__[1] }}",
    "globals": "{{ raise_exception.__globals__['x'] }}",
    "format map": "{{ '{0.__class__}'.format_map(messages[0]) }}",
    "append": "{{ messages.append(1) }}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import 'os' as os %}{{ os }}",
    "lipsum": "{{ lipsum(n=10**9) }}",
    "endless output": "{% for i in range(99999) %}{{ 'a' * 100000 }}{% endfor %}",
    "deep brackets": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "deep ifs": "{% if 1 %}" * 5000 + "{% endif %}" * 5000,
    "division": "{{ 1 // 0 }}",
    "over a megabyte": "a" * (1 << 20) + "a",
    "undefined": "{{ a.b.c }}",
    "refusal": "{{ raise_exception('no') }}",
}


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_templates(template, good, tmp_path):
    refused(write(tmp_path / "model", {**good, "chat_template.jinja": template.encode()}))


def gguf_of(model, metadata=None, tensors=None, **header):
    metadata = {**model_metadata(model.config), **byte_level_metadata(), **(metadata or {})}
    return gguf(
        {k: v for k, v in metadata.items() if v is not None},
        gguf_tensors(model.state_dict(), model.config) + (tensors or []), **header
    )


def array_claim(kind, count, data=b""):
    return struct.pack("<IIQ", 9, kind, count) + data


GGUF = {
    "empty": lambda m: b"",
    "only magic": lambda m: b"GGUF",
    "another magic": lambda m: gguf_of(m, magic=b"GGML"),
    "version 1": lambda m: gguf_of(m, version=1),
    "version 4": lambda m: gguf_of(m, version=4),
    "big-endian": lambda m: gguf_of(m, version=3 << 24),
    "2^64-1 tensors": lambda m: gguf_of(m, counts=(2**64 - 1, 2**64 - 1)),
    "2^20 tensors": lambda m: gguf_of(m, counts=(1 << 20, 2)),
    "more keys than there are": lambda m: gguf_of(m, counts=(1, 60000)),
    "array of 2^63": lambda m: gguf_of(m, {"x": array_claim(8, BIG)}),
    "array of 2^24 strings": lambda m: gguf_of(m, {"x": array_claim(8, 1 << 24)}),
    "array of 2^61 u64": lambda m: gguf_of(m, {"x": array_claim(10, 1 << 61)}),
    "array of unknown type": lambda m: gguf_of(m, {"x": array_claim(99, 1)}),
    "arrays in arrays": lambda m: gguf_of(m, {"x": struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 1000}),
    "unknown value type": lambda m: gguf_of(m, {"x": struct.pack("<I", 13)}),
    "string of 2^63": lambda m: gguf_of(m, {"x": struct.pack("<IQ", 8, BIG)}),
    "string of 17 MiB": lambda m: gguf_of(m, {"x": struct.pack("<IQ", 8, 17 << 20)}),
    "string that is not UTF-8": lambda m: gguf_of(m, {"x": struct.pack("<I", 8) + string(b"\xff\xfe")}),
    "key of 2^40 bytes": lambda m: b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 40),
    "key twice": lambda m: gguf([("a", 1), ("a", 2)], []),
    "no keys at all": lambda m: gguf({}, []),
    "no tensors": lambda m: gguf({**model_metadata(m.config), **byte_level_metadata()}, []),
    "alignment 0": lambda m: gguf_of(m, {"general.alignment": 0}),
    "alignment 24": lambda m: gguf_of(m, {"general.alignment": 24}),
    "alignment 2^31": lambda m: gguf_of(m, {"general.alignment": 1 << 31}),
    "alignment as text": lambda m: gguf_of(m, {"general.alignment": "32"}),
    "rank 0": lambda m: gguf_of(m, tensors=[("x", "F32", (), b"")]),
    "rank 5": lambda m: gguf_of(m, tensors=[("x", "F32", (1,) * 5, b"\0" * 4)]),
    "rank 2^32-1": lambda m: gguf({}, [])[:8] + struct.pack("<QQ", 1, 0) + string("x") + struct.pack("<I", 2**32 - 1),
    "dimension 0": lambda m: gguf_of(m, tensors=[("x", "F32", (0, 4), b"")]),
    "dimensions that wrap": lambda m: gguf_of(m, tensors=[("x", "F32", (1 << 32, 1 << 32), b"")]),
    "half a block": lambda m: gguf_of(m, tensors=[("x", "Q4_0", (48, 1), b"\0" * 27)]),
    "unknown type": lambda m: gguf_of(m, tensors=[("x", 77, (4,), b"\0" * 16)]),
    "a type we do not read": lambda m: gguf_of(m, tensors=[("x", 18, (256,), b"\0" * 98)]),
    "offset past the end": lambda m: gguf_of(m, tensors=[("x", "F32", (4,), b"", 1 << 40)]),
    "offset 2^64-32": lambda m: gguf_of(m, tensors=[("x", "F32", (4,), b"", 2**64 - 32)]),
    "offset not aligned": lambda m: gguf_of(m, tensors=[("x", "F32", (4,), b"\0" * 64, 3)]),
    "overlap": lambda m: gguf_of(m, tensors=[("x", "F32", (4,), b"", 0)]),
    "tensor twice": lambda m: gguf_of(m, tensors=[("output_norm.weight", "F32", (64,), b"\0" * 256)]),
    "long name": lambda m: gguf_of(m, tensors=[("x" * 100, "F32", (4,), b"\0" * 16)]),
    "unknown tensor": lambda m: gguf_of(m, tensors=[("x", "F32", (4,), b"\0" * 16)]),
    "unknown architecture": lambda m: gguf_of(m, {"general.architecture": "mamba"}),
    "architecture is a number": lambda m: gguf_of(m, {"general.architecture": 7}),
    "no block count": lambda m: gguf_of(m, {"llama.block_count": None}),
    "2^31 blocks": lambda m: gguf_of(m, {"llama.block_count": 1 << 31}),
    "900 blocks": lambda m: gguf_of(m, {"llama.block_count": 900}),
    "heads as text": lambda m: gguf_of(m, {"llama.attention.head_count": "4"}),
    "no heads": lambda m: gguf_of(m, {"llama.attention.head_count": 0}),
    "heads by layer": lambda m: gguf_of(m, {"llama.attention.head_count_kv": [1, 2]}),
    "heads in an empty list": lambda m: gguf_of(m, {"llama.attention.head_count_kv": array_claim(5, 0)}),
    "eps as text": lambda m: gguf_of(m, {"llama.attention.layer_norm_rms_epsilon": "x"}),
    "eps NaN": lambda m: gguf_of(m, {"llama.attention.layer_norm_rms_epsilon": float("nan")}),
    "theta infinite": lambda m: gguf_of(m, {"llama.rope.freq_base": float("inf")}),
    "experts": lambda m: gguf_of(m, {"llama.expert_count": 8}),
    "yarn": lambda m: gguf_of(m, {"llama.rope.scaling.type": "yarn"}),
    "longrope": lambda m: gguf_of(m, {"llama.rope.scaling.type": "longrope"}),
    "scaling type is a number": lambda m: gguf_of(m, {"llama.rope.scaling.type": 5}),
    "scaling factor NaN": lambda m: gguf_of(m, {"llama.rope.scaling.factor": float("nan")}),
    "old scaling factor as text": lambda m: gguf_of(m, {"llama.rope.scale_linear": "2"}),
    "window as text": lambda m: gguf_of(m, {"llama.attention.sliding_window": "many"}),
    "theta 0": lambda m: gguf_of(m, {"llama.rope.freq_base": 0.0}),
    "one of two files": lambda m: gguf_of(m, {"split.count": 2, "split.no": 0}),
    "2^32-1 files": lambda m: gguf_of(m, {"split.count": 2**32 - 1, "split.no": 0}),
    "files as text": lambda m: gguf_of(m, {"split.count": "2"}),
    "rope divisors of zero": lambda m: gguf_of(m, tensors=[("rope_freqs.weight", "F32", (8,), b"\0" * 32)]),
    "width 128": lambda m: gguf_of(m, {"llama.embedding_length": 128}),
    "rope divisors NaN": lambda m: gguf_of(m, tensors=[("rope_freqs.weight", "F32", (8,), b"\xff" * 32)]),
    "value heads": lambda m: gguf_of(m, {"llama.attention.value_length": 8}),
    "tokens missing": lambda m: gguf_of(m, {"tokenizer.ggml.tokens": None}),
    "tokens as numbers": lambda m: gguf_of(m, {"tokenizer.ggml.tokens": [1, 2]}),
    "more tokens than rows": lambda m: gguf_of(
        m, {"tokenizer.ggml.tokens": [*byte_level_metadata()["tokenizer.ggml.tokens"], "zz"],
            "tokenizer.ggml.token_type": None}
    ),
    "template is a number": lambda m: gguf_of(m, {"tokenizer.chat_template": 5}),
    "template loops": lambda m: gguf_of(m, {"tokenizer.chat_template": TEMPLATES["nested loops"]}),
    "scores too few": lambda m: gguf_of(m, {**sentencepiece_metadata(), "tokenizer.ggml.scores": [0.0]}),
    "extra spaces removed": lambda m: gguf_of(m, {**sentencepiece_metadata(),
                                                  "tokenizer.ggml.remove_extra_whitespaces": True}),
    "scores as text": lambda m: gguf_of(m, {**sentencepiece_metadata(), "tokenizer.ggml.scores": ["x"] * 267}),
    "eos out of range": lambda m: gguf_of(m, {"tokenizer.ggml.eos_token_id": 2**31}),
    "merges of nothing": lambda m: gguf_of(m, {"tokenizer.ggml.merges": ["qq zz"]}),
}


@pytest.mark.parametrize("build", GGUF.values(), ids=GGUF)
def test_gguf(build, model, tmp_path):
    (tmp_path / "x.gguf").write_bytes(build(model))
    refused(tmp_path / "x.gguf")


def test_truncated_gguf(model, tmp_path):
    whole = gguf_of(model)
    for size in [*range(0, 3000, 37), *range(3000, len(whole), len(whole) // 60)]:
        (tmp_path / "x.gguf").write_bytes(whole[:size])
        refused(tmp_path / "x.gguf")


def test_flipped_bits(model, tmp_path):
    """One bit anywhere in the header: refused with a typed error, or still a model that loads."""
    rng, outcomes = np.random.default_rng(0), []
    for name, whole, header in (("x.gguf", gguf_of(model), 9000),):
        for at in rng.integers(0, header, 150):
            data = bytearray(whole)
            data[at] ^= 1 << rng.integers(8)
            (tmp_path / name).write_bytes(data)
            try:
                grpo.load(tmp_path / name, device="ref")
                outcomes.append("loads")
            except grpo.GrpoError as error:
                assert str(tmp_path) in str(error)
                outcomes.append("refused")
    assert outcomes.count("refused") > 20


@pytest.mark.parametrize("name", ["model.bin", "model.pt", "model.pth"])
def test_pickles_are_not_opened(name, good, tmp_path):
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    refused(tmp_path / name)
    files = {key: data for key, data in good.items() if key != "model.safetensors"}
    refused(write(tmp_path / "model", {**files, "pytorch_" + name: b"x"}))


@pytest.mark.parametrize("path", ["missing", "missing.gguf", "folder", "file.txt", "config.json"])
def test_paths_that_are_no_model(path, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.txt").write_text("x")
    (tmp_path / "config.json").write_text("{}")
    refused(tmp_path / path)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_folders_where_files_should_be(name, good, tmp_path):
    write(tmp_path / "model", {key: data for key, data in good.items() if key != name})
    (tmp_path / "model" / name).mkdir()
    refused(tmp_path / "model")
