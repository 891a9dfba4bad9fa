"""Files of torch.save, made opcode by opcode: what is read from them, and that nothing in them is ever run. torch's own
files: tests/oracle/test_oracle_convert.py."""
import io
import json
import os
import pickle
import subprocess
import sys
import tracemalloc
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest

import grpo
from grpo import cli
from grpo.errors import CheckpointError, ConfigError, FileFormatError, GrpoError
from grpo.model.convert import convert
from grpo.model.formats import torch_file, torch_pickle
from grpo.model.formats.safetensors import SafetensorsFile, SafetensorsFolder
from grpo.model.formats.torch_file import TorchFile
from make_pickles import (
    DICT,
    many,
    name,
    number,
    parameter,
    pickled,
    storage,
    tensor,
    text,
    torch_legacy,
    torch_zip,
)

KINDS = {"Float": ("<f4", "F32"), "Double": ("<f8", "F64"), "Half": ("<f2", "F16"), "BFloat16": ("<u2", "BF16"),
         "Long": ("<i8", "I64"), "Int": ("<i4", "I32"), "Short": ("<i2", "I16"), "Char": ("i1", "I8"),
         "Byte": ("u1", "U8"), "Bool": ("u1", "BOOL")}
ONES = np.ones(6, "<f4")
ONE = {"0": ONES.tobytes()}


def write(path, data):
    path.write_bytes(data)
    return path


def read_all(path):
    """The tensors of a file, by name."""
    file = TorchFile(path)
    try:
        return {entry: file.read(entry) for entry in file.entries}
    finally:
        file.close()


def raw(path):
    """(dtype, shape, bytes) of each tensor of a safetensors file, and that transformers' library reads it."""
    data, file = path.read_bytes(), SafetensorsFile(path)
    file.close()
    return {key: (e.dtype, e.shape, data[e.begin:e.end]) for key, e in file.entries.items()}


def containers(pickle, data, kind="Float"):
    """Both kinds of file of a state dict with one storage "0"."""
    width = np.dtype(KINDS[kind][0]).itemsize
    return {"zip": torch_zip(pickle, {"0": data}), "legacy": torch_legacy(pickle, {"0": (len(data) // width, data)})}


# what is read


@pytest.mark.parametrize("container", ["zip", "legacy"])
@pytest.mark.parametrize("kind", KINDS)
def test_types(tmp_path, kind, container):
    dtype, known_as = KINDS[kind]
    data = np.random.default_rng(0).integers(0, 255, 6 * np.dtype(dtype).itemsize).astype("u1").tobytes()
    file = containers(pickled({"a.weight": tensor(kind, "0", 6, [2, 3])}), data, kind)[container]
    convert(write(tmp_path / "x.pt", file), tmp_path / "out")
    assert raw(tmp_path / "out" / "model.safetensors") == {"a.weight": (known_as, (2, 3), data)}


@pytest.mark.parametrize("container", ["zip", "legacy"])
def test_views(tmp_path, container):
    numbers = np.arange(24, dtype="<f4")
    entries = {"whole": tensor("Float", "0", 24, [4, 6]), "turned": tensor("Float", "0", 24, [6, 4], [1, 6]),
               "part": tensor("Float", "0", 24, [2, 3], [6, 2], offset=7),
               "one": tensor("Float", "0", 24, [], offset=5),
               "none": tensor("Float", "0", 24, [3, 0]), "tied": tensor("Float", "0", 24, [4, 6]),
               "parameter": parameter(tensor("Float", "0", 24, [24]))}
    path = write(tmp_path / "x.bin", containers(pickled(entries), numbers.tobytes())[container])
    whole = numbers.reshape(4, 6)
    want = {"whole": whole, "turned": whole.T, "part": numbers[7:].reshape(-1)[[0, 2, 4, 6, 8, 10]].reshape(2, 3),
            "one": numbers[5], "none": np.zeros((3, 0)), "tied": whole, "parameter": numbers}
    got = read_all(path)
    assert got.keys() == want.keys()
    for key, value in want.items():
        assert got[key].flags.c_contiguous and got[key].shape == value.shape, key
        np.testing.assert_array_equal(got[key], value, err_msg=key)
    file = TorchFile(path)
    file.close()
    assert file.shared() == {"tied": "whole"}
    convert(path, tmp_path / "out")
    assert raw(tmp_path / "out" / "model.safetensors") == {key: ("F32", value.shape, value.astype("<f4").tobytes())
                                                           for key, value in want.items()}


def test_what_is_no_tensor_is_left_out_and_said(tmp_path):
    entries = {"w": tensor("Float", "0", 6, [6]), "epoch": number(3), "names": b"](" + text("a") + b"e",
               "none": b"N", "more": b"}"}
    metadata = b"}" + text("_metadata") + DICT + text("") + b"}" + text("version") + number(1) + b"sssb"
    file = TorchFile(write(tmp_path / "x.pt", torch_zip(pickled(entries, metadata), ONE)))
    file.close()
    assert list(file.entries) == ["w"]
    assert file.left_out == {"epoch": "int", "names": "list", "none": "NoneType", "more": "dict"}


def test_a_state_dict_in_a_dict(tmp_path):
    state = DICT + b"(" + text("w") + tensor("Float", "0", 6, [2, 3]) + b"u"
    file = TorchFile(write(tmp_path / "x.pt", torch_zip(pickled({"state_dict": state, "step": number(7)}), ONE)))
    file.close()
    assert file.inside == "state_dict" and list(file.entries) == ["w"] and file.left_out == {"step": "int"}


def test_newer_pickles(tmp_path):
    """Protocol 4: frames, MEMOIZE, short texts, names from the stack."""
    def short(s):
        return b"\x8c" + bytes([len(s)]) + s.encode() + b"\x94"

    numel = b"K\x06"
    stored = b"(" + short("storage") + short("torch") + short("FloatStorage") + b"\x93\x94" + short("0") + short("cpu")
    value = (short("torch._utils") + short("_rebuild_tensor_v2") + b"\x93\x94(" + stored + numel
             + b"tQK\x00K\x02K\x03\x86K\x03K\x01\x86\x89" + short("collections") + short("OrderedDict") + b"\x93)RtR")
    body = b"}\x94" + short("w") + value + b"s."
    data = b"\x80\x04\x95" + len(body).to_bytes(8, "little") + body
    assert read_all(write(tmp_path / "x.pt", torch_zip(data, ONE)))["w"].shape == (2, 3)


# whole folders


@pytest.fixture
def shards(tmp_path):
    """A folder of two shards and what lies beside them."""
    source = tmp_path / "source"
    (source / "assets").mkdir(parents=True)
    for i in (1, 2):
        entries = {f"h.{i}.w": tensor("Float", "0", 6, [2, 3]), f"h.{i}.b": tensor("Half", "1", 2, [2])}
        write(source / f"pytorch_model-0000{i}-of-00002.bin",
              torch_zip(pickled(entries), {"0": (i * ONES).tobytes(), "1": b"\0\x3c" * 2}))
    index = {f"h.{i}.{part}": f"pytorch_model-0000{i}-of-00002.bin" for i in (1, 2) for part in "wb"}
    (source / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    for file in ("config.json", "qwen.tiktoken", "LICENSE", "modeling_qwen.py", "training_args.bin"):
        (source / file).write_text(file)
    return source


def change_index(source, **changes):
    path = source / "pytorch_model.bin.index.json"
    listed = json.loads(path.read_text())["weight_map"] | changes
    path.write_text(json.dumps({"weight_map": {key: file for key, file in listed.items() if file is not None}}))


def test_shards(shards, tmp_path, capsys):
    assert cli.main(["convert", str(shards), str(tmp_path / "out")]) == 0
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {
        "config.json", "qwen.tiktoken", "LICENSE", "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors", "model.safetensors.index.json"}
    assert (out / "config.json").read_text() == "config.json"
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert index["metadata"] == {"total_size": 56}
    assert index["weight_map"]["h.2.b"] == "model-00002-of-00002.safetensors"
    folder = SafetensorsFolder(out)
    np.testing.assert_array_equal(folder.read("h.2.w"), 2 * ONES.reshape(2, 3))
    np.testing.assert_array_equal(folder.read("h.1.b"), np.ones(2, np.float16))
    folder.close()
    said = capsys.readouterr().out
    assert "4 tensors, 56 B, are in" in said and "copied: LICENSE, config.json, qwen.tiktoken\n" in said
    assert "not copied: assets/, modeling_qwen.py, training_args.bin\n" in said


def test_lines_are_narrow(tmp_path, capsys, monkeypatch):
    """However much there is to say."""
    source = tmp_path / "source"
    source.mkdir()
    entries = {f"layers.{i}.weight": tensor("Float", "0", 6, [6]) for i in range(4)}
    entries |= {f"number_{i}": number(i) for i in range(60)}
    write(source / "pytorch_model.bin", torch_zip(pickled(entries), ONE))
    for i in range(30):
        (source / f"processor_{i}.json").touch()
        (source / f"module_{i}.py").touch()
    monkeypatch.chdir(tmp_path)
    assert cli.main(["convert", "source", "out"]) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80 and said.count("layers.") >= 6
    assert "number_19 (int) and 40 more" in " ".join(said.split()) and "module_29.py" in said


def test_a_converted_model_loads(tmp_path):
    model = grpo.load(grpo.tiny("llama", num_hidden_layers=1, hidden_size=32, num_attention_heads=2,
                                num_key_value_heads=1, intermediate_size=48), device="ref")
    model.save_pretrained(tmp_path / "good")
    folder = SafetensorsFolder(tmp_path / "good")
    arrays = {key: folder.read(key) for key in folder.shapes()}
    folder.close()
    entries = {key: tensor("Float", key, array.size, list(array.shape)) for key, array in arrays.items()}
    (tmp_path / "good" / "model.safetensors").unlink()
    write(tmp_path / "good" / "pytorch_model.bin",
          torch_zip(pickled(entries), {key: array.tobytes() for key, array in arrays.items()}))
    with pytest.raises(FileFormatError, match="grpo convert FOLDER NEW_FOLDER"):
        grpo.load(tmp_path / "good", device="ref")
    convert(tmp_path / "good", tmp_path / "new")
    loaded = grpo.load(tmp_path / "new", device="ref")
    for key, array in arrays.items():
        np.testing.assert_array_equal(loaded.core.get_tensor(key), array)


def test_one_storage_is_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_file, "PIECE", 1 << 18)
    count, n = 1 << 20, 8
    entries = {f"w{i}": tensor("Float", str(i), count, [count // 4, 4], [1, count // 4] if i % 2 else None)
               for i in range(n)}
    path = write(tmp_path / "x.bin", torch_zip(pickled(entries), {str(i): bytes(4 * count) for i in range(n)}))
    tracemalloc.start()
    try:
        convert(path, tmp_path / "out")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 4 * count < peak < 9 * 1.1 * count                # a storage, and one tensor put in order


# where it is written


@pytest.mark.parametrize("what, message", [("foreign", "holds notes.txt"), ("file", "is a file"),
                                           ("source", "holds ")])
def test_destinations_that_are_refused(shards, tmp_path, what, message):
    out = {"source": shards}.get(what, tmp_path / "out")
    if what == "foreign":
        out.mkdir()
        (out / "notes.txt").touch()
    elif what == "file":
        out.touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match=message):
        convert(shards, out)
    assert sorted(tmp_path.rglob("*")) == before


def test_converting_again(shards, tmp_path):
    """Over an earlier conversion, and over what one that was killed left."""
    out = tmp_path / "out"
    convert(shards, out)
    (out / ".model-00001-of-00002.safetensors.1.tmp").write_bytes(b"half")
    (out / "model-00001-of-00002.safetensors").unlink()
    first = {path.name for path in out.iterdir()}
    convert(shards, out)
    assert {path.name for path in out.iterdir()} == first - {".model-00001-of-00002.safetensors.1.tmp"} | {
        "model-00001-of-00002.safetensors"}


def test_no_room(shards, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=5))
    with pytest.raises(CheckpointError, match="5 are free"):
        convert(shards, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_broken_shard_leaves_nothing(shards, tmp_path):
    broken = shards / "pytorch_model-00002-of-00002.bin"
    broken.write_bytes(broken.read_bytes()[:-200])
    with pytest.raises(FileFormatError, match=r"pytorch_model-00002-of-00002\.bin"):
        convert(shards, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# folders that are refused


@pytest.mark.parametrize("changes, message", [
    ({"h.1.w": "../pytorch_model-00001-of-00002.bin"}, "is no file of weights beside it"),
    ({"h.1.w": "/etc/passwd"}, "'/etc/passwd' is no file of weights"),
    ({"h.1.w": "config.json"}, "'config.json' is no file of weights"),
    ({"h.1.w": "gone.bin"}, "'gone.bin' is no file of weights"),
    ({"h.1.w": 5}, "weight_map must map"),
    ({"h.1.w": "pytorch_model-00002-of-00002.bin"}, "tensor h.1.w is not of this file, the index says"),
    ({"h.1.x": "pytorch_model-00001-of-00002.bin"}, "tensor h.1.x is missing, the index says"),
    ({"h.1.w": None}, "tensor h.1.w is not of this file"),
])
def test_indices_that_are_refused(shards, tmp_path, changes, message):
    change_index(shards, **changes)
    with pytest.raises(FileFormatError) as caught:
        convert(shards, tmp_path / "out")
    assert message in str(caught.value) and str(shards) in str(caught.value)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_folders_that_are_refused(tmp_path, capsys):
    source = tmp_path / "source"
    source.mkdir()
    for files, message in [((), "has no weights in *.bin"), (("training_args.bin",), "has no weights"),
                           (("a.pt", "b.pt"), "several files of weights and no index: a.pt, b.pt"),
                           (("a.bin.index.json", "b.bin.index.json"), "several indices"),
                           (("model.safetensors",), "can be loaded as it is")]:
        for path in source.iterdir():
            path.unlink()
        for file in files:
            (source / file).touch()
        assert cli.main(["convert", str(source), str(tmp_path / "out")]) == 1
        assert message in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert cli.main(["convert", str(tmp_path / "nowhere"), str(tmp_path / "out")]) == 1
    assert "no such file or folder" in capsys.readouterr().err


# pickles that would run something


class Gadget:
    """What runs when it is unpickled."""

    def __init__(self, function, *arguments):
        self.made = function, arguments

    def __reduce__(self):
        return self.made


def call(module, attribute, *arguments):
    return name(module, attribute) + many(map(text, arguments)) + b"R"


def nested(depth):
    return b")" + b"\x85" * depth


GOOD = tensor("Float", "0", 6, [6])
HOSTILE = {
    "os.system": (call("os", "system", "touch hit"), "names 'os.system'"),
    "posix.system": (call("posix", "system", "touch hit"), "names 'posix.system'"),
    "eval": (call("builtins", "eval", "open('hit', 'w')"), "names 'builtins.eval'"),
    "old eval": (call("__builtin__", "eval", "open('hit', 'w')"), "names '__builtin__.eval'"),
    "getattr": (call("builtins", "getattr", "a", "b"), "names 'builtins.getattr'"),
    "open": (call("io", "open", "hit", "w"), "names 'io.open'"),
    "pickles in storages": (call("torch.storage", "_load_from_bytes", "x"), "names 'torch.storage._load_from_bytes'"),
    "torch.load": (call("torch", "load", "hit"), "names 'torch.load'"),
    "torch hub": (call("torch.hub", "load", "hit"), "names 'torch.hub.load'"),
    "a dotted name": (call("torch", "_utils._rebuild_tensor_v2"), "names 'torch._utils._rebuild_tensor_v2'"),
    "other storages": (storage("Quantized", "0", 6), "names 'torch.QuantizedStorage'"),
    "storages elsewhere": (storage("Float", "0", 6, where=("torch.cuda", "Storage")),
                           "names 'torch.cuda.FloatStorage'"),
    "names from the stack": (text("os") + text("system") + b"\x93" + many([text("touch hit")]) + b"R",
                             "names 'os.system'"),
    "names that are numbers": (number(1) + number(2) + b"\x93", "a name is not text"),
    "a class": (b"(" + text("touch hit") + b"ios\nsystem\n", "opcode INST"),
    "an object": (b"(" + name("collections", "OrderedDict") + b"o", "opcode OBJ"),
    "new objects": (name("collections", "OrderedDict") + b")\x81", "opcode NEWOBJ"),
    "extensions": (b"\x82\x01", "opcode EXT1"),
    "buffers": (b"\x97", "opcode NEXT_BUFFER"),
    "a call of a storage": (name("torch", "FloatStorage") + b")R", "made of"),
    "a call of text": (text("os.system") + b")R", "made of"),
    "a call of a call": (name("torch._utils", "_rebuild_parameter") + many([GOOD, b"\x88", DICT]) + b"R)R", "made of"),
    "a parameter of no tensor": (parameter(text("x")), "made of"),
    "a tensor of no storage": (name("torch._utils", "_rebuild_tensor_v2") + many([text("0")] * 6) + b"R", "made of"),
    "arguments of a dict": (name("collections", "OrderedDict") + many([text("x")]) + b"R", "made of"),
    "attributes of a tensor": (GOOD + b"}" + text("__class__") + text("x") + b"sb", "sets attributes of a Tensor"),
    "attributes of a name": (name("torch", "FloatStorage") + b"}b", "sets attributes of a Name"),
    "a persistent id of text": (text("os") + b"Q", "refers to what is no storage"),
    "a persistent id of a module": (many([text("module"), text("os"), text("")]) + b"Q",
                                    "refers to what is no storage"),
    "a storage's length": (storage("Float", "0", -1), "refers to what is no storage"),
    "a storage of a function": (many([text("storage"), name("torch._utils", "_rebuild_tensor_v2"), text("0"),
                                      text("cpu"), number(6)]) + b"Q", "a storage of kind"),
    "a storage's view": (storage("Float", "0", 6, more=many([text("1"), number(0), number(6)])),
                         "refers to what is no storage"),
    "deep keys": (b"}" + nested(200_000) + b"Ns", "a key of a dict is a tuple"),
    "a set of a list": (b"]" + text("a") + b"Ns", "sets items of what is no dict"),
    "an append to a dict": (b"}Na", "appends to what is no list"),
    "half an item": (b"}(" + text("a") + b"u", "sets items of what is no dict"),
    "nothing there": (b"h\x07", "damaged"),
    "a far memo": (b"r\xff\xff\xff\x7fj\xfe\xff\xff\x7f", "damaged"),
    "no mark": (b"t", "damaged"),
    "an empty stack": (b"00", "opcode POP"),
    "a tuple of nothing": (b"}s", "damaged"),
    "a long text": (b"\x8d" + b"\xff" * 7 + b"\x7f", "damaged"),
    "a long number": (b"\x8b\xff\xff\xff\x7f", "damaged"),
    "bad utf-8": (b"X\x01\0\0\0\xff", "damaged"),
    "no such opcode": (b"\xfe", "damaged"),
    "no end": (b"", None),
}


@pytest.mark.parametrize("container", ["zip", "legacy"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_nothing_is_run(tmp_path, monkeypatch, kind, container):
    """A state dict that is fine, but for one value."""
    monkeypatch.chdir(tmp_path)
    value, message = HOSTILE[kind]
    data = pickled({"w": GOOD, "x": value or b"N"})
    data = data[:-1] if kind == "no end" else data
    file = containers(data, ONES.tobytes())[container]
    if kind == "no end" and container == "legacy":
        message = None                                    # it goes on in the next pickle
    with pytest.raises(GrpoError) as caught:
        convert(write(tmp_path / "x.pt", file), tmp_path / "out")
    assert str(tmp_path / "x.pt") in str(caught.value) and (message or "") in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert not (tmp_path / "hit").exists() and not (tmp_path / "out" / "model.safetensors").exists()


@pytest.mark.parametrize("kind", ["os.system", "eval", "names from the stack", "a class"])
def test_the_gadgets_work(tmp_path, kind):
    """Where they are unpickled: what was refused would have run."""
    data = b"\x80\x04" + HOSTILE[kind][0] + b"."
    program = f"import pickle, os; pickle.loads({data!r})"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)
    assert (tmp_path / "hit").exists()


@pytest.mark.parametrize("protocol", range(6))
def test_gadgets_of_pickle(tmp_path, protocol):
    """What Python's own pickle makes of objects that run a command, at the end of a state dict and alone."""
    hit = tmp_path / "hit"
    for function, arguments in [(os.system, (f"touch {hit}",)), (eval, (f"open({str(hit)!r}, 'w')",)),
                                (subprocess.run, (["touch", str(hit)],)), (open, (str(hit), "w"))]:
        for made in (Gadget(function, *arguments), {"w": Gadget(function, *arguments)}):
            data = pickle.dumps(made, protocol)
            for file in (torch_zip(data, ONE), torch_legacy(data, {}), data):
                with pytest.raises(GrpoError, match=r"x\.bin"):
                    convert(write(tmp_path / "x.bin", file), tmp_path / "out")
                with pytest.raises(GrpoError):
                    grpo.load(tmp_path / "x.bin", device="ref")
    assert not hit.exists()


def test_python_imports_nothing_for_a_pickle(tmp_path):
    """No module is loaded for a name, and the unpickler of Python is not used."""
    path = write(tmp_path / "x.pt", torch_zip(pickled({"w": GOOD, "x": call("this_module", "f")}), ONE))
    program = ("import sys, pickle, _pickle\n"
               "def stop(*a, **k): raise SystemExit('unpickled')\n"
               "pickle.load = pickle.loads = pickle.Unpickler = pickle._Unpickler = _pickle.Unpickler = stop\n"
               "from grpo.model.convert import convert\nfrom grpo.errors import GrpoError\nfrom pathlib import Path\n"
               "try: convert(Path(sys.argv[1]), Path(sys.argv[2]))\n"
               "except GrpoError as error: print(error)\n"
               "print(sorted({'torch', 'this_module'} & sys.modules.keys()))")
    done = subprocess.run([sys.executable, "-c", program, str(path), str(tmp_path / "out")], capture_output=True,
                          text=True, check=True, cwd=os.path.dirname(os.path.dirname(grpo.__file__)))
    assert "this_module.f" in done.stdout and done.stdout.endswith("[]\n")


def test_too_many_opcodes(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_pickle, "MAX_OPCODES", 1000)
    path = write(tmp_path / "x.pt", torch_zip(pickled({"w": GOOD, "x": b"](" + b"N" * 1000 + b"e"}), ONE))
    with pytest.raises(FileFormatError, match="more than 1000 opcodes"):
        TorchFile(path)


# tensors that do not lie in their file


@pytest.mark.parametrize("value, message", [
    (tensor("Float", "0", 6, [7]), "ends at element 6, its storage has 6"),
    (tensor("Float", "0", 6, [6], offset=1), "ends at element 6"),
    (tensor("Float", "0", 6, [2, 3], [4, 1]), "ends at element 6"),
    (tensor("Float", "0", 6, [1 << 62, 1 << 62], [0, 0]), "repeats elements"),
    (tensor("Float", "0", 6, [1000, 1000], [0, 0]), "repeats elements"),
    (tensor("Float", "0", 6, [2], [1 << 62]), "ends at element"),
    (tensor("Float", "0", 6, [2], [-1]), "is no count"),
    (tensor("Float", "0", 6, [2], offset=-1), "is no count"),
    (tensor("Float", "0", 6, [-2]), "is no count"),
    (tensor("Float", "0", 6, [1 << 63]), "is no count"),
    (tensor("Float", "0", 6, [2, 3], [1]), "each with a stride"),
    (tensor("Float", "0", 6, [1] * 9), "at most 8 dimensions"),
    (tensor("Float", "0", 5, [5]), "has 24 bytes, not 20"),
    (tensor("Float", "0", 1 << 60, [5]), "has 24 bytes, not"),
    (tensor("Double", "0", 6, [6]), "has 24 bytes, not 48"),
    (tensor("Float", "1", 6, [6]), "storage '1' is not in the file"),
    (tensor("Float", "../../data", 6, [6]), "is not in the file"),
    (tensor("Float", "0", 6, [6], function="_rebuild_sparse_tensor"), "names"),
])
def test_tensors_that_are_refused(tmp_path, value, message):
    path = write(tmp_path / "x.pt", torch_zip(pickled({"bad.w": value}), ONE))
    with pytest.raises(GrpoError) as caught:
        convert(path, tmp_path / "out")
    assert message in str(caught.value) and str(path) in str(caught.value)
    assert "bad.w" in str(caught.value) or "damaged" in str(caught.value) or "names" in str(caught.value)


@pytest.mark.parametrize("entries, message", [
    ({"a": GOOD, "b": tensor("Int", "0", 6, [6])}, "different types or lengths"),
    ({"a": GOOD, "b": tensor("Float", "0", 3, [3])}, "different types or lengths"),
    ({f"w{i}": GOOD for i in range(17)}, "more than 16 times the 24"),
    *(({key: GOOD}, "a name has 1 to") for key in ("", "x" * 2000, "__metadata__")),
    ({"a": number(1)}, "is no dict of tensors, nor holds just one; it has 'a' (int)"), ({}, "it has nothing"),
    ({"a": b"}" + text("w") + GOOD + b"s", "b": b"}" + text("w") + GOOD + b"s"}, "nor holds just one"),
], ids=range(9))
def test_state_dicts_that_are_refused(tmp_path, entries, message):
    with pytest.raises(GrpoError) as caught:
        convert(write(tmp_path / "x.pt", torch_zip(pickled(entries), ONE)), tmp_path / "out")
    assert message in str(caught.value) and len(str(caught.value)) < 1000


def test_a_list_is_no_state_dict(tmp_path):
    with pytest.raises(GrpoError, match="holds a list, not a dict of tensors"):
        TorchFile(write(tmp_path / "x.pt", torch_zip(b"\x80\x02].", ONE)))


def test_names_that_are_numbers(tmp_path):
    with pytest.raises(GrpoError, match="its name is no text"):
        TorchFile(write(tmp_path / "x.pt", torch_zip(b"\x80\x02}" + number(3) + GOOD + b"s.", ONE)))


# archives


PICKLE = pickled({"w": GOOD})


def flagged(data):
    """The archive with the flag of encryption in its directory."""
    at = data.rindex(b"PK\x01\x02")
    return data[:at + 8] + b"\x01" + data[at + 9:]


@pytest.mark.parametrize("data, message", [
    (torch_zip(PICKLE, ONE, compression=zipfile.ZIP_DEFLATED), "is compressed"),
    (flagged(torch_zip(PICKLE, ONE)), "encrypted"),
    (torch_zip(PICKLE, ONE, order=b"big"), "endian"),
    (torch_zip(PICKLE, ONE, more=[("archive/constants.pkl", b"")]), "TorchScript"),
    (torch_zip(PICKLE, ONE, more=[("other/data.pkl", b"")]), "has no one FOLDER/data.pkl"),
    (torch_zip(PICKLE, ONE, folder="a/b"), "has no one FOLDER/data.pkl"),
    (torch_zip(PICKLE, {}), "is not in the file"),
    (torch_zip(PICKLE, {"0": ONES.tobytes()[:-1]}), "has 23 bytes, not 24"),
    (torch_zip(PICKLE, {"0": ONES.tobytes() + b"\0"}), "has 25 bytes, not 24"),
    (torch_zip(PICKLE, ONE).replace(ONES.tobytes(), b"\1" * 24), "Bad CRC-32"),
    (b"PK\x05\x06" + bytes(18), "neither a zip archive"),
    (b"PK\x03\x04", "not a whole zip archive"),
    (b"", "neither a zip archive"),
    (PICKLE, "neither a zip archive"),
    (b"\x93NUMPY\x01\x00", "neither a zip archive"),
], ids=range(15))
def test_archives_that_are_refused(tmp_path, data, message):
    path = write(tmp_path / "x.pt", data)
    with pytest.raises(GrpoError) as caught:
        convert(path, tmp_path / "out")
    assert message in str(caught.value) and str(path) in str(caught.value)


def test_a_name_twice_in_an_archive(tmp_path):
    with pytest.warns(UserWarning):
        data = torch_zip(PICKLE, ONE, more=[("archive/data/0", b"")])
    with pytest.raises(FileFormatError, match="stands twice"):
        TorchFile(write(tmp_path / "x.pt", data))


def test_a_bomb_of_overlapping_entries(tmp_path):
    """Names in the directory that all say they are the same megabyte."""
    data = torch_zip(PICKLE, {"0": bytes(1 << 20)})
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        info, start = archive.getinfo("archive/data/0"), archive.start_dir
    file = io.BytesIO(data[:start])
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("archive/data.pkl", PICKLE)
        for i in range(100):
            other = zipfile.ZipInfo(f"archive/data/{i}")
            other.file_size = other.compress_size = info.file_size
            other.header_offset, other.CRC = info.header_offset, info.CRC
            archive.filelist.append(other)
            archive.NameToInfo[other.filename] = other
    with pytest.raises(FileFormatError, match="would take 1048|not a whole zip archive"):
        TorchFile(write(tmp_path / "x.pt", file.getvalue()))


def test_a_directory_that_is_the_whole_file(tmp_path, monkeypatch):
    """No more is read at once than the limit, whatever the archive's end says of its directory."""
    monkeypatch.setattr(torch_file, "MAX_PICKLE", 1 << 17)
    end = b"PK\x05\x06" + bytes(4) + (1).to_bytes(2, "little") * 2 + (1 << 20).to_bytes(4, "little") + bytes(4 + 2)
    with pytest.raises(FileFormatError, match="in one piece are over the limit"):
        TorchFile(write(tmp_path / "x.pt", b"PK\x03\x04" + bytes((1 << 20) - 4) + end))


@pytest.mark.parametrize("container", ["zip", "legacy"])
def test_files_cut_short(tmp_path, container):
    data = containers(PICKLE, ONES.tobytes())[container]
    for end in range(0, len(data), 7):
        path = write(tmp_path / "x.pt", data[:end])
        with pytest.raises(FileFormatError, match=r"x\.pt"):
            convert(path, tmp_path / "out")


@pytest.mark.parametrize("container", ["zip", "legacy"])
def test_one_bit_anywhere(tmp_path, container):
    """Refused with a typed error, or still tensors of the right size; never anything else."""
    data, rng = containers(PICKLE, ONES.tobytes())[container], np.random.default_rng(0)
    refused = 0
    for at in range(len(data)):
        flipped = bytearray(data)
        flipped[at] ^= 1 << rng.integers(8)
        try:
            read_all(write(tmp_path / "x.pt", bytes(flipped)))
        except GrpoError as error:
            assert str(tmp_path) in str(error)
            refused += 1
    assert refused > len(data) // 3


# the older files


@pytest.mark.parametrize("data, message", [
    (torch_legacy(PICKLE, {"0": (5, ONES.tobytes()[:20])}), "has 20 bytes, not 24"),
    (torch_legacy(PICKLE, {"0": (1 << 61, ONES.tobytes())}), "ends inside storage"),
    (torch_legacy(PICKLE, {"0": (-1, ONES.tobytes())}), "ends inside storage"),
    (torch_legacy(PICKLE, {"0": (6, ONES.tobytes() + b"\0")}), "1 bytes follow"),
    (torch_legacy(PICKLE, {"0": (6, ONES.tobytes()), "1": (0, b"")}), "no tensor says of what type storage '1' is"),
    (torch_legacy(PICKLE, {}), "is not in the file"),
    (torch_legacy(PICKLE, {"0": (6, ONES.tobytes())}, keys=["0", "0"]), "different texts"),
    (torch_legacy(PICKLE, {"0": (6, ONES.tobytes())}, version=1), "another version"),
    (torch_legacy(PICKLE, {"0": (6, ONES.tobytes())}, little=b"\x89"), "not little-endian"),
    (torch_legacy(b"\x80\x02N.", {}), "holds a NoneType"),
], ids=range(10))
def test_older_files_that_are_refused(tmp_path, data, message):
    path = write(tmp_path / "x.pt", data)
    with pytest.raises(GrpoError) as caught:
        convert(path, tmp_path / "out")
    assert message in str(caught.value) and str(path) in str(caught.value)
