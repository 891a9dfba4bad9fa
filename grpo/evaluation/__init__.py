"""Evaluation: what is asked, how answers are graded, which numbers come of it, and how they are shown.

rounds.py a round with a trainer's model; folder.py one that goes on where it stopped (grpo eval); grading.py one
completion; records.py from completions to numbers; estimates.py pass@k, majority, intervals; classes.py golds that are
classes; pictures.py the images of rows and what is marked on them; analysis.py what else completions say (grpo
analyze); attention.py and attention_picture.py where an answer looks (grpo attention); tables.py, text.py, report.py,
html.py, pdf.py, marked.py and charts.py for reading.
"""
from .analysis import analyze, compare_sources
from .folder import DOCUMENT, GENERATIONS, REPORT, EvalFolder
from .records import document, metrics_of
from .report import MOST_QUESTIONS, write_html, write_pdf, write_reports
from .rounds import Evaluation
from .tables import analysis_tables, comparison_tables, evaluation_tables, one_line
from .text import last_message, prompt_text, write_text

__all__ = ["DOCUMENT", "GENERATIONS", "MOST_QUESTIONS", "REPORT", "EvalFolder", "Evaluation", "analysis_tables",
           "analyze", "compare_sources", "comparison_tables", "document", "evaluation_tables", "last_message",
           "metrics_of", "one_line", "prompt_text", "write_html", "write_pdf", "write_reports", "write_text"]
