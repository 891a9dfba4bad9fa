"""Reports of an evaluation: HTML, which needs nothing, PDF, which needs reportlab, and the pictures in both."""
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..runs import replace_text, say
from .charts import write_confusion
from .html import page
from .records import questions
from .tables import evaluation_tables

MOST_QUESTIONS = 200                         # of a report; the JSON has all


def write_reports(document: Mapping[str, Any], stem: Path, title: str = "Evaluation",
                  most: int = MOST_QUESTIONS) -> list[Path]:
    """stem.html and, with reportlab, stem.pdf of an evaluation, and where its golds are classes what is taken for what,
    as confusion-<stem>.png and .pdf. The pictures of its rows are looked for in images/ beside them. Returns the files.

    Raises OSError."""
    pictures = write_confusion(document, stem.with_name(f"confusion-{stem.name}"))
    chart = pictures[0] if pictures else None
    files = [write_html(document, stem.with_name(f"{stem.name}.html"), title, most, chart),
             write_pdf(document, stem.with_name(f"{stem.name}.pdf"), title, most, chart)]
    return [*(file for file in files if file is not None), *pictures]


def write_html(document: Mapping[str, Any], path: Path, title: str = "Evaluation", most: int = MOST_QUESTIONS,
               chart: Path | None = None) -> Path:
    """The HTML of an evaluation: what the PDF has, on one page, with a search. chart: the picture of what is taken for
    what, in the same folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, page(document, path.parent, title, most, chart.name if chart else None))
    return path


def write_pdf(document: Mapping[str, Any], path: Path, title: str = "Evaluation", most: int = MOST_QUESTIONS,
              chart: Path | None = None) -> Path | None:
    """The PDF of an evaluation: its tables, then picture, question, gold and every completion of the first so many
    questions. None, and one line that says why, without reportlab."""
    groups = questions(document["completions"])
    pages = pdf(title)
    if pages is None:
        return None
    pages.tables(evaluation_tables(document))
    if chart is not None:
        pages.chart(chart)
    if groups:
        pages.instructions(groups[0][0]["prompt"])
    if len(groups) > most:
        pages.note(f"The first {most} of {len(groups)} questions follow; the JSON beside this file has all.")
    for number_, group in enumerate(groups[:most], 1):
        pages.question(f"Question {number_} (row {group[0]['row']})", group, path.parent)
    return pages.save(path)


def pdf(title: str) -> Any:
    """Pages to write on; None, and one line that says why, without reportlab."""
    try:
        from .pdf import Pages
    except ImportError:
        say("no PDF is written: it needs reportlab, pip install 'cgrpo[report]'")
        return None
    return Pages(title)
