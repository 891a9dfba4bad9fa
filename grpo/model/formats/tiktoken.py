"""The tokenizer of the first Qwen models (Qwen, Qwen-VL): qwen.tiktoken, lines of a token in base64 and its rank. How
text is split, the special tokens and the chat format are in no file, so they are here."""
from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, NamedTuple

from ...errors import TokenizerError
from .byte_level import SPLITS, byte_alphabet, byte_level_backend

if TYPE_CHECKING:
    import tokenizers

FILE = "qwen.tiktoken"
MAX_FILE, MAX_TOKENS, MAX_TOKEN = 32 << 20, 1 << 18, 1024
END, START, STOP = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
# Behind the ranks, in this order. What an answer may hold (boxes and what they are of) is text when it is decoded.
SPECIAL = (END, START, STOP, *(f"<|extra_{i}|>" for i in range(205)))
VISUAL = {"<ref>": False, "</ref>": False, "<box>": False, "</box>": False, "<quad>": False, "</quad>": False,
          "<img>": True, "</img>": True, "<imgpad>": True}                       # token: whether decoding leaves it out
# Role, newline and content of a message are encoded apart: a newline that begins the content stays a token.
HEADER = re.compile(r"(?<=<\|im_start\|>)[^\n]*(\n)")
_CHAT = """{%- set seen = namespace(images=0) %}
{%- if messages[0].role != 'system' %}{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}
{%- for message in messages %}{{- '<|im_start|>' ~ message.role ~ '\\n' }}
  {%- if message.content is string %}{{- message.content }}
  {%- else %}{% for part in message.content or [] %}
    {%- if part.type == 'text' %}{{- part.text }}
    {%- elif part.type == 'image' and visual %}{% set seen.images = seen.images + 1 %}
      {{- 'Picture ' ~ seen.images ~ ':<img><imgpad></img>\\n' }}
    {%- else %}{{- raise_exception('this model takes no part of type ' ~ part.type) }}{% endif %}
  {%- endfor %}{% endif %}{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}"""
CHAT, VISUAL_CHAT = "{%- set visual = false %}" + _CHAT, "{%- set visual = true %}" + _CHAT


class Ranks(NamedTuple):
    """What the file says, put together."""

    backend: tokenizers.Tokenizer
    special: dict[str, str]
    ends: list[int]                                      # ids that end a completion, the usual one first
    template: str


def build(data: bytes, visual: bool, chat: bool, source: str) -> Ranks:
    """The tokenizer of a qwen.tiktoken. visual: Qwen-VL's; chat: its answers end with <|im_end|>."""
    from tokenizers import AddedToken

    tokens = read_ranks(data, source)
    alphabet = byte_alphabet()
    texts = ["".join(alphabet[byte] for byte in token) for token in tokens]
    backend = byte_level_backend({text: rank for rank, text in enumerate(texts)}, merges_of(texts),
                                 SPLITS["qwen2"]._replace(whole_words=True), source)
    for text, left_out in {**dict.fromkeys(SPECIAL, True), **(VISUAL if visual else {})}.items():
        backend.add_tokens([AddedToken(text, special=left_out, normalized=False)])
    n = len(tokens)
    return Ranks(backend, {"eos_token": STOP if chat else END, "pad_token": END}, [n + 2, n, n + 1] if chat else [n],
                 VISUAL_CHAT if visual else CHAT)


def read_ranks(data: bytes, source: str) -> list[bytes]:
    """The tokens in the order of their ranks, which are 0, 1, 2, ...; the 256 bytes are among them. TokenizerError
    names the line."""
    if len(data) > MAX_FILE:
        raise TokenizerError(f"{source}: {len(data)} bytes are over the limit of {MAX_FILE}")
    ranks: dict[int, bytes] = {}
    for i, line in enumerate(data.splitlines()):
        if i == MAX_TOKENS:
            raise TokenizerError(f"{source}: has more than {MAX_TOKENS} tokens")
        token, _, rank = line.partition(b" ")
        try:
            piece = base64.b64decode(token, validate=True)
        except binascii.Error as error:
            raise TokenizerError(f"{source}: line {i + 1}: {error}") from error
        if not rank.isdigit() or len(rank) > 9 or not 0 < len(piece) <= MAX_TOKEN or int(rank) in ranks:
            raise TokenizerError(f"{source}: line {i + 1}, {line!r:.80}, is not a token of 1 to {MAX_TOKEN} bytes and "
                                 "a rank of its own")
        ranks[int(rank)] = piece
    if not ranks or max(ranks) >= len(ranks):
        raise TokenizerError(f"{source}: {len(ranks)} ranks that are not 0, 1, 2, ...")
    tokens = [ranks[rank] for rank in range(len(ranks))]
    known = set(tokens)
    if len(known) < len(tokens) or any(bytes([byte]) not in known for byte in range(256)):
        raise TokenizerError(f"{source}: a token stands twice, or one of the 256 bytes is missing")
    return tokens


def merges_of(tokens: list[str]) -> list[str]:
    """Every pair of tokens that makes a third, by that one's rank: what tiktoken merges."""
    ranks = {token: rank for rank, token in enumerate(tokens)}
    merges = []
    for token in tokens:
        pairs = [(ranks[token[:i]], ranks[token[i:]], i) for i in range(1, len(token))
                 if token[:i] in ranks and token[i:] in ranks]
        merges += [f"{token[:i]} {token[i:]}" for _, _, i in sorted(pairs)]
    return merges
