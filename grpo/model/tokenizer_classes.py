"""What transformers 5 makes of the class that a tokenizer_config.json names, beside what tokenizer.json says.

Some of its classes take the vocabulary and merges of a tokenizer.json and cut text in a way of their own. Here the file
decides: a model was trained with it, through transformers 4, which took it whole. Where the class would make other ids
of a few texts, one GrpoWarning names it and shows them. Two keys that both versions follow are followed here too:
add_prefix_space of the byte-level classes, and split_special_tokens.
"""
from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import warn
from .formats.byte_level import SPLITS
from .special_tokens import byte_level

if TYPE_CHECKING:
    import tokenizers

# Classes of byte-level BPE whose add_prefix_space goes over that of the file.
PREFIXED = ("GPT2Tokenizer", "CodeGenTokenizer", "GPTNeoXTokenizer", "Qwen2Tokenizer", "CohereTokenizer",
            "RobertaTokenizer")
PIECES = ("LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer")         # of SentencePiece
OF_MODEL_TYPE = {"qwen2": "Qwen2Tokenizer"}              # which goes over the class that is named
WHOLE = ("mistral",)                                     # model types whose file is taken as it is
BYTES = 256                                              # so many tokens are no more than bytes, however cut
TEXTS = ("It's 12345 + 6.5;\n\n  they'LL  x\t\ty\r\n", " a  b", "the end", "cafe\u0301 日本語", "<s>a</s> b")


def follow_keys(backend: tokenizers.Tokenizer, config: Mapping[str, Any], model_type: Any, source: str) -> None:
    """Sets what tokenizer_config.json asks for beside tokenizer.json: a space before a text, special tokens that are
    cut as text is."""
    prefix = config.get("add_prefix_space")
    if isinstance(prefix, bool) and _class_of(backend, config, model_type) in PREFIXED \
            and backend.pre_tokenizer is not None:
        described = json.loads(backend.pre_tokenizer.__getstate__())
        for step in _steps(described):
            if step.get("type") == "ByteLevel":
                step["add_prefix_space"] = prefix
        backend.pre_tokenizer = _made(described, "pre_tokenizer")
    if config.get("split_special_tokens") is True:
        backend.encode_special_tokens = True
        warn(f"{source}: split_special_tokens is true: special tokens that are written out in a text, as in every chat "
             "prompt, are cut as other text is, as by transformers")


def say_what_differs(backend: tokenizers.Tokenizer, config: Mapping[str, Any], model_type: Any, source: str) -> None:
    """A GrpoWarning where the class of transformers 5 would make other ids of some texts."""
    name = _class_of(backend, config, model_type)
    if name is None or backend.get_vocab_size(with_added_tokens=False) <= BYTES:
        return
    normalizer, pre_tokenizer = backend.normalizer, backend.pre_tokenizer
    ours = [backend.encode(text, add_special_tokens=False) for text in TEXTS]
    try:
        described = _of_class(name, config)
        backend.normalizer = _made(described["normalizer"], "normalizer")
        backend.pre_tokenizer = _made(described["pre_tokenizer"], "pre_tokenizer")
        theirs = [backend.encode(text, add_special_tokens=False) for text in TEXTS]
    finally:
        backend.normalizer, backend.pre_tokenizer = normalizer, pre_tokenizer
    says = [f"{text!r} would be {there.tokens!r:.200}, here {here.tokens!r:.200}"
            for text, here, there in zip(TEXTS, ours, theirs, strict=True) if here.ids != there.ids][:1]
    if around := _around(backend, name, config):
        says.append(around)
    if says:
        warn(f"{source}: {name}, the class of transformers 5 for this model, cuts text in a way of its own: "
             f"{'; '.join(says)}. tokenizer.json decides here, as it did in transformers 4")


def _class_of(backend: tokenizers.Tokenizer, config: Mapping[str, Any], model_type: Any) -> str | None:
    """The class that transformers 5 takes, of those that have a way of their own with such a tokenizer."""
    if model_type in WHOLE:
        return None
    named = config.get("tokenizer_class")
    name = str(named).removesuffix("Fast") if isinstance(named, str) else None
    if byte_level(backend):
        name = OF_MODEL_TYPE.get(model_type, name) if isinstance(model_type, str) else name
        return name if name in PREFIXED else None
    return name if name in PIECES else None


def _of_class(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The normalizer and the pre-tokenizer that a class makes, as tokenizer.json has them."""
    prefix = config.get("add_prefix_space")
    whole = {"type": "ByteLevel", "add_prefix_space": bool(prefix), "trim_offsets": True, "use_regex": True}
    nfc = {"type": "NFC"}
    if name in ("LlamaTokenizer", "CodeLlamaTokenizer"):
        first = name == "CodeLlamaTokenizer" or not config.get("legacy", False)
        scheme = "never" if prefix is False else "first" if first else "always"
        return {"normalizer": None, "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "split": False,
                                                      "prepend_scheme": scheme}}
    if name == "GemmaTokenizer":
        return {"normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
                "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious",
                                  "invert": False}}
    if name == "Qwen2Tokenizer":
        split = {"type": "Split", "pattern": {"Regex": SPLITS["qwen2"].regex}, "behavior": "Isolated", "invert": False}
        return {"normalizer": nfc, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            split, {**whole, "use_regex": False}]}}
    if name == "CohereTokenizer":
        digits = {"type": "Digits", "individual_digits": True}
        return {"normalizer": nfc, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, whole]}}
    return {"normalizer": nfc if name == "GPTNeoXTokenizer" else None, "pre_tokenizer": whole}


def _around(backend: tokenizers.Tokenizer, name: str, config: Mapping[str, Any]) -> str:
    """What a class puts around a text, where the file puts something else; empty where it puts the same."""
    bos, eos = (str(config[key]) if isinstance(config.get(key), str) else standard
                for key, standard in (("bos_token", "<s>"), ("eos_token", "</s>")))
    wanted = {"CodeLlamaTokenizer": ([bos], []), "GPTNeoXTokenizer": ([], []), "RobertaTokenizer": ([bos], [eos])}
    if name not in wanted:
        return ""
    whole, inside = backend.encode("a").tokens, backend.encode("a", add_special_tokens=False).tokens
    begin, end = wanted[name]
    return "" if whole == [*begin, *inside, *end] else \
        f"'a' with what is put around it would be {[*begin, *inside, *end]!r:.200}, here {whole!r:.200}"


def _steps(described: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A pre-tokenizer's steps."""
    yield described
    for step in described.get("pretokenizers", []):
        yield from _steps(step)


def _made(described: dict[str, Any] | None, kind: str) -> Any:
    """A normalizer or pre_tokenizer of what tokenizer.json says of one."""
    from tokenizers import Tokenizer

    if described is None:
        return None
    model = {"type": "BPE", "vocab": {}, "merges": []}
    return getattr(Tokenizer.from_str(json.dumps({"version": "1.0", "added_tokens": [], "model": model,
                                                  kind: described})), kind)
