"""The prompts of a run: rows of a data set, checked, encoded, in an endless seeded order."""
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DatasetError, did_you_mean

TEMPLATE_COLUMNS = ("tools", "chat_template_kwargs")      # what a row gives its chat template, beside the prompt
UNSEEN = {"image": "no model here sees images", "images": "no model here sees images",
          "environment": "environments are not supported"}   # columns with a meaning in TRL that is not there yet


MAX_BITS = 4096                              # of a number in a row: 1,233 decimal digits
MAX_ROW = 1_000_000                          # values in a row


@dataclass(frozen=True)
class Prompt:
    """A prompt as the data set has it, its token ids, its row, and the row's other columns."""

    row: int
    prompt: Any
    ids: NDArray[np.int32]
    columns: dict[str, Any]


class RowOrder:
    """Row numbers without end. The one at position k is a function of (seed, k) alone, so a position is all that a
    checkpoint holds of it."""

    def __init__(self, count: int, shuffle: bool, seed: int):
        self.count, self.shuffle, self.seed = count, shuffle, seed
        self._epoch, self._order = -1, np.arange(count)

    def take(self, position: int, count: int) -> list[int]:
        """The rows at position, position + 1, ..."""
        return [self._at(position + i) for i in range(count)]

    def _at(self, position: int) -> int:
        epoch, index = divmod(position, self.count)
        if self.shuffle and self._epoch != epoch:
            # sorted raw Philox words: the same order under every NumPy, unlike Generator.permutation
            words = np.random.Philox(key=np.array([self.seed, epoch], np.uint64)).random_raw(self.count)
            self._epoch, self._order = epoch, np.argsort(words, kind="stable")
        return int(self._order[index])


class PromptStream:
    """Prompts of a data set without end, in a seeded order."""

    def __init__(self, dataset: Any, encode: Callable[..., NDArray[np.int32]], *, limit: int, on_long: str = "raise",
                 shuffle: bool = False, seed: int = 0, name: str = "train_dataset"):
        """encode: token ids of a prompt; where a row has TEMPLATE_COLUMNS they are its keyword arguments."""
        self.rows, self.encode = read_rows(dataset, name), encode
        self.limit, self.on_long, self.name = limit, on_long, name
        for unseen, why in UNSEEN.items():
            for row in rows_with(self.rows, unseen):
                raise DatasetError(f"{name}: row {row} has {unseen!r}: {why}; leave the column out")
        # a token is at least a byte of text, so most rows need no encoding to be known to fit
        doubtful = {row for row, prompt in enumerate(column(self.rows, "prompt")) if text_bytes(prompt) > limit}
        doubtful.update(row for shown in TEMPLATE_COLUMNS for row in rows_with(self.rows, shown))
        dropped = {row for row in doubtful if self._too_long(row)} if on_long == "drop" else set()
        self._kept = [row for row in range(len(self.rows)) if row not in dropped]
        if not self._kept:
            raise DatasetError(f"{name}: every prompt is longer than the limit of {limit} tokens")
        self._order = RowOrder(len(self._kept), shuffle, seed)
        if on_long == "raise":
            for row in sorted(doubtful):
                self.at_row(row)

    def __len__(self) -> int:
        return len(self._kept)

    def take(self, position: int, count: int) -> list[Prompt]:
        """The prompts at position, position + 1, ..."""
        return [self.at_row(self._kept[i]) for i in self._order.take(position, count)]

    def at_row(self, row: int) -> Prompt:
        """The prompt of one row. Raises DatasetError naming the row where it cannot be encoded, is empty, or is too
        long."""
        columns = dict(self.rows[row])
        prompt = columns.pop("prompt", None)
        ids = self._encoded(row, prompt, columns)
        if len(ids) > self.limit:
            if self.on_long != "truncate":
                raise DatasetError(f"{self.name}: the prompt of row {row} has {len(ids)} tokens, the limit is "
                                   f"{self.limit}; raise max_prompt_length, or set on_long_prompt to 'drop' or "
                                   "'truncate'")
            ids = ids[-self.limit:]
        return Prompt(row, prompt, ids, columns)

    def _encoded(self, row: int, prompt: Any, columns: Mapping[str, Any]) -> NDArray[np.int32]:
        shown = {name: columns[name] for name in TEMPLATE_COLUMNS if columns.get(name) is not None}
        try:
            ids = np.asarray(self.encode(prompt, **shown), np.int32)
        except (TypeError, ValueError, KeyError) as error:
            raise DatasetError(f"{self.name}: the prompt of row {row} cannot be encoded: {error}") from error
        if ids.ndim != 1 or not len(ids):
            raise DatasetError(f"{self.name}: the prompt of row {row} is empty")
        return ids

    def _too_long(self, row: int) -> bool:
        columns = self.rows[row]
        return len(self._encoded(row, columns["prompt"], columns)) > self.limit


def column(rows: Any, name: str) -> Any:
    """One column of a data set; datasets.Dataset reads it without the others."""
    return rows[name] if hasattr(rows, "column_names") else (row[name] for row in rows)


def rows_with(rows: Any, name: str) -> Iterator[int]:
    """The rows in which a column, that need not be there, is not None."""
    names = getattr(rows, "column_names", None)
    values = (row.get(name) for row in rows) if names is None else rows[name] if name in names else ()
    return (row for row, value in enumerate(values) if value is not None)


def check_written(value: Any, where: str) -> None:
    """DatasetError for a text that UTF-8 cannot write, or a number that Python does not spell, in a row or deeper in
    it: a run would find them when it writes down what came of the row."""
    pending, left = [value], MAX_ROW
    while pending:
        item = pending.pop()
        left -= 1
        if left < 0:
            raise DatasetError(f"{where} holds more than {MAX_ROW} values, or itself")
        if isinstance(item, str):
            if not item.isascii():
                try:
                    item.encode()
                except UnicodeEncodeError as error:
                    raise DatasetError(f"{where}: the text {item!r:.80} holds half a surrogate pair, which UTF-8 "
                                       "cannot write") from error
        elif isinstance(item, int):
            if item.bit_length() > MAX_BITS:
                raise DatasetError(f"{where}: a number of {item.bit_length()} bits is over the limit of {MAX_BITS}")
        elif isinstance(item, Mapping):
            pending += [*item.keys(), *item.values()]
        elif isinstance(item, (list, tuple)):
            pending += (max(item), min(item)) if set(map(type, item)) == {int} else item


def text_bytes(prompt: Any) -> int:
    """UTF-8 bytes of a prompt's text; for token ids their number."""
    if prompt is None:
        return 0
    if isinstance(prompt, str):
        return len(prompt.encode(errors="surrogatepass"))
    return sum(len(str(m.get("content", "")).encode(errors="surrogatepass")) if isinstance(m, Mapping) else 1
               for m in prompt)


def content_key(prompt: Any) -> bytes:
    """A hash of what a prompt asks: its text, or that of the last user message, but for case and spaces; or its token
    ids."""
    if not isinstance(prompt, str):
        prompt = list(prompt)
        asked = [m for m in prompt if isinstance(m, Mapping) and m.get("role") == "user"] or prompt[-1:]
        prompt = str(asked[-1].get("content")) if asked and isinstance(asked[-1], Mapping) else str(prompt)
    return hashlib.blake2b(" ".join(prompt.split()).casefold().encode(errors="surrogatepass"), digest_size=16).digest()


def overlap(train: Any, held_out: Any) -> str:
    """Which rows of held_out ask what rows of train ask, as a sentence; empty when none do.

    >>> overlap([{"prompt": "2 + 2?"}], [{"prompt": "1 + 1?"}, {"prompt": "2  + 2?"}])[:68]
    '1 of 2 rows of evaluation are trained on: row 1 (row 0 of training);'
    """
    seen: dict[bytes, int] = {}
    for row, prompt in enumerate(column(train, "prompt")):
        seen.setdefault(content_key(prompt), row)
    keys = [content_key(prompt) for prompt in column(held_out, "prompt")]
    found = [f"row {row} (row {seen[key]} of training)" for row, key in enumerate(keys) if key in seen]
    if not found:
        return ""
    shown = ", ".join([*found[:3], *["..."] * (len(found) > 3)])
    return (f"{len(found)} of {len(keys)} rows of evaluation are trained on: {shown}; "
            "what is measured on them is not what was learned in general")


def of_table(dataset: Any) -> Any:
    """Rows of a table of pandas, polars or pyarrow (what is missing there is None); anything else as it is."""
    if hasattr(dataset, "notna"):
        return dataset.astype(object).where(dataset.notna(), None).to_dict("records")
    for method in ("to_dicts", "to_pylist"):
        if hasattr(dataset, method):
            return getattr(dataset, method)()
    return dataset


def read_rows(dataset: Any, name: str, needs: Sequence[str] = ("prompt",)) -> Any:
    """The data set as a sequence of dict rows that have all columns of needs. Sequences (datasets.Dataset too) are used
    as they are, other iterables are read to their end. Raises DatasetError that names the row."""
    if dataset is None:
        raise DatasetError(f"{name} is missing: give a sequence of rows like {{'prompt': ..., 'answer': ...}}")
    if isinstance(dataset, (str, bytes)) or hasattr(dataset, "__fspath__"):
        raise DatasetError(f"{name}={dataset!r} is a name, not rows; load it with grpo.datasets.load")
    if isinstance(dataset, Mapping):
        raise DatasetError(f"{name} is a mapping of {', '.join(map(str, list(dataset)[:5]))}; give one split of it, a "
                           "sequence of rows")
    dataset = of_table(dataset)
    rows = dataset if hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__") else list(dataset)
    if len(rows) == 0:
        raise DatasetError(f"{name} is empty")
    columns = getattr(rows, "column_names", None)
    for number, row in enumerate([dict.fromkeys(columns, "")] if columns else rows):
        if not isinstance(row, Mapping):
            raise DatasetError(f"{name}: row {number} is {type(row).__name__}, not a dict")
        if not columns:                      # a table's texts are UTF-8, its numbers of 64 bits
            check_written(row, f"{name}: row {number}")
        for column in needs:
            if column in row and row[column] is None:
                raise DatasetError(f"{name}: row {number}: {column!r} is None")
            if column not in row:
                raise DatasetError(f"{name}: row {number} has no {column!r}{did_you_mean(column, row)} "
                                   f"Its columns are {', '.join(map(str, row))}.")
    return rows
