"""Evaluation: what is asked, how answers are graded, which numbers come of it, and how they are shown.

rounds.py a round with a trainer's model; folder.py one that goes on where it stopped (grpo eval); grading.py one completion;
records.py from completions to numbers; estimates.py pass@k, majority, intervals; analysis.py what else completions say (grpo
analyze); tables.py, text.py, report.py and pdf.py for reading.
"""
