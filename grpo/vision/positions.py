"""Positions of the tokens of a prompt with images on the three axes of m-RoPE: time, height, width."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError

I32 = NDArray[np.int32]


def rope_positions(ids: Sequence[int] | I32, grids: Sequence[Sequence[int]] | NDArray, image_token_id: int,
                   merge_size: int, *, video_token_id: int | None = None,
                   where: str = "the prompt") -> tuple[I32, int]:
    """(positions (3, len(ids)), the position of the next token on all axes).

    ids: of a prompt, its placeholders repeated (expand.expand). grids: (images, 3), patches of each image in time,
    height and width; merge_size x merge_size patches are one token. Text moves all axes by one a token. An image begins
    at the position p that a text's token would have there; its tokens have (p + t, p + row, p + column), and what
    follows begins at p + max(rows, columns). ImageError where ids do not hold what the grids say.

    >>> rope_positions([1, 5, 5, 5, 5, 5, 5, 2], [(1, 4, 6)], image_token_id=5, merge_size=2)[0].tolist()
    [[0, 1, 1, 1, 1, 1, 1, 4], [0, 1, 1, 1, 2, 2, 2, 4], [0, 1, 2, 3, 1, 2, 3, 4]]
    """
    ids = np.asarray(ids, np.int32)
    if video_token_id is not None and (ids == video_token_id).any():
        raise ImageError(f"{where} has video placeholders (token {video_token_id}), and no model here takes video")
    grid = np.asarray(grids, np.int64).reshape(-1, 3)
    if (grid < 1).any() or (grid[:, 1:] % merge_size).any():
        wrong = next(g for g in grid.tolist() if min(g) < 1 or g[1] % merge_size or g[2] % merge_size)
        raise ImageError(f"{where}: a grid of {wrong} patches cannot be merged {merge_size} x {merge_size}")
    rows, columns = grid[:, 1] // merge_size, grid[:, 2] // merge_size
    counts = grid[:, 0] * rows * columns
    places = np.flatnonzero(ids == image_token_id)
    ends = np.cumsum(counts)
    total = int(counts.sum())
    if total != len(places):
        raise ImageError(f"{where} has {len(places)} image tokens (token {image_token_id}), and its {len(grid)} images "
                         f"have {total}: {', '.join(map(str, counts.tolist())) or 'none'}")
    firsts, lasts = places[ends - counts], places[ends - 1]
    if (lasts - firsts + 1 != counts).any():
        k = int(np.argmax(lasts - firsts + 1 != counts))
        raise ImageError(f"{where}: image {k} has {counts[k]} tokens, and the run of image tokens in its place is "
                         "shorter")
    steps = np.ones(len(ids), np.int64)
    steps[places] = 0
    steps[lasts] = np.maximum(rows, columns)
    positions = np.tile(np.cumsum(steps) - steps, (3, 1))
    image = np.repeat(np.arange(len(grid)), counts)
    within = np.arange(total) - (ends - counts)[image]
    positions[0, places] += within // (rows * columns)[image]
    positions[1, places] += within // columns[image] % rows[image]
    positions[2, places] += within % columns[image]
    return positions.astype(np.int32), int(positions.max(initial=-1)) + 1
