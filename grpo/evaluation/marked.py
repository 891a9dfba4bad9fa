"""A picture in a PDF with what is marked on it. Importing this needs reportlab."""
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from reportlab.lib import colors
from reportlab.lib.utils import ImageReader
from reportlab.platypus import Flowable

from .pictures import SAID, TRUE, Box, Mark, label_at

FINEST = 0.75                                # points of a pixel where there is room: 96 pixels an inch
LARGEST = 2.4                                # points of a pixel of a small image
LEAST = 90                                   # points of the longer side of a small image, where that is not too large
LABEL = 6.2
CASING, LINE = 2.4, 1.1                      # widths of the white line beneath, and of the coloured one
DASH = [4, 2]                                # of a completion's boxes, which are told without colours


class Marked(Flowable):
    """A picture within a width and a height in points, with marks in its pixels; the same file is in the PDF once."""

    def __init__(self, path: Path | None, size: tuple[float, float], most: tuple[float, float],
                 truth: Sequence[Mark], said: Sequence[Mark], printable: Callable[[str], str]):
        super().__init__()
        self.path, self.size, self.truth, self.said, self.printable = path, size, truth, said, printable
        width, height = (max(1.0, side) for side in size)
        scale = min(max(FINEST, min(LARGEST, LEAST / max(width, height))), most[0] / width, most[1] / height)
        self.width, self.height = max(8.0, width * scale), max(8.0, height * scale)
        self.hAlign = "LEFT"

    def wrap(self, *available: float) -> tuple[float, float]:
        """Its size, whatever is available."""
        return self.width, self.height

    def draw(self) -> None:
        """The picture, then the truth, then what a completion says, all within its edges."""
        canvas = self.canv
        canvas.saveState()
        edge = canvas.beginPath()
        edge.rect(0, 0, self.width, self.height)
        canvas.clipPath(edge, stroke=0, fill=0)
        if self.path is not None:
            canvas.drawImage(str(self.path), 0, 0, self.width, self.height)
        else:
            canvas.setFillColor(colors.HexColor("#f0f0ee"))
            canvas.rect(0, 0, self.width, self.height, stroke=0, fill=1)
            canvas.setFillColor(colors.HexColor("#777777"))
            canvas.setFont("Sans", 6.5)
            canvas.drawCentredString(self.width / 2, self.height / 2 - 2, "no picture")
        for marks, color, dash in ((self.truth, TRUE, []), (self.said, SAID, DASH)):
            for line, paint in ((CASING, colors.white), (LINE, colors.HexColor(color))):
                canvas.setLineWidth(line)
                canvas.setStrokeColor(paint)
                for mark in marks:
                    canvas.setDash(dash if isinstance(mark, Box) and line == LINE else [])
                    self.outline(canvas, mark)
            # labels of the truth would lie beneath those of a completion
            for mark in marks if marks is self.said or not self.said else ():
                self.label(canvas, mark, colors.HexColor(color))
        canvas.restoreState()

    def outline(self, canvas: Any, mark: Mark) -> None:
        """A box, or for a point a ring with a cross in it."""
        if isinstance(mark, Box):
            x, y = self.place(mark.left, mark.top)
            right, bottom = self.place(mark.right, mark.bottom)
            canvas.rect(x, bottom, right - x, y - bottom, stroke=1, fill=0)
            return
        x, y = self.place(mark.x, mark.y)
        canvas.circle(x, y, 4.5, stroke=1, fill=0)
        for dx, dy in ((7, 0), (0, 7)):
            canvas.line(x - dx, y - dy, x + dx, y + dy)

    def label(self, canvas: Any, mark: Mark, color: Any) -> None:
        """Its label on a patch of its colour, at its corner but within the picture."""
        text = self.printable(label_at(mark, self.size))
        if not text:
            return
        width = canvas.stringWidth(text, "Sans", LABEL) + 3
        x, y = self.place(min(mark.left, mark.right), min(mark.top, mark.bottom)) if isinstance(mark, Box) else \
            (place + 6 for place in self.place(mark.x, mark.y))
        x, y = max(0, min(x, self.width - width)), max(0, min(y, self.height - LABEL - 2))
        canvas.setFillColor(color)
        canvas.rect(x, y, width, LABEL + 2, stroke=0, fill=1)
        canvas.setFillColor(colors.white)
        canvas.setFont("Sans", LABEL)
        canvas.drawString(x + 1.5, y + 2, text)

    def place(self, x: float, y: float) -> tuple[float, float]:
        """A place of the image on the page, y upwards. What is far outside is drawn near outside."""
        across, down = x / max(1.0, self.size[0]), y / max(1.0, self.size[1])
        return self.width * max(-9.0, min(across, 9.0)), self.height * (1 - max(-9.0, min(down, 9.0)))


def is_readable(path: Path) -> bool:
    """Whether reportlab can decode a file."""
    try:
        ImageReader(str(path)).getRGBData()
        return True
    except Exception:                          # a decoder may fail in any way on what it is fed
        return False
