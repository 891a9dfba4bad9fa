"""Multiple choice: the letter that a short answer names."""
import re

from .dress import WRAPPED, unwrapped

LETTERS = "ABCDEFGHIJ"
# a letter alone, or before what it stands for: "B", "(B)", "B. a cat", "Option B", "B: a cat"
CHOICE = re.compile(rf"(?:option|choice|answer)?\s{{0,3}}(?:is|:)?\s{{0,3}}[(\[]?\s?([{LETTERS}])\s?"
                    r"(?:[)\]]\s?\.?|[.:,]|\s?[-–—](?=\s))?(?:(?<=[)\].:,–—-])\s.*)?", re.IGNORECASE | re.DOTALL)
OTHER = re.compile(rf"(?:[(\[]|[,/&]\s{{0,3}}|\b(?:or|and)\s{{1,3}})([{LETTERS}])\b")
WITH_TEXT = re.compile(rf"\(([{LETTERS}])\)[\s:.]*(\S.*)|([{LETTERS}])(?:\)\s+|\.\s+(?=[-\d$\\]))(\S.*)", re.DOTALL)
CORRECT = re.compile(rf"\b(?:option|choice)?\s?\(?([{LETTERS}])\)?\s+is\s+(?:the\s+)?(?:correct|right|best)\b")
DENIED = re.compile(r",?\s+(?:and\s+)?not\b")               # "(B), not (A)"
WITH_REASON = re.compile(rf"\(?([{LETTERS}])\)?,?\s+(?:because|since|as|which)\b")


def bare(answer: str) -> str:
    r"""An answer out of its dress, with the words of every \text{} in it."""
    return unwrapped(WRAPPED.sub(r"\1", answer.replace("\\ ", " ")))


def letter(text: str) -> str | None:
    r"""The letter that a short answer names, A to J; None without one, or with another one too.

    >>> letter("**(c)**"), letter(r"\text{D}"), letter("A cat"), letter("A, or B")
    ('C', 'D', None, None)
    """
    short = DENIED.split(bare(text).strip("$` "))[0]
    found = CHOICE.fullmatch(short)
    if found is None:
        named = CORRECT.findall(short)
        return named[-1] if named else None
    others = set(OTHER.findall(short[found.end(1):])) - {found[1].upper()}
    return None if others else found[1].upper()


def letter_and_text(answer: str) -> tuple[str, str] | None:
    r"""The letter and what it stands for, of "(B) 12"; None for anything else.

    >>> letter_and_text(r"\textbf{(B)}\ 12"), letter_and_text("12")
    (('B', '12'), None)
    """
    found = WITH_TEXT.fullmatch(bare(answer))
    return None if found is None else (found[1] or found[3], found[2] or found[4])
