"""Models against transformers, live: random odd configs, real weights where they are at hand, greedy generation."""
import numpy as np
import pytest

from golden_checks import check_gradients, check_logits, check_scores
from tiny_models import build, config, random_weights, relative_error

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from goldens.make_goldens import make_golden, make_model  # noqa: E402

pytestmark = pytest.mark.oracle
DEVICES = ["ref", "cpu"]
torch.set_num_threads(1)                     # small tensors: threads would only wait for each other


def random_config(rng):
    """Odd sizes everywhere that transformers allows them."""
    family = str(rng.choice(["qwen2", "qwen3", "llama"]))
    kv, ratio = int(rng.integers(1, 4)), int(rng.integers(1, 9))
    d = int(rng.integers(9, 70))
    if family == "llama":
        d = kv * ratio * max(1, d // (kv * ratio))
    rope = {"rope_type": "default", "rope_theta": float(rng.choice([1e4, 5e5, 1e6]))}
    if family == "llama" and rng.random() < 0.5:
        rope |= {"rope_type": "llama3", "factor": float(rng.choice([8, 32])), "low_freq_factor": 1.0,
                 "high_freq_factor": 4.0,
                 "original_max_position_embeddings": int(rng.choice([32, 128, 512]))}
    return config(family, d=d, heads=(kv * ratio, kv), D=int(rng.choice([4, 10, 16, 24, 64, 80, 96, 128])),
                  F=int(rng.integers(5, 150)),
                  V=int(rng.integers(33, 400)), L=int(rng.integers(1, 4)), tie=bool(rng.random() < 0.5),
                  rope_parameters=rope,
                  rms_norm_eps=float(rng.choice([1e-6, 1e-5])))


def random_groups(rng):
    """(prompt length, completion lengths) of each group; enough tokens in all for an error to be more than one draw of
    noise."""
    return [(int(rng.integers(1, 80)), rng.integers(12, 50, rng.integers(1, 6)).tolist())
            for _ in range(rng.integers(1, 4))]


@pytest.fixture(scope="module", params=range(24))
def golden(request):
    rng = np.random.default_rng(request.param)
    return make_golden(random_config(rng), request.param, random_groups(rng))


@pytest.mark.parametrize("where", DEVICES)
@pytest.mark.parametrize("check", [check_logits, check_scores, check_gradients])
def test_random_configs(golden, check, where):
    check(golden, where)


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
@pytest.mark.parametrize("options", [{}, {"repetition_penalty": 1.3}, {"min_new_tokens": 20}], ids=str)
def test_greedy_generation(family, options):
    """Token for token transformers' generate, until its end token."""
    cfg = config(family, d=48, heads=(6, 2), D=16, F=100, V=131, L=2)
    hf = make_model(cfg, torch.float32)
    model = build(cfg, "ref", random_weights([(name, tuple(p.shape)) for name, p in hf.named_parameters()], 7))
    rng = np.random.default_rng(3)
    stop_ids = rng.permutation(131)[:12].astype(np.int32)
    prompts = [rng.integers(0, 131, n).astype(np.int32) for n in (1, 7, 32, 50)]
    out = model.generate(prompts, 1, 40, temperature=0.0, stop_ids=stop_ids, **options)
    for prompt, completion in zip(prompts, np.split(out["tokens"], np.cumsum(out["lengths"])[:-1])):
        ids = torch.tensor(prompt[None].astype(np.int64))
        want = hf.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=40, do_sample=False,
                           eos_token_id=stop_ids.tolist(),
                           pad_token_id=int(stop_ids[0]), **options)
        assert completion.tolist() == want[0, len(prompt):].tolist()


@pytest.mark.parametrize("where", DEVICES)
@pytest.mark.parametrize("seed", range(6))
def test_embeddings(seed, where):
    """The mean of transformers' last hidden states, which are those after the final norm; with the errors of its own
    bf16."""
    rng = np.random.default_rng(seed)
    cfg = random_config(rng)
    texts = [rng.integers(0, cfg["vocab_size"], n).astype(np.int32) for n in (1, 31, 33, int(rng.integers(2, 90)))]
    vectors = {}
    for dtype in (torch.float32, torch.bfloat16):
        hf = make_model(cfg, dtype)
        with torch.no_grad():
            states = [hf(torch.tensor(ids[None].astype(np.int64)), output_hidden_states=True).hidden_states[-1][0]
                      for ids in texts]
        vectors[dtype] = np.stack([s.double().mean(0).numpy() for s in states])
    exact = vectors[torch.float32]
    got = build(cfg, where,
                random_weights([(name, tuple(p.shape)) for name, p in hf.named_parameters()], 7)).embed(texts)
    assert (relative_error(got, exact)
            <= (1e-4 if where == "ref" else 2 * relative_error(vectors[torch.bfloat16], exact)))


def test_real_weights(tmp_path, smollm2_gguf):
    """SmolLM2-135M-Instruct from its GGUF: our folder opens in transformers, and both compute the same."""
    import grpo

    model = grpo.load(smollm2_gguf)
    model.save_pretrained(tmp_path)
    ids = model.prompt_ids([{"role": "user",
                             "content": "What is the capital of France? Answer in one short sentence."}])
    logits = {}
    for dtype in (torch.float32, torch.bfloat16):
        hf = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype)
        with torch.no_grad():
            logits[dtype] = hf(torch.tensor(ids[None].astype(np.int64))).logits[0].float().numpy()
    exact = logits[torch.float32]
    assert relative_error(model.core.logits(ids), exact) <= 2 * relative_error(logits[torch.bfloat16], exact)
    assert relative_error(grpo.load(tmp_path, device="ref").core.logits(ids), exact) <= 1e-4
    assert "Paris" in model.generate([ids.tolist()], max_new_tokens=20, temperature=0)[0].text
