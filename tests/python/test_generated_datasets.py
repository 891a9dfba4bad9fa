"""Data sets that are made up on the spot: right, seeded, with problems held out; and the rewards that belong to
them."""
import hashlib
import itertools
import json
import re
import sys

import pytest

from grpo import ConfigError, DatasetError, RewardError, datasets
from grpo.datasets import arithmetic
from grpo.rewards.countdown import countdown_reward
from grpo.rewards.reasoning_gym import reasoning_gym_reward, scorer


def fingerprint(rows):
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:12]


def numbers(row):
    return [int(word.strip("?")) for word in row["question"].split() if word.strip("?").isdigit()]


def asked(rows):
    return {row["question"] for row in rows}


# arithmetic


def test_arithmetic_holds_problems_and_their_mirror_images_out():
    train, test = ({tuple(sorted(numbers(row))) for row in datasets.load("arithmetic", split)}
                   for split in ("train", "test"))
    assert not train & test
    assert len(train | test) == 100 * 101 // 2
    assert 0.05 < len(test) / len(train | test) < 0.15


@pytest.mark.parametrize("split", ["train", "test"])
def test_arithmetic_is_right_and_seeded(split):
    rows = datasets.load("arithmetic", split, size=50, seed=3)
    assert all(sum(numbers(row)) == int(row["answer"]) for row in rows)
    assert (rows == datasets.load("arithmetic", split, size=50, seed=3)
            == datasets.load("arithmetic", split, seed=3)[:50])
    assert rows != datasets.load("arithmetic", split, size=50, seed=4)


@pytest.mark.parametrize("split, alike", [("train", 2000), ("test", 20)])
def test_digits_in_turn(split, alike):
    rows = datasets.load("arithmetic", split, digits=[1, 2], size=alike)
    one, two = datasets.load("arithmetic", split, digits=1), datasets.load("arithmetic", split, digits=2)
    assert rows[::2] == [one[i % len(one)] for i in range(alike // 2)] and rows[1::2] == two[:alike // 2]


def test_arithmetic_is_the_same_on_every_machine():
    assert (fingerprint(datasets.load("arithmetic:demonstrations", size=100, forgotten_carries=0.5, untidy=0.3))
            == "4cf2406fd0a0")


@pytest.mark.parametrize("a, b, carries, lines", [
    (3, 4, True, ["3+4=7 -> 7"]),
    (7, 8, True, ["7+8=15 -> 5", "1 -> 15"]),
    (47, 38, True, ["7+8=15 -> 5", "4+3=7; 7+1=8 -> 85"]),
    (47, 38, False, ["7+8=15 -> 5", "4+3=7 -> 75"]),
    (99, 1, True, ["9+1=10 -> 0", "9+0=9; 9+1=10 -> 00", "1 -> 100"]),
    (90, 90, False, ["0+0=0 -> 0", "9+9=18 -> 80"]),
    (0, 0, True, ["0+0=0 -> 0"]),
])
def test_columns(a, b, carries, lines):
    assert arithmetic.add_in_columns(a, b, carries) == lines


def test_columns_end_in_the_sum():
    assert all(arithmetic.add_in_columns(a, b)[-1].endswith(f"-> {a + b}") for a in range(1000)
               for b in (0, 5, 99, 500, 999))


def test_examples_come_before_the_question():
    plain, shown = (datasets.load("arithmetic", "test", size=3, system_prompt="xml", examples=n) for n in (0, 2))
    for row, one in zip(plain, shown, strict=True):
        assert [m["role"] for m in one["prompt"]] == ["system", "user", "assistant", "user", "assistant", "user"]
        assert ((one["prompt"][0], one["prompt"][-1], one["answer"])
                == (row["prompt"][0], row["prompt"][-1], row["answer"]))
        for question, solution in (one["prompt"][1:3], one["prompt"][3:5]):
            assert f"<answer>\n{sum(numbers({'question': question['content']}))}\n</answer>" in solution["content"]


def test_demonstrations():
    rows = datasets.load("arithmetic:demonstrations", digits=1)
    assert all(f"<answer>\n{row['answer']}\n</answer>\n" in row["completion"]
               and row["completion"].count("reasoning>") == 2 for row in rows)
    sloppy = datasets.load("arithmetic:demonstrations", digits=1, forgotten_carries=1.0, untidy=1.0)
    assert all(("</reasoning>" not in row["completion"])
               and (f"\n{row['answer']}\n" in row["completion"]) == (int(row["answer"]) < 10)
               for row in sloppy)


@pytest.mark.parametrize("options, message", [
    (dict(digits=0), "digits=0"), (dict(split="dev"), "no split 'dev'.* train, test"),
    (dict(digit=2), "no option 'digit'; did you mean 'digits'"),
    (dict(size=0), "size=0"),
])
def test_arithmetic_refuses(options, message):
    with pytest.raises((ConfigError, DatasetError), match=message):
        datasets.load("arithmetic", **options)


@pytest.mark.parametrize("options", [dict(forgotten_carries=1.5), dict(untidy=-0.1)])
def test_shares(options):
    with pytest.raises(ConfigError, match="must be from 0 to 1"):
        datasets.load("arithmetic:demonstrations", **options)


# word problems


def fact(row):
    """The sum or product that a word problem is one side of."""
    a, b = [int(word) for word in re.findall(r"\d+", row["question"])]
    x, y = sorted((a, b) if row["operation"] in ("addition", "multiplication") else (int(row["answer"]), min(a, b)))
    return x, "+" if row["operation"] in ("addition", "subtraction") else "x", y


def test_word_problems_hold_facts_out():
    train, test = ({fact(row) for row in datasets.load("word_problems", split, size=4000, seed=seed)}
                   for split, seed in (("train", 0), ("test", 1)))
    assert not train & test
    assert 0.1 < len(test) / len(train | test) < 0.3


@pytest.mark.parametrize("split", ["train", "test"])
def test_word_problems_are_right_and_seeded(split):
    rows = datasets.load("word_problems", split, size=1000, seed=3)
    for row in rows:
        x, symbol, y = fact(row)
        told = {int(number) for number in re.findall(r"\d+", row["question"])} | {int(row["answer"])}
        assert told == {x, y, x + y if symbol == "+" else x * y}
    assert len({row["question"] for row in rows}) == len(rows)
    assert [row["operation"] for row in rows[:8]] == ["addition", "subtraction", "multiplication", "division"] * 2
    assert (rows == datasets.load("word_problems", split, seed=3)[:1000]
            != datasets.load("word_problems", split, size=1000, seed=4))


def test_word_problems_are_the_same_on_every_machine():
    assert fingerprint(datasets.load("word_problems", size=400, examples=1)) == "ed5ca7022294"


@pytest.mark.parametrize("split", ["train", "test"])
def test_word_problems_with_solved_examples(split):
    rows = datasets.load("word_problems", split, size=50, system_prompt="xml", examples=2)
    shown = rows[0]["prompt"][1:-1]
    assert [m["role"] for m in rows[0]["prompt"]] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert all(row["prompt"][1:-1] == shown and row["prompt"][-1]["content"] == row["question"] for row in rows)
    assert not {m["content"] for m in shown} & {row["question"] for row in rows}
    for question, solution in (shown[:2], shown[2:]):
        a, b = re.findall(r"\d+", question["content"])
        assert re.fullmatch(rf"<reasoning>\n{a} [-+] {b} = (\d+)\n</reasoning>\n<answer>\n\1\n</answer>",
                            solution["content"])


@pytest.mark.parametrize("options, low, high", [(dict(operations="addition", numbers=[5, 6]), 10, 12),
                                                (dict(operations=["division"], factors=[4, 9]), 4, 9)])
def test_ranges_of_word_problems(options, low, high):
    rows = datasets.load("word_problems", size=200, **options)
    assert all(low <= int(row["answer"]) <= high and row["operation"] in options["operations"] for row in rows)


@pytest.mark.parametrize("options, message", [
    (dict(operations="addtion"), "no operation 'addtion'; did you mean 'addition'"),
    (dict(numbers=[1, 9]), r"numbers=\[1, 9\].*from 2 to 100"),
    (dict(factors=[9, 3]), "factors=.*smallest and the largest"), (dict(numbers=[5]), "numbers="),
    (dict(split="dev"), "no split 'dev'"),
    (dict(split="test", numbers=[5, 5]), "no addition of this range falls into the split; widen numbers"),
    (dict(range=3), "no option 'range'"),
])
def test_word_problems_refuse(options, message):
    with pytest.raises((ConfigError, DatasetError), match=message):
        datasets.load("word_problems", **options)


@pytest.mark.parametrize("name", ["arithmetic", "word_problems", "countdown", "gsm8k"])
@pytest.mark.parametrize("examples", [-1, 1.5, "two"])
def test_numbers_of_examples(name, examples):
    with pytest.raises(ConfigError, match="examples=.* must be a number of solved problems"):
        datasets.load(name, examples=examples)


# countdown


@pytest.mark.parametrize("split", ["train", "test"])
def test_countdown_can_be_solved(split):
    rows = datasets.load("countdown", split, size=300, count=[2, 3, 5], numbers=[2, 30], targets=[5, 60], seed=2)
    assert all(len(row["numbers"]) == count for row, count in zip(rows, itertools.cycle([2, 3, 5])))
    assert all(5 <= row["target"] <= 60 and all(2 <= n <= 30 for n in row["numbers"]) for row in rows)
    given = {name: [row[name] for row in rows] for name in ("numbers", "target")}
    assert countdown_reward([f"<answer>{row['expression']}</answer>" for row in rows], **given) == [1.0] * 300
    assert (rows == datasets.load("countdown", split, count=[2, 3, 5], numbers=[2, 30], targets=[5, 60], seed=2,
                                  size=400)[:300])


def test_countdown_holds_problems_out():
    train, test = ({(tuple(sorted(row["numbers"])), row["target"])
                    for row in datasets.load("countdown", split, size=1500, numbers=[1, 9], seed=seed)}
                   for split, seed in (("train", 0), ("test", 1)))
    assert not train & test


def test_countdown_with_solved_examples():
    rows = datasets.load("countdown", size=20, examples=1)
    shown = rows[0]["prompt"][1:3]
    assert all(row["prompt"][1:3] == shown and row["question"] != shown[0]["content"] for row in rows)
    assert ("answer" not in rows[0]
            and re.fullmatch(r"<reasoning>\n(.+) = \d+\n</reasoning>\n<answer>\n\1\n</answer>", shown[1]["content"]))


@pytest.mark.parametrize("options, message", [
    (dict(count=1), "count=1 must be"), (dict(count=[3, 9]), "from 2 to 6"), (dict(count=[]), "count="),
    (dict(numbers=[0, 5]), r"numbers=\[0, 5\]"),
    (dict(targets=[9]), "targets="), (dict(split="dev"), "no split 'dev'"),
    (dict(count=2, numbers=[1, 2], targets=[999, 999]), "no problem of numbers=.* falls into train; widen them"),
])
def test_countdown_refuses(options, message):
    with pytest.raises((ConfigError, DatasetError), match=message):
        datasets.load("countdown", **options)


@pytest.mark.parametrize("answer, score", [
    ("(8 - 2) * 4", 1), ("(8-2)*4 = 24", 1), ("4 × (8 − 2)", 0), ("4 × (8 - 2)", 1), ("8 * 4 - 8", 0), ("8 * 3", 0),
    ("24", 0), ("(8 - 2) * 4 = 25", 0),
    ("(8 - 2) * 4 * 1", 0), ("-(2 - 8) * 4", 1), ("+8 - 2 * 4", 0), ("8 ** 2 * 4", 0), ("8 // 2 * 4", 0),
    ("8 / (2 - 4)", 0), ("4 / (8 - 2)", 0),
    ("2(8)4", 0), ("(8 - 2) * 04", 0), ("", 0), ("=24", 0), ("__import__('os').system('true') or 24", 0),
    ("8 if 2 else 4", 0), ("[8, 2, 4]", 0),
    ("8 - 2 * 4\n= 24", 0), ("9" * 5000, 0), ("(" * 150 + "8" + ")" * 150, 0), ("-" * 190 + "8", 0),
    ("2 / (8 - 8) + 4", 0),
])
def test_countdown_reward(answer, score):
    seen = countdown_reward([f"so <answer> {answer} </answer>", f"<answer>{answer}", answer], numbers=[[2, 4, 8]] * 3,
                            target=[24] * 3)
    assert seen == [float(score), 0.0, 0.0]


def test_countdown_reward_is_exact_and_does_not_apply_to_other_rows():
    assert (countdown_reward(["<answer>1 / 3 * 3</answer>", "<answer>1</answer>"], numbers=[[1, 3, 3], None],
                             target=[1, None]) == [1.0, None])


# reasoning-gym


@pytest.mark.parametrize("task, options", [("leg_counting", {"max_animals": 4}), ("simple_equations", {})])
def test_tasks_of_reasoning_gym(task, options):
    pytest.importorskip("reasoning_gym")
    train, test = (datasets.load(f"reasoning_gym:{task}", split, size=40, **options) for split in ("train", "test"))
    assert len(train) == len(test) == 40 and not asked(train) & asked(test)
    assert (train == datasets.load(f"reasoning_gym:{task}", size=50, **options)[:40]
            != datasets.load(f"reasoning_gym:{task}", size=40, seed=1, **options))
    columns = {name: [row[name] for row in train] + [None] for name in ("entry", "task")}
    right = [f"<answer>{row['answer']}</answer>" for row in train]
    assert reasoning_gym_reward([*right, "x"], **columns) == [1.0] * 40 + [None]
    assert reasoning_gym_reward([text.replace("<answer>", "<answer>no ") for text in right] + ["x"], **columns)[0] < 1
    assert reasoning_gym_reward([row["answer"] for row in train] + ["x"], **columns) == [0.0] * 40 + [None]


def test_answers_that_a_scorer_cannot_read(monkeypatch):
    def broken(answer, entry):
        raise KeyError(answer)

    logged = []
    monkeypatch.setattr("grpo.rewards.reasoning_gym.scorer", lambda task: broken)
    scores = reasoning_gym_reward(["<answer>1</answer>", "1"], entry=[{}, {}], task=["t", "t"],
                                  log_metric=lambda *metric: logged.append(metric))
    assert scores == [0.0, 0.0] and logged == [("reasoning_gym/unreadable", 0.5)]


@pytest.mark.parametrize("source, options, message", [
    ("reasoning_gym", {}, "reasoning_gym needs the name of a task: reasoning_gym:NAME"),
    ("reasoning_gym:leg_count", {}, "reasoning_gym has no task 'leg_count'; did you mean 'leg_counting'"),
    ("reasoning_gym:leg_counting", {"animals": 3}, "reasoning_gym:leg_counting: .*animals"),
    ("reasoning_gym:leg_counting", {"min_animals": -3}, "reasoning_gym:leg_counting: "),
    ("reasoning_gym:leg_counting", {"split": "dev"}, "no split 'dev'"),
])
def test_reasoning_gym_refuses(source, options, message):
    pytest.importorskip("reasoning_gym")
    with pytest.raises((ConfigError, DatasetError), match=message):
        datasets.load(source, **options)


def test_reasoning_gym_is_not_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    scorer.cache_clear()
    with pytest.raises(DatasetError, match=r"reasoning_gym need that package: pip install 'cgrpo\[gym\]'"):
        datasets.load("reasoning_gym:leg_counting")
    with pytest.raises(RewardError, match=r"pip install 'cgrpo\[gym\]'"):
        reasoning_gym_reward(["<answer>1</answer>"], entry=[{}], task=["leg_counting"])
