"""How tokens are drawn: the config's own options with its generation_kwargs over them, and vLLM's names for both."""
import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError, did_you_mean
from .fields import checked, option

ALIASES = {"stop_strings": "stop", "suppress_tokens": "forbidden_ids", "min_tokens": "min_new_tokens"}
LENGTHS = ("max_new_tokens", "max_length", "max_tokens")
LARGEST = (1 << 31) - 1
# arguments of transformers' generate and of vLLM's SamplingParams that ask for what happens anyway: with these values,
# or (None) with any
HARMLESS: dict[str, tuple[Any, ...] | None] = {
    "do_sample": (True,), "num_beams": (1, None), "num_return_sequences": (1, None), "length_penalty": (1.0,),
    "early_stopping": (False,), "no_repeat_ngram_size": (0, None), "typical_p": (1.0, None), "penalty_alpha": (None, 0),
    "use_cache": None, "pad_token_id": None, "return_dict_in_generate": None, "output_scores": None,
    "n": (1, None), "best_of": (1, None), "presence_penalty": (0.0, None), "frequency_penalty": (0.0, None),
    "ignore_eos": (False, None), "stop_token_ids": (None, []), "bad_words": (None, []), "bad_words_ids": (None, []),
    "logit_bias": (None, {}), "allowed_token_ids": (None, []), "logits_processors": (None, []),
    "guided_decoding": (None,), "structured_outputs": (None,), "truncate_prompt_tokens": (None, -1),
    "logprobs": None, "prompt_logprobs": None, "detokenize": None, "skip_special_tokens": None,
    "spaces_between_special_tokens": None, "include_stop_str_in_output": None, "output_kind": None,
    "flat_logprobs": None, "extra_args": (None, {}), "skip_clone": None,
}
UNCONSTRAINED = ("guided_decoding", "structured_outputs")


@dataclasses.dataclass
class Sampling:
    """Arguments of Model.generate_ids that say how tokens are drawn."""

    temperature: float = option(1.0, "Sampling temperature.", low=0)
    top_k: int | None = option(0, "Sample from the k likeliest tokens; 0, -1 or None: all.", low=-1, high=LARGEST)
    top_p: float = option(1.0, "Sample from the smallest set with this probability.", above=0, high=1)
    min_p: float | None = option(None, "Least probability, as a fraction of the likeliest's.", low=0, high=1)
    repetition_penalty: float = option(1.0, "Divides the logits of tokens already seen.", above=0)
    min_new_tokens: int = option(0, "Tokens before which a completion does not end.", low=0, high=LARGEST)
    stop: str | list | None = option(None, "Texts that end a completion.")
    forbidden_ids: list | None = option(None, "Token ids that are never drawn.")


NAMES = tuple(f.name for f in dataclasses.fields(Sampling))
OF_CONFIG = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


def sampling_options(config: Any) -> dict[str, Any]:
    """By the names of Sampling, checked. config: a GRPOConfig. ConfigError names what of generation_kwargs is wrong."""
    given = {name: getattr(config, name) for name in OF_CONFIG}
    for name, value in (config.generation_kwargs or {}).items():
        target = ALIASES.get(name, name)
        if target in NAMES:
            given[target] = value
        elif (name in LENGTHS and value != config.max_completion_length or name == "seed" and value != config.seed
              or name not in (*LENGTHS, "seed") and not harmless(name, value)):
            raise ConfigError(f"generation_kwargs: {name}={value!r:.80} is not supported{did_you_mean(name, NAMES)}"
                              f"{advice(name)}")
    hints = typing.get_type_hints(Sampling)
    try:
        values = {f.name: checked(f, given.get(f.name, f.default), hints[f.name]) for f in dataclasses.fields(Sampling)}
        _check_lists(values)
    except ConfigError as error:
        raise ConfigError(f"generation_kwargs: {error}") from error
    if values["temperature"] == 0:
        raise ConfigError("generation_kwargs: temperature must be above 0; greedy completions of one prompt are all "
                          "the same")
    if values["min_new_tokens"] > config.max_completion_length:
        raise ConfigError(f"generation_kwargs: min_new_tokens={values['min_new_tokens']} is more than "
                          f"max_completion_length={config.max_completion_length}")
    return {**values, "top_k": max(0, values["top_k"] or 0), "min_p": values["min_p"] or 0.0}


def _check_lists(values: dict[str, Any]) -> None:
    stops = [values["stop"]] if isinstance(values["stop"], str) else values["stop"] or []
    if any(not isinstance(text, str) or not text for text in stops):
        raise ConfigError(f"stop={values['stop']!r:.80} must be a text or a list of texts, none of them empty")
    for token in values["forbidden_ids"] or []:
        if type(token) is not int or not 0 <= token <= LARGEST:
            raise ConfigError(f"forbidden_ids: {token!r:.80} is not a token id")


def harmless(name: str, value: Any) -> bool:
    """Whether an argument of another engine asks for what happens anyway."""
    if name not in HARMLESS:
        return False
    values = HARMLESS[name]
    return values is None or any(value == each for each in values)


def advice(name: str) -> str:
    """What to write instead of an argument of another engine, as a sentence after a space; "" where nothing is."""
    if name in LENGTHS:
        return " Use max_completion_length."
    if name == "seed":
        return " Use seed."
    return " Completions are sampled freely; check their form in a reward function." if name in UNCONSTRAINED else ""


def from_sampling_params(value: Any, group: Any) -> dict[str, Any]:
    """Options of a config that vLLM's SamplingParams stand for: an object, of which what differs from its class's
    defaults counts, or a mapping of its arguments. group: num_generations, which n may be. ConfigError names what
    cannot be honoured.

    >>> from_sampling_params({"min_p": 0.1, "stop": ["</answer>"], "n": 8}, 8)
    {'min_p': 0.1, 'generation_kwargs': {'stop': ['</answer>']}}
    """
    if value is None:
        return {}
    result: dict[str, Any] = {}
    kwargs: dict[str, Any] = {}
    refused = []
    for name, wanted in arguments_of(value).items():
        target = ALIASES.get(name, name)
        if name in OF_CONFIG or name == "seed":
            result |= {name: wanted} if wanted is not None else {}
        elif name == "max_tokens":
            result |= {"max_completion_length": wanted} if wanted is not None else {}
        elif target in NAMES:
            kwargs |= {target: wanted} if wanted not in (None, [], ()) else {}
        elif not (harmless(name, wanted) or name == "n" and wanted == group):
            meant = "." if name in HARMLESS else did_you_mean(name, (*NAMES, *HARMLESS))
            refused.append(f"{name}={wanted!r:.80} cannot be honoured{meant}{advice(name)}")
    if refused:
        raise ConfigError("vllm_sampling_params: " + " ".join(refused))
    return {**result, "generation_kwargs": kwargs} if kwargs else result


def arguments_of(value: Any) -> dict[str, Any]:
    """What was given to SamplingParams. ConfigError for anything that is neither that nor a mapping."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(said := getattr(value, "_set_kwargs", None), Mapping):       # where their maker keeps what was said
        return dict(said)
    names = (getattr(value, "__struct_fields__", None) or getattr(value, "__dataclass_fields__", None)
             or getattr(value, "__dict__", None))
    if not names:
        raise ConfigError(f"vllm_sampling_params={value!r:.80} must be a mapping, or vLLM's SamplingParams")
    try:
        usual: Any = type(value)()
    except Exception:                        # of another engine, which wants arguments
        usual = None
    there = {name: getattr(value, name) for name in names if not name.startswith("_")}
    return {name: held for name, held in there.items() if usual is None or held != getattr(usual, name, None)}
