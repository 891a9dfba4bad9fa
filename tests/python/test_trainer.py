"""GRPOTrainer and SFTTrainer: a step, what a run leaves, what is refused. What stops a run: test_stopping.py."""
import json
import math
import os
import subprocess
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
import yaml

import grpo
import toy
from grpo.datasets.prompts import PromptStream, RowOrder
from grpo.errors import ConfigError, DatasetError, GrpoWarning, NonFiniteError
from grpo.rollouts.rollouts import Rollouts
from grpo.runs import log as runlog
from grpo.runs.folder import to_json
from grpo.training.callbacks import TrainerCallback

CHAT = [{"role": "user", "content": "hi"}]


def records(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


# ---- a run and what it leaves


def test_run_folder_and_metrics(tmp_path):
    trainer = toy.trainer(tmp_path, toy.share, max_steps=4, save_strategy="steps", save_steps=2, learning_rate=1e-3)
    output = trainer.train()
    run = trainer.run.path
    assert output.global_step == 4 and trainer.state.log_history[-1]["train_loss"] == output.training_loss
    assert sorted(p.name for p in run.iterdir()) == ["README.md", "checkpoint-2", "checkpoint-4", "checkpoints",
                                                     "completions", "config.yaml", "metrics.jsonl",
                                                     "trainer_state.json"]
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["step-2", "step-4"]
    assert yaml.safe_load((run / "config.yaml").read_text())["learning_rate"] == 1e-3
    lines = records(run / "metrics.jsonl")
    assert [r["step"] for r in lines] == [1, 2, 3, 4] and [r["epoch"] for r in lines] == [1, 2, 3, 4]
    expected = """loss grad_norm learning_rate num_tokens step_time reward reward_std frac_reward_zero_std
        rewards/share/mean rewards/share/std completions/mean_length completions/min_length completions/max_length
        completions/mean_terminated_length completions/clipped_ratio
        entropy clip_ratio/region_mean sampling/sampling_logp_difference/mean sampling/sampling_logp_difference/max
        generation_tokens_per_second training_tokens_per_second time_share/generate time_share/update"""
    assert set(expected.split()) <= set(lines[0])
    assert all(r["sampling/sampling_logp_difference/max"] == 0 for r in lines)
    completions = records(run / "completions" / "step-000001.jsonl")
    assert (len(completions) == 8 and completions[0]["prompt"] in ("a", "b")
            and set(completions[0]["rewards"]) == {"share"})
    assert (grpo.load(run / "checkpoints" / "step-4", toy.DEVICE).state_dict().keys()
            == trainer.model.state_dict().keys())


def test_iterating_is_training(tmp_path):
    trainer = toy.trainer(tmp_path, max_steps=3)
    seen = []
    for step in trainer:
        seen.append((step.step, len(step.completions),
                     step.metrics["reward"] == trainer.state.log_history[-1]["reward"]))
        if step.step == 2:
            break
    seen += [(step.step, len(step.completions), True) for step in trainer]
    assert seen == [(1, 8, True), (2, 8, True), (3, 8, True)]
    assert [r["step"] for r in records(trainer.run.path / "metrics.jsonl")] == [1, 2, 3]
    assert list(trainer) == []


def test_an_existing_run_is_never_overwritten(tmp_path, capsys):
    first = toy.trainer(tmp_path, max_steps=1, output_dir=str(tmp_path / "same"))
    first.train()
    second = toy.trainer(tmp_path, max_steps=1, output_dir=str(tmp_path / "same"))
    second.train()
    assert (first.run.path.name, second.run.path.name) == ("same-1", "same")
    assert "held a run already" in capsys.readouterr().err


def test_default_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        toy.trainer(tmp_path, max_steps=1, output_dir=None, run_name="my run").train()
        assert (tmp_path / "runs" / f"my-run-{number}" / "metrics.jsonl").exists()


def test_batch_arithmetic_is_printed(tmp_path, capsys):
    toy.trainer(tmp_path, max_steps=1, num_iterations=2).train()
    said = "2 prompts x 4 completions = 8 completions a rollout, 8 a step, 2 steps a rollout; steps: 1;"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("epochs, rows, changed, steps",
                         [(1, 5, {}, 2), (3, 5, {}, 6), (0.1, 5, {}, 1), (1, 4, {"num_iterations": 3}, 6)])
def test_epochs(tmp_path, epochs, rows, changed, steps):
    trainer = toy.trainer(tmp_path, rows=[{"prompt": "p"}] * rows, max_steps=-1, num_train_epochs=epochs, **changed)
    assert trainer.train().global_step == steps


# ---- sameness


@pytest.mark.parametrize("changed", [{}, dict(num_iterations=2, beta=0.1), dict(dynamic_sampling=True),
                                     dict(top_entropy_quantile=0.5)])
def test_same_seed_same_run(tmp_path, changed):
    runs = [toy.trainer(tmp_path, max_steps=4, seed=seed, **changed) for seed in (3, 3, 4)]
    for trainer in runs:
        trainer.train()
    assert toy.weights(runs[0]) == toy.weights(runs[1]) != toy.weights(runs[2])
    histories = [[to_json(toy.timeless(r)) for r in t.state.log_history] for t in runs]
    assert histories[0] == histories[1] != histories[2]


@pytest.mark.parametrize("changed", [dict(loss_type="dapo"), dict(loss_type="grpo", num_iterations=2),
                                     dict(loss_type="bnpo", beta=0.1),
                                     dict(entropy_coef=0.01), dict(mask_truncated_completions=True, temperature=1.5)])
def test_accumulation_and_micro_batches_change_no_bit(tmp_path, changed):
    """The same completions a step, said as one batch, as accumulation, and cut into micro-batches of one group."""
    ways = [dict(per_device_train_batch_size=32), dict(per_device_train_batch_size=8, gradient_accumulation_steps=4),
            dict(prompts_per_step=8, gradient_accumulation_steps=2),
            dict(per_device_train_batch_size=32, token_budget=1, slots=3),
            dict(per_device_train_batch_size=32, recompute=True)]
    found = set()
    for way in ways:
        trainer = toy.trainer(tmp_path, max_steps=3, **way, **changed)
        trainer.train()
        found.add(tuple(toy.weights(trainer).items()))
    assert len(found) == 1


def test_duplicating_every_group_leaves_the_gradient_unchanged(tmp_path):
    """Guards against a missing or a double 1/B in each aggregation."""
    for loss_type in ("grpo", "dr_grpo", "dapo", "luspo"):
        options = dict(loss_type=loss_type, importance_sampling_level="sequence" if loss_type == "luspo" else "token")
        trainer = toy.trainer(tmp_path, max_steps=1, save_completions=False, **options)
        trainer.state.max_steps, trainer.run = 1, object()
        trainer._make_rollouts()
        once = trainer.rollouts
        gradients = []
        for rollouts in (once, Rollouts.join([once, once])):
            trainer.rollouts = rollouts
            trainer._on_policy(rollouts)
            gradients.append(trainer.optimizer.gradient("model.embed_tokens.weight"))
            trainer.optimizer.zero_grad()
        np.testing.assert_allclose(gradients[0], gradients[1], rtol=1e-4, atol=1e-7)
        assert np.abs(gradients[0]).max() > 0


def test_data_order_is_a_function_of_seed_and_position():
    order = RowOrder(10, True, 5)
    straight = order.take(0, 35)
    assert [order.take(k, 1)[0] for k in (34, 3, 17, 0)] == [straight[k] for k in (34, 3, 17, 0)]
    assert all(sorted(straight[e:e + 10]) == list(range(10)) for e in (0, 10, 20)) and straight[:10] != straight[10:20]
    assert RowOrder(10, True, 6).take(0, 10) != straight[:10] and RowOrder(4, False, 6).take(2, 4) == [2, 3, 0, 1]


# ---- the parts of a step


def test_groups_without_spread_cost_nothing(tmp_path):
    trainer = toy.trainer(tmp_path, lambda completions: [1.0] * len(completions))
    before = toy.weights(trainer)
    for step in trainer:
        assert (step.metrics["frac_reward_zero_std"] == 1 and step.metrics["training_tokens_per_second"] == 0
                and step.metrics["grad_norm"] == 0)
    assert toy.weights(trainer) == before


def test_truncated_completions_are_left_out(tmp_path):
    trainer = toy.trainer(tmp_path, max_steps=1, mask_truncated_completions=True, max_completion_length=100,
                          num_generations=16)
    step = next(iter(trainer))
    r = step.rollouts
    cut = r.finish == 0
    assert 0 < cut.sum() < len(cut)
    assert [bool(m.any()) for m in r.split(r.mask)] == [not c for c in cut]
    assert trainer._normalizer(r, r.entropies)["tokens"] == r.lengths[~cut].sum()


def test_unscored_completions_carry_no_loss(tmp_path):
    def some(completion_ids):
        return [None if ids[0] % 2 else float(len(ids)) for ids in completion_ids]

    r = next(iter(toy.trainer(tmp_path, some, num_generations=16, max_steps=1))).rollouts
    none = np.isnan(r.totals)
    assert 0 < none.sum() < len(none)
    assert not r.advantages[none].any() and [bool(m.any()) for m in r.split(r.mask)] == [not n for n in none]


def test_soft_overlong_punishment_is_a_reward(tmp_path):
    step = next(iter(toy.trainer(tmp_path, max_steps=1, soft_overlong_cache=2)))
    assert step.reward_names == ["byte_values", "soft_overlong_punishment_reward"]
    full = [r for r in step.completions if r["tokens"] == 6]
    assert full and all(r["rewards"]["soft_overlong_punishment_reward"] == -1 for r in full)


def test_reward_weights(tmp_path):
    step = next(iter(toy.trainer(tmp_path, [toy.share, toy.byte_values], max_steps=1, reward_weights=[2.0, 0.5])))
    for r in step.completions:
        assert r["reward"] == pytest.approx(2 * r["rewards"]["share"] + 0.5 * r["rewards"]["byte_values"])
    with pytest.raises(ConfigError, match="1 weights for 2 rewards"):
        toy.trainer(tmp_path, [toy.share, toy.byte_values], reward_weights=[2.0])


@pytest.mark.parametrize("values", [(0.0, 1.0), (-3.25, 0.5)])
def test_dynamic_sampling_replaces_groups_without_spread(tmp_path, values):
    """Row 0 has spread, rows 1 to 3 have none; rewards need not be 0 and 1."""
    low, high = values

    def reward(prompts, completion_ids):
        return [high * len(ids) + ids[0] if p == "0" else (low if p == "1" else high)
                for p, ids in zip(prompts, completion_ids, strict=True)]

    rows = [{"prompt": str(i)} for i in range(4)]
    step = next(iter(toy.trainer(tmp_path, reward, rows, max_steps=1, dynamic_sampling=True, max_resample_times=20,
                                 prompts_per_step=3)))
    assert [p.prompt for p in step.rollouts.prompts] == ["0", "0", "0"] and len(step.rollouts) == 12
    m = step.metrics
    assert (m["groups/kept"] == 3
            and m["groups/generated"] == 3 + m["groups/zero_std_low"] + m["groups/zero_std_high"] >= 9)
    assert len({c.tobytes() for c in step.rollouts.completions}) > 6         # refilled groups draw numbers of their own


def test_dynamic_sampling_gives_up(tmp_path):
    calls = []

    def constant(completions):
        calls.append(len(completions))
        return [1.0] * len(completions)

    step = next(iter(toy.trainer(tmp_path, constant, max_steps=1, dynamic_sampling=True, max_resample_times=2)))
    assert calls == [8, 8, 8] and len(step.rollouts) == 8
    assert (step.metrics["groups/generated"], step.metrics["groups/kept"]) == (6, 0)


def test_stop_strings_end_completions(tmp_path):
    r = next(iter(toy.trainer(tmp_path, max_steps=1, max_completion_length=200, num_generations=16,
                              generation_kwargs={"stop_strings": ["e", "q"]})))
    stopped = [c for c in r.completions if c["finish_reason"] == "stop" and c["completion"]]
    assert len(stopped) > 16 and all(c["completion"].count("e") + c["completion"].count("q") <= 1 for c in stopped)
    assert any(c["completion"].endswith(("e", "q")) for c in stopped)  # the string stays, for rewards that look for it


def test_kl_in_reward(tmp_path):
    trainer = toy.trainer(tmp_path, lambda completions: [0.0] * len(completions), beta=0.5, kl_in_reward=True,
                          max_steps=3, scale_rewards="none")
    trainer.reference.core.set_tensor("model.norm.weight", np.full(32, 1.5, np.float32))
    r = next(iter(trainer)).rollouts
    kl = np.array([np.sum(a, dtype=np.float64) for a in r.split(r.policy_logprobs - r.ref_logprobs)])
    groups = (-0.5 * kl).reshape(2, 4)
    np.testing.assert_allclose(r.advantages.reshape(2, 4), groups - groups.mean(1, keepdims=True), rtol=1e-5, atol=1e-6)
    assert trainer.state.log_history[0]["kl"] == pytest.approx(float((r.policy_logprobs - r.ref_logprobs).mean()))


def test_reference_stays_until_it_is_mixed(tmp_path):
    trainer = toy.trainer(tmp_path, beta=0.1, max_steps=4, sync_ref_model=True, ref_model_sync_steps=2,
                          ref_model_mixup_alpha=0.25)
    name = "model.layers.0.mlp.up_proj.weight"
    start = trainer.model.core.get_tensor(name)
    for step in trainer:
        policy, reference = trainer.model.core.get_tensor(name), trainer.reference.core.get_tensor(name)
        if step.step == 1:
            assert step.metrics["kl"] == 0 and np.array_equal(reference, start) and not np.array_equal(policy, start)
        if step.step == 2:
            # in float32, not rounded
            np.testing.assert_allclose(reference, 0.25 * policy + 0.75 * start, rtol=1e-6, atol=1e-7)
            mixed = reference
        if step.step == 3:
            assert step.metrics["kl"] > 0 and np.array_equal(reference, mixed)


def test_mini_batches_go_over_the_rollout_and_again(tmp_path):
    trainer = toy.trainer(tmp_path, per_device_train_batch_size=4, steps_per_generation=3, num_iterations=2,
                          max_steps=7)
    steps = list(trainer)
    rollouts = [tuple(p.row for p in s.rollouts.prompts) for s in steps]
    assert rollouts[:3] == rollouts[3:6] and all(len(s.rollouts) == 4 for s in steps)
    assert ["reward" in s.metrics for s in steps] == [True, False, False, False, False, False, True]
    assert (steps[1].metrics["sampling/importance_sampling_ratio/max"] != 1
            == steps[0].metrics["sampling/importance_sampling_ratio/max"])
    assert ("policy_moved/logp_difference/mean" in steps[1].metrics
            and "sampling/sampling_logp_difference/max" not in steps[1].metrics)


def test_adaptive_entropy_moves_its_coefficient(tmp_path):
    steps = list(toy.trainer(tmp_path, max_steps=4, use_adaptive_entropy=True, entropy_target=100.0,
                             entropy_coef_delta=0.25, entropy_coef_max=0.6))
    assert [s.metrics["entropy_coef"] for s in steps] == [0, 0.25, 0.5, 0.6]


def test_gradient_that_is_not_finite_is_thrown_away(tmp_path, monkeypatch):
    trainer = toy.trainer(tmp_path, max_steps=6, max_skipped_steps=2)
    prepare, broken = trainer._prepare, {2, 4, 5, 6}

    def poison(r):
        prepare(r)
        if trainer.state.global_step + 1 in broken:
            r.advantages[:] = np.nan

    monkeypatch.setattr(trainer, "_prepare", poison)
    before = []
    with (pytest.warns(GrpoWarning, match="is skipped"),
          pytest.raises(NonFiniteError, match="3 steps in a row, the weights are those of step 3")):
        for _ in trainer:
            before.append(toy.weights(trainer))
    assert len(before) == 5 and before[0] == before[1] != before[2] == before[3] == before[4] == toy.weights(trainer)
    assert trainer.state.log_history[1]["skipped_steps"] == 1


# ---- evaluation, callbacks, logging


def test_evaluation(tmp_path):
    trainer = toy.trainer(tmp_path, toy.share, eval_dataset=toy.ROWS * 2, max_steps=4, eval_strategy="steps",
                          eval_steps=2, eval_on_start=True)
    first = trainer.evaluate()
    assert first["eval_reward"] == trainer.evaluate()["eval_reward"] and "eval_rewards/share/mean" in first
    trainer.train()
    lines = records(trainer.run.path / "metrics.jsonl")
    assert [r["step"] for r in lines if "eval_reward" in r] == [0, 2, 4]
    round_ = json.loads((trainer.run.path / "eval" / "step-000004.json").read_text())
    assert len(round_["completions"]) == 16 and round_["metrics"]["reward"] == lines[-1]["eval_reward"]
    greedy = toy.trainer(tmp_path, toy.share, temperature_eval=0)
    metrics = greedy.evaluate([{"prompt": "a", "letter": "a"}], metric_key_prefix="test")
    assert metrics["test_reward"] >= 0 and "test_frac_reward_zero_std" not in metrics


def test_evaluation_on_several_data_sets(tmp_path, capsys):
    sets = {"sums": [{"prompt": "1+1", "letter": "2"}],
            "words": [{"prompt": "cat", "letter": "a"}, {"prompt": "dog", "letter": "o"}]}
    trainer = toy.trainer(tmp_path, toy.share, eval_dataset=sets, max_steps=2, eval_strategy="steps", eval_steps=2,
                          eval_report="no",
                          metric_for_best_model="words_reward", save_strategy="best")
    single = {name: toy.trainer(tmp_path, toy.share, eval_dataset=rows).evaluate() for name, rows in sets.items()}
    expected = {f"eval_{name}_{metric.removeprefix('eval_')}": value for name, one in single.items()
                for metric, value in one.items()}
    both = trainer.evaluate()
    assert set(both) == set(expected) and all(both[n] == expected[n] for n in both if not n.endswith("runtime"))
    assert ({n.partition("_")[0] for n in trainer.evaluate({"other": sets["sums"]}, metric_key_prefix="test")}
            == {"test"})
    trainer.train()
    assert (sorted(p.name for p in (trainer.run.path / "eval").iterdir())
            == ["eval_sums-000002.json", "eval_words-000002.json"])
    assert trainer.state.best_metric == trainer.state.log_history[-2]["eval_words_reward"]
    assert "eval_sums_reward" in capsys.readouterr().err


def test_evaluation_changes_nothing(tmp_path):
    plain, watched = (toy.trainer(tmp_path, max_steps=3),
                      toy.trainer(tmp_path, max_steps=3, eval_dataset=toy.ROWS, eval_strategy="steps", eval_steps=1))
    plain.train()
    watched.train()
    assert toy.weights(plain) == toy.weights(watched)


def test_callbacks(tmp_path):
    class Watch:
        def __init__(self):
            self.events = []

        def __getattr__(self, name):
            if not name.startswith("on_"):
                raise AttributeError(name)
            return lambda args, state, control, **kwargs: self.called(name, state, control, kwargs)

        def called(self, name, state, control, kwargs):
            self.events.append(name.removeprefix("on_"))
            if name == "on_step_end" and state.global_step == 4:
                control.should_training_stop = control.should_save = True
            if name == "on_log" and "train_loss" not in kwargs["logs"]:
                assert kwargs["logs"]["reward"] == pytest.approx(np.mean([r["reward"] for r in state.log_history[-2:]]))

    watch = Watch()
    trainer = toy.trainer(tmp_path, max_steps=10, callbacks=[watch], logging_steps=2, prompts_per_step=1)
    trainer.train()
    step = ["step_begin", "pre_optimizer_step", "optimizer_step"]
    epoch = ["epoch_begin", *step, "step_end", *step, "step_end", "log"]
    assert watch.events == ["init_end", "train_begin", *epoch, "epoch_end", *epoch, "save", "epoch_end", "log",
                            "train_end"]
    assert trainer.state.global_step == 4


def test_periods_below_1_are_shares_of_all_steps(tmp_path):
    class Watch(TrainerCallback):
        def on_log(self, args, state, control, **kwargs):
            logged.append(state.global_step)         # and once more when training is over

    logged = []
    trainer = toy.trainer(tmp_path, max_steps=7, callbacks=[Watch], logging_steps=0.3, save_strategy="steps",
                          save_steps=0.5)
    trainer.train()
    assert logged == [3, 6, 7, 7]
    assert sorted(p.name for p in trainer.run.checkpoints.iterdir()) == ["step-4", "step-7"]


def test_a_callback_may_be_a_class(tmp_path):
    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = True

    trainer = toy.trainer(tmp_path, callbacks=[Stop])
    trainer.add_callback(Stop)
    assert trainer.train().global_step == 1


def test_lines_where_there_is_no_terminal(tmp_path, capsys):
    toy.trainer(tmp_path, max_steps=2, logging_steps=1, beta=0.1).train()
    err = capsys.readouterr().err
    for part in ("step 1/2", "reward", "kl 0.0000", "length", "gen tok/s", "train tok/s", "s/step"):
        assert part in err


def test_progress_bar(tmp_path, capsys):
    toy.trainer(tmp_path, max_steps=2, disable_tqdm=False).train()
    err = capsys.readouterr().err
    assert "2/2" in err and "reward=" in err


def test_tensorboard(tmp_path, monkeypatch):
    written = []

    class SummaryWriter:
        def __init__(self, folder):
            written.append(folder)

        def add_scalar(self, name, value, step):
            written.append((name, value, step))

        def flush(self): ...
        def close(self):
            written.append("closed")

    monkeypatch.setitem(sys.modules, "tensorboardX", types.SimpleNamespace(SummaryWriter=SummaryWriter))
    trainer = toy.trainer(tmp_path, max_steps=2, logging_steps=2, report_to="tensorboard", eval_dataset=toy.ROWS,
                          eval_strategy="steps", eval_steps=2)
    trainer.train()
    names = {name: (value, step) for name, value, step in written[1:-1]}
    mean = np.mean([r["reward"] for r in trainer.state.log_history if "reward" in r])
    assert written[0] == str(trainer.run.path / "tensorboard") and written[-1] == "closed"
    assert names["train/reward"] == (pytest.approx(mean), 2) and names["eval/reward"][1] == 2


def test_tensorboard_has_to_be_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ConfigError, match="pip install tensorboardX"):
        grpo.GRPOConfig(report_to="tensorboard")


@pytest.mark.parametrize("prompt, shown", [("some text", "some text"), (CHAT, "user: hi"), ([65, 66], "65\n66")])
def test_completions_can_be_shown(tmp_path, capsys, prompt, shown):
    toy.trainer(tmp_path, rows=[{"prompt": prompt}], max_steps=1, logging_steps=1, log_completions=True,
                num_completions_to_print=1).train()
    assert capsys.readouterr().err.count(f"--- row 0\n{shown}\n>>> ") == 1


# ---- data


@pytest.mark.parametrize("rows, message", [
    (None, "training needs train_dataset"), ([], "train_dataset is empty"), ("rows.jsonl", "is a name, not rows"),
    ({"train": [1]}, "one split"),
    ([{"question": "x"}], "Its columns are question. grpo.datasets.load(rows) makes prompts of questions."),
    ([{"prompt": "x"}, {"promt": "y"}], "row 1 has no 'prompt'; did you mean 'promt'"),
    ([{"prompt": "x"}, "y"], "row 1 is str, not a dict"), ([{"prompt": ""}], "row 0 is empty"),
    ([{"prompt": [{"role": "user"}]}], "row 0"),
    ([{"prompt": "x"}, {"prompt": "y" * 5000}], "row 1 has 5000 tokens, the limit is 4090"),
    ([{"prompt": None}], "row 0: 'prompt' is None"),
    ([{"prompt": "x", "image": object()}], "row 0 has 'image'"),
    ([{"prompt": "x", "images": [object()]}], "row 0 has 'images'"),
])
def test_bad_data_is_named(tmp_path, rows, message):
    with pytest.raises(DatasetError) as error:
        toy.trainer(tmp_path, rows=rows, shuffle_dataset=False).train()
    assert message in str(error.value) and not list(tmp_path.glob("run*/metrics.jsonl"))


class Table:
    """As datasets.Dataset: rows by number, column names."""

    column_names = ["prompt", "letter"]

    def __len__(self):
        return 2

    def __getitem__(self, key):
        return [row[key] for row in toy.ROWS] if isinstance(key, str) else toy.ROWS[key]


@pytest.mark.parametrize("rows", [toy.ROWS, tuple(toy.ROWS), iter(toy.ROWS), (r for r in toy.ROWS), Table()])
def test_data_sets_of_all_sorts(tmp_path, rows):
    assert toy.trainer(tmp_path, toy.share, rows, max_steps=1).train().global_step == 1


def test_prompts_of_all_sorts(tmp_path):
    seen = []

    def look(prompts, completions):
        seen.extend(zip(prompts, completions, strict=True))
        return [0.0] * len(prompts)

    toy.trainer(tmp_path, look, [{"prompt": "text"}, {"prompt": CHAT}, {"prompt": [65, 66]}], max_steps=1,
                prompts_per_step=3).train()
    kinds = {str(p): type(c) for p, c in seen}
    assert kinds == {"text": str, str(CHAT): list, "[65, 66]": str}


@pytest.mark.parametrize("policy, rows", [("drop", [0, 2]), ("truncate", [0, 1, 2])])
def test_long_prompts(policy, rows):
    stream = PromptStream([{"prompt": "ab"}, {"prompt": "abcdef"}, {"prompt": "abc"}],
                          lambda p: np.frombuffer(p.encode(), np.uint8), limit=3, on_long=policy)
    assert [p.row for p in stream.take(0, len(stream))] == rows and len(stream) == len(rows)
    assert all(len(p.ids) <= 3 for p in stream.take(0, 3))
    if policy == "truncate":
        assert bytes(stream.at_row(1).ids.astype(np.uint8)) == b"def"
    with pytest.raises(DatasetError, match="every prompt is longer"):
        PromptStream([{"prompt": "abcdef"}], lambda p: np.zeros(6, np.int32), limit=3, on_long="drop")


# ---- what stops it


@pytest.mark.parametrize("arguments, error, message", [
    (dict(reward_funcs=None), ConfigError, "reward_funcs is missing"),
    (dict(peft_config=object()), ConfigError, "peft_config is not supported: every weight"),
    (dict(tools=[print]), ConfigError, "tools are not supported"),
    (dict(reward_func=toy.share), ConfigError, "did you mean 'reward_funcs'"),
    (dict(args=grpo.GRPOConfig(max_completion_length=4096)), ConfigError,
     "leaves no room for a prompt in 4096 positions"),
    (dict(args=grpo.GRPOConfig(eval_strategy="steps")), ConfigError, "need eval_dataset"),
    (dict(eval_dataset={"a/b": toy.ROWS}), ConfigError, "the name 'a/b' must be letters"),
    (dict(eval_dataset={"a": toy.ROWS, "b": [{"text": "x"}]}), DatasetError,
     "eval_dataset['b']: row 0 has no 'prompt'"),
    (dict(args=grpo.GRPOConfig(model_init_kwargs={"dtype": "float16"}, device="cpu"), model=grpo.tiny()), ConfigError,
     "float32 on 'ref'"),
    (dict(args={"max_steps": 3}), ConfigError, "args must be a grpo.GRPOConfig, not a dict"),
    (dict(args=grpo.SFTConfig()), ConfigError, "args must be a grpo.GRPOConfig, not a grpo.options.config.SFTConfig"),
])
def test_constructor_errors(arguments, error, message):
    with pytest.raises(error) as caught:
        grpo.GRPOTrainer(**{"model": toy.model(), "reward_funcs": toy.share, "train_dataset": toy.ROWS, **arguments})
    assert message in str(caught.value)


@pytest.mark.parametrize("model_init_kwargs",
                         [None, {"torch_dtype": "auto", "attn_implementation": "flash_attention_2"},
                          {"dtype": "torch.bfloat16", "device_map": "auto", "use_cache": False,
                           "trust_remote_code": False}])
def test_arguments_of_trl_that_change_nothing(model_init_kwargs):
    grpo.GRPOTrainer(grpo.tiny(**toy.SIZES), toy.share,
                     grpo.GRPOConfig(device="cpu", model_init_kwargs=model_init_kwargs), toy.ROWS, peft_config=None,
                     optimizers=(None, None), tools=None)


def test_files_are_utf_8_whatever_the_locale(tmp_path):
    """And a line of JSON ends at a newline alone."""
    script = """if True:
        import sys, toy
        from pathlib import Path
        for steps in (1, 2):
            toy.trainer(Path(sys.argv[1]), rows=[{"prompt": "Größe\u2028"}], output_dir=sys.argv[1] + "/run",
                        max_steps=steps, save_strategy="steps", save_steps=1).train(steps == 2)
    """
    support = Path(toy.__file__).parent
    process = subprocess.run([sys.executable, "-P", "-X", "warn_default_encoding", "-W", "error::EncodingWarning", "-c",
                              script, tmp_path],
                             capture_output=True, text=True,
                             env={**os.environ, "PYTHONPATH": f"{support}:{Path(grpo.__file__).parent.parent}"})
    assert process.returncode == 0, process.stderr
    assert {r["prompt"] for r in runlog.completions(tmp_path / "run", 2)} == {"Größe\u2028"}


# ---- warnings


def test_no_warning_in_a_plain_run(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        output = toy.trainer(tmp_path, max_steps=1).train()
    assert math.isfinite(output.training_loss)


@pytest.mark.parametrize("max_steps, warned", [(2, False), (4, True)])
def test_rewards_without_spread_are_pointed_out(tmp_path, recwarn, max_steps, warned):
    args = grpo.GRPOConfig(output_dir=str(tmp_path / "run"), max_steps=max_steps, prompts_per_step=1, num_generations=2,
                           max_completion_length=2,
                           save_strategy="no")
    grpo.GRPOTrainer(grpo.tiny(), lambda completions, **_: [0.0] * len(completions), args, [{"prompt": "a"}]).train()
    assert [w for w in recwarn if "nothing to learn from" in str(w.message)][1:] == []
    assert any("nothing to learn from" in str(w.message) for w in recwarn) == warned
