"""Specs of configs: windows, limits of ropes, and what is refused by name."""

from dataclasses import replace

import numpy as np
import pytest

import grpo
from grpo.errors import FileFormatError
from grpo.model.families import check, families, spec_of

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
BASE = {"model_type": "qwen2", "vocab_size": 512, **SMALL}


def config(model_type="qwen2", **changes):
    return {**BASE, "model_type": model_type, **changes}


def test_a_file_is_a_family():
    assert list(families()) == sorted(families()) and families()["gemma3"].model_type == "gemma3_text"
    for name, family in families().items():
        assert grpo.tiny(name).config["model_type"] == family.model_type
        assert grpo.tiny(name).config["architectures"] == [family.architecture]


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"num_key_value_heads": 3}, "layer 0: num_attention_heads 4 is not a multiple of num_key_value_heads 3"),
        ({"head_dim": 15}, "layer 0: head_dim 15 is odd"),
        ({"num_attention_heads": 5}, "hidden_size 64 is not a multiple"),
        ({"layer_types": ["full_attention"]}, "layer_types has 1 entries, num_hidden_layers is 2"),
        ({"use_sliding_window": True, "max_window_layers": "2"}, "max_window_layers must be an integer"),
        ({"model_type": "mistral", "sliding_window": 0}, "sliding_window must be an integer from 1"),
        ({"model_type": "gemma3_text", "query_pre_attn_scalar": 0}, "query_pre_attn_scalar must be"),
        ({"model_type": "gemma3_text", "sliding_window_pattern": 0}, "sliding_window_pattern must be"),
        (
            {"model_type": "gemma3_text", "rope_local_base_freq": -1},
            "rope of sliding_attention layers: rope_theta must be",
        ),
        ({"rope_scaling": {"type": "yarn"}}, "factor is missing"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0, "beta_fast": "x"}}, "beta_fast must be"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}, "rope_theta": 1.0}, "rope_theta must be"),
        ({"rope_scaling": {"type": "dynamic", "factor": 4.0}, "max_position_embeddings": 0}, "max_position_embeddings"),
    ],
)
def test_what_cannot_be_is_named(changes, named):
    with pytest.raises(FileFormatError, match=named):
        spec_of(config(**changes), "folder/config.json")


@pytest.mark.parametrize(
    "changes, windows",
    [
        ({"use_sliding_window": True, "sliding_window": 40, "max_window_layers": 1}, [0, 40]),
        ({"use_sliding_window": True, "sliding_window": None, "max_window_layers": 0}, [0, 0]),
        ({"use_sliding_window": True, "max_window_layers": 0}, [4096, 4096]),
        ({"use_sliding_window": True, "sliding_window": 9, "layer_types": ["sliding_attention", "attention"]}, [9, 0]),
        ({"model_type": "mistral"}, [4096, 4096]),
        ({"model_type": "mistral", "sliding_window": None}, [0, 0]),
        ({"model_type": "gemma3_text", "sliding_window": 512, "num_hidden_layers": 7}, [512] * 5 + [0, 512]),
    ],
)
def test_windows(changes, windows):
    assert [layer.attention.window for layer in spec_of(config(**changes)).layers] == windows


@pytest.mark.parametrize(
    "changes, limit",
    [({}, 0), ({"rope_scaling": {"type": "dynamic", "factor": 2.0}, "max_position_embeddings": 70}, 70)],
)
def test_longest_sequence(changes, limit):
    assert spec_of(config(**changes)).max_positions == limit


def test_a_key_of_a_rope_that_transformers_ignores_is_named():
    rope = {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 32768,
        "attn_factor": 0.8782488562869419,
    }
    with pytest.warns(grpo.GrpoWarning, match="attn_factor"):
        scale = spec_of(config("qwen3", rope_scaling=rope)).ropes[0].scale
    assert scale == pytest.approx(1.138629436111989)


SPEC = spec_of(BASE)


def with_attention(**changes):
    layer = replace(SPEC.layers[1], attention=replace(SPEC.layers[1].attention, **changes))
    return replace(SPEC, layers=(SPEC.layers[0], layer))


@pytest.mark.parametrize(
    "wrong, named",
    [
        (with_attention(kv_heads=3), "layer 1: num_attention_heads 4 is not a multiple"),
        (with_attention(kv_heads=0), "layer 1: a size"),
        (with_attention(head_dim=17), "layer 1: head_dim 17 is odd"),
        (with_attention(head_dim=18), "layer 1: rope 0 has 8 frequencies, head_dim is 18"),
        (with_attention(rope=1), "layer 1: there is no rope 1"),
        (with_attention(window=-1), "layer 1: sliding_window -1"),
        (with_attention(scale=float("nan")), "layer 1: the scale of the scores"),
        (
            replace(SPEC, layers=(replace(SPEC.layers[0], mlp=replace(SPEC.layers[0].mlp, gate="relu")),)),
            "layer 0: gate 'relu'",
        ),
        (replace(SPEC, layers=()), "a network without layers"),
        (replace(SPEC, ropes=(replace(SPEC.ropes[0], scale=0.0),)), "scale 0 of rope 0"),
        (
            replace(SPEC, ropes=(replace(SPEC.ropes[0], inv_freq=np.full(8, np.nan, np.float32)),)),
            "frequencies of rope 0",
        ),
        (replace(SPEC, names={"norms": ("x",)}), "names of slots that there are not: norms"),
    ],
)
def test_specs_that_contradict_themselves(wrong, named):
    with pytest.raises(FileFormatError, match=f"source: {named}"):
        check(wrong, "source")


# What the published config.json files say, without the keys that change no number.
MISTRAL = {
    "model_type": "mistral",
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}
NEMO = {"hidden_size": 5120, "num_hidden_layers": 40, "head_dim": 128, "sliding_window": None, "vocab_size": 131072}
GEMMA3_270M = {
    "model_type": "gemma3_text",
    "_sliding_window_pattern": 6,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 640,
    "intermediate_size": 2048,
    "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 3,
    "max_position_embeddings": 32768,
    "num_attention_heads": 4,
    "num_hidden_layers": 18,
    "num_key_value_heads": 1,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-6,
    "rope_local_base_freq": 10000.0,
    "rope_scaling": None,
    "rope_theta": 1000000.0,
    "sliding_window": 512,
    "use_bidirectional_attention": False,
    "vocab_size": 262144,
}
R1_0528 = {
    "model_type": "qwen3",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "max_position_embeddings": 131072,
    "max_window_layers": 36,
    "num_attention_heads": 32,
    "num_hidden_layers": 36,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-6,
    "rope_scaling": {
        "attn_factor": 0.8782488562869419,
        "factor": 4.0,
        "original_max_position_embeddings": 32768,
        "rope_type": "yarn",
    },
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
PUBLISHED = {
    "Mistral-7B-v0.1": (
        MISTRAL
        | {"max_position_embeddings": 32768, "rope_theta": 10000.0, "sliding_window": 4096, "vocab_size": 32000},
        {"windows": [4096] * 32, "head_dim": 128, "last": 10000 ** -(126 / 128)},
    ),
    "Mistral-7B-Instruct-v0.3": (
        MISTRAL | {"max_position_embeddings": 32768, "rope_theta": 1e6, "sliding_window": None, "vocab_size": 32768},
        {"windows": [0] * 32, "head_dim": 128, "last": 1e6 ** -(126 / 128)},
    ),
    "Mistral-Nemo-Instruct-2407": (
        MISTRAL | NEMO | {"max_position_embeddings": 131072, "rope_theta": 1e6},
        {"windows": [0] * 40, "head_dim": 128, "last": 1e6 ** -(126 / 128)},
    ),
    "Mistral-Small-24B-Instruct-2501": (
        MISTRAL | NEMO | {"intermediate_size": 32768, "max_position_embeddings": 32768, "rope_theta": 1e8},
        {"windows": [0] * 40, "head_dim": 128, "last": 1e8 ** -(126 / 128)},
    ),
    "gemma-3-270m": (GEMMA3_270M, {"windows": ([512] * 5 + [0]) * 3, "head_dim": 256, "last": 1e6 ** -(254 / 256)}),
    "DeepSeek-R1-0528-Qwen3-8B": (R1_0528, {"windows": [0] * 36, "head_dim": 128, "last": 1e6 ** -(126 / 128) / 4}),
}


@pytest.mark.filterwarnings("ignore:.*attn_factor")
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configs(name):
    given, expected = PUBLISHED[name]
    spec = spec_of(given)
    assert [layer.attention.window for layer in spec.layers] == expected["windows"]
    assert {layer.attention.head_dim for layer in spec.layers} == {expected["head_dim"]}
    assert spec.ropes[0].inv_freq[-1] == pytest.approx(expected["last"], rel=1e-6) and spec.max_positions == 0
    if name.startswith("gemma"):
        assert (spec.tie, spec.norm_offset, spec.embed_scale) == (True, 1.0, 640**0.5)
        assert [layer.attention.rope for layer in spec.layers] == ([1] * 5 + [0]) * 3
        assert spec.layers[0].attention.scale == 1 / 16 and spec.layers[0].post_norms
        assert spec.ropes[1].inv_freq[-1] == pytest.approx(1e4 ** -(254 / 256), rel=1e-6)
