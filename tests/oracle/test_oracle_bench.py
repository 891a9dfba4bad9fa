"""The benchmarks of a card, tried on the CPU with a tiny model: they do everything that they do on a card, but for the
speed. And that their peers do the same work as ours."""
import doctest
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
BENCH = Path(__file__).parents[1] / "bench"
sys.path.insert(0, str(BENCH))

import bench_gpu  # noqa: E402
import bench_gpu_kernels  # noqa: E402
import bench_gpu_run  # noqa: E402
import side_torch  # noqa: E402
import work  # noqa: E402
from torch_decode import Decoder  # noqa: E402

import grpo  # noqa: E402
from grpo.planning.cards import Ceilings  # noqa: E402

pytestmark = pytest.mark.oracle
WORK = work.Work(prompts=2, generations=3, prompt_length=20, new_tokens=70, micro_batch=6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Weights that tell tokens apart: transformers' own are too small for that."""
    path = tmp_path_factory.mktemp("model")
    work.write_model(str(path), "tiny")
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(path)
    return str(path)


@pytest.mark.parametrize("script, arguments, rows, said", [
    ("bench_gpu", ["--parts", "step", "--sides", "grpo"], 1, "log-prob difference 0.0"),
    ("bench_gpu_run", ["--parts", "mismatch", "--sides", "grpo"], 1, "mean 0, largest 0"),
    ("bench_gpu_kernels", ["--parts", "adamw"], 2, "GB/s"),
])
def test_a_script_prints_its_table(script, arguments, rows, said):
    done = run(script, *arguments)
    assert done.returncode == 0, done.stderr
    table = [line for line in done.stdout.splitlines() if line.startswith("|")][2:]
    assert len(table) == rows and "failed" not in done.stdout
    assert "Ceilings: copy" in done.stdout and said in done.stdout


def test_what_no_time_is_left_for_is_named():
    done = run("bench_gpu", "--parts", "training", "--seconds", "0")
    assert (done.returncode == 1 and done.stdout.count("no time was left") == 3
            and done.stderr.endswith("tiny, training: no time was left\n"))


@pytest.mark.parametrize("script, part",
                         [(script, part) for script in (bench_gpu, bench_gpu_run) for part in script.PARTS])
def test_all_sides_of_a_part(folder, script, part):
    """TRL aside."""
    sides = script.PARTS[part][3 if script is bench_gpu else 2]
    found = {who: script.measure_part(who, part, folder, "cpu") for who in sides if sides[who] != ("torch", "step")}
    if script is bench_gpu:
        at = Ceilings(1e12, 1e11, "")
        rows = [script.our_row("tiny", part, found["grpo"], at, "cpu"),
                *(script.peer_row("tiny", part, who, one, found["grpo"]) for who, one in found.items())]
    else:
        rows = [*script.rows_of_part("tiny", part, {who: [{"took": 1.0, **one}] for who, one in found.items()})]
    assert len({row.count("|") for row in rows}) == 1 and "failed" not in "".join(rows)


def test_a_step_of_trl(folder):
    pytest.importorskip("trl")
    found = bench_gpu.measure_part("transformers", "step", folder, "cpu")
    assert (len(found["seconds"]) == bench_gpu.TRIAL["repeats"]
            and found["tokens"] == 128 * bench_gpu.TRIAL["new_tokens"])


def run(script, *arguments):
    return subprocess.run([sys.executable, str(BENCH / f"{script}.py"), "--device", "cpu", "--shapes", "tiny",
                           *arguments], capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})


def test_the_decode_loop_draws_what_the_model_says(folder):
    """Log-probs of its tokens are those of a forward pass of transformers, over several buckets; and it draws by
    them."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    prompts = side_torch.prompt_ids(folder, WORK)
    tokens, logps = Decoder(model, WORK.rows, 90).generate(prompts, WORK.generations, 70)
    assert (side_torch.beside_forward(model, torch.cat([prompts.repeat_interleave(3, 0), tokens], 1), logps,
                                      WORK)["max"] < 1e-5)
    entropy = -logps.mean()
    assert 0.8 < entropy / expected_entropy(model, prompts, tokens) < 1.25


def expected_entropy(model, prompts, tokens):
    with torch.no_grad():
        z = model(torch.cat([prompts.repeat_interleave(3, 0), tokens], 1)).logits[:, 19:-1].log_softmax(-1)
    return -(z.exp() * z).sum(-1).mean()


def test_models_that_see():
    """A tiny tower, whose features bench_vision.py compares with the peer's, and steps of a tiny model beside TRL's."""
    pytest.importorskip("trl")
    done = subprocess.run([sys.executable, BENCH / "bench_vision.py", "--parts", "towers,steps", "--quick"],
                          capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
    assert done.returncode == 0, done.stderr
    rows = [line.count("|") for line in done.stdout.splitlines() if line.startswith("|")]
    assert rows == [9] * (2 + 6) + [7] * (2 + 5)


@pytest.mark.parametrize("make", [side_torch.plain_backward, side_torch.compiled_backward])
def test_the_peers_gradient_is_ours(folder, make):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).train()
    prompts, rng = side_torch.prompt_ids(folder, WORK), np.random.default_rng(0)
    completions = rng.integers(300, work.WORDS, (WORK.rows, WORK.new_tokens)).astype(np.int32)
    coef = rng.normal(size=completions.shape).astype(np.float32)
    make(model, WORK)(torch.cat([prompts.repeat_interleave(3, 0), torch.from_numpy(completions).long()], 1),
                      torch.from_numpy(completions).long(),
                      torch.from_numpy(coef))
    ours = grpo.load(folder, device="ref").core
    _, gradients = ours.logprob_grads([p.astype(np.int32) for p in prompts.numpy()], [*completions],
                                      np.repeat(np.arange(2, dtype=np.int32), 3), coef.ravel())
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(gradients[name], parameter.grad.numpy(), rtol=1e-3,
                                   atol=2e-4 * float(parameter.grad.abs().max()))


@pytest.mark.parametrize("part", bench_gpu_kernels.PARTS)
def test_operations_and_their_peers_agree(part):
    """measure_case() compares results before it times."""
    found = bench_gpu_kernels.measure_case(part, "tiny", "cpu")["rows"]
    assert {row["who"] for row in found} >= {"grpo"} and not [row["why"] for row in found if "why" in row]
    ours = [row["seconds"] for row in found if row["who"] == "grpo"]
    assert all(len(seconds) == bench_gpu_kernels.REPEATS for seconds in ours)
    assert all(bench_gpu_kernels.table_row(row, ours[0], Ceilings(1e12, 1e11, ""), "cpu").count("|") == 8
               for row in found)


def test_a_peer_that_computes_something_else_is_noticed(monkeypatch):
    monkeypatch.setattr(bench_gpu_kernels, "sdpa",
                        lambda q, k, v: torch.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True))
    with pytest.raises(AssertionError, match="attention, y: results differ"):
        bench_gpu_kernels.measure_case("attention", "tiny", "cpu")


def test_examples_of_the_documentation():
    assert doctest.testmod(bench_gpu_run).failed == 0
