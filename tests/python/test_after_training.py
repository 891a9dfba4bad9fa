"""What scripts call of a trainer, of its model and of its config beside train()."""
import json
import logging

import numpy as np
import pytest
import yaml

import grpo
import toy
from grpo.alone import Alone, Device
from grpo.errors import ConfigError, GrpoWarning, ImageError
from grpo.training import hub


@pytest.fixture
def trainer(tmp_path):
    trainer = toy.trainer(tmp_path, eval_dataset=[{"prompt": "c", "letter": "c"}])
    trainer.train()
    return trainer


# ---- numbers and state


def test_numbers_are_printed_and_kept(trainer, capsys):
    metrics = {"train_runtime": 3725.128, "train_loss": 0.123456, "epoch": 2.0, "train_samples": 7}
    trainer.log_metrics("train", metrics)
    assert capsys.readouterr().out.splitlines() == [
        "***** train metrics *****", "  epoch         =        2.0", "  train_loss    =     0.1235",
        "  train_runtime = 1:02:05.12", "  train_samples =          7"]
    trainer.save_metrics("train", metrics)
    trainer.save_metrics("eval", {"eval_reward": float("nan")})
    trainer.save_metrics("test", {"other": 1}, combined=False)
    folder = trainer.run.path
    assert json.loads((folder / "train_results.json").read_text()) == metrics
    assert json.loads((folder / "all_results.json").read_text()) == {**metrics, "eval_reward": None}
    assert (folder / "train_results.json").read_text() == json.dumps(metrics, indent=4, sort_keys=True)


def test_the_state_is_a_file(trainer):
    trainer.save_state()
    state = json.loads((trainer.run.path / "trainer_state.json").read_text())
    assert state["global_step"] == 3 == state["max_steps"] and state["is_world_process_zero"]
    assert [r["step"] for r in state["log_history"]] == [r["step"] for r in trainer.state.log_history]
    assert {"best_metric", "total_flos", "logging_steps", "train_batch_size", "stateful_callbacks"} <= state.keys()


def test_before_training_there_must_be_a_folder(tmp_path):
    trainer = toy.trainer(tmp_path)
    trainer.save_state()
    assert (tmp_path / trainer.args.output_dir / "trainer_state.json").is_file()
    nowhere = grpo.GRPOTrainer(toy.model(), toy.byte_values, grpo.GRPOConfig(max_steps=1), toy.ROWS)
    with pytest.raises(ConfigError, match="output_dir"):
        nowhere.save_state()


def test_log_adds_a_record_and_tells_callbacks(tmp_path):
    class Hears:
        heard = []

        def on_log(self, args, state, control, logs=None, **kwargs):
            self.heard.append(logs)

    trainer = toy.trainer(tmp_path, callbacks=[Hears()])
    trainer.train()
    trainer.log({"mine": 1.5})
    assert trainer.state.log_history[-1]["mine"] == 1.5 == Hears.heard[-1]["mine"]
    assert json.loads((trainer.run.path / "metrics.jsonl").read_text().splitlines()[-1])["mine"] == 1.5


# ---- what it was given, and the process


def test_what_it_was_given_is_there(trainer):
    assert trainer.train_dataset is toy.ROWS and trainer.eval_dataset == [{"prompt": "c", "letter": "c"}]
    assert trainer.reward_funcs == [toy.byte_values] and trainer.processing_class is trainer.model.tokenizer
    assert trainer.tokenizer is trainer.model.tokenizer and trainer.ref_model is None
    assert trainer.is_world_process_zero() and trainer.is_local_process_zero()
    assert trainer.model_wrapped is trainer.model
    assert not trainer.is_fsdp_enabled and trainer.get_num_trainable_parameters() == trainer.model.num_parameters()


def test_the_accelerator_is_of_one_process(trainer, capsys):
    a = trainer.accelerator
    a.wait_for_everyone()
    a.print("here")
    assert capsys.readouterr().out == "here\n"
    assert a.is_main_process and a.is_local_main_process and (a.num_processes, a.process_index) == (1, 0)
    assert a.unwrap_model(trainer.model) is trainer.model and a.gather([1]) == [1] == a.gather_for_metrics([1])
    assert (a.device, a.device.type, a.device.index) == ("cpu", "cpu", None) and Alone("ref").device == "cpu"
    assert Device("cuda:1").index == 1 and a.reduce(2.0, scale=3.0) == 6.0 and a.prepare(1, 2) == (1, 2)
    with a.main_process_first(), a.split_between_processes([1, 2]) as mine:
        assert mine == [1, 2]
    assert a.on_main_process(len) is len and a.get_state_dict(trainer.model).keys() == trainer.model.state_dict().keys()
    with pytest.raises(AttributeError, match="'backward'"):
        a.backward()


def test_a_config_says_that_there_is_one_process():
    args = grpo.GRPOConfig(learning_rate=1e-3, warmup_ratio=0.1, per_device_train_batch_size=16)
    assert (args.process_index, args.local_process_index, args.local_rank) == (0, 0, -1)
    assert args.world_size == 1 == args.n_gpu
    assert args.get_process_log_level() == logging.getLogger().getEffectiveLevel() and args.should_save
    assert args.train_batch_size == 16 and args.get_warmup_steps(95) == 10
    assert grpo.GRPOConfig(warmup_steps=5).get_warmup_steps(95) == 5
    assert args.to_dict()["learning_rate"] == 1e-3 == json.loads(args.to_json_string())["learning_rate"]
    assert args.to_sanitized_dict()["report_to"] == "[]" and args.distributed_state.is_main_process
    with args.main_process_first():
        pass


# ---- the model


def test_a_model_has_the_ways_of_a_module(trainer):
    model = trainer.model
    assert model.eval() is model and model.train() is model and model.training and model.to("cpu") is model
    assert model.to(device="cpu", dtype="torch.bfloat16") is model and model.cpu() is model
    assert model.device.type == "cpu"
    parameters = list(model.parameters())
    assert sum(p.numel() for p in parameters if p.requires_grad) == model.num_parameters()
    assert dict(model.named_parameters()).keys() == model.state_dict().keys()
    assert next(model.parameters()).device == "cpu" and model.get_memory_footprint() == 2 * model.num_parameters()
    embedding = model.state_dict()["model.embed_tokens.weight"].size
    assert model.num_parameters(exclude_embeddings=True) == model.num_parameters() - embedding
    model.gradient_checkpointing_enable({"use_reentrant": False})
    for place in ("cuda", "cuda:0", "torch.float16"):
        with pytest.raises(ConfigError, match="to\\("):
            model.to(place)
    with pytest.raises(ConfigError, match="memory_format"):
        model.to(memory_format=1)


def test_a_frozen_tower_is_not_counted_as_trained():
    model = grpo.load(grpo.tiny("qwen2_vl", num_hidden_layers=1), "ref")
    text = sum(p.numel() for p in model.parameters() if "visual" not in p.name)
    assert model.num_parameters(only_trainable=True) == text < model.num_parameters()
    model.train_vision = "merger"
    assert text < model.num_parameters(only_trainable=True) < model.num_parameters()
    model.train_vision = "all"
    assert model.num_parameters(only_trainable=True) == model.num_parameters()


def test_a_config_is_a_dict_with_attributes(tmp_path):
    model = toy.model()
    config = model.config
    assert isinstance(config, dict) and config.hidden_size == 32 == config["hidden_size"] and config.use_cache
    config.use_cache = False
    assert config["use_cache"] is False and model.config.to_dict()["use_cache"] is False
    assert type(config.to_dict()) is dict and config.quantization_config is None
    with pytest.raises(AttributeError, match="did you mean 'hidden_size'"):
        getattr(config, "hidden_siz")  # noqa: B009
    for name, value in (("hidden_size", 64), ("num_hidden_layers", 2), ("rope_theta", 7.0)):
        with pytest.raises(ConfigError, match=f"config.{name} would make another network"):
            setattr(config, name, value)
    assert config.hidden_size == 32
    model.generation_config.eos_token_id = 7
    assert model.generation_config.max_new_tokens is None
    config.save_pretrained(tmp_path / "alone")
    model.save_pretrained(tmp_path / "model")
    assert json.loads((tmp_path / "alone" / "config.json").read_text())["use_cache"] is False
    assert json.loads((tmp_path / "model" / "config.json").read_text())["use_cache"] is False
    assert json.loads((tmp_path / "model" / "generation_config.json").read_text())["eos_token_id"] == 7
    sees = grpo.load(grpo.tiny("qwen2_vl", num_hidden_layers=1), "ref").config
    assert sees.vision_config.patch_size == 14 and sees.text_config.num_hidden_layers == 1
    with pytest.raises(ConfigError, match="config.vision_config.patch_size"):
        sees.vision_config.patch_size = 16


# ---- generate() on arrays

WORDS = np.array([[256, 256, 72], [72, 105, 33]])
MASK = np.array([[0, 0, 1], [1, 1, 1]])


def test_arrays_in_arrays_out():
    model = toy.model()
    out = model.generate(input_ids=WORDS, attention_mask=MASK, max_new_tokens=5)
    one, two = model.generate([[72], [72, 105, 33]], max_new_tokens=5, temperature=0.0)
    assert isinstance(out, np.ndarray) and out.dtype == WORDS.dtype and np.array_equal(out[:, :3], WORDS)
    for row, completion in zip(out, (one, two), strict=True):
        tokens = row[3:].tolist()
        assert tokens[:len(completion.token_ids)] == completion.token_ids
        assert set(tokens[len(completion.token_ids):]) <= {256}
    right = model.generate(input_ids=np.array([[72, 256, 256], [72, 105, 33]]), attention_mask=MASK[:, ::-1].copy(),
                           max_new_tokens=5)
    assert np.array_equal(right[:, 3:], out[:, 3:])
    listed = model.generate(input_ids=WORDS.tolist(), attention_mask=MASK.tolist(), max_new_tokens=5)
    assert listed.tolist() == out.tolist()


def test_samples_of_a_row_follow_one_another():
    model = toy.model()
    out = model.generate(input_ids=WORDS, attention_mask=MASK, max_new_tokens=4, do_sample=True, top_k=0,
                         num_return_sequences=3, temperature=0.9, seed=5)
    want = model.generate([[72], [72, 105, 33]], 3, 4, temperature=0.9, seed=5)
    assert out.shape[0] == 6 and np.array_equal(out[:, :3], np.repeat(WORDS, 3, 0))
    for row, completion in zip(out, want, strict=True):
        assert row[3:3 + len(completion.token_ids)].tolist() == completion.token_ids


def test_options_come_from_generation_config_too():
    class Options:
        def to_dict(self):
            return {"max_new_tokens": 2, "do_sample": False, "_from_model_config": True, "transformers_version": "5"}

    model = toy.model()
    assert model.generate(input_ids=WORDS[1:], generation_config=Options()).shape[1] <= 5
    assert model.generate(input_ids=WORDS[1:], generation_config=Options(), max_new_tokens=1).shape == (1, 4)
    assert model.generate(input_ids=WORDS[1:], max_length=4).shape == (1, 4)
    model.generation_config.max_new_tokens = 1
    assert model.generate(input_ids=WORDS[1:]).shape == (1, 4)
    first = int(model.generate(input_ids=WORDS[1:], max_new_tokens=1)[0, -1])
    stopped = model.generate(input_ids=WORDS[1:], max_new_tokens=6, eos_token_id=first)
    assert stopped.shape == (1, 4) and stopped[0, -1] == first
    other = model.generate(input_ids=WORDS[1:], max_new_tokens=1, suppress_tokens=[first])
    assert other[0, -1] != first


@pytest.mark.parametrize("options, error, named", [
    (dict(num_beams=4), ConfigError, "num_beams=4"), (dict(streamer=object()), ConfigError, "streamer"),
    (dict(return_dict_in_generate=True), ConfigError, "return_dict_in_generate"),
    (dict(max_time=1.0), ConfigError, "max_time"), (dict(max_length=2), ConfigError, "max_length=2"),
    (dict(max_new_token=4), ConfigError, "did you mean 'max_new_tokens'"),
    (dict(pixel_values=WORDS), ImageError, "pixel_values"),
    (dict(attention_mask=MASK[:1]), ConfigError, "attention_mask"),
    (dict(attention_mask=0 * WORDS), ConfigError, "row 0 has nothing but padding"),
    (dict(inputs=WORDS), ConfigError, "was given 2"), (dict(eos_token_id=99999), ConfigError, "stop_ids"),
])
def test_what_is_not_honoured_is_refused_by_name(options, error, named):
    with pytest.raises(error, match=named):
        toy.model().generate(**{"input_ids": WORDS, **options})


def test_ids_must_be_a_table():
    for ids in ([72, 105], [[72], [72, 105]], [[0.5]], np.zeros((0, 2), int)):
        with pytest.raises(ConfigError, match="input_ids"):
            toy.model().generate(input_ids=ids)


# ---- card and hub


def card_of(folder):
    text = (folder / "README.md").read_text()
    _, head, body = text.split("---\n", 2)
    return yaml.safe_load(head), body


def test_the_card_has_the_fields_of_the_hub(trainer):
    trainer.model.name_or_path = "Qwen/Qwen2.5-0.5B"
    trainer.evaluate()
    trainer.create_model_card(model_name="mine", dataset_name="openai/gsm8k", tags=["math", "grpo"])
    fields, body = card_of(trainer.run.path)
    assert fields == {"base_model": "Qwen/Qwen2.5-0.5B", "datasets": "openai/gsm8k", "library_name": "transformers",
                      "model_name": "mine", "tags": ["generated_from_trainer", "math", "grpo"]}
    assert "3 steps of 8 rows" in body and "2402.03300" in body
    trainer.create_model_card({"tags": "one", "license": "mit", "language": "en", "dataset_name": ["a/b", "c/d"]})
    fields, body = card_of(trainer.run.path)
    assert fields["license"] == "mit" and fields["datasets"] == ["a/b", "c/d"] and fields["language"] == "en"
    assert fields["model_name"] == trainer.run.path.name and "one" in fields["tags"]


class Api:
    """The hub, as far as it is asked."""

    calls: list

    def __init__(self, token=None):
        self.token = token

    def create_repo(self, repo_id, private=None, exist_ok=False):
        self.calls.append(("create", repo_id, private, exist_ok))
        if repo_id.endswith("forbidden"):
            raise ValueError("403: you have no rights")
        return type("Url", (), {"repo_id": f"me/{repo_id}" if "/" not in repo_id else repo_id})

    def upload_folder(self, repo_id, folder_path, commit_message, revision, ignore_patterns, run_as_future):
        self.calls.append(("upload", repo_id, folder_path, commit_message, revision, run_as_future))
        if run_as_future:
            return type("Future", (), {"done": lambda self: True, "exception": lambda self: None})()
        return "commit"


@pytest.fixture
def api(monkeypatch):
    import huggingface_hub

    Api.calls = []
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "secret")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "reachable", lambda endpoint: True)
    return Api


def test_a_model_goes_to_the_hub(trainer, api):
    assert trainer.push_to_hub(dataset_name="a/b", tags="x") == "commit"
    (create, upload) = api.calls
    name = trainer.run.path.name
    assert create == ("create", name, None, True) and upload[:2] == ("upload", f"me/{name}")
    assert upload[3:] == ("End of training", None, False)
    fields, _ = card_of(trainer.run.path / "model")
    assert fields["datasets"] == "a/b" and upload[2] == str(trainer.run.path / "model")
    assert (trainer.run.path / "model" / "model.safetensors").is_file() and trainer.hub_model_id == f"me/{name}"


def test_the_option_makes_the_repository_first_and_uploads_what_is_saved(tmp_path, api):
    trainer = toy.trainer(tmp_path, push_to_hub=True, hub_model_id="team/mine", hub_private_repo=True, hub_token="hf_t",
                          save_strategy="steps", hub_revision="dev")
    assert api.calls == [("create", "team/mine", True, True)]
    trainer.train()
    assert api.calls[1][1:2] + api.calls[1][3:] == ("team/mine", "Training in progress, step 3", "dev", True)
    trainer.save_model(str(tmp_path / "saved"))
    assert api.calls[-1][2:4] == (str(tmp_path / "saved"), "Model save")
    count = len(api.calls)
    trainer.push_to_hub("done")
    assert len(api.calls) == count + 1 and api.calls[-1][3] == "done"
    for path in trainer.run.path.rglob("*"):
        assert not path.is_file() or b"hf_t" not in path.read_bytes()


def test_offline_the_folder_is_prepared_and_that_is_said(tmp_path, monkeypatch, capsys):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    trainer = toy.trainer(tmp_path, push_to_hub=True, hub_strategy="end")
    assert "HF_HUB_OFFLINE is set; the folder will be prepared" in capsys.readouterr().err
    trainer.train()
    assert trainer.push_to_hub() is None
    assert f"hf upload {trainer.hub_model_id} {trainer.run.path / 'model'}" in capsys.readouterr().err
    assert (trainer.run.path / "model" / "README.md").is_file()


def test_no_token_fails_before_training_and_not_after(tmp_path, api, monkeypatch, trainer):
    import huggingface_hub

    with pytest.raises(ConfigError, match="forbidden cannot be made on the hub: 403"):
        toy.trainer(tmp_path, push_to_hub=True, hub_model_id="forbidden")
    trainer.args.hub_model_id = None
    trainer.upload.asked = "forbidden"
    with pytest.warns(GrpoWarning, match="the upload failed: 403.*hf upload forbidden"):
        assert trainer.push_to_hub() is None
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(ConfigError, match="needs a token"):
        toy.trainer(tmp_path, push_to_hub=True)


def test_a_token_is_in_no_config():
    config = grpo.GRPOConfig(hub_token="hf_secret")
    written = config.to_yaml() + config.to_json_string() + repr(config)
    assert config.hub_token == "hf_secret" and "hf_secret" not in written
