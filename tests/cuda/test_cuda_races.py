"""No kernel of the CUDA backend has a race: between threads of a block, of a warp, or of two blocks
(emulator/races.cpp)."""
import shutil

import numpy as np
import pytest

import cuda_plugin
from checks import real
from checks.order import gemm_and_head
from grpo import _core
from op_statements import SEES_ALL, SEES_PREFIX, decode_completions, group_segments
from tiny_models import build, config


@pytest.fixture(scope="session")
def emulated_plugin():
    if not shutil.which("g++"):
        pytest.skip("no g++ to compile csrc/cuda for the CPU")
    return cuda_plugin.build("libgrpo_cuda_races", more=cuda_plugin.RACES)


@pytest.fixture(autouse=True, params=["late", "early"])
def copies(request, monkeypatch):
    monkeypatch.setenv("GRPO_CUDA_HOST_COPY", request.param)


@pytest.mark.usefixtures("capability")
def test_products_head_and_sampler(ops, rng):
    gemm_and_head(ops, rng)


@pytest.mark.parametrize("groups, D, window", [([(40, 30, 3, 33)], 16, 0), ([(530, 2, 9)], 16, 0),
                                               ([(40, 30, 3, 33)], 16, 20), ([(530, 2, 9)], 16, 100),
                                               ([(40, 30)], 256, 45)], ids=str)
def test_attention(ops, rng, groups, D, window):
    Hq, Hkv = 3, 1
    segments, N = group_segments(*groups)
    qkv, dy = real(rng, N, (Hq + 2 * Hkv) * D), real(rng, N, Hq * D)
    y, lse = ops.attention(qkv, segments, Hq, Hkv, D, window)
    ops.attention_bwd(dy, y, lse, qkv, segments, Hq, Hkv, D, window)
    ops.attention_weights(lse, qkv, np.arange(5, N, 7, dtype=np.int32), segments, Hq, Hkv, D, window)
    decode_completions(ops, qkv, segments, Hq, Hkv, D, window=window)


@pytest.mark.parametrize("sight", [SEES_ALL, SEES_PREFIX])
@pytest.mark.parametrize("groups, D", [([(40, 70, 3, 33)], 16), ([(530, 2, 9)], 16), ([(40, 30)], 256)], ids=str)
def test_attention_of_other_sights(ops, rng, groups, D, sight):
    Hq, Hkv = 3, 1
    segments, N = group_segments(*groups)
    qkv, dy = real(rng, N, (Hq + 2 * Hkv) * D), real(rng, N, Hq * D)
    y, lse = ops.attention(qkv, segments, Hq, Hkv, D, sight=sight)
    ops.attention_bwd(dy, y, lse, qkv, segments, Hq, Hkv, D, sight=sight)


@pytest.mark.parametrize("storage", [{}, {"moment_dtype": "float8", "master_dtype": "float24"}], ids=str)
def test_a_step_of_a_model(emulated, storage):
    model = build(config("qwen3", d=16, heads=(2, 1), D=16, F=24, V=97, L=1), emulated)
    trainer, prompts = _core.Trainer(model, **storage), [np.arange(33, dtype=np.int32)]
    out = model.generate(prompts, 2, 4, slots=2, repetition_penalty=1.2, top_k=20, top_p=0.9,
                         stop_ids=np.arange(3, dtype=np.int32))
    completions = np.split(out["tokens"], np.cumsum(out["lengths"])[:-1])
    trainer.accumulate(prompts, completions, np.zeros(2, np.int32), np.ones(len(out["tokens"]), np.float32))
    trainer.step(1e-2, 1.0)
