"""GSM8K: 7,473 train and 1,319 test word problems of grade-school arithmetic (Cobbe et al. 2021)."""
import functools
import re
from pathlib import Path
from typing import Any

from . import files, hub
from .layout import solved, with_examples


def load(split: str = "train", *, path: str | None = None, size: int | None = None, system_prompt: str | None = None,
         examples: int = 0) -> list[dict[str, Any]]:
    """Rows {prompt, question, answer, solution}: answer is the number after ####, solution all of it.

    path: a folder with train.jsonl and test.jsonl; None: openai/gsm8k from the hub. examples: the first so many problems of
    train, solved in the XML layout, are shown before each question and not asked; for models that do not know the layout.
    """
    read = functools.partial(files.read, Path(path)) if path is not None else functools.partial(hub.read, "openai/gsm8k", config="main")
    skipped = examples if split == "train" else 0
    rows = read(split, size=None if size is None else size + skipped, system_prompt=system_prompt)
    first = rows[:skipped] if skipped or not examples else read("train", size=examples, system_prompt=system_prompt)
    shown = [message for row in first for message in solved(row["question"], reasoning(row), row["answer"])]
    rows = rows[skipped:]
    for row in rows:
        row["prompt"] = with_examples(row["prompt"], shown)
    return rows


def reasoning(row: dict[str, Any]) -> str:
    """The solution without the calculator's <<...>> and the answer's line."""
    return re.sub(r"<<.*?>>", "", row["solution"].rpartition("####")[0]).strip()
