"""GSM8K: 7,473 train and 1,319 test word problems of grade-school arithmetic (Cobbe et al. 2021)."""
from pathlib import Path
from typing import Any

from . import files, hub


def load(split: str = "train", *, path: str | None = None, size: int | None = None, system_prompt: str | None = None) -> list[dict[str, Any]]:
    """Rows {prompt, question, answer, solution}: answer is the number after ####, solution all of it.

    path: a folder with train.jsonl and test.jsonl; None: openai/gsm8k from the hub.
    """
    if path is not None:
        return files.read(Path(path), split, size=size, system_prompt=system_prompt)
    return hub.read("openai/gsm8k", split, config="main", size=size, system_prompt=system_prompt)
