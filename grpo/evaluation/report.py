"""The PDF of an evaluation, which needs reportlab."""
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..runs import say
from .records import questions
from .tables import evaluation_tables

MOST_QUESTIONS = 200                         # of a PDF; the JSON has all


def write_report(document: Mapping[str, Any], path: Path, title: str = "Evaluation",
                 most: int = MOST_QUESTIONS) -> Path | None:
    """The PDF of an evaluation: its tables, then question, gold and every completion of the first so many questions.
    None, and one line that says why, without reportlab."""
    groups = questions(document["completions"])
    pages = pdf(title)
    if pages is None:
        return None
    pages.tables(evaluation_tables(document))
    if groups:
        pages.instructions(groups[0][0]["prompt"])
    if len(groups) > most:
        pages.note(f"The first {most} of {len(groups)} questions follow; the JSON beside this file has all.")
    for number_, group in enumerate(groups[:most], 1):
        pages.question(f"Question {number_} (row {group[0]['row']})", group)
    return pages.save(path)


def pdf(title: str) -> Any:
    """Pages to write on; None, and one line that says why, without reportlab."""
    try:
        from .pdf import Pages
    except ImportError:
        say("no PDF is written: it needs reportlab, pip install 'cgrpo[report]'")
        return None
    return Pages(title)
