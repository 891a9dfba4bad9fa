"""How the CUDA plugin is built, and what the built one is: loadable anywhere, one door, for the architectures asked
for."""
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import grpo
from grpo import _core
from grpo.errors import DeviceError

ROOT = Path(__file__).resolve().parents[2]
LOADER = r"lib(c|m|dl|rt|pthread)\.so\.\d|ld-linux.*\.so\.\d"                 # what the plugin may need: parts of libc


@pytest.fixture
def plugin(monkeypatch) -> Path:
    """The file that was built with the package. GRPO_CUDA=1 means that there must be one."""
    path = Path(grpo.__file__).parent / "_lib" / "libgrpo_cuda.so"
    if not path.exists() and os.environ.get("GRPO_CUDA") != "1":
        pytest.skip("built without CUDA (no nvcc, or GRPO_CUDA=0)")
    monkeypatch.delenv("GRPO_CUDA_LIBRARY", raising=False)
    return path


def test_the_plugin_loads_and_says_what_it_is(plugin):
    path, toolkit, architectures = _core.cuda_plugin()
    assert Path(path) == plugin and _core.backend("cuda") == ("cuda", "")
    assert tuple(map(int, toolkit.split("."))) >= (12, 4)
    assert all(int(re.match(r"\d+", arch)[0]) >= 80 for arch in architectures.split(";"))
    if os.environ.get("GRPO_CUDA_ARCHS"):
        assert architectures == os.environ["GRPO_CUDA_ARCHS"]


def test_without_a_driver_the_error_says_so(plugin):
    try:
        pytest.skip(f"a GPU answers: {_core.cuda_devices()}")
    except DeviceError as error:
        assert re.search("driver|GPU", str(error)) and "cudaGetDeviceCount" in str(error)
    with pytest.raises(DeviceError, match="cudaGetDeviceCount"):
        _core.Ops("cuda")


def test_the_plugin_needs_libc_alone_and_has_one_door(plugin):
    if not shutil.which("readelf") or not shutil.which("nm"):
        pytest.skip("no binutils")
    dynamic = subprocess.run(["readelf", "-d", plugin], capture_output=True, text=True, check=True).stdout
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic)
    assert needed and all(re.fullmatch(LOADER, name) for name in needed)
    symbols = subprocess.run(["nm", "-D", "--defined-only", plugin], capture_output=True, text=True, check=True).stdout
    assert [line.split()[-1] for line in symbols.splitlines()] == ["grpo_cuda_get"]


# -- buildtools --------------------------------------------------------------------------------------------------------


@pytest.fixture
def cuda(monkeypatch):
    """buildtools.cuda with a clean environment."""
    pytest.importorskip("setuptools")
    monkeypatch.syspath_prepend(str(ROOT))
    from buildtools import cuda

    for name in ("GRPO_CUDA", "GRPO_CUDA_ARCHS", "GRPO_NVCC", "CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    return cuda


@pytest.fixture
def nvcc(tmp_path) -> str:
    """A compiler that knows its version and its architectures."""
    return program(tmp_path / "cuda" / "bin" / "nvcc", "case $1 in --version) echo 'release 12.6, V12.6.1';; "
                   "--list-gpu-code) echo sm_80 sm_86 sm_90 sm_90a;; esac")


def program(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("variable, value", [("GRPO_NVCC", "{nvcc}"), ("CUDA_HOME", "{home}"), ("CUDA_PATH", ":{home}"),
                                             ("PATH", "{home}/bin")])
def test_where_nvcc_is_found(cuda, nvcc, monkeypatch, variable, value):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv(variable, value.format(nvcc=nvcc, home=Path(nvcc).parent.parent))
    assert cuda.find_nvcc() == nvcc and cuda.version_of(nvcc) == (12, 6)


def test_no_nvcc(cuda, monkeypatch, capsys):
    monkeypatch.setattr(cuda, "nvcc_candidates", lambda: ["/nowhere/nvcc"])
    assert cuda.find_nvcc() is None
    assert "built without CUDA" in capsys.readouterr().out
    monkeypatch.setenv("GRPO_CUDA", "1")
    with pytest.raises(SystemExit, match="/nowhere/nvcc"):
        cuda.find_nvcc()


@pytest.mark.parametrize("variable, value, said",
                         [("GRPO_CUDA", "yes", "auto, 0 or 1"), ("GRPO_NVCC", "/nowhere/nvcc", "no such program")])
def test_bad_switches(cuda, monkeypatch, variable, value, said):
    monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit, match=said):
        cuda.find_nvcc()


def test_switched_off(cuda, nvcc, monkeypatch):
    monkeypatch.setenv("GRPO_NVCC", nvcc)
    monkeypatch.setenv("GRPO_CUDA", "0")
    assert cuda.find_nvcc() is None


def test_an_old_toolkit_is_refused(cuda, tmp_path):
    with pytest.raises(SystemExit, match="CUDA 11.8; 12.4"):
        cuda.version_of(program(tmp_path / "nvcc", "echo 'release 11.8, V11.8.89'"))


@pytest.mark.parametrize("asked, smi, archs", [
    ("", "9.0", ["90"]), ("", "8.6\n9.0\n9.0", ["86", "90"]), ("", "", ["80+PTX", "90"]), ("", "7.5", ["80+PTX", "90"]),
    ("native", "8.6", ["86"]), ("80, 90a", "9.0", ["80", "90a"]), ("90+PTX", "", ["90+PTX"]),
])
def test_architectures(cuda, nvcc, monkeypatch, tmp_path, asked, smi, archs):
    program(tmp_path / "bin" / "nvidia-smi", f"printf '{smi}'")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin", prepend=os.pathsep)
    monkeypatch.setenv("GRPO_CUDA_ARCHS", asked)
    assert cuda.architectures(nvcc) == archs


@pytest.mark.parametrize("asked, said",
                         [("all", "sm_86"), ("75", "from 80 on"), ("sm_90", "sm_90"), ("native", "no GPU")])
def test_architectures_that_cannot_be(cuda, nvcc, monkeypatch, asked, said):
    monkeypatch.setattr(cuda, "output_of", lambda program, *rest: "" if program == "nvidia-smi" else "sm_80 sm_90")
    monkeypatch.setenv("GRPO_CUDA_ARCHS", asked)
    with pytest.raises(SystemExit, match=said):
        cuda.architectures(nvcc)


@pytest.mark.parametrize("archs, codes", [
    (["80+PTX", "90"], ["80,code=[sm_80,compute_80]", "90a,code=sm_90a"]),
    (["90+PTX"], ["90a,code=sm_90a", "90,code=compute_90"]),
    (["86", "90a"], ["86,code=sm_86", "90a,code=sm_90a"]),
])
def test_code_flags(cuda, archs, codes):
    assert cuda.code_flags(archs) == [f"-gencode=arch=compute_{code}" for code in codes]


def test_only_what_changed_is_compiled(cuda, tmp_path):
    log = tmp_path / "log"
    compiler = [program(tmp_path / "cc", f'echo run >>{log}; while [ "$1" != -MF ]; do shift; done; echo "x.o: $4" '
                        f'>$2; shift 5; touch $1')]
    source = tmp_path / "x.cu"
    source.write_text("")
    runs = []
    for flags in ([], [], ["-O3"]):
        cuda.compile_one(compiler, flags, source, tmp_path)
        runs.append(len(log.read_text().split()))
    later = source.stat().st_mtime + 1000
    os.utime(source, (later, later))
    cuda.compile_one(compiler, [], source, tmp_path)
    assert [*runs, len(log.read_text().split())] == [1, 1, 2, 3]


def test_a_failed_compilation_shows_what_to_do(cuda, tmp_path):
    with pytest.raises(SystemExit, match="NVCC_CCBIN"):
        cuda.run([program(tmp_path / "cc", "echo 'unsupported GNU version! gcc versions later than 15'; exit 1")])
