"""The floors of the source: who may include and import whom, and how long a file may grow."""
import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import grpo

ROOT = Path(__file__).resolve().parents[2]
# A folder of csrc/ and what its files may include. A backend never sees a model, a model never
# sees a backend.
MAY_INCLUDE = {
    "base": {"base"},
    "ops": {"base", "ops"},
    "ref": {"base", "ops", "ref"},
    "cpu": {"base", "ops", "cpu"},
    "cuda": {"base", "ops", "cuda"},
    "net": {"base", "ops", "net"},
    "run": {"base", "ops", "net", "run"},
    "train": {"base", "ops", "net", "train"},
    "loss": {"base", "loss"},
    "python": {"base", "ops", "net", "run", "train", "loss", "python"},
}
ONLY_IN = {                                            # system headers by their beginning
    "immintrin.h": "cpu", "x86intrin.h": "cpu", "arm_neon.h": "cpu", "cpuid.h": "cpu",
    "Python.h": "python", "structmember.h": "python", "numpy/": "python",
    "cuda": "cuda", "cublas": "cuda", "nccl": "cuda", "mma.h": "cuda",
}
NEVER_IMPORTED = {"torch", "transformers", "trl", "accelerate", "peft", "vllm", "jax", "tensorflow"}
LATE_IMPORTS = NEVER_IMPORTED | {"matplotlib", "jinja2", "tokenizers", "huggingface_hub", "datasets", "PIL"}
MAX_LINES = 650
MAX_COLUMNS = 120
LONGER: set[str] = set()                               # a file may stand here only by decision

C_FILES = sorted(p for p in (ROOT / "csrc").rglob("*") if p.suffix in (".c", ".h", ".inc", ".def", ".cu", ".cuh"))
PYTHON_FILES = sorted((ROOT / "grpo").rglob("*.py"))
TEST_FILES = sorted(p for p in (ROOT / "tests").rglob("*")
                    if p.suffix in (".py", ".sh", ".c", ".h", ".cpp", ".cu", ".cuh"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def floor_of(path: Path) -> str:
    return path.relative_to(ROOT / "csrc").parts[0]


def find_header(name: str, includer: Path) -> Path:
    beside = includer.parent / name
    return beside if beside.exists() else ROOT / "csrc" / name


@pytest.mark.parametrize("path", C_FILES, ids=name_of)
def test_includes(path):
    floor, text = floor_of(path), path.read_text()
    for header in re.findall(r'^\s*#\s*include\s*"([^"]+)"', text, re.M):
        assert floor_of(find_header(header, path)) in MAY_INCLUDE[floor], f"{name_of(path)} includes {header}"
    for header in re.findall(r"^\s*#\s*include\s*<([^>]+)>", text, re.M):
        owner = next((owner for begin, owner in ONLY_IN.items() if header.startswith(begin)), floor)
        assert owner == floor, f"{name_of(path)} includes <{header}>, which belongs to csrc/{owner}"


@pytest.mark.parametrize("path", [p for p in C_FILES if floor_of(p) not in ("ops", "ref", "cpu", "cuda")], ids=name_of)
def test_operations_have_one_caller(path):
    """Above the backends an op is called by op_x() and memory by device_x() of ops/device.h, which the profile sees."""
    calls = re.findall(r"\bops->\w+\(\s*[\w>.\-]*\bctx\b.*", path.read_text())
    assert not calls, f"{name_of(path)}: {calls}"


@pytest.mark.parametrize("path", PYTHON_FILES, ids=name_of)
def test_imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module]
        for name in names:
            assert name.split(".")[0] not in NEVER_IMPORTED, f"{name_of(path)}, line {node.lineno}: imports {name}"


def files_of(module: Path) -> set[Path]:
    return {path for path in (module.with_suffix(".py"), module / "__init__.py") if path.exists()}


def imported_by(path: Path) -> set[Path]:
    """The files of the package that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.level or node.module.split(".")[0] == "grpo"):
            folder = path.parents[node.level - 1] if node.level else ROOT
            home = folder.joinpath(*(node.module or "").split("."))
            for alias in node.names:                       # a module, or a name of the module
                found |= files_of(home / alias.name) or files_of(home)
    return found


def circles(needed: dict[str, set[str]]) -> dict[str, set[str]]:
    """What of it is in a circle, or above one."""
    waiting = dict(needed)
    while free := [name for name, others in waiting.items() if not others & waiting.keys()]:
        for name in free:
            del waiting[name]
    return waiting


def room_of(name: str) -> str:
    """grpo/model for grpo/model/formats/gguf.py; a file at the top is a room of its own."""
    return "/".join(name.split("/")[:2])


def test_imports_are_a_tree():
    """Between files, and between the rooms that they are in. Late imports count too: a circle cannot hide in one."""
    files = {name_of(path): set(map(name_of, imported_by(path))) for path in PYTHON_FILES}
    rooms: dict[str, set[str]] = {}
    for name, needed in files.items():
        rooms.setdefault(room_of(name), set()).update(set(map(room_of, needed)) - {room_of(name)})
    assert not circles(files) and not circles(rooms)


def test_heavy_libraries_are_imported_late():
    loaded = subprocess.run([sys.executable, "-c", "import sys, grpo; print(*sys.modules)"],
                            cwd=Path(grpo.__file__).parents[1], check=True,
                            capture_output=True, text=True).stdout.split()
    assert "grpo" in loaded and not LATE_IMPORTS & set(loaded)


def test_length_of_files():
    files = [*C_FILES, *PYTHON_FILES, *(ROOT / "tests").rglob("*.py"), ROOT / "setup.py"]
    lengths = {name_of(p): len(p.read_text().splitlines()) for p in files}
    assert len(lengths) > 40
    assert {name for name, n in lengths.items() if n > MAX_LINES} == LONGER


@pytest.mark.parametrize("path", [*C_FILES, *PYTHON_FILES, ROOT / "grpo/_core.pyi", *TEST_FILES], ids=name_of)
def test_width_of_lines(path):
    lines = enumerate(path.read_text().splitlines(), 1)
    wide = [f"{name_of(path)}:{n} has {len(line)} columns" for n, line in lines if len(line) > MAX_COLUMNS]
    assert not wide


def test_names_for_type_checkers_are_the_public_ones():
    tree = ast.parse((ROOT / "grpo/__init__.pyi").read_text())
    names = {alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom)
             for alias in node.names}
    names |= {node.target.id for node in tree.body if isinstance(node, ast.AnnAssign)}
    assert names == set(grpo.__all__)
