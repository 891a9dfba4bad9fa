"""Reading completions: their text, the answer in it, and whether two answers are the same number."""
import re
from fractions import Fraction
from typing import Any

BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
SAID = re.compile(r"answer\s*(?:is|:|=)\s*\**\s*([^\n]+?)(?:\.(?=\s|$)|\n|$)", re.IGNORECASE)
NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:/\d+)?|[-+]?\.\d+")


def text_of(completion: Any) -> str:
    """The text of a completion: itself, or the content of its last message."""
    return completion if isinstance(completion, str) else str(completion[-1]["content"])


def tagged(text: str, tag: str = "answer") -> str | None:
    """What stands between the last <tag> and the next </tag>, stripped; None without an opening tag."""
    _, found, rest = text.rpartition(f"<{tag}>")
    return rest.split(f"</{tag}>")[0].strip() if found else None


def final_answer(text: str) -> str:
    """The answer a completion gives: tagged, after ####, boxed, after "answer is", else its last number, else all of it."""
    if (answer := tagged(text)) is not None:
        return answer
    if "####" in text:
        return text.rsplit("####", 1)[1].strip()
    for pattern in (BOXED, SAID):
        if found := pattern.findall(text):
            return found[-1].strip()
    numbers = NUMBER.findall(text)
    return numbers[-1] if numbers else text.strip()


def as_number(text: str) -> Fraction | None:
    """'1,200', '$72', '72.0', '3/4', '-5.', '50%' (as 50) as an exact number; None for anything else."""
    plain = text.strip().strip("$*%").rstrip(".").strip().removeprefix("$")
    if not NUMBER.fullmatch(plain):
        return None
    try:
        return Fraction(plain.replace(",", "").removeprefix("+"))
    except ZeroDivisionError:
        return None


def same_answer(given: str, gold: Any) -> bool:
    """Equal as numbers, or as text but for case and spaces. A gold with #### (GSM8K) counts from there."""
    gold = str(gold).rsplit("####", 1)[-1]
    a, b = as_number(given), as_number(gold)
    if a is not None and b is not None:
        return a == b
    return " ".join(given.split()).casefold() == " ".join(gold.split()).casefold()
