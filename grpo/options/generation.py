"""How tokens are drawn: the config's own options with its generation_kwargs over them."""
import dataclasses
import typing
from typing import Any

from ..errors import ConfigError, did_you_mean
from .fields import checked, option

ALIASES = {"stop_strings": "stop", "suppress_tokens": "forbidden_ids"}
LARGEST = (1 << 31) - 1


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
        elif (name, value) not in (("do_sample", True), ("num_beams", 1)):
            advice = " Use max_completion_length." if name in ("max_new_tokens", "max_length", "max_tokens") else ""
            raise ConfigError(f"generation_kwargs: {name}={value!r:.80} is not supported{did_you_mean(name, NAMES)}"
                              f"{advice}")
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
