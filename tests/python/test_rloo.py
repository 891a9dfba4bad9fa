"""RLOO: advantages and loss as TRL's formula has them, in NumPy; the options that it has, and those that it refuses."""
import numpy as np
import pytest

import grpo
import toy
from grpo import ops
from grpo.errors import ConfigError
from grpo.training.rloo import leave_one_out

SMALL = dict(num_hidden_layers=1, hidden_size=64, intermediate_size=128, num_attention_heads=2, num_key_value_heads=1)
NAN = np.nan
REWARDS = {
    "plain": [1, 0, 0.5, 3, -2, -2, 0.25, 7],
    "none scored": [NAN] * 8,
    "holes": [1, NAN, 0.5, 3, NAN, NAN, NAN, 7],
    "one scored of a group": [1, NAN, NAN, NAN, 2, 2, 2, 2],
}


def stated(rewards, size, normalize):
    """TRL's lines, one group after the other."""
    table = np.array(rewards, np.float64).reshape(-1, size)
    scored = (~np.isnan(table)).sum(1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (table - (np.nansum(table, 1, keepdims=True) - table) / (scored - 1)).reshape(-1)
    found[~np.isfinite(found)] = NAN
    if normalize and (~np.isnan(found)).any():
        found = (found - np.nanmean(found)) / (np.nanstd(found, ddof=1) + 1e-4)
    return np.nan_to_num(found, nan=0.0)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("size", [2, 4, 8])
@pytest.mark.parametrize("name", REWARDS)
def test_the_advantage_is_the_reward_less_the_mean_of_the_others(name, size, normalize):
    got = leave_one_out(REWARDS[name], [size] * (8 // size), normalize)
    np.testing.assert_allclose(got, stated(REWARDS[name], size, normalize), rtol=1e-6, atol=1e-7)


def test_groups_may_differ_in_size():
    assert leave_one_out([1.0, 3.0, 5.0, 5.0, 2.0], [2, 3]).tolist() == [-2.0, 2.0, 1.5, 1.5, -3.0]


def stated_loss(logps, old, mask, advantages, low, high):
    """The clipped loss of one ratio a completion, exp of the sum of log ratios; and its gradient by differences."""
    def loss(rows):
        ratio = np.exp(((rows - old) * mask).sum(1))
        return -np.minimum(ratio * advantages, np.clip(ratio, 1 - low, 1 + high) * advantages).mean()

    gradient = np.zeros_like(logps)
    for place in np.ndindex(logps.shape):
        step = np.zeros_like(logps)
        step[place] = 1e-6
        gradient[place] = (loss(logps + step) - loss(logps - step)) / 2e-6
    return loss(logps), gradient


@pytest.mark.parametrize("spread", [0.0, 0.02, 0.3])
def test_the_loss_is_that_of_one_ratio_a_completion(spread):
    rng = np.random.default_rng(3)
    logps = np.round(-rng.exponential(1, (6, 5)), 3) - 0.1
    old = logps + np.round(rng.normal(0, spread, logps.shape), 3)
    mask, advantages = np.arange(5) < rng.integers(1, 6, 6)[:, None], rng.normal(0, 1, 6)
    got, gradient, metrics = ops.grpo_loss(logps, old, advantages, mask, loss_type="grpo", epsilon=0.1,
                                           epsilon_high=0.25, importance_sampling_level="sequence_product")
    want, slope = stated_loss(logps, old, mask, advantages, 0.1, 0.25)
    assert got == pytest.approx(want, abs=1e-6)
    np.testing.assert_allclose(gradient, slope, atol=1e-5)
    ratios = np.exp(((logps - old) * mask).sum(1))
    assert metrics["sampling/importance_sampling_ratio/max"] == pytest.approx(ratios.max(), rel=1e-5)


def test_defaults_are_those_of_trl():
    config = grpo.RLOOConfig()
    assert (config.num_generations, config.beta, config.learning_rate, config.epsilon, config.num_iterations,
            config.normalize_advantages, config.reward_clip_range, config.mask_truncated_completions) == (
        2, 0.05, 1e-6, 0.2, 1, False, None, False)
    assert config.kl_in_reward and not grpo.RLOOConfig(beta=0).kl_in_reward
    assert grpo.RLOOConfig(reward_clip_range=(-1, 1)).reward_clip_range == [-1.0, 1.0]


@pytest.mark.parametrize("options, named", [
    (dict(loss_type="dapo"), "loss_type='dapo'"), (dict(scale_rewards="group"), "scale_rewards='group'"),
    (dict(scale_rewards=True), "scale_rewards=True"), (dict(aggregation="token-mean"), "aggregation='token-mean'"),
    (dict(importance_sampling_level="token"), "importance_sampling_level='token'"),
    (dict(multi_objective_aggregation="normalize_then_sum"), "multi_objective_aggregation"),
    (dict(kl_in_reward=False), "kl_in_reward=False"), (dict(reward_clip_range=[1, 0]), "reward_clip_range"),
    (dict(reward_clip_range=[1]), "reward_clip_range"), (dict(num_generations=1), "num_generations=1"),
    (dict(preset="dr_grpo"), "loss_type"),
])
def test_another_loss_is_refused_by_name(options, named):
    with pytest.raises(ConfigError, match=named):
        grpo.RLOOConfig(**options)


def test_a_config_belongs_to_its_trainer():
    for trainer, config in ((grpo.GRPOTrainer, grpo.RLOOConfig), (grpo.RLOOTrainer, grpo.GRPOConfig)):
        with pytest.raises(ConfigError, match="RLOOConfig"):
            trainer(grpo.tiny(**SMALL), toy.byte_values, config(max_steps=1), toy.ROWS)


def test_a_run_and_the_rewards_that_it_compares(tmp_path):
    config = grpo.RLOOConfig(output_dir=str(tmp_path / "run"), max_steps=2, per_device_train_batch_size=8,
                             num_generations=4, max_completion_length=6, learning_rate=1e-2, num_iterations=2, beta=0.5,
                             save_strategy="no", reward_clip_range=[-1.0, 1.0], mask_truncated_completions=True)
    trainer = grpo.RLOOTrainer(grpo.tiny(**SMALL), toy.byte_values, config, toy.ROWS)
    first, second = list(trainer)
    assert first.metrics["sampling/importance_sampling_ratio/max"] == 1.0 and "kl" in first.metrics
    assert second.metrics["sampling/importance_sampling_ratio/max"] != 1.0
    r = first.rollouts
    kl = np.array([x.sum(dtype=np.float64) for x in r.split(r.policy_logprobs - r.ref_logprobs)])
    kl[r.finish == 0] = 0
    want = stated(np.clip(r.totals, -1, 1) - 0.5 * kl, 4, False)
    np.testing.assert_allclose(r.advantages, want, atol=1e-6)
    assert trainer.kind == "rloo" and not (tmp_path / "run" / "checkpoints").exists()
