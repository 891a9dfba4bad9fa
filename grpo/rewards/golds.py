"""Reference answers that cannot be read are found before training: of each reward that reads some, in every row."""
from collections.abc import Callable, Iterable
from typing import Any

from ..answers import golds_in
from ..errors import DatasetError, RewardError
from .adapters import Reward

Values = Callable[[str], Iterable[tuple[int, Any]]]       # a column's name: (row, value) of each row, None for no value


def check_golds(rewards: Iterable[Reward], values: Values, where: str) -> None:
    """DatasetError for the first row with a reference answer that a reward of ours cannot read, and where no row has
    any; it names the row, the column and the reward. A reward says in its attribute golds which columns it reads, the
    first that a row has. where: names the data in errors."""
    for reward in rewards:
        columns = [name for name in getattr(reward.function, "golds", ()) if name not in reward.given]
        if not columns or reward.columns is not None:
            continue
        read = False
        for cells in zip(*map(values, columns), strict=True):
            named = zip(columns, cells, strict=True)
            found = next(((row, name, gold) for name, (row, gold) in named if gold is not None), None)
            if found is None:
                continue
            read = True
            row, column, gold = found
            try:
                golds_in(gold)
            except RewardError as error:
                raise DatasetError(f"{where}: row {row}, column {column!r}, for reward {reward.name!r}: "
                                   f"{error}") from error
        if not read:
            raise DatasetError(f"{where}: no row has {' or '.join(map(repr, columns))}, by which reward "
                               f"{reward.name!r} says what is right")
