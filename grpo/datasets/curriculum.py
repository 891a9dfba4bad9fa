"""A curriculum: the rows of a run stage by stage, by a column that says how hard they are.

Stages are counted in optimiser steps, so that the learning rate can follow them (curriculum_cosine), and in whole
rollouts, so that no rollout mixes two. After the last stage all rows come mixed.
"""
import bisect
import math
import numbers
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import DatasetError, did_you_mean, warn
from .prompts import PromptStream, RowOrder

MOST_STAGES = 100                            # that the numbers of a column make by themselves
MOST_NAMED = 8                               # in a line of the log


class Stage(NamedTuple):
    """Rows of one difficulty, in an endless order of their own.

    name: as logs call it. rows: their places among all. position, end: of the stream and in optimiser steps, where the
    stage begins and where it is over."""

    name: str
    rows: NDArray[np.int64]
    order: RowOrder
    position: int
    end: float


class Curriculum:
    """An order of rows that goes through stages, each shuffled within itself, and then through all rows mixed.

    The row at (position, step) is a function of the seed and of these two, so they are all that a checkpoint holds of
    it. A stage takes as many steps as its rows fill rollouts, at least one; there its rows repeat if they are too few.

    >>> order = Curriculum([("easy", [0, 2, 4]), ("hard", [1, 3])], prompts=2, steps=1, shuffle=False)
    >>> order.ends, [order.take(2 * step, 2, step) for step in range(4)]
    ((1, 2), [[0, 2], [1, 3], [0, 1], [2, 3]])
    """

    def __init__(self, stages: Sequence[tuple[str, Sequence[int]]], *, prompts: int, steps: int,
                 shuffle: bool = True, seed: int = 0) -> None:
        """stages: name and rows, the easiest first. prompts: of a rollout; steps: optimiser steps taken on it."""
        self.stages: list[Stage] = []
        position, end = 0, 0
        for name, rows in stages:
            rollouts = max(1, len(rows) // prompts)
            end += rollouts * steps
            self.stages.append(Stage(name, np.array(rows), RowOrder(len(rows), shuffle, seed), position, end))
            position += rollouts * prompts
        count = sum(len(rows) for _, rows in stages)
        self.mixed = Stage("mixed", np.arange(count), RowOrder(count, shuffle, seed), position, math.inf)

    @property
    def ends(self) -> tuple[int, ...]:
        """Optimiser steps after which each stage is over."""
        return tuple(int(stage.end) for stage in self.stages)

    def stage_at(self, step: int) -> int:
        """Place of the stage that step 0, 1, ... belongs to; after the last it is their number.

        >>> order = Curriculum([("easy", range(8)), ("hard", range(8, 12))], prompts=4, steps=1)
        >>> [order.stage_at(step) for step in range(5)]
        [0, 0, 1, 2, 2]
        """
        return bisect.bisect_right(self.ends, step)

    def name_at(self, step: int) -> str:
        """What is at hand then, for the log: "stage 2 of 3 (hard)"."""
        k = self.stage_at(step)
        return f"stage {k + 1} of {len(self.stages)} ({self.stages[k].name})" if k < len(self.stages) else "the mix"

    def take(self, position: int, count: int, step: int) -> list[int]:
        """The rows at position, position + 1, ... of the stream, for a rollout after so many optimiser steps."""
        stage = [*self.stages, self.mixed][self.stage_at(step)]
        return [int(stage.rows[i]) for i in stage.order.take(position - stage.position, count)]

    def describe(self) -> str:
        """The stages and their ends in one line."""
        named = [f"{stage.name} ({len(stage.rows)} rows) to step {int(stage.end)}" for stage in self.stages]
        if len(named) > MOST_NAMED:
            named[MOST_NAMED - 2:-1] = [f"{len(named) - MOST_NAMED + 1} more"]
        return f"{', '.join(named)}, then all rows mixed"


def curriculum_of(stream: PromptStream, column: str, wanted: int | list | None = None, **options: Any) -> Curriculum:
    """The curriculum of a stream's rows by a column; wanted: see `stages`. options: those of Curriculum but its stages.

    Raises what `stages` raises. Says where a stage has fewer rows than a rollout."""
    found = stages(stream.values(column), column, wanted, stream.name)
    if len(found) == 1:
        warn(f"{stream.name}: every row has the {column} {found[0][0]}: a curriculum of one stage")
    prompts = options["prompts"]
    if short := [f"{name} ({len(rows)})" for name, rows in found if len(rows) < prompts]:
        warn(f"{stream.name}: fewer rows than the {prompts} prompts of a rollout, so that they repeat within it, has "
             f"stage {', '.join(short[:3])}{' ...' if len(short) > 3 else ''} of {column}")
    return Curriculum(found, **options)


def stages(values: Sequence[tuple[int, Any]], column: str, wanted: int | list | None = None,
           name: str = "train_dataset") -> list[tuple[str, list[int]]]:
    """The stages that a column's values make: (name, places in values), the easiest first.

    values: (row, value). wanted: None: every number of the column is a stage, the lowest first; a list: the values in
    their order; a number: so many stages of as many rows each, by the column's numbers. DatasetError, which names the
    row, for a row without a value, one that cannot be ordered or is not in the list, for a value in the list that no
    row has, and for fewer rows than stages.

    >>> stages([(0, 3), (1, 1), (2, 3)], "level")
    [('1', [1]), ('3', [0, 2])]
    >>> stages([(0, "hard"), (1, "easy")], "level", ["easy", "hard"])
    [('easy', [1]), ('hard', [0])]
    """
    for row, value in values:
        if value is None:
            raise DatasetError(f"{name}: row {row} has no {column!r}, by which curriculum orders the rows")
    if isinstance(wanted, list):
        return by_value(values, column, wanted, name)
    levels = [as_number(value, f"{name}: row {row}", column) for row, value in values]
    if wanted is not None:
        return of_equal_size(levels, wanted, name)
    order = sorted(set(levels))
    if len(order) > MOST_STAGES:
        raise DatasetError(f"{name}: {column!r} has {len(order)} different numbers, and each would be a stage; set "
                           "curriculum_stages to the number of stages that they are to make")
    places: dict[float, list[int]] = {level: [] for level in order}
    for place, level in enumerate(levels):
        places[level].append(place)
    return [(f"{level:g}", places[level]) for level in order]


def by_value(values: Sequence[tuple[int, Any]], column: str, order: list, name: str) -> list[tuple[str, list[int]]]:
    """A stage a value of the list."""
    places: dict[Any, list[int]] = {value: [] for value in order}
    for place, (row, value) in enumerate(values):
        try:
            places[value].append(place)
        except (KeyError, TypeError) as error:
            known = ", ".join(map(repr, order))
            raise DatasetError(f"{name}: row {row}: {column!r} is {value!r:.80}, which is none of curriculum_stages "
                               f"({known}){did_you_mean(str(value), map(str, order))}") from error
    if empty := [value for value in order if not places[value]]:
        raise DatasetError(f"{name}: no row has the {column} {empty[0]!r} of curriculum_stages")
    return [(f"{value:g}" if isinstance(value, float) else str(value), places[value]) for value in order]


def of_equal_size(levels: list[float], count: int, name: str) -> list[tuple[str, list[int]]]:
    """So many stages of as many rows each, but for one; rows of the same number stay in their order."""
    if count > len(levels):
        raise DatasetError(f"{name}: {len(levels)} rows do not make {count} stages; lower curriculum_stages")
    parts = np.array_split(np.argsort(levels, kind="stable"), count)
    return [(f"{levels[part[0]]:g} to {levels[part[-1]]:g}", sorted(part.tolist())) for part in parts]


def as_number(value: Any, where: str, column: str) -> float:
    """A difficulty, or DatasetError that begins with where."""
    try:
        number = float(value) if isinstance(value, numbers.Real) else math.nan
    except OverflowError:
        number = math.nan
    if not math.isfinite(number):
        raise DatasetError(f"{where}: {column!r} is {value!r:.80}, which has no place among numbers; set "
                           "curriculum_stages to the values of the column, the easiest first")
    return number
