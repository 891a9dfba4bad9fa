"""The CUDA backend compiled for the CPU: csrc/cuda as it is, with tests/cuda/emulator in place of CUDA's headers.

The plugin that build() makes runs the real kernels, thread by thread; GRPO_CUDA_LIBRARY names it to the core.
    python tests/support/cuda_plugin.py        builds it and prints its path
"""
import hashlib
import os
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FLAGS = ("-std=c++17", "-O2", "-g", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-fno-strict-aliasing",
         "-U_FORTIFY_SOURCE",
         "-Wall", "-Wno-unknown-pragmas", "-Wno-unused-function", "-fsanitize=alignment",
         "-fno-sanitize-recover=alignment",
         '-DGRPO_CUDA_ARCHS="80;90"', "-DHEAD_ROWS=64", "-DHEAD_IDS=256", f"-I{ROOT}/tests/cuda/emulator",
         f"-I{ROOT}/csrc")
EMULATOR = ("cuda_host", "races", "warpgroup")
RACES = ("-O1", "-fsanitize=thread")                        # of kernels whose races are to be found; see races.cpp


def build(name: str = "libgrpo_cuda_host", kernels: list[Path] | None = None, more: tuple[str, ...] = ()) -> Path:
    """The plugin, or a library of other kernels, with the emulator; compiled if a source has changed, an object a file.
    more: flags of kernels."""
    folder = ROOT / "build" / name
    folder.mkdir(parents=True, exist_ok=True)
    sources = [(source, more) for source in kernels or sorted((ROOT / "csrc" / "cuda").glob("*.cu"))]
    sources += [(ROOT / "tests" / "cuda" / "emulator" / f"{part}.cpp", ()) for part in EMULATOR]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(lambda source: compile_one(source[0], folder, source[1]), sources))
    names = hashlib.sha256("".join(map(str, objects)).encode()).hexdigest()[:16]
    library = folder / f"{name}-{names}.so"
    if not library.exists():
        link(objects, library)
    return library


def build_cublaslt() -> Path:
    """A stand-in for cuBLASLt that works on the emulator."""
    folder = ROOT / "build" / "cublaslt"
    folder.mkdir(parents=True, exist_ok=True)
    source = compile_one(ROOT / "tests" / "cuda" / "emulator" / "cublaslt.cpp", folder)
    library = folder / f"lib{source.stem}.so"
    if not library.exists():
        link([source], library)
    return library


def compile_one(source: Path, folder: Path, more: tuple[str, ...] = ()) -> Path:
    """An object named by what it was made from: the preprocessed text, so that headers count."""
    flags = [*FLAGS, *more]
    text = run("g++", "-x", "c++", *flags, "-E", source).stdout
    target = folder / f"{source.stem}-{hashlib.sha256((text + ' '.join(flags)).encode()).hexdigest()[:16]}.o"
    if not target.exists():
        for old in folder.glob(f"{source.stem}-*.o"):
            old.unlink()
        part = target.with_suffix(f".{os.getpid()}.part")
        run("g++", "-x", "c++", *flags, "-c", source, "-o", part)
        part.replace(target)
    return target


def link(objects: list[Path], library: Path) -> None:
    for old in library.parent.glob("*.so"):
        old.unlink()
    with tempfile.NamedTemporaryFile(dir=library.parent, suffix=".part", delete=False) as part:
        run("g++", "-shared", "-fsanitize=alignment", *objects, "-o", part.name, "-ldl", "-lpthread")
        Path(part.name).replace(library)


def run(*command: str | Path) -> subprocess.CompletedProcess:
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{result.stderr}")
    return result


if __name__ == "__main__":
    print(build())
