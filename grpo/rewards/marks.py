"""What a completion points at in its image: boxes and points, in the ways in which models write them.

    Qwen2.5-VL, Qwen3-VL   {"bbox_2d": [10, 20, 30, 40], "label": "cat"} or {"point_2d": [10, 20], "label": "cat"}:
                           alone, in lists, in ``` fences, or cut off at the end
    Qwen-VL                <ref>cat</ref><box>(100,200),(300,400)</box>, several boxes after one <ref>
    calls                  click_screen(10, 20), and a line with click_tool followed by lines x: 10 and y: 20

x goes to the right and y down. Qwen2.5-VL speaks of pixels of the image as it was resized for it, Qwen-VL and Qwen3-VL
of thousandths of the image, 0 to 1000 both ways: scaled() turns one into the other. A text is read once from its
start to its end, so that no text takes long; what is no mark is passed over.
"""
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

THOUSANDTHS = (1000, 1000)                   # the size of an image in Qwen-VL's and Qwen3-VL's numbers
NUMBER = r"\s{0,9}([-+]?[0-9]{1,9}(?:\.[0-9]{0,20})?)\s{0,9}"
TEXT = r"\"((?:[^\"\\\n]|\\.){0,200})\"|'((?:[^'\\\n]|\\.){0,200})'"
# one alternative each; what stands between them is of no matter, but for braces, which bound what a label is of
TOKEN = re.compile(
    rf"[\"'](?:bbox_2d[\"']\s{{0,9}}:\s{{0,9}}\[{NUMBER},{NUMBER},{NUMBER},{NUMBER}\]"
    rf"|point_2d[\"']\s{{0,9}}:\s{{0,9}}\[{NUMBER},{NUMBER}\]"
    rf"|label[\"']\s{{0,9}}:\s{{0,9}}(?:{TEXT}))"
    rf"|<box>\s{{0,9}}\({NUMBER},{NUMBER}\)\s{{0,9}},\s{{0,9}}\({NUMBER},{NUMBER}\)\s{{0,9}}(?:</box>)?"
    r"|<ref>([^<]{0,200})</ref>"
    rf"|click_screen\s{{0,9}}\(\s{{0,9}}(?:x\s{{0,9}}=)?{NUMBER},\s{{0,9}}(?:y\s{{0,9}}=)?{NUMBER}\)"
    rf"|click_tool\b[\"',;\s]{{1,20}}x\s{{0,9}}:{NUMBER}[,;]?\s{{0,9}}y\s{{0,9}}:{NUMBER}"
    r"|[{}]")


class Box(NamedTuple):
    """A rectangle, and what it is said to hold."""

    left: float
    top: float
    right: float
    bottom: float
    label: str | None = None


class Point(NamedTuple):
    """A place, and what it is said to be on."""

    x: float
    y: float
    label: str | None = None


def marks_in(text: str) -> list[Box | Point]:
    """The boxes and points of a text in their order, in the units of the text. A label is that of its JSON object, or
    of the <ref> right before it; None where there is none.

    >>> marks_in('two: [{"bbox_2d": [1, 2, 30, 40], "label": "cat"}, {"point_2d": [5, 6.5], "la')
    [Box(left=1.0, top=2.0, right=30.0, bottom=40.0, label='cat'), Point(x=5.0, y=6.5, label=None)]
    >>> marks_in("<ref>cat</ref><box>(100,200),(300,400)</box> click_screen(7, 8)")
    [Box(left=100.0, top=200.0, right=300.0, bottom=400.0, label='cat'), Point(x=7.0, y=8.0, label=None)]
    """
    marks: list[Box | Point] = []
    first = 0                                # the first mark of the JSON object being read that waits for its label
    label: str | None = None                 # said there before its marks
    ref: str | None = None                   # said right before
    end = 0                                  # of the last token
    for token in TOKEN.finditer(text):
        numbers = [float(n) for n in token.group(1, 2, 3, 4, 5, 6, 9, 10, 11, 12, 14, 15, 16, 17) if n is not None]
        adjacent = not text[end:token.start()].strip()
        end = token.end()
        ref = ref if adjacent else None
        start = token[0][:3]
        if start in ("{", "}"):
            first, label, ref = len(marks), None, None
        elif token[13] is not None:
            ref = token[13].strip()
        elif not numbers:
            label = token[7] if token[7] is not None else token[8]
            if first < len(marks):
                marks[first:] = [mark._replace(label=label) for mark in marks[first:]]
                first, label = len(marks), None
        else:
            named = label if start[0] in "\"'" else ref if start == "<bo" else None
            if len(numbers) == 2:
                marks.append(Point(numbers[0], numbers[1], named))
            else:
                marks.append(Box(numbers[0], numbers[1], numbers[2], numbers[3], named))
            first = first if start[0] in "\"'" else len(marks)
    return marks


def scaled(marks: Iterable[Box | Point], from_size: Sequence[float], to_size: Sequence[float]) -> list[Box | Point]:
    """The marks in an image of another size; sizes are (width, height).

    >>> scaled([Box(100, 200, 300, 400, "cat"), Point(500, 500)], THOUSANDTHS, (224, 448))
    [Box(left=22.4, top=89.6, right=67.2, bottom=179.2, label='cat'), Point(x=112.0, y=224.0, label=None)]
    """
    (width, height), (new_width, new_height) = from_size, to_size
    return [mark._replace(x=mark.x * new_width / width, y=mark.y * new_height / height) if isinstance(mark, Point) else
            mark._replace(left=mark.left * new_width / width, top=mark.top * new_height / height,
                          right=mark.right * new_width / width, bottom=mark.bottom * new_height / height)
            for mark in marks]


def placed(texts: Sequence[str], frame: Sequence | None, image_size: Sequence | None) -> list[list[Box | Point]]:
    """The marks of each text in pixels of its row's image: frame and image_size are the columns of
    grpo/datasets/coordinates.py; without them, marks are in pixels already.

    >>> placed(["click_screen(500, 250)"], frame=[[1000, 1000]], image_size=[[224, 224]])
    [[Point(x=112.0, y=56.0, label=None)]]
    """
    found = [marks_in(text) for text in texts]
    if frame is None or image_size is None:
        return found
    return [marks if own is None or size is None or own == size else scaled(marks, own, size)
            for marks, own, size in zip(found, frame, image_size, strict=True)]


def inside(point: Point, box: Box) -> bool:
    """Whether a point is in a box, its edges included."""
    return box.left <= point.x <= box.right and box.top <= point.y <= box.bottom
