"""Specs against transformers: what a config of each family and rope type computes, layer types and all."""

import json

import numpy as np
import pytest

import grpo
import spec_forward
from grpo.model.families import spec_of
from tiny_models import random_weights, relative_error

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.oracle

SIZES = {
    "hidden_size": 48,
    "intermediate_size": 37,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 61,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
ROPES = {
    "default": {"rope_theta": 5e5},
    "linear": {"rope_scaling": {"type": "linear", "factor": 3.0}},
    "llama3": {"rope_scaling": LLAMA3, "rope_theta": 5e5},
    "dynamic": {"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}},
    "yarn": {"rope_scaling": YARN, "rope_theta": 1e6},
    "yarn of the whole length": {"rope_scaling": {"type": "yarn", "factor": 2.0}},
    "yarn with a length beside": {"rope_scaling": YARN, "original_max_position_embeddings": 32},
    "yarn without a factor": {"rope_scaling": {**YARN, "factor": None}},
    "yarn with betas": {"rope_scaling": {**YARN, "beta_fast": 16, "beta_slow": 2, "truncate": False}},
    "yarn with a factor": {"rope_scaling": {**YARN, "attention_factor": 1.7}},
    "yarn with mscale": {"rope_scaling": {**YARN, "mscale": 0.7, "mscale_all_dim": 1.3}},
    "yarn with one mscale": {"rope_scaling": {**YARN, "mscale": 0.7}},
    "yarn that shrinks": {"rope_scaling": {**YARN, "factor": 0.5}},
    "yarn of DeepSeek-R1-0528-Qwen3": {"rope_scaling": {**YARN, "attn_factor": 0.8782488562869419}},
    "new spelling": {"rope_parameters": {**YARN, "rope_theta": 2e4}},
}
FULL, SLIDING = "full_attention", "sliding_attention"
GEMMA3 = {"num_hidden_layers": 7, "head_dim": 10, "query_pre_attn_scalar": 17, "sliding_window": 9}
WINDOWS = {
    ("mistral", "of v0.1"): {"sliding_window": 7},
    ("mistral", "of v0.3"): {"sliding_window": None},
    ("mistral", "of Nemo"): {"sliding_window": None, "head_dim": 12, "tie_word_embeddings": True},
    ("mistral", "one key"): {"sliding_window": 1, "num_key_value_heads": 6},
    ("ministral", "by layer"): {"sliding_window": 5, "head_dim": 8, "layer_types": [FULL, SLIDING, FULL]},
    ("qwen2", "upper layers"): {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    ("qwen2", "not in use"): {"use_sliding_window": False, "sliding_window": 5, "max_window_layers": 0},
    ("qwen2", "above the last"): {
        "use_sliding_window": True,
        "sliding_window": 5,
        "max_window_layers": 3,
        "tie_word_embeddings": True,
    },
    ("qwen3", "upper layers"): {
        "use_sliding_window": True,
        "sliding_window": 32,
        "max_window_layers": 2,
        "head_dim": 14,
    },
    ("qwen3", "by layer"): {"use_sliding_window": True, "sliding_window": 3, "layer_types": [SLIDING, FULL, SLIDING]},
    ("gemma3_text", "as published"): {**GEMMA3, "rope_theta": 1e6, "rope_local_base_freq": 1e4},
    ("gemma3_text", "4b and larger"): {**GEMMA3, "rope_scaling": {"factor": 8.0, "rope_type": "linear"}},
    ("gemma3_text", "every other layer"): {
        **GEMMA3,
        "sliding_window_pattern": 2,
        "rope_local_base_freq": 500.0,
        "num_key_value_heads": 1,
    },
    ("gemma3_text", "listed, untied"): {
        **GEMMA3,
        "num_hidden_layers": 2,
        "layer_types": [SLIDING, FULL],
        "tie_word_embeddings": False,
    },
    ("gemma3_text", "new spelling"): {
        **GEMMA3,
        "num_key_value_heads": 3,
        "rope_parameters": {
            FULL: {"rope_type": "linear", "factor": 2.0, "rope_theta": 3e5},
            SLIDING: {"rope_type": "default", "rope_theta": 7e3},
        },
    },
    ("gemma3_text", "another gate"): {**GEMMA3, "hidden_activation": "silu", "rms_norm_eps": 1e-3},
    ("gemma3_text", "yarn"): {**GEMMA3, "rope_scaling": YARN, "sliding_window_pattern": 3},
    ("llama", "another gate"): {"hidden_act": "gelu_pytorch_tanh", "head_dim": 20},
}
CASES = {
    **{(kind, rope): keys for kind in ("llama", "qwen2", "qwen3", "mistral") for rope, keys in ROPES.items()},
    **WINDOWS,
}


def models(kind, keys):
    """(what a config.json says in each spelling, transformers' model with weights of ours, those weights)."""
    given = {**SIZES, **keys}
    hf_config = transformers.AutoConfig.for_model(kind, **json.loads(json.dumps(given)))
    model = transformers.AutoModelForCausalLM.from_config(
        hf_config, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    weights = random_weights([(name, tuple(p.shape)) for name, p in model.named_parameters()], 7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(weights[name]))
    named = "mistral" if kind == "ministral" else kind  # transformers' name for a Mistral config with layer_types
    return (
        [{**config, "model_type": named} for config in (given, hf_config.to_dict(), hf_config.to_diff_dict())],
        model,
        weights,
    )


@pytest.mark.filterwarnings("ignore:.*attn_factor")
@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_logits(case):
    configs, model, weights = models(case[0], CASES[case])
    ids = np.random.default_rng(5).integers(0, SIZES["vocab_size"], 97)
    with torch.no_grad():
        want = model(torch.tensor(ids[None])).logits[0].numpy()
    for config in configs:
        assert relative_error(spec_forward.logits(spec_of(config), weights, ids), want) < 2e-5


@pytest.mark.filterwarnings("ignore:.*attn_factor")
@pytest.mark.parametrize("rope", ROPES)
@pytest.mark.parametrize("head_dim", [4, 16, 80, 128])
def test_frequencies(rope, head_dim):
    config = {**SIZES, "head_dim": head_dim, **ROPES[rope]}
    theirs = transformers.AutoModel.from_config(
        transformers.AutoConfig.for_model("qwen3", **json.loads(json.dumps(config)))
    ).rotary_emb
    ours = spec_of({**config, "model_type": "qwen3"}).ropes[0]
    np.testing.assert_allclose(ours.inv_freq, theirs.inv_freq.numpy(), rtol=3e-7)
    assert ours.scale == pytest.approx(theirs.attention_scaling, rel=1e-12)


@pytest.mark.parametrize("length, same", [(40, True), (41, False)])
def test_dynamic_rope_is_plain_up_to_its_length(length, same):
    """Beyond it transformers has other logits for the whole sequence: what max_positions is for."""
    configs, model, weights = models("llama", {"max_position_embeddings": 40, **ROPES["dynamic"]})
    spec, ids = spec_of(configs[0]), np.random.default_rng(5).integers(0, SIZES["vocab_size"], length)
    with torch.no_grad():
        want = model(torch.tensor(ids[None])).logits[0].numpy()
    assert (
        spec.max_positions == 40
        and (relative_error(spec_forward.logits(spec, weights, ids)[:40], want[:40]) < 2e-5) == same
    )


def test_defaults_of_missing_keys():
    """A config of sizes alone means to us what it means to transformers."""
    sizes = {
        key: SIZES[key]
        for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    }
    for kind in ("llama", "qwen2", "qwen3", "mistral", "gemma3_text"):
        given = {**sizes, "num_attention_heads": 32, "hidden_size": 64}
        full = transformers.AutoConfig.for_model(kind, **given).to_dict()
        ours, theirs = spec_of({**given, "model_type": kind}), spec_of(full)
        assert ours.layers == theirs.layers and (ours.eps, ours.tie, ours.max_positions) == (
            theirs.eps,
            theirs.tie,
            theirs.max_positions,
        )
        assert [rope.inv_freq.tobytes() for rope in ours.ropes] == [rope.inv_freq.tobytes() for rope in theirs.ropes]


@pytest.mark.parametrize("arch", ["llama", "qwen2", "qwen3", "mistral", "gemma3"])
def test_tiny_configs(arch, tmp_path):
    """The config of grpo.tiny, saved, opens in transformers and means the same there."""
    config = grpo.tiny(arch, hidden_size=36, intermediate_size=29).config
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.from_pretrained(tmp_path), attn_implementation="eager"
    )
    weights = random_weights([(name, tuple(p.shape)) for name, p in model.named_parameters()], 7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(weights[name]))
        ids = np.random.default_rng(5).integers(0, config["vocab_size"], 150)
        want = model.eval()(torch.tensor(ids[None])).logits[0].numpy()
    assert type(model).__name__ == config["architectures"][0]
    assert relative_error(spec_forward.logits(spec_of(config), weights, ids), want) < 2e-5
