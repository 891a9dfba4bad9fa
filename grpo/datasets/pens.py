"""Digits as a hand draws them: strokes through a few points, that a style bends, leans and thickens.

A style is a tuple of whole numbers, and says all of a digit's pixels. They are made with additions, products and square
roots alone, so they are the same on every machine.
"""
import functools
import random

import numpy as np
from numpy.typing import NDArray

from .procedural import held_out

SIDE = 28                                    # pixels of a digit's square, as in MNIST
HELD_OUT = 10                                # one style in so many
Style = tuple[int, int, int, int, int, int, int, int]     # digit, way, slant, turn, height, width, pen, wobble
SLANT, TURN, HEIGHT, WIDTH, PEN, WOBBLE = (-4, 5), (-3, 3), (0, 4), (0, 4), (0, 5), (0, 999)
BETWEEN = 4                                  # pieces of a curve from a point to the next

SOFT = 1.2                                   # pixels from full ink to none

# Ways to write each digit: strokes, each a list of points x, y in a unit square whose origin is at the top left. A
# point that stands there twice is a corner.
WAYS: list[list[list[list[tuple[float, float]]]]] = [
    [[[(.5, 0), (.22, .12), (.1, .5), (.24, .88), (.5, 1), (.77, .87), (.9, .5), (.78, .12), (.5, 0), (.34, .05)]],
     [[(.6, .04), (.25, .1), (.1, .5), (.3, .95), (.7, .95), (.9, .5), (.7, .05), (.45, .08)]]],
    [[[(.5, 0), (.5, .5), (.5, 1)]],
     [[(.28, .22), (.54, 0), (.54, 0), (.53, .5), (.52, 1)]],
     [[(.3, .2), (.52, 0), (.52, 0), (.52, 1)], [(.3, 1), (.74, 1)]]],
    [[[(.15, .25), (.4, .01), (.78, .1), (.76, .4), (.4, .75), (.1, 1), (.1, 1), (.5, .98), (.92, .98)]],
     [[(.12, .2), (.5, 0), (.82, .22), (.6, .6), (.2, .92), (.1, .85), (.3, .8), (.6, .97), (.95, .9)]]],
    [[[(.15, .12), (.5, 0), (.8, .2), (.68, .42), (.4, .48), (.4, .48), (.8, .58), (.84, .82), (.5, 1), (.1, .88)]],
     [[(.15, .02), (.8, .02), (.8, .02), (.42, .4), (.42, .4), (.84, .55), (.8, .9), (.42, 1), (.1, .88)]]],
    [[[(.3, 0), (.2, .35), (.12, .62), (.12, .62), (.5, .6), (.92, .58)], [(.66, .25), (.64, .65), (.62, 1)]],
     [[(.7, 1), (.7, .5), (.7, 0), (.7, 0), (.38, .36), (.08, .68), (.08, .68), (.96, .66)]]],
    [[[(.82, .02), (.28, .02), (.28, .02), (.2, .44), (.2, .44), (.6, .38), (.86, .64), (.64, .96), (.12, .92)]],
     [[(.26, .04), (.2, .45), (.2, .45), (.62, .42), (.84, .7), (.55, 1), (.12, .88)], [(.26, .03), (.85, 0)]]],
    [[[(.72, 0), (.38, .22), (.16, .6), (.3, .96), (.68, .96), (.82, .7), (.55, .5), (.22, .66)]],
     [[(.5, 0), (.24, .35), (.18, .8), (.48, 1), (.78, .82), (.66, .56), (.36, .58), (.2, .78)]]],
    [[[(.1, .03), (.86, .02), (.86, .02), (.58, .5), (.42, 1)]],
     [[(.1, .06), (.86, .02), (.86, .02), (.6, .5), (.44, 1)], [(.32, .52), (.8, .48)]],
     [[(.12, .2), (.14, .03), (.14, .03), (.86, .02), (.86, .02), (.5, .6), (.42, 1)]]],
    [[[(.76, .12), (.45, 0), (.2, .2), (.48, .46), (.82, .72), (.55, 1), (.2, .84), (.4, .54), (.74, .28), (.7, .06)]],
     [[(.5, .46), (.22, .24), (.5, 0), (.78, .24), (.5, .46), (.16, .76), (.5, 1), (.84, .76), (.5, .46)]]],
    [[[(.8, .26), (.5, .5), (.2, .32), (.4, .03), (.74, .1), (.8, .26), (.8, .26), (.76, .6), (.66, 1)]],
     [[(.78, .2), (.6, .48), (.24, .4), (.28, .08), (.68, .02), (.82, .3), (.8, .7), (.55, 1), (.2, .9)]]],
]


def style(digit: int, split: str, rng: random.Random) -> Style:
    """A random style of a digit, of those that are in this split."""
    while True:
        found = (digit, rng.randrange(len(WAYS[digit])), *(rng.randint(*b) for b in (SLANT, TURN, HEIGHT, WIDTH, PEN,
                                                                                     WOBBLE)))
        if held_out(f"digit {found}", HELD_OUT) == (split == "test"):
            return found                                               # type: ignore[return-value]


@functools.lru_cache(4096)
def drawn(style: Style) -> NDArray[np.uint8]:
    """(SIDE, SIDE) 0 without ink and 255 in full. Not to be written to."""
    digit, way, slant, turn, height, width, pen, wobble = style
    words = np.random.Philox(key=np.array([wobble, digit], np.uint64)).random_raw(64)
    shaken = iter((words % 2001).astype(np.float64) / 1000 - 1)        # from -1 to 1
    tall, wide = 15.0 + 1.25 * height, 10.0 + 1.5 * width
    pieces = []
    for stroke in WAYS[digit][way]:
        points = np.array(stroke) - 0.5
        bends = {point: (next(shaken), next(shaken)) for point in dict.fromkeys(stroke)}
        points += 0.05 * np.array([bends[point] for point in stroke])
        x, y = points[:, 0] * wide, points[:, 1] * tall
        x, y = x - 0.05 * slant * y, y
        x, y = x + 0.05 * turn * y, y - 0.05 * turn * x
        pieces.append(curve(np.stack([x, y], 1)))
    begin, end = (np.concatenate([piece[cut] for piece in pieces]) for cut in (slice(None, -1), slice(1, None)))
    everything = np.concatenate([begin, end])
    low, high = everything.min(0), everything.max(0)                   # centred in its square, and inside
    radius, middle = 0.85 + 0.22 * pen, (low + high) / 2
    scale = min(1.0, (SIDE - 1 - SOFT - 2 * radius) / (high - low).max())
    distance = to_segments(*((ends - middle) * scale for ends in (begin, end)))
    found = np.clip(0.5 + (radius - distance) / SOFT, 0.0, 1.0)
    page = np.rint(found * 255).astype(np.uint8)
    page.flags.writeable = False
    return page


def curve(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """A Catmull-Rom spline through points, as points that are BETWEEN times as many."""
    padded = np.concatenate([points[:1], points, points[-1:]])
    a, b, c, d = (padded[i:len(padded) - 3 + i, None] for i in range(4))
    t = (np.arange(BETWEEN) / BETWEEN)[None, :, None]
    found = b + t * ((c - a) + t * ((2 * a - 5 * b + 4 * c - d) + t * (3 * b - a - 3 * c + d))) / 2
    return np.concatenate([found.reshape(-1, 2), points[-1:]])


def to_segments(begin: NDArray[np.float64], end: NDArray[np.float64]) -> NDArray[np.float32]:
    """(SIDE, SIDE) distance of each pixel's middle to the nearest segment; the origin is the middle of the square."""
    begin, end = begin.astype(np.float32), end.astype(np.float32)
    at = np.arange(SIDE, dtype=np.float32) - np.float32((SIDE - 1) / 2)
    along = end - begin
    length = np.maximum(along[:, 0] * along[:, 0] + along[:, 1] * along[:, 1], np.float32(1e-6))[:, None, None]
    x, y = at - begin[:, :1], at - begin[:, 1:]                        # (segments, SIDE) from its begin to a pixel
    ahead = (y * along[:, 1:])[:, :, None] + (x * along[:, :1])[:, None]         # times the segment
    part = ahead / length
    np.clip(part, 0, 1, out=part)
    ahead *= 2
    squared = (y * y)[:, :, None] + (x * x)[:, None]                   # |p|^2 - part (2 ahead - part length)
    ahead -= part * length
    squared -= part * ahead
    return np.sqrt(np.maximum(squared.min(0), 0))
