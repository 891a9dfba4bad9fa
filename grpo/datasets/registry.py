"""Data sets by name, path, "file.py:function", hub id, or as rows."""
import functools
import inspect
import itertools
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError, DatasetError, GrpoError, did_you_mean
from ..options import Names, attribute, in_file, load_file
from . import class_folders, files, hub, mixture
from .kinds import check_kinds
from .labels import asked, with_names
from .layout import as_rows
from .pictures import stored
from .prompts import of_table
from .splits import carved, no_split, part_of
from .target_length import with_target_length

OWN = Names(__name__, "load")
GIVEN = "the data set"                      # rows without a name of their own
COMMON_OPTIONS = ("columns", "validation", "target_length")        # of load, for every data set


def load(source: Any, split: str = "train", *, size: int | None = None, system_prompt: str | None = None,
         columns: Mapping[str, str] | None = None, validation: float | None = None,
         target_length: int | Mapping[str, Any] | None = None, **options: Any) -> list[dict[str, Any]]:
    """Rows of one split.

    source: a name ("arithmetic", "arithmetic:demonstrations", "reasoning_gym:leg_counting"), a file, a folder of tables
    or of class folders of pictures (class_folders.py), "file.py:function", a hub id ("owner/name"), a function, rows
    (dicts, or a table of datasets, pandas, polars or pyarrow), a mapping of splits to rows, or a mixture: several names
    in a list, or {name: share}, or {name: {"share": 2, options of its own}}. size: at most so many. system_prompt: for
    rows made of a question, see layout.chat. columns: our names to the source's, {"question": "problem", "answer":
    "solution"}. validation: hold this share of train out by hash; that is what "test" and "validation" are then.
    target_length: ask each row for a number of tokens, see target_length.with_target_length. options: arguments of the
    data set's function. Raises DatasetError naming file and row, ConfigError for options.
    """
    if not isinstance(split, str):
        raise ConfigError(f"split={split!r:.80} must be the name of a split, such as train")
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        raise ConfigError(f"size={size!r:.80} must be a number of rows, at least 1")
    if columns is not None and not is_renaming(columns):
        raise ConfigError(f"columns={columns!r:.80} must be a mapping of our names to the source's, such as "
                          "{answer: solution}")
    options = {"system_prompt": system_prompt, "columns": columns, "validation": validation, **options}
    if mixture.is_mixture(source):
        rows = mixture.mix(mixture.shares(source), load, split, size, options)
    else:
        rows = read(source, split, size, options)
    return rows if target_length is None else with_target_length(rows, target_length)


def has_splits(source: Any) -> bool:
    """Whether a source may have a test split: not so for one file, a user's function and rows."""
    if mixture.is_mixture(source) or isinstance(source, Mapping):
        return True
    return isinstance(source, (str, os.PathLike)) and not Path(source).is_file() and ".py:" not in os.fspath(source)


def read(source: Any, split: str, size: int | None, options: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of a source that is no mixture."""
    if isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
        if (function := named_function(name)) is None:
            path = Path(source).expanduser()
            if class_folders.is_class_folder(path):
                function = functools.partial(class_folders.read, path)
            else:
                there = path.exists()
                function = functools.partial(files.read, path) if there else functools.partial(hub.read, hub_id(name))
        return call(function, name, split, size, options)
    if callable(source):
        return call(source, getattr(source, "__name__", type(source).__name__), split, size, options)
    if isinstance(source, Mapping):
        carves = options["validation"] is not None
        source = part_of(source, "train" if carves else split, GIVEN)
        split = split if carves else "train"
    return call(functools.partial(given_rows, source), GIVEN, split, size, options)


def given_rows(dataset: Any, split: str = "train", *, size: int | None = None, system_prompt: str | None = None,
               columns: Mapping[str, str] | None = None, question: str | None = None) -> list[dict[str, Any]]:
    """Rows that the caller has. question: of those that have none."""
    if split != "train":
        raise no_split("a list of rows", split)
    rows = stored(of_table(dataset))
    if isinstance(rows, Iterable):
        rows = itertools.islice(asked(with_names(rows, getattr(dataset, "features", None), columns, GIVEN), question),
                                size)
    return as_rows(rows, GIVEN, system_prompt, 0, columns)


def names() -> list[str]:
    """The data sets of this package: the files of this room that have a function load."""
    return list(OWN)


def named_function(source: str) -> Callable | None:
    """The function that a name stands for; None for a path or a hub id."""
    if (place := in_file(source)) is not None:
        return attribute(load_file(place[0], "data set"), place[1], f"{place[0]} has no function")
    name, _, function = source.partition(":")
    if name not in OWN:
        return None
    load = OWN.find(name)
    if (task := inspect.signature(load).parameters.get("task")) is not None:
        if not function and task.default is not task.empty:
            return load
        if not function:
            raise ConfigError(f"{source} needs the name of a task: {source}:NAME")
        return functools.partial(load, task=function)
    return attribute(OWN.module(name), function, f"{name} has no function") if function else load


def call(function: Callable, source: str, split: str, size: int | None,
         options: dict[str, Any]) -> list[dict[str, Any]]:
    """The function's rows; it is given what it has parameters for."""
    parameters = inspect.signature(function).parameters
    if "validation" not in parameters and (share := options.pop("validation", None)) is not None:
        return carved(call(function, source, "train", None, options), share, split)[:size]
    if "split" in parameters:
        options["split"] = split
    elif split != "train":
        raise no_split(f"{source} has no parameter split and", split)
    if "size" in parameters and size is not None:
        options["size"] = size
    common = {name: options.pop(name) for name in ("system_prompt", "columns") if name not in parameters}
    given = check_options(function, source, options)
    try:
        found = function(**given)
    except GrpoError:
        raise
    except Exception:
        check_kinds(function, given)
        raise
    check_kinds(function, given)             # after the function's own checks, which say more
    return as_rows(found, source, first=0, **common)[:size]


def check_options(function: Callable, source: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options that are set; ConfigError for one that the function does not take."""
    parameters = inspect.signature(function).parameters
    given = {name: value for name, value in options.items()
             if not (name in ("system_prompt", "columns", "validation") and value is None)}
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        known = [name for name in parameters if name != "split"]
        for name in given:
            if name not in parameters:
                raise ConfigError(f"{source} has no option {name!r}{did_you_mean(name, [*known, *COMMON_OPTIONS])} It "
                                  f"has {', '.join(known) or 'none'}; every data set has {', '.join(COMMON_OPTIONS)}.")
    for name, p in parameters.items():
        if name not in given and p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY):
            raise ConfigError(f"{source} needs the option {name!r}")
    return given


def is_renaming(columns: Any) -> bool:
    """Whether these are names to names."""
    return isinstance(columns, Mapping) and all(isinstance(name, str) for pair in columns.items() for name in pair)


def hub_id(source: str) -> str:
    """The source, if it may be a data set of the hub; else DatasetError with what there is."""
    if source.count("/") != 1 or source.startswith((".", "/", "~")) or source.endswith(tuple(files.READERS)):
        hint = did_you_mean(source, names())
        raise DatasetError(f"{source!r} is no file or folder here and no data set of this package{hint} There are "
                           f"{', '.join(names())}; or give a path, file.py:function, or a hub id like owner/name")
    return source
