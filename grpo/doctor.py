"""What is there on this machine, what is missing, and how to get it."""
import importlib.util
import os
import platform
from dataclasses import dataclass
from importlib import metadata

import numpy as np

from . import __version__, _core
from .errors import DeviceError
from .plan import available_memory, human

# (package, module, what it is for, how to get it)
OPTIONAL = (
    ("datasets", "datasets", "data sets of the hub", "pip install 'cgrpo[data]'"),
    ("pyarrow", "pyarrow", "parquet files", "pip install pyarrow"),
    ("tensorboardX", "tensorboardX", "--report_to tensorboard", "pip install tensorboardX"),
)
REQUIRED = ("numpy", "tokenizers", "huggingface-hub", "jinja2", "pyyaml", "tqdm", "matplotlib")
FEATURES = ("avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_bf16", "amx_tile", "amx_bf16")
VARIABLES = ("GRPO_NUM_THREADS", "GRPO_CPU", "GRPO_DEBUG", "HF_HOME", "HF_HUB_OFFLINE")


@dataclass(frozen=True)
class Finding:
    """state: "ok", "missing" (something cannot be used) or "note"."""

    name: str
    state: str
    text: str


def examine() -> list[Finding]:
    """Every finding, in the order of the report."""
    return [*software(), *processor(), memory(), cuda(), *libraries(), *environment()]


def software() -> list[Finding]:
    return [Finding("grpo", "ok", f"{__version__}, from {os.path.dirname(__file__)}"),
            Finding("python", "ok", f"{platform.python_version()}, numpy {np.__version__}, {platform.system()} {platform.machine()}")]


def processor() -> list[Finding]:
    flags, name = cpu_flags()
    findings = []
    try:
        _, tier = _core.backend("cpu")
        findings.append(Finding("cpu backend", "ok", f"tier {tier}, bfloat16 weights"))
    except DeviceError as error:
        findings.append(Finding("cpu backend", "missing", str(error)))
    there = " ".join(f for f in FEATURES if f in flags)
    findings.append(Finding("processor", "ok", f"{name or 'unknown'}: {there or 'none of ' + ' '.join(FEATURES)}"))
    findings.append(Finding("threads", "ok", f"{_core.get_num_threads()} of {os.cpu_count()} cores; GRPO_NUM_THREADS changes it"))
    return findings


def cpu_flags() -> tuple[set[str], str]:
    """(features, model name) that the kernel reports."""
    try:
        with open("/proc/cpuinfo") as file:
            fields = dict(map(str.strip, line.split(":", 1)) for line in file if ":" in line)
    except OSError:
        return set(), platform.processor()
    return set(fields.get("flags", "").split()), fields.get("model name", "")


def memory() -> Finding:
    free = available_memory()
    return Finding("memory", "ok", f"{human(free)} free" if free is not None else "unknown") if free is None or free > 2e9 else \
        Finding("memory", "note", f"only {human(free)} free; grpo plan says what a run takes")


def cuda() -> Finding:
    try:
        _core.backend("cuda")
        return Finding("cuda backend", "ok", "found")
    except DeviceError as error:
        return Finding("cuda backend", "note", f"absent ({error}); training runs on the cpu")


def libraries() -> list[Finding]:
    findings = []
    for package in REQUIRED:
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError:
            findings.append(Finding(package, "missing", f"needed: pip install {package}"))
    if not findings:
        findings.append(Finding("libraries", "ok", ", ".join(f"{package} {metadata.version(package)}" for package in REQUIRED[1:])))
    for package, module, use, how in OPTIONAL:
        there = importlib.util.find_spec(module) is not None
        findings.append(Finding(package, "ok" if there else "note", f"{use}" if there else f"absent; for {use}: {how}"))
    return findings


def environment() -> list[Finding]:
    return [Finding(name, "note", os.environ[name]) for name in VARIABLES if name in os.environ]


def report(findings: list[Finding]) -> str:
    """The findings as text, what is missing marked."""
    marks = {"ok": " ", "note": "-", "missing": "!"}
    lines = [f"{marks[f.state]} {f.name:<17} {f.text}" for f in findings]
    missing = [f.name for f in findings if f.state == "missing"]
    return "\n".join([*lines, "", f"Missing: {', '.join(missing)}." if missing else "Ready: grpo train"])
