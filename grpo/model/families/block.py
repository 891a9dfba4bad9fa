"""What most families share: a block's sizes from the keys that Llama gave them, and which layers see a window only."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...errors import FileFormatError
from .reading import Config
from .rope import max_positions, rope_of, rope_parameters
from .spec import Attention, Layer, Mlp, Spec

# transformers' names of the gates that there are.
ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu_tanh"}
FULL, SLIDING = "full_attention", "sliding_attention"
# Keys that mean another network than any family here has, where they are set.
FOREIGN = {"quantization_config": "a quantised checkpoint (quantization_config)",
           "vision_config": "a multimodal model (vision_config)",
           "num_experts": "a mixture of experts (num_experts)",
           "num_local_experts": "a mixture of experts (num_local_experts)",
           "rope_interleaved": "rope_interleaved"}


def refuse_foreign(config: Config, *known: str) -> None:
    """UnsupportedModelError for everything that would change the numbers and that no family computes. known: keys that
    this one does."""
    for key, what in FOREIGN.items():
        if key not in known and config.get(key):
            config.refuse(what)
    if not config.get("is_causal", True):                # transformers then lets every token see those after it
        config.refuse(f"is_causal {config.get('is_causal')!r:.40} "
                      "(a model that sees tokens on both sides, as those of embeddings do)")
    if dropout := config.get("attention_dropout"):
        why = "set it to 0: policy log-probs must be those that were sampled"
        config.refuse(f"attention_dropout {dropout!r:.40} ({why})")


def refuse_biases(config: Config, *keys: str) -> None:
    """UnsupportedModelError where one of these keys is true."""
    for key in keys:
        if config.flag(key):
            also = " (it puts a bias on o_proj)" if key == "attention_bias" else ""
            config.refuse(f"{key} of {config.get('model_type')}{also}")


def score_scale(width: float) -> float:
    """1 / sqrt(width), divided in float32: what the core multiplies scores by, and what its reference backend knows
    sqrt(width) by."""
    return float(np.float32(1) / np.sqrt(np.float32(width)))


def attention(config: Config, **differs: Any) -> Attention:
    """A layer's attention without a window. differs: fields in which a family is unlike Llama."""
    heads = config.size("num_attention_heads")
    width = config.size("hidden_size")
    derived = config.get("head_dim") is None
    if derived and width % heads:
        raise FileFormatError(f"{config.source}: hidden_size {width} is not a multiple of num_attention_heads {heads}")
    head_dim = config.size("head_dim", null=width // heads)
    kv_heads = config.size("num_key_value_heads", absent=heads, null=heads)
    return replace(Attention(heads, kv_heads, head_dim, scale=score_scale(head_dim)), **differs)


def mlp(config: Config, key: str = "hidden_act") -> Mlp:
    """A layer's gated linear unit. key: of the gate."""
    name = config.get(key, "silu")
    if not isinstance(name, str) or name not in ACTIVATIONS:
        config.refuse(f"{key} {name!r:.80} (only {' and '.join(ACTIVATIONS)})")
    return Mlp(config.size("intermediate_size"), ACTIVATIONS[name])


def decoder(config: Config, layers: Sequence[Layer], ropes: Sequence[Config] | None = None, **differs: Any) -> Spec:
    """A network of these layers. ropes: parameters of each, by default of the one that all layers have.
    differs: fields in which a family is unlike Llama."""
    ropes = ropes or [rope_parameters(config)]
    spec = Spec(config.size("hidden_size"), config.size("vocab_size"), tuple(layers),
                ropes=tuple(rope_of(each, layers[0].attention.head_dim) for each in ropes),
                eps=config.number("rms_norm_eps", 1e-6, low=0.0, high=1.0), tie=config.flag("tie_word_embeddings"),
                max_positions=max_positions(*ropes))
    return replace(spec, **differs)


def layer_types(config: Config, otherwise: Sequence[str]) -> list[str]:
    """FULL or SLIDING of each layer: the config's layer_types, or what they are where it has none."""
    count, found = config.size("num_hidden_layers"), config.get("layer_types")
    if found is None:
        return list(otherwise)
    if not isinstance(found, list):
        raise FileFormatError(f"{config.source}: layer_types must be a list, not {found!r:.80}")
    found = [FULL if kind == "attention" else kind for kind in found]                # what older files call it
    for i, kind in enumerate(found):
        if kind not in (FULL, SLIDING):
            config.refuse(f"layer type {kind!r:.80} of layer {i} in layer_types (only {FULL} and {SLIDING})")
    if len(found) != count:
        raise FileFormatError(f"{config.source}: layer_types has {len(found)} entries, num_hidden_layers is {count}")
    return found


def windows(config: Config, kinds: Sequence[str], window: int) -> list[int]:
    """The window of each layer, 0 where it sees everything. window: of the sliding ones; 0: the config has none."""
    if SLIDING in kinds and not window:
        config.refuse(f"{SLIDING} of layer {kinds.index(SLIDING)} in layer_types without a sliding_window in use")
    return [window if kind == SLIDING else 0 for kind in kinds]
