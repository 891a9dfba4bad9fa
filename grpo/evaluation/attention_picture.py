"""Where the words of an answer look, drawn: a frame a word, side by side in one picture or one after another.

A frame has the word, where its attention goes in one bar, the images with what it looks at in colour, and the text
with every word shaded. Colours are of a frame's own: the darkest red is the cell, or the word, that most goes to. Over
an image they begin where a cell gets more than if all cells got the same; where none gets LEAST_PEAK times that, they
stay pale.
"""
from __future__ import annotations

import io
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError
from .attention import Attention, Gaze, Word

if TYPE_CHECKING:
    import PIL.Image
    import PIL.ImageDraw
    import PIL.ImageFont
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]
    Box = tuple[float, float, float, float]

WIDTH, MARGIN, GAP = 460, 18, 8              # of a frame, in pixels
LEAST_PEAK = 3.0                             # times an even share, that is darkest at least
TALLEST = 330                                # of the images of a frame
IN_A_ROW = 3                                 # images of one frame side by side
LINES, LINE = 9, 23                          # of text that a frame shows
FRAME_MS, LAST_MS = 800, 2500                # of an animation
ANIMATIONS = (".gif", ".webp")
INK, FAINT, PAPER, RULE = "#222222", "#767676", "#ffffff", "#dddddd"
PARTS = {"image": "#c0392b", "prompt": "#3b6ea5", "answer": "#4b8b5e", "marks": "#bdbdbd"}
# What goes from nothing to most: pale yellow, orange, red, dark red.
HEAT = np.array([(255, 245, 200), (254, 200, 100), (246, 120, 50), (205, 30, 35), (120, 0, 40)], np.float32)


@cache
def font(size: int, bold: bool = False) -> PIL.ImageFont.FreeTypeFont:
    """DejaVu Sans, as matplotlib brings it."""
    import matplotlib
    from PIL import ImageFont

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def heat(shares: F32) -> F32:
    """Colours (..., 3) of shares from 0 to 1."""
    at = np.clip(shares, 0, 1) * (len(HEAT) - 1)
    low = np.minimum(at.astype(int), len(HEAT) - 2)
    part = (at - low)[..., None]
    return np.asarray(HEAT[low] * (1 - part) + HEAT[low + 1] * part, np.float32)


def overlay(picture: NDArray[np.uint8], cells: F32, size: tuple[int, int]) -> PIL.Image.Image:
    """A picture (height, width, 3) at a size (width, height) under shares of its cells, from 0 to 1: where there is
    none it is paler and greyer than it is, so that the colour is the attention's."""
    from PIL import Image

    shown = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS), np.float32)
    grey = shown.mean(-1, keepdims=True)
    shown = 0.72 * (0.45 * shown + 0.55 * grey) + 0.28 * 255
    smooth = Image.fromarray(np.asarray(cells, np.float32)).resize(size, Image.Resampling.BICUBIC)
    share = np.clip(np.asarray(smooth, np.float32), 0, 1)
    cover = 0.85 * np.sqrt(share)[..., None]
    return Image.fromarray(np.uint8(np.clip((1 - cover) * shown + cover * heat(share), 0, 255) + 0.5))


def scale_of(maps: Sequence[F32]) -> tuple[float, float]:
    """(what is shown as nothing, what is darkest) of cells of images: what each would have if all had the same, and the
    most that one has.

    >>> scale_of([np.full((2, 2), 0.25, np.float32), np.array([[1.5]], np.float32)])
    (0.5, 1.5)
    """
    cells = np.concatenate([each.reshape(-1) for each in maps]).astype(np.float64)
    even = max(float(cells.mean()), 1e-12)
    return even, max(float(cells.max()), LEAST_PEAK * even)


class Frames:
    """The frames of an answer's attention, all of one size."""

    def __init__(self, attention: Attention) -> None:
        self.attention = attention
        self.lines = flow(attention.words, WIDTH - 2 * MARGIN)
        self.boxes, bottom = _places([(p.shape[1], p.shape[0]) for p in attention.pictures], 104)
        self.text_top = bottom + 44
        self.height = self.text_top + min(LINES, len(self.lines)) * LINE + MARGIN

    def draw(self, number: int) -> PIL.Image.Image:
        """Frame `number`."""
        from PIL import Image, ImageDraw

        gaze = self.attention.gazes[number]
        image = Image.new("RGB", (WIDTH, self.height), PAPER)
        draw = ImageDraw.Draw(image)
        self._title(draw, gaze)
        self._bar(draw, gaze)
        even, most = scale_of(gaze.maps)
        for picture, cells, (left, top, width, height) in zip(self.attention.pictures, gaze.maps, self.boxes,
                                                              strict=True):
            image.paste(overlay(picture, (cells - even) / (most - even), (width, height)), (left, top))
            draw.rectangle((left - 1, top - 1, left + width, top + height), outline=RULE)
        self._scale(draw, most / even)
        self._text(draw, gaze)
        return image

    def _title(self, draw: PIL.ImageDraw.ImageDraw, gaze: Gaze) -> None:
        first, last = gaze.tokens[0], gaze.tokens[-1]
        where = f"token {first}" if first == last else f"tokens {first}-{last}"
        right = WIDTH - MARGIN
        draw.text((right, 26), where, FAINT, font(13), anchor="rm")
        room = right - draw.textlength(where, font(13)) - MARGIN - GAP
        draw.text((MARGIN, 26), _cut(visible(gaze.text), room, font(21, True)), INK, font(21, True), anchor="lm")

    def _bar(self, draw: PIL.ImageDraw.ImageDraw, gaze: Gaze) -> None:
        """Where it all goes, in one bar, and in numbers under it."""
        shares, left, width = self.attention.shares(gaze), float(MARGIN), WIDTH - 2 * MARGIN
        for name, color in PARTS.items():
            right = left + width * shares[name] / max(sum(shares.values()), 1e-9)
            if right - left >= 1:
                draw.rectangle((round(left), 48, round(right) - 1, 59), fill=color)
            left = right
        for slot, (name, color) in enumerate(PARTS.items()):
            left = MARGIN + slot * width / len(PARTS)
            draw.rectangle((left, 71, left + 9, 80), fill=color)
            draw.text((left + 14, 76), f"{name} {percent(shares[name])}", INK, font(12), anchor="lm")

    def _scale(self, draw: PIL.ImageDraw.ImageDraw, times: float) -> None:
        """What the colours over the images mean."""
        left, top, width = MARGIN, self.text_top - 30, 110
        colors = heat(np.linspace(0, 1, width, dtype=np.float32)).astype(int)
        for x in range(width):
            draw.line((left + x, top, left + x, top + 9), fill=tuple(colors[x].tolist()))
        draw.text((left + width + GAP, top + 5), f"1 to {times:.{1 if times < 10 else 0}f} times an even share",
                  FAINT, font(12), anchor="lm")

    def _text(self, draw: PIL.ImageDraw.ImageDraw, gaze: Gaze) -> None:
        """The lines about the word, its shades, and itself in a frame."""
        words = self.attention.words
        shares = gaze.of(words)
        most = float(shares.max(initial=0)) or 1.0
        first = len(self.attention.words) and min((w.tokens[0] for w in words if w.answer), default=0)
        own = {first + token for token in gaze.tokens}
        current = next((i for i, line in enumerate(self.lines) for n, _ in line if own & set(words[n].tokens)),
                       len(self.lines) - 1)
        begin = max(0, min(current - LINES + 2, len(self.lines) - LINES))
        for row, line in enumerate(self.lines[begin:begin + LINES]):
            for n, left in line:
                text, kind = words[n].text, font(14, words[n].answer)
                top, end = self.text_top + row * LINE, MARGIN + left + draw.textlength(text, kind)
                box = (MARGIN + left - 3, top, end + 3, top + LINE - 3)
                share = float(shares[n]) / most
                mine, later = bool(own & set(words[n].tokens)), words[n].tokens[0] >= first + gaze.tokens[0]
                if not later:
                    draw.rectangle(box, fill=_shade(share))
                if mine:
                    draw.rectangle(box, outline=INK, width=2)
                ink = FAINT if later and not mine else PAPER if not later and share > 0.6 else INK
                draw.text((MARGIN + left, top + LINE / 2 - 1), text, ink, kind, anchor="lm")


def strip(attention: Attention) -> PIL.Image.Image:
    """All frames in one picture, row by row, under what they show."""
    from PIL import Image, ImageDraw

    frames, count, head = Frames(attention), len(attention.gazes), 44
    columns = columns_of(count)
    rows = -(-count // columns)
    image = Image.new("RGB", (max(columns * (WIDTH + 1) - 1, 1), head + rows * (frames.height + 1) - 1), RULE)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, image.width, head - 2), fill=PAPER)
    draw.text((MARGIN, head / 2), _cut(f"Where the answer looks: {attention.what}", image.width - 2 * MARGIN, font(15)),
              INK, font(15), anchor="lm")
    for number in range(rows * columns):
        place = (number % columns * (WIDTH + 1), head + number // columns * (frames.height + 1))
        image.paste(frames.draw(number) if number < count else Image.new("RGB", (WIDTH, frames.height), PAPER), place)
    return image


def columns_of(count: int) -> int:
    """Frames side by side: up to four, and more where there would be many rows."""
    return min(count, max(4, math.ceil(math.sqrt(count))))


def picture_bytes(attention: Attention) -> bytes:
    """A PNG of all frames."""
    file = io.BytesIO()
    strip(attention).save(file, "PNG", optimize=True)
    return file.getvalue()


def animation_bytes(attention: Attention, suffix: str) -> bytes:
    """A GIF or a WebP, as its suffix says, of the frames one after another, over and over."""
    frames = Frames(attention)
    drawn = [frames.draw(number) for number in range(len(attention.gazes))]
    times = [FRAME_MS] * (len(drawn) - 1) + [LAST_MS]
    file = io.BytesIO()
    options: dict[str, Any] = {"save_all": True, "append_images": drawn[1:], "duration": times, "loop": 0}
    if suffix == ".gif":
        drawn[0].save(file, "GIF", optimize=False, disposal=2, **options)
    else:
        drawn[0].save(file, "WEBP", quality=90, method=4, **options)
    return file.getvalue()


def check_animation(path: str) -> None:
    """ConfigError for a file that is no GIF or WebP by its name."""
    if Path(path).suffix.lower() not in ANIMATIONS:
        raise ConfigError(f"{path}: an animation is a {' or a '.join(ANIMATIONS)} file")


def flow(words: Sequence[Word], width: int) -> list[list[tuple[int, float]]]:
    """Lines of (number of a word, its left edge); an answer begins a line of its own."""
    lines: list[list[tuple[int, float]]] = []
    left = 0.0
    for n, word in enumerate(words):
        kind = font(14, word.answer)
        long = kind.getlength(word.text)
        begins = word.line or not lines or word.answer and not words[n - 1].answer
        if begins or left + long > width:
            lines.append([])
            left = 0.0
        lines[-1].append((n, left))
        left += long + kind.getlength(" ") + 3
    return lines


def visible(text: str) -> str:
    """A word, on one line, or where a token has none its spaces and line ends as signs.

    >>> visible(" red"), visible("\\n")
    ('red', '\u23ce')
    """
    line = " ".join(text.split())
    return line or text.replace("\n", "\u23ce").replace("\t", "\u21e5").replace(" ", "\u2423") or "\u2205"


def percent(share: float) -> str:
    """Short, with one digit more below ten.

    >>> percent(0.4167), percent(0.031)
    ('42 %', '3.1 %')
    """
    return f"{100 * share:.0f} %" if share >= 0.0995 else f"{100 * share:.1f} %"


def _shade(share: float) -> tuple[int, ...]:
    """Of a word's background: white where it gets nothing."""
    color = heat(np.array(share, np.float32))
    cover = min(1.0, 2.5 * share)
    return tuple(int(each) for each in np.round((1 - cover) * 255 + cover * color))


def _cut(text: str, width: float, kind: PIL.ImageFont.FreeTypeFont) -> str:
    """A text that fits, with an ellipsis where it would not."""
    if kind.getlength(text) <= width:
        return text
    while text and kind.getlength(text + "\u2026") > width:
        text = text[:-1]
    return text + "\u2026"


def _places(sizes: Sequence[tuple[int, int]], top: int) -> tuple[list[tuple[int, int, int, int]], int]:
    """(left, top, width, height) of pictures in a frame, and where they end."""
    columns = min(len(sizes), IN_A_ROW)
    rows = -(-len(sizes) // columns)
    wide = (WIDTH - 2 * MARGIN - (columns - 1) * GAP) // columns
    tall = (TALLEST - (rows - 1) * GAP) // rows
    found = []
    for first in range(0, len(sizes), columns):
        scales = [min(wide / width, tall / height) for width, height in sizes[first:first + columns]]
        fitted = [(max(1, round(width * s)), max(1, round(height * s)))
                  for (width, height), s in zip(sizes[first:first + columns], scales, strict=True)]
        found += [(MARGIN + k * (wide + GAP), top, *size) for k, size in enumerate(fitted)]
        top += max(height for _, height in fitted) + GAP
    return found, top - GAP
