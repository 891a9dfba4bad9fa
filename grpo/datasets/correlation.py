"""Scatter plots: what is the correlation of these points? (A task of DeepSeekRL's branch for regression.)

The noise of a plot is made orthogonal to its x, so that the points have the correlation that is the answer; there they
had it up to 0.05 or so.
"""
from __future__ import annotations

import functools
import itertools
import math
import random
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError
from ..vision.drawn import Drawn
from .layout import chat
from .shapes import check_canvas, scenes
from .splits import check_split

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIZE = {"train": 8000, "test": 500}          # rows
POINTS, FEWEST = 75, 10                      # of fewer points, plots of train would look as some of test do
EDGE, PADDING = 0.05, 0.1                    # around the axes, and around the points within them
GREY = 128
QUESTION = ("What is the correlation coefficient of the points in this scatter plot? Give it with two decimals, as X.XX"
            "{sign}.")


def load(split: str = "train", *, signs: str = "positive", points: int = POINTS, canvas: int = 224,
         size: int | None = None, seed: int = 0, system_prompt: str | None = "xml") -> list[dict[str, Any]]:
    """Rows {prompt, question, answer, image}; the answer has two decimals, from 0.00 to 1.00, or from -1.00 with signs
    "both". size: that many rows, None: 8000 of train, 500 of test; the test split is the same for every seed, and none
    of it can be in train.

    >>> [row["answer"] for row in load("test", size=4, signs="both")]
    ['0.11', '0.41', '-0.17', '-0.73']
    """
    check_split(split, SIZE, "correlation")
    check_canvas(canvas, 56)
    if signs not in ("positive", "both"):
        raise ConfigError(f"signs={signs!r} must be 'positive', for answers from 0 to 1, or 'both'")
    if isinstance(points, bool) or not isinstance(points, int) or not FEWEST <= points <= 1000:
        raise ConfigError(f"points={points!r} must be the points of a plot, from {FEWEST} to 1000")
    wanted = SIZE[split] if size is None else size if split == "train" else min(size, SIZE["test"])
    plots = scenes(f"correlation {signs} {points} {canvas}", split, seed,
                   functools.partial(plot, signs == "both", points, canvas, system_prompt))
    return list(itertools.islice(plots, wanted))


def plot(both: bool, points: int, canvas: int, system_prompt: str | None, rng: random.Random) -> dict[str, Any]:
    """A row."""
    hundredths = rng.randint(-100 if both else 0, 100)
    question = QUESTION.format(sign=" or -X.XX" if both else "")
    return {"prompt": chat(question, system_prompt), "question": question, "answer": f"{hundredths / 100:.2f}",
            "image": Drawn(draw, (hundredths, rng.getrandbits(32), points, canvas), canvas, canvas)}


def sample(hundredths: int, number: int, points: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(x, y) of plot number so and so: r x + sqrt(1 - r^2) noise, where both are standardised and orthogonal."""
    rng = random.Random(number)
    x, noise = np.array([rng.gauss(0, 1) for _ in range(2 * points)]).reshape(2, points)
    x -= x.mean()
    noise -= noise.mean()
    noise -= x * (x @ noise) / (x @ x)
    r = hundredths / 100
    return x / x.std(), r * x / x.std() + math.sqrt(1 - r * r) * noise / noise.std()


def draw(hundredths: int, number: int, points: int, canvas: int) -> NDArray[np.uint8]:
    """The image of a plot: black squares between two grey axes without ticks, in a frame that fits the points."""
    image = np.full((canvas, canvas), 255, np.uint8)
    edge, side = round(EDGE * canvas), max(2, round(canvas / 60))
    image[edge:canvas - edge, edge] = image[canvas - edge - 1, edge:canvas - edge] = GREY
    room = canvas - 2 * edge - side
    across, up = ((PADDING + (1 - 2 * PADDING) * (v - v.min()) / (v.max() - v.min())) * room
                  for v in sample(hundredths, number, points))
    for column, row in zip(np.rint(edge + across).astype(int), np.rint(canvas - edge - side - up).astype(int),
                           strict=True):
        image[row:row + side, column:column + side] = 0
    return image
