"""Bugs that other GRPO trainers had, as tests that this one must pass. What a test elsewhere already holds is named in
HELD, so that each of them can be found from here; the rest is tested below, through the trainer."""
import ast
import gc
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

import grpo
from grpo import GRPOConfig, GRPOTrainer, _core, errors
from tiny_models import build, config, round_to_bf16

TESTS = Path(__file__).parents[1]
HELD = {
    "steps per generation unlike accumulation: the gradient of one batch": [
        "test_trainer.py::test_accumulation_and_micro_batches_change_no_bit",
        "exactness.py::test_accumulating_is_one_batch",
    ],
    "every sample twice, the same gradient": [
        "test_loss.py::test_duplicating_every_completion_changes_nothing",
        "test_trainer.py::test_duplicating_every_group_leaves_the_gradient_unchanged",
    ],
    "several end tokens": ["test_generate.py::test_every_stop_id_stops"],
    "groups without spread are found by any rewards": [
        "test_trainer.py::test_dynamic_sampling_replaces_groups_without_spread",
    ],
    "a reward list of the wrong length names its function": ["test_rewards.py::test_chaos"],
    "a reward that hangs costs its timeout": [
        "test_rewards.py::test_a_timeout_costs_its_time_and_says_what_became_of_the_call",
    ],
    "tokens outside the mask carry exactly no gradient": ["test_loss.py::test_masked_tokens_are_not_read_and_get_zero"],
    "truncated completions are masked, and out of N": [
        "test_loss.py::test_truncated_completion_leaves_tokens_but_stays_a_sequence",
        "test_trainer.py::test_truncated_completions_are_left_out",
    ],
    "resuming equals not stopping": ["test_resume.py::test_resume_is_exact"],
    "an option that is unknown or ignored is an error": ["test_config.py::test_what_cannot_be_honoured_is_an_error"],
    "AdamW, warm-up and clipping are torch's": ["test_oracle_train.py::test_adamw_clip_and_schedule"],
    "advantages are TRL's, with its epsilon and ddof": [
        "test_oracle_loss.py::test_advantages",
        "test_numpy_ops.py::test_recorded_advantages",
    ],
}
SIZES = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "num_key_value_heads": 1,
         "intermediate_size": 64, "initializer_range": 0.2}
PROMPTS = ["one", "two words", "and a prompt that is longer than one page of the cache", "x"]


@pytest.mark.parametrize("what", HELD)
def test_held_elsewhere(what):
    for place in HELD[what]:
        file, name = place.split("::")
        assert (name in {node.name for node in ast.parse(next(TESTS.rglob(file)).read_text()).body
                         if isinstance(node, ast.FunctionDef)}), place


def spread_reward(completions, **columns):
    return [len(set(text)) + 0.1 * (sum(map(ord, text)) % 7) for text in completions]


def make_trainer(tmp_path, device, reward=spread_reward, **options):
    options = {"output_dir": str(tmp_path / "run"), "max_steps": 2, "num_generations": 4,
               "per_device_train_batch_size": 16,
               "max_completion_length": 24, "save_strategy": "no", "learning_rate": 1e-3,
               "disable_tqdm": True} | options
    model = grpo.load(grpo.tiny("qwen2", seed=1, **SIZES), device=device)
    return GRPOTrainer(model, reward, GRPOConfig(**options), [{"prompt": text} for text in PROMPTS])


@pytest.mark.parametrize("sampling", [
    {"temperature": 0.7}, {"temperature": 1.3}, {"top_p": 0.8}, {"top_k": 10}, {"min_p": 0.05},
    {"repetition_penalty": 1.2},
    {"temperature": 0.7, "top_p": 0.8, "top_k": 50, "min_p": 0.01, "repetition_penalty": 1.1,
     "generation_kwargs": {"suppress_tokens": [5, 6]}},
], ids=str)
def test_loss_uses_the_logprobs_of_sampling(tmp_path, device, sampling):
    """Temperature and truncation: on the first update the trainer's log-probs are the sampler's, so every ratio is
    1."""
    for step in make_trainer(tmp_path, device, **sampling):
        assert step.metrics["sampling/sampling_logp_difference/max"] == 0.0
        assert step.metrics["clip_ratio/region_mean"] == 0.0


@pytest.mark.parametrize("size", [0, 1])
def test_a_group_of_one_is_an_error(size):
    with pytest.raises(errors.ConfigError, match="num_generations"):
        GRPOConfig(num_generations=size)


def test_end_tokens_of_the_generation_config(tmp_path):
    """Llama 3 and Qwen list several; the model folder's list is what stops completions."""
    model = grpo.load(grpo.tiny("qwen2", seed=1, **SIZES), device="ref")
    model.save_pretrained(tmp_path)
    ends = [258, *range(60, 90)]
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": ends}))
    outs = grpo.load(tmp_path, device="ref").generate(PROMPTS, num_generations=8, max_new_tokens=40)
    stopped = [out.token_ids[-1] for out in outs if out.finish_reason == "stop"]
    assert len(set(stopped)) > 3 and set(stopped) <= set(ends)
    assert all(not set(out.token_ids[:-1]) & set(ends) for out in outs)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
def test_memory_stays_flat(tmp_path):
    """Sixty steps of a run: what the core holds does not move after the first, the process grows by next to nothing."""
    gc.collect()                                             # models of other tests that only wait for their end
    held, resident = [], []
    options = {"max_steps": 60, "generation_kwargs": {"min_new_tokens": 24}, "beta": 0.01, "num_iterations": 2}
    gc.collect()                             # what other tests left must not go in between
    for _ in make_trainer(tmp_path, "cpu", **options):
        held.append(_core.memory_in_use())
        resident.append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    assert set(held[2:]) == {held[2]}
    assert resident[-1] - resident[19] < 4e6


def test_small_learning_rates_move_bf16_weights():
    """Updates far below a bfloat16 step are collected in fp32 and reach the working weights, without bias."""
    model = build(config("llama", d=32, heads=(2, 1), D=16, F=48, V=67), "cpu")
    before = {name: model.get_tensor(name) for name, _ in model.tensors()}
    trainer = _core.Trainer(model)
    rng = np.random.default_rng(0)
    for _ in range(200):
        prompts, completions = ([rng.integers(0, 67, 12).astype(np.int32)] for _ in range(2))
        trainer.accumulate(prompts, completions, np.zeros(1, np.int32), rng.normal(size=12).astype(np.float32))
        trainer.step(1e-6)
    moved = meant = np.zeros(0)
    for name, old in before.items():
        master, working = trainer.get_state("master", name), model.get_tensor(name)
        np.testing.assert_array_equal(working, round_to_bf16(master))
        assert np.abs(master - old).max() <= 200 * 1e-6 * 1.1
        moved, meant = np.append(moved, working - old), np.append(meant, master - old)
    assert np.abs(moved).sum() > 0
    assert np.abs(moved.sum() - meant.sum()) < 0.2 * np.abs(meant).sum()
    assert np.abs(moved - meant).max() <= 2**-9 * 2          # half a bfloat16 step of the largest weights


@pytest.mark.parametrize("name", ["model.layers.1.self_attn.q_proj.weight", "model.embed_tokens.weight",
                                  "model.layers.0.input_layernorm.weight"])
def test_nan_stops_the_step_and_keeps_the_weights(device, name):
    """Where it broke is said; masters, moments and working weights are those of the last good step."""
    model = build(config("qwen2", d=32, heads=(2, 1), D=16, F=48, V=67, L=2), device)
    trainer = _core.Trainer(model)
    ids = [np.arange(12, dtype=np.int32)]
    batch = (ids, ids, np.zeros(1, np.int32), np.ones(12, np.float32))
    trainer.accumulate(*batch)
    trainer.step(1e-3)
    state = {(kind, n): trainer.get_state(kind, n) for kind in ("master", "m", "v") for n, _ in model.tensors()}
    good = model.get_tensor(name)
    broken = good.copy()
    broken.flat[3] = np.nan
    model.set_tensor(name, broken)
    with pytest.raises(errors.NonFiniteError, match=re.escape("model.")):
        trainer.accumulate(*batch)
        trainer.step(1e-3)
    trainer.set_state("master", name, state["master", name])
    np.testing.assert_array_equal(model.get_tensor(name), good)
    for (kind, n), before in state.items():
        np.testing.assert_array_equal(before, trainer.get_state(kind, n))
    assert not trainer.gradient(name).any() and trainer.steps_taken == 1
    trainer.accumulate(*batch)
    assert np.isfinite(trainer.step(1e-3))


def test_reward_std_is_trls(tmp_path):
    """The metric is the standard deviation over the whole batch with ddof 1, as TRL logs it."""
    rewards = iter(np.random.default_rng(0).normal(size=16).round(3).tolist())
    drawn = []

    def reward(completions, **columns):
        drawn.extend(next(rewards) for _ in completions)
        return drawn[-len(completions):]

    step = next(iter(make_trainer(tmp_path, "cpu", reward)))
    assert step.metrics["reward"] == pytest.approx(np.mean(drawn), rel=1e-6)
    assert step.metrics["reward_std"] == pytest.approx(np.std(drawn, ddof=1), rel=1e-6)
