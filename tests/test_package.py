"""The package's front door: names, laziness."""

import subprocess
import sys

import pytest

import grpo


def fresh(code):
    """What a new interpreter prints."""
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}\n{code}"], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_import_brings_nothing_heavy():
    heavy = {"numpy", "tokenizers", "jinja2", "huggingface_hub", "matplotlib", "yaml", "tqdm"}
    assert fresh(f"import grpo; grpo.GrpoError; print(sorted({heavy!r} & set(sys.modules)))") == "[]"


@pytest.mark.parametrize("name", [name for name in grpo.__all__ if name != "sft"])
def test_every_public_name_is_there(name):
    assert getattr(grpo, name) is getattr(grpo, name) and name in dir(grpo)


@pytest.mark.parametrize("first", ["sft", "SFTTrainer", "GRPOTrainer", "load"])
def test_sft_is_the_function_whatever_was_used_first(first):
    assert fresh(f"import grpo; grpo.{first}; print(grpo.sft.__name__)") == "sft"


def test_unknown_names():
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        getattr(grpo, "nope")
