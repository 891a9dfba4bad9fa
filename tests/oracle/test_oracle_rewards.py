"""TRL's rewards by its names: its own numbers."""
import pytest

from grpo import rewards
from grpo.rewards import RewardSet
from reward_batches import batch

theirs = pytest.importorskip("trl.rewards")
pytest.importorskip("math_verify")
from grpo.rewards import trl as ours  # noqa: E402

pytestmark = [pytest.mark.oracle, pytest.mark.usefixtures("patient")]

# (completion, solution)
ANSWERS = [("so \\boxed{\\frac{1}{3}}", "1/3"), ("so \\boxed{\\frac{1}{2}}", "\\frac{1}{3}"), ("it is 12", "12"),
           ("the answer is $12$", "12"),
           ("$12$", "12"), ("", "12"), ("<think>$5$</think> then \\boxed{12}", "$12$"),
           ("<think>\\boxed{12}</think> then", "12"),
           ("<think>\\boxed{12}", "12"), ("a</think>\\boxed{2}</think>The final answer is $3$.", "3"),
           ("\\boxed{x^2 - 1}", "$(x-1)(x+1)$"),
           ("</think>\\boxed{1} and \\boxed{2}", "2"), ("\\boxed{18\\text{ km}}", "18"),
           ("</think>\\boxed{4}", "so it goes"),
           ("\\boxed{4} <end>", ""), ("<think>a</think><end>\\boxed{0.5}", "\\frac12"), ("\\boxed{\\frac{1}{", "1")]
FORMATS = ["<think>a</think>b", "<think>\na\n</think>\nb\nc", "<think>a<think>b</think>", " <think>a</think>",
           "<think></think>", "<think>a", "a</think>",
           "<think>a</think><think>b</think>", "x\n<think>a</think>", ""]
IDS = [[], [1], [1, 2], [1, 2, 3], [5] * 5, [1, 2, 3, 1, 2, 3, 1], list(range(40)), [7] * 79, [7] * 80, [7] * 81,
       [1, 2] * 50, [3] * 101, [3] * 150]


def as_chat(texts):
    return [[{"role": "assistant", "content": text}] for text in texts]


COMPLETIONS, SOLUTIONS = as_chat([text for text, _ in ANSWERS]), [gold for _, gold in ANSWERS]


@pytest.mark.parametrize("ours, theirs", [(ours.accuracy_reward, theirs.accuracy_reward),
                                          (rewards.reasoning_accuracy_reward, theirs.reasoning_accuracy_reward)])
def test_accuracies(ours, theirs):
    values = theirs(COMPLETIONS, solution=SOLUTIONS)
    assert ours(COMPLETIONS, solution=SOLUTIONS) == values
    assert {*values} >= {0.0, 1.0, None}


def test_our_accuracy_has_trls_rule():
    """Where TRL reads both; a gold that it cannot read (None) is text to ours."""
    said = ["so 91", "91", "The answer is 91.", "The answer is $91$.", "so $91$", "$$91$$", "\\boxed{91}", "\\boxed{9",
            "Answer: \\(91\\)", "The final answer is: $91$. I hope it is correct.", "\\boxed{9 \\cdot 10 + 1}", "",
            "the answer is \\boxed{x = 91}", "it is \\boxed{92}, not 91", "The answer is $91$ apples", "\\boxed{91.0}"]
    for gold in ("91", "$91$", "\\boxed{91}", "We add both. The answer is $\\boxed{91}$."):
        values = theirs.accuracy_reward(as_chat(said), solution=[gold] * len(said))
        assert rewards.accuracy_reward(as_chat(said), solution=[gold] * len(said)) == values
        assert {*values} == {0.0, 1.0}


def test_other_ends_of_reasoning():
    ends = dict(reasoning_delimiters=["<end>", "</think>"])
    assert (rewards.reasoning_accuracy_reward(COMPLETIONS, SOLUTIONS, **ends)
            == theirs.reasoning_accuracy_reward(COMPLETIONS, SOLUTIONS, **ends))


def test_think_format():
    values = theirs.think_format_reward(as_chat(FORMATS))
    assert rewards.think_format_reward(as_chat(FORMATS)) == values and {*values} == {0.0, 1.0}


@pytest.mark.parametrize("arguments", [dict(max_len=80), dict(max_len=10, min_value_wrong=0.0, max_value_wrong=-2.0,
                                                              max_value_correct=3)])
@pytest.mark.parametrize("size", range(0, 100, 17))
def test_cosine_scaled(arguments, size):
    ids = [[1] * (size + i) for i in range(len(ANSWERS))]
    values = theirs.get_cosine_scaled_reward(**arguments)(COMPLETIONS, SOLUTIONS, ids)
    assert (rewards.get_cosine_scaled_reward(**arguments)(COMPLETIONS, SOLUTIONS, ids)
            == pytest.approx(values, abs=1e-12))


@pytest.mark.parametrize("arguments", [{}, dict(ngram_size=2, max_penalty=-0.5), dict(ngram_size=1, max_penalty=0.0)])
def test_repetition_penalty(arguments):
    values = theirs.get_repetition_penalty_reward(**arguments)(IDS)
    assert rewards.get_repetition_penalty_reward(**arguments)(IDS) == pytest.approx(values, abs=1e-12)


@pytest.mark.parametrize("most, cache", [(100, 20), (80, 80), (101, 1)])
def test_soft_overlong(most, cache):
    values = theirs.get_soft_overlong_punishment(most, cache)(IDS)
    assert rewards.get_soft_overlong_punishment(most, cache)(IDS) == pytest.approx(values, abs=1e-12)


def test_names_in_metrics_are_trls():
    made = [(rewards.get_cosine_scaled_reward(9), theirs.get_cosine_scaled_reward(9)),
            (rewards.get_repetition_penalty_reward(), theirs.get_repetition_penalty_reward()),
            (rewards.get_soft_overlong_punishment(9, 3), theirs.get_soft_overlong_punishment(9, 3))]
    assert all(mine.__name__ == other.__name__ for mine, other in made)


def test_by_name():
    got = RewardSet(["reasoning_accuracy_reward", {"cosine_scaled_reward": {"max_len": 4}},
                     "repetition_penalty_reward"]).score(
        batch(["</think>\\boxed{12}", "</think>\\boxed{3}"], [2, 4], columns={"solution": ["12", "12"]})).values
    assert got.tolist() == [[1.0, pytest.approx(0.75), 0.0], [0.0, pytest.approx(-0.5), pytest.approx(-0.5)]]
