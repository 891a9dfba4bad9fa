"""The pictures of an evaluation: what records say of them, what is marked on them, and the copies that reports show.

A record of a row with images has

    images   one an image: {"file": "images/KEY.png" or None, "size": [w, h], "scale": [w, h]}
    truth    where the row has it: [{"box": [left, top, right, bottom], "label": ...}, {"point": [x, y], "label": ...}]

file: a copy beside the JSON, by the key of its content, of the questions that the report shows. size: of the image in
pixels, in which truth is. scale: the width and height in whose units the model names places: the row's column frame
(grpo/datasets/coordinates.py), else those of the image as it was resized for it (Qwen2.5-VL), or 1000 x 1000.
"""
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ImageError, warn
from ..rewards.marks import THOUSANDTHS, Box, Point, marks_in, scaled
from ..runs import replace_bytes
from ..vision.decode import image_size, read_image
from ..vision.pictures import Picture
from .records import Record, questions

if TYPE_CHECKING:
    from numpy.typing import NDArray

FOLDER = "images"
FILE = re.compile(rf"{FOLDER}/[0-9a-f]{{32}}\.(?:png|jpg)")           # what reports open, whatever a JSON says
MOST_SIDE = 640                              # pixels of a copy; larger ones are scaled down
MOST_PNG = 60_000                            # bytes; what is larger is a photograph, and becomes a JPEG
QUALITY = 88
MOST_MARKS = 100                             # of a row, and of a completion
IN_PIXELS = ("qwen2_5_vl",)                  # families that name places in pixels of the resized image
TRUTHS = ("boxes", "box", "points", "point", "targets", "target")     # columns of a row that may say where things are
TRUE, SAID = "#009e73", "#d55e00"           # colours of marks: of the row, of a completion
MOST_LABEL = 24                              # characters at a mark

Mark = Box | Point


@dataclass(frozen=True)
class Shown:
    """A picture as a report shows it.

    path: the copy, None where there is none. file: its path as the JSON has it. size: (width, height), in whose units
    marks are."""

    path: Path | None
    file: str
    size: tuple[float, float]


def of_row(pictures: Sequence[Picture], columns: Mapping[str, Any]) -> dict[str, Any]:
    """What the records of a row say of its images: nothing where it has none."""
    if not pictures:
        return {}
    found: dict[str, Any] = {"images": [of_picture(each) for each in pictures]}
    frame = numbers_of(columns.get("frame"))
    if len(frame) == 2 and min(frame) > 0:
        found["images"][0]["scale"] = frame
    if truth := truth_in(columns):
        found["truth"] = [as_json(mark) for mark in truth]
    return found


def of_picture(picture: Picture) -> dict[str, Any]:
    """What a record says of an image of which there is no copy yet."""
    height, width = image_size(picture.source, picture.place)
    patch = picture.processor.patch_size
    seen = [int(picture.grid[2]) * patch, int(picture.grid[1]) * patch]
    return {"file": None, "size": [width, height],
            "scale": seen if picture.processor.family in IN_PIXELS else list(THOUSANDTHS)}


def keep_images(records: Sequence[Record], folder: Path, most: int,
                pictures_of_row: Callable[[int], Sequence[Picture]]) -> bool:
    """Copies the images of the first so many questions into folder, one at a time, where they are not there yet, and
    names them in the records. Whether a record changed. Raises OSError."""
    changed = False
    for group in questions(records)[:most]:
        named = group[0].get("images") or []
        if all(each["file"] and (folder / each["file"]).is_file() for each in named):
            continue
        files = [keep(each, folder) for each in pictures_of_row(group[0]["row"])]
        for record in group:
            for each, file in zip(record["images"], files, strict=True):
                changed |= each["file"] != file
                each["file"] = file
    return changed


def keep(picture: Picture, folder: Path) -> str | None:
    """The path in folder of an image's copy, made where it is not there yet. None, and a warning, for an image that
    cannot be read any more."""
    try:
        stem = f"{FOLDER}/{picture.key.hex()}"
        for file in (f"{stem}.png", f"{stem}.jpg"):
            if (folder / file).is_file():
                return file
        pixels = read_image(picture.source, picture.place, as_stored=picture.processor.as_stored)
    except ImageError as error:
        warn(f"the report has no picture of it: {error}")
        return None
    content, suffix = encoded(pixels)
    path = folder / f"{stem}.{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_bytes(path, content)
    return f"{stem}.{suffix}"


def encoded(pixels: "NDArray[Any]") -> tuple[bytes, str]:
    """(a file of pixels (height, width, 3), "png" or "jpg"), no side longer than MOST_SIDE."""
    from PIL import Image

    image = Image.fromarray(pixels)
    shrunk = MOST_SIDE / max(image.size)
    if shrunk < 1:
        width, height = (max(1, round(side * shrunk)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    png, jpeg = io.BytesIO(), io.BytesIO()
    image.save(png, "PNG")
    if png.tell() <= MOST_PNG:
        return png.getvalue(), "png"
    image.save(jpeg, "JPEG", quality=QUALITY)
    return jpeg.getvalue(), "jpg"


# what is shown


def shown_images(record: Record, folder: Path) -> list[Shown]:
    """The images of a record, in their order. Of a JSON that is not ours, no path is opened but those of copies."""
    found = []
    for each in record.get("images") or []:
        file = each.get("file")
        there = isinstance(file, str) and FILE.fullmatch(file) and (folder / file).is_file()
        width, height = each["size"]
        found.append(Shown(folder / file if there else None, file if there else "", (width, height)))
    return found


def true_marks(record: Record) -> list[Mark]:
    """Where the row says that things are, in pixels of its first image."""
    return [mark for each in record.get("truth") or [] for mark in places(each)][:MOST_MARKS]


def said_marks(record: Record) -> list[Mark]:
    """Where a completion says that things are, in pixels of its row's first image."""
    if not record.get("images"):
        return []
    first = record["images"][0]
    return scaled(marks_in(record["completion"])[:MOST_MARKS], first["scale"], first["size"])


def summary(marks: Iterable[Mark]) -> str:
    """How many there are, in words.

    >>> summary([Box(0, 0, 1, 1), Point(1, 2), Point(3, 4)])
    '1 box, 2 points'
    """
    marks = list(marks)
    boxes = sum(isinstance(mark, Box) for mark in marks)
    counts = [(boxes, "box" if boxes == 1 else "boxes"),
              (len(marks) - boxes, "point" if len(marks) - boxes == 1 else "points")]
    return ", ".join(f"{count} {name}" for count, name in counts if count)


def label_at(mark: Mark, size: tuple[float, float]) -> str:
    """A mark's label on one line, cut; empty for one outside of a picture of that size."""
    line = " ".join((mark.label or "").split()) if overlaps(mark, size) else ""
    return line if len(line) <= MOST_LABEL else line[:MOST_LABEL - 1] + "…"


def legend(truth: Sequence[Mark], said: Sequence[Mark], size: tuple[float, float]) -> list[tuple[str, str]]:
    """[(colour, what is drawn in it)]: nothing where nothing is drawn. Marks outside of the picture are counted."""
    lines = [(TRUE, f"truth: {summary(truth)}")] if truth else []
    if said:
        outside = sum(not overlaps(mark, size) for mark in said)
        name = "this completion (dashed)" if any(isinstance(mark, Box) for mark in said) else "this completion"
        lines.append((SAID, f"{name}: {summary(said)}" + (f", {outside} outside" if outside else "")))
    return lines


def overlaps(mark: Mark, size: tuple[float, float]) -> bool:
    """Whether something of a mark is in a picture of that size."""
    across, down = ((mark.left, mark.right), (mark.top, mark.bottom)) if isinstance(mark, Box) else \
        ((mark.x, mark.x), (mark.y, mark.y))
    return all(max(ends) >= 0 and min(ends) <= side for ends, side in zip((across, down), size, strict=True))


# the truth of a row


def truth_in(columns: Mapping[str, Any]) -> list[Mark]:
    """The boxes and points of a row's columns TRUTHS, however nested; what is neither is passed over. Boxes have the
    labels of the column of that name, where there are as many; of a captcha's grid [left, top, side of a cell, cells a
    side] the cells that are to be clicked are boxes.

    >>> truth_in({"boxes": [[1, 2, 3, 4]], "target": {"point_2d": [5, 6], "label": "cat"}, "box": None})
    [Box(left=1.0, top=2.0, right=3.0, bottom=4.0, label=None), Point(x=5.0, y=6.0, label='cat')]
    """
    found = {name: places(columns.get(name)) for name in TRUTHS}
    labels = columns.get("labels")
    if isinstance(labels, (list, tuple)) and len(labels) == len(found["boxes"]):
        found["boxes"] = [mark if mark.label else mark._replace(label=label if isinstance(label, str) else None)
                          for mark, label in zip(found["boxes"], labels, strict=True)]
    marks = [mark for some in found.values() for mark in some]
    return (marks + cells_in(columns.get("cells"), columns.get("grid")))[:MOST_MARKS]


def cells_in(cells: Any, grid: Any) -> list[Mark]:
    """Cells, by their numbers row by row, of a grid [left, top, side of a cell, cells a side], as boxes.

    >>> cells_in([4], [0, 28, 56, 4])
    [Box(left=0.0, top=84.0, right=56.0, bottom=140.0, label=None)]
    """
    numbers, layout = numbers_of(cells), numbers_of(grid)
    if len(layout) != 4 or layout[3] < 1:
        return []
    left, top, side, across = layout
    corners = [(left + cell % across * side, top + cell // across * side) for cell in numbers]
    return [Box(x, y, x + side, y + side) for x, y in corners]


def numbers_of(value: Any) -> list[float]:
    """The finite numbers of a list of them; of anything else none."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if not isinstance(value, (list, tuple)) or not all(map(is_place, value)):
        return []
    return [float(each) for each in value]


def places(value: Any, label: str | None = None, depth: int = 0) -> list[Mark]:
    """The boxes (four numbers) and points (two) in a value: a list of them, a dict with one and its label, a dict of
    them by label, or such a thing as JSON."""
    if isinstance(value, str):
        value = parsed(value)
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (Box, Point)):
        return [value]
    if depth > 4 or not isinstance(value, (Mapping, list, tuple)):
        return []
    if isinstance(value, Mapping):
        name = value["label"] if isinstance(value.get("label"), str) else label
        return [mark for key, each in value.items() if key != "label"
                for mark in places(each, name or label_of(key), depth + 1)]
    numbers = numbers_of(value)
    if len(numbers) == 4:
        return [Box(numbers[0], numbers[1], numbers[2], numbers[3], label)]
    if len(numbers) == 2:
        return [Point(numbers[0], numbers[1], label)]
    return [mark for each in value[:MOST_MARKS] for mark in places(each, label, depth + 1)]


def parsed(text: str) -> Any:
    """The value of a text that is a list or an object in JSON; else None."""
    try:
        return json.loads(text) if text[:1] in ("[", "{") else None
    except (ValueError, RecursionError):
        return None


def is_place(value: Any) -> bool:
    """Whether a value can be a coordinate: a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def label_of(key: Any) -> str | None:
    """A key of a dict as the label of what it holds; None for those that say what kind of thing it is."""
    return None if str(key) in ("bbox_2d", "point_2d", "box", "point", "boxes", "points", "bbox") else str(key)


def as_json(mark: Mark) -> dict[str, Any]:
    """A mark as records have it."""
    kind, numbers = ("box", list(mark[:4])) if isinstance(mark, Box) else ("point", list(mark[:2]))
    return {kind: numbers, **({"label": mark.label} if mark.label is not None else {})}
