"""Option names of other trainers: what is understood under another name, what asks for what happens anyway, what is
refused.

A script written for TRL (or for the transformers Trainer under it) carries options about devices, loaders and engines
that do not exist here. Each is listed once, with the values that change nothing and a sentence for the others, so that
nothing is ignored in silence and the error says what to do instead.
"""
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import ConfigError, did_you_mean, note, warn
from .generation import from_sampling_params
from .plain import foreign_scalar

# another name for a field of ours, same meaning
ALIASES = {
    "gradient_checkpointing": "recompute",
    "activation_checkpointing": "recompute",
    "evaluation_strategy": "eval_strategy",
    "lr_scheduler": "lr_scheduler_type",
    "torch_dtype": "dtype",
    # flags of DeepSeekRL's command lines, in its code and in its documents
    "num_chains": "num_generations",
    "num_chains_eval": "num_generations_eval",
    "num_eval_chains": "num_generations_eval",
    "kl_weight_beta": "beta",
    "kl_coeff": "beta",
    "warmup_percent": "warmup_ratio",
    "update_ref_model": "sync_ref_model",
    "batch_size": "prompts_per_step",
    "num_epochs": "num_train_epochs",
    "eval_interval": "eval_steps",
    "log_interval": "logging_steps",
    "resume": "resume_from_checkpoint",
}
# DeepSeekRL counts rounds of one prompt each; what they are here are steps of prompts_per_step prompts
ROUNDS = {"num_train_iters": "max_steps", "eval_iterations": "eval_steps",
          "update_ref_model_freq": "ref_model_sync_steps"}

# options with no effect here whatever their value: they steer torch, data loader processes, launchers, other engines or
# hub uploads; accepted, and named on one line when they ask for anything
WITHOUT_EFFECT = frozenset("""
    activation_checkpointing_kwargs activation_offloading attn_implementation average_tokens_across_devices
    batch_eval_metrics bf16_full_eval dataset_num_proc do_eval ds3_gather_for_generation eval_accumulation_steps
    eval_do_concat_batches eval_use_gather_object gradient_checkpointing_kwargs include_num_input_tokens_seen
    include_tokens_per_second length_column_name liger_kernel_config local_rank log_level log_level_replica
    log_multimodal log_on_each_node logging_dir logging_nan_inf_filter low_cpu_mem_usage packing_strategy
    pad_to_multiple_of per_device_eval_batch_size prediction_loss_only project save_on_each_node skip_memory_metrics
    torch_empty_cache_steps transformers_continuous_batching_config use_transformers_continuous_batching
    use_transformers_paged verbose use_kernels
    half_precision_backend fp16_backend fp16_opt_level jit_mode_eval use_ipex use_mps_device mp_parameters xpu_backend
    tpu_num_cores tpu_metrics_debug past_index torchdynamo ray_scope dispatch_batches split_batches
    fsdp_min_num_params fsdp_transformer_layer_cls_to_wrap
    dataloader_drop_last dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers
    dataloader_prefetch_factor dataloader_multiprocessing_context dataloader_in_order
    ddp_backend ddp_broadcast_buffers ddp_bucket_cap_mb ddp_find_unused_parameters ddp_static_graph ddp_timeout
    hub_always_push hub_model_revision
    push_to_hub_model_id push_to_hub_organization push_to_hub_token
    trackio_space_id trackio_bucket_id trackio_static_space_id
    torch_compile_backend torch_compile_mode
    vllm_mode vllm_model_impl vllm_enable_sleep_mode vllm_server_base_url vllm_server_host vllm_server_port
    vllm_server_timeout vllm_group_port vllm_gpu_memory_utilization vllm_max_model_length vllm_max_model_len
    vllm_tensor_parallel_size vllm_device vllm_dtype vllm_enable_prefix_caching
    vllm_importance_sampling_correction vllm_importance_sampling_mode vllm_importance_sampling_clip_max
    vllm_importance_sampling_clip_min vllm_importance_sampling_cap
""".split())

# kept as they are, and written nowhere
KEPT = ("hub_token",)

# values of optim that ask for AdamW with moments in 8 bits
ADAMW_8BIT = ("adamw_8bit", "adamw_bnb_8bit", "adamw_torch_8bit", "paged_adamw_8bit")
# name -> (values that ask for what happens anyway, what happens with the others): accepted, and said on one line
NOTED: dict[str, tuple[tuple[Any, ...], str]] = {
    "use_vllm": ((False, None), "rollouts run in this package's own engine, on the weights that train"),
    "remove_unused_columns": ((False, None), "every column rides along to the reward functions"),
    "soft_thinking_k": ((None,), "without soft_thinking, which is not supported, it has no effect"),
    "soft_thinking_temperature": ((None,), "without soft_thinking, which is not supported, it has no effect"),
    "do_train": ((True, False, None), "train() trains"),
    "do_predict": ((False, None), "grpo eval, or evaluate(), measures a model on rows"),
    "use_cache": ((True, False, None), "rollouts always have a KV cache"),
    "full_determinism": ((True, False, None), "the same seed gives the same run, bit for bit"),
    "disable_dropout": ((True, None), "no dropout is run"),
    "padding_free": ((True, False, None), "nothing is padded"),
    "save_safetensors": ((True, None), "weights are written as safetensors"),
    "restore_callback_states_from_checkpoint": ((False, None), "a checkpoint has no state of callbacks"),
    "tf32": ((None, False), "there is no tf32 path: products are of bfloat16 or float32"),
    "use_liger_kernel": ((False, None), "logits are never kept whole in any case"),
    "overwrite_output_dir": ((False, None), "an existing run is never overwritten; a new run gets the next free "
                             "folder"),
    "bf16": ((True, None), "weights are bfloat16 (with float32 masters) on cpu and cuda; device='ref' is float32"),
}

OTHER_MODELS = "no other model is run; call yours from a reward function (--rewards file.py:function)"
LORA = ("lora_r", "lora_rank", "lora_alpha", "lora_dropout", "lora_bias", "lora_target_modules",
        "lora_target_parameters", "lora_modules_to_save", "lora_task_type", "use_rslora", "use_dora", "peft_config")
BITS = ("load_in_8bit", "load_in_4bit", "bnb_4bit_quant_type", "bnb_4bit_quant_storage", "bnb_4bit_compute_dtype",
        "use_bnb_nested_quant", "quantization_config")
ONE_PROCESS = "training runs in one process; leave it out"
UNCONSTRAINED = "completions are sampled freely; check their form in a reward function"
MAIN_BRANCH = "a hub id means its main branch; download the revision and give its folder"
# name -> (values that ask for what happens anyway, what to do about the others)
REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "fp16": ((False,), "weights are bfloat16 with float32 masters; leave it out, or use device='ref' for float32"),
    "fp16_full_eval": ((False,), "evaluation uses the weights as they are; leave it out"),
    "device_map": ((None, "auto"), "say device='cpu' or device='cuda'"),
    "deepspeed": ((None, "", False, {}), ONE_PROCESS),
    "fsdp": ((None, "", False, []), ONE_PROCESS),
    "fsdp_config": ((None, "", {}), ONE_PROCESS),
    "parallelism_config": ((None,), ONE_PROCESS),
    "accelerator_config": ((None, "", {}), "there is no accelerate here; leave it out"),
    "torch_compile": ((False,), "there is no PyTorch here; leave it out"),
    "cast_lm_head_to_fp32": ((False,),
                             "log-probs are computed in float32; device='ref' also stores the head in float32"),
    "optim": (("adamw", "adamw_hf", "adamw_torch", "adamw_torch_fused"),
              "the optimiser is AdamW with float32 masters; moment_dtype='bfloat16' halves its moments, 'float8' takes "
              "a quarter; master_dtype='float24' makes masters smaller"),
    "optim_args": ((None, ""), "AdamW is set by adam_beta1, adam_beta2, adam_epsilon and weight_decay"),
    "optim_target_modules": ((None,), "every parameter is trained"),
    "auto_find_batch_size": ((False,), "micro-batches are packed to token_budget; lower that instead"),
    "trust_remote_code": ((False,), "no code of a model repository is ever run"),
    "router_aux_loss_coef": ((None, 0, 0.0), "there are no mixture-of-experts models here"),
    "cache_implementation": ((None,), "there is one KV cache; leave it out"),
    "max_tool_calling_iterations": ((None,), "tools are not supported"),
    "log_completions_hub_repo": ((None,), "completions are written to the run folder"),
    "logging_strategy": (("steps",), "every step is written to metrics.jsonl; logging_steps sets how often a line is "
                         "printed"),
    "neftune_noise_alpha": ((None, 0), "noisy embeddings are not supported"),
    "label_smoothing_factor": ((0, 0.0), "label smoothing is not supported"),
    "group_by_length": ((False,), "nothing is padded, so lengths need no grouping"),
    "train_sampling_strategy": (("random",), "rows come in a seeded order; shuffle_dataset=False keeps that of the "
                                "data set"),
    "ignore_data_skip": ((False,), "a resumed run continues at its place in the data"),
    "enable_jit_checkpoint": ((False,), "checkpoints are written every save_steps"),
    "eval_delay": ((0, None), "evaluation starts with the first eval_steps"),
    "include_for_metrics": (([],), "there are no compute_metrics here"),
    "label_names": ((None,), "there are no labels here"),
    "debug": (("", None, []), "set GRPO_DEBUG=1 in the environment"),
    "truncation_mode": (("keep_start",), "what is longer than max_length is cut at its end"),
    "loss_type": (("nll",), "the loss is the mean negative log-likelihood of the completions' tokens"),
    "packing": ((False,), "segments are always packed without padding; rows are never joined into one sequence"),
    "eval_packing": ((None, False), "segments are always packed without padding"),
    "assistant_only_loss": ((False,), "the last assistant message of each row is trained"),
    "dataset_text_field": (("text",), "give rows with prompt and completion, or messages"),
    "dataset_kwargs": ((None, {}), "prepare rows before they come to the trainer"),
    "chat_template_path": ((None,), "the model's own chat template is used"),
    "eos_token": ((None,), "the tokenizer's own stop tokens are used"),
    "pad_token": ((None,), "nothing is padded"),
    "model_revision": (("main", None), MAIN_BRANCH),
    "revision": (("main", None), MAIN_BRANCH),
    "use_peft": ((False, None), "every weight is trained; leave it out"),
    **dict.fromkeys(LORA, ((None, False), "adapters are not trained, every weight is; leave it out")),
    **dict.fromkeys(BITS, ((None, False), "weights are bfloat16 with float32 masters; leave it out")),
    **dict.fromkeys(("vllm_structured_outputs_regex", "vllm_guided_decoding_regex", "guided_decoding",
                     "guided_decoding_regex", "structured_outputs"), ((None, ""), UNCONSTRAINED)),
    "use_kl": ((True,), "beta=0 leaves the KL out"),
    "soft_thinking": ((False, None), "completions are made of tokens, not of mixtures of tokens"),
    "use_hidden_injection": ((False,), "soft prompts are not trained; every weight is"),
    "use_local_inference_model": ((False,), OTHER_MODELS),
    "inference_model": ((None,), OTHER_MODELS),
    "max_strategy_tokens": ((None,), OTHER_MODELS),
    "judge_model_name": ((None,), OTHER_MODELS),
    "compare_model_name": ((None,), OTHER_MODELS),
}


# constructor arguments of other trainers -> why they are refused
NOT_SUPPORTED = {
    "reward_processing_classes": "reward models are not run; call yours from a reward function",
    "optimizers": "the optimiser is AdamW, set by the config",
    "quantization_config": "weights are loaded as the device stores them",
    "peft_config": "every weight is trained",
    "formatting_func": "give rows with prompt and completion, or messages",
    "compute_loss_func": "the loss is that of the config",
    "preprocess_logits_for_metrics": "logits are never kept whole",
    "optimizer_cls_and_kwargs": "the optimiser is AdamW, set by the config",
    "tools": "tools are not supported",
    "rollout_func": "rollouts run in this package's own engine",
    "environment_factory": "environments are not supported",
    "compute_metrics": "give eval_funcs, functions with the arguments of a reward",
    "data_collator": "nothing is padded, so nothing is collated",
}


def understood(given: Mapping[str, Any], known: Iterable[str], problems: list[str] | None = None) -> dict[str, Any]:
    """Options by our own names; those of ROUNDS keep theirs, as it takes a whole config to turn rounds into steps.
    Names and values that cannot be honoured are added to problems, where there is such a list; else a ConfigError
    says all of them."""
    known, found = set(known), [] if problems is None else problems
    result: dict[str, Any] = {}
    without_effect = []
    for name, value in given.items():
        try:
            result |= one_understood(name, value, given, known)
        except ConfigError as error:
            found.append(str(error))
        if name in WITHOUT_EFFECT and name not in known and asks(value):
            without_effect.append(name)
    if without_effect:
        note(f"without effect here: {', '.join(without_effect)} (there is no PyTorch, launcher, data loader, other "
             "engine or upload to steer)")
    if problems is None:
        raise_all(found)
    return result


def one_understood(name: str, value: Any, given: Mapping[str, Any], known: set[str]) -> dict[str, Any]:
    """What one of the given options is by our own names; nothing where it has no effect. Raises ConfigError."""
    target = ALIASES.get(name, name)
    plain = foreign_scalar(value)
    if target in known:
        if target == name:
            return {name: value}
        if value is None:
            return {}                        # another name without a value says nothing
        if target in given and given[target] != value:
            raise ConfigError(f"{name}={value!r} and {target}={given[target]!r} say the same thing differently; give "
                              "one")
        return {target: value}
    if name in ("use_cpu", "no_cuda") and "device" in known:
        return {"device": "cpu"} if value else {}
    if name in ROUNDS and ROUNDS[name] in known:
        return {name: value}
    if name == "optim" and plain in ADAMW_8BIT:
        return moments_of_optim(value, given)
    if name == "vllm_sampling_params" and "generation_kwargs" in known:
        return engine_sampling(value, given)
    if name in NOTED:
        expected, what_happens = NOTED[name]
        if not is_one_of(plain, expected):
            warn(f"{name}={value!r}: {what_happens}")
    elif name in REFUSED:
        allowed, advice = REFUSED[name]
        if not is_one_of(plain, allowed):
            raise ConfigError(f"{name}={value!r:.200} cannot be honoured: {advice}.")
    elif name not in WITHOUT_EFFECT and name not in KEPT:
        of_vllm = [*WITHOUT_EFFECT, *REFUSED] if name.startswith("vllm_") else []
        raise ConfigError(f"unknown option {name!r}{did_you_mean(name, {*known, *ALIASES, *ROUNDS, *of_vllm})}")
    return {}


def is_one_of(value: Any, values: tuple[Any, ...]) -> bool:
    """Whether a value is among them; an array is not."""
    return any(value is each or type(value) is type(each) and value == each or
               isinstance(value, (bool, int, float)) and isinstance(each, (bool, int, float)) and value == each
               for each in values)


def raise_all(problems: list[str]) -> None:
    """One ConfigError that says everything, if there is anything."""
    if len(problems) > 1:
        raise ConfigError("\n  - ".join([f"{len(problems)} options cannot be taken:", *problems]))
    if problems:
        raise ConfigError(problems[0])


def engine_sampling(value: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options that vLLM's SamplingParams, the object or a mapping, stand for. ConfigError for what of it cannot be
    honoured, and for what is given otherwise besides."""
    result = from_sampling_params(value, given.get("num_generations", 8))
    if "seed" in result and given.get("seed", result["seed"]) != result["seed"]:
        result = {"data_seed": given["seed"], **result}      # theirs for sampling, the config's for the rest
    for name, wanted in result.items():
        if name == "generation_kwargs":
            there = given.get(name) or {}
            if isinstance(there, Mapping):
                result[name] = {**wanted, **there}
                given, clash = there, [key for key in wanted if key in there and there[key] != wanted[key]]
            else:
                clash = [name]
        else:
            clash = [name] if name in given and given[name] != wanted and name != "seed" else []
        for key in clash:
            raise ConfigError(f"vllm_sampling_params and {key}={given[key]!r:.80} say different things; give one")
    return result


def asks(value: Any) -> bool:
    """Whether a value asks for anything: None, False and what is empty do not."""
    return value is not None and value is not False and value not in ("", [], {}, ())


def moments_of_optim(optim: Any, given: Mapping[str, Any]) -> dict[str, str]:
    """What an 8-bit AdamW is here, said on one line."""
    if given.get("moment_dtype", "float8") != "float8":
        raise ConfigError(f"optim={optim!r} and moment_dtype={given['moment_dtype']!r} ask for different moments; give "
                          "one")
    warn(f"optim={optim!r}: AdamW with moment_dtype='float8'")
    return {"moment_dtype": "float8"}


def refuse(options: Mapping[str, Any], trainer: str, known: Iterable[str]) -> None:
    """ConfigError for constructor arguments that trainer does not have; None and what is empty are as good
    as absent."""
    for name, value in options.items():
        if name not in NOT_SUPPORTED:
            raise ConfigError(f"{trainer} has no argument {name!r}{did_you_mean(name, known)}")
        if asks(value) and value != (None, None):
            raise ConfigError(f"{name} is not supported: {NOT_SUPPORTED[name]}")
