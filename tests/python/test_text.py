"""The answer of a completion, and when two answers are the same."""
from fractions import Fraction

import pytest

from grpo.rewards.text import as_number, final_answer, quantity, same_answer, tagged, tagged_answer


@pytest.mark.parametrize("given, number", [
    ("1,200", 1200), ("$1,200.00", 1200), ("-$5", -5), ("$-5", -5), ("€5", 5), ("US$5", 5), ("−3", -3), ("+3", 3),
    (".5", Fraction(1, 2)),
    ("18.", 18), ("**18**", 18), ("$18$", 18), (r"\(18\)", 18), (r"\$18", 18), (r"18\%", 18), ("50%", 50), ("90°", 90),
    (r"90^\circ", 90),
    (r"1{,}200", 1200), (r"\frac{3}{4}", Fraction(3, 4)), (r"\dfrac{6}{3}", 2), ("3/4", Fraction(3, 4)),
    ("1 3/4", Fraction(7, 4)),
    ("-1 1/2", Fraction(-3, 2)), ("0.10", Fraction(1, 10)), ("007", 7),
    ("", None), ("-", None), ("²", None), ("½", None), ("1e5", None), ("1,2", None), ("1,20,000", None), ("1/0", None),
    ("1 1/0", None),
    ("1.5/2", None), ("3:30", None), ("2x", None), ("12 13", None), ("5 km", None), ("twelve", None), ("$", None),
    ("1.2.3", None)])
def test_as_number(given, number):
    assert as_number(given) == number


@pytest.mark.parametrize("given, unit", [
    ("5 km", "km"), ("5km", "km"), ("20 m²", "m²"), ("18 dollars a day.", "dollars a day"),
    (r"18 \text{ dollars}", "dollars"),
    ("1 3/4 cups", "cups"), ("60 km/h", "km/h"), ("7", ""), ("$7", ""),
    ("3 pi", None), ("3 million", None), ("12 squared", None), ("12th", None), ("12 or 13", None), ("2x", None),
    ("5 of 6", None),
    ("5 of these are very red apples", None), ("x 5 km", None)])
def test_units(given, unit):
    found = quantity(given)
    assert found is None if unit is None else found[1] == unit


@pytest.mark.parametrize("given, gold, same", [
    ("18 dollars", "18", True), ("18", "18 dollars", True), ("5 apples", "5 Apple", True), ("5 km", "5 miles", False),
    ("17 dollars", "18", False),
    ("$18", "9*2=<<9*2=18>>18\n#### 18", True), ("0.75", r"\frac{3}{4}", True), ("0.333", "1/3", False),
    ("Paris ", "paris", True),
    ("New  York", "new york", True),
    ("x + 1", "x+1", False), ("12", "twelve", False), ("12", 12, True), ("12.5", 12.5, True)])
def test_same_answer(given, gold, same):
    assert same_answer(given, gold) is same


@pytest.mark.parametrize("completion, answer", [
    ("<answer>5</answer> no <answer> 12 </answer>", "12"), ("<answer>1", None), ("12", None), ("<answer></answer>", ""),
    ("</answer>12<answer>", None)])
def test_tagged_answer(completion, answer):
    assert tagged_answer(completion) == answer


def test_tagged_reads_on_to_the_end():
    assert tagged("<answer>1") == "1" and tagged("<think>a</think>b", "think") == "a" and tagged("a") is None


@pytest.mark.parametrize("completion, answer", [
    ("<answer>3</answer> The answer is 4", "3"), ("#### 18\nThat is 19", "18"),
    (r"so \boxed{\frac{1}{2}} of 7", r"\frac{1}{2}"),
    ("The answer is 9 * 2 = $18, every day.", "$18"), ("The answer is 18 because 9 * 2", "18"),
    ("the answer is x = 12 apples.", "12 apples"),
    ("The final answer is **12**.", "12"), ("Answer: Paris", "Paris"), ("the answer is 2x+1", "2x+1"),
    ("first 3, then 1,400 in all", "1,400"),
    ("no number", "no number"), ("", "")])
def test_final_answer(completion, answer):
    assert final_answer(completion) == answer
