"""Comparing a core model with a golden (what tests/support/goldens/make_goldens.py's make_golden returns or has
saved)."""
import json

import numpy as np

from tiny_models import build, relative_error

REF_TOLERANCE = 1e-4


def split(flat, lengths):
    return np.split(flat, np.cumsum(lengths)[:-1])


def make_model(golden, device):
    return build(json.loads(str(golden["config"])), device, int(golden["seed"]))


def batch(golden):
    return (split(golden["prompts"], golden["prompt_lengths"]),
            split(golden["completions"], golden["completion_lengths"]), golden["group"])


def tolerance(device, bf16_error):
    """fp32 on ref; elsewhere twice the error of transformers' own bf16."""
    return REF_TOLERANCE if device == "ref" else 2 * bf16_error


def check_logits(golden, device):
    logits = make_model(golden, device).logits(golden["ids"])
    assert logits.shape == (len(golden["ids"]), json.loads(str(golden["config"]))["vocab_size"])
    assert relative_error(logits[golden["rows"]], golden["logits"]) <= tolerance(device, golden["bf16_error"][0])


def check_scores(golden, device):
    logps, entropies = make_model(golden, device).logprobs(*batch(golden), temperature=float(golden["temperature"]))
    assert relative_error(logps, golden["logps"]) <= tolerance(device, golden["bf16_error"][1])
    assert relative_error(entropies, golden["entropies"]) <= tolerance(device, golden["bf16_error"][2])


def uncertainty(tensor):
    """Both errors of a small tensor are one draw of few roundings: 1 + 3 / sqrt(numbers in it)."""
    return 1 + 3 / np.sqrt(tensor.size)


def check_gradients(golden, device, recompute=False):
    """The gradient as a whole and of every tensor. The error of a tensor of a dozen numbers is itself noisy, so no
    tensor is held to less than the error that transformers' bf16 makes in the whole gradient."""
    entropy_coef = golden["entropy_coef"] if golden["entropy_coef"].any() else None
    _, grads = make_model(golden, device).logprob_grads(*batch(golden), golden["coef"], entropy_coef=entropy_coef,
                                                        temperature=float(golden["temperature"]), recompute=recompute)
    names = [str(name) for name in golden["names"]]
    assert sorted(grads) == sorted(names)
    want = {name: golden[f"grad/{name}"] for name in names}
    whole = [np.concatenate([side[name].ravel() for name in names]) for side in (grads, want)]
    errors = {"whole": (relative_error(*whole), tolerance(device, golden["bf16_error"][3]))}
    for name, bf16_error in zip(names, golden["bf16_grad_error"], strict=True):
        errors[name] = (relative_error(grads[name], want[name]),
                        tolerance(device, max(bf16_error, golden["bf16_error"][3])) * uncertainty(want[name]))
    wrong = {name: f"{error:.2e} > {allowed:.2e}" for name, (error, allowed) in errors.items() if not error <= allowed}
    assert not wrong
