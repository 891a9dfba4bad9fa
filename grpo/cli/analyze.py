"""grpo analyze: what the completions of a run or an evaluation look like, or how two evaluations differ."""
from pathlib import Path
from typing import Any

from ..runs import replace_text, to_json
from .parser import Parser

ABOUT = """Looks at completions: accuracy strictly, leniently and by extraction, pass@k, majority, errors of layout,
truncation, repetition, lengths by correctness, histograms of rewards, completions on which the readings disagree. Of
two, the difference on the same questions.

  grpo analyze runs/gsm8k-1                  its last evaluation, what changed since its first, training completions
  grpo analyze evals/SmolLM2-1a2b3c4d        what grpo eval left
  grpo analyze runs/gsm8k-1 runs/gsm8k-2     two evaluations, question by question"""


def main(argv: list[str], prog: str = "grpo analyze") -> None:
    """`grpo analyze`: reads completions that are there already; loads no model."""
    parser = Parser(prog=prog, description=ABOUT)
    parser.add_argument("source", metavar="RUN_OR_EVAL", help="a run folder, a folder of grpo eval, or its JSON")
    parser.add_argument("other", nargs="?", metavar="OTHER", help="the same, to compare with")
    parser.add_argument("--output_dir", metavar="DIR",
                        help="where analysis.json and analysis.pdf go (analysis/ beside the source)")
    arguments = parser.parse(argv)
    from ..evaluation import analysis_tables, analyze, compare_sources, comparison_tables

    first = Path(arguments.source)
    if arguments.other is None:
        title, found = f"Analysis of {first.name or first}", analyze(first)
        tables = analysis_tables(found)
    else:
        second = Path(arguments.other)
        names = (first.name, second.name) if first.name != second.name else (str(first), str(second))
        title = f"{names[0]} and {names[1]}"
        comparisons = compare_sources(first, second)
        found = {"a": str(first), "b": str(second), "comparison": comparisons.pop("", None), "data_sets": comparisons}
        tables = comparison_tables(found, names)
    beside = (first if first.is_dir() else first.parent) / "analysis"
    folder = Path(arguments.output_dir) if arguments.output_dir else beside
    name = "analysis" if arguments.other is None else f"comparison-with-{Path(arguments.other).stem}"
    written = write(found, tables, title, folder / name)
    print("\n\n".join(table.text() for table in tables))
    print("\n" + "\n".join(map(str, written)))


def write(found: dict[str, Any], tables: list[Any], title: str, stem: Path) -> list[Path]:
    """The JSON and, with reportlab, the PDF of an analysis; one that was there is drawn again."""
    from ..evaluation.report import pdf

    stem.parent.mkdir(parents=True, exist_ok=True)
    json_file, pdf_file = stem.parent / f"{stem.name}.json", stem.parent / f"{stem.name}.pdf"
    replace_text(json_file, to_json(found))
    pages = pdf(title)
    if pages is None:
        return [json_file]
    pages.tables(tables)
    return [json_file, pages.save(pdf_file)]
