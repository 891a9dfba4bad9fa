"""Reward functions: how each kind is called, what their results may be, the built-in ones against published vectors."""
import asyncio
import fractions
import functools
import gc
import itertools
import math
import os
import threading
from multiprocessing.connection import Connection

import numpy as np
import pytest

from grpo.answers import as_number, final_answer, same_answer
from grpo.errors import ConfigError, GrpoWarning, RewardError
from grpo.rewards import (
    RewardBatch,
    RewardSet,
    deadline,
    get_soft_overlong_punishment,
    resolve,
    reward,
)
from hostile_rewards import (
    HANGS,
    TOLD,
    asks_for_embed,
    closes_its_pipe,
    crashes,
    endless,
    endless_then_raises,
    exits_on_one,
    hang,
    hang_on_one,
    loops,
    remembers,
    returns_a_lock,
    sometimes,
    unsendable,
)

CHAT = [{"role": "user", "content": "6 times 2?"}]


def batch(texts=("a", "bb", "ccc"), prompts=None, **columns):
    """n completions; answer=None leaves that column out."""
    n, columns = len(texts), {"answer": [str(len(t)) for t in texts], **columns}
    return RewardBatch(prompts=list(prompts or ["p"] * n), texts=list(texts),
                       completion_ids=[list(range(len(t))) for t in texts],
                       rows=list(range(10, 10 + n)), columns={k: v for k, v in columns.items() if v is not None},
                       state="state")


def values(function, data=None, **options):
    return RewardSet(function, **options).score(data or batch()).values[:, 0].tolist()


# ---- kinds


class Evaluator:
    """As DeepSeekRL's RewardEvaluator."""

    def compute_rewards(self, prompts, completions, answer, device):
        assert device == "cpu" and completions[0][0]["content"] == "a"
        return (np.array([[len(c[0]["content"]), float(a == "3")] for c, a in zip(completions, answer, strict=True)]),
                {"accuracy": 0.5})

    def get_reward_breakdown(self, row):
        return {"length": row[0], "right": row[1]}


class Rubric:
    """As a verifiers Rubric."""

    def __init__(self):
        self.parser = "the parser"
        self.funcs = [lambda completion, parser: float(parser == "the parser"), self.named]
        self.weights = [2.0, 0.5]

    async def named(self, prompt, completion, answer, state):
        return float(state["answer"] == answer and state["completion"] == completion)

    def score_rollouts(self):
        raise AssertionError("its functions are called one by one")


def trl(prompts, completions, completion_ids, answer, trainer_state, **kwargs):
    assert trainer_state == "state" and set(kwargs) == {"log_extra", "log_metric"}
    return [len(ids) for ids in completion_ids]


def no_kwargs(completions):
    return [len(c) for c in completions]


def sample(completion, answer):
    return float(len(completion) == int(answer)) * len(completion)


def verl(data_source, solution_str, ground_truth, extra_info=None):
    assert data_source is None and extra_info is None
    return {"score": float(len(solution_str)), "match": float(ground_truth == str(len(solution_str)))}


def easyr1(reward_inputs):
    return [{"overall": r["response_length"], "format": 1.0, "accuracy": float(r["ground_truth"] == "1")}
            for r in reward_inputs]


def openrlhf(queries, prompts, labels):
    return {"rewards": [len(q) - len(p) for q, p in zip(queries, prompts, strict=True)], "scores": [0] * 3,
            "extra_logs": {}}


def countdown(response, answer):
    return {"reward": len(response), "reward_info": {"parts": 1}}


async def batch_async(completions, **kwargs):
    await asyncio.sleep(0)
    return [len(c) for c in completions]


async def sample_async(completion):
    await asyncio.sleep(0)
    return len(completion)


@reward(kind="sample", columns=["answer"])
def first_parameter(text, answer):
    return float(int(answer) * (len(text) > 0))


@reward(kind="batch")
def first_parameter_of_all(texts):
    return [len(t) for t in texts]


class Callable:
    def __call__(self, completion_ids, **kwargs):
        return [len(ids) for ids in completion_ids]


@pytest.mark.parametrize("function", [trl, no_kwargs, sample, verl, easyr1, openrlhf, countdown, batch_async,
                                      sample_async, first_parameter,
                                      first_parameter_of_all, Callable(),
                                      functools.partial(lambda completions, k: [len(c) * k for c in completions], k=1),
                                      lambda completions, **kw: tuple(len(c) for c in completions),
                                      lambda completions: np.array([len(c) for c in completions], np.float32),
                                      lambda completions: (len(c) for c in completions),
                                      lambda **kw: [len(ids) for ids in kw["completion_ids"]]])
def test_each_kind_is_called_as_it_expects(function):
    assert values(function) == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("columns, gold", [
    ({"reward_model": [{"ground_truth": "1"}], "answer": ["2"]}, "1"), ({"ground_truth": [None], "answer": ["2"]}, "2"),
    ({"answer": [None]}, None)])
def test_the_gold_of_other_trainers(columns, gold):
    """The rule is that of evaluation, gold_of."""
    seen = []

    def verl_kind(solution_str, ground_truth):
        seen.append(ground_truth)
        return 0.0

    RewardSet(verl_kind).score(RewardBatch(prompts=["p"], texts=["x"], completion_ids=[[1]], rows=[0], columns=columns))
    assert seen == [gold]


def test_evaluator_gives_a_column_a_reward():
    scores = RewardSet(Evaluator()).score(batch(prompts=[CHAT] * 3))
    assert scores.names == ["length", "right"] and scores.metrics == {"accuracy": 0.5}
    assert scores.values.tolist() == [[1, 0], [2, 0], [3, 1]]


def test_rubric_brings_its_weights_and_parser():
    rewards = RewardSet(Rubric())
    scores = rewards.score(batch())
    assert rewards.names == ["lambda", "named"] and scores.weights.tolist() == [2.0, 0.5]
    assert scores.total.tolist() == [2.5] * 3


def test_dict_results_log_their_other_numbers():
    scores = RewardSet(verl).score(batch())
    assert scores.metrics == {"rewards/verl/match": 1.0}
    assert values(verl, batch(answer=None, ground_truth=["1", "2", "3"])) == [1, 2, 3]
    assert values(verl, batch(answer=None, reward_model=[{"ground_truth": "x"}] * 3)) == [1, 2, 3]


def test_conversations_come_as_messages():
    seen = {}

    def look(prompts, completions):
        seen["batch"] = (prompts[0], completions[0])
        return [0.0] * len(prompts)

    def look_at_one(completion):
        seen["sample"] = completion
        return 0.0

    RewardSet([look, look_at_one]).score(batch(prompts=[CHAT, CHAT, "text"]))
    message = [{"role": "assistant", "content": "a"}]
    assert seen["batch"] == (CHAT, message) and seen["sample"] == "ccc"


def test_logging_from_a_reward():
    def logs(completions, log_extra, log_metric):
        log_extra("length", [len(c) for c in completions])
        log_metric("mean", 1.0)
        log_metric("mean", 2.0)
        return [0] * len(completions)

    scores = RewardSet(logs).score(batch())
    assert scores.extras == {"length": [1, 2, 3]} and scores.metrics == {"mean": 1.5}


def test_asynchronous_rewards_run_together():
    waiting, both = [], asyncio.Event()

    async def meet(completions):
        waiting.append(1)
        if len(waiting) == 2:
            both.set()
        await both.wait()
        return [1.0] * len(completions)

    assert RewardSet([meet, meet]).score(batch()).total.tolist() == [2.0] * 3


def test_asynchronous_rewards_inside_a_running_loop():
    async def notebook():
        return values(batch_async)

    assert asyncio.run(notebook()) == [1.0, 2.0, 3.0]


# ---- names and weights


@pytest.mark.parametrize("functions, names", [
    ([trl, no_kwargs], ["trl", "no_kwargs"]),
    ([lambda completions: [0], lambda completions: [0]], ["lambda", "lambda_2"]),
    (functools.partial(functools.partial(sample)), ["sample"]),
    (Callable(), ["Callable"]),
    (reward(name="mine")(lambda completions: [0]), ["mine"]),
    ("accuracy_reward", ["accuracy_reward"]),
    (["xml", "think_format_reward"],
     ["correctness_reward", "integer_reward", "strict_format_reward", "soft_format_reward", "xml_tags_reward",
      "think_format_reward"]),
])
def test_names(functions, names):
    assert RewardSet(functions).names == names


def test_weights():
    weighted = reward(weight=0.5)(lambda completions: [len(c) for c in completions])
    rewards = RewardSet([weighted, no_kwargs])
    assert rewards.score(batch()).total.tolist() == [1.5, 3.0, 4.5]
    rewards["no_kwargs"].weight = 2.0
    assert rewards.score(batch()).total.tolist() == [2.5, 5.0, 7.5]
    assert RewardSet([weighted, no_kwargs], weights=[1, 0]).score(batch()).total.tolist() == [1.0, 2.0, 3.0]
    with pytest.raises(ConfigError, match="3 weights for 2 rewards"):
        RewardSet([weighted, no_kwargs], weights=[1, 2, 3])
    with pytest.raises(KeyError, match="no reward 'x'"):
        rewards["x"]


def test_none_leaves_a_reward_out_of_the_sum():
    scores = RewardSet([lambda completions: [None, 1.0, None], lambda completions: [None, 1.0, 2.0]]).score(batch())
    assert np.isnan(scores.total[0]) and scores.total[1:].tolist() == [2.0, 2.0]


# ---- chaos


def raising(error):
    def broken(completions):
        raise error
    return broken


def recursion(completions):
    return recursion(completions)


async def hang_async(completions):
    await asyncio.Event().wait()


async def cancelled(completions):
    raise asyncio.CancelledError


def logs_too_little(completions, log_extra):
    log_extra("length", [1])
    return [1.0] * len(completions)


class NoNumber(fractions.Fraction):
    """A real number that cannot be read."""

    def __float__(self):
        raise ValueError("unreadable")


class NoText:
    def __repr__(self):
        raise ValueError("unspeakable")


class OwnException(BaseException):
    pass


def missing(completions, nothing_like_it):
    return [0.0] * len(completions)


@pytest.fixture
def time_is_up_when_it_hangs(tmp_path, monkeypatch):
    """For hang_on_one, which says before it returns or hangs what it is going to do: its time is up at once if it
    hangs, and never if it returns, however slow the machine is."""
    os.mkfifo(tmp_path / "told")
    told, join, poll = os.open(tmp_path / "told", os.O_RDWR), threading.Thread.join, Connection.poll

    def hangs():
        return os.read(told, 1) == HANGS

    def join_or_hang(thread, timeout=None):
        if timeout is None or not hangs():
            join(thread)

    def poll_or_hang(connection, timeout=0.0):
        return (timeout == deadline.START_SECONDS or not hangs()) and poll(connection, None)

    monkeypatch.setenv(TOLD, str(tmp_path / "told"))
    monkeypatch.setattr(threading.Thread, "join", join_or_hang)
    monkeypatch.setattr(Connection, "poll", poll_or_hang)
    yield
    os.close(told)


HERE = dict(timeout=0.05, process=False)
# function, options of the decorator, what the error says, whether a policy other than "raise" may replace the result,
# what it leaves
CHAOS = [
    ("raises", raising(ValueError("boom")), {}, "'broken' raised ValueError: boom (3 completions of rows 10 to 12)",
     "all"),
    ("raises a key error", raising(KeyError("x")), {}, "raised KeyError", "all"),
    ("exits", raising(SystemExit(3)), {}, "raised SystemExit", "all"),
    ("runs out of memory", raising(MemoryError()), {}, "raised MemoryError", "all"),
    ("asserts", raising(AssertionError("no")), {}, "raised AssertionError", "all"),
    ("stops iterating", raising(StopIteration()), {}, "raised StopIteration", "all"),
    ("raises on one", sometimes, {}, "'sometimes' raised ValueError: no (completion 1, row 11 of the data set)", "one"),
    ("recurses", recursion, {}, "raised RecursionError", "all"),
    ("hangs", hang, HERE, "'hang' timed out after 0.05 s (3 completions of rows 10 to 12); it goes on in a thread that "
     "cannot be ended", "all"),
    ("hangs awaiting", hang_async, HERE, "timed out after 0.05 s", "all"),
    ("hangs on one", hang_on_one, HERE, "timed out after 0.05 s (completion 1, row 11", "one"),
    ("hangs in its process", hang, dict(timeout=0.2),
     "'hang' timed out after 0.2 s (3 completions of rows 10 to 12); its process was ended", "all"),
    ("hangs on one in its process", hang_on_one, dict(timeout=0.2),
     "timed out after 0.2 s (completion 1, row 11 of the data set); its process", "one"),
    ("loops in its process", loops, dict(timeout=0.2), "'loops' timed out after 0.2 s", "all"),
    ("returns for ever in its process", endless, dict(process=True),
     "'endless' returned 1048576 rewards for 3 completions", None),
    ("exits its process on one", exits_on_one, dict(process=True),
     "raised SystemExit: the function ended its process, exit code 7 (completion 1", "one"),
    ("crashes its process", crashes, dict(process=True), "the function ended its process, killed by signal 11", "all"),
    ("raises in its process", sometimes, dict(process=True), "'sometimes' raised ValueError: no (completion 1, row 11",
     "one"),
    ("raises half-way in its process", endless_then_raises, dict(process=True), "raised ValueError: in the middle",
     "all"),
    ("returns what cannot be sent", returns_a_lock, dict(process=True), "raised TypeError: cannot pickle", "all"),
    ("closes its pipe", closes_its_pipe, dict(process=True), "'closes_its_pipe' raised SystemExit", "all"),
    ("raises half-way", endless_then_raises, {}, "'endless_then_raises' raised ValueError: in the middle (3", "all"),
    ("raises what is no Exception", raising(OwnException("mine")), {}, "raised OwnException: mine", "all"),
    ("raises without a text", raising(ValueError(NoText())), {}, "raised ValueError: (its text raises ValueError)",
     "all"),
    ("cancels itself", cancelled, {}, "'cancelled' raised CancelledError", "all"),
    ("too large a number", lambda completions: [1.0, 10**400, 1.0], {}, "returned inf (completion 1", "one"),
    ("an unreadable number", lambda completions: [1.0, NoNumber(1), 1.0], {}, "returned nan (completion 1", "one"),
    ("endless", lambda completions: itertools.count(), {}, "returned 4 rewards for 3 completions", None),
    ("an object without a text", lambda completions: [NoText()] * 3, {},
     "returned NoText (its text raises ValueError), not a number", None),
    ("logs too little", logs_too_little, {}, "'logs_too_little' logged 1 values of 'length' for 3 completions", None),
    ("a set", lambda completions: {1.0}, {}, "returned 1 rewards for 3", None),
    ("nan", lambda completions: [1.0, math.nan, 1.0], {}, "returned nan (completion 1, row 11", "one"),
    ("infinity", lambda completions: [1.0, math.inf, 1.0], {}, "returned inf", "one"),
    ("numpy nan", lambda completions: np.array([1, np.nan, 1]), {}, "returned nan", "one"),
    ("nan for one", lambda completion: math.nan if completion == "bb" else 1.0, {}, "returned nan", "one"),
    ("too short", lambda completions: [1.0], {}, "returned 1 rewards for 3 completions", None),
    ("too long", lambda completions: [1.0] * 4, {}, "returned 4 rewards for 3 completions", None),
    ("empty", lambda completions: [], {}, "returned 0 rewards for 3", None),
    ("a number", lambda completions: 1.0, {}, "returned float, not a list", None),
    ("nothing", lambda completions: None, {}, "returned NoneType, not a list", None),
    ("text", lambda completions: "abc", {}, "returned str, not a list", None),
    ("a dict", lambda completions: {0: 1.0}, {}, "returned dict, not a list", None),
    ("a zero-dimensional array", lambda completions: np.array(1.0), {}, "returned float, not a list", None),
    ("list of text", lambda completions: [1.0, "good", 1.0], {},
     "returned str 'good', not a number or None (completion 1", None),
    ("list of lists", lambda completions: [[1.0], [1.0], [1.0]], {}, "returned list [1.0], not a number", None),
    ("a column", lambda completions: np.ones((3, 1)), {}, "returned list [1.0], not a number", None),
    ("a complex number", lambda completions: [1j, 1j, 1j], {}, "returned complex", None),
    ("an object for one", lambda completion: object(), {}, "returned object", None),
    ("a dict without a score", lambda completion: {"points": 1}, {}, "dict without score", None),
    ("an argument that is not there", missing, {}, "asks for 'nothing_like_it'. There are answer, completion_ids",
     None),
    ("a column by another name", lambda completions, answers: [0.0] * 3, {},
     "asks for 'answers'; did you mean 'answer'? There are answer", None),
    ("a reference that is not there", reward(verl), {}, "needs a reference answer", "no gold"),
]


@pytest.mark.filterwarnings("ignore:reward .* timed out")
@pytest.mark.parametrize("function, options, message, replaced", [c[1:] for c in CHAOS], ids=[c[0] for c in CHAOS])
def test_chaos(function, options, message, replaced, request):
    if function is hang_on_one:
        request.getfixturevalue("time_is_up_when_it_hangs")
    function = reward(**options)(function)
    data = batch(answer=None) if replaced == "no gold" else batch()
    with pytest.raises(RewardError) as error:
        values(function, data)
    assert message in str(error.value)
    if replaced in ("all", "one"):
        bad = [True] * 3 if replaced == "all" else [False, True, False]
        for policy, stands in (("drop", None), (-1.0, -1.0)):
            scores = RewardSet(function, on_error=policy).score(data)
            got = [None if math.isnan(v) else v for v in scores.values[:, 0]]
            assert got == [stands if b else 1.0 for b in bad]
            assert list(scores.metrics.values()) == [sum(bad)] and list(scores.metrics)[0].endswith("/errors")
    else:
        with pytest.raises(RewardError):
            values(function, data, on_error="drop")


@pytest.mark.parametrize("result, expected",
                         [([True, False, True], [1, 0, 1]), ([np.float32(1), np.int64(2), np.bool_(True)], [1, 2, 1]),
                          (np.array([1, 2, 3], np.int8), [1, 2, 3]), ([1, 2.5, 10**3], [1, 2.5, 1000])])
def test_numbers_of_all_sorts(result, expected):
    assert values(lambda completions: result) == expected


def clear(prompts, completions, completion_ids, answer):
    """Changes whatever it is given."""
    prompts[0][0]["content"] = "mine"
    answer[0]["number"] = 9
    for mine in (prompts, completions, completion_ids, answer):
        mine.clear()
    return [0.0] * 2


def test_a_reward_changes_its_own_copies():
    def look(prompts, completions, completion_ids, answer):
        assert (prompts == [CHAT, CHAT] and len(completions) == 2 and completion_ids == [[0], [0, 1]]
                and answer == [{"number": 1}] * 2)
        return [1.0] * 2

    data = batch(["a", "bb"], [CHAT] * 2, answer=[{"number": 1}, {"number": 1}])
    assert RewardSet([clear, look]).score(data).total.tolist() == [1.0, 1.0]


def test_a_process_of_its_own(capfd):
    rewards = RewardSet(reward(process=True)(remembers))
    scores = [rewards.score(batch()) for _ in range(2)]
    assert scores[0].total.tolist() == [1.0] * 3 and [s.metrics["calls"] for s in scores] == [2, 5]
    process, = {pid for s in scores for pid in s.extras["process"]}
    assert process != os.getpid() and "printing ccc" in capfd.readouterr().out
    del rewards
    gc.collect()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


@pytest.mark.filterwarnings("ignore:reward .* timed out")
def test_a_process_that_was_ended_is_replaced(time_is_up_when_it_hangs):
    rewards = RewardSet(reward(timeout=0.3)(hang_on_one), on_error=0.0)
    assert [rewards.score(batch()).values[:, 0].tolist() for _ in range(2)] == [[1.0, 0.0, 1.0]] * 2


def test_a_reward_of_a_file_has_a_process_too(tmp_path):
    (tmp_path / "rewards_of_a_file.py").write_text("import os\nfrom grpo.rewards import reward\n@reward(process=True)\n"
                                                   "def far(completions, log_metric):\n"
                                                   "    log_metric('pid', os.getpid())\n"
                                                   "    return [1.0] * len(completions)\n")
    scores = RewardSet(f"{tmp_path}/rewards_of_a_file.py:far").score(batch())
    assert scores.total.tolist() == [1.0] * 3 and scores.metrics["pid"] != os.getpid()


@pytest.mark.parametrize("function, why", [
    (lambda completions: [0.0], "not a function at the top level of a module"),
    (Callable(), "not a function at the top level"),
    (batch_async, "it is a coroutine function"), (asks_for_embed, "it asks for embed"),
    (raising(ValueError()), "not a function at the top level"),
])
def test_what_cannot_have_a_process(function, why):
    with pytest.raises(ConfigError, match=f"cannot have a process of its own: .*{why}"):
        RewardSet(reward(process=True)(function))


def test_arguments_that_cannot_be_sent_are_named():
    with pytest.raises(RewardError, match="'unsendable' raised .*cannot be sent to its process.*process=False"):
        values(reward(process=True)(unsendable), batch(answer=[lambda: 0] * 3))


def test_a_timeout_costs_its_time_and_says_what_became_of_the_call(time_is_up_when_it_hangs):
    """The call never ends, and is not waited for."""
    with pytest.warns(GrpoWarning, match="goes on in a thread that cannot be ended, because process=False"):
        assert values(reward(**HERE)(hang_on_one), on_error=0.0) == [1.0, 0.0, 1.0]


def test_interrupts_are_not_reward_errors():
    with pytest.raises(KeyboardInterrupt):
        values(raising(KeyboardInterrupt()), on_error="drop")


@pytest.mark.parametrize("functions, message", [
    (None, "reward_funcs is missing"), ([], "empty"), (3, "must be a function"),
    (lambda x, y: 0, "should ask for completions"),
    ("acuracy_reward", "did you mean 'accuracy_reward'"), ("nowhere.at_all", "cannot import nowhere"),
    ("math.nothing", "has no 'nothing'"),
    ("absent.py:f", "absent.py does not exist"),
])
def test_what_is_no_reward(functions, message):
    with pytest.raises(ConfigError) as error:
        RewardSet(functions)
    assert message in str(error.value)


def test_decorator_checks_its_options():
    with pytest.raises(ConfigError, match="kind='single'"):
        reward(kind="single")
    with pytest.raises(ConfigError, match="timeout=0"):
        reward(timeout=0)


def test_reward_from_a_file_and_a_module(tmp_path, monkeypatch):
    (tmp_path / "my_rewards.py").write_text("def long(completions):\n    return [len(c) for c in completions]\n")
    assert values(f"{tmp_path}/my_rewards.py:long") == [1, 2, 3]
    monkeypatch.syspath_prepend(tmp_path)
    assert resolve("my_rewards.long").__name__ == "long"
    with pytest.raises(ConfigError, match="did you mean 'long'"):
        resolve(f"{tmp_path}/my_rewards.py:lon")


# ---- built-in rewards

FULL = "<reasoning>\nabc\n</reasoning>\n<answer>\n12\n</answer>\n"
# completion: correctness, int, strict, soft, xml count as published; then corrected
VECTORS = [
    (FULL, [2, .5, .5, 0, .5], [2, .5, .5, .5, .5]),
    (FULL[:-1], [2, .5, 0, 0, .451], [2, .5, .5, .5, .5]),
    ("<reasoning>abc</reasoning><answer>12</answer>", [2, .5, 0, .5, 0], [2, .5, 0, .5, .5]),
    (FULL.replace("abc", "a\nb"), [2, .5, 0, 0, .5], [2, .5, .5, .5, .5]),
    ("The answer is 12", [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]),
    ("12", [2, .5, 0, 0, 0], [0, 0, 0, 0, 0]),
    (FULL + "0123456789", [2, .5, 0, 0, .48], [2, .5, 0, .5, .49]),
    ("<answer>5</answer> no <answer>12</answer>", [2, .5, 0, 0, 0], [2, .5, 0, 0, 0]),
    ("<answer>²</answer>", [0, .5, 0, 0, 0], [0, 0, 0, 0, .25]),
    ("<answer>12.0</answer>", [0, 0, 0, 0, 0], [2, .5, 0, 0, .25]),
    ("<answer>-12</answer>", [0, 0, 0, 0, 0], [0, .5, 0, 0, .25]),
    ("<answer>$12</answer>", [0, 0, 0, 0, 0], [2, .5, 0, 0, .25]),
    ("", [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]),
]


@pytest.mark.parametrize("text, published, corrected", VECTORS)
@pytest.mark.parametrize("chat", [False, True])
def test_xml_rewards(text, published, corrected, chat):
    data = batch([text], [CHAT] if chat else None, answer=["12"])
    assert RewardSet("deepseekrl").score(data).values[0].tolist() == pytest.approx(published)
    assert RewardSet("xml").score(data).values[0].tolist() == pytest.approx(corrected)


def test_thousands_are_numbers():
    data = batch(["<answer>1,200</answer>"], answer=["1200"])
    assert RewardSet("deepseekrl").score(data).values[0, :2].tolist() == [0, 0]
    assert RewardSet("xml").score(data).values[0, :2].tolist() == [2, .5]


@pytest.mark.parametrize("text, gold, expected", [
    ("<answer> 42 </answer>", "42", 1), ("so it is\n#### 1,000", "1000", 1),
    (r"thus \boxed{\frac{1}{2}}", r"\frac{1}{2}", 1),
    ("The answer is 7.", "7", 1), ("The answer is 3.5 apples", "3.5", 1), ("first 3, then 4", "4", 1),
    ("first 3, then 4", "3", 0),
    ("**Answer:** Paris", "paris", 1), ("72.0", "72", 1), ("$72", "step by step\n#### 72", 1), ("3/4", "0.75", 1),
    ("50%", "50", 1),
    ("no number", "12", 0), ("x", None, None), ("1/0", "1", 0),
])
def test_accuracy(text, gold, expected):
    got = values("accuracy_reward", batch([text], answer=[gold]))[0]
    assert math.isnan(got) if expected is None else got == expected


def test_accuracy_reads_solution_too():
    assert values("answer_reward", batch(["5"], answer=None, solution=["5"])) == [1.0]
    assert values("accuracy_reward", batch(["5", "$5$", r"\boxed{5}"], answer=None, solution=["5"] * 3)) == [0, 0, 1]
    with pytest.raises(RewardError, match="answer or solution"):
        values("accuracy_reward", batch(["5"], answer=None))


@pytest.mark.parametrize("text, expected", [("<think>a\nb</think>c", 1), ("<think></think>", 1),
                                            ("x<think>a</think>", 0), ("<think>a", 0),
                                            ("<think>a<think>b</think>", 0), ("a</think>", 0),
                                            ("<think>a</think><think>b</think>", 0)])
def test_think_format(text, expected):
    assert values("think_format_reward", batch([text])) == [expected]


@pytest.mark.parametrize("length, expected",
                         [(0, 0), (800, 0), (801, -.005), (900, -.5), (1000, -1), (1001, -1), (2000, -1)])
def test_soft_overlong_punishment(length, expected):
    assert get_soft_overlong_punishment(1000, 200)(completion_ids=[[0] * length]) == pytest.approx([expected])


@pytest.mark.parametrize("a, b, same", [("1,200", "1200", True), ("-5.", "-5", True), ("+3", "3", True),
                                        (".5", "1/2", True), ("1,2", "12", False),
                                        ("Paris ", "paris", True), ("Paris", "London", False), ("12", "twelve", False),
                                        ("007", "7", True)])
def test_same_answer(a, b, same):
    assert same_answer(a, b) is same


def test_numbers_in_text():
    assert as_number("²") is None and as_number("") is None and as_number("1e5") == 100_000
    assert final_answer("") == "" and final_answer("  plain  ") == "plain"
