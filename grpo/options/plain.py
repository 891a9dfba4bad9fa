"""Values that a run can write down and read again: plain ones, of texts and numbers that have a spelling."""
import datetime
import enum
import os
from pathlib import Path
from typing import Any

from ..errors import ConfigError

MAX_DEPTH, MAX_VALUES, MAX_BITS = 32, 100_000, 1024
MAX_YAML = 4 << 20                           # bytes


def plain_value(value: Any, name: str) -> Any:
    """The value with NumPy's numbers and arrays, tuples, enums, paths, dates and PyTorch's dtypes as what YAML and JSON
    have for them. name: what errors call it. ConfigError for objects, halves of surrogate pairs, huge numbers and what
    is nested too deep."""
    left = MAX_VALUES

    def convert(value: Any, depth: int) -> Any:
        nonlocal left
        left -= 1
        if depth > MAX_DEPTH or left < 0:
            raise ConfigError(f"{name} is nested deeper than {MAX_DEPTH}, or holds more than {MAX_VALUES} values")
        kind = type(value)
        if kind.__module__ == "numpy" and hasattr(value, "tolist"):
            value = value.tolist()
        value = foreign_scalar(value)
        kind = type(value)
        if value is None or kind is bool:
            return value
        if isinstance(value, (str, int, float)):
            check_scalar(value, name)
            return next(base for base in (str, int, float) if isinstance(value, base))(value)
        if isinstance(value, dict):
            return {convert(key, depth + 1): convert(item, depth + 1) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [convert(item, depth + 1) for item in value]
        raise ConfigError(f"{name} holds a {kind.__name__}, which a run cannot write down: give texts, numbers, lists "
                          "or mappings")

    return convert(value, 0)


def foreign_scalar(value: Any) -> Any:
    """NumPy's numbers, members of enums, paths, dates, and PyTorch's dtypes and devices as a number or a text; anything
    else as it is.

    >>> import pathlib, numpy
    >>> foreign_scalar(numpy.float32(0.5)), foreign_scalar(pathlib.PurePosixPath("a/b")), foreign_scalar([1])
    (0.5, 'a/b', [1])
    """
    if isinstance(value, enum.Enum):
        value = value.value
    kind = type(value)
    if kind.__module__ == "numpy" and hasattr(value, "item") and not getattr(value, "shape", True):
        value = value.item()
    if kind.__module__ == "torch" and kind.__name__ in ("dtype", "device"):
        return str(value).removeprefix("torch.")
    if isinstance(value, (datetime.date, datetime.time)):
        return str(value)
    if isinstance(value, os.PathLike):
        path = os.fspath(value)
        return os.fsdecode(path) if isinstance(path, bytes) else path
    return value


def check_scalar(value: str | int | float, name: str) -> None:
    """ConfigError for a text that is not Unicode, and for a number that is too long."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ConfigError(f"{name}: the text {value!r:.80} holds half a surrogate pair, which UTF-8 cannot "
                              "write") from error
    elif isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise ConfigError(f"{name}: a number of {value.bit_length()} bits is too large")


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """What a YAML file holds, plain. ConfigError that names the file for what cannot be read."""
    import yaml

    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise ConfigError("is not a file")
        with open(path, "rb") as file:
            data = file.read(MAX_YAML + 1)
        if len(data) > MAX_YAML:
            raise ConfigError(f"is larger than the limit of {MAX_YAML} bytes")
        content = yaml.safe_load(data.decode("utf-8"))
    except RecursionError as error:
        raise ConfigError(f"{path}: nested too deeply") from error
    except Exception as error:               # besides its own, PyYAML lets through what int, float and date raise
        raise ConfigError(f"{path}: {error!s:.500}") from error
    return plain_value(content, str(path))
