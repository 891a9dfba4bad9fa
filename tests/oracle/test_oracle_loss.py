"""TRL as the oracle: its own loss, advantage and sampling code runs on our numbers, without a model.

A trainer is made without its constructor; the one method that would run the model returns tensors of ours. Everything
between that and the loss is TRL's code, and PyTorch's autograd gives the gradients.
"""
import os
from collections import defaultdict

import numpy as np
import pytest

from grpo import _core, ops
from trl_pieces import Absent, OneProcess

torch = pytest.importorskip("torch")
trl = pytest.importorskip("trl")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
from trl.experimental.gmpo import GMPOTrainer  # noqa: E402
from trl.trainer import utils as trl_utils  # noqa: E402

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore::grpo.errors.GrpoWarning")]
OURS_ALONE = ("aggregation", "cispo_two_sided", "kl_estimator")        # options that TRL does not have
MAX_LENGTH = 9


def make_trainer(cls=trl.GRPOTrainer, accumulation=1, **options):
    args = Absent(**(trl_defaults() | options), steps_per_generation=accumulation)
    trainer = type("Bare", (Absent, cls), {"__init__": Absent.__init__})(**vars(args))
    trainer.args, trainer.accelerator, trainer.model = args, OneProcess(), Absent(training=True)
    trainer.epsilon_low = args.epsilon
    trainer.epsilon_high = args.epsilon if args.epsilon_high is None else args.epsilon_high
    trainer.current_gradient_accumulation_steps = accumulation
    trainer.use_vllm = trainer.vllm_importance_sampling_correction = False
    trainer._entropy_bonus_enabled = args.entropy_coef != 0 or args.use_adaptive_entropy
    trainer._last_world_entropy = float("inf")
    trainer._metrics, trainer._logs = defaultdict(lambda: defaultdict(list)), defaultdict(list)
    trainer._logs["rewards"] = defaultdict(list)
    return trainer


def trl_defaults():
    ours = _core.loss_defaults()
    return {name: field.default for name, field in trl.GRPOConfig.__dataclass_fields__.items() if name in ours}


def make_batch(seed=0, n=6, length=8):
    rng = np.random.default_rng(seed)
    logps = (-rng.exponential(1.0, (n, length)) - 0.1).astype(np.float32)
    mask = np.arange(length) < rng.integers(2, length + 1, n)[:, None]
    mask[0] = True
    mask[0, 3] = False
    noise = lambda scale: rng.normal(0, scale, logps.shape).astype(np.float32)  # noqa: E731
    return {"logps": logps, "old_logps": logps + noise(0.4), "ref_logps": logps + noise(0.5), "mask": mask,
            "advantages": rng.normal(0, 1, n).astype(np.float32),
            "entropies": rng.exponential(0.8, logps.shape).astype(np.float32)}


def trl_loss(trainer, batch, num_items):
    """(loss, dlogps, dentropies) by TRL and autograd, in float64."""
    t = {k: torch.tensor(v, dtype=torch.float64) for k, v in batch.items()}
    logps, entropies = t["logps"].requires_grad_(), t["entropies"].requires_grad_()
    trainer._get_per_token_logps_and_entropies = lambda *args, **kwargs: (logps, entropies, None)
    n, length = batch["mask"].shape
    ids = torch.zeros((n, length), dtype=torch.long)
    loss = trainer._compute_loss(None, {
        "prompt_ids": ids[:, :1], "prompt_mask": ids[:, :1], "completion_ids": ids, "completion_mask": t["mask"],
        "advantages": t["advantages"], "old_per_token_logps": t["old_logps"], "ref_per_token_logps": t["ref_logps"],
        "num_items_in_batch": torch.tensor(float(num_items))})
    grads = torch.autograd.grad(loss, (logps, entropies), allow_unused=True)
    return loss.item(), *(np.zeros(logps.shape) if g is None else g.numpy() for g in grads)


LOSS_TYPES = {"grpo": {}, "dr_grpo": {}, "dapo": {}, "bnpo": {}, "cispo": dict(epsilon_high=1.4), "sapo": {},
              "luspo": {}, "vespo": {}, "gmpo": {}}
OPTIONS = {
    "plain": {},
    "clip higher": dict(epsilon=0.1, epsilon_high=0.28),
    "delta": dict(delta=1.5),
    "delta inside": dict(delta=1.1),
    "sequence": dict(importance_sampling_level="sequence", epsilon=0.05, epsilon_high=0.08),
    "sequence delta": dict(importance_sampling_level="sequence", delta=1.02),
    "temperatures": dict(sapo_temperature_pos=0.7, sapo_temperature_neg=1.6),
    "gamma": dict(vespo_k_pos=1.5, vespo_lambda_pos=0.5, vespo_k_neg=0.4, vespo_lambda_neg=1.1),
    "kl": dict(beta=0.2, use_bias_correction_kl=False),
    "kl corrected": dict(beta=0.2, use_bias_correction_kl=True),
    "kl corrected sequence": dict(beta=0.2, importance_sampling_level="sequence", epsilon=0.05),
    "high entropy": dict(top_entropy_quantile=0.3),
    "high entropy kl": dict(top_entropy_quantile=0.45, beta=0.2),
    "high entropy sequence": dict(top_entropy_quantile=0.3, importance_sampling_level="sequence"),
    "off policy": dict(off_policy_mask_threshold=0.05),
    "off policy kl": dict(off_policy_mask_threshold=0.05, beta=0.2),
    "bonus": dict(entropy_coef=0.03),
    "bonus high entropy": dict(entropy_coef=0.03, top_entropy_quantile=0.5),
    "all": dict(beta=0.1, top_entropy_quantile=0.6, off_policy_mask_threshold=0.02, entropy_coef=0.01, epsilon=0.15,
                epsilon_high=0.25),
}
CLIPPED = ("grpo", "dr_grpo", "dapo", "bnpo", "luspo")
BELONGS_TO = {"delta": CLIPPED, "epsilon_high": (*CLIPPED, "gmpo"), "sapo_temperature_pos": ("sapo",),
              "vespo_k_pos": ("vespo",), "importance_sampling_level": (*CLIPPED, "cispo", "sapo")}
NOT_IN_GMPO = ("all", "kl corrected", "high entropy kl", "off policy", "off policy kl", "bonus", "bonus high entropy")


def applies(loss_type, name):
    """Leaves out options of other losses, and what TRL's own GMPO trainer does not do."""
    if loss_type == "gmpo" and name in NOT_IN_GMPO:
        return False
    return name == "all" or all(loss_type in BELONGS_TO.get(option, LOSS_TYPES) for option in OPTIONS[name])


TABLE = [(loss_type, name) for loss_type in LOSS_TYPES for name in OPTIONS if applies(loss_type, name)]


def complete(loss_type, name):
    return {"loss_type": loss_type, "max_completion_length": MAX_LENGTH} | OPTIONS[name] | LOSS_TYPES[loss_type]


@pytest.mark.parametrize("loss_type,name", TABLE)
@pytest.mark.parametrize("seed", [0, 1])
def test_loss_gradients_and_metrics(loss_type, name, seed):
    batch, options = make_batch(seed), complete(loss_type, name)
    trainer = make_trainer(GMPOTrainer if loss_type == "gmpo" else trl.GRPOTrainer, **options)
    want_loss, want_dlogps, want_dentropies = trl_loss(trainer, batch, batch["mask"].sum())
    loss, dlogps, dentropies, metrics = ops.grpo_loss(**batch, **options, return_dentropies=True)
    assert loss == pytest.approx(want_loss, abs=1e-6)
    np.testing.assert_allclose(dlogps, want_dlogps, rtol=0, atol=1e-6)
    np.testing.assert_allclose(dentropies, want_dentropies, rtol=0, atol=1e-6)
    theirs = {k: v[0] for k, v in trainer._metrics["train"].items() if k != "entropy_coef"}
    assert {k: metrics[k] for k in theirs} == pytest.approx(theirs, abs=1e-6)


@pytest.mark.parametrize("loss_type", [t for t in LOSS_TYPES if t != "gmpo"])
def test_truncated_completions(loss_type):
    """Rows that mask_truncated_completions silenced count as completions and not as tokens."""
    batch, options = make_batch(2), complete(loss_type, "all")
    batch["mask"][[1, 4]] = False
    want_loss, want_dlogps, _ = trl_loss(make_trainer(**options), batch, batch["mask"].sum())
    loss, dlogps, _, _ = ops.grpo_loss(**batch, **options, return_dentropies=True)
    assert loss == pytest.approx(want_loss, abs=1e-6)
    np.testing.assert_allclose(dlogps, want_dlogps, rtol=0, atol=1e-6)


@pytest.mark.parametrize("loss_type", [t for t in LOSS_TYPES if t not in ("gmpo", "bnpo")])
def test_accumulated_step(loss_type):
    """Two micro-batches of one step; bnpo is left out because TRL's depends on the split."""
    batch, options = make_batch(3), complete(loss_type, "kl")
    trainer, tokens = make_trainer(accumulation=2, **options), batch["mask"].sum()
    parts = [trl_loss(trainer, {k: v[half] for k, v in batch.items()}, tokens) for half in (slice(0, 3), slice(3, 6))]
    loss, dlogps, _ = ops.grpo_loss(**batch, **options)
    assert loss == pytest.approx(sum(p[0] for p in parts), abs=1e-6)
    np.testing.assert_allclose(dlogps, np.concatenate([p[1] for p in parts]), rtol=0, atol=1e-6)


def test_adaptive_entropy_over_steps():
    options = dict(loss_type="dapo", use_adaptive_entropy=True, entropy_coef=0.01, entropy_coef_max=0.022,
                   entropy_target=0.5)
    trainer, coef, applied = make_trainer(**options), options["entropy_coef"], 0.0
    for step, scale in enumerate([1.0, 0.1, 0.1, 0.1, 0.1, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 0.1]):
        batch = make_batch(step)
        batch["entropies"] *= np.float32(scale)
        want_loss, _, want_dentropies = trl_loss(trainer, batch, batch["mask"].sum())
        normalizer = ops.loss_normalizer(batch["mask"], entropy_coef=applied)
        loss, _, dentropies, metrics = ops.grpo_loss(**batch, **options, normalizer=normalizer, return_dentropies=True)
        assert loss == pytest.approx(want_loss, abs=1e-6)
        np.testing.assert_allclose(dentropies, want_dentropies, rtol=0, atol=1e-6)
        coef, applied = ops.adapt_entropy_coef(coef, metrics["entropy"], **options)
        assert coef == pytest.approx(trainer.entropy_coef)


def test_defaults_are_those_of_trl():
    ours = _core.loss_defaults()
    theirs = trl_defaults()
    assert set(ours) - set(theirs) == set(OURS_ALONE)
    assert {k: ours[k] for k in theirs} == theirs


# ---- advantages

REWARDS = {
    "one": [[1], [0], [0], [1], [1], [0], [0], [0], [0.5], [0.5], [0.5], [0.5]],
    "two": [[1, 0.2], [0, 0.1], [0, 0.7], [1, 0.9], [1, 0], [0, 0], [0, 0.3], [0, 0.4], [2, 1], [2, 1], [2, 1], [2, 1]],
    "missing": [[1, None], [0, 0.1], [None, None], [1, 0.9], [None, 0.5], [None, 0.4], [None, None], [None, 0.1],
                [1, None], [None, None], [None, None], [None, None]],
}


def trl_advantages(rewards, num_generations, **options):
    """Runs TRL's whole scoring of a generation batch, with the generation and the reward calls replaced."""
    trainer = make_trainer(beta=0.0)
    n, k = len(rewards), len(rewards[0])
    table = torch.tensor([[float("nan") if r is None else r for r in row] for row in rewards], dtype=torch.float64)
    trainer._generate = lambda prompts: ([[0]] * n, [[0]] * n, None, [""] * n, None, {}, None, None)
    trainer._calculate_rewards = lambda *args: table
    trainer._tokenizer = trainer.processing_class = Absent(pad_token_id=0, batch_decode=lambda ids, **kwargs: [""] * n)
    trainer.args.per_device_train_batch_size = n
    trainer.args.gradient_accumulation_steps, trainer.num_iterations = 1, 1
    trainer.num_generations, trainer.reward_weights = num_generations, torch.tensor(options.pop("reward_weights"))
    trainer.reward_funcs = trainer.reward_func_names = [f"reward {i}" for i in range(k)]
    trainer.scale_rewards, trainer.multi_objective_aggregation = "group", "sum_then_normalize"
    trainer._pending_extra_logs, trainer._pending_metrics = {}, {}
    for name, value in options.items():
        setattr(trainer, name, value)
    return trainer._generate_and_score_completions([{"prompt": ""}] * n)["advantages"].numpy()


@pytest.mark.parametrize("name", REWARDS)
@pytest.mark.parametrize("num_generations", [2, 4, 6])
@pytest.mark.parametrize("options", [
    dict(), dict(scale_rewards="batch"), dict(scale_rewards="none"),
    dict(multi_objective_aggregation="normalize_then_sum"),
], ids=str)
def test_advantages(name, num_generations, options):
    rewards = REWARDS[name]
    weights = [0.7, 1.9][:len(rewards[0])]
    want = trl_advantages(rewards, num_generations, reward_weights=weights, **options)
    got = ops.group_advantages(rewards, num_generations, reward_weights=weights, **options)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)


# ---- logits

@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.7])
def test_selective_log_softmax_and_entropy(temperature):
    rng = np.random.default_rng(0)
    logits, ids = rng.normal(0, 4, (3, 5, 97)).astype(np.float32), rng.integers(0, 97, (3, 5))
    logps, entropies = ops.selective_log_softmax(logits, ids, temperature, entropies=True)
    z = torch.tensor(logits, dtype=torch.float64) / temperature
    np.testing.assert_allclose(logps, trl_utils.selective_log_softmax(z, torch.tensor(ids)), rtol=1e-6)
    np.testing.assert_allclose(entropies, trl_utils.entropy_from_logits(z), rtol=1e-6)


@pytest.mark.parametrize("options", [
    dict(top_k=5), dict(top_p=0.7), dict(min_p=0.2), dict(temperature=1.8, top_k=12, top_p=0.6), dict(temperature=0.5),
    dict(top_k=9, top_p=0.9, min_p=0.1, temperature=1.3),
], ids=str)
def test_sample_draws_from_the_support_of_transformers(options):
    from transformers.generation import logits_process as lp
    rng, rows, vocabulary = np.random.default_rng(1), 400, 23
    logits = np.repeat(rng.normal(0, 2, (1, vocabulary)).astype(np.float32), rows, 0)
    scores = torch.tensor(logits[:1], dtype=torch.float64) / options.get("temperature", 1.0)
    warpers = {"top_k": lp.TopKLogitsWarper, "top_p": lp.TopPLogitsWarper, "min_p": lp.MinPLogitsWarper}
    for name in (name for name in warpers if name in options):            # in transformers' order
        scores = warpers[name](options[name])(None, scores)
    want = torch.log_softmax(scores, -1)[0].numpy()
    ids, logps = ops.sample(logits, **options, seed=7)
    np.testing.assert_allclose(logps, want[ids], rtol=1e-5, atol=1e-6)
    expected = np.exp(want) * rows
    counts = np.bincount(ids, minlength=vocabulary)
    assert not counts[expected == 0].any()
    assert (abs(counts - expected) <= 5 * np.sqrt(expected) + 1).all()
