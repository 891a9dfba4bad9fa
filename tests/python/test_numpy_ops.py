"""Advantages, log-softmax and sampling on NumPy arrays."""
import json
from pathlib import Path

import numpy as np
import pytest

from grpo import ops
from grpo.errors import ConfigError, NonFiniteError

GOLDENS = json.loads((Path(__file__).parents[1] / "support" / "goldens" / "loss.json").read_text())
NAN = float("nan")


# ---- advantages

@pytest.mark.parametrize("scale,name", [("group", "group"), (True, "group"), ("none", "none"), (False, "none")])
def test_recorded_advantages(scale, name):
    got = ops.group_advantages(GOLDENS["rewards"], 8, scale)
    np.testing.assert_allclose(got, GOLDENS["advantages"][name], rtol=0, atol=1e-6)


def test_batch_scale_uses_one_std_and_group_means():
    rewards = np.array([1.0, 0.0, 5.0, 3.0])
    want = np.array([0.5, -0.5, 1.0, -1.0]) / (rewards.std(ddof=1) + 1e-4)
    np.testing.assert_allclose(ops.group_advantages(rewards, 2, "batch"), want, rtol=1e-6)


def test_group_sizes_may_differ():
    rewards, sizes = [1, 0, 2, 0, 1, 4, 2], [2, 5]
    want = np.concatenate([ops.group_advantages(rewards[:2], 2), ops.group_advantages(rewards[2:], 5)])
    assert np.array_equal(ops.group_advantages(rewards, sizes), want)


@pytest.mark.parametrize("reward", [0.1, 1 / 3, -7.7])
@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_equal_rewards_are_exactly_zero(reward, scale):
    assert not ops.group_advantages([reward] * 7, 7, scale).any()
    assert not ops.group_advantages([[reward, 0.3]] * 7, 7, scale, reward_weights=[0.7, 0.1]).any()


@pytest.mark.parametrize("missing", [None, NAN])
def test_unscored_completions_stay_out(missing):
    got = ops.group_advantages([1.0, missing, 0.0, 0.5], 4)
    want = ops.group_advantages([1.0, 0.0, 0.5], 3)
    assert np.array_equal(got, [want[0], 0, want[1], want[2]])
    assert not ops.group_advantages([missing, missing, 1.0, missing], 2).any()      # nobody, and one alone


def test_functions_are_weighted_and_missing_ones_skipped():
    table = [[1, 2], [None, 4], [3, None], [None, None]]
    want = ops.group_advantages([0.5 * 1 + 3 * 2, 3 * 4, 0.5 * 3, None], 4)
    assert np.array_equal(ops.group_advantages(table, 4, reward_weights=[0.5, 3]), want)


@pytest.mark.parametrize("scale, aggregation", [("group", "sum_then_normalize"), ("batch", "sum_then_normalize"),
                                                ("group", "normalize_then_sum")])
@pytest.mark.parametrize("size", [1e100, 1e154, 1e155, 1e200, 1e308])
def test_the_spread_of_rewards_may_be_as_large_as_a_double(size, scale, aggregation):
    rewards = np.array([1.0, -1.5, 0.5, 0.0, -0.5])
    options = dict(scale_rewards=scale, multi_objective_aggregation=aggregation)
    want = ops.group_advantages(rewards * 1e90, 5, **options)         # large enough for the 1e-4 not to count
    np.testing.assert_allclose(ops.group_advantages(rewards * size, 5, **options), want, rtol=1e-6)
    assert want.std(ddof=1) == pytest.approx(1.0, abs=1e-3)


def test_a_huge_group_leaves_the_others_as_they_are():
    small = [1.0, 0.0, 0.5, 0.25]
    got = ops.group_advantages([*small, 1e300, 0.0, -1e300, 1.0], 4)
    assert np.array_equal(got[:4], ops.group_advantages(small, 4)) and np.isfinite(got).all() and got[4] > 1


@pytest.mark.parametrize("rewards, weights, scale", [([1e300, 0.0], [1.0], "none"), ([1e300, 0.0], [1e10], "group")])
def test_an_advantage_that_no_float_holds_is_named(rewards, weights, scale):
    with pytest.raises(NonFiniteError, match="rewards of completion 0 are too large"):
        ops.group_advantages(np.array(rewards)[:, None], 2, scale, reward_weights=weights)


def test_normalize_then_sum_gives_every_function_one_voice():
    """GDPO: a function with a thousandfold scale counts as much as another."""
    small, large = np.array([1.0, 0.0, 0.0, 1.0]), np.array([0.0, 1000.0, 0.0, 1000.0])
    got = ops.group_advantages(np.stack([small, large], 1), 4, multi_objective_aggregation="normalize_then_sum")
    assert got[0] == pytest.approx(got[1], abs=1e-3) and got[3] == pytest.approx(-got[2], abs=1e-6)
    assert got.std(ddof=1) == pytest.approx(1, abs=1e-3)


def test_normalize_then_sum_counts_one_that_stands_alone_as_average():
    """A function that scored one member of a group has no std there: it says nothing, the member stays."""
    table = [[1, None], [None, None], [1, 0], [0, 0]]
    got = ops.group_advantages(table, 2, multi_objective_aggregation="normalize_then_sum")
    z = 0.5 / (np.sqrt(0.5) + 1e-4)
    total = np.array([0.0, z, -z])
    np.testing.assert_allclose(got[[0, 2, 3]], total / (total.std(ddof=1) + 1e-4), rtol=1e-6, atol=1e-7)
    assert got[1] == 0


@pytest.mark.parametrize("call,message", [
    (lambda: ops.group_advantages([1.0, 2.0], 1), "group 0 has 1 completion"),
    (lambda: ops.group_advantages([1.0, 2.0, 3.0], [2, 1]), "group 1 has 1 completion"),
    (lambda: ops.group_advantages([1.0, 2.0, 3.0], 2), "3 rewards do not divide into groups of num_generations=2"),
    (lambda: ops.group_advantages([1.0, 2.0, 3.0], 0), "num_generations=0"),
    (lambda: ops.group_advantages([1.0, 2.0], [2, 2]), "group sizes add up to 4, but there are 2 rewards"),
    (lambda: ops.group_advantages([1.0, 2.0], 2, "groups"), "scale_rewards must be one of 'group', 'batch', 'none'"),
    (lambda: ops.group_advantages([1.0, 2.0], 2, multi_objective_aggregation="sum"), "aggregation must be one of"),
    (lambda: ops.group_advantages([1.0, 2.0], 2, "none", multi_objective_aggregation="normalize_then_sum"),
     "scale_rewards must stay 'group', not 'none'"),
    (lambda: ops.group_advantages([1.0, 2.0], 2, reward_weights=[1, 1]), "reward_weights must hold one number"),
    (lambda: ops.group_advantages(np.zeros((2, 2, 2)), 2), r"rewards must be \(n,\) or \(n, functions\)"),
])
def test_bad_groups(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


def test_infinite_reward_is_named():
    with pytest.raises(NonFiniteError, match="reward 1 of completion 2 is infinite"):
        ops.group_advantages([[1, 1], [1, 1], [1, np.inf], [1, 1]], 2)


# ---- log-softmax

@pytest.mark.parametrize("temperature", [0.25, 1.0, 2.0])
@pytest.mark.parametrize("shape", [(3,), (2, 4)])
def test_selective_log_softmax(temperature, shape):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 5, (*shape, 31)).astype(np.float32)
    ids = rng.integers(0, 31, shape)
    z = logits.astype(np.float64) / temperature
    logp = z - np.log(np.exp(z - z.max(-1, keepdims=True)).sum(-1, keepdims=True)) - z.max(-1, keepdims=True)
    got, entropy = ops.selective_log_softmax(logits, ids, temperature, entropies=True)
    np.testing.assert_allclose(got, np.take_along_axis(logp, ids[..., None], -1)[..., 0], rtol=1e-6)
    np.testing.assert_allclose(entropy, -(np.exp(logp) * logp).sum(-1), rtol=1e-5)
    assert np.array_equal(ops.selective_log_softmax(logits, ids, temperature), got)


def test_impossible_ids_and_large_logits():
    logits = [[1e30, -np.inf, 1e30], [-np.inf, -3e38, -np.inf]]
    logp, entropy = ops.selective_log_softmax(logits, [1, 1], entropies=True)
    np.testing.assert_allclose(logp, [-np.inf, 0])
    np.testing.assert_allclose(entropy, [np.log(2), 0], rtol=1e-6)


@pytest.mark.parametrize("row", [[0, NAN], [NAN, 0], [np.inf, 0], [-np.inf, -np.inf]])
def test_bad_logits_are_named(row):
    with pytest.raises(NonFiniteError, match="row 1 of the logits"):
        ops.selective_log_softmax([[0, 1], row], [0, 0])
    with pytest.raises(NonFiniteError, match="row 1 of the logits"):
        ops.sample([[0, 1], row])


@pytest.mark.parametrize("arguments,message", [
    (([[0.0, 1.0]], [2]), "id 2 in row 0 lies outside 0..1"), (([[0.0, 1.0]], [-1]), "id -1 in row 0"),
    (([[0.0, 1.0]], [0, 1]), "do not fit"), (([[0.0, 1.0]], [0], 0.0), "temperature must be positive"),
])
def test_bad_log_softmax(arguments, message):
    with pytest.raises(ConfigError, match=message):
        ops.selective_log_softmax(*arguments)


# ---- sampling

def test_frequencies_are_the_probabilities():
    p, n = np.array([0.5, 0.3, 0.15, 0.05]), 4000
    ids, logps = ops.sample(np.log(np.tile(p, (n, 1))), seed=3)
    assert (abs(np.bincount(ids, minlength=4) - n * p) < 5 * np.sqrt(n * p)).all()
    np.testing.assert_allclose(logps, np.log(p)[ids], rtol=1e-5)


def test_draws_depend_on_seed_step_and_row_alone():
    logits = np.random.default_rng(0).normal(0, 1, (64, 50))
    ids, _ = ops.sample(logits, seed=5)
    assert np.array_equal(ids, ops.sample(logits, seed=5)[0])
    assert np.array_equal(ids[:10], ops.sample(logits[:10], seed=5)[0])
    assert not np.array_equal(ids, ops.sample(logits, seed=6)[0])
    assert not np.array_equal(ids, ops.sample(logits, seed=5, step=1)[0])


def test_temperature_zero_takes_the_largest():
    ids, logps = ops.sample([[1.0, 3.0, 3.0], [2.0, -1.0, 0.0]], temperature=0)
    assert ids.tolist() == [1, 0]
    np.testing.assert_allclose(logps, [-np.log(2 + np.exp(-2)), -np.log(1 + np.exp(-3) + np.exp(-2))], rtol=1e-6)


@pytest.mark.parametrize("options", [dict(temperature=-1), dict(top_p=1.5), dict(min_p=-0.1), dict(top_k=-2)])
def test_bad_sampling_option(options):
    with pytest.raises(ConfigError, match=f"{next(iter(options))} must lie in"):
        ops.sample([[0.0, 1.0]], **options)
