"""Makes tests/support/goldens/*.npz with transformers: what a small random model should compute, in fp32, and how far
transformers' own bf16 is from that. Weights are not stored: tiny_models.random_weights makes them again from the seed.

    pip install '.[oracle]' && python tests/support/goldens/make_goldens.py        # rewrites every file; about a minute

Each file: config (JSON), seed, names (of the tensors), ids (T) with logits at rows (R, V); prompts and completions as
flat ids with lengths, group, coef, entropy_coef, temperature; logps and entropies (flat), objective = sum(coef * logp +
entropy_coef * entropy), its gradient by tensor as grad/NAME; bf16_error: relative errors (2-norm) of transformers in
bf16 for logits, logps, entropies, the whole gradient, and bf16_grad_error per tensor in the order of names.
"""
from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from tiny_models import config, random_weights, relative_error  # noqa: E402  (beside this folder, when run as a script)

LLAMA3 = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 256}
# odd vocabularies and FFN widths, head dims 16/64/80 and not d/heads, query heads per KV head 1..7
CASES = {
    "qwen2_gqa7": config("qwen2", d=24, heads=(7, 1), D=16, F=100, V=131),
    "qwen2_untied": config("qwen2", d=20, heads=(2, 2), D=16, F=44, V=131, L=2, tie=False),
    "qwen2_head64": config("qwen2", d=24, heads=(4, 1), D=64, F=33, V=67, tie=False, rms_norm_eps=1e-5),
    "qwen3_tied": config("qwen3", d=24, heads=(4, 2), D=16, F=50, V=131, L=2),
    "qwen3_head64": config("qwen3", d=24, heads=(3, 1), D=64, F=33, V=67, tie=False),
    "llama_gqa3": config("llama", d=24, heads=(3, 1), D=16, F=100, V=131, rms_norm_eps=1e-5),
    "llama_head80": config("llama", d=24, heads=(2, 1), D=80, F=20, V=61, tie=False, rms_norm_eps=1e-5),
    "llama_gqa6": config("llama", d=24, heads=(6, 1), D=16, F=37, V=131, L=2, tie=False),
    "llama3_rope": config("llama", d=20, heads=(5, 1), D=16, F=44, V=131, L=2, rope_parameters=LLAMA3),
}
SEED = 7
# crosses pages of 32: prompt lengths, and the lengths of each one's completions
GROUPS = ((5, (3, 7)), (35, (4, 1, 31)), (1, (2,)))


def make_batch(V: int, rng: np.random.Generator, groups) -> dict:
    """Prompts, completions, coefficients of both signs, and which prompt each completion belongs to."""
    prompts = [rng.integers(0, V, n).astype(np.int32) for n, _ in groups]
    completions = [rng.integers(0, V, n).astype(np.int32) for _, lengths in groups for n in lengths]
    tokens = sum(map(len, completions))
    return {"prompts": np.concatenate(prompts), "prompt_lengths": np.array([len(p) for p in prompts], np.int32),
            "completions": np.concatenate(completions),
            "completion_lengths": np.array([len(c) for c in completions], np.int32),
            "group": np.array([g for g, (_, lengths) in enumerate(groups) for _ in lengths], np.int32),
            "coef": rng.normal(size=tokens).astype(np.float32),
            "entropy_coef": rng.normal(size=tokens).astype(np.float32)}


def make_model(cfg: dict, dtype: torch.dtype):
    """transformers' model with the seed's weights; bf16 as people run it (sdpa), fp32 spelled out (eager)."""
    cfg = dict(cfg)
    hf_config = AutoConfig.for_model(cfg.pop("model_type"), **cfg)
    model = AutoModelForCausalLM.from_config(hf_config, dtype=dtype,
                                             attn_implementation="eager" if dtype == torch.float32 else "sdpa")
    tensors = [(name, tuple(p.shape)) for name, p in model.named_parameters()]
    weights = random_weights(tensors, SEED)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(weights[name]))
    return model.eval()


def run(model, case: dict) -> dict[str, np.ndarray]:
    """Everything a golden holds about one model, in fp32 NumPy; each prompt + completion is a sequence of its own."""
    with torch.no_grad():
        logits = model(torch.tensor(case["ids"][None].astype(np.int64))).logits[0].float()
    prompts = np.split(case["prompts"], np.cumsum(case["prompt_lengths"])[:-1])
    completions = np.split(case["completions"], np.cumsum(case["completion_lengths"])[:-1])
    logps, entropies = [], []
    for group, completion in zip(case["group"], completions, strict=True):
        ids = torch.tensor(np.concatenate([prompts[group], completion]).astype(np.int64))
        z = model(ids[None]).logits[0, len(prompts[group]) - 1:-1].float() / float(case["temperature"])
        log_p = torch.log_softmax(z, -1)
        logps.append(log_p.gather(1, ids[len(prompts[group]):, None])[:, 0])
        entropies.append(-(log_p.exp() * log_p).sum(-1))
    logps, entropies = torch.cat(logps), torch.cat(entropies)
    objective = (torch.tensor(case["coef"]) * logps + torch.tensor(case["entropy_coef"]) * entropies).sum()
    objective.backward()
    grads = {f"grad/{name}": p.grad.float().numpy() for name, p in model.named_parameters()}
    return {"logits": logits.numpy()[case["rows"]], "logps": logps.detach().numpy(),
            "entropies": entropies.detach().numpy(),
            "objective": np.float64(objective.item())} | grads


def make_golden(cfg: dict, number: int, groups=GROUPS) -> dict:
    rng = np.random.default_rng(number)
    V = cfg["vocab_size"]
    case = make_batch(V, rng, groups)
    if number % 2 == 0:
        case["entropy_coef"][:] = 0
    case |= {"ids": rng.integers(0, V, 70).astype(np.int32), "rows": np.array([0, 1, 30, 31, 32, 33, 63, 64, 69]),
             "temperature": np.float64(1.0 if number % 3 else 0.7)}
    exact, rounded = run(make_model(cfg, torch.float32), case), run(make_model(cfg, torch.bfloat16), case)
    names = [key for key in exact if key.startswith("grad/")]
    whole = [np.concatenate([side[name].ravel() for name in names]) for side in (rounded, exact)]
    errors = ([relative_error(rounded[key], exact[key]) for key in ("logits", "logps", "entropies")]
              + [relative_error(*whole)])
    return case | exact | {"config": json.dumps(cfg), "seed": SEED, "names": np.array([n[5:] for n in names]),
                           "bf16_error": np.array(errors),
                           "bf16_grad_error": np.array([relative_error(rounded[n], exact[n]) for n in names])}


def main() -> None:
    torch.set_num_threads(1)
    for number, (name, cfg) in enumerate(CASES.items()):
        golden = make_golden(cfg, number)
        path = HERE / f"{name}.npz"
        np.savez_compressed(path, **golden)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB, logits +-{np.abs(golden['logits']).max():.1f}, "
              f"bf16 error of logits, logps, entropies, gradient: {golden['bf16_error']}")


if __name__ == "__main__":
    main()
