"""A file is a name: rewards and data sets are found by the files of their rooms, and a user's own by file or by module.

A file offers its own name where it has the room's entry (a function of one name for all of them, or one that is
called as the file is), and every name in its dictionary NAMES, {"name": value}, whose keys are written out. Names are
read off the text of the files, so that a file is imported when one of its names is asked for, and not before: some
need a package that may not be there.
"""
import ast
import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import ConfigError, did_you_mean


class Names:
    """What the files beside a module offer, which offers nothing itself. entry: the function that a file is called for;
    None: the one with the file's name."""

    def __init__(self, module: str, entry: str | None = None):
        self.package, _, self.asking = module.rpartition(".")
        self.entry = entry

    @functools.cached_property
    def places(self) -> dict[str, tuple[str, str | None]]:
        """(file, entry) of each name; for a name out of NAMES the entry is None."""
        (folder,) = importlib.import_module(self.package).__path__
        found: dict[str, tuple[str, str | None]] = {}
        for path in sorted(Path(folder).glob("*.py")):
            entry = self.entry or path.stem
            for node in ast.parse(path.read_bytes()).body if path.stem != self.asking else ():
                if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == entry:
                    found[path.stem] = (path.stem, entry)
                found |= dict.fromkeys(keys_of(node), (path.stem, None))
        return found

    def __contains__(self, name: str) -> bool:
        return name in self.places

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.places))

    def module(self, name: str) -> ModuleType:
        """The file that offers a name."""
        return importlib.import_module(f"{self.package}.{self.places[name][0]}")

    def find(self, name: str) -> Any:
        """What a name stands for. KeyError for one that no file offers."""
        module, entry = self.module(name), self.places[name][1]
        return module.NAMES[name] if entry is None else getattr(module, entry)


def keys_of(node: ast.stmt) -> list[str]:
    """The keys of a file's NAMES, if this statement is that."""
    if isinstance(node, ast.Assign):
        targets, value = node.targets, node.value
    elif isinstance(node, ast.AnnAssign) and node.value is not None:
        targets, value = [node.target], node.value
    else:
        return []
    is_names = any(isinstance(target, ast.Name) and target.id == "NAMES" for target in targets)
    if not is_names or not isinstance(value, ast.Dict):
        return []
    return [key.value for key in value.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)]


def in_file(source: str) -> tuple[Path, str] | None:
    """(file, name) of "file.py:name"; None for anything else."""
    file, colon, name = source.rpartition(":")
    return (Path(file), name) if colon and file.endswith(".py") else None


def load_file(path: Path, what: str) -> ModuleType:
    """A user's file as a module. ConfigError, that says what it should have held, where it is not there."""
    if not path.is_file():
        raise ConfigError(f"{what} file {path} does not exist")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{what} file {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    spec.loader.exec_module(module)
    return module


def attribute(module: ModuleType, name: str, lacking: str, fits: Callable[[Any], bool] = callable) -> Any:
    """What a module has by a name, where it fits; else a ConfigError that begins with lacking."""
    value = getattr(module, name, None)
    if value is None or not fits(value):
        known = [key for key, other in vars(module).items() if fits(other)]
        raise ConfigError(f"{lacking} {name!r}{did_you_mean(name, known)}")
    return value
