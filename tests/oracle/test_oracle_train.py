"""Training against PyTorch: AdamW with clipping and schedules against torch.optim, a whole GRPO step against a
statement of it in torch and transformers, on the same completions."""
import math

import numpy as np
import pytest

from grpo import GRPOConfig, _core, ops
from grpo.options.schedule import SHAPES, learning_rate
from tiny_models import build, config, relative_error

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from goldens.make_goldens import make_model  # noqa: E402

pytestmark = pytest.mark.oracle
torch.set_num_threads(1)                     # small tensors: threads would only wait for each other
CONFIG = config("qwen2", d=24, heads=(4, 2), D=8, F=36, V=67, L=2, tie=False)


def make_rollout(seed=0, prompts=3, group=4):
    rng = np.random.default_rng(seed)
    ids = [rng.integers(0, 67, rng.integers(1, 40)).astype(np.int32) for _ in range(prompts)]
    completions = [rng.integers(0, 67, rng.integers(1, 24)).astype(np.int32) for _ in range(prompts * group)]
    return ids, completions, np.repeat(np.arange(prompts, dtype=np.int32), group), rng


def both_models():
    hf = make_model(CONFIG, torch.float32)
    return hf, build(CONFIG, "ref", {name: p.detach().numpy() for name, p in hf.named_parameters()})


def decay_groups(hf, weight_decay):
    """transformers' rule: norms and biases do not decay."""
    decayed = [p for name, p in hf.named_parameters() if p.ndim == 2]
    return [{"params": decayed, "weight_decay": weight_decay},
            {"params": [p for p in hf.parameters() if p.ndim == 1], "weight_decay": 0.0}]


def test_decay_rule_is_transformers():
    names = set(transformers.Trainer.get_decay_parameter_names(None, make_model(CONFIG, torch.float32)))
    assert names == {name for name, p in make_model(CONFIG, torch.float32).named_parameters() if p.ndim == 2}


@pytest.mark.parametrize("device", ["ref", "cpu"])
@pytest.mark.parametrize(("max_norm", "weight_decay", "betas", "schedule"), [
    (0.0, 0.0, (0.9, 0.999), "constant"), (1.0, 0.1, (0.9, 0.99), "linear"), (0.05, 0.01, (0.8, 0.95), "cosine"),
    (1e9, 0.0, (0.0, 0.5), "constant_with_warmup"),
])
def test_adamw_clip_and_schedule(device, max_norm, weight_decay, betas, schedule):
    """Ten steps; torch gets our gradients, so that only the optimiser is compared. Master weights agree to 1e-6;
    moments to 2e-5, because torch rounds 1 - beta in double and 1 - 0.999f is 1.3e-5 off (the bias correction is off
    with it)."""
    hf, _ = both_models()
    model = build(CONFIG, device, {name: p.detach().numpy() for name, p in hf.named_parameters()})
    trainer = _core.Trainer(model, adam_beta1=betas[0], adam_beta2=betas[1], weight_decay=weight_decay)
    optimizer = torch.optim.AdamW(decay_groups(hf, weight_decay), lr=1e-3, betas=betas, eps=1e-8)
    scheduler = transformers.get_scheduler(schedule, optimizer, num_warmup_steps=3 if schedule != "constant" else 0,
                                           num_training_steps=10)
    options = GRPOConfig(learning_rate=1e-3, lr_scheduler_type=schedule,
                         warmup_steps=3 if schedule != "constant" else 0, weight_decay=weight_decay)
    for step in range(10):
        prompts, completions, group, rng = make_rollout(step)
        coef = rng.normal(size=sum(map(len, completions))).astype(np.float32)
        trainer.accumulate(prompts, completions, group, coef)
        for name, p in hf.named_parameters():
            p.grad = torch.from_numpy(trainer.gradient(name).copy())
        norm = torch.nn.utils.clip_grad_norm_(hf.parameters(), max_norm or math.inf)
        rate = scheduler.get_last_lr()[0]
        assert learning_rate(options, step, 10) == pytest.approx(rate, rel=1e-12)
        optimizer.step()
        scheduler.step()
        assert trainer.step(rate, max_norm) == pytest.approx(float(norm), rel=1e-5)
        for name, p in hf.named_parameters():
            assert relative_error(trainer.get_state("master", name), p.detach().numpy()) <= 1e-6
    for name, p in hf.named_parameters():
        state = optimizer.state[p]
        assert relative_error(trainer.get_state("m", name), state["exp_avg"].numpy()) <= 2e-5
        assert relative_error(trainer.get_state("v", name), state["exp_avg_sq"].numpy()) <= 2e-5


STABLE = {"num_decay_steps": 6}


@pytest.mark.parametrize("warmup", [0, 1, 5])
@pytest.mark.parametrize(("name", "arguments"), [
    ("linear", {}), ("cosine", {}), ("cosine", {"num_cycles": 1.25}), ("constant", {}), ("constant_with_warmup", {}),
    ("cosine_with_restarts", {}), ("cosine_with_restarts", {"num_cycles": 3}), ("polynomial", {}),
    ("polynomial", {"power": 2.0, "lr_end": 1e-5}),
    ("inverse_sqrt", {}), ("inverse_sqrt", {"timescale": 3}), ("cosine_with_min_lr", {"min_lr": 1e-4}),
    ("cosine_with_min_lr", {"min_lr_rate": 0.2, "num_cycles": 1.0}),
    ("cosine_warmup_with_min_lr", {"min_lr_rate": 0.1}),
    ("cosine_warmup_with_min_lr", {"min_lr": 1e-4, "warmup_lr_rate": 0.3}), ("warmup_stable_decay", STABLE),
    ("warmup_stable_decay", STABLE | {"num_stable_steps": 4, "min_lr_ratio": 0.1, "num_cycles": 0.75}),
    ("warmup_stable_decay", STABLE | {"warmup_type": "cosine", "decay_type": "linear"}),
    ("warmup_stable_decay", STABLE | {"warmup_type": "1-sqrt", "decay_type": "1-sqrt", "min_lr_ratio": 0.05}),
])
@pytest.mark.filterwarnings("ignore:Both num_training_steps")
def test_learning_rate_is_transformers(name, arguments, warmup):
    """Every step of twenty."""
    if name == "constant" and warmup:
        pytest.skip("has no warm-up")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=3e-3)
    scheduler = transformers.get_scheduler(name, optimizer, warmup, 20, scheduler_specific_kwargs=arguments)
    options = GRPOConfig(learning_rate=3e-3, lr_scheduler_type=name, lr_scheduler_kwargs=arguments, warmup_steps=warmup)
    for step in range(20):
        assert learning_rate(options, step, 20) == pytest.approx(scheduler.get_last_lr()[0], rel=1e-12, abs=1e-18)
        optimizer.step()
        scheduler.step()


def test_every_schedule_has_transformers_name():
    """But for the two that follow a measured number, and ours that follows a curriculum."""
    named = {t.value for t in transformers.SchedulerType} - {"reduce_lr_on_plateau", "greedy"}
    assert named == {*SHAPES} - {"curriculum_cosine"}


def torch_logps(hf, prompts, completions, group, temperature):
    """Log-probs and entropies of every completion token, one sequence at a time."""
    logps, entropies = [], []
    for g, completion in zip(group, completions, strict=True):
        ids = torch.tensor(np.concatenate([prompts[g], completion]).astype(np.int64))
        log_p = torch.log_softmax(hf(ids[None]).logits[0, len(prompts[g]) - 1:-1] / temperature, -1)
        logps.append(log_p.gather(1, ids[len(prompts[g]):, None])[:, 0])
        entropies.append(-(log_p.exp() * log_p).sum(-1))
    return logps, entropies


def torch_grpo_loss(logps, entropies, old, ref, advantages, mask, *, loss_type, beta, epsilon, epsilon_high, delta,
                    entropy_coef, max_completion_length,
                    importance_sampling_level):
    """The loss of one step as the papers state it, by a loop over completions."""
    tokens, sequences = float(sum(m.sum() for m in mask)), len(mask)
    loss = 0.0
    for i, m in enumerate(mask):
        weight = {"grpo": m / (sequences * max(1.0, float(m.sum()))), "dapo": m / tokens,
                  "dr_grpo": m / (sequences * max_completion_length)}[loss_type]
        log_ratio = logps[i] - old[i]
        if importance_sampling_level == "sequence":
            log_ratio = ((log_ratio * m).sum() / m.sum()).expand_as(log_ratio)
        ratio = log_ratio.exp()
        free = ratio if delta is None else torch.clamp(ratio, max=delta)
        policy = -torch.minimum(free * advantages[i], torch.clamp(ratio, 1 - epsilon, 1 + epsilon_high) * advantages[i])
        x = ref[i] - logps[i]
        loss = (loss + ((policy + beta * (x.exp() - x - 1)) * weight).sum() - entropy_coef * (entropies[i] * m).sum()
                / tokens)
    return loss


STEPS = [
    {"loss_type": "grpo"}, {"loss_type": "grpo", "beta": 0.04}, {"loss_type": "dapo", "epsilon_high": 0.28},
    {"loss_type": "dapo", "beta": 0.1, "delta": 1.5}, {"loss_type": "dr_grpo", "entropy_coef": 0.01},
    {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 0.05, "epsilon_high": 0.08},
]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("options", STEPS, ids=str)
@pytest.mark.parametrize("on_policy", [True, False], ids=["on policy", "off policy"])
def test_whole_grpo_step(options, temperature, on_policy):
    """Loss, gradient and the weights after AdamW, from completions the model drew itself."""
    hf, model = both_models()
    prompts, _, _, rng = make_rollout(1)
    out = model.generate(prompts, 4, 20, temperature=temperature, stop_ids=np.arange(5, dtype=np.int32), seed=1)
    completions = np.split(out["tokens"], np.cumsum(out["lengths"])[:-1])
    group = np.repeat(np.arange(3, dtype=np.int32), 4)
    old, ref = (out["policy_logprobs"] + rng.normal(0, spread, len(out["tokens"])).astype(np.float32)
                for spread in (0.0 if on_policy else 0.3, 0.3))
    advantages = ops.group_advantages(rng.normal(size=12).astype(np.float32), 4)
    mask = (rng.random(len(old)) < 0.9).astype(np.uint8)
    mask[np.cumsum(out["lengths"]) - 1] = 1

    settings = {"beta": 0.0, "epsilon": 0.2, "epsilon_high": 0.2, "delta": None, "entropy_coef": 0.0,
                "max_completion_length": 20,
                "importance_sampling_level": "token"} | options
    pieces = [np.split(x, np.cumsum(out["lengths"])[:-1]) for x in (old, ref, mask.astype(np.float32))]
    logps, entropies = torch_logps(hf, prompts, completions, group, temperature)
    loss = torch_grpo_loss(logps, entropies, *[[torch.from_numpy(x.copy()) for x in piece] for piece in pieces[:2]],
                           torch.from_numpy(advantages), [torch.from_numpy(x.copy()) for x in pieces[2]], **settings)
    optimizer = torch.optim.AdamW(decay_groups(hf, 0.1), lr=1e-3)
    loss.backward()
    want_norm = torch.nn.utils.clip_grad_norm_(hf.parameters(), math.inf)

    trainer = _core.Trainer(model, weight_decay=0.1)
    normalizer = {"tokens": float(mask.sum()), "sequences": 12.0}
    core_options = settings | {"use_bias_correction_kl": False}
    if on_policy:
        got, coef, entropy_coef, _ = _core.grpo_loss(old, old, advantages, mask, ref, out["entropies"], out["lengths"],
                                                     core_options, normalizer)
        trainer.accumulate(prompts, completions, group, coef, entropy_coef=entropy_coef, temperature=temperature)
    else:
        got, _, _, _ = trainer.accumulate_loss(prompts, completions, group, old_logps=old, advantages=advantages,
                                               mask=mask, ref_logps=ref,
                                               loss=core_options, normalizer=normalizer, temperature=temperature)
    assert got == pytest.approx(loss.item(), rel=1e-4, abs=1e-6)
    for name, p in hf.named_parameters():
        assert relative_error(trainer.gradient(name), p.grad.numpy()) <= 1e-4
    assert trainer.step(1e-3, 0.5) == pytest.approx(float(want_norm), rel=1e-5)
    torch.nn.utils.clip_grad_norm_(hf.parameters(), 0.5)
    optimizer.step()
    for name, p in hf.named_parameters():
        assert relative_error(model.get_tensor(name), p.detach().numpy()) <= 1e-4


def test_many_steps_follow_torch():
    """Twenty steps of supervised training, each side with its own gradients: the losses stay together."""
    hf, model = both_models()
    trainer = _core.Trainer(model, weight_decay=0.01)
    optimizer = torch.optim.AdamW(decay_groups(hf, 0.01), lr=3e-3)
    prompts, completions, group, _ = make_rollout(2)
    tokens = sum(map(len, completions))
    losses = []
    for _ in range(20):
        logps, _ = trainer.accumulate(prompts, completions, group, np.full(tokens, -1 / tokens, np.float32))
        trainer.step(3e-3, 1.0)
        loss = -torch.cat(torch_logps(hf, prompts, completions, group, 1.0)[0]).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(hf.parameters(), 1.0)
        optimizer.step()
        losses.append((-float(logps.mean()), loss.item()))
    ours, theirs = zip(*losses, strict=True)
    assert ours == pytest.approx(theirs, rel=2e-3)
    assert ours[-1] < ours[0] - 0.5
