"""RLOO beside TRL's own trainer: its scoring of a rollout and its loss run on our numbers, without a model."""
from collections import defaultdict

import numpy as np
import pytest

import grpo
from grpo import ops
from grpo.training.rloo import leave_one_out
from trl_pieces import Absent, OneProcess

torch = pytest.importorskip("torch")
trl = pytest.importorskip("trl")
pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore::grpo.errors.GrpoWarning")]
SHARED = ("num_generations", "max_completion_length", "shuffle_dataset", "temperature", "top_p", "top_k", "min_p",
          "repetition_penalty", "beta", "num_iterations", "epsilon", "epsilon_high", "reward_weights",
          "normalize_advantages", "reward_clip_range", "mask_truncated_completions", "sync_ref_model",
          "ref_model_mixup_alpha", "ref_model_sync_steps", "log_completions", "num_completions_to_print",
          "log_unique_prompts", "learning_rate", "generation_kwargs", "chat_template_kwargs", "num_generations_eval")


def test_names_and_defaults():
    fields, ours = trl.RLOOConfig.__dataclass_fields__, grpo.RLOOConfig()
    assert {name: getattr(ours, name) for name in SHARED} == {name: fields[name].default for name in SHARED}


def bare(**options):
    trainer = type("Bare", (Absent, trl.RLOOTrainer), {"__init__": Absent.__init__})(**options)
    trainer.args, trainer.accelerator, trainer.model = Absent(**options), OneProcess(), Absent(training=True)
    trainer._metrics, trainer._logs = defaultdict(lambda: defaultdict(list)), defaultdict(list)
    trainer._logs["rewards"] = defaultdict(list)
    return trainer


@pytest.mark.parametrize("low, high", [(0.2, 0.2), (0.05, 0.3)])
@pytest.mark.parametrize("spread", [0.0, 0.02, 0.2])
def test_loss_and_gradient(spread, low, high):
    rng = np.random.default_rng(1)
    logps = (-rng.exponential(1.0, (6, 7)) - 0.1).astype(np.float32)
    old = (logps + rng.normal(0, spread, logps.shape)).astype(np.float32)
    mask, advantages = np.arange(7) < rng.integers(1, 8, 6)[:, None], rng.normal(0, 1, 6).astype(np.float32)
    trainer, moving = bare(), torch.tensor(logps, dtype=torch.float64, requires_grad=True)
    trainer.epsilon_low, trainer.epsilon_high = low, high
    trainer._get_per_token_logps_and_entropies = lambda *args, **options: (moving, torch.zeros(6, 7), None)
    ids, carried = torch.zeros(6, 7, dtype=torch.long), torch.tensor(mask, dtype=torch.float64)
    loss = trainer._compute_loss(None, {
        "prompt_ids": ids[:, :1], "prompt_mask": ids[:, :1], "completion_ids": ids, "completion_mask": carried,
        "advantages": torch.tensor(advantages, dtype=torch.float64),
        "old_logps": (torch.tensor(old, dtype=torch.float64) * carried).sum(1)})
    (gradient,) = torch.autograd.grad(loss, (moving,))
    got, dlogps, metrics = ops.grpo_loss(logps, old, advantages, mask, loss_type="grpo", epsilon=low, epsilon_high=high,
                                         importance_sampling_level="sequence_product")
    assert got == pytest.approx(loss.item(), abs=1e-6)
    np.testing.assert_allclose(dlogps, gradient.numpy(), atol=1e-6)
    for name in ("low_mean", "high_mean", "region_mean"):
        assert metrics[f"clip_ratio/{name}"] == pytest.approx(trainer._metrics["train"][f"clip_ratio/{name}"][0])


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("clip", [None, (-0.5, 0.75)])
@pytest.mark.parametrize("size", [2, 4])
def test_advantages(size, clip, normalize):
    rng = np.random.default_rng(2)
    rewards = rng.normal(0, 1, 8)
    rewards[3] = np.nan
    trainer = bare(beta=0.0)
    trainer._generate = lambda prompts: ([[0]] * 8, [[0]] * 8, [""] * 8)
    trainer._calculate_rewards = lambda *args: torch.tensor(rewards[:, None])
    trainer._tokenizer = trainer.processing_class = Absent(pad_token_id=0, batch_decode=lambda ids, **kw: [""] * 8)
    trainer.args.per_device_train_batch_size, trainer.num_generations = 8, size
    trainer.reward_weights, trainer.reward_funcs, trainer.reward_func_names = torch.ones(1), ["r"], ["r"]
    trainer.reward_clip_range, trainer.normalize_advantages = clip, normalize
    trainer._pending_extra_logs, trainer._pending_metrics = {}, {}
    trainer._get_per_token_logps_and_entropies = lambda *args, **options: (torch.zeros(8, 1), torch.zeros(8, 1), None)
    want = trainer._generate_and_score_completions([{"prompt": ""}] * 8)["advantages"].numpy()
    worth = rewards if clip is None else np.clip(rewards, *clip)
    np.testing.assert_allclose(leave_one_out(worth, [size] * (8 // size), normalize), want, atol=1e-6)
