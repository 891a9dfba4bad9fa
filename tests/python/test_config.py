"""Options: names, defaults, arithmetic, presets, errors; and the learning-rate schedules."""
import dataclasses
import importlib.util
import inspect
import math
import re
import sys
import types
import typing

import numpy as np
import pytest

import grpo
from grpo import GRPOConfig, SFTConfig
from grpo.errors import ConfigError, GrpoWarning
from grpo.options.presets import PRESETS
from grpo.options.schedule import learning_rate


@pytest.mark.parametrize("options, message", [
    (dict(num_generation=4), "did you mean 'num_generations'"),
    (dict(kl_weight_bet=0.1), "did you mean 'kl_weight_beta'"),
    (dict(nonsense_option=1), "unknown option 'nonsense_option'"),
    (dict(preset="dappo"), "did you mean 'dapo'"),
    (dict(fp16=True), "float32 masters"),
    (dict(deepspeed="zero3.json"), "one process"),
    (dict(fsdp="full_shard"), "one process"),
    (dict(torch_compile=True), "no PyTorch"),
    (dict(optim="adafactor"), "AdamW"),
    (dict(optim="adamw_8bit", moment_dtype="bfloat16"), "ask for different moments"),
    (dict(moment_dtype="float16"), "not one of float32, bfloat16, float8"),
    (dict(master_dtype="bfloat16"), "not one of float32, float24"),
    (dict(push_to_hub=True, hub_strategy="all_checkpoints"), "not one of every_save, end"),
    (dict(trust_remote_code=True), "ever run"),
    (dict(num_generations=1), "2 or more"),
    (dict(num_generations=0), "2 or more"),
    (dict(per_device_train_batch_size=6, num_generations=4), "does not divide by num_generations=4"),
    (dict(prompts_per_step=4, num_generations=8, per_device_train_batch_size=8), "is 32 completions a step"),
    (dict(prompts_per_step=3, num_generations=2, gradient_accumulation_steps=4), "gradient_accumulation_steps=4"),
    (dict(generation_batch_size=16, steps_per_generation=2), "same thing"),
    (dict(generation_batch_size=24, per_device_train_batch_size=16), "into steps of 16"),
    (dict(loss_type="ppo"), "not one of grpo"),
    (dict(loss_type="dr-grpo"), "did you mean 'dr_grpo'"),
    (dict(scale_rewards="std"), "group, batch, none"),
    (dict(lr_scheduler_type="constant", warmup_steps=5), "constant_with_warmup"),
    (dict(lr_scheduler_type="greedy"), "not one of linear"),
    (dict(lr_scheduler_type="cosine", lr_scheduler_kwargs={"num_cycle": 1}),
     "cosine does not take 'num_cycle'; did you mean 'num_cycles'"),
    (dict(lr_scheduler_type="polynomial", learning_rate=1e-7), "must be below learning_rate=1e-07"),
    (dict(lr_scheduler_type="polynomial", lr_scheduler_kwargs={"power": "strong"}), "power='strong' must be float"),
    (dict(lr_scheduler_type="polynomial", lr_scheduler_kwargs={"power": math.nan}), "power=nan must be float"),
    (dict(lr_scheduler_type="inverse_sqrt", lr_scheduler_kwargs={"timescale": 0}), "at least 1 step"),
    (dict(lr_scheduler_type="cosine_with_min_lr"), "one of min_lr and min_lr_rate"),
    (dict(lr_scheduler_type="cosine_with_min_lr", lr_scheduler_kwargs={"min_lr": 0.0, "min_lr_rate": 0.0}),
     "one of min_lr and min_lr_rate"),
    (dict(lr_scheduler_type="warmup_stable_decay"), "needs num_decay_steps"),
    (dict(lr_scheduler_type="warmup_stable_decay", lr_scheduler_kwargs={"num_decay_steps": 4, "decay_type": "sqrt"}),
     "did you mean '1-sqrt'"),
    (dict(logging_steps=2.5), "logging_steps=2.5 must be a whole number of steps"),
    (dict(save_steps=1.5), "save_steps=1.5 must be a whole number"),
    (dict(temperature=0), "temperature=0.0 must be > 0"),
    (dict(top_p=1.5), "must be <= 1"),
    (dict(top_k=1 << 31), "top_k=2147483648 must be <= 2147483647"),
    (dict(epsilon=-0.1), "must be >= 0"),
    (dict(beta="strong"), "beta='strong' must be float"),
    (dict(max_steps=2.5), "max_steps=2.5 must be int"),
    (dict(seed=None), "seed=None must be int"),
    (dict(dynamic_sampling=1), "dynamic_sampling=1 must be bool"),
    (dict(max_completion_length=True), "max_completion_length=True must be int"),
    (dict(sync_ref_model=True), "beta above 0"),
    (dict(kl_in_reward=True), "beta above 0"),
    (dict(temperature_eval=0, num_generations_eval=4), "greedy"),
    (dict(on_reward_error="ignore"), "'raise', 'drop' or a number"),
    (dict(on_reward_error=math.nan), "must be finite"),
    (dict(soft_overlong_cache=600), "below max_completion_length"),
    (dict(multi_objective_aggregation="normalize_then_sum", scale_rewards="none"), "no effect"),
    (dict(delta=1.0), "must be > 1"),
    (dict(report_to="wandbb"), "did you mean 'wandb'"),
    (dict(use_peft=True), "every weight"),
    (dict(model_revision="v2"), "main branch"),
    (dict(num_train_iters=0), "number of rounds"),
    (dict(num_train_iters=8, max_steps=8), "in rounds and in steps"),
    (dict(gradient_checkpointing=True, recompute=False), "same thing differently"),
    (dict(activation_checkpointing=True, recompute=False), "same thing differently"),
    (dict(seed=1 << 64), "seed=18446744073709551616 must be <= 18446744073709551615"),
    (dict(data_seed=1 << 64), "data_seed="),
    (dict(generation_kwargs={"temprature": 1}), "did you mean 'temperature'"),
    (dict(generation_kwargs={"max_new_tokens": 9}), "Use max_completion_length"),
    (dict(generation_kwargs={"temperature": 0.0}), "temperature must be above 0"),
])
def test_what_cannot_be_honoured_is_an_error(options, message):
    with pytest.raises(ConfigError) as error:
        GRPOConfig(**options)
    assert message in str(error.value)


@pytest.mark.parametrize("options", [
    dict(bf16=True, gradient_checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": False}),
    dict(logging_dir="logs", dataloader_num_workers=4, dataloader_pin_memory=False, remove_unused_columns=False),
    dict(use_vllm=False, vllm_mode="colocate", vllm_gpu_memory_utilization=0.3),
    dict(use_liger_kernel=False, push_to_hub=False, hub_model_id="me/x", fp16=False, tf32=None,
         optim="adamw_torch_fused"),
    dict(per_device_eval_batch_size=8, do_eval=True, log_on_each_node=False, save_safetensors=True, local_rank=-1),
    dict(disable_dropout=True, ds3_gather_for_generation=False, deepspeed=None, fsdp=""),
    dict(activation_checkpointing=None, activation_checkpointing_kwargs={"use_reentrant": False}, use_cache=False,
         project="x"),
])
def test_what_asks_for_what_happens_anyway_is_accepted(options):
    assert GRPOConfig(**options).loss_type == "dapo"


def test_names_of_other_trainers():
    config = GRPOConfig(gradient_checkpointing=True, num_chains=4, kl_weight_beta=0.1, num_train_iters=7,
                        update_ref_model=True,
                        update_ref_model_freq=200, batch_size=1, evaluation_strategy="steps", use_cpu=True,
                        warmup_percent=0.18)
    assert (config.recompute, config.num_generations, config.beta, config.max_steps) == (True, 4, 0.1, 7)
    assert ((config.sync_ref_model, config.ref_model_sync_steps, config.eval_strategy, config.device)
            == (True, 200, "steps", "cpu"))
    assert config.warmup_ratio == 0.18


@pytest.mark.parametrize("name", ["adamw_8bit", "adamw_bnb_8bit", "adamw_torch_8bit", "paged_adamw_8bit"])
def test_an_8_bit_adamw_has_8_bit_moments(name):
    with pytest.warns(GrpoWarning, match="float8"):
        assert GRPOConfig(optim=name).moment_dtype == SFTConfig(optim=name).moment_dtype == "float8"


@pytest.mark.parametrize("options, note", [
    (dict(bf16=False), "bfloat16"), (dict(optim="paged_adamw_8bit"), "moment_dtype='float8'"),
    (dict(remove_unused_columns=True), "rides along"), (dict(use_vllm=True), "own engine"),
    (dict(report_to="wandb"), "wandb is not built in.*metrics.jsonl"),
    (dict(num_train_iters=7, num_generations=4), "num_train_iters=7 rounds of one prompt are max_steps=4 of 2 prompts"),
])
def test_what_is_accepted_with_a_line(options, note):
    with pytest.warns(GrpoWarning, match=note):
        GRPOConfig(**options)


def test_defaults_are_those_of_trl():
    c = GRPOConfig()
    assert ((c.learning_rate, c.beta, c.epsilon, c.num_generations, c.max_completion_length, c.temperature)
            == (1e-6, 0.0, 0.2, 8, 512, 1.0))
    assert ((c.loss_type, c.scale_rewards, c.num_iterations, c.max_grad_norm, c.lr_scheduler_type)
            == ("dapo", "group", 1, 1.0, "linear"))
    assert (c.batch_size, c.rollout_size, c.prompts_per_rollout, c.steps_per_rollout) == (8, 8, 1, 1)


@pytest.mark.parametrize("options, batch, rollout, prompts, steps", [
    (dict(per_device_train_batch_size=8, gradient_accumulation_steps=4), 32, 32, 4, 1),
    (dict(prompts_per_step=4, num_generations=16), 64, 64, 4, 1),
    (dict(prompts_per_step=4, gradient_accumulation_steps=2), 32, 32, 4, 1),
    (dict(prompts_per_step=2, num_iterations=3), 16, 16, 2, 3),
    (dict(per_device_train_batch_size=8, steps_per_generation=4), 8, 32, 4, 4),
    (dict(per_device_train_batch_size=8, generation_batch_size=16, num_iterations=2), 8, 16, 2, 4),
    (dict(per_device_train_batch_size=4, steps_per_generation=4), 4, 16, 2, 4),
    (dict(per_device_train_batch_size=8, gradient_accumulation_steps=4, steps_per_generation=2), 32, 32, 4, 1),
])
def test_batch_arithmetic(options, batch, rollout, prompts, steps):
    c = GRPOConfig(**options)
    assert ((c.batch_size, c.rollout_size, c.prompts_per_rollout, c.steps_per_rollout)
            == (batch, rollout, prompts, steps))
    said = f"{prompts} prompts x {c.num_generations} completions = {rollout} completions a rollout"
    assert said in c.describe_batch()


@pytest.mark.parametrize("value, field, expected", [
    ("1e-6", "learning_rate", 1e-6), (1, "learning_rate", 1.0), (np.float32(0.5), "top_p", 0.5),
    (np.int64(3), "max_steps", 3),
    (True, "scale_rewards", "group"), (False, "scale_rewards", "none"), ("none", "report_to", []),
    (None, "report_to", []),
    ("0.5", "on_reward_error", 0.5), ((1, 2.5), "reward_weights", [1.0, 2.5]),
    (np.bool_(True), "dynamic_sampling", True),
])
def test_values_are_read_as_their_type(value, field, expected):
    got = getattr(GRPOConfig(**{field: value}), field)
    assert got == expected and type(got) is type(expected)


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name):
    config = GRPOConfig(preset=name, output_dir="x")
    assert config.output_dir == "x"
    assert all(getattr(config, field) == value for field, value in PRESETS[name].items())
    assert GRPOConfig(preset=name, epsilon=0.15).epsilon == 0.15


def test_overlong_cache_counts_tokens_or_a_share():
    assert GRPOConfig(soft_overlong_cache=0.2, max_completion_length=100).overlong_cache == 20
    assert GRPOConfig(soft_overlong_cache=64).overlong_cache == 64
    assert GRPOConfig().overlong_cache == 0


def test_yaml_round_trip(tmp_path):
    config = GRPOConfig(preset="dapo", prompts_per_step=4, generation_kwargs={"stop": ["</answer>"]},
                        learning_rate=3e-6)
    config.to_yaml(tmp_path / "config.yaml")
    again = GRPOConfig.from_yaml(tmp_path / "config.yaml")
    assert dataclasses.asdict(again) == dataclasses.asdict(config)
    assert GRPOConfig.from_yaml(tmp_path / "config.yaml", seed=7).seed == 7


@pytest.mark.parametrize("text, message",
                         [("[1, 2]", "mapping"), ("a: [", "expected"), ("lerning_rate: 1e-6", "learning_rate")])
def test_bad_yaml_is_named(tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        GRPOConfig.from_yaml(path)
    with pytest.raises(ConfigError, match="absent.yaml"):
        GRPOConfig.from_yaml(tmp_path / "absent.yaml")


def test_every_option_says_what_it_means():
    for cls in (GRPOConfig, SFTConfig):
        assert all(len(f.metadata["help"]) > 10 for f in dataclasses.fields(cls))


def test_loss_options_are_the_cores():
    from grpo import _core

    assert set(_core.loss_defaults()) >= set(GRPOConfig(epsilon_high=0.3, delta=2.0, off_policy_mask_threshold=1.0,
                                                        aggregation="token-mean").loss_options())
    assert set(_core.loss_defaults()) <= {f.name for f in dataclasses.fields(GRPOConfig)}
    assert GRPOConfig(beta=0.1, kl_in_reward=True).loss_options()["beta"] == 0


def test_loss_defaults_are_the_cores():
    from grpo import _core

    core, fields = _core.loss_defaults(), GRPOConfig().loss_options()
    longest = {"max_completion_length"}                    # the config always knows it, the core is always told
    assert ({k: v for k, v in fields.items() if k not in longest}
            == pytest.approx({k: core[k] for k in fields if k not in longest}))


def test_cispo_with_a_margin_for_a_cap_is_doubted():
    with pytest.warns(GrpoWarning, match="cispo"):
        GRPOConfig(loss_type="cispo")


@pytest.mark.parametrize("options, expected", [
    (dict(lr_scheduler_type="linear"), [1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]),
    (dict(lr_scheduler_type="linear", warmup_steps=2), [0, 0.5, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]),
    (dict(lr_scheduler_type="constant"), [1] * 10),
    (dict(lr_scheduler_type="constant_with_warmup", warmup_ratio=0.25), [0, 1 / 3, 2 / 3, 1, 1, 1, 1, 1, 1, 1]),
    (dict(lr_scheduler_type="constant_with_warmup", warmup_steps=0.25), [0, 1 / 3, 2 / 3, 1, 1, 1, 1, 1, 1, 1]),
    (dict(lr_scheduler_type="cosine"),
     [1, 0.9755283, 0.9045085, 0.7938926, 0.6545085, 0.5, 0.3454915, 0.2061074, 0.0954915, 0.0244717]),
    (dict(lr_scheduler_type="cosine", warmup_steps=5),
     [0, 0.2, 0.4, 0.6, 0.8, 1, 0.9045085, 0.6545085, 0.3454915, 0.0954915]),
    (dict(lr_scheduler_type="cosine_with_min_lr", lr_scheduler_kwargs={"min_lr_rate": 0.1}, warmup_steps=8),
     [i / 8 for i in range(8)] + [1, 0.55]),
    (dict(lr_scheduler_type="cosine_with_min_lr", lr_scheduler_kwargs={"min_lr": 0.5}, warmup_steps=8),
     [i / 8 for i in range(8)] + [1, 0.75]),
])
def test_schedules(options, expected):
    config = GRPOConfig(learning_rate=1.0, **options)
    assert [learning_rate(config, step, 10) for step in range(10)] == pytest.approx(expected, abs=1e-7)


def test_schedule_arguments_are_numbers_though_yaml_reads_text():
    assert (GRPOConfig(lr_scheduler_type="polynomial", lr_scheduler_kwargs={"lr_end": "1e-8"}).lr_scheduler_kwargs
            == {"lr_end": 1e-8})


@pytest.mark.parametrize("installed, reporters", [(True, ["tensorboard"]), (False, [])])
def test_report_to_all_is_what_is_installed(installed, reporters, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", types.ModuleType("tensorboardX"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: installed or None)
    with pytest.warns(GrpoWarning, match="report_to='all' is (tensorboard|nothing)"):
        assert GRPOConfig(report_to="all").report_to == reporters


@pytest.mark.parametrize("options", [dict(use_vllm=True), dict(report_to="wandb"), dict(loss_type="cispo"),
                                     dict(num_train_iters=8, prompts_per_step=4)])
def test_a_warning_points_at_the_line_that_it_is_about(options):
    with pytest.warns(GrpoWarning) as seen:
        GRPOConfig(**options)
    assert [(one.filename, one.lineno) for one in seen] == [(__file__, inspect.currentframe().f_lineno - 1)]


@pytest.mark.parametrize("device, tokens, slots", [("cpu", 1024, 32), ("ref", 1024, 32), ("cuda", 16384, 256)])
def test_what_is_not_asked_for_depends_on_the_device(device, tokens, slots):
    default, asked = GRPOConfig(), GRPOConfig(token_budget=7, slots=3)
    assert (default.token_budget_on(device), default.slots_on(device)) == (tokens, slots)
    assert (asked.token_budget_on(device), asked.slots_on(device)) == (7, 3)


def test_sft_config():
    assert SFTConfig().learning_rate == 2e-5
    with pytest.raises(ConfigError, match="not supported"):
        SFTConfig(completion_only_loss=False)
    with pytest.raises(ConfigError, match="unknown option 'num_generations'"):
        SFTConfig(num_generations=4)
    assert grpo.SFTConfig is SFTConfig


def test_fields_of_the_loss_are_as_the_core_says():
    from grpo import _core

    types_of = {"number": float, "number or None": float | None, "integer": int, "flag": bool, "choice": str,
                "choice or None": str | None}
    fields, hints = {f.name: f for f in dataclasses.fields(GRPOConfig)}, typing.get_type_hints(GRPOConfig)
    for name, (kind, default, choices) in _core.loss_options().items():
        field = fields[name]
        assert (hints[name], field.default, field.metadata["help"].choices) == (types_of[kind], default, choices), name
        assert bool(choices) == kind.startswith("choice")
    assert {name: entry[1] for name, entry in _core.loss_options().items()} == _core.loss_defaults()


@pytest.mark.parametrize("options, message", [
    (dict(lora_r=8), "lora_r=8 cannot be honoured: adapters are not trained"),
    (dict(lora_target_modules=["q_proj"]), "adapters are not trained"), (dict(use_rslora=True), "adapters"),
    (dict(peft_config={"r": 8}), "adapters"), (dict(bnb_4bit_quant_type="nf4"), "bfloat16 with float32 masters"),
    (dict(soft_thinking=True), "not of mixtures of tokens"),
    (dict(vllm_structured_outputs_regex="[0-9]+"), "sampled freely"),
])
@pytest.mark.parametrize("config", [GRPOConfig, SFTConfig])
def test_what_is_not_there_yet_is_refused_by_name(config, options, message):
    with pytest.raises(ConfigError, match=re.escape(next(iter(options)))) as error:
        config(**options)
    assert message in str(error.value)


@pytest.mark.parametrize("options, note", [
    (dict(soft_thinking_k=2), "soft_thinking_k=2: without soft_thinking"),
    (dict(overwrite_output_dir=True), "never overwritten"),
    (dict(use_liger_kernel=True), "never kept whole"), (dict(tf32=True), "no tf32"),
    (dict(save_safetensors=False), "safetensors"), (dict(do_predict=True), "grpo eval"),
])
def test_what_is_harmless_is_said(options, note):
    with pytest.warns(GrpoWarning, match=note):
        GRPOConfig(**options)


def test_what_steers_nothing_here_is_said_on_one_line(capsys):
    GRPOConfig(attn_implementation="sdpa", dataloader_num_workers=4, hub_always_push=True,
               vllm_mode="server", logging_dir=None,
               gradient_checkpointing_kwargs={}, ddp_backend="", local_rank=0)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("without effect here: attn_implementation, dataloader_num_workers, hub_always_push, "
                           "vllm_mode, local_rank (")
    GRPOConfig(seed=1)
    assert capsys.readouterr().err == ""
