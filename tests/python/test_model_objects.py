"""Model objects as models: weights in and back, what is refused, and the tokenizer that comes with them."""
import numpy as np
import pytest

import grpo
import toy
from grpo.errors import CheckpointError, ConfigError, GrpoWarning, TokenizerError, UnsupportedModelError
from model_objects import Config, Files, Tensor, TinyForCausalLM, Wrapped

IDS = list(range(65, 80))


def policy(**sizes):
    return toy.model("ref", **sizes)


def logprobs(model):
    return model.logprobs(IDS[:1], [IDS[1:]])[0]


@pytest.mark.parametrize("sizes", [{}, {"tie_word_embeddings": False}], ids=["tied", "untied"])
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: Wrapped(x, "_orig_mod"), lambda x: Wrapped(x, "module"),
                                  lambda x: Wrapped(Wrapped(x, "module"), "_orig_mod")],
                         ids=["bare", "compiled", "parallel", "both"])
def test_weights_are_those_of_the_object(wrap, sizes):
    model = policy(**sizes)
    again = grpo.load(wrap(TinyForCausalLM(model)), "ref", tokenizer=model.tokenizer)
    assert np.array_equal(logprobs(model), logprobs(again)) and again.num_parameters() == model.num_parameters()


def test_weights_go_back_where_they_came_from():
    model = policy()
    given = TinyForCausalLM(model)
    ours = grpo.load(given, "ref", tokenizer=model.tokenizer)
    assert ours.write_back() == 0                        # nothing has changed
    before = given.tensors["model.norm.weight"]
    for name, _ in ours.core.tensors():
        ours.core.set_tensor(name, ours.core.get_tensor(name) * np.float32(1.5))
    assert ours.write_back() == len(ours.core.tensors()) and ours.write_back() == 0
    assert given.tensors["model.norm.weight"] is before
    for name, array in ours.state_dict().items():
        assert np.array_equal(given.tensors[name].values, array)
    assert np.array_equal(given.tensors["lm_head.weight"].values, ours.state_dict()["model.embed_tokens.weight"])


def test_a_head_of_the_same_numbers_that_is_no_embedding_is_written_too():
    model = policy()
    given = TinyForCausalLM(model)
    given.tensors["lm_head.weight"] = Tensor(given.tensors["model.embed_tokens.weight"].values)
    ours = grpo.load(given, "ref", tokenizer=model.tokenizer)
    name = "model.embed_tokens.weight"
    ours.core.set_tensor(name, ours.core.get_tensor(name) + np.float32(1))
    assert ours.write_back() == 2
    assert np.array_equal(given.tensors["lm_head.weight"].values, given.tensors[name].values)


def test_what_was_not_trained_keeps_digits_that_bfloat16_has_not():
    model = toy.model("cpu")
    given = TinyForCausalLM(model)
    norm = given.tensors["model.norm.weight"]
    norm.values += np.float32(1e-5)
    ours = grpo.load(given, "cpu", tokenizer=model.tokenizer)
    held = norm.values.copy()
    name = "model.embed_tokens.weight"
    ours.core.set_tensor(name, ours.core.get_tensor(name) * np.float32(2))
    ours.write_back()
    assert np.array_equal(norm.values, held) and not np.array_equal(ours.core.get_tensor("model.norm.weight"), held)


class Copies(TinyForCausalLM):
    def state_dict(self):
        return {name: Tensor(tensor.values) for name, tensor in self.tensors.items()}


def test_an_object_that_gives_copies_is_found_out():
    ours = grpo.load(Copies(policy()), "ref", tokenizer=grpo.Tokenizer.bytes())
    ours.core.set_tensor("model.norm.weight", ours.core.get_tensor("model.norm.weight") * np.float32(2))
    with pytest.raises(CheckpointError, match="the given Copies.*save_model"):
        ours.write_back()


def with_(given, **attributes):
    vars(given).update(attributes)
    return given


def with_tensor(tensor):
    given = TinyForCausalLM(policy())
    given.tensors["model.norm.weight"] = tensor
    return given


NORM = np.ones(32)
REFUSED = {
    "4 bit": (lambda g: with_(g, is_loaded_in_4bit=True), UnsupportedModelError, "quantised.*load_in_4bit"),
    "quantizer": (lambda g: with_(g, hf_quantizer=object()), UnsupportedModelError, "quantised"),
    "config": (lambda g: with_(g, config=with_(g.config, quantization_config={"quant_method": "gptq"})),
               UnsupportedModelError, r"quantised \(gptq\)"),
    "peft": (lambda g: with_(g, peft_config={"default": 1}), UnsupportedModelError, "adapters.*merge_and_unload"),
    "adapters loaded": (lambda g: with_(g, _hf_peft_config_loaded=True), UnsupportedModelError, "adapters"),
    "meta": (lambda g: with_tensor(Tensor(NORM, device="meta")), ConfigError, "tensor model.norm.weight has no values"),
    "sharded": (lambda g: with_tensor(Tensor(NORM, full_tensor=1)), UnsupportedModelError, "spread over processes"),
    "zero": (lambda g: with_tensor(Tensor(NORM, ds_id=3)), UnsupportedModelError, "spread over processes"),
    "bytes": (lambda g: with_tensor(Tensor(NORM, "uint8")), UnsupportedModelError, "model.norm.weight has dtype uint8"),
    "inference": (lambda g: with_tensor(Tensor(NORM, is_inference=lambda: True)), ConfigError, "inference_mode"),
    "no config": (lambda g: with_(g, config=None), ConfigError, "no config"),
    "another family": (lambda g: with_(g, config=Config({**g.config.values, "num_local_experts": 8})),
                       UnsupportedModelError, "num_local_experts"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("trainer", [False, True], ids=["load", "trainer"])
def test_what_cannot_be_trained_is_refused_by_name(name, trainer, tmp_path):
    change, error, said = REFUSED[name]
    given = change(TinyForCausalLM(policy()))
    with pytest.raises(error, match=said) as caught:
        if trainer:
            grpo.GRPOTrainer(given, toy.byte_values, grpo.GRPOConfig(**toy.options(tmp_path)), toy.ROWS,
                             processing_class=grpo.Tokenizer.bytes())
        else:
            grpo.load(given, "ref")
    assert "the given TinyForCausalLM" in str(caught.value)


def test_a_head_of_its_own_makes_an_untied_model():
    given = TinyForCausalLM(policy())
    given.tensors["lm_head.weight"] = Tensor(given.tensors["model.embed_tokens.weight"].values + 1)
    with pytest.warns(GrpoWarning, match="both are used"):
        ours = grpo.load(given, "ref", tokenizer=grpo.Tokenizer.bytes())
    assert ours.config.tie_word_embeddings is False and "lm_head.weight" in ours.state_dict()


# ---- trainers


def trained(tmp_path, given, trainer=grpo.GRPOTrainer, **options):
    config = grpo.GRPOConfig(**toy.options(tmp_path, device="ref", **options))
    return trainer(given, toy.byte_values, config, toy.ROWS, processing_class=grpo.Tokenizer.bytes())


def test_the_object_has_what_was_trained(tmp_path, capsys):
    given = TinyForCausalLM(policy())
    before = given.tensors["model.norm.weight"].values.copy()
    trainer = trained(tmp_path, given)
    said = capsys.readouterr().err.splitlines()
    assert len([line for line in said if "the given TinyForCausalLM" in line and "write_back" in line]) == 1
    trainer.train()
    assert len([line for line in capsys.readouterr().err.splitlines() if "has the weights of step 3" in line]) == 1
    assert not np.array_equal(before, given.tensors["model.norm.weight"].values)
    for name, array in trainer.model.state_dict().items():
        assert np.array_equal(given.tensors[name].values, array)


def test_a_second_trainer_goes_on_from_there(tmp_path):
    given = TinyForCausalLM(policy())
    first = trained(tmp_path, given)
    first.train()
    rows = [{"prompt": "a", "completion": "b"}]
    config = grpo.SFTConfig(output_dir=str(tmp_path / "sft"), max_steps=1, device="ref", save_strategy="no")
    second = grpo.SFTTrainer(given, config, rows, processing_class=grpo.Tokenizer.bytes())
    assert toy.weights(second) == toy.weights(first)
    second.train()
    assert toy.weights(second) != toy.weights(first)
    assert np.array_equal(given.tensors["model.norm.weight"].values, second.model.state_dict()["model.norm.weight"])


def test_in_between_it_is_written_when_asked_and_where_the_loop_is_left(tmp_path):
    given = TinyForCausalLM(policy())
    trainer, seen = trained(tmp_path, given, max_steps=4), []
    for step in trainer:
        norm = trainer.model.state_dict()["model.norm.weight"]
        seen.append(np.array_equal(given.tensors["model.norm.weight"].values, norm))
        trainer.write_back()
        assert np.array_equal(given.tensors["model.norm.weight"].values, norm)
        if step.step == 2:
            break
    assert seen == [False, False]
    next(loop := iter(trainer))
    loop.close()
    assert np.array_equal(given.tensors["model.norm.weight"].values, trainer.model.state_dict()["model.norm.weight"])


def test_an_error_leaves_the_steps_that_were_taken(tmp_path):
    class Stop:
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 2:
                raise RuntimeError("enough")

    given = TinyForCausalLM(policy())
    trainer = trained(tmp_path, given)
    trainer.add_callback(Stop())
    with pytest.raises(RuntimeError, match="enough"):
        trainer.train()
    assert np.array_equal(given.tensors["model.norm.weight"].values, trainer.model.state_dict()["model.norm.weight"])


def test_save_model_writes_back_and_a_reference_stays(tmp_path):
    given = TinyForCausalLM(policy())
    trainer = trained(tmp_path, given, beta=0.1)
    reference = {name: array.copy() for name, array in trainer.reference.state_dict().items()}
    steps = iter(trainer)
    next(steps)
    trainer.save_model(str(tmp_path / "saved"))
    for name, array in grpo.load(tmp_path / "saved", "ref").state_dict().items():
        assert np.array_equal(given.tensors[name].values, array)
    steps.close()
    assert all(np.array_equal(array, reference[name]) for name, array in trainer.reference.state_dict().items())


def test_a_model_of_no_object_has_nowhere_to_be_written(tmp_path):
    with pytest.raises(ConfigError, match="not made of a model object"):
        policy().write_back()
    trainer = toy.trainer(tmp_path)
    trainer.write_back()                                 # nothing to do, and no error
    assert trainer.model.given is None


# ---- tokenizers


def test_the_tokenizer_is_the_one_beside_the_weights(tmp_path):
    policy().save_pretrained(tmp_path)
    given = TinyForCausalLM(policy(), str(tmp_path))
    ours = grpo.load(given, "ref")
    assert ours.tokenizer.encode("Hi") == [72, 105] and ours.name_or_path == str(tmp_path)
    with pytest.warns(GrpoWarning, match="was loaded from no folder"):
        bare = grpo.load(TinyForCausalLM(policy()), "ref")
    with pytest.raises(TokenizerError, match="the given TinyForCausalLM"):
        bare.tokenizer.encode("Hi")


def test_the_given_tokenizer_is_used_and_saved(tmp_path):
    files = grpo.Tokenizer.bytes(chat_template="{% for m in messages %}[{{ m['content'] }}]{% endfor %}").save_files()
    config = grpo.GRPOConfig(**toy.options(tmp_path, save_strategy="steps", device="ref"))
    policy().save_pretrained(tmp_path / "model")
    tokenizer = Files(files)
    trainer = grpo.GRPOTrainer(str(tmp_path / "model"), toy.byte_values, config,
                               [{"prompt": [{"role": "user", "content": "hi"}]}] * 2, processing_class=tokenizer)
    trainer.train()
    assert trainer.processing_class is tokenizer and trainer.tokenizer is tokenizer
    again = grpo.load(next(trainer.run.checkpoints.glob("step-*")), "ref")
    chat = [{"role": "user", "content": "hi"}]
    assert again.tokenizer.apply_chat_template(chat) == trainer.model.tokenizer.apply_chat_template(chat) == "[hi]"


def test_a_slow_tokenizer_is_refused_by_its_class():
    with pytest.raises(TokenizerError, match=r"the given Files: .*wrote spiece.model.*use_fast"):
        grpo.load(TinyForCausalLM(policy()), "ref", tokenizer=Files({"spiece.model": b"x"}))


def test_a_processor_says_how_images_are_seen():
    model = grpo.load(grpo.tiny("qwen2_vl", num_hidden_layers=1), "ref")
    files = {**model.tokenizer.save_files(), **model.sight.save_files()}
    smaller = model.processor.with_limits(max_pixels=28 * 28 * 4)
    files["preprocessor_config.json"] = smaller.files({}, None)["preprocessor_config.json"]
    again = grpo.load(grpo.tiny("qwen2_vl", num_hidden_layers=1), "ref")
    again.take_tokenizer(Files(files, image_processor=object()))
    assert again.processor.max_pixels == 28 * 28 * 4 != model.processor.max_pixels
