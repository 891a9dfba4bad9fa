r"""Formulas as trees: LaTeX and plain mathematics as people and models write them, read by one parser.

    answer     item {("," | ";" | "and" | "or") item}                   a list; its order does not count
    item       ratio {("=" | "<" | "\le" | "\in" | ...) ratio}          a relation
    ratio      set {":" set}
    set        sum {("\cup" | "\cap" | "\setminus") sum}
    sum        product {("+" | "-" | "\pm") product}
    product    factor {["*" | "/" | "\cdot" | ...] factor}              also side by side
    factor     ["-" | "+" | "\pm"] atom ["!"] ["%"] ["^" argument]
    atom       number, symbol with its index, \frac, \sqrt, function, matrix, or brackets around an answer

A number beside a fraction of numbers is a mixed number (1\frac34 is 7/4). What is not in the grammar is no formula:
FormulaError, and the answer is compared as text.
"""
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

MOST_CHARACTERS, MOST_TOKENS, MOST_DEPTH, MOST_DIGITS = 2000, 400, 40, 400


class FormulaError(ValueError):
    """The text is no formula of this grammar."""


@dataclass(frozen=True, slots=True)
class Node:
    """One node of a tree: what it is, what it is made of, and its own value (a number's, a name, brackets, signs)."""

    kind: str
    args: tuple["Node", ...] = ()
    value: Any = None


@dataclass(frozen=True, slots=True)
class Number:
    """The value of a literal, and how many digits it has after its point (None: it has none)."""

    value: Fraction
    decimals: int | None = None


FUNCTIONS = {"sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "log",
             "ln", "lg", "exp", "sqrt", "gcd", "lcm", "min", "max"}
GREEK = {"alpha", "beta", "gamma", "delta", "epsilon", "varepsilon", "zeta", "eta", "theta", "vartheta", "kappa",
         "lambda", "mu", "nu", "xi", "rho", "sigma", "tau", "phi", "varphi", "chi", "psi", "omega", "Gamma", "Delta",
         "Theta", "Lambda", "Xi", "Pi", "Sigma", "Phi", "Psi", "Omega", "ell", "pi", "infty", "emptyset", "varnothing"}
TIMES = {"*", "\\cdot", "\\times", "\\ast", "\\div", "/"}
RELATIONS = {"=": "=", "==": "=", "<": "<", ">": ">", "<=": "<=", ">=": ">=", "!=": "!=", "\\lt": "<", "\\gt": ">",
             "\\le": "<=", "\\leq": "<=", "\\leqslant": "<=", "\\ge": ">=", "\\geq": ">=", "\\geqslant": ">=",
             "\\ne": "!=", "\\neq": "!=", "\\approx": "~", "\\sim": "~", "\\simeq": "~", "\\equiv": "=", "\\in": "in"}
SETS = {"\\cup": "union", "\\cap": "intersection", "\\setminus": "difference", "\\backslash": "difference"}
BETWEEN = {",", ";", "and", "or", "\\land", "\\lor", "\\wedge", "\\vee", "\\cr"}
CLOSING = {"(": ")]", "[": ")]", "\\{": ("\\}",), "\\langle": ("\\rangle",), "\\lfloor": ("\\rfloor",),
           "\\lceil": ("\\rceil",), "{": "}"}
STYLE = {"\\mathrm", "\\mathbf", "\\mathit", "\\mathsf", "\\mathcal", "\\mathbb", "\\boldsymbol", "\\vec", "\\bar",
         "\\hat", "\\overrightarrow", "\\overline", "\\operatorname", "\\boxed", "\\fbox", "\\phantom", "\\underline",
         "\\tilde", "\\widehat"}
MATRICES = {"matrix", "pmatrix", "bmatrix", "Bmatrix", "smallmatrix", "array"}

CHARACTERS = str.maketrans({
    **{chr(0xFEE0 + code): chr(code) for code in range(0x21, 0x7F)}, **dict.fromkeys("−–—‐‑‒－", "-"),
    "×": "\\times ", "·": "\\cdot ", "⋅": "\\cdot ", "÷": "\\div ",
    "∗": "*",
    "π": "\\pi ", "∞": "\\infty ", "∪": "\\cup ", "∩": "\\cap ", "∈": "\\in ", "≤": "\\le ", "≥": "\\ge ",
    "≠": "\\ne ", "≈": "\\approx ", "±": "\\pm ", "∓": "\\mp ", "√": "\\sqrt ", "²": "^2", "³": "^3",
    "°": "^\\circ ",
    "½": "\\frac12", "⅛": "\\frac18", "⅜": "\\frac38", "⅓": "\\frac13", "⅔": "\\frac23",
    "¼": "\\frac14", "¾": "\\frac34", "θ": "\\theta ",
    "α": "\\alpha ", "β": "\\beta ", "∅": "\\emptyset ",
    "\u2044": "/", **dict.fromkeys("\u00a0\u2009\u202f\u2003", " ")})
SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻ⁿ", "0123456789-n")
SUPERSCRIPT = re.compile("(?<=[\\w)\\]}])[⁰¹²³⁴⁵⁶⁷⁸⁹⁻ⁿ]+")
ROOT = re.compile(r"√\s?(\d+(?:\.\d+)?|[A-Za-z])")
REPEATED = re.compile(r"(?<![\d.])(\d*\.\d*?)(\d)\2{2,}(?:\.{3}|…)")      # 0.333...
# of the room between things nothing is left, of the other commands here a space or a sign
REWRITES = [(re.compile(pattern), by) for pattern, by in (
    (r"\\(?:left|right|middle|[bB]igg?[lrm]?|displaystyle|textstyle|limits|mathstrut)(?![A-Za-z])\.?", ""),
    (r"(?<=\d)(?:\s*\{\s*,\s*\}\s*|\s*,\s*\\!\s*)(?=\d{3}(?!\d))", ""),
    (r"(?<=\d)\{,\}(?=\d)", "."),
    (r"(?<=\d)\\[,:](?=\d{3}(?!\d))", ""),
    (r"\\!", ""),
    (r"\\q?quad|(?<!\\)\\[,;:> ]|\\hspace\s*\{[^{}]*\}|\\hfill|~", " "),
    (r"\\(?:dfrac|tfrac|cfrac|sfrac)(?![A-Za-z])", r"\\frac"),
    (r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))|\\degree(?![A-Za-z])", r" \\deg "),
    (r"\\(?:text|textbf|textit|textrm|textnormal|mbox|mathrm|mathbf|operatorname)\s*\{([^{}]*)\}", r" \1 "),
    (r"\\(?:text)?color\s*\{[^{}]*\}|\\(?:Large|large|LARGE|huge|Huge|small|bf|it|rm)(?![A-Za-z])", ""),
    (r"\{([^{}]*)\\choose(?![A-Za-z])([^{}]*)\}", r"\\binom{\1}{\2}"), (r"\\[dt]binom(?![A-Za-z])", r"\\binom"),
    (r"\{([^{}]*)\\over(?![A-Za-z])([^{}]*)\}", r"\\frac{\1}{\2}"), (r"\\pmod\s*(?:\{[^{}]*\}|\w+)", ""),
    (r"(?<=\.)(\d*)\\(?:bar|dot)\s*\{?(\d+)\}?", r"\1\\overline{\2}"),
    (r"\\(?:leftarrow|iff|implies|therefore|because|Rightarrow)(?![A-Za-z])", " "),
    (r"\\(?:lbrace|lbrack)(?![A-Za-z])", r"\\{"), (r"\\(?:rbrace|rbrack)(?![A-Za-z])", r"\\}"),
    (r"\\mid(?![A-Za-z])|\\[lr]?vert(?![A-Za-z])|\\\|", "|"),
    (r"\\(?=[%$&#_])", ""))]
TOKEN = re.compile(r"\s+|(?P<number>\d+\.(?!\d)|(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,4}(?![\dA-Za-z]))?)"
                   r"|(?P<other>\\begin\s*\{[a-z]*\*?\}(?:\s*\{[lcr|\s]*\})?|\\end\s*\{[a-z]*\*?\}|\\[A-Za-z]+|\\\\"
                   r"|\\[{}]|[A-Za-z]+|\*\*|<=|>=|!=|==|[-+*/^_=<>|(){}\[\],;:!&%'])")
# the readings of a comma between digits: it separates, or groups thousands, or is the decimal point
THOUSANDS = re.compile(r"(?<![\d.,(\[{])(?:[1-9]\d{0,2}(?:[, '’]\d{3})+|[1-9]\d?(?:,\d\d)+,\d{3})(?![\d]|,\d)")
DECIMAL = re.compile(r"(?<![\d.,])(?:\d+|[1-9]\d{0,2}(?:[.\s]\d{3})+),\d+(?![\d.]|,\d)")
POINTS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:\.\d{3}){2,}(?![\d.]|,\d)")


def superscript(found: re.Match[str]) -> str:
    """Raised digits as a power."""
    return "^{" + found[0].translate(SUPERSCRIPTS) + "}"


def plain(text: str) -> str:
    r"""A formula without what only changes its looks.

    >>> plain(r"\left( \dfrac{1}{2},\, 14{,}916 \right)").replace(" ", "")
    '(\\frac{1}{2},14916)'
    """
    text = ROOT.sub(r"\\sqrt{\1}", SUPERSCRIPT.sub(superscript, REPEATED.sub(r"\1\\overline{\2}", text)))
    text = text.translate(CHARACTERS)
    if "\\" in text or "{" in text or "~" in text:
        if "\\begin" not in text:
            text = re.sub(r"\\\\(?=[A-Za-z{}(),;!])", r"\\", text)     # a backslash that was escaped once too often
        for pattern, by in REWRITES:
            text = pattern.sub(by, text)
    return re.sub(r"\$+|\\[()\[\]]", " ", text)


def readings(text: str) -> Iterator[str]:
    """The text, with commas, points and spaces in numbers as each custom means them: 1,234 is a number or two, 1,5 a
    decimal or two numbers.

    >>> list(readings("1,234")), list(readings("2,5")), list(readings("7")), list(readings("1.234.567,5"))
    (['1,234', '1234'], ['2,5', '2.5'], ['7'], ['1.234.567,5', '1234567.5'])
    """
    yield text
    for pattern, change in ((THOUSANDS, without_marks), (DECIMAL, decimal_comma), (POINTS, without_marks)):
        other = pattern.sub(change, text)
        if other != text and not (pattern is DECIMAL and THOUSANDS.search(text) and "." not in text):
            yield other


def without_marks(number: re.Match) -> str:
    """The digits of a number alone."""
    return re.sub(r"\D", "", number[0])


def decimal_comma(number: re.Match) -> str:
    """A number with a decimal point for its comma."""
    whole, _, rest = number[0].partition(",")
    return re.sub(r"\D", "", whole) + "." + rest


def parse(text: str) -> Node:
    r"""The tree of a formula, in which a comma separates. FormulaError for what is none.

    >>> parse(r"1\frac{3}{4}").kind, [arg.value.value for arg in parse("(1, 2)").args]
    ('sum', [Fraction(1, 1), Fraction(2, 1)])
    """
    if len(text) > MOST_CHARACTERS:
        raise FormulaError("too long")
    return Parser(tokens(plain(text))).whole()


def tokens(text: str) -> list[str]:
    """The tokens of a formula; single letters are tokens of their own, also where they stand side by side."""
    found, at = [], 0
    while at < len(text):
        match = TOKEN.match(text, at)
        if match is None:
            raise FormulaError(f"{text[at]!r}")
        at = match.end()
        token = match[0]
        if token.isspace():
            continue
        found += [token] if not token.isascii() or not token.isalpha() else words(token)
        if len(found) > MOST_TOKENS:
            raise FormulaError("too long")
    return found


def words(run: str) -> list[str]:
    """Letters that stand together: a known name, the name of a line or a triangle, or up to three symbols."""
    if run.lower() in ("and", "or"):
        return [run.lower()]
    if run in FUNCTIONS or run in GREEK - {"Pi"} or run in ("infinity", "inf"):
        return ["\\" + run.replace("infinity", "infty").replace("inf", "infty", run == "inf")]
    if run.isupper() or len(run) == 1:
        return [run]
    if len(run) > 3:
        raise FormulaError(f"the word {run!r}")
    return list(run)


class Parser:
    """Reads one list of tokens from its start."""

    def __init__(self, found: list[str]):
        self.tokens, self.at, self.depth, self.bars = found, 0, 0, 0

    def peek(self, ahead: int = 0) -> str:
        """The next token, or "" at the end."""
        return self.tokens[self.at + ahead] if self.at + ahead < len(self.tokens) else ""

    def take(self, *wanted: str) -> str:
        """The next token, which is passed; FormulaError where it is none of those wanted."""
        token = self.peek()
        if not token or (wanted and token not in wanted):
            raise FormulaError(f"{token!r} where {' or '.join(wanted) or 'something'} should be")
        self.at += 1
        return token

    def whole(self) -> Node:
        """All tokens as one answer."""
        node = self.answer()
        if self.at < len(self.tokens):
            raise FormulaError(f"{self.peek()!r} after the end")
        return node

    def answer(self) -> Node:
        """Items, and what separates them."""
        self.depth += 1
        if self.depth > MOST_DEPTH:
            raise FormulaError("too deep")
        items, groups, commas = [self.item()], [], False
        while self.peek() in BETWEEN:
            mark = self.take()
            while self.peek() in BETWEEN and mark == ",":            # "1, 2, and 3"
                mark = self.take()
            commas |= mark == ","
            if mark == ";" and commas and len(items) > 1:
                groups.append(Node("group", tuple(items), "()"))
                items = []
            items.append(self.item())
        self.depth -= 1
        if groups:                                                    # "p = 5, q = 2; p = 7, q = 2"
            return Node("list", (*groups, Node("group", tuple(items), "()") if len(items) > 1 else items[0]))
        return items[0] if len(items) == 1 else Node("list", tuple(items))

    def chain(self, part: Callable[[], Node], marks: dict[str, str], kind: str) -> Node:
        """Parts with marks between them: one part alone is itself."""
        parts, between = [part()], []
        while self.peek() in marks:
            between.append(marks[self.take()])
            parts.append(part())
        return parts[0] if len(parts) == 1 else Node(kind, tuple(parts), tuple(between))

    def item(self) -> Node:
        """A relation, or what stands for one."""
        return self.chain(self.ratio, RELATIONS, "relation")

    def ratio(self) -> Node:
        """3 : 4."""
        return self.chain(self.sets, {":": ":"}, "ratio")

    def sets(self) -> Node:
        """Sets and what joins them, from the left."""
        node = self.sum()
        while self.peek() in SETS:
            node = Node(SETS[self.take()], (node, self.sum()))
        return node

    def sum(self) -> Node:
        """Terms."""
        node = self.product()
        while (sign := self.peek()) in ("+", "-", "\\pm", "\\mp"):
            self.take()
            term = self.product()
            node = Node("plusminus", (node, term), sign) if sign[0] == "\\" else Node(
                "sum", (node, term if sign == "+" else Node("negative", (term,))))
        return node

    def product(self) -> Node:
        """Factors; a quotient binds as strongly as a product, from the left."""
        node = self.factor()
        while (mark := self.peek()) in TIMES or (mark and self.begins_factor()):
            if mark in TIMES:
                self.take()
            other = self.factor(signed=mark in TIMES)
            node = Node("quotient" if mark in ("/", "\\div") else "product", (node, other))
        return node

    def begins_factor(self) -> bool:
        """Whether what comes next can stand beside a factor, which a number cannot."""
        token = self.peek()
        if token == "|":
            return self.bars == 0
        if token[0].isdigit() or token[0] == ".":
            return False
        return token in "([{" or token[0].isalpha() and token not in BETWEEN or (
            token[0] == "\\" and token not in RELATIONS and token not in SETS and token not in BETWEEN
            and token not in ("\\pm", "\\mp", "\\}", "\\rangle", "\\rfloor", "\\rceil", "\\\\", "\\end")
            and not token.startswith("\\end"))

    def factor(self, signed: bool = True) -> Node:
        """A sign, an atom, and what is written behind it."""
        if signed and self.peek() in ("-", "+", "\\pm", "\\mp"):
            sign = self.take()
            self.depth += 1
            if self.depth > MOST_DEPTH:
                raise FormulaError("too deep")
            node = self.factor()
            while self.peek() and self.peek() not in TIMES and self.begins_factor():
                node = Node("product", (node, self.factor(signed=False)))
            self.depth -= 1
            if sign == "+":
                return node
            zero = Node("number", value=Number(Fraction(0)))
            return Node("negative", (node,)) if sign == "-" else Node("plusminus", (zero, node), sign)
        node = self.atom()
        while (mark := self.peek()) in ("!", "%", "\\deg", "'", "^", "**"):
            self.take()
            if mark in ("^", "**"):
                node = Node("power", (node, self.exponent()))
            elif mark == "'":
                node = Node("symbol", value=f"{node.value}'")
            else:
                node = Node({"!": "factorial", "%": "percent"}.get(mark, "degrees"), (node,))
        return node

    def exponent(self) -> Node:
        """What stands above: one token without braces, with its sign in plain text (10^-3)."""
        if self.peek() == "-":
            self.take()
            return Node("negative", (self.argument(split=False),))
        return self.argument(split=False)

    def argument(self, split: bool = True) -> Node:
        r"""What a command applies to: braces, or one token, which of a number is one digit (\frac34)."""
        token = self.peek()
        if token == "{":
            return self.braces()
        if token.isdigit() and split and len(token) > 1:
            self.tokens[self.at] = token[1:]
            return literal(token[0])
        if token == "\\frac" or token == "\\sqrt" or token[:1] not in ("\\", ""):
            return self.atom()
        if token[1:] in GREEK:
            return self.atom()
        raise FormulaError(f"{token!r} where an argument should be")

    def braces(self) -> Node:
        """What stands in braces; a list there is a set."""
        self.take("{")
        node = self.answer()
        self.take("}")
        return Node("group", node.args, "{}") if node.kind == "list" else node

    def atom(self) -> Node:
        """A number, a symbol, a command, or brackets."""
        token = self.peek()
        if token in ("(", "[", "\\{", "\\langle", "\\lfloor", "\\lceil"):
            return self.brackets()
        if token == "{":
            return self.braces()
        if token == "|":
            return self.absolute()
        token = self.take()
        if token[0].isdigit() or token[0] == ".":
            return self.number(token)
        if token.isalpha():
            return self.symbol(token)
        return self.command(token)

    def number(self, token: str) -> Node:
        """A literal, with the fraction that makes it a mixed number, the digits that go on, or its base."""
        node = literal(token)
        following = self.peek()
        if following == "\\overline" and "." in token and re.fullmatch(r"\d+", self.peek(2)):
            _, _, digits, _ = self.take(), self.take("{"), self.take(), self.take("}")
            return Node("number", value=Number(repeating(token, digits)))
        if following == "_":
            self.take()
            return Node("based", value=(token, number_of(self.argument(split=False))))
        if token.isdigit() and following == "\\frac":
            start = self.at
            part = self.atom()
            if all(arg.kind == "number" for arg in part.args) and self.peek() != "^":
                return Node("sum", (node, part))
            self.at = start
        if token.isdigit() and following.isdigit() and self.peek(1) == "/" and self.peek(2).isdigit():
            top, _, bottom = self.take(), self.take(), self.take()
            return Node("sum", (node, Node("quotient", (literal(top), literal(bottom)))))
        return node

    def symbol(self, name: str) -> Node:
        """A letter, or the name of a thing, with its index."""
        while self.peek() == "_":
            self.take()
            start = self.at
            self.argument(split=True)
            name += "_" + "".join(self.tokens[start:self.at]).strip("{}")
        return Node("symbol", value=name)

    def brackets(self) -> Node:
        """Brackets around one thing, a tuple, an interval or a set."""
        opening = self.take()
        bars, self.bars = self.bars, 0
        if opening == "\\{" and self.peek() == "\\}":
            self.take()
            return Node("group", (), "{}")
        node = self.answer()
        self.bars = bars
        closing = self.take(*CLOSING[opening])
        if opening in ("\\lfloor", "\\lceil"):
            return Node("call", (node,), "floor" if opening == "\\lfloor" else "ceil")
        kind = {"\\{": "{}", "\\langle": "()"}.get(opening, opening + closing)
        if node.kind == "list":
            return Node("group", node.args, kind)
        if kind == "()" or node.kind == "matrix":
            return node
        return Node("group", (node,), kind)

    def absolute(self) -> Node:
        """|x|."""
        self.take("|")
        self.bars += 1
        node = self.sum()
        self.bars -= 1
        self.take("|")
        return Node("call", (node,), "abs")

    def command(self, token: str) -> Node:
        """A command with what it applies to."""
        name = token[1:]
        if name == "frac":
            return Node("quotient", (self.argument(), self.argument()))
        if name == "binom":
            return Node("call", (self.argument(), self.argument()), "binom")
        if name == "sqrt":
            index = literal("2")
            if self.peek() == "[":
                self.take()
                index = self.sum()
                self.take("]")
            return Node("root", (self.argument() if self.peek() != "(" else self.brackets(), index))
        if token.startswith("\\begin"):
            return self.matrix(token)
        if token == "\\mathbb" and self.peek() == "{" and self.peek(1) == "R":
            self.at += 3
            ends = Node("symbol", value="infty")
            return Node("group", (Node("negative", (ends,)), ends), "()")
        if token in STYLE:
            return self.argument(split=False)
        if name in FUNCTIONS:
            return self.function(name)
        if name in ("angle", "triangle", "odot", "parallelogram", "square"):
            return Node("symbol", value=f"{name} {self.argument().value}")
        if name in GREEK:
            return self.symbol("emptyset" if name == "varnothing" else name)
        raise FormulaError(f"the command {token!r}")

    def function(self, name: str) -> Node:
        r"""A function of what follows: brackets, or all that stands beside it up to the next function (\sin 2x)."""
        base = power = None
        if self.peek() == "_":
            self.take()
            base = self.argument()
        if self.peek() == "^":
            self.take()
            power = self.exponent()
        if self.peek() in ("(", "{", "|"):
            arguments = self.factor(signed=False)
        else:
            arguments = self.factor()
            while self.peek() and self.peek() != "(" and self.peek()[1:] not in FUNCTIONS and self.begins_factor():
                arguments = Node("product", (arguments, self.factor(signed=False)))
        several = arguments.args if arguments.kind == "group" else (arguments,)
        if power is not None and power.kind == "negative" and name in ("sin", "cos", "tan") and (
                power.args[0] == literal("1")):                       # the inverse function
            name, power = f"arc{name}", None
        node = Node("call", several if base is None else (*several, base), name)
        return node if power is None else Node("power", (node, power))

    def matrix(self, begin: str) -> Node:
        r"""\begin{pmatrix} a & b \\ c & d \end{pmatrix}."""
        name = re.sub(r"\\begin\s*\{|\}.*", "", begin)
        if name not in MATRICES:
            raise FormulaError(f"the environment {name!r}")
        rows: list[list[Node]] = [[]]
        while not self.peek().startswith("\\end"):
            if self.peek() == "\\\\":
                self.take()
                rows.append([])
            elif self.peek() == "&":
                self.take()
            else:
                rows[-1].append(self.sum())
        self.take()
        rows = [row for row in rows if row]
        if not rows or len({len(row) for row in rows}) != 1:
            raise FormulaError("rows of different lengths")
        return Node("matrix", tuple(node for row in rows for node in row), len(rows[0]))


def literal(token: str) -> Node:
    """The node of a number."""
    if len(token) > MOST_DIGITS:
        raise FormulaError("too many digits")
    digits, _, exponent = token.lower().partition("e")
    if exponent and abs(int(exponent)) > MOST_DIGITS:
        raise FormulaError("too large a number")
    after = len(digits.partition(".")[2])
    return Node("number", value=Number(Fraction(token.rstrip(".")), after if after and not exponent else None))


def number_of(node: Node) -> int:
    """The whole number that a node is; FormulaError for anything else."""
    if node.kind != "number" or node.value.value.denominator != 1:
        raise FormulaError("no base")
    return int(node.value.value)


def repeating(token: str, digits: str) -> Fraction:
    r"""0.1\overline{6}: the number, with these digits again and again."""
    if len(token) + len(digits) > MOST_DIGITS:
        raise FormulaError("too many digits")
    places = len(token.partition(".")[2])
    return Fraction(token.rstrip(".")) + Fraction(int(digits), (10 ** len(digits) - 1) * 10 ** places)
