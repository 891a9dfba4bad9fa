"""Weights on their way into a file, looked at for NaN and infinity: they are written as they are, and that is said."""
from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..errors import warn


class Looked:
    """Hands on what ``read`` gives by name, and keeps the names of the tensors that hold NaN or infinity.

    >>> looked = Looked(lambda name: np.array([0, np.inf], np.float32))
    >>> looked("embed").shape, looked.bad
    ((2,), ['embed'])
    """

    def __init__(self, read: Callable[[str], np.ndarray]) -> None:
        self._read = read
        self.bad: list[str] = []

    def __call__(self, name: str) -> np.ndarray:
        """The tensor of a name."""
        array = self._read(name)
        if not np.isfinite(array.sum(dtype=np.float64)):     # of finite float32 it is finite
            self.bad.append(name)
        return array

    def say(self, where: str) -> None:
        """A GrpoWarning with the first names, where there are any."""
        if self.bad:
            more = f" and {len(self.bad) - 3} more" if len(self.bad) > 3 else ""
            warn(f"{where}: NaN or infinity among the weights that were written, of {', '.join(self.bad[:3])}{more}: "
                 "what such a model says is NaN")
