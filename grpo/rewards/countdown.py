"""Is an expression a solution of the game Countdown? Read by a small grammar; nothing is evaluated as Python."""
import ast
import operator
import re
from fractions import Fraction
from typing import Any

from ..answers import tagged_answer, text_of

ALLOWED = re.compile(r"[0-9+\-*/() ]{1,200}")
OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def countdown_reward(completions: list, numbers: list, target: list, **columns: Any) -> list[float | None]:
    """1.0 where the tagged answer is an expression of + - * / and parentheses that uses each of the row's numbers
    exactly once and equals its target, else 0.0; "= target" may follow. None for rows without numbers (of another data
    set).

    >>> answers = ["<answer>(8 - 2) * 4 = 24</answer>", "<answer>8 * 3</answer>"]
    >>> countdown_reward(answers, numbers=[[2, 4, 8]] * 2, target=[24, 24])
    [1.0, 0.0]
    """
    return [None if given is None else float(reaches(tagged_answer(text_of(c)), given, wanted))
            for c, given, wanted in zip(completions, numbers, target, strict=True)]


def reaches(expression: str | None, numbers: list[int], target: int) -> bool:
    """Whether the expression reaches the target with these numbers."""
    if expression is None:
        return False
    left, equals, right = expression.replace("×", "*").replace("÷", "/").partition("=")
    if equals and right.strip() != str(target) or not ALLOWED.fullmatch(left):
        return False
    try:
        tree = ast.parse(left.strip(), mode="eval").body
        used = [number(node) for node in ast.walk(tree) if isinstance(node, ast.Constant)]
        return sorted(used) == sorted(numbers) and value(tree) == target
    except (SyntaxError, ZeroDivisionError, TypeError):
        return False


def value(node: ast.expr) -> Fraction:
    """The exact value of a sum, difference, product or quotient; TypeError for anything else."""
    if isinstance(node, ast.Constant):
        return Fraction(number(node))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -value(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        return OPERATORS[type(node.op)](value(node.left), value(node.right))
    raise TypeError(type(node).__name__)


def number(node: ast.Constant) -> int:
    """The whole number that stands there; TypeError for any other constant."""
    if not isinstance(node.value, int):
        raise TypeError(type(node.value).__name__)
    return node.value


NAMES = {"countdown_reward": countdown_reward}
