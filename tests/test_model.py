"""Models against transformers, from golden files (tests/goldens/make_goldens.py): logits, log-probs, entropies and every
gradient. `ref` must agree in fp32; a cpu tier may be off by twice what transformers' own bf16 is."""
import json
from pathlib import Path

import numpy as np
import pytest

from tiny_models import build, relative_error

GOLDENS = sorted((Path(__file__).parent / "goldens").glob("*.npz"))
REF_TOLERANCE = 1e-4


@pytest.fixture(params=GOLDENS, ids=lambda p: p.stem)
def golden(request):
    with np.load(request.param) as file:
        return {key: file[key] for key in file}


def split(flat, lengths):
    return np.split(flat, np.cumsum(lengths)[:-1])


def make_model(golden, device):
    return build(json.loads(str(golden["config"])), device, int(golden["seed"]))


def batch(golden):
    return (split(golden["prompts"], golden["prompt_lengths"]), split(golden["completions"], golden["completion_lengths"]), golden["group"])


def tolerance(device, bf16_error):
    return REF_TOLERANCE if device == "ref" else 2 * bf16_error


def test_goldens_are_there():
    assert len(GOLDENS) >= 9


def test_tensor_names(golden):
    """Every parameter of transformers' model and no other, except that a tied head is not a tensor."""
    model = make_model(golden, "ref")
    assert sorted(name for name, _ in model.tensors()) == sorted(golden["names"])
    for name, shape in model.tensors():
        assert golden[f"grad/{name}"].shape == shape


def test_logits(golden, device):
    logits = make_model(golden, device).logits(golden["ids"])
    assert logits.shape == (len(golden["ids"]), json.loads(str(golden["config"]))["vocab_size"])
    assert relative_error(logits[golden["rows"]], golden["logits"]) <= tolerance(device, golden["bf16_error"][0])


def test_logprobs_and_entropies(golden, device):
    model = make_model(golden, device)
    logps, entropies = model.logprobs(*batch(golden), temperature=float(golden["temperature"]))
    assert relative_error(logps, golden["logps"]) <= tolerance(device, golden["bf16_error"][1])
    assert relative_error(entropies, golden["entropies"]) <= tolerance(device, golden["bf16_error"][2])


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
def test_every_gradient(golden, device, recompute):
    model = make_model(golden, device)
    entropy_coef = golden["entropy_coef"] if golden["entropy_coef"].any() else None
    logps, grads = model.logprob_grads(*batch(golden), golden["coef"], entropy_coef=entropy_coef,
                                       temperature=float(golden["temperature"]), recompute=recompute)
    names = [str(name) for name in golden["names"]]
    assert sorted(grads) == sorted(names)
    assert relative_error(logps, golden["logps"]) <= tolerance(device, golden["bf16_error"][1])
    whole = [np.concatenate([side(name).ravel() for name in names]) for side in (grads.get, lambda n: golden[f"grad/{n}"])]
    errors = {"whole": (relative_error(*whole), tolerance(device, golden["bf16_error"][3]))}
    for name, bf16_error in zip(names, golden["bf16_grad_error"]):
        # the error of a tensor of a dozen numbers is itself noisy: no tensor is held to less than the whole gradient's error
        allowed = tolerance(device, max(bf16_error, golden["bf16_error"][3]))
        errors[name] = relative_error(grads[name], golden[f"grad/{name}"]), allowed
    wrong = {name: f"{error:.2e} > {allowed:.2e}" for name, (error, allowed) in errors.items() if not error <= allowed}
    assert not wrong


def test_objective_is_what_the_gradient_is_of(golden):
    """Directional derivative of the golden objective on ref, by central differences along the gradient itself."""
    model = make_model(golden, "ref")
    temperature = float(golden["temperature"])

    def objective():
        logps, entropies = model.logprobs(*batch(golden), temperature=temperature)
        return float(golden["coef"] @ logps.astype(np.float64) + golden["entropy_coef"] @ entropies.astype(np.float64))

    assert objective() == pytest.approx(float(golden["objective"]), rel=1e-4, abs=1e-4)
    _, grads = model.logprob_grads(*batch(golden), golden["coef"], entropy_coef=golden["entropy_coef"], temperature=temperature)
    weights = {name: model.get_tensor(name) for name in grads}
    norm = float(np.sqrt(sum(np.sum(g.astype(np.float64) ** 2) for g in grads.values())))
    values = []
    for sign in (1, -1):
        for name, g in grads.items():
            model.set_tensor(name, weights[name] + (sign * 1e-3 / norm) * g)
        values.append(objective())
    assert (values[0] - values[1]) / 2e-3 == pytest.approx(norm, rel=1e-2)
