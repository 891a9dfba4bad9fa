"""GSM8K: 7,473 train and 1,319 test word problems of grade-school arithmetic (Cobbe et al. 2021)."""
import functools
import re
from pathlib import Path
from typing import Any

from ..errors import DatasetError
from . import files, hub
from .layout import check_examples, solved, with_examples


def load(split: str = "train", *, path: str | None = None, size: int | None = None, system_prompt: str | None = None,
         examples: int = 0) -> list[dict[str, Any]]:
    """Rows {prompt, question, answer, solution}: answer is the number after ####, solution all of it.

    path: a folder with train.jsonl and test.jsonl; None: openai/gsm8k from the hub. examples: the first so many
    problems of train, solved in the XML layout, are shown before each question and not asked; for models that do not
    know the layout.
    """
    if path is not None:
        read = functools.partial(files.read, Path(path))
    else:
        read = functools.partial(hub.read, "openai/gsm8k", config="main")
    check_examples(examples)
    skipped = examples if split == "train" else 0
    rows = checked(read(split, size=None if size is None else size + skipped, system_prompt=system_prompt), path, split)
    first = rows[:skipped]
    if examples and not skipped:
        first = checked(read("train", size=examples, system_prompt=system_prompt), path, "train")
    shown = [message for row in first for message in solved(row["question"], reasoning(row), row["answer"])]
    rows = rows[skipped:]
    for row in rows:
        row["prompt"] = with_examples(row["prompt"], shown)
    return rows


def checked(rows: list[dict[str, Any]], path: str | None, split: str) -> list[dict[str, Any]]:
    """The rows; DatasetError for one whose answer is not a solution and a number."""
    for number, row in enumerate(rows, 1):
        if "solution" not in row or not re.fullmatch(r"-?\d+(\.\d+)?", row["answer"]):
            found = row.get("solution", row.get("answer"))
            raise DatasetError(f"{path or 'openai/gsm8k'}, split {split}: row {number}: the answer is no solution that "
                               f"ends in #### and a number: ...{str(found)[-60:]!r}")
    return rows


def reasoning(row: dict[str, Any]) -> str:
    """The solution without the calculator's <<...>> and the answer's line."""
    return re.sub(r"<<.*?>>", "", row["solution"].rpartition("####")[0]).strip()
