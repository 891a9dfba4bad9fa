"""generate() on arrays, as transformers has it: ids and a mask in, prompts and completions in one array out."""
from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from ..errors import ConfigError, ImageError, did_you_mean

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .tokenizer import Tokenizer

DEFAULT_NEW_TOKENS = 20                                  # of transformers, where nothing says a length
DEFAULT_TOP_K = 50
# Options of transformers' generate() and the values of them that ask for what happens anyway.
ONLY: dict[str, tuple[Any, ...]] = {
    "num_beams": (1, None), "num_beam_groups": (1, None), "penalty_alpha": (None, 0, 0.0), "streamer": (None,),
    "return_dict_in_generate": (False, None), "output_scores": (False, None), "output_logits": (False, None),
    "output_attentions": (False, None), "output_hidden_states": (False, None), "assistant_model": (None,),
    "logits_processor": (None, []), "stopping_criteria": (None, []), "prefix_allowed_tokens_fn": (None,),
    "no_repeat_ngram_size": (0, None), "encoder_no_repeat_ngram_size": (0, None), "bad_words_ids": (None,),
    "length_penalty": (1.0, None), "typical_p": (1.0, None), "epsilon_cutoff": (0.0, None), "eta_cutoff": (0.0, None),
    "guidance_scale": (None, 1.0), "inputs_embeds": (None,), "past_key_values": (None,), "constraints": (None,),
    "force_words_ids": (None,), "negative_prompt_ids": (None,), "custom_generate": (None,), "max_time": (None,),
    "min_length": (0, None)}
# Those that change no result.
WITHOUT_EFFECT = ("use_cache", "cache_implementation", "synced_gpus", "bos_token_id", "token_type_ids", "position_ids",
                  "early_stopping", "disable_compile", "trust_remote_code", "tokenizer", "remove_invalid_values",
                  "use_model_defaults", "transformers_version", "return_legacy_cache", "renormalize_logits")
SEEN = ("pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw", "pixel_attention_mask")
DRAWN = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "min_new_tokens")
READ = ("do_sample", "max_new_tokens", "max_length", "num_return_sequences", "eos_token_id",
        "pad_token_id", "stop_strings", "suppress_tokens", "seed", "stop", *DRAWN)

Call = TypeVar("Call", bound=Callable[..., Any])


class Model(Protocol):
    """What goes on with ids: a grpo.Model's parts."""

    tokenizer: Tokenizer
    generation_config: Any

    def generate_ids(self, prompt_ids: Any, num_generations: int, max_new_tokens: int,
                     **options: Any) -> dict[str, Any]:
        """As grpo.Model's."""


def arrays_too(generate: Call) -> Call:
    """A Model's generate() that is given arrays is transformers'."""
    @functools.wraps(generate)
    def either(self: Any, *args: Any, **options: Any) -> Any:
        named = [name for name in ("input_ids", "inputs", "attention_mask") if options.get(name) is not None]
        if not named and not (args and is_tensor(args[0])):
            return generate(self, *args, **options)
        if len(args) > 1:
            raise ConfigError("generate() on arrays takes one array by its place, and everything else by name")
        given = [*args, *(options.pop(name) for name in ("input_ids", "inputs") if name in options)]
        given = [each for each in given if each is not None]
        if len(given) != 1:
            raise ConfigError(f"generate() on arrays takes one array of ids, input_ids, and was given {len(given)}")
        return continued(self, given[0], options.pop("attention_mask", None), options)

    return either  # type: ignore[return-value]


def is_tensor(value: Any) -> bool:
    """Whether something is an array of another library than NumPy."""
    return hasattr(value, "shape") and hasattr(value, "dtype") and not isinstance(value, (np.ndarray, np.generic))


def continued(model: Model, input_ids: Any, attention_mask: Any, options: Mapping[str, Any]) -> Any:
    """(rows, width) ids with a completion behind each row, of the kind that was given.

    input_ids: (rows, columns), padded on either side; attention_mask: alike, 0 where a row is padded, else what is
    pad_token_id is. options: those of transformers' generate(); where they say nothing the model's generation_config
    does: greedy unless do_sample. Rows that end earlier have pad_token_id behind them. ConfigError names an option that
    is not honoured, ImageError pixels."""
    ids = rows_of(input_ids, "input_ids")
    chosen = merged(model, options)
    end = chosen["eos_token_id"]
    ends = [int(i) for i in np.atleast_1d(np.asarray(end))] if end is not None else list(model.tokenizer.eos_ids)
    pad = chosen["pad_token_id"]
    pad = int(pad) if pad is not None else model.tokenizer.pad_id if model.tokenizer.pad_id is not None else \
        ends[0] if ends else 0
    keep = kept(ids, attention_mask, pad, ends)
    prompts = [row[mask].astype(np.int32) for row, mask in zip(ids, keep, strict=True)]
    for i, prompt in enumerate(prompts):
        if not len(prompt):
            raise ConfigError(f"input_ids: row {i} has nothing but padding")
    count = chosen["num_return_sequences"] or 1
    out = model.generate_ids(prompts, count, new_tokens(chosen, ids.shape[1]), stop_ids=ends, **drawing(chosen),
                             forbidden_ids=chosen["suppress_tokens"], seed=chosen["seed"] or 0,
                             stop=chosen["stop_strings"] or chosen["stop"])
    width = ids.shape[1] + int(out["lengths"].max())
    found = np.full((len(ids) * count, width), pad, np.int64)
    found[:, :ids.shape[1]] = np.repeat(ids, count, 0)
    for i, tokens in enumerate(np.split(out["tokens"], np.cumsum(out["lengths"])[:-1])):
        found[i, ids.shape[1]:ids.shape[1] + len(tokens)] = tokens
    return like(found, input_ids)


def rows_of(array: Any, name: str) -> NDArray[np.int64]:
    """(rows, columns) of whole numbers."""
    plain = array.detach().cpu() if callable(getattr(array, "detach", None)) else array
    try:
        found = np.asarray(plain)
    except ValueError as error:
        raise ConfigError(f"{name}: its rows are of different lengths; tokenizer(..., padding=True) pads them"
                          ) from error
    if found.ndim != 2 or found.dtype.kind not in "iub" or not found.size:
        raise ConfigError(f"{name} must be (rows, columns) of whole numbers, not {found.dtype} of shape {found.shape}")
    return found.astype(np.int64)


def kept(ids: NDArray[np.int64], attention_mask: Any, pad: int, ends: list[int]) -> NDArray[np.bool_]:
    """Which ids are a prompt's. Without a mask those that are not padding, unless what pads also ends a completion."""
    if attention_mask is not None:
        mask = rows_of(attention_mask, "attention_mask") != 0
        if mask.shape != ids.shape:
            raise ConfigError(f"attention_mask is of shape {mask.shape}, input_ids of {ids.shape}")
        return mask
    return np.ones(ids.shape, bool) if pad in ends else ids != pad


def merged(model: Model, options: Mapping[str, Any]) -> dict[str, Any]:
    """Every option that is read: as given, else of generation_config= , else of the model's generation_config."""
    given = dict(options)
    own = given.pop("generation_config", None)
    if own is not None:
        said = own.to_dict() if hasattr(own, "to_dict") else dict(own)
        given = {**{name: value for name, value in said.items() if value is not None and not name.startswith("_")
                    and (name in READ or name in ONLY)}, **given}
    for name, value in given.items():
        if name in SEEN and value is not None:
            raise ImageError(f"{name}: images come to generate() as they are, in messages or as images=; what a "
                             "processor made of them is not taken")
        if name in ONLY and not any(value is only or value == only for only in ONLY[name]):
            raise ConfigError(f"generate(): {name}={value!r:.80} is not supported; leave it out")
        if name not in ONLY and name not in READ and name not in WITHOUT_EFFECT and name not in SEEN:
            raise ConfigError(f"generate() on arrays has no {name!r}{did_you_mean(name, (*READ, *ONLY))}")
    found = {name: model.generation_config.get(name) for name in READ if name not in ("seed", "stop")}
    return {**dict.fromkeys(READ), **found, **{name: value for name, value in given.items() if value is not None
                                               and name in READ}}


def new_tokens(chosen: Mapping[str, Any], columns: int) -> int:
    """Most tokens of a completion."""
    if chosen["max_new_tokens"] is not None:
        return int(chosen["max_new_tokens"])
    if chosen["max_length"] is None:
        return DEFAULT_NEW_TOKENS
    if chosen["max_length"] <= columns:
        raise ConfigError(f"max_length={chosen['max_length']}: the prompts have {columns} columns already; give "
                          "max_new_tokens")
    return int(chosen["max_length"]) - columns


def drawing(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """How tokens are drawn, by the names of Model.generate_ids."""
    found = {"repetition_penalty": chosen["repetition_penalty"] or 1.0, "min_new_tokens": chosen["min_new_tokens"] or 0}
    if not chosen["do_sample"]:
        return {**found, "temperature": 0.0}
    top_k = DEFAULT_TOP_K if chosen["top_k"] is None else max(0, chosen["top_k"])
    return {**found, "temperature": 1.0 if chosen["temperature"] is None else chosen["temperature"], "top_k": top_k,
            "top_p": chosen["top_p"] or 1.0, "min_p": chosen["min_p"] or 0.0}


def like(found: NDArray[np.int64], given: Any) -> Any:
    """The array as one of the given's kind: a tensor on its device, or NumPy's."""
    if callable(getattr(given, "new_tensor", None)):
        return given.new_tensor(found)
    return found.astype(given.dtype) if isinstance(given, np.ndarray) else found
