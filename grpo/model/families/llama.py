"""Llama 2 to 3.3, SmolLM2, and whatever else calls itself llama: full attention, no biases."""
from .block import FULL, attention, decoder, layer_types, mlp, refuse_biases
from .reading import Config, Family
from .spec import Layer, Spec


def spec(config: Config) -> Spec:
    """The network of a Llama config."""
    refuse_biases(config, "attention_bias", "mlp_bias")
    count = config.size("num_hidden_layers")
    if any(kind != FULL for kind in layer_types(config, [FULL] * count)) or config.flag("use_sliding_window"):
        config.refuse("sliding_attention of llama (layer_types, use_sliding_window)")
    return decoder(config, [Layer(attention(config), mlp(config))] * count)


FAMILY = Family("llama", "LlamaForCausalLM", spec, defaults={"max_position_embeddings": 2048})
