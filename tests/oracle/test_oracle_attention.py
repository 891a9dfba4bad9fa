"""Weights of attention against what transformers returns as output_attentions: texts of many kinds, and models that
see."""
import numpy as np
import pytest

from grpo.model.families import spec_of
from test_oracle_families import CASES, SIZES, models
from tiny_models import build
from tiny_vision import FAMILIES, WORDS, Scene, build_vlm, vlm

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from hf_vision import hf_model, sight_of  # noqa: E402

pytestmark = pytest.mark.oracle

TEXTS = [("qwen2", "default"), ("qwen2", "upper layers"), ("qwen3", "by layer"), ("llama", "llama3"),
         ("mistral", "of v0.1"), ("gemma3_text", "as published"), ("gemma3_text", "new spelling")]
SETS = [[(1, 4, 4), (1, 4, 10)], [], [(1, 10, 12)]]
PROMPT = 70


def looked(model, prompt, completion, layers, images=None):
    """All layers' weights of the tokens of a completion."""
    rows = np.arange(len(prompt) - 1, len(prompt) + len(completion) - 1, dtype=np.int32)
    return model.attention(prompt, completion, np.arange(layers, dtype=np.int32), rows, images=images)


@pytest.mark.parametrize("case", TEXTS, ids=" ".join)
def test_texts(case):
    configs, hf, weights = models(case[0], CASES[case])
    model, L = build(configs[0], "ref", weights), len(spec_of(configs[0]).layers)
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
