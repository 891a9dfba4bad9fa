"""The profile counts every op and changes nothing."""
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import grpo
from grpo import _core
from grpo.training.profile import table
from op_statements import SEES_ALL, SEES_BEFORE, SEES_PREFIX, group_segments, visible

CHILD = """
import sys, grpo
args = grpo.GRPOConfig(output_dir=sys.argv[1], max_steps=2, prompts_per_step=1, num_generations=2,
                       max_completion_length=4, save_strategy="no", learning_rate=1e-2)
def reward(completions, **_):
    return [len(c) + i for i, c in enumerate(completions)]
grpo.GRPOTrainer(grpo.tiny(seed=1), reward, args, [{"prompt": "ab"}]).train()
"""


@pytest.fixture(params=["ref", "cpu", "cuda"])
def device(request) -> str:
    """'cuda' is the emulated plugin."""
    return request.getfixturevalue("emulated") if request.param == "cuda" else request.param


def test_counts(device):
    model = grpo.load(grpo.tiny(hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2,
                                num_key_value_heads=1), device=device)
    ids, layers = np.arange(1, 8, dtype=np.int32), 3
    qkv, (d, F, N, V) = 4 * 16, (32, 64, 32, model.config["vocab_size"])       # 13 rows, padded to 32
    _core.profile_start()
    model.core.logprobs([ids], [ids], np.zeros(1, np.int32))
    profile = _core.profile()
    lines, moved = ({op: (calls, seconds, flops) for op, calls, seconds, flops, _ in profile},
                    {line[0]: line[4] for line in profile})
    assert (lines["linear"][0] == lines["linear_add"][0] == 2 * layers and lines["head"][0] == 1
            and lines["linear_dx"][0] == 0)
    assert (lines["linear"][2] == 2 * N * d * layers * (qkv + 2 * F)
            and lines["linear_add"][2] == 2 * N * d * layers * (d + F))
    assert lines["head"][2] == 2 * 32 * d * V
    pairs = 7 * 8 / 2 + 6 * 7 + 6 * 7 / 2  # the prompt; the completion with it, and with itself
    assert lines["attention"][0] == layers and lines["attention"][2] == layers * 4 * 2 * 16 * pairs
    assert moved["attention"] == layers * (4 if device == "ref" else 2) * N * 16 * 2 * (2 + 1)
    assert all(seconds > 0 for calls, seconds, _ in lines.values() if calls)


def test_what_decode_reads(device):
    """Each row's keys; of a prompt that rows share, whole pages once."""
    model, layers = (grpo.load(grpo.tiny(num_hidden_layers=2, hidden_size=32, num_attention_heads=2,
                                         num_key_value_heads=1), device=device), 2)
    prompts, new, size = ([np.arange(1, 71, dtype=np.int32), np.arange(1, 6, dtype=np.int32)], 4,
                          4 if device == "ref" else 2)
    _core.profile_start()
    model.core.generate(prompts, 3, new)
    lines = {line[0]: line for line in _core.profile()}
    lengths = [P + i for P in (70, 5) for i in range(1, new)]  # keys that a row sees, from its second token on
    _, calls, _, flops, moved = lines["attention_decode"]
    assert calls == layers * (new - 1) and flops == layers * 3 * sum(lengths) * 4 * 2 * 16
    assert moved == layers * (3 * sum(lengths) - 2 * 64 * (new - 1)) * 2 * size * 16


@pytest.mark.parametrize("window", [0, 1, 31, 32, 33, 64, 100, 10**6])
def test_what_windows_leave(device, window):
    """Of attention, pairs of a query and a key that it sees; of decode, keys of a row that the row before has not
    brought."""
    ops, size, Hq, Hkv, D = _core.Ops(device), 4 if device == "ref" else 2, 2, 1, 8
    segments, N = group_segments((75, 60, 3), (40,))
    qkv = np.ones((N, (Hq + 2 * Hkv) * D), np.float32)
    length = np.array([139, 130, 75, 20], np.int32)
    pages = np.array([[0, 1, 2, 3, 4], [0, 1, 2, 5, 6], [0, 1, 2, 5, 6], [7, 1, 2, 3, 4]], np.int32)
    place, none = np.arange(N, dtype=np.int32) % 256, np.zeros(0, np.int32)
    _core.profile_start()
    y, lse = ops.attention(qkv, segments, Hq, Hkv, D, window)
    ops.attention_bwd(y, y, lse, qkv, segments, Hq, Hkv, D, window)
    ops.attention_decode(qkv[:4], qkv, place, none, none, 8, pages, length, Hq, Hkv, D, window)
    lines = {op: (flops, moved) for op, _, _, flops, moved in _core.profile()}
    pairs = visible(segments, N, window).sum()
    assert lines["attention"][0] == 4 * Hq * D * pairs and lines["attention_bwd"][0] == 10 * Hq * D * pairs
    seen = [range(max(0, n - window) if window else 0, n) for n in length]
    shared = [0, 96, 64, 0]  # positions in whole pages that two rows see whole
    read = sum(len(keys) - len(set(keys) & set(before) & set(range(n)))
               for keys, before, n in zip(seen, [range(0), *seen], shared, strict=False))
    assert lines["attention_decode"] == (4 * Hq * D * sum(map(len, seen)), 2 * size * Hkv * D * read)


@pytest.mark.parametrize("sight", [SEES_BEFORE, SEES_ALL, SEES_PREFIX])
def test_what_rows_see_of_their_segment(device, sight):
    ops, Hq, Hkv, D = _core.Ops(device), 2, 1, 8
    segments, N = group_segments((75, 60, 3), (40,))
    qkv = np.ones((N, (Hq + 2 * Hkv) * D), np.float32)
    _core.profile_start()
    y, lse = ops.attention(qkv, segments, Hq, Hkv, D, sight=sight)
    ops.attention_bwd(y, y, lse, qkv, segments, Hq, Hkv, D, sight=sight)
    flops = {op: flops for op, _, _, flops, _ in _core.profile()}
    pairs = visible(segments, N, sight=sight).sum()
    assert flops["attention"] == 4 * Hq * D * pairs and flops["attention_bwd"] == 10 * Hq * D * pairs


def test_environment_switch(tmp_path):
    records = []
    for name, value in (("off", "0"), ("on", "1")):
        done = subprocess.run([sys.executable, "-c", CHILD, str(tmp_path / name)], capture_output=True, text=True,
                              env=os.environ | {"GRPO_PROFILE": value}, cwd=Path(grpo.__file__).parent.parent)
        assert done.returncode == 0, done.stderr
        assert ("ceilings measured" in done.stderr) == (tmp_path / name / "profile.txt").exists() == (value == "1")
        lines = map(json.loads, (tmp_path / name / "metrics.jsonl").read_text().splitlines())
        records.append([{k: v for k, v in line.items() if "time" not in k and "per_second" not in k} for line in lines])
    text = (tmp_path / "on" / "profile.txt").read_text()
    assert all(op in text for op in ("linear_dw", "attention_decode", "sample", "adamw"))
    assert records[0] == records[1] and "grad_norm" in records[0][0]


def test_table_names_the_ceiling_that_binds():
    text = table([("linear", 2, 1.0, 5e11, 1e9), ("adamw", 1, 0.5, 0.0, 5e9), ("attention", 1, 0.25, 0.0, 0.0),
                  ("head", 0, 0.0, 0.0, 0.0)],
                 flops=1e12, memory=2e10)
    linear, adamw, attention = text.splitlines()[1:4]
    assert linear.split() == ["linear", "2", "1000.0", "57.1%", "0.500", "1.0", "50%"]
    assert adamw.split() == ["adamw", "1", "500.0", "28.6%", "10.0", "50%"]
    assert attention.split() == ["attention", "1", "250.0", "14.3%"] and "head" not in text
