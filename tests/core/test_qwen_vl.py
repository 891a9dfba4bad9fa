"""The tower of Qwen-VL and its resampler against a statement of them in float64: features, log-probabilities and
gradients; images together and alone; the order of rows in files."""
import numpy as np
import pytest

from grpo import _core
from grpo.errors import ConfigError
from qwen_vl_statement import logits, see
from tiny_models import relative_error
from tiny_qwen_vl import IMG, V, build, entries, make_weights, noise, prompt, qwen_vl, spec_of, widened

VISUAL = "transformer.visual."
POOL = VISUAL + "attn_pool."
LIMITS = {"ref": 1e-5, "cpu": 2e-2}
# widths that are no powers of two, heads of 24 to 104, grids beside ROW_ALIGN, more queries than patches and fewer
SHAPES = {
    "D24": (qwen_vl(), 16), "D104, one layer": (qwen_vl(width=208, tower_heads=2, layers=1), 2),
    "D80, 36 patches": (qwen_vl(width=160, tower_heads=2, side=6, queries=9, d=256), 3),
    "queries than patches": (qwen_vl(side=3, queries=36, d=384, heads=3), 2),
    "one query, one head": (qwen_vl(width=44, tower_heads=1, side=5, queries=1, layers=3), 5),
    "one patch": (qwen_vl(side=1, queries=4), 1), "64 patches": (qwen_vl(side=8, queries=16, L=1), 4),
}


@pytest.fixture(params=SHAPES)
def shape(request):
    return SHAPES[request.param]


def wide(weights):
    return {name: x.astype(np.float64) for name, x in weights.items()}


@pytest.mark.parametrize("device", LIMITS)
def test_features(shape, device):
    config, table = shape
    core, weights = build(config, device, table_side=table)
    pixels = noise(config, 2)
    for x, found in zip(pixels, core.see(entries(config, pixels)), strict=True):
        assert found.shape == (1, config["visual"]["n_queries"], config["hidden_size"])
        wanted = see(wide(weights), config["visual"], x.astype(np.float64))
        assert relative_error(widened(found)[0], wanted) < LIMITS[device]


@pytest.mark.parametrize("device", LIMITS)
def test_logits(shape, device):
    config, table = shape
    core, weights = build(config, device, table_side=table)
    pixels = noise(config, 2)
    made = core.see(entries(config, pixels))
    ids, places, beside = prompt(config, pixels, made)
    for images, features, at in ((None, (), ()), (beside, np.concatenate([widened(x)[0] for x in made]), places)):
        wanted = logits(wide(weights), config, ids, features, at)
        assert relative_error(core.logits(ids, images), wanted) < LIMITS[device]


def features_of(config, weights, pixels):
    return [[see(weights, config["visual"], x.astype(np.float64)) for x in some] for some in pixels]


def scored(config, weights, features, completions, coef):
    """sum of coef logprob of the statement; prompt i has features[i]"""
    total, coef = 0.0, iter(coef)
    for some, completion in zip(features, completions, strict=True):
        ids, places, _ = prompt(config, some)
        z = logits(weights, config, [*ids, *completion[:-1]], np.concatenate(some) if some else (), places)
        logp = z - np.log(np.exp(z).sum(-1, keepdims=True))
        total += sum(next(coef) * logp[len(ids) - 1 + t, token] for t, token in enumerate(completion))
    return total


def batch(config, seed=3):
    """(prompts, completions, group, coef, images as pixels, the pixels of each)"""
    x = noise(config, 3, seed)
    pixels = [x[:1], [], x[1:]]
    rng = np.random.default_rng(seed)
    completions = [rng.integers(0, V, n).astype(np.int32) for n in (3, 2, 4)]
    made = [prompt(config, some) for some in pixels]
    coef = rng.standard_normal(9).astype(np.float32)
    return [ids for ids, _, _ in made], completions, np.arange(3, dtype=np.int32), coef, [i for *_, i in made], pixels


@pytest.mark.parametrize(("config", "table"), [
    (qwen_vl(), 16), (qwen_vl(side=3, queries=16, L=1, layers=1), 2),
    (qwen_vl(width=44, tower_heads=1, side=5, queries=1, L=1, layers=1), 5)])
def test_gradients_are_slopes(config, table):
    """Of every tensor, in a random direction."""
    core, weights = build(config, "ref", table_side=table)
    prompts, completions, group, coef, images, pixels = batch(config)
    _, grads = core.logprob_grads(prompts, completions, group, coef, images=images, train_vision="all")
    assert set(weights) - set(grads) == {POOL + "pos_embed"}
    weights, rng, step = wide(weights), np.random.default_rng(5), 1e-4
    features = features_of(config, weights, pixels)
    for name, grad in grads.items():
        way = rng.standard_normal(grad.shape) * (np.abs(weights[name]).max() / np.sqrt(grad.size))
        ends = []
        for sign in (1, -1):
            moved = weights | {name: weights[name] + sign * step * way}
            seen = features_of(config, moved, pixels) if name.startswith(VISUAL) else features
            ends.append(scored(config, moved, seen, completions, coef))
        slope, scale = (ends[0] - ends[1]) / (2 * step), np.linalg.norm(grad) * np.linalg.norm(way)
        assert abs(float((grad * way).sum()) - slope) < 1e-4 * abs(slope) + 1e-5 * scale + 1e-8, name


@pytest.mark.parametrize("shape", ["queries than patches", "64 patches"])
@pytest.mark.parametrize("device", LIMITS)
def test_how_images_are_batched_changes_no_bit(shape, device):
    config, table = SHAPES[shape]
    core, _ = build(config, device, table_side=table)
    prompts, completions, group, coef, images, _ = batch(config)

    def run(**how):
        return core.logprob_grads(prompts, completions, group, coef, images=images, **{"train_vision": "all"} | how)

    logp, grads = run(token_budget=1 << 20)
    for how in ({"token_budget": 1}, {"token_budget": 1 << 20, "recompute": True}):
        again, others = run(**how)
        assert (again == logp).all() and all((others[name] == grad).all() for name, grad in grads.items())
    pixels = entries(config, noise(config, 3))
    together, alone = core.see(pixels), [core.see([each])[0] for each in pixels]
    budget = core.see(pixels, patch_budget=1)
    assert all((x == y).all() and (x == z).all() for x, y, z in zip(together, alone, budget, strict=True))


def test_only_the_resampler_is_trained():
    config, table = SHAPES["D24"]
    core, _ = build(config, "ref", table_side=table)
    prompts, completions, group, coef, images, _ = batch(config)
    grads = {what: core.logprob_grads(prompts, completions, group, coef, images=images, train_vision=what)[1]
             for what in ("merger", "all")}
    trained = {name for name in grads["merger"] if name.startswith(VISUAL)}
    of_it = (POOL, VISUAL + "ln_post", VISUAL + "proj")
    assert trained == {name for name, _ in core.tensors() if name.startswith(of_it)} - {POOL + "pos_embed"}
    assert all((grads["all"][name] == grad).all() and grad.any() for name, grad in grads["merger"].items())


@pytest.mark.parametrize("device", LIMITS)
def test_tensors_come_back_as_files_have_them(device):
    """q, k and v of a head stand beside each other in files, whatever a trainer made of the tensor."""
    config, table = SHAPES["D24"]
    core, weights = build(config, device, table_side=table)
    assert all((core.get_tensor(name) == weights[name]).all() for name, _ in core.tensors())
    trainer = _core.Trainer(core, train_vision="all", moment_dtype="bfloat16")
    prompts, completions, group, coef, images, _ = batch(config)
    trainer.accumulate(prompts, completions, group, coef, images=images)
    _, grads = core.logprob_grads(prompts, completions, group, coef, images=images, train_vision="all")
    block = VISUAL + "transformer.resblocks.1.attn.in_proj."
    for name in (block + "weight", block + "bias"):
        assert (trainer.gradient(name) == grads[name]).all()
        assert (trainer.get_state("master", name) == weights[name]).all()
        for kind in ("m", "v", "master"):
            values = make_weights([(name, weights[name].shape)], seed=len(kind))[name]
            kept = values.copy()
            trainer.set_state(kind, name, values)
            assert (values == kept).all() and (trainer.get_state(kind, name) == values).all()
        assert (core.get_tensor(name) == values).all()
    trainer.step(0.1)
    assert (core.get_tensor(POOL + "pos_embed") == weights[POOL + "pos_embed"]).all()
    assert (core.get_tensor(POOL + "query") != weights[POOL + "query"]).any()


def test_the_order_of_rows_is_one_of_heads():
    """What a head of another order would see: swapping two heads in the file, with what reads them, changes nothing."""
    config, table = SHAPES["D104, one layer"]
    core, weights = build(config, "ref", table_side=table)
    pixels = entries(config, noise(config, 1))
    before = core.see(pixels)[0]
    block, D = VISUAL + "transformer.resblocks.0.attn.", 104
    rows = np.r_[3 * D:6 * D, :3 * D]
    for name, moved in ((block + "in_proj.weight", weights[block + "in_proj.weight"][rows]),
                        (block + "in_proj.bias", weights[block + "in_proj.bias"][rows]),
                        (block + "out_proj.weight", weights[block + "out_proj.weight"][:, np.r_[D:2 * D, :D]])):
        core.set_tensor(name, np.ascontiguousarray(moved))
    assert relative_error(core.see(pixels)[0], before) < 1e-6


def test_images_of_another_size_are_refused():
    config, table = SHAPES["D24"]
    core, _ = build(config, "ref", table_side=table)
    small = (np.array([1, 2, 2], np.int64), np.zeros((4, 48), np.float32), None)
    with pytest.raises(ConfigError, match="image 0 has a grid of 1 x 2 x 2 patches; this model sees 4 x 4"):
        core.see([small])
    ids, _, (positions, after, places, images) = prompt(config, noise(config, 1))
    with pytest.raises(ConfigError):
        core.logits(ids, (positions, after, places[:-1], images))


@pytest.mark.parametrize(("pool", "vision", "message"), [
    ({"head_dim": 64}, {}, "resampler: 1 heads of 64 columns with 1 of keys"),
    ({"heads": 2, "head_dim": 64}, {}, "resampler: 2 heads of 64 columns with 1 of keys"),
    ({"heads": 0}, {}, "resampler: heads is 0"), ({"scale": 0.0}, {}, "resampler: scale is 0"),
    ({"window": 3}, {}, "no window, no rope"), ({"qk_norm": True}, {}, "no window, no rope"),
    ({}, {"queries": 5}, "resampler: 5 queries are not a square"), ({}, {"queries": 0}, "resampler: 0 queries"),
    ({}, {"side": 2}, "cells of one patch"), ({}, {"grid_side": 0}, "images of one size"),
    ({}, {"mergers": True}, "in place of mergers"), ({}, {"resampler": None}, "vision: mergers is 0"),
    ({}, {"patch_shape": (3, 2, 4, 4)}, "patches of 2 frames, and files without a dimension for them"),
    ({}, {"table": "cubic"}, "table is 'cubic', must be 'bilinear' or 'bicubic'"),
])
def test_wrong_specs(pool, vision, message):
    from dataclasses import replace

    from grpo.model.families.spec import Merger

    spec = spec_of(SHAPES["D24"][0])
    made = replace(spec.vision.resampler, attention=replace(spec.vision.resampler.attention, **pool),
                   queries=vision.pop("queries", 4))
    if vision.pop("mergers", False):
        vision["mergers"] = (Merger("merger.", 1),)
    before = _core.memory_in_use()
    with pytest.raises(ValueError) as caught:
        _core.Model("ref", replace(spec, vision=replace(spec.vision, **{"resampler": made} | vision)))
    assert message in str(caught.value) and _core.memory_in_use() == before


def test_interleaved_heads_are_one_tensor_of_as_many():
    from dataclasses import replace

    spec = spec_of(SHAPES["D24"][0])
    layer = spec.layers[0]
    for names, kv_heads in ((spec.names, 1), ({}, 2)):
        attention = replace(layer.attention, interleaved=True, kv_heads=kv_heads)
        with pytest.raises(ValueError, match="layer 0: interleaved"):
            _core.Model("ref", replace(spec, names=names, layers=(replace(layer, attention=attention),) * 2))


@pytest.mark.parametrize("device", LIMITS)
def test_rollout_is_training(device):
    config, table = SHAPES["D24"]
    core, _ = build(config, device, table_side=table)
    prompts, _, _, _, images, pixels = batch(config)
    made = [core.see(entries(config, some)) if some else [] for some in pixels]
    images = [prompt(config, some, features)[2] for some, features in zip(pixels, made, strict=True)]
    out = core.generate(prompts, 2, 7, images=images, stop_ids=np.array([], np.int32), forbidden_ids=np.array([IMG],
                                                                                                              np.int32))
    ends = np.cumsum(out["lengths"])
    completions = np.split(out["tokens"], ends[:-1])
    logp, _ = core.logprobs(prompts, completions, np.repeat(np.arange(3), 2).astype(np.int32), images=images)
    assert (logp == out["policy_logprobs"]).all() and not (out["tokens"] == IMG).any()
