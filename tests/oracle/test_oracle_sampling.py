"""The sampler's support against transformers' own logits processors, in the order generate() builds them."""
import numpy as np
import pytest

from op_statements import normal

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.oracle

V = 50


def processors(settings):
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=V, n_layer=1, n_head=1, n_embd=8,
                                                                 bos_token_id=0, eos_token_id=0))
    config = transformers.GenerationConfig(do_sample=True, **settings)
    model._prepare_special_tokens(config)
    return model._get_logits_processor(config, input_ids_seq_length=1)


@pytest.mark.parametrize("seed", range(12))
def test_support_and_log_probs(ref, seed):
    rng = np.random.default_rng(seed)
    settings = {"temperature": float(rng.uniform(0.4, 1.6)), "top_k": int(rng.integers(2, V)),
                "top_p": float(rng.uniform(0.3, 0.99)),
                "min_p": float(rng.uniform(0.0, 0.4)), "repetition_penalty": float(rng.uniform(0.7, 1.5))}
    h, W = normal(rng, 1, 8), normal(rng, V, 8)
    prompt = rng.integers(V, size=20)
    scores = processors(settings)(torch.tensor(prompt)[None], torch.tensor(ref.logits(h, W)))
    want = torch.log_softmax(scores.double(), -1).numpy()[0]
    S = 3000
    seen, keys = np.zeros((S, V), np.uint8), np.zeros((S, 4), np.uint32)
    seen[:, prompt] = 1
    keys[:, 2] = np.arange(S)
    ids, logp, *_ = ref.sample(np.repeat(h, S, 0), W, keys, seen=seen, **settings)
    np.testing.assert_allclose(logp, want[ids], atol=1e-5)
    assert set(np.flatnonzero(np.exp(want) > 0.01)) <= set(ids.tolist())
