"""Drawing for data sets that see: lines of text, rendered once each and pasted with NumPy.

The font is the one inside Pillow (Aileron, ImageFont.load_default with a size): it is there wherever Pillow is, while
the fonts of matplotlib are files that some distributions take out. It has no arrow, which is drawn here.
"""
import functools

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError

U8 = NDArray[np.uint8]
KEPT = 4096                                  # bitmaps of texts
ARROW = "→"


@functools.cache
def font(size: int) -> tuple:
    """(font, pixels above the baseline, pixels below). ConfigError where Pillow was built without FreeType."""
    from PIL import ImageFont

    try:
        found = ImageFont.load_default(size)
        return found, *found.getmetrics()                              # type: ignore[union-attr]
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"text cannot be drawn: this Pillow has no FreeType ({error}); install Pillow's wheel"
                          ) from error


@functools.lru_cache(KEPT)
def ink(text: str, size: int) -> U8:
    """A line of text at size pixels an em: (height of a line, width), 0 without ink and 255 in full. Not to be written
    to. An arrow is drawn, whatever the font has.

    >>> ink("A→B", 20).shape[0] == ink("q", 20).shape[0]
    True
    """
    pieces = [piece for part in text.split(ARROW) for piece in (arrow(size), letters(part, size))][1:]
    line = np.hstack([piece for piece in pieces if piece.shape[1]])
    line.flags.writeable = False
    return line


def letters(text: str, size: int) -> U8:
    """A line of text in the font alone."""
    from PIL import Image, ImageDraw

    face, above, below = font(size)
    page = Image.new("L", (int(np.ceil(face.getlength(text))), above + below), 0)
    if page.width:
        ImageDraw.Draw(page).text((0, 0), text, 255, face)
    return np.asarray(page)


def arrow(size: int) -> U8:
    """An arrow to the right, an em wide, as high as a small letter."""
    _, above, below = font(size)
    page = np.zeros((above + below, size), np.uint8)
    middle, half, thick = above - round(0.3 * size), max(2, round(0.2 * size)), max(1, round(0.07 * size))
    begin, end = round(0.14 * size), round(0.86 * size)
    page[middle:middle + thick, begin:end] = 255
    for step in range(half):                 # the head: two strokes at 45 degrees
        page[[middle - step, middle + thick - 1 + step], end - 1 - step - thick:end - step] = 255
    return page


def blank(height: int, width: int, level: int = 255) -> U8:
    """A grey image of one level, (height, width)."""
    return np.full((height, width), level, np.uint8)


def write(page: U8, text: str, size: int, middle: float, top: float) -> None:
    """Writes a line in black on a bright page, its middle and its top there. What would stand outside is left out."""
    mark = ink(text, size)
    row, column = round(top), round(middle - mark.shape[1] / 2)
    part = mark[max(0, -row):page.shape[0] - row, max(0, -column):page.shape[1] - column]
    row, column = max(0, row), max(0, column)
    place = page[row:row + part.shape[0], column:column + part.shape[1]]
    np.minimum(place, 255 - part, out=place)
