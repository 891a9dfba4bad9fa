"""Paths that are none: errors that name the argument, from everything that takes a path of a model."""
import errno
import io
import os
from pathlib import Path

import pytest

import grpo
from grpo import cli
from grpo.errors import CheckpointError, ConfigError
from grpo.model.formats.folder import FolderWriter
from grpo.model.paths import path_of
from grpo.model.tokenizer import Tokenizer

SMALL = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}
ODD = {"~no-such-user/x.gguf": "no user of that name", "a\0b.gguf": "null byte", "x" * 300 + ".gguf": "too long",
       "a\ud800.gguf": "half a surrogate pair", "": "is empty"}


@pytest.fixture(scope="module")
def model():
    return grpo.load(grpo.tiny("llama", **SMALL), device="ref")


@pytest.mark.parametrize("path, why", [*ODD.items(), (None, "not None"), (3, "not 3"), (b"x.gguf", "not b'x.gguf'")])
def test_paths_that_are_none(model, path, why):
    for name, call in (("path", model.save_gguf), ("folder", model.save_pretrained),
                       ("folder", model.tokenizer.save_pretrained), ("folder", Tokenizer.from_pretrained)):
        with pytest.raises(ConfigError, match=why) as caught:
            call(path)
        assert str(caught.value).startswith(name) and str(caught.value).isprintable()
    with pytest.raises(ConfigError, match=why if isinstance(path, str) else "takes a path"):
        grpo.load(path)
    if isinstance(path, str):
        with pytest.raises(ConfigError, match=why) as caught:
            grpo.load(grpo.tiny("llama", **SMALL), tokenizer=path)
        assert str(caught.value).startswith("tokenizer")


@pytest.mark.parametrize("path, why", ODD.items())
def test_paths_on_a_command_line(path, why, tmp_path, capsys):
    assert cli.main(["export", str(tmp_path), "--output", path]) == 1
    assert f"--output {path!a:.20}"[:-3] in (said := capsys.readouterr().err) or not path
    assert why in said and "Traceback" not in said
    assert cli.main(["export", path, "--output", str(tmp_path / "x.gguf")]) == 1
    assert why in (said := capsys.readouterr().err) and "model" in said


def test_paths_that_are_some(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert path_of("~/a.gguf", "path") == tmp_path / "a.gguf"
    odd = os.fsdecode(b"\xff.gguf")                      # no UTF-8, and a name all the same
    (tmp_path / odd).write_bytes(b"")
    assert path_of(tmp_path / odd, "path").exists() and path_of(Path("a") / "b", "path") == Path("a/b")


def test_a_name_that_is_no_utf8(model, tmp_path):
    path = tmp_path / os.fsdecode(b"\xff.gguf")
    model.save_gguf(path)
    assert grpo.load(path, device="ref").config["hidden_size"] == 32


@pytest.mark.parametrize("name, why", [("a\ud800", "half a surrogate"), (3, "must be text")])
def test_names_that_no_file_holds(model, name, why, tmp_path):
    with pytest.raises(ConfigError, match=why):
        model.save_gguf(tmp_path / "x.gguf", name=name)
    assert not (tmp_path / "x.gguf").exists()


class Full(io.BytesIO):
    """A file on a disk without room."""

    def write(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_leaves_no_folder(model, tmp_path, monkeypatch):
    monkeypatch.setattr(FolderWriter, "open", lambda self, name: Full())
    for call, path in ((model.save_gguf, tmp_path / "a/b/x.gguf"), (model.save_pretrained, tmp_path / "a/c")):
        with pytest.raises(CheckpointError, match="No space left"):
            call(path)
        assert not (tmp_path / "a").exists()


def test_an_exception_leaves_folders_of_others(tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(CheckpointError, match="writing failed"), FolderWriter(tmp_path / "there" / "new") as folder:
        folder.write("deep/file", b"1")
        (tmp_path / "there" / "other").write_bytes(b"1")
        raise OSError("broken")
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["other"]
