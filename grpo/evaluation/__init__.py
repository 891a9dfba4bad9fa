"""Evaluation: what is asked, how answers are graded, which numbers come of it, and how they are shown.

rounds.py a round with a trainer's model; folder.py one that goes on where it stopped (grpo eval); grading.py one
completion; records.py from completions to numbers; estimates.py pass@k, majority, intervals; classes.py golds that are
classes; class_means.py what a tower's features alone tell; pictures.py the images of rows and what is marked on them;
analysis.py what else completions say (grpo analyze); attention.py and attention_picture.py where an answer looks (grpo
attention); tables.py, text.py, report.py, html.py, pdf.py, marked.py and charts.py for reading.
"""
from .analysis import analyze, compare_sources
from .class_means import CLASS_MEANS, ClassMeans, nearest_class_mean
from .folder import DOCUMENT, GENERATIONS, REPORT, EvalFolder
from .records import document, metrics_of
from .report import MOST_QUESTIONS, write_html, write_pdf, write_reports
from .rounds import Evaluation
from .tables import accuracy_tables, analysis_tables, comparison_tables, evaluation_tables, one_line
from .text import last_message, prompt_text, write_text

__all__ = ["CLASS_MEANS", "DOCUMENT", "GENERATIONS", "MOST_QUESTIONS", "REPORT", "ClassMeans", "EvalFolder",
           "Evaluation", "accuracy_tables", "analysis_tables", "analyze", "compare_sources", "comparison_tables",
           "document", "evaluation_tables", "last_message", "metrics_of", "nearest_class_mean", "one_line",
           "prompt_text", "write_html", "write_pdf", "write_reports", "write_text"]
