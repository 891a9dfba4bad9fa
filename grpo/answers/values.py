"""What a formula is worth: exactly where it is rational, else as a number, or a matrix of numbers, at a point that its
names are given; and whether two are worth the same."""
import cmath
import functools
import math
import zlib
from collections.abc import Callable, Mapping
from fractions import Fraction

from .formula import FormulaError, Node

MOST_BITS = 20_000                           # of a power or a factorial that is taken exactly
POINTS = 10                                  # at which expressions with names are compared
LEAST_POINTS = 3                             # of them, where both have a value
CLOSE = 1e-9                                 # relative difference of what is the same as floating-point numbers
LEAST_DIGITS = 3                             # that count of such a decimal
DECIMALS = 6                                 # a decimal with as many digits after its point may be rounded
CONSTANTS: dict[str, complex] = {"pi": math.pi, "e": math.e, "i": 1j}
CALLS: dict[str, Callable[[complex], complex]] = {
    "sin": cmath.sin, "cos": cmath.cos, "tan": cmath.tan, "arcsin": cmath.asin, "arccos": cmath.acos,
    "arctan": cmath.atan, "sinh": cmath.sinh, "cosh": cmath.cosh, "tanh": cmath.tanh, "ln": cmath.log,
    "exp": cmath.exp, "sqrt": cmath.sqrt, "abs": abs, "sec": lambda x: 1 / cmath.cos(x),
    "csc": lambda x: 1 / cmath.sin(x), "cot": lambda x: 1 / cmath.tan(x), "lg": cmath.log10,
    "floor": lambda x: math.floor(x.real), "ceil": lambda x: math.ceil(x.real)}
UNDEFINED = (ArithmeticError, ValueError, TypeError)
Matrix = list[list[complex]]


@functools.lru_cache(4096)
def symbols(node: Node) -> frozenset[str]:
    """The names in a formula."""
    own = frozenset([node.value]) if node.kind == "symbol" else frozenset()
    return own.union(*map(symbols, node.args))


def is_constant(node: Node) -> bool:
    """Whether it is one number, without names."""
    return symbols(node) <= CONSTANTS.keys() and node.kind not in ("list", "group", "matrix", "relation")


def coordinate(name: str, k: int) -> complex:
    """The value of a name at the k-th point: the same in every formula, between 0.4 and 2.4, at odd points negative."""
    return CONSTANTS.get(name, (0.4 + zlib.crc32(f"{name} {k}".encode()) / 2**31) * (-1) ** k)


def same_value(wanted: Node, given: Node) -> bool:
    """Whether two expressions are the same number, or function of their names."""
    a, b = exact(wanted), exact(given)
    if a is not None and b is not None:
        return a == b or rounded(wanted, given, a, b)
    names = symbols(wanted) | symbols(given)
    if names <= CONSTANTS.keys() and (a is None) != (b is None):
        try:
            if rounded(wanted, given, number_at(wanted, {}).real, number_at(given, {}).real):
                return True
        except UNDEFINED:
            return False
    variable = bool(names - CONSTANTS.keys())
    seen = 0
    for k in range(POINTS if variable else 1):
        point = {name: coordinate(name, k) for name in names}
        try:
            x, y = value_at(wanted, point), value_at(given, point)
        except UNDEFINED:
            continue
        if not near(x, y):
            return False
        seen += 1
    return seen >= (LEAST_POINTS if variable else 1)


def rounded(wanted: Node, given: Node, a: Fraction | float, b: Fraction | float) -> bool:
    """Whether one of them is a decimal of at least DECIMALS places to which the other can be rounded."""
    places: list[int] = [node.value.decimals for node in (unsigned(wanted), unsigned(given))
              if node.kind == "number" and node.value.decimals is not None]
    return (bool(places) and min(places) >= DECIMALS and abs(float(a - b)) <= 0.51 * 10.0 ** -min(places)
            and min(abs(float(a)), abs(float(b))) >= 10.0 ** (LEAST_DIGITS - min(places)))


def unsigned(node: Node) -> Node:
    """The formula without a minus before it."""
    return node.args[0] if node.kind == "negative" else node


def near(a: complex | Matrix, b: complex | Matrix) -> bool:
    """Whether two values, numbers or matrices, are the same but for rounding."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(len(r) == len(s) and all(map(near, r, s)) for r, s in zip(a, b, strict=True))
    if isinstance(a, list) or isinstance(b, list):
        return False
    x, y = complex(a), complex(b)
    return cmath.isfinite(x) and cmath.isfinite(y) and abs(x - y) <= CLOSE * max(abs(x), abs(y)) + 1e-300


@functools.lru_cache(4096)
def exact(node: Node) -> Fraction | None:
    """The rational value of a formula; None where it has none, or one too long to write down."""
    try:
        return exact_value(node)
    except (*UNDEFINED, FormulaError):
        return None


def exact_value(node: Node) -> Fraction:
    """exact(); ValueError where there is none."""
    if node.kind == "number":
        return node.value.value
    if node.kind == "call" and node.value == "abs":
        return abs(exact_value(node.args[0]))
    if node.kind not in ("sum", "product", "quotient", "negative", "power", "factorial", "percent", "root"):
        raise ValueError("not rational")
    values = [exact_value(arg) for arg in node.args]
    if node.kind == "sum":
        return values[0] + values[1]
    if node.kind == "product":
        return small(values[0] * values[1])
    if node.kind == "quotient":
        return small(values[0] / values[1])
    if node.kind == "negative":
        return -values[0]
    if node.kind == "percent":
        return values[0] / 100
    if node.kind == "factorial":
        if values[0].denominator != 1 or not 0 <= values[0] <= 1500:
            raise ValueError("no factorial to take")
        return Fraction(math.factorial(int(values[0])))
    if node.kind == "root":
        if values[1].denominator != 1 or not 2 <= values[1] <= 16:
            raise ValueError("no root to take")
        return root(values[0], int(values[1]))
    return power(values[0], values[1])


def small(value: Fraction) -> Fraction:
    """The value, unless it is too long."""
    if value.numerator.bit_length() + value.denominator.bit_length() > 4 * MOST_BITS:
        raise ValueError("too long")
    return value


def power(base: Fraction, exponent: Fraction) -> Fraction:
    """A rational power, where it is rational and not too long."""
    if exponent.denominator != 1:
        if exponent.denominator > 16:
            raise ValueError("no root to take")
        base = root(base, exponent.denominator)
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if bits * abs(exponent.numerator) > MOST_BITS and abs(base) not in (0, 1):
        raise ValueError("too long")
    return base ** exponent.numerator


def root(value: Fraction, index: int) -> Fraction:
    """A root that is rational."""
    if value < 0:
        if index % 2 == 0:
            raise ValueError("not real")
        return -root(-value, index)
    found = Fraction(whole_root(value.numerator, index), whole_root(value.denominator, index))
    if found ** index != value:
        raise ValueError("irrational")
    return found


def whole_root(value: int, index: int) -> int:
    """The root of a whole number, rounded down."""
    if value < 2:
        return value
    guess = 1 << -(-value.bit_length() // index)
    while (better := ((index - 1) * guess + value // guess ** (index - 1)) // index) < guess:
        guess = better
    return guess


def value_at(node: Node, point: Mapping[str, complex]) -> complex | Matrix:
    """The value at a point. One of UNDEFINED where there is none."""
    if node.kind == "matrix":
        entries = [number_at(arg, point) for arg in node.args]
        return [entries[i:i + node.value] for i in range(0, len(entries), node.value)]
    if not has_matrix(node):
        return number_at(node, point)
    values = [value_at(arg, point) for arg in node.args]
    if node.kind == "negative":
        return multiplied(-1.0, values[0])
    if node.kind == "product":
        return multiplied(*values)
    a, b = values
    if node.kind == "quotient" and not isinstance(b, list):
        return multiplied(a, 1 / b)
    if node.kind == "sum" and isinstance(a, list) and isinstance(b, list):
        return [[x + y for x, y in zip(r, s, strict=True)] for r, s in zip(a, b, strict=True)]
    raise ValueError(f"no {node.kind} of a matrix")


@functools.lru_cache(4096)
def has_matrix(node: Node) -> bool:
    """Whether there is a matrix in it."""
    return node.kind == "matrix" or any(map(has_matrix, node.args))


def multiplied(a: complex | Matrix, b: complex | Matrix) -> complex | Matrix:
    """The product of numbers and matrices."""
    if isinstance(a, list):
        if isinstance(b, list):
            columns = list(zip(*b, strict=True))
            return [[sum(x * y for x, y in zip(row, column, strict=True)) for column in columns] for row in a]
        return [[x * b for x in row] for row in a]
    return [[a * x for x in row] for row in b] if isinstance(b, list) else a * b


def number_at(node: Node, point: Mapping[str, complex]) -> complex:
    """The value at a point of what is no matrix. One of UNDEFINED where there is none."""
    if node.kind == "symbol":
        if node.value in CONSTANTS:
            return CONSTANTS[node.value]
        if node.value not in point:
            raise ValueError("a name without a value")
        return complex(point[node.value])
    if (rational := exact(node)) is not None:
        return complex(float(rational))
    values = [number_at(arg, point) for arg in node.args]
    if node.kind == "call":
        return complex(called(node.value, values))
    if node.kind not in ("sum", "product", "negative", "quotient", "percent", "factorial", "power", "root",
                         "degrees"):
        raise ValueError(f"no value of a {node.kind}")
    a, b = values[0], values[-1]
    if node.kind == "power":
        return power_of(a, b, exact(node.args[1]))
    if node.kind == "root":
        odd = exact(node.args[1])
        return power_of(a, 1 / b, 1 / odd if odd else None)
    if node.kind == "factorial":
        if a.imag:
            raise ValueError("no factorial of it")
        return complex(math.gamma(a.real + 1))
    return {"sum": lambda: a + b, "product": lambda: a * b, "negative": lambda: -a, "quotient": lambda: a / b,
            "percent": lambda: a / 100, "degrees": lambda: a * math.pi / 180}[node.kind]()


def power_of(base: complex, exponent: complex, rational: Fraction | None) -> complex:
    """A power; of a negative number to a fraction with an odd denominator the one that is real."""
    odd = rational is not None and 1 < rational.denominator < 16 and rational.denominator % 2
    if rational is not None and odd and not base.imag and base.real < 0:
        return complex((-((-base.real) ** (1 / rational.denominator))) ** rational.numerator)
    return complex(base) ** exponent


def called(name: str, values: list[complex]) -> complex:
    """The value of a function."""
    first = values[0]
    if name == "log":
        return cmath.log(first) / (cmath.log(values[1]) if len(values) > 1 else math.log(10))
    if name == "binom":
        n, k = (value.real for value in values)
        return complex(math.gamma(n + 1) / (math.gamma(k + 1) * math.gamma(n - k + 1)))
    if name in ("gcd", "lcm"):
        whole = [int(value.real) for value in values]
        if whole != values:
            raise ValueError("no whole numbers")
        return complex(float(getattr(math, name)(*whole)))
    if name in ("min", "max"):
        return complex((min if name == "min" else max)(value.real for value in values))
    return CALLS[name](first)
