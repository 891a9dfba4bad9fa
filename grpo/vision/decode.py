"""Anything that is an image to its pixels: bytes (height, width, 3).

The choices that are one are those of transformers 5.24, so that a model sees here what it sees there: transparency is
laid on white; a file is turned upright as its EXIF says, while a PIL image is taken as it stands; of an animation the
first frame is read. Where transformers' pixels would be nonsense these differ: greys of 16 bits lose their lower 8
(transformers makes all above 255 white).
"""
from __future__ import annotations

import base64
import binascii
import io
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes, urlsplit
from urllib.request import url2pathname

import numpy as np

from .. import _core
from ..errors import ImageError, warn
from .drawn import Drawn

if TYPE_CHECKING:
    import PIL.Image
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

MAX_PIXELS = 178_956_970                       # where Pillow itself begins to refuse
# What is read: formats of pictures that begin with a mark of their own. No vector graphics, no interpreters.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF", "QOI")
CHANNELS = (1, 3, 4)
ORIENTATION, SIDEWAYS = 0x0112, (5, 6, 7, 8)   # of EXIF: the tag, and its values that swap height and width
ENCODED = (str, os.PathLike, bytes, bytearray, memoryview, Mapping)

_said_first_frame = False


def read_image(image: Any, place: str = "image", *, pixel_limit: int = MAX_PIXELS, as_stored: bool = False) -> Pixels:
    """The pixels of an image, uint8 (height, width, 3).

    ``image``: a PIL image; a path, ``file://`` or ``data:`` URI; bytes of a file; ``{"bytes": ..., "path": ...}`` as
    data sets of Hugging Face hold it; a `Drawn`; a uint8 array or CPU tensor of grey (h, w), or of 1, 3 or 4 channels
    (h, w, c), or (c, h, w) where that can be told. ``place``: how errors name it. ``pixel_limit``: a larger one is
    refused before it is decoded. ``as_stored``: no file is turned, and what transparency hides is shown, as Pillow's
    convert("RGB") has it.

    Raises ImageError.

    >>> read_image(np.full((2, 3), 7, np.uint8)).shape
    (2, 3, 3)
    """
    return read_images([image], [place], pixel_limit=pixel_limit, as_stored=as_stored)[0]


def read_images(images: Sequence[Any], places: Sequence[str], *, pixel_limit: int = MAX_PIXELS,
                as_stored: bool = False) -> list[Pixels]:
    """`read_image` of each; files and bytes are decoded by as many threads as the core has."""
    names = [_name_place(place, image) for place, image in zip(places, images, strict=True)]
    encoded = [i for i, image in enumerate(images) if isinstance(image, ENCODED)]
    workers = min(len(encoded), _core.get_num_threads())
    pool = ThreadPoolExecutor(workers, "grpo-images") if workers > 1 else None
    try:
        begun = {i: pool.submit(_read_one, images[i], names[i], pixel_limit, as_stored) for i in encoded if pool}
        # a PIL image is no matter for two threads: it decodes itself when it is first looked at
        found = [begun[i].result() if i in begun else _read_one(image, names[i], pixel_limit, as_stored)
                 for i, image in enumerate(images)]
    finally:
        if pool:
            pool.shutdown(cancel_futures=True)
    for name, (_, several) in zip(names, found, strict=True):
        if several:
            _say_first_frame(name)
    return [pixels for pixels, _ in found]


def _read_one(image: Any, place: str, pixel_limit: int, as_stored: bool) -> tuple[Pixels, bool]:
    """The pixels, and whether there are further pictures."""
    try:
        pixels, several = _pixels_of(image, place, pixel_limit, as_stored)
    except (ImageError, Warning):
        raise
    except Exception as error:                 # a decoder may fail in any way on what it is fed
        raise ImageError(f"{place}: cannot be read: {_say(error)}") from error
    return np.ascontiguousarray(pixels), several


def image_size(image: Any, place: str = "image", *, pixel_limit: int = MAX_PIXELS) -> tuple[int, int]:
    """(height, width) that `read_image` would return; of a file only its beginning is read.

    Raises ImageError.

    >>> image_size(np.zeros((2, 3), np.uint8))
    (2, 3)
    """
    named = _name_place(place, image)
    try:
        return _size_of(image, named, pixel_limit)
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(f"{named}: cannot be read: {_say(error)}") from error


def image_bytes(image: Any, place: str = "image") -> bytes:
    """What tells an image from others: a file's bytes, or those of its pixels with their shape.

    Raises ImageError."""
    from PIL import Image

    named = _name_place(place, image)
    if isinstance(image, Drawn):
        return image.key
    try:
        source = _source_of(image, named)
        if isinstance(source, os.PathLike):
            return _check_path(Path(source), named).read_bytes()
        if isinstance(source, (bytes, bytearray, memoryview)):
            return bytes(source)
        if isinstance(source, Image.Image):
            palette = source.palette.tobytes() if source.palette is not None else b""
            transparent = repr(source.info.get("transparency"))
            return f"{source.mode} {source.size} {transparent} ".encode() + palette + source.tobytes()
        array = read_image(source, place)
        return f"array {array.shape} ".encode() + array.tobytes()
    except (ImageError, Warning):
        raise
    except Exception as error:                 # a PIL image decodes itself now, or was closed
        raise ImageError(f"{named}: cannot be read: {_say(error)}") from error


def _say(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _name_place(place: str, image: Any) -> str:
    """With the name of the file, where there is one."""
    if isinstance(image, Mapping):
        image = image.get("path")
    if isinstance(image, str) and image.startswith("data:"):
        return f"{place} (a data URI)"
    name = image if isinstance(image, (str, os.PathLike)) else getattr(image, "filename", None)
    if not isinstance(name, (str, os.PathLike)) or not os.fspath(name):
        return place
    text = os.fspath(name)
    return f"{place} ({os.fsdecode(text):.200})"


def _pixels_of(image: Any, place: str, pixel_limit: int, as_stored: bool) -> tuple[Pixels, bool]:
    from PIL import Image

    image = _source_of(image, place)
    if isinstance(image, Image.Image):
        check_size(image.height, image.width, place, pixel_limit)
        return _rgb(image, place, as_stored), False
    file = _file_of(image, place)
    if file is None:
        return _of_array(image, place, pixel_limit, as_stored), False
    return _read(file, place, pixel_limit, as_stored)


def _size_of(image: Any, place: str, pixel_limit: int) -> tuple[int, int]:
    from PIL import Image

    if isinstance(image, Drawn):
        check_size(image.height, image.width, place, pixel_limit)
        return image.height, image.width
    image = _source_of(image, place)
    if isinstance(image, Image.Image):
        check_size(image.height, image.width, place, pixel_limit)
        return image.height, image.width
    file = _file_of(image, place)
    if file is None:
        height, width, _ = _of_array(image, place, pixel_limit).shape
        return height, width
    with _open(file, place) as opened:
        check_size(opened.height, opened.width, place, pixel_limit)
        sideways = opened.getexif().get(ORIENTATION, 1) in SIDEWAYS and not _is_turned(opened)
        return (opened.width, opened.height) if sideways else (opened.height, opened.width)


# -- where it comes from --------------------------------------------------------------------------------------------


def _source_of(image: Any, place: str) -> Any:
    """A PIL image, a path, bytes of a file, or what may be an array."""
    if isinstance(image, Mapping):
        image = _of_mapping(image, place)
    if isinstance(image, Drawn):
        image = image.pixels(place)
    return _of_string(image, place) if isinstance(image, str) else image


def _file_of(image: Any, place: str) -> Path | io.BytesIO | None:
    """The file of a path or of bytes."""
    if isinstance(image, os.PathLike):
        return _check_path(Path(image), place)
    if isinstance(image, (bytes, bytearray, memoryview)):
        if not len(image):
            raise ImageError(f"{place}: has no bytes")
        return io.BytesIO(image)
    return None


def _of_mapping(image: Mapping[str, Any], place: str) -> Any:
    """bytes, else path."""
    if unknown := set(image) - {"bytes", "path"}:
        raise ImageError(f"{place}: a dict must have 'bytes' or 'path', not {sorted(map(str, unknown))}")
    data, path = image.get("bytes"), image.get("path")
    if data is not None and not isinstance(data, (bytes, bytearray, memoryview)):
        raise ImageError(f"{place}: 'bytes' must be bytes, not {type(data).__name__}")
    if data is None and not isinstance(path, (str, os.PathLike)):
        raise ImageError(f"{place}: a dict must have 'bytes' or 'path'")
    return path if data is None else data


def _of_string(text: str, place: str) -> Any:
    """A path, or the bytes of a data URI."""
    scheme = text.partition(":")[0].lower() if ":" in text[:8] else ""
    if scheme == "data":
        return _of_data_uri(text, place)
    if scheme in ("http", "https", "ftp", "s3", "gs", "hf"):
        raise ImageError(f"{place}: nothing is fetched from the net: download it first, and give its path or bytes")
    if scheme == "file":
        parts = urlsplit(text)
        if parts.netloc not in ("", "localhost"):
            raise ImageError(f"{place}: a file:// URI must be of this machine, not of {parts.netloc!r}")
        return Path(url2pathname(parts.path))
    if "\0" in text:
        raise ImageError(f"{place}: no path holds a zero byte")
    return Path(text)


def _of_data_uri(text: str, place: str) -> bytes:
    head, comma, data = text.partition(",")
    if not comma:
        raise ImageError(f"{place}: a data URI must have a comma before its data")
    if not head.lower().endswith(";base64"):
        return unquote_to_bytes(data)
    try:
        return base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError(f"{place}: its base64 is broken: {error}") from error


def _check_path(path: Path, place: str) -> Path:
    if path.is_dir():
        raise ImageError(f"{place}: is a folder")
    if not path.exists():
        raise ImageError(f"{place}: there is no such file")
    if not path.is_file():
        raise ImageError(f"{place}: is no regular file")
    return path


def _of_array(image: Any, place: str, pixel_limit: int, as_stored: bool = False) -> Pixels:
    if isinstance(image, np.ndarray):
        array = image
    elif hasattr(image, "__array_interface__") or hasattr(image, "__array__"):
        array = np.asarray(image)
    elif hasattr(image, "__dlpack__"):
        array = np.from_dlpack(image)
    else:
        raise ImageError(f"{place}: {type(image).__name__} is no image: give a PIL image, a path, bytes or an array")
    if array.dtype != np.uint8:
        how = ": (x * 255).round().astype('uint8') if it is of 0..1" if array.dtype.kind == "f" else ""
        raise ImageError(f"{place}: an array of {array.dtype} must be made uint8 of 0..255 first{how}")
    if array.ndim == 3 and array.shape[2] not in CHANNELS and array.shape[0] in CHANNELS:
        array = np.moveaxis(array, 0, 2)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in CHANNELS:
        raise ImageError(f"{place}: an array must be (h, w), or (h, w, c) or (c, h, w) with 1, 3 or 4 channels, not "
                         f"{array.shape}")
    check_size(array.shape[0], array.shape[1], place, pixel_limit)
    if array.shape[2] == 4 and as_stored:
        return array[:, :, :3]
    if array.shape[2] == 4:                    # on white, rounded as transformers does it
        alpha = array[:, :, 3:] / 255
        return np.round(alpha * array[:, :, :3] + (1 - alpha) * 255).astype(np.uint8)
    return np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array


# -- decoding -------------------------------------------------------------------------------------------------------


def check_size(height: int, width: int, place: str, pixel_limit: int) -> None:
    """ImageError for no pixels, or too many."""
    if height < 1 or width < 1:
        raise ImageError(f"{place}: has {width} x {height} pixels")
    if height * width > pixel_limit:
        raise ImageError(f"{place}: has {width} x {height} pixels, more than the limit of {pixel_limit}")


def _is_turned(image: PIL.Image.Image) -> bool:
    """Whether the size of a file that was opened is that of the upright image already, as newer Pillows have a
    TIFF's."""
    tags = getattr(image, "tag_v2", None) if image.format == "TIFF" else None
    return tags is not None and (tags.get(0x100), tags.get(0x101)) != image.size


def _open(file: Path | io.BytesIO, place: str) -> PIL.Image.Image:
    """A file of a kind that is read, of which only the beginning has been looked at."""
    from PIL import Image, UnidentifiedImageError

    Image.init()
    try:
        return Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN])
    except UnidentifiedImageError:
        raise ImageError(f"{place}: is no image of a kind that is read ({', '.join(FORMATS)}), or its beginning is "
                         "broken") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{place}: is larger than Pillow's own limit, PIL.Image.MAX_IMAGE_PIXELS: {error}") from error


def _read(file: Path | io.BytesIO, place: str, pixel_limit: int, as_stored: bool) -> tuple[Pixels, bool]:
    """A file, opened and turned upright unless it is wanted as it is; whether it holds further pictures."""
    from PIL import ImageOps

    with _open(file, place) as image:
        check_size(image.height, image.width, place, pixel_limit)
        several = image.format != "MPO" and getattr(image, "is_animated", False)       # an MPO's others are previews
        image.load()
        if not as_stored:
            ImageOps.exif_transpose(image, in_place=True)
        return _rgb(image, place, as_stored), several


def _say_first_frame(place: str) -> None:
    global _said_first_frame
    if not _said_first_frame:
        _said_first_frame = True
        warn(f"{place}: holds several pictures, the first is taken (said once; likewise of others)")


def _rgb(image: PIL.Image.Image, place: str, as_stored: bool) -> Pixels:
    """What the processors of transformers make of a PIL image, where that is no nonsense."""
    mode = image.mode
    if mode.startswith("I;16"):
        return _of_greys(np.asarray(image) >> 8)
    if mode in ("I", "F"):
        return _of_greys(_small_greys(np.asarray(image), place))
    if mode in ("La", "RGBa"):                 # colours multiplied by their alpha
        image = image.convert("LA" if mode == "La" else "RGBA")
    if as_stored:
        return np.asarray(image.convert("RGB"))
    if image.mode in ("LA", "PA", "RGBA") or image.info.get("transparency") is not None:
        from PIL import Image

        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _small_greys(greys: NDArray[Any], place: str) -> NDArray[Any]:
    """Integers or floats that are greys of 0..255 already: rounded down, as Pillow does it."""
    low, high = (greys.min(), greys.max()) if np.isfinite(greys).all() else (np.nan, np.nan)
    if not (low >= 0 and high <= 255):
        raise ImageError(f"{place}: its greys are {low} to {high}; make them 0 to 255 first")
    if greys.dtype.kind == "f" and high <= 1 and (greys % 1).any():
        raise ImageError(f"{place}: its greys are 0 to 1; make them 0 to 255 first")
    return greys


def _of_greys(greys: NDArray[Any]) -> Pixels:
    return np.repeat(greys.astype(np.uint8)[:, :, None], 3, axis=2)
