"""Replay: which groups are kept and drawn, that their gradient is the off-policy one, resume, bounds, images."""
import numpy as np
import pytest

import grpo
import toy
from grpo.errors import CheckpointCorruptError
from grpo.rollouts import ReplayBuffer, Rollouts, past_groups
from grpo.rollouts.replay import signals
from grpo.vision import Drawn

REPLAY = dict(replay_buffer_size=3, max_steps=6)


def half_idle(prompts, completion_ids, **columns):
    """A reward that "b" never has, and "a" in almost every completion."""
    return [0.0 if p == "b" else sum(ids) / 1000 for p, ids in zip(prompts, completion_ids, strict=True)]


def hand_made(advantages, *, carries=None, rewards=1):
    """Groups of two completions with two tokens each. carries: by completion, whether a token carries loss."""
    n = 2 * len(advantages)
    per_token = np.arange(2 * n, dtype=np.float32)
    prompts = [grpo.datasets.Prompt(row, "p", np.array([1], np.int32), {}) for row in range(len(advantages))]
    mask = np.repeat(np.ones(n) if carries is None else np.array(carries), 2).astype(np.uint8)
    return Rollouts(prompts, [[] for _ in prompts], np.repeat(np.arange(len(prompts), dtype=np.int32), 2),
                    [np.array([i, i], np.int32) for i in range(n)], np.zeros(n, np.int32), per_token, per_token,
                    per_token, texts=[str(i) for i in range(n)], rewards=np.zeros((n, rewards)), totals=np.zeros(n),
                    advantages=np.repeat(np.array(advantages, np.float32), 2) * np.tile([1, -1], len(advantages)),
                    mask=mask)


def rows_of(r):
    return [p.row for p in r.prompts]


# ---- the buffer


@pytest.mark.parametrize("advantages, carries, expected", [
    ([1.0, 0.0, 0.5], None, [1.0, 0.0, 0.5]), ([1.0, 0.5], [1, 0, 0, 0], [0.5, 0.0])])
def test_the_signal_of_a_group(advantages, carries, expected):
    assert signals(hand_made(advantages, carries=carries)).tolist() == expected


def test_groups_that_teach_are_kept_and_the_oldest_make_room():
    buffer = ReplayBuffer(3, max_age=10)
    buffer.add(past_groups(hand_made([1.0, 0.0, 0.5]), 0), 1)
    assert [(rows_of(k.group), k.drawn, k.signal) for k in buffer.groups] == [([0], 0, 1.0), ([2], 0, 0.5)]
    buffer.add(past_groups(hand_made([0.0, 0.25, 2.0]), 1), 2)
    assert [(rows_of(k.group)[0], k.drawn) for k in buffer.groups] == [(2, 0), (1, 1), (2, 1)]
    buffer.add([], 11)
    assert [k.drawn for k in buffer.groups] == [1, 1]


def test_idle_groups_are_replaced_and_the_others_stay():
    buffer = ReplayBuffer(8, max_age=5)
    kept = hand_made([3.0, 4.0])
    buffer.add(past_groups(kept, 2), 3)
    drawn = hand_made([0.0, 1.0, 0.0, 0.0])
    filled = buffer.fill(drawn, 4)
    assert rows_of(filled) == [1, 3, 0, 1] and filled.age.tolist() == 4 * [0] + 4 * [2]
    assert filled.advantages[4:].tolist() == [3, -3, 4, -4] and len(filled) == len(drawn)
    assert np.array_equal(filled.policy_logprobs[8:], kept.policy_logprobs)
    assert buffer.fill(hand_made([1.0, 2.0]), 4).age is None             # nothing is idle
    assert rows_of(buffer.fill(hand_made([0.0]), 4)) in ([0], [1])       # nothing of the step is left
    assert buffer.fill(drawn, 8) is drawn                                # all are too old
    assert buffer.fill(hand_made([0.0], rewards=2), 4).age is None       # other rewards scored them


@pytest.mark.parametrize("alpha", [0.0, 1.0, 2.0])
def test_groups_are_drawn_in_proportion_to_their_advantages(alpha):
    buffer = ReplayBuffer(8, max_age=10_000, alpha=alpha, seed=3)
    buffer.add(past_groups(hand_made([1.0, 2.0, 3.0]), 0), 1)
    counts = np.bincount([rows_of(buffer.fill(hand_made([0.0]), step))[0] for step in range(3000)], minlength=3)
    weights = np.array([1.0, 2.0, 3.0])**alpha
    expected = 3000 * weights / weights.sum()
    assert (np.abs(counts - expected) < 4 * np.sqrt(expected)).all()


def test_a_part_with_replayed_groups_survives_its_file(tmp_path):
    trainer = toy.trainer(tmp_path, half_idle, **REPLAY)
    part = list(trainer)[-1].rollouts
    part.save(tmp_path / "part.npz")
    again = Rollouts.load(tmp_path / "part.npz", trainer.stream.at_row, trainer.model)
    assert again.age.tolist() == part.age.tolist() and part.age.any()


# ---- the loss


def with_replayed(tmp_path, **changed):
    """A trainer after two steps, its next rollouts, and the step's part with a replayed group at its end."""
    trainer = toy.trainer(tmp_path, half_idle, **(REPLAY | changed))
    steps = iter(trainer)
    next(steps), next(steps)
    trainer._make_rollouts()
    part, metrics = trainer._with_replayed(trainer.rollouts)
    assert part.age.tolist() == 4 * [0] + 4 * [part.age[-1]] and part.age[-1] > 0
    return trainer, part


def clipped(logprobs, old, advantage, low, high):
    """(loss, d loss / d logp) of each token, by the definition: -min(rho A, clip(rho) A)."""
    ratio = np.exp(np.float64(logprobs) - old)
    free, bound = ratio * advantage, np.clip(ratio, 1 - low, 1 + high) * advantage
    return -np.minimum(free, bound), np.where(free <= bound, -free, 0.0)


@pytest.mark.parametrize("beta", [0.0, 0.1])
@pytest.mark.parametrize("epsilon", [10.0, 1e-4])
def test_the_gradient_is_that_of_the_off_policy_loss(tmp_path, epsilon, beta):
    """Loss and gradient by the formula, with log-probs that Model.logprobs computes: token-mean over the whole step."""
    trainer, part = with_replayed(tmp_path, epsilon=epsilon, beta=beta, loss_type="dapo", learning_rate=3e-2)
    result = trainer._on_policy(part)
    names = [name for name, _ in trainer.optimizer.trained()]
    gradients = {name: trainer.optimizer.gradient(name) for name in names}
    trainer.optimizer.zero_grad()

    now = np.concatenate([trainer.model.logprobs(part.prompts[g].ids, [c], temperature=trainer.temperature)[0]
                          for g, c in zip(part.group, part.completions, strict=True)])
    old = part.per_token(part.age > 0)
    assert np.array_equal(now[~old], part.policy_logprobs[~old]) and (now[old] != part.policy_logprobs[old]).any()
    losses, slopes = clipped(now, part.policy_logprobs, part.per_token(part.advantages), epsilon, epsilon)
    if beta:
        x, ratio = np.float64(now) - part.ref_logprobs, np.exp(np.float64(now) - part.policy_logprobs)
        kl = np.exp(-x) + x - 1                              # k3, times the ratio
        losses, slopes = losses + beta * ratio * kl, slopes + beta * ratio * (1 - np.exp(-x) + kl)
    assert result["loss"] == pytest.approx(losses.mean(), abs=1e-6)
    assert (slopes[old] == 0).any() == (epsilon < 0.1 and not beta)      # there the clipping bites
    trainer.optimizer.accumulate(part.prompt_ids, part.completions, part.group,
                                 (slopes / len(slopes)).astype(np.float32), temperature=trainer.temperature)
    for name in names:
        np.testing.assert_allclose(gradients[name], trainer.optimizer.gradient(name), rtol=1e-3, atol=1e-6)
    assert max(np.abs(gradient).max() for gradient in gradients.values()) > 1e-3
    assert result["sampling/sampling_logp_difference/max"] == 0


def test_it_is_the_loss_of_the_off_policy_path(tmp_path):
    """The two ways to a gradient, of the same part: by recorded log-probs where there are, and by a forward of all."""
    trainer, part = with_replayed(tmp_path)
    on = trainer._on_policy(part)
    name = "model.embed_tokens.weight"
    gradient = trainer.optimizer.gradient(name)
    trainer.optimizer.zero_grad()
    off = trainer._off_policy(part)
    assert on["loss"] == pytest.approx(off["loss"], rel=1e-6)
    np.testing.assert_allclose(gradient, trainer.optimizer.gradient(name), rtol=1e-5, atol=1e-8)
    assert on["clip_ratio/region_mean"] == off["clip_ratio/region_mean"]


# ---- runs


def test_metrics_and_completions(tmp_path):
    steps = list(toy.trainer(tmp_path, half_idle, **REPLAY))
    shares = [step.metrics["replay/share"] for step in steps]
    assert shares[0] == 0 and set(shares[1:]) <= {0.0, 0.5} and 0.5 in shares
    for step in steps:
        ages = [c.get("age", 0) for c in step.completions]
        replayed = [age for age in ages if age]
        assert len(replayed) / len(ages) == step.metrics["replay/share"]
        assert step.metrics.get("replay/age", 0) == (np.mean(replayed) if replayed else 0)
        assert step.metrics["replay/size"] == min(3, step.step - 1)
        assert step.metrics["frac_reward_zero_std"] >= 0.5               # of what was drawn, whatever took its place


def test_files_of_completions_are_of_what_was_drawn(tmp_path):
    trainer = toy.trainer(tmp_path, half_idle, **REPLAY)
    trainer.train()
    for step in range(1, 7):
        text = (trainer.run.path / "completions" / f"step-{step:06d}.jsonl").read_text()
        assert text.count('"prompt": "b"') == 4 and '"age"' not in text


@pytest.mark.parametrize("changed", [
    dict(token_budget=8), dict(keep_rollout_activations=False), dict(keep_rollout_activations=True), dict(slots=1),
    dict(recompute=True)], ids=str)
def test_the_split_changes_no_bit(tmp_path, changed):
    plain = toy.trainer(tmp_path, half_idle, **REPLAY)
    other = toy.trainer(tmp_path, half_idle, **REPLAY, **changed)
    plain.train(), other.train()
    assert toy.weights(plain) == toy.weights(other)


def test_without_idle_groups_nothing_changes(tmp_path):
    plain, keeping = toy.trainer(tmp_path), toy.trainer(tmp_path, replay_buffer_size=4)
    plain.train()
    assert all(step.metrics["replay/share"] == 0 for step in keeping)
    assert toy.weights(plain) == toy.weights(keeping)


@pytest.mark.parametrize("changed", [
    {}, dict(num_iterations=2),
    dict(per_device_train_batch_size=4, steps_per_generation=3, num_iterations=2, max_steps=10),
    dict(beta=0.1), dict(beta=0.1, sync_ref_model=True, ref_model_sync_steps=2),
    dict(dynamic_sampling=True, max_resample_times=1), dict(replay_max_age=2), dict(replay_buffer_size=1),
    dict(top_entropy_quantile=0.5), dict(use_adaptive_entropy=True, entropy_target=100.0)],
    ids=lambda changed: ", ".join(changed) or "plain")
@pytest.mark.parametrize("stop", [1, 3, 4])
def test_resume_is_exact(tmp_path, changed, stop):
    run = REPLAY | dict(save_strategy="steps", save_steps=1) | changed
    straight = toy.trainer(tmp_path, half_idle, **run)
    steps = [(toy.timeless(step.metrics), step.completions) for step in straight]
    assert any(metrics["replay/share"] for metrics, _ in steps)
    broken = toy.trainer(tmp_path, half_idle, **run)
    for step in broken:
        if step.step == stop:
            break
    resumed = toy.trainer(tmp_path, half_idle, **run, output_dir=str(broken.run.path))
    assert [(toy.timeless(step.metrics), step.completions) for step in resumed.steps(True)] == steps[stop:]
    assert toy.weights(resumed) == toy.weights(straight)


def test_a_step_that_fails_is_taken_again_with_the_same_groups(tmp_path):
    straight, failing = (toy.trainer(tmp_path, half_idle, **REPLAY) for _ in range(2))
    straight.train()

    class Once:
        def on_pre_optimizer_step(self, args, state, control, **kwargs):
            if state.global_step == 3 and not self.__dict__.setdefault("raised", False):
                self.raised = True
                raise RuntimeError("once")

    failing.add_callback(Once())
    with pytest.raises(RuntimeError, match="once"):
        failing.train()
    failing.train()
    assert toy.weights(failing) == toy.weights(straight)


@pytest.mark.parametrize("drawn", [None, "x", [0.5], [-1], [1, 2, 3, 4, 5]])
def test_a_checkpoint_whose_kept_groups_do_not_fit_is_refused(tmp_path, drawn):
    trainer = toy.trainer(tmp_path, half_idle, **REPLAY)
    trainer.train()
    path = tmp_path / "replay.npz"
    trainer.replay.save(path)
    kept = trainer.replay.load(path, trainer.replay.state(), trainer.stream.at_row, trainer.model)
    assert [(k.drawn, k.signal, rows_of(k.group)) for k in kept] == [(k.drawn, k.signal, rows_of(k.group))
                                                                     for k in trainer.replay.groups]
    with pytest.raises(CheckpointCorruptError):
        trainer.replay.load(path, drawn, trainer.stream.at_row, trainer.model)
    with np.load(path) as arrays:
        np.savez(path, **{name: array for name, array in arrays.items() if name != "totals"})
    with pytest.raises(CheckpointCorruptError, match="does not hold the 3 past groups"):
        trainer.replay.load(path, trainer.replay.state(), trainer.stream.at_row, trainer.model)


def rings(level):
    """An image of one grey."""
    return np.full((56, 84, 3), level, np.uint8)


@pytest.mark.parametrize("train_vision", ["none", "all"])
def test_groups_with_images_are_replayed(tmp_path, train_vision):
    """Split, store and resume change no bit there either; the tower sees a replayed image as its weights are now."""
    policy = {}
    rows = [{"prompt": "<image>" + letter, "image": Drawn(rings, (level,), 56, 84)}
            for letter, level in (("a", 3), ("b", 200))]

    def reward(prompts, completion_ids):
        return [0.0 if "b" in str(p) else sum(ids) / 1000 for p, ids in zip(prompts, completion_ids, strict=True)]

    run = dict(replay_buffer_size=2, max_steps=3, num_generations=2, max_completion_length=4, save_strategy="steps",
               save_steps=1, train_vision=train_vision)
    for name, changed in (("plain", {}), ("split", dict(token_budget=8, keep_rollout_activations=False))):
        policy[name] = toy.trainer(tmp_path, reward, rows, grpo.load(grpo.tiny("qwen2_5_vl"), device="cpu"), **run,
                                   **changed)
        steps = list(policy[name])
        assert [step.metrics["replay/share"] for step in steps] == [0, 0.5, 0.5]
        assert all(step.metrics["sampling/sampling_logp_difference/max"] == 0 for step in steps)
    assert toy.weights(policy["plain"]) == toy.weights(policy["split"])
    at_two = policy["plain"].run.checkpoints / "step-2"
    resumed = toy.trainer(tmp_path, reward, rows, grpo.load(grpo.tiny("qwen2_5_vl"), device="cpu"), **run)
    resumed.train(str(at_two))
    assert toy.weights(resumed) == toy.weights(policy["plain"])
