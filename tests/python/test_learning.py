"""Every loss learns: a tiny model is to repeat the letter of its prompt, so it has to read the prompt. Models that see
learn to name the colour of a picture."""
import statistics

import numpy as np
import pytest

import grpo
import toy
from grpo.options.config import LOSS_TYPES

LOSSES = {name: dict(loss_type=name) for name in LOSS_TYPES} | {
    "cispo": dict(loss_type="cispo", epsilon_high=5.0),
    "luspo": dict(loss_type="luspo", importance_sampling_level="sequence"),
    "gspo": dict(preset="gspo"),
    "dr_grpo preset": dict(preset="dr_grpo"),
    "dual clip": dict(loss_type="grpo", delta=3.0),
    "reference": dict(beta=0.01),
    "moving reference": dict(beta=0.01, sync_ref_model=True, ref_model_sync_steps=10),
    "KL in the reward": dict(beta=0.01, kl_in_reward=True),
    "two iterations": dict(num_iterations=2),
    "mini-batches and iterations": dict(num_iterations=2, per_device_train_batch_size=64, steps_per_generation=2),
    "dynamic sampling": dict(dynamic_sampling=True),
    "entropy bonus": dict(entropy_coef=0.001),
    "adaptive entropy": dict(use_adaptive_entropy=True, entropy_target=1.0, entropy_coef_delta=0.0005,
                             entropy_coef_max=0.002),
    "top-entropy tokens": dict(top_entropy_quantile=0.8, beta=0.01, num_iterations=2),
    "truncated sampling": dict(top_k=50, top_p=0.98, repetition_penalty=1.02),
    "bfloat16 moments": dict(moment_dtype="bfloat16"),
    "float8 moments": dict(moment_dtype="float8"),
    "float8 moments, float24 masters": dict(moment_dtype="float8", master_dtype="float24"),
    "batch scale": dict(scale_rewards="batch"),
}


@pytest.mark.parametrize("changed", LOSSES.values(), ids=LOSSES)
def test_learns(tmp_path, changed):
    batch = {} if "per_device_train_batch_size" in changed else {"prompts_per_step": 4}
    trainer = toy.trainer(tmp_path, toy.share, num_generations=16, max_completion_length=4, learning_rate=6e-3,
                          max_steps=150,
                          save_completions=False, **batch, **changed)
    rewards = []
    for step in trainer:
        if "reward" in step.metrics:
            rewards.append(step.metrics["reward"])
        if statistics.mean(rewards[-5:]) >= 0.95:
            break
    assert rewards[0] < 0.1
    assert statistics.mean(rewards[-5:]) >= 0.95


def letters(completions, letter, **columns):
    """The share of a completion's eight tokens that are the letter."""
    return [message[0]["content"].count(wanted) / 8 for message, wanted in zip(completions, letter, strict=True)]


@pytest.mark.parametrize("arch, tower, train_vision", [
    ("qwen2_vl", {"depth": 2}, "merger"), ("qwen2_5_vl", {"depth": 2, "fullatt_block_indexes": [1]}, "none"),
    ("qwen3_vl", {"depth": 2, "deepstack_visual_indexes": [0]}, "all")])
def test_learns_to_see(tmp_path, arch, tower, train_vision):
    rng = np.random.default_rng(0)
    rows = []
    for i in range(8):
        picture = rng.integers(0, 60, (56, 56, 3), dtype=np.uint8)
        picture[..., i % 2 * 2] += 180                   # red or blue
        rows.append({"prompt": [{"role": "user", "content": "?"}], "image": picture, "letter": "rb"[i % 2]})
    model = grpo.load(grpo.tiny(arch, num_hidden_layers=2, vision_config=tower))
    args = grpo.GRPOConfig(output_dir=str(tmp_path / "run"), max_steps=80, prompts_per_step=4, num_generations=16,
                           max_completion_length=8, learning_rate=2e-3, loss_type="dr_grpo", save_strategy="no",
                           save_completions=False, train_vision=train_vision, seed=1)
    seen = []
    for step in grpo.GRPOTrainer(model, letters, args, rows):
        seen.append(step.metrics["reward"])
        if statistics.mean(seen[-5:]) >= 0.95:
            break
    assert seen[0] < 0.2 and statistics.mean(seen[-5:]) >= 0.95
