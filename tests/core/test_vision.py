"""Models that see, bit for bit on every device: rollout = training with images, same seed, same run; and what of a
tower is trained."""
import functools

import numpy as np
import pytest

import grpo
from checks.exactness import assert_same, completions_of, forward_calls, groups_of
from grpo import _core
from grpo.errors import ConfigError, NonFiniteError
from grpo.vision import pictures
from grpo.vision.pictures import read_pixels
from tiny_models import relative_error
from tiny_vision import FAMILIES, IMAGE, TOWER, VIDEO, Scene, build_vlm, images_of, reals, vlm

MERGERS = (TOWER + "merger.", TOWER + "deepstack_merger_list.")
PARTS = ("none", "merger", "all")
SETS = [[(1, 4, 6), (1, 10, 4)], [], [(1, 2, 2)], [(1, 6, 8)], []]
G, LENGTH = 2, 7
OPTIONS = {"seed": 3, "stop_ids": np.arange(0, 120, 12, dtype=np.int32), "forbidden_ids": np.int32([IMAGE, VIDEO])}


@functools.cache
def scene_of(family):
    return Scene(vlm(family, heads=(2, 1), L=3), SETS)           # a layer above the last one that DeepStack adds to


@pytest.fixture(params=FAMILIES)
def scene(request):
    return scene_of(request.param)


@pytest.fixture
def model(scene, device):
    return build_vlm(scene.config, device)


def rollout(model, scene, images=None, **options):
    return model.generate(scene.prompts, G, LENGTH, images=images or scene.seen(model), **(OPTIONS | options))


def batch_of(scene, out):
    """Arguments of what scores completions: prompts, completions, group, coefficients."""
    coef = np.random.default_rng(4).standard_normal(len(out["tokens"])).astype(np.float32)
    return scene.prompts, completions_of(out), groups_of(scene.prompts, G), coef


def trained(model, part):
    """Names of what a part of the tower, and the text, are."""
    return [name for name, _ in model.tensors()
            if not name.startswith(TOWER) or part == "all" or (part == "merger" and name.startswith(MERGERS))]


def gradients(model, scene, batch, part="all", images=None, stored=None, **options):
    """Of a Trainer, with the log-probs and entropies that came with them."""
    store, ids = stored or (None, None)
    trainer = _core.Trainer(model, train_vision=part, **options)
    logps, entropies = trainer.accumulate(*batch, images=images or scene.images, store=store, stored=ids)
    return {name: trainer.gradient(name) for name in trained(model, part)} | {"logps": logps, "entropies": entropies}


# -- rollout = training ------------------------------------------------------------------------------------------------

def test_rollout_is_training(scene, model, threads):
    """Whatever the slots, the threads, the token budget, what is trained and what is computed twice."""
    images, out = scene.seen(model), rollout(model, scene)
    batch, want = batch_of(scene, out), {key: out[name] for key, name in (("logps", "policy_logprobs"),
                                                                          ("entropies", "entropies"))}
    for count, slots in ((1, 1), (4, 3), (2, 8)):
        threads(count)
        assert_same(out, rollout(model, scene, images, slots=slots))
        assert_recorded_is_computed(model, images, batch[:3], out)
    whole = {part: gradients(model, scene, batch, part, images if part == "none" else None) for part in PARTS}
    for part, options in (("all", {"token_budget": 1}), ("all", {"token_budget": 70, "recompute": True}),
                          ("merger", {"token_budget": 1, "recompute": True}), ("none", {"token_budget": 70})):
        threads(3 - options["token_budget"] % 3)
        assert_same(whole[part], gradients(model, scene, batch, part, images if part == "none" else None, **options))
    for part in PARTS:
        assert whole[part].keys() == {*trained(model, part), "logps", "entropies"}
        assert_same({key: whole[part][key] for key in want}, want)
        assert_same({key: g for key, g in whole["all"].items() if key in whole[part]}, whole[part])


def assert_recorded_is_computed(model, images, batch, out):
    for budget in (1, 100, 5000):
        logps, entropies = model.logprobs(*batch, images=images, token_budget=budget)
        assert_same(out["policy_logprobs"], logps)
        assert_same(out["entropies"], entropies)


@pytest.mark.parametrize("inputs_only", [False, True])
def test_stored_activations(scene, model, inputs_only):
    """The rollout's forward of the text is the training forward; a trained tower runs again, for its own backward."""
    images, store = scene.seen(model), _core.Store(model, inputs_only=inputs_only)
    out = rollout(model, scene, images, slots=3, store=store, store_rows=2000)
    batch, ids = batch_of(scene, out), out["stored"]
    assert (ids >= 0).all()
    for part in ("none", "all"):
        some = images if part == "none" else None
        want = gradients(model, scene, batch, part, some, recompute=inputs_only)
        got, calls = forward_calls(lambda part=part, some=some: gradients(
            model, scene, batch, part, some, stored=(store, ids), recompute=inputs_only, token_budget=90))
        assert calls["embed"] == 0
        assert_same(got, want)


# -- same seed, same run -----------------------------------------------------------------------------------------------

def test_features_do_not_depend_on_the_batch(scene, model, threads):
    pictures = scene.pictures()
    together = model.see(pictures)
    assert all(np.isfinite(reals(each)).all() for each in together)
    for budget in (1, 60, 10**6):
        threads(1 + budget % 4)
        assert_same_features(model.see(pictures, patch_budget=budget), together)
    assert_same_features(model.see(pictures[::-1])[::-1], together)
    assert_same_features([model.see([each])[0] for each in pictures], together)
    assert_same_features(model.see([pictures[0]] * 3), [together[0]] * 3)


def assert_same_features(got, want):
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_features_and_gradients_are_those_of_ref(scene, model):
    ref = build_vlm(scene.config, "ref")
    for got, want in zip(model.see(scene.pictures()), ref.see(scene.pictures()), strict=True):
        assert relative_error(reals(got), want) < 0.01
    batch = batch_of(scene, rollout(ref, scene))
    ours, exact = (gradients(each, scene, batch) for each in (model, ref))
    for part in (True, False):
        whole = [np.concatenate([side[n].ravel() for n in trained(ref, "all") if n.startswith(TOWER) == part])
                 for side in (ours, exact)]
        assert relative_error(*whole) < 0.05


@pytest.mark.parametrize("part", PARTS)
def test_steps(scene, device, part):
    """What moves is what is trained, the same for any split; a rollout afterwards is on policy again."""
    results = []
    for options in ({}, {"token_budget": 1, "recompute": True}):
        model = build_vlm(scene.config, device)
        before, version = {name: model.get_tensor(name) for name, _ in model.tensors()}, model.tower_version
        trainer = _core.Trainer(model, train_vision=part, weight_decay=0.1, **options)
        assert [name for name, _ in trainer.trained()] == trained(model, part)
        batch = batch_of(scene, rollout(build_vlm(scene.config, device), scene))
        for _ in range(2):
            trainer.accumulate(*batch, images=scene.seen(model))
            assert trainer.step(1e-2, 1.0) > 0
        after = {name: model.get_tensor(name) for name in before}
        moved = [name for name in before if not np.array_equal(before[name], after[name])]
        assert moved == trained(model, part)
        assert (model.tower_version == version) == (part == "none")
        results.append(after | {f"{kind} {name}": trainer.get_state(kind, name) for name in moved
                                for kind in ("master", "m", "v")})
        out = rollout(model, scene)
        assert_recorded_is_computed(model, scene.seen(model), batch_of(scene, out)[:3], out)
    assert_same(*results)


# -- what needs no tier ------------------------------------------------------------------------------------------------

@pytest.fixture(params=["ref", "cpu"])
def plain(request, scene):
    return build_vlm(scene.config, request.param)


def updated(scene, device, rate, lr):
    """{name: masters} after a step whose gradients are the same whatever the rates."""
    model = build_vlm(scene.config, device)
    trainer = _core.Trainer(model, train_vision="all", vision_rate=rate)
    batch = batch_of(scene, rollout(build_vlm(scene.config, device), scene))
    trainer.accumulate(*batch, images=scene.images)
    trainer.step(lr)
    return {name: trainer.get_state("master", name) for name, _ in model.tensors()}


@pytest.mark.parametrize("device", ["ref", "cpu"])
def test_the_rate_of_a_tower(scene, device):
    """It is a factor of the tower's learning rate and of nothing else."""
    start = {name: array for name, array in updated(scene, device, 1.0, 0.0).items() if name.startswith(TOWER)}
    whole, half, slow, none = (updated(scene, device, *rates)
                               for rates in ((1, 1e-2), (0.5, 1e-2), (1, 5e-3), (0, 1e-2)))
    for name in whole:
        if name.startswith(TOWER):
            assert_same(half[name], slow[name])
            assert_same(none[name], start[name])
            assert not np.array_equal(half[name], whole[name])
        else:
            assert_same(half[name], whole[name])
            assert_same(none[name], whole[name])


def test_states_of_a_tower(scene, plain):
    trainer, frozen = _core.Trainer(plain, train_vision="merger"), _core.Trainer(plain)
    rng = np.random.default_rng(0)
    for name, shape in plain.tensors():
        values = {kind: np.abs(rng.standard_normal(shape)).astype(np.float32) for kind in ("m", "v", "master")}
        for each in (trainer, frozen):
            part = "merger" if each is trainer else "none"
            if name in trained(plain, part):
                for kind, value in values.items():
                    each.check_state(kind, name, value)
                    each.set_state(kind, name, value)
                    assert_same(each.get_state(kind, name), value)
                continue
            for call in (lambda each=each, name=name: each.gradient(name),
                         *(lambda each=each, kind=kind, name=name: each.get_state(kind, name) for kind in values),
                         *(lambda each=each, kind=kind, name=name, value=value: f(kind, name, value)
                           for f in (each.set_state, each.check_state) for kind, value in values.items())):
                with pytest.raises(ConfigError, match="not trained"):
                    call()


def test_the_gradient_is_that_of_the_objective(scene):
    """Along itself, for the tower alone, by central differences."""
    model = build_vlm(scene.config, "ref")
    batch = batch_of(scene, rollout(model, scene))
    grads = {name: g for name, g in gradients(model, scene, batch).items() if name.startswith(TOWER)}
    weights = {name: model.get_tensor(name) for name in grads}
    norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in grads.values()))
    values = []
    for sign in (1, -1):
        for name, g in grads.items():
            model.set_tensor(name, weights[name] + np.float32(sign * 1e-3 / norm) * g)
        values.append(float(batch[3].astype(np.float64) @ model.logprobs(*batch[:3], images=scene.seen(model))[0]))
    assert (values[0] - values[1]) / 2e-3 == pytest.approx(norm, rel=2e-2)


@pytest.mark.parametrize("where", ["pixels", "tower"])
def test_what_is_not_finite_is_named(plain, scene, where):
    """The prompt of such an image; a step leaves the weights as they were. Prompt 1 has no image, and no harm."""
    name, pixels = TOWER + "blocks.1.attn.proj.bias", [[each.copy() for each in some] for some in scene.pixels]
    if where == "pixels":
        pixels[0][1][3, 5] = np.nan
    else:
        bias = plain.get_tensor(name)
        bias[2] = np.inf
        plain.set_tensor(name, bias)
    bad = Scene(scene.config, SETS)
    bad.images = [images_of(scene.config, *each) for each in zip(scene.prompts, SETS, pixels, strict=True)]
    images = bad.seen(plain)
    with pytest.raises(NonFiniteError, match="logits of prompt 0, completion 0 are not finite at token 0"):
        rollout(plain, bad, images)
    out = plain.generate(scene.prompts[1:2], 1, 5, images=[None])
    before, trainer = plain.get_tensor(name), _core.Trainer(plain, train_vision="all")
    trainer.accumulate(scene.prompts, [np.int32([1, 2])] * 5, np.arange(5, dtype=np.int32), np.ones(10, np.float32),
                       images=bad.images)
    with pytest.raises(NonFiniteError, match="the gradient of model.* is not finite; the weights were left"):
        trainer.step(1e-3)
    assert_same(plain.get_tensor(name), before)
    assert_same(plain.generate(scene.prompts[1:2], 1, 5, images=[None]), out)


# -- what is kept of images --------------------------------------------------------------------------------------------

PATCH = TOWER + "patch_embed.proj.weight"


@pytest.fixture(params=FAMILIES)
def tiny(request):
    """A model, a prompt's ids and its images."""
    model, rng = grpo.load(grpo.tiny(request.param), "cpu"), np.random.default_rng(2)
    pictures = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((60, 90), (33, 40), (60, 90))]
    parts = [{"type": "image", "image": picture} for picture in pictures]
    return model, *model.encode_prompt([{"role": "user", "content": [*parts, {"type": "text", "text": "Which?"}]}])


def core_features(model, ids, images):
    return [made for *_, made in model.core_images([ids], [images])[0][3]]


@pytest.fixture
def read(monkeypatch):
    """The images whose pixels were read, in their order: those that a tower had to see."""
    seen = []

    def reading(some):
        seen.extend(some)
        return read_pixels(some)

    monkeypatch.setattr(pictures, "read_pixels", reading)
    return seen


def test_features_are_kept_while_the_tower_stands_still(tiny, read):
    """What is kept are the bits that would be computed; with any change of the tower, and no other, it is forgotten."""
    model, ids, images = tiny
    made, version = core_features(model, ids, images), model.core.tower_version
    assert len(read) == 3
    assert_same_features(core_features(model, ids, images), made)
    model.core.set_tensor("model.language_model.norm.weight", model.core.get_tensor("model.language_model.norm.weight"))
    assert_same_features(core_features(model, ids, images), made)
    assert len(read) == 3
    pixels = read_pixels(images)
    assert_same_features(model.core.see([(each.grid, rows, None) for each, rows in zip(images, pixels, strict=True)]),
                         made)
    patch = model.core.get_tensor(PATCH)
    model.core.set_tensor(PATCH, patch * np.float32(2))
    changed = core_features(model, ids, images)
    assert model.core.tower_version > version and len(read) == 6
    assert all((a != b).any() for a, b in zip(made, changed, strict=True))
    model.core.set_tensor(PATCH, patch)
    assert_same_features(core_features(model, ids, images), made)


@pytest.mark.parametrize("part", PARTS)
def test_features_after_a_step(tiny, read, part):
    """A step on the tower makes kept ones old, one on the text alone does not. What the model says of its own samples
    is what was recorded, before and after."""
    model, ids, images = tiny
    trainer, group = _core.Trainer(model.core, train_vision=part), np.zeros(2, np.int32)
    for step in range(2):
        out = model.generate_ids([ids], 2, 5, pictures=[images], seed=step)
        completions = completions_of(out)
        logps = model.logprobs(ids.tolist(), [each.tolist() for each in completions], images=images)
        assert_same(np.concatenate(logps), out["policy_logprobs"])
        assert len(read) == (3 if part == "none" else 3 * (step + 1))
        seen = model.core_images([ids], [images], pixels=part != "none")     # sight.py reads these by its own name
        found, _ = trainer.accumulate([ids], completions, group, np.ones(len(out["tokens"]), np.float32), images=seen)
        assert_same(found, out["policy_logprobs"])
        kept = model.sight.features
        trainer.step(1e-2)
        assert (model.sight.features is kept) == (part == "none")
