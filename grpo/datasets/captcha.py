"""A captcha of 4 x 4 cells: click on every cell that shows a car. (DeepSeekRL's task, whose images were Cityscapes';
here they are drawn streets.)

A cell is a target where the class covers a tenth of it or more.
"""
from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError
from ..vision.drawn import Drawn
from .coordinates import check_units, coordinates, explained
from .gui import write
from .layout import chat
from .shapes import COLOURS, RGB, cover, scatter, scenes, stamp
from .splits import check_split

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIZE = {"train": 4000, "test": 500}          # rows when no size is given
CELLS, CELL = 4, 54                          # cells a side, and pixels a side of a cell
PADDING, BANNER = 4, 28                      # pixels around the picture, and of the strip above it
PICTURE = CELLS * CELL
WIDTH, HEIGHT = PICTURE + 2 * PADDING, BANNER + PICTURE + 2 * PADDING       # 224 x 252
LEFT, TOP = PADDING, BANNER + PADDING
COVERED = 0.1                                # of a cell, from where on it is a target
BLUE, WHITE = (38, 100, 205), (255, 255, 255)
SKY, GRASS, ROAD, LINE = (196, 220, 240), (158, 190, 130), (120, 122, 128), (225, 225, 215)
GLASS, DARK, METAL = (206, 230, 244), (40, 42, 48), (90, 94, 104)
OWN: RGB = (-1, -1, -1)                      # stands for the colour of a thing
PAINT = ("red", "orange", "yellow", "blue", "purple", "black")
# a thing: height in widths, and its parts (shape, colour, left, top, width, height) in shares of its rectangle
THINGS: dict[str, tuple[float, list[tuple[str, RGB, float, float, float, float]]]] = {
    "car": (0.5, [("trapezoid", OWN, 0.17, 0, 0.64, 0.5), ("rounded", OWN, 0, 0.38, 1, 0.42),
                  ("square", GLASS, 0.33, 0.1, 0.14, 0.28), ("square", GLASS, 0.51, 0.1, 0.14, 0.28),
                  ("circle", DARK, 0.13, 0.58, 0.21, 0.42), ("circle", DARK, 0.66, 0.58, 0.21, 0.42)]),
    "bus": (0.56, [("rounded", OWN, 0, 0, 1, 0.84), *(("square", GLASS, 0.06 + 0.185 * i, 0.14, 0.14, 0.28)
                                                       for i in range(5)),
                   ("circle", DARK, 0.13, 0.66, 0.19, 0.34), ("circle", DARK, 0.68, 0.66, 0.19, 0.34)]),
    "motorcycle": (0.62, [("ring", DARK, 0, 0.42, 0.36, 0.58), ("ring", DARK, 0.64, 0.42, 0.36, 0.58),
                          ("trapezoid", OWN, 0.2, 0.3, 0.56, 0.4), ("rounded", DARK, 0.14, 0.2, 0.4, 0.14),
                          ("square", METAL, 0.68, 0.04, 0.07, 0.5), ("square", METAL, 0.6, 0, 0.22, 0.08)]),
    "traffic light": (2.6, [("square", METAL, 0.4, 0.55, 0.2, 0.45), ("rounded", DARK, 0, 0, 1, 0.6),
                            ("circle", (230, 50, 45), 0.26, 0.04, 0.48, 0.165),
                            ("circle", (240, 190, 40), 0.26, 0.22, 0.48, 0.165),
                            ("circle", (60, 190, 80), 0.26, 0.4, 0.48, 0.165)]),
    "tree": (1.3, [("square", (110, 76, 48), 0.42, 0.6, 0.16, 0.4), ("circle", (62, 128, 66), 0, 0, 1, 0.7)]),
    "house": (0.95, [("square", (226, 200, 168), 0.08, 0.4, 0.84, 0.6), ("triangle", (160, 74, 60), 0, 0, 1, 0.42),
                     ("square", (116, 84, 60), 0.42, 0.62, 0.18, 0.38), ("square", GLASS, 0.16, 0.52, 0.16, 0.18),
                     ("square", GLASS, 0.68, 0.52, 0.16, 0.18)])}
WIDTHS = {"car": (56, 120), "bus": (64, 128), "motorcycle": (48, 92), "traffic light": (18, 34), "tree": (30, 56),
          "house": (44, 72)}
CLASSES = ("car", "motorcycle")
STEP = 4                                     # widths are multiples of this, so that masks come again

Thing = tuple[str, RGB, int, int, int]       # name, colour, left, top, width


def load(split: str = "train", *, classes: Sequence[str] = CLASSES, units: str = "pixels", size: int | None = None,
         seed: int = 0, system_prompt: str | None = "xml") -> list[dict[str, Any]]:
    """Rows {prompt, question, image, target, cells, grid, clicks, image_size, frame}: target is the class, cells the
    numbers of the cells that show it, row by row from 0, and grid [left, top, side of a cell, cells a side] in pixels
    of the image, which is 224 x 252. clicks has a call click_screen(x, y) for the middle of each of the cells, in the
    model's units; there is no answer, as many clicks are right.

    classes: those that are asked for, of car, motorcycle, bus, traffic light, tree and house. units: "pixels" or
    "thousandths" (grpo/datasets/coordinates.py). The test split is the same for every seed; none of it can be in train.

    >>> row = load("test", size=1)[0]
    >>> row["target"], row["cells"], row["clicks"].split("\\n")[0]
    ('motorcycle', [1, 2, 6], 'click_screen(85, 59)')
    """
    check_split(split, SIZE, "captcha")
    check_units(units)
    if isinstance(classes, str) or not classes or not set(classes) <= set(THINGS):
        raise ConfigError(f"classes={classes!r} must be some of {', '.join(THINGS)}")
    places = coordinates(units, WIDTH, HEIGHT)
    found = scenes(f"captcha {','.join(classes)}", split, seed, functools.partial(scene, list(classes)))
    return [asked(row, units, places, system_prompt)
            for row in itertools.islice(found, SIZE[split] if size is None else size)]


def asked(row: dict[str, Any], units: str, places: dict[str, list[int]], system_prompt: str | None) -> dict[str, Any]:
    """A row of a scene and its targets."""
    question = (f"The picture below the blue banner is a grid of {CELLS} x {CELLS} cells. Click on every cell that "
                f"shows a {row['target']}: one call click_screen(x, y) for each of them in the answer, each on a line "
                f"of its own. {explained(units, places['frame'])}")
    (width, height), (wide, high) = places["image_size"], places["frame"]
    clicks = [f"click_screen({(LEFT + (cell % CELLS + 0.5) * CELL) * wide / width:.0f}, "
              f"{(TOP + (cell // CELLS + 0.5) * CELL) * high / height:.0f})" for cell in row["cells"]]
    return {"prompt": chat(question, system_prompt), "question": question, "clicks": "\n".join(clicks), **row,
            "grid": [LEFT, TOP, CELL, CELLS], **places}


def scene(classes: list[str], rng: random.Random) -> dict[str, Any] | None:
    """A street and the class that is asked for; None where its things find no room, or no cell shows enough of it."""
    target = rng.choice(classes)
    names = [target] * rng.randint(1, 3)
    names += [rng.choice([name for name in THINGS if name != target]) for _ in range(rng.randint(2, 5))]
    sizes = [size(name, rng.randrange(*WIDTHS[name], STEP)) for name in names]
    places = scatter(rng, sizes, PICTURE, PICTURE, 2)
    if places is None:
        return None
    things = tuple((name, COLOURS[rng.choice(PAINT)], x, y, width)
                   for name, (x, y), (width, _) in zip(names, places, sizes, strict=True))
    horizon = rng.randint(12, 30)            # high, so that most things stand on the ground
    cells = np.flatnonzero(shares(things, target) >= COVERED).tolist()
    if not 1 <= len(cells) <= CELLS * CELLS - CELLS:
        return None
    return {"image": Drawn(draw, (target, horizon, things), HEIGHT, WIDTH), "target": target, "cells": cells}


def size(name: str, width: int) -> tuple[int, int]:
    """(width, height) of a thing."""
    return width, round(width * THINGS[name][0])


def shares(things: Sequence[Thing], target: str) -> NDArray[np.float64]:
    """The share of each cell that things of a class cover, row by row."""
    page = np.zeros((PICTURE, PICTURE), bool)
    for name, _, x, y, width in things:
        if name == target:
            there = outline(name, width)
            page[y:y + len(there), x:x + width] |= there
    return page.reshape(CELLS, CELL, CELLS, CELL).mean(axis=(1, 3)).ravel()


def pieces(name: str, width: int) -> list[tuple[str, RGB, int, int, int, int]]:
    """The parts of a thing in pixels."""
    wide, high = size(name, width)
    found = []
    for shape, colour, left, top, part_width, part_height in THINGS[name][1]:
        x, y = round(left * wide), round(top * high)
        found.append((shape, colour, x, y, min(wide - x, max(1, round(part_width * wide))),
                      min(high - y, max(1, round(part_height * high)))))
    return found


@functools.lru_cache(256)
def outline(name: str, width: int) -> NDArray[np.bool_]:
    """The pixels of which a thing covers half or more."""
    page = np.zeros(size(name, width)[::-1], bool)
    for shape, _, x, y, w, h in pieces(name, width):
        page[y:y + h, x:x + w] |= cover(shape, w, h) >= 128
    return page


def draw(target: str, horizon: int, things: tuple[Thing, ...]) -> Any:
    """The image of a captcha."""
    image = backdrop(horizon).copy()
    for name, colour, left, top, width in things:
        for shape, own, x, y, w, h in pieces(name, width):
            stamp(image, shape, colour if own == OWN else own, LEFT + left + x, TOP + top + y, w, h)
    for i in range(CELLS + 1):
        image.paste(WHITE, (LEFT + i * CELL - 1, TOP, LEFT + i * CELL + 1, TOP + PICTURE))
        image.paste(WHITE, (LEFT, TOP + i * CELL - 1, LEFT + PICTURE, TOP + i * CELL + 1))
    write(image, f"Click on every {target}", WIDTH // 2, BANNER // 2, WHITE)
    return image


@functools.lru_cache(64)
def backdrop(horizon: int) -> Any:
    """The banner and an empty street. Not to be drawn on."""
    from PIL import Image

    image = Image.new("RGB", (WIDTH, HEIGHT), WHITE)
    image.paste(BLUE, (0, 0, WIDTH, BANNER))
    right, bottom = LEFT + PICTURE, TOP + PICTURE
    road = TOP + (horizon + PICTURE) * 3 // 5
    image.paste(SKY, (LEFT, TOP, right, TOP + horizon))
    image.paste(GRASS, (LEFT, TOP + horizon, right, road))
    image.paste(ROAD, (LEFT, road, right, bottom))
    middle = (road + bottom) // 2
    for x in range(LEFT + 6, right - 20, 36):
        image.paste(LINE, (x, middle, x + 20, middle + 4))
    return image
