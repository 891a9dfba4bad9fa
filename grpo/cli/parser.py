"""argparse as the commands use it: one sentence instead of a page of usage, flags in either spelling, did-you-mean."""
import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from ..errors import did_you_mean

FALSE, TRUE, NOTHING = ("false", "no", "off", "0"), ("true", "yes", "on", "1"), ("none", "null")


class UsageError(Exception):
    """The command line itself is wrong."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises UsageError instead of leaving the process, and takes no abbreviations."""

    def __init__(self, **options: Any):
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        """UsageError with one sentence; argparse calls this for whatever it refuses."""
        raise UsageError(f"{self.prog}: {message}\nTry '{self.prog} --help'.")

    def parse(self, argv: list[str]) -> argparse.Namespace:
        """The arguments of a command line. --foo-bar is --foo_bar. Raises UsageError."""
        known = [name for action in self._actions for name in action.option_strings]
        end = argv.index("--") if "--" in argv else len(argv)
        words = [underscored(word) for word in argv[:end]]
        for word in words:
            flag = word.partition("=")[0]
            if flag.startswith("--") and flag not in known:
                hint = did_you_mean(flag, [name for name in known if name.startswith("--")])
                raise UsageError(f"{self.prog}: unknown option {flag}{hint}\nTry '{self.prog} --help'.")
        return self.parse_args(words + argv[end:])


def underscored(word: str) -> str:
    """A flag with underscores for hyphens; anything else as it is."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value


def given_names(argv: Sequence[str]) -> set[str]:
    """The names of the flags on a command line."""
    return {underscored(word)[2:].partition("=")[0] for word in argv if word.startswith("--")}


def text(word: str) -> str | None:
    """The word; None for "none" or "null"."""
    return None if word.lower() in NOTHING else word


def text_or_number(word: str) -> Any:
    """A number where the word is one, a mapping where it begins with {, else text(word)."""
    if word.startswith("{"):
        return from_yaml(word)
    try:
        return float(word)
    except ValueError:
        return text(word)


def switch(word: str) -> bool | None:
    """True, False, or None for "none". Raises ArgumentTypeError for anything else."""
    if word.lower() in (*FALSE, *TRUE):
        return word.lower() in TRUE
    if word.lower() in NOTHING:
        return None
    raise argparse.ArgumentTypeError(f"{word!r} is not true or false")


def switch_or_text(word: str) -> bool | str | None:
    """True or False where the word says so, else text(word)."""
    return word.lower() in TRUE if word.lower() in (*FALSE, *TRUE) else text(word)


def from_yaml(word: str) -> Any:
    """A value in YAML's notation, {digits: 1}. Raises ArgumentTypeError."""
    import yaml

    try:
        value = yaml.safe_load(word)
    except yaml.YAMLError as error:
        raise argparse.ArgumentTypeError(f"{word!r} is not YAML: {' '.join(str(error).split())}") from error
    return text_or_number(value) if isinstance(value, str) else value     # YAML takes 1e-3 for text
