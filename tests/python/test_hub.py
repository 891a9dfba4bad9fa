"""Hub ids: found in the cache, downloaded, or refused by name. No test touches the network."""

import os
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import errors

import grpo
from grpo.errors import ConfigError, FileFormatError
from grpo.model.hub import FILES, resolve

SMALL = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 4,
         "num_key_value_heads": 2}


@pytest.mark.parametrize(
    "text",
    ["./missing", "/missing/model", "a/b/c", "model.gguf", "org/model.gguf", "a/../b", "~/missing", "org/",
     "x.safetensors", "a--b/c"],
)
def test_what_looks_like_a_path_is_never_an_id(text, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileFormatError, match="no such file or folder"):
        resolve(text)


def test_an_existing_folder_wins_over_an_id(monkeypatch, tmp_path):
    (tmp_path / "org" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve("org/model") == Path("org/model")


def test_what_is_asked_of_the_hub(monkeypatch, tmp_path):
    asked = {}
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download",
        lambda repo_id, **options: asked.update(options, repo_id=repo_id) or str(tmp_path)
    )
    assert resolve("org/model-1.5B") == tmp_path
    assert asked == {"repo_id": "org/model-1.5B", "allow_patterns": FILES, "ignore_patterns": ["*/*"]}


@pytest.mark.parametrize(
    "error, named",
    [
        (errors.RepositoryNotFoundError, "no such model on the hub"),
        (errors.GatedRepoError, "gated"),
        (errors.LocalEntryNotFoundError, "cannot be reached"),
        (errors.HfHubHTTPError, "download failed"),
        (errors.HFValidationError, "download failed"),
        (ConnectionError, "download failed"),
    ],
)
def test_hub_errors_name_the_id(monkeypatch, error, named):
    def snapshot_download(repo_id, **options):
        raise error.__new__(error)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(ConfigError, match=f"org/model: .*{named}"):
        resolve("org/model")


def test_an_id_in_the_cache_loads_offline(tmp_path):
    cached = tmp_path / "hub" / "models--org--model"
    grpo.load(grpo.tiny(**SMALL), device="ref").save_pretrained(cached / "snapshots" / ("0" * 40))
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0" * 40)
    code = "import grpo; print(grpo.load('org/model', device='ref').num_parameters())"
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1",
                   "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, env=environment)
    assert run.returncode == 0 and int(run.stdout) > 1000, run.stderr
