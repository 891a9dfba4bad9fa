"""Shapes of models that plans and benchmarks know by name: what their config.json says of sizes."""
from collections.abc import Mapping
from typing import Any

SMOLLM2 = {"model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
           "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": True,
           "rms_norm_eps": 1e-5, "max_position_embeddings": 8192, "rope_theta": 100000.0, "hidden_act": "silu"}
QWEN2 = {"model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
         "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True,
         "rms_norm_eps": 1e-6, "max_position_embeddings": 32768, "rope_theta": 1000000.0, "hidden_act": "silu"}
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
}


def known_shape(model: str) -> Mapping[str, Any] | None:
    """The sizes of a model named as on the hub, whoever published it and instruction-tuned or not; None where they are
    not known.

    >>> known_shape("Qwen/Qwen2.5-0.5B-Instruct")["hidden_size"]
    896
    """
    return SHAPES.get(model.rpartition("/")[2].removesuffix("-Instruct"))
