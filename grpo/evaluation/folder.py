"""The folder of one evaluation outside of a run: what is finished is on disk, and the same evaluation goes on where it
stopped.

    settings.json      what decides the numbers: another evaluation in the same folder is refused
    unfinished.jsonl   the records of finished questions, a line a completion, until the last one is there
    evaluation.json    settings, metrics, by_category, by_class, confusion, every completion
    images/KEY.png     the pictures of the questions that the reports show, once each by their content
    report.html, report.pdf, confusion-report.png and .pdf, generations.txt
"""
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, FileFormatError, RunFolderError
from ..runs import append, read_document, replace_text, to_json
from .pictures import FOLDER
from .records import Record, questions

if TYPE_CHECKING:
    from .rounds import Evaluation

SETTINGS, UNFINISHED = "settings.json", "unfinished.jsonl"
DOCUMENT, REPORT, GENERATIONS = "evaluation.json", "report", "generations.txt"
NOT_COMPARED = ("model",)                    # the same weights may lie elsewhere


class EvalFolder:
    """Made by the settings of an evaluation. Raises ConfigError where the folder holds something else."""

    def __init__(self, path: str | os.PathLike, settings: Mapping[str, Any]):
        self.path, self.settings = Path(path), dict(settings)
        there = self.path / SETTINGS
        if there.is_file():
            self._compare(json.loads(there.read_text(encoding="utf-8")))
        elif self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise ConfigError(f"{self.path} is there already and holds no evaluation; give another output_dir")
        else:
            self.path.mkdir(parents=True, exist_ok=True)
            replace_text(there, to_json(self.settings))

    def _compare(self, saved: Mapping[str, Any]) -> None:
        here = json.loads(to_json(self.settings))
        for name in sorted({*saved, *here} - set(NOT_COMPARED)):
            if saved.get(name) != here.get(name):
                raise ConfigError(f"{self.path} holds another evaluation: {name} is {saved.get(name)!r} there and "
                                  f"{here.get(name)!r} here; give another output_dir")

    @property
    def finished(self) -> bool:
        """Whether evaluation.json is there."""
        return (self.path / DOCUMENT).is_file()

    def document(self) -> dict[str, Any]:
        """The finished evaluation. Raises FileFormatError."""
        return read_document(self.path / DOCUMENT)

    def records(self) -> list[Record]:
        """What is finished of an evaluation that is not: whole questions only. A line that an interruption cut off is
        dropped."""
        path = self.path / UNFINISHED
        if not path.is_file():
            return []
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
        try:
            records = [json.loads(line) for line in lines]
        except ValueError as error:
            raise FileFormatError(f"{path}: {error}; delete the file to begin again") from error
        whole = [r for group in questions(records) if len(group) == self.settings["num_generations"] for r in group]
        replace_text(path, "".join(to_json(r) + "\n" for r in whole))
        return whole

    def add(self, records: Sequence[Record]) -> None:
        """Appends the records of whole questions and waits until they are on disk."""
        path = self.path / UNFINISHED
        try:
            append(path, "".join(to_json(r) + "\n" for r in records).encode("utf-8"), sync=True)
        except OSError as error:
            raise RunFolderError(f"{path} cannot be written: {error.strerror or error}; what is finished stays, the "
                                 "same evaluation goes on there") from error

    def keep_images(self, document: Mapping[str, Any], evaluation: "Evaluation", most: int) -> bool:
        """Copies the images of the first so many questions into images/, those that are not there yet, and names them
        in the document. Whether that changed it."""
        try:
            return evaluation.keep_images(document["completions"], self.path, most)
        except OSError as error:
            raise RunFolderError(f"{self.path / FOLDER} cannot be written: {error.strerror or error}; what is finished "
                                 "stays, the same evaluation goes on there") from error

    def finish(self, document: Mapping[str, Any]) -> None:
        """Writes evaluation.json, whole or not at all, and drops the records that led to it."""
        replace_text(self.path / DOCUMENT, to_json(document))
        (self.path / UNFINISHED).unlink(missing_ok=True)
