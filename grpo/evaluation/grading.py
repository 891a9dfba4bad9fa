"""Grading one completion: is its answer the gold, read strictly, leniently and by extraction; and is its layout the one
asked for?"""
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..answers import final_answer, golds_in, plain_text, quantity, tagged
from ..errors import DatasetError, RewardError
from ..rewards import GOLD_COLUMNS, extractive_match, gold_of, is_chat, is_correct
from ..vision.messages import text_of

CATEGORIES = ("category", "level", "subject", "operation", "task", "source")
REASONING = ("reasoning", "think")


def check_golds(rows: Iterable[Mapping[str, Any]], name: str) -> None:
    """Either no row has a gold, or each one that can be compared with; in a mixture of data sets (column source) this
    holds for each of them. DatasetError names the row."""
    golds = [(row.get("source"), gold_of(row)) for row in rows]
    graded = {source for source, gold in golds if gold is not None}
    for number, (source, gold) in enumerate(golds):
        if source in graded and gold is None:
            raise DatasetError(f"{name}: row {number} has no answer to grade by, as other rows do; the columns looked "
                               f"at are reward_model, {', '.join(GOLD_COLUMNS)}")
        if source in graded:
            try:
                golds_in(gold)
            except RewardError as error:
                raise DatasetError(f"{name}: the answer of row {number} cannot be compared with: {error}") from error


def category_column(rows: Sequence[Mapping[str, Any]], asked: str | None) -> str | None:
    """The column to break an evaluation down by: the one asked for, or the first of CATEGORIES that every row has."""
    if asked is not None:
        missing = next((number for number, columns in enumerate(rows) if asked not in columns), None)
        if missing is not None:
            raise DatasetError(f"row {missing} has no column {asked!r} to break the evaluation down by; its columns "
                               f"are {', '.join(rows[missing])}")
        return asked
    return next((name for name in CATEGORIES if all(columns.get(name) is not None for columns in rows)), None)


def layout_of(prompt: Any) -> list[str]:
    """The tags, in order, that a prompt shows opened and closed: the layout it asks for. Empty when it shows none.

    >>> layout_of("Reply as <think>...</think> and <answer>...</answer>")
    ['think', 'answer']
    """
    text = "\n".join(text_of(m["content"]) for m in prompt) if is_chat(prompt) else prompt
    if not isinstance(text, str):
        return []                                          # token ids show no tags
    return [tag for tag in dict.fromkeys(re.findall(r"<([A-Za-z_]\w*)>", text)) if f"</{tag}>" in text]


def tag_errors(text: str, layout: Sequence[str]) -> list[str]:
    """What is wrong with the tags of a completion: "<x> missing", "</x> doubled", "tags out of order". Empty: each is
    there once, in order.

    >>> tag_errors("<think>so</think><answer>4", ["think", "answer"])
    ['</answer> missing']
    """
    tags = [tag for name in layout for tag in (f"<{name}>", f"</{name}>")]
    errors = [f"{tag} {'missing' if not count else 'doubled'}" for tag in tags if (count := text.count(tag)) != 1]
    places = [text.find(tag) for tag in tags if tag in text]
    return errors + (["tags out of order"] if places != sorted(places) else [])


def reasoning_of(text: str) -> str | None:
    """The text in <reasoning> or <think> tags; where such a tag is only closed (the prompt opened it), what is before
    it."""
    for tag in REASONING:
        if f"<{tag}>" in text:
            return tagged(text, tag)
        if f"</{tag}>" in text:
            return text.split(f"</{tag}>")[0].strip()
    return None


def grade(text: str, gold: Any, question: str | None = None) -> dict[str, bool]:
    """Whether an answer is right, by reading: strict (between <answer> and </answer>), lenient (anywhere), extractive.
    question: what the nouns of an answer may count ("3 dozen").

    >>> grade("It is 18.", "18")
    {'strict': False, 'lenient': True, 'extractive': True}
    """
    return {"strict": is_correct(text, gold, question, strict=True), "lenient": is_correct(text, gold, question),
            "extractive": any(extractive_match(text, one) for one in golds_in(gold))}


def vote_of(text: str) -> str:
    """The answer of a completion in the form in which equal answers are equal texts."""
    answer = final_answer(text)
    amount = quantity(answer)
    return str(amount[0]) if amount is not None else plain_text(answer)
