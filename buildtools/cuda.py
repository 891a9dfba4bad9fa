"""Builds grpo/_lib/libgrpo_cuda.so from csrc/cuda with nvcc.

GRPO_CUDA        auto (default): built when nvcc is found; 1: an error when it is not; 0: not built
GRPO_CUDA_ARCHS  native (default where a GPU answers), all (for wheels), or a list such as "80+PTX;90" (default
                 elsewhere)
GRPO_NVCC        the compiler; else it is searched: CUDA_HOME, CUDA_PATH, PATH, NVIDIA's packages for Python,
                 /usr/local/cuda
NVCC_CCBIN       the host compiler, as nvcc itself reads it
"""
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension

NAME = "grpo._lib.libgrpo_cuda"
OLDEST = (12, 4)
WHEEL_ARCHS = "80;86;89;90;100;120+PTX"
ARCHS = "80+PTX;90"
ADVICE = (
    ("unsupported GNU version",
     "this nvcc does not take the system's gcc: name an older one, such as NVCC_CCBIN=g++-14"),
    ("No such file or directory\n#include <cuda",
     "CUDA's headers are missing beside nvcc (pip: nvidia-cuda-runtime, nvidia-cuda-crt, nvidia-cuda-cccl)"),
    ("Killed", "the compiler ran out of memory: try GRPO_BUILD_JOBS=1"),
)


class CudaLibrary(Extension):
    """A plain library in the package, not a module: what makes setuptools put it into wheels and beside editable
    sources."""

    def __init__(self, root: Path):
        sources = sorted(str(p.relative_to(root)) for p in (root / "csrc" / "cuda").glob("*.cu"))
        headers = sorted(str(p.relative_to(root)) for p in (root / "csrc" / "cuda").glob("*.*h"))
        super().__init__(NAME, sources, depends=headers)


def find_nvcc() -> str | None:
    """The compiler, or None where GRPO_CUDA allows to go on without; then one line says so."""
    switch = os.environ.get("GRPO_CUDA") or "auto"
    if switch not in ("auto", "0", "1"):
        raise SystemExit(f"grpo: GRPO_CUDA={switch}: must be auto, 0 or 1")
    if switch == "0":
        print("grpo: GRPO_CUDA=0: built without CUDA")
        return None
    named = os.environ.get("GRPO_NVCC")
    if named and not os.access(named, os.X_OK):
        raise SystemExit(f"grpo: GRPO_NVCC={named}: no such program")
    candidates = [named] if named else list(nvcc_candidates())
    found = next((path for path in candidates if path and os.access(path, os.X_OK)), None)
    if found is None and switch == "1":
        raise SystemExit("grpo: GRPO_CUDA=1, and nvcc is not found; searched: " + ", ".join(map(str, candidates))
                         + ". Name it with GRPO_NVCC.")
    if found is None:
        print("grpo: nvcc is not found: built without CUDA (GRPO_NVCC names it, GRPO_CUDA=1 insists)")
    return found


def nvcc_candidates():
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(variable):
            yield os.path.join(os.environ[variable].strip(":"), "bin", "nvcc")
    yield shutil.which("nvcc")
    for folder in sys.path:
        yield from (str(path) for path in sorted(Path(folder or ".").glob("nvidia/cu1*/bin/nvcc"), reverse=True))
    yield "/usr/local/cuda/bin/nvcc"


def output_of(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""


def version_of(nvcc: str) -> tuple[int, int]:
    match = re.search(r"release (\d+)\.(\d+)", output_of(nvcc, "--version"))
    version = (int(match[1]), int(match[2])) if match else (0, 0)
    if version < OLDEST:
        raise SystemExit(f"grpo: {nvcc} is of CUDA {version[0]}.{version[1]}; {OLDEST[0]}.{OLDEST[1]} or newer is "
                         "needed. GRPO_CUDA=0 builds without.")
    return version


def architectures(nvcc: str) -> list[str]:
    """Such as ["80+PTX", "90"]: those asked for; else those of the GPUs that answer; else ARCHS."""
    asked = (os.environ.get("GRPO_CUDA_ARCHS") or "").strip()
    wanted = {"": None, "native": None, "all": WHEEL_ARCHS}.get(asked, asked)
    if wanted is None:
        answers = output_of("nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader").split()
        wanted = ";".join(sorted({cap.replace(".", "") for cap in answers
                                  if re.fullmatch(r"\d+\.\d", cap) and float(cap) >= 8}))
        if not wanted and asked == "native":
            raise SystemExit("grpo: GRPO_CUDA_ARCHS=native, and nvidia-smi shows no GPU of compute capability 8.0 or "
                             "newer")
    wanted = wanted or ARCHS
    archs = [arch for arch in re.split(r"[;,\s]+", wanted) if arch]
    known = set(re.findall(r"sm_(\w+)", output_of(nvcc, "--list-gpu-code")))
    for arch in archs:
        plain = arch.removesuffix("+PTX")
        if not re.fullmatch(r"\d+[af]?", plain) or int(re.match(r"\d+", plain)[0]) < 80:
            raise SystemExit(f"grpo: GRPO_CUDA_ARCHS: {arch!r} is no architecture from 80 on; such as 80+PTX;90, "
                             "native or all")
        if known and plain not in known:
            raise SystemExit(f"grpo: GRPO_CUDA_ARCHS: {nvcc} does not know sm_{plain}; it knows "
                             f"{', '.join(sorted(known, key=lambda a: (len(a), a)))}")
    return archs


def code_flags(archs: list[str]) -> list[str]:
    """Code for 9.0 is made for sm_90a, which has wgmma: no other device runs it anyway. PTX must run on later ones, so
    it is compute_90's."""
    flags = []
    for arch in archs:
        plain = arch.removesuffix("+PTX")
        own = "90a" if plain == "90" else plain
        code = f"[sm_{own},compute_{own}]" if plain != arch and plain == own else f"sm_{own}"
        flags.append(f"-gencode=arch=compute_{own},code={code}")
        flags += [f"-gencode=arch=compute_{plain},code=compute_{plain}"] if plain != arch and plain != own else []
    return flags


def build(nvcc: str, sources: list[str], target: Path, objects: Path, root: Path, jobs: int) -> None:
    """Compiles what has changed and links the library."""
    version, archs = version_of(nvcc), architectures(nvcc)
    objects = objects / f"cuda-{version[0]}.{version[1]}-{'-'.join(archs)}"
    objects.mkdir(parents=True, exist_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    # --fmad=false: sums and products fuse where the source says fmaf(), so that kernels which must agree do
    flags = ["-std=c++17", "-O3", "--fmad=false", "-lineinfo", f"--threads={max(1, jobs // len(sources))}",
             f"-I{root / 'csrc'}",
             f'-DGRPO_CUDA_ARCHS="{";".join(archs)}"', "-Xcompiler=-fPIC,-fvisibility=hidden,-Wall", *code_flags(archs)]
    flags += ["--compress-mode=size"] if version >= (13, 0) else ["-Xfatbin=-compress-all"]
    flags += ["-Werror=all-warnings"] if os.environ.get("GRPO_WERROR") == "1" else []
    compiler = [shutil.which("ccache"), nvcc] if shutil.which("ccache") else [nvcc]
    print(f"grpo: CUDA {version[0]}.{version[1]} ({nvcc}) for {';'.join(archs)}, {len(sources)} files")
    with ThreadPoolExecutor(jobs) as pool:
        made = list(pool.map(lambda source: compile_one(compiler, flags, root / source, objects), sources))
    run([nvcc, "-shared", "-cudart=static", "-Xcompiler=-static-libstdc++,-static-libgcc",
         "-Xlinker=--exclude-libs,ALL,--as-needed", *map(str, made), "-o", str(target)])


def compile_one(compiler: list[str], flags: list[str], source: Path, folder: Path) -> Path:
    target, depends = folder / f"{source.stem}.o", folder / f"{source.stem}.d"
    command = [*compiler, *flags, "-MD", "-MF", str(depends), "-c", str(source), "-o", str(target)]
    note = folder / f"{source.stem}.command"
    if is_new(target, depends) and note.exists() and note.read_text() == " ".join(command):
        return target
    run(command)
    note.write_text(" ".join(command))
    return target


def is_new(target: Path, depends: Path) -> bool:
    """Whether the object is younger than everything that it was made from, as the compiler noted it."""
    if not target.exists() or not depends.exists():
        return False
    files = depends.read_text().partition(":")[2].replace("\\\n", " ").split()
    try:
        return all(os.stat(file).st_mtime <= target.stat().st_mtime for file in files)
    except OSError:
        return False


def run(command: list[str]) -> None:
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if result.returncode:
        advice = next((text for sign, text in ADVICE if sign in result.stdout), "GRPO_CUDA=0 builds without CUDA")
        raise SystemExit(f"{result.stdout[-4000:]}\ngrpo: building the CUDA plugin failed: "
                         f"{' '.join(command)}\n{advice}")
    print(result.stdout, end="")
