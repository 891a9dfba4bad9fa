"""Grading one completion: is its answer the gold, read strictly, leniently and by extraction; and is its layout the one
asked for?"""
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import DatasetError
from ..rewards import (
    GOLD_COLUMNS,
    extractive_match,
    final_answer,
    gold_of,
    is_chat,
    quantity,
    same_answer,
    tagged,
    tagged_answer,
)
from ..rewards.text import plain_text
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
        if source in graded and not comparable(gold):
            raise DatasetError(f"{name}: the answer of row {number} cannot be compared with: {gold!r:.80}; it must be "
                               "text or a number")


def comparable(gold: Any) -> bool:
    """Text that is not empty (after ####), or a number."""
    if isinstance(gold, bool) or not isinstance(gold, (str, int, float)):
        return False
    return gold == gold and bool(str(gold).rsplit("####", 1)[-1].strip())


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


def begun(prompt: Any) -> str:
    """The beginning of the answer with which a prompt ends, which a completion goes on from; mostly nothing.

    >>> begun([{"role": "user", "content": "How many?"}, {"role": "assistant", "content": "<think>"}])
    '<think>'
    """
    return text_of(prompt[-1]["content"]) if is_chat(prompt) and prompt[-1].get("role") == "assistant" else ""


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


def lenient_match(text: str, gold: Any) -> bool:
    """The answer may be anywhere: what final_answer finds, or, where that is a sentence, the number it ends with."""
    answer = final_answer(text)
    return same_answer(answer, gold) or same_answer(final_answer(answer), gold)


def grade(text: str, gold: Any) -> dict[str, bool]:
    """Whether an answer is right, by reading: strict (between <answer> and </answer>), lenient (anywhere), extractive.

    >>> grade("It is 18.", "18")
    {'strict': False, 'lenient': True, 'extractive': True}
    """
    given = tagged_answer(text)
    return {"strict": given is not None and same_answer(given, gold), "lenient": lenient_match(text, gold),
            "extractive": extractive_match(text, str(gold).rsplit("####", 1)[-1])}


def vote_of(text: str) -> str:
    """The answer of a completion in the form in which equal answers are equal texts."""
    answer = final_answer(text)
    amount = quantity(answer)
    return str(amount[0]) if amount is not None else plain_text(answer)
