"""Rewards for digits and decoded messages: r1_vlm's as published, by its own numbers, and the mended ones."""
import random

import pytest

from grpo.datasets.thinking import PREFILL
from grpo.rewards import RewardSet
from grpo.rewards.decoding import edit_distance
from reward_batches import batch

GOOD = "<think>a</think>\n<answer>b</answer>"
CHARS = "<think>so <chars>c a t</chars> it is</think>\n<answer>cat</answer>"


def scores(reward, texts, **columns):
    """One reward's values, each text with the same columns."""
    data = batch(texts, columns={name: [value] * len(texts) for name, value in columns.items()})
    return RewardSet([reward]).score(data).values[:, 0].tolist()


def answered(*answers):
    return [f"<think>x</think>\n<answer>{answer}</answer>" for answer in answers]


# ---- as published


@pytest.mark.parametrize("text, published, mended", [
    (GOOD, 1, 1), (GOOD + "\n", 1, 1), (GOOD + "\n\n", 0, 1), (GOOD.replace("\n", ""), 0, 1),
    (GOOD.replace("\n", "\n\n"), 0, 1), (GOOD + "x", 0, 0), ("x" + GOOD, 0, 0), (" " + GOOD, 0, 1),
    ("<think>a\nb</think>\n<answer>b\nc</answer>", 1, 1), ("<think>a<think>b</think>\n<answer>b</answer>", 0, 0),
    ("<think>a</think></think>\n<answer>b</answer>", 0, 0), (GOOD + "\n<answer>c</answer>", 1, 0),
    ("<think>1 < 2</think>\n<answer>b</answer>", 1, 1), ("<think></think>\n<answer></answer>", 1, 1),
    ("a</think>\n<answer>b</answer>", 0, 0), ("<think>a</think>\n<answer>b", 0, 0), ("", 0, 0),
])
def test_layout(text, published, mended):
    assert scores("r1_vlm.format", [text]) == [published] and scores("think_format", [text]) == [mended]
    if text.startswith("<think>"):
        rest = text.removeprefix("<think>")
        assert scores("r1_vlm.format", [rest], prefill=PREFILL) == [published]
        assert scores("think_format", [rest], prefill=PREFILL) == [mended]
        assert scores("think_format", [text], prefill=None) == [mended]


@pytest.mark.parametrize("text, published, mended", [
    (CHARS, 1, 1), (CHARS + "\n", 1, 1), (GOOD, 0, 0), (CHARS.replace("\n", "\n\n"), 0, 1), (CHARS + "x", 0, 0),
    (CHARS.replace(" it", " <chars>c a t</chars>"), 1, 0),             # of two sections the first capture takes both
    ("<think>so</think>\n<answer><chars>c a t</chars>cat</answer>", 0, 0),
    ("<think><chars>c a t</chars><think></think>\n<answer>cat</answer>", 0, 0),
    ("<think></think><think><chars>c</chars></think>\n<answer>cat</answer>", 0, 0),
    ("<chars>c a t</chars><think>a</think>\n<answer>cat</answer>", 0, 0),
    ("<think><chars>c a t</think>\n<answer>cat</answer>", 0, 0),
])
def test_layout_with_chars(text, published, mended):
    assert scores("r1_vlm.chars_format", [text]) == [published] and scores("chars_format", [text]) == [mended]
    if text.startswith("<think>"):
        assert scores("r1_vlm.chars_format", [text.removeprefix("<think>")], prefill=PREFILL) == [published]


@pytest.mark.parametrize("answer, published, mended", [
    ("[1, 2, 3]", 1, 1), ("[1,2,3]", 1, 1), ("1, 2, 3", 1, 1), (" [1, 2, 3] ", 1, 1), ("[3, 2, 1]", 0, 0),
    ("[1, 2]", 0, 0), ("[1, 2, 3, 3]", 0, 0), ("1 2 3", 0, 0), ("[]", 0, 0), ("", 0, 0), ("[1, two, 3]", 0, 0),
    ('"[1, 2, 3]"', 0, 1), ("[1.0, 2, 3]", 0, 0),
])
def test_recognition(answer, published, mended):
    columns = dict(task="recognition", label=[1, 2, 3], total=6)
    assert scores("r1_vlm.digits", answered(answer), **columns) == [published]
    assert scores("digits_correctness", answered(answer), **columns) == [mended]


@pytest.mark.parametrize("answer, published, mended", [
    ("6", 1, 1), (" 6\n", 1, 1), ("06", 1, 1), ("7", 0, 0), ("5 + 1 = 6", 0, 1), ("6.0", 0, 1), ("[1, 5]", 0, 0),
    ("6 = 5 + 1", 0, 0), ("", 0, 0), ("six", 0, 0), ("'6'", 0, 1), ("1 + 6", 0, 0),
])
def test_addition(answer, published, mended):
    columns = dict(task="addition", label=[1, 5], total=6)
    assert scores("r1_vlm.digits", answered(answer), **columns) == [published]
    assert scores("digits_correctness", answered(answer), **columns) == [mended]


def test_which_of_several_answers_counts():
    texts = ["<answer>6</answer> no <answer>7</answer>", "<answer>7</answer> no <answer>6</answer>", "6", "<answer>6"]
    columns = dict(task="addition", label=[1, 5], total=6)
    assert scores("r1_vlm.digits", texts, **columns) == [1, 0, 0, 0]
    assert scores("digits_correctness", texts, **columns) == [0, 1, 0, 0]


@pytest.mark.parametrize("answer, published, mended", [
    ("CAT", 1, 1), ("cat", 1, 1), (" Cat ", 1, 1), ('"CAT"', 0, 1), ("“cat”", 0, 1), ("C A T", 0, 0), ("CUT", 0, 0),
    ("", 0, 0),
])
def test_words(answer, published, mended):
    assert scores("r1_vlm.word", answered(answer), decoded_message="CAT") == [published]
    assert scores("decoded_correctness", answered(answer), decoded_message="CAT") == [mended]


VISION = dict(coded_message="rhqhct", decoded_message="vision")


@pytest.mark.parametrize("chars, score", [("v i s i o n", 1), ("v i s i o m", 1 - 1 / 11), ("vision", 1 - 5 / 11),
                                          ("r h q h c t", 0), ("v i s", 1 - 6 / 11), ("", 0), (" v i s i o n ", 1)])
def test_chars(chars, score):
    for name in ("r1_vlm.chars_intermediate", "chars_intermediate"):
        assert scores(name, [f"<chars>{chars}</chars>"], **VISION) == [score]
        assert scores(name, [f"{chars}</chars>"], **VISION, prefill="<chars>") == [score]
        assert scores(name, [chars, f"<chars>{chars}"], **VISION) == [0, 0]


def test_chars_of_several_words():
    columns = dict(coded_message="xyz_qp", decoded_message="cat dog"[:6])
    assert scores("r1_vlm.chars_intermediate", ["<chars>c a t _ d o</chars>", "<chars>c a t d o</chars>",
                                                "<chars>x y z _ q p</chars>"], **columns) == [1, 1 - 2 / 11, 0]


@pytest.mark.parametrize("answer, right, mended, near", [
    ("vision", 1, 1, 1), ("visiom", 0, 0, 1 - 1 / 6), ("visions", 0, 0, 1 - 1 / 7), ("Vision", 0, 1, 0),
    ("v i s i o n", 0, 0, 0), ("cat", 0, 0, 0), ('"vision"', 0, 1, 0), ("", 0, 0, 0),
])
def test_answers_behind_the_gate(answer, right, mended, near):
    text = f"<think><chars>v i s i o n</chars></think>\n<answer>{answer}</answer>"
    other = text.replace("o n</chars>", "o m</chars>")
    assert scores("r1_vlm.correctness", [text, other], **VISION) == [right, 0]
    assert scores("r1_vlm.correctness_intermediate", [text, other], **VISION) == [near, 0]
    assert scores("gated_correctness", [text, other], **VISION) == [mended, 0]
    assert scores("correctness_intermediate", [text, other], **VISION) == [1 if mended else near, 0]


def test_mended_chars_take_the_last_section_in_any_case():
    texts = ["<chars>V I S I O N</chars>", "<chars>v</chars> no <chars>v i s i o n</chars>"]
    assert scores("chars_intermediate", texts, **VISION) == [1, 1]
    assert scores("r1_vlm.chars_intermediate", texts, **VISION) == [1 - 6 / 11, 1 - 10 / 11]


def test_published_sets_sum_in_their_order():
    text = CHARS.removeprefix("<think>")
    columns = dict(prefill=[PREFILL], task=["word"], coded_message=["xyz"], decoded_message=["cat"], label=[None],
                   total=[None])
    found = RewardSet("r1_vlm_sequences").score(batch([text], columns=columns))
    assert found.names == ["chars_intermediate_reward_func", "correctness_reward_func", "chars_format_reward_func",
                           "correctness_intermediate_reward_func"]
    assert found.values.tolist() == [[1, 1, 1, 1]] and found.total.tolist() == [4]
    found = RewardSet("decoding_chars").score(batch([text], columns=columns))
    assert found.values.tolist() == [[1, 1, 1, 1]]
    assert RewardSet("r1_vlm_digits").names == ["format_reward_func", "digits_reward_func"]
    assert RewardSet("r1_vlm_words").names == ["format_reward_func", "word_reward_func"]


def test_rows_of_another_data_set_have_no_reward():
    texts = answered("cat")
    for name, columns in (("digits_correctness", dict(task=None, label=None, total=None)),
                          *((name, dict(coded_message=None, decoded_message=None)) for name in
                            ("decoded_correctness", "chars_intermediate", "gated_correctness",
                             "correctness_intermediate")), ("character_error_rate", dict(answer=None))):
        assert str(scores(name, texts, **columns)) == "[nan]", name


@pytest.mark.parametrize("answer, rate", [("vision", 0), ("VISION", 0), ("visiom", 1 / 6), ("", 1), ("visionvision", 1),
                                          ("vision vision vision", 14 / 6)])
def test_character_error_rate(answer, rate):
    assert scores("character_error_rate", answered(answer), answer="vision") == pytest.approx([rate])
    assert scores("character_error_rate", [answer], answer="vision") == [1]


def slow_distance(one, other):
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        last, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (a != b))
    return row[-1]


def test_edit_distance():
    rng = random.Random(1)
    for _ in range(300):
        one, other = ("".join(rng.choice("ab_ é\U0001f600") for _ in range(rng.randrange(12))) for _ in range(2))
        assert edit_distance(one, other) == slow_distance(one, other) == edit_distance(other, one)
    assert edit_distance("", "") == 0 and edit_distance("\ud800", "a") == 1
