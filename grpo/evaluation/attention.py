"""What the words of an answer look at: weights of attention as maps over images, and over the words before.

Of each word that is asked for, the mean over its tokens, the heads and the layers that are asked for: how much of its
attention goes to every token before it. An image's tokens are a grid of cells, row by row; those of a text are words.
Which layers say most is an old question without one answer; the middle third points at things, the last ones at what
is written next. Two thirds of the depth is what is taken where nobody says otherwise.
"""
from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError, ImageError
from ..vision.decode import read_image

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..model.model import EncodedPrompt, Model
    from ..vision.pictures import Picture

    F32 = NDArray[np.float32]

MOST_BYTES = 1 << 28                         # of weights that are fetched at once
END = -1                                     # behind the last token
WIDE = re.compile(rb"(?!\xe3\x80)[\xe3-\xed\xf0-\xf4]")          # Chinese, Japanese, Korean: a letter may be a word
ROLES = {"system", "user", "assistant", "model", "tool"}         # of chat templates, where they follow a mark
SPAN = re.compile(r"(\d+)(?:-(\d+))?")


@dataclass(frozen=True)
class Word:
    """A word of the prompt or of the answer. tokens: their numbers in the prompt and answer together. line: it begins a
    line."""

    text: str
    tokens: tuple[int, ...]
    line: bool
    answer: bool


@dataclass(frozen=True)
class Gaze:
    """What one word of an answer looked at. tokens: its numbers in the answer. keys: (tokens of prompt and answer but
    the last) share of each; 0 from the word on. maps: of each image (rows, columns) of its cells, parts of keys."""

    text: str
    tokens: tuple[int, ...]
    keys: F32
    maps: list[F32]

    @property
    def image(self) -> float:
        """The share that goes to images."""
        return float(sum(each.sum() for each in self.maps))

    def of(self, words: Sequence[Word]) -> F32:
        """The share of each word; 0 for those that it could not see."""
        return np.array([self.keys[[t for t in word.tokens if t < len(self.keys)]].sum() for word in words], np.float32)


@dataclass(frozen=True)
class Attention:
    """An answer, its prompt's pictures (height, width, 3), and where its words look. what: the layers and heads, in
    words."""

    words: list[Word]
    gazes: list[Gaze]
    pictures: list[NDArray[np.uint8]]
    what: str

    def shares(self, gaze: Gaze) -> dict[str, float]:
        """Where a word's attention goes, together 1: to images, words of the prompt, words of the answer, and the rest:
        marks of the chat template, of images and of the beginning."""
        words = gaze.of(self.words)
        prompt, answer = (float(words[[word.answer is side for word in self.words]].sum()) for side in (False, True))
        return {"image": gaze.image, "prompt": prompt, "answer": answer,
                "marks": max(0.0, 1 - gaze.image - prompt - answer)}


def attend(model: Model, prompt: EncodedPrompt, answer: Sequence[int], tokens: str = "words",
           layer: str = "", head: str = "mean") -> Attention:
    """Where an answer looks. ``prompt``: of `Model.encode_prompt`, with images; ``answer``: its token ids. ``tokens``:
    "words", "all", or numbers of tokens, "3,4,8-11". ``layer``: a number, "mean" of all, "last"; "" two thirds of the
    depth. ``head``: a number, or "mean".

    ConfigError for a token, a layer or a head that is not there, ImageError for a prompt without images or a model
    without a tower.
    """
    sight = model.seeing()
    if not prompt.images:
        raise ImageError("the prompt has no image: there is nothing to look at")
    if not len(answer):
        raise ConfigError("the answer is empty: there is no token that looks at anything")
    words = words_of(model, prompt, answer)
    groups = _groups(model, tokens, words, len(prompt.ids), answer)
    layers, deep = layers_of(layer, model.text_config["num_hidden_layers"])
    chosen = sorted({token for _, some in groups for token in some})
    weights = dict(zip(chosen, _weights(model, prompt, answer, chosen, layers, head), strict=True))
    places = np.split(sight.places(prompt.ids, prompt.images), np.cumsum([p.tokens for p in prompt.images])[:-1])
    gazes = []
    for text, some in groups:
        keys = np.stack([weights[token] for token in some]).mean(axis=0)
        maps = [keys[where].reshape(cells_of(picture)) for where, picture in zip(places, prompt.images, strict=True)]
        gazes.append(Gaze(text, some, keys, maps))
    heads = model.text_config["num_attention_heads"]
    return Attention(words, gazes, [_pixels(picture) for picture in prompt.images],
                     f"{deep}, " + (f"mean of {heads} heads" if head == "mean" else f"head {head} of {heads}"))


def layers_of(layer: str, count: int) -> tuple[list[int], str]:
    """(numbers of layers, what they are in words) of a model of so many.

    >>> layers_of("", 36)
    ([24], 'layer 24 of 36')
    """
    if layer == "mean":
        return list(range(count)), f"mean of {count} layers"
    number = _number(layer or str(2 * count // 3) if layer != "last" else str(count - 1), count, "layer",
                     "'mean' or 'last'")
    return [number], f"layer {number} of {count}"


def cells_of(picture: Picture) -> tuple[int, int]:
    """(rows, columns) of the cells that an image's tokens are."""
    if picture.processor.queries:
        side = math.isqrt(picture.processor.queries)
        return side, side
    merge = picture.processor.merge_size
    return int(picture.grid[1]) // merge, int(picture.grid[2]) // merge


def words_of(model: Model, prompt: EncodedPrompt, answer: Sequence[int]) -> list[Word]:
    """The words of a prompt and its answer in the order of their tokens; marks and places of images are none."""
    places = set(model.seeing().places(prompt.ids, prompt.images).tolist())
    first = len(prompt.ids)
    found = list(_words(model, prompt.ids.tolist(), 0, places, False))
    return [*found, *_words(model, list(answer), first, set(), True)]


def _words(model: Model, ids: Sequence[int], first: int, skipped: set[int], answer: bool) -> Iterator[Word]:
    """Words of a run of ids whose first token has a number."""
    offsets, data = model.tokenizer.token_bytes(model.text_config["vocab_size"])
    special = model.tokenizer.special_ids
    text, tokens, line, marked = b"", list[int](), False, False
    for number, token in enumerate([*ids, END], first):
        mark = token == END or token in special or number in skipped
        piece = b"" if mark else data[offsets[token]:offsets[token + 1]]
        if text.strip() and (mark or text[-1:].isspace() or piece[:1].isspace() or WIDE.match(piece)):
            word = Word(" ".join(text.decode(errors="replace").split()), tuple(tokens), line, answer)
            ends = b"\n" in text[len(text.rstrip()):]
            if not (marked and word.text in ROLES):
                yield word
            text, tokens, line, marked = b"", [], ends or (marked and word.text in ROLES), False
        if mark:                             # what follows a mark that is no image stands on a line of its own
            text, tokens, line, marked = b"", [], number not in skipped, number not in skipped
        else:
            line = line or (not text.strip() and b"\n" in piece)
            text += piece
            tokens.append(number)


def _groups(model: Model, tokens: str, words: Sequence[Word], first: int,
            answer: Sequence[int]) -> list[tuple[str, tuple[int, ...]]]:
    """(text, numbers in the answer) of what is asked for."""
    if tokens == "words":
        found = [(word.text, tuple(t - first for t in word.tokens)) for word in words if word.answer]
        if not found:
            raise ConfigError("the answer has no words; --tokens all shows its tokens")
        return found
    numbers = range(len(answer)) if tokens == "all" else _numbers(tokens, len(answer))
    return [(model.tokenizer.decode([answer[n]], skip_special_tokens=False), (n,)) for n in numbers]


def _numbers(text: str, count: int) -> list[int]:
    """The numbers of "3,4,8-11", each below count."""
    found: list[int] = []
    for part in text.replace(" ", "").split(","):
        match = SPAN.fullmatch(part)
        if not match:
            raise ConfigError(f"tokens {text!r:.80}: must be 'words', 'all', or numbers like 3,4,8-11")
        begin, end = (_number(each, count, "token", "'words' or 'all'") for each in (match[1], match[2] or match[1]))
        if end < begin:
            raise ConfigError(f"tokens {text!r:.80}: {part} ends before it begins")
        found += range(begin, end + 1)
    return list(dict.fromkeys(found))


def _number(text: str, count: int, what: str, words: str) -> int:
    """A number below count."""
    if not text.isascii() or not text.isdigit():
        raise ConfigError(f"{what} {text!r:.80} must be a number, {words}")
    if int(text) >= count:
        raise ConfigError(f"{what} {text:.80} is not there: there are {count}, 0 to {count - 1}")
    return int(text)


def _weights(model: Model, prompt: EncodedPrompt, answer: Sequence[int], tokens: Sequence[int], layers: Sequence[int],
             head: str) -> F32:
    """(tokens, keys) means over layers, and over heads or of one head; as many layers at once as there is room for."""
    heads = model.text_config["num_attention_heads"]
    one = None if head == "mean" else _number(head, heads, "head", "or 'mean'")
    layer_bytes = 4 * len(tokens) * heads * (len(prompt.ids) + len(answer))
    parts = np.array_split(np.array(layers), min(len(layers), 1 + len(layers) * layer_bytes // MOST_BYTES))
    total: Any = 0
    for part in parts:
        found = model.attention(prompt.ids.tolist(), list(answer), tokens, part.tolist(), [prompt.images])
        total = total + (found.mean(2) if one is None else found[:, :, one]).sum(0)
    return np.asarray(total / len(layers), np.float32)


def _pixels(picture: Picture) -> NDArray[np.uint8]:
    return read_image(picture.source, picture.place, as_stored=picture.processor.as_stored)
