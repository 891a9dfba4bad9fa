"""grpo doctor: what is there on this machine, what is missing, and how to get it."""
import importlib.util
import os
import platform
import re
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from .. import __version__, _core
from ..errors import DeviceError
from ..model import DRIVER, LEAST_CAPABILITY, search_packages
from ..planning import available_memory, human
from .parser import Parser

# (package, module, what it is for, how to get it)
OPTIONAL = (
    ("datasets", "datasets", "data sets of the hub", "pip install 'cgrpo[data]'"),
    ("pyarrow", "pyarrow", "parquet files", "pip install pyarrow"),
    ("reportlab", "reportlab", "PDF reports of evaluations", "pip install 'cgrpo[report]'"),
    ("math-verify", "math_verify", "the reward math_verify, TRL's accuracies", "pip install 'cgrpo[math]'"),
    ("reasoning-gym", "reasoning_gym", "the data sets reasoning_gym:TASK", "pip install reasoning-gym"),
    ("tensorboardX", "tensorboardX", "--report_to tensorboard", "pip install tensorboardX"),
)
REQUIRED = ("numpy", "tokenizers", "huggingface-hub", "jinja2", "pyyaml", "tqdm", "matplotlib")
FEATURES = ("avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_bf16", "amx_tile", "amx_bf16")
VARIABLES = ("GRPO_NUM_THREADS", "GRPO_CPU", "GRPO_CUDA_LIBRARY", "GRPO_CUDA_GEMM", "GRPO_CUDA_GRAPHS",
             "GRPO_CUDA_WGMMA", "GRPO_CUDA_TILE", "GRPO_CUBLAS", "CUDA_VISIBLE_DEVICES", "GRPO_CACHE", "GRPO_DEBUG",
             "HF_HOME", "HF_HUB_OFFLINE")


@dataclass(frozen=True)
class Finding:
    """state: "ok", "missing" (something cannot be used) or "note"."""

    name: str
    state: str
    text: str


def examine() -> list[Finding]:
    """Every finding, in the order of the report."""
    return [*software(), *processor(), memory(), *cuda(), *libraries(), *environment()]


def software() -> list[Finding]:
    """This package, Python and NumPy."""
    hiding = [Finding("names", "note", said) for said in (hidden_by(Path.cwd()),) if said]
    return [*hiding, Finding("grpo", "ok", f"{__version__}, from {os.path.dirname(_core.__file__)}"),
            Finding("python", "ok", f"{platform.python_version()}, numpy {np.__version__}, {platform.system()} "
                                    f"{platform.machine()}")]


def hidden_by(folder: Path) -> str | None:
    """What in a folder Python would import in place of this package, for scripts that are started there."""
    for path in (folder / "grpo.py", folder / "grpo" / "__init__.py"):
        if path.is_file() and path.parent != Path(_core.__file__).parent:
            return (f"{path} hides this package from scripts beside it: there `from grpo import ...` imports that file "
                    "(a \"circular import\" where it is the script itself); call it something else, train_grpo.py")
    return None


def processor() -> list[Finding]:
    """The CPU backend's tier, what the processor can do, and how many threads are used."""
    flags, name = cpu_flags()
    findings = []
    try:
        _, tier = _core.backend("cpu")
        findings.append(Finding("cpu backend", "ok", f"tier {tier}, bfloat16 weights"))
    except DeviceError as error:
        findings.append(Finding("cpu backend", "missing", str(error)))
    there = " ".join(f for f in FEATURES if f in flags)
    findings.append(Finding("processor", "ok", f"{name or 'unknown'}: {there or 'none of ' + ' '.join(FEATURES)}"))
    findings.append(Finding("threads", "ok", f"{_core.get_num_threads()} of {os.cpu_count()} cores; GRPO_NUM_THREADS "
                                             "changes it"))
    return findings


def cpu_flags() -> tuple[set[str], str]:
    """(features, model name) that the kernel reports."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            pairs = (line.partition(":") for line in file)
            fields = {name.strip(): value.strip() for name, colon, value in pairs if colon}
    except OSError:
        return set(), platform.processor()
    return set(fields.get("flags", "").split()), fields.get("model name", "")


def memory() -> Finding:
    """Free memory; a note where little is left."""
    free = available_memory()
    if free is not None and free <= 2e9:
        return Finding("memory", "note", f"only {human(free)} free; grpo plan says what a run takes")
    return Finding("memory", "ok", "unknown" if free is None else f"{human(free)} free")


def cuda() -> list[Finding]:
    """The plugin, the driver, the GPUs, cuBLASLt. What is missing matters where there is a driver, so a GPU that could
    be used."""
    driver = driver_version()
    lacking = "missing" if driver else "note"
    findings = [Finding("nvidia driver", "ok" if driver else "note", driver or "absent: training runs on the cpu")]
    try:
        path, toolkit, architectures = _core.cuda_plugin()
    except DeviceError as error:
        return [*findings, Finding("cuda plugin", lacking, str(error))]
    findings.append(Finding("cuda plugin", "ok", f"CUDA {toolkit}, code for {architectures}, {path}"))
    try:
        findings += [gpu(index, *device, architectures) for index, device in enumerate(_core.cuda_devices())]
        findings.append(products(_core.cuda_products()))
    except DeviceError as error:
        findings.append(Finding("gpu", lacking, str(error)))
    search_packages()
    library = _core.cuda_blas()
    advice = ""
    if library.startswith("none"):
        advice = "; our own kernels do without. pip install nvidia-cublas brings it, GRPO_CUBLAS names it"
    return [*findings, Finding("cublaslt", "note" if advice else "ok", library + advice)]


def driver_version() -> str:
    """Of NVIDIA's kernel module; "" without one."""
    try:
        with open(DRIVER, encoding="utf-8") as file:
            first = file.readline()
    except OSError:
        return ""
    found = re.search(r"\b\d+\.\d+(\.\d+)?\b", first)
    return found[0] if found else first.strip()


def gpu(index: int, name: str, capability: tuple[int, int], size: int, architectures: str) -> Finding:
    """One GPU, and whether the plugin has code for it. size: bytes of its memory. architectures: of the plugin,
    "80;90+PTX"."""
    text = f"{name}, compute capability {capability[0]}.{capability[1]}, {human(size)}"
    if capability < LEAST_CAPABILITY:
        return Finding(f"gpu {index}", "note", f"{text}: 8.0 is needed")
    code = code_for(capability, architectures)
    if code == "none":
        return Finding(f"gpu {index}", "missing", f"{text}: the plugin has no code for it; build again with "
                                                  "GRPO_CUDA_ARCHS=native")
    return Finding(f"gpu {index}", "ok",
                   text if code == "own" else f"{text}; the driver compiles for it, GRPO_CUDA_ARCHS=native builds "
                                              "faster code")


def products(name: str) -> Finding:
    """What multiplies matrices; a GPU of compute capability 9.0 is meant to do it by wgmma."""
    slower = name != "wgmma" and "no wgmma" not in name
    return Finding("gpu products", "note" if slower else "ok", name)


def code_for(capability: tuple[int, int], architectures: str) -> str:
    """What a plugin built for "80;90+PTX" has for a GPU: "own" code, "ptx" for the driver to compile, or "none"."""
    built = [(divmod(int(number), 10), ptx) for number, ptx in re.findall(r"(\d+)[a-z]*(\+PTX)?", architectures)]
    if any(major == capability[0] and minor <= capability[1] for (major, minor), _ in built):
        return "own"
    return "ptx" if any(version <= capability and ptx for version, ptx in built) else "none"


def libraries() -> list[Finding]:
    """The packages that are needed, and the optional ones with what each is for."""
    findings = []
    for package in REQUIRED:
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError:
            findings.append(Finding(package, "missing", f"needed: pip install {package}"))
    if not findings:
        findings.append(Finding("libraries", "ok",
                                ", ".join(f"{package} {metadata.version(package)}" for package in REQUIRED[1:])))
    for package, module, use, how in OPTIONAL:
        there = importlib.util.find_spec(module) is not None
        findings.append(Finding(package, "ok" if there else "note", use if there else f"absent; for {use}: {how}"))
    return findings


def environment() -> list[Finding]:
    """Variables that change what runs, where they are set."""
    return [Finding(name, "note", os.environ[name]) for name in VARIABLES if name in os.environ]


def report(findings: list[Finding]) -> str:
    """The findings as text, what is missing marked."""
    marks = {"ok": " ", "note": "-", "missing": "!"}
    lines = [f"{marks[f.state]} {f.name:<17} {f.text}" for f in findings]
    missing = [f.name for f in findings if f.state == "missing"]
    return "\n".join([*lines, "", f"Missing: {', '.join(missing)}." if missing else "Ready: grpo train"])


def main(argv: list[str], prog: str = "grpo doctor") -> None:
    """`grpo doctor`: prints the report; starts nothing."""
    Parser(prog=prog, description="Says what is there on this machine, what is missing, and how to get it.").parse(argv)
    print(report(examine()))
