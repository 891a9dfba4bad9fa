"""The whole model on the emulated plugin: rollouts, training, parity with transformers' goldens, at the size of a
toy."""
import gc
from pathlib import Path

import numpy as np
import pytest

import toy
from checks import check_same_run
from checks.exactness import (
    assert_recorded_is_computed,
    assert_same,
    completions_of,
    gradients,
    gradients_of,
    groups_of,
    make_prompts,
    rollout_into,
)
from checks.look import check_looking
from golden_checks import check_gradients, check_logits, check_scores
from grpo import _core
from grpo.errors import OutOfMemoryError
from grpo.model.families import spec_of
from tiny_models import build, config, relative_error
from tiny_vision import TOWER, Scene, build_vlm, reals, vlm

GOLDENS = Path(__file__).parents[1] / "support" / "goldens"
MODEL = config("qwen3", d=32, heads=(4, 2), D=16, F=48, V=97, L=2)


@pytest.mark.parametrize("name", ["qwen2_head64", "qwen3_tied", "llama3_rope"])
def test_goldens(emulated, name):
    with np.load(GOLDENS / f"{name}.npz") as file:
        golden = dict(file)
    check_logits(golden, emulated)
    check_scores(golden, emulated)
    check_gradients(golden, emulated)


@pytest.mark.parametrize("capability, options", [
    ("80", {}), ("90", {}), ("80", {"temperature": 0.7, "top_k": 20, "top_p": 0.9, "repetition_penalty": 1.1}),
    ("80", {"temperature": 0.0}),
], indirect=["capability"], ids=str)
def test_recorded_logprobs_are_the_policys(capability, emulated, options):
    """Rollout = training, with more sequences than slots and prompts around the borders of pages."""
    model, prompts = build(MODEL, emulated), make_prompts((1, 31, 32, 33), V=97)
    out = model.generate(prompts, 2, 8, seed=5, slots=3, stop_ids=np.arange(0, 97, 12, dtype=np.int32), **options)
    assert_recorded_is_computed(model, prompts, out, 2, options.get("temperature", 1.0))
    assert_same(out, model.generate(prompts, 2, 8, seed=5, slots=8, stop_ids=np.arange(0, 97, 12, dtype=np.int32),
                                    **options))


def test_recorded_logprobs_behind_a_long_prompt(emulated):
    """Rollout = training where the slots of a group read a chunk of their prompt together, and where each reads it for
    itself."""
    model, prompts = build(MODEL | {"num_hidden_layers": 1}, emulated), make_prompts((550, 5), V=97)
    out = model.generate(prompts, 3, 3, seed=5, slots=6)
    assert_recorded_is_computed(model, prompts, out, 3)
    assert_same(out, model.generate(prompts, 3, 3, seed=5, slots=1))


def test_kept_activations_give_the_same_update(emulated):
    """The rollout's forward is the training forward."""
    model, prompts = build(MODEL, emulated), make_prompts((1, 33), V=97)
    out, there = rollout_into(_core.Store(model), model, prompts, 2, 6, rows=100, slots=3, temperature=0.8)
    assert (out["stored"] >= 0).all()
    assert_same(gradients_of(model, prompts, out, 2, **there), gradients_of(model, prompts, out, 2))


def test_embeddings(emulated):
    model, texts = build(MODEL, emulated), make_prompts((1, 33, 40), V=97)
    assert_same(model.embed(texts), np.concatenate([model.embed([text]) for text in texts]))
    assert relative_error(model.embed(texts), build(MODEL, "ref").embed(texts)) < 0.02


def test_looking(emulated):
    whole = check_looking(MODEL, emulated, 70)
    assert relative_error(whole, check_looking(MODEL, "ref", 70)) < 0.03


@pytest.mark.usefixtures("capability")
def test_gradients_do_not_depend_on_the_split(emulated):
    """Same seed, same run."""
    prompts, completions = make_prompts((5, 33), V=97), make_prompts((3, 33, 1, 8), V=97, seed=2)
    coef, results = np.linspace(-1, 1, 45, dtype=np.float32), []
    for options in ({}, {"token_budget": 1, "recompute": True}):
        model = build(MODEL, emulated)
        trainer = _core.Trainer(model, weight_decay=0.1, **options)
        trainer.accumulate(prompts, completions, groups_of(prompts, 2), coef)
        grads = gradients(model, trainer)
        trainer.step(1e-2, 1.0)
        results.append(grads | {f"{name} after": model.get_tensor(name) for name in grads})
    assert_same(*results)


def test_the_same_run_twice(emulated):
    check_same_run(emulated, steps=2)


def test_a_model_too_large_is_an_error(emulated):
    huge = config("qwen2", d=8192, heads=(64, 64), D=128, F=32768, V=97)
    with pytest.raises(OutOfMemoryError, match="weights need 2.15 GB"):
        _core.Model("cuda", spec_of(huge))
    assert build(MODEL, emulated).logits(np.arange(5, dtype=np.int32)).shape == (5, 97)


def test_a_run(emulated, tmp_path):
    """A trainer's whole step, a reference and its KL among it; memory is given back."""
    gc.collect()                             # of earlier tests
    before = _core.memory_in_use()
    trainer = toy.trainer(tmp_path, policy=toy.model(emulated), max_steps=2, max_completion_length=3, num_generations=2,
                          beta=0.01)
    records = [step.metrics for step in trainer]
    assert len(records) == 2 and all(np.isfinite(record["loss"]) and record["kl"] >= 0 for record in records)
    assert trainer.model.device == "cuda" and trainer.model.dtype == "bfloat16"
    del trainer
    gc.collect()
    assert _core.memory_in_use() == before


SIGHT = [[(1, 4, 6), (1, 2, 4)], [], [(1, 6, 2)]]


@pytest.mark.parametrize("capability, family", [("80", "qwen2_vl"), ("80", "qwen2_5_vl"), ("90", "qwen3_vl")],
                         indirect=["capability"])
def test_a_model_that_sees(capability, emulated, family):
    """Features, logits and gradients of text and tower near ref's; rollout = training, and no bit depends on the
    split."""
    scene = Scene(vlm(family, heads=(2, 1), F=40), SIGHT)
    model, ref = build_vlm(scene.config, emulated), build_vlm(scene.config, "ref")
    images = scene.seen(model)
    for got, want in zip(model.see(scene.pictures(), patch_budget=1), ref.see(scene.pictures()), strict=True):
        assert relative_error(reals(got), want) < 0.01
    for ids, ours, exact in zip(scene.prompts, images, scene.seen(ref), strict=True):
        assert relative_error(model.logits(ids, ours), ref.logits(ids, exact)) < 0.01
    out = model.generate(scene.prompts, 2, 4, images=images, seed=5, slots=3)
    batch, coef = (scene.prompts, completions_of(out), groups_of(scene.prompts, 2)), np.linspace(-1, 1, 24, dtype="f")
    grads = {}
    for options in ({}, {"token_budget": 1, "recompute": True}):
        logps, found = model.logprob_grads(*batch, coef, images=scene.images, train_vision="all", **options)
        assert_same(logps, out["policy_logprobs"])
        assert_same(found, grads or found)
        grads = found
    _, want = ref.logprob_grads(*batch, coef, images=scene.images, train_vision="all")
    for part in (True, False):
        assert relative_error(*(np.concatenate([side[name].ravel() for name in want if name.startswith(TOWER) == part])
                                for side in (grads, want))) < 0.05
