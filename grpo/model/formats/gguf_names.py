"""What GGUF calls things and how it keeps them, beside Hugging Face: architectures, metadata keys, tensor names and
values. One table of each, read in both directions."""
from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...errors import FileFormatError

# general.architecture: (model_type, class in transformers)
ARCHITECTURES = {"llama": ("llama", "LlamaForCausalLM"), "qwen2": ("qwen2", "Qwen2ForCausalLM"),
                 "qwen3": ("qwen3", "Qwen3ForCausalLM"), "gemma3": ("gemma3_text", "Gemma3ForCausalLM")}
# Key of a config.json: the metadata key of the same number, after the architecture and a full stop
KEYS = {"max_position_embeddings": "context_length", "hidden_size": "embedding_length",
        "num_hidden_layers": "block_count", "intermediate_size": "feed_forward_length",
        "num_attention_heads": "attention.head_count", "num_key_value_heads": "attention.head_count_kv",
        "rms_norm_eps": "attention.layer_norm_rms_epsilon", "head_dim": "attention.key_length",
        "rope_theta": "rope.freq_base", "sliding_window": "attention.sliding_window"}
VALUE_LENGTH, ROTATED = "attention.value_length", "rope.dimension_count"     # both are head_dim here
LOCAL_THETA, PATTERN = "rope.freq_base_swa", "attention.sliding_window_pattern"
NAMES = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight",
         "output.weight": "lm_head.weight"}
LAYER_NAMES = {"attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
               "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm",
               "attn_k_norm": "self_attn.k_norm", "ffn_norm": "post_attention_layernorm",
               "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
# Gemma 3 has a norm before and after each half of a layer.
GEMMA3_LAYER_NAMES = {**LAYER_NAMES, "post_attention_norm": "post_attention_layernorm",
                      "ffn_norm": "pre_feedforward_layernorm", "post_ffw_norm": "post_feedforward_layernorm"}
ROPE_DIVISORS = "rope_freqs.weight"


def layer_names(architecture: Any) -> Mapping[str, str]:
    """Of a layer's modules: {name in a GGUF: Hugging Face name}."""
    return GEMMA3_LAYER_NAMES if architecture == "gemma3" else LAYER_NAMES


def hugging_face_name(stored: str, architecture: Any) -> str:
    """Of a GGUF's tensor. What no table has keeps its name."""
    layer, names = re.fullmatch(r"blk\.(\d{1,6})\.(\w+)\.(weight|bias)", stored), layer_names(architecture)
    if layer and layer[2] in names:
        return f"model.layers.{int(layer[1])}.{names[layer[2]]}.{layer[3]}"
    return NAMES.get(stored, stored)


def gguf_name(name: str, architecture: str) -> str | None:
    """Of a Hugging Face tensor, hugging_face_name's inverse; None where GGUF has no name for it."""
    layer = re.fullmatch(r"model\.layers\.(\d+)\.([\w.]+)\.(weight|bias)", name)
    table = {theirs: ours for ours, theirs in (layer_names(architecture) if layer else NAMES).items()}
    found = table.get(layer[2] if layer else name)
    return f"blk.{layer[1]}.{found}.{layer[3]}" if layer and found else found


def in_metadata_words(text: str, architecture: str) -> str:
    """A sentence about a config, with the keys of the metadata for those of the config.

    >>> in_metadata_words("head_dim 3 is odd", "llama")
    'llama.attention.key_length 3 is odd'
    """
    return re.sub(r"(?<![\w.])(" + "|".join(KEYS) + r")(?!\w)", lambda found: f"{architecture}.{KEYS[found[1]]}", text)


def from_gguf(array: np.ndarray, name: str, config: Mapping[str, Any], architecture: Any, source: str) -> np.ndarray:
    """A tensor's values as Hugging Face has them: q and k rows in its order, Gemma's norm weights as what is added to
    1. name: Hugging Face's."""
    if architecture == "gemma3" and name.endswith("norm.weight"):
        return array - np.float32(1)
    heads = _paired_heads(array, name, config, architecture, source)
    if not heads:
        return array
    # "llama" files rotate adjacent rows (2j, 2j + 1) of a head; Hugging Face rotates (j, j + D/2).
    pairs = array.reshape(heads, -1, 2, *array.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(array.shape)


def to_gguf(array: np.ndarray, name: str, config: Mapping[str, Any], architecture: Any, source: str) -> np.ndarray:
    """A tensor's values as a GGUF has them, from_gguf's inverse. name: Hugging Face's."""
    if architecture == "gemma3" and name.endswith("norm.weight"):
        return array + np.float32(1)
    heads = _paired_heads(array, name, config, architecture, source)
    if not heads:
        return array
    halves = array.reshape(heads, 2, -1, *array.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(array.shape)


def _paired_heads(array: np.ndarray, name: str, config: Mapping[str, Any], architecture: Any, source: str) -> int:
    """Heads of a tensor whose rows the two files have in different orders; 0: they have them in the same."""
    permuted = re.fullmatch(r".*\.self_attn\.([qk])_proj\.(weight|bias)", name)
    if not permuted or architecture != "llama":
        return 0
    heads: int = config["num_attention_heads" if permuted[1] == "q" else "num_key_value_heads"]
    if array.shape[0] % (2 * heads):
        raise FileFormatError(f"{source}: tensor {gguf_name(name, architecture)}: {array.shape[0]} rows are not "
                              f"{heads} heads of pairs")
    return heads
