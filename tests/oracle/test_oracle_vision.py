"""Models that see against transformers, live: tiny configs of odd shapes, and what towers, texts and gradients are."""
import numpy as np
import pytest

from golden_checks import REF_TOLERANCE, uncertainty
from tiny_models import relative_error
from tiny_vision import FAMILIES, TOWER, WORDS, Scene, build_vlm, images_of, reals, vlm

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from hf_vision import hf_logits, hf_model  # noqa: E402

pytestmark = pytest.mark.oracle

SQUARE, WIDE, TALL, CELL, LARGE = (1, 4, 4), (1, 4, 10), (1, 14, 4), (1, 2, 2), (1, 10, 12)
SETS = [[SQUARE, WIDE], [], [CELL, TALL, CELL], [LARGE]]


def towers(family, widths, **keys):
    """Configs whose towers have heads of these widths: {width: heads}."""
    width = "embed_dim" if family == "qwen2_vl" else "hidden_size"
    return {f"{family} heads {heads} x {D}": (vlm(family, tower={width: heads * D, "num_heads": heads}), SETS[:2])
            for D, heads in widths.items()}


def windows(**cases):
    return {f"qwen2_5_vl {name}": (vlm("qwen2_5_vl", tower=tower), sets) for name, (tower, sets) in cases.items()}


def stacks(**cases):
    return {f"qwen3_vl {name}": (vlm("qwen3_vl", L=L, tower={"depth": 4, "deepstack_visual_indexes": layers}), SETS)
            for name, (layers, L) in cases.items()}


THREES = {"spatial_merge_size": 3, "patch_size": 2}
TEXTS = {
    "of one head": {"heads": (1, 1), "D": 64, "F": 33},
    "of wide heads": {"heads": (3, 1), "D": 128, "F": 40, "L": 1},
    "of odd heads": {"heads": (6, 2), "D": 20, "F": 29},
    "without groups": {"heads": (3, 3), "D": 80, "L": 1},
}
KINDS = {
    "": (lambda family: vlm(family), SETS),
    "untied": (lambda family: vlm(family, tie=False, L=1), SETS),
    "text alone": (lambda family: vlm(family), [[], []]),
    "frames": (lambda family: vlm(family), [[(2, 6, 4), (3, 2, 10)], []]),
    "without merging": (lambda family: vlm(family, tower={"spatial_merge_size": 1}),
                        [[(1, 3, 5), (1, 1, 1)], [(1, 7, 2)]]),
    "cells of 9": (lambda family: vlm(family, tower=THREES | ({"window_size": 12} if family == "qwen2_5_vl" else {})),
                   [[(1, 3, 9), (1, 12, 6)], [(1, 9, 9)]]),
    "a frame, a channel": (lambda family: vlm(family, tower={"temporal_patch_size": 1, "in_channels": 1,
                                                             "patch_size": 3}), SETS),
    **{f"text {name}": (lambda family, sizes=sizes: vlm(family, **sizes), SETS[:3]) for name, sizes in TEXTS.items()},
}
CASES = {
    **{f"{family} {name}".strip(): (make(family), sets) for family in FAMILIES for name, (make, sets) in KINDS.items()},
    **towers("qwen2_vl", {32: 1, 40: 2, 64: 3, 72: 1, 80: 2, 4: 4}),
    **towers("qwen2_5_vl", {32: 3, 40: 1, 64: 2, 72: 4, 80: 1}),
    **towers("qwen3_vl", {32: 4, 40: 3, 64: 1, 72: 2, 80: 2, 12: 3}),
    "qwen3_vl text not of heads": (vlm("qwen3_vl", d=50, heads=(4, 2), D=24), SETS),
    **windows(**{"all whole": ({"fullatt_block_indexes": [0, 1, 2]}, SETS),
                 "all by window": ({"fullatt_block_indexes": []}, SETS),
                 "first and last whole": ({"fullatt_block_indexes": [0, 2]}, SETS),
                 "windows of a cell": ({"window_size": 8}, SETS),
                 "windows of 3": ({"window_size": 30}, [[(1, 14, 20)], [(1, 6, 6), (1, 2, 8)]]),
                 "a window larger than images": ({"window_size": 112}, SETS),
                 "a gate": ({"hidden_act": "gelu_pytorch_tanh"}, SETS[:2])}),
    **stacks(**{"no deepstack": ([], 2), "the first layer": ([0], 1), "the last layer": ([3], 2),
                "first and last": ([0, 3], 2), "three": ([0, 1, 3], 3), "as many as layers": ([1, 2], 2)}),
    "qwen3_vl a table of one": (vlm("qwen3_vl", tower={"num_position_embeddings": 1}), SETS),
    "qwen3_vl a large table": (vlm("qwen3_vl", tower={"num_position_embeddings": 400}), SETS),
    "qwen3_vl erf": (vlm("qwen3_vl", tower={"hidden_act": "gelu"}), SETS[:2]),
    "qwen2_vl erf": (vlm("qwen2_vl", tower={"hidden_act": "gelu"}), SETS[:2]),
    "qwen2_vl windows of the text": (vlm("qwen2_vl", use_sliding_window=True, sliding_window=9, max_window_layers=1),
                                     SETS),
    "qwen2_5_vl windows of the text": (vlm("qwen2_5_vl", use_sliding_window=True, sliding_window=7,
                                           max_window_layers=0), SETS),
}


class Case:
    """A scene with completions, coefficients of their tokens, and what transformers makes of all that."""

    def __init__(self, config, sets, seed):
        rng = np.random.default_rng(seed)
        self.config, self.scene = config, Scene(config, sets, seed)
        self.completions = [rng.integers(0, WORDS, n).astype(np.int32) for n in rng.integers(12, 40, 2 * len(sets))]
        self.group = np.repeat(np.arange(len(sets), dtype=np.int32), 2)
        self.coef = rng.standard_normal(sum(map(len, self.completions))).astype(np.float32)
        self.exact, self.rounded = (self.run(hf_model(config, dtype)) for dtype in (torch.float32, torch.bfloat16))

    def whole(self, i):
        """Ids of completion i behind its prompt."""
        return np.concatenate([self.scene.prompts[self.group[i]], self.completions[i]])

    def run(self, hf):
        out, objective, at = {"logits": [], "logps": []}, 0, 0
        if pictures := self.scene.pictures():
            with torch.no_grad():
                seen = hf.model.visual(torch.tensor(np.concatenate([pixels for _, pixels, _ in pictures])),
                                       grid_thw=torch.tensor(np.stack([grid for grid, *_ in pictures])))
            levels = [seen.pooler_output, *(getattr(seen, "deepstack_features", None) or [])]
            out["features"] = torch.stack(levels).float().numpy()
        for i, completion in enumerate(self.completions):
            group = self.group[i]
            logits = hf_logits(hf, self.whole(i), self.scene.pixels[group], self.scene.sets[group])
            out["logits"].append(logits.detach().numpy())
            logps = logits[len(self.scene.prompts[group]) - 1:-1].log_softmax(-1)
            logps = logps.gather(1, torch.tensor(completion.astype(np.int64))[:, None])[:, 0]
            out["logps"].append(logps.detach().numpy())
            objective = objective + (logps * torch.tensor(self.coef[at:at + len(completion)])).sum()
            at += len(completion)
        objective.backward()
        return {name: np.concatenate(parts) if name != "features" else parts for name, parts in out.items()} | {
            "grads": {name: np.zeros(p.shape, np.float32) if p.grad is None else p.grad.float().numpy()
                      for name, p in hf.named_parameters()}}

    def batch(self):
        return self.scene.prompts, self.completions, self.group

    def logits(self, model, images):
        """Of every completion behind its prompt, which is one text here."""
        out = []
        for i, group in enumerate(self.group):
            some, ids = images[group], self.whole(i)
            pictures = some[3] if some else []
            out.append(model.logits(ids, images_of(self.config, ids, self.scene.sets[group],
                                                   features=[features for *_, features in pictures])))
        return np.concatenate(out)


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return Case(*CASES[request.param], len(request.param))


def random_case(seed):
    """Odd sizes everywhere that transformers allows them."""
    rng, family = np.random.default_rng(seed), FAMILIES[seed % len(FAMILIES)]
    pick = lambda *values: values[rng.integers(len(values))]  # noqa: E731
    heads, D, depth = pick(1, 2, 3, 4), pick(8, 16, 20, 32, 40, 72, 80), int(rng.integers(1, 5))
    heads = max(1, min(heads, 160 // D))
    kv, pairs = pick(1, 2, 3), pick(1, 2, 3)
    patch, merge = pick(2, 3, 4), pick(1, 2, 2, 3)
    L = int(rng.integers(1, 4))
    tower = {"depth": depth, "num_heads": heads, "patch_size": patch, "spatial_merge_size": merge,
             "temporal_patch_size": pick(1, 2), ("embed_dim" if family == "qwen2_vl" else "hidden_size"): heads * D}
    if family == "qwen2_5_vl":
        tower |= {"window_size": patch * merge * pick(1, 2, 3, 5) + pick(0, 1), "intermediate_size": pick(17, 45, 64),
                  "fullatt_block_indexes": [layer for layer in range(depth) if rng.random() < 0.5]}
    if family == "qwen3_vl":
        deep = [layer for layer in range(depth) if rng.random() < 0.5][:L]
        tower |= {"deepstack_visual_indexes": deep, "num_position_embeddings": pick(1, 4, 49),
                  "intermediate_size": pick(17, 45, 64)}
    config = vlm(family, heads=(kv * pairs, kv), D=pick(16, 24, 32, 64, 80), d=int(rng.integers(20, 70)),
                 F=int(rng.integers(9, 90)), L=L, tie=bool(rng.random() < 0.5), tower=tower)
    sets = [[(1, *(merge * int(side) for side in rng.integers(1, 12 // merge, 2))) for _ in range(rng.integers(0, 4))]
            for _ in range(rng.integers(1, 4))]
    return config, sets


@pytest.fixture(scope="module", params=range(30))
def any_case(request):
    return Case(*random_case(request.param), request.param)


def assert_near(got, want, allowed, what):
    error = relative_error(got, want)
    assert error <= allowed, f"{what}: {error:.2e} > {allowed:.2e}"


def check_forward(case, device):
    """Features of every level, logits, log-probs."""
    model, want = build_vlm(case.config, device), case.exact
    images = case.scene.seen(model)

    def allowed(key):
        return REF_TOLERANCE / 5 if device == "ref" else 2 * relative_error(case.rounded[key], want[key])

    if "features" in want:
        features = np.concatenate([reals(made) for some in images if some for *_, made in some[3]], axis=1)
        assert features.shape == want["features"].shape
        assert_near(features, want["features"], allowed("features"), "features")
        for level, (got, exact) in enumerate(zip(features, want["features"], strict=True)):
            assert_near(got, exact, 2 * allowed("features"), f"level {level}")
    assert_near(case.logits(model, images), want["logits"], allowed("logits"), "logits")
    logps, _ = model.logprobs(*case.batch(), images=images)
    assert_near(logps, want["logps"], allowed("logps"), "log-probs")


def flat(grads, names):
    return np.concatenate([grads[name].ravel() for name in names])


def check_gradients(case, device):
    """Of text and tower, as a whole and tensor by tensor. bf16's error in one tensor is one draw of what was rounded
    above it: no tensor is held to less than twice what the whole may have."""
    model = build_vlm(case.config, device)
    exact, rounded = case.exact["grads"], case.rounded["grads"]
    _, grads = model.logprob_grads(*case.batch(), case.coef, images=case.scene.images, train_vision="all")
    assert sorted(grads) == sorted(exact)
    parts = {"text": [n for n in exact if not n.startswith(TOWER)], "tower": [n for n in exact if n.startswith(TOWER)]}
    for part, names in parts.items():
        whole = 2 * relative_error(flat(rounded, names), flat(exact, names))
        assert_near(flat(grads, names), flat(exact, names), REF_TOLERANCE if device == "ref" else whole, part)
        for name in names:
            own = REF_TOLERANCE
            if device != "ref":
                own = 2 * max(whole, 2 * relative_error(rounded[name], exact[name])) * uncertainty(exact[name])
            assert_near(grads[name], exact[name], own, name)


@pytest.mark.parametrize("device", ["ref", "cpu"])
def test_forward(case, device):
    check_forward(case, device)


@pytest.mark.parametrize("device", ["ref", "cpu"])
def test_every_gradient(case, device):
    check_gradients(case, device)


@pytest.mark.parametrize("part, trained", [("none", ()), ("merger", ("merger.", "deepstack_merger_list."))])
def test_gradients_of_a_part(case, part, trained):
    """Of what is trained and nothing else, and the same numbers."""
    model, exact = build_vlm(case.config, "ref"), case.exact["grads"]
    images = case.scene.seen(model) if part == "none" else case.scene.images
    _, grads = model.logprob_grads(*case.batch(), case.coef, images=images, train_vision=part)
    names = [n for n in exact if not n.startswith(TOWER) or n.removeprefix(TOWER).startswith(trained)]
    assert sorted(grads) == sorted(names)
    for name in names:
        assert_near(grads[name], exact[name], REF_TOLERANCE, name)


@pytest.mark.parametrize("device", ["ref", "cpu"])
@pytest.mark.parametrize("check", [check_forward, check_gradients])
def test_any_config(any_case, check, device):
    check(any_case, device)
