r"""Extractive match: the number that a text's layout points at, against the gold. R1 measures itself by it, and
lighteval on GSM8K.

Rules, best first; within a rule the match that ends last counts, and the first rule whose number can be read decides:

    1  "final answer is X. I hope", or \boxed{X}
    2  "final answer ... is X"
    3  "answer: ... X", within 50 characters, or up to 100 before an "="
    4  "answer ... X", the same
    5  any number or arithmetic after the start, white space or "="

It measures layout too: in <answer>18</answer> on one line the number follows a ">", so no rule sees it, and the last
number of the reasoning counts instead. A percentage is a hundredth.
"""
import ast
import operator
import re
from fractions import Fraction
from typing import Any

from ..answers import quantity

CURRENCY = "$€£¥₹₽₪₩₫฿"
NUMBER = r"(?>-?\d{1,3}(?:[ ,]\d{3})+(?!\d)(?:\.\d+)?|-?\d+(?:[.,]\d+)?|\.\d+)(?:\s*(?:%|percent\b))?"
ARITHMETIC = r"(?>-?\(?-?\d[\d.\s+\-*×/÷^()]*[+\-*×/÷^][\d.\s+\-*×/÷^()]*[\d)])"
ANCHOR = r"(?:^|\s|=\s*)(?:\*\*)?"
ANCHORED = rf"(?:{ANCHOR}(?P<x>{ARITHMETIC})(?=(?:\*\*)?(?:[.,:\s)$]|$))|{ANCHOR}[{CURRENCY}]?(?P<n>{NUMBER}))"
NEAR = rf"(?:.{{0,100}}(?==)|.{{0,50}}?){ANCHORED}(?!\s*=)"
RULES = [[re.compile(rule, re.DOTALL | re.IGNORECASE) for rule in rules] for rules in (
    [rf"final answer is:?\s*{ANCHORED}\.?\s?I hope", r"\\boxed\s*\{(?P<x>[^{}]*)(?P<n>)\}"],
    [rf"final answer.{{0,100}}?\s+is:?{ANCHORED}"],
    [rf"answer:{NEAR}"],
    [rf"answer{NEAR}"],
    [rf"{ANCHORED}(?!\s*=)"])]
OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
             ast.Pow: operator.pow}
CLOSE = Fraction(1, 10**5)
MOST_DIGITS = 40


def extractive_match(text: str, gold: Any) -> bool:
    r"""Whether the extracted number is the gold's, to five decimals; a gold without a number is compared as text.

    >>> extractive_match("9 * 2 is 18.\nAnswer: $18", "18")
    True
    >>> extractive_match("half of 18 is 9. <answer>18</answer>", "18")
    False
    """
    wanted = extracted(str(gold)) if quantity(str(gold)) is not None else None
    found = extracted(text)
    if wanted is None or found is None:
        return text.strip() == str(gold).strip()
    return abs(wanted - found) < CLOSE


def extracted(text: str) -> Fraction | None:
    """The number that the first rule with a readable one finds; None when none does."""
    for rules in RULES:
        matches = sorted((match for rule in rules for match in rule.finditer(text)), key=lambda match: match.end(),
                         reverse=True)
        for match in matches:
            if (value := value_of(match["x"] or match["n"])) is not None:
                return value
    return None


def number_of(text: str) -> Fraction | None:
    """'1,200.5', '1 200', '12,5' (a decimal comma) and '50%' (a half)."""
    plain, percent, _ = re.sub(r"\s*(?:percent)$", "%", text.strip(), flags=re.IGNORECASE).partition("%")
    plain = re.sub(r"[ ,](?=\d{3}(?:\D|$))", "", plain).replace(",", ".").strip()
    try:
        return Fraction(plain) / (100 if percent else 1)
    except ValueError:
        return None


def value_of(expression: str) -> Fraction | None:
    """The value of an arithmetic expression of numbers; None for what is none, or too long to be an answer."""
    plain = expression.strip().lstrip(CURRENCY).replace("×", "*").replace("÷", "/").replace("^", "**")
    if re.fullmatch(NUMBER, plain):
        return number_of(plain)
    try:
        return evaluated(ast.parse(plain, mode="eval").body) if len(plain) <= MOST_DIGITS else None
    except (SyntaxError, ValueError, TypeError, ZeroDivisionError, OverflowError):
        return None


def evaluated(node: ast.expr) -> Fraction:
    """The exact value of a syntax tree of numbers and OPERATORS; ValueError for anything else."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return Fraction(str(node.value))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -evaluated(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        left, right = evaluated(node.left), evaluated(node.right)
        if isinstance(node.op, ast.Pow) and (right.denominator != 1 or abs(right) > 64):
            raise ValueError("not a power to take")
        return Fraction(OPERATORS[type(node.op)](left, right))
    raise ValueError("not arithmetic")
