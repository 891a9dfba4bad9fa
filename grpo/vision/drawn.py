"""Images that are drawn when they are looked at, so that a data set of thousands of them costs nothing before."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Drawn:
    """What ``draw(*arguments)`` makes: a PIL image, or uint8 (height, width) or (height, width, 3), of this size.

    It goes wherever an image goes. ``draw`` must make the same pixels of the same arguments: with its name they are
    what tells one image from others (so the features of a tower are kept without a drawing), and ``repr`` must say all
    of them.

    >>> def grey(level):
    ...     return np.full((28, 56), level, np.uint8)
    >>> image = Drawn(grey, (7,), height=28, width=56)
    >>> image.pixels().shape, image.key
    ((28, 56), b'drawn grpo.vision.drawn.grey(7,) 28 x 56')
    """

    draw: Callable[..., Any]
    arguments: tuple[Any, ...]
    height: int
    width: int

    @property
    def key(self) -> bytes:
        """What tells it from other images."""
        name = f"{self.draw.__module__}.{self.draw.__qualname__}"
        return f"drawn {name}{self.arguments!r} {self.height} x {self.width}".encode()

    def pixels(self, place: str = "image") -> NDArray[np.uint8]:
        """The image, drawn. ImageError that names the place where it has another size than it says, or cannot be."""
        try:
            drawn = np.asarray(self.draw(*self.arguments))
        except ImageError as error:
            raise ImageError(f"{place}: {error}") from error
        if drawn.shape[:2] != (self.height, self.width):
            raise ImageError(f"{place}: {self.draw.__qualname__} drew {drawn.shape[:2]} (height, width), and was to "
                             f"draw {(self.height, self.width)}")
        return drawn
