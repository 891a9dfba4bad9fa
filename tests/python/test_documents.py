"""The pages of docs/: what they name is there, their programs run as they stand, the picture is of these floors."""
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import grpo
from processes import ROOT

PAGES = [*sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("*.md"))]
TRIED = ("add-a-reward", "add-a-data-set", "add-a-family")
SOURCES = (".py", ".c", ".h", ".inc", ".cu", ".cuh", ".cpp", ".sh", "")         # "": .ci/run
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def clone(folder: Path) -> Path:
    """What a clone that was built in place has of the package and of the tests that pages run."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(grpo.__file__).parent, folder / "grpo", ignore=ignore)
    shutil.copytree(ROOT / "tests" / "support", folder / "tests" / "support", ignore=ignore)
    tests = [f"tests/{name}.py" for name in ("conftest", "python/test_package", "python/test_families")]
    for name in ("pyproject.toml", *tests):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.mark.parametrize("page", TRIED)
def test_programs_of_a_page(page, tmp_path):
    """Blocks that begin with the name of a file are that file; those of the shell are run, from top to bottom."""
    folder = clone(tmp_path)
    path = os.pathsep.join([str(folder), *filter(None, sys.path)])
    python = f'python() {{ {sys.executable} "$@"; }}\n'
    for language, text in FENCE.findall((ROOT / "docs" / f"{page}.md").read_text()):
        if language == "sh":
            done = subprocess.run(["bash", "-euc", python + text], cwd=folder, env=os.environ | {"PYTHONPATH": path},
                                  capture_output=True, text=True)
            assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        else:
            name = re.match(r"# (\S+\.\w+)\n", text)[1]
            (folder / name).write_text(text.partition("\n")[2])


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_a_page_links_to_is_there(page):
    for target in re.findall(r"\]\((?!https?:|mailto:|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_a_page_names_is_there(page):
    """Files in `code` that begin with a folder of the project, and tests by name."""
    text = FENCE.sub("", page.read_text())
    for name in re.findall(r"`((?:csrc|grpo|tests|docs|examples|buildtools)/[\w./-]+)`", text):
        assert (ROOT / name).exists(), name
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    for name in re.findall(r"`(test_\w+)`", text):
        assert f"def {name}(" in tests, name


def test_every_environment_variable_is_on_its_page():
    """All that the sources name in quotes, by whatever function they read it, and no others."""
    page = (ROOT / "docs" / "environment-variables.md").read_text()
    told = set(re.findall(r"^\| `(GRPO_\w+)`", page, re.M))
    folders = [ROOT / name for name in ("csrc", "grpo", "tests", "buildtools", ".ci", "examples")]
    files = [path for folder in folders for path in folder.rglob("*") if path.suffix in SOURCES and path.is_file()]
    quoted = {name for path in [*files, ROOT / "setup.py"]
              for name in re.findall(r"""["'{$](GRPO_[A-Z0-9_]*[A-Z0-9])(?![\w])""", path.read_text())}
    assert told == quoted


def test_the_picture_is_of_these_floors():
    spec = importlib.util.spec_from_file_location("architecture_picture", ROOT / "docs" / "architecture_picture.py")
    drawn = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(drawn)
    assert (ROOT / "docs" / "architecture.svg").read_text() == drawn.picture(), "python docs/architecture_picture.py"
    rooms = {name for row in drawn.ROWS for names, _ in row for name in names.split(", ")}
    there = {path.parent.name for path in (ROOT / "grpo").glob("*/__init__.py")}
    assert rooms == there | {"ops.py", "errors.py"}
    floors = {name for name, *_ in [*drawn.UPPER, *drawn.BACKENDS]} | {"python", "net", "ops", "base"}
    assert floors == {path.name for path in (ROOT / "csrc").iterdir()}
    parts = {name for column in drawn.NET for names, *_ in column for name in names.split(", ")}
    files = {path.stem for path in (ROOT / "csrc" / "net").glob("*.[ch]")} | {"params.def"}
    assert parts | {"workspace"} == files
