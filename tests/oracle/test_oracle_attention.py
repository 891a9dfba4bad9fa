"""Weights of attention against what transformers returns as output_attentions: texts of many kinds, and models that
see."""
import json

import numpy as np
import pytest

from tiny_models import build, random_weights
from tiny_vision import FAMILIES, WORDS, Scene, build_vlm, vlm

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from hf_vision import hf_model, sight_of  # noqa: E402

pytestmark = pytest.mark.oracle

SIZES = {"hidden_size": 48, "intermediate_size": 37, "num_hidden_layers": 3, "num_attention_heads": 6,
         "num_key_value_heads": 2, "vocab_size": 61, "max_position_embeddings": 256, "bos_token_id": None,
         "eos_token_id": None, "pad_token_id": None}
FULL, SLIDING = "full_attention", "sliding_attention"
GEMMA3 = {"num_hidden_layers": 7, "head_dim": 10, "query_pre_attn_scalar": 17, "sliding_window": 9}
TEXTS = {
    "qwen2": {}, "qwen2, upper layers": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    "qwen3": {"head_dim": 14, "use_sliding_window": True, "sliding_window": 3, "layer_types": [SLIDING, FULL, SLIDING]},
    "llama": {"num_key_value_heads": 6, "head_dim": 20}, "mistral": {"sliding_window": 7},
    "gemma3_text": {**GEMMA3, "rope_theta": 1e6, "rope_local_base_freq": 1e4},
    "gemma3_text, one key head": {**GEMMA3, "num_hidden_layers": 4, "sliding_window_pattern": 2,
                                 "num_key_value_heads": 1},
}
SETS = [[(1, 4, 4), (1, 4, 10)], [], [(1, 10, 12)]]
PROMPT = 70


def looked(model, prompt, completion, layers, images=None):
    """All layers' weights of the tokens of a completion."""
    rows = np.arange(len(prompt) - 1, len(prompt) + len(completion) - 1, dtype=np.int32)
    return model.attention(prompt, completion, np.arange(layers, dtype=np.int32), rows, images=images)


def hf_text(kind, config):
    """transformers' model of a text, and its weights, which are ours."""
    hf = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(kind, **config),
                                                       dtype=torch.float32, attn_implementation="eager").eval()
    weights = random_weights([(name, tuple(p.shape)) for name, p in hf.named_parameters()], 7)
    with torch.no_grad():
        for name, parameter in hf.named_parameters():
            parameter.copy_(torch.from_numpy(weights[name]))
    return hf, weights


@pytest.mark.parametrize("case", TEXTS)
def test_texts(case):
    kind, config = case.partition(",")[0], {**SIZES, **TEXTS[case]}
    hf, weights = hf_text(kind, json.loads(json.dumps(config)))
    model, L = build({**config, "model_type": kind}, "ref", weights), config["num_hidden_layers"]
    ids = np.random.default_rng(5).integers(0, SIZES["vocab_size"], 97).astype(np.int32)
    with torch.no_grad():
        out = hf(torch.tensor(ids[None, :-1].astype(np.int64)), output_attentions=True)
    want = np.stack([each[0].numpy() for each in out.attentions])[:, :, PROMPT - 1:].transpose(0, 2, 1, 3)
    got = looked(model, ids[:PROMPT], ids[PROMPT:], L)
    assert got.shape == want.shape == (L, 97 - PROMPT, SIZES["num_attention_heads"], 96)
    np.testing.assert_allclose(got, want, atol=1e-5)
    np.testing.assert_allclose(got.sum(-1), 1, atol=1e-5)


@pytest.mark.parametrize("images", range(len(SETS)))
@pytest.mark.parametrize("family", FAMILIES)
def test_models_that_see(family, images):
    config = vlm(family, L=3)
    hf, model, scene = hf_model(config), build_vlm(config, "ref"), Scene(config, SETS)
    prompt, pixels = scene.prompts[images], scene.pixels[images]
    completion = np.random.default_rng(3).integers(0, WORDS, 9).astype(np.int32)
    ids = torch.tensor(np.r_[prompt, completion[:-1]].astype(np.int64))[None]
    kinds = {"mm_token_type_ids": (ids == config["image_token_id"]).int()} if pixels else {}
    with torch.no_grad():
        out = hf(input_ids=ids, output_attentions=True, **kinds, **sight_of(pixels, SETS[images]))
    want = np.stack([each[0].numpy() for each in out.attentions])[:, :, len(prompt) - 1:].transpose(0, 2, 1, 3)
    got = looked(model, prompt, completion, 3, scene.seen(model)[images])
    np.testing.assert_allclose(got, want, atol=1e-5)
    np.testing.assert_allclose(got.sum(-1), 1, atol=1e-5)
