"""What a GGUF's metadata and tensors mean: configs, names, values, files in parts, SentencePiece vocabularies."""

import numpy as np
import pytest

import grpo
from grpo.errors import FileFormatError, UnsupportedModelError
from grpo.model.formats.gguf import GgufFile
from grpo.model.formats.gguf_config import gguf_config
from grpo.model.tokenizer import Tokenizer
from make_files import byte_level_metadata, gguf, gguf_shards, gguf_tensors, model_metadata, sentencepiece_metadata

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
GEMMA3 = {
    "model_type": "gemma3_text",
    **SMALL,
    "num_hidden_layers": 7,
    "head_dim": 32,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 256,
    "vocab_size": 300,
    "rope_parameters": {"full_attention": {"rope_theta": 1e6}},
    "sliding_window": 16,
}
YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0}
HF_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}
LINEAR = {"rope_type": "linear", "factor": 4.0}


def metadata_of(architecture, changes=None, **sizes):
    """Keys of a small model; ``changes``: by key without the architecture, None removes one."""
    config = {
        **GEMMA3,
        "model_type": architecture,
        "head_dim": 16,
        "max_position_embeddings": 4096,
        "sliding_window": 0,
        **sizes,
    }
    a = "gemma3" if architecture == "gemma3_text" else architecture
    metadata = {**model_metadata(config), **{f"{a}.{key}": value for key, value in (changes or {}).items()}}
    return {key: value for key, value in metadata.items() if value is not None}


def config_of(architecture, changes=None, **sizes):
    return gguf_config(metadata_of(architecture, changes, **sizes), 300, True, None, "x.gguf")


@pytest.mark.parametrize(
    "keys, scaling",
    [
        ({}, None),
        ({"rope.scaling.type": "none"}, None),
        ({"rope.scaling.type": "none", "rope.scaling.factor": 4.0}, None),
        ({"rope.scaling.factor": 4.0}, LINEAR),
        ({"rope.scale_linear": 4.0}, LINEAR),
        ({"rope.scaling.factor": 4.0, "rope.scale_linear": 2.0}, LINEAR),
        ({"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}, LINEAR),
        ({"rope.scaling.type": "linear", "rope.scale_linear": 4.0}, LINEAR),
        ({"rope.scaling.factor": 1.0}, None),
        ({"rope.scale_linear": 0.0}, None),
        ({"rope.scaling.type": "linear"}, None),
        (YARN, HF_YARN),
        ({**YARN, "rope.scaling.original_context_length": 1024}, {**HF_YARN, "original_max_position_embeddings": 1024}),
        ({**YARN, "rope.scaling.finetuned": True, "rope.scaling.yarn_ext_factor": 1.0}, HF_YARN),
        (
            {**YARN, "rope.scaling.yarn_beta_fast": 24.0, "rope.scaling.yarn_beta_slow": 2.0},
            {**HF_YARN, "beta_fast": 24.0, "beta_slow": 2.0},
        ),
        ({**YARN, "rope.scaling.yarn_attn_factor": 1.25}, {**HF_YARN, "attention_factor": 1.25}),
        # DeepSeek-R1-0528-Qwen3's: 1 / (1 + 0.1 ln 4), which transformers does not read.
        ({**YARN, "rope.scaling.yarn_attn_factor": 0.8782488562869419}, {**HF_YARN, "attn_factor": 0.8782489}),
        ({**YARN, "rope.scaling.attn_factor": 0.5}, {**HF_YARN, "attention_factor": 0.5 * (0.1 * np.log(4) + 1)}),
        ({**YARN, "rope.scaling.yarn_log_multiplier": 0.5}, {**HF_YARN, "mscale": 1.0, "mscale_all_dim": 0.5}),
    ],
)
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_rope_scaling(architecture, keys, scaling):
    config = config_of(architecture, keys)
    assert config.get("rope_scaling") == scaling and config["rope_theta"] == 1e6


@pytest.mark.parametrize(
    "keys, named",
    [
        ({"rope.scaling.type": "longrope", "rope.scaling.factor": 4.0}, "longrope"),
        ({"rope.scaling.type": "dynamic"}, "dynamic"),
        ({"rope.scaling.factor": 4.0, "rope.scaling.attn_factor": 2.0}, "attn_factor"),
        ({"rope.scaling.alpha": 1000.0}, "alpha"),
        ({**YARN, "rope.scaling.yarn_ext_factor": 0.5}, "yarn_ext_factor"),
        ({**YARN, "rope.scaling.factor": None}, "rope.scaling.factor is missing"),
        ({**YARN, "rope.scaling.original_context_length": 0}, "original_context_length"),
        ({"rope.scaling.factor": "4"}, "rope.scaling.factor must be"),
        ({"rope.freq_base": 0.0}, "rope.freq_base must be"),
        ({"expert_count": 4}, "mixture"),
        ({"attention.head_count_kv": [1, 2]}, "head_count_kv that differs by layer"),
        ({"attention.head_count": 4.0}, "head_count must be an integer"),
        ({"block_count": 1 << 20}, "block_count must be"),
        ({"attention.value_length": 8}, "value heads"),
    ],
)
def test_what_is_not_run_is_refused_by_name(keys, named):
    with pytest.raises((FileFormatError, UnsupportedModelError), match=named) as caught:
        config_of("llama", keys)
    assert "x.gguf" in str(caught.value)


def test_rope_divisors_beside_a_factor():
    with pytest.raises(UnsupportedModelError, match="rope_freqs"):
        gguf_config(metadata_of("llama", {"rope.scaling.factor": 4.0}), 300, True, np.ones(8, np.float32), "x.gguf")


def test_a_llama_with_a_window_is_a_mistral():
    config = config_of("llama", {"attention.sliding_window": 64})
    assert config["model_type"] == "mistral" and config["architectures"] == ["MistralForCausalLM"]
    assert config["sliding_window"] == 64 and "layer_types" not in config
    without = config_of("llama", {"attention.sliding_window": 0})
    assert without["model_type"] == "llama" and "sliding_window" not in without


@pytest.mark.parametrize(
    "architecture, keys",
    [("qwen2", {}), ("qwen3", {}), ("llama", {"attention.sliding_window_pattern": 2})],
)
def test_other_windows_are_refused(architecture, keys):
    with pytest.raises(UnsupportedModelError, match="sliding-window"):
        config_of(architecture, {"attention.sliding_window": 64, **keys})


def test_gemma3_config():
    config = gguf_config(metadata_of("gemma3_text", head_dim=32, sliding_window=16), 300, True)
    assert config == {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        **SMALL,
        "num_hidden_layers": 7,
        "head_dim": 32,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 4096,
        "vocab_size": 300,
        "tie_word_embeddings": True,
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": 32,
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
        "sliding_window": 16,
        "layer_types": [*["sliding_attention"] * 5, "full_attention", "sliding_attention"],
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
    }


@pytest.mark.parametrize(
    "keys, expected",
    [
        ({"attention.sliding_window_pattern": 2}, {"layer_types": "SFSFSFS"}),
        ({"attention.sliding_window_pattern": 1}, {"layer_types": "FFFFFFF"}),
        ({"attention.sliding_window_pattern": 0}, {"layer_types": "SSSSSSS"}),
        ({"attention.sliding_window_pattern": [0, 1, 1, 0, 0, 0, 1]}, {"layer_types": "FSSFFFS"}),
        ({"attention.sliding_window": 0}, {"layer_types": "FFFFFFF", "sliding_window": 4096}),
        ({"attention.sliding_window": None}, {"layer_types": "FFFFFFF", "sliding_window": 4096}),
        ({"final_logit_softcapping": 30.0}, {"final_logit_softcapping": 30.0}),
        ({"block_count": 62}, {"query_pre_attn_scalar": 16}),  # the 27B: hidden_size / heads
        (
            {"rope.scaling.type": "linear", "rope.scaling.factor": 8.0, "rope.freq_base_swa": 5000.0},
            {
                "rope_parameters": {
                    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                    "sliding_attention": {"rope_type": "default", "rope_theta": 5e3},
                }
            },
        ),
    ],
)
def test_gemma3_keys(keys, expected):
    config = config_of("gemma3_text", keys, head_dim=32, sliding_window=16)
    config["layer_types"] = "".join(kind[0].upper() for kind in config["layer_types"])
    assert {key: config[key] for key in expected} == expected


@pytest.mark.parametrize("pattern", ["6", [1, 0], [2] * 7, -1.0])
def test_a_pattern_of_windows_that_does_not_fit(pattern):
    with pytest.raises(FileFormatError, match="sliding_window_pattern"):
        config_of("gemma3_text", {"attention.sliding_window_pattern": pattern}, sliding_window=16)


def test_gemma3_has_no_usual_theta():
    """Files of other converters have it under other keys: refused rather than guessed."""
    with pytest.raises(FileFormatError, match=r"gemma3\.rope\.freq_base is missing"):
        config_of("gemma3_text", {"rope.freq_base": None})


def gemma3_state(rng):
    """A Hugging Face state dict with norm weights that float32 holds exactly after 1 is added."""
    d, q, kv, f = 64, 4 * 32, 2 * 32, 96
    layer = {
        "input_layernorm": (d,),
        "self_attn.q_proj": (q, d),
        "self_attn.k_proj": (kv, d),
        "self_attn.v_proj": (kv, d),
        "self_attn.o_proj": (d, q),
        "self_attn.q_norm": (32,),
        "self_attn.k_norm": (32,),
        "post_attention_layernorm": (d,),
        "pre_feedforward_layernorm": (d,),
        "mlp.gate_proj": (f, d),
        "mlp.up_proj": (f, d),
        "mlp.down_proj": (d, f),
        "post_feedforward_layernorm": (d,),
    }
    shapes = {"model.embed_tokens.weight": (300, d), "model.norm.weight": (d,)}
    shapes |= {f"model.layers.{i}.{name}.weight": shape for i in range(7) for name, shape in layer.items()}
    return {name: (rng.integers(-4096, 4096, shape) / 512).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture
def gemma3_file(tmp_path, rng):
    """(state dict, its GGUF)"""
    state = gemma3_state(rng)
    (tmp_path / "gemma.gguf").write_bytes(gguf(model_metadata(GEMMA3), gguf_tensors(state, GEMMA3)))
    return state, tmp_path / "gemma.gguf"


def test_gemma3_names_and_values(gemma3_file):
    """Norm weights come back without the 1 that llama.cpp adds; nothing is permuted."""
    state, path = gemma3_file
    file = GgufFile(path)
    assert file.shapes() == {name: array.shape for name, array in state.items()}
    for name, array in state.items():
        np.testing.assert_array_equal(file.read(name), array, err_msg=name)
    file.close()


def test_a_mistral_is_permuted_as_a_llama(tmp_path):
    model = grpo.load(grpo.tiny("llama", **SMALL), device="ref")
    state, config = model.state_dict(), {**model.config, "model_type": "mistral", "sliding_window": 16}
    (tmp_path / "x.gguf").write_bytes(gguf(model_metadata(config), gguf_tensors(state, config)))
    file = GgufFile(tmp_path / "x.gguf")
    assert file.config["model_type"] == "mistral"
    assert all(np.array_equal(file.read(name), array) for name, array in state.items())
    file.close()


@pytest.fixture(scope="module")
def model():
    return grpo.load(grpo.tiny("llama", **SMALL, tie_word_embeddings=False), device="ref")


def shards_of(model, counts=(5, 1, 0, 15)):
    metadata = {**model_metadata(model.config), **byte_level_metadata()}
    return gguf_shards(metadata, gguf_tensors(model.state_dict(), model.config), counts)


def write(folder, files):
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return sorted(files)


@pytest.mark.parametrize("counts", [(21,), (20, 1), (0, 21), (5, 1, 0, 15)])
def test_a_model_in_parts(model, counts, tmp_path):
    names = write(tmp_path, shards_of(model, counts))
    back = grpo.load(tmp_path / names[0], device="ref")
    state = back.state_dict()
    assert all(np.array_equal(array, state[name]) for name, array in model.state_dict().items())


def test_any_part_stands_for_all(model, tmp_path):
    names, state = write(tmp_path, shards_of(model)), model.state_dict()
    for name in names[1:]:
        back = grpo.load(tmp_path / name, device="ref").state_dict()
        assert all(np.array_equal(array, back[key]) for key, array in state.items())


@pytest.mark.parametrize("given", [0, 2, 3])
def test_parts_that_are_missing_are_named(model, given, tmp_path):
    names = write(tmp_path, shards_of(model))
    for gone in {1, 2} - {given}:
        (tmp_path / names[gone]).unlink()
    with pytest.raises(FileFormatError, match="one of 4 files of a model") as caught:
        grpo.load(tmp_path / names[given], device="ref")
    said = str(caught.value)
    assert str(tmp_path / names[given]) in said and names[1] in said and (given == 2) == (names[2] not in said[90:])


SECOND, THIRD = "x-00002-of-00004.gguf", "x-00003-of-00004.gguf"
FOUR = {"split.no": 1, "split.count": 4, "split.tensors.count": 21}


@pytest.mark.parametrize(
    "name, change, named",
    [
        (SECOND, lambda files: None, "is missing"),
        (SECOND, lambda files: files[THIRD], "says that it is shard 3 of 4, not 2 of 4"),
        (SECOND, lambda files: b"GGUF", "not a GGUF"),
        (SECOND, lambda files: files[SECOND][:100], "ends inside"),
        (SECOND, lambda files: gguf({**FOUR, "split.count": 5}, []), "says that it is shard 2 of 5"),
        (SECOND, lambda files: gguf({}, []), "does not say that it is a part"),
        (SECOND, lambda files: gguf({**FOUR, "split.no": "1"}, []), "split.no"),
        (SECOND, lambda files: gguf(FOUR, [("token_embd.weight", "F32", (4,), b"\0" * 16)]), "token_embd.weight"),
        (SECOND, lambda files: gguf(FOUR, [("x", 19, (256,), b"\0" * 50)]), "'x': type IQ1_S"),
    ],
)
def test_parts_that_do_not_fit_are_named(model, name, change, named, tmp_path):
    files = shards_of(model)
    changed = change(files)
    first = write(tmp_path, {key: data for key, data in files.items() if key != name or changed is not None})[0]
    if changed is not None:
        (tmp_path / name).write_bytes(changed)
    with pytest.raises(grpo.GrpoError, match=named) as caught:
        grpo.load(tmp_path / first, device="ref")
    assert str(tmp_path) in str(caught.value) and name in str(caught.value)


def test_a_part_with_too_few_tensors(model, tmp_path):
    files = shards_of(model)
    first = write(tmp_path, {**files, SECOND: gguf(FOUR, [])})[0]
    with pytest.raises(FileFormatError, match=r"split\.tensors\.count is 21, the 4 files have 20"):
        grpo.load(tmp_path / first, device="ref")


@pytest.mark.parametrize("name", ["model.gguf", "x-00002-of-00004.gguf", "x-00001-of-00003.gguf", "x-1-of-4.gguf"])
def test_a_part_under_another_name(model, name, tmp_path):
    files = shards_of(model)
    (tmp_path / name).write_bytes(files["x-00001-of-00004.gguf"])
    with pytest.raises(FileFormatError, match="must be named") as caught:
        grpo.load(tmp_path / name, device="ref")
    assert str(tmp_path / name) in str(caught.value)


def test_an_unsupported_type_names_tensor_type_and_file(model, tmp_path):
    tensors = [*gguf_tensors(model.state_dict(), model.config), ("blk.9.x.weight", 16, (256,), b"\0" * 66)]
    (tmp_path / "x.gguf").write_bytes(gguf({**model_metadata(model.config), **byte_level_metadata()}, tensors))
    with pytest.raises(UnsupportedModelError, match=r"x\.gguf: tensor 'blk\.9\.x\.weight': type IQ2_XXS.*IQ4_XS"):
        grpo.load(tmp_path / "x.gguf", device="ref")


def test_heads_of_others_are_left_out_and_said(model, tmp_path, capfd):
    tensors = gguf_tensors(model.state_dict(), model.config)
    data = {**model_metadata(model.config), **byte_level_metadata()}
    extra = [(name, "F32", (2,), b"\0" * 8) for name in ("cls.output.weight", "cls.weight", "blk.0.attn_rot_embd")]
    (tmp_path / "x.gguf").write_bytes(gguf(data, [*tensors, *extra]))
    assert grpo.load(tmp_path / "x.gguf", device="ref").num_parameters() == model.num_parameters()
    assert "x.gguf: 3 tensor(s) left out" in capfd.readouterr().err
    (tmp_path / "x.gguf").write_bytes(gguf(data, [*tensors, ("class.weight", "F32", (2,), b"\0" * 8)]))
    with pytest.raises(FileFormatError, match="class.weight is not a tensor"):
        grpo.load(tmp_path / "x.gguf", device="ref")


def sentencepiece_of(pieces, **changes):
    """The vocabulary of `sentencepiece_metadata` with other pieces: {text: (score, type)}."""
    base = sentencepiece_metadata()
    metadata = {
        **base,
        "tokenizer.ggml.tokens": base["tokenizer.ggml.tokens"][:259] + list(pieces),
        "tokenizer.ggml.scores": base["tokenizer.ggml.scores"][:259] + [score for score, _ in pieces.values()],
        "tokenizer.ggml.token_type": base["tokenizer.ggml.token_type"][:259] + [kind for _, kind in pieces.values()],
    }
    return {**metadata, **{f"tokenizer.ggml.{key}": value for key, value in changes.items()}}


GEMMA_PIECES = {
    **{
        text: (-10.0 - i, 1)
        for i, text in enumerate(["▁", "a", "b", "x", "▁a", "ab", "<", "0", "4", "1", ">", "<0", "x4", "1>"])
    },
    "<0x4": (-30.0, 1),
    "  ": (-1000.0, 4), "   ": (-1000.0, 4), "\n": (-1000.0, 4), "\n\n": (-1000.0, 4), "<b>": (-1000.0, 4),
    "<end_of_turn>": (-1000.0, 3),
}


@pytest.mark.parametrize(
    "text, pieces",
    [
        ("a b", ["a", "▁", "b"]),
        (" a", ["▁a"]),
        ("a  b", ["a", "  ", "b"]),
        ("a    b", ["a", "   ", "▁", "b"]),  # the longest run first, from the left
        ("a\n\n\nb", ["a", "\n\n", "\n", "b"]),
        ("<b>ab", ["<b>", "ab"]),
        ("<0x41>", ["<0x4", "1>"]),  # written out, it is not the byte
        ("é", ["<0xC3>", "<0xA9>"]),
        ("a<end_of_turn>\n", ["a", "<end_of_turn>", "\n"]),
    ],
)
def test_gemma_vocabulary(text, pieces):
    metadata = sentencepiece_of(GEMMA_PIECES, add_space_prefix=False)
    tokenizer = Tokenizer.from_gguf(metadata)
    tokens = metadata["tokenizer.ggml.tokens"]
    ids = tokenizer.encode(text)
    assert [tokens[i] for i in ids] == pieces
    assert tokenizer.decode(ids, skip_special_tokens=False) == text
    assert tokenizer.encode(text, add_special_tokens=True) == [1, *ids]


def test_merges_of_equal_score_prefer_the_longer_left_side():
    """As transformers orders them: "aaa" from "aa" and "a"."""
    metadata = sentencepiece_of(
        {"▁": (-9.0, 1), "a": (-8.0, 1), "aa": (-2.0, 1), "aaa": (-2.0, 1)}, add_space_prefix=False
    )
    backend = Tokenizer.from_gguf(metadata).save_files()["tokenizer.json"].decode()
    assert (
        backend.index('"aa",\n        "a"') < backend.index('"a",\n        "aa"') < backend.index('"a",\n        "a"')
    )


def test_a_turn_of_gemma_ends_a_completion():
    assert Tokenizer.from_gguf(sentencepiece_of(GEMMA_PIECES)).eos_ids == [2, 259 + len(GEMMA_PIECES) - 1]
    assert Tokenizer.from_gguf(sentencepiece_of(GEMMA_PIECES, eot_token_id=260)).eos_ids == [2, 260, 279]
