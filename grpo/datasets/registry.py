"""Data sets by name, path, "file.py:function", hub id, or as rows."""
import functools
import importlib
import inspect
import os
import pkgutil
import runpy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError, DatasetError
from ..foreign import did_you_mean
from . import files, hub, mixture
from .layout import as_rows


def load(source: str | os.PathLike | Sequence[Any], split: str = "train", *, size: int | None = None, system_prompt: str | None = None,
         **options: Any) -> list[dict[str, Any]]:
    """Rows of one split.

    source: a name ("arithmetic", "arithmetic:demonstrations"), a file or folder, "file.py:function", a hub id
    ("owner/name"), rows, or a mixture: several of these names in a list, or {name: share}, or {name: {"share": 2, options of
    its own}}. size: at most so many. system_prompt: for rows made of a question, see layout.chat.
    options: arguments of the data set's function. Raises DatasetError naming file and row, ConfigError for options.
    """
    if size is not None and size < 1:
        raise ConfigError(f"size={size} must be at least 1")
    if mixture.is_mixture(source):
        rows = mixture.mix(mixture.shares(source), load, split, size, {"system_prompt": system_prompt, **options})
    elif not isinstance(source, (str, os.PathLike)):
        rows = as_rows(source, "the data set", system_prompt, first=0)[:size]
    elif (function := named_function(os.fspath(source))) is not None:
        rows = call(function, os.fspath(source), split, size, {"system_prompt": system_prompt, **options})
    else:
        path = Path(source).expanduser()
        read = functools.partial(files.read, path) if path.exists() else functools.partial(hub.read, hub_id(os.fspath(source)))
        rows = call(read, os.fspath(source), split, size, {"system_prompt": system_prompt, **options})
    return rows


def names() -> list[str]:
    """The data sets of this folder."""
    package = importlib.import_module(__package__)
    found = [module.name for module in pkgutil.iter_modules(package.__path__)]
    return [name for name in found if name != "registry" and hasattr(importlib.import_module(f"{__package__}.{name}"), "load")]


def named_function(source: str) -> Callable | None:
    """The function that a name stands for; None for a path or a hub id."""
    file, colon, name = source.rpartition(":")
    if colon and file.endswith(".py"):
        if not Path(file).is_file():
            raise ConfigError(f"data set file {file} does not exist")
        return attribute(runpy.run_path(file), name, file)
    module, _, name = source.partition(":")
    if module in names():
        return attribute(vars(importlib.import_module(f"{__package__}.{module}")), name or "load", module)
    return None


def attribute(namespace: dict[str, Any], name: str, where: str) -> Callable:
    functions = {key: value for key, value in namespace.items() if callable(value)}
    if name not in functions:
        raise ConfigError(f"{where} has no function {name!r}{did_you_mean(name, functions)}")
    return functions[name]


def call(function: Callable, source: str, split: str, size: int | None, options: dict[str, Any]) -> list[dict[str, Any]]:
    """The function's rows; it is given what it has parameters for."""
    parameters = inspect.signature(function).parameters
    if "split" in parameters:
        options["split"] = split
    elif split != "train":
        raise DatasetError(f"{source} has no parameter split, so it has no {split!r} rows; name another data set for evaluation")
    if "size" in parameters:
        options["size"] = size
    system_prompt = None if "system_prompt" in parameters else options.pop("system_prompt", None)
    given = check_options(function, source, options)
    return as_rows(function(**given), source, system_prompt, first=0)[:size]


def check_options(function: Callable, source: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options that are set; ConfigError for one that the function does not take."""
    parameters = inspect.signature(function).parameters
    given = {name: value for name, value in options.items() if not (name == "system_prompt" and value is None)}
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        known = [name for name in parameters if name != "split"]
        for name in given:
            if name not in parameters:
                raise ConfigError(f"{source} has no option {name!r}{did_you_mean(name, known)} It has {', '.join(known) or 'none'}.")
    return given


def hub_id(source: str) -> str:
    if source.count("/") != 1 or source.startswith((".", "/", "~")) or source.endswith(tuple(files.READERS)):
        raise DatasetError(f"{source!r} is no file or folder here and no data set of this package{did_you_mean(source, names())} There are "
                           f"{', '.join(names())}; or give a path, file.py:function, or a hub id like owner/name")
    return source
