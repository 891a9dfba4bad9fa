"""Options that only other trainers have, as fields: a script can read them, and a parser of dataclasses (transformers'
HfArgumentParser) knows their flags. What is made of their values is said in foreign.py. Names, types and defaults are
those of TRL 1.16 and of transformers' TrainingArguments, or the last that they had there.
"""
import dataclasses
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from .foreign import NOTED, REFUSED

Class = TypeVar("Class", bound=type)


def other(default: Any) -> Any:
    """A field of another trainer."""
    return field(default=default, kw_only=True, repr=False)


def described(cls: Class) -> Class:
    """Gives each field without a help text the sentence that is said of it."""
    for f in dataclasses.fields(cls):
        if f.name in vars(cls)["__annotations__"]:
            table = NOTED if f.name in NOTED else REFUSED
            sentence = table[f.name][1] if f.name in table else "accepted, without effect here"
            f.metadata = types.MappingProxyType({"help": f"Of other trainers: {sentence}."})
    return cls


@described
@dataclass
class OtherTrainingOptions:
    """Those of transformers' TrainingArguments."""

    optim: str = other("adamw_torch_fused")
    optim_args: str | None = other(None)
    optim_target_modules: str | None = other(None)
    average_tokens_across_devices: bool = other(True)
    label_smoothing_factor: float = other(0.0)
    bf16: bool = other(True)
    fp16: bool = other(False)
    bf16_full_eval: bool = other(False)
    fp16_full_eval: bool = other(False)
    tf32: bool | None = other(None)
    half_precision_backend: str = other("auto")
    activation_checkpointing: bool | None = other(None)
    activation_checkpointing_kwargs: dict | str | None = other(None)
    gradient_checkpointing: bool | None = other(None)
    gradient_checkpointing_kwargs: dict | str | None = other(None)
    torch_compile: bool = other(False)
    torch_compile_backend: str | None = other(None)
    torch_compile_mode: str | None = other(None)
    use_liger_kernel: bool = other(False)
    liger_kernel_config: dict | str | None = other(None)
    use_cache: bool = other(False)
    neftune_noise_alpha: float | None = other(None)
    torch_empty_cache_steps: int | None = other(None)
    auto_find_batch_size: bool = other(False)
    logging_strategy: str = other("steps")
    logging_dir: str | None = other(None)
    log_on_each_node: bool = other(True)
    logging_nan_inf_filter: bool = other(True)
    include_num_input_tokens_seen: str = other("no")
    include_tokens_per_second: bool = other(False)
    log_level: str = other("passive")
    log_level_replica: str = other("warning")
    project: str = other("huggingface")
    trackio_space_id: str | None = other(None)
    trackio_bucket_id: str | None = other(None)
    trackio_static_space_id: str | None = other(None)
    eval_delay: float = other(0)
    per_device_eval_batch_size: int = other(8)
    prediction_loss_only: bool = other(False)
    eval_do_concat_batches: bool = other(True)
    eval_use_gather_object: bool = other(False)
    eval_accumulation_steps: int | None = other(None)
    include_for_metrics: list[str] | None = other(None)
    batch_eval_metrics: bool = other(False)
    overwrite_output_dir: bool = other(False)
    save_safetensors: bool = other(True)
    save_on_each_node: bool = other(False)
    enable_jit_checkpoint: bool = other(False)
    hub_token: str | None = other(None)
    hub_always_push: bool = other(False)
    ignore_data_skip: bool = other(False)
    restore_callback_states_from_checkpoint: bool = other(False)
    full_determinism: bool = other(False)
    use_cpu: bool = other(False)
    accelerator_config: dict | str | None = other(None)
    parallelism_config: dict | str | None = other(None)
    dataloader_drop_last: bool = other(False)
    dataloader_num_workers: int = other(0)
    dataloader_pin_memory: bool = other(True)
    dataloader_persistent_workers: bool = other(False)
    dataloader_prefetch_factor: int | None = other(None)
    dataloader_multiprocessing_context: str | None = other(None)
    dataloader_in_order: bool = other(True)
    remove_unused_columns: bool | None = other(False)
    label_names: list[str] | None = other(None)
    group_by_length: bool = other(False)
    train_sampling_strategy: str = other("random")
    length_column_name: str = other("length")
    ddp_find_unused_parameters: bool | None = other(None)
    ddp_bucket_cap_mb: int | None = other(None)
    ddp_broadcast_buffers: bool | None = other(None)
    ddp_static_graph: bool | None = other(None)
    ddp_backend: str | None = other(None)
    ddp_timeout: int = other(1800)
    fsdp: str | None = other(None)
    fsdp_config: dict | str | None = other(None)
    deepspeed: dict | str | None = other(None)
    debug: str = other("")
    skip_memory_metrics: bool = other(True)
    do_train: bool = other(False)
    do_eval: bool = other(False)
    do_predict: bool = other(False)
    local_rank: int = other(-1)
    trust_remote_code: bool = other(False)
    router_aux_loss_coef: float | None = other(None)


# those of them that say what own options say: they can be read, and None, their default, leaves the own ones alone
SAID_BY: dict[str, Callable[[Any], Any]] = {
    "gradient_checkpointing": lambda self: self.recompute, "activation_checkpointing": lambda self: self.recompute,
    "use_cpu": lambda self: self.device == "cpu"}
for said, by in SAID_BY.items():
    setattr(OtherTrainingOptions, said, property(by, lambda self, value: None))


@described
@dataclass
class OtherGRPOOptions:
    """Those of TRL's GRPOConfig."""

    disable_dropout: bool = other(False)
    cast_lm_head_to_fp32: bool = other(False)
    ds3_gather_for_generation: bool = other(True)
    pad_to_multiple_of: str | None = other("auto")
    cache_implementation: str | None = other(None)
    use_vllm: bool = other(False)
    vllm_mode: str = other("colocate")
    vllm_model_impl: str = other("vllm")
    vllm_enable_sleep_mode: bool = other(False)
    vllm_structured_outputs_regex: str | None = other(None)
    vllm_guided_decoding_regex: str | None = other(None)
    vllm_sampling_params: dict | str | None = other(None)
    vllm_server_base_url: str | None = other(None)
    vllm_server_host: str = other("0.0.0.0")
    vllm_server_port: int = other(8000)
    vllm_server_timeout: float = other(240.0)
    vllm_group_port: int = other(51216)
    vllm_gpu_memory_utilization: float = other(0.3)
    vllm_max_model_length: int | None = other(None)
    vllm_tensor_parallel_size: int = other(1)
    vllm_importance_sampling_correction: bool = other(True)
    vllm_importance_sampling_mode: str = other("sequence_mask")
    vllm_importance_sampling_clip_max: float | None = other(3.0)
    vllm_importance_sampling_clip_min: float | None = other(None)
    vllm_importance_sampling_cap: float | None = other(None)
    max_tool_calling_iterations: int | None = other(None)
    log_multimodal: bool = other(True)
    log_completions_hub_repo: str | None = other(None)
    use_transformers_continuous_batching: bool = other(False)
    transformers_continuous_batching_config: dict | str | None = other(None)
    use_transformers_paged: bool = other(False)


@described
@dataclass
class OtherSFTOptions:
    """Those of TRL's SFTConfig."""

    chat_template_path: str | None = other(None)
    dataset_text_field: str = other("text")
    dataset_kwargs: dict | str | None = other(None)
    dataset_num_proc: int | None = other(None)
    eos_token: str | None = other(None)
    pad_token: str | None = other(None)
    truncation_mode: str = other("keep_start")
    packing: bool = other(False)
    packing_strategy: str = other("bfd")
    padding_free: bool = other(False)
    pad_to_multiple_of: str | None = other("auto")
    eval_packing: bool | None = other(None)
    assistant_only_loss: bool = other(False)
    loss_type: str = other("nll")
    activation_offloading: bool = other(False)


OTHERS = frozenset(f.name for cls in (OtherTrainingOptions, OtherGRPOOptions, OtherSFTOptions)
                   for f in dataclasses.fields(cls))
