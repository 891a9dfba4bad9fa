"""Which published models are read and as what, and why others are refused: docs/families.md says what this finds.

`python tests/python/test_foreign_configs.py` writes the table of that page anew."""

import re
import sys
import warnings
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from grpo.errors import FileFormatError, GrpoError, GrpoWarning, UnsupportedModelError
from grpo.model.families import families, known_words, spec_of
from published_configs import ALL_LLAMA, CONFIGS, llama

PAGE = Path(__file__).parents[2] / "docs" / "families.md"
BEGIN, END = "<!-- the table: tests/python/test_foreign_configs.py -->\n", "<!-- the table ends -->\n"


def outcome(config):
    """(model_type that it is read as, or None; what is said)"""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            read_as = known_words(config, "config.json")["model_type"]
            spec = spec_of(config)
        except GrpoError as error:
            return None, str(error).removeprefix("config.json: ")
    windows = {layer.attention.window for layer in spec.layers}
    notes = [f"a window of {'/'.join(map(str, sorted(windows - {0})))}"] if windows != {0} else []
    notes += ["sees images"] if spec.vision else []
    notes += [f"up to {spec.max_positions} tokens"] if spec.max_positions else []
    notes += ["said in a warning"] if any("is read as" in str(each.message) for each in said) else []
    return read_as, ", ".join(notes)


def table():
    known = ", ".join(family.model_type for family in families().values())
    rows = []
    for name, config in CONFIGS.items():
        read_as, said = outcome(config)
        said = said.replace(f" ({known} are)", "").replace(f"; supported: {known}", "").replace("|", r"\|")
        said = re.sub(r"^model_type '\w+'( is not supported(: |, and )?)? ?| is not supported$", "", said)
        rows.append(f"| {name} | `{config['model_type']}` | {f'`{read_as}`' if read_as else 'refused'} | {said} |\n")
    return "| model | `model_type` | read as | what is said |\n|---|---|---|---|\n" + "".join(rows)


def test_the_page_has_what_is_found():
    assert table() in PAGE.read_text(), "python tests/python/test_foreign_configs.py writes it"


def test_the_page_names_every_family():
    page = PAGE.read_text()
    assert all(f"`{family.model_type}`" in page for family in families().values())


READ = {"Yi-6B (first files)": "llama", "InternLM3-8B": "llama", "Aquila2-7B": "llama", "XVERSE-7B": "llama",
        "Skywork-13B": "llama", "Ministral-8B (no windows)": "llama", "Seed-OSS-36B (dropouts 0)": "qwen2"}


@pytest.mark.parametrize("name", READ)
def test_llamas_under_other_names(name):
    config = CONFIGS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GrpoWarning)
        words = known_words(config, "c")
        spec = spec_of(config)
    assert words["model_type"] == READ[name] and known_words(words, "c") is words
    assert set(words) & {"auto_map", "bias", "qkv_bias", "attention_out_bias"} == set()
    assert spec.layers == spec_of(words).layers and len(spec.layers) == config["num_hidden_layers"]
    assert spec.layers[0].attention.qkv_bias == (READ[name] == "qwen2")


BASE = llama("foo", 64, 96, 2, 4, 2, 300)


def test_a_name_that_nobody_knows_is_warned_of():
    with pytest.warns(GrpoWarning, match="x/config.json: model_type 'foo' is read as llama, since all keys"):
        assert known_words(BASE, "x/config.json")["architectures"] == ["LlamaForCausalLM"]
    without = {key: value for key, value in BASE.items() if key != "rope_theta"}
    with pytest.warns(GrpoWarning, match="read as llama with a rope_theta of 10000"):
        known_words(without, "c")


def test_a_class_that_is_known_is_not():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        known_words({**BASE, **ALL_LLAMA}, "c")


@pytest.mark.filterwarnings("ignore::grpo.GrpoWarning")
@pytest.mark.parametrize("key, neutral, others", [
    ("embedding_multiplier", [1, 1.0, None], [12.0, 0]),
    ("residual_multiplier", [1.0], [0.22]),
    ("logits_scaling", [1.0], [8.0]),
    ("logit_scale", [1.0], [0.0625]),
    ("attention_multiplier", [0.25, None], [0.015625, 1.0]),
    ("query_pre_attn_scalar", [16], [256]),
    ("scale_emb", [1], [12]),
    ("dim_model_base", [64], [256]),
    ("attn_logit_softcapping", [None, 0], [50.0]),
    ("final_logit_softcapping", [None], [30.0]),
    ("clip_qkv", [None], [8.0]),
    ("partial_rotary_factor", [1.0, None], [0.5]),
    ("use_parallel_residual", [False], [True]),
    ("alibi", [False], [True]),
    ("qk_layernorm", [False], [True]),
    ("use_qk_norm", [False], [True]),
    ("is_causal", [True], [False]),
    ("attention_bias", [False, None], [True]),
    ("bias", [False], [True]),
    ("mlp_bias", [False], [True]),
    ("attention_dropout", [0.0], [0.1]),
    ("resid_pdrop", [0.0], [0.1]),
    ("num_experts", [None, 0], [8]),
    ("num_local_experts", [None, 0], [8]),
    ("n_routed_experts", [None], [64]),
    ("no_rope_layers", [[1, 1], None], [[1, 0]]),
    ("hidden_act", ["silu", "swish"], ["relu2", "gelu"]),
    ("rms_norm_eps", [1e-6], [None]),
    ("layer_types", [["full_attention"] * 2, None], [["full_attention", "sliding_attention"]]),
    ("sliding_window", [None, 0], [4096]),
    ("use_sliding_window", [False, None], []),
    ("layer_norm_eps", [], [1e-5]),
    ("norm_eps", [], [1e-5]),
    ("kv_lora_rank", [], [512]),
    ("some_new_key", [], [0, None, False, 1.0]),
    ("quantization_config", [None], [{"quant_method": "gptq"}]),
    ("block_configs", [None], [[{}]]),
    ("architectures", [["FooForCausalLM"], None], [["FooForSequenceClassification"], ["FooModel"], "Foo"]),
])
def test_keys_of_a_name_that_nobody_knows(key, neutral, others):
    plain = spec_of(BASE)
    for value in neutral:
        spec = spec_of({**BASE, key: value})
        assert len(spec.layers) == 2 and spec.layers[0].attention == plain.layers[0].attention
        assert spec.tie == plain.tie and spec.embed_scale == 1
    for value in others:
        with pytest.raises((UnsupportedModelError, FileFormatError), match=re.escape(key)):
            spec_of({**BASE, key: value})


@pytest.mark.filterwarnings("ignore::grpo.GrpoWarning")
@pytest.mark.parametrize("changes, read_as, window, bias", [
    ({"sliding_window": 8, "layer_types": ["sliding_attention"] * 2}, "mistral", 8, False),
    ({"sliding_window": 8, "use_sliding_window": False}, "llama", 0, False),
    ({"sliding_window": 8, "layer_types": ["full_attention"] * 2}, "llama", 0, False),
    ({"qkv_bias": True}, "qwen2", 0, True),
    ({"use_qkv_bias": True, "bias": False}, "qwen2", 0, True),
    ({"attention_bias": True, "attention_out_bias": False}, "qwen2", 0, True),
])
def test_other_words_than_llamas(changes, read_as, window, bias):
    config = {**BASE, **changes}
    assert known_words(config, "c")["model_type"] == read_as
    layer = spec_of(config).layers[1].attention
    assert (layer.window, layer.qkv_bias) == (window, bias)


@pytest.mark.parametrize("changes", [
    {"attention_bias": True}, {"attention_bias": True, "attention_out_bias": True}, {"attention_out_bias": True},
    {"qkv_bias": True, "sliding_window": 8, "layer_types": ["sliding_attention"] * 2}])
def test_biases_that_are_not_run(changes):
    with pytest.raises(UnsupportedModelError, match="bias"):
        known_words({**BASE, **changes}, "c")


@pytest.mark.parametrize("kind, key", [("granite", "attention_multiplier"), ("ministral", "sliding_window"),
                                       ("seed_oss", "attention")])
def test_defaults_of_keys_that_are_left_out(kind, key):
    if kind == "seed_oss":
        with pytest.warns(GrpoWarning, match="read as qwen2"):
            assert known_words({**BASE, "model_type": kind}, "c")["model_type"] == "qwen2"
        return
    with pytest.raises(UnsupportedModelError, match=key):
        known_words({**BASE, "model_type": kind}, "c")


@pytest.mark.parametrize("kind", [3, None, ["llama"], {}])
def test_a_name_that_is_no_text(kind):
    with pytest.raises((UnsupportedModelError, FileFormatError), match="model_type"):
        spec_of({**BASE, "model_type": kind})


if __name__ == "__main__":
    before, rest = PAGE.read_text().split(BEGIN)
    PAGE.write_text(before + BEGIN + table() + END + rest.split(END)[1])
