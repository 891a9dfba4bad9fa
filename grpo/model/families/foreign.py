"""What a config of a model_type that has no file here says in the words of one that has.

Many models are Llama under another name. A config is read as Llama's where every key in it is understood: those of
Llama as they are, others where their value changes nothing (a multiplier of 1, a bias that is false). Keys that are not
understood are named and refused; so are names of networks that differ from Llama in what no key says. Tensors are the
second witness: the file must have exactly those of the network.
"""
from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ...errors import UnsupportedModelError, warn
from .block import FULL, SLIDING, refuse_foreign
from .reading import Config

# Keys that Llama has too and that stay.
LLAMA = {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
         "num_key_value_heads", "head_dim", "hidden_act", "max_position_embeddings", "rms_norm_eps",
         "tie_word_embeddings", "rope_theta", "rope_scaling", "rope_parameters", "original_max_position_embeddings",
         "attention_dropout", "initializer_range", "bos_token_id", "eos_token_id", "pad_token_id", "torch_dtype",
         "dtype", "use_cache", "transformers_version", "pretraining_tp"}
# Read here, and put into other words.
READ = {"model_type", "architectures", "sliding_window", "use_sliding_window", "max_window_layers", "layer_types",
        "attention_bias", "qkv_bias", "use_qkv_bias", "add_qkv_bias", "attention_out_bias"}
# Keys that change no number of a text: what transformers gives every config, how a model was made, other heads.
HARMLESS = set(
    "_name_or_path auto_map attn_implementation _attn_implementation _attn_implementation_autoset use_flash_attn "
    "use_flash_attention use_flash_attention_2 flash_attn _flash_attn_2_enabled unsloth_version unsloth_fixed "
    "return_dict output_hidden_states output_attentions torchscript use_bfloat16 tf_legacy_loss is_decoder max_length "
    "min_length do_sample early_stopping num_beams num_beam_groups diversity_penalty temperature top_k top_p typical_p "
    "repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids "
    "num_return_sequences output_scores return_dict_in_generate forced_bos_token_id forced_eos_token_id "
    "remove_invalid_values exponential_decay_length_penalty suppress_tokens begin_suppress_tokens finetuning_task "
    "id2label label2id tokenizer_class prefix sep_token_id unk_token_id decoder_start_token_id task_specific_params "
    "problem_type cross_attention_hidden_size chunk_size_feed_forward keys_to_ignore_at_inference max_sequence_length "
    "model_max_length max_tokenizer_truncation initializer_method init_method gradient_checkpointing "
    "bf16 fp16 fp32 z_loss_weight router_aux_loss_coef output_router_logits num_nextn_predict_layers "
    "language training_args".split())
NOTHING = (None, False, 0)
# Values that change nothing.
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    **dict.fromkeys(
        ("bias use_bias mlp_bias o_bias lm_head_bias add_bias_linear ffn_bias is_encoder_decoder add_cross_attention "
         "tie_encoder_decoder qk_norm use_qk_norm qk_layernorm use_qk_layernorm parallel_attn "
         "use_parallel_residual parallel_residual alibi use_alibi clip_qkv attn_logit_softcapping "
         "final_logit_softcapping logits_soft_cap use_mrope rope_interleaved interleaved use_bidirectional_attention "
         "layer_sharing num_experts num_local_experts n_routed_experts n_shared_experts num_experts_per_tok "
         "moe_intermediate_size shared_intermediate_size first_k_dense_replace resid_pdrop embd_pdrop hidden_dropout "
         "residual_dropout dropout embedding_dropout hidden_dropout_prob attention_probs_dropout_prob "
         "apply_residual_connection_post_layernorm post_norm use_post_norm residual_post_norm use_cca attention_sinks "
         "num_key_value_heads_per_layer block_configs quantization_config").split(), NOTHING),
    **dict.fromkeys(
        ("embedding_multiplier residual_multiplier logits_scaling logit_scale lm_head_multiplier scale_emb mup_scale "
         "rotary_pct partial_rotary_factor rope_pct rope_scaling_factor rotary_emb_fraction").split(), (None, 1)),
    "is_causal": (True,), "norm_type": (None, "rms_norm", "rmsnorm", "RMSNorm"), "rotary_scaling": (None, 1),
    "normalization": (None, "rms_norm", "rmsnorm", "RMSNorm"), "scale_attn_weights": (None, True),
    "position_embedding_type": (None, "rope", "rotary"), "use_rmsnorm": (None, True), "rotary": (None, True),
    "mlp_type": (None, "swiglu", "gated"), "pruned_heads": (None, {}), "no_rope_layer_interval": (None, 0),
    "ffn_hidden_act": (None, "silu", "swiglu"),
}
# What transformers gives the keys that a config of these leaves out, where it is not what Llama does.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "granite": {"attention_multiplier": 1.0}, "granite_swa": {"attention_multiplier": 1.0},
    "ministral": {"sliding_window": 4096}, "cwm": {"sliding_window": 8192}, "seed_oss": {"attention_bias": True,
                                                                                         "attention_out_bias": False}}
_PAIRS = "its rope turns pairs of neighbours, and no key says so"
_FUSED = "its files have other tensors than Llama's"
# What no key of the config says.
DIFFERENT = {
    "gemma": "its norms add 1 to their weights and its embedding is scaled, and no key says so",
    "gemma2": "soft-capped logits, norms that add 1 to their weights",
    "gemma3": "multimodal; the text alone is gemma3_text", "gemma3n": "per-layer embeddings",
    "cohere": "parallel blocks of LayerNorms", "cohere2": "parallel blocks of LayerNorms",
    "helium": _PAIRS, "ernie4_5": _PAIRS, "glm": _PAIRS, "glm4": _PAIRS, "chatglm": _PAIRS, "jetmoe": _FUSED,
    "olmo": "norms without weights", "olmo2": "norms after each half of a block, and of all heads together",
    "olmo3": "norms after each half of a block, and of all heads together", "exaone": _FUSED,
    "exaone4": "norms after each half of a block", "internlm2": _FUSED, "baichuan": _FUSED, "phi": _FUSED,
    "phi3": _FUSED, "orion": "LayerNorms, though its key is rms_norm_eps", "nemotron": "LayerNorms that add 1",
    "hunyuan_v1_dense": "norms of q and k after the rope", "diffllama": "differential attention",
    "Dream": "a diffusion model: it sees tokens on both sides", "llada": "a diffusion model: it sees both sides",
    "bitnet": "weights of three values", "smollm3": "layers without rope (no_rope_layers)",
    "ministral3": "queries that are scaled by their place", "apertus": "its gate is xIELU",
}


def in_known_words(config: Mapping[str, Any], source: str, known: str) -> dict[str, Any]:
    """The config, whose model_type no file here has, as one of llama, mistral or qwen2. known: those that there are.

    A GrpoWarning says what it is taken for, unless its architectures name that class. UnsupportedModelError for
    anything else, with the key or the name."""
    kind = config.get("model_type")
    config = {**DEFAULTS.get(kind, {}), **config} if isinstance(kind, str) else config
    found = Config(config, source)
    refuse_foreign(found)
    _check_name(found, kind, known)
    if left := [key for key, value in config.items() if not _is_understood(found, key, value)]:
        shown = ", ".join(f"{key} {config[key]!r:.40}" for key in left[:3]) + (", ..." if len(left) > 3 else "")
        raise UnsupportedModelError(f"{source}: model_type {kind!r:.80} is not supported ({known} are), and cannot be "
                                    f"read as Llama: {shown} would change the numbers, or is not known")
    for key in ("hidden_act", "rms_norm_eps"):
        if config.get(key) is None:
            raise UnsupportedModelError(f"{source}: model_type {kind!r:.80} is not supported ({known} are), and cannot "
                                        f"be read as Llama: it has no {key}")
    words = {key: value for key, value in config.items() if key in LLAMA}
    words |= _window(found) or _biases(found) or {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    if config.get("architectures") != words["architectures"]:
        theta = "" if "rope_theta" in config or "rope_parameters" in config else " with a rope_theta of 10000"
        warn(f"{source}: model_type {kind!r:.80} is read as {words['model_type']}{theta}, since all keys of its config "
             "are understood; a saved copy has that name")
    return words


def _check_name(config: Config, kind: Any, known: str) -> None:
    text = f"{config.source}: model_type {kind!r:.80}"
    if isinstance(kind, str) and kind in DIFFERENT:
        raise UnsupportedModelError(f"{text} is not supported: {DIFFERENT[kind]}; supported: {known}")
    sees = "text_config" in config or "_vl" in str(kind)
    why = " (multimodal)" if sees else " (mixture of experts)" if "moe" in str(kind).lower() else ""
    if why or not isinstance(kind, str):
        raise UnsupportedModelError(f"{text}{why} is not supported; supported: {known}")
    classes = config.get("architectures") or []
    if not isinstance(classes, list) or not all(str(each).endswith(("ForCausalLM", "LMHeadModel")) for each in classes):
        raise UnsupportedModelError(f"{text} is not supported, and architectures {classes!r:.80} are no language "
                                    f"models; supported: {known}")


def _is_understood(config: Config, key: str, value: Any) -> bool:
    if key in LLAMA or key in READ or key in HARMLESS:
        return True
    if key == "no_rope_layers":                          # 1: the layer has a rope
        return value is None or isinstance(value, list) and all(each == 1 for each in value)
    if key in ("attention_multiplier", "query_pre_attn_scalar", "rotary_dim", "kv_channels", "dim_model_base"):
        width = config.get("head_dim") or config.size("hidden_size") // config.size("num_attention_heads")
        same = {"attention_multiplier": width ** -0.5, "dim_model_base": config.size("hidden_size")}.get(key, width)
        return value is None or type(value) in (int, float) and math.isclose(value, same, rel_tol=1e-6)
    return value in NEUTRAL.get(key, ())


def _window(config: Config) -> dict[str, Any]:
    """Of a model whose layers have a window: Mistral's words where they all do."""
    window, kinds = config.get("sliding_window"), config.get("layer_types")
    if not window or config.get("use_sliding_window") is False:
        window = None
    if isinstance(kinds, list) and set(kinds) <= {FULL, "attention"} or window is None and kinds is None:
        return {}
    if window is None or not isinstance(kinds, list) or set(kinds) != {SLIDING}:
        also = "" if kinds is None else f" with layer_types {sorted(set(map(str, kinds)))!r:.100}"
        config.refuse(f"sliding_window {window!r:.40}{also} of model_type {config.get('model_type')!r:.80} (all layers "
                      "must have it, or none, by layer_types)")
    _refuse_biases(config)
    return {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": window}


def _biases(config: Config) -> dict[str, Any]:
    """Of a model with biases on q, k and v and not on the projection back: Qwen2's words."""
    asked = any(config.flag(key) for key in ("qkv_bias", "use_qkv_bias", "add_qkv_bias"))
    if config.flag("attention_bias"):
        asked = config.get("attention_out_bias") is False
        if not asked:
            _refuse_biases(config)
    elif config.flag("attention_out_bias"):
        _refuse_biases(config)
    return {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "use_sliding_window": False} if asked else {}


def _refuse_biases(config: Config) -> None:
    for key in ("attention_bias", "qkv_bias", "use_qkv_bias", "add_qkv_bias", "attention_out_bias"):
        if config.flag(key):
            config.refuse(f"{key} of model_type {config.get('model_type')!r:.80}")
