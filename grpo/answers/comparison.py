r"""Whether two answers are the same: as text, as a letter, or by value, whatever their dress ("$1,200.00",
"\frac{3}{4}", "1 3/4", "-5 apples", "50%", "x = 3", "{1, 2}")."""
import ast
import functools
import re
from fractions import Fraction
from typing import Any, NoReturn

import numpy as np

from ..errors import RewardError
from . import units
from .boxes import boxed, unclosed
from .choices import LETTERS, letter, letter_and_text
from .dress import FORMULA, WRAPPED, inside_of, unwrapped
from .equality import equal
from .formula import MOST_CHARACTERS, MOST_DIGITS, FormulaError, Node, parse, plain, readings
from .reading import announced
from .values import exact

NO_UNITS = ("", "%", "degree", "dollar", "euro", "pound", "yen", "rupee", "won", "ruble")     # part of the dress
PLAIN_NUMBER = re.compile(r"-?\d{1,15}(?:\.\d{1,15})?")
MATHEMATICAL = re.compile(r"infinity|[\d\\=+*/^<>|√π∞½¼¾]|^[^A-Za-z]*(?:[A-Za-z][^A-Za-z]+)*[A-Za-z]?[^A-Za-z]*$")
LONGEST_TEXT = 300                           # characters of a gold that is one sentence
LISTED = re.compile(r"\[\s*[\"'].*[\"']\s*\]", re.DOTALL)
WORDS = re.compile(r"[^\W\d_]{2,}")
COMMAND = re.compile(r"\\(?:begin|end)\s*\{[^{}]*\}|\\[A-Za-z]+")
MOST_WORDS, MOST_WORDS_OF_LINES = 50, 2      # of a gold that is an answer, and not the way to it
# a name in words, "=" or ":", and the value; a number of thousands, millions, dozens
NAMED = re.compile(r"[^\d=<>]*(?:[A-Za-z]{3,}|[A-Za-z][(\[])[^\d=<>]*[=:]\s*(?=\S)")
SCALED = re.compile(r"(-?[\d.,/ ]*\d)\s+(hundred|thousand|million|billion|trillion|dozen)\b\s*(.*)", re.IGNORECASE)
NEGATIVE = re.compile(r"(?:minus|negative)\s+(?=[\d$.\\])", re.IGNORECASE)
ARTICLE = re.compile(r"^(?:the|an?)\s+(?=\w{2})", re.IGNORECASE)
NOON = re.compile(r"\b([ap])\.m\.?", re.IGNORECASE)         # 3 p.m.
FUNCTION = re.compile(r"(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
ASIDE = re.compile(r"\s*\([^()\d]*[A-Za-z]{2,}[^()\d]*\)$")    # "12 (twelve)"
DASHES = str.maketrans(dict.fromkeys("−–‐‑‒－", "-"))


def same_answer(given: str, gold: Any, question: str | None = None) -> bool:
    """Equal by value, or as text but for case, spaces, markup and a final full stop. A unit may be left out on either
    side, but not be another one. gold: text, a number, or a list of answers each of which is right; in a worked
    solution what is after ####, boxed or announced counts. question: its nouns may be counted ("3 dozen").

    >>> same_answer("18 dollars", "#### 18"), same_answer("5 km", "5 miles"), same_answer(" PARIS", "Paris")
    (True, False, True)
    """
    return any(equal_answers(given, one, question) for one in golds_in(gold))


def golds_in(gold: Any) -> list[str]:
    r"""The answers of a row, each of which is right. RewardError for what has none.

    >>> golds_in("We add.\nSo it is \\boxed{4}."), golds_in(["5", "five"]), golds_in(2.0), golds_in("9*2 = 18\n#### 18")
    (['4'], ['5', 'five'], ['2.0'], ['18'])
    """
    if isinstance(gold, (list, tuple, np.ndarray)):
        if len(gold) == 0:
            unreadable(gold, "an empty list")
        return [one for part in gold for one in golds_in(part)]
    if isinstance(gold, np.floating):
        gold = float(str(gold))                                       # 0.1 of float32 is 0.1
    if isinstance(gold, np.generic):
        gold = gold.item()
    if isinstance(gold, float) and gold == gold:
        gold = float(f"{gold:.12g}")
    if isinstance(gold, str) and LISTED.fullmatch(gold.strip()):      # '["5", "five"]'
        try:
            return golds_in(ast.literal_eval(gold.strip()))
        except (ValueError, SyntaxError):
            pass
    if isinstance(gold, (bool, type(None))) or not isinstance(gold, (str, int, float)):
        unreadable(gold, type(gold).__name__)
    if gold != gold or gold in (float("inf"), float("-inf")):
        unreadable(gold, "no number")
    text = str(gold).strip()
    if "####" in text:
        text = text.rsplit("####", 1)[1].strip()
    elif (inside := boxed(text)) is not None:
        text = inside or unclosed(text)                               # a gold that was cut off means what is left
    elif (said := announced(WRAPPED.sub(r"\1", text))) and said[0] and said[0].count("(") == said[0].count(")"):
        text = said[-1] if len(text) > LONGEST_TEXT or "\n" in text else said[0]
    elif len(WORDS.findall(COMMAND.sub(" ", text))) > (
            MOST_WORDS_OF_LINES if "\n" in text and re.search(r"[.=:]", text) else MOST_WORDS):
        unreadable(gold, "a solution without an answer in \\boxed{}, after #### or after 'the answer is'")
    if not text:
        unreadable(gold, "no text")
    return [text, *(letter_and_text(text) or ())]


def unreadable(gold: Any, what: str) -> NoReturn:
    """RewardError about a gold that has no answer."""
    raise RewardError(f"the reference answer {gold!r:.80} cannot be read: it is {what}; it must be text with an "
                      "answer, a number, or a list of these")


def equal_answers(given: str, gold: str, question: str | None = None) -> bool:
    """same_answer() of two answers that are nothing but that."""
    if PLAIN_NUMBER.fullmatch(given) and PLAIN_NUMBER.fullmatch(gold):
        return Fraction(given) == Fraction(gold)
    if plain_text(given) == plain_text(gold):
        return True
    wanted_letter = unwrapped(gold).strip("(). ")
    if wanted_letter in tuple(LETTERS):
        return letter(given) == wanted_letter
    asked = units.nouns_of(question) if question else frozenset()
    try:
        a, b = amounts(gold, asked | words_of(given)), amounts(given, asked | words_of(gold))
        if any(same_amount(x, y) for x in a for y in b):
            return True
    except RecursionError:                                            # a sum of hundreds of terms
        return False
    chosen = letter_and_text(given)                                   # "(A) 12" where 12 is wanted
    return chosen is not None and equal_answers(chosen[1], gold, question)


def words_of(answer: str) -> frozenset[str]:
    """The nouns of one answer, which the other may count too."""
    return units.nouns_of(answer) if len(answer) < 100 else frozenset()


def same_amount(wanted: tuple[Node, str], given: tuple[Node, str]) -> bool:
    """Whether values with units are the same; 50 % may be said as 50 or as 0.5."""
    (a, unit), (b, other) = wanted, given
    if not units.fits(unit, other):
        return False
    if equal(a, b):
        return True
    if (unit == "%") != (other == "%"):
        hundredth = [Node("percent", (a,)) if unit == "%" else a, Node("percent", (b,)) if other == "%" else b]
        return equal(*hundredth)
    return False


@functools.lru_cache(1024)
def amounts(text: str, nouns: frozenset[str] = frozenset()) -> tuple[tuple[Node, str], ...]:
    """Every reading of an answer as a value with a unit: with and without the words after it as a unit, and with its
    commas as each custom means them. Empty for what is text."""
    if len(text) > MOST_CHARACTERS:
        return ()
    text = re.sub(r"(?<=\d)\s+x\s+(?=\d)", " * ", unwrapped(text))
    if not MATHEMATICAL.search(text):
        return ()
    text = NEGATIVE.sub("-", text.translate(DASHES), 1) if NEGATIVE.match(text) else text.translate(DASHES)
    text = FORMULA.sub(lambda formula: f" {inside_of(formula)} ", text).strip()
    bare, currency = units.before(text.replace("\\$", "$"))
    bare = plain_words(bare)
    bare = ASIDE.sub("", bare) or bare
    letters = letters_of(text) if "\\" in text else units.SINGLE
    found: dict[tuple[Node, str], None] = {}
    read = [*([] if bare.endswith("%") else [(bare, currency)]), *units.splits(bare, nouns, letters)]
    if (named := NAMED.match(bare)) is not None:                      # Total cost = 18
        read += [(bare[named.end():], currency), *units.splits(bare[named.end():], nouns, letters)]
    if (scaled := SCALED.fullmatch(bare)) is not None:
        read.append((f"({scaled[1]}) * {units.SCALES[scaled[2].casefold()]}",
                     currency or units.unit_of(scaled[3], nouns) or ""))
    for value, unit in read:
        if unit == "degree" and FUNCTION.search(value):               # sin 30° is not sin 30
            continue
        if currency and unit and not unit.startswith(currency):
            if not unit.startswith("/"):
                continue
            unit = currency + unit
        for reading in readings(plain(value)):
            try:
                found[(parse(reading), unit or currency)] = None
            except (FormulaError, RecursionError):
                continue
    return tuple(found)


def letters_of(text: str) -> frozenset[str]:
    r"""The units of one letter that a formula has in \text{}: elsewhere letters are names."""
    return units.SINGLE & frozenset(letter for words in WRAPPED.findall(text) for letter in re.findall(
        r"(?<![A-Za-z])[A-Za-z](?![A-Za-z])", words))


def plain_words(text: str) -> str:
    r"""The text with the words of \text{} as plain words, and degrees as a sign."""
    text = re.sub(r"\\(?:text|textbf|textit|textrm|textnormal|mbox|mathrm)\s*\{([^{}]*)\}", r" \1 ", text)
    text = re.sub(r"(?<!\\)\\[,;: ]|~", " ", re.sub(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))", "° ", text))
    return re.sub(r"\\%", "%", text).strip()


def as_number(text: str) -> Fraction | None:
    r"""An exact number out of its dress; None for anything else. A percentage is its number.

    >>> [str(as_number(t)) for t in ("1,200", "-$72.50", r"\frac{3}{4}", "1 3/4", "−5.", "50%", "1.5e3", "5 km")]
    ['1200', '-145/2', '3/4', '7/4', '-5', '50', '1500', 'None']
    """
    found = quantity(text)
    return found[0] if found is not None and found[1] in NO_UNITS else None


def quantity(text: str) -> tuple[Fraction, str] | None:
    """(number, unit) of '5 km', '20 m²', '18 dollars a day', '3'; None where there is more, or less, than that.

    >>> quantity("20 m²"), quantity("3 red apples"), quantity("10 below zero")
    ((Fraction(20, 1), 'm2'), (Fraction(3, 1), 'red apple'), None)
    """
    plain_number = text.strip()
    if PLAIN_NUMBER.fullmatch(plain_number):
        return Fraction(plain_number), ""
    if len(text) > MOST_DIGITS:
        return None
    numbers = [(value, unit) for node, unit in amounts(text) if is_written(node) and (value := exact(node)) is not None]
    return numbers[0] if numbers else None


def is_written(node: Node) -> bool:
    """Whether a formula is a number that is written down, and not one to be calculated (2 + 3)."""
    if node.kind == "sum":                                            # a mixed number
        return [arg.kind for arg in node.args] == ["number", "quotient"]
    return node.kind != "plusminus" and all(map(is_written, node.args))


def plain_text(text: str) -> str:
    r"""A text answer without what does not count: case, spaces, markup, quotes, the full stop at its end.

    >>> plain_text(r"**\text{New  York}.**"), plain_text(r"$\left(1, 2\right)$")
    ('new york', '(1,2)')
    """
    text = NOON.sub(r"\1m", ARTICLE.sub("", unwrapped(text)))
    if "\\" in text:
        words = plain(text)
        text = "".join(words.split()) if "\\" in words or MATHEMATICAL.search(words) else words
    return re.sub(r"\s*([,()\[\]{}=+*/^<>])\s*", r"\1", " ".join(text.split())).casefold().rstrip(".")
