"""Train language models with GRPO: a C core that holds the whole model, a thin Python face.

>>> import grpo
>>> model = grpo.load(grpo.tiny())                                                                   # doctest: +SKIP
>>> model.generate("2 + 2 =", max_new_tokens=8)                                                      # doctest: +SKIP

Names are imported on first use, so that `import grpo` costs next to nothing.
"""
from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "model": ("load", "tiny", "Model", "Completion", "Tokenizer"),
    "options": ("GRPOConfig", "RLOOConfig", "SFTConfig"),
    "training": ("GRPOTrainer", "RLOOTrainer", "SFTTrainer", "TrainingInterrupted", "sft"),
    "trl": ("TrlParser", "HfArgumentParser", "ScriptArguments", "ModelConfig", "DatasetConfig", "DatasetMixtureConfig",
            "get_peft_config", "get_quantization_config", "get_kbit_device_map", "get_dataset"),
    "errors": ("GrpoError", "ConfigError", "FileFormatError", "CheckpointError", "CheckpointCorruptError",
               "CheckpointMismatchError", "RunFolderError", "UnsupportedModelError", "TokenizerError", "DatasetError",
               "ImageError", "RewardError", "DeviceError", "OutOfMemoryError", "NonFiniteError", "BusyError",
               "GrpoWarning"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
_MODULES = ("ops", "rewards", "datasets", "errors", "vision", "trl")
__all__ = ["__version__", *_HOME, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    elif name in _MODULES:
        value = importlib.import_module(f".{name}", __name__)
    elif name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            value = version("cgrpo")
        except PackageNotFoundError:
            value = "0+uninstalled"
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
