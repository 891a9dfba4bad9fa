"""Models against transformers, from golden files (tests/support/goldens/make_goldens.py): logits, log-probs, entropies
and every gradient. `ref` must agree in fp32; a cpu tier may be off by twice what transformers' own bf16 is."""
from pathlib import Path

import numpy as np
import pytest

from golden_checks import batch, check_gradients, check_logits, check_scores, make_model

GOLDENS = sorted((Path(__file__).parents[1] / "goldens").glob("*.npz"))


@pytest.fixture(params=GOLDENS, ids=lambda p: p.stem)
def golden(request):
    with np.load(request.param) as file:
        return {key: file[key] for key in file}


def test_goldens_are_there():
    assert len(GOLDENS) >= 9


def test_tensor_names(golden):
    """Every parameter of transformers' model and no other; a tied head is not a tensor."""
    model = make_model(golden, "ref")
    assert sorted(name for name, _ in model.tensors()) == sorted(golden["names"])
    for name, shape in model.tensors():
        assert golden[f"grad/{name}"].shape == shape


def test_logits(golden, device):
    check_logits(golden, device)


def test_logprobs_and_entropies(golden, device):
    check_scores(golden, device)


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
def test_every_gradient(golden, device, recompute):
    check_gradients(golden, device, recompute)


def test_objective_is_what_the_gradient_is_of(golden):
    """Directional derivative of the golden objective on ref, by central differences along the gradient itself."""
    model = make_model(golden, "ref")
    temperature = float(golden["temperature"])

    def objective():
        logps, entropies = model.logprobs(*batch(golden), temperature=temperature)
        return float(golden["coef"] @ logps.astype(np.float64) + golden["entropy_coef"] @ entropies.astype(np.float64))

    assert objective() == pytest.approx(float(golden["objective"]), rel=1e-4, abs=1e-4)
    _, grads = model.logprob_grads(*batch(golden), golden["coef"], entropy_coef=golden["entropy_coef"],
                                   temperature=temperature)
    weights = {name: model.get_tensor(name) for name in grads}
    norm = float(np.sqrt(sum(np.sum(g.astype(np.float64) ** 2) for g in grads.values())))
    values = []
    for sign in (1, -1):
        for name, g in grads.items():
            model.set_tensor(name, weights[name] + (sign * 1e-3 / norm) * g)
        values.append(objective())
    assert (values[0] - values[1]) / 2e-3 == pytest.approx(norm, rel=1e-2)
