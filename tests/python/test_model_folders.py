"""What people give as a model that is none, or not yet one: pointers, pages, adapters, folders of .gguf files."""

import json
import warnings

import numpy as np
import pytest

import grpo
from grpo.errors import FileFormatError, GrpoWarning, UnsupportedModelError
from grpo.model.convert import convert
from grpo.model.formats.torch_file import TorchFile
from grpo.planning.memory import model_config
from make_files import byte_level_metadata, gguf, gguf_shards, gguf_tensors, model_metadata

SMALL = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 4,
         "num_key_value_heads": 2}
POINTER = (b"version https://git-lfs.github.com/spec/v1\n"
           b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 988097824\n")
PAGE = b"\n<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>"
ADAPTER = {"peft_type": "LORA", "base_model_name_or_path": "Qwen/Qwen2.5-0.5B", "r": 8}


@pytest.fixture(scope="module")
def model():
    return grpo.load(grpo.tiny("llama", **SMALL), device="ref")


def gguf_bytes(model):
    metadata = {**model_metadata(model.config), **byte_level_metadata()}
    return gguf(metadata, gguf_tensors(model.state_dict(), model.config))


def same(model, other):
    a, b = model.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json", "generation_config.json",
                                  "model.safetensors.index.json", "tokenizer_config.json"])
@pytest.mark.parametrize("stand_in, said", [(POINTER, "Git LFS pointer"), (PAGE, "web page"),
                                            (b"/annex/objects/MD5E-s1--0.safetensors\n", "git-annex pointer")])
def test_stand_ins_in_a_folder(model, name, stand_in, said, tmp_path):
    model.save_pretrained(tmp_path)
    if "index" in name:
        (tmp_path / "model.safetensors").unlink()
    (tmp_path / name).write_bytes(stand_in)
    with pytest.raises(FileFormatError, match=said) as caught:
        grpo.load(tmp_path, device="ref")
    assert str(tmp_path / name) in str(caught.value) and "download" in str(caught.value)


@pytest.mark.parametrize("stand_in, said", [(POINTER, "git lfs pull"), (PAGE, "web page"), (POINTER[:60], "Git LFS")])
def test_other_stand_ins(stand_in, said, tmp_path):
    (tmp_path / "model.gguf").write_bytes(stand_in)
    with pytest.raises(FileFormatError, match=said):
        grpo.load(tmp_path / "model.gguf", device="ref")
    (tmp_path / "pytorch_model.bin").write_bytes(stand_in)
    with pytest.raises(FileFormatError, match=said):
        TorchFile(tmp_path / "pytorch_model.bin")


def test_a_short_file_is_no_pointer(model, tmp_path):
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"version")
    with pytest.raises(FileFormatError, match="7 bytes are too few"):
        grpo.load(tmp_path, device="ref")


@pytest.mark.parametrize("files", [
    {}, {"adapter_model.safetensors": b""}, {"adapter_model.bin": b"", "tokenizer.json": b"{}"},
    {"config.json": b"{}", "adapter_model.safetensors": b""}], ids=lambda files: "+".join(files) or "alone")
def test_an_adapter_says_what_it_is(files, tmp_path):
    for name, data in {**files, "adapter_config.json": json.dumps(ADAPTER).encode()}.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(FileFormatError) as caught:
        grpo.load(tmp_path, device="ref")
    assert all(text in str(caught.value) for text in
               (str(tmp_path), "PEFT adapter (LORA) for 'Qwen/Qwen2.5-0.5B'", "load the base", "merge_and_unload"))


def test_an_adapter_is_not_converted(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps(ADAPTER))
    (tmp_path / "adapter_model.bin").write_bytes(b"PK")
    with pytest.raises(FileFormatError, match="holds a PEFT adapter"):
        convert(tmp_path, tmp_path / "new")
    (tmp_path / "pytorch_model.bin").write_bytes(b"PK")
    with pytest.raises(FileFormatError, match="pytorch_model.bin"):
        convert(tmp_path, tmp_path / "new")


def test_an_adapter_without_words(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"peft_type": 3}')
    with pytest.raises(FileFormatError, match="holds a PEFT adapter, not a model"):
        grpo.load(tmp_path, device="ref")


def test_a_model_beside_an_adapter(model, tmp_path):
    model.save_pretrained(tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps(ADAPTER))
    with pytest.warns(GrpoWarning, match="without the adapter"):
        assert same(model, grpo.load(tmp_path, device="ref"))


@pytest.mark.parametrize("beside", [(), ("config.json", "tokenizer.json"), ("mmproj-model-f16.gguf",), ("README.md",)])
def test_the_one_gguf_of_a_folder(model, beside, tmp_path, capfd):
    (tmp_path / "m.gguf").write_bytes(gguf_bytes(model))
    for name in beside:
        (tmp_path / name).write_bytes(b"{}")
    assert same(model, grpo.load(tmp_path, device="ref"))
    assert f"{tmp_path}: reading m.gguf" in capfd.readouterr().err
    assert model_config(str(tmp_path))[1] == str(tmp_path / "m.gguf")


def test_a_folder_of_parts(model, tmp_path):
    metadata = {**model_metadata(model.config), **byte_level_metadata()}
    for name, data in gguf_shards(metadata, gguf_tensors(model.state_dict(), model.config), (4, 7)).items():
        (tmp_path / name).write_bytes(data)
    assert same(model, grpo.load(tmp_path, device="ref"))


def test_several_ggufs_are_named(model, tmp_path):
    for name in ("a-Q4_K_M.gguf", "a-Q8_0.gguf"):
        (tmp_path / name).write_bytes(gguf_bytes(model))
    with pytest.raises(FileFormatError, match=r"holds 2 .gguf files: a-Q4_K_M.gguf \(0.0 GB\), a-Q8_0.gguf .*one"):
        grpo.load(tmp_path, device="ref")


def test_a_folder_of_both_reads_the_safetensors(model, tmp_path):
    model.save_pretrained(tmp_path)
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same(model, grpo.load(tmp_path, device="ref"))


def test_a_gguf_beside_a_pickle(tmp_path):
    for name in ("m.gguf", "pytorch_model.bin", "config.json"):
        (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(FileFormatError, match=r"holds m.gguf and pytorch_model.bin: give the path .*`grpo convert"):
        grpo.load(tmp_path, device="ref")


@pytest.mark.filterwarnings("ignore:.*has no tokenizer:grpo.GrpoWarning")
@pytest.mark.parametrize("files, said", [
    ((), "has no config.json, nor a .gguf"),
    (("model.safetensors",), "has no config.json beside model.safetensors"),
    (("checkpoint-5/config.json", "checkpoint-9/config.json"), "folders that do: checkpoint-5, checkpoint-9"),
    (("config.json",), "has neither model.safetensors nor"),
    (("config.json", "consolidated.safetensors"), "; it has consolidated.safetensors"),
    (("config.json", "model-00001-of-00002.safetensors"), "model.safetensors.index.json is missing: download"),
])
def test_folders_that_lack_something(model, files, said, tmp_path):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(model.config) if name == "config.json" else "{}")
    with pytest.raises(FileFormatError, match=said) as caught:
        grpo.load(tmp_path, device="ref")
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("name, said", [
    ("model.safetensors", "give the folder that it lies in"), ("config.json", "give the folder that it lies in"),
    ("m.gguf-split-a", "join the pieces"), ("m.gguf.part1of3", "join the pieces"),
    ("pytorch_model.bin", "grpo convert"), ("model.pth", "grpo convert"), ("notes.txt", "a model is a folder"),
])
def test_files_that_are_no_model(name, said, tmp_path):
    (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(FileFormatError, match=said) as caught:
        grpo.load(tmp_path / name, device="ref")
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize("begin, said", [
    (b"GGUF\0\0\0\x03" + b"\0" * 40, "big-endian GGUF"), (b"GGUF\0\0\0\x02" + b"\0" * 40, "gguf_convert_endian"),
    (b"FUGG\0\0\0\x03" + b"\0" * 40, "big-endian GGUF"), (b"tjgg\x03\0\0\0" + b"\0" * 40, "GGJT, the format before"),
    (b"lmgg" + b"\0" * 40, "GGML, the format before"),
])
def test_other_formats_than_gguf_are_named(begin, said, tmp_path):
    (tmp_path / "m.gguf").write_bytes(begin)
    with pytest.raises(UnsupportedModelError, match=said):
        grpo.load(tmp_path / "m.gguf", device="ref")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "generation_config.json",
                                  "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json"])
def test_links_to_nothing_and_folders_in_place_of_files(model, name, tmp_path):
    model.save_pretrained(tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / name).symlink_to(tmp_path / "blobs" / "0a1b")
    with pytest.raises(FileFormatError, match="is a link to .*blobs/0a1b, which is not there: download") as caught:
        grpo.load(tmp_path, device="ref")
    assert str(caught.value).startswith(str(tmp_path / name))
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    with pytest.raises(FileFormatError, match="is a folder, where a file should be") as caught:
        grpo.load(tmp_path, device="ref")
    assert str(caught.value).startswith(str(tmp_path / name))


def test_an_index_and_its_shards(model, tmp_path):
    model.save_pretrained(tmp_path, max_shard_size="50KB")
    index = tmp_path / "model.safetensors.index.json"
    held = json.loads(index.read_text())
    shard = held["weight_map"].pop("model.norm.weight")
    index.write_text(json.dumps(held))
    with pytest.raises(FileFormatError, match=f"model.norm.weight lies in {shard}, and the index does not have it"):
        grpo.load(tmp_path, device="ref")
    (tmp_path / shard).unlink()
    (tmp_path / shard).symlink_to("blob")
    with pytest.raises(FileFormatError, match=f"{shard}: is a link to blob"):
        grpo.load(tmp_path, device="ref")


@pytest.mark.filterwarnings("ignore:.*has no tokenizer:grpo.GrpoWarning")
@pytest.mark.parametrize("config", [True, False])
def test_an_adapter_alone(model, config, tmp_path):
    (tmp_path / "adapter_model.safetensors").write_bytes(b"{}")
    if config:
        (tmp_path / "config.json").write_text(json.dumps(model.config))
    with pytest.raises(FileFormatError, match="has adapter_model.safetensors alone, which is a PEFT adapter"):
        grpo.load(tmp_path, device="ref")


@pytest.mark.parametrize("name", ["LlamaForSequenceClassification", "LlamaModel"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_class_without_a_head_of_text_is_said(name, tied, tmp_path):
    from safetensors.numpy import load_file, save_file

    grpo.load(grpo.tiny("llama", **SMALL), device="ref").save_pretrained(tmp_path, "float32")
    held = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**held, "architectures": [name], "tie_word_embeddings": tied}))
    if tied:
        with pytest.warns(GrpoWarning, match=f"architectures {name}, which is no language .*head is its"):
            grpo.load(tmp_path, device="ref")
        return
    with pytest.raises(FileFormatError, match=f"architectures {name}, which is no language model .*no lm_head.weight"):
        grpo.load(tmp_path, device="ref")
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"]}, tmp_path / "model.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert grpo.load(tmp_path, device="ref")


def test_a_wrapper_that_is_not_known_is_shown(tmp_path):
    from safetensors.numpy import load_file, save_file

    grpo.load(grpo.tiny("llama", **SMALL), device="ref").save_pretrained(tmp_path, "float32")
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({f"my_wrap.{name}": array for name, array in tensors.items()}, tmp_path / "model.safetensors")
    with pytest.raises(FileFormatError, match=r"embed_tokens.weight is missing(.|\n)*file has my_wrap.model.*, \.\."):
        grpo.load(tmp_path, device="ref")
