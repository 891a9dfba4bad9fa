"""The rewards for length, agreement and diversity: R1's as published, by its own numbers, and the corrected ones."""
import importlib.util
import math
import sys

import numpy as np
import pytest

import grpo.rewards
from grpo.errors import ConfigError, GrpoWarning, RewardError
from grpo.rewards import RewardSet
from grpo.rewards.deadline import Worker
from hostile_rewards import hang_on_two
from reward_batches import batch

FULL = "<reasoning>\nabc\n</reasoning>\n<answer>\n12\n</answer>\n"
RIGHT, WRONG = "<answer>12</answer>", "<answer>13</answer>"


def score(reward, data):
    return RewardSet([reward]).score(data).values[:, 0].tolist()


def padded(n, right=True):
    """A completion of n tokens of the byte tokenizer, right or wrong."""
    text = RIGHT if right else WRONG
    return text + " " * (n - len(text)) if n >= len(text) else "12"[:n] if right else "x" * n


# ---- as published


@pytest.mark.parametrize("text, values", [
    (FULL, [2, .5, .5, .5, .5]), (FULL[:-1], [2, .5, 0, .5, .451]),
    ("<reasoning>abc</reasoning><answer>12</answer>", [2, .5, 0, .5, 0]),
    (FULL.replace("abc", "a\nb"), [2, .5, 0, .5, .5]), ("The answer is 12", [0, 0, 0, 0, 0]), ("12", [2, .5, 0, 0, 0]),
    (FULL + "0123456789", [2, .5, 0, .5, .48]), ("<answer>5</answer> no <answer>12</answer>", [2, .5, 0, 0, 0]),
    ("<answer>1,2</answer>", [0, 0, 0, 0, 0]), ("<answer>²</answer>", [0, .5, 0, 0, 0]),
])
def test_r1_five(text, values):
    rewards = RewardSet("r1")
    assert rewards.score(batch([text])).values[0].tolist() == pytest.approx(values)
    assert rewards.names == ["correctness_reward_func", "int_reward_func", "strict_format_reward_func",
                             "soft_format_reward_func",
                             "xmlcount_reward_func"]


@pytest.mark.parametrize("n, right, wrong",
                         [(64, .9619, -.9619), (128, .8536, -.8536), (256, .5, -.5), (384, .1464, -.1464),
                          (495, .0027, -.0027), (496, 0, 0), (600, 0, 0)])
def test_r1_cosine(n, right, wrong):
    assert score("r1.len_cosine", batch([padded(n), padded(n, False)])) == pytest.approx([right, wrong], abs=5e-5)


def test_r1_cosine_of_nothing():
    assert score("r1.len_cosine", batch([""])) == [-1.0]


@pytest.mark.parametrize("target, n, right, wrong", [
    (512, 2, 1 - 510 / 3000, -510 / 3000), (512, 512, 1, 0), (512, 1012, 1 - 500 / 3000, -500 / 3000),
    (-512, 2, 1, 0), (-512, 212, .8, 0), (-512, 512, .5, 0), (-512, 712, .3, 0), (-512, 1012, 0, 0)])
def test_r1_l1(target, n, right, wrong):
    got = score({"r1.len_l1": {"num_tokens": target}}, batch([padded(n), padded(n, False)]))
    assert got == pytest.approx([right, wrong], abs=1e-12)


def test_r1_min():
    data = batch([padded(100), padded(200), padded(300, False), padded(400)])
    assert score("r1.len_min", data) == pytest.approx([.79276, .60998, 0, .20724], abs=5e-6)
    assert score("r1.len_min", batch([RIGHT, RIGHT])) == [.5, .5]


def test_r1_voting_takes_the_first_of_equals_and_untagged_text():
    assert score("r1.majority_voting", batch(["4", "<answer>5</answer>", "5", "4"])) == [1, 0, 0, 1]
    assert score("r1.majority_voting", batch(["4", "5", "5", "5"], groups=[0, 0, 1, 1])) == [1, 0, 1, 1]


def reasons(*what, answer="12"):
    return [f"<reasoning>{r}</reasoning>\n<answer>{answer}</answer>" for r in what]


def test_r1_group_intrinsic():
    data = batch([*reasons("a", "b", ""), *reasons("c", answer="13")])
    assert score("r1.group_intrinsic", data) == pytest.approx([4, 4, 1, 0])
    assert score("r1.group_intrinsic", batch(reasons("a", "ab"))) == pytest.approx([1 + 3 * (1 - math.sqrt(.5))] * 2)
    assert score("r1.group_intrinsic", batch(reasons("a", "a", "b"), groups=[0, 1, 1])) == pytest.approx([1, 4, 4])


def test_r1_intrinsic_group_by_group():
    rewards = RewardSet("r1.intrinsic")
    data = batch([*reasons("a", "a", "b"), *reasons("c", answer="13")], groups=[0, 0, 1, 1], training=True)
    assert rewards.score(data).values[:, 0] == pytest.approx([1, 1, 4, 0])          # b is as far from a as can be
    assert (rewards.score(data).values[:, 0]
            == pytest.approx([1 + 3 * (1 - 2 / math.sqrt(5))] * 2 + [1 + 3 * (1 - 1 / math.sqrt(17))] + [0]))


# ---- corrected: length


@pytest.mark.parametrize("target, n, right, wrong",
                         [(512, 512, 1, 0), (512, 12, .85, -.15), (512, 1012, .85, -.15), (512, 0, 1 - .1536, -.1536),
                          (-512, 512, .5, 0), (-512, 12, .65, 0), (-512, 5000, 0, 0)])
@pytest.mark.parametrize("where", ["argument", "column"])
def test_l1(target, n, right, wrong, where):
    entry, columns = (({"len_l1": {"target": target}}, {}) if where == "argument"
                      else ("len_l1", {"target_length": [target] * 2}))
    assert score(entry, batch([RIGHT, WRONG], [n, n], columns=columns)) == pytest.approx([right, wrong])


def test_l1_draws_of_one_batch_differ():
    data = batch([RIGHT] * 3, [100, 100, 100], columns={"target_length": [100, 1100, -100]})
    assert score("len_l1", data) == pytest.approx([1, .7, .5])


@pytest.mark.parametrize("entry, columns, message", [
    ("len_l1", {}, "argument target, or a column target_length"),
    ("len_l1", {"target_length": [5, None]}, "completion 1 is None"),
    ("len_l1", {"target_length": [0, 5]}, "completion 0 is 0"),
    ("len_l1", {"target_length": [5, 5.5]}, "completion 1 is 5.5"),
    ({"len_l1": {"target": 7}}, {"target_length": [7, 8]}, "completion 1 is 8, not the target=7"),
    ({"len_l1": {"target": 7}}, {"answer": None}, "needs a column named answer or solution"),
])
def test_l1_without_a_number(entry, columns, message):
    data = batch([RIGHT, WRONG], columns=columns)
    data.columns = {name: values for name, values in data.columns.items() if values is not None}
    with pytest.raises(RewardError, match=message):
        score(entry, data)


def test_lengths_leave_out_the_stop_token_and_truncation_is_no_answer():
    data = batch([RIGHT, RIGHT], [10, 10], completion_lengths=[9, 10], truncated=[False, True])
    assert score({"len_l1": {"target": 9}}, data) == pytest.approx([1, -.0003])
    assert (score({"len_cosine": {"max_length": 10}}, data)
            == pytest.approx([.5 + .25 * (1 + math.cos(.9 * math.pi)), -1]))
    assert score("len_min", data) == [.95, 0]
    assert score("majority_voting", data) == [1, 0]
    assert score("majority_voting", batch([RIGHT, WRONG, WRONG], truncated=[False, True, True])) == [1, 0, 0]
    assert score("group_intrinsic", batch(reasons("a", "b", "c"), truncated=[False, False, True])) == [1, 1, 0]


def test_untagged_answers_count_only_when_asked():
    data = batch(["it is 12"], [5])
    assert (score({"len_l1": {"target": 5}}, data) == [0]
            and score({"len_l1": {"target": 5, "strict": False}}, data) == [1])


@pytest.mark.parametrize("n, right, wrong", [(0, 1, -1), (256, .75, -.75), (512, .5, -.5), (600, .5, -.5)])
def test_cosine(n, right, wrong):
    assert (score("len_cosine", batch([RIGHT, WRONG], [n, n], max_completion_length=512))
            == pytest.approx([right, wrong]))
    published = {"len_cosine": {"max_length": 512, "correct": [2, 1], "wrong": [-10, 0], "exceeded": -10}}
    assert score(published, batch([RIGHT, WRONG], [n, n])) == pytest.approx([2 * right, -10 * (-wrong * 2 - 1)])


def test_cosine_repetition_costs_wrong_answers_only():
    entry = {"len_cosine": {"max_length": 100, "ngram_size": 1, "repetition_penalty": -2}}
    repeated = "so so so so "
    assert score(entry, batch([repeated + RIGHT, repeated + WRONG], [0, 0])) == pytest.approx([1, -1 - 2 * 3 / 5])
    assert (score({"repetition_penalty": {"ngram_size": 1, "max_penalty": -1}}, batch(["so so so so", "so", ""]))
            == [-.75, 0, 0])


def test_cosine_needs_a_limit():
    with pytest.raises(RewardError, match="max_length"):
        score("len_cosine", batch([RIGHT]))


def test_min_by_group_over_right_answers():
    sigmoid = 1 / (1 + math.exp(-1))
    data = batch([RIGHT, RIGHT, WRONG, RIGHT], [100, 300, 999, 5], groups=[0, 0, 0, 1])
    assert (score({"len_min": {"alpha": .4}}, data)
            == pytest.approx([1 - .4 * (1 - sigmoid), 1 - .4 * sigmoid, 0, 1 - .2]))
    same = batch([padded(100), padded(200), padded(300, False), padded(400)])
    assert score({"len_min": {"alpha": 1, "over": "all"}}, same) == score("r1.len_min", same)
    assert score({"len_min": {"alpha": 0}}, data) == [1, 1, 0, 1]


@pytest.mark.parametrize("text, expected",
                         [("<reasoning>" + "ab" * 30 + "</reasoning>", 1.5), ("<reasoning>a", 0), ("a</reasoning>", 0),
                          ("<reasoning></reasoning>", 1.5),
                          ("<reasoning>" + "".join(map(chr, range(32, 97))) + "</reasoning>", .75)])
def test_conciseness(text, expected):
    assert score("conciseness", batch([text])) == pytest.approx([expected])


# ---- corrected: voting and diversity


@pytest.mark.parametrize("answers, groups, expected", [
    (["1,200", "1200", "7"], [0, 0, 0], [1, 1, 0]), (["4", "5", "5", "4"], [0] * 4, [1, 1, 1, 1]),
    (["4", "5", None], [0] * 3, [1, 1, 0]),
    ([None, None, "5"], [0] * 3, [0, 0, 1]), (["4", "4", "5", "5", "5", "4"], [0, 0, 0, 1, 1, 1], [1, 1, 0, 1, 1, 0]),
    (["", "4"], [0, 0], [0, 1]),
    (["Paris", " paris", "Rome"], [0] * 3, [1, 1, 0]), ([None, None], [0, 0], [0, 0]),
])
def test_majority_voting(answers, groups, expected):
    texts = ["12" if a is None else f"<answer>{a}</answer>" for a in answers]
    assert score("majority_voting", batch(texts, groups=groups, columns={"answer": [None] * len(texts)})) == expected


def test_one_completion_has_no_majority():
    assert np.isnan(score("majority_voting", batch([RIGHT]))).all()
    assert (np.isnan(score("majority_voting", batch([RIGHT, RIGHT, RIGHT], groups=[0, 1, 1]))).tolist()
            == [True, False, False])


def test_group_intrinsic_is_a_bonus():
    data = batch([*reasons("a", "b", "ab", ""), *reasons("c", answer="13")])
    near = 1 - math.cos(math.radians(67.5))  # a from the mean of b and of what is between them
    assert score("group_intrinsic", data) == pytest.approx([near, near, 0, 0, 0], abs=1e-6)
    assert score({"group_intrinsic": {"base": 1, "scale": 3}}, batch(reasons("a", "b"))) == [4, 4]
    assert score("group_intrinsic", batch(reasons("a"))) == [0]


def test_intrinsic_archive_learns_in_training_and_is_bounded():
    rewards = RewardSet({"intrinsic": {"capacity": 2}})

    def novelty(what, training):
        return rewards.score(batch(reasons(what), training=training)).values[0, 0]

    assert ([novelty("a", False), novelty("a", False), novelty("a", True), novelty("b", False), novelty("a", True)]
            == [0, 0, 0, 1, 0])
    assert novelty("b", True) == 1.0 and novelty("a", False) == pytest.approx(1 - math.sqrt(.5))
    assert novelty("b", True) and novelty("a", False) == 1.0                        # the two oldest, both a, are gone
    assert rewards.score(batch(reasons("b"))).metrics == {"intrinsic/archive_size": 2.0}


# ---- formats and mathematics


@pytest.mark.parametrize("text, expected", [
    ("<think>a</think><answer>b</answer>", 1), ("\n<think>a\nb</think>\n\n<answer>\nb\n</answer>\n", 1),
    ("<think></think><answer></answer>", 1),
    ("<think>a</think><answer>b</answer> so", 0), ("so <think>a</think><answer>b</answer>", 0),
    ("<think>a</think> so <answer>b</answer>", 0),
    ("<think>a</think>", 0), ("<answer>b</answer>", 0), ("<answer>b</answer><think>a</think>", 0),
    ("<think>a<answer>b</answer></think>", 0),
    ("<think>a</think><think>a</think><answer>b</answer>", 0),
    ("<think>a</think><answer>b</answer><answer>b</answer>", 0), ("", 0),
])
def test_think_answer_format(text, expected):
    assert score("think_answer_format_reward", batch([text])) == [expected]


@pytest.mark.parametrize("reward", ["correctness", "accuracy_reward"])
def test_strict_and_lenient_accuracy_side_by_side(reward):
    data = batch([RIGHT, "it is 12", "<answer>12", WRONG])
    assert RewardSet([reward]).score(data).metrics == {"accuracy/strict": .25, "accuracy/lenient": .75}


MATH = [("so $\\frac{1}{\\sqrt{2}}$", "$\\sqrt{2}/2$", 1), ("<answer>0.5</answer>", "1/2", 1),
        ("<answer>1+x</answer>", "x+1", 1), ("$1+x$", "x+1", 1),
        ("<answer>x</answer>", "x+1", 0), ("<answer>1</answer>", "1+x", 0), ("nothing", "12", 0),
        ("<answer></answer> 12", "12", 0),
        ("12", "so\n#### 12", 1), ("12", None, None), ("12", "", None), ("\\boxed{1,200}", "1200", 1),
        ("<answer>18 dollars</answer>", "$18", 1),
        ("<answer>(1, 2)</answer>", "(1,2)", 1), ("<answer>paris</answer>", "Paris", 1),
        ("<answer>Rome</answer>", "Paris", 0)]


def test_math_verify(patient):
    pytest.importorskip("math_verify")
    data = batch([text for text, _, _ in MATH], columns={"answer": [gold for _, gold, _ in MATH]})
    got = score("math_verify", data)
    assert [None if math.isnan(x) else x for x in got] == [expected for _, _, expected in MATH]


def test_math_verify_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "math_verify", None)
    monkeypatch.delitem(sys.modules, "grpo.rewards.math_verify", raising=False)
    monkeypatch.delitem(sys.modules, "grpo.rewards.trl", raising=False)
    for ask in (lambda: RewardSet("math_verify"), lambda: RewardSet({"cosine_scaled_reward": {"max_len": 8}}),
                lambda: grpo.rewards.reasoning_accuracy_reward):
        with pytest.raises(ConfigError, match=r"need the package math-verify: pip install 'cgrpo\[math\]'"):
            ask()


def test_a_comparison_that_takes_too_long_is_wrong_and_said(monkeypatch):
    pytest.importorskip("math_verify")
    trl = importlib.import_module("grpo.rewards.trl")
    monkeypatch.setattr(trl, "SECONDS", 0.1)
    worker = Worker(hang_on_two)
    monkeypatch.setattr(trl, "comparison", lambda: worker)
    with pytest.warns(GrpoWarning, match="more than 0.1 s over 'it is 12'"):
        assert trl.accuracy_reward(["it is 12", "it is 12"], solution=["12", None]) == [0.0, None]


# ---- names and arguments


def test_r1_names_are_the_corrected_rewards():
    names = ["correctness", "int", "strict_format", "soft_format", "xml", {"len_l1": {"target": 512}}, "len_cosine",
             "len_min", "majority_voting",
             "group_intrinsic", "intrinsic"]
    assert RewardSet(names).names == ["correctness_reward", "integer_reward", "strict_format_reward",
                                      "soft_format_reward", "xml_tags_reward",
                                      "len_l1", "len_cosine", "len_min", "majority_voting_reward", "group_intrinsic",
                                      "intrinsic"]


@pytest.mark.parametrize("entry, message", [
    ({"len_l1": {"taget": 5}}, "no argument 'taget'; did you mean 'target'? It takes target, alpha, delta, strict."),
    ({"len_l1": {"target": 0}}, "target=0 must be a number of tokens"),
    ({"len_l1": {"alpha": "x"}}, "alpha='x' must be a number of at least 0"),
    ({"len_l1": 512}, "must be a mapping such as {target: 512}, not 512"),
    ({"len_l1": {}, "len_min": {}}, "one name each"),
    ({"repetition_penalty_reward": {"max_penalty": 1}}, "reward 'repetition_penalty_reward': max_penalty=1 must be"),
    ({"len_cosine": {"correct": 1}}, "correct=1 must be two numbers"),
    ({"len_cosine": {"repetition_penalty": 1}}, "repetition_penalty=1 must be"),
    ({"len_min": {"alpha": 2}}, "alpha=2 must be a number of at least 0 and of at most 1"),
    ({"len_min": {"over": "some"}}, "over='some' must be 'correct' or 'all'"),
    ({"conciseness": {"low": 9, "high": 9}}, "high=9 must be an integer of at least 10"),
    ({"intrinsic": {"capacity": 1.5}}, "capacity=1.5 must be"),
    ({"xml": {"weight": 2}}, "'xml' is several rewards"),
    ({"majority_voting": {"alpha": 1}}, "has no argument 'alpha'"),
    ("r1.len_l1", "reward 'r1.len_l1' needs num_tokens"), ("r1.lenl1", "did you mean 'r1.len_l1'"),
    ({"len_11": {}}, "did you mean 'len_l1'"),
    ({"soft_overlong_punishment": {"cache": 5}}, "needs max_completion_length"),
    ({"len_cosine": {"max_length": True}}, "max_length=True must be"),
])
def test_arguments_are_checked(entry, message):
    with pytest.raises(ConfigError) as error:
        RewardSet([entry])
    assert message in str(error.value)


def test_numbers_that_yaml_reads_as_text():
    assert score({"len_l1": {"target": 5, "alpha": "1e-1"}}, batch([RIGHT], [6])) == [.9]


def test_arguments_of_functions_and_classes_in_a_file(tmp_path):
    (tmp_path / "mine.py").write_text("def longer(completions, than, answer):\n"
                                      "    return [float(len(c) > than) for c in completions]\n"
                                      "class Fixed:\n    def __init__(self, value=1.0): self.value = value\n"
                                      "    def __call__(self, completions): return [self.value] * len(completions)\n")
    data = batch(["a", "abc"], columns={"than": [9, 9]})                             # an argument goes before a column
    assert score({f"{tmp_path}/mine.py:longer": {"than": 2}}, data) == [0, 1]
    assert (score({f"{tmp_path}/mine.py:Fixed": {"value": 3}}, data) == [3, 3]
            and score(f"{tmp_path}/mine.py:Fixed", data) == [1, 1])
