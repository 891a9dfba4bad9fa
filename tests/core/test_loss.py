"""Losses: recorded values, gradients against finite differences, and what must not change anything."""
import json
from pathlib import Path

import numpy as np
import pytest

from grpo import _core, ops
from grpo.errors import ConfigError, GrpoWarning, NonFiniteError

GOLDENS = json.loads((Path(__file__).parents[1] / "support" / "goldens" / "loss.json").read_text())
pytestmark = pytest.mark.filterwarnings("ignore::grpo.errors.GrpoWarning")

# every policy term, then every option that changes one; `detached`: the ratio is a constant of the gradient
LOSSES = {
    "grpo": dict(loss_type="grpo"),
    "dr_grpo": dict(loss_type="dr_grpo", max_completion_length=9),
    "dapo": dict(loss_type="dapo", epsilon_high=0.28),
    "bnpo": dict(loss_type="bnpo"),
    "luspo": dict(loss_type="luspo", importance_sampling_level="sequence"),
    "gspo": dict(loss_type="grpo", importance_sampling_level="sequence", epsilon=0.1),
    "gspo dapo": dict(loss_type="dapo", importance_sampling_level="sequence", epsilon=0.1),
    "rloo": dict(loss_type="grpo", importance_sampling_level="sequence_product", epsilon=0.1),
    "rloo k3 corrected": dict(loss_type="grpo", importance_sampling_level="sequence_product", beta=0.3),
    "delta": dict(loss_type="dapo", delta=1.5),
    "sapo": dict(loss_type="sapo"),
    "sapo sequence": dict(loss_type="sapo", importance_sampling_level="sequence"),
    "gmpo": dict(loss_type="gmpo"),
    "gmpo high entropy": dict(loss_type="gmpo", top_entropy_quantile=0.6),
    "token sum": dict(loss_type="grpo", aggregation="sequence-mean-token-sum"),
    "fixed length": dict(loss_type="grpo", aggregation="fixed-length"),
    "k1": dict(loss_type="dapo", beta=0.3, kl_estimator="k1", use_bias_correction_kl=False),
    "k2": dict(loss_type="grpo", beta=0.3, kl_estimator="k2", use_bias_correction_kl=False),
    "k3": dict(loss_type="dapo", beta=0.3, use_bias_correction_kl=False),
    "k3 corrected": dict(loss_type="dapo", beta=0.3),
    "k3 corrected sequence": dict(loss_type="grpo", beta=0.3, importance_sampling_level="sequence", epsilon=0.1),
    "k3 gmpo corrected": dict(loss_type="gmpo", beta=0.3),
    "high entropy": dict(loss_type="dapo", top_entropy_quantile=0.4, beta=0.1),
    "off policy": dict(loss_type="dapo", off_policy_mask_threshold=0.05),
    "bonus": dict(loss_type="dapo", entropy_coef=0.02),
    "bonus high entropy": dict(loss_type="grpo", entropy_coef=0.02, top_entropy_quantile=0.5),
}
DETACHED = {
    "cispo": dict(loss_type="cispo", epsilon_high=1.3),
    "cispo two-sided": dict(loss_type="cispo", cispo_two_sided=True),
    "cispo sequence": dict(loss_type="cispo", epsilon_high=1.1, importance_sampling_level="sequence"),
    "vespo": dict(loss_type="vespo"),
    "reinforce": dict(loss_type="reinforce"),
    "vespo k3": dict(loss_type="vespo", beta=0.2, use_bias_correction_kl=False),
}
ALL = LOSSES | DETACHED
STENCIL = 2.0 ** -11                         # inputs are multiples of 2**-12, so that moving one is exact in float32


def make_batch(seed=0, n=5, length=7, duplicate=1):
    """Keyword arguments of grpo_loss: padded rows, a hole in the mask, old, reference and entropies."""
    rng = np.random.default_rng(seed)
    grid = lambda x: (np.round(x * 4096) / 4096).astype(np.float32)  # noqa: E731
    logps = grid(-rng.exponential(1.0, (n, length)) - 0.1)
    mask = np.arange(length) < rng.integers(2, length + 1, n)[:, None]
    mask[0] = True
    mask[0, 2] = False
    batch = {"logps": logps, "old_logps": logps + grid(rng.normal(0, 0.4, logps.shape)), "mask": mask,
             "advantages": rng.normal(0, 1, n), "ref_logps": logps + grid(rng.normal(0, 0.5, logps.shape)),
             "entropies": grid(rng.exponential(0.8, logps.shape))}
    return {k: np.concatenate([v] * duplicate) for k, v in batch.items()}


def take(batch, rows):
    return {k: v[rows] for k, v in batch.items()}


def evaluate(batch, options, normalizer=None):
    return ops.grpo_loss(**batch, **options, normalizer=normalizer, return_dentropies=True)


def normalizer_of(batch, options):
    quantile = options.get("top_entropy_quantile", 1)
    return ops.loss_normalizer(batch["mask"], batch["entropies"], top_entropy_quantile=quantile)


def rows(lists):
    return [np.array(row, np.float32) for row in lists]


# ---- recorded values

@pytest.mark.parametrize("case", GOLDENS["cases"], ids=lambda case: case["name"])
def test_golden(case):
    loss, dlogps, _ = ops.grpo_loss(rows(GOLDENS["logps"]), rows(GOLDENS["old_logps"]), case["advantages"], None,
                                    rows(GOLDENS["ref_logps"]), **case["options"])
    got, want = np.concatenate(dlogps), np.concatenate(case["dlogps"])
    if case["name"].startswith("gmpo") and case["name"].endswith("flipped"):
        got[1] = np.mean([one_sided_golden(case, shift)[1] for shift in (-1e-5, 1e-5)])      # on the edge exp(-0.2)
    assert abs(loss - case["loss"]) <= 1e-6
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)


def one_sided_golden(case, shift):
    logps = rows(GOLDENS["logps"])
    logps[0][1] += shift
    old_logps = rows(GOLDENS["old_logps"])
    return np.concatenate(ops.grpo_loss(logps, old_logps, case["advantages"], None, **case["options"])[1])


# ---- gradients

def finite_difference(batch, options, row, t, names):
    """Five-point derivative of the loss along the entries [row, t] of the arrays in `names`; error O(h^4)."""
    normalizer, total = normalizer_of(batch, options), 0.0
    for step, weight in ((-2, 1), (-1, -8), (1, 8), (2, -1)):
        moved = {k: v.copy() for k, v in batch.items()}
        for name in names:
            moved[name][row, t] += step * STENCIL
        total += weight * evaluate(moved, options, normalizer)[0]
    return total / (12 * STENCIL)


@pytest.mark.parametrize("name", ALL)
def test_gradient_is_finite_difference(name):
    batch, options = make_batch(), ALL[name]
    moved = ("logps", "old_logps") if name in DETACHED else ("logps",)      # moving both holds a detached ratio still
    _, dlogps, _, _ = evaluate(batch, options)
    for row, t in np.argwhere(batch["mask"]):
        assert dlogps[row, t] == pytest.approx(finite_difference(batch, options, row, t, moved), abs=2e-7), (row, t)


@pytest.mark.parametrize("name", ["bonus", "bonus high entropy"])
def test_entropy_gradient_is_finite_difference(name):
    batch, options = make_batch(), ALL[name]
    dentropies = evaluate(batch, options)[2]
    threshold = normalizer_of(batch, options).get("entropy_threshold", -1)
    for row, t in np.argwhere(batch["mask"] & (abs(batch["entropies"] - threshold) > 2 * STENCIL)):
        assert dentropies[row, t] == pytest.approx(finite_difference(batch, options, row, t, ["entropies"]), abs=1e-7)
    assert np.count_nonzero(dentropies) == normalizer_of(batch, options).get("entropy_tokens", batch["mask"].sum())


# ---- what must not change anything

@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("cuts", [[1], [2, 3], [1, 2, 3, 4]], ids=str)
def test_split_is_bitwise_and_additive(name, cuts):
    batch, options = make_batch(), ALL[name]
    normalizer = normalizer_of(batch, options)
    whole = evaluate(batch, options, normalizer)
    parts = [evaluate(take(batch, part), options, normalizer) for part in np.split(np.arange(5), cuts)]
    assert np.array_equal(whole[1], np.concatenate([p[1] for p in parts]))
    assert np.array_equal(whole[2], np.concatenate([p[2] for p in parts]))
    assert whole[0] == pytest.approx(sum(p[0] for p in parts), abs=1e-12)
    assert whole[3]["policy_loss"] == pytest.approx(sum(p[3]["policy_loss"] for p in parts), abs=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_duplicating_every_completion_changes_nothing(name):
    loss, dlogps, dentropies, _ = evaluate(make_batch(), ALL[name])
    twice, dlogps2, dentropies2, _ = evaluate(make_batch(duplicate=2), ALL[name])
    assert twice == pytest.approx(loss, rel=1e-12)
    np.testing.assert_allclose(dlogps2[:5] + dlogps2[5:], dlogps, rtol=1e-6, atol=0)
    np.testing.assert_allclose(dentropies2[:5] + dentropies2[5:], dentropies, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ALL)
def test_padded_and_ragged_agree(name):
    batch, options = make_batch(), ALL[name]
    normalizer = normalizer_of(batch, options)
    ragged = {k: v if k == "advantages" else [row[keep] for row, keep in zip(v, batch["mask"], strict=True)]
              for k, v in batch.items()}
    loss, dlogps, _, _ = evaluate(batch, options, normalizer)
    loss2, dlogps2, _, _ = evaluate(ragged, options, normalizer)
    assert loss == loss2
    assert np.array_equal(dlogps[batch["mask"]], np.concatenate(dlogps2))


@pytest.mark.parametrize("name", ALL)
def test_masked_tokens_are_not_read_and_get_zero(name):
    batch, options = make_batch(), ALL[name]
    clean = evaluate(batch, options)
    dirty = {k: np.where(batch["mask"], v, np.nan) if k not in ("mask", "advantages") else v for k, v in batch.items()}
    loss, dlogps, dentropies, metrics = evaluate(dirty, options)
    assert (loss, metrics) == (clean[0], clean[3])
    assert np.array_equal(dlogps, clean[1])
    assert not dlogps[~batch["mask"]].any() and not dentropies[~batch["mask"]].any()


@pytest.mark.parametrize("name", ALL)
def test_truncated_completion_leaves_tokens_but_stays_a_sequence(name):
    """mask_truncated_completions: the row carries nothing, N counts the other tokens, B all completions."""
    batch, options = make_batch(), ALL[name]
    batch["mask"][3] = False
    rest = take(batch, [0, 1, 2, 4])
    assert ops.loss_normalizer(batch["mask"])["tokens"] == rest["mask"].sum()
    loss, dlogps, _, metrics = evaluate(batch, options)
    loss4, dlogps4, _, metrics4 = evaluate(rest, options, normalizer_of(batch, options))
    assert (loss, metrics) == (loss4, metrics4)
    assert np.array_equal(dlogps[[0, 1, 2, 4]], dlogps4) and not dlogps[3].any()


def test_nothing_to_learn_from_is_zero():
    batch = make_batch()
    batch["mask"][:] = False
    options = dict(loss_type="dapo", entropy_coef=0.1, top_entropy_quantile=0.5)
    loss, dlogps, dentropies, metrics = evaluate(batch, options)
    assert loss == 0 and not dlogps.any() and not dentropies.any()
    assert metrics == {"policy_loss": 0, "loss/clamped_exponents": 0}


@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo", "dapo", "bnpo", "luspo", "sapo", "gmpo", "cispo", "vespo",
                                       "reinforce"])
def test_on_policy_gradient_is_policy_gradient(loss_type):
    """With logp = old_logp every loss has the gradient -A / normaliser (sapo's gate is 1 there, vespo's phi too)."""
    batch = make_batch()
    batch["old_logps"] = batch["logps"]
    options = dict(loss_type=loss_type, max_completion_length=9, epsilon_high=5.0)
    tokens, n = batch["mask"].sum(), batch["mask"].sum(1, keepdims=True)
    scale = {"grpo": 5 * n, "sapo": 5 * n, "gmpo": 5 * n, "luspo": 5, "dr_grpo": 45}.get(loss_type, tokens)
    want = np.where(batch["mask"], -batch["advantages"][:, None] / scale, 0)
    np.testing.assert_allclose(evaluate(batch, options)[1], want, rtol=1e-6)


# ---- single options

def test_exponents_are_clamped_and_counted():
    logps, old = np.array([[-1.0, -1.0]]), np.array([[-60.0, -1.0]])
    loss, dlogps, metrics = ops.grpo_loss(logps, old, [-1.0], np.ones((1, 2)), loss_type="dapo")
    assert loss == pytest.approx((np.exp(20) + 1) / 2)
    assert dlogps[0, 0] == 0 and dlogps[0, 1] == pytest.approx(0.5)
    assert metrics["loss/clamped_exponents"] == 1
    twice = ops.grpo_loss(np.tile(logps, (2, 1)), np.tile(old, (2, 1)), [-1.0, -1.0], None, loss_type="dapo")[2]
    assert twice["loss/clamped_exponents"] == 2


def test_clamped_sequence_ratio_has_no_gradient():
    loss, dlogps, metrics = ops.grpo_loss([[-1.0, -2.0]], [[-30.0, -32.0]], [-1.0], None, loss_type="grpo",
                                          importance_sampling_level="sequence")
    assert loss == pytest.approx(np.exp(20)) and not np.any(dlogps)
    assert metrics["loss/clamped_exponents"] == 1


def test_clamped_kl_keeps_its_linear_part():
    logps, ref = np.array([[-60.0, -1.0]]), np.array([[-1.0, -1.0]])
    loss, dlogps, metrics = ops.grpo_loss(logps, logps, [0.0], None, ref, loss_type="dapo", beta=1.0,
                                          use_bias_correction_kl=False)
    assert loss == pytest.approx((np.exp(20) - 59 - 1) / 2)
    np.testing.assert_allclose(dlogps, [[0.5, 0.0]])
    assert metrics["loss/clamped_exponents"] == 1


@pytest.mark.parametrize("differences,log_w,clamped", [
    ([-12.0, -12.0], np.log(1e-8), 1), ([11.0, 12.0], 20, 1), ([30.0, -18.0], 2, 1), ([0.5, 0.25], 0.75, 0),
])
def test_vespo_clamps_tokens_then_their_sum(differences, log_w, clamped):
    logps = np.array([[-40.0, -40.0]])
    options = dict(loss_type="vespo", vespo_k_pos=0.1, vespo_lambda_pos=0.0)         # lambda is kept above 1e-4
    metrics = ops.grpo_loss(logps, logps - np.array([differences]), [1.0], None, **options)[2]
    phi = np.exp(1e-4 + 0.1 * log_w - 1e-4 * np.exp(log_w))
    assert metrics["vespo/phi_seq_mean"] == pytest.approx(phi, rel=1e-6)
    assert metrics["loss/clamped_exponents"] == clamped


def test_vespo_without_a_finite_weight_does_not_move():
    loss, dlogps, _ = ops.grpo_loss([[-1.0]], [[-4.0]], [1.0], None, loss_type="vespo", vespo_k_pos=1e3)
    assert loss == 0 and not np.any(dlogps)


def test_delta_is_dual_clip():
    """For A < 0 both stop the gradient at the ratio c; for A > 0 a delta above 1 + epsilon_high does nothing."""
    ratios = np.array([[0.5, 1.0, 2.0, 2.9, 3.1, 10.0]])
    for advantage in (-1.0, 1.0):
        _, dlogps, _ = ops.grpo_loss(np.log(ratios), np.zeros((1, 6)), [advantage], None, loss_type="luspo", delta=3.0)
        want = [0, 1, 2, 2.9, 0, 0] if advantage < 0 else [-0.5, -1, 0, 0, 0, 0]
        np.testing.assert_allclose(dlogps[0], want, rtol=1e-6)


def test_top_entropy_keeps_the_upper_quantile_but_all_of_kl():
    entropies = np.arange(10.0)[None]
    zeros, ones = np.zeros((1, 10)), np.ones((1, 10))
    options = dict(loss_type="dapo", top_entropy_quantile=0.3)
    _, dlogps, _ = ops.grpo_loss(zeros, zeros, [1.0], ones, zeros - 1, entropies, **options)
    np.testing.assert_allclose(dlogps[0], [0] * 7 + [-0.1] * 3, rtol=1e-6)
    kl = dict(beta=1.0, kl_estimator="k1", use_bias_correction_kl=False)
    _, dlogps, metrics = ops.grpo_loss(zeros, zeros, [0.0], ones, zeros - 1, entropies, **options, **kl)
    np.testing.assert_allclose(dlogps[0], [0.1] * 10, rtol=1e-6)
    assert metrics["kl"] == 1 and metrics["entropy"] == 4.5
    options |= dict(entropy_coef=0.5, return_dentropies=True)
    bonus = ops.grpo_loss(zeros, zeros, [0.0], ones, None, entropies, **options)
    assert bonus[0] == pytest.approx(-0.5 * 8)                              # the mean of 7, 8 and 9
    np.testing.assert_allclose(bonus[2][0], [0] * 7 + [-0.5 / 3] * 3, rtol=1e-6)


def test_off_policy_mask_drops_negative_sequences_that_drifted():
    logps = np.array([[-1.0, -1.0]] * 4)
    old = logps + np.array([[0.5], [0.5], [0.625], [0.625]])                # at the threshold a sequence stays
    _, dlogps, metrics = ops.grpo_loss(logps, old, [1.0, -1.0, 1.0, -1.0], np.ones((4, 2)), loss_type="sapo",
                                       off_policy_mask_threshold=0.5)
    assert [bool(row.any()) for row in dlogps] == [True, True, True, False]
    assert metrics["off_policy_mask/dropped"] == 0.25


@pytest.mark.parametrize("entropy,coef,want", [
    (0.1, 0.01, (0.015, 0.015)), (0.2, 0.01, (0.015, 0.015)), (0.3, 0.01, (0.005, 0)), (0.1, 0.03, (0.03, 0.03)),
    (0.3, 0.002, (0.001, 0)),
])
def test_adaptive_entropy(entropy, coef, want):
    got = ops.adapt_entropy_coef(coef, entropy, entropy_coef_min=0.001, entropy_coef_max=0.03)
    assert got == pytest.approx(want)


def test_adaptive_entropy_takes_the_applied_coefficient_from_the_normalizer():
    batch = make_batch()
    options = dict(loss_type="dapo", use_adaptive_entropy=True, entropy_coef=0.5)
    with pytest.raises(ConfigError, match="use_adaptive_entropy"):
        evaluate(batch, options)
    adaptive = evaluate(batch, options, ops.loss_normalizer(batch["mask"], entropy_coef=0.02))
    static = evaluate(batch, dict(loss_type="dapo", entropy_coef=0.02))
    assert adaptive[0] == static[0] and np.array_equal(adaptive[2], static[2])


# ---- metrics

@pytest.mark.parametrize("level", ["token", "sequence"])
def test_metrics(level):
    batch = make_batch()
    m, A = batch["mask"], batch["advantages"][:, None]
    delta = batch["logps"].astype(np.float64) - batch["old_logps"]
    if level == "sequence":
        delta = np.where(m, (delta * m).sum(1, keepdims=True) / m.sum(1, keepdims=True), 0)
    ratio = np.exp(delta)
    low, high = (ratio < 0.95) & (A < 0), (ratio > 1.04) & (A > 0)
    count = m if level == "token" else m / m.sum(1, keepdims=True)        # a sequence-level ratio counts once
    mean = lambda x: (x * count).sum() / count.sum()                      # noqa: E731
    per_sequence = lambda x: (x * m).sum(1) / m.sum(1)                    # noqa: E731
    options = dict(loss_type="grpo", epsilon=0.05, epsilon_high=0.04, importance_sampling_level=level, beta=0.1)
    loss, _, _, metrics = evaluate(batch, options)
    x = batch["logps"].astype(np.float64) - batch["ref_logps"]
    kl = (np.exp(-x) + x - 1) * ratio
    difference = abs(batch["logps"].astype(np.float64) - batch["old_logps"])[m]
    assert metrics == pytest.approx({
        "kl": kl[m].mean(), "entropy": batch["entropies"][m].mean(), "policy_loss": loss,
        "clip_ratio/low_mean": mean(low), "clip_ratio/high_mean": mean(high),
        "clip_ratio/region_mean": mean(low | high),
        "clip_ratio/low_min": per_sequence(low).min(), "clip_ratio/high_max": per_sequence(high).max(),
        "sampling/importance_sampling_ratio/min": ratio[m].min(),
        "sampling/importance_sampling_ratio/mean": ratio[m].mean(),
        "sampling/importance_sampling_ratio/max": ratio[m].max(),
        "sampling/sampling_logp_difference/mean": difference.mean(),
        "sampling/sampling_logp_difference/max": difference.max(), "loss/clamped_exponents": 0}, rel=1e-6, abs=1e-9)
    assert mean(low) > 0 and mean(high) > 0


def test_clip_extremes_are_those_of_sequences():
    ratios = np.array([[0.5, 0.7, 1.0, 1.0], [0.5, 0.6, 0.7, 3.0], [1.3, 1.0, 1.0, 1.0], [1.3, 1.6, 1.15, 0.1]])
    arguments = (np.log(ratios), np.zeros((4, 4)), [-1.0, -1.0, 1.0, 1.0], None)
    metrics = ops.grpo_loss(*arguments, loss_type="dapo")[2]
    want = {"low_mean": 5 / 16, "high_mean": 3 / 16, "region_mean": 0.5, "low_min": 0, "high_max": 0.5}
    assert {name: metrics[f"clip_ratio/{name}"] for name in want} == pytest.approx(want)
    one_sign = ops.grpo_loss(*(x[:2] if x is not None else None for x in arguments), loss_type="dapo")[2]
    assert (one_sign["clip_ratio/low_min"], one_sign["clip_ratio/high_max"]) == (0.5, 0)
    assert ops.grpo_loss(*arguments, loss_type="dapo", delta=1.1)[2]["clip_ratio/high_mean"] == 0


def test_metrics_of_cispo_and_vespo():
    batch = make_batch()
    m, A = batch["mask"], batch["advantages"][:, None]
    delta = (batch["logps"].astype(np.float64) - batch["old_logps"]) * m
    clipped = (np.exp(delta) > 1.3) & (A > 0) & m
    assert evaluate(batch, ALL["cispo"])[3]["cispo_clip_ratio"] == pytest.approx(clipped.sum() / m.sum())
    w = np.exp(delta.sum(1))
    phi = np.where(A[:, 0] >= 0, np.exp(3 - 3 * w) * w ** 2, np.exp(2 - 2 * w) * w ** 3)
    assert evaluate(batch, ALL["vespo"])[3]["vespo/phi_seq_mean"] == pytest.approx(phi.mean())


# ---- bad input

@pytest.mark.parametrize("options,message", [
    (dict(epsilon_hihg=0.2), "unknown loss option 'epsilon_hihg'; did you mean 'epsilon_high'"),
    (dict(loss_type="ppo"), "loss_type must be one of 'grpo', .* not 'ppo'"),
    (dict(epsilon="0.2"), "epsilon must be a number, not '0.2'"),
    (dict(epsilon=-0.1), "epsilon must be at least 0"),
    (dict(epsilon=float("nan")), "epsilon must be finite"),
    (dict(beta=None), "beta must be a number, not None"),
    (dict(top_entropy_quantile=1.5), "top_entropy_quantile must lie in 0 .. 1"),
    (dict(max_completion_length=0), "max_completion_length must be positive"),
    (dict(max_completion_length=8.5), "max_completion_length must be an integer"),
    (dict(use_bias_correction_kl="yes"), "use_bias_correction_kl must be True or False"),
    (dict(delta=0), "delta must be positive or None"),
    (dict(loss_type="sapo", delta=3.0), "delta has no effect on loss_type 'sapo'"),
    (dict(cispo_two_sided=True), "cispo_two_sided has no effect on loss_type 'dapo'"),
    (dict(loss_type="vespo", importance_sampling_level="sequence"), "loss_type 'vespo' has its own ratio"),
    (dict(loss_type="gmpo", importance_sampling_level="sequence_product"), "loss_type 'gmpo' has its own ratio"),
    (dict(entropy_coef_min=0.5, entropy_coef_max=0.1), "entropy_coef_max must be at least 0.5"),
    (dict(sapo_temperature_neg=0), "sapo_temperature_neg must be positive"),
])
def test_bad_option(options, message):
    with pytest.raises(ConfigError, match=message):
        evaluate(make_batch(), options)


@pytest.mark.parametrize("change,options,message", [
    (dict(ref_logps=None), dict(beta=0.1), "no reference log-probs"),
    (dict(entropies=None), dict(top_entropy_quantile=0.5), "needs entropies"),
    (dict(entropies=None), dict(entropy_coef=0.1), "there are no entropies"),
    (dict(advantages=np.zeros(4)), {}, r"advantages must be of shape \(5,\)"),
    (dict(old_logps=np.zeros((5, 6))), {}, "old_logps of completion 0 has 6 tokens where there should be 7"),
    (dict(mask=np.ones((4, 7))), {}, "mask holds 4 completions where there should be 5"),
    (dict(mask=np.full((5, 7), 0.5)), {}, "mask must hold 0 and 1 only"),
    (dict(logps=np.zeros(7)), {}, r"logps must be an \(n, T\) array"),
])
def test_bad_arrays(change, options, message):
    with pytest.raises(ConfigError, match=message):
        evaluate(make_batch() | change, options)


@pytest.mark.parametrize("name,called", [("logps", "logp"), ("old_logps", "old_logp"), ("ref_logps", "ref_logp"),
                                         ("entropies", "entropy")])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite_is_named(name, called, value):
    batch = make_batch()
    batch[name][0, 1] = value
    with pytest.raises(NonFiniteError, match=f"^{called} of completion 0, token 1 is "):
        evaluate(batch, dict(beta=0.1))
    batch = make_batch()
    batch["advantages"][2] = value
    with pytest.raises(NonFiniteError, match="the advantage of completion 2 is "):
        evaluate(batch, {})


def test_reference_is_not_read_without_beta():
    batch = make_batch()
    want = evaluate(batch, {})
    batch["ref_logps"][:] = np.nan
    assert evaluate(batch, {})[0] == want[0]


def test_counts_below_one_are_one():
    batch = make_batch()
    for loss_type in ("grpo", "dapo"):
        zero, one = (evaluate(batch, dict(loss_type=loss_type), {"tokens": x, "sequences": x}) for x in (0.0, 1.0))
        assert zero[0] == one[0]


def test_no_completions():
    loss, dlogps, metrics = ops.grpo_loss([], [], [], [])
    assert (loss, dlogps, metrics) == (0, [], {"policy_loss": 0, "loss/clamped_exponents": 0})
    assert ops.grpo_loss(np.zeros((0, 4)), np.zeros((0, 4)), [], None)[1].shape == (0, 4)


def test_bonus_gradient_is_not_lost():
    batch = make_batch()
    with pytest.raises(ConfigError, match="return_dentropies"):
        ops.grpo_loss(**batch, entropy_coef=0.01)


@pytest.mark.parametrize("normalizer,message", [
    ({"tokens": 3.0}, "the normalizer lacks sequences"),
    ({"tokens": 3.0, "sequences": 2.0, "samples": 1.0}, "normalizer has no option 'samples'"),
    ({"tokens": -1.0, "sequences": 2.0}, "needs the tokens and sequences"),
])
def test_bad_normalizer(normalizer, message):
    with pytest.raises(ConfigError, match=message):
        evaluate(make_batch(), {}, normalizer)


@pytest.mark.filterwarnings("default::grpo.errors.GrpoWarning")
@pytest.mark.parametrize("options,message", [
    (dict(loss_type="cispo"), "cispo caps the ratio itself at epsilon_high=0.2"),
    (dict(loss_type="luspo"), "luspo is meant for importance_sampling_level='sequence'"),
    (dict(loss_type="dapo", importance_sampling_level="sequence"), "weights a sequence by its length"),
])
def test_doubtful_options_warn(options, message):
    with pytest.warns(GrpoWarning, match=message):
        ops.check_loss_options(options)


def test_defaults_are_a_valid_configuration():
    assert ops.check_loss_options({}) == _core.loss_defaults()
