"""Clicks on a drawn desktop: a menu bar, a window with three round buttons and two wide ones, shapes, a dock; where is
what the prompt names? (A task of DeepSeekRL's branch for regression.)

There a tool that was asked for (check_click) was answered after the model had finished, so that it never saw the
answer; here it is asked for a click alone, and tools says the call in the old manner. A tenth of the scenes is hard, as
there; here that means something: a small window among many shapes.
"""
import functools
import itertools
import random
from typing import Any

from ..errors import ConfigError
from ..vision.drawn import Drawn
from .coordinates import check_units, coordinates, explained
from .layout import chat
from .shapes import COLOURS, RGB, SHAPES, check_canvas, mask, scatter, scenes, stamp
from .splits import check_split

SIZE = {"train": 4000, "test": 500}          # rows when no size is given
MENUS = ("File", "Edit", "View", "Window", "Help")
DESKTOPS: tuple[RGB, ...] = ((92, 128, 168), (104, 144, 128), (150, 120, 160), (168, 140, 112), (86, 98, 122))
RED, YELLOW, GREEN = (255, 95, 87), (254, 188, 46), (40, 200, 64)           # of a window's buttons
BAR, BODY, TITLE, DOCK = (244, 244, 246), (250, 250, 250), (225, 225, 228), (232, 232, 238)
DARK, WHITE = (45, 45, 48), (255, 255, 255)
MENU_HEIGHT, TITLE_HEIGHT, DOCK_HEIGHT = 18, 22, 42
ROUND, BUTTON = 12, (55, 22)                 # pixels of the window's buttons
TILE = 30                                    # of the dock
LARGEST_WINDOW = (230, 170)
CALLS = {False: 'Answer with the middle of it as {{"point_2d": [x, y]}}. {coordinates}',
         True: "Click on it with a call of three lines, tool_name: click_tool, then x: and y: with the place. You may "
               "then write tool_name: check_click, which asks whether it was hit. {coordinates}"}

Part = tuple[str, str, RGB, int, int, int, int]     # name ("" for none), shape, colour, left, top, width, height


def load(split: str = "train", *, canvas: int = 392, units: str = "pixels", tools: bool = False, hard: float = 0.1,
         size: int | None = None, seed: int = 0, system_prompt: str | None = "xml") -> list[dict[str, Any]]:
    """Rows {prompt, question, image, target, box, circular, difficulty, click, image_size, frame}: target is the name
    of what is to be clicked, box where it is, [left, top, right, bottom] in pixels of the image, and circular whether
    it is the circle in that box. click is the middle of it, "(x, y)" in the model's units; there is no answer, as many
    clicks are right.

    canvas: the side of the square image; there it was 384, which Qwen2.5-VL sees as 392. units: "pixels" or
    "thousandths" (grpo/datasets/coordinates.py). tools: ask for a call of click_tool. hard: this share of the scenes is
    hard, which the column difficulty says. The test split is the same for every seed; none of it can be in train.

    >>> row = load("test", size=1)[0]
    >>> row["target"], row["box"], row["click"]
    ('the File menu', [19, 2, 51, 16], '(35, 9)')
    """
    check_split(split, SIZE, "gui")
    check_canvas(canvas, 320)
    check_units(units)
    if isinstance(hard, bool) or not isinstance(hard, (int, float)) or not 0 <= hard <= 1:
        raise ConfigError(f"hard={hard!r} must be the share of hard scenes, from 0 to 1")
    places = coordinates(units, canvas, canvas)
    how = CALLS[bool(tools)].format(coordinates=explained(units, places["frame"]))
    found = scenes(f"gui {canvas} {hard}", split, seed, functools.partial(scene, canvas, hard))
    return [asked(row, places, how, system_prompt)
            for row in itertools.islice(found, SIZE[split] if size is None else size)]


def asked(row: dict[str, Any], places: dict[str, list[int]], how: str, system_prompt: str | None) -> dict[str, Any]:
    """A row of a scene and its target."""
    question = f"Where is {row['target']} in this image of a screen? {how}"
    left, top, right, bottom = row["box"]
    x, y = ((low + high) * frame / size / 2
            for low, high, frame, size in zip((left, top), (right, bottom), places["frame"], places["image_size"],
                                              strict=True))
    return {"prompt": chat(question, system_prompt), "question": question, "click": f"({x:.0f}, {y:.0f})", **row,
            **places}


def scene(canvas: int, hard: float, rng: random.Random) -> dict[str, Any] | None:
    """A desktop and a target on it; None where the shapes find no room."""
    difficult = rng.random() < hard
    scale = 0.6 if difficult else rng.uniform(0.75, 1.0)
    width, height = (round(scale * side) for side in LARGEST_WINDOW)
    menu = round(rng.uniform(0, 1) * 8) + 18
    left = rng.randint(8, canvas - 8 - width)
    top = rng.randint(MENU_HEIGHT + 8, canvas - DOCK_HEIGHT - 16 - height)
    parts = [*menus(menu), *window(left, top, width, height, rng), *dock(canvas, rng)]
    shapes = scattered(canvas, (left, top, left + width, top + height), rng.randint(9, 12) if difficult else
                       rng.randint(2, 6), rng)
    if shapes is None:
        return None
    parts += shapes
    kind = rng.choice(("menu", "window", "window", "dock", "shape"))        # so that many shapes are not asked for more
    target = rng.choice([part for part in parts if part[0] and family(part) == kind])
    image = Drawn(draw, (canvas, rng.choice(DESKTOPS), (left, top, width, height), tuple(parts)), canvas, canvas)
    return {"image": image, "target": target[0], "box": box(target), "circular": target[1] == "circle",
            "difficulty": "hard" if difficult else "normal"}


def menus(left: int) -> list[Part]:
    """The words of the menu bar, from there on."""
    parts: list[Part] = []
    for word in MENUS:
        width = 6 * len(word) + 8
        parts.append((f"the {word} menu", "text", DARK, left, 2, width, MENU_HEIGHT - 4))
        left += width + 6
    return parts


def window(left: int, top: int, width: int, height: int, rng: random.Random) -> list[Part]:
    """The buttons of the window that begins at left and top."""
    names = ("close", "minimize", "maximize")
    parts: list[Part] = [
        (f"the {name} button of the window", "circle", colour, left + 8 + 18 * i, top + 5, ROUND, ROUND)
        for i, (name, colour) in enumerate(zip(names, (RED, YELLOW, GREEN), strict=True))]
    y = rng.randint(top + TITLE_HEIGHT + 8, top + height - BUTTON[1] - 8)
    x = rng.randint(left + 8, left + width - 2 * BUTTON[0] - 16)
    return [*parts, ("the Start button", "rounded", (52, 140, 80), x, y, *BUTTON),
            ("the Stop button", "rounded", (190, 60, 60), x + BUTTON[0] + 8, y, *BUTTON)]


def dock(canvas: int, rng: random.Random) -> list[Part]:
    """The tiles of the dock, each of another colour."""
    colours = rng.sample(list(COLOURS), rng.randint(4, 7))
    left, top = (canvas - (TILE + 8) * len(colours)) // 2 + 4, canvas - DOCK_HEIGHT + 2
    return [(f"the {colour} icon in the dock", "rounded", COLOURS[colour], left + (TILE + 8) * i, top, TILE, TILE)
            for i, colour in enumerate(colours)]


def scattered(canvas: int, taken: tuple[int, int, int, int], count: int, rng: random.Random) -> list[Part] | None:
    """Shapes on the desktop outside of the window, each kind once."""
    kinds = rng.sample([(shape, colour) for shape in SHAPES for colour in COLOURS], count)
    sides = sorted((rng.randint(15, 35) for _ in kinds), reverse=True)
    left, top, right, bottom = taken
    low = MENU_HEIGHT + 2                    # of the room between the menu bar and the dock
    places = scatter(rng, [(side, side) for side in sides], canvas, canvas - DOCK_HEIGHT - 8 - low, 4,
                     [(left, top - low, right, bottom - low)])
    return None if places is None else [
        (f"the {colour} {shape}", shape, COLOURS[colour], x, y + low, side, side)
        for (shape, colour), side, (x, y) in zip(kinds, sides, places, strict=True)]


def family(part: Part) -> str:
    """What a part belongs to."""
    name = part[0]
    return "dock" if name.endswith("dock") else "menu" if name.endswith("menu") else \
        "window" if "button" in name.lower() else "shape"


def box(part: Part) -> list[int]:
    """The rectangle of the pixels that a part touches; of a word, its place in the menu bar."""
    _, shape, _, x, y, width, height = part
    found = None if shape == "text" else mask(shape, width, height).getbbox()
    left, top, right, bottom = found or (0, 0, width, height)
    return [x + left, y + top, x + right, y + bottom]


def draw(canvas: int, desktop: RGB, place: tuple[int, int, int, int], parts: tuple[Part, ...]) -> Any:
    """The image of a desktop."""
    image = backdrop(canvas, desktop).copy()
    left, top, width, height = place
    shade = (desktop[0] // 2, desktop[1] // 2, desktop[2] // 2)
    image.paste(shade, (left + 3, top + 4, left + width + 3, top + height + 4))
    image.paste(TITLE, (left, top, left + width, top + TITLE_HEIGHT))
    image.paste(BODY, (left, top + TITLE_HEIGHT, left + width, top + height))
    for name, shape, colour, x, y, w, h in parts:
        if shape == "text":
            write(image, name.split()[1], x + w // 2, y + h // 2, colour)
            continue
        stamp(image, shape, colour, x, y, w, h)
        if "Start" in name or "Stop" in name:
            write(image, name.split()[1], x + w // 2, y + h // 2, WHITE)
        elif "dock" in name:
            lighter = (min(255, colour[0] + 70), min(255, colour[1] + 70), min(255, colour[2] + 70))
            stamp(image, "circle", lighter, x + 8, y + 8, w - 16, h - 16)
    return image


@functools.lru_cache(64)
def backdrop(canvas: int, desktop: RGB) -> Any:
    """The desktop with its menu bar and the strip of its dock. Not to be drawn on."""
    import numpy as np
    from PIL import Image

    light = np.linspace(1.15, 0.85, canvas)[:, None, None]
    sky = np.clip(np.rint(light * np.array(desktop)), 0, 255).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(np.broadcast_to(sky, (canvas, canvas, 3))))
    image.paste(BAR, (0, 0, canvas, MENU_HEIGHT))
    stamp(image, "circle", DARK, 5, 4, 10, 10)
    stamp(image, "rounded", DOCK, 24, canvas - DOCK_HEIGHT - 4, canvas - 48, DOCK_HEIGHT)
    return image


@functools.lru_cache(64)
def words(text: str) -> Any:
    """The mask of a text in Pillow's bitmap font, which is the same everywhere."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default_imagefont()
    left, top, right, bottom = (int(side) for side in font.getbbox(text))
    page = Image.new("L", (right - left, bottom - top), 0)
    ImageDraw.Draw(page).text((0, 0), text, 255, font)
    return page


def write(image: Any, text: str, x: int, y: int, colour: RGB) -> None:
    """Writes a text around its middle."""
    page = words(text)
    image.paste(colour, (x - page.width // 2, y - page.height // 2), page)
