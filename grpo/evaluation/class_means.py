"""What a tower's features tell by themselves: an image is of the class whose mean feature is nearest to its own.

Nothing is trained and no word is written, so this says how much of a task was in the frozen features already.
"""
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DatasetError
from ..vision.messages import given_images, normal
from .estimates import wilson

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..model import Model

CLASS_MEANS = "nearest_class_mean.json"


@dataclass(frozen=True)
class ClassMeans:
    """accuracy, with its 95 % interval from low to high, of so many rows; classes, and rows that their means are of."""

    accuracy: float
    low: float
    high: float
    rows: int
    classes: int
    train_rows: int

    def __str__(self) -> str:
        return (f"nearest class mean of frozen features: {self.accuracy:.1%} of {self.rows} images (95 % interval "
                f"{self.low:.1%} to {self.high:.1%}); {self.classes} classes, means of {self.train_rows} images")


def nearest_class_mean(model: "Model", train_rows: Sequence[Mapping[str, Any]],
                       test_rows: Sequence[Mapping[str, Any]]) -> ClassMeans:
    """Classifies the images of test_rows by the mean of each class's vectors (Model.embed) in train_rows, at Euclidean
    distance. A row's class is its label, or where it has none its answer; of several images their mean counts.
    DatasetError that names the row without an image or a class, or of a class that train_rows lack, and where there are
    no rows.
    """
    if len(train_rows) == 0 or len(test_rows) == 0:
        raise DatasetError(f"nearest class mean: there are {len(train_rows)} rows of train and {len(test_rows)} to "
                           "classify; one of each at least is what it takes")
    wanted = [class_of(row, f"train row {i}") for i, row in enumerate(train_rows)]
    classes = sorted(set(wanted), key=str)
    number = {each: i for i, each in enumerate(classes)}
    asked = [class_of(row, f"row {i}") for i, row in enumerate(test_rows)]
    if unknown := next(((i, each) for i, each in enumerate(asked) if each not in number), None):
        raise DatasetError(f"row {unknown[0]} is of the class {unknown[1]!r}, of which no row of train is")
    vectors, labels = vectors_of(model, train_rows, "train row"), np.array([number[each] for each in wanted])
    means = np.stack([vectors[labels == i].mean(axis=0) for i in range(len(classes))])
    given = vectors_of(model, test_rows, "row")
    distances = (means**2).sum(axis=1) - 2 * given @ means.T             # but for |given|^2, the same for all classes
    right = np.argmin(distances, axis=1) == np.array([number[each] for each in asked])
    share = float(right.mean())
    return ClassMeans(share, *wilson(share, len(right)), len(right), len(classes), len(wanted))


def class_of(row: Mapping[str, Any], where: str) -> Any:
    """The label or the answer of a row."""
    found = next((row[name] for name in ("label", "answer") if isinstance(row.get(name), (str, int))), None)
    if found is None:
        raise DatasetError(f"{where} has no class in its columns label or answer; its columns are {', '.join(row)}")
    return found


def vectors_of(model: "Model", rows: Sequence[Mapping[str, Any]], where: str) -> "NDArray[np.float64]":
    """(rows, hidden_size): the mean of the vectors of each row's images."""
    images = [normal(row.get("prompt"), given_images(row, f"{where} {i}"), f"{where} {i}")[1]
              for i, row in enumerate(rows)]
    if (empty := next((i for i, some in enumerate(images) if not some), None)) is not None:
        raise DatasetError(f"{where} {empty} has no image")
    vectors = model.embed(images=[each for some in images for each in some]).astype(np.float64)
    ends = np.cumsum([len(some) for some in images])
    return np.stack([part.mean(axis=0) for part in np.split(vectors, ends[:-1])])
