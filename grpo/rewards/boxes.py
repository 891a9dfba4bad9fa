"""Boxes and points against the truth: matched one to one, so that a box named twice counts once and one too many costs.

The truth is in a column boxes, lists of [left, top, right, bottom] in pixels of the image, or in a column box, one
alone. Columns frame and image_size say in which numbers the model speaks (grpo/datasets/coordinates.py). grpo.rewards.
marks reads the completions; what is named twice in the same words counts as named once.
"""
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..answers import tagged, text_of
from ..errors import ConfigError, RewardError
from .arguments import number
from .marks import Box, Point, inside, placed

F64 = NDArray[np.float64]
MATCHINGS = ("optimal", "greedy")


class BoxesReward:
    """F1 of the marks in the reasoning (what stands before </think>, or all of it): 2 hits / (marks + boxes of the
    truth). A box hits one whose IoU with it is threshold or more, a point one that it is in; each hits one at most.

    matching: "optimal", the most hits that there can be, or "greedy", the best pair first. points: False: only boxes
    count. labels: a mark that bears the name of something else than the column labels says hits nothing. Logs
    boxes/precision and boxes/recall.

    >>> said = '<think>{"bbox_2d": [0, 0, 10, 10]}, {"point_2d": [25, 25]}, {"point_2d": [90, 90]}</think>'
    >>> BoxesReward()([said], boxes=[[[0, 0, 10, 12], [20, 20, 30, 30]]])
    [0.8]
    """

    __name__ = "boxes_reward"

    def __init__(self, threshold: float = 0.5, matching: str = "optimal", points: bool = True, labels: bool = False):
        self.threshold = number(self.__name__, "threshold", threshold, 0.01, 1)
        self.matching = checked(self.__name__, matching)
        self.points, self.labels = points, labels

    def __call__(self, completions: list, boxes: list, labels: list | None = None, frame: list | None = None,
                 image_size: list | None = None, log_metric: Callable | None = None,
                 **columns: Any) -> list[float | None]:
        """One reward a completion, from 0 to 1; None where the row has no boxes."""
        if self.labels and labels is None:
            raise RewardError("boxes_reward: labels is true, and the rows have no column labels")
        said = placed([text_of(c).partition("</think>")[0] for c in completions], frame, image_size)
        counts = [None if truth is None else self.counts(marks, truth, names) for marks, truth, names in
                  zip(said, truths_of(self.__name__, boxes, None), labels or [None] * len(boxes), strict=True)]
        found = [each for each in counts if each is not None]
        if log_metric is not None and found:
            log_metric("boxes/precision", sum(hits / max(1, n) for hits, n, _ in found) / len(found))
            log_metric("boxes/recall", sum(hits / max(1, m) for hits, _, m in found) / len(found))
        return [None if each is None else f1(*each) for each in counts]

    def counts(self, marks: Sequence[Box | Point], truth: Sequence, labels: Sequence | None) -> tuple[float, int, int]:
        """(hits, marks, boxes of the truth) of one completion."""
        marks = [mark for mark in dict.fromkeys(marks) if self.points or isinstance(mark, Box)]
        scores = overlaps(marks, truth)
        if self.labels and labels is not None:
            scores *= same_names(marks, labels)
        hits = np.where(scores >= self.threshold, 1.0 if self.matching == "optimal" else scores, 0.0)
        return float(np.count_nonzero(matched(hits, self.matching))), len(marks), len(truth)


class IoUReward:
    """IoU of the boxes in the answer (or in all of the text, without <answer>): with one box on both sides it is
    theirs; with more, 2 (sum of the IoUs of matched pairs) / (boxes said + boxes of the truth).

    threshold: an IoU below it is 0, and one of it or more 1; None: IoUs as they are. matching: as in boxes_reward.

    >>> IoUReward()(['<answer>{"bbox_2d": [0, 0, 10, 10]}</answer>', "none"], box=[[0, 0, 10, 20]] * 2)
    [0.5, 0.0]
    """

    __name__ = "iou_reward"

    def __init__(self, threshold: float | None = None, matching: str = "optimal"):
        self.threshold = None if threshold is None else number(self.__name__, "threshold", threshold, 0.01, 1)
        self.matching = checked(self.__name__, matching)

    def __call__(self, completions: list, boxes: list | None = None, box: list | None = None,
                 frame: list | None = None, image_size: list | None = None, **columns: Any) -> list[float | None]:
        """One reward a completion, from 0 to 1; None where the row has neither box nor boxes."""
        truths = truths_of(self.__name__, boxes, box)
        said = placed([answer_of(c) for c in completions], frame, image_size)
        return [None if truth is None else self.value(marks, truth)
                for marks, truth in zip(said, truths, strict=True)]

    def value(self, marks: Sequence[Box | Point], truth: Sequence) -> float:
        """The reward of one completion."""
        named = [mark for mark in dict.fromkeys(marks) if isinstance(mark, Box)]
        scores = overlaps(named, truth)
        if self.threshold is not None:
            scores = (scores >= self.threshold).astype(np.float64)
        return f1(float(matched(scores, self.matching).sum()), len(named), len(truth))


def point_in_box_reward(completions: list, boxes: list | None = None, box: list | None = None,
                        frame: list | None = None, image_size: list | None = None,
                        **columns: Any) -> list[float | None]:
    """1.0 where the last point of the answer (or of all the text, without <answer>) is in the column box, or in one of
    the column boxes; else 0.0. None where the row has neither.

    >>> point_in_box_reward(['<answer>{"point_2d": [5, 5]}</answer>', "click_screen(50, 5)"], box=[[0, 0, 9, 9]] * 2)
    [1.0, 0.0]
    """
    truths = truths_of("point_in_box_reward", boxes, box)
    said = placed([answer_of(c) for c in completions], frame, image_size)
    points = [[mark for mark in marks if isinstance(mark, Point)][-1:] for marks in said]
    return [None if truth is None else float(any(inside(point, Box(*sides)) for point in last for sides in truth))
            for last, truth in zip(points, truths, strict=True)]


def answer_of(completion: Any) -> str:
    """What stands in the answer tags, closed or not, else all of the text."""
    text = text_of(completion)
    answer = tagged(text)
    return text if answer is None else answer


def truths_of(reward: str, boxes: list | None, box: list | None) -> list:
    """The boxes of each row. RewardError where there is neither column, and for what is no box."""
    if boxes is None and box is None:
        raise RewardError(f"{reward} needs a column named boxes or box")
    truths = boxes if boxes is not None else [None if one is None else [one] for one in box or []]
    for i, truth in enumerate(truths):
        for sides in () if truth is None else truth:
            if not is_box(sides):
                raise RewardError(f"{reward}: completion {i}'s row has the box {sides!r:.60}, not [left, top, right, "
                                  "bottom]")
    return truths


def is_box(sides: Any) -> bool:
    """Whether these are four finite numbers."""
    try:
        return len(sides) == 4 and all(math.isfinite(side) for side in sides)
    except (TypeError, OverflowError):
        return False


def f1(hits: float, marks: int, truth: int) -> float:
    """2 hits / (marks + truth); 1 where both are none."""
    return 2 * hits / (marks + truth) if marks + truth else 1.0


def checked(reward: str, matching: str) -> str:
    """The matching, if there is one of that name, else ConfigError."""
    if matching not in MATCHINGS:
        raise ConfigError(f"reward {reward!r}: matching={matching!r} must be {' or '.join(MATCHINGS)}")
    return matching


def overlaps(marks: Sequence[Box | Point], truth: Sequence) -> F64:
    """(len(truth), len(marks)): the IoU of each box with each of the truth; 1 or 0 for a point in it or not."""
    a = np.array([box[:4] for box in truth], np.float64).reshape(-1, 1, 4)
    # a point is the box that begins and ends there: it has no area
    b = np.array([mark[:4] if isinstance(mark, Box) else (mark.x, mark.y) * 2 for mark in marks],
                 np.float64).reshape(1, -1, 4)
    is_point = np.array([isinstance(mark, Point) for mark in marks], bool)
    width = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0])
    height = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1])
    sides = [(box[..., 2] - box[..., 0], box[..., 3] - box[..., 1]) for box in (a, b)]
    areas = [np.where((w > 0) & (h > 0), w * h, 0) for w, h in sides]
    shared = np.where((width > 0) & (height > 0), width * height, 0) * (areas[0] > 0) * (areas[1] > 0)
    union = areas[0] + areas[1] - shared
    return np.where(is_point, (width >= 0) & (height >= 0), shared / np.where(union > 0, union, 1))


def same_names(marks: Sequence[Box | Point], labels: Sequence) -> NDArray[np.bool_]:
    """Whether a mark may be of a label: it bears none, or the same but for case and the s of several."""
    names = [simple(mark.label) for mark in marks]
    return np.array([[name in ("", simple(label)) for name in names] for label in labels], bool).reshape(
        len(labels), len(marks))


def simple(label: str | None) -> str:
    """A label without what does not matter."""
    words = " ".join((label or "").casefold().split())
    if words.endswith(("ses", "shes", "ches", "xes")):
        return words[:-2]
    return words if words.endswith(("ss", "us")) else words.removesuffix("s")


def matched(scores: F64, matching: str = "optimal") -> F64:
    """The scores of the pairs of a one-to-one matching of rows and columns: that of the largest sum, or the best pair
    first, then the best of those left.

    >>> scores = np.array([[0.9, 0.8], [0.7, 0.0]])
    >>> matched(scores).tolist(), matched(scores, "greedy").tolist()
    ([0.8, 0.7], [0.9, 0.0])
    """
    if scores.shape[0] > scores.shape[1]:
        scores = scores.T
    if not scores.size:
        return np.zeros(0)
    if matching == "optimal":
        return scores[np.arange(len(scores)), assignment(scores)]
    left, found = scores.copy(), []
    for _ in range(len(scores)):
        row, column = np.unravel_index(np.argmax(left), left.shape)
        found.append(scores[row, column])
        left[row], left[:, column] = -1.0, -1.0
    return np.array(found)


def assignment(scores: F64) -> NDArray[np.intp]:
    """The column of each row in the matching of the largest sum; there are as many columns as rows, or more. By
    shortest augmenting paths (Jonker and Volgenant): rows^2 passes over the columns."""
    rows, columns = scores.shape
    row_price, price = np.zeros(rows), np.zeros(columns)
    owner = np.full(columns, -1)
    for start in range(rows):
        row, distance = start, np.full(columns, np.inf)
        before, done = np.full(columns, -1), np.zeros(columns, bool)
        reached, last = 0.0, -1
        while True:
            way = reached - scores[row] - row_price[row] - price
            shorter = ~done & (way < distance)
            distance[shorter], before[shorter] = way[shorter], last
            column = int(np.argmin(np.where(done, np.inf, distance)))
            reached, last = float(distance[column]), column
            done[column] = True
            if owner[column] < 0:
                break
            row = int(owner[column])
        passed = done & (owner >= 0)
        row_price[owner[passed]] += reached - distance[passed]
        row_price[start] += reached
        price[done] -= reached - distance[done]
        while last >= 0:                     # the path backwards: each column goes to the row of the one before
            previous = before[last]
            owner[last] = start if previous < 0 else owner[previous]
            last = int(previous)
    result = np.zeros(rows, np.intp)
    result[owner[owner >= 0]] = np.flatnonzero(owner >= 0)
    return result


NAMES = {"boxes_reward": BoxesReward, "iou_reward": IoUReward, "point_in_box_reward": point_in_box_reward}
