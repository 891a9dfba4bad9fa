r"""Reading completions: their text, the answer in it, and whether two answers are the same.

Two readings of a completion: tagged_answer is what stands in its answer tags, final_answer what it says last wherever
that is. same_answer then compares as numbers, whatever their dress ("$1,200.00", "\frac{3}{4}", "-5 apples", "50%"),
else as text.
"""
import re
from fractions import Fraction
from typing import Any

BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
SAID = re.compile(r"answer\s*(?:is|:|=)(?>\s*\**\s*)([^\n]+?)(?:\.(?=\s|$)|\n|$)", re.IGNORECASE)
NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:/\d+)?|[-+]?\.\d+")
MIXED = re.compile(r"([-+]?)(\d+) (\d+/\d+)")
MONEY = re.compile(r"^([-+]?)\s*(?:US\$|[$€£¥₹₩]|USD|EUR|GBP)\s*(?=[-+.\d])")
LATEX_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
LATEX_TEXT = re.compile(r"\\(?:text|mathrm|mathbf|textbf)\s*\{([^{}]*)\}")
LATEX_SPACE = re.compile(r"\\[,;!: ]|\{(?=,\})|(?<=\{,)\}|~")
DEGREE = re.compile(r"\^\s*\{?\\circ\}?|°")
AMOUNT = re.compile(r"[^\s\dA-Za-z]{0,3}\s*[-+]?[\d.,/]*\d(?: \d+/\d+)?%?")
# what may follow a number: a usual symbol, or up to three words, none of which changes the number
SYMBOL = r"[mckµ]?m[²³]?|[mk]?g|m?l|[nm]?s|h|hrs?|min|mph|km/h|m/s|lbs?|oz|ft|in|[CFK]"
NOT_A_UNIT = r"pi|dozen|hundred|thousand|million|billion|trillion|squared|cubed|times|plus|minus|or"
WORD = rf"(?!(?:{NOT_A_UNIT})\b)(?:[^\W\d_]{{2,}}[²³]?(?:/[^\W\d_]+)?|an?\b)"
UNIT = re.compile(rf"\s?(?:{SYMBOL})|(?:\s{WORD}){{1,3}}")


def text_of(completion: Any) -> str:
    """The text of a completion: itself, or the content of its last message."""
    return completion if isinstance(completion, str) else str(completion[-1]["content"])


def repeated_share(words: list, n: int) -> float:
    """The share of the n-grams of words (or token ids) that stand there more than once, but for their first time; 0
    where there are none.

    >>> repeated_share("so it is so it is".split(), 2)
    0.4
    """
    grams = [tuple(words[i:i + n]) for i in range(len(words) - n + 1)]
    return (len(grams) - len(set(grams))) / len(grams) if grams else 0.0


def tagged(text: str, tag: str = "answer") -> str | None:
    """What stands between the last <tag> and the next </tag> (or the end), stripped; None without an opening tag."""
    _, found, rest = text.rpartition(f"<{tag}>")
    return rest.split(f"</{tag}>")[0].strip() if found else None


def tagged_answer(text: str) -> str | None:
    """What stands between the last <answer> and the next </answer>, stripped; None where either is missing: an answer
    that was cut off is none.

    >>> tagged_answer("<answer>5</answer> no, <answer> 12 </answer>"), tagged_answer("<answer>1")
    ('12', None)
    """
    return tagged(text) if "</answer>" in text.rpartition("<answer>")[2] else None


def final_answer(text: str) -> str:
    """The answer a completion gives: tagged, after ####, boxed, after "answer is", else its last number, else all of
    it.

    >>> final_answer("9 eggs are left. The answer is 9 * 2 = $18, every day."), final_answer("first 3, then 4")
    ('$18', '4')
    """
    if (answer := tagged(text)) is not None:
        return answer
    if "####" in text:
        return text.rsplit("####", 1)[1].strip().split("\n")[0].strip()
    if found := BOXED.findall(text):
        return found[-1].strip()
    if found := SAID.findall(text):
        return said_number(found[-1].strip(" *"))
    numbers = NUMBER.findall(text)
    return numbers[-1] if numbers else text.strip()


def said_number(said: str) -> str:
    """What a sentence like "9 * 2 = $18, every day" comes down to: the number it starts with once what equals it is
    gone, or itself."""
    last = said.rpartition("=")[2].strip()
    if quantity(last) is not None:
        return last
    start = re.match(rf"(?:US\$|[$€£¥₹₩])?\s*(?:{NUMBER.pattern})(?![\w/^*])", last)
    return start[0] if start else said


def as_number(text: str) -> Fraction | None:
    r"""An exact number out of its dress; None for anything else.

    >>> [str(as_number(t)) for t in ("1,200", "-$72.50", r"\frac{3}{4}", "1 3/4", "−5.", "50%", "5 km")]
    ['1200', '-145/2', '3/4', '7/4', '-5', '50', 'None']
    """
    plain = text.strip().replace("−", "-")
    if "\\" in plain or "{" in plain or "°" in plain:
        plain = LATEX_SPACE.sub("", LATEX_TEXT.sub(r"\1", LATEX_FRACTION.sub(r"\1/\2", plain)))
        plain = DEGREE.sub("", plain).replace("\\$", "$").replace("\\%", "%")
        plain = plain.removeprefix("\\(").removesuffix("\\)").strip()
    plain = plain.strip("*").rstrip("$%").rstrip(".").strip(" *%")
    plain = MONEY.sub(r"\1", plain)
    if mixed := MIXED.fullmatch(plain):
        sign, whole, part = mixed.groups()
        ones, rest = fraction(whole), fraction(part)
        return None if ones is None or rest is None else (-1 if sign == "-" else 1) * (ones + rest)
    return fraction(plain.replace(",", "")) if NUMBER.fullmatch(plain) else None


def fraction(text: str) -> Fraction | None:
    """'3/4' or '.5' exactly; None for a division by zero, for a decimal over a number ('1.5/2'), and for more digits
    than Python turns into a number."""
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        return None


def quantity(text: str) -> tuple[Fraction, str] | None:
    """(number, unit) of '5 km', '20 m²', '18 dollars a day', '3'; None where there is more, or less, than that."""
    plain = " ".join(LATEX_TEXT.sub(r" \1", text).split()).strip("*").rstrip(".").strip()
    if (number := as_number(plain)) is not None:
        return number, ""
    amount = AMOUNT.match(plain)
    if amount is None or not UNIT.fullmatch(unit := plain[amount.end():]) or (number := as_number(amount[0])) is None:
        return None
    return number, unit.strip().casefold()


def same_answer(given: str, gold: Any) -> bool:
    """Equal as numbers, or as text but for case, spaces and a final full stop. A unit may be left out on either side,
    but not be another one. A gold with #### (GSM8K) counts from there.

    >>> same_answer("18 dollars", "#### 18"), same_answer("5 km", "5 miles"), same_answer(" PARIS", "Paris")
    (True, False, True)
    """
    gold = str(gold).rsplit("####", 1)[-1]
    a, b = quantity(given), quantity(gold)
    if a is not None and b is not None:
        return a[0] == b[0] and (not a[1] or not b[1] or a[1].rstrip("s") == b[1].rstrip("s"))
    return plain_text(given) == plain_text(gold)


def plain_text(text: str) -> str:
    """A text answer without what does not count: case, spaces, the full stop at its end."""
    return " ".join(text.split()).casefold().rstrip(".")
