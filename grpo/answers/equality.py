r"""Whether two formulas say the same: expressions by value, lists and sets in any order, tuples and intervals one by
one, relations by what they say or where they hold.

>>> from grpo.answers.formula import parse
>>> equal(parse(r"\frac{\sqrt{12}}{2}"), parse(r"\sqrt{3}")), equal(parse("(0, 1]"), parse("[0, 1]"))
(True, False)
"""
import cmath
import functools
import itertools
import math
from collections.abc import Sequence

from .formula import Node
from .values import (
    CLOSE,
    CONSTANTS,
    LEAST_POINTS,
    POINTS,
    UNDEFINED,
    coordinate,
    is_constant,
    near,
    number_at,
    same_value,
    symbols,
)

MOST_PARTS = 64                              # of a list whose order does not count
FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!="}


def equal(wanted: Node, given: Node) -> bool:
    """Whether an answer equals the one that is wanted. The sides are not alike: an answer may leave the name out that
    is wanted ("x = 5"), say it where it is not, or be a set where a list or an inequality is wanted."""
    several, others = parts(wanted), parts(given)
    if several is not None or others is not None:
        a, b = distinct(several or [wanted]), distinct(others or [given])
        if several is not None and others is not None and (named := by_name(wanted, given)) is not None:
            return named
        if {wanted.kind, given.kind} == {"list", "group"} and all(
                map(said, (wanted if wanted.kind == "list" else given).args)):
            return len(wanted.args) == len(given.args) and in_order(wanted.args, given.args)     # x = 1, y = 2: (1, 2)
        return len(a) == len(b) <= MOST_PARTS and (matched(a, b) or len(a) == 1 and same(a[0], b[0]))
    return same(wanted, given)


def parts(node: Node) -> list[Node] | None:
    r"""The members of a list or a set whose order does not count, with both signs of \pm; None for one thing."""
    if node.kind == "list" or node.kind == "group" and node.value == "{}":
        return [one for arg in node.args for one in parts(arg) or signs(arg)]
    both = signs(node)
    if len(both) > 1:
        return both
    if node.kind == "relation" and node.value[-1] == "=" and is_name(node.args[-2]):
        inner = parts(node.args[-1])                                  # x = 1, 2 is read as two items; x = \{1, 2\} here
        return inner if inner is not None and node.args[-1].kind == "group" else None
    return None


@functools.lru_cache(4096)
def has_signs(node: Node) -> bool:
    r"""Whether there is \pm in it."""
    return node.kind == "plusminus" or any(map(has_signs, node.args))


def signs(node: Node) -> list[Node]:
    r"""The two things that a formula with \pm is: the upper signs, and the lower ones."""
    return [chosen(node, upper) for upper in (True, False)] if has_signs(node) else [node]


def chosen(node: Node, upper: bool) -> Node:
    r"""The formula with its upper, or lower, signs of \pm and \mp."""
    if node.kind == "plusminus":
        first, second = (chosen(arg, upper) for arg in node.args)
        return Node("sum", (first, second if (node.value == "\\pm") == upper else Node("negative", (second,))))
    return Node(node.kind, tuple(chosen(arg, upper) for arg in node.args), node.value) if has_signs(node) else node


def by_name(wanted: Node, given: Node) -> bool | None:
    """Whether lists of assignments are the same, where one says several names: the same names with their values, or
    the values in the order of the names. None where names tell nothing."""
    names = [[found[0] if (found := said(arg)) else None for arg in node.args] for node in (wanted, given)]
    if not any(len(set(each)) == len(each) > 1 and None not in each for each in names):
        return None
    if set(names[0]) == set(names[1]) and None not in names[0]:
        values = dict(zip(names[1], given.args, strict=True))
        return len(wanted.args) == len(given.args) and all(
            equal(arg, values[name]) for name, arg in zip(names[0], wanted.args, strict=True))
    return in_order(wanted.args, given.args)


def distinct(nodes: list[Node]) -> list[Node]:
    """The things without what is among them twice."""
    return list(dict.fromkeys(nodes))


def matched(wanted: Sequence[Node], given: Sequence[Node]) -> bool:
    """Whether the things are the same in some order."""
    left = list(given)
    for a in wanted:
        found = next((i for i, b in enumerate(left) if same(a, b)), None)
        if found is None:
            return False
        del left[found]
    return True


def same(wanted: Node, given: Node) -> bool:
    """equal() of two things, neither of which is a list."""
    if wanted == given:
        return True
    if wanted.kind == "relation" or given.kind == "relation":
        return same_relation(wanted, given)
    kinds = {wanted.kind, given.kind}
    if kinds & {"list", "group"}:
        return same_group(wanted, given)
    if kinds & {"union", "intersection", "difference", "ratio", "based"}:
        return (wanted.kind == given.kind and wanted.value == given.value and len(wanted.args) == len(given.args)
                and (matched if kinds <= {"union", "intersection"} else in_order)(flat(wanted), flat(given)))
    return same_value(wanted, given)


def flat(node: Node) -> list[Node]:
    """The sets of a union of unions."""
    return [part for arg in node.args for part in (flat(arg) if arg.kind == node.kind else [arg])]


def in_order(wanted: Sequence[Node], given: Sequence[Node]) -> bool:
    """Whether they are the same one by one."""
    return len(wanted) == len(given) and all(map(equal, wanted, given))


def same_group(wanted: Node, given: Node) -> bool:
    """Tuples, intervals and sets: their brackets and what is in them. A set may stand where a tuple is wanted."""
    if wanted.kind == given.kind == "group" and wanted.value != "{}":
        return (wanted.value == given.value or given.value == "{}") and in_order(wanted.args, given.args)
    if {wanted.kind, given.kind} == {"matrix", "group"}:                          # a column, or a row, as a tuple
        rows = next(node for node in (wanted, given) if node.kind == "matrix")
        return rows.value in (1, len(rows.args)) and "()" in (wanted.value, given.value) and in_order(
            wanted.args, given.args)
    if "list" in (wanted.kind, given.kind) or wanted.kind == given.kind:         # in a tuple, or both are sets
        a, b = (node.args if node.kind == "list" or node.value in ("{}", "()") else (node,) for node in (wanted, given))
        return len(a) == len(b) and matched(a, b)
    return False


# relations

def same_relation(wanted: Node, given: Node) -> bool:
    """Relations with each other, or one with the value or the set that it says."""
    a, b = said(wanted), said(given)
    if wanted.kind == given.kind:
        if a is not None and b is not None:
            return equal(a[1], b[1]) and same_name(a[0], b[0])
        if len(wanted.args) == len(given.args) == 2 and "in" not in given.value:
            return same_pair(wanted, given)
        if b is not None:
            return same_members(wanted, b[1])
        return (wanted.value == given.value and in_order(wanted.args, given.args)) or (
            tuple(FLIPPED.get(sign) for sign in reversed(given.value)) == wanted.value
            and in_order(wanted.args, given.args[::-1]))
    if a is not None:
        return equal(a[1], given)
    if b is not None:
        return equal(wanted, b[1])
    if given.kind == "relation" and given.value[-1] in ("=", "~") and is_constant(given.args[-1]):
        last = given.args[-1]                                         # x + y = 23
        return wanted.kind != "relation" and not is_zero(last) and equal(wanted, last)
    return wanted.kind == "relation" and same_members(wanted, given)


def said(relation: Node) -> tuple[Node, Node] | None:
    """The name and the value that a chain says it to have: what follows its last "=" (x = 2 + 3 = 5), or its "is in";
    what only comes near it is left out. None for an equation to be solved, for an inequality, and for no relation."""
    if relation.kind != "relation":
        return None
    args, between = list(relation.args), list(relation.value)
    if "~" in between and between.index("~") > 0:
        del args[between.index("~") + 1:], between[between.index("~"):]
    if any(sign not in ("=", "~", "in") for sign in between):
        return None
    name = next((arg for arg in args[:-1] if is_name(arg)), None)
    if name is not None and (name is args[-2] or is_constant(args[-1])):
        return name, args[-1]
    if is_name(args[-1]) and is_constant(args[-2]) and len(args) == 2 and between[-1] == "=":
        return args[-1], args[-2]                                     # 5 = x
    calculated = all(map(is_constant, args)) and args[0].kind != "number" and between[-1] == "="
    return (args[0], args[-1]) if calculated else None


def is_zero(node: Node) -> bool:
    """Whether it is 0, to which equations are brought that are to be solved."""
    return node.kind == "number" and not node.value.value


def is_name(node: Node) -> bool:
    """Whether it is a name for what is asked, and not a formula: x, f(x), |AB|, AB : CD, (p, q)."""
    if node.kind == "symbol":
        return True
    if node.kind == "call":
        return node.value == "abs" and is_name(node.args[0])
    if node.kind in ("ratio", "quotient", "group", "list"):
        return bool(node.args) and all(map(is_name, node.args)) and (
            node.kind != "quotient" or all(len(str(arg.value)) > 1 for arg in node.args))
    if node.kind == "product":                                        # f(x), W(n)
        name, argument = node.args
        return name.kind == "symbol" and name.value.rstrip("'") in set("fghFGHPQWTSpqVa") and (
            argument.kind in ("number", "symbol"))
    return False


def same_name(wanted: Node, given: Node) -> bool:
    """f(x) is not f(y); but an answer may name its unknown in its own way."""
    if wanted.kind == given.kind == "symbol":
        return wanted.value.partition("_")[2] == given.value.partition("_")[2]
    return wanted.kind != given.kind or wanted == given or wanted.kind in ("group", "list")


def same_pair(wanted: Node, given: Node) -> bool:
    """Two relations of two sides: the same solutions, where one is the other times a number."""
    signs_of = (wanted.value[0], given.value[0])
    if signs_of[0] not in FLIPPED or signs_of[1] not in FLIPPED:
        return signs_of[0] == signs_of[1] and in_order(wanted.args, given.args)
    differences = [Node("sum", (node.args[0], Node("negative", (node.args[1],)))) for node in (wanted, given)]
    names = sorted(symbols(differences[0]) | symbols(differences[1]))
    factors = []
    for k in range(POINTS):
        try:
            point = {name: coordinate(name, k) for name in names}
            a, b = (number_at(difference, point) for difference in differences)
            factors.append(a / b)
        except UNDEFINED:
            continue
    if len(factors) < LEAST_POINTS or abs(factors[0].imag) > CLOSE or not all(near(f, factors[0]) for f in factors):
        return False
    flipped = FLIPPED[signs_of[1]] if factors[0].real < 0 else signs_of[1]
    return signs_of[0] == flipped


def same_members(relation: Node, wanted: Node) -> bool:
    """Whether a set of numbers (intervals, and unions of them) is where an inequality with one name holds: tried at
    every number that stands in one of them, and beside it."""
    if wanted.kind not in ("group", "union", "list") or wanted.value == "()" and len(wanted.args) != 2:
        return False
    intervals = [wanted] if wanted.kind != "union" else flat(wanted)
    names = [name for name in sorted(set().union(*map(symbols, relation.args))) if name not in CONSTANTS]
    bounds = [value for node in (relation, *intervals) for value in constants(node)]
    whole = {arg for arg in relation.args if is_name(arg) and arg.kind != "call"}
    if len(names) != 1 and not whole:
        return False
    steps = (-1e-4, 0, 1e-4)
    tried = {sign * end + step for end in (*bounds, 0.0) for sign in (1, -1) for step in steps} | {-1e7, 1e7}
    try:
        return all(holds(relation, names, whole, x) == any(contains(i, x) for i in intervals) for x in tried)
    except UNDEFINED:
        return False


def holds(relation: Node, names: Sequence[str], whole: set[Node], x: float) -> bool:
    """Whether a chain of inequalities is true where its name is x."""
    values = [x if arg in whole else number_at(arg, dict.fromkeys(names, complex(x))).real for arg in relation.args]
    return all(compared(sign, a, b) for sign, (a, b) in zip(relation.value, itertools.pairwise(values), strict=True))


def compared(sign: str, a: float, b: float) -> bool:
    """a < b, a <= b, ..., where what is near is the same."""
    level = math.isclose(a, b, rel_tol=CLOSE, abs_tol=CLOSE)
    return {"<": a < b and not level, ">": a > b and not level, "<=": a < b or level, ">=": a > b or level,
            "=": level, "!=": not level}[sign]


def contains(interval: Node, x: float) -> bool:
    """Whether a number is in an interval, or in a set of numbers."""
    if interval.kind != "group" or interval.value == "{}":
        members = interval.args if interval.kind == "group" else (interval,)
        return any(compared("=", x, number_at(member, {}).real) for member in members)
    low, high = (bound(arg) for arg in interval.args)
    return compared("<" if interval.value[0] == "(" else "<=", low, x) and compared(
        "<" if interval.value[1] == ")" else "<=", x, high)


def bound(node: Node) -> float:
    r"""The end of an interval; \infty is far away."""
    if node.kind == "negative" and node.args[0].value == "infty":
        return -math.inf
    return math.inf if node.value == "infty" else number_at(node, {}).real


def constants(node: Node) -> set[float]:
    """The values of the largest parts without a name."""
    if is_constant(node):
        try:
            value = number_at(node, {})
            return {value.real} if cmath.isfinite(value) else set()
        except UNDEFINED:
            return set()
    return set().union(*map(constants, node.args)) if node.args else set()
