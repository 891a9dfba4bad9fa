"""The package's front door: names, laziness."""

import doctest
import importlib
import tomllib
from pathlib import Path

import pytest

import grpo
from processes import ROOT, fresh

HOME = Path(grpo.__file__).parent
WITH_EXAMPLES = {".".join(("grpo", *path.relative_to(HOME).with_suffix("").parts)).removesuffix(".__init__")
                 for path in HOME.rglob("*.py") if ">>> " in path.read_text(encoding="utf-8")}


def test_import_brings_nothing_heavy():
    heavy = {"numpy", "tokenizers", "jinja2", "huggingface_hub", "matplotlib", "yaml", "tqdm", "PIL"}
    assert fresh(f"import grpo; grpo.GrpoError; print(sorted({heavy!r} & set(sys.modules)))") == "[]"


@pytest.mark.parametrize("name", [name for name in grpo.__all__ if name != "sft"])
def test_every_public_name_is_there(name):
    assert getattr(grpo, name) is getattr(grpo, name) and name in dir(grpo)


@pytest.mark.parametrize("first", ["sft", "SFTTrainer", "GRPOTrainer", "load"])
def test_sft_is_the_function_whatever_was_used_first(first):
    assert fresh(f"import grpo; grpo.{first}; print(grpo.sft.__name__)") == "sft"


def test_unknown_names():
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        grpo.nope  # noqa: B018


@pytest.mark.parametrize("module", sorted(WITH_EXAMPLES))
def test_examples_in_docstrings(module):
    if module in ("grpo.rewards.math_verify", "grpo.rewards.trl"):
        pytest.importorskip("math_verify")
    assert doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS).failed == 0


def test_every_room_is_installed():
    """A folder that the build does not name is there in a clone alone."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    rooms = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "grpo").rglob("__init__.py")}
    assert set(listed) == rooms and len(listed) == len(rooms)
