r"""Answers: where a completion gives its answer, what it is worth, and whether two are the same.

reading (tags, ####, announcements), boxes, choices and last_value find an answer in a text; dress takes off what is
around it; formula reads mathematics, units what stands beside a number; values and equality compare; comparison puts
them together.

>>> from grpo.answers import final_answer, same_answer
>>> same_answer(final_answer(r"so it is \boxed{1\frac{3}{4}}."), "7/4")
True
"""
from .boxes import boxed
from .choices import LETTERS, letter
from .comparison import as_number, equal_answers, golds_in, plain_text, quantity, same_answer
from .dress import unwrapped
from .reading import announced, answers_in, final_answer, latex_answer, tagged, tagged_answer, text_of

__all__ = ["LETTERS", "announced", "answers_in", "as_number", "boxed", "equal_answers", "final_answer", "golds_in",
           "latex_answer", "letter", "plain_text", "quantity", "same_answer", "tagged", "tagged_answer", "text_of",
           "unwrapped"]
