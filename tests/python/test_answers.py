"""What completions answer, what answers are worth, and when two are the same: tables of what people's models say."""
import math
import random
import time
from fractions import Fraction

import numpy as np
import pytest

from grpo import DatasetError, RewardError
from grpo.answers import (
    answers_in,
    as_number,
    boxed,
    equal_answers,
    final_answer,
    golds_in,
    latex_answer,
    letter,
    plain_text,
    quantity,
    same_answer,
    tagged,
    tagged_answer,
    unwrapped,
)
from grpo.answers.formula import FormulaError, parse, readings
from grpo.answers.units import fits, nouns_of, stem, unit_of
from grpo.evaluation.grading import grade
from grpo.rewards import accuracy_reward, answer_reward, extractive_match, is_correct
from grpo.rewards.golds import check_golds
from grpo.rewards.scoring import RewardSet


@pytest.mark.parametrize("given, number", [
    ("1,200", 1200), ("$1,200.00", 1200), ("-$5", -5), ("$-5", -5), ("€5", 5), ("US$5", 5), ("−3", -3), ("+3", 3),
    ("–3", -3), ("- 3", -3), (".5", Fraction(1, 2)), ("18.", 18), ("**18**", 18), ("$18$", 18), (r"\(18\)", 18),
    (r"\$18", 18), (r"18\%", 18), ("50%", 50), ("50 percent", 50), ("90°", 90), (r"90^\circ", 90),
    (r"1{,}200", 1200), (r"1,\!200", 1200), (r"1\,200", 1200), ("1 200", 1200), ("1'200", 1200), ("1.200.000", 1200000),
    ("1,20,000", 120000), ("1.200,50", Fraction(2401, 2)), ("2,5", Fraction(5, 2)), (r"2{,}5", Fraction(5, 2)),
    (r"\frac{3}{4}", Fraction(3, 4)), (r"\frac34", Fraction(3, 4)), (r"\cfrac{3}{4}", Fraction(3, 4)),
    (r"\dfrac{6}{3}", 2), ("3/4", Fraction(3, 4)), ("1.5/2", Fraction(3, 4)), (r"\frac{1.5}{2}", Fraction(3, 4)),
    ("1 3/4", Fraction(7, 4)), (r"1\frac{3}{4}", Fraction(7, 4)), (r"1\frac34", Fraction(7, 4)),
    ("-1 1/2", Fraction(-3, 2)), (r"-1\frac12", Fraction(-3, 2)), ("½", Fraction(1, 2)), ("0.10", Fraction(1, 10)),
    ("007", 7), ("1e3", 1000), ("1.5E-3", Fraction(3, 2000)), (r"1.5 \times 10^3", 1500), (r"10^{6}", 10**6),
    ("10^-2", Fraction(1, 100)), (r"0.\overline{3}", Fraction(1, 3)), (r"0.1\overline{6}", Fraction(1, 6)),
    (r"\sqrt{16}", 4), ("5!", 120), (r"\binom{5}{2}", None), ("2 + 3", None),
    ("", None), ("-", None), ("²", None), ("1/0", None), ("1 1/0", None), ("3:30", None), ("2x", None), ("12 13", None),
    ("5, 125", None), ("5 km", None), ("twelve", None), ("$", None), ("1.2.3", None), (r"\sqrt{2}", None)])
def test_as_number(given, number):
    assert as_number(given) == number


@pytest.mark.parametrize("given, unit", [
    ("5 km", "km"), ("5km", "km"), ("20 m²", "m2"), ("18 dollars a day.", "dollar"), (r"18 \text{ dollars}", "dollar"),
    ("1 3/4 cups", "cup"), ("60 km/h", "km/hour"), ("60 kilometers per hour", "km/hour"), ("7", ""), ("$7", "dollar"),
    ("12 cm^2", "cm2"), (r"12\text{ cm}^2", "cm2"), ("12 square feet", "foot2"), ("12 cubic cm", "cm3"), ("1 egg",
    "egg"),
    ("5 red apples", "red apple"), ("12 years old", "year"), ("4 gallons of milk", "gallon"), ("9 m/s^2", "m/second2"),
    ("3 pi", None), ("3 million", ""), ("12 squared", None), ("12th", None), ("12 or 13", None), ("2x", None),
    ("5 of 6", None), ("10 below zero", None), ("3 over four", None), ("5 factorial", None), ("3 quarters", None),
    ("5 dozen", ""), ("5 less", None), ("7 times 6", None), ("5 to 6", None), ("3 and a half", None),
    ("5 is odd", None), ("3 feet 4 inches", None), ("5 of these are very red apples", None), ("x 5 km", None)])
def test_units(given, unit):
    found = quantity(given)
    assert found is None if unit is None else found[1] == unit


@pytest.mark.parametrize("question, said", [("How many dozen eggs?", "3 dozen"), ("Quarters or dimes?", "3 quarters"),
                                            ("How much fruit?", "3 fruit")])
def test_the_question_says_what_is_counted(question, said):
    assert same_answer(said, "3", question) and not same_answer(said, "3", "How much is it?")
    chat = [{"role": "user", "content": question}]
    assert answer_reward([f"<answer>{said}</answer>"], answer=["3"], prompts=[chat]) == [1.0]
    assert grade(f"<answer>{said}</answer>", "3", question)["strict"]


def test_words_of_units():
    assert [stem(word) for word in ("Cities", "boxes", "glass", "gas", "eggs")] == ["city", "box", "glass", "gas",
    "egg"]
    assert nouns_of("A 3-egg box") == {"egg", "box"} and unit_of("of", frozenset()) is None
    assert fits("km", "km") and not fits("cm2", "cm3") and not fits("dollar", "euro")


SAME = [
    ("18 dollars", "18"), ("18", "18 dollars"), ("5 apples", "5 Apple"), ("$18", "9*2=<<9*2=18>>18\n#### 18"),
    ("$5", "5 dollars"), ("5 €", "€5"), ("$12 per day", "12"), ("0.75", r"\frac{3}{4}"), ("Paris ", "paris"),
    ("New  York", "new york"), ("**Paris**.", "Paris"), ("12", 12), ("12.5", 12.5), ("5.0", 5), ("5", 5.0),
    ("x + 1", "x+1"), ("five", ["5", "five"]), ("5", ("4", 5)), ("4", np.int64(4)), ("50%", "50"), ("50%", "0.5"),
    ("0.5", "50%"), (r"\text{(A)}", "A"), ("(A)", "A"), ("A.", "A"), ("A) 5 cm", "A"), ("12", r"\textbf{(B)}\ 12"),
    ("B", r"\textbf{(B)}\ 12"), ("(B) 12", "12"), (r"(0, 1]", "(0,1]"), (r"\left(3, \frac{\pi}{2}\right)",
    r"(3,\pi/2)"),
    (r"\{1, 2, 3\}", r"\{3,2,1\}"), ("3, 1, 2", "1,2,3"), ("1 and 2", "1, 2"), (r"1 \text{ or } 2", "2,1"),
    (r"1 \pm \sqrt{2}", r"1+\sqrt{2}, 1-\sqrt{2}"), (r"\pm 3", "3, -3"), (r"\sqrt{12}", r"2\sqrt{3}"),
    (r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt{2}}{2}"), (r"\sqrt3", r"\sqrt{3}"), ("√2", r"\sqrt{2}"), ("1/sqrt(3)",
     r"\frac{\sqrt{3}}{3}"), (r"\sqrt[3]{8}", "2"), (r"(-\infty, 2) \cup [3, \infty)", r"[3,+\infty)\cup(-\infty,2)"),
    (r"x \in [0, 1]", "[0,1]"), ("x = 5", "5"), ("5", "x = 5"), ("2 + 3 = 5", "5"), ("x = 2 + 3 = 5", "x=5"),
    ("p = 5, q = 2", "(5, 2)"), ("(5,2)", "(p,q)=(5,2)"), ("y = 2x + 1", "2x+1"), ("f(x) = x^2", "x^2"),
    ("-2x + y = 1", "y = 2x + 1"), (r"x \geq 5", "5 <= x"), ("-x > -1", "x < 1"), (r"(2, 7]", r"2 < x \le 7"),
    (r"[-3,-1] \cup [1,3]", r"1 \le |z| \le 3"), ("3:4", "3 : 4"), ("204_5", r"204_{5}"), ("2^{10}", "1024"),
    ("x^2 - 1", "(x-1)(x+1)"), (r"\sin^2 x + \cos^2 x", "1"), (r"\tan x", r"\frac{\sin x}{\cos x}"),
    (r"3x^{2/3}", r"3\sqrt[3]{x^2}"), (r"\log_2 8", "3"), (r"e^{i\pi}", "-1"), (r"\binom{5}{2}", "10"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{bmatrix}1\\2\end{bmatrix}"), ("0.333333", "1/3"),
    (r"\begin{pmatrix}1&0\\0&2\end{pmatrix}\begin{pmatrix}1\\1\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    (r"\lfloor 2.5 \rfloor", "2"), (r"|-3|", "3"), ("1/0", "1/0"), (r"\\frac{1}{2}", r"\frac{1}{2}"), ("B because",
    "B because"),
    (r"\sin 30^\circ", r"\frac12"), ("√12", r"2\sqrt3"), ("10⁶", "1000000"), ("（1，2）", "(1,2)"), (r"\mathbb{R}",
     r"(-\infty,\infty)"), ("$1.5 million", "1500000"), ("3 dozen", "36"), ("0.333...", "1/3"), (r"0.\bar3", "1/3"),
    (r"\tan^{-1}(1)", r"\frac{\pi}{4}"), (r"\binom{n}{2}", r"\frac{n(n-1)}{2}"), (r"{5\choose2}", "10"), ("60 mph",
     "60 miles per hour"), ("3:30 p.m.", "3:30 PM"), ("the circle", "circle"), ("5 m", "5"), (r"5\text{ m}", "5"),
     ("5m²", "5"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", "(1,2)"), ("a=1,b=2", "b=2,a=1"), ("P(A|B)=0.3", "0.3"), (r"\infty",
    "infinity")]
DIFFERENT = [
    ("5 km", "5 miles"), ("17 dollars", "18"), ("$5", "€5"), ("5 cents", "$5"), ("0.333", "1/3"), ("12", "twelve"),
    ("12\\text{ cm}^3", "12\\text{ cm}^2"), (r"1\frac{3}{4}", "13/4"), (r"-1\frac{3}{4}", "-1/4"), (r"5,\ 125", "5125"),
    ("32, 349", "32349"), ("1,2", "12"), ("1.234", "1234"), ("50%", "5"), ("-5", "5"), ("(1,2)", "2"), (r"\pm 3", "3"),
    (r"\frac{\pi}{2}", "2"), (r"2\sqrt{3}", "3"), ("not 5", "5"), ("5 or 6", "5"), ("minus 5", "5"), ("half of 5", "5"),
    ("[0, 1]", "(0,1]"), ("(1, 2)", "(2, 1)"), ("(1,2)", "(1,2,3)"), ("{1,2}", "{1,2,3}"), ("1, 2", "1"), ("x^2+1",
     "(x-1)(x+1)"), ("x+1", "t+1"), ("e^{x}", "e^{2x}"), (r"\sin(x)", "cos(x)"), ("x < 2", r"x \le 2"), ("x<2", "x>2"),
    (r"1 \le x \le 2", "[1,2)"), ("[1,2]", r"x \in (1,2)"), ("x = 5", "6"), ("x = 5", "y = x + 5"), ("0",
    "a^2 + b = 0"),
    ("11a+c", "7 = 11a + c"), ("204_5", "204_6"), ("204", "204_5"), ("3/4", "3:4"), ("12:30 PM", "12:30"), ("no", "on"),
    ("B", "A"), ("A, or B", "A"), (r"\pi", "3.14159"), ("2.3", "2.2892"), ("1/5120", "1/28800"),
    (r"\frac{1}{2004!}", r"\frac{1}{2006!}"), ("2^{1000000}", "2^{1000001}"), ("10^{10^{10}}", "10^{10^{11}}"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix}1\\3\end{pmatrix}"), ("1/0", "2/0"), ("", "5"),
    (r"\frac{1}{2}x", "1/2"), ("London", "Paris"), ("f(y)", "f(x)"), ("12 13", "1213"),
    ("4", "4a^2"), ("3", "3m"), ("2", "f(n)=2n"), ("1/2", r"\frac{1}{2}a^2"), ("5M", "5"), ("1 over 2", "1"),
    ("1 to 3", "1"),
    ("18 times 2", "18"), ("x=1,y=2", "x=2,y=1"), ("(100,200)", "100200"), ("(1,234)", "1234"), ("1 gross", "1"), ("£5",
     "5 lb"), ("0.000000", r"1.6\times10^{-19}"), (r"\begin{vmatrix}1&2\\3&4\end{vmatrix}",
     r"\begin{pmatrix}1&2\\3&4\end{pmatrix}"), (r"\tan^{-1}2", r"\frac{1}{\tan 2}"), (r"\sin 30^\circ", r"\sin 30")]


@pytest.mark.parametrize("given, gold", SAME)
def test_same_answers(given, gold):
    assert same_answer(given, gold)


@pytest.mark.parametrize("given, gold", DIFFERENT)
def test_different_answers(given, gold):
    assert not same_answer(given, gold)


@pytest.mark.parametrize("completion, answer", [
    ("<answer>5</answer> no <answer> 12 </answer>", "12"), ("<answer>1", None), ("12", None), ("<answer></answer>", ""),
    ("</answer>12<answer>", None), (r"<answer>\boxed{5}</answer>", "5"), (r"<answer>$\boxed{\frac12}$.</answer>",
    r"\frac12"),
    ("<answer>The answer is 5.</answer>", "5"), ("<answer>$$5$$</answer>", "$$5$$")])
def test_tagged_answer(completion, answer):
    assert tagged_answer(completion) == answer


def test_tagged_reads_on_to_the_end():
    assert tagged("<answer>1") == "1" and tagged("<think>a</think>b", "think") == "a" and tagged("a") is None


@pytest.mark.parametrize("text, inside", [
    (r"\boxed{\frac{\sqrt{3}}{2}}", r"\frac{\sqrt{3}}{2}"), (r"\boxed{\{1, 2\}}", r"\{1, 2\}"), (r"\boxed {7}", "7"),
    (r"\fbox{5}, as 3 + 2", "5"), (r"\boxed 5", "5"), (r"\boxed{1} no, \boxed{2}", "2"), (r"\boxed{1}\boxed{2}",
    "1, 2"),
    (r"\(\boxed{1}\) and \(\boxed{-2}\)", "1, -2"), (r"\boxed{1} no no no \boxed{2}", "2"), (r"\boxed{2}, \boxed{2}",
    "2"),
    (r"\boxed{(3, 3)} \text{ for part (a) and } \boxed{(1, 1)}", "(3, 3), (1, 1)"), (r"\boxed{3} so \boxed{4}", "4"),
    (r"\boxed{\frac{1}{2", ""), (r"\boxed{5} or \boxed{\frac{1", ""), (r"\boxed{}", ""), ("no box", None)])
def test_boxes(text, inside):
    assert boxed(text) == inside


@pytest.mark.parametrize("completion, answer", [
    ("<answer>3</answer> The answer is 4", "3"), ("#### 18\nThat is 19", "18"), ("#### The answer is 18", "18"),
    (r"so \boxed{\frac{1}{2}} of 7", r"\frac{1}{2}"), (r"so \boxed{255}. Final Answer: The final answer is $10$.",
    "10"),
    ("The answer is 9 * 2 = $18, every day.", "$18"), ("The answer is 18 because 9 * 2", "18"),
    ("the answer is x = 12 apples.", "12 apples"), ("The final answer is **12**.", "12"), ("Answer: Paris", "Paris"),
    ("the answer is 2x+1", "2x+1"), ("The answer is: 42", "42"), ("The answer is:\n42", "42"), ("The answer is\n42",
    "42"),
    ("The answer is approximately 42.", "42"), ("The answer is therefore 42.", "42"), ("Answer: \n\n$$42$$", "42"),
    ("The final answer is: $42$", "42"), ("Final Answer: The final answer is $42$. I hope it is correct.", "42"),
    ("The correct answer is (B).", "(B)"), ("The answer is A because (B) is wrong.", "A"), ("### Final Answer\n\n42",
    "42"),
    ("The answer is 3. Wait, the answer is 4.", "4"), ("<think>12</think>The answer is 5.", "5"), ("12</think>42",
    "42"),
    ("The answer must be\n\nC.", "C"), ("first 3, then 1,400 in all", "1,400"), ("we have 3, 4 and then 72 eggs", "72"),
    ("so 9 * 2 = 18 eggs", "18"), ("it is (1, 2).", "(1, 2)"), ("He gets $10 - $6 = $4.00 in change.", "$4.00"),
    ("net change of -$40", "-$40"), ("the chance is .5", ".5"), (r"the price was \frac{15}{2} dollars",
    r"\frac{15}{2}"),
    (r"which is $\frac{\pi}{2}$.", r"\frac{\pi}{2}"), ("It is 5! ways", "5!"), ("12 x 3 = 36 in all", "36"),
    ("The answers are 1 and 2.", "1 and 2"), ("AZYUK2A", "AZYUK2A"), ("no number", "no number"), ("", "")])
def test_final_answer(completion, answer):
    assert unwrapped(final_answer(completion)) == answer


@pytest.mark.parametrize("completion, gold, right", [
    ("The answer is that she has 5 apples.", "5", True), ("The answer is not 5.", "5", False), ("A: 36", "36", True),
    ("Final Answer: The largest $n$ is 34.", "34", True), ("It is 10 below zero", "10", False), ("$28$ percent", "28",
    True),
    ("We get 3 over four", "3", False), ("It is 2^5", "5", False), ("x in [0, 5]", "5", False), ("It is (1,2)", "2",
    False),
    (r"\boxed{5} or \boxed{\frac{1", "5", False), ("Answer $\n 9 \n$", "9", False), ("Answer $$\n 9 \n$$", "9", True),
    ("I hope so. <answer></answer>", "5", False), ("12 apples, 7 pears; so 19 in all", "19", True)])
def test_right_or_wrong_anywhere(completion, gold, right):
    assert is_correct(completion, gold) is right and grade(completion, gold)["lenient"] is right
    assert accuracy_reward([completion], answer=[gold]) == [float(right)]


@pytest.mark.parametrize("gold, answers", [
    ("We add.\nSo $2+2 = \\boxed{4}$.", ["4"]), (r"\boxed{5}", ["5"]), ("$91$", ["$91$"]), ("The answer is 5", ["5"]),
    ("We add both. The answer is $\\boxed{91}$.", ["91"]), (["5", "five"], ["5", "five"]), (5.0, ["5.0"]), (7, ["7"]),
    (np.float32(0.5), ["0.5"]), ("9*2\n#### 18", ["18"]), ("long " * 300 + "The answer is 3.", ["3"]), ("Paris",
    ["Paris"])])
def test_golds(gold, answers):
    assert golds_in(gold) == answers


@pytest.mark.parametrize("gold", [None, True, [], [[]], "", "  ", math.nan, math.inf, {"a": 1}, b"5", "word " * 300,
                                  "We add.\nSo it is 4.", "#### "])
def test_golds_that_cannot_be_read(gold):
    with pytest.raises(RewardError, match="reference answer"):
        golds_in(gold)


def test_golds_are_read_before_training():
    rows = [{"answer": "5"}, {"answer": None}, {"answer": {"value": 5}}]

    def values(name):
        return [(i, row.get(name)) for i, row in enumerate(rows)]

    for name in ("accuracy_reward", "answer_reward", "correctness", {"len_l1": {"target": 5}}):
        with pytest.raises(DatasetError, match="rows: row 2, column 'answer', for reward .*dict"):
            check_golds(RewardSet(name).rewards, values, "rows")
    check_golds(RewardSet(["think_format_reward", "deepseekrl"]).rewards, values, "rows")
    rows[2]["answer"] = ["5", "five"]
    check_golds(RewardSet("accuracy_reward").rewards, values, "rows")
    rows[:] = [{"question": "?"}]
    with pytest.raises(DatasetError, match="no row has 'answer' or 'solution'"):
        check_golds(RewardSet("accuracy_reward").rewards, values, "rows")


def test_the_reward_of_trls_name_has_trls_rule():
    """With the column solution; with answer, which TRL has not, any form counts."""
    said = ["so 91", "The answer is 91.", "The answer is $91$.", r"so \boxed{91}", r"so $91$", "91"]
    for gold in ("We add both. The answer is $\\boxed{91}$.", "\\boxed{91}", "$91$", "91"):
        assert accuracy_reward(said, solution=[gold] * 6) == [0, 0, 1, 1, 0, 0]
        assert answer_reward(said, solution=[gold] * 6) == accuracy_reward(said, answer=[gold] * 6) == [1] * 6
    assert accuracy_reward([r"\boxed{\text{B}}"], solution=["B"]) == [1.0]
    assert accuracy_reward(["x", "x"], solution=["1", None]) == [0.0, None]
    assert latex_answer("$5$ it is") is None and latex_answer(r"\boxed{5") is None


def test_extraction_compares_numbers_alone():
    assert not extractive_match("<answer>[7, 8]</answer>", "[0, 8]") and not extractive_match("class 5", "rose 5")
    assert extractive_match("the answer is 5", "5")


@pytest.mark.parametrize("text, read", [
    ("1,234", {"1,234", "1234"}), ("2,5", {"2,5", "2.5"}), ("12,34,567", {"12,34,567", "1234567"}), ("0,111",
    {"0,111", "0.111"}),
    ("1, 2", {"1, 2"}), ("1.234", {"1.234"}), ("1 234,5", {"1 234,5", "1234.5"}), ("3", {"3"})])
def test_customs_of_numbers(text, read):
    assert set(readings(text)) == read


@pytest.mark.parametrize("text", [
    "", "12 13", "(1, 2", "1 +", r"\frac{1}", r"\sum_{k} k", "word salad", "$", "x^", "}", "[1, 2}",
    r"\begin{align}1\end{align}",
    "(" * 500 + "1" + ")" * 500, "-" * 500 + "1", "9" * 500, "1" * 5000, "1e99999",
    r"\begin{pmatrix}1&2\\3\end{pmatrix}"])
def test_what_is_no_formula(text):
    with pytest.raises(FormulaError):
        parse(text)
    assert not same_answer(text, "12345.678")


READ_RIGHT = [                                             # (completion, gold)
    ("**Answer**: 5 apples (out of 12)", "5"), ("**Answer**: 5\n\nCheck: 5 * 3 = 15", "5"),
    ("### Answer\n5\n\n5*3=15", "5"),
    ("Answer (in dollars): 5. Note: 7 is too much", "5"), ("**Final Answer**: 5 of the 12 apples", "5"),
    ("It takes 2 1/2 hours.", "2.5"), ("It takes 2½ hours.", "2.5"), ("So the ratio is 3:4.", "3:4"),
    (r"\boxed{x+y=23}", "23"), (r"\boxed{\text{Area} = 4}", "4"), (r"\boxed{f'(3)=4}", "4"), (r"\boxed{\cos 2x = 4}",
    "4"),
    (r"\boxed{\text{The answer is } 18}", "18"), (r"\boxed{\approx 18}", "18"), (r"\boxed{\textcolor{blue}{18}}", "18"),
    (r"\boxed{\text{Total cost: } \$18}", "18"), (r"\boxed{18 \quad \text{(dollars)}}", "18"),
    ("#### Step 1: add\n3+4 = 7\n#### Step 2: done\nThe answer is 7.", "7"), ("#### Final Answer\n18", "18"),
    ("The correct option is B.", "B"), ("Option B is correct.", "B"), ("The answer is (B), not (A).", "B"), ("J", "J"),
    ("答案是18。", "18"), ("一共是 18 个苹果。", "18"), ("故选B。", "B"), ("Ответ: 18", "18"), ("答えは18です。", "18"),
    ("Antwort: 1.234,50 €", "1234.5"), ("costs 1.234,56 € total", "1234.56"), ("The answer is minus 18.", "-18"),
    ("The answer is 5</s>", "5"), ("<think>I should use <answer></answer>.</think>\n6", "6"),
    ("<answer>5</answer>", '["5", "five"]'), ("<answer>0.1</answer>", np.float32(0.1)), ("<answer>45</answer>",
    "D. 45")]
READ_WRONG = [
    ("**Answer**: 5 apples (out of 12)", "12"), ("**Answer**: 5\n\nCheck: 5 * 3 = 15", "15"),
    ("The answer is 1 or 2.", "1"),
    ("So it is 2√3", "3"), ("So it is 2*sqrt(3)", "3"), ("So it is 2π", "2"), ("So it is 3i", "3"), ("it is log(5)",
    "5"),
    ("It takes 2 1/2 hours.", "1/2"), ("So 2 and a half hours", "2"), ("it is not 5", "5"), ("it is half of 5", "5"),
    ("it is more than 5", "5"), ("so we get 10 divided by 5", "5"), ("So the ratio is 3 to 4.", "4"), ("at 5:30", "30"),
    ("It takes 1 hour and 30 minutes.", "30"), ("The answer is at least 18.", "18"), (r"\boxed{2n}", "2"),
    ("<think>The answer is 18. Let me double check", "18"), ("<answer>2, 1</answer>", "a=1, b=2"),
    ("<answer>" + "a " * 295 + "</answer>", "12345"), (r"\boxed{" + "1+" * 290 + "1}", "7")]


@pytest.mark.parametrize("completion, gold", READ_RIGHT)
def test_what_a_careful_reader_takes(completion, gold):
    assert is_correct(completion, gold)


@pytest.mark.parametrize("completion, gold", READ_WRONG)
def test_what_a_careful_reader_refuses(completion, gold):
    assert not is_correct(completion, gold)


def test_no_answer_takes_long():
    """Nested, repeated and huge things are read, or given up, at once."""
    pieces = ["(", "{", "\\frac", "^", "!", "-", "\\sqrt{", "|", "1,", "x", "=", "\\boxed{", "$", "\\(",
    "the answer is ", "9", "and ",
              "\\pm 1", " ", "\n", "1 ", "(1,", "A or ", "<answer>", "\\text{", "a ", "2^"]
    begun = time.process_time()
    for piece in pieces:
        for n in (30, 3000, 100_000):
            text = piece * n
            for wrapped in (text, f"\\boxed{{{text}}}", f"<answer>{text}</answer>", f"The answer is {text}"):
                assert not is_correct(wrapped, "12345.678")
    for text in ("9!!!!!!", "(((9!)!)!)!", "9^9^9^9^9", "2^{2^{2^{2^{2^2}}}}", r"\sqrt[99999]{2}", "1e400 * 1e400",
    r"\binom{99999}{5}"):
        assert not same_answer(text, "12345.678") and equal_answers(text, text)
    assert time.process_time() - begun < 60


def test_any_text_is_read_without_an_error():
    rng = random.Random(11)
    pieces = list("0123456789.,+-*/^_()[]{}$%!|=<>:; xye\n") + [
        "\\frac", "\\sqrt", "\\text{", "\\pm", "\\boxed{", "\\left(", "\\cup", "\\infty", "\\begin{pmatrix}",
        "\\end{pmatrix}", "&",
        "\\\\", " and ", " dollars", "answer is ", "\\pi", "\\in", "\\le", "½", "²", "−", "<answer>", "</answer>",
        "####", "cm"]
    for _ in range(5000):
        a, b = ("".join(rng.choices(pieces, k=rng.randint(0, 12))) for _ in range(2))
        for answer in answers_in(a):
            equal_answers(answer, b)
        assert equal_answers(a, a)
        quantity(a), as_number(a), letter(a), plain_text(a), latex_answer(a)
