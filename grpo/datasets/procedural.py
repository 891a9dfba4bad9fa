"""What data sets that are made up on the spot share: problems that differ, and which of them are held out."""
import hashlib
from collections.abc import Callable, Iterator, Sequence

from ..errors import ConfigError

PATIENCE = 1000                              # draws in a row without a new problem, after which there are no more


def distinct(draw: Callable[[], dict | None]) -> Iterator[dict]:
    """Problems that draw() gives, by their questions; it gives None for what does not fit."""
    asked: set[str] = set()
    missed = 0
    while missed < PATIENCE:
        problem = draw()
        if problem is None or problem["question"] in asked:
            missed += 1
            continue
        missed = 0
        asked.add(problem["question"])
        yield problem


def held_out(content: str, one_in: int) -> bool:
    """Whether a problem of this content is a test problem, whatever seed and size are asked for."""
    return int.from_bytes(hashlib.sha256(content.encode()).digest()[:4], "little") % one_in == 0


def check_bounds(option: str, bounds: Sequence[int], smallest: int, largest: int) -> None:
    """ConfigError unless bounds are [low, high] within these."""
    if (not isinstance(bounds, Sequence) or len(bounds) != 2 or not all(isinstance(b, int) for b in bounds)
            or not smallest <= bounds[0] <= bounds[1] <= largest):
        raise ConfigError(f"{option}={bounds!r} must be the smallest and the largest number, from {smallest} to "
                          f"{largest}")
