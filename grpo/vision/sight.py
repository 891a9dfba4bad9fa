"""What a model with a tower does for prompts with images: ids, positions, and the features of the images."""
from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import __version__, _core
from ..errors import ConfigError, ImageError
from .expand import (
    IMG,
    IMG_END,
    IMG_IDS,
    IMG_PAD,
    IMG_PLACEHOLDER,
    IMG_TAG,
    MAX_PATH,
    prompt_ids,
    qwen_vl_ids,
    qwen_vl_places,
)
from .messages import MARKER, is_chat, normal
from .pictures import CACHE_BYTES, FeatureCache, Picture, look, read_pixels, see
from .positions import rope_positions
from .processor import Processor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    I32 = NDArray[np.int32]
    Seen = tuple[I32, int, I32, list[tuple[Any, Any, Any]]]          # of a prompt, as the core takes it

# Ids that a config leaves out, as transformers has them.
TOKENS = {"image_token_id": 151655, "video_token_id": 151656}
SEEN_AT_ONCE = 64                            # images whose features are held at a time, where none are kept
NEVER_DRAWN = ("image_token_id", "video_token_id")


class Sight:
    """The seeing half of a model. processor: how it wants images; it may be replaced (min_pixels, max_pixels). files:
    those that it was read from."""

    def __init__(self, core: _core.Model, config: Mapping[str, Any], processor: Processor,
                 files: Mapping[str, bytes] | None = None) -> None:
        self.core, self.processor, self._read, self._files = core, processor, processor, dict(files or {})
        self.tokens = {name: _token(config, name) for name in TOKENS}
        self._vision = config.get("vision_config", config.get("visual"))
        self.cache_bytes = CACHE_BYTES
        self.cache_folder: str | Path | None = None
        self._cache, self._version = FeatureCache(), -1

    @property
    def image_token_id(self) -> int:
        """The id that stands for an image's features."""
        return self.tokens["image_token_id"]

    @property
    def never_drawn(self) -> list[int]:
        """Ids that no completion may hold: they would stand for images that are not there."""
        return [self.tokens[name] for name in NEVER_DRAWN]

    @property
    def features(self) -> FeatureCache:
        """What the tower as it is now has seen."""
        if self._version != self.core.tower_version:
            folder = None if self.cache_folder is None else Path(self.cache_folder)
            self._cache = FeatureCache(self.cache_bytes, folder, self._fingerprint() if folder else "")
            self._version = self.core.tower_version
        return self._cache

    def keep(self, limit: int, folder: str | Path | None) -> None:
        """Sets how much is kept of what the tower has seen: bytes of memory, and a folder on disk or None."""
        self.cache_bytes, self.cache_folder, self._version = limit, folder, -1

    def _fingerprint(self) -> str:
        """Of all that decides what the tower makes of pixels, by which features on disk are told apart."""
        core = self.core
        digest = hashlib.blake2b(f"{core.device} {core.tier} {core.dtype} {__version__}".encode(), digest_size=16)
        digest.update(json.dumps(self._vision, sort_keys=True).encode())
        for name, shape in (each for each in core.tensors() if ".visual." in each[0]):
            digest.update(f"{name} {shape}".encode() + core.get_tensor(name).tobytes())
        return digest.hexdigest()

    def save_files(self) -> dict[str, bytes]:
        """The processor's files, for a folder with the model."""
        return self.processor.files(self._files, self._read)

    def copy(self, core: _core.Model, config: Mapping[str, Any]) -> Sight:
        """The same for a model whose tower has the same weights now: it has the features that this one has."""
        other = type(self)(core, config, self._read, self._files)
        other.processor, other.cache_bytes, other.cache_folder = self.processor, self.cache_bytes, self.cache_folder
        other._cache, other._version = self.features, core.tower_version
        return other

    def encode(self, tokenizer: Any, prompt: Any, images: Sequence[Any] = (), where: str = "the prompt",
               **variables: Any) -> tuple[I32, list[Picture]]:
        """(ids with a token for each feature, images) of a prompt of text, messages or ids. images: those that the
        prompt does not hold itself. Of ids that hold as many tokens as the images have features nothing is repeated.
        variables: of the chat template."""
        prompt, found = normal(prompt, images, where)
        pictures = look(found, self.processor, where)
        counts = [each.tokens for each in pictures]
        if not isinstance(prompt, str) and not is_chat(prompt):
            ids = np.asarray(prompt)
            if ids.ndim == 1 and int((ids == self.image_token_id).sum()) == sum(counts) and ids.dtype.kind in "iu":
                self.positions(ids, pictures, where)
                return ids.astype(np.int32), pictures
        ids = prompt_ids(tokenizer, prompt, counts, self.image_token_id, where, **variables)
        self.positions(ids, pictures, where)             # no video, and every image in a place of its own
        return ids, pictures

    def inputs(self, prompts: Sequence[I32], pictures: Sequence[Sequence[Picture]], *,
               pixels: bool = False) -> list[Seen | None] | None:
        """What the core takes beside the ids of prompts; None where none has an image. pixels: for a tower that is
        trained, which makes the features itself."""
        if len(pictures) != len(prompts):
            raise ConfigError(f"images of {len(pictures)} prompts for {len(prompts)} prompts")
        every = [each for some in pictures for each in some]
        positions = [self.positions(ids, some, f"prompt {i}")
                     for i, (ids, some) in enumerate(zip(prompts, pictures, strict=True))]
        if not every:
            self.refuse_tokens(prompts)
            return None
        parts: Iterator[tuple[Any, Any, Any]]
        if pixels:
            parts = iter([(each.grid, rows, None) for each, rows in zip(every, read_pixels(every), strict=True)])
        else:
            features = see(self.core, every, self.features)
            parts = iter([(each.grid, None, made) for each, made in zip(every, features, strict=True)])
        return [(*where, self.places(ids, some), [next(parts) for _ in some]) if some else None
                for ids, some, where in zip(prompts, pictures, positions, strict=True)]

    def embed(self, images: Sequence[Any], width: int) -> NDArray[np.float32]:
        """(len(images), width) float32: the mean of each image's features, those that stand in place of tokens."""
        pictures = look(images, self.processor, "embed()")
        vectors = np.empty((len(pictures), width), np.float32)
        for first in range(0, len(pictures), SEEN_AT_ONCE):
            for i, made in enumerate(see(self.core, pictures[first:first + SEEN_AT_ONCE], self.features), first):
                level = made[0]                          # uint16 are the bits of bfloat16
                values = level.astype(np.float32) if level.dtype == np.float32 else \
                    (level.astype(np.uint32) << 16).view(np.float32)
                vectors[i] = values.mean(axis=0, dtype=np.float64)
        return vectors

    def check_drawn(self, ids: I32, where: str) -> None:
        """ImageError for ids that stand for images where there are none: of a completion, of a text on its own."""
        if (found := ids[np.isin(ids, self.never_drawn)]).size:
            raise ImageError(f"{where} holds token {found[0]}, which stands for an image or a video, and there can be "
                             "none")

    def places(self, ids: I32, pictures: Sequence[Picture], where: str = "the prompt") -> I32:
        """Where in ids the features of images stand."""
        return np.flatnonzero(ids == self.image_token_id).astype(np.int32)

    def refuse_tokens(self, prompts: Sequence[I32]) -> None:
        """ImageError where prompts without images hold tokens of images."""
        for i, ids in enumerate(prompts):
            if count := int((ids == self.image_token_id).sum()):
                raise ImageError(f"prompt {i} has {count} image tokens (token {self.image_token_id}) and no images: "
                                 "give them with images=")

    def positions(self, ids: I32, pictures: Sequence[Picture], where: str = "the prompt") -> tuple[I32, int]:
        """((3, len(ids)) positions of a prompt's tokens, the position after them)."""
        grids = np.array([each.grid for each in pictures], np.int64)
        return rope_positions(ids, grids, self.image_token_id, self.processor.merge_size,
                              video_token_id=self.tokens["video_token_id"], where=where)


class PathSight(Sight):
    """The seeing half of Qwen-VL and Qwen-VL-Chat. An image stands in a text as <img>PATH</img>, and in ids as 256 of
    them between those of <img> and </img>: the bytes of its path, then <imgpad>. What the model reads in these places
    are the image's features, so paths are names: an image without a path is called image1.png, by its number in the
    prompt, and so is one whose path would not fit."""

    def __init__(self, core: _core.Model, config: Mapping[str, Any], processor: Processor,
                 files: Mapping[str, bytes] | None = None) -> None:
        super().__init__(core, config, processor, files)
        visual = config["visual"]
        start = visual.get("image_start_id", IMG)
        if type(start) is not int or start < 0:
            raise ConfigError(f"config.json: visual.image_start_id must be a token id, not {start!r:.80}")
        if processor.queries != IMG_IDS:
            raise ConfigError(f"config.json: visual.n_queries is {processor.queries}, and a prompt of this model has "
                              f"{IMG_IDS} places for an image")
        self.tokens = {"image_start_id": start, "image_end_id": start + IMG_END - IMG, "pad": start + IMG_PAD - IMG}

    @property
    def image_token_id(self) -> int:
        """The id that an image begins with."""
        return self.tokens["image_start_id"]

    @property
    def never_drawn(self) -> list[int]:
        """Ids that no completion may hold: they would stand for images that are not there."""
        return list(self.tokens.values())

    def encode(self, tokenizer: Any, prompt: Any, images: Sequence[Any] = (), where: str = "the prompt",
               **variables: Any) -> tuple[I32, list[Picture]]:
        """(ids with 256 of them for each image, images) of a prompt of text, messages or ids. images: those that the
        prompt does not hold itself; they stand in a text's markers <image>, or else in its <img>PATH</img>, which then
        only name them. An <img>PATH</img> without such an image is the image at that path."""
        prompt, found = normal(prompt, images, where)
        if not isinstance(prompt, str) and not is_chat(prompt):
            pictures = look(found, self.processor, where)
            qwen_vl_places(prompt, len(pictures), where, self.image_token_id)
            return np.asarray(prompt, np.int32), pictures
        text = tokenizer.apply_chat_template(prompt, tokenize=False, **variables) if is_chat(prompt) else \
            marked(prompt, len(found), where)
        text, sources = named(text, found, where)
        ids, _ = qwen_vl_ids(text, tokenizer.encode, where, self.image_token_id)
        return ids, look(sources, self.processor, where)

    def places(self, ids: I32, pictures: Sequence[Picture], where: str = "the prompt") -> I32:
        """The places after each <img>."""
        return qwen_vl_places(ids, len(pictures), where, self.image_token_id)

    def positions(self, ids: I32, pictures: Sequence[Picture], where: str = "the prompt") -> tuple[I32, int]:
        """((1, len(ids)) positions of a prompt's tokens, one after another, the position after them)."""
        self.places(ids, pictures, where)
        return np.arange(len(ids), dtype=np.int32)[None], len(ids)


def marked(text: str, count: int, where: str) -> str:
    """A prompt of plain text whose markers <image>, where they are the places of count images, are placeholders of
    Qwen-VL, numbered as its own code does."""
    if not count or IMG_TAG.search(text):
        return text
    first, *others = text.split(MARKER)
    if len(others) != count:
        raise ImageError(f"{where}: its text has {len(others)} markers {MARKER} and no <img>PATH</img> for {count} "
                         "images")
    return first + "".join(f"Picture {k}:<img>{IMG_PLACEHOLDER}</img>\n{piece}" for k, piece in enumerate(others, 1))


def named(text: str, given: Sequence[Any], where: str) -> tuple[str, list[Any]]:
    """(a text whose placeholders are names of images, its images in their order). given: those of its placeholders, or
    where it has none of all its <img>PATH</img>."""
    tags = IMG_TAG.findall(text)
    empty = tags.count(IMG_PLACEHOLDER)
    if len(given) != (empty or (len(tags) if given else 0)):
        raise ImageError(f"{where}: its text has {empty or len(tags)} places of images for {len(given)} images")
    waiting = iter(given)
    all_given = bool(given) and not empty
    sources = [next(waiting) if all_given or tag == IMG_PLACEHOLDER else tag for tag in tags]
    names = iter([name_of(source, k) if tag == IMG_PLACEHOLDER else tag
                  for k, (tag, source) in enumerate(zip(tags, sources, strict=True), 1)])
    return IMG_TAG.sub(lambda _: f"<img>{next(names)}</img>", text), sources


def name_of(image: Any, number: int) -> str:
    """What an image is called in a prompt of Qwen-VL: its path, or a name made of its number."""
    path = image.source if isinstance(image, Picture) else image
    if isinstance(path, Mapping):
        path = path.get("path")
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else ""
    if not isinstance(text, str) or not text or text.startswith("data:") or "<" in text or \
            len(text.encode(errors="surrogateescape")) > MAX_PATH:
        return f"image{number}.png"
    return text


def sight_of(core: _core.Model, config: Mapping[str, Any], processor: Processor,
             files: Mapping[str, bytes] | None = None) -> Sight:
    """What a model whose images are seen that way does for prompts with images. files: as of `Sight`."""
    return (PathSight if processor.queries else Sight)(core, config, processor, files)


def images_by_prompt(images: Any, prompts: int, one: bool) -> list[list[Any]]:
    """What a caller gave as images, a list a prompt. one: the prompt is a single one, and its images may be given
    without a list around them."""
    if images is None:
        return [[] for _ in range(prompts)]
    if not isinstance(images, (list, tuple)):
        images = [images]
    if one and (len(images) != prompts or not all(isinstance(each, (list, tuple)) or each is None for each in images)):
        images = [images]
    if len(images) != prompts:
        raise ImageError(f"images of {len(images)} prompts for {prompts} prompts; give a list a prompt")
    return [[] if each is None else list(each) if isinstance(each, (list, tuple)) else [each] for each in images]


def _token(config: Mapping[str, Any], name: str) -> int:
    value = config.get(name, TOKENS[name])
    if type(value) is not int or value < 0:
        raise ConfigError(f"config.json: {name} must be a token id, not {value!r:.80}")
    return value
