"""Keys of a GGUF's metadata that would change what a model computes, and that nothing here reads: refused by name,
unless their value changes nothing."""
from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ...errors import FileFormatError, UnsupportedModelError

ROPE = "rope.scaling."
# What gguf_config reads, or refuses itself; names come after the architecture's.
READ = {"block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count",
        "attention.head_count_kv", "attention.key_length", "attention.value_length",
        "attention.layer_norm_rms_epsilon", "attention.sliding_window", "attention.sliding_window_pattern",
        "rope.dimension_count", "rope.freq_base", "rope.scale_linear", "expert_count",
        *(ROPE + name for name in ("type", "factor", "alpha", "attn_factor", "original_context_length"))}
READ_TOO = {"gemma3": {"rope.freq_base_swa", "attn_logit_softcapping", "final_logit_softcapping"}}
YARN = {ROPE + name for name in ("yarn_beta_fast", "yarn_beta_slow", "yarn_ext_factor", "yarn_attn_factor",
                                 "yarn_log_multiplier")}
# Of no network that is read here: how it was trained, how its hidden states are pooled, norms that it has not.
HARMLESS = {"vocab_size", "pooling_type", ROPE + "finetuned", "attention.layer_norm_epsilon",
            "classifier.output_labels", ROPE + "yarn_beta_fast", ROPE + "yarn_beta_slow", ROPE + "yarn_log_multiplier"}
# Values that change nothing.
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    **dict.fromkeys(("logit_scale", "embedding_scale", "residual_scale", "attention.output_scale",
                     "attention.value_scale"), (0, 1)),
    **dict.fromkeys((
        "attn_logit_softcapping", "final_logit_softcapping", "router_logit_softcapping", "attention.max_alibi_bias",
        "attention.clamp_kqv", "attention.temperature_length", "attention.temperature_scale", "use_parallel_residual",
        "expert_used_count", "expert_shared_count", "expert_group_count", "expert_group_used_count",
        "expert_feed_forward_length", "expert_shared_feed_forward_length", "expert_chunk_feed_forward_length",
        "leading_dense_block_count", "interleave_moe_layer_step", "moe_every_n_layers", "nextn_predict_layers",
        "n_deepstack_layers", "attention.q_lora_rank", "attention.kv_lora_rank", "attention.shared_kv_layers",
        "attention.recurrent_layers", "attention.group_norm_groups", "hyper_connection.count", "swin_norm",
        "rescale_every_n_layers", "token_shift_count", "rope.dimension_sections",
        "embedding_length_per_layer_input"), (0,)),
    "attention.causal": (1,), "full_attention_interval": (0, 1),
    "tensor_data_layout": ("Meta AI original pth",),     # rows of q and k in the order that files of llama always have
    ROPE + "yarn_ext_factor": (0, 1), ROPE + "yarn_attn_factor": (1,),
}
GATES = {"gemma3": ("gelu_pytorch_tanh", "gelu_tanh")}
KINDS = {"adapter": "a LoRA adapter: load the model that it is for, or merge the two (llama.cpp's llama-export-lora)",
         "mmproj": "the tower of a model that sees, without its text: give the .gguf of the text",
         "imatrix": "an importance matrix, which llama.cpp quantises with, not a model"}


def refuse_other_kinds(metadata: Mapping[str, Any], source: str) -> None:
    """FileFormatError for a GGUF that is no model."""
    kind = metadata.get("general.type", "adapter" if "adapter.type" in metadata else "model")
    if metadata.get("general.architecture") == "clip":
        kind = "mmproj"
    if isinstance(kind, str) and kind in KINDS:
        raise FileFormatError(f"{source}: is {KINDS[kind]}")


def refuse_unknown(metadata: Mapping[str, Any], config: Mapping[str, Any], head_dim: int, source: str) -> None:
    """UnsupportedModelError for the first key that is not understood, with its value. config: what the rest says."""
    architecture = str(metadata["general.architecture"])
    read = READ | READ_TOO.get(architecture, set())
    if metadata.get(f"{architecture}.{ROPE}type") == "yarn":
        read |= YARN
    neutral = {**NEUTRAL, "embedding_length_out": (config["hidden_size"],),
               **dict.fromkeys(("attention.key_length_swa", "attention.value_length_swa", "rope.dimension_count_swa"),
                               (head_dim,)),
               "attention.scale": (0, head_dim ** -0.5), "hidden_activation": GATES.get(architecture, ("silu",)),
               "rope.freq_base_swa": (metadata.get(f"{architecture}.rope.freq_base"),)}
    for key, value in metadata.items():
        name = key.removeprefix(f"{architecture}.")
        if name != key and name not in read and name not in HARMLESS and not _is_one_of(value, neutral.get(name, ())):
            raise UnsupportedModelError(f"{source}: metadata {key} = {value!r:.60} is not supported: it would change "
                                        "what the model computes, or is not known")
        if name == key and key.startswith("xielu."):
            raise UnsupportedModelError(f"{source}: metadata {key} (the gate xIELU) is not supported")


def _is_one_of(value: Any, values: tuple[Any, ...]) -> bool:
    """A value, or all of a list's, is one of these, as far as float32 tells."""
    if isinstance(value, list):
        return all(_is_one_of(each, values) for each in value)
    return any(value == each or (isinstance(value, float) and isinstance(each, (int, float))
                                 and math.isclose(value, each, rel_tol=1e-6)) for each in values)
