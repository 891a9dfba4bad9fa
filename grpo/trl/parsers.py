"""Command lines and YAML files as dataclasses: transformers' HfArgumentParser and TRL's TrlParser.

A flag is a field of one of the dataclasses, --max_steps or --max-steps; --no_FIELD for one that is True by default.
Of a config all names are flags that its constructor takes, those of other trainers too. A name that two of the
dataclasses have is one flag: for both, or, where one is a config, for the script's own.
"""
import argparse
import dataclasses
import enum
import inspect
import json
import os
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError, did_you_mean, warn
from ..options import ALIASES, NOTED, REFUSED, ROUNDS, WITHOUT_EFFECT, TrainingConfig, kinds_of, raise_all, read_yaml

TRUE, FALSE = ("yes", "true", "t", "y", "1"), ("no", "false", "f", "n", "0")


class HfArgumentParser(argparse.ArgumentParser):
    """An argparse parser whose arguments are the fields of dataclasses.

    dataclass_types: one, or several; more arguments may be added, which come back as a namespace. Raises ConfigError
    for what a config refuses, all of it at once.

    >>> import grpo
    >>> (args,) = HfArgumentParser(grpo.GRPOConfig).parse_args_into_dataclasses(["--epsilon", "0.1", "--bf16"])
    >>> args.epsilon
    0.1
    """

    def __init__(self, dataclass_types: Any = None, **options: Any) -> None:
        super().__init__(**{"formatter_class": argparse.ArgumentDefaultsHelpFormatter, **options})
        several = isinstance(dataclass_types, Iterable) and not dataclasses.is_dataclass(dataclass_types)
        self.dataclass_types: list[Any] = list(dataclass_types) if several else \
            [] if dataclass_types is None else [dataclass_types]
        for cls in self.dataclass_types:
            self._add_dataclass(cls)

    def _add_dataclass(self, cls: Any) -> None:
        hints = typing.get_type_hints(cls)
        there = {action.dest for action in self._actions}
        for f in dataclasses.fields(cls):
            if f.name in names_of(cls) and f.name not in there:
                self._add_field(f, hints[f.name], issubclass(cls, TrainingConfig))
        if issubclass(cls, TrainingConfig):
            for name in sorted(names_of(cls) - {f.name for f in dataclasses.fields(cls)} - there):
                self.add_argument(*spellings(name), dest=name, nargs="?", const=True, type=word,
                                  default=argparse.SUPPRESS, help=argparse.SUPPRESS)

    def _add_field(self, f: dataclasses.Field, hint: Any, of_config: bool) -> None:
        aliases = f.metadata.get("aliases", [])
        flags = [*spellings(f.name), *([aliases] if isinstance(aliases, str) else aliases)]
        default = f.default if f.default is not dataclasses.MISSING else \
            f.default_factory() if f.default_factory is not dataclasses.MISSING else dataclasses.MISSING
        how, kinds = how_to_read(hint, of_config), kinds_of(hint)
        help = str(f.metadata.get("help", "")).replace("%", "%%")
        if bool in kinds and (default is not None or of_config):
            how |= {"nargs": "?", "const": True}
        if default is dataclasses.MISSING:
            how |= {"required": bool not in kinds, "default": False if bool in kinds else None}
        elif of_config:                      # a config is told what was said, and nothing else
            how["default"] = argparse.SUPPRESS
            help += "" if default is None else f" (default: {str(default).replace('%', '%%')})"
        else:
            how["default"] = default
        choices = f.metadata.get("choices")
        if choices and "choices" not in how:
            how["choices"] = list(choices)
        self.add_argument(*flags, dest=f.name, help=help or None, **how)
        if default is True and bool in kinds:
            self.add_argument(*spellings(f"no_{f.name}"), action="store_false", dest=f.name, help=argparse.SUPPRESS,
                              default=how["default"])

    def parse_args_into_dataclasses(self, args: Iterable[str] | None = None, return_remaining_strings: bool = False,
                                    look_for_args_file: bool = True, args_filename: str | None = None,
                                    args_file_flag: str | None = None) -> tuple[Any, ...]:
        """The dataclasses, in their order; a namespace of other arguments, where there are any; and, if asked, what no
        argument took. args: None: sys.argv. A file SCRIPT.args (or args_filename, or what args_file_flag names) has
        arguments that come before those. ConfigError for what nothing takes."""
        words = list(sys.argv[1:] if args is None else args)
        files = [Path(args_filename)] if args_filename else \
            [Path(sys.argv[0]).with_suffix(".args")] if look_for_args_file and sys.argv[0] else []
        if args_file_flag:
            finder = argparse.ArgumentParser(add_help=False)
            finder.add_argument(args_file_flag, dest="files", action="append", default=[])
            found, words = finder.parse_known_args(words)
            files += map(Path, found.files)
        before = [entry for file in files if file.is_file() for entry in file.read_text(encoding="utf-8").split()]
        namespace, rest = self.parse_known_args(before + words)
        built, left = self._build(vars(namespace))
        if left:
            built.append(argparse.Namespace(**left))
        if return_remaining_strings:
            return (*built, rest)
        if rest:
            known = [name for action in self._actions for name in action.option_strings]
            unknown = [entry.partition("=")[0] for entry in rest if entry.startswith("-")] or rest
            raise ConfigError("no option of this script: " + ", ".join(rest) + did_you_mean(unknown[0], known))
        return tuple(built)

    def _build(self, given: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """The dataclasses made of what is given, and what none of them takes. ConfigError says all that they refuse."""
        built: list[Any] = []
        problems: list[str] = []
        taken: set[str] = set()
        plain = [cls for cls in self.dataclass_types if not issubclass(cls, TrainingConfig)]
        scripts = {name for cls in plain for name in names_of(cls)}
        for cls in self.dataclass_types:
            names = names_of(cls) - scripts if issubclass(cls, TrainingConfig) else names_of(cls)
            own = {name: value for name, value in given.items() if name in names}
            taken |= own.keys()
            try:
                built.append(cls(**own))
            except ConfigError as error:
                problems.append(str(error))
        raise_all(problems)
        return built, {name: value for name, value in given.items() if name not in taken}

    def parse_dict(self, args: Mapping[str, Any], allow_extra_keys: bool = False) -> tuple[Any, ...]:
        """The dataclasses of a mapping. ConfigError for keys that none of them has, unless they are allowed."""
        built, left = self._build(args)
        if left and not allow_extra_keys:
            raise ConfigError(self._unknown(left, "keys that no option has"))
        return tuple(built)

    def parse_json_file(self, json_file: str | os.PathLike[str], allow_extra_keys: bool = False) -> tuple[Any, ...]:
        """The dataclasses of a JSON file. ConfigError names the file."""
        try:
            content = json.loads(Path(json_file).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(f"{json_file}: {error!s:.500}") from error
        return self.parse_dict(as_mapping(content, json_file), allow_extra_keys)

    def parse_yaml_file(self, yaml_file: str | os.PathLike[str], allow_extra_keys: bool = False) -> tuple[Any, ...]:
        """The dataclasses of a YAML file. ConfigError names the file."""
        return self.parse_dict(as_mapping(read_yaml(yaml_file), yaml_file), allow_extra_keys)

    def _unknown(self, names: Iterable[str], what: str) -> str:
        known = {name for cls in self.dataclass_types for name in names_of(cls)}
        return f"{what}: " + ", ".join(f"{name!r}{did_you_mean(name, known)}".removesuffix(".") for name in names)


class TrlParser(HfArgumentParser):
    """An HfArgumentParser that also reads a YAML file, --config FILE: its entries are defaults, flags go over them, and
    env: {NAME: value} sets environment variables."""

    def __init__(self, dataclass_types: Any = None, **options: Any) -> None:
        super().__init__(dataclass_types, **options)
        for cls in self.dataclass_types:
            if "config" in cls.__dataclass_fields__:
                raise ConfigError(f"{cls.__name__} has a field called config, which is the flag of the YAML file")

    def parse_args_and_config(self, args: Iterable[str] | None = None, return_remaining_strings: bool = False,
                              fail_with_unknown_args: bool = True,
                              separate_remaining_strings: bool = False) -> tuple[Any, ...]:
        """The dataclasses, and what parse_args_into_dataclasses gives besides. Entries of the file that are no flags
        are a ConfigError; with fail_with_unknown_args False a warning; with return_remaining_strings they come back as
        words, before the others or (separate_remaining_strings) apart from them."""
        path, words = config_flag(list(sys.argv[1:] if args is None else args))
        content = {} if path is None else dict(as_mapping(read_yaml(path), path))
        env = content.pop("env", None) or {}
        if not isinstance(env, Mapping):
            raise ConfigError(f"{path}: env must be a mapping of names to values")
        os.environ.update({str(name): str(value) for name, value in env.items()})
        known = {action.dest for action in self._actions}
        unknown = {name: value for name, value in content.items() if name not in known}
        if unknown and not return_remaining_strings:
            message = self._unknown(unknown, f"{path} has entries that no option has")
            if fail_with_unknown_args:
                raise ConfigError(message)
            warn(f"{message}; they are left out")
        from_file = self.set_defaults_with_config(**content)
        built = self.parse_args_into_dataclasses(words, return_remaining_strings)
        if not return_remaining_strings:
            return built
        if separate_remaining_strings:
            return (*built[:-1], from_file, built[-1])
        return (*built[:-1], from_file + built[-1])

    def set_defaults_with_config(self, **content: Any) -> list[str]:
        """Makes entries of a file the defaults of this parser and those below it, which are not required then. Returns
        what is no argument, as words."""
        used = set_defaults(self, content)
        return [entry for name, value in content.items() if name not in used for entry in (f"--{name}", str(value))]


def set_defaults(parser: argparse.ArgumentParser, content: Mapping[str, Any]) -> set[str]:
    """Gives arguments of a parser, and of those below it, other defaults. Returns the names of those that there are."""
    used = set()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                used |= set_defaults(below, content)
        elif action.dest in content:
            action.default, action.required = content[action.dest], False
            used.add(action.dest)
    return used


def config_flag(words: list[str]) -> tuple[str | None, list[str]]:
    """(the file that --config names or None, the other words)."""
    for place, entry in enumerate(words):
        if entry.startswith("--config="):
            return entry.partition("=")[2], words[:place] + words[place + 1:]
        if entry == "--config":
            if place + 1 == len(words):
                raise ConfigError("--config needs a YAML file")
            return words[place + 1], words[:place] + words[place + 2:]
    return None, words


def as_mapping(content: Any, path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """What a file holds, where that is names with values. ConfigError otherwise."""
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        raise ConfigError(f"{path}: expected a mapping of option names to values")
    return content


def names_of(cls: Any) -> set[str]:
    """What the constructor of a dataclass takes; of a config also what it understands of other trainers."""
    fields = dataclasses.fields(cls)
    if not issubclass(cls, TrainingConfig):
        return {f.name for f in fields if f.init}
    names = {f.name for f in fields}
    others = {name for name, target in {**ALIASES, **ROUNDS}.items() if target in names}
    others |= {"preset"} if "num_generations" in names else set()
    # those of a model are flags of ModelConfig
    return names | others | {name for name in (*NOTED, *REFUSED, *WITHOUT_EFFECT) if not name.startswith(OF_MODELS)}


OF_MODELS = ("lora_", "use_peft", "use_rslora", "use_dora", "load_in_", "bnb_", "use_bnb_", "model_revision",
             "attn_implementation", "config", "dataset_kwargs")


def spellings(name: str) -> list[str]:
    """A flag with underscores, and with hyphens where that is another."""
    return list(dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}")))


def how_to_read(hint: Any, of_config: bool) -> dict[str, Any]:
    """argparse's arguments for values of a type. A config reads texts itself."""
    parts = [part for part in (typing.get_args(hint) if is_union(hint) else (hint,)) if part is not types.NoneType]
    first = next((part for part in parts if part is str), parts[0])
    kind = typing.get_origin(first) or first
    if bool in parts and str not in parts:
        return {"type": truth}
    if kind is typing.Literal:
        return {"type": one_of(typing.get_args(first)), "choices": list(typing.get_args(first))}
    if inspect.isclass(kind) and issubclass(kind, enum.Enum):
        return {"type": one_of([member.value for member in kind]), "choices": [member.value for member in kind]}
    lists = [part for part in parts if (typing.get_origin(part) or part) is list]
    if lists and (kind is list or of_config):
        inner = typing.get_args(lists[0])
        return {"nargs": "+", "type": word if of_config or not inner else reader(inner[0])}
    if of_config or dict in [typing.get_origin(part) or part for part in parts]:
        return {"type": word if of_config else notation_or_text}
    return {"type": reader(kind)}


def is_union(hint: Any) -> bool:
    """Whether a type is X | Y."""
    return isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union


def reader(kind: Any) -> Any:
    """What makes a value of a type out of a word."""
    if kind is bool:
        return truth
    if kind in (typing.Any, object) or not callable(kind):
        return word
    return notation_or_text if dataclasses.is_dataclass(kind) else kind


def word(text: str) -> str:
    """The word itself."""
    return text


def notation_or_text(text: str) -> Any:
    """What a word says in JSON where it begins with a bracket, else the word."""
    try:
        return json.loads(text) if text.lstrip().startswith(("{", "[")) else text
    except (ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"{text!r:.80} is not JSON: {error!s:.80}") from error


def truth(text: str) -> bool:
    """True or False. ArgumentTypeError for a word that says neither."""
    if text.lower() in (*TRUE, *FALSE):
        return text.lower() in TRUE
    raise argparse.ArgumentTypeError(f"{text!r} is not true or false")


def one_of(values: Iterable[Any]) -> Any:
    """What finds the value that is spelled as a word."""
    known = {str(value): value for value in values}
    return lambda text: known.get(text, text)
