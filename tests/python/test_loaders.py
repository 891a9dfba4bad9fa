"""Config reader, safetensors, GGUF, and what load() makes of them."""

import json
import struct
from dataclasses import replace

import numpy as np
import pytest

import grpo
from grpo import _core
from grpo.errors import ConfigError, DeviceError, FileFormatError, TokenizerError, UnsupportedModelError
from grpo.model.families import Config, rope_of, rope_parameters, spec_of
from grpo.model.formats.folder import FolderWriter
from grpo.model.formats.safetensors import (
    SafetensorsFile,
    SafetensorsFolder,
    parse_size,
    to_bfloat16_bits,
    write_weights,
)
from make_files import byte_level_metadata, gguf, gguf_tensors, model_metadata, quantised, safetensors

ARCHS = ("qwen2", "qwen3", "llama")
SMALL = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192}


def config(arch="qwen2", **changes):
    base = {"model_type": arch, "vocab_size": 512, "rms_norm_eps": 1e-5, "rope_theta": 1e6, "tie_word_embeddings": True,
            **SMALL, **changes}
    return {key: value for key, value in base.items() if value is not ...}


# -- config.json -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "old, new",
    [
        (
            {"rope_theta": 5e5, "torch_dtype": "bfloat16"},
            {"rope_theta": ..., "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}, "dtype": "bfloat16"},
        ),
        (
            {"rope_scaling": {"type": "linear", "factor": 4.0}},
            {"rope_theta": ..., "rope_parameters": {"rope_type": "linear", "rope_theta": 1e6, "factor": 4.0}},
        ),
        ({"rope_scaling": LLAMA3}, {"rope_theta": ..., "rope_parameters": {**LLAMA3, "rope_theta": 1e6}}),
    ],
)
@pytest.mark.parametrize("arch", ARCHS)
def test_both_config_spellings_mean_the_same(arch, old, new):
    a, b = spec_of(config(arch, **old)), spec_of(config(arch, **new))
    assert (a.ropes[0].inv_freq.tobytes() == b.ropes[0].inv_freq.tobytes()
            and replace(a, ropes=()) == replace(b, ropes=()))


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({}, {"qkv_bias": True, "qk_norm": False, "head_dim": 16, "kv_heads": 2, "tie": True, "eps": 1e-5}),
        ({"model_type": "llama", "num_key_value_heads": ...}, {"qkv_bias": False, "kv_heads": 4}),
        ({"model_type": "llama", "num_key_value_heads": None}, {"kv_heads": 4}),
        ({"model_type": "llama", "head_dim": None}, {"head_dim": 16}),
        ({"model_type": "qwen3"}, {"qkv_bias": False, "qk_norm": True, "head_dim": 128}),
        ({"model_type": "qwen3", "head_dim": 32}, {"head_dim": 32}),
        ({"tie_word_embeddings": ..., "rms_norm_eps": ...}, {"tie": False, "eps": 1e-6}),
        ({"use_sliding_window": False, "sliding_window": 32768, "max_window_layers": 1}, {"window": 0}),
        ({"use_sliding_window": True, "sliding_window": 4096, "max_window_layers": 2}, {"window": 0}),
        ({"layer_types": ["full_attention"] * 2, "unknown_key": [1]}, {"window": 0}),
    ],
)
def test_specs_of_configs(changes, expected):
    spec = spec_of(config(**changes))
    assert len(spec.layers) == 2
    for layer in spec.layers:
        found = {**vars(spec), **vars(layer.attention)}
        assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"model_type": "mixtral"}, "mixtral"),
        ({"model_type": "gemma3", "vision_config": {}, "text_config": {}}, "multimodal.*gemma3_text"),
        ({"model_type": "llava"}, "llava"),
        ({"model_type": "qwen3_moe"}, "mixture of experts"),
        ({"rope_scaling": {"rope_type": "proportional", "factor": 2.0}}, "proportional"),
        ({"rope_scaling": {"type": "longrope"}}, "longrope"),
        ({"rope_scaling": {"type": "mrope", "mrope_section": [8, 8, 8]}}, "mrope"),
        ({"rope_parameters": {"full_attention": {}, "sliding_attention": {}}}, "by layer"),
        ({"is_causal": False}, "is_causal False"),
        ({"is_causal": None}, "is_causal None"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"model_type": "llama", "attention_bias": True}, "attention_bias"),
        ({"model_type": "qwen3", "attention_bias": True}, "attention_bias"),
        ({"model_type": "llama", "mlp_bias": True}, "mlp_bias"),
        ({"model_type": "llama", "use_sliding_window": True, "sliding_window": 4096, "max_window_layers": 0},
         "sliding"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding_attention of layer 1"),
        ({"layer_types": ["full_attention", "chunked_attention"]}, "chunked_attention' of layer 1"),
        ({"model_type": "mistral", "attention_bias": True}, "attention_bias"),
        ({"model_type": "gemma3_text", "attention_bias": True}, "attention_bias"),
        ({"model_type": "gemma3_text", "final_logit_softcapping": 30.0}, "final_logit_softcapping 30"),
        ({"model_type": "gemma3_text", "attn_logit_softcapping": 0.0}, "attn_logit_softcapping"),
        ({"model_type": "gemma3_text", "use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ({"model_type": "gemma3_text", "hidden_activation": "gelu"}, "hidden_activation 'gelu'"),
        ({"model_type": "gemma3_text", "sliding_window": None}, "sliding_attention of layer 0"),
        ({"model_type": "gemma3_text", "rope_parameters": {"rope_type": "default"}}, "rope_parameters"),
        ({"model_type": "gemma3_text", "rope_parameters": {"sliding_attention": {"rope_type": "longrope"}}},
         "rope of sliding.*longrope"),
        ({"model_type": "gemma3_text", "rope_parameters": {"sliding_attention": 5}}, "5 as rope of sliding"),
        ({"model_type": "gemma3_text", "rope_scaling": [1]}, "1. as rope of full"),
        ({"quantization_config": {"quant_method": "awq"}}, "quanti"),
        ({"num_local_experts": 8}, "experts"),
        ({"vision_config": {}, "model_type": "qwen9"}, "multimodal"),
        ({"attention_dropout": 0.1}, "attention_dropout"),
        ({"rope_interleaved": True}, "rope_interleaved"),
    ],
)
def test_what_is_not_run_is_refused_by_name(changes, named):
    with pytest.raises(UnsupportedModelError, match=named) as caught:
        spec_of(config(**changes), "folder/config.json")
    assert "folder/config.json" in str(caught.value)


def inverse_frequencies(config, head_dim):
    return rope_of(rope_parameters(Config(config)), head_dim).inv_freq


def test_inverse_frequencies():
    plain = inverse_frequencies({"rope_theta": 1e4}, 64)
    np.testing.assert_allclose(plain, 1e4 ** (-np.arange(32) / 32), rtol=2e-7)
    np.testing.assert_allclose(
        inverse_frequencies({"rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 4}}, 64), plain / 4,
        rtol=1e-7
    )
    scaled = inverse_frequencies({"rope_theta": 1e4, "rope_scaling": LLAMA3}, 64)
    wavelength = 2 * np.pi / plain
    np.testing.assert_array_equal(scaled[wavelength < 2048], plain[wavelength < 2048])
    np.testing.assert_array_equal(scaled[wavelength > 8192], plain[wavelength > 8192] / 8)
    middle = (wavelength > 2048) & (wavelength < 8192)
    smooth = (8192 / wavelength[middle] - 1) / 3
    np.testing.assert_allclose(scaled[middle], (1 - smooth) * plain[middle] / 8 + smooth * plain[middle], rtol=1e-6)
    assert middle.any()


# -- safetensors -------------------------------------------------------------------------------------------------------


def test_bfloat16_rounding():
    x = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -1 - 2**-8, 3.4e38, np.inf, -np.inf, np.nan, 0.0,
                  -0.0], np.float32)
    back = (to_bfloat16_bits(x).astype(np.uint32) << 16).view(np.float32)
    expected = np.array([1.0, 1.0, 1 + 2**-6, 1 + 2**-7, -1.0, np.inf, np.inf, -np.inf, np.nan, 0.0, -0.0], np.float32)
    np.testing.assert_array_equal(back, expected)
    assert np.signbit(back[-1])


@pytest.mark.parametrize(
    "dtype, stored, arrives",
    [("F32", "<f4", np.float32), ("F16", "<f2", np.float16), ("BF16", "<u2", np.uint16), ("F64", "<f8", np.float32)],
)
def test_reads_each_dtype(tmp_path, dtype, stored, arrives):
    array = np.arange(12).reshape(3, 4).astype(stored)
    scalar = np.array(7).astype(stored)
    header = {
        "__metadata__": {"format": "pt"},
        "b": {"dtype": dtype, "shape": [], "data_offsets": [array.nbytes, array.nbytes + scalar.nbytes]},
        "a": {"dtype": dtype, "shape": [3, 4], "data_offsets": [0, array.nbytes]},
    }
    (tmp_path / "x.safetensors").write_bytes(safetensors(header, array.tobytes() + scalar.tobytes()))
    file = SafetensorsFile(tmp_path / "x.safetensors")
    for name, expected in (("a", array), ("b", scalar)):
        got = file.read(name)
        assert got.dtype == arrives and got.flags.owndata
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    "dtype, limit, files",
    [("float32", "5GB", 1), ("float32", 3000, 2), ("float32", 1, 5), ("bfloat16", 1200, 2), ("bfloat16", 1, 5)]
)
def test_writes_what_the_library_reads(tmp_path, dtype, limit, files):
    library = pytest.importorskip("safetensors")
    rng = np.random.default_rng(0)
    arrays = {
        f"t{i}": rng.standard_normal(shape).astype(np.float32)
        for i, shape in enumerate([(7, 9), (500,), (1, 1), (20, 20), (3, 1, 2)])
    }
    with FolderWriter(tmp_path) as folder:
        names = write_weights(folder.open, [(k, v.shape) for k, v in arrays.items()], arrays.__getitem__, dtype, limit)
    assert (len([n for n in names if n.endswith(".safetensors")]) == files
            and sorted(p.name for p in tmp_path.iterdir()) == sorted(names))
    seen = {}
    for path in tmp_path.glob("*.safetensors"):
        with library.safe_open(path, "np") as file:
            assert file.metadata() == {"format": "pt"}
        seen |= {name: tensor["data"] for name, tensor in library.deserialize(path.read_bytes())}
        assert struct.unpack("<Q", path.read_bytes()[:8])[0] % 8 == 0
    weights = SafetensorsFolder(tmp_path)
    for name, array in arrays.items():
        expected = array if dtype == "float32" else to_bfloat16_bits(array)
        assert bytes(seen[name]) == expected.tobytes()
        np.testing.assert_array_equal(weights.read(name), expected)
    if files > 1:
        index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
        assert (index["metadata"]["total_size"] == sum(len(data) for data in seen.values())
                and set(index["weight_map"]) == set(arrays))


def test_reads_what_the_library_writes(tmp_path):
    numpy_library = pytest.importorskip("safetensors.numpy")
    arrays = {
        "a": np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32),
        "empty": np.zeros((0, 4), np.float16),
        "c": np.float16([1, 2]),
    }
    numpy_library.save_file(arrays, tmp_path / "x.safetensors", metadata={"any": "thing"})
    file = SafetensorsFile(tmp_path / "x.safetensors")
    for name, array in arrays.items():
        np.testing.assert_array_equal(file.read(name), array)


@pytest.mark.parametrize("text, size", [("5GB", 5 * 10**9), ("200 MB", 2 * 10**8), (1000, 1000), ("2GiB", 2 << 30)])
def test_shard_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "5XB", -1, 0, "GB", 1.5])
def test_bad_shard_sizes(text):
    with pytest.raises(ConfigError, match="max_shard_size"):
        parse_size(text)


def test_a_failed_save_leaves_the_old_files(tmp_path):
    (tmp_path / "config.json").write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), FolderWriter(tmp_path) as folder:
        folder.write("config.json", b"new")
        raise ZeroDivisionError
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"] and (tmp_path / "config.json").read_bytes() == b"old"


# -- load() ------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=ARCHS)
def small(request):
    """A small random model on ref, its head untied for one family."""
    return grpo.load(grpo.tiny(request.param, seed=3, **SMALL, tie_word_embeddings=request.param != "llama"),
                     device="ref")


def same_weights(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("limit", ["5GB", "60KB"])
def test_a_saved_model_loads_with_the_same_bits(small, tmp_path, limit):
    small.config["my_own_key"] = {"kept": [1, None, "é"]}
    small.save_pretrained(tmp_path / "model", max_shard_size=limit)
    back = grpo.load(tmp_path / "model", device="ref")
    assert same_weights(small, back) and back.config["my_own_key"] == {"kept": [1, None, "é"]}
    assert back.config["dtype"] == back.config["torch_dtype"] == "float32"
    assert (back.tokenizer.eos_ids == small.tokenizer.eos_ids
            and back.tokenizer.chat_template == small.tokenizer.chat_template)
    ids = np.arange(20, dtype=np.int32)
    np.testing.assert_array_equal(back.core.logits(ids), small.core.logits(ids))


def test_weights_keep_their_bits_on_every_device(device, tmp_path):
    model = grpo.load(grpo.tiny("qwen2", **SMALL), device=device)
    model.save_pretrained(tmp_path)
    assert same_weights(model, grpo.load(tmp_path, device=device)) and same_weights(model, model.copy())
    assert (json.loads((tmp_path / "config.json").read_text())["dtype"] == model.dtype
            == {"ref": "float32", "cpu": "bfloat16"}[device])
    kinds = {entry.dtype for entry in SafetensorsFile(tmp_path / "model.safetensors").entries.values()}
    assert kinds == {{"ref": "F32", "cpu": "BF16"}[device]}


def test_saving_again_removes_files_that_contradict(small, tmp_path):
    small.save_pretrained(tmp_path)
    small.save_pretrained(tmp_path, max_shard_size="60KB")
    assert not (tmp_path / "model.safetensors").exists() and same_weights(small, grpo.load(tmp_path, device="ref"))
    small.save_pretrained(tmp_path)
    assert [p.name for p in tmp_path.glob("model*")] == ["model.safetensors"] and not list(tmp_path.glob(".*"))


def test_bfloat16_folder(small, tmp_path):
    small.save_pretrained(tmp_path, dtype="bfloat16")
    rounded = {k: (to_bfloat16_bits(v).astype(np.uint32) << 16).view(np.float32) for k, v in small.state_dict().items()}
    back = grpo.load(tmp_path, device="ref").state_dict()
    assert all(np.array_equal(rounded[name], back[name]) for name in rounded)


@pytest.mark.parametrize("dtype, stored", [("F16", np.float16), ("F64", np.float64)])
def test_folders_of_other_dtypes(small, tmp_path, dtype, stored):
    small.save_pretrained(tmp_path)
    state = {name: array.astype(stored) for name, array in small.state_dict().items()}
    header, data = {}, b""
    for name, array in state.items():
        header[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": [len(data), len(data) + array.nbytes]}
        data += array.tobytes()
    (tmp_path / "model.safetensors").write_bytes(safetensors(header, data))
    back = grpo.load(tmp_path, device="ref").state_dict()
    assert all(np.array_equal(state[name].astype(np.float32), back[name]) for name in state)


def test_a_gguf_loads_with_the_same_bits(small, tmp_path):
    path = tmp_path / "model.gguf"
    metadata = {**model_metadata(small.config), **byte_level_metadata()}
    path.write_bytes(gguf(metadata, gguf_tensors(small.state_dict(), small.config)))
    back = grpo.load(path, device="ref")
    assert same_weights(small, back) and back.tokenizer.eos_ids == [258, 257]    # the last by its text
    back.save_pretrained(tmp_path / "folder")
    again = grpo.load(tmp_path / "folder", device="ref")
    assert (same_weights(small, again)
            and again.tokenizer.encode("he said<|im_end|>") == back.tokenizer.encode("he said<|im_end|>"))


@pytest.mark.parametrize("arch, found", [("llama", False), ("mistral", False), ("qwen2", True), ("qwen3", True)])
def test_rope_parameters_by_type_of_layer(arch, found):
    """transformers passes them over in a config without types of layers."""
    changed = config(arch if arch in ARCHS else "llama", model_type=arch, rope_theta=..., rope_parameters={
        "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e6}})
    if found:
        assert spec_of(changed).ropes[0].inv_freq[0] == 0.25
        return
    with pytest.raises(UnsupportedModelError, match="rope parameters by layer"):
        spec_of(changed)


@pytest.mark.parametrize("kind", ["Q8_0", "F16"])
def test_a_quantised_gguf_tensor(tmp_path, kind):
    model = grpo.load(grpo.tiny("llama", **SMALL), device="ref")
    tensors = gguf_tensors(model.state_dict(), model.config)
    place = next(i for i, tensor in enumerate(tensors) if tensor[0] == "blk.1.attn_k.weight")
    data = quantised(kind, 64 * 32, np.random.default_rng(0))
    tensors[place] = ("blk.1.attn_k.weight", kind, (64, 32), data)
    (tmp_path / "x.gguf").write_bytes(gguf({**model_metadata(model.config), **byte_level_metadata()}, tensors))
    got = grpo.load(tmp_path / "x.gguf", device="ref").state_dict()["model.layers.1.self_attn.k_proj.weight"]
    stored = _core.dequantize(kind, data, 64 * 32).reshape(2, 8, 2, 64)  # heads, j, s, columns: row 2j + s of a head
    np.testing.assert_array_equal(got.reshape(2, 2, 8, 64), stored.swapaxes(1, 2))


def test_gguf_llama3_rope(tmp_path):
    model = grpo.load(grpo.tiny("llama", **SMALL, rope_theta=5e5, rope_scaling=LLAMA3), device="ref")
    plain = inverse_frequencies({"rope_theta": 5e5}, 16)
    divisors = (plain / spec_of(model.config).ropes[0].inv_freq).astype("<f4")
    tensors = gguf_tensors(model.state_dict(), model.config)
    metadata = {**model_metadata(model.config), **byte_level_metadata()}
    (tmp_path
     / "x.gguf").write_bytes(gguf(metadata, [*tensors, ("rope_freqs.weight", "F32", (8,), divisors.tobytes())]))
    back = grpo.load(tmp_path / "x.gguf", device="ref")
    assert back.config["rope_scaling"] == LLAMA3
    np.testing.assert_array_equal(spec_of(back.config).ropes[0].inv_freq, spec_of(model.config).ropes[0].inv_freq)
    divisors[3] = 3.0
    (tmp_path
     / "y.gguf").write_bytes(gguf(metadata, [*tensors, ("rope_freqs.weight", "F32", (8,), divisors.tobytes())]))
    with pytest.raises(UnsupportedModelError, match="rope_freqs"):
        grpo.load(tmp_path / "y.gguf", device="ref")


def rewritten(small, folder, change):
    """The model saved with one change made to its dict of tensors."""
    small.save_pretrained(folder)
    state = small.state_dict()
    change(state)
    with FolderWriter(folder) as writer:
        write_weights(writer.open, [(k, v.shape) for k, v in state.items()], state.__getitem__, "float32")


@pytest.mark.parametrize(
    "change, named",
    [
        (lambda s: s.pop("model.layers.1.mlp.up_proj.weight"), "model.layers.1.mlp.up_proj.weight is missing"),
        (
            lambda s: s.update({"model.layers.0.mlp.up_proj.weight": np.zeros((2, 2), np.float32)}),
            r"up_proj.weight has shape \(2, 2\), the config says \(96, 64\)",
        ),
        (
            lambda s: s.update({"model.layers.9.mlp.up_proj.weight": np.zeros((2, 2), np.float32)}),
            "layers.9.mlp.up_proj.weight is not a tensor of this model",
        ),
        (lambda s: s.pop("model.embed_tokens.weight"), "model.embed_tokens.weight is missing"),
        (lambda s: [s.pop(k) for k in list(s) if "layers.0" in k], r"and \d+ more|layers.0"),
    ],
)
def test_tensors_that_do_not_fit_are_named(small, tmp_path, change, named):
    rewritten(small, tmp_path, change)
    with pytest.raises(FileFormatError, match=named) as caught:
        grpo.load(tmp_path, device="ref")
    assert str(tmp_path) in str(caught.value)


def test_tensors_that_may_be_ignored(tmp_path, capfd):
    model = grpo.load(grpo.tiny("qwen2", **SMALL), device="ref")
    rewritten(
        model,
        tmp_path,
        lambda s: s.update(
            {"lm_head.weight": s["model.embed_tokens.weight"],
             "model.layers.0.self_attn.rotary_emb.inv_freq": np.zeros(8, np.float32)}
        ),
    )
    assert same_weights(model, grpo.load(tmp_path, device="ref"))
    assert "1 tensor(s) left out" in capfd.readouterr().err


@pytest.mark.parametrize(
    "device, dtype, error",
    [
        ("cuda:7", None, DeviceError),
        ("tpu", None, ConfigError),
        ("cpu", "float16", ConfigError),
        ("ref", "bfloat16", ConfigError),
        ("auto", "int8", ConfigError),
    ],
)
def test_device_and_dtype(device, dtype, error):
    with pytest.raises(error, match=device if dtype is None else dtype):
        grpo.load(grpo.tiny(**SMALL), device=device, dtype=dtype)


@pytest.mark.parametrize("what", [None, 5, ["a"]])
def test_load_takes_paths_and_specs(what):
    with pytest.raises(ConfigError, match="load"):
        grpo.load(what)


def test_a_tokenizer_larger_than_the_model():
    with pytest.raises(TokenizerError, match="258.*200"):
        grpo.load(grpo.tiny(**SMALL, vocab_size=200), device="ref")


@pytest.mark.parametrize(
    "sizes, named",
    [
        ({"hidden_sise": 4}, "did you mean 'hidden_size'"),
        *(({"initializer_range": wrong}, "initializer_range must be") for wrong in ("0.1", [], float("nan"), 10**400)),
        ({"num_attention_heads": 7}, "num_attention_heads"),
        ({"seed": -1}, "seed"),
        ({"seed": "x"}, "seed"),
        ({"arch": "gpt2"}, "gpt2"),
        ({"vocab_size": -1}, "vocab_size"),
        ({"hidden_size": 2.5}, "hidden_size"),
    ],
)
def test_tiny_checks_its_sizes(sizes, named):
    with pytest.raises(ValueError, match=named):
        grpo.tiny(**sizes)


def test_tiny_is_a_function_of_its_seed():
    a, b, c = (grpo.load(grpo.tiny(**SMALL, seed=seed), device="ref") for seed in (1, 1, 2))
    assert same_weights(a, b) and not same_weights(a, c)
    biases = a.state_dict()["model.layers.0.self_attn.q_proj.bias"]
    assert np.abs(biases).min() > 0 and a.num_parameters() == sum(x.size for x in a.state_dict().values())
    copy = a.copy()
    assert same_weights(a, copy) and copy.core is not a.core


# -- Model on text -----------------------------------------------------------------------------------------------------


def test_generate_takes_texts_chats_and_ids(small):
    prompts = ["Hi", [{"role": "user", "content": "Hi"}], [72, 105]]
    outs = small.generate(prompts, num_generations=2, max_new_tokens=5, seed=1)
    assert len(outs) == 6 and outs[0].prompt_ids == outs[4].prompt_ids == [72, 105]
    assert outs[2].prompt_ids == small.tokenizer.encode("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    for out in outs:
        assert (1 <= len(out.token_ids) <= 5
                and len(out.logprobs) == len(out.entropies) == len(out.policy_logprobs) == len(out.token_ids))
        assert (out.finish_reason == ("stop" if out.token_ids[-1] in (256, 258) else "length")
                and out.logprobs.dtype == np.float32)
    for single, i in ((prompts[0], 0), (prompts[1], 2), (prompts[2], 4)):
        assert small.generate(single, max_new_tokens=5, seed=1)[0].prompt_ids == outs[i].prompt_ids
    first, second = (
        small.logprobs(*args)
        for args in (([72, 105], [o.token_ids for o in outs[:2]]),
                     ([o.prompt_ids for o in outs[:2]], [o.token_ids for o in outs[:2]]))
    )
    for a, b, out in zip(first, second, outs, strict=False):
        assert a.tobytes() == b.tobytes() == out.policy_logprobs.tobytes()


@pytest.mark.parametrize(
    "prompts, options, named",
    [
        ([], {}, "prompts"),
        (["a", ""], {}, "prompt 1"),
        ([[1, 999]], {}, "999"),
        ([[1.5]], {}, "prompt 0"),
        ([[1], [[2], [3, 4]]], {}, "prompt 1"),
        ([[[1], [2, 3]]], {}, "prompt 0"),
        ([["a"]], {}, "prompt 0"),
        (5, {}, "prompts"),
        (["a"], {"temperature": -1}, "temperature"),
        (["a"], {"top_p": 0}, "top_p"),
        (["a"], {"top_k": -1}, "top_k"),
        (["a"], {"min_p": 2}, "min_p"),
        (["a"], {"num_generations": 0}, "num_generations"),
        (["a"], {"max_new_tokens": 0}, "max_new_tokens"),
        (["a"], {"temperature": float("nan")}, "temperature"),
        (["a"], {"max_new_tokens": 5000}, "max_position_embeddings"),
        (["a"], {"stop": [""]}, "stop"),
        (["a"], {"stop": [3]}, "stop"),
        (["a"], {"seed": -1}, "seed"),
        (["a"], {"seed": 1 << 64}, "seed"),
        (["a"], {"seed": 1.5}, "seed"),
        (["a"], {"top_k": 1.5}, "top_k"),
        (["a"], {"top_k": 1 << 31}, "top_k"),
        (["a"], {"max_new_tokens": 3.0}, "an integer, at least 1"),
        (["a"], {"temperature": "a"}, "temperature"),
        (["a"], {"stop": 5}, "stop"),
        ({"role": "user"}, {}, "prompts"),
        (None, {}, "prompts"),
        (["a"], {"min_new_tokens": 9, "max_new_tokens": 8}, "min_new_tokens"),
        (["a"], {"repetition_penalty": 0}, "repetition_penalty"),
        (["a", [{"role": "user", "content": 3}]], {}, "prompt 1"),
        ([[{"content": "x"}]], {}, "role"),
    ],
)
def test_generate_names_what_is_wrong(prompts, options, named):
    model = grpo.load(grpo.tiny(**SMALL), device="ref")
    with pytest.raises((ConfigError, TokenizerError), match=named):
        model.generate(prompts, **{"max_new_tokens": 4, **options})


def test_stop_strings_end_a_completion_and_are_not_in_its_text():
    model = grpo.load(grpo.tiny(**SMALL), device="ref")
    whole = model.generate("abc", max_new_tokens=24, seed=5)[0]
    stop = whole.text[7:9]
    assert len(stop) == 2 and "�" not in stop
    out = model.generate("abc", max_new_tokens=24, seed=5, stop=["never seen", stop])[0]
    assert (
        out.finish_reason == "stop"
        and out.text == whole.text[: whole.text.index(stop)]
        and out.token_ids == whole.token_ids[: len(out.token_ids)]
    )
    assert stop in model.tokenizer.decode(out.token_ids)


@pytest.mark.parametrize(
    "prompts, completions, named",
    [
        ([1, 2], [], "no completions"),
        (5, [[1]], "prompt_ids"),
        ([1], 5, "completions_ids"),
        ("ab", [[1]], "prompt"),
        ([1] * 4000, [[1], [1] * 97], "max_position"),
        ([[1], [2]], [[1]], "2 prompts for 1"),
        ([], [[1]], "0 prompts"),
        ([1], [[1], [300]], "completion 1"),
        ([[]], [[1]], "prompt 0 is empty"),
    ],
)
def test_logprobs_name_what_is_wrong(prompts, completions, named):
    model = grpo.load(grpo.tiny(**SMALL), device="ref")
    with pytest.raises(ConfigError, match=named):
        model.logprobs(prompts, completions)


def test_logprob_grads_is_the_gradient():
    model = grpo.load(grpo.tiny("qwen3", **SMALL), device="ref")
    completions, coef = [[5, 6, 7], [8]], [[1.0, -2.0, 0.5], [3.0]]
    logps, grads = model.logprob_grads([1, 2, 3], completions, coef)
    assert [len(x) for x in logps] == [3, 1] and grads.keys() == model.state_dict().keys()
    name, shift = "model.layers.1.mlp.down_proj.weight", 1e-3
    direction = np.random.default_rng(0).standard_normal(grads[name].shape).astype(np.float32)

    def objective(step):
        moved = model.copy()
        moved.core.set_tensor(name, model.core.get_tensor(name) + np.float32(step) * direction)
        return sum(np.dot(c, lp.astype(np.float64))
                   for c, lp in zip(coef, moved.logprobs([1, 2, 3], completions), strict=True))

    slope = (objective(shift) - objective(-shift)) / (2 * shift)
    np.testing.assert_allclose(slope, np.vdot(grads[name].astype(np.float64), direction), rtol=2e-3)
    with pytest.raises(ConfigError, match="coef 1 has 2"):
        model.logprob_grads([1, 2, 3], completions, [[1.0, 1.0, 1.0], [1.0, 1.0]])
