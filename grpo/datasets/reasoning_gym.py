"""Tasks of the reasoning-gym package (pip install 'cgrpo[gym]'), made up on the spot: "reasoning_gym:leg_counting".

An entry is held out when the hash of its question says so. reasoning_gym_reward scores answers as the task does.
"""
import itertools
from typing import Any

from ..errors import ConfigError, DatasetError, did_you_mean
from .layout import chat
from .procedural import distinct, held_out
from .splits import check_split

HELD_OUT = 5                                 # one entry in so many
ENTRIES = 20000                              # that a task is asked for, at most
SIZE = 500                                   # rows when no size is given


def load(split: str = "train", *, task: str, size: int | None = None, seed: int = 0, system_prompt: str | None = "xml",
         **config: Any) -> list[dict[str, Any]]:
    """Rows {prompt, question, answer, task, entry}; entry is what the task's scorer wants. size: that many rows, as
    long as the task has different ones. config: options of the task."""
    check_split(split, ("train", "test"), f"reasoning_gym:{task}")
    entries = iter(made(task, seed, config))

    def draw() -> dict[str, Any] | None:
        entry = next(entries, None)
        return entry if entry is not None and held_out(entry["question"], HELD_OUT) == (split == "test") else None

    try:
        found = list(itertools.islice(distinct(draw), SIZE if size is None else size))
    except Exception as error:                             # a task raises whatever its parts raise
        raise DatasetError(f"reasoning_gym:{task}: {type(error).__name__}: {error}") from error
    return [{"prompt": chat(entry["question"], system_prompt), "question": entry["question"], "answer": entry["answer"],
             "task": task, "entry": entry}
            for entry in found]


def made(task: str, seed: int, config: dict[str, Any]) -> Any:
    """The task's data set."""
    factory = library().factory
    if task not in factory.DATASETS:
        raise ConfigError(f"reasoning_gym has no task {task!r}{did_you_mean(task, factory.DATASETS)}")
    try:
        return factory.create_dataset(task, seed=seed, size=ENTRIES, **config)
    except (TypeError, ValueError, AssertionError) as error:
        raise ConfigError(f"reasoning_gym:{task}: {error}") from error


def library() -> Any:
    """The package reasoning_gym; DatasetError where it is not installed."""
    try:
        import reasoning_gym
    except ImportError as error:
        raise DatasetError("tasks of reasoning_gym need that package: pip install 'cgrpo[gym]'") from error
    return reasoning_gym
