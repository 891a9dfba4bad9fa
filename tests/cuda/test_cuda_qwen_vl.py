"""Qwen-VL's tower and resampler on the emulated plugin: near the reference, and to the bit the same however images are
batched. And its text beyond seq_length."""
import numpy as np

from checks.exactness import assert_recorded_is_computed, assert_same, completions_of, groups_of, make_prompts
from tiny_models import build as build_text, qwen, relative_error
from tiny_qwen_vl import V, build, entries, noise, prompt, qwen_vl, widened


def test_features_and_gradients(emulated):
    config = qwen_vl(L=1, layers=1, side=3)
    (core, weights), x = build(config, emulated, table_side=2), noise(config, 2)
    ref, _ = build(config, "ref", weights, table_side=2)
    together = core.see(entries(config, x))
    for found, alone, wanted in zip(together, (core.see([each])[0] for each in entries(config, x)),
                                    ref.see(entries(config, x)), strict=True):
        assert (found == alone).all() and relative_error(widened(found), wanted) < 0.02
    made = [prompt(config, x[:1]), prompt(config, x)]
    prompts, images = [ids for ids, *_ in made], [beside for *_, beside in made]
    completions, group = [np.array([1, 2], np.int32), np.array([V - 1], np.int32)], np.arange(2, dtype=np.int32)
    coef = np.array([1, -2, 1.5], np.float32)

    def run(model, **how):
        return model.logprob_grads(prompts, completions, group, coef, images=images, train_vision="all", **how)

    logp, grads = run(core)
    again, others = run(core, token_budget=1, recompute=True)
    assert (logp == again).all() and all((others[name] == grad).all() for name, grad in grads.items())
    wanted, slopes = run(ref)
    assert relative_error(logp, wanted) < 0.02
    for name, grad in grads.items():
        assert relative_error(grad, slopes[name]) < 0.15, name


def test_prompts_that_stretch_ropes(emulated):
    """Rollout = training with prompts of all lengths in a batch; near the reference, forward and backward."""
    config = qwen(d=32, heads=2, F=24, V=61, seq_length=8)
    model, ref, prompts = build_text(config, emulated), build_text(config, "ref"), make_prompts((3, 8, 9, 33), V=61)
    out = model.generate(prompts, 2, 12, seed=5, slots=3)
    assert_recorded_is_computed(model, prompts, out, 2)
    assert_same(out, model.generate(prompts, 2, 12, seed=5, slots=8, lookahead=1))
    coef = np.linspace(-1, 1, len(out["tokens"]), dtype=np.float32)
    rows = prompts, completions_of(out), groups_of(prompts, 2), coef
    (logp, grads), (wanted, slopes) = (each.logprob_grads(*rows) for each in (model, ref))
    assert_same(logp, out["policy_logprobs"])
    assert relative_error(logp, wanted) < 0.02
    for name, grad in grads.items():
        assert relative_error(grad, slopes[name]) < 0.15, name
