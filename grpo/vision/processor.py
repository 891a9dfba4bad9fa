"""How a model wants to see images: sizes, patches, means; read from its files and written to them."""
from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from ..errors import ConfigError, FileFormatError, ImageError, UnsupportedModelError, warn

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5)
BICUBIC = 3                                    # as Pillow counts filters
FILES = ("processor_config.json", "preprocessor_config.json")
KEPT_FILES = (*FILES, "video_preprocessor_config.json")        # what a saved model has of the folder it came from
MAX_BYTES = 1 << 20
MAX_SIDE = 1 << 20                             # of a size limit's root
# What the repositories of a family hold, for folders without these files.
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen2_vl": {"max_pixels": 12845056},
    "qwen2_5_vl": {"max_pixels": 12845056},
    "qwen3_vl": {"patch_size": 16, "min_pixels": 65536, "max_pixels": 16777216, "mean": HALF, "std": HALF},
    "qwen": {"fixed": 448, "queries": 256, "merge_size": 1, "temporal_patch_size": 1},
}
PROCESSOR_CLASS = {"qwen2_vl": "Qwen2VLProcessor", "qwen2_5_vl": "Qwen2_5_VLProcessor", "qwen3_vl": "Qwen3VLProcessor"}
KINDS = {"Qwen2VLImageProcessor", "Qwen2VLImageProcessorFast", "Qwen2VLImageProcessorPil"}
# Numbers of a processor that are its tower's too, and how a config calls them.
OF_TOWER = {"patch_size": "patch_size", "temporal_patch_size": "temporal_patch_size",
            "merge_size": "spatial_merge_size"}
# Keys that would change pixels, and the one value of each that is done.
ONLY = {"resample": BICUBIC, "do_center_crop": False, "do_pad": False}


@dataclass(frozen=True)
class Processor:
    """How the models of a family see images. The values without a word are those of transformers' class.

    ``min_pixels``, ``max_pixels``: of an image as the model sees it. ``fixed``: the side of the square that every
    image is made, whatever its shape; ``queries``: the placeholders that such an image takes (Qwen-VL-Chat).
    """

    family: str
    patch_size: int = 14
    temporal_patch_size: int = 2
    merge_size: int = 2
    min_pixels: int = 56 * 56
    max_pixels: int = 28 * 28 * 1280
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    fixed: int | None = None
    queries: int | None = None
    rescale_factor: float = 1 / 255
    do_resize: bool = True
    do_rescale: bool = True
    do_normalize: bool = True

    @classmethod
    def of(cls, family: str) -> Processor:
        """As the repositories of a family have it: "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen" (Qwen-VL-Chat)."""
        if family not in FAMILIES:
            raise UnsupportedModelError(f"no images for models of type {family!r:.80}; there are {', '.join(FAMILIES)}")
        return cls(family, **FAMILIES[family])

    @classmethod
    def read(cls, folder: Path | str | None, config: Mapping[str, Any]) -> Processor:
        """The processor of the model in a folder, whose config.json is ``config``.

        Without preprocessor_config.json (or processor_config.json with "image_processor") it is that of the family,
        for the patches of the config's tower, and a warning says so; Qwen-VL-Chat has none, its config says all. Raises
        FileFormatError for a value that cannot be, UnsupportedModelError for what would change pixels and is not done.
        """
        family = config.get("model_type")
        usual = cls.of(family if isinstance(family, str) else "")
        if family == "qwen":
            return _of_visual(usual, config.get("visual"))
        values, source = _find(None if folder is None else Path(folder))
        if values is None:
            usual = _of_tower(usual, config.get("vision_config"))
            warn(f"{folder or 'this model'}: no {FILES[1]}: images are seen as is usual for {family} "
                 f"(min_pixels={usual.min_pixels}, max_pixels={usual.max_pixels})")
            return usual
        processor = _of_values(cls(usual.family), values, source)
        _check_config(processor, config.get("vision_config"), source)
        return processor

    def with_limits(self, min_pixels: int | None = None, max_pixels: int | None = None) -> Processor:
        """The same with other limits; None keeps one."""
        if min_pixels is None and max_pixels is None:
            return self
        if self.fixed:
            raise ConfigError(f"this model sees every image as {self.fixed} x {self.fixed} pixels: it takes no "
                              "min_pixels, max_pixels")
        for name, value in (("min_pixels", min_pixels), ("max_pixels", max_pixels)):
            if value is not None and not (isinstance(value, Integral) and 1 <= int(value) <= MAX_SIDE**2):
                raise ConfigError(f"{name} must be a number of pixels, not {value!r:.80}")
        limits = (int(self.min_pixels if min_pixels is None else min_pixels),
                  int(self.max_pixels if max_pixels is None else max_pixels))
        if limits[0] > limits[1]:
            raise ConfigError(f"min_pixels={limits[0]} is more than max_pixels={limits[1]}")
        return replace(self, min_pixels=limits[0], max_pixels=limits[1])

    def size(self, height: int, width: int, place: str = "an image") -> tuple[int, int]:
        """(height, width) at which the model sees an image of that size; ImageError if it cannot."""
        factor = self.patch_size * self.merge_size
        if self.fixed:
            return self.fixed, self.fixed
        if not self.do_resize:
            if height % factor or width % factor:
                raise ImageError(f"{place}: has {width} x {height} pixels; this model's processor resizes nothing "
                                 f"(do_resize is false), so both must be multiples of {factor}")
            return height, width
        try:
            return _core.smart_resize(height, width, factor, self.min_pixels, self.max_pixels)
        except ConfigError as error:
            raise ImageError(f"{place}: {error}") from error

    def grid(self, height: int, width: int, place: str = "an image") -> tuple[int, int, int]:
        """(frames, rows, columns) of patches of an image of that size; place: its name in errors.

        >>> Processor.of("qwen2_vl").grid(480, 640)
        (1, 34, 46)
        """
        new_height, new_width = self.size(height, width, place)
        return 1, new_height // self.patch_size, new_width // self.patch_size

    def tokens(self, height: int, width: int) -> int:
        """Placeholders that an image of that size takes in a text.

        >>> Processor.of("qwen2_vl").tokens(480, 640), Processor.of("qwen").tokens(480, 640)
        (391, 256)
        """
        if self.queries:
            return self.queries
        _, rows, columns = self.grid(height, width)
        return rows * columns // self.merge_size**2

    def table(self) -> NDArray[np.float32]:
        """(3, 256) float32: the number that a byte of a colour becomes, rounded as transformers' Pillow processors
        do."""
        return _table(self.mean if self.do_normalize else None, self.std,
                      self.rescale_factor if self.do_rescale else None)

    def files(self, kept: Mapping[str, bytes], read: Processor | None) -> dict[str, bytes]:
        """What a folder with the model holds of it: kept, the files that it was read from, as they are where it is
        still what was read; else a preprocessor_config.json of today's values beside the others."""
        if self == read and kept:
            return dict(kept)
        values = self.to_json()
        others = {name: data for name, data in kept.items() if name not in FILES}
        return others if values is None else {**others, FILES[1]: json.dumps(values, indent=2).encode() + b"\n"}

    def to_json(self) -> dict[str, Any] | None:
        """What preprocessor_config.json holds, so that transformers' AutoProcessor and AutoImageProcessor read it; None
        where a model has no such file (Qwen-VL-Chat)."""
        if self.fixed:
            return None
        return {"image_processor_type": "Qwen2VLImageProcessor", "processor_class": PROCESSOR_CLASS[self.family],
                "patch_size": self.patch_size, "temporal_patch_size": self.temporal_patch_size,
                "merge_size": self.merge_size, "min_pixels": self.min_pixels, "max_pixels": self.max_pixels,
                "size": {"shortest_edge": self.min_pixels, "longest_edge": self.max_pixels},
                "image_mean": list(self.mean), "image_std": list(self.std), "resample": BICUBIC,
                "rescale_factor": self.rescale_factor, "do_convert_rgb": True, "do_resize": self.do_resize,
                "do_rescale": self.do_rescale, "do_normalize": self.do_normalize}


@functools.cache
def _table(mean: tuple[float, ...] | None, std: tuple[float, ...], rescale: float | None) -> NDArray[np.float32]:
    levels = np.arange(256, dtype=np.float64)
    if rescale is not None:
        levels = levels * rescale
    rows = np.tile(levels.astype(np.float32), (3, 1))
    if mean is not None:
        rows = (rows - np.array(mean, np.float32)[:, None]) / np.array(std, np.float32)[:, None]
    rows.flags.writeable = False
    return rows


# -- files ----------------------------------------------------------------------------------------------------------


def _find(folder: Path | None) -> tuple[dict[str, Any] | None, str]:
    """The values and the name of their file: nested ones come first, as transformers has it."""
    for name in FILES if folder is not None else ():
        path = Path(folder or "", name)
        if not path.is_file():
            continue
        values = _read_json(path)
        if name != FILES[0]:
            return values, str(path)
        if "image_processor" in values:
            if not isinstance(values["image_processor"], dict):
                raise FileFormatError(f"{path}: image_processor must be an object")
            return values["image_processor"], str(path)
    return None, ""


def _read_json(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise FileFormatError(f"{path}: larger than the limit of {MAX_BYTES} bytes")
        values = json.loads(data.decode("utf-8"))
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, FileFormatError):
            raise
        raise FileFormatError(f"{path}: not JSON: {error}") from error
    if not isinstance(values, dict):
        raise FileFormatError(f"{path}: holds a JSON {type(values).__name__}, not an object")
    return values


def _of_values(usual: Processor, values: Mapping[str, Any], source: str) -> Processor:
    """Keys that are missing or null: as of ``usual``."""
    kind = values.get("image_processor_type", values.get("feature_extractor_type"))
    if kind is not None and kind not in KINDS:
        raise UnsupportedModelError(f"{source}: image_processor_type {kind!r:.80} is not supported; there are "
                                    f"{', '.join(sorted(KINDS))}")
    for key, done in ONLY.items():
        if values.get(key) is not None and values[key] != done:
            raise UnsupportedModelError(f"{source}: {key} {values[key]!r:.80} is not supported, only {done}")
    size = values.get("size")
    if size is not None and (not isinstance(size, dict) or set(size) - {"shortest_edge", "longest_edge", "min_pixels",
                                                                        "max_pixels"}):
        raise UnsupportedModelError(f"{source}: size {size!r:.80} is not supported, only shortest_edge and "
                                    "longest_edge, in pixels")
    size = size or {}
    limits = {**size, "shortest_edge": _first(values.get("min_pixels"), size.get("shortest_edge"),
                                              size.get("min_pixels"), usual.min_pixels),
              "longest_edge": _first(values.get("max_pixels"), size.get("longest_edge"), size.get("max_pixels"),
                                     usual.max_pixels)}
    low, high = (_integer(limits[key], f"{source}: {key}", MAX_SIDE**2) for key in ("shortest_edge", "longest_edge"))
    if low > high:
        raise FileFormatError(f"{source}: min_pixels {low} is more than max_pixels {high}")
    sizes: dict[str, Any] = {key: _integer(_first(values.get(key), getattr(usual, key)), f"{source}: {key}", 128)
             for key in ("patch_size", "temporal_patch_size", "merge_size")}
    flags: dict[str, Any] = {key: _flag(_first(values.get(key), True), f"{source}: {key}")
             for key in ("do_resize", "do_rescale", "do_normalize")}
    rescale = _numbers([_first(values.get("rescale_factor"), usual.rescale_factor)], f"{source}: rescale_factor", 1)[0]
    mean, std = (_numbers(_first(values.get(key), default), f"{source}: {key}", 3)
                 for key, default in (("image_mean", usual.mean), ("image_std", usual.std)))
    if not all(std):
        raise FileFormatError(f"{source}: image_std must not be 0")
    return replace(usual, min_pixels=low, max_pixels=high, rescale_factor=rescale, mean=mean, std=std, **sizes, **flags)


def _of_visual(usual: Processor, visual: Any) -> Processor:
    """Qwen-VL-Chat: a part of its config."""
    if not isinstance(visual, Mapping):
        raise UnsupportedModelError("config.json: a model of type qwen without visual sees no images")
    side, patch, queries = (_integer(visual.get(key, default), f"config.json: visual.{key}", 1 << 16)
                            for key, default in (("image_size", usual.fixed), ("patch_size", usual.patch_size),
                                                 ("n_queries", usual.queries)))
    if side % patch:
        raise FileFormatError(f"config.json: visual.image_size {side} is no multiple of patch_size {patch}")
    return replace(usual, fixed=side, patch_size=patch, queries=queries)


def _check_config(processor: Processor, vision: Any, source: str) -> None:
    """The tower must read the patches that the processor makes."""
    for ours, theirs in OF_TOWER.items():
        value = vision.get(theirs) if isinstance(vision, Mapping) else None
        if value is not None and value != getattr(processor, ours):
            raise FileFormatError(f"{source}: {ours} is {getattr(processor, ours)}, but config.json's "
                                  f"vision_config.{theirs} is {value!r:.80}")


def _of_tower(usual: Processor, vision: Any) -> Processor:
    """The same for the patches that a tower reads; what its config leaves out is as usual."""
    found = vision if isinstance(vision, Mapping) else {}
    sizes: dict[str, Any] = {ours: _integer(found[theirs], f"config.json: vision_config.{theirs}", 128)
                             for ours, theirs in OF_TOWER.items() if found.get(theirs) is not None}
    return replace(usual, **sizes)


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)


def _integer(value: Any, place: str, most: int) -> int:
    if type(value) is not int or not 1 <= value <= most:
        raise FileFormatError(f"{place} must be an integer from 1 to {most}, not {value!r:.80}")
    return value


def _flag(value: Any, place: str) -> bool:
    if type(value) is not bool:
        raise FileFormatError(f"{place} must be true or false, not {value!r:.80}")
    return value


def _numbers(value: Any, place: str, n: int) -> tuple[Any, ...]:
    """n finite numbers; one stands for all."""
    numbers = tuple(value) if isinstance(value, (list, tuple)) else (value,) * n
    if len(numbers) != n or not all(type(x) in (int, float) and math.isfinite(x) for x in numbers):
        raise FileFormatError(f"{place} must be {n} number{'s' if n > 1 else ''}, not {value!r:.80}")
    return tuple(float(x) for x in numbers)
