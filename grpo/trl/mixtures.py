"""Data sets that are joined as a YAML file says."""
from typing import Any

from ..errors import ConfigError, DatasetError
from .arguments import DatasetMixtureConfig


def get_dataset(mixture_config: DatasetMixtureConfig) -> Any:
    """A datasets.DatasetDict {"train": ...}, and "test" where test_split_size is set, of all data sets together.

    With fractions, of each data set its first rows: as many as make the largest mixture with these shares in which no
    row comes twice. Needs the package datasets. ConfigError for what does not fit together.
    """
    try:
        import datasets
    except ImportError as error:
        raise ConfigError("get_dataset needs the package datasets: pip install datasets") from error
    mixture = mixture_config
    if not mixture.datasets:
        raise ConfigError("get_dataset: the mixture has no datasets")
    fractions = [entry.fraction for entry in mixture.datasets]
    shares = checked_shares(fractions, mixture.streaming)
    parts = []
    for entry in mixture.datasets:
        try:
            rows = datasets.load_dataset(path=entry.path, name=entry.name, data_dir=entry.data_dir,
                                         data_files=entry.data_files, split=entry.split, streaming=mixture.streaming)
        except (OSError, ValueError) as error:
            raise DatasetError(f"{entry.path}: {error!s:.500}") from error
        parts.append(rows if entry.columns is None else rows.select_columns(entry.columns))
    if shares:
        total = min(len(part) / share for part, share in zip(parts, shares, strict=True) if share)
        parts = [part.select(range(round(share * total))) for part, share in zip(parts, shares, strict=True)]
    rows = datasets.concatenate_datasets(parts)
    if mixture.test_split_size is None:
        return datasets.DatasetDict({"train": rows})
    if mixture.streaming:
        raise ConfigError("test_split_size holds out rows of a data set whose length is known: leave streaming out")
    return rows.train_test_split(test_size=mixture.test_split_size)


def checked_shares(fractions: list[float | None], streaming: bool) -> list[float]:
    """The shares of a mixture, which sum to 1; none where none are given."""
    given = [fraction for fraction in fractions if fraction is not None]
    if not given:
        return []
    if len(given) < len(fractions):
        raise ConfigError("fraction must be set for all data sets of the mixture, or for none")
    if streaming:
        raise ConfigError("fraction counts rows of data sets whose length is known: leave streaming out")
    if min(given) < 0 or not sum(given):
        raise ConfigError(f"fraction: {given} are no shares")
    return [fraction / sum(given) for fraction in given]
