"""Shapes of models that plans and benchmarks know by name: what their config.json says of sizes."""
from collections.abc import Mapping
from typing import Any

SMOLLM2 = {"model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
           "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": True,
           "rms_norm_eps": 1e-5, "max_position_embeddings": 8192, "rope_theta": 100000.0, "hidden_act": "silu"}
QWEN2 = {"model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
         "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True,
         "rms_norm_eps": 1e-6, "max_position_embeddings": 32768, "rope_theta": 1000000.0, "hidden_act": "silu"}
QWEN2_5_VL = {**QWEN2, "model_type": "qwen2_5_vl", "max_position_embeddings": 128000,
              "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}}
QWEN2_5_TOWER = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "hidden_act": "silu",
                 "in_channels": 3, "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2,
                 "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31]}
QWEN3_VL = {"model_type": "qwen3_vl", "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28,
            "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
            "tie_word_embeddings": True, "rms_norm_eps": 1e-6, "max_position_embeddings": 262144,
            "rope_theta": 5000000.0, "hidden_act": "silu",
            "rope_scaling": {"type": "mrope", "mrope_section": [24, 20, 20], "mrope_interleaved": True}}
QWEN3_TOWER = {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16,
               "hidden_act": "gelu_pytorch_tanh", "in_channels": 3, "patch_size": 16, "spatial_merge_size": 2,
               "temporal_patch_size": 2, "num_position_embeddings": 2304, "deepstack_visual_indexes": [5, 11, 17]}
SHAPES: dict[str, dict[str, Any]] = {
    "SmolLM2-135M": SMOLLM2,
    "Qwen2.5-0.5B": QWEN2,
    "Qwen2.5-1.5B": {**QWEN2, "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
                     "num_attention_heads": 12},
    "Qwen2.5-3B": {**QWEN2, "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36,
                   "num_attention_heads": 16},
    "Qwen2.5-7B": {**QWEN2, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
                   "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064,
                   "tie_word_embeddings": False},
    "Qwen2.5-VL-3B": {**QWEN2_5_VL, "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36,
                      "num_attention_heads": 16, "vision_config": {**QWEN2_5_TOWER, "out_hidden_size": 2048}},
    "Qwen2.5-VL-7B": {**QWEN2_5_VL, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
                      "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064,
                      "tie_word_embeddings": False, "vision_config": {**QWEN2_5_TOWER, "out_hidden_size": 3584}},
    "Qwen3-VL-2B": {**QWEN3_VL, "vision_config": {**QWEN3_TOWER, "out_hidden_size": 2048}},
    "Qwen3-VL-4B": {**QWEN3_VL, "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36,
                    "num_attention_heads": 32, "vision_config": {**QWEN3_TOWER, "out_hidden_size": 2560}},
}


def known_shape(model: str) -> Mapping[str, Any] | None:
    """The sizes of a model named as on the hub, whoever published it and instruction-tuned or not; None where they are
    not known.

    >>> known_shape("Qwen/Qwen2.5-0.5B-Instruct")["hidden_size"]
    896
    """
    return SHAPES.get(model.rpartition("/")[2].removesuffix("-Instruct"))
