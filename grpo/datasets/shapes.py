"""Shapes with soft edges, as masks that are computed once and pasted: what the drawn data sets have in common.

A mask is the share of each pixel that a shape covers, from 4 x 4 points in it. Its formulas are NumPy's, so that the
pixels are the same whatever the version of Pillow.
"""
from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError
from .procedural import PATIENCE, held_out

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

RGB = tuple[int, int, int]
COLOURS: dict[str, RGB] = {
    "red": (217, 43, 43), "orange": (250, 128, 20), "yellow": (245, 206, 30), "green": (46, 160, 67),
    "blue": (36, 99, 214), "purple": (126, 58, 178), "pink": (244, 128, 186), "brown": (121, 75, 44),
    "black": (30, 30, 32)}
SHAPES = ("circle", "square", "triangle", "diamond", "star", "cross")       # those that questions name
CORNER = 0.24                                # radius of a rounded rectangle's corners, of its smaller side
POINTS = 4                                   # in a pixel, each way
KEPT = 4096                                  # masks
HELD_OUT = 5                                 # one scene in so many


def polygon(*corners: tuple[float, float]) -> Callable[[NDArray, NDArray, int, int], NDArray]:
    """The test for points inside a polygon, whose corners are stretched to go from -1 to 1 both ways."""
    xs, ys = np.array(corners).T
    xs = 2 * (xs - xs.min()) / (xs.max() - xs.min()) - 1
    ys = 2 * (ys - ys.min()) / (ys.max() - ys.min()) - 1

    def inside(u: NDArray, v: NDArray, width: int, height: int) -> NDArray:
        found = np.zeros(u.shape, bool)
        for x0, y0, x1, y1 in zip(xs, ys, np.roll(xs, 1), np.roll(ys, 1), strict=True):
            if y0 != y1:
                found ^= ((y0 > v) != (y1 > v)) & (u < (x1 - x0) * (v - y0) / (y1 - y0) + x0)
        return found
    return inside


def rounded(u: NDArray, v: NDArray, width: int, height: int) -> NDArray:
    """Points inside a rectangle with round corners."""
    radius = CORNER * min(width, height)
    x, y = np.abs(u) * width / 2 - width / 2 + radius, np.abs(v) * height / 2 - height / 2 + radius
    return np.maximum(x, 0) ** 2 + np.maximum(y, 0) ** 2 <= radius ** 2


STAR = [(math.sin(i * math.pi / 5) * (0.45 if i % 2 else 1), -math.cos(i * math.pi / 5) * (0.45 if i % 2 else 1))
        for i in range(10)]
# whether points u, v from -1 to 1 are in a shape of this width and height
INSIDE: dict[str, Callable[[NDArray, NDArray, int, int], NDArray]] = {
    "circle": lambda u, v, width, height: u * u + v * v <= 1,
    "ring": lambda u, v, width, height: (u * u + v * v <= 1) & (u * u + v * v >= 0.5),
    "square": lambda u, v, width, height: np.abs(u) + np.abs(v) >= 0,
    "rounded": rounded,
    "triangle": polygon((0, -1), (1, 1), (-1, 1)),
    "diamond": lambda u, v, width, height: np.abs(u) + np.abs(v) <= 1,
    "trapezoid": polygon((-0.55, -1), (0.55, -1), (1, 1), (-1, 1)),
    "star": polygon(*STAR),
    "cross": lambda u, v, width, height: (np.abs(u) <= 0.36) | (np.abs(v) <= 0.36),
}


@functools.lru_cache(KEPT)
def cover(shape: str, width: int, height: int) -> NDArray[np.uint8]:
    """The mask of a shape, (height, width), 255 where it covers a pixel. Not to be written to."""
    u = (np.arange(width * POINTS) + 0.5) / (width * POINTS) * 2 - 1
    v = (np.arange(height * POINTS) + 0.5) / (height * POINTS) * 2 - 1
    there = INSIDE[shape](*np.meshgrid(u, v), width, height)
    share = there.reshape(height, POINTS, width, POINTS).mean(axis=(1, 3))
    found = np.rint(255 * share).astype(np.uint8)
    found.flags.writeable = False
    return found


@functools.lru_cache(KEPT)
def mask(shape: str, width: int, height: int) -> Image:
    """cover() for pasting."""
    from PIL import Image

    return Image.fromarray(cover(shape, width, height))


def stamp(image: Image, shape: str, colour: RGB, left: int, top: int, width: int, height: int) -> None:
    """Draws a shape in the rectangle that begins at left and top."""
    image.paste(colour, (left, top), mask(shape, width, height))


def scatter(rng: random.Random, sizes: Sequence[tuple[int, int]], width: int, height: int,
            gap: int = 3, taken: Sequence[tuple[int, int, int, int]] = ()) -> list[tuple[int, int]] | None:
    """Places (left, top) for rectangles of sizes (width, height), so that none is nearer to another, to one of taken
    (left, top, right, bottom), or to the edge than gap; None where the draws find no room."""
    rectangles = list(taken)
    places = []
    for w, h in sizes:
        if w + 2 * gap > width or h + 2 * gap > height:
            return None
        for _ in range(60):
            x, y = rng.randint(gap, width - gap - w), rng.randint(gap, height - gap - h)
            if all(x >= right + gap or x + w + gap <= left or y >= bottom + gap or y + h + gap <= top
                   for left, top, right, bottom in rectangles):
                break
        else:
            return None
        rectangles.append((x, y, x + w, y + h))
        places.append((x, y))
    return places


def scenes(name: str, split: str, seed: int, draw: Callable[[random.Random], dict[str, Any] | None]
           ) -> Iterator[dict[str, Any]]:
    """Rows of a split without end: those that draw() gives whose image is of that split by its hash; it gives None for
    what does not come out. The test split is the same for every seed. ConfigError where nothing comes out any more."""
    rng = random.Random(f"{name} test" if split == "test" else f"{name} {split} {seed}")
    missed = 0
    while missed < PATIENCE:
        row = draw(rng)
        missed = missed + 1 if row is None else 0
        if row is not None and held_out(row["image"].key.decode(), HELD_OUT) == (split == "test"):
            yield row
    raise ConfigError(f"{name.split()[0]}: {PATIENCE} scenes in a row found no room; make the canvas larger")


def check_canvas(canvas: Any, smallest: int, largest: int = 2048) -> None:
    """ConfigError unless a side of the image is within these."""
    if isinstance(canvas, bool) or not isinstance(canvas, int) or not smallest <= canvas <= largest:
        raise ConfigError(f"canvas={canvas!r} must be the side of the image in pixels, from {smallest} to {largest}")
