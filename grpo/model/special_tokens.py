"""The special tokens that tokenizer_config.json and special_tokens_map.json name: a text, an object that holds one, a
list of them, or nothing. What the vocabulary does not have is left out, which is said where something would use it."""
from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import TokenizerError, warn

if TYPE_CHECKING:
    import tokenizers

NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
LISTS = ("extra_special_tokens", "additional_special_tokens")
# What a class of transformers takes where the files name nothing.
END = {"unk_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
LLAMA = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
GEMMA = {"unk_token": "<unk>", "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
DEFAULTS = {"LlamaTokenizer": LLAMA, "CodeLlamaTokenizer": LLAMA, "GemmaTokenizer": GEMMA,
            "GPT2Tokenizer": {**END, "bos_token": "<|endoftext|>"},
            "Qwen2Tokenizer": {**END, "pad_token": "<|endoftext|>"}}


class Special(NamedTuple):
    """The special tokens that a model's files name."""

    named: dict[str, str]                                # bos_token, eos_token, ..., and names of the model's own
    ends: list[str]                                      # texts that end a completion
    others: list[str]                                    # without a name
    defaults: dict[str, str]                             # of names that the files do not have


def read(config: Mapping[str, Any], fallback: Mapping[str, Any], source: str) -> Special:
    """The special tokens of tokenizer_config.json, which source names, and of special_tokens_map.json: the latter goes
    over the former in folders of before added_tokens_decoder, and says what the former does not anywhere else.
    TokenizerError for what is no text."""
    config = {**fallback, **config} if "added_tokens_decoder" in config else {**config, **fallback}
    named: dict[str, list[str]] = {}
    own = config.get("extra_special_tokens")
    for name, value in [*config.items(), *(own.items() if isinstance(own, dict) else ())]:
        if name in NAMES or name.endswith("_token") and isinstance(value, (str, dict)):      # image_token and the like
            named[name] = _texts(value, f"{source}: {name}")
    others = [text for name in LISTS if isinstance(config.get(name), list)
              for text in _texts(config[name], f"{source}: {name}")]
    return Special({name: texts[0] for name, texts in named.items() if texts}, named.get("eos_token", []), others,
                   {name: text for name, text in DEFAULTS.get(str(config.get("tokenizer_class")).removesuffix("Fast"),
                                                              {}).items() if name not in named})


def _texts(value: Any, where: str) -> list[str]:
    if isinstance(value, list):
        return [text for item in value for text in _texts(item, where)]
    text = value.get("content") if isinstance(value, dict) else value
    if not isinstance(text, (str, type(None))) or isinstance(value, dict) and text is None:
        raise TokenizerError(f"{where} must be text, not {value!r:.80}")
    return [text] if text else []


def known(special: Special, backend: tokenizers.Tokenizer, uses: Collection[str], source: str) -> Special:
    """The special tokens that the vocabulary has. Of the others those that uses names, and those without a name, are
    said to be left out: what is never asked for is not missed."""
    def has(text: str) -> bool:
        return backend.token_to_id(text) is not None

    missed = [f"{name} {text!r:.80}" for name, text in special.named.items() if name in uses and not has(text)]
    missed += [repr(text)[:80] for text in special.others if not has(text)]
    if missed:
        more = f" and {len(missed) - 5} more" if len(missed) > 5 else ""
        warn(f"{source}: {', '.join(missed[:5])}{more}: not in the vocabulary, and left out")
    defaults = special.defaults
    if defaults.items() <= LLAMA.items() and byte_level(backend):    # Llama 3, which transformers gives no defaults
        defaults = {}
    named = {**defaults, **special.named}
    ends = list(filter(has, special.ends or [named[name] for name in named if name == "eos_token"]))
    named = {name: text for name, text in named.items() if has(text)} | ({"eos_token": ends[0]} if ends else {})
    return Special(named, ends, list(filter(has, special.others)), {})


def byte_level(backend: tokenizers.Tokenizer) -> bool:
    """Whether a tokenizer's tokens are spelled in the alphabet of byte-level BPE."""
    return backend.decoder is not None and b'"ByteLevel"' in backend.decoder.__getstate__()


def end_ids(given: Sequence[Any], size: int, source: str) -> tuple[list[int], list[int]]:
    """(ids that end a completion, what is left out as no id of the size tokens), without None. TokenizerError for what
    is no number."""
    ids = [token for token in given if token is not None]
    for token in ids:
        if type(token) is not int:
            raise TokenizerError(f"{source}: end-of-text id {token!r:.40} is not a token id (0 to {size - 1})")
    return [i for i in ids if 0 <= i < size], [i for i in ids if not 0 <= i < size]
