"""Counting: how many red circles are there? In drawn scenes whose boxes are known, or in COCO's photographs (r1_vlm's
task).

A scene holds the shapes that are asked for, others of their colour or their form, and shapes that share neither.
"""
import functools
import itertools
import random
from typing import Any

from ..errors import ConfigError
from ..vision.drawn import Drawn
from . import coco as photographs
from .coordinates import check_units, coordinates, explained
from .shapes import COLOURS, RGB, SHAPES, check_canvas, mask, scatter, scenes, stamp
from .splits import check_split
from .thinking import asked as thought_through, layout

SIZE = {"train": 4000, "test": 500}          # rows when no size is given
MOST = 20                                    # shapes of a class
OTHERS = 8                                   # shapes that are not asked for, at most
MARKS = ('Say in your thoughts where each of them is: a box {{"bbox_2d": [x1, y1, x2, y2], "label": "{label}"}} or a '
         'point {{"point_2d": [x, y], "label": "{label}"}}; do not count without. {coordinates}')
PAPER: tuple[RGB, ...] = ((250, 249, 245), (238, 242, 247), (240, 246, 238), (248, 240, 232), (228, 228, 232))

Thing = tuple[str, str, int, int, int]       # shape, colour, left, top, side


def load(split: str = "train", *, largest: int = 10, canvas: int = 224, units: str = "pixels", coco: str | None = None,
         balanced: bool = True, size: int | None = None, seed: int = 0, system_prompt: str | None = None,
         prefill: bool = True) -> list[dict[str, Any]]:
    """Rows {prompt, question, answer, image, target, label, boxes, labels, image_size, frame, prefill}: one class of
    shapes is asked for, label; target is how many there are, boxes where they are, [left, top, right, bottom] in pixels
    of the image, and labels what they are.

    largest: the most shapes of the class. canvas: the side of the square image. units: in which the model says places,
    "pixels" or "thousandths" (grpo/datasets/coordinates.py). system_prompt: None for r1_vlm's manner, "" for none.
    prefill: the assistant has begun its answer (thinking.py), as in r1_vlm.
    coco: a folder with COCO's annotations/instances_{train,val}2017.json and its images; one class an image, largest
    as here; balanced: classes with more than one instance are preferred, and images with one are as many as those with
    two. The test split is the same for every seed; of drawn scenes none of it can be in train.

    >>> row = load("test", size=1)[0]
    >>> row["question"][:46], row["answer"], row["boxes"][0]
    ('How many brown crosses are there in the image?', '3', [40, 99, 60, 119])
    """
    check_split(split, SIZE, "counting")
    check_units(units)
    if isinstance(largest, bool) or not isinstance(largest, int) or not 1 <= largest <= MOST:
        raise ConfigError(f"largest={largest!r} must be the most shapes of a class, from 1 to {MOST}")
    if coco is not None:
        found = photographs.counts(coco, split, largest, balanced, seed)
    else:
        check_canvas(canvas, 112)
        found = scenes(f"counting {largest} {canvas}", split, seed, functools.partial(scene, largest, canvas))
        size = SIZE[split] if size is None else size
    return [asked(row, units, system_prompt, prefill) for row in itertools.islice(found, size)]


def asked(row: dict[str, Any], units: str, system_prompt: str | None, prefill: bool) -> dict[str, Any]:
    """A row of what is in an image."""
    places = coordinates(units, *row["image_size"])
    what = f"How many {plural(row['label'])} are there in the image?"
    marks = MARKS.format(label=row["label"], coordinates=explained(units, places["frame"]))
    question = f"{what} {marks} {layout('the number', '3')}"
    return {**thought_through(question, row["image"], system_prompt, prefill), "question": question,
            "answer": str(row["target"]), **row, **places}


def scene(largest: int, canvas: int, rng: random.Random) -> dict[str, Any] | None:
    """A scene with 1 to largest shapes of one class."""
    label, *rest = kinds(rng)
    target = rng.randint(1, largest)
    held = [label] * target + [rng.choice(rest) for _ in range(rng.randint(0, OTHERS))]
    return placed(held, canvas, rng, {"label": phrase(label), "target": target}, target)


def kinds(rng: random.Random) -> list[tuple[str, str]]:
    """Some classes (shape, colour): one, others that share its shape or its colour, and some that share neither."""
    shape, colour = rng.choice(SHAPES), rng.choice(list(COLOURS))
    shapes = rng.sample([other for other in SHAPES if other != shape], 2)
    colours = rng.sample([other for other in COLOURS if other != colour], 2)
    return [(shape, colour), (shape, colours[0]), (shape, colours[1]), (shapes[0], colour), (shapes[1], colours[0])]


def placed(held: list[tuple[str, str]], canvas: int, rng: random.Random, columns: dict[str, Any],
           marked: int) -> dict[str, Any] | None:
    """A row with columns and an image that holds these shapes, the boxes of the first so many; None where they find no
    room."""
    small, big = canvas // 16, canvas // 8 if len(held) <= 16 else canvas // 11
    sides = sorted((rng.randint(small, big) for _ in held), reverse=True)       # late, a large one would find no room
    order = rng.sample(range(len(held)), len(held))
    places = scatter(rng, [(side, side) for side in sides], canvas, canvas)
    if places is None:
        return None
    things: list[Thing] = [("", "", 0, 0, 0)] * len(held)
    for i, side, place in zip(order, sides, places, strict=True):
        things[i] = (*held[i], *place, side)
    image = Drawn(draw, (canvas, rng.choice(PAPER), tuple(sorted(things))), canvas, canvas)
    return {"image": image, **columns, "boxes": [box(thing) for thing in things[:marked]],
            "labels": [phrase(kind) for kind in held[:marked]], "image_size": [canvas, canvas]}


def draw(canvas: int, paper: RGB, things: tuple[Thing, ...]) -> Any:
    """The image of a scene."""
    from PIL import Image

    image = Image.new("RGB", (canvas, canvas), paper)
    for shape, colour, left, top, side in things:
        stamp(image, shape, COLOURS[colour], left, top, side, side)
    return image


def box(thing: Thing) -> list[int]:
    """The rectangle of the pixels that a shape touches."""
    shape, _, x, y, side = thing
    left, top, right, bottom = mask(shape, side, side).getbbox() or (0, 0, side, side)
    return [x + left, y + top, x + right, y + bottom]


def phrase(kind: tuple[str, str]) -> str:
    """'red circle'."""
    return f"{kind[1]} {kind[0]}"


def plural(label: str) -> str:
    """The name of several.

    >>> plural("red cross"), plural("person"), plural("skis"), plural("sports ball")
    ('red crosses', 'people', 'skis', 'sports balls')
    """
    irregular = {"person": "people", "knife": "knives", "mouse": "mice", "skis": "skis", "scissors": "scissors",
                 "sheep": "sheep"}
    last = label.rpartition(" ")[2]
    if last in irregular:
        return label.removesuffix(last) + irregular[last]
    return label + ("es" if label.endswith(("s", "sh", "ch", "x")) else "s")
