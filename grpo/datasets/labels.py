"""Rows of tables made for classifying: an image and a class's number, without a question."""
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..errors import ConfigError, DatasetError
from .layout import QUESTION_COLUMNS

ASKING = ("prompt", *QUESTION_COLUMNS, "conversations")
ANSWERING = ("answer", "solution")


def with_names(rows: Iterable[Any], features: Any, columns: Mapping[str, str] | None, where: str) -> Iterable[Any]:
    """The rows of a table of the datasets library, whose class numbers have names: {answer: the name, classes: all of
    them} besides. That is of the column which columns gives the name answer, or of the only one with classes where
    there is no answer. Other tables stay as they are."""
    known = {name: list(feature.names) for name, feature in features.items()
             if type(feature).__name__ == "ClassLabel"} if isinstance(features, Mapping) else {}
    chosen = (columns or {}).get("answer")
    if chosen is None and len(known) == 1 and not any(name in features for name in ANSWERING):
        return named(rows, next(iter(known)), "answer", next(iter(known.values())), where)
    return named(rows, chosen, chosen, known[chosen], where) if chosen is not None and chosen in known else rows


def named(rows: Iterable[Any], column: str, target: str, names: list[str], where: str) -> Iterator[dict[str, Any]]:
    """The rows with the names of the numbers in column."""
    for number, row in enumerate(rows):
        label = row[column]
        if not isinstance(label, int) or not 0 <= label < len(names):
            raise DatasetError(f"{where}: row {number}: {column!r} is {label!r}, and there are {len(names)} classes")
        yield {**row, target: names[label], "classes": names}


def asked(rows: Iterable[Any], question: str | None) -> Iterable[Any]:
    """The rows, those that ask nothing with this question; {classes} in it stands for the row's classes."""
    if question is None:
        return rows
    if not isinstance(question, str) or not question.strip():
        raise ConfigError(f"question={question!r} must be a text")
    return (row if not isinstance(row, Mapping) or any(row.get(name) for name in ASKING) else
            {**row, "question": question.replace("{classes}", ", ".join(row.get("classes") or ["{classes}"]))}
            for row in rows)
