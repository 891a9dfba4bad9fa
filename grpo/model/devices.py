"""Which device a model runs on."""
from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from .. import _core
from ..errors import ConfigError, DeviceError, warn

DTYPES = {"cpu": "bfloat16", "cuda": "bfloat16", "ref": "float32"}      # what each stores
LEAST_CAPABILITY = (8, 0)                                                # bfloat16 tensor cores
DRIVER = "/proc/driver/nvidia/version"


def pick_device(device: str, dtype: Any = None) -> str:
    """The device meant: "auto" is "cuda" when a GPU answers, else "cpu"; dtype may be torch's. ConfigError names what
    is not known; DeviceError says that this build has no CUDA. Whether the device answers shows when it is opened."""
    if device == "auto":
        device = "cuda" if gpu_answers() else "cpu"
    if device not in DTYPES and not device.startswith("cuda:"):
        raise ConfigError(f"device {device!r} is not known; choose from auto, {', '.join(DTYPES)}")
    if str(dtype).removeprefix("torch.") not in ("None", "auto", DTYPES.get(device)):
        where = ", ".join(f"{kind} on {name!r}" for name, kind in DTYPES.items())
        raise ConfigError(f"dtype {dtype!r} does not run on device {device!r}; there is {where}")
    if device == "cuda":
        search_packages()
    return device


def gpu_answers() -> bool:
    """Whether "auto" means the GPU. Warns where the machine has an NVIDIA driver and its GPU cannot be used all the
    same."""
    try:
        name, capability, _ = _core.cuda_devices()[0]
        if capability >= LEAST_CAPABILITY:
            return True
        reason = f"{name} has compute capability {capability[0]}.{capability[1]}, and 8.0 is needed"
    except DeviceError as error:
        reason = str(error)
    if os.path.exists(DRIVER):
        warn(f"device='auto' is the cpu here: {reason}")
    return False


def search_packages() -> None:
    """Tells the plugin where NVIDIA's packages for Python keep cuBLASLt. DeviceError without a plugin."""
    folders = [str(folder) for entry in sys.path for pattern in ("nvidia/cu1*/lib", "nvidia/cublas/lib")
               for folder in Path(entry or ".").glob(pattern)]
    _core.cuda_search(":".join(folders))


def gpu_memory() -> int | None:
    """Bytes of the first GPU, the one that "cuda" is; None without one."""
    try:
        return _core.cuda_devices()[0][2]
    except DeviceError:
        return None
