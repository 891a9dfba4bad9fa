"""Draws docs/architecture.svg: the floors of csrc/ and the rooms of grpo/, who stands on whom, and the four walls.

    python docs/architecture_picture.py

A test compares the file with what this script draws, and the rooms drawn with the folders that there are.
"""
from html import escape
from pathlib import Path

WIDTH, MARGIN, LEFT = 1000, 24, 96                       # LEFT: where rooms begin, right of the floors' names
RIGHT = WIDTH - MARGIN
INK, SOFT, PAPER = "#1f2933", "#52606d", "#ffffff"
PYTHON = ("#e8f1fb", "#7aa7d9")                          # fill and line of a kind of room
CORE, BACKEND, BASE = ("#eef6ee", "#7fb08a"), ("#fdf3e3", "#d9a860"), ("#eceff3", "#9aa5b1")
WALL = ("#fff7d6", "#c99a06")
FONT = "system-ui, -apple-system, 'Segoe UI', 'Liberation Sans', Helvetica, Arial, sans-serif"

# Rooms of grpo/, each row standing on those below it: name, what belongs in it
ROWS = [
    [("cli", "the command grpo: one file a command"), ("trl", "what TRL's scripts import")],
    [("training", "the two trainers, their loop, resuming, callbacks")],
    [("evaluation", "rounds, grading, reports"), ("recipes", "a run as a YAML file")],
    [("rollouts", "completions and their numbers"), ("planning", "memory and time, told before")],
    [("datasets", "a file is a name"), ("rewards", "a file is a name")],
    [("options", "what may be asked, and how"), ("runs", "the folder that a run leaves")],
    [("model", "weights, tokenizer, files, families/")],
    [("vision", "images made ready"), ("answers", "read, and compared"),
     ("ops.py, errors.py", "arrays; typed errors")],
]
UPPER = [                                                # the three folders of floor 4
    ("run", "without gradients", ["session, score, see, embed", "decode: one token a slot", "rollout: one loop over"]),
    ("train", "with gradients", ["accumulate: micro-batches", "optimizer: clip, AdamW", "state: masters, moments"]),
    ("loss", "mathematics alone", ["the GRPO family of losses", "advantages of groups", "knows no model"]),
]
NET = [                                                  # three columns of net/
    [("spec, params.def", "a network as data", 1), ("weights", "its values; know nobody", 0),
     ("cache", "pages of keys and values", 0), ("pictures, grid", "images as rows", 0)],
    [("rows", "what a batch's rows are", 2), ("text", "walks the layers of a spec", 0),
     ("attention, mlp, norms", "forward, backward, stash", 0),
     ("vision, resampler", "towers", 0)],
    [("project", "every matrix product", 3), ("stash, store", "activations, and those of rollouts", 0),
     ("batch", "groups packed, no padding", 0), ("reserve", "scratch of its operations", 0)],
]
BACKENDS = [
    ("ref", ["plain C in double:", "the readable statement"]),
    ("cpu", ["AMX, AVX-512-BF16, AVX-512,", "AVX2, portable; picked at run time"]),
    ("cuda", ["a library of its own,", "opened where there is a GPU"]),
]


class Picture:
    """SVG elements, collected from top to bottom. y: where the next floor begins."""

    def __init__(self):
        self.parts, self.y = [], MARGIN

    def box(self, x, y, w, h, colours, radius=7, width=1.4):
        """A rectangle with its top left corner at (x, y)."""
        self.parts.append(f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="{radius}" fill="{colours[0]}" '
                          f'stroke="{colours[1]}" stroke-width="{width}"/>')

    def text(self, x, y, text, size=15, bold=False, colour=INK, anchor="start"):
        """One line, with its baseline at y."""
        weight = ' font-weight="600"' if bold else ""
        self.parts.append(f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{colour}" text-anchor="{anchor}"'
                          f'{weight}>{escape(text)}</text>')

    def label(self, x, y, name, about, indent):
        """A room's name and, so far right of it, what belongs there."""
        self.text(x, y, name, 16, bold=True)
        self.text(x + indent, y, about, colour=SOFT)

    def floor(self, name, detail, top, height):
        """The name of a floor, left of its rooms."""
        middle = top + height / 2
        self.text(MARGIN, middle - 2, name, 15, bold=True, colour=SOFT)
        self.text(MARGIN, middle + 16, detail, 13, colour=SOFT)

    def wall(self, x, y, number):
        """The mark of one of the four walls."""
        self.box(x - 56, y, 56, 21, WALL, radius=10, width=1.2)
        self.text(x - 28, y + 15.5, f"wall {number}", 13, bold=True, colour="#8a6500", anchor="middle")

    def arrow(self, x, top, bottom):
        """Who calls points at who is called."""
        self.parts.append(f'<line x1="{x:g}" y1="{top:g}" x2="{x:g}" y2="{bottom:g}" stroke="{SOFT}" '
                          'stroke-width="1.8" marker-end="url(#head)"/>')

    def svg(self):
        """The whole file."""
        height = self.y + MARGIN
        return "\n".join([
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" font-family="{escape(FONT)}" '
            'role="img" aria-label="Floors and rooms of grpo">',
            f'<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
            f'orient="auto-start-reverse"><path d="M0 0 L10 5 L0 10 z" fill="{SOFT}"/></marker></defs>',
            f'<rect width="{WIDTH}" height="{height:g}" rx="10" fill="{PAPER}"/>', *self.parts, "</svg>", ""])


def columns(count, gap=12, left=LEFT, right=RIGHT):
    """(x, width) of so many rooms beside each other."""
    width = (right - left - gap * (count - 1)) / count
    return [(left + i * (width + gap), width) for i in range(count)]


def draw_package(p):
    """grpo/: what people want to change."""
    p.text(LEFT, p.y + 14, "grpo/", 18, bold=True)
    about = "Python: what people want to change. A room imports only from rooms below it."
    p.text(LEFT + 56, p.y + 14, about, colour=SOFT)
    top = p.y + 28
    for row in ROWS:
        for (x, width), (name, about) in zip(columns(len(row)), row, strict=True):
            p.box(x, p.y + 28, width, 36, PYTHON)
            p.label(x + 14, p.y + 51, name, about, 120 if len(name) < 12 else 148)
        p.y += 43
    p.floor("Python", f"{sum(map(len, ROWS)) - 1} rooms", top, p.y + 21 - top)
    p.y += 28


def draw_bindings(p):
    """csrc/python: the boundary."""
    p.arrow((LEFT + RIGHT) / 2, p.y - 3, p.y + 20)
    p.y += 22
    p.text(LEFT, p.y + 14, "csrc/", 18, bold=True)
    p.text(LEFT + 56, p.y + 14, "C and CUDA: everything that touches a tensor.", colour=SOFT)
    p.y += 26
    p.box(LEFT, p.y, RIGHT - LEFT, 42, CORE)
    about = "the only files that know Python: Model, Trainer, Store, Ops, loss, plan; one type a file"
    p.label(LEFT + 14, p.y + 27, "python", about, 70)
    p.floor("floor 5", "bindings", p.y, 42)
    p.y += 42


def draw_upper(p):
    """csrc/run, train, loss."""
    top = p.y + 24
    for (x, width), (name, about, lines) in zip(columns(3), UPPER, strict=True):
        p.arrow(x + width / 2, p.y + 3, top - 3)
        p.box(x, top, width, 104, CORE)
        p.label(x + 14, top + 24, name, about, 50)
        for i, line in enumerate(lines):
            p.text(x + 14, top + 48 + 21 * i, line, 15)
    x, width = columns(3)[0]
    p.text(x + 160, top + 90, "sequences", 15, bold=True)
    p.wall(x + width - 8, top + 8, 4)
    p.floor("floor 4", "at work", top, 104)
    p.y = top + 104


def draw_net(p):
    """csrc/net: a network."""
    top, height = p.y + 24, 40 + 48 * max(map(len, NET))
    for (x, width), folder in zip(columns(3), UPPER, strict=True):
        if folder[0] != "loss":                            # which calls no network
            p.arrow(x + width / 2, p.y + 3, top - 3)
    p.box(LEFT, top, RIGHT - LEFT, height, CORE)
    about = "a network: what it is, what it holds, how it runs; knows no trainer and no rollout"
    p.label(LEFT + 14, top + 24, "net", about, 38)
    for (x, width), column in zip(columns(3, left=LEFT + 12, right=RIGHT - 12), NET, strict=True):
        for i, (name, about, wall) in enumerate(column):
            y = top + 36 + 48 * i
            p.box(x, y, width, 43, (PAPER, WALL[1] if wall else CORE[1]), width=2 if wall else 1.2)
            p.text(x + 10, y + 18, name, 15, bold=True)
            p.text(x + 10, y + 36, about, 14, colour=SOFT)
            if wall:
                p.wall(x + width - 6, y + 6, wall)
    p.floor("floor 3", "a network", top, height)
    p.y = top + height


def draw_ops(p):
    """csrc/ops, its backends below it, and csrc/base."""
    top = p.y + 24
    p.arrow((LEFT + RIGHT) / 2, p.y + 3, top - 3)
    p.box(LEFT, top, RIGHT - LEFT, 66, CORE)
    about = "ops.def, THE LIST: one entry an operation, with its formula, shapes, bytes and FLOPs."
    p.label(LEFT + 14, top + 26, "ops", about, 38)
    about = "From it: the table, op_x(device, ...) which all callers use, the profile, the tests' bindings."
    p.text(LEFT + 52, top + 50, about, colour=SOFT)
    p.floor("floor 1", "operations", top, 66)
    p.y = top + 66
    top = p.y + 26
    for (x, width), (name, lines) in zip(columns(3), BACKENDS, strict=True):
        p.arrow(x + width / 2, top - 3, p.y + 3)
        p.box(x, top, width, 66, BACKEND)
        p.text(x + 14, top + 25, name, 16, bold=True)
        for i, line in enumerate(lines):
            p.text(x + 64, top + 25 + 22 * i, line, 14, colour=SOFT)
    p.floor("floor 2", "fill the table", top, 66)
    p.y = top + 66
    top = p.y + 14
    p.box(LEFT, top, RIGHT - LEFT, 42, BASE)
    about = "status, memory, random numbers, number formats, the one thread pool; all floors use it"
    p.label(LEFT + 14, top + 27, "base", about, 50)
    p.floor("floor 0", "foundation", top, 42)
    p.y = top + 42


def picture():
    """The SVG as text."""
    p = Picture()
    for part in (draw_package, draw_bindings, draw_upper, draw_net, draw_ops):
        part(p)
    return p.svg()


if __name__ == "__main__":
    Path(__file__).with_name("architecture.svg").write_text(picture(), encoding="utf-8")
