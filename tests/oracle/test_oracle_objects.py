"""Objects of transformers as models: the same log-probs before, and after training the object is what was trained."""
import numpy as np
import pytest

import grpo
import toy

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore::grpo.errors.GrpoWarning")]
IDS = list(range(65, 89))
SIZES = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=96)
FAMILIES = {"qwen2": {}, "qwen3": {}, "llama": {"tie_word_embeddings": False}, "mistral": {}, "gemma3": {},
            "qwen2_vl": {}, "qwen2_5_vl": {}, "qwen3_vl": {}}
SEEING = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")


def made(tmp_path, family="qwen2", dtype="float32", **sizes):
    """(a folder, the object that transformers makes of it)"""
    folder = tmp_path / family
    grpo.load(grpo.tiny(family, **{**SIZES, **FAMILIES[family], **sizes}), "ref").save_pretrained(folder)
    kind = transformers.AutoModelForImageTextToText if family in SEEING else transformers.AutoModelForCausalLM
    return folder, kind.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()


def theirs(model, ids=IDS):
    with torch.no_grad():
        scores = model(input_ids=torch.tensor([ids])).logits.float().log_softmax(-1)[0, :-1]
    return scores.gather(-1, torch.tensor(ids[1:])[:, None])[:, 0].numpy()


def ours(model, ids=IDS):
    return model.logprobs(ids[:1], [ids[1:]])[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_logprobs_are_those_of_the_object_before_and_after(family, tmp_path):
    folder, given = made(tmp_path, family)
    model = grpo.load(given, "ref")
    assert model.tokenizer.encode("A") == [65] and np.abs(ours(model) - theirs(given)).max() < 2e-5
    assert np.array_equal(ours(model), ours(grpo.load(folder, "ref")))
    rng = np.random.default_rng(0)
    for name, shape in model.core.tensors():
        moved = model.core.get_tensor(name) + rng.normal(0, 0.02, shape).astype(np.float32)
        model.core.set_tensor(name, moved)
    model.write_back()
    assert np.abs(ours(model) - theirs(given)).max() < 2e-5
    given.save_pretrained(tmp_path / "saved")
    model.tokenizer.save_pretrained(tmp_path / "saved")
    again = grpo.load(tmp_path / "saved", "ref")
    assert np.array_equal(ours(again), ours(model))
    model.save_pretrained(tmp_path / "ours")
    read = type(given).from_pretrained(tmp_path / "ours", dtype=torch.float32).eval()
    assert np.abs(theirs(read) - ours(model)).max() < 2e-5


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float16"])
@pytest.mark.parametrize("wrap", [lambda m: m, torch.compile, torch.nn.DataParallel],
                         ids=["bare", "compiled", "parallel"])
def test_a_trained_object_generates_what_was_trained(wrap, dtype, tmp_path):
    folder, given = made(tmp_path, dtype=dtype)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    config = grpo.GRPOConfig(**toy.options(tmp_path, beta=0.01, device="cpu", learning_rate=1e-3))
    trainer = grpo.GRPOTrainer(wrap(given), toy.byte_values, config, toy.ROWS, processing_class=tokenizer)
    before = theirs(given)
    trainer.train()
    assert not np.array_equal(theirs(given), before)
    assert np.abs(ours(trainer.model) - theirs(given.float())).max() < 0.02
    given.save_pretrained(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    assert np.array_equal(ours(grpo.load(tmp_path / "saved", "cpu")), ours(trainer.model))


def test_generate_on_tensors_is_that_of_transformers(tmp_path):
    folder, given = made(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = grpo.load(given, "ref")
    batch = tokenizer(["ab", "hello there"], return_tensors="pt", padding=True, padding_side="left")
    for options in (dict(max_new_tokens=6), dict(max_length=20), dict(max_new_tokens=6, repetition_penalty=1.5), {}):
        got, want = model.generate(**batch, **options), given.generate(**batch, **options)
        assert got.dtype == want.dtype and torch.equal(got, want)
    assert torch.equal(model.generate(batch["input_ids"], max_new_tokens=4),
                       given.generate(batch["input_ids"], max_new_tokens=4))
    own = transformers.GenerationConfig(max_new_tokens=3, do_sample=False)
    assert torch.equal(model.generate(**batch, generation_config=own), given.generate(**batch, generation_config=own))
    assert model.generate(**batch, do_sample=True, num_return_sequences=2, max_new_tokens=3).shape[0] == 4
    there = grpo.load(given, "cpu").device               # a name that torch takes as its own
    assert batch.to(there)["input_ids"].device.type == "cpu" == torch.zeros(1, device=there).device.type


def test_what_is_packed_is_refused(tmp_path):
    _, given = made(tmp_path)
    with torch.device("meta"):
        empty = transformers.AutoModelForCausalLM.from_config(given.config)
    with pytest.raises(grpo.ConfigError, match="the given Qwen2ForCausalLM: tensor model.embed_tokens.weight has"):
        grpo.load(empty, "ref")
    with torch.inference_mode():
        frozen = transformers.AutoModelForCausalLM.from_config(given.config)
    with pytest.raises(grpo.ConfigError, match="inference_mode"):
        grpo.load(frozen, "ref")
    with pytest.raises(grpo.ConfigError, match="no config"):
        grpo.load(torch.nn.Linear(2, 2), "ref")


def test_the_template_and_the_specials_of_the_given_tokenizer(tmp_path):
    folder, given = made(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = "{% for m in messages %}[{{ m['content'] }}]{% endfor %}<work>"
    tokenizer.add_special_tokens({"eos_token": "<|im_start|>"})
    chat = [{"role": "user", "content": "hi"}]
    config = grpo.GRPOConfig(**toy.options(tmp_path, save_strategy="steps", device="ref"))
    for model in (given, str(folder)):
        trainer = grpo.GRPOTrainer(model, toy.byte_values, config, [{"prompt": chat}] * 2, processing_class=tokenizer)
        for step in trainer:
            prompt = step.rollouts.prompt_ids[0]
            break
        assert list(prompt) == tokenizer.apply_chat_template(chat, tokenize=True, return_dict=False)
        assert set(trainer.model.tokenizer.eos_ids) >= {257, 258}
    trainer.save_checkpoint()
    saved = transformers.AutoTokenizer.from_pretrained(next(trainer.run.checkpoints.glob("step-*")))
    assert saved.chat_template == tokenizer.chat_template and saved.eos_token == "<|im_start|>"


def test_an_sft_trainer_takes_objects_too(tmp_path):
    folder, given = made(tmp_path)
    config = grpo.SFTConfig(output_dir=str(tmp_path / "run"), max_steps=2, learning_rate=1e-3, save_strategy="no",
                            device="ref")
    trainer = grpo.SFTTrainer(given, config, [{"prompt": "a", "completion": "bcd"}],
                              processing_class=transformers.AutoTokenizer.from_pretrained(folder))
    trainer.train()
    assert np.abs(ours(trainer.model) - theirs(given)).max() < 2e-5


def test_numbers_and_state_are_written_as_by_transformers(tmp_path, capsys):
    from transformers.trainer_callback import TrainerState
    from transformers.trainer_pt_utils import log_metrics, metrics_format

    trainer = toy.trainer(tmp_path)
    metrics = {**trainer.train().metrics, "train_samples": 2, "total_flos": 3 << 30}
    assert trainer.metrics_format(metrics) == metrics_format(metrics)
    capsys.readouterr()
    trainer.log_metrics("train", metrics)
    shown = capsys.readouterr().out
    log_metrics(trainer, "train", metrics)
    assert shown == capsys.readouterr().out
    trainer.save_state()
    state = TrainerState.load_from_json(str(trainer.run.path / "trainer_state.json"))
    assert state.global_step == 3 and len(state.log_history) == len(trainer.state.log_history)


def test_the_card_is_read_by_the_hub_library(tmp_path):
    from huggingface_hub import ModelCard

    trainer = toy.trainer(tmp_path)
    trainer.train()
    trainer.create_model_card(model_name="mine", dataset_name="a/b", tags=["x"])
    card = ModelCard.load(trainer.run.path / "README.md")
    assert card.data.library_name == "transformers" and card.data.datasets == "a/b" and "x" in card.data.tags
