"""The tables of a cipher, as images. pairs: the letters of all entries, coded letter first: "ABBA" is A→B and B→A."""
from .drawing import ARROW, U8, blank, font, write

COLUMNS = 5                                  # of the grid, which has as many rows, and a last entry under it
USUAL = 300                                  # side of the image from which the grid's sizes are these:
TEXT, UNDER, GAP = 20, 50, 10                # an em of its letters, what is under it, and the gap there


def entries(pairs: str) -> list[str]:
    """The entries as text.

    >>> entries("ABBA")
    ['A→B', 'B→A']
    """
    return [f"{pairs[i]}{ARROW}{pairs[i + 1]}" for i in range(0, len(pairs), 2)]


def lines(side: int, pairs: str) -> U8:
    """(side, side) an entry a line, in the middle."""
    page, lines = blank(side, side), entries(pairs)
    size = max(1, side // (2 * len(lines)))
    for i, entry in enumerate(lines):
        write(page, entry, size, side / 2, (i + 0.5) * side / len(lines) - height(size) / 2)
    return page


def grid(side: int, pairs: str) -> U8:
    """(side, side) rows of COLUMNS entries, and what is left in the middle under them."""
    page, scale, found = blank(side, side), min(1.0, side / USUAL), entries(pairs)
    size, under = round(TEXT * scale), UNDER * scale
    across, down = side / COLUMNS, (side - under) / COLUMNS
    for i, entry in enumerate(found[:COLUMNS * COLUMNS]):
        row, column = divmod(i, COLUMNS)
        write(page, entry, size, (column + 0.5) * across, (row + 0.5) * down - height(size) / 2)
    for entry in found[COLUMNS * COLUMNS:]:
        write(page, entry, size, side / 2, side - under + GAP * scale)
    return page


def height(size: int) -> int:
    """Pixels of a line."""
    return font(size)[1] + font(size)[2]
