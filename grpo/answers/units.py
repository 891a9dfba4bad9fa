"""What may stand beside a number without being part of it: units from a list, currencies, and the nouns of what is
counted. Words that change the number ("10 below zero", "3 over four", "5 factorial") are none."""
import re
from collections.abc import Iterator, Set

# one name for all the ways to write a unit; dollars and "$" are the same, dollars and euros are not
UNITS = {name: one for one, names in {
    "%": "% percent pct percentage", "dollar": "$ dollar dollars usd us$ bucks", "euro": "€ euro euros eur",
    "pound": "pound pounds", "yen": "¥ yen jpy", "yuan": "yuan rmb cny", "rupee": "₹ rupee rupees rs inr",
    "won": "₩ won krw", "ruble": "₽ ruble rubles rub", "cent": "¢ cent cents", "penny": "penny pennies pence",
    "mm": "mm millimeter millimeters millimetre millimetres",
    "cm": "cm cms centimeter centimeters centimetre centimetres", "m": "m meter meters metre metres",
    "km": "km kms kilometer kilometers kilometre kilometres", "inch": "in inch inches", "foot": "ft foot feet",
    "yard": "yd yds yard yards", "mile": "mi mile miles", "mg": "mg milligram milligrams", "g": "g gram grams",
    "kg": "kg kgs kilogram kilograms kilo kilos", "ton": "ton tons tonne tonnes", "ounce": "oz ounce ounces",
    "ml": "ml milliliter milliliters millilitre millilitres", "l": "l liter liters litre litres",
    "gallon": "gal gallon gallons", "quart": "qt quart quarts", "pint": "pint pints", "cup": "cup cups",
    "tablespoon": "tbsp tablespoon tablespoons", "teaspoon": "tsp teaspoon teaspoons",
    "ms": "ms millisecond milliseconds", "second": "s sec secs second seconds",
    "minute": "min mins minute minutes", "hour": "h hr hrs hour hours", "day": "day days", "week": "week weeks",
    "month": "month months", "year": "yr yrs year years", "degree": "° deg degree degrees",
    "celsius": "°c celsius", "fahrenheit": "°f fahrenheit", "kelvin": "k kelvin",
    "radian": "rad radian radians", "unit": "unit units", "hectare": "ha hectare hectares",
    "acre": "acre acres", "watt": "w watt watts", "kw": "kw kilowatt kilowatts", "joule": "j joule joules",
    "newton": "n newton newtons", "volt": "v volt volts", "amp": "a amp amps ampere amperes", "hz": "hz hertz",
    "mol": "mol mole moles", "byte": "byte bytes", "kb": "kb", "mb": "mb", "gb": "gb",
    "person": "person persons people", "child": "child children", "man": "man men", "woman": "woman women",
    "fish": "fish", "sheep": "sheep", "mouse": "mouse mice", "goose": "goose geese", "tooth": "tooth teeth",
    "time": "times", "point": "point points pt pts", "way": "way ways", "piece": "piece pieces", "lb": "lb lbs",
    "sterling": "£ gbp quid", "mile/hour": "mph", "km/hour": "kph kmh", "ohm": "Ω ohm ohms", "um": "μm µm",
    "nm": "nm", "pa": "pa pascal pascals", "kpa": "kpa", "atm": "atm", "ev": "ev", "kwh": "kwh", "kj": "kj",
    "cal": "cal calorie calories", "kcal": "kcal", "rpm": "rpm"}.items()
    for name in names.split()}
SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
BEFORE = re.compile(r"(?P<sign>[-+]?)\s*(?P<unit>US\$|[$€£¥₹₩₽]|(?:USD|EUR|GBP|JPY|Rs\.?)(?![A-Za-z]))\s*"
                    r"(?=[-+.\d\\(])")
# words that change the number; but a question that asks for dozens or quarters counts them
FRACTIONS = {
    "half", "halves", "third", "thirds", "quarter", "quarters", "fourth", "fourths", "fifth", "fifths", "sixth",
    "sixths", "seventh", "sevenths", "eighth", "eighths", "ninth", "ninths", "tenth", "tenths", "twelfths",
    "hundredths", "thousandths", "dozen", "dozens", "hundred", "hundreds", "thousand", "thousands", "million",
    "millions", "billion", "billions", "trillion", "pair", "pairs", "score", "scores", "tens", "ones", "twelfth",
    "sixteenth", "sixteenths", "hundredth", "thousandth", "trillions", "lakh", "lakhs", "crore", "crores", "gross",
    "quintillion"}
CHANGING = {"pi", "squared", "cubed", "plus", "minus", "or", "and", "over", "under", "below", "above", "less", "fewer",
            "factorial", "negative", "to", "not", "by", "divided", "multiplied", "mod", "modulo", "double", "triple",
            "twice", "power", "root", "is", "are", "was", "were", "has", "does", "this", "its", "us", "yes",
            "versus", "vs", "thus", "as", "unless", "than", "but", "if", "then", "because", "since", "when", "choose",
            "exponent", "base", "from", "with", "without", "out", "at", "about", "between", "off", "remainder"}
AMBIGUOUS = ({"pound", "sterling"}, {"pound", "lb"})
OF_THEM = (["of", "them"], ["of", "these"], ["of", "those"])
SQUARE = {"square": "2", "sq": "2", "sq.": "2", "cubic": "3", "cu": "3"}
RATE = {"per", "a", "an", "each", "every", "/", "for"}
AFTER = sorted((rest.split() for rest in (
    "in total", "in all", "total", "altogether", "left", "left over", "remaining", "old", "of age", "long", "wide",
    "tall", "high", "deep", "away", "ago", "apart", "later", "each", "respectively", "overall", "combined",
    "earlier", "more")), key=len, reverse=True)      # the longest first
WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*|°\s{0,2}[CF]?(?![^\W\d_])|[%$€£¥₹₩₽¢/]")
PIECE = re.compile(rf"(?:{WORD.pattern})[²³]?|\S")
POWER = re.compile(r"([A-Za-z]+)(?:\s*\^\s*\{?\s*([23])\s*\}?|([23])(?!\d))")
SINGLE = frozenset("mglLhsNVWAJKCF")          # units of one letter, in their case
START = re.compile(r"(?<=[\d)\]}!.π²³ ])(?=\(?[A-Za-zµ°%$€£¥₹₩₽¢])")
MOST_WORDS = 8


def stem(word: str) -> str:
    """A noun without its plural.

    >>> stem("Apples"), stem("boxes"), stem("glass"), stem("cities")
    ('apple', 'box', 'glass', 'city')
    """
    word = word.casefold()
    for end, by in (("ies", "y"), ("xes", "x"), ("ches", "ch"), ("shes", "sh"), ("sses", "ss")):
        if word.endswith(end) and len(word) > len(end) + 1:
            return word[:-len(end)] + by
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 3 else word


def nouns_of(text: str) -> frozenset[str]:
    """The words of a question, each of which an answer may count.

    >>> sorted(nouns_of("How many dozen eggs?"))
    ['dozen', 'egg', 'how', 'many']
    """
    return frozenset(stem(word) for word in re.findall(r"[^\W\d_]{2,}", text))


def before(text: str) -> tuple[str, str]:
    """A number without the currency before it, and that currency.

    >>> before("-$5"), before("US$ 1,200"), before("5")
    (('-5', 'dollar'), ('1,200', 'dollar'), ('5', ''))
    """
    found = BEFORE.match(text)
    if found is None:
        return text, ""
    return found["sign"] + text[found.end():], UNITS[found["unit"].casefold().rstrip(".")]


def splits(text: str, nouns: Set[str], letters: Set[str] = SINGLE) -> Iterator[tuple[str, str]]:
    """(value, unit) for every place where the rest of the text is a unit, the shortest value first. letters: the units
    of one letter that count, where they stand apart ("5 m"; 5m is a product).

    >>> list(splits("12 cm^2", frozenset())), next(splits("18 dollars a day", frozenset()))
    ([('12', 'cm2')], ('18', 'dollar'))
    """
    for place in START.finditer(text):
        value, rest = text[:place.start()].rstrip(), text[place.start():]
        alone = re.match(r"([A-Za-z])(?![A-Za-z²³])", rest)
        if alone is not None and (alone[1] not in letters or not text[:place.start()].endswith(" ")):
            continue
        unit = unit_of(rest, nouns, value.strip())
        if unit is not None and value:
            yield value, unit


def unit_of(text: str, nouns: Set[str], value: str = "") -> str | None:
    """The one name of a unit or of what is counted; None where the text is anything else.

    >>> [unit_of(text, frozenset()) for text in ("square meters", "red apples left", "below zero")]
    ['m2', 'red apple', None]
    """
    text = POWER.sub(raised, re.sub(r"^\((\w+)\)$", r"\1", text.strip().rstrip(".")))
    text = re.sub(r"per\s+cent\b", "percent", text)
    found = PIECE.findall(text)
    if not found or len(found) > MOST_WORDS or not all(WORD.fullmatch(word.rstrip("²³")) for word in found):
        return None
    if [word.casefold() for word in found] in OF_THEM:
        return ""
    known = first_unit(found)
    name, used = known or counted(found, nouns, value)
    if not name and found[0].casefold() not in ("per", "each", "a", "an", "every"):
        return None
    rest = found[used:]
    while rest:
        rate = rest[0].casefold() in RATE and len(rest) > 1 and rest[1].casefold() not in CHANGING
        if rate:
            again = first_unit(rest[1:])
            if rest[0] in ("/", "per") or known and again and rest[0] == "every":
                name += "/" + (again[0] if again else stem(rest[1]))
            rest = rest[1 + (again[1] if again else 1):]
        elif rest[0].casefold() == "and" and (also := counted(rest[1:], nouns, value))[0]:
            rest = rest[1 + also[1]:]                                 # "12 apples and oranges"
        elif rest[0].casefold() == "of" and 1 < len(rest) <= 4 and not CHANGING & {w.casefold() for w in rest}:
            rest = []
        else:
            ending = next((e for e in AFTER if [w.casefold() for w in rest[:len(e)]] == e), None)
            if ending is None:
                return None
            rest = rest[len(ending):]
    return name


def raised(found: re.Match[str]) -> str:
    """cm^2 and cm2 as cm², where the word is a unit."""
    if found[1].casefold() not in UNITS:
        return found[0]
    return found[1] + ("²" if "2" in found.groups() else "³")


def first_unit(found: list[str]) -> tuple[str, int] | None:
    """The unit of the list that the words begin with, and how many of them it takes."""
    first = found[0].casefold()
    if first in SQUARE and len(found) > 1 and found[1].casefold() in UNITS:
        return UNITS[found[1].casefold()] + SQUARE[first], 2
    if first == "degrees" and len(found) > 1 and found[1].casefold() in ("celsius", "fahrenheit", "c", "f"):
        return ("celsius" if found[1].casefold()[0] == "c" else "fahrenheit"), 2
    bare = first.rstrip("²³").replace(" ", "")
    if bare not in UNITS or first == "times" and len(found) > 1:
        return None
    return UNITS[bare] + {"²": "2", "³": "3"}.get(first[-1], ""), 1


def counted(found: list[str], nouns: Set[str], value: str) -> tuple[str, int]:
    """The noun of what is counted, with up to two words before it, and how many words that takes; ("", 0) without one.
    It is in the question, or a plural, or one thing."""
    for used in (1, 2, 3):
        words = [word.casefold() for word in found[:used]]
        if used > len(found) or any(word in CHANGING or not word[0].isalpha() for word in words):
            break
        last = words[-1]
        asked = stem(last) in nouns
        if any(word in FRACTIONS and stem(word) not in nouns for word in words) or last in RATE | {"of"}:
            break
        plural = last.endswith("s") and not last.endswith(("ss", "us", "is")) and len(last) > 3
        if (asked or plural or value in ("1", "-1") and len(last) > 2) and (
                used == len(found) or not counted(found[used:], nouns, "")[0]):
            return " ".join([*words[:-1], stem(last)]), used
    return "", 0


def fits(wanted: str, given: str) -> bool:
    """Whether a unit may stand for another: the same, or left out on one side; of nouns the last word counts, and
    another word before it where both have one.

    >>> fits("km", "mile"), fits("", "apple"), fits("red apple", "apple"), fits("red apple", "big apple")
    (False, True, True, False)
    """
    if not wanted or not given or wanted == given or {wanted, given} in AMBIGUOUS:
        return True
    a, b = wanted.split(), given.split()
    return a[-1] == b[-1] and (set(a) <= set(b) or set(b) <= set(a))
