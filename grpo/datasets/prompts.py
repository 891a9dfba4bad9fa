"""The prompts of a run: rows of a data set, checked, encoded, in an endless seeded order."""
import functools
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import DatasetError, ImageError, did_you_mean, warn
from ..vision.messages import COLUMNS as IMAGE_COLUMNS, given_images, is_nothing, normal
from .pictures import columns_of, picture_key, pictures_in

TEMPLATE_COLUMNS = ("tools", "chat_template_kwargs")      # what a row gives its chat template, beside the prompt
BESIDE = (*TEMPLATE_COLUMNS, *IMAGE_COLUMNS)
SKIP_ADVICE = "; on_bad_row='skip' leaves such rows out"
UNSEEN = {"environment": "environments are not supported"}     # columns with a meaning in TRL that is not there yet

MAX_BITS = 4096                              # of a number in a row: 1,233 decimal digits
MOST_HASHED = 20_000
MOST_READ = 100_000                          # rows of what says no length
MAX_ROW = 1_000_000                          # values in a row


@dataclass(frozen=True)
class Prompt:
    """A prompt, its token ids, its row, the row's other columns, and its images in the order of their places.

    The prompt is as the data set has it; one with images is in the normal form of grpo.vision.messages. Images are as
    they were given: nothing is decoded."""

    row: int
    prompt: Any
    ids: NDArray[np.int32]
    columns: dict[str, Any]
    images: list[Any] = field(default_factory=list)


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
            key = np.array([self.seed, epoch % (1 << 64)], np.uint64)        # an epoch before 0 is one, too
            words = np.random.Philox(key=key).random_raw(self.count)
            self._epoch, self._order = epoch, np.argsort(words, kind="stable")
        return int(self._order[index])


class Stages(Protocol):
    """An order of rows that goes by optimiser steps too (curriculum.py)."""

    def take(self, position: int, count: int, step: int) -> list[int]:
        """The rows at position, position + 1, ..."""


class PromptStream:
    """Prompts of a data set without end, in a seeded order."""

    def __init__(self, dataset: Any, encode: Callable[..., NDArray[np.int32]], *, limit: int, on_long: str = "raise",
                 shuffle: bool = False, seed: int = 0, name: str = "train_dataset", sees_images: bool = False,
                 model: str = "the model", image_token: int | None = None, on_bad: str = "raise"):
        """encode: token ids of a prompt; where a row has TEMPLATE_COLUMNS they are its keyword arguments, and where it
        has images they are its argument images. It need not decode them: their sizes say how many tokens they are.
        model: what errors call it. image_token: the id that stands for images, of which self.most_shown counts the most
        of a prompt, and of images. on_bad: "skip" leaves out rows whose images cannot be read, all of which are then
        read here once; they are in self.bad_rows. Rows that are longer than the limit are in self.long_rows."""
        self.rows, self.encode = read_rows(dataset, name), encode
        self.bad_rows: list[int] = []
        self.long_rows: list[int] = []
        self._first_bad = ""
        self.limit, self.on_long, self.name, self.sees_images = limit, on_long, name, sees_images
        self.shuffle, self.seed, self.on_bad = shuffle, seed, on_bad
        self.model, self.image_token, self.most_shown = model, image_token, (0, 0)
        for unseen, why in UNSEEN.items():
            for row in rows_with(self.rows, unseen):
                raise DatasetError(f"{name}: row {row} has {unseen!r}: {why}; leave the column out")
        dropped = {row for row, columns in self._doubtful() if not self._keeps(row, columns, on_bad)}
        self._kept = [row for row in range(len(self.rows)) if row not in dropped]
        self._kept_numbers = frozenset(self._kept)
        if self.bad_rows:
            warn(f"{name}: {len(self.bad_rows)} of {len(self.rows)} rows are skipped (on_bad_row='skip'), the first of "
                 f"them: {self._first_bad}")
        if self.long_rows and self._kept:
            done = "left out" if on_long == "drop" else f"cut to their last {limit} tokens"
            warn(f"{name}: {len(self.long_rows)} of {len(self.rows)} rows are {done} (on_long_prompt={on_long!r}, "
                 f"longer than {limit} tokens), the first of them row {self.long_rows[0]}")
        if not self._kept:
            raise DatasetError(f"{name}: every prompt is longer than the limit of {limit} tokens" if not self.bad_rows
                               else f"{name}: every row is skipped or longer than the limit of {limit} tokens")
        self._order = RowOrder(len(self._kept), shuffle, seed)
        self.stages: Stages | None = None    # a curriculum, which goes before the order

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def count(self) -> int | None:
        """How many prompts there are; None where that is not known (streaming.py)."""
        return len(self._kept)

    def take(self, position: int, count: int, step: int = 0) -> list[Prompt]:
        """The prompts at position, position + 1, ... step: optimiser steps taken so far, which decide the stage of a
        curriculum."""
        places = (self._order.take(position, count) if self.stages is None
                  else self.stages.take(position, count, step))
        return [self.at_row(self._kept[i]) for i in places]

    @functools.cached_property
    def digest(self) -> str | None:
        """A hash of the rows: of their texts, numbers and what they hold of these. Of more than MOST_HASHED rows so
        many, evenly spread, count. None where rows are made anew each time that they are read."""
        if isinstance(self.rows, Transformed):
            return None
        count = len(self._kept)
        chosen = self._kept if count <= MOST_HASHED else [self._kept[i * count // MOST_HASHED]
                                                          for i in range(MOST_HASHED)]
        digest, among = hashlib.blake2b(digest_size=16), set(chosen)
        names = tuple(getattr(self.rows, "column_names", None) or ())
        rows = columns_of(self.rows, names) if names else self.rows          # images as they are stored
        for row, columns in enumerate(rows):
            if row in among:
                digest.update(written(columns).encode(errors="surrogatepass") + b"\0")
        return digest.hexdigest()

    def values(self, column: str) -> list[tuple[int, Any]]:
        """(row, value of a column) of every prompt; None where a row has none."""
        if column not in getattr(self.rows, "column_names", (column,)):
            return [(row, None) for row in self._kept]
        values = [columns[column] for columns in columns_of(self.rows, (column,))]
        return [(row, values[row]) for row in self._kept]

    def at_row(self, row: int) -> Prompt:
        """The prompt of one row. Raises DatasetError naming the row where it cannot be encoded, is empty, or is too
        long."""
        return self.prompt_of(row, dict(self.rows[row]))

    def prompt_of(self, row: int, columns: dict[str, Any]) -> Prompt:
        """The prompt of a row with these columns. Raises what at_row raises."""
        prompt, images, ids = self._encoded(row, columns)
        self._check_length(row, len(ids), bool(images))
        return Prompt(row, prompt, ids[-self.limit:],
                      {name: value for name, value in columns.items() if name != "prompt"}, images)

    def _check_length(self, row: int, tokens: int, has_images: bool) -> None:
        """DatasetError for more tokens than the limit, where they may not be cut off."""
        if tokens > self.limit and (self.on_long != "truncate" or has_images):
            raise DatasetError(f"{self.name}: the prompt of row {row} has {tokens} tokens, the limit is {self.limit}; "
                               "raise max_prompt_length, or set on_long_prompt to 'drop'" +
                               (", or show smaller images; one with images is not truncated" if has_images else
                                " or 'truncate'"))

    def _encoded(self, row: int, columns: Mapping[str, Any]) -> tuple[Any, list[Any], NDArray[np.int32]]:
        """(prompt in normal form, images, ids)"""
        shown = {name: columns[name] for name in TEMPLATE_COLUMNS if columns.get(name) is not None}
        where = f"{self.name}: row {row}"
        for name in IMAGE_COLUMNS:
            if not self.sees_images and not is_nothing(columns.get(name)):
                raise DatasetError(f"{where} has {name!r}: {self.model} sees no images; leave the column out")
        try:
            prompt, images = normal(columns.get("prompt"), given_images(columns, where), where)
        except ImageError as error:
            raise DatasetError(str(error)) from error
        if images and not self.sees_images:
            raise DatasetError(f"{where} has images in its messages: {self.model} sees no images")
        try:
            ids = np.asarray(self.encode(prompt, **shown, **({"images": images} if images else {})), np.int32)
        except (TypeError, ValueError, KeyError) as error:
            advice = SKIP_ADVICE if isinstance(error, ImageError) else ""
            raise DatasetError(f"{self.name}: the prompt of row {row} cannot be encoded: {error}{advice}") from error
        if ids.ndim != 1 or not len(ids):
            raise DatasetError(f"{self.name}: the prompt of row {row} is empty")
        return prompt, images, ids

    def _doubtful(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """The rows that may be too long. A token is at least a byte of text, so most need no encoding to be known to
        fit; of images only their sizes say how many they are."""
        for row, columns in enumerate(columns_of(self.rows, ("prompt", *BESIDE))):
            if self.is_doubtful(columns):
                yield row, columns

    def is_doubtful(self, columns: Mapping[str, Any]) -> bool:
        """Whether a row may be too long, as far as can be told without encoding it."""
        return (text_bytes(columns["prompt"]) > self.limit or any(columns.get(name) is not None for name in BESIDE)
                or in_parts(columns["prompt"]))

    def _keeps(self, row: int, columns: dict[str, Any], on_bad: str) -> bool:
        """Whether a row is among the prompts; DatasetError where it cannot be, and is not to be left out."""
        try:
            _, images, ids = self._encoded(row, columns)
            if on_bad == "skip":
                self._read_all(images, row)
        except DatasetError as error:
            if on_bad != "skip" or not isinstance(error.__cause__, ImageError):
                raise
            self._first_bad = self._first_bad or str(error).removeprefix(f"{self.name}: ").removesuffix(SKIP_ADVICE)
            self.bad_rows.append(row)
            return False
        if self.on_long == "drop" and len(ids) > self.limit:
            self.long_rows.append(row)
            return False
        self._check_length(row, len(ids), bool(images))
        if len(ids) > self.limit:
            self.long_rows.append(row)
        if images and self.image_token is not None:
            tokens, most = self.most_shown
            self.most_shown = max(tokens, int((ids == self.image_token).sum())), max(most, len(images))
        return True

    def _read_all(self, images: list[Any], row: int) -> None:
        from ..vision.decode import read_image

        for i, image in enumerate(images):
            try:
                read_image(image, f"{self.name}: row {row}: image {i}")
            except ImageError as error:
                raise DatasetError(str(error)) from error


def written(value: Any) -> str:
    """A value of a row as text that is the same in every process; of what has none, as an image, its type."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{k}:{written(v)}" for k, v in sorted(value.items(), key=str)) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(written, value)) + "]"
    if value is None or isinstance(value, (str, bytes, int, float)):
        return repr(value)
    return type(value).__name__


def rows_with(rows: Any, name: str) -> Iterator[int]:
    """The rows in which a column, that need not be there, is not None."""
    if name not in getattr(rows, "column_names", (name,)):
        return iter(())
    return (row for row, columns in enumerate(columns_of(rows, (name,))) if columns[name] is not None)


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
    return sum(len(asked_text(m.get("content", "")).encode(errors="surrogatepass")) if isinstance(m, Mapping) else 1
               for m in prompt)


def asked_text(content: Any) -> str:
    """The text of a message's content, without its images."""
    if not isinstance(content, list):
        return str(content)
    texts = [str(part.get("text") or "") if isinstance(part, Mapping) else str(part) for part in content]
    return " ".join(text for text in texts if text)


def in_parts(prompt: Any) -> bool:
    """Whether a prompt has messages in parts, which may be images."""
    return isinstance(prompt, (list, tuple)) and any(isinstance(m, Mapping) and isinstance(m.get("content"), list)
                                                     for m in prompt)


def content_key(prompt: Any, images: Iterable[Any] = ()) -> bytes:
    """A hash of what a prompt asks: its text, or that of the last user message, but for case and spaces; or its token
    ids. Of images, there or beside it, what tells them from others."""
    shown = list(images)
    if not isinstance(prompt, str):
        prompt = list(prompt)
        asked = [m for m in prompt if isinstance(m, Mapping) and m.get("role") == "user"] or prompt[-1:]
        content = asked[-1].get("content") if asked and isinstance(asked[-1], Mapping) else str(prompt)
        prompt, shown = asked_text(content), pictures_in(content) + shown
    key = "\0".join([" ".join(prompt.split()).casefold(), *map(picture_key, shown)])
    return hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=16).digest()


def row_key(row: Mapping[str, Any]) -> bytes:
    """content_key of a row's prompt and images."""
    return content_key(row["prompt"], [row[name] for name in IMAGE_COLUMNS if row.get(name) is not None])


def overlap(train: Any, held_out: Any) -> str:
    """Which rows of held_out ask what rows of train ask, as a sentence; empty when none do.

    >>> overlap([{"prompt": "2 + 2?"}], [{"prompt": "1 + 1?"}, {"prompt": "2  + 2?"}])[:68]
    '1 of 2 rows of evaluation are trained on: row 1 (row 0 of training);'
    """
    seen: dict[bytes, int] = {}
    for row, columns in enumerate(columns_of(train, ("prompt", *IMAGE_COLUMNS))):
        seen.setdefault(row_key(columns), row)
    keys = [row_key(columns) for columns in columns_of(held_out, ("prompt", *IMAGE_COLUMNS))]
    found = [f"row {row} (row {seen[key]} of training)" for row, key in enumerate(keys) if key in seen]
    if not found:
        return ""
    shown = ", ".join([*found[:3], *["..."] * (len(found) > 3)])
    return (f"{len(found)} of {len(keys)} rows of evaluation are trained on: {shown}; "
            "what is measured on them is not what was learned in general")


class Transformed(Sequence[Any]):
    """The rows of a datasets.Dataset as its transform makes them when they are read, which is more than once: columns
    and images are not read apart from the rest."""

    def __init__(self, rows: Any):
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: Any) -> Any:
        return self._rows[row]


class MapStyle(Transformed):
    """Rows of what only has __len__ and __getitem__, as torch's Dataset: it ends at its length, with or without an
    IndexError."""

    def __getitem__(self, row: Any) -> Any:
        if not isinstance(row, int) or not 0 <= row < len(self):
            raise IndexError(row)
        return self._rows[row]


def of_table(dataset: Any) -> Any:
    """Rows of a table of pandas, polars or pyarrow (what is missing there is None), or of a datasets.Dataset with a
    transform, or in a format of its own, which is left out; anything else as it is."""
    if type(dataset).__name__ == "LazyFrame" and hasattr(dataset, "collect"):
        dataset = dataset.collect()          # polars: what is asked of it is computed now
    form = getattr(dataset, "format", None)
    if isinstance(form, Mapping) and form.get("type") is not None and hasattr(dataset, "with_format"):
        return Transformed(dataset) if form["type"] == "custom" else dataset.with_format(None)
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
    rows = with_length(of_table(dataset), name)
    if len(rows) == 0:
        raise DatasetError(f"{name} is empty")
    columns = getattr(rows, "column_names", None)
    for number, row in enumerate([dict.fromkeys(columns, "")] if columns else rows):
        checked_row(row, number, name, needs, of_table=bool(columns))
    return rows


def with_length(dataset: Any, name: str) -> Any:
    """The data set as a sequence: itself, or the rows of an iterable, of which no more than MOST_READ are read.
    DatasetError for what cannot be iterated over, and for more rows than that."""
    if hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__"):
        known = isinstance(dataset, Sequence) or hasattr(dataset, "column_names")
        return dataset if known else MapStyle(dataset)
    try:
        rows = list(itertools.islice(dataset, MOST_READ + 1))
    except TypeError as error:
        raise DatasetError(f"{name} is {type(dataset).__name__}, which is no data set: {error}") from error
    if len(rows) > MOST_READ:
        raise DatasetError(f"{name} says no length and has no end within {MOST_READ:,} rows; give as many as are "
                           "meant: dataset.take(n), or list(itertools.islice(rows, n))" +
                           ("; with max_steps GRPOTrainer streams text" if name == "train_dataset" else ""))
    return rows


def checked_row(row: Any, number: int, name: str, needs: Sequence[str] = ("prompt",), of_table: bool = False) -> None:
    """DatasetError, naming it, for a row that is no dict or lacks a column. of_table: its texts are UTF-8, its numbers
    of 64 bits."""
    if not isinstance(row, Mapping):
        raise DatasetError(f"{name}: row {number} is {type(row).__name__}, not a dict")
    if not of_table:
        check_written(row, f"{name}: row {number}")
    for column in needs:
        if column in row and row[column] is None:
            raise DatasetError(f"{name}: row {number}: {column!r} is None")
        if column not in row:
            raise DatasetError(f"{name}: row {number} has no {column!r}{did_you_mean(column, row)} "
                               f"Its columns are {', '.join(map(str, row))}." +
                               (" grpo.datasets.load(rows) makes prompts of questions."
                                if column == "prompt" and "question" in row else ""))
