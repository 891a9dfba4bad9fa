"""What a run and the end of its script leave in a folder, and how it makes way for the next run there.

The names that a run writes always go with it. Model files and the like beside them do where they are not older than
the run: a folder may have held the model that the run began with.
"""
import fnmatch
import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import RunFolderError
from .lines import METRICS

CONFIG = "config.yaml"
COMPLETIONS, EVALUATIONS, CHECKPOINTS = "completions", "eval", "checkpoints"
RECIPE = "recipe.yaml"                       # what the run was asked for; config.yaml has every option resolved
WARM_UP = "sft"                              # the run before the run, of a recipe that has one
WRITTEN = (CONFIG, RECIPE, METRICS, COMPLETIONS, EVALUATIONS, CHECKPOINTS, "plots")
STATE_FILE = "trainer_state.json"            # transformers' name for what TrainerState.save_to_json writes
LINKS = "checkpoint-[0-9]*"                  # where transformers' get_last_checkpoint looks
BESIDE = (STATE_FILE, LINKS, "*_results.json")
AGED = ("tensorboard", "model", "config.json", "generation_config.json", "*.safetensors",
        "model.safetensors.index.json", "adapter_config.json", "tokenizer.json", "tokenizer_config.json",
        "tokenizer.model", "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json",
        "chat_template.jinja", "chat_template.json", "preprocessor_config.json", "processor_config.json",
        "video_preprocessor_config.json", "README.md")


def holds_run(path: Path) -> bool:
    """Whether a run, or anything under a name that a run writes, is there."""
    if any(os.path.lexists(path / name) for name in WRITTEN):
        return True
    try:
        return any(path.glob(LINKS))
    except OSError:                          # a name that cannot be; whoever makes the folder says so
        return False


def set_aside(path: Path) -> Path:
    """Moves the run in path to path-1, path-2, ..., the first that is free, and returns it. RunFolderError where it
    cannot be moved, and is left as it was."""
    number = 1
    while os.path.lexists(f"{path}-{number}"):
        number += 1
    aside = Path(f"{path}-{number}")
    try:
        aside.mkdir()
        try:
            move_run(path, aside)
        except BaseException:
            aside.rmdir()
            raise
    except OSError as error:
        raise RunFolderError(f"{path} holds a run already, which cannot be moved to {aside}: "
                             f"{error.strerror or error}; give another output_dir, or move it yourself") from error
    return aside


def move_run(source: Path, target: Path) -> None:
    """Moves a run's files from one folder to another, all of them or, where that raises OSError, none."""
    moved: list[str] = []
    try:
        for name in list(names_of_run(source)):
            os.rename(source / name, target / name)
            moved.append(name)
    except BaseException:
        for name in reversed(moved):
            os.rename(target / name, source / name)
        raise


def names_of_run(path: Path) -> Iterator[str]:
    """What in a folder belongs to the run in it."""
    there = sorted(os.listdir(path))
    own = [name for name in there if name in WRITTEN or matches(name, BESIDE)]
    if RECIPE in own and holds_run(path / WARM_UP):
        own.append(WARM_UP)
    begun = min((first_written(path / name) for name in own), default=0.0)
    yield from own
    yield from (name for name in there if matches(name, AGED) and (path / name).stat().st_mtime >= begun)


def first_written(path: Path) -> float:
    """When the oldest file in it was written, by its time of change."""
    files = [path] if not path.is_dir() else [p for p in path.glob("**/*") if p.is_file()]
    return min((p.lstat().st_mtime for p in files), default=float("inf"))


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a name is one of some patterns."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
