"""Values made to hurt, in files and in options: each is refused by a typed error where it is given, within limits of
memory and processor time that are set here, not measured."""

import datetime
import io
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import textwrap
import zipfile

import numpy as np
import pytest

import grpo
import toy
from grpo.model.formats.tokenizer_json import backtracks
from grpo.runs import checkpoint
from grpo.runs.arrays import read_arrays
from make_files import string

MEMORY = 256 << 20
SMALL = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 4,
         "num_key_value_heads": 2}
CHAT = [{"role": "user", "content": "hi"}]

# What a value can be made to cost without a loop: texts of lists in lists, lists of characters, comparisons, sorting,
# changes of case; and loops over what costs much at each turn.
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
    head = f"""
        import os, resource, sys
        import grpo
        tokenizer = grpo.load(grpo.tiny(num_hidden_layers=1), device="ref").tokenizer
        with open("/proc/self/statm") as file:
            size = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + {MEMORY}, resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
    """
    result = subprocess.run([sys.executable, "-P", "-c", textwrap.dedent(head) + textwrap.dedent(program), *arguments],
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


@pytest.mark.parametrize("eos", [[[258]], {"a": 1}, "258", [258.0], [True]], ids=str)
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


# Checkpoints whose hashes fit: contents changed, then sealed again.


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run that was saved between two updates on one rollout, and the rewards' memory with it."""
    folder = tmp_path_factory.mktemp("runs")
    trainer = toy.trainer(folder, rows=toy.ROWS, max_steps=1, num_iterations=2, save_strategy="steps", save_steps=1)
    trainer.train()
    return trainer.run.path


def changed(run, folder, name, data):
    """A copy of the run's checkpoint with other bytes in one file of the trainer's, and a manifest that fits them."""


    there = folder / "checkpoints" / "step-1"
    shutil.copytree(run / "checkpoints" / "step-1", there)
    (there / "trainer" / name).write_bytes(data)
    manifest = json.loads((there / "MANIFEST.json").read_text())
    manifest["files"][f"trainer/{name}"] = checkpoint.seal(there / "trainer" / name)
    (there / "MANIFEST.json").write_text(json.dumps(manifest))
    checkpoint.verify(there)
    return there


def resumed(folder, tmp_path):
    trainer = toy.trainer(tmp_path, rows=toy.ROWS, max_steps=3, num_iterations=2)
    trainer.train(resume_from_checkpoint=str(folder))
    return trainer


def test_a_checkpoint_that_was_not_changed_resumes(run, tmp_path):
    data = (run / "checkpoints" / "step-1" / "trainer" / "rollouts.npz").read_bytes()
    assert resumed(changed(run, tmp_path, "rollouts.npz", data), tmp_path).state.global_step == 3


STATE = {
    "not JSON": lambda state: b"{", "nothing": lambda state: b"", "a list": lambda state: b"[]",
    "deep": lambda state: b"[" * 100_000, "not UTF-8": lambda state: b"\xff\xfe\xfd",
    "ten thousand digits": lambda state: json.dumps({**state, "step": 0}).encode().replace(b'"step": 0', b'"step": '
                                                                                           + b"9" * 10_000),
    **{f"without {name}": lambda state, name=name: json.dumps({k: v for k, v in state.items() if k != name}).encode()
       for name in ("kind", "step", "epoch", "adam_steps", "num_input_tokens_seen", "skipped", "config", "position",
                    "rows", "rollouts_made", "used", "entropy_control", "reference")},
    **{f"{name} is {value!r}": lambda state, name=name, value=value: json.dumps({**state, name: value}).encode()
       for name, values in {"step": ["1", None, -1, 1.5, True, 1 << 80], "epoch": ["1", float("nan"), None],
                            "adam_steps": [[], -1, 1 << 64], "config": [[], None, 5], "position": [None, "0", -1],
                            "rows": ["2", 1 << 70], "used": [-1, "1", {}], "skipped": [None, {}], "kind": [5, "sft"],
                            "entropy_control": [5, [], [1], ["a", "b"], [None, 0]], "reference": [5]}.items()
       for value in values},
}


@pytest.mark.parametrize("change", STATE.values(), ids=STATE)
def test_trainer_json_with_a_hash_that_fits(change, run, tmp_path):
    state = json.loads((run / "checkpoints" / "step-1" / "trainer" / "trainer.json").read_text())
    with pytest.raises(grpo.CheckpointError, match="trainer.json|was written by|rows of data|reference"):
        resumed(changed(run, tmp_path, "trainer.json", change(state)), tmp_path)


def npz(**arrays):
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def zipped(data, compression=zipfile.ZIP_STORED, name="rows.npy"):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        archive.writestr(name, data)
    return stream.getvalue()


def npy(header, data=b""):
    text = repr(header).encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


ZIPS = {
    "empty": b"", "no zip": b"PK" * 100, "no arrays": npz(), "a text": zipped(b"hello"),
    "gigabytes of zeros": zipped(bytes(64 << 20), zipfile.ZIP_DEFLATED),
    "a header of petabytes": zipped(npy({"descr": "<i8", "fortran_order": False, "shape": (1 << 50,)}, b"12345678")),
    "a header of nothing": zipped(npy({"descr": "|V0", "fortran_order": False, "shape": (1 << 50,)})),
    "a negative shape": zipped(npy({"descr": "<i8", "fortran_order": False, "shape": (-1,)}, b"12345678")),
    "objects": npz(rows=np.array([{}], object)), "a header that is code": zipped(npy("__import__('os')")),
    "a header that is deep": zipped(b"\x93NUMPY\x01\x00" + struct.pack("<H", 60_000) + b"(" * 60_000),
}


@pytest.mark.parametrize("data", ZIPS.values(), ids=ZIPS)
def test_rollouts_npz_that_is_none(data, run, tmp_path):
    with pytest.raises(grpo.CheckpointError, match="rollouts.npz"):
        resumed(changed(run, tmp_path, "rollouts.npz", data), tmp_path)


def with_array(name, change):
    def changed_arrays(arrays):
        arrays = dict(arrays)
        value = change(arrays.pop(name, None))
        return arrays if value is None else {**arrays, name: value}
    return changed_arrays


ARRAYS = {
    **{f"without {name}": with_array(name, lambda old: None) for name in ("rows", "group", "lengths", "tokens", "texts",
                                                                         "finish", "logprobs", "entropies")},
    **{f"{name} as text": with_array(name, lambda old: old.astype("U")) for name in ("rows", "tokens", "logprobs")},
    **{f"{name} too short": with_array(name, lambda old: old[:-1]) for name in ("rows", "group", "lengths", "tokens",
                                                                               "texts", "mask", "rewards", "totals",
                                                                               "policy_logprobs", "advantages")},
    **{f"{name} in two dimensions": with_array(name, lambda old: old[None]) for name in ("rows", "group", "tokens")},
    "rewards in one dimension": with_array("rewards", lambda old: old[:, 0]),
    "an array more": with_array("self", lambda old: np.zeros(3)),
    "negative lengths": with_array("lengths", lambda old: -old),
    "rows past the data": with_array("rows", lambda old: old + 1000),
    "negative rows": with_array("rows", lambda old: old - 1000),
    "negative ids": with_array("tokens", lambda old: -old - 1),
    "ids past the vocabulary": with_array("tokens", lambda old: old + (1 << 30)),
    "groups past the prompts": with_array("group", lambda old: old + 1),
    "groups backwards": with_array("group", lambda old: old[::-1]),
    "finish reasons": with_array("finish", lambda old: old + 9),
    "complex numbers": with_array("logprobs", lambda old: old.astype(complex)),
}


@pytest.mark.parametrize("change", ARRAYS.values(), ids=ARRAYS)
def test_rollouts_npz_of_other_arrays(change, run, tmp_path):
    arrays = read_arrays(run / "checkpoints" / "step-1" / "trainer" / "rollouts.npz")
    with pytest.raises(grpo.GrpoError):
        resumed(changed(run, tmp_path, "rollouts.npz", npz(**change(arrays))), tmp_path)


def test_arrays_come_back_as_they_were_saved(tmp_path):
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b": np.asfortranarray(np.arange(6).reshape(2, 3)),
              "c": np.array(["x", "long"]), "d": np.float32(3), "e": np.zeros((0, 4), np.int8)}
    np.savez(tmp_path / "x.npz", **arrays)
    back = read_arrays(tmp_path / "x.npz")
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array)
        assert back[name].dtype == np.asarray(array).dtype and back[name].flags.writeable


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "outside", "absolute"])
def test_entries_of_a_manifest_that_are_no_files(kind, run, tmp_path):
    """Refused without waiting for a byte of them; and a manifest that is a pipe, likewise."""
    there = changed(run, tmp_path, "more", b"")
    (there / "trainer" / "more").unlink()
    manifest = json.loads((there / "MANIFEST.json").read_text())
    entry = manifest["files"].pop("trainer/more")
    name = {"outside": "../../x", "absolute": str(tmp_path / "x")}.get(kind, "trainer/more")
    (tmp_path / "x").write_bytes(b"")
    (there / "MANIFEST.json").write_text(json.dumps({**manifest, "files": {**manifest["files"], name: entry}}))
    if kind == "pipe":
        os.mkfifo(there / name)
    elif kind == "device":
        (there / name).symlink_to("/dev/zero")
    elif kind == "folder":
        (there / name).mkdir()
    with pytest.raises(grpo.CheckpointCorruptError, match="more|outside|x"):
        checkpoint.verify(there)
    (there / "MANIFEST.json").unlink()
    os.mkfifo(there / "MANIFEST.json")
    with pytest.raises(grpo.CheckpointCorruptError, match="MANIFEST"):
        checkpoint.verify(there)


# Options, YAML and rows.


OPTIONS = [
    *({name: value} for name in ("num_train_epochs", "max_steps", "save_steps", "logging_steps", "eval_steps",
                                 "learning_rate", "weight_decay", "adam_epsilon", "temperature", "warmup_steps",
                                 "beta", "epsilon", "on_reward_error")
      for value in (float("inf"), float("nan"), "inf", "nan")),
    *({name: value} for name in ("token_budget", "max_steps", "prompts_per_step", "num_generations", "num_iterations",
                                 "max_completion_length", "max_prompt_length", "gradient_accumulation_steps", "slots",
                                 "per_device_train_batch_size", "save_total_limit", "generation_batch_size",
                                 "ref_model_sync_steps", "max_resample_times", "num_completions_to_print")
      for value in (1 << 40, 10**30, 10**5000)),
    {"num_train_epochs": 1e12}, {"prompts_per_step": 1 << 20, "num_generations": 1 << 20},
    {"per_device_train_batch_size": 1 << 20, "gradient_accumulation_steps": 1 << 20, "num_generations": 1 << 20},
    *({"generation_kwargs": options} for options in (
        {"stop": 5}, {"stop": ["a", 5]}, {"stop": ""}, {"stop": "\ud800"}, {"stop_strings": [b"a"]},
        {"temperature": -1}, {"temperature": float("inf")}, {"temperature": "hot"}, {"temperature": None},
        {"top_k": 1.5}, {"top_k": -2}, {"top_k": 1 << 40}, {"top_p": 0}, {"top_p": 2}, {"min_p": -0.1}, {"min_p": "x"},
        {"repetition_penalty": 0}, {"min_new_tokens": -1}, {"min_new_tokens": 1 << 40}, {"min_new_tokens": 10**9},
        {"suppress_tokens": 5}, {"suppress_tokens": ["a"]}, {"suppress_tokens": [-1]}, {"suppress_tokens": [1 << 40]},
        {"forbidden_ids": [[1]]}, {5: 5}, {"nothing": 1})),
    *({name: {"a": value}} for name in ("chat_template_kwargs", "model_init_kwargs", "lr_scheduler_kwargs")
      for value in ("\ud800", 10**5000, object(), print, {1, 2})),
    {"chat_template_kwargs": {"a": json.loads("[" * 100 + "]" * 100)}}, {"run_name": "\ud800"},
    {"output_dir": "\ud800"}, {"reward_weights": [float("inf")]}, {"reward_weights": ["\ud800"]},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: f"{list(options)[0]}"[:40])
def test_options_are_refused_where_they_are_given(options):
    with pytest.raises(grpo.ConfigError) as caught:
        grpo.GRPOConfig(**options)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("given, plain", [
    ({"generation_kwargs": {"top_p": np.float64(0.9)}}, {"top_p": 0.9}),
    ({"chat_template_kwargs": {"ids": np.arange(2), "n": np.int64(3), "t": (1, "é"), "deep": {"a": [None, True]}}},
     {"ids": [0, 1], "n": 3, "t": [1, "é"], "deep": {"a": [None, True]}}),
    ({"chat_template_kwargs": {"date_string": datetime.date(2026, 1, 2)}}, {"date_string": "2026-01-02"}),
])
def test_free_values_become_plain_ones(given, plain, tmp_path):
    (name,) = given
    config = grpo.GRPOConfig(**given)
    assert getattr(config, name) == plain
    config.to_yaml(tmp_path / "x.yaml")
    assert getattr(grpo.GRPOConfig.from_yaml(tmp_path / "x.yaml"), name) == plain
    json.dumps(plain)


def doubled(times):
    """A mapping of a few lines that stands for 9^times values."""
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, times)]
    return "\n".join(lines).encode()


YAML = {
    "deep lists": b"a: " + b"[" * 50_000, "deep mappings": b"{a: " * 20_000, "deep blocks": b"- " * 20_000,
    "doubled by names": doubled(12), "itself": b"a: &a [*a]", "a number of 5000 digits": b"max_steps: " + b"9" * 5000,
    "no date": b"max_steps: 2026-13-45", "a tag without a value": b"a: !!timestamp x",
    "an int that is none": b"a: !!int x",
    "an object": b"a: !!python/object:os.system {}", "a set": b"chat_template_kwargs: !!set {a, b}",
    "bytes": b"run_name: !!binary aGk=", "not UTF-8": b"run_name: \xff", "NUL": b"a: \0",
    "a list": b"[1]", "empty": b"",
    "half a surrogate pair": b'run_name: "\\ud800"', "a key that is a list": b"? [a]\n: b",
    "keys that are numbers": b"5: 5",
    "tabs": b"a:\n\t- b", "too long": b"#" * (5 << 20), "infinite steps": b"num_train_epochs: .inf",
    "a stop that is a number": b"generation_kwargs: {stop: 5}",
}


@pytest.mark.parametrize("data", YAML.values(), ids=YAML)
def test_yaml(data, tmp_path):
    from grpo.recipes import Recipe

    path = tmp_path / "x.yaml"
    path.write_bytes(data)
    for read in (grpo.GRPOConfig.from_yaml, lambda name: Recipe.read(name).config()):
        with pytest.raises(grpo.ConfigError) as caught:
            read(str(path))
        assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("line", ["model: {5: 5}", "dataset_kwargs: {5: 5}", "rewards: 5", "eval_funcs: true",
                                  "scale_rewards: [1]", 'resume_from_checkpoint: "\\0"', "rewards: ../.."])
def test_entries_of_a_recipe_of_another_kind(line, tmp_path):
    from grpo.recipes import Recipe, prepare

    (tmp_path / "x.yaml").write_text(f"base: quickstart\n{line}\n")
    with pytest.raises(grpo.ConfigError):
        prepare(Recipe.read(str(tmp_path / "x.yaml")))


@pytest.mark.parametrize("kind", ["folder", "pipe", "device"])
def test_yaml_that_is_no_file(kind, tmp_path):
    path = tmp_path / "x.yaml"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path = "/dev/zero"
    with pytest.raises(grpo.ConfigError, match="file"):
        grpo.GRPOConfig.from_yaml(path)


UNWRITABLE = {
    "answer": {"answer": "\ud800"}, "number": {"answer": 10**5000}, "deep": {"info": {"a": ["b", ("\udfff",)]}},
    "key": {"info": {"\ud800": 1}}, "numbers": {"ids": [1] * 100 + [-10**5000]}, "prompt": {"prompt": "\ud800"},
    "chat": {"prompt": [{"role": "user", "content": "\ud800"}]},
}


@pytest.mark.parametrize("row", UNWRITABLE.values(), ids=UNWRITABLE)
@pytest.mark.parametrize("place", ["train_dataset", "eval_dataset"])
def test_rows_that_cannot_be_written_are_found_when_a_run_starts(row, place, tmp_path):
    rows = [{"prompt": "a"}, {"prompt": "b", **row}]
    train, held_out = (rows, None) if place == "train_dataset" else ([{"prompt": "c"}], rows)
    with pytest.raises(grpo.DatasetError, match=f"{place}: row 1"):
        toy.trainer(tmp_path, rows=train, eval_dataset=held_out)


def test_what_rewards_log_is_written_escaped(tmp_path):
    from fractions import Fraction

    def reward(completions, log_extra, **columns):
        log_extra("text", ["\ud800é"] * len(completions))
        log_extra("number", [10**5000] * len(completions))
        log_extra("ratio", [Fraction(10**5000, 3)] * len(completions))
        return [float(i) for i in range(len(completions))]

    trainer = toy.trainer(tmp_path, reward, max_steps=2)
    trainer.train()
    (path, *_) = sorted((trainer.run.path / "completions").glob("*.jsonl"))
    record = json.loads(path.read_text(encoding="utf-8").splitlines()[0])
    assert (record["text"], record["number"], record["ratio"]) == ("\ud800é", hex(10**5000), "<Fraction>")


def test_a_stop_that_is_no_text_is_refused_by_the_model():
    model = grpo.load(grpo.tiny("llama", **SMALL), device="ref")
    with pytest.raises(grpo.ConfigError, match="stop"):
        model.generate("a", stop="\ud800")
