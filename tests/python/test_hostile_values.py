"""Values made to hurt, in files and in options: each is refused by a typed error where it is given, within limits of
memory and processor time that are set here, not measured."""

import json
import os
import random
import struct
import subprocess
import sys
import textwrap

import pytest

import grpo
from grpo.model.formats.tokenizer_json import backtracks
from make_files import string

MEMORY = 256 << 20
SMALL = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 4,
         "num_key_value_heads": 2}
CHAT = [{"role": "user", "content": "hi"}]

# What a value can be made to cost without a loop: texts of lists that hold themselves, lists of characters, comparisons,
# sorting, changes of case; and loops over what costs much at each turn.
GROWING = {
    "text of lists in lists": "{% set a = [1] * 1000 %}{% set b = [a] * 1000 %}{% set c = [b] * 300 %}{{ c }}",
    "length of that text": "{% set a = [1] * 1000 %}{% set b = [a] * 1000 %}{{ ([b] * 300) | string | length }}",
    "JSON of them": "{% set a = [1] * 1000 %}{% set b = [a] * 1000 %}{{ ([b] * 100) | tojson | length }}",
    "sum of lists": "{% set a = [[1] * 4000000] * 100 %}{{ a | sum(start=[]) | length }}",
    "lists of characters": "{% set n = namespace(a=[]) %}{% for i in range(999) %}"
                           "{% set n.a = n.a + [('\u6f22' * 4000000) | list] %}{% endfor %}",
    "split": "{% set n = namespace(a=[]) %}{% for i in range(999) %}"
             "{% set n.a = n.a + [('\u6f22 ' * 2000000).split()] %}{% endfor %}",
    "sorts": "{% set n = namespace(a=0) %}{% for i in range(49000) %}{% set n.a = (range(99999) | list | sort) %}"
             "{% endfor %}",
    "upper": "{{ (['\u00df' * 4000000] * 64) | map('upper') | list | length }}",
    "unique": "{{ (['\u6f22' * 1000000] * 4000) | unique | list | length }}",
    "lower in a loop": "{% for i in range(200) %}{{ ('\u0130' * 1000000) | lower | length }}{% endfor %}",
    "comparisons": "{% set a = [1] * 1000 %}{% set b = [a + [1]] * 1000 %}{% set c = [a + [1]] * 1000 %}"
                   "{% for i in range(40000) %}{{ b == c }}{% endfor %}",
    "slices in a loop": "{% set s = 'a' * 4000000 %}{% for i in range(49000) %}{% set x = s[1:] %}{% endfor %}",
    "searches": "{% set s = 'a' * 4000000 %}{% for i in range(49000) %}{{ 'b' in s }}{% endfor %}",
    "escapes": "{% for i in range(60) %}{{ ('<' * 4000000) | e | length }}{% endfor %}",
    "macro without an end": "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
    "text of a deep list": "{% set n = namespace(a=[]) %}{% for i in range(40000) %}{% set n.a = [n.a] %}{% endfor %}"
                           "{{ n.a | string | length }}",
}


def limited(program, *arguments):
    """Runs a program that may take MEMORY beyond what importing the package took, and 20 s of processor time."""
    head = """
        import os, resource, sys
        import grpo
        tokenizer = grpo.load(grpo.tiny(num_hidden_layers=1), device="ref").tokenizer
        with open("/proc/self/statm") as file:
            size = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + %d, resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
    """ % MEMORY
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(program), *arguments],
                            capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


def test_templates_that_grow_are_refused_within_limits():
    """In this process and in that which renders, whose peak is the largest of any child's."""
    out = limited("""
        import json
        for name, template in json.loads(sys.argv[1]).items():
            tokenizer.chat_template = template
            try:
                print(name, "gave", tokenizer.apply_chat_template([{"role": "user", "content": "hi"}])[:50])
            except grpo.TokenizerError as error:
                assert "takes too much" in str(error), (name, error)
        tokenizer.chat_template = "{{ messages[0].content }}"
        assert tokenizer.apply_chat_template([{"role": "user", "content": "hi"}]) == "hi"
        print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10)
    """, json.dumps(GROWING))
    assert int(out) < 256, out


@pytest.mark.parametrize("template", ["{{ messages[0].content | trim }}", grpo.model.Tokenizer.bytes().chat_template])
def test_long_conversations_are_rendered(template):
    """The limits are for the template: one of six megabytes goes through it."""
    tokenizer = grpo.model.Tokenizer.bytes()
    tokenizer.chat_template = template
    text = "漢字" * (1 << 20)
    assert text in tokenizer.apply_chat_template([{"role": "user", "content": text}])


def test_a_rendering_that_was_interrupted_does_not_answer_the_next(monkeypatch):
    from grpo.model import chat

    tokenizer = grpo.model.Tokenizer.bytes()
    tokenizer.chat_template = "{{ messages[0].content }}"
    tokenizer.apply_chat_template(CHAT)
    with monkeypatch.context() as patch:
        def interrupted(seconds):
            raise KeyboardInterrupt
        connection = chat._process._connection
        patch.setattr(chat._process, "_connection", type("Connection", (), {
            "send_bytes": connection.send_bytes, "poll": staticmethod(interrupted), "close": connection.close})())
        with pytest.raises(KeyboardInterrupt):
            tokenizer.apply_chat_template([{"role": "user", "content": "first"}])
    assert tokenizer.apply_chat_template([{"role": "user", "content": "second"}]) == "second"


def test_a_child_of_fork_renders_with_a_process_of_its_own():
    tokenizer = grpo.model.Tokenizer.bytes()
    tokenizer.chat_template = "{{ messages[0].content }}"
    tokenizer.apply_chat_template(CHAT)
    child = os.fork()
    if not child:
        try:
            os._exit(tokenizer.apply_chat_template([{"role": "user", "content": "child"}]) != "child")
        finally:
            os._exit(2)
    assert tokenizer.apply_chat_template([{"role": "user", "content": "parent"}]) == "parent"
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_what_cannot_be_given_to_a_template_is_named():
    tokenizer = grpo.model.Tokenizer.bytes()
    with pytest.raises(grpo.TokenizerError, match="plain values"):
        tokenizer.apply_chat_template(CHAT, when=lambda: 0)


# GGUF headers: counts that the file's size allows, of values that take far more memory than their bytes.


def array(kind, count, data):
    return struct.pack("<IIQ", 9, kind, count) + data


N = 4_000_000
HEADERS = {
    "numbers of two bytes": lambda: array(2, N, random.Random(0).randbytes(2 * N)),
    "empty texts": lambda: array(8, N, b"\0" * 8 * N),
    "empty lists": lambda: array(9, N, struct.pack("<IQ", 0, 0) * N),
    "a long text with one wide character": lambda: struct.pack("<I", 8) + string("😀" + "a" * (15 << 20)),
}


@pytest.mark.parametrize("value", HEADERS.values(), ids=HEADERS)
def test_gguf_headers_are_refused_before_they_fill_the_memory(value, tmp_path):
    value, path = value(), tmp_path / "x.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 6)
                     + b"".join(string(f"k{i}") + value for i in range(6)))
    out = limited("""
        try:
            grpo.load(sys.argv[1])
        except grpo.FileFormatError as error:
            print(error)
    """, str(path))
    assert "the header's values take more than the limit" in out


def test_a_large_vocabulary_is_within_the_limit(tmp_path):
    """262,144 tokens, twice as many merges."""
    from grpo.model.formats.gguf_container import GgufContainer

    tokens = b"".join(string(f"Ġtok{i}é") for i in range(1 << 18))
    merges = b"".join(string(f"Ġtok {i}é") for i in range(1 << 19))
    arrays = {"tokens": array(8, 1 << 18, tokens), "merges": array(8, 1 << 19, merges),
              "scores": array(6, 1 << 18, b"\0" * (4 << 18)), "token_type": array(5, 1 << 18, b"\1\0\0\0" * (1 << 18))}
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(arrays))
                     + b"".join(string("tokenizer.ggml." + key) + value for key, value in arrays.items()))
    file = GgufContainer(path)
    file.close()
    assert len(file.metadata["tokenizer.ggml.merges"]) == 1 << 19


# tokenizer.json


def tokenizer_json(**parts):
    base = json.loads(grpo.model.Tokenizer.bytes()._backend.to_str())
    return json.dumps({**base, **parts}).encode()


def split(regex):
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


def replace(old, new):
    return {"type": "Replace", "pattern": old, "content": new}


def sequence(*steps, name="normalizers"):
    return {"type": "Sequence", name: list(steps)}


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
BOMBS = {
    "replacing a letter nine times": {"normalizer": sequence(*[replace({"String": "e"}, "e" * 100)] * 9)},
    "replacing by a regex": {"normalizer": sequence(*[replace({"Regex": "."}, "e" * 100)] * 9)},
    "one replacement of a megabyte": {"normalizer": replace({"String": "e"}, "e" * (1 << 20))},
    "replacing nothing": {"normalizer": replace({"String": ""}, "e" * 1000)},
    "nested lists of replacements": {"normalizer": sequence(sequence(*[replace({"String": "e"}, "eeee")] * 5),
                                                            sequence(*[replace({"String": "e"}, "eeee")] * 5))},
    "prepending": {"normalizer": sequence(*[{"type": "Prepend", "prepend": "e" * 1000}] * 9)},
    "bytes of bytes": {"pre_tokenizer": sequence(*[BYTE_LEVEL] * 40, name="pretokenizers")},
    "a decoder": {"decoder": sequence(*[replace({"String": "e"}, "e" * 100)] * 9, name="decoders")},
    "copies of the text": {"post_processor": {"type": "TemplateProcessing", "pair": [], "special_tokens": {}, "single":
                                              [{"Sequence": {"id": "A", "type_id": 0}}] * 100_000}},
    "repetitions of repetitions": {"pre_tokenizer": split("(a+)+$")},
    "repetitions in a replacement": {"normalizer": replace({"Regex": "(?:a*b?)*c"}, "")},
    "deep": {"normalizer": json.loads('{"type":"Sequence","normalizers":[' * 40 + "]}" * 40)},
}


@pytest.mark.parametrize("parts", BOMBS.values(), ids=BOMBS)
def test_tokenizer_json_that_would_take_all_memory_or_time(parts, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(tokenizer_json(**parts))
    with pytest.raises(grpo.TokenizerError, match="tokenizer.json"):
        grpo.model.Tokenizer.from_pretrained(tmp_path)


def test_many_values_are_refused_before_they_are_read(tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(b"[" + b"[]," * (4 << 20) + b"0]")
    with pytest.raises(grpo.TokenizerError, match="values"):
        grpo.model.Tokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize("regex", ["(a|a)*$", "a*a*a*a*a*$"])
def test_a_regex_that_gives_up_is_a_typed_error(regex, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(tokenizer_json(pre_tokenizer=split(regex)))
    tokenizer = grpo.model.Tokenizer.from_pretrained(tmp_path)
    with pytest.raises(grpo.TokenizerError, match="cannot encode"):
        tokenizer.encode("a" * 400 + "b")


REGEXES = {
    r"""[^\r\n\p{L}\p{N}]?((?=[\p{L}])([^a-z]))*((?=[\p{L}])([^A-Z]))+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}"""
    r"""| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+""": False,
    r" ?[^(\s|[.,!?…。，、।۔،])]+": False,
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+": False,
    r"\p{N}{1,3}(?=(?:\p{N}{3})*(?:\P{N}|$))": False,
    "(a*)*b": True, "((a)+b?)+": True, "(?:a?){2,}": True, "(x{1,5})*": True, "(?:(?:a+))+": True, "([ab]+)*+": True,
}


@pytest.mark.parametrize("regex", REGEXES)
def test_regular_expressions(regex):
    """Those of models that people have, and some that none has."""
    assert backtracks(regex) == REGEXES[regex]


@pytest.mark.parametrize("eos", [[[258]], {"a": 1}, "258", [258.0], [True], [None], -1, [1 << 70]], ids=str)
@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_ids_that_end_a_completion(eos, name, tmp_path):
    grpo.load(grpo.tiny("llama", **SMALL), device="ref").save_pretrained(tmp_path)
    for file in ("config.json", "generation_config.json"):
        content = json.loads((tmp_path / file).read_text()) if (tmp_path / file).exists() else {}
        content.pop("eos_token_id", None)
        (tmp_path / file).write_text(json.dumps({**content, "eos_token_id": eos} if file == name else content))
    with pytest.raises(grpo.GrpoError, match="eos_token_id|end-of-text"):
        grpo.load(tmp_path, device="ref")
    with pytest.raises(grpo.TokenizerError, match="end-of-text"):
        grpo.model.Tokenizer.from_pretrained(tmp_path)
