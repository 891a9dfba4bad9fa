"""A network is data: layers of other widths, windows, ropes, gates and norms than their neighbours' run as their own
part of the spec says."""
import numpy as np
import pytest

import spec_forward
from checks.exactness import assert_recorded_is_computed, assert_same, completions_of, groups_of, make_prompts
from grpo import _core
from grpo.model.families import Attention, Layer, Mlp, Rope, Spec
from tiny_models import random_weights, relative_error


def rope(head_dim, base=1e4, scale=1.0):
    return Rope((base ** (-np.arange(0, head_dim, 2) / head_dim)).astype(np.float32), scale)


WINDOWED = Layer(Attention(4, 2, 8, 0.3, window=5, rope=0, qkv_bias=True), Mlp(40))
NORMED = Layer(Attention(6, 1, 12, 0.2, rope=1, qk_norm=True), Mlp(10, "gelu_tanh"), post_norms=True)
WIDE = Layer(Attention(1, 1, 64, 0.1, window=33, rope=2), Mlp(100))
NARROW = Layer(Attention(3, 1, 2, 0.7, window=1, rope=3, qkv_bias=True, qk_norm=True), Mlp(3), post_norms=True)
ROPES = (rope(8), rope(12, 1e6, 1.3), rope(64), rope(2))
SPECS = {"widths": Spec(24, 131, (WINDOWED, NORMED, WIDE), ROPES, 1e-6, norm_offset=0.5, embed_scale=3.0, tie=True),
         "the largest first": Spec(31, 97, (WIDE, NARROW, NORMED), ROPES, 1e-5),
         "one norm of many": Spec(17, 97, (WINDOWED, WINDOWED, NORMED, WINDOWED), ROPES, 1e-6, norm_offset=1.0)}
BATCH = make_prompts((1, 20, 40), V=97), make_prompts((3, 33, 1, 8, 50, 2), V=97, seed=4), groups_of(range(3), 2)
COEF = np.random.default_rng(1).normal(size=97).astype(np.float32)


@pytest.fixture(params=SPECS)
def spec(request):
    return SPECS[request.param]


def model_of(spec, device):
    """The core's model and its weights."""
    model = _core.Model(device, spec)
    weights = {name: w - np.float32(spec.norm_offset) if name.endswith("norm.weight") else w
               for name, w in random_weights(model.tensors(), 3).items()}
    for name, w in weights.items():
        model.set_tensor(name, w)
    return model, weights


@pytest.mark.parametrize("length", [1, 32, 33, 97])
def test_logits(spec, length):
    model, weights = model_of(spec, "ref")
    ids, = make_prompts([length], V=97)
    assert relative_error(model.logits(ids), spec_forward.logits(spec, weights, ids)) < 2e-5


def test_the_gradient_is_that_of_the_objective(spec):
    """Along itself, by central differences."""
    model, weights = model_of(spec, "ref")
    _, grads = model.logprob_grads(*BATCH, COEF)
    norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in grads.values()))
    values = []
    for sign in (1, -1):
        for name, g in grads.items():
            model.set_tensor(name, weights[name] + np.float32(sign * 5e-4 / norm) * g)
        values.append(float(COEF.astype(np.float64) @ model.logprobs(*BATCH)[0]))
    assert (values[0] - values[1]) / 1e-3 == pytest.approx(norm, rel=2e-2)


def test_recomputed_and_split_gradients(spec, device):
    model, _ = model_of(spec, device)
    kept = model.logprob_grads(*BATCH, COEF)[1]
    assert_same(kept, model.logprob_grads(*BATCH, COEF, recompute=True, token_budget=50)[1])


@pytest.mark.parametrize("inputs_only", [False, True])
def test_rollouts(spec, device, inputs_only):
    """What was recorded is what is computed, and what was stored is what a forward would leave."""
    model, _ = model_of(spec, device)
    store, prompts = _core.Store(model, inputs_only=inputs_only), make_prompts((1, 7, 33, 64), V=97)
    out = model.generate(prompts, 3, 20, seed=2, slots=5, store=store, store_rows=1000,
                         stop_ids=np.arange(0, 97, 12, dtype=np.int32))
    stored = out.pop("stored")
    assert_recorded_is_computed(model, prompts, out, 3)
    gradients = []
    for kept in (None, store):
        trainer = _core.Trainer(model, recompute=inputs_only)
        trainer.accumulate(prompts, completions_of(out), groups_of(prompts, 3), np.ones(len(out["tokens"]), np.float32),
                           store=kept, stored=stored if kept else None)
        gradients.append({name: trainer.gradient(name) for name, _ in model.tensors()})
    assert (stored >= 0).all()
    assert_same(*gradients)
