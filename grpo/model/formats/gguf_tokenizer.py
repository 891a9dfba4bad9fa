"""The tokenizer inside a GGUF: byte-level BPE ("gpt2") or SentencePiece BPE ("llama"), rebuilt with `tokenizers`.

GGUF names the way text is split (tokenizer.ggml.pre) without saying what it is; the ways known are gguf_splits.NAMES.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import TokenizerError, note, warn
from .byte_level import bpe, byte_level_backend, set_bos_eos
from .gguf_splits import split_of

if TYPE_CHECKING:
    import tokenizers


UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 2, 3, 4, 5, 6    # tokenizer.ggml.token_type
MAX_SPELLED = 256                                        # longer tokens get no merges: pairs cost the length squared
# Texts of tokens that end a completion, whatever the keys say: converters write few of the ids, and llama.cpp knows the
# rest by these.
ENDS = ("<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>",
        "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>",
        "<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>", "<｜end▁of▁sentence｜>", "[e~[")
# Ends that are none beside all of these.
NO_ENDS = (("<|end|>", {"<|return|>", "<|call|>"}), ("<|end|>", {"<|return|>", "<|calls|>"}),
           ("<|end|>", {"<|flush|>", "<|call|>"}), ("<|end|>", {"<|flush|>", "<|calls|>"}),
           ("</s>", {"<|tool_response>"}))
MARKUP = "</s>"                                          # of HTML, too, where it is no control token
SPECIAL_KEYS = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding", "unk_token": "unknown"}


def build(metadata: Mapping[str, Any], source: str) -> tuple[tokenizers.Tokenizer, dict[str, str], list[int]]:
    """(backend, texts of bos_token, eos_token ..., ids that end a completion) from the tokenizer.ggml.* keys."""
    tokens = _strings(metadata, "tokens", source)
    vocabulary = {token: i for i, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise TokenizerError(f"{source}: tokenizer.ggml.tokens holds a token twice")
    kind = metadata.get("tokenizer.ggml.model")
    if kind == "gpt2":
        split = split_of(metadata, vocabulary, source)
        backend = byte_level_backend(vocabulary, _strings(metadata, "merges", source, empty=True), split, source)
        add_bos = split.bos
    elif kind == "llama":
        backend = _sentencepiece_backend(vocabulary, metadata, source)
        add_bos = True
    else:
        raise TokenizerError(f"{source}: tokenizer.ggml.model {kind!r:.80} is not supported; gpt2 and llama are")
    for flag in ("normalizer.lowercase", "normalizer.strip_accents", "precompiled_charsmap", "add_sep_token"):
        if metadata.get(f"tokenizer.ggml.{flag}"):
            raise TokenizerError(f"{source}: tokenizer.ggml.{flag} is not supported")
    special = {name: tokens[i] for name, key in SPECIAL_KEYS.items()
               if (i := _id(metadata, key, len(tokens), source)) is not None}
    ends = end_texts(tokens, _types(metadata, len(tokens), source), "tokenizer.ggml.token_type" in metadata)
    _mark_special(backend, tokens, metadata, {**special, **{text: text for text in ends}}, source)
    set_bos_eos(backend, special, _flag(metadata, "add_bos_token", add_bos) and "bos_token" in special,
                _flag(metadata, "add_eos_token", False))
    named = [_id(metadata, key, len(tokens), source) for key in ("eos", "eot", "eom")]
    ids = list(dict.fromkeys([*(i for i in named if i is not None), *(vocabulary[text] for text in ends)]))
    if not ids:
        warn(f"{source}: nothing ends a completion: there is no tokenizer.ggml.eos_token_id, nor a token that is known "
             "to end one; completions go on up to max_new_tokens")
    return backend, special, ids


def end_texts(tokens: Sequence[str], types: Sequence[int], typed: bool = True) -> list[str]:
    """Those of ENDS that end a completion in a vocabulary, as llama.cpp has them: control tokens and, but for what is
    markup too, tokens of the user's. typed: whether the file says which are which; else all. Tokens of
    fill-in-the-middle, which end one in llama.cpp too, are not among them: a model that writes one goes on.

    >>> end_texts(["a", "<|im_end|>", "</s>"], [1, 3, 4])
    ['<|im_end|>']
    """
    found = {text: None for text, kind in zip(tokens, types, strict=True) if text in ENDS
             and (kind == CONTROL or not typed or kind == USER_DEFINED and text != MARKUP)}
    for text, beside in NO_ENDS:
        if beside <= found.keys():
            found.pop(text, None)
    return list(found)


def _sentencepiece_backend(vocabulary: Mapping[str, int], metadata: Mapping[str, Any],
                           source: str) -> tokenizers.Tokenizer:
    """SentencePiece BPE with byte fallback. Its file has scores and no merges: a token is the merge of each pair of
    tokens that spell it, and the better score is merged first."""
    from tokenizers import Tokenizer as Backend, decoders, models, normalizers

    scores = metadata.get("tokenizer.ggml.scores")
    if not isinstance(scores, list) or len(scores) != len(vocabulary) or any(type(x) is not float for x in scores):
        raise TokenizerError(f"{source}: tokenizer.ggml.scores must have one number a token ({len(vocabulary)})")
    if _flag(metadata, "remove_extra_whitespaces", False):
        raise TokenizerError(f"{source}: tokenizer.ggml.remove_extra_whitespaces is not supported")
    # The others are found in the text before it is split (user-defined and control tokens) or never written out in it.
    spelled = [token for token, kind in zip(vocabulary, _types(metadata, len(vocabulary), source), strict=True)
               if kind not in (UNKNOWN, CONTROL, USER_DEFINED, BYTE) and len(token) <= MAX_SPELLED]
    unknown = _id(metadata, "unknown", len(vocabulary), source)
    backend = Backend(bpe(models.BPE, source, vocab=dict(vocabulary), merges=_merges(spelled, vocabulary, scores),
                          fuse_unk=True, byte_fallback=True,
                          unk_token=None if unknown is None else list(vocabulary)[unknown]))
    space = [normalizers.Prepend("▁")] if _flag(metadata, "add_space_prefix", True) else []
    backend.normalizer = normalizers.Sequence([*space, normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                         *([decoders.Strip(" ", 1, 0)] if space else [])])
    return backend


def _merges(tokens: Sequence[str], vocabulary: Mapping[str, int], scores: Sequence[float]) -> list[tuple[str, str]]:
    """Every pair of tokens that spells one of ``tokens``: by falling score, then the longer left side first."""
    pairs = []
    for token in tokens:
        score = -scores[vocabulary[token]]
        for i in range(len(token) - 1, 0, -1):
            if token[:i] in vocabulary and token[i:] in vocabulary:
                pairs.append((score, -i, i - len(token), token))
    pairs.sort(key=lambda pair: pair[:3])                # stable: in the order of the ids where all three are equal
    return [(token[:-left], token[-left:]) for _, left, _, token in pairs]


def _mark_special(backend: tokenizers.Tokenizer, tokens: Sequence[str], metadata: Mapping[str, Any],
                  special: Mapping[str, str], source: str) -> None:
    from tokenizers import AddedToken

    types = _types(metadata, len(tokens), source)
    kinds = [(token, kind) for token, kind in zip(tokens, types, strict=True) if token]
    control = {token for token, kind in kinds if kind in (CONTROL, UNKNOWN)} | set(special.values())
    defined = [token for token, kind in kinds if kind == USER_DEFINED and token not in control]
    # All of a kind at once: each call goes through every token that was added before.
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False)
                                for token, _ in kinds if token in control])
    backend.add_tokens([AddedToken(token, special=False, normalized=False) for token in defined])


def _types(metadata: Mapping[str, Any], size: int, source: str) -> list[int]:
    types = metadata.get("tokenizer.ggml.token_type", [1] * size)
    if not isinstance(types, list) or len(types) != size or any(type(kind) is not int for kind in types):
        raise TokenizerError(f"{source}: tokenizer.ggml.token_type must have one integer a token ({size})")
    return types


def _strings(metadata: Mapping[str, Any], key: str, source: str, empty: bool = False) -> list[str]:
    value = metadata.get(f"tokenizer.ggml.{key}")
    if not isinstance(value, list) or not (value or empty) or any(type(item) is not str for item in value):
        raise TokenizerError(f"{source}: tokenizer.ggml.{key} must be a list of strings")
    return value


def _id(metadata: Mapping[str, Any], key: str, size: int, source: str) -> int | None:
    value = metadata.get(f"tokenizer.ggml.{key}_token_id")
    if value is None:
        return None
    if type(value) is not int:
        raise TokenizerError(f"{source}: tokenizer.ggml.{key}_token_id {value!r:.40} is not a token id "
                             f"(0 to {size - 1})")
    if not 0 <= value < size:                                # often all bits set, for none
        note(f"{source}: tokenizer.ggml.{key}_token_id {value} is no token (0 to {size - 1}); it is left out")
        return None
    return value


def _flag(metadata: Mapping[str, Any], key: str, default: bool) -> bool:
    value = metadata.get(f"tokenizer.ggml.{key}")
    return default if value is None else bool(value)
