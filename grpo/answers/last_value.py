"""The last value of a text: a formula, or a number with all that belongs to it."""
import re

from .dress import FORMULA, inside_of
from .units import unit_of

SIGN = r"(?:[-−–‑]\s?)?[$€£¥₹]?"
NUMBER = re.compile(rf"(?<![\w.,/]){SIGN}(?:\d{{1,3}}(?:\.\d{{3}})+,\d+|(?:\d{{1,3}}(?:[, '’]\d{{3}})+(?!\d)|\d+)"
                    r"(?:[.,]\d+)?)(?:[eE][-+]?\d+)?"
                    rf"|(?<![\w.]){SIGN}\.\d+")
# what may stand before a number in one formula: other numbers, letters and signs; and what may stand after it
LEFT = re.compile(r"(?:(?:\d[\d,.]*|(?<![A-Za-z])[A-Za-z])\s?[!%)]?\s?(?:[-+*/^=×÷]|(?<=\d)\s?x)\s?[($]{0,2}\s?)+$")
RIGHT = re.compile(r"(?:\s?[-+*/^×÷]\s?[($]?(?:\d[\d,.]*\d|\d|[A-Za-z](?![A-Za-z]))\)?|[!²³]|[√π∛]\s?\w*|[½¼¾]"
                   r"|(?<=\d)[abceiknpqrtxyz](?![A-Za-z])|(?<=\d)[:(][\d.]+\)?)+")
# words after a number that make another number of it
CHANGING = re.compile(r"\s*(?:!|\^|(?:below|above|over|under|factorial|squared|cubed|less than|more than|times|"
                      r"percent of|and a half|million|billion|thousand|hundred|dozen|halves|thirds|quarters|out of)\b)")
# what before a number says that it is a part of something else: "3 out of 4", "log(5)", "not 5"
PART = re.compile(
    r"(?:[\d.,]*[√∛]|\w+\*?\w*\(|\d+[:½¼¾]|\d+\s"
    r"|\b(?:not|minus|negative|half\s+of|(?:more|less|fewer|greater)\s+than|at\s+least|at\s+most)\s+"
    r"|\d[\d.,]*\s+(?:over|minus|plus|times|mod(?:ulo)?|choose|divided\s+by|multiplied\s+by|out\s+of|of|to|or"
    r"|and(?:\s+a)?)\s+"
    r"|\d+\s+(?:hours?|feet|foot|minutes?|pounds?|dollars?|days?|weeks?|years?)\s+(?:and\s+)?)[$€£]?$")
LATEX = re.compile(r"[^\s$]*\\[A-Za-z]+[^\s$]*")           # \frac{15}{2} without marks around it
CLOSING = re.compile(r"[^()\[\]{}\n]*[)\]}]")
BROKEN = re.compile(r"(?<!\$)\$[ \t]*\n[^$\n]*\n[ \t]*\$(?!\$)|\\\([ \t]*\n[^\n]*\n[ \t]*\\\)")   # over several lines
LISTED = re.compile(r"^[ \t]*(?:step\s+)?\d{1,2}[.):]\s+(?=[A-Za-z$\\*])", re.MULTILINE | re.IGNORECASE)     # "10. Now"
SENTENCE = re.compile(r"(?<![A-Za-z])[A-Za-z]{3,}\s+[A-Za-z]{2,}")      # between two dollars: money, and no formula
JOINED = re.compile(r"\s*(?:,|and|or|,\s*and)\s*(?=[$\\])")
UNIT = re.compile(r"\s?(?:%|°|[A-Za-z]+(?:\^?\d)?(?:\s[A-Za-z]+){0,3})(?=[.,;!?]|\s*$|\n)")
MOST_BACK = 200                              # characters of a line that are looked at before a number


def last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    """The last match."""
    found = None
    for match in pattern.finditer(text):
        found = match
    return found


def last_value(text: str) -> str | None:
    """The last formula or number of a text; None without one.

    >>> last_value("first 3, then 4"), last_value("so 9 * 2 = 18 eggs"), last_value("it is (1, 2).")
    ('4', '18', '(1, 2)')
    """
    text = LISTED.sub(" ", BROKEN.sub(" ", text))
    formula, number = last(FORMULA, text), last(NUMBER, text)
    if formula is not None and (number is None or number.start() < formula.end()):
        inside = inside_of(formula)
        if any(map(str.isalnum, inside)) and not (formula["c"] and SENTENCE.search(inside)):
            return following(text, formula)
    return None if number is None else whole_formula(text, number)


def following(text: str, formula: re.Match[str]) -> str:
    """A formula with the unit after it ("$28$ percent"), or with those that go on as a list ("$12$ and $13$")."""
    end = formula.end()
    while (joined := JOINED.match(text, end)) is not None and (other := FORMULA.match(text, joined.end())) is not None:
        end = other.end()
    if end > formula.end():
        return text[formula.start():end]
    unit = UNIT.match(text, end)
    if unit is None or unit_of(unit[0], frozenset()) is None:
        return inside_of(formula).strip()
    return text[formula.start():unit.end()]


def whole_formula(text: str, number: re.Match[str]) -> str:
    """The formula in plain text that a number is part of: the brackets around it, or what is calculated with it."""
    line = text.rfind("\n", 0, number.start()) + 1
    before = text[max(line, number.start() - MOST_BACK):number.start()]
    opening = bracket_around(before)
    closing = CLOSING.match(text, number.end()) if opening is not None else None
    if opening is not None and closing is not None:
        group = text[number.start() - opening:closing.end()]
        if "," in group and not re.search(r"[A-Za-z]{2,}", group):
            return group
    latex = LATEX.match(text, max(line, text.rfind(" ", line, number.start()) + 1))
    if latex is not None and latex.end() >= number.end():
        return latex[0].rstrip(".,;:!?")
    part = PART.search(before)
    if part is not None:
        right = RIGHT.match(text, number.end())
        return text[number.start() - len(part[0]):right.end() if right else number.end()].strip()
    left, right = LEFT.search(before), RIGHT.match(text, number.end())
    start = number.start() - (len(left[0]) if left else 0)
    end = right.end() if right else number.end()
    changed = CHANGING.match(text, end)
    whole = text[start:changed.end() if changed else end].strip()
    percent = "%" if re.match(r"\s?%", text[end:end + 2]) else ""
    return (whole.rpartition("=")[2].strip() or whole) + percent


def bracket_around(before: str) -> int | None:
    """How far before the end an opening bracket stands that is not closed; None without one."""
    depth = 0
    for back, character in enumerate(reversed(before), 1):
        if character in ")]}":
            depth += 1
        elif character in "([{":
            depth -= 1
            if depth < 0:
                return back
    return None
