"""Models against transformers, live: random odd configs, real weights where they are at hand, greedy generation."""
import numpy as np
import pytest

from golden_checks import check_gradients, check_logits, check_scores
from tiny_models import build, config, gemma3, mistral, random_weights, relative_error

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from goldens.make_goldens import make_golden, make_model  # noqa: E402

pytestmark = pytest.mark.oracle
DEVICES = ["ref", "cpu"]
torch.set_num_threads(1)                     # small tensors: threads would only wait for each other


FAMILIES = ["qwen2", "qwen3", "llama", "mistral", "gemma3"]


def random_rope(rng, family):
    """Scalings of a family's rope, with original lengths that the groups below pass."""
    kind = rng.choice({"llama": ["default", "llama3", "linear"],
                       "mistral": ["default", "yarn"]}.get(family, ["default", "yarn", "linear"]))
    rope = {"rope_type": str(kind), "rope_theta": float(rng.choice([1e4, 5e5, 1e6]))}
    if kind == "llama3":
        rope |= {"factor": float(rng.choice([8, 32])), "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                 "original_max_position_embeddings": int(rng.choice([32, 128, 512]))}
    if kind == "linear":
        rope |= {"factor": float(rng.choice([2, 8]))}
    if kind == "yarn":
        rope |= {"factor": float(rng.choice([2, 4])),
                 "original_max_position_embeddings": int(rng.choice([32, 64, 1024]))}
    return rope


def random_config(rng, family=None):
    """Odd sizes everywhere that transformers allows them."""
    family = family or str(rng.choice(FAMILIES))
    kv, ratio = int(rng.integers(1, 4)), int(rng.integers(1, 9))
    d = int(rng.integers(9, 70))
    if family not in ("qwen2", "qwen3"):
        d = kv * ratio * max(1, d // (kv * ratio))
    sizes = dict(d=d, heads=(kv * ratio, kv), D=int(rng.choice([4, 10, 16, 24, 64, 80, 96, 128])),
                 F=int(rng.integers(5, 150)),
                 V=int(rng.integers(33, 400)), tie=bool(rng.random() < 0.5),
                 rms_norm_eps=float(rng.choice([1e-6, 1e-5])))
    window, L = int(rng.choice([2, 7, 32, 45, 500])), int(rng.integers(1, 4))
    if family == "gemma3":
        linear = {"rope_type": "linear", "factor": 8.0}
        return gemma3(window=window, layers="".join(rng.choice(["s", "f"], L + 1)),
                      query_scalar=int(rng.choice([16, 60, 256])),
                      full_rope=linear if rng.random() < 0.5 else None, **sizes)
    rope = {"rope_parameters": random_rope(rng, family)}
    if family == "mistral":
        return mistral(window=window if rng.random() < 0.7 else None, L=L, **rope, **sizes)
    windows = {}
    if family != "llama" and rng.random() < 0.4:
        windows = {"use_sliding_window": True, "sliding_window": window,
                   "max_window_layers": int(rng.integers(0, L + 1))}
    return config(family, L=L, **rope, **windows, **sizes)


def random_groups(rng):
    """(prompt length, completion lengths) of each group; enough tokens in all for an error to be more than one draw of
    noise."""
    return [(int(rng.integers(1, 80)), rng.integers(12, 50, rng.integers(1, 6)).tolist())
            for _ in range(rng.integers(1, 4))]


@pytest.fixture(scope="module", params=range(100, 140))
def golden(request):
    rng = np.random.default_rng(request.param)
    return make_golden(random_config(rng, FAMILIES[request.param % len(FAMILIES)]), request.param, random_groups(rng))


@pytest.mark.parametrize("where", DEVICES)
@pytest.mark.parametrize("check", [check_logits, check_scores, check_gradients])
def test_random_configs(golden, check, where):
    check(golden, where)


GREEDY = {
    **{family: config(family, d=48, heads=(6, 2), D=16, F=100, V=131, L=2) for family in ("qwen2", "qwen3", "llama")},
    "mistral": mistral(window=20, d=48, heads=(6, 2), D=16, F=100, V=131, L=2),
    "gemma3": gemma3(window=20, layers="sf", d=48, heads=(6, 2), D=16, F=100, V=131),
}


@pytest.mark.parametrize("family", GREEDY)
@pytest.mark.parametrize("options", [{}, {"repetition_penalty": 1.3}, {"min_new_tokens": 20}], ids=str)
def test_greedy_generation(family, options):
    """Token for token transformers' generate, until its end token."""
    cfg = GREEDY[family]
    hf = make_model(cfg, torch.float32)
    model = build(cfg, "ref", random_weights([(name, tuple(p.shape)) for name, p in hf.named_parameters()], 7))
    rng = np.random.default_rng(3)
    stop_ids = rng.permutation(131)[:12].astype(np.int32)
    prompts = [rng.integers(0, 131, n).astype(np.int32) for n in (1, 7, 32, 50)]
    out = model.generate(prompts, 1, 40, temperature=0.0, stop_ids=stop_ids, **options)
    for prompt, completion in zip(prompts, np.split(out["tokens"], np.cumsum(out["lengths"])[:-1]), strict=True):
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


def test_real_weights_of_gemma(tmp_path, gemma3_gguf):
    """Gemma 3 270M (a base model) from its GGUF: a folder of ours opens in transformers, and both compute the same."""
    import grpo

    model = grpo.load(gemma3_gguf)
    model.save_pretrained(tmp_path)
    text = "The Nile is the longest river of Africa. It flows north through eleven countries and ends in the"
    ids = model.prompt_ids(text)
    logps = {}
    for dtype in (torch.float32, torch.bfloat16):
        hf = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype)
        with torch.no_grad():
            logits = hf(torch.tensor(ids[None].astype(np.int64))).logits[0].float()
        logps[dtype] = logits.log_softmax(-1)[np.arange(len(ids) - 1), ids[1:]].numpy()
    exact, group = logps[torch.float32], np.zeros(1, np.int32)
    got, _ = model.core.logprobs([ids[:1]], [ids[1:]], group)
    assert relative_error(got, exact) <= 2 * relative_error(logps[torch.bfloat16], exact)
    assert "Mediterranean" in model.generate(text, max_new_tokens=8, temperature=0)[0].text
