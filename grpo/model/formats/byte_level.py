"""Byte-level BPE, as Qwen, Llama 3 and SmolLM split text, put together with the `tokenizers` library."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ...errors import TokenizerError

if TYPE_CHECKING:
    import tokenizers


class Split(NamedTuple):
    """How a text is cut before its pieces are merged."""

    regex: str | None = None                             # None: GPT-2's own
    digits: bool = False                                 # digits one by one, before the regex
    nfc: bool = False
    whole_words: bool = False                            # a word that is a token is not merged up from its bytes
    bos: bool = False                                    # BOS is added unless the file says otherwise
    before: tuple[str, ...] = ()                         # regexes that cut it first, each the pieces of the one before


WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS = {
    "gpt-2": Split(),
    "smollm": Split(digits=True),
    "qwen2": Split(regex=WORDS % r"\p{N}", nfc=True),
    "llama-bpe": Split(regex=WORDS % r"\p{N}{1,3}", whole_words=True, bos=True),
}


def byte_alphabet() -> list[str]:
    """The printable character that byte-level BPE uses for each byte (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    table = {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(rest)}
    return [table[byte] for byte in range(256)]


def byte_level_backend(vocabulary: Mapping[str, int], merges: Sequence[str], pre: Any,
                       source: str) -> tokenizers.Tokenizer:
    """Byte-level BPE; ``merges`` are "left right" lines, best first; ``pre`` is a Split or a key of SPLITS."""
    from tokenizers import Regex, Tokenizer as Backend, decoders, models, normalizers, pre_tokenizers

    if not isinstance(pre, Split) and (not isinstance(pre, str) or pre not in SPLITS):
        raise TokenizerError(f"{source}: pre-tokenizer {pre!r:.80} is not supported; supported: {', '.join(SPLITS)}")
    split = pre if isinstance(pre, Split) else SPLITS[pre]
    pairs = [tuple(line.split(" ")) for line in merges]
    wrong = next((i for i, pair in enumerate(pairs) if len(pair) != 2 or "".join(pair) not in vocabulary), None)
    if wrong is not None:
        raise TokenizerError(f"{source}: merge {wrong}, {merges[wrong]!r:.80}, is not two tokens that make a third")
    backend = Backend(bpe(models.BPE, source, vocab=dict(vocabulary), merges=pairs, ignore_merges=split.whole_words))
    steps: list[pre_tokenizers.PreTokenizer] = [pre_tokenizers.Digits(individual_digits=True)] if split.digits else []
    regexes = [*split.before, *([split.regex] if split.regex else [])]
    steps += [pre_tokenizers.Split(Regex(regex), behavior="isolated") for regex in regexes]
    steps += [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split.regex is None)]
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    if split.nfc:
        backend.normalizer = normalizers.NFC()
    backend.decoder = decoders.ByteLevel()
    return backend


def bpe(model: Any, source: str, **arguments: Any) -> Any:
    """model(**arguments), or TokenizerError where they contradict each other."""
    try:
        return model(**arguments)
    except Exception as error:
        raise TokenizerError(f"{source}: vocabulary and merges do not fit: {error!s:.200}") from error


def set_bos_eos(backend: tokenizers.Tokenizer, special: Mapping[str, str], bos: bool, eos: bool) -> None:
    """Makes encode(add_special_tokens=True) add BOS and EOS, or neither."""
    from tokenizers.processors import TemplateProcessing

    begin, end = special.get("bos_token") if bos else None, special.get("eos_token") if eos else None
    used = [(text, backend.token_to_id(text)) for text in (begin, end) if text is not None]
    if any(i is None for _, i in used):
        raise TokenizerError(f"add_bos_token or add_eos_token: {used!r:.100} is not in the vocabulary")
    backend.post_processor = TemplateProcessing(single=[*([begin] if begin else []), "$A", *([end] if end else [])],
                                                special_tokens=used)
