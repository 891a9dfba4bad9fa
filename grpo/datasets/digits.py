"""Digits on a dark canvas: which are there, and what is their sum? r1_vlm's first task, with digits drawn here or those
of MNIST's files. Images are drawn when they are looked at."""
import os
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DatasetError
from ..vision import Drawn
from . import idx, pens
from .shapes import check_canvas
from .splits import check_split
from .thinking import asked, check_instruction, check_share, layout, said, usual_system

TASKS = ("recognition", "addition")
SIZE = {"train": 6000, "test": 600}          # rows when no size is given
LARGEST = 4096                               # pixels of the image's side
MOST = 9                                     # digits of an image
TRIES = 200                                  # places for a digit, after which all are placed anew
QUESTIONS = {
    "recognition": "Which digits are in this image? List all of them, sorted from the lowest to the highest, and one "
                   "that is there twice also twice. " + layout("the list", "[1, 2, 3]"),
    "addition": "What is the sum of the digits in this image? " + layout("the sum as a number", "3"),
}
SHORT = {"recognition": "Which digits?", "addition": "What sum?"}
Places = tuple[tuple[int, int, Any], ...]    # (top, left, style or number in the file) of each digit


def load(split: str = "train", *, task: str = "both", digits: int | Sequence[int] = (1, 2, 3), size: int | None = None,
         seed: int = 0, system_prompt: str | None = None, path: str | None = None, canvas: int = 100,
         instruction: str = "full", prefill: bool | None = None, demonstrations: bool = False,
         mistakes: float = 0.0) -> list[dict[str, Any]]:
    """Rows {prompt, image, task, label, total, difficulty, answer}: label is the sorted list of digits, total their
    sum, difficulty their number.

    task: "recognition", "addition", or "both", which asks both of every image. digits: how many an image has, in turn
    when there are several. path: a folder of MNIST's four files, whose test file is the split test; None: digits drawn
    here in so many styles that none of those in test is ever in train, whatever seed and size. canvas: pixels of the
    image's side. instruction: "short" asks in three words, for tiny models. prefill: the answer is begun (see
    thinking.asked); None: with the full instruction. demonstrations: also a column completion, for supervised
    fine-tuning, in which a digit is misread at the rate of mistakes. Raises DatasetError that names a file and what is
    wrong with it.

    >>> row = load("test", task="addition", digits=2, size=1)[0]
    >>> row["label"], row["answer"], row["image"].pixels().shape
    ([9, 9], '18', (100, 100))
    """
    check_split(split, SIZE, "digits")
    tasks = TASKS if task == "both" else (task,)
    if not set(tasks) <= set(TASKS):
        raise ConfigError(f"task={task!r} must be {', '.join(TASKS)} or both")
    counts = check_options(digits, canvas, instruction, mistakes)
    questions = SHORT if instruction == "short" else QUESTIONS
    prefill = instruction == "full" if prefill is None else prefill
    rng, noise = random.Random(f"digits {split} {seed}"), random.Random(f"mistakes {split} {seed}")
    draw, choose = source(path, split, canvas)
    rows: list[dict[str, Any]] = []
    for i in range(-(-(SIZE[split] if size is None else size) // len(tasks))):
        seen, chosen = zip(*(choose(rng) for _ in range(counts[i % len(counts)])), strict=True)
        places: Places = tuple((*corner, one) for corner, one in
                               zip(corners(len(seen), canvas, rng), chosen, strict=True))
        image = Drawn(draw, (canvas, places), canvas, canvas)
        by_reading = [digit for _, digit in sorted(zip(((p[1], p[0]) for p in places), seen, strict=True))]
        for one in tasks:
            row = {**asked(questions[one], image, usual_system(system_prompt, instruction), prefill), "task": one,
                   "label": sorted(seen), "total": sum(seen), "difficulty": len(seen), "answer": answer(one, seen)}
            if demonstrations:
                row["completion"] = demonstrated(one, by_reading, mistakes, noise, prefill)
            rows.append(row)
    return rows[:size]


def check_options(digits: int | Sequence[int], canvas: int, instruction: str, mistakes: float) -> list[int]:
    """The numbers of digits; ConfigError for an option that cannot be."""
    counts = [digits] if isinstance(digits, int) else list(digits)
    if not counts or not all(isinstance(n, int) and 1 <= n <= MOST for n in counts):
        raise ConfigError(f"digits={digits!r} must be how many digits an image has, from 1 to {MOST}, or several of "
                          "these")
    check_canvas(canvas, pens.SIDE, LARGEST)
    check_instruction(instruction)
    check_share("mistakes", mistakes)
    return counts


def source(path: str | None, split: str, canvas: int) -> tuple[Any, Any]:
    """(a function of canvas and places that draws an image, one of rng that chooses (digit, its style or number))."""
    if path is None:
        def styled(rng: random.Random) -> tuple[int, pens.Style]:
            digit = rng.randrange(10)
            return digit, pens.style(digit, split, rng)
        return draw_styles, styled
    folder = os.path.abspath(os.path.expanduser(path))
    labels, images = idx.labels(folder, split), idx.images(folder, split)
    if images.shape[1:] != (pens.SIDE, pens.SIDE):
        raise DatasetError(f"{idx.find(folder, split, 'images-idx3-ubyte')}: images of {images.shape[1]} x "
                           f"{images.shape[2]} pixels, not {pens.SIDE} x {pens.SIDE}")

    def stored(rng: random.Random) -> tuple[int, tuple[str, str, int]]:
        number = rng.randrange(len(labels))
        return int(labels[number]), (folder, split, number)
    return draw_stored, stored


def draw_styles(canvas: int, places: Places) -> NDArray[np.uint8]:
    """(canvas, canvas) digits of these styles on black."""
    return pasted(canvas, [(top, left, pens.drawn(style)) for top, left, style in places])


def draw_stored(canvas: int, places: Places) -> NDArray[np.uint8]:
    """(canvas, canvas) digits of MNIST's files on black; each is (folder, split, number)."""
    return pasted(canvas, [(top, left, idx.images(folder, split)[number])
                           for top, left, (folder, split, number) in places])


def pasted(canvas: int, digits: Sequence[tuple[int, int, NDArray[np.uint8]]]) -> NDArray[np.uint8]:
    """A black page with them on it."""
    page = np.zeros((canvas, canvas), np.uint8)
    for top, left, digit in digits:
        page[top:top + len(digit), left:left + len(digit)] = digit
    return page


def corners(count: int, canvas: int, rng: random.Random) -> list[tuple[int, int]]:
    """(top, left) of squares that do not overlap, at random. ConfigError where they have no room."""
    for _ in range(TRIES):
        found: list[tuple[int, int]] = []
        for _ in range(TRIES):
            top, left = (rng.randrange(canvas - pens.SIDE + 1) for _ in range(2))
            if all(abs(top - y) >= pens.SIDE or abs(left - x) >= pens.SIDE for y, x in found):
                found.append((top, left))
                if len(found) == count:
                    return found
    raise ConfigError(f"canvas={canvas} has no room for {count} digits of {pens.SIDE} pixels; make it larger")


def answer(task: str, seen: Sequence[int]) -> str:
    """The answer to a task about these digits."""
    return str(sorted(seen)) if task == "recognition" else str(sum(seen))


def demonstrated(task: str, seen: Sequence[int], mistakes: float, rng: random.Random, prefill: bool) -> str:
    """A completion that reads the digits from left to right, each wrongly at the rate of mistakes, and sorts or adds
    them."""
    read = [(digit + rng.randrange(1, 10)) % 10 if rng.random() < mistakes else digit for digit in seen]
    return said(" ".join(map(str, read)) if task == "recognition" else "+".join(map(str, read)), answer(task, read),
                prefill)
