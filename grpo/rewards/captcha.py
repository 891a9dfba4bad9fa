"""Clicks on the cells of a grid: F1 over cells. DeepSeekRL's reward, for clicks in the answer tags in the units of the
row; as published it is deepseekrl_captcha.

The truth is in the columns cells, the numbers of the target cells row by row from 0, and grid, [left, top, side of a
cell, cells a side] in pixels of the image. captcha_precision and captcha_recall are for eval_funcs.
"""
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from ..answers import tagged_answer, text_of
from .applying import to_rows_with
from .boxes import f1
from .deepseekrl import extracted
from .marks import Point, placed
from .xml import strict_format_reward

CALL = re.compile(r"click_screen\(\s{0,9}([0-9]{1,9})\s{0,9},\s{0,9}([0-9]{1,9})\s{0,9}\)")


class Counts(NamedTuple):
    """Clicks of one completion: right ones, wrong ones, and targets without one."""

    right: int
    wrong: int
    missed: int

    @property
    def f1(self) -> float:
        """2 right / (2 right + wrong + missed); 1 where nothing was to be clicked and nothing was."""
        return f1(self.right, self.right + self.wrong, self.right + self.missed)


@to_rows_with("cells", "grid")
def captcha_reward(completions: list, cells: list, grid: list, frame: list | None = None,
                   image_size: list | None = None, log_metric: Callable | None = None,
                   **columns: Any) -> list[float]:
    """F1 of the points in the answer tags: the first in a target cell is right; a further one there, one in another
    cell or outside of the grid is wrong; a target without one is missed. What is clicked twice at one place counts
    once. Logs captcha/precision, recall, right, wrong, missed and clicks, their means.

    >>> said = ["<answer>click_screen(5, 5) click_screen(15, 5) click_screen(16, 5)</answer>", "click_screen(5, 5)"]
    >>> [round(x, 3) for x in captcha_reward(said, cells=[[0, 1, 3]] * 2, grid=[[0, 0, 10, 2]] * 2)]
    [0.667, 0.0]
    """
    counts = counts_of(completions, cells, grid, frame, image_size)
    if log_metric is not None:
        log_metric("captcha/precision", sum(map(precision, counts)) / len(counts))
        log_metric("captcha/recall", sum(map(recall, counts)) / len(counts))
        log_metric("captcha/right", sum(c.right for c in counts) / len(counts))
        log_metric("captcha/wrong", sum(c.wrong for c in counts) / len(counts))
        log_metric("captcha/missed", sum(c.missed for c in counts) / len(counts))
        log_metric("captcha/clicks", sum(c.right + c.wrong for c in counts) / len(counts))
    return [each.f1 for each in counts]


@to_rows_with("cells", "grid")
def captcha_precision(completions: list, cells: list, grid: list, frame: list | None = None,
                      image_size: list | None = None, **columns: Any) -> list[float]:
    """The share of the clicks that is right; 0 without clicks."""
    return list(map(precision, counts_of(completions, cells, grid, frame, image_size)))


@to_rows_with("cells", "grid")
def captcha_recall(completions: list, cells: list, grid: list, frame: list | None = None,
                   image_size: list | None = None, **columns: Any) -> list[float]:
    """The share of the target cells that is clicked."""
    return list(map(recall, counts_of(completions, cells, grid, frame, image_size)))


def precision(counts: Counts) -> float:
    """Right clicks of all clicks."""
    return counts.right / max(1, counts.right + counts.wrong)


def recall(counts: Counts) -> float:
    """Right clicks of all targets."""
    return counts.right / max(1, counts.right + counts.missed)


def counts_of(completions: list, cells: list, grid: list, frame: list | None,
              image_size: list | None) -> list[Counts]:
    """The counts of each completion."""
    said = placed([tagged_answer(text_of(c)) or "" for c in completions], frame, image_size)
    return [count(((mark.x, mark.y) for mark in marks if isinstance(mark, Point)), targets, own)
            for marks, targets, own in zip(said, cells, grid, strict=True)]


def count(clicks: Iterable[tuple[float, float]], cells: Sequence[int], grid: Sequence[int]) -> Counts:
    """The counts of some clicks (x, y)."""
    left, top, side, across = grid
    targets, found, wrong = set(cells), set(), 0
    for x, y in dict.fromkeys(clicks):
        column, row = (x - left) // side, (y - top) // side
        cell = int(row) * across + int(column) if 0 <= column < across and 0 <= row < across else -1
        if cell in targets and cell not in found:
            found.add(cell)
        else:
            wrong += 1
    return Counts(len(found), wrong, len(targets) - len(found))


# as published


@to_rows_with("cells", "grid", "image_size")
def captcha_reward_func(completions: list, cells: list, grid: list, image_size: list, **columns: Any) -> list[float]:
    """F1 of the calls click_screen(x, y) in the extracted answer, with whole numbers inside the image; others are
    passed over."""
    rewards = []
    for completion, targets, own, (width, height) in zip(completions, cells, grid, image_size, strict=True):
        clicks = [(int(x), int(y)) for x, y in CALL.findall(extracted(completion))]
        rewards.append(count(((x, y) for x, y in clicks if x < width and y < height), targets, own).f1)
    return rewards


NAMES = {
    "captcha": [captcha_reward, strict_format_reward],
    "captcha_reward": captcha_reward, "captcha_precision": captcha_precision, "captcha_recall": captcha_recall,
    "deepseekrl_captcha": captcha_reward_func,
}
