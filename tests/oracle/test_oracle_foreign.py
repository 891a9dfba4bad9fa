"""Models that are Llama under another name, heads beside tied embeddings and wrapped names, against transformers."""

import json

import numpy as np
import pytest

import grpo
from grpo.errors import FileFormatError, GrpoWarning, UnsupportedModelError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
safetensors = pytest.importorskip("safetensors.torch")
pytestmark = pytest.mark.oracle

SMALL = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "vocab_size": 300, "max_position_embeddings": 256, "attention_dropout": 0.0,
         "eos_token_id": 2}
FULL, SLIDING = ["full_attention"] * 2, ["sliding_attention"] * 2
IDS = list(range(40, 90))
NO_TOKENIZER = pytest.mark.filterwarnings("ignore:.*no tokenizer:grpo.GrpoWarning")


def made(folder, kind, **changes):
    """A folder of a random model of transformers, norms and biases too."""
    config = transformers.AutoConfig.for_model(kind, **{**SMALL, **changes})
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return logprobs(model)


def logprobs(model):
    with torch.no_grad():
        found = torch.log_softmax(model(torch.tensor([IDS])).logits[0].float(), -1)
    return np.array([found[i - 1, IDS[i]] for i in range(5, len(IDS))])


def ours(folder):
    model = grpo.load(folder, device="ref")
    return model, model.logprobs(IDS[:5], [IDS[5:]])[0]


@NO_TOKENIZER
@pytest.mark.parametrize("kind, changes, read_as", [
    ("internlm3", {"head_dim": 16}, "llama"),
    ("internlm3", {"head_dim": 32, "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, "llama"),
    ("granite", {"attention_multiplier": 0.25}, "llama"),
    ("seed_oss", {"head_dim": 16, "residual_dropout": 0.0}, "qwen2"),
    ("seed_oss", {"head_dim": 32, "residual_dropout": 0.0, "attention_bias": False}, "llama"),
    ("ministral", {"layer_types": FULL, "head_dim": 16}, "llama"),
    ("ministral", {"layer_types": SLIDING, "sliding_window": 7, "head_dim": 16}, "mistral"),
    ("cwm", {"layer_types": FULL, "head_dim": 16}, "llama"),
])
def test_a_llama_under_another_name(kind, changes, read_as, tmp_path):
    want = made(tmp_path / "a", kind, **changes)
    with pytest.warns(GrpoWarning) as said:
        model, got = ours(tmp_path / "a")
    # transformers runs internlm3 by the class LlamaForCausalLM, and its configs say so.
    assert (kind == "internlm3") != any(f"model_type '{kind}' is read as {read_as}" in str(w.message) for w in said)
    np.testing.assert_allclose(got, want, atol=2e-5)
    model.save_pretrained(tmp_path / "b", dtype="float32")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "b", dtype=torch.float32)
    assert again.config.model_type == read_as
    np.testing.assert_allclose(logprobs(again), want, atol=2e-5)


@NO_TOKENIZER
@pytest.mark.parametrize("kind", [
    "gemma", "helium", "olmo", "olmo2", "ernie4_5", "glm", "cohere", "nemotron", "exaone4", "hunyuan_v1_dense", "arcee",
    "smollm3", "granite", "stablelm", "starcoder2"])
def test_other_networks_are_refused(kind, tmp_path):
    """None of those that share Llama's keys is taken for one, whatever the rest of its config says."""
    made(tmp_path, kind, pad_token_id=0, head_dim=16)
    with pytest.raises((UnsupportedModelError, FileFormatError)):
        grpo.load(tmp_path, device="ref")


def test_every_causal_model_of_transformers(tmp_path):
    """What is read as Llama of all default configs is what has Llama's code there, or other tensors."""
    from grpo.model.families import known_words

    taken = set()
    for kind in transformers.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        try:
            config = transformers.AutoConfig.for_model(kind, **SMALL).to_dict()
        except (TypeError, ValueError, AttributeError, NotImplementedError, RuntimeError):
            continue                                     # sizes that it does not take
        except Exception as error:
            assert "Validation" in type(error).__name__, kind
            continue
        try:
            with pytest.warns(GrpoWarning):
                known_words({**config, "architectures": None, "dtype": None}, kind)
            taken.add(kind)
        except (UnsupportedModelError, FileFormatError, pytest.fail.Exception):
            continue
    assert taken - {"ministral"} <= {"internlm3", "iquestcoder", "arcee"}


@NO_TOKENIZER
@pytest.mark.parametrize("kind, changes", [
    ("llama", {}), ("qwen2", {}), ("qwen3", {"head_dim": 16}), ("mistral", {"sliding_window": 9}),
    ("gemma3_text", {"head_dim": 16, "layer_types": FULL})])
@pytest.mark.parametrize("differ", [True, False])
def test_a_head_beside_a_tied_embedding(kind, changes, differ, tmp_path):
    made(tmp_path / "a", kind, tie_word_embeddings=True, **changes)
    file = tmp_path / "a" / "model.safetensors"
    state = safetensors.load_file(file)
    embed = state["model.embed_tokens.weight"]
    state["lm_head.weight"] = (torch.randn_like(embed) if differ else embed).clone()
    safetensors.save_file(state, file, metadata={"format": "pt"})
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "a", dtype=torch.float32)
    model, got = ours(tmp_path / "a")
    np.testing.assert_allclose(got, logprobs(theirs), atol=2e-5)
    assert ("lm_head.weight" in model.state_dict()) == differ
    model.save_pretrained(tmp_path / "b", dtype="float32")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "b", dtype=torch.float32)
    np.testing.assert_allclose(logprobs(again), got, atol=2e-5)
    assert np.array_equal(ours(tmp_path / "b")[1], got)


@NO_TOKENIZER
def test_a_head_in_place_of_the_embedding(tmp_path):
    made(tmp_path, "llama", tie_word_embeddings=True)
    file = tmp_path / "model.safetensors"
    state = safetensors.load_file(file)
    state["lm_head.weight"] = state.pop("model.embed_tokens.weight")
    safetensors.save_file(state, file, metadata={"format": "pt"})
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    np.testing.assert_allclose(ours(tmp_path)[1], logprobs(theirs), atol=2e-5)


@NO_TOKENIZER
def test_a_pickle_with_both_tied_tensors(tmp_path):
    """torch.save writes a tied head beside the embedding, as one storage: one tensor again after conversion."""
    from grpo.model.convert import convert

    want = made(tmp_path / "a", "qwen2", tie_word_embeddings=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "a", dtype=torch.float32)
    torch.save(model.state_dict(), tmp_path / "a" / "pytorch_model.bin")
    (tmp_path / "a" / "model.safetensors").unlink()
    convert(tmp_path / "a", tmp_path / "b")
    assert {"lm_head.weight", "model.embed_tokens.weight"} <= safetensors.load_file(
        tmp_path / "b" / "model.safetensors").keys()
    model, got = ours(tmp_path / "b")
    assert "lm_head.weight" not in model.state_dict()
    np.testing.assert_allclose(got, want, atol=2e-5)


@NO_TOKENIZER
def test_a_seeing_model_with_a_head_of_its_own(tmp_path):
    small = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2}
    vision = {"depth": 2, "embed_dim": 32, "num_heads": 2, "mlp_ratio": 2}
    grpo.load(grpo.tiny("qwen2_vl", **small, vision_config=vision), device="ref").save_pretrained(tmp_path / "a",
                                                                                                 dtype="float32")
    file = tmp_path / "a" / "model.safetensors"
    state = safetensors.load_file(file)
    state["lm_head.weight"] = torch.randn_like(state["model.embed_tokens.weight"])
    safetensors.save_file(state, file, metadata={"format": "pt"})
    model, got = ours(tmp_path / "a")
    model.save_pretrained(tmp_path / "b", dtype="float32")
    for folder in ("a", "b"):
        theirs = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / folder, dtype=torch.float32)
        np.testing.assert_allclose(got, logprobs(theirs), atol=2e-5)
    assert json.loads((tmp_path / "b" / "config.json").read_text())["tie_word_embeddings"] is False
