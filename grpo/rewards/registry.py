"""Rewards by name: the built-in ones, "package.module.function", or "file.py:function".

A file of this room offers a reward by its own name (a function that is called as the file is), and those of its
NAMES; a list there is a set of rewards, which are taken together. A name may come with arguments, {len_l1: {target:
512}}: a class is made with them, a function is given them at each call.
"""
import importlib
import sys
from collections.abc import Callable
from types import ModuleType

from ..errors import ConfigError, did_you_mean
from ..options import Names, attribute, in_file, load_file

OWN = Names(__name__)


def names() -> list[str]:
    """The rewards of this package, and its sets of rewards."""
    return list(OWN)


def resolve(name: str) -> Callable | list[Callable]:
    """The reward of this name: a function, or a class to be made with arguments; for a set of rewards a list of them.

    >>> resolve("accuracy_reward").__name__
    'accuracy_reward'
    """
    if name in OWN:
        return OWN.find(name)
    if (place := in_file(name)) is not None:
        module, function = load_file(place[0], "reward"), place[1]
    else:
        home, _, function = name.rpartition(".")
        if not home or home in OWN:
            raise ConfigError(f"unknown reward {name!r}{did_you_mean(name, OWN)} There are {', '.join(OWN)}; "
                              "or give package.module.function or file.py:function")
        module = load_module(home, name)
    return attribute(module, function, f"reward {name!r}: {module.__name__} has no",
                     lambda value: callable(value) or hasattr(value, "compute_rewards"))


def load_module(module: str, name: str) -> ModuleType:
    """The module that a reward's name begins with."""
    if not all(part.isidentifier() for part in module.split(".")):
        raise ConfigError(f"reward {name!r:.80}: {module!r:.80} is not the name of a module")
    if "" not in sys.path:
        sys.path.insert(0, "")  # the working directory, as for python -m
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigError(f"reward {name!r}: cannot import {error.name}") from error


def built_in() -> dict[str, Callable]:
    """The rewards of this package by name, without the sets and those whose package is not there."""
    found: dict[str, Callable] = {}
    for name in OWN:
        try:
            value = OWN.find(name)
        except ConfigError:
            continue
        if callable(value):
            found[name] = value
    return found


def is_built_in(function: object) -> bool:
    """Whether a reward is one of this package."""
    return str(getattr(function, "__module__", "")).startswith(f"{__package__}.")
