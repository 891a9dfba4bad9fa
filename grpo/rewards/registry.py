"""Rewards by name: the built-in ones, "package.module.function", or "file.py:function"."""
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

from ..errors import ConfigError
from ..foreign import did_you_mean
from . import deepseekrl, xml
from .accuracy import accuracy_reward
from .think import think_format_reward

REGISTRY: dict[str, Callable] = {f.__name__: f for f in (
    accuracy_reward, think_format_reward,
    xml.correctness_reward, xml.integer_reward, xml.strict_format_reward, xml.soft_format_reward, xml.xml_tags_reward,
    deepseekrl.correctness_reward_func, deepseekrl.int_reward_func, deepseekrl.strict_format_reward_func,
    deepseekrl.soft_format_reward_func, deepseekrl.xmlcount_reward_func)}
SETS: dict[str, list[Callable]] = {
    "xml": [xml.correctness_reward, xml.integer_reward, xml.strict_format_reward, xml.soft_format_reward, xml.xml_tags_reward],
    "deepseekrl": [REGISTRY[n] for n in ("correctness_reward_func", "int_reward_func", "strict_format_reward_func",
                                         "soft_format_reward_func", "xmlcount_reward_func")],
}


def resolve(name: str) -> Callable | list[Callable]:
    """The reward (or, for "xml" and "deepseekrl", the five rewards) of this name.

    >>> resolve("accuracy_reward").__name__
    'accuracy_reward'
    """
    if name in SETS:
        return SETS[name]
    if name in REGISTRY:
        return REGISTRY[name]
    file, colon, function = name.rpartition(":")
    if colon and file.endswith(".py"):
        return attribute(load_file(Path(file)), function, name)
    module, dot, function = name.rpartition(".")
    if dot:
        return attribute(load_module(module, name), function, name)
    known = sorted({*REGISTRY, *SETS})
    raise ConfigError(f"unknown reward {name!r}{did_you_mean(name, known)} There are {', '.join(known)}; "
                      "or give package.module.function or file.py:function")


def load_file(path: Path):
    if not path.is_file():
        raise ConfigError(f"reward file {path} does not exist")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    spec.loader.exec_module(module)
    return module


def load_module(module: str, name: str):
    if "" not in sys.path:
        sys.path.insert(0, "")  # the working directory, as for python -m
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigError(f"reward {name!r}: cannot import {error.name}") from error


def attribute(module, function: str, name: str) -> Callable:
    if not hasattr(module, function):
        raise ConfigError(f"reward {name!r}: {module.__name__} has no {function!r}{did_you_mean(function, vars(module))}")
    return getattr(module, function)
