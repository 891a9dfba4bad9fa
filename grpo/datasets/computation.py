"""Computation with two counts: how many red circles and blue stars are there together? In drawn scenes, or in COCO's
photographs (r1_vlm's task, whose prompt asked to truncate what its answers had rounded)."""
import functools
import itertools
import math
import random
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from ..errors import ConfigError
from . import coco as photographs
from .coordinates import check_units, coordinates, explained
from .counting import MARKS, MOST, OTHERS, kinds, phrase, placed, plural
from .shapes import check_canvas, scenes
from .splits import check_split
from .thinking import asked as thought_through, layout

SIZE = {"train": 4000, "test": 500}          # rows when no size is given
OPERATIONS = ("add", "subtract", "multiply", "divide")
ASKED = {"add": "Add the number of {a} and the number of {b}.",
         "subtract": "Subtract the number of {b} from the number of {a}.",
         "multiply": "Multiply the number of {a} by the number of {b}.",
         "divide": "Divide the number of {a} by the number of {b}."}


def load(split: str = "train", *, operations: Sequence[str] = OPERATIONS, largest: int = 6, canvas: int = 224,
         units: str = "pixels", coco: str | None = None, size: int | None = None, seed: int = 0,
         system_prompt: str | None = None, prefill: bool = True) -> list[dict[str, Any]]:
    """Rows {prompt, question, answer, image, operation, counts, boxes, labels, image_size, frame, prefill}: counts are
    those of the two classes, and boxes where all of them are, as in counting. The answer is rounded to 2 decimals.

    operations: some of "add", "subtract", "multiply", "divide". largest: the most shapes of one class. The other
    options are those of counting; coco: ten questions an image that shows two classes or more.

    >>> row = load("test", size=1, operations=["divide"])[0]
    >>> row["question"][:68], row["counts"], row["answer"]
    ('Divide the number of blue squares by the number of yellow squares in', [3, 5], '0.6')
    """
    check_split(split, SIZE, "computation")
    check_units(units)
    if isinstance(operations, str) or not operations or not set(operations) <= set(OPERATIONS):
        raise ConfigError(f"operations={operations!r} must be some of {', '.join(OPERATIONS)}")
    if isinstance(largest, bool) or not isinstance(largest, int) or not 1 <= largest <= MOST // 2:
        raise ConfigError(f"largest={largest!r} must be the most shapes of one class, from 1 to {MOST // 2}")
    if coco is not None:
        found = photographs.pairs(coco, split, list(operations), seed)
    else:
        check_canvas(canvas, 112)
        draw = functools.partial(scene, list(operations), largest, canvas)
        found = scenes(f"computation {','.join(operations)} {largest} {canvas}", split, seed, draw)
        size = SIZE[split] if size is None else size
    return [asked(row, units, system_prompt, prefill) for row in itertools.islice(found, size)]


def scene(operations: list[str], largest: int, canvas: int, rng: random.Random) -> dict[str, Any] | None:
    """A scene with 1 to largest shapes of each of two classes."""
    first, second, *rest = kinds(rng)
    counts = [rng.randint(1, largest), rng.randint(1, largest)]
    held = [first] * counts[0] + [second] * counts[1]
    held += [rng.choice(rest) for _ in range(rng.randint(0, OTHERS))]
    columns = {"operation": rng.choice(operations), "classes": [phrase(first), phrase(second)], "counts": counts}
    return placed(held, canvas, rng, columns, sum(counts))


def asked(row: dict[str, Any], units: str, system_prompt: str | None, prefill: bool) -> dict[str, Any]:
    """A row of what is in an image."""
    places = coordinates(units, *row["image_size"])
    a, b = row["classes"]
    what = ASKED[row["operation"]].format(a=plural(a), b=plural(b))[:-1] + " in the image."
    marks = MARKS.format(label=a, coordinates=explained(units, places["frame"]))
    question = f"{what} Round the result to 2 decimals. {marks} {layout('the number', '1.67')}"
    return {**thought_through(question, row["image"], system_prompt, prefill), "question": question,
            "answer": result(row["operation"], *row["counts"]), **row, **places}


def result(operation: str, a: int, b: int) -> str:
    """The result rounded to 2 decimals, halves up, without zeros at the end.

    >>> result("divide", 5, 3), result("subtract", 2, 5), result("multiply", 4, 5), result("divide", 1, 8)
    ('1.67', '-3', '20', '0.13')
    """
    exact = {"add": Fraction(a + b), "subtract": Fraction(a - b), "multiply": Fraction(a * b),
             "divide": Fraction(a, b)}[operation]
    hundredths = math.floor(exact * 100 + Fraction(1, 2))
    return f"{hundredths / 100:.2f}".rstrip("0").rstrip(".")
