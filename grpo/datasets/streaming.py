"""Prompts of rows that come one after another and have no length: a stream, which may have no end.

Rows are read as they are needed. They are shuffled within a window of WINDOW rows, as datasets.IterableDataset does it:
each row that comes takes the place of one that goes, which one is a function of the seed. So a position is all that a
checkpoint holds of a stream too; to go on from it the rows before it are read again and passed over.
"""
import itertools
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import DatasetError, warn
from .prompts import Prompt, PromptStream, checked_row, of_table

WINDOW = 1000                                # rows of which the next one is drawn
REMEMBERED = 4 * WINDOW                      # prompts that can be asked for again without reading again


class Stream:
    """Rows by their numbers, from the first on. What cannot be read twice is read once."""

    def __init__(self, dataset: Any, name: str) -> None:
        self.name, self._dataset, self._iterator = name, dataset, iter(dataset)
        self.first = list(itertools.islice(self._iterator, WINDOW))
        self._read = len(self.first)         # by self._iterator
        self._again = self._iterator is not dataset

    @property
    def has_ended(self) -> bool:
        """Whether the rows of self.first are all."""
        if len(self.first) < WINDOW:
            return True
        more = list(itertools.islice(self._iterator, 1))
        self._iterator = itertools.chain(more, self._iterator)
        return not more

    def rows(self, first: bool) -> Iterator[tuple[int, dict[str, Any]]]:
        """(number, row) of every row. first: they have not been asked for before. DatasetError where they cannot be
        read again."""
        if not first and not self._again:
            raise DatasetError(f"{self.name} is an iterator, which has been read and cannot be read again from its "
                               "beginning; give a data set, or a list")
        source = itertools.chain(self.first, self._iterator) if first else iter(self._dataset)
        for number, row in enumerate(source):
            checked_row(row, number, self.name)
            yield number, dict(row)


class StreamedPrompts(PromptStream):
    """Prompts of a stream, in an endless seeded order."""

    count = None

    def __init__(self, stream: Stream, *arguments: Any, **options: Any) -> None:
        """The other arguments are those of PromptStream."""
        self._stream = stream
        super().__init__(stream.first, *arguments, **options)
        self._recent: OrderedDict[int, Prompt] = OrderedDict()         # by position
        self._next, self._order_of_rows = 0, self._in_order(first=True)

    def take(self, position: int, count: int, step: int = 0) -> list[Prompt]:
        """The prompts at position, position + 1, ..."""
        return [self._at(position + i) for i in range(count)]

    def at_row(self, row: int) -> Prompt:
        """The prompt of one row, which may have to be read again. Raises what PromptStream.at_row raises."""
        for prompt in self._recent.values():
            if prompt.row == row:
                return prompt
        if row < len(self.rows):
            return super().at_row(row)
        for number, columns in self._stream.rows(first=False):
            if number == row:
                return self.prompt_of(row, columns)
        raise IndexError(row)

    def _at(self, position: int) -> Prompt:
        if position not in self._recent and position < self._next:
            self._next, self._order_of_rows = 0, self._in_order(first=False)
        while position not in self._recent:
            row, columns = next(self._order_of_rows)
            if self._next >= position - REMEMBERED // 2:               # those before are only passed over
                self._recent[self._next] = self.prompt_of(row, columns)
                while len(self._recent) > REMEMBERED:
                    self._recent.popitem(last=False)
            self._next += 1
        return self._recent[position]

    def _in_order(self, first: bool) -> Iterator[tuple[int, dict[str, Any]]]:
        """(number, row) of the rows that are trained on, without end: the stream again and again."""
        for again in itertools.count():
            words = np.random.Philox(key=np.array([self.seed, again], np.uint64))
            window: list[tuple[int, dict[str, Any]]] = []
            number = -1
            for number, columns in self._stream.rows(first and not again):
                if not self._kept_of_stream(number, columns):
                    continue
                if self.shuffle and len(window) < WINDOW:
                    window.append((number, columns))
                elif self.shuffle:
                    place = int(words.random_raw()) % WINDOW
                    yield window[place]
                    window[place] = number, columns
                else:
                    yield number, columns
            if number < 0:
                raise DatasetError(f"{self.name} gives no rows when it is read again from its beginning")
            while window:
                yield window.pop(int(words.random_raw()) % len(window))

    def _kept_of_stream(self, number: int, columns: dict[str, Any]) -> bool:
        """Whether a row is trained on: those of the first window were looked at before, and what is left out of the
        others is said once."""
        if number < len(self.rows):
            return number in self._kept_numbers
        before = len(self.long_rows) + len(self.bad_rows)
        kept = not self.is_doubtful(columns) or self._keeps(number, columns, self.on_bad)
        left_out = not kept and not before
        if left_out:
            warn(f"{self.name}: row {number} is left out, as longer than {self.limit} tokens or unreadable; others may "
                 "be too")
        return kept


def stream_of(dataset: Any, name: str) -> Stream | None:
    """The stream that a data set is; None where it has a length, is a table, or is none at all."""
    if dataset is None or isinstance(dataset, (str, bytes, dict)) or hasattr(dataset, "__fspath__"):
        return None
    if hasattr(dataset, "__len__") or of_table(dataset) is not dataset or not hasattr(dataset, "__iter__"):
        return None
    return Stream(dataset, name)
