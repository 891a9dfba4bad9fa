"""Mistral 7B, Nemo and Small: Llama with a window in every layer (7B v0.1) or, sliding_window being null, in none.

A config without the key sliding_window means a window of 4096, as it does to transformers; with layer_types it is what
transformers calls Ministral, which has a window in some layers."""
from dataclasses import replace

from .block import FULL, SLIDING, attention, decoder, layer_types, mlp, refuse_biases, windows
from .reading import Config, Family
from .spec import Layer, Spec


def spec(config: Config) -> Spec:
    """The network of a Mistral config."""
    refuse_biases(config, "attention_bias", "mlp_bias")
    window = config.size("sliding_window") if config.get("sliding_window") is not None else 0
    kinds = layer_types(config, [SLIDING if window else FULL] * config.size("num_hidden_layers"))
    everywhere, gated = attention(config), mlp(config)
    return decoder(config, [Layer(replace(everywhere, window=each), gated) for each in windows(config, kinds, window)])


FAMILY = Family(
    "mistral", "MistralForCausalLM", spec,
    defaults={"num_key_value_heads": 8, "max_position_embeddings": 131072, "sliding_window": 4096, "layer_types": None},
    tiny={"sliding_window": 64})
