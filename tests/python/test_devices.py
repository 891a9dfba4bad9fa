"""Which device is meant, and what is said where the GPU cannot be used."""
import subprocess
from pathlib import Path

import pytest

import grpo
from grpo import _core
from grpo.cli import doctor
from grpo.errors import ConfigError, DeviceError
from grpo.model import devices
from processes import fresh

ROOT = Path(__file__).resolve().parents[2]
ADVICE = {                                              # cudaError: part of the sentence
    3: "spawn", 35: "driver 5[28]. or newer", 46: "exclusively", 100: "CUDA_VISIBLE_DEVICES", 802: "fabric manager",
    803: "restart the machine",
    804: "forward compatibility", 999: "error 999",
}

INCOMPLETE = """
#include "ops/plugin.h"
static struct ops ops;
static struct plugin plugin = {.abi = PLUGIN_ABI, .ops_bytes = sizeof ops, .ops = &ops};
const struct plugin *grpo_cuda_get(uint32_t abi, const struct plugin_host *host, uint32_t *own) {
    (void)host;
    plugin.bytes = SIZE;
    *own = abi;
    return &plugin;
}
"""


@pytest.fixture
def no_plugin(monkeypatch, tmp_path):
    monkeypatch.setenv("GRPO_CUDA_LIBRARY", str(tmp_path / "nothing.so"))


def test_auto_is_the_gpu_when_one_answers(emulated):
    assert devices.pick_device("auto") == "cuda"
    assert _core.cuda_devices() == [("emulated", (8, 0), 1 << 30)]
    path, toolkit, architectures = _core.cuda_plugin()
    assert path.endswith(".so") and toolkit == "13.0" and architectures == "80;90"


@pytest.mark.parametrize("error", ADVICE)
def test_auto_is_the_cpu_when_the_driver_refuses(emulated, monkeypatch, error, tmp_path):
    monkeypatch.setenv("GRPO_CUDA_HOST_ERROR", str(error))
    monkeypatch.setattr(devices, "DRIVER", str(tmp_path))
    with pytest.warns(UserWarning, match=ADVICE[error]):
        assert devices.pick_device("auto") == "cpu"
    with pytest.raises(DeviceError, match=ADVICE[error]):
        grpo.load(grpo.tiny(num_hidden_layers=1), "cuda")


def test_auto_says_nothing_without_a_driver(no_plugin, monkeypatch, tmp_path, recwarn):
    monkeypatch.setattr(devices, "DRIVER", str(tmp_path / "none"))
    assert devices.pick_device("auto") == "cpu" and not recwarn


def test_an_old_gpu_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(devices, "DRIVER", str(tmp_path))
    monkeypatch.setattr(_core, "cuda_devices", lambda: [("Tesla T4", (7, 5), 16 << 30)])
    with pytest.warns(UserWarning, match="Tesla T4 has compute capability 7.5"):
        assert devices.pick_device("auto") == "cpu"


@pytest.mark.parametrize("call", [_core.cuda_plugin, _core.cuda_devices, lambda: _core.Ops("cuda"),
                                  lambda: _core.backend("cuda")])
def test_an_absent_plugin_is_named(no_plugin, call):
    with pytest.raises(DeviceError, match="nothing.so"):
        call()


@pytest.mark.parametrize("text, said", [("", "no CUDA plugin"),
                                        ("const void *grpo_cuda_get(unsigned abi, const void *host, unsigned *own)"
                                        "{ (void)abi, (void)host; *own = 77; return 0; }", "interface 77"),
                                        (INCOMPLETE.replace("SIZE", "sizeof plugin"), "lacks operations"),
                                        (INCOMPLETE.replace("SIZE", "8"), "tables of 8 and")])
def test_a_foreign_library_is_refused(monkeypatch, tmp_path, text, said):
    source, library = tmp_path / "other.c", tmp_path / "libother.so"
    source.write_text(text)
    subprocess.run(["cc", "-shared", "-fPIC", f"-I{ROOT / 'csrc'}", source, "-o", library], check=True)
    monkeypatch.setenv("GRPO_CUDA_LIBRARY", str(library))
    with pytest.raises(DeviceError, match=said):
        _core.cuda_plugin()


def test_what_is_no_library_is_refused(monkeypatch, tmp_path):
    file = tmp_path / "text.so"
    file.write_text("not a library")
    monkeypatch.setenv("GRPO_CUDA_LIBRARY", str(file))
    with pytest.raises(DeviceError, match="does not load"):
        _core.cuda_plugin()


def test_a_second_gpu_is_chosen_by_the_environment(emulated):
    with pytest.raises(DeviceError, match="CUDA_VISIBLE_DEVICES"):
        grpo.load(grpo.tiny(num_hidden_layers=1), "cuda:1")


@pytest.mark.parametrize("device, dtype", [("tpu", None), ("cuda", "float32"), ("auto", "float16")])
def test_unknown_devices_and_dtypes(no_plugin, device, dtype):
    with pytest.raises(ConfigError, match=dtype or device):
        devices.pick_device(device, dtype)


def test_importing_grpo_opens_no_plugin(emulated_plugin):
    code = f"""
import os; os.environ["GRPO_CUDA_LIBRARY"] = {str(emulated_plugin)!r}
import grpo, grpo._core; grpo.load(grpo.tiny(num_hidden_layers=1), "cpu")
print("libgrpo_cuda" in open("/proc/self/maps").read())
grpo._core.cuda_plugin()
print("libgrpo_cuda" in open("/proc/self/maps").read())"""
    assert fresh(code).split() == ["False", "True"]


# -- grpo doctor -------------------------------------------------------------------------------------------------------


def findings(monkeypatch, driver: Path) -> dict[str, tuple[str, str]]:
    monkeypatch.setattr(doctor, "DRIVER", str(driver))
    return {f.name: (f.state, f.text) for f in doctor.cuda()}


@pytest.fixture
def driver(tmp_path) -> Path:
    file = tmp_path / "version"
    file.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  "
                    "(dvs-builder@U22)\n")
    return file


def test_doctor_with_a_gpu(emulated, monkeypatch, driver):
    found = findings(monkeypatch, driver)
    assert (found["nvidia driver"] == ("ok", "580.95.05")
            and found["cuda plugin"][1].startswith("CUDA 13.0, code for 80;90, "))
    assert found["gpu 0"] == ("ok", "emulated, compute capability 8.0, 1.1 GB") and "cublaslt" in found
    assert found["gpu products"] == ("ok", "mma.sync (this GPU has no wgmma)")


@pytest.mark.parametrize("error, said", [(35, "driver"), (100, "CUDA_VISIBLE_DEVICES"), (803, "restart")])
def test_doctor_with_a_driver_that_refuses(emulated, monkeypatch, driver, error, said):
    monkeypatch.setenv("GRPO_CUDA_HOST_ERROR", str(error))
    state, text = findings(monkeypatch, driver)["gpu"]
    assert state == "missing" and said in text


@pytest.mark.parametrize("there, state", [(True, "missing"), (False, "note")])
def test_doctor_without_a_plugin(no_plugin, monkeypatch, driver, tmp_path, there, state):
    found = findings(monkeypatch, driver if there else tmp_path / "none")
    assert found["cuda plugin"][0] == state and "nothing.so" in found["cuda plugin"][1]


@pytest.mark.parametrize("capability, architectures, code", [
    ((9, 0), "80;90", "own"), ((8, 6), "80;90", "own"), ((8, 0), "86;90+PTX", "none"), ((12, 0), "80;90+PTX", "ptx"),
    ((12, 0), "80;90", "none"),
    ((9, 0), "90a", "own"), ((10, 3), "100", "own"),
])
def test_code_for_a_gpu(capability, architectures, code):
    assert doctor.code_for(capability, architectures) == code
