"""What rewards log never takes the place of what a run says itself; signatures of other frameworks' rewards; why a
rollout teaches nothing."""
import json
from types import SimpleNamespace

import numpy as np
import pytest

import grpo
import toy
from grpo.rollouts import flat_groups
from grpo.rollouts.rollouts import RECORD

CORE = sorted(RECORD)


def without_clock(record):
    return {k: v for k, v in toy.timeless(record).items() if "logged/" not in k}


@pytest.mark.parametrize("value", [99.0, "text", None, -1])
def test_a_column_never_replaces_one_of_the_record(tmp_path, value):
    def plain(completion_ids, **columns):
        return toy.byte_values(completion_ids)

    def logs(completion_ids, log_extra, **columns):
        for name in CORE:
            log_extra(name, [value] * len(completion_ids))
        log_extra("mine", list(range(len(completion_ids))))
        return toy.byte_values(completion_ids)

    logs.__name__ = "plain"
    found = []
    for reward in (plain, logs):
        trainer = toy.trainer(tmp_path, reward, max_steps=1, eval_dataset=[{"prompt": "c", "answer": "7"}] * 2,
                              eval_strategy="steps", eval_steps=1, log_completions=True, logging_steps=1)
        step = next(iter(trainer))
        found.append((step, without_clock(step.metrics)))
    assert found[0][1] == found[1][1]
    bare, logged = (step.completions[0] for step, _ in found)
    assert {name: logged[name] for name in bare} == bare and logged["mine"] == 0
    assert all(logged[f"logged/{name}"] == value for name in CORE)


@pytest.mark.parametrize("name", ["reward", "kl", "loss", "grad_norm", "step", "epoch", "completions/mean_length",
                                  "rewards/plain/mean", "eval_reward", "frac_reward_zero_std", "learning_rate"])
def test_a_metric_never_replaces_one_of_the_trainer(tmp_path, name):
    def plain(completion_ids, log_metric, **columns):
        log_metric(name, 1e6)
        log_metric("digits", 2.0)
        return toy.byte_values(completion_ids)

    trainer = toy.trainer(tmp_path, plain, max_steps=2)
    trainer.train()
    (record, *_) = [json.loads(line) for line in (trainer.run.path / "metrics.jsonl").read_text().splitlines()]
    assert record[f"logged/{name}"] == 1e6 and record.get(name) != 1e6 and record["digits"] == 2.0


class Evaluator:
    """As DeepSeekRL's: scores are read with .item()."""

    def compute_rewards(self, prompts, completions, answer, device):
        scores = np.array([[float(i), 1.0] for i in range(len(completions))])
        return scores, {"reward": 7.0, "accuracy": 0.5}

    def get_reward_breakdown(self, reward_scores):
        return {"place": reward_scores[0].item(), "one": reward_scores[1].item()}


def rllm(task_info, action):
    return SimpleNamespace(reward=float(len(action)), metadata={"n": 3}, is_correct=task_info["ground_truth"] == "7")


def math_verify(model_output: str, ground_truth: str, timeout_score: float = 0) -> float:
    return float(ground_truth == "7")


def remote(queries, prompts, labels, **given):
    n = len(queries)
    return {"rewards": np.arange(n), "scores": np.zeros(n), "extra_logs": {"right": np.ones(n), "pairs": [[1, 2], [3]]}}


@pytest.mark.parametrize("reward, logged", [
    (Evaluator(), {"rewards/place/mean": 3.5, "rewards/one/mean": 1.0, "logged/reward": 7.0, "accuracy": 0.5}),
    (rllm, {"rewards/rllm/is_correct": 1.0, "rewards/rllm/n": 3.0}),
    (math_verify, {"rewards/math_verify/mean": 1.0}),
    (remote, {"rewards/remote/mean": 3.5, "right": 1.0, "pairs": 2.0})])
def test_rewards_of_other_frameworks(tmp_path, reward, logged):
    trainer = toy.trainer(tmp_path, reward, rows=[{"prompt": "a", "answer": "7"}] * 2, max_steps=1)
    metrics = next(iter(trainer)).metrics
    assert {name: metrics[name] for name in logged} == logged


@pytest.mark.parametrize("totals, flat", [
    ([0.1 + 0.2, 0.3], True), ([1.0, 1.0], True), ([1.0, 1.0 + 1e-9], True), ([1.0, 1.0 + 1e-7], False),
    ([np.nan, 1.0], True), ([1e8, 1e8 + 1], False)])
def test_rewards_are_equal_as_in_trl(totals, flat):
    """torch.isclose(std, 0): at most 1e-8."""
    assert flat_groups(np.array(totals), np.array([0, 0])).tolist() == [flat]


def none(completions):
    return [None] * len(completions)


def constant(completions):
    return [0.25] * len(completions)


def up(completions):
    return [float(i % 2) for i in range(len(completions))]


def down(completions):
    return [-float(i % 2) for i in range(len(completions))]


def by_prompt(prompts, completions):
    return [float(ord(p)) for p in prompts]


@pytest.mark.parametrize("rewards, why", [
    (none, r"every reward \(none\) was None for every completion"),
    (constant, r"the same reward, 0.25 \(one value throughout: constant 0.25\)"),
    ([up, down], r"the same reward, 0 \(its parts cancel out\)"),
    ([constant, none], r"one value throughout: constant 0.25"),
    (by_prompt, "every completion of a group the same reward, though groups differ")])
def test_why_there_is_nothing_to_learn(tmp_path, rewards, why):
    with pytest.warns(grpo.GrpoWarning, match=f"3 rollouts in a row .*{why}"):
        toy.trainer(tmp_path, rewards, max_steps=3).train()
