"""What an operation must satisfy on any device, as tests on the fixtures ops (device under test), ref and rng. A test
file that imports one of these modules whole runs it: tests/cuda/ on the emulated plugin, tests/gpu/ on a GPU,
tests/core/ on the CPU. Shapes are small, since the emulator runs a few million steps of a thread a second.
test_cpu_ops.py and test_gemm.py call the same functions on every CPU tier, with shapes of their own."""
import numpy as np

from grpo import _core
from op_statements import bf16, normal
from tiny_models import build, config


def real(rng, *shape, scale=1.0):
    """Normal numbers that bfloat16 can hold."""
    return bf16(normal(rng, *shape) * np.float32(scale))


def check_rounded(got, want, noise=1e-30):
    """A result in bfloat16: `want` is exact, rounding it is the naive computation. noise: of float32 terms that
    cancel."""
    assert got.shape == want.shape
    assert np.abs(got - want).max(initial=0) <= 2 * np.abs(bf16(want) - want).max(initial=0) + noise


def check_float(got, want, tolerance=3e-6):
    """A result in float32, off by a few roundings of the largest element."""
    assert got.shape == want.shape
    assert np.abs(np.float64(got) - want).max(initial=0) <= tolerance * np.abs(want).max(initial=1e-30)


def assert_same_bits(got, want):
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(np.atleast_1d(a).view(np.uint8), np.atleast_1d(b).view(np.uint8))


def check_same_run(device: str, steps: int) -> None:
    """Rollouts and updates of a small model, twice from the same seed: the same tokens, numbers and weights, to the
    bit."""
    runs = []
    for _ in range(2):
        model = build(config("qwen3", d=32, heads=(2, 1), D=16, F=40, V=97), device)
        trainer, prompts, seen = (_core.Trainer(model),
                                  [np.arange(5, dtype=np.int32), np.arange(9, 50, dtype=np.int32)], [])
        for step in range(steps):
            out = model.generate(prompts, 3, 6, seed=7, step=step, slots=4)
            completions = np.split(out["tokens"], np.cumsum(out["lengths"])[:-1])
            coef = np.linspace(-1, 1, len(out["tokens"]), dtype=np.float32)
            logps, entropies = trainer.accumulate(prompts, completions, np.repeat(np.arange(2, dtype=np.int32), 3),
                                                  coef)
            assert_same_bits([out["policy_logprobs"], out["entropies"]], [logps, entropies])
            seen += [out["tokens"], logps, np.float32(trainer.step(1e-2, 1.0))]
        runs.append(seen + [model.get_tensor(name) for name, _ in model.tensors()])
    assert_same_bits(*runs)
