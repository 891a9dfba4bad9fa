"""Images in rows, as they are stored: where their files lie, which row shows which, tables that would decode them, and
files that are shown in another size."""
import hashlib
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..vision.drawn import Drawn
from ..vision.messages import COLUMNS

if TYPE_CHECKING:
    import PIL.Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".jp2", ".avif", ".qoi")
SAMPLE = 4096                                # bytes
BATCH = 1000                                 # rows of a table that are read at once
PART_KEYS = ("image", "path", "url")         # of an image part: a path may stand there


def beside(row: dict[str, Any], folder: str, always: bool = False) -> dict[str, Any]:
    """The row with the relative paths of its images, in columns and in parts of its prompt, as paths in folder.
    always: also of files that are not there."""
    found = {name: _placed(row[name], folder, always) for name in COLUMNS if row.get(name) is not None}
    prompt = row.get("prompt")
    if isinstance(prompt, list):
        found["prompt"] = [{**message, "content": [_placed_part(part, folder, always) for part in content]}
                           if isinstance(message, Mapping) and isinstance(content := message.get("content"), list)
                           else message for message in prompt]
    return {**row, **found}


def _placed(image: Any, folder: str, always: bool) -> Any:
    if isinstance(image, list):
        return [_placed(each, folder, always) for each in image]
    if isinstance(image, Mapping) and not image.get("bytes"):
        return {key: _placed(value, folder, always) if key in PART_KEYS else value for key, value in image.items()}
    if not isinstance(image, str) or not image or "://" in image or image[:5].lower() == "data:":
        return image
    path = os.path.join(folder, image)                                # an absolute path stays as it is
    return path if always or os.path.exists(path) else image


def _placed_part(part: Any, folder: str, always: bool) -> Any:
    if not isinstance(part, Mapping):
        return part
    return {key: _placed(value, folder, always) if key in (*PART_KEYS, "image_url") else value
            for key, value in part.items()}


def columns_of(rows: Any, names: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Some columns of every row, None where it lacks one. datasets.Dataset reads them without the others, and images as
    they are stored, {"bytes", "path"}."""
    there = getattr(rows, "column_names", None)
    if there is None:
        yield from ({name: row.get(name) for name in names} for row in rows)
        return
    present = [name for name in names if name in there]
    if decodes(rows, present):
        yield from ({**dict.fromkeys(names), **row} for row in stored(rows.select_columns(present)))
    else:
        yield from ({**dict.fromkeys(names), **dict(zip(present, values, strict=True))}
                    for values in zip(*(rows[name] for name in present), strict=True))


def stored(rows: Any) -> Any:
    """The rows of a datasets.Dataset with its images not decoded; any other rows as they are."""
    if not decodes(rows):
        return rows
    return (row for table in rows.with_format("arrow").iter(BATCH) for row in table.to_pylist())


def decodes(rows: Any, names: list[str] | None = None) -> bool:
    """Whether rows are a table of the datasets library that decodes images in these of its columns, or in any."""
    features = getattr(rows, "features", None)
    return isinstance(features, Mapping) and any(_is_image(feature) for name, feature in features.items()
                                                 if names is None or name in names)


def _is_image(feature: Any) -> bool:
    if isinstance(feature, (Mapping, list)):
        return any(map(_is_image, feature.values() if isinstance(feature, Mapping) else feature))
    if hasattr(feature, "feature"):                                   # a list of them
        return _is_image(feature.feature)
    return type(feature).__name__ == "Image" and bool(getattr(feature, "decode", False))


def pictures_in(content: Any) -> list[Any]:
    """What stands for images in a message's content."""
    parts = content if isinstance(content, list) else []
    return [value for part in parts if isinstance(part, Mapping) for key, value in part.items()
            if key not in ("type", "text", "detail") and value is not None]


def picture_key(image: Any) -> str:
    """What tells an image from others, wherever its file lies and whatever that is called: a file's size and some of
    its bytes, the hash of bytes or pixels."""
    if isinstance(image, (list, tuple)):
        return "\0".join(map(picture_key, image))
    if isinstance(image, Mapping):
        image = next((image[key] for key in ("bytes", *PART_KEYS) if image.get(key) is not None), "")
    if isinstance(image, (str, os.PathLike)):
        path = os.fspath(image)
        try:
            return file_key(path)
        except (OSError, ValueError):
            return str(path)
    if isinstance(image, Drawn):
        return picture_key(image.arguments[0]) if image.draw is resized else image.key.decode()
    data = image.tobytes() if hasattr(image, "tobytes") else image
    if isinstance(data, (bytes, bytearray)):
        return hashlib.blake2b(data, digest_size=16).hexdigest()
    return str(image)


def file_key(path: str | os.PathLike[str]) -> str:
    """A file's size, and a hash of SAMPLE bytes each at its beginning, middle and end."""
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        for place in (0, (size - SAMPLE) // 2, size - SAMPLE):
            file.seek(max(0, place))
            digest.update(file.read(SAMPLE))
    return f"{size} {digest.hexdigest()}"


def square(path: str, side: int) -> Drawn:
    """The picture in a file, to be shown as side x side pixels, whatever its aspect. The file's size and time are part
    of what tells it from others."""
    try:
        found = os.stat(path)
        mark = (found.st_size, found.st_mtime_ns)
    except OSError:                          # said when it is looked at
        mark = (0, 0)
    return Drawn(resized, (path, side, *mark), side, side)


def resized(path: str, side: int, *mark: int) -> "PIL.Image.Image":
    """What square() shows: a bicubic resize. ImageError that names the file."""
    from PIL import Image

    from ..vision.decode import read_image

    return Image.fromarray(read_image(path)).resize((side, side), Image.Resampling.BICUBIC)
