"""What files call their tensors: wrappers before names, older names, heads of others, heads beside a tied embedding."""

import json
import warnings

import numpy as np
import pytest

import grpo
from grpo.errors import FileFormatError, GrpoWarning
from grpo.model.families import spec_of
from grpo.model.formats.safetensors import SafetensorsFile
from grpo.planning.memory import model_config
from make_files import safetensors

SMALL = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2}
VISION = {"depth": 2, "embed_dim": 32, "num_heads": 2, "mlp_ratio": 2}
EMBED, HEAD, TIED = "model.embed_tokens.weight", "lm_head.weight", {"tie_word_embeddings": True}


@pytest.fixture(scope="module")
def tied():
    return grpo.load(grpo.tiny("qwen2", **SMALL), device="ref")


@pytest.fixture(scope="module")
def untied():
    return grpo.load(grpo.tiny("llama", **SMALL, tie_word_embeddings=False), device="ref")


@pytest.fixture(scope="module")
def seeing():
    return grpo.load(grpo.tiny("qwen2_vl", **SMALL, vision_config=VISION), device="ref")


def write(folder, state):
    """model.safetensors of a state dict."""
    header, data = {}, b""
    for name, array in state.items():
        kind = {"float32": "F32", "float16": "F16", "uint16": "BF16"}[str(array.dtype)]
        ends = [len(data), len(data) + array.nbytes]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": ends}
        data += array.tobytes()
    (folder / "model.safetensors").write_bytes(safetensors(header, data))


def saved(model, folder, change=lambda state: state, **config):
    """A folder of the model whose tensors and config are changed."""
    model.save_pretrained(folder, dtype="float32")
    write(folder, change({model.name_in_files(name): array for name, array in model.state_dict().items()}))
    (folder / "config.json").write_text(json.dumps(json.loads((folder / "config.json").read_text()) | config))
    return folder


def renamed(rule):
    return lambda state: {rule(name): array for name, array in state.items()}


def same(model, other):
    a, b = model.state_dict(), other.state_dict()
    assert a.keys() == b.keys()
    return all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("rule, said", [
    (lambda name: f"_orig_mod.{name}", "_orig_mod."),
    (lambda name: f"module.{name}", "module."),
    (lambda name: f"base_model.model.{name}", "base_model.model."),
    (lambda name: f"module._orig_mod.{name}", "_orig_mod., module."),
    (lambda name: f"_orig_mod.module.{name}", "_orig_mod., module."),
    (lambda name: f"module.base_model.model.{name}", "module., base_model.model."),
    (lambda name: f"_forward_module.module.{name}", "_forward_module., module."),
    (lambda name: f"model.{name}", "model."),
    (lambda name: f"pretrained_model.{name}", "pretrained_model."),
    (lambda name: name.replace("layers.", "layers._fsdp_wrapped_module."), "_fsdp_wrapped_module."),
    (lambda name: name.replace("model.", "model._orig_mod.", 1), "_orig_mod."),
    (lambda name: name.replace("self_attn.", "_checkpoint_wrapped_module.self_attn."), "_checkpoint_wrapped_module."),
    (lambda name: name.removeprefix("model."), "lack model."),
    (lambda name: f"module.{name.removeprefix('model.')}", "module."),
])
def test_wrappers_are_read_through_and_said(untied, tmp_path, capfd, rule, said):
    saved(untied, tmp_path, renamed(rule))
    assert same(untied, grpo.load(tmp_path, device="ref"))
    lines = [line for line in capfd.readouterr().err.splitlines() if str(tmp_path) in line]
    assert said in lines[0] and len(lines) == 1 + ("module" in said and "model.layers" not in rule("model.layers"))


@pytest.mark.parametrize("rule", [
    lambda name: name,
    lambda name: f"module.{name}",
    lambda name: f"model.{name}",
    lambda name: name.replace("visual.", "model.visual.", 1) if name.startswith("visual.")
    else name.replace("model.", "model.language_model.", 1),
    lambda name: "_orig_mod." + (name.replace("visual.", "model.visual.", 1) if name.startswith("visual.")
                                 else name.replace("model.", "model.language_model.", 1)),
    lambda name: name.replace("model.", "language_model.", 1),
], ids=["old", "module.old", "model.old", "new", "_orig_mod.new", "without model."])
def test_wrappers_of_models_that_see(seeing, tmp_path, rule):
    saved(seeing, tmp_path, renamed(rule))
    assert same(seeing, grpo.load(tmp_path, device="ref"))


@pytest.mark.parametrize("arch", ["llama", "qwen3", "mistral", "gemma3", "qwen2_5_vl", "qwen3_vl", "qwen"])
@pytest.mark.parametrize("rule", [lambda name: f"module._orig_mod.{name}", lambda name: f"base_model.model.{name}"])
def test_wrappers_of_every_family(arch, rule, tmp_path, capfd):
    model = grpo.load(grpo.tiny(arch), device="ref")
    saved(model, tmp_path, renamed(rule))
    assert same(model, grpo.load(tmp_path, device="ref"))
    assert "that a wrapper left" in capfd.readouterr().err


def test_a_model_whose_own_prefix_is_missing(tmp_path):
    model = grpo.load(grpo.tiny("qwen"), device="ref")
    saved(model, tmp_path, renamed(lambda name: name.removeprefix("transformer.")))
    assert same(model, grpo.load(tmp_path, device="ref"))


@pytest.mark.filterwarnings("ignore:.*is read as llama:grpo.GrpoWarning")
@pytest.mark.parametrize("kind", ["llama", "Yi"])
def test_the_first_names_of_norms(untied, tmp_path, kind):
    norms = {"input_layernorm": "ln1", "post_attention_layernorm": "ln2"}
    saved(untied, tmp_path, renamed(lambda name: ".".join(norms.get(part, part) for part in name.split("."))),
          model_type=kind, architectures=["YiForCausalLM"])
    assert "model.layers.0.ln1.weight" in SafetensorsFile(tmp_path / "model.safetensors").entries
    assert same(untied, grpo.load(tmp_path, device="ref"))


def test_wrappers_without_end_are_no_name(untied, tmp_path):
    saved(untied, tmp_path, lambda state: state | {"module." * 100 + "x": np.zeros(3, np.float32)})
    with pytest.raises(FileFormatError, match="module.module.module.* is not a tensor"):
        grpo.load(tmp_path, device="ref")


@pytest.mark.parametrize("name", [
    "v_head.summary.weight", "v_head.summary.bias", "score.weight", "value_head.weight", "module.score.weight",
    "model.layers.1.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq", "rotary_emb.original_inv_freq",
    "model.layers.0.self_attn.rotary_emb.cos_cached", "optimizer.state.0.exp_avg", "lr_scheduler.last",
    "model.mtp_layers.0.input_layernorm.weight", "mtp.fc.weight", "medusa_head.0.linear.weight"])
def test_what_is_no_part_of_it_is_left_out_and_said(untied, tmp_path, capfd, name):
    saved(untied, tmp_path, lambda state: state | {name: np.zeros(3, np.float32)})
    assert same(untied, grpo.load(tmp_path, device="ref"))
    assert name.removeprefix("module.").removeprefix("model.") in capfd.readouterr().err


@pytest.mark.parametrize("names, named", [
    (["model.layers.0.self_attn.q_norm.weight"], "model.layers.0.self_attn.q_norm.weight is not a tensor"),
    (["module.foo.weight"], "module.foo.weight is not a tensor"),
    (["scores.weight"], "scores.weight is not a tensor"),
    (["model.layers.0.mlp.experts.0.w1.weight"], "experts.0.w1.weight is not a tensor"),
    ([f"module.{EMBED}"], f"'{EMBED}' and 'module.{EMBED}' would both be {EMBED}"),
    (["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"], "adapter that was not merged"),
    (["model.layers.0.self_attn.q_proj.base_layer.weight"], "merge_and_unload"),
])
def test_what_is_not_known_stays_an_error(untied, tmp_path, names, named):
    saved(untied, tmp_path, lambda state: state | {name: np.zeros(3, np.float32) for name in names})
    with pytest.raises(FileFormatError, match=named) as caught:
        grpo.load(tmp_path, device="ref")
    assert str(tmp_path) in str(caught.value)


def test_a_head_that_is_missing(untied, tmp_path):
    saved(untied, tmp_path, lambda state: {name: array for name, array in state.items() if name != HEAD})
    with pytest.raises(FileFormatError, match="lm_head.weight is missing, and the config does not tie it"):
        grpo.load(tmp_path, device="ref")


def own_head(state, embed=EMBED):
    return state | {HEAD: np.random.default_rng(1).standard_normal(state[embed].shape).astype(np.float32)}


@pytest.mark.parametrize("which", ["tied", "seeing"])
def test_a_head_beside_a_tied_embedding_is_used_and_kept(which, request, tmp_path):
    model = request.getfixturevalue(which)
    saved(model, tmp_path / "given", own_head)
    with pytest.warns(GrpoWarning, match="both are used"):
        got = grpo.load(tmp_path / "given", device="ref")
    with pytest.warns(GrpoWarning, match="both are used"):
        assert spec_of(model_config(str(tmp_path / "given"))[0]).tie is False
    assert spec_of(model.config).tie and got.config["tie_word_embeddings"] is False
    assert got.text_config.get("tie_word_embeddings") is not True
    head = own_head({EMBED: np.zeros((got.text_config["vocab_size"], 64), np.float32)})[HEAD]
    np.testing.assert_array_equal(got.state_dict()[HEAD], head)
    ids = list(range(40, 60))
    want = got.logprobs(ids, [ids])[0]
    assert np.abs(want - model.logprobs(ids, [ids])[0]).max() > 0.1
    got.save_pretrained(tmp_path / "again", dtype="float32")
    with warnings.catch_warnings():
        warnings.simplefilter("error", GrpoWarning)
        again = grpo.load(tmp_path / "again", device="ref")
    for other in (again, got.copy()):
        assert same(got, other) and np.array_equal(other.logprobs(ids, [ids])[0], want)


@pytest.mark.parametrize("change", [
    lambda state: state | {HEAD: state[EMBED]},
    lambda state: {HEAD if name == EMBED else name: array for name, array in state.items()},
], ids=["equal", "the head alone"])
@pytest.mark.parametrize("which", ["tied", "seeing"])
def test_one_tensor_for_both(which, change, request, tmp_path):
    model = request.getfixturevalue(which)
    saved(model, tmp_path, change)
    with warnings.catch_warnings():
        warnings.simplefilter("error", GrpoWarning)
        got = grpo.load(tmp_path, device="ref")
    assert got.num_parameters() == model.num_parameters() and same(model, got)


def test_equal_numbers_of_two_types_are_shared(tied, tmp_path):
    def change(state):
        halves = state[EMBED].astype(np.float16)
        return state | {EMBED: halves.astype(np.float32), HEAD: halves}

    saved(tied, tmp_path, change)
    assert grpo.load(tmp_path, device="ref").num_parameters() == tied.num_parameters()


def test_a_head_of_another_shape(tied, tmp_path):
    saved(tied, tmp_path, lambda state: state | {HEAD: np.zeros((3, 64), np.float32)})
    with pytest.warns(GrpoWarning), pytest.raises(FileFormatError, match=r"lm_head.weight has shape \(3, 64\)"):
        grpo.load(tmp_path, device="ref")
