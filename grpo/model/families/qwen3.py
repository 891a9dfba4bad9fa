"""Qwen3, and DeepSeek-R1-0528-Qwen3: Qwen2 with norms of q and k in place of their biases."""
from .block import attention, refuse_biases
from .qwen2 import DEFAULTS, windowed
from .reading import Config, Family
from .spec import Spec


def spec(config: Config) -> Spec:
    """The network of a Qwen3 config."""
    refuse_biases(config, "attention_bias", "mlp_bias")
    return windowed(config, attention(config, qk_norm=True))


FAMILY = Family("qwen3", "Qwen3ForCausalLM", spec, {**DEFAULTS, "head_dim": 128})
