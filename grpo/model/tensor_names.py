"""What tensors are called in files, and here: the wrappers that a training library has left before a name, older
names, what belongs to another trainer's head. And whether the head of a text is its embedding.

`Named` is the weights of a file by the names of here; what it did that a user might not expect is said on one line."""
from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import FileFormatError, note, warn
from .families import Spec, family_of, spec_of
from .formats.safetensors import SafetensorsFolder, from_bfloat16_bits

HEAD = "lm_head.weight"
# What torch.compile, PEFT, DataParallel, FSDP, DeepSpeed, TRL and other trainers put before names; some anywhere.
BEFORE = ("_orig_mod.", "base_model.model.", "base_model.", "module.", "model.", "pretrained_model.", "policy.",
          "actor.", "_forward_module.", "language_model.")
MOST_WRAPPERS = 8                                        # before one name
ANYWHERE = re.compile(r"(?<![^.])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
# Never part of what a language model computes: heads of value and reward models and of speculative decoding, what a
# trainer keeps, and constants that are made anew.
OTHERS = re.compile(
    r"(v_head|value_head|q_head|critic_head|reward_head|rm_head|regression_head|score|classifier|classification_head|"
    r"mtp|mtp_layers|medusa_heads?|optimizer|optim|lr_scheduler|scheduler|scaler)\..+"
    r"|(.+\.)?rotary_(pos_)?emb\.(inv_freq|original_inv_freq|cos_cached|sin_cached)|.*\.attn\.masked_bias")
# The norms of a block in the first files of Yi.
NORMS = {"ln1": "input_layernorm", "ln2": "post_attention_layernorm"}
OLD_NORMS = re.compile(r"(.+\.layers\.\d+\.)(ln[12])(\.weight)")
ADAPTED = re.compile(r"(.+\.)?(lora_\w+|base_layer|modules_to_save|original_module|hada_w\w+|lokr_w\w+|ia3_l)\..*"
                     r"|(.+\.)?lora_\w+")


class Weights(Protocol):
    """Where tensors come from: a safetensors folder or a GGUF."""

    source: str
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of every tensor, by Hugging Face name."""

    def read(self, name: str) -> np.ndarray:
        """float32, float16, or uint16 holding bfloat16 bits."""

    def close(self) -> None:
        """The files are not needed any more."""


class Said(Weights, Protocol):
    """Weights by Hugging Face name whose faults are told in the words of their file."""

    says: str                                            # what names the sizes: the config, or the metadata

    def stored_name(self, name: str) -> str:
        """What the file calls, or would call, a tensor of a Hugging Face name."""


class Named:
    """Weights by the names that a spec has. old_names: {what a name begins with: what it began with in older files}.

    `tie`: the head is the embedding: as the spec says, but that a file with a head of its own has it used. `embed`: the
    name of the embedding here.
    FileFormatError where two tensors have one name, or where the file holds an adapter that was not merged."""

    says = "the config"

    def __init__(self, weights: Weights, spec: Spec, old_names: Mapping[str, str]) -> None:
        self.source, self._weights = weights.source, weights
        self.embed = spec.prefix + spec.names.get("embed", ("embed_tokens.weight",))[0]
        try:
            found = weights.shapes()
            self._names = self._names_of(found, spec, old_names)
            self._shapes = {name: found[there] for name, there in self._names.items()}
            self.tie = spec.tie and not self._has_own_head()
        except BaseException:
            weights.close()
            raise

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of every tensor, by its name here."""
        return self._shapes

    def read(self, name: str) -> np.ndarray:
        """The tensor of a name of here."""
        return self._weights.read(self._names[name])

    @property
    def places(self) -> dict[str, str]:
        """{name here: name in the file}"""
        return dict(self._names)

    def stored_name(self, name: str) -> str:
        """What the file calls a tensor; a name of here where it has none such."""
        return self._names.get(name, name)

    def close(self) -> None:
        """The files are not needed any more."""
        self._weights.close()

    def _names_of(self, found: Iterable[str], spec: Spec, old_names: Mapping[str, str]) -> dict[str, str]:
        """{name here: name in the file} of the tensors that may be the model's."""
        if adapted := [name for name in found if ADAPTED.fullmatch(name)]:
            raise FileFormatError(f"{self.source}: holds an adapter that was not merged into its model "
                                  f"({adapted[0]:.200} and others); merge it with peft: merge_and_unload(), then "
                                  "save_pretrained()")
        names = _by_name(found, beginnings(spec, self.embed), spec, old_names, self.source)
        others = [name for name in names if OTHERS.fullmatch(name)]
        for name in others:
            del names[name]
        if others:
            shown = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
            note(f"{self.source}: {len(others)} tensor(s) left out, which are no weights of this model: {shown}")
        return names

    def _has_own_head(self) -> bool:
        """Of a model whose head should be the embedding. As in transformers: one of the two stands for both, and two
        that differ are both used. Equal ones are shared."""
        head, embed = self._shapes.get(HEAD), self._shapes.get(self.embed)
        if head is None:
            return False
        if embed is None:
            self._names[self.embed], self._shapes[self.embed] = self._names.pop(HEAD), self._shapes.pop(HEAD)
            return False
        if head == embed and np.array_equal(*_alike(self.read(HEAD), self.read(self.embed))):
            del self._names[HEAD], self._shapes[HEAD]
            return False
        warn(f"{self.source}: the config ties {HEAD} to {self.embed}, but the file has both and they differ: both are "
             "used, as by transformers, and a saved copy says tie_word_embeddings false")
        return True


def untied(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a model whose head is its own."""
    text = config.get("text_config")
    parts = {"text_config": {**text, "tie_word_embeddings": False}} if isinstance(text, Mapping) else {}
    return {**config, **parts, "tie_word_embeddings": False}


def as_stored(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """The config of a folder's model: untied where the weights beside it have a head of their own; as it is where they
    are not there to be read."""
    spec = spec_of(config, str(folder))
    try:
        weights = SafetensorsFolder(folder)
    except FileFormatError:
        return config
    if not spec.tie or not any(name.endswith(HEAD) for name in weights.shapes()):
        weights.close()
        return config
    named = Named(weights, spec, family_of(config, str(folder)).old_names)
    named.close()
    return config if named.tie else untied(config)


def beginnings(spec: Spec, embed: str) -> tuple[str, ...]:
    """What every name of a spec's tensors begins with."""
    norm = spec.prefix + spec.names.get("norm", ("norm.weight",))[0]
    return (spec.prefix + spec.layer_prefix, embed, norm, HEAD, *([spec.vision.prefix] if spec.vision else ()))


def _by_name(found: Iterable[str], begins: tuple[str, ...], spec: Spec, old_names: Mapping[str, str],
             source: str) -> dict[str, str]:
    """{name here: name in the file}"""
    names: dict[str, str] = {}
    without: dict[str, None] = {}
    bare = False
    for there in found:
        wrappers, lacks, name = _unwrapped(there, begins, spec, old_names)
        if "attention_norm" not in spec.names and (old := OLD_NORMS.fullmatch(name)):
            name = old[1] + NORMS[old[2]] + old[3]
        without.update(dict.fromkeys(wrappers))
        bare = bare or lacks
        if name in names:
            raise FileFormatError(f"{source}: tensors {names[name]!r:.200} and {there!r:.200} would both be {name}")
        names[name] = there
    if without:
        note(f"{source}: tensors are read without the {', '.join(without)} that a wrapper left in their names")
    if bare:
        note(f"{source}: tensors are read though their names lack {spec.prefix}")
    return names


def _unwrapped(there: str, begins: tuple[str, ...], spec: Spec,
               old_names: Mapping[str, str]) -> tuple[list[str], bool, str]:
    """(wrappers, whether the model's own prefix is missing, the name here); what is of no such name stays as it is."""
    name, wrappers = ANYWHERE.sub("", there), [f"{found[1]}." for found in ANYWHERE.finditer(there)]
    # (the model's own prefix is missing, what a name begins with, what it should), the longest beginning first:
    # "model.visual." would else be taken for one of "model.".
    old = sorted(old_names.items(), key=lambda each: -len(each[1]))
    ways = [(False, "", ""), *((False, then, now) for now, then in old), (True, "", spec.prefix), (True, "", "model.")]
    for _ in range(MOST_WRAPPERS):
        for lacks, then, now in ways:
            here = now + name.removeprefix(then)
            if name.startswith(then) and here.startswith(begins):
                return wrappers, lacks, here
        if OTHERS.fullmatch(name):
            return [], False, name
        wrapper = next((each for each in BEFORE if name.startswith(each)), None)
        if wrapper is None:
            break
        wrappers.append(wrapper)
        name = name.removeprefix(wrapper)
    return [], False, there


def _alike(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two tensors as numbers that compare; bfloat16 that both hold as their bits."""
    if a.dtype == b.dtype:
        return a, b
    return _numbers(a), _numbers(b)


def _numbers(array: np.ndarray) -> np.ndarray:
    return from_bfloat16_bits(array) if array.dtype == np.uint16 else array.astype(np.float32, copy=False)
