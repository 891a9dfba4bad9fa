"""A model object of transformers, or of any library that has its ways, as where weights come from and go back to.

Nothing of its library is imported: an object has state_dict(), whose tensors have detach(), cpu(), float() and numpy(),
and a config that says what to_dict() or to_json_string() says of it.
"""
from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import CheckpointError, ConfigError, UnsupportedModelError
from .formats.safetensors import from_bfloat16_bits, to_bfloat16_bits
from .tensor_names import HEAD, Named

if TYPE_CHECKING:
    from .. import _core

# Where torch.compile, DistributedDataParallel and value heads have the model that they are around.
INSIDE = ("_orig_mod", "module", "pretrained_model")
MOST_WRAPPERS = 8
FLOATING = ("float32", "float16", "bfloat16", "float64")
WHOLE = "load it whole, on one device: from_pretrained(..., dtype='bfloat16') without device_map and low-memory options"


def is_model_object(given: Any) -> bool:
    """Whether something may be a model object: it has tensors by name."""
    return callable(getattr(given, "state_dict", None)) and not isinstance(given, type)


class ModelObject:
    """The model in an object: its config, its tensors by name (it is a `Weights`), and the way back.

    Raises UnsupportedModelError for one that is quantised, has adapters or is spread over devices, ConfigError for one
    without values or config; each names the object and says what to give."""

    def __init__(self, given: Any) -> None:
        self.module = unwrapped(given)
        self.name = type(self.module).__name__
        self.source = f"the given {self.name}"
        refuse_packed(self.module, self.source)
        self.config = described(getattr(self.module, "config", None))
        if not self.config:
            raise ConfigError(f"{self.source}: has state_dict() and no config, so that nothing says which network it "
                              "is; give a model of transformers, a folder or a hub id")
        if not self.config.get("architectures"):
            self.config["architectures"] = [self.name]
        self.generation_config = described(getattr(self.module, "generation_config", None))
        path = getattr(self.module, "name_or_path", None) or getattr(self.module.config, "_name_or_path", None)
        self.name_or_path = path if isinstance(path, str) else ""
        self._tensors: dict[str, Any] = dict(self.module.state_dict())
        for name, tensor in self._tensors.items():
            refuse_tensor(tensor, f"{self.source}: tensor {name}")
        self._places: dict[str, list[str]] = {}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of every tensor, by the object's names."""
        return {name: tuple(tensor.shape) for name, tensor in self._tensors.items()}

    def read(self, name: str) -> np.ndarray:
        """float32, whatever it is stored in."""
        return numbers(self._tensors[name])

    def close(self) -> None:
        """The tensors are the object's; nothing is held."""
        self._tensors = {}

    def remember(self, named: Named) -> None:
        """Where each tensor of a model goes back to. named: by which names they were read."""
        self._places = {here: [there] for here, there in named.places.items()}
        if named.tie:                                    # a head that is the embedding; here that may be two tensors
            heads = [there for there in self._tensors if there.endswith(HEAD)]
            self._places[named.embed] = list(dict.fromkeys([*self._places[named.embed], *heads]))

    def write(self, core: _core.Model) -> int:
        """Puts the core's weights into the object; returns how many tensors changed. Those that are what was read from
        them keep the digits that the core does not hold. CheckpointError where the object does not take them."""
        state, changed = dict(self.module.state_dict()), 0
        for name, _ in core.tensors():
            ours = core.get_tensor(name)
            for there in self._places[name]:
                if np.array_equal(as_stored(numbers(state[there]), core.dtype), ours):
                    continue
                put(state[there], ours)
                changed += 1
                if changed == 1 and not np.array_equal(as_stored(numbers(self.module.state_dict()[there]), core.dtype),
                                                       as_stored(numbers(state[there]), core.dtype)):
                    raise CheckpointError(f"{self.source}: its state_dict() gives copies, so that trained weights "
                                          "cannot be put into it; save them with save_model()")
        return changed


def unwrapped(given: Any) -> Any:
    """The model inside what torch.compile and other wrappers have made of it."""
    for _ in range(MOST_WRAPPERS):
        inner = next((found for name in INSIDE if is_model_object(found := getattr(given, name, None))), None)
        if inner is None or hasattr(given, "peft_config"):
            return given
        given = inner
    raise ConfigError(f"model: a {type(given).__name__} within {MOST_WRAPPERS} wrappers; give the model inside")


def refuse_packed(module: Any, source: str) -> None:
    """UnsupportedModelError for an object whose weights are packed, or that has adapters."""
    config = getattr(module, "config", None)
    packed = getattr(config, "quantization_config", None) or any(
        getattr(module, name, None) for name in ("is_quantized", "is_loaded_in_4bit", "is_loaded_in_8bit",
                                                 "hf_quantizer"))
    if packed:
        method = getattr(packed, "quant_method", None) or (packed.get("quant_method") if isinstance(packed, dict) else
                                                           None)
        how = f" ({getattr(method, 'value', method)})" if method else ""
        raise UnsupportedModelError(f"{source}: is quantised{how}, and its weights cannot be trained; load it without "
                                    "quantization_config (load_in_4bit, load_in_8bit), in bfloat16")
    if hasattr(module, "peft_config") or getattr(module, "_hf_peft_config_loaded", False):
        raise UnsupportedModelError(f"{source}: has adapters, and every weight is trained here; give the model of its "
                                    "merge_and_unload(), or the base model")


def refuse_tensor(tensor: Any, where: str) -> None:
    """ConfigError for a tensor without values, UnsupportedModelError for a part of one or for one that is no
    number."""
    if getattr(tensor, "is_meta", False) or str(getattr(tensor, "device", "")).startswith("meta"):
        raise ConfigError(f"{where} has no values (it is on the meta device, or offloaded); {WHOLE}")
    if hasattr(tensor, "full_tensor") or hasattr(tensor, "ds_id"):
        raise UnsupportedModelError(f"{where} is spread over processes (FSDP, tensor parallel or ZeRO-3); {WHOLE}")
    inference = getattr(tensor, "is_inference", None)
    if callable(inference) and inference():
        raise ConfigError(f"{where} was made under torch.inference_mode(), so that nothing can be written back into "
                          "it; load the model outside of it")
    kind = str(getattr(tensor, "dtype", "")).rpartition(".")[2]
    shape = tuple(getattr(tensor, "shape", ()))
    if kind not in FLOATING and shape and not where.endswith(("position_ids", "inv_freq")):
        raise UnsupportedModelError(f"{where} has dtype {kind}, which is not trained; load the model in bfloat16")


def numbers(tensor: Any) -> np.ndarray:
    """A tensor's values as float32; NumPy has no bfloat16."""
    return np.ascontiguousarray(tensor.detach().cpu().float().numpy())


def put(tensor: Any, values: np.ndarray) -> None:
    """Writes values into a tensor, where and as it is stored."""
    target = tensor.detach()
    target.copy_(target.new_tensor(values))


def as_stored(values: np.ndarray, dtype: str) -> np.ndarray:
    """float32 values as a core of that dtype holds them."""
    return from_bfloat16_bits(to_bfloat16_bits(values)) if dtype == "bfloat16" else values


def described(config: Any) -> dict[str, Any]:
    """What a config object would write to its JSON file; empty for none."""
    if config is None:
        return {}
    if isinstance(config, Mapping):
        found = config
    elif callable(getattr(config, "to_json_string", None)):
        found = json.loads(config.to_json_string())
    elif callable(getattr(config, "to_dict", None)):
        found = config.to_dict()
    else:
        raise ConfigError(f"config: a {type(config).__name__} has neither to_json_string() nor to_dict()")
    return {name: value for name, value in json.loads(json.dumps(found, default=str)).items()
            if not name.startswith("_")}


def folder_of(name_or_path: str) -> Path | None:
    """The folder that an object was loaded from, where it is one that is there."""
    path = Path(name_or_path).expanduser() if name_or_path else None
    return path if path is not None and path.is_dir() else None
