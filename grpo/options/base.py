"""What every config is: a dataclass whose options are checked, at construction and whenever one is set later.

The constructor takes the fields, other trainers' names for them, and nothing else; everything that is wrong is said in
one error. A dataclass on top of a config has its own fields besides, which are the script's business.

>>> import dataclasses, grpo
>>> @dataclasses.dataclass
... class Mine(grpo.GRPOConfig):
...     system_prompt: str | None = dataclasses.field(default=None, metadata={"help": "for the rows"})
>>> args = Mine(system_prompt="Think.", num_chains=4)
>>> args.system_prompt, args.num_generations
('Think.', 4)
"""
import dataclasses
import functools
import inspect
import json
import os
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .fields import checked, meaning_of
from .foreign import ALIASES, ROUNDS, raise_all, understood
from .others import OTHERS, SAID_BY
from .plain import foreign_scalar, plain_value, read_yaml

Checks = Iterator[Callable[[], None]]


class Options:
    """Base of the configs."""

    def __new__(cls, *args: Any, **given: Any) -> typing.Self:
        """A config, whose class's constructor takes all names."""
        for part in cls.__mro__:                           # a dataclass gets its constructor after it was made
            if issubclass(part, Options):
                take_all_names(part)
        return super().__new__(cls)

    if typing.TYPE_CHECKING:                               # the fields of dataclasses, and names of other trainers

        def __init__(self, output_dir: str | None = None, **options: Any) -> None: ...

    def __post_init__(self) -> None:
        problems = vars(self).pop("_problems", [])
        self._settle(problems)
        raise_all(problems)

    @classmethod
    def translated(cls, given: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
        """Options by their own names. What cannot be honoured is added to problems."""
        return understood(given, option_names(cls), problems)

    def checks(self) -> Checks:
        """What is to be checked once every option by itself is right: each raises ConfigError, and may fill in what
        follows from other options."""
        return iter(())

    def validated(self) -> typing.Self:
        """The config itself, its options checked together where some were set since that was done. ConfigError says
        everything that is wrong."""
        if not vars(self).get("_changed"):
            return self
        problems: list[str] = []
        for name, filled in vars(self).get("_filled", {}).items():
            if getattr(self, name) == filled:
                object.__setattr__(self, name, None)
        self._settle(problems)
        raise_all(problems)
        return self

    def _settle(self, problems: list[str]) -> None:
        object.__setattr__(self, "_state", "checking")
        wrong = []
        fields, hints = meaningful(type(self)), typing.get_type_hints(type(self))
        for name, f in fields.items():
            try:
                object.__setattr__(self, name, checked(f, getattr(self, name), hints[name]))
            except ConfigError as error:
                wrong.append(name)
                problems.append(str(error))
                object.__setattr__(self, name, f.default)
        empty = [name for name in fields if getattr(self, name) is None]
        for check in self.checks():
            try:
                check()
            except ConfigError as error:
                if not any(name in str(error) for name in wrong):
                    problems.append(str(error))
        filled = {name: getattr(self, name) for name in empty if getattr(self, name) is not None}
        vars(self).update(_state="ready", _changed=False, _filled=filled)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_") or vars(self).get("_state") != "ready":
            object.__setattr__(self, name, value)
            return
        cls, f = type(self), meaningful(type(self)).get(name)
        there = name in vars(self) or hasattr(cls, name)
        if f is not None:
            object.__setattr__(self, name, checked(f, value, typing.get_type_hints(cls)[name]))
        elif name in own_fields(cls) or there and name not in ALIASES and name not in others_of(cls) \
                or vars(self).get("_constructing"):        # a script's own, or what its __post_init__ adds
            object.__setattr__(self, name, value)
        else:
            self._set_other(name, value)
        vars(self)["_changed"] = True

    def _set_other(self, name: str, value: Any) -> None:
        """Sets an option by a name that other trainers have for it, or one that only they have."""
        if name in ROUNDS:
            raise ConfigError(f"{name} counts rounds, and is an argument of {type(self).__name__}: set {ROUNDS[name]}, "
                              "in steps")
        problems: list[str] = []
        for own, meant in understood({name: value}, option_names(type(self)), problems).items():
            setattr(self, own, meant)
        raise_all(problems)
        if name in others_of(type(self)) and name not in SAID_BY:
            object.__setattr__(self, name, other_value(name, value))

    def options(self) -> dict[str, Any]:
        """Every option, and the fields of a dataclass on top, as YAML and JSON have values for them. Options that only
        other trainers have change nothing and are left out."""
        own = own_fields(type(self))
        return {name: described_value(getattr(self, name), name) if name in own else getattr(self, name)
                for name in option_names(type(self)) if hasattr(self, name)}

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str], **overrides: Any) -> typing.Self:
        """The options of a YAML file, changed by overrides."""
        options = read_yaml(path)
        if not isinstance(options, dict) or not all(isinstance(name, str) for name in options):
            raise ConfigError(f"{path}: expected a mapping of option names to values")
        return cls(**{**options, **overrides})

    def to_yaml(self, path: str | os.PathLike[str] | None = None) -> str:
        """All options as YAML, also written to path when given."""
        import yaml

        text = yaml.safe_dump(self.options(), sort_keys=False)
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    def to_dict(self) -> dict[str, Any]:
        """The same as a dict, with the options that only other trainers have; tokens are left out."""
        others = {name: getattr(self, name) for name in sorted(others_of(type(self)))}
        return {**self.options(), **{name: f"<{name.upper()}>" if name.endswith("_token") and value else value
                                     for name, value in others.items()}}

    def to_json_string(self) -> str:
        """to_dict() as JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def to_sanitized_dict(self) -> dict[str, Any]:
        """to_dict() as loggers take it: what is no number, bool or text as a text."""
        return {name: value if isinstance(value, (bool, int, float, str)) else str(value)
                for name, value in self.to_dict().items()}


def take_all_names(cls: type) -> None:
    """Makes a dataclass's constructor, where it is the one that dataclass() wrote, take other trainers' names too."""
    plain = vars(cls).get("__init__")
    if plain is None or "__dataclass_fields__" not in vars(cls) or hasattr(plain, "__wrapped__"):
        return
    names = {f.name for f in dataclasses.fields(cls) if f.init}
    if set(inspect.signature(plain).parameters) - {"self"} != names:
        return                               # the class's own constructor calls that of its base

    @functools.wraps(plain)
    def __init__(self: Any, *args: Any, **given: Any) -> None:
        problems: list[str] = []
        options = type(self).translated(without_defaults(type(self), given), problems)
        kept = names & others_of(type(self)) - SAID_BY.keys()
        others = {name: other_value(name, value) for name, value in given.items() if name in kept}
        unparsed = {name: options.pop(name) for name in options.keys() - names}
        vars(self).update({**unparsed, "_problems": problems, "_constructing": True})
        plain(self, *args, **{**others, **options})
        if "_state" not in vars(self):       # a script's __post_init__ that does not call that of its base
            Options.__post_init__(self)
        del vars(self)["_constructing"]

    cls.__init__ = __init__  # type: ignore[misc]


def without_defaults(cls: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """The given options without those that only other trainers have and that are what they are anyway. Of a parser,
    which gives every field, without all that are what they are anyway: they contradict nothing."""
    fields = [f for f in dataclasses.fields(cls) if f.init]
    every = all(f.name in given for f in fields)
    others = others_of(cls)
    usual = {f.name: f.default for f in fields if every or f.name in others}
    return {name: value for name, value in given.items()
            if not (name in usual and type(value) is type(usual[name]) and value == usual[name])}


def meaningful(cls: type) -> dict[str, dataclasses.Field]:
    """The options of a class that mean something here; a dataclass on top may change their defaults."""
    found: dict[str, dataclasses.Field] = {}
    for part in reversed(cls.__mro__):
        for name, f in vars(part).get("__dataclass_fields__", {}).items():
            if meaning_of(f) is not None:
                found[name] = f
    return found


def own_fields(cls: type) -> frozenset[str]:
    """The fields that a dataclass on top of a config adds."""
    return frozenset(f.name for f in dataclasses.fields(cls)) - meaningful(cls).keys() - OTHERS


def others_of(cls: type) -> frozenset[str]:
    """The fields of a class that only other trainers have."""
    return OTHERS & {f.name for f in dataclasses.fields(cls)} - meaningful(cls).keys()


def option_names(cls: type) -> list[str]:
    """The names of the options of a class that mean something here, and of the fields of a dataclass on top of it."""
    others = others_of(cls)
    return [f.name for f in dataclasses.fields(cls) if f.name not in others]


def other_value(name: str, value: Any) -> Any:
    """An option of another trainer as it is kept: plain, or as a text where it is no plain value."""
    return described_value(foreign_scalar(value), name)


def described_value(value: Any, name: str) -> Any:
    """A value as YAML and JSON have one for it; an object by its type."""
    try:
        return plain_value(value, name)
    except ConfigError:
        return f"<{type(value).__module__}.{type(value).__name__}>"
