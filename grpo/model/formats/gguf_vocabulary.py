"""What a GGUF says of a tokenizer, from one of the `tokenizers` library: gguf_tokenizer's inverse.

What is written is built again and compared on texts that vocabularies differ in, before it is trusted."""
from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import TokenizerError, note, warn
from .byte_level import byte_level_backend
from .gguf_splits import NAMES
from .gguf_tokenizer import BYTE, CONTROL, SPECIAL_KEYS, UNKNOWN, UNUSED, USER_DEFINED, build, end_texts

if TYPE_CHECKING:
    import tokenizers

NORMAL = 1
# Where texts are split otherwise
AFTER, BESIDE = "text after a special token (so every chat prompt)", "a space beside a special token"
BEFORE = "a space at the beginning of a text"
MESSAGE_END = "<|eom_id|>"                               # ends a message, not the turn
FORMS = ("NFC", "NFD", "NFKC", "NFKD")
MOST_MARKED = 100                                        # special tokens that are tried in a text
PROBES = (
    "a", "Hello, world!", " Hello  world ", "It's John's; they'LL don't\n\n\nx\r\n\r\n y\t\tz",
    "a    b" + " " * 17 + "c",
    "12345 + 67890 = 80235, 3.14159e-10", "def f(x):\n    return {x: [1, 2]}  # ok\n", "日本語テスト、中文测试。한국어",
    "العربية עברית हिन्दी ไทย ελληνικά Кириллица", "🙂👩\u200d👩\u200d👧🏽 🇩🇪 ½ Ａ \u00a0\u2003x", "ǆ ﬁ naïve café",
    "https://example.org/a?b=c&d=%20 <table><td>x</td></table> <0x41> \\boxed{\\frac{1}{2}}", "\n", "\n \n", "  ",
)


def vocabulary(backend: tokenizers.Tokenizer, special: Mapping[str, str], eos_ids: Sequence[int], rows: int,
               source: str) -> dict[str, Any]:
    """The tokenizer.ggml.* keys. special: texts of bos_token and its like; eos_ids: those that end a completion; rows:
    of the embedding, whose rows without a token get one that is never used. TokenizerError for what GGUF has no word
    for."""
    described = json.loads(backend.to_str())
    if described["model"].get("type") != "BPE":
        raise TokenizerError(f"{source}: a {described['model'].get('type')} tokenizer is not written as GGUF; "
                             "byte-level BPE and SentencePiece BPE are")
    by_bytes = "ByteLevel" in json.dumps([described["decoder"], described["pre_tokenizer"]])
    if not by_bytes and not described["model"].get("byte_fallback"):
        raise TokenizerError(f"{source}: BPE that is neither of bytes nor SentencePiece's (byte_fallback) is not "
                             "written as GGUF")
    merges = [tuple(pair.split(" ", 1)) if isinstance(pair, str) else tuple(pair)
              for pair in described["model"]["merges"]]
    tokens, types = _tokens(backend, described["model"].get("unk_token"), not by_bytes, rows, source)
    found: dict[str, Any] = {"model": "gpt2" if by_bytes else "llama"}
    found["pre"] = _pre(described, bool(merges), source) if by_bytes else "default"
    found["tokens"] = tokens
    if by_bytes:
        found["merges"] = [" ".join(pair) for pair in merges]
    else:
        found["scores"] = _scores(tokens, merges)
    found["token_type"] = types
    found |= _special_ids(backend, special, eos_ids, end_texts(tokens, types), source)
    found |= _added(backend, special, not by_bytes, source)
    metadata = {f"tokenizer.ggml.{key}": value for key, value in found.items()}
    if normal := [step["type"] for step in _flat(described["normalizer"], "normalizers") if step["type"] in FORMS]:
        warn(f"{source}: text is normalised by this tokenizer ({', '.join(normal)}), which llama.cpp does not do: "
             "there letters with combining accents, as some systems write them, become other ids")
    _check(backend, metadata, source, any(step["type"] == "Metaspace" for step in
                                          _flat(described["pre_tokenizer"], "pretokenizers")))
    return metadata


def _tokens(backend: tokenizers.Tokenizer, unknown: str | None, pieces: bool, rows: int,
            source: str) -> tuple[list[str], list[int]]:
    """(texts, types) by id, for every row of the embedding. pieces: of SentencePiece, which has tokens for bytes."""
    tokens, types = [f"[PAD{i}]" for i in range(rows)], [UNUSED] * rows
    added = backend.get_added_tokens_decoder()
    for text, i in backend.get_vocab(with_added_tokens=True).items():
        if i >= rows:
            raise TokenizerError(f"{source}: token {text!r:.80} has id {i}, the model has {rows} rows of embedding")
        tokens[i], types[i] = text, NORMAL
        if i in added:
            types[i] = CONTROL if added[i].special else USER_DEFINED
            if pieces and types[i] == USER_DEFINED:
                tokens[i] = text.replace("▁", " ")
        elif pieces and len(text) == 6 and text.startswith("<0x"):
            types[i] = BYTE
        if pieces and text == unknown:
            types[i] = UNKNOWN
    return tokens, types


def _scores(tokens: Sequence[str], merges: Sequence[tuple[str, ...]]) -> list[float]:
    """SentencePiece's: the better one is merged first, and of merges to one token the first counts."""
    first: dict[str, int] = {}
    for i, pair in enumerate(merges):
        first.setdefault("".join(pair), i)
    return [-float(first.get(token, len(merges))) for token in tokens]


def _pre(described: Mapping[str, Any], merges: bool, source: str) -> str:
    """The name of the way a text is split (the first of those in gguf_splits.NAMES)."""
    if not merges:                                       # single bytes, however they are split
        return "gpt-2"
    wanted = _way(described)
    named = {names.split()[0]: _way(json.loads(byte_level_backend({"a": 0}, [], split, source).to_str()))
             for names, split in NAMES.items()}
    for name, way in named.items():
        if way == wanted:
            return name
    for name, way in named.items():
        if way[1:] == wanted[1:] and not wanted[0]:
            warn(f"{source}: text is not normalised by this tokenizer and is (NFC) by one that a GGUF calls {name}: "
                 "letters with combining accents may become other ids")
            return name
    near = {name: way for name, way in named.items() if way[1] == wanted[1]}
    if not near:
        raise TokenizerError(f"{source}: the way in which this tokenizer splits text has no name that is known in GGUF "
                             f"(known: {', '.join(named)}): {json.dumps(described['pre_tokenizer']):.300}")
    name, way = min(near.items(), key=lambda each: each[1][2] != wanted[2])
    differs = [f"normalizer is {', '.join(wanted[0]) or 'none':.200}, there {', '.join(way[0]) or 'none'}"] \
        if way[0] != wanted[0] else []
    differs += [f"ignore_merges is {wanted[2]}, there {way[2]}".lower()] if way[2] != wanted[2] else []
    raise TokenizerError(f"{source}: this tokenizer cuts text as one does that a GGUF calls {name}, but its "
                         f"{' and its '.join(differs)}: what reads the GGUF would make other ids")


def _way(described: Mapping[str, Any]) -> tuple[list[str], list[Any], bool]:
    """(normalizers, steps of the pre-tokenizer, whether whole words are looked up first), without what changes no
    id."""
    steps = [{key: value for key, value in step.items() if key != "trim_offsets"}
             for step in _flat(described["pre_tokenizer"], "pretokenizers")]
    return ([json.dumps(step, sort_keys=True) for step in _flat(described["normalizer"], "normalizers")], steps,
            bool(described["model"].get("ignore_merges")))


def _flat(step: Mapping[str, Any] | None, inside: str) -> list[Mapping[str, Any]]:
    if step is None:
        return []
    return [each for part in step[inside] for each in _flat(part, inside)] if step["type"] == "Sequence" else [step]


def _special_ids(backend: tokenizers.Tokenizer, special: Mapping[str, str], eos_ids: Sequence[int],
                 by_text: Sequence[str], source: str) -> dict[str, int]:
    """by_text: of tokens that end a completion without a key."""
    named = {key: backend.token_to_id(special[name]) for name, key in SPECIAL_KEYS.items() if name in special}
    found = {f"{key}_token_id": i for key, i in named.items() if i is not None}
    if eos_ids:
        found.setdefault("eos_token_id", eos_ids[0])
    # The last key is for a message that is over while the turn is not.
    rest = sorted((i for i in eos_ids if i != found["eos_token_id"]),
                  key=lambda i: (backend.id_to_token(i) == MESSAGE_END, backend.id_to_token(i) in by_text))
    keys = ["eot_token_id", "eom_token_id"]
    if len(rest) == 1 and backend.id_to_token(rest[0]) == MESSAGE_END:
        keys = keys[1:]
    found |= dict(zip(keys, rest, strict=False))
    if more := [text for text in by_text if backend.token_to_id(text) not in eos_ids]:
        note(f"{source}: {', '.join(map(repr, more))} will end a completion in what reads the GGUF, which knows such "
             "tokens by their text, and does not here")
    if left := [i for i in rest[2:] if backend.id_to_token(i) not in by_text]:
        warn(f"{source}: {', '.join(repr(backend.id_to_token(i)) for i in left)} end a completion here; a GGUF has "
             f"keys for three such tokens")
    return found


def _added(backend: tokenizers.Tokenizer, special: Mapping[str, str], pieces: bool, source: str) -> dict[str, bool]:
    """Whether BOS and EOS, and, of SentencePiece, a space, are put around a text."""
    inside, whole = backend.encode("a", add_special_tokens=False).ids, backend.encode("a").ids
    begin, end = ([backend.token_to_id(special[name])] if name in special else []
                  for name in ("bos_token", "eos_token"))
    for bos, eos in ((False, False), (True, False), (False, True), (True, True)):
        if whole == [*begin * bos, *inside, *end * eos]:
            break
    else:
        raise TokenizerError(f"{source}: what this tokenizer puts around a text is neither BOS nor EOS: "
                             f"{backend.encode('a').tokens!r:.200}")
    found = {"add_bos_token": bos, "add_eos_token": eos}
    if pieces:
        found["add_space_prefix"] = backend.encode("a", add_special_tokens=False).tokens[0].startswith("▁")
    return found


def _check(backend: tokenizers.Tokenizer, metadata: Mapping[str, Any], source: str, space_once: bool) -> None:
    """The tokenizer that a reader builds of the keys splits texts as this one does; where it can't, that is said.

    space_once: a text that begins with a space gets no other one (Metaspace), for which there is no key."""
    read = build(metadata, source)[0]
    probes = [(text, added) for text in PROBES for added in (True, False) if not (space_once and text[0] == " ")]
    for text, added in probes:
        ours, theirs = (each.encode(text, add_special_tokens=added) for each in (backend, read))
        if ours.ids != theirs.ids:
            raise TokenizerError(f"{source}: a GGUF of this tokenizer would split {text!r:.80} otherwise: "
                                 f"{theirs.tokens!r:.200}, not {ours.tokens!r:.200}")
    types = metadata["tokenizer.ggml.token_type"]
    marked = [backend.id_to_token(i) for i, kind in enumerate(types) if kind in (CONTROL, USER_DEFINED)]
    others = [(text, where) for text, where in [*((f"{token}a", AFTER) for token in marked[:MOST_MARKED]),
                                                *((f"a {token} b", BESIDE) for token in marked[:MOST_MARKED]),
                                                (" a", BEFORE)] if backend.encode(text).ids != read.encode(text).ids]
    if others:
        text = others[0][0]
        warn(f"{source}: {' and '.join(dict.fromkeys(where for _, where in others))} is split otherwise by what reads "
             f"the GGUF: {text!r:.80} is {read.encode(text).tokens!r:.200}, here {backend.encode(text).tokens!r:.200}")
