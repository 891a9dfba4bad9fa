"""Qwen2 and Qwen2.5: Llama with biases on q, k and v, and a window in the upper layers where a config asks for one."""
from dataclasses import replace

from .block import FULL, SLIDING, attention, decoder, layer_types, mlp, refuse_biases, windows
from .reading import Config, Family
from .spec import Attention, Layer, Spec

DEFAULTS = {"num_key_value_heads": 32, "max_position_embeddings": 32768, "use_sliding_window": False,
            "sliding_window": 4096, "max_window_layers": 28, "layer_types": None}


def spec(config: Config) -> Spec:
    """The network of a Qwen2 config."""
    refuse_biases(config, "mlp_bias")
    return windowed(config, attention(config, qkv_bias=True))


def windowed(config: Config, everywhere: Attention) -> Spec:
    """Layers with this attention; those from max_window_layers on see sliding_window keys only, where
    use_sliding_window is true."""
    count = config.size("num_hidden_layers")
    used = config.flag("use_sliding_window") and config.get("sliding_window") is not None
    first = config.integer("max_window_layers", 0, 1 << 30) if used else count
    kinds = layer_types(config, [SLIDING if i >= first else FULL for i in range(count)])
    each, gated = windows(config, kinds, config.size("sliding_window") if used else 0), mlp(config)
    return decoder(config, [Layer(replace(everywhere, window=window), gated) for window in each])


FAMILY = Family("qwen2", "Qwen2ForCausalLM", spec, DEFAULTS)
