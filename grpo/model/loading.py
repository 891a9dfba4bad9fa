"""Models from what they are kept in: a Hugging Face folder, a GGUF, a hub id, or random weights of a tiny one."""
from __future__ import annotations

import math
import os
import re
import zlib
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from ..errors import ConfigError, FileFormatError, UnsupportedModelError, did_you_mean, warn
from .devices import pick_device
from .families import Config, Family, Spec, families, family_of, known_words, spec_of, text_of
from .model import Model, check_vocabulary
from .objects import ModelObject, folder_of, is_model_object
from .tensor_names import HEAD, Named, Said, untied
from .tokenizer import Tokenizer
from .tokenizer_sources import eos_ids_of, given, of_folder, of_gguf, of_object

if TYPE_CHECKING:
    from ..vision.sight import Sight
    from .formats.gguf import GgufFile

# Keys of a config that name what a tiny model that sees has beside its bytes
VISION_IDS = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
FIRST_VISION_TOKEN = 259
# What the names of transformers' classes with a head of text end in.
WITH_HEAD = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
NORMS = re.compile(r".*(norm|norm1|norm2|\bln_\w+)\.weight")
INTO_RESIDUAL = ("o_proj.weight", "down_proj.weight", ".c_proj.weight", ".out_proj.weight")


@dataclass(frozen=True)
class TinySpec:
    """A model to be built with random weights: what `tiny` returns and `load` takes."""

    config: dict[str, Any]
    seed: int = 0
    tokenizer: Tokenizer = field(default_factory=Tokenizer.bytes)


def tiny(arch: str = "qwen2", seed: int = 0, tokens: Sequence[str] = (), **sizes: Any) -> TinySpec:
    """A small random model (about 1.6 M parameters) with a byte tokenizer, for `load`.

    ``arch``: "qwen2", "qwen3", "llama", "mistral" or "gemma3"; and of models that see images "qwen2_vl", "qwen2_5_vl",
    "qwen3_vl" or "qwen" (Qwen-VL). ``tokens``: texts that are one token each, besides the bytes. ``sizes``: config keys
    (hidden_size, num_hidden_layers, num_attention_heads, num_key_value_heads, head_dim, intermediate_size, vocab_size,
    rope_theta, tie_word_embeddings, sliding_window ...); ``vision_config``: a dict of the tower's (depth, num_heads
    ...), which of "qwen" is ``visual`` (layers, heads ...).

    >>> tiny(num_hidden_layers=2).config["num_hidden_layers"]
    2
    """
    if not isinstance(seed, Integral) or not 0 <= seed < 1 << 64:
        raise ConfigError(f"seed must be an integer from 0 to 2^64 - 1, not {seed!r:.80}")
    if arch not in families():
        raise ConfigError(f"arch {arch!r} is not known; choose from {', '.join(families())}")
    family = families()[arch]
    shown = family.image_tokens if family.tiny_vision is not None else ()
    vision = sizes.pop(family.vision_key, {}) if shown else {}
    config = {"architectures": [family.architecture], "model_type": family.model_type, "hidden_size": 192,
              "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 3, "num_key_value_heads": 1,
              "head_dim": None, "vocab_size": 259 + len(shown) + len(tokens), "hidden_act": "silu",
              "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "rope_scaling": None, "max_position_embeddings": 4096,
              "tie_word_embeddings": True, "initializer_range": 0.02, "bos_token_id": None, "eos_token_id": 258,
              "pad_token_id": 256}
    config = {key: value for key, value in (config | dict(family.tiny)).items()
              if key not in family.tiny or value is not None}
    _check_names(sizes, (config.keys() | family.defaults.keys()) - {"architectures", "model_type"}, "size")
    config = {key: value for key, value in (config | sizes).items() if value is not None or key != "rope_scaling"}
    Config(config, "tiny()").number("initializer_range", low=0.0, high=1e6)
    if shown:
        config = _with_tower(config, family, vision)
    text = config.get("text_config", config)
    width = "head_dim" if "head_dim" in text else "kv_channels"
    text[width] = spec_of(config, "tiny()").layers[0].attention.head_dim
    return TinySpec(config, seed, Tokenizer.bytes(tokens, shown, family.chat_template))


def _check_names(given: Mapping[str, Any], known: Set[str], what: str) -> None:
    for key in given:
        if key not in known:
            raise ConfigError(f"tiny() has no {what} {key!r}{did_you_mean(key, known)}")


def _with_tower(text: dict[str, Any], family: Family, vision: Any) -> dict[str, Any]:
    """The config of a tiny model that sees: text keys, and a tower's. vision: keys of it that the caller gave."""
    if not isinstance(vision, Mapping):
        raise ConfigError(f"{family.vision_key} must be a dict of a tower's sizes, not {vision!r:.80}")
    if family.vision_key == "visual":
        own = {**(family.tiny_vision or {}), "output_dim": text["hidden_size"], "image_start_id": FIRST_VISION_TOKEN}
        _check_names(vision, own.keys(), "size of visual")
        return {**text, "visual": {**own, **vision}}
    usual = {"in_channels": 3, "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "hidden_act": None,
             **(family.tiny_vision or {})}
    _check_names(vision, usual.keys(), "size of vision_config")
    # Qwen2-VL's key for the width of a feature is another one's for that of the tower.
    out = "hidden_size" if "embed_dim" in usual else "out_hidden_size"
    tower = {key: value for key, value in {**usual, out: text["hidden_size"], **vision}.items() if value is not None}
    width = text.get("head_dim") or text["hidden_size"] // max(1, text["num_attention_heads"])
    frames, rows = width // 8, (width // 2 - width // 8) // 2
    rope = {"rope_type": "default", "rope_theta": text["rope_theta"],
            "mrope_section": [frames, rows, width // 2 - frames - rows]}
    nested = {key: value for key, value in text.items() if key not in ("architectures", "model_type", "rope_theta")}
    return {"architectures": text["architectures"], "model_type": text["model_type"],
            "tie_word_embeddings": text["tie_word_embeddings"],
            **{name: FIRST_VISION_TOKEN + i for i, name in enumerate(VISION_IDS)},
            "text_config": {**nested, "model_type": f"{text['model_type']}_text", "rope_parameters": rope},
            "vision_config": tower}


def load(path_or_id: Any, device: str = "auto", dtype: str | None = None,
         tokenizer: Any = None) -> Model:
    """A model from a Hugging Face folder, a .gguf file, a hub id, a model object of transformers, or `tiny(...)`.

    ``device``: "cpu" or "cuda" (bfloat16 weights), "auto" ("cuda" when a GPU answers, else "cpu"), "ref" (float32,
    slow, for checking). ``dtype``: None or the device's own. ``tokenizer``: in place of the model's own, or where it
    has none: a Tokenizer, a folder, a tokenizer.json, a .gguf, a tokenizer of tokenizers or transformers, or a
    processor, which says how images are seen too. A model without any takes token ids. Of an object (of torch.compile
    and DDP too) the weights are copied; `Model.write_back` puts them back into it. Raises FileFormatError (file and
    tensor), UnsupportedModelError, TokenizerError, ConfigError or DeviceError.

    >>> model = load(tiny(num_hidden_layers=1))                                                      # doctest: +SKIP
    >>> model.generate("2 + 2 =", max_new_tokens=4)[0].text                                          # doctest: +SKIP
    """
    device = pick_device(device, dtype)
    if isinstance(path_or_id, TinySpec):
        return _load_tiny(path_or_id if tokenizer is None else replace(path_or_id, tokenizer=given(tokenizer)), device)
    if is_model_object(path_or_id):
        model = _load_object(ModelObject(path_or_id), device, tokenizer)
    elif isinstance(path_or_id, (str, os.PathLike)):
        from .folders import model_in
        from .hub import resolve

        path = model_in(resolve(path_or_id))
        model = (_load_folder if path.is_dir() else _load_gguf)(path, device, tokenizer)
        model.name_or_path = os.fspath(path_or_id)
    else:
        raise ConfigError("load() takes a path, a hub id, a model object of transformers or grpo.tiny(...), not "
                          f"{path_or_id!r:.120}")
    model.take_images_of(tokenizer)
    return model


def _load_tiny(spec: TinySpec, device: str) -> Model:
    check_vocabulary(spec.tokenizer, spec.config, "tiny()")
    network = spec_of(spec.config, "tiny()")
    core = _core.Model(device, network)
    text = text_of(spec.config)
    depth = 1 / math.sqrt(2 * text["num_hidden_layers"])
    for name, shape in core.tensors():
        # One stream a tensor, by name: the numbers do not depend on the order in which the core lists them.
        rng = np.random.Generator(np.random.Philox(key=np.array([spec.seed, zlib.crc32(name.encode())], np.uint64)))
        if NORMS.fullmatch(name):
            core.set_tensor(name, np.full(shape, 1 - network.norm_offset, np.float32))
            continue
        scale = text["initializer_range"] * (depth if name.endswith(INTO_RESIDUAL) else 1)
        core.set_tensor(name, rng.standard_normal(shape, np.float32) * np.float32(scale))
    eos = spec.tokenizer.eos_ids
    sight = None
    if network.vision is not None:
        from ..vision.processor import Processor
        from ..vision.sight import sight_of

        if network.vision.grid_side:
            processor = Processor.read(None, spec.config)
        else:
            tower = spec.config["vision_config"]
            processor = replace(Processor.of(spec.config["model_type"]), patch_size=tower["patch_size"],
                                merge_size=tower["spatial_merge_size"],
                                temporal_patch_size=tower["temporal_patch_size"], min_pixels=1)
        sight = sight_of(core, spec.config, processor)
    return Model(core, dict(spec.config), spec.tokenizer,
                 {"eos_token_id": eos, "pad_token_id": spec.tokenizer.pad_id}, sight)


def _load_folder(folder: Path, device: str, tokenizer: Any = None) -> Model:
    from .formats.safetensors import SafetensorsFolder
    from .formats.stand_ins import there
    from .formats.strict_json import read_object

    config = dict(known_words(read_object(folder / "config.json"), str(folder / "config.json")))
    spec = spec_of(config, str(folder / "config.json"))
    generation_file = folder / "generation_config.json"
    generation = read_object(generation_file) if there(generation_file) else {}
    eos_ids = eos_ids_of(generation, config, text_of(config), vocab_size=spec.vocab_size, source=str(folder))
    found = of_folder(folder, eos_ids) if tokenizer is None else given(tokenizer, eos_ids)
    check_vocabulary(found, config, str(folder))
    stored = SafetensorsFolder(folder)
    weights = Named(stored, spec, family_of(config, str(folder)).old_names)
    _check_class(config, weights, str(folder))
    if spec.tie and not weights.tie:
        config, spec = untied(config), replace(spec, tie=False)
    core = _fill(weights, device, spec)
    sight = _sight(core, config, folder) if spec.vision is not None else None
    model = Model(core, config, found, generation if generation_file.is_file() else {"eos_token_id": found.eos_ids},
                  sight)
    model.files = stored.files
    return model


def _check_class(config: Mapping[str, Any], weights: Named, source: str) -> None:
    """Says where a config's architectures are no language models and the file has no head of one: FileFormatError
    where the config does not make one of the embedding."""
    classes = config.get("architectures")
    listed = [str(each) for each in classes] if isinstance(classes, list) else []
    if not listed or any(name.endswith(WITH_HEAD) for name in listed) or HEAD in weights.shapes():
        return
    what = f"{source}: the config has architectures {', '.join(listed):.200}, which is no language model (a " \
        "classifier, a reward model or one of embeddings)"
    if not weights.tie:
        weights.close()
        raise FileFormatError(f"{what}, and the weights have no {HEAD}: load the language model that it was made from")
    warn(f"{what}; it is read as one whose head is its embedding, as the config ties them")


def _load_object(given_object: ModelObject, device: str, tokenizer: Any) -> Model:
    """The model in an object. Its tokenizer, where none is given, and how it sees images are those of the folder or of
    the hub id that it was loaded from."""
    source, generation = given_object.source, given_object.generation_config
    config = dict(known_words(given_object.config, source))
    spec = spec_of(config, source)
    eos_ids = eos_ids_of(generation, config, text_of(config), vocab_size=spec.vocab_size, source=source)
    found = of_object(given_object.name_or_path, source, eos_ids) if tokenizer is None else given(tokenizer, eos_ids)
    check_vocabulary(found, config, source)
    weights = Named(given_object, spec, family_of(config, source).old_names)
    _check_class(config, weights, source)
    given_object.remember(weights)
    if spec.tie and not weights.tie:
        config, spec = untied(config), replace(spec, tie=False)
    core = _fill(weights, device, spec)
    seeing = getattr(tokenizer, "image_processor", None) is not None     # it says how, once the model is there
    sight = None if spec.vision is None else _sight(core, config, folder_of(given_object.name_or_path), said=seeing)
    model = Model(core, config, found, generation or {"eos_token_id": found.eos_ids}, sight)
    model.given, model.name_or_path = given_object, given_object.name_or_path
    return model


def _sight(core: _core.Model, config: Mapping[str, Any], folder: Path | None, said: bool = False) -> Sight:
    """How a model with a tower sees images: as the files of its folder say. said: something else will say it."""
    from ..vision.processor import KEPT_FILES, MAX_BYTES, Processor
    from ..vision.sight import sight_of
    from .formats.stand_ins import there
    from .formats.strict_json import read_bytes

    if said and folder is None:
        return sight_of(core, config, Processor.of(config["model_type"]))
    files = {name: read_bytes(folder / name, MAX_BYTES) for name in KEPT_FILES if there(folder / name)} \
        if folder is not None else {}
    return sight_of(core, config, Processor.read(folder, config), files)


def _load_gguf(path: Path, device: str, tokenizer: Any = None) -> Model:
    from .formats.gguf import GgufFile

    file = GgufFile(path)
    try:
        spec = _gguf_spec(file)
        found = of_gguf(file.metadata, str(path)) if tokenizer is None else given(tokenizer)
        check_vocabulary(found, file.config, str(path))
    except BaseException:
        file.close()
        raise
    ids = {"bos_token_id": found.bos_id, "eos_token_id": found.eos_ids, "pad_token_id": found.pad_id}
    model = Model(_fill(file, device, spec), {**file.config, **ids}, found, ids)
    model.files = file.files
    return model


def _gguf_spec(file: GgufFile) -> Spec:
    """The network of a GGUF; faults in the words of its metadata."""
    from .formats.gguf_names import in_metadata_words

    try:
        return spec_of(file.config, file.source)
    except (FileFormatError, UnsupportedModelError) as error:
        raise type(error)(in_metadata_words(str(error), str(file.metadata["general.architecture"]))) from error


def _fill(weights: Said, device: str, spec: Spec) -> _core.Model:
    """A core with every tensor set; names and shapes are compared before anything is read."""
    try:
        _check_corners(weights, spec)
        core = _core.Model(device, spec)
        _check_tensors(weights, dict(core.tensors()))
        for name, _ in core.tensors():
            core.set_tensor(name, weights.read(name))
        return core
    finally:
        weights.close()


def _check_corners(weights: Said, spec: Spec) -> None:
    """The largest tensors and the last layer fit the config, so that a wrong config fails before memory is asked
    for."""
    embed, down = (spec.names.get(slot, (usual,))[0] for slot, usual in
                   (("embed", "embed_tokens.weight"), ("down", "mlp.down_proj.weight")))
    corners = {f"{spec.prefix}{embed}": (spec.vocab_size, spec.hidden_size),
               f"{spec.prefix}{spec.layer_prefix}{len(spec.layers) - 1}.{down}":
                   (spec.hidden_size, spec.layers[-1].mlp.width)}
    found = weights.shapes()
    has = "" if all(name in found for name in corners) else \
        f"\n  the file has {', '.join(list(found)[:5])}{', ...' if len(found) > 5 else ''}"
    _raise_differences(weights, [_difference(weights, name, shape) for name, shape in corners.items()
                                 if found.get(name) != shape], has)


def _check_tensors(weights: Said, expected: Mapping[str, tuple[int, ...]]) -> None:
    found = weights.shapes()
    wrong = [_difference(weights, name, tuple(shape)) for name, shape in expected.items()
             if found.get(name) != tuple(shape)]
    extra = [name for name in found if name not in expected]
    _raise_differences(weights,
                       wrong + [f"{weights.stored_name(name)} is not a tensor of this model" for name in extra])


def _difference(weights: Said, name: str, expected: tuple[int, ...]) -> str:
    stored, shape = weights.stored_name(name), weights.shapes().get(name)
    if shape is not None:
        return f"{stored} has shape {shape}, {weights.says} says {expected}"
    return f"{stored} is missing" + (", and the config does not tie it to the embedding" if name == HEAD else "")


def _raise_differences(weights: Said, lines: list[str], has: str = "") -> None:
    """FileFormatError with the first lines. has: what to say of the rest of the file."""
    if lines:
        more = f"\n  and {len(lines) - 10} more" if len(lines) > 10 else ""
        raise FileFormatError(f"{weights.source}: {len(lines)} tensor(s) do not fit {weights.says}:\n  "
                              + "\n  ".join(lines[:10]) + more + has)
