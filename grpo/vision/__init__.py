"""Images: from whatever an image can be to the numbers that a vision tower reads.

decode.py anything that is an image to its pixels, with limits; drawn.py images that are drawn when looked at;
processor.py how a model wants to see them: sizes, patches, means, and the files that say so. The arithmetic is in C
(csrc/run/preprocess.h).
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from ..errors import ConfigError
from .decode import MAX_PIXELS, read_image, read_images
from .drawn import Drawn
from .processor import Processor

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MAX_PIXELS", "Drawn", "Processor", "preprocess", "read_image", "read_images"]


def preprocess(images: Any, model_or_processor: Any, *, min_pixels: int | None = None, max_pixels: int | None = None,
               pixel_limit: int = MAX_PIXELS, places: Sequence[str] | None = None,
               device: str = "cpu") -> dict[str, NDArray[Any]]:
    """What a model of Qwen's vision families reads of images: ``{"pixel_values": ..., "image_grid_thw": ...}``.

    ``images``: a list (or one image) of anything that `read_image` takes: PIL images, paths, bytes, arrays.
    ``model_or_processor``: a `Processor`, or a model that has one as its ``processor``. ``min_pixels``,
    ``max_pixels``: of an image as the model sees it, in place of the processor's. ``pixel_limit``: of an image as it
    comes. ``places``: how errors name each; else "image 0", "image 1" ...

    pixel_values is float32 (patches, numbers of a patch), the images one after another; image_grid_thw int64
    (images, 3): frames, rows and columns of patches. Both are, number for number, what the Pillow processor of
    transformers 5.24 gives (AutoImageProcessor without torchvision), with Pillow 13 or newer.

    Raises ImageError for an image that cannot be read or shown.

    >>> from grpo.vision import Processor
    >>> inputs = preprocess([np.zeros((480, 640, 3), np.uint8)], Processor.of("qwen2_vl"))
    >>> inputs["pixel_values"].shape, inputs["image_grid_thw"].tolist()
    ((1564, 1176), [[1, 34, 46]])
    """
    processor = getattr(model_or_processor, "processor", model_or_processor)
    if not isinstance(processor, Processor):
        raise ConfigError(f"preprocess() needs a Processor or a model that sees images, not "
                          f"{type(model_or_processor).__name__}")
    processor = processor.with_limits(min_pixels, max_pixels)
    several = list(images) if is_list(images) else [images]
    places = [f"image {i}" for i in range(len(several))] if places is None else list(places)
    if len(places) != len(several):
        raise ConfigError(f"places names {len(places)} of {len(several)} images")
    pixels = read_images(several, places, pixel_limit=pixel_limit, as_stored=processor.as_stored)
    sizes = [processor.size(array.shape[0], array.shape[1], place) for array, place in zip(pixels, places, strict=True)]
    rows, grid = _core.preprocess(pixels, np.array(sizes, np.int32).reshape(-1, 2), table=processor.table(),
                                  patch_size=processor.patch_size, merge_size=processor.merge_size,
                                  temporal_patch_size=processor.temporal_patch_size, device=device)
    return {"pixel_values": rows, "image_grid_thw": grid}


def is_list(images: Any) -> bool:
    """Whether it is several images: a list, a tuple, an array of four dimensions."""
    return (isinstance(images, Sequence) and not isinstance(images, (str, bytes, bytearray, memoryview))
            or isinstance(images, np.ndarray) and images.ndim == 4)
