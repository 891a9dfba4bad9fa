"""What a GGUF says of a network, from the config of a model: gguf_config's inverse.

What is written is read again before it is trusted: where the file would make another network of it, there is no word in
GGUF for what differs, and the model is refused by its name."""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ...errors import UnsupportedModelError, warn
from ..families import Config, Rope, Spec, family_of, llama3_scale, rope_parameters, spec_of, text_of
from ..families.block import FULL, SLIDING
from ..families.gemma3 import rope_of_kind
from ..families.rope import attention_factor
from .gguf_config import GEMMA3_PERIOD, gguf_config
from .gguf_names import KEYS, LOCAL_THETA, PATTERN, ROPE_DIVISORS, ROTATED, VALUE_LENGTH

SAME = 1e-6                                              # numbers of a file are float32


def gguf_metadata(config: Mapping[str, Any], source: str = "model") -> tuple[dict[str, Any], np.ndarray | None]:
    """(the general.architecture key and the architecture's own, rope_freqs.weight or None) of a Hugging Face config.

    UnsupportedModelError for what GGUF has no word for."""
    spec = spec_of(config, source)
    architecture = architecture_of(spec, source)
    text = Config(text_of(config), source, family_of(config, source).defaults)
    attention, ropes = spec.layers[0].attention, _ropes(text, architecture)
    sizes = {"max_position_embeddings": text.integer("max_position_embeddings", 1, 1 << 30),
             "hidden_size": spec.hidden_size, "num_hidden_layers": len(spec.layers),
             "intermediate_size": spec.layers[0].mlp.width, "num_attention_heads": attention.heads,
             "num_key_value_heads": attention.kv_heads, "rms_norm_eps": float(spec.eps),
             "head_dim": attention.head_dim, "rope_theta": float(ropes[0].get("rope_theta"))}
    own = {KEYS[key]: value for key, value in sizes.items()}
    own |= {VALUE_LENGTH: attention.head_dim, ROTATED: attention.head_dim, "vocab_size": spec.vocab_size}
    own |= _windows(spec, architecture, source)
    if architecture == "gemma3":
        own[LOCAL_THETA] = float(ropes[1].get("rope_theta"))
    scaling, divisors = _scaling(ropes[0], attention.head_dim)
    if divisors is not None and architecture != "llama":
        raise UnsupportedModelError(f"{source}: rope scaling llama3 is not written as GGUF for architecture "
                                    f"{architecture}: llama.cpp has its tensor {ROPE_DIVISORS} for llama alone")
    metadata = {"general.architecture": architecture,
                **{f"{architecture}.{key}": value for key, value in (own | scaling).items()}}
    _check(spec, metadata, divisors, source)
    return metadata, divisors


def architecture_of(spec: Spec, source: str) -> str:
    """general.architecture of a network: that which has the norms and biases that it has."""
    if spec.vision is not None:
        raise UnsupportedModelError(f"{source}: a model that sees images is not written as GGUF, which keeps what sees "
                                    "in a file of its own (mmproj); a folder of safetensors holds all of it")
    layer = spec.layers[0]
    if layer.post_norms:
        return "gemma3"
    return "qwen3" if layer.attention.qk_norm else "qwen2" if layer.attention.qkv_bias else "llama"


def _ropes(text: Config, architecture: str) -> list[Config]:
    """Rope parameters: of all layers, or of Gemma's full and sliding ones."""
    return [rope_of_kind(text, kind) for kind in (FULL, SLIDING)] if architecture == "gemma3" \
        else [rope_parameters(text)]


def _windows(spec: Spec, architecture: str, source: str) -> dict[str, Any]:
    windows = [layer.attention.window for layer in spec.layers]
    if not any(windows):
        return {}
    found: dict[str, Any] = {KEYS["sliding_window"]: max(windows)}
    if architecture == "gemma3":
        local = [window > 0 for window in windows]
        if local != [(i + 1) % GEMMA3_PERIOD > 0 for i in range(len(local))]:
            found[PATTERN] = local
    elif architecture == "llama":
        warn(f"{source}: attention sees {max(windows)} tokens back, which the file says and llama.cpp passes over for "
             "this architecture: it computes the same up to that length")
    return found


def _scaling(rope: Config, head_dim: int) -> tuple[dict[str, Any], np.ndarray | None]:
    """(keys of rope.scaling, rope_freqs.weight)"""
    kind = rope.get("rope_type")
    if kind == "linear":
        return {"rope.scaling.type": "linear", "rope.scaling.factor": float(rope.get("factor"))}, None
    if kind == "yarn":
        return _yarn(rope), None
    if kind == "llama3":
        exponent = np.arange(0, head_dim, 2) / head_dim
        scale = llama3_scale(float(rope.get("rope_theta")) ** -exponent, rope.get("factor"),
                             rope.get("low_freq_factor"), rope.get("high_freq_factor"),
                             rope.get("original_max_position_embeddings"))
        return {}, (1 / scale).astype(np.float32)
    if kind == "dynamic":
        warn(f"{rope.source}: rope scaling dynamic is not written: up to {rope.get('max_position_embeddings')} tokens "
             "it is plain, beyond them the file means something else")
    return {}, None


def _yarn(rope: Config) -> dict[str, Any]:
    original = float(rope.get("original_max_position_embeddings"))
    factor = rope.get("factor")
    factor = float(rope.get("max_position_embeddings") / original if factor is None else factor)
    found = {"rope.scaling.type": "yarn", "rope.scaling.factor": factor,
             "rope.scaling.original_context_length": int(original)}
    for name, usual in (("beta_fast", 32.0), ("beta_slow", 1.0)):
        if rope.get(name) is not None:
            found[f"rope.scaling.yarn_{name}"] = float(rope.get(name))
            if rope.get(name) != usual:
                warn(f"{rope.source}: {name} {rope.get(name)} of YaRN is written, and llama.cpp takes {usual:g} "
                     "all the same")
    # What multiplies cos and sin is that of plain YaRN times this, in llama.cpp too.
    plain = attention_factor(Config({}, rope.source), factor)
    if not np.isclose(wanted := attention_factor(rope, factor), plain, rtol=SAME):
        found["rope.scaling.attn_factor"] = wanted / plain
    return found


def _check(spec: Spec, metadata: Mapping[str, Any], divisors: np.ndarray | None, source: str) -> None:
    """The network that a reader makes of what was written is the one that was to be written."""
    read = spec_of(gguf_config(metadata, spec.vocab_size, spec.tie, divisors, source), source)
    architecture = metadata["general.architecture"]
    for what, ours, theirs in _differences(spec, read):
        raise UnsupportedModelError(f"{source}: {what} {ours!s:.60} is not what a GGUF of architecture {architecture} "
                                    f"can say (it would be read as {theirs!s:.60})")


def _differences(spec: Spec, read: Spec) -> Iterator[tuple[str, Any, Any]]:
    """(what, here, there) where two networks compute something else."""
    for name in ("hidden_size", "vocab_size", "eps", "norm_offset", "embed_scale", "tie", "stretch_after", "log_after",
                 "axes"):
        if not _same(getattr(spec, name), getattr(read, name)):
            yield name, getattr(spec, name), getattr(read, name)
    for i, (ours, theirs) in enumerate(zip(spec.layers, read.layers, strict=True)):
        parts = (("attention", ours.attention, theirs.attention), ("mlp", ours.mlp, theirs.mlp), ("", ours, theirs))
        for part, a, b in parts:
            for name in vars(a):
                if name not in ("attention", "mlp", "rope") and not _same(getattr(a, name), getattr(b, name)):
                    yield f"layer {i}: {part} {name}", getattr(a, name), getattr(b, name)
        turns = spec.ropes[ours.attention.rope], read.ropes[theirs.attention.rope]
        if not _same_turns(*turns):
            yield f"layer {i}: a rope with frequencies", turns[0].inv_freq[:3], turns[1].inv_freq[:3]


def _same(a: Any, b: Any) -> bool:
    return bool(np.isclose(a, b, rtol=SAME, atol=0)) if type(a) is float else bool(a == b)


def _same_turns(a: Rope, b: Rope) -> bool:
    return _same(float(a.scale), float(b.scale)) and bool(np.allclose(a.inv_freq, b.inv_freq, rtol=SAME, atol=0)) \
        and (a.axis is None) == (b.axis is None)
