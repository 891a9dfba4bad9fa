"""Prompts of more than seq_length tokens of the first Qwen: the rope that their length stretches (use_dynamic_ntk) and
queries scaled by the logarithm of their place (use_logn_attn), against a statement of them in float64; the same in
rollout and training, whatever stands beside them."""
from dataclasses import replace

import numpy as np
import pytest

import qwen_vl_statement
from checks.exactness import assert_recorded_is_computed, assert_same, completions_of, groups_of, make_prompts
from grpo import _core
from grpo.errors import ConfigError
from grpo.model.families import spec_of
from grpo.model.families.spec import ROPES_MAX, Rope
from qwen_vl_statement import base, logits
from tiny_models import build, qwen, random_weights, relative_error
from tiny_qwen_vl import V as IMAGE_V, build as build_vl, entries, noise, prompt, qwen_vl, widened

L, V = 16, 61
LENGTHS = (1, L - 1, L, L + 1, 2 * L, 2 * L + 1, 3 * L, 4 * L, 5 * L)
LIMITS = {"ref": 1e-5, "cpu": 4e-2}
FLAGS = {"both": {}, "rope": {"use_logn_attn": False}, "queries": {"use_dynamic_ntk": False},
         "none": {"use_logn_attn": False, "use_dynamic_ntk": False}}


@pytest.fixture(params=FLAGS)
def config(request):
    return qwen(d=48, heads=2, F=40, V=V, L=2, seq_length=L) | FLAGS[request.param]


BOTH = qwen(d=48, heads=2, F=40, V=V, L=2, seq_length=L)


def weights_of(model, seed=0):
    return {name: x.astype(np.float64) for name, x in random_weights(model.tensors(), seed).items()}


def log_softmax(z):
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def scored(weights, config, ids, completion):
    """Log-probabilities of a completion's tokens."""
    logp = log_softmax(logits(weights, config, [*ids, *completion[:-1]], prompt_length=len(ids)))
    return logp[np.arange(len(ids) - 1, len(logp)), completion]


def batch(seed=3):
    """Groups of prompts of all LENGTHS, two completions each, most of which cross a multiple of L."""
    rng = np.random.default_rng(seed)
    completions = [rng.integers(0, V, n).astype(np.int32) for n in rng.integers(1, 2 * L + 2, 2 * len(LENGTHS))]
    coef = rng.standard_normal(sum(map(len, completions))).astype(np.float32)
    return make_prompts(LENGTHS, V=V), completions, groups_of(LENGTHS, 2), coef


def test_bases():
    for length, alpha in ((1, 1), (8, 1), (16, 1), (17, 3), (32, 3), (33, 7), (48, 7), (64, 7), (65, 15), (80, 15),
                          (2048, 255)):
        assert base(BOTH, length) == pytest.approx(1e4 * alpha ** (24 / 22), rel=1e-12)
        stretched = spec_of(BOTH).ropes[{1: 0, 3: 1, 7: 2, 15: 3, 255: 7}[alpha]].inv_freq
        np.testing.assert_allclose(stretched, base(BOTH, length) ** (-np.arange(0, 24, 2) / 24), rtol=1e-6)


@pytest.mark.parametrize("device", LIMITS)
def test_logits(config, device):
    model = build(config, device)
    weights = weights_of(model)
    for ids in make_prompts(LENGTHS, V=V):
        assert relative_error(model.logits(ids), logits(weights, config, ids)) < LIMITS[device]


@pytest.mark.parametrize("device", LIMITS)
def test_completions_go_by_their_prompt(config, device):
    model, (prompts, completions, group, _) = build(config, device), batch()
    weights = weights_of(model)
    wanted = np.concatenate([scored(weights, config, prompts[g], c) for g, c in zip(group, completions, strict=True)])
    found = model.logprobs(prompts, completions, group)[0]
    assert relative_error(found, wanted) < LIMITS[device]
    if device == "ref":
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("flag", ["rope", "queries"])
def test_each_rule_matters(flag):
    """Beyond L alone: at L and before, and for completions of such prompts that no scale meets, not one bit."""
    with_it, without = (build(BOTH | FLAGS[name], "ref") for name in (flag, "none"))
    for ids in make_prompts(LENGTHS, V=V):
        one, other = with_it.logits(ids), without.logits(ids)
        assert (one[:L] == other[:L]).all() or (flag == "rope" and len(ids) > L)
        assert len(ids) <= L or relative_error(one, other) > 1e-3
    ids, completion = make_prompts((L, 2 * L), V=V)
    one, other = (model.logprobs([ids], [completion], groups_of([0], 1))[0] for model in (with_it, without))
    assert (one == other).all() == (flag == "rope")


@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_are_slopes(config, recompute):
    """Of every tensor, in a random direction."""
    model, (prompts, completions, group, coef) = build(config, "ref"), batch()
    _, grads = model.logprob_grads(prompts, completions, group, coef, recompute=recompute)
    weights, rng, step = weights_of(model), np.random.default_rng(5), 1e-5

    def total(weights):
        found = [scored(weights, config, prompts[g], c) for g, c in zip(group, completions, strict=True)]
        return float(coef @ np.concatenate(found))

    for name, grad in grads.items():
        way = rng.standard_normal(grad.shape) * (np.abs(weights[name]).max() / np.sqrt(grad.size))
        ends = [total(weights | {name: weights[name] + sign * step * way}) for sign in (1, -1)]
        slope, scale = (ends[0] - ends[1]) / (2 * step), np.linalg.norm(grad) * np.linalg.norm(way)
        assert abs(float((grad * way).sum()) - slope) < 1e-4 * abs(slope) + 1e-5 * scale + 1e-8, name


@pytest.mark.parametrize("device", LIMITS)
def test_rollout_is_training(config, device, threads):
    """Groups of all lengths in one batch; completions that cross L, 2 L and 4 L; any slots, threads, splits."""
    model, prompts = build(config, device), make_prompts(LENGTHS, V=V)
    out = model.generate(prompts, 3, 2 * L + 3, seed=3, slots=5)
    assert_recorded_is_computed(model, prompts, out, 3)
    weights, completions = weights_of(model), completions_of(out)
    wanted = [scored(weights, config, prompts[i // 3], c) for i, c in enumerate(completions)]
    assert relative_error(out["policy_logprobs"], np.concatenate(wanted)) < LIMITS[device]
    coef = np.random.default_rng(1).standard_normal(len(out["tokens"])).astype(np.float32)
    rows = prompts, completions, groups_of(prompts, 3), coef
    logp, grads = model.logprob_grads(*rows, token_budget=1 << 20)
    assert_same(logp, out["policy_logprobs"])
    threads(3)
    assert_same(out, model.generate(prompts, 3, 2 * L + 3, seed=3, slots=32, lookahead=4))
    for how in ({"token_budget": 1}, {"token_budget": 1 << 20, "recompute": True}):
        again, others = model.logprob_grads(*rows, **how)
        assert_same(again, logp)
        assert_same(others, grads)


def test_texts_are_prompts():
    """One that is embedded turns by its own length, whatever is beside it."""
    model, texts = build(BOTH, "ref"), make_prompts(LENGTHS, V=V)
    together = model.embed(texts)
    assert_same(together, np.concatenate([model.embed([text]) for text in texts]))
    other = build(BOTH | FLAGS["queries"], "ref").embed(texts)
    assert [bool((x == y).all()) for x, y in zip(together, other, strict=True)] == [n <= L for n in LENGTHS]


@pytest.mark.parametrize("device", LIMITS)
def test_images_count(device):
    """Tokens of images are those of a prompt: here of 10, 36 and 62, between prompts of words."""
    config = qwen_vl(side=4, queries=16, seq_length=L, L=2)
    model, weights = build_vl(config, device)
    weights = {name: x.astype(np.float64) for name, x in weights.items()}
    pixels = noise(config, 3)
    made = [model.see(entries(config, some)) if some else [] for some in ([], pixels[:1], pixels[1:], [])]
    found = [prompt(config, some, some, words) for some, words in zip(made, (10, 17, 24, 33), strict=True)]
    prompts, images = [ids for ids, *_ in found], [beside for *_, beside in found]
    out = model.generate(prompts, 2, L + 4, images=images, seed=4, slots=3)
    logp, _ = model.logprobs(prompts, completions_of(out), groups_of(prompts, 2), images=images)
    assert_same(out["policy_logprobs"], logp)
    wanted = []
    for i, completion in enumerate(completions_of(out)):
        (ids, places, _), some = found[i // 2], made[i // 2]
        seen = np.concatenate([widened(x)[0] for x in some]).astype(np.float64) if some else ()
        z = logits(weights, config, [*ids, *completion[:-1]], seen, places, prompt_length=len(ids))
        wanted.append(log_softmax(z)[np.arange(len(ids) - 1, len(z)), completion])
    assert relative_error(logp, np.concatenate(wanted)) < LIMITS[device]
    assert max(out["tokens"]) < IMAGE_V


@pytest.mark.parametrize("device", LIMITS)
def test_the_longest_sequence(device):
    """2^7 L tokens, to which the last of ROPES_MAX ropes belongs."""
    config = qwen(d=16, heads=2, F=12, V=V, seq_length=2)
    model, (ids,) = build(config, device), make_prompts([257], V=V)
    assert relative_error(model.logits(ids[:256]), logits(weights_of(model), config, ids[:256])) < LIMITS[device]
    rows = [ids[:200]], [ids[:57]], np.zeros(1, np.int32)
    for call in (lambda: model.logits(ids), lambda: model.generate([ids[:200]], 1, 57), lambda: model.embed([ids]),
                 lambda: model.logprobs(*rows),
                 lambda: model.logprob_grads(*rows, np.ones(57, np.float32))):
        with pytest.raises(ConfigError, match="a sequence of 257 tokens: this model is defined up to 256 tokens"):
            call()
    assert len(model.generate([ids[:200]], 1, 56)["tokens"]) == 56


SPEC = spec_of(BOTH)
WIDER = replace(SPEC.layers[1], attention=replace(SPEC.layers[1].attention, heads=1, kv_heads=1, head_dim=48, rope=7))
HIGHER = replace(SPEC.layers[1], attention=replace(SPEC.layers[1].attention, rope=1))


@pytest.mark.parametrize(("changes", "message"), [
    ({"stretch_after": -1}, "stretch_after is -1, must be 0 (never) or positive"),
    ({"log_after": -5}, "log_after is -5"), ({"log_after": 1}, "log_after is 1, must be 0 (never) or the base"),
    ({"max_positions": 0}, "stretch_after is 16, and max_positions says no limit"),
    ({"axes": 2}, "stretch_after, log_after: positions have 2 axes, must have 1"),
    ({"axes": 2, "stretch_after": 0}, "stretch_after, log_after: positions have 2 axes, must have 1"),
    ({"ropes": SPEC.ropes[:7]}, "layer 0: rope is 0, and prompts of 2048 tokens turn by rope 7 of 7"),
    ({"max_positions": 2049}, "layer 0: rope is 0, and prompts of 2049 tokens turn by rope 8 of 8"),
    ({"layers": (SPEC.layers[0], HIGHER)}, "layer 1: rope is 1, and prompts of 2048 tokens turn by rope 8 of 8"),
    ({"ropes": (*SPEC.ropes[:7], replace(SPEC.ropes[7], scale=2.0))}, "rope 7: scale is 2, and rope 0"),
    ({"ropes": (*SPEC.ropes[:7], Rope(np.ones(24, np.float32)))}, "inv_freq of rope 7 has 24 numbers"),
    ({"layers": (SPEC.layers[0], WIDER), "ropes": (*SPEC.ropes[:7], Rope(np.ones(24, np.float32)))},
     "inv_freq of rope 7 has 24 numbers"),
    ({"ropes": SPEC.ropes * 2}, f"ropes: 16 of them, must be 1..{ROPES_MAX}"),
])
def test_wrong_specs(changes, message):
    before = _core.memory_in_use()
    with pytest.raises(ValueError) as caught:
        _core.Model("ref", replace(SPEC, **changes))
    assert message in str(caught.value) and _core.memory_in_use() == before


@pytest.mark.parametrize("prompt_length", [L - 1, L + 1, 3 * L])
def test_weights_of_attention_are_the_stretched_ones(monkeypatch, prompt_length):
    """What attention() says tokens look at, in every layer, with prompts on either side of L."""
    model = build(BOTH, "ref")
    ids, completion = make_prompts([prompt_length], V=V)[0], np.arange(L + 2, dtype=np.int32)
    seen = []
    plain = qwen_vl_statement.softmax
    monkeypatch.setattr(qwen_vl_statement, "softmax", lambda z, xp: seen.append(plain(z, xp)) or seen[-1])
    logits(weights_of(model), BOTH, [*ids, *completion[:-1]], prompt_length=len(ids))
    rows = np.arange(len(ids) - 1, len(ids) + len(completion) - 1, dtype=np.int32)
    found = model.attention(ids, completion, np.arange(2, dtype=np.int32), rows)
    wanted = np.stack(seen).reshape(2, 2, len(ids) + len(completion) - 1, -1)[:, :, rows].transpose(0, 2, 1, 3)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, atol=1e-5)
