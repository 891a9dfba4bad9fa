"""Clocks with three hands that move continuously: what time is it, to the second? (A task of DeepSeekRL's branch for
regression.)

There are 43,200 times; one in ten is held out by its hash, and 500 of these are the test split, always the same.
"""
from __future__ import annotations

import functools
import math
import random
from typing import TYPE_CHECKING, Any

import numpy as np

from ..vision.drawn import Drawn
from .layout import chat
from .procedural import held_out
from .shapes import check_canvas
from .splits import check_split

if TYPE_CHECKING:
    from numpy.typing import NDArray

TRAIN, TEST = 8000, 500                      # rows
HELD_OUT = 10                                # one time in so many
RADIUS = 102 / 224                           # of the face, in sides of the image
BLACK, RED = (0, 0, 0), (210, 30, 30)
QUESTION = ("What time does this clock show? The shortest, thickest hand is for hours, the longer black one for "
            "minutes, and the red one for seconds. Give the time as HH:MM:SS, with hours from 01 to 12.")


def load(split: str = "train", *, canvas: int = 224, size: int | None = None, seed: int = 0,
         system_prompt: str | None = "xml") -> list[dict[str, Any]]:
    """Rows {prompt, question, answer, image}; the answer is "HH:MM:SS" with hours from 01 to 12. canvas: the side of
    the image in pixels. size: that many rows, None: 8000 of train, 500 of test; the test split is the same for every
    seed.

    >>> [row["answer"] for row in load("test", size=3)]
    ['09:59:20', '04:39:08', '02:55:08']
    """
    check_split(split, ("train", "test"), "clock")
    check_canvas(canvas, 56)
    times = [(h, m, s) for h in range(1, 13) for m in range(60) for s in range(60)
             if held_out(f"{h}:{m}:{s}", HELD_OUT) == (split == "test")]
    random.Random("clock test" if split == "test" else f"clock {split} {seed}").shuffle(times)
    wanted = (TEST if split == "test" else TRAIN) if size is None else size
    return [{"prompt": chat(QUESTION, system_prompt), "question": QUESTION, "answer": f"{h:02}:{m:02}:{s:02}",
             "image": Drawn(draw, (h, m, s, canvas), canvas, canvas)}
            for h, m, s in times[:min(wanted, TEST) if split == "test" else wanted]]


def draw(hour: int, minute: int, second: int, canvas: int) -> NDArray[np.uint8]:
    """The image of a clock: the hour hand 0.55 of the radius long and 3 pixels wide at 224, the minute hand 0.75 and 2,
    the second hand 0.85 and 1."""
    image = face(canvas).copy()
    minutes = minute + second / 60
    unit = canvas / 224
    for turn, length, width, colour in (((hour % 12 + minutes / 60) / 12, 0.55, 3, BLACK),
                                        (minutes / 60, 0.75, 2, BLACK), (second / 60, 0.85, 1, RED)):
        angle = 2 * math.pi * turn
        reach = length * RADIUS * canvas
        line(image, 0, 0, reach * math.sin(angle), -reach * math.cos(angle), width * unit, colour)
    line(image, 0, 0, 0, 0, 6 * unit, BLACK)                           # the pin
    return image


@functools.lru_cache(8)
def face(canvas: int) -> NDArray[np.uint8]:
    """The clock without its hands. Not to be written to."""
    image = np.full((canvas, canvas, 3), 255, np.uint8)
    y, x = np.mgrid[:canvas, :canvas] - (canvas - 1) / 2
    radius, unit = RADIUS * canvas, canvas / 224
    ring = np.clip(unit + 0.5 - np.abs(np.sqrt(x * x + y * y) - radius), 0, 1)
    image[:] = np.rint(255 * (1 - ring))[:, :, None]
    for tick in range(12):
        angle = tick * math.pi / 6
        end, begin = radius - 4 * unit, radius - (14 if tick % 3 == 0 else 9) * unit
        line(image, begin * math.sin(angle), -begin * math.cos(angle), end * math.sin(angle), -end * math.cos(angle),
             (3 if tick % 3 == 0 else 2) * unit, BLACK)
    image.flags.writeable = False
    return image


def line(image: NDArray[np.uint8], x0: float, y0: float, x1: float, y1: float, width: float,
         colour: tuple[int, int, int]) -> None:
    """Draws a line with round ends between two points that are counted from the middle of the image. A pixel is covered
    as far as its middle is from the line."""
    side, reach = len(image), width / 2 + 1
    middle = (side - 1) / 2
    left, right = max(0, int(middle + min(x0, x1) - reach)), min(side, int(middle + max(x0, x1) + reach) + 2)
    top, bottom = max(0, int(middle + min(y0, y1) - reach)), min(side, int(middle + max(y0, y1) + reach) + 2)
    x = np.arange(left, right, dtype=np.float32) - np.float32(middle + x0)
    y = (np.arange(top, bottom, dtype=np.float32) - np.float32(middle + y0))[:, None]
    dx, dy = np.float32(x1 - x0), np.float32(y1 - y0)
    along = np.clip((x * dx + y * dy) / max(dx * dx + dy * dy, np.float32(1e-6)), 0, 1)
    distance = np.sqrt((x - along * dx) ** 2 + (y - along * dy) ** 2)
    share = np.clip(np.float32(width / 2 + 0.5) - distance, 0, 1)[:, :, None]
    part = image[top:bottom, left:right]
    part[:] = part + np.rint(share * (np.array(colour, np.float32) - part))
