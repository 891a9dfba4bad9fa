"""The HTML of an evaluation: one file beside images/, for a phone and a desk, dark and light, read without a script.

Completions, prompts and file names are anybody's: all text goes through text(), all attributes through attribute(), and
the page's own policy lets nothing load but the copies of pictures and nothing run but its own script.
"""
import base64
import hashlib
import html
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from ..runs import READINGS
from .pictures import MOST_MARKS, Box, Mark, Shown, label_at, legend, said_marks, shown_images, true_marks
from .records import Record, questions
from .tables import Table, evaluation_tables, number, percent
from .text import asked, before_question

MOST_TEXT = 40_000                           # characters of a completion or a prompt
MOST_PICTURES = 24
PIXELATED = 160                              # pixels of the longer side: below, their squares are shown
FAR = 10.0                                   # picture sizes: marks farther out are drawn there
UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufeff\ufffe\uffff]")


def page(document: Mapping[str, Any], folder: Path, title: str, most: int, chart: str | None) -> str:
    """The page. folder: in which the copies of pictures are; chart: a picture in it of what is taken for what."""
    groups = questions(document["completions"])
    style, script = (resources.files(__package__).joinpath(name).read_text("utf-8")
                     for name in ("report.css", "report.js"))
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src 'self' file:; style-src 'unsafe-inline'; script-src 'sha256-{allowed}'"
    accuracy, *others = evaluation_tables(document, most_classes=len(document.get("by_class") or {}) + 1)
    parts = [
        "<!doctype html>", '<html lang="en">', "<head>", '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{attribute(policy)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">', f"<title>{text(title)}</title>",
        f"<style>\n{style}</style>", "</head>", "<body>", "<header>", f"<h1>{text(title)}</h1>",
        f"<p class=about>{text(about(document, groups))}</p>", headline_tiles(document["metrics"]), "</header>",
        "<main>", '<section class="tables">', table(accuracy), *map(table, others), "</section>",
        *([f'<section><figure class="chart"><img src="{attribute(chart)}" alt="Completions by gold and answer">'
           "</figure></section>"] if chart else []),
        *completions(groups, folder, most), "</main>", f"<script>{script}</script>", "</body>", "</html>"]
    return "\n".join(part for part in parts if part) + "\n"


def about(document: Mapping[str, Any], groups: Sequence[Sequence[Record]]) -> str:
    """One line on what was evaluated."""
    settings = document["settings"]
    said = [str(settings["model"])] if settings.get("model") else []
    said += [f"step {settings['step']}"] if settings.get("step") is not None else []
    each = settings.get("num_generations", 1)
    said += [f"{settings.get('questions', len(groups))} questions" + (f", {each} completions each" if each > 1 else "")]
    return " · ".join(said)


def headline_tiles(m: Mapping[str, float]) -> str:
    """The numbers that are looked for first."""
    tiles = [(name, percent(m[f"accuracy/{name}"]),
              f"{percent(m[f'accuracy/{name}/low'])} to {percent(m[f'accuracy/{name}/high'])}")
             for name in READINGS if f"accuracy/{name}" in m]
    tiles.append(("reward", number(m["reward"]), f"± {number(m['reward_std'])}"))
    return "<dl class=tiles>" + "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd><dd class=span>{text(span)}"
                                        "</dd></div>" for name, value, span in tiles) + "</dl>"


def table(content: Table) -> str:
    """A table in a box that scrolls when the screen is narrow; a long one is folded."""
    header = "<thead><tr>" + "".join(f"<th>{text(cell)}</th>" for cell in content.header) + "</tr></thead>" \
        if content.header else ""
    rows = "".join("<tr>" + "".join(f"<td>{text(cell)}</td>" for cell in row) + "</tr>" for row in content.rows)
    kind = ' class="prose"' if content.prose else ""
    body = f"<div class=scroll><table{kind}>{header}<tbody>{rows}</tbody></table></div>"
    name = text(content.title)
    if content.prose or len(content.rows) > 40:
        return f"<details class=card><summary>{name}</summary>{body}</details>"
    return f"<div class=card><h2>{name}</h2>{body}</div>"


# questions


def completions(groups: Sequence[Sequence[Record]], folder: Path, most: int) -> list[str]:
    """The questions with their completions, and what finds some of them."""
    if not groups:
        return []
    shown = groups[:most]
    parts = ["<section>", "<h2>Questions</h2>"]
    if len(groups) > len(shown):
        parts.append(f"<p class=note>The first {len(shown)} of {len(groups)}; the JSON beside this file has all.</p>")
    if said := before_question(groups[0][0]["prompt"]):
        parts.append(f"<details><summary>Before the question</summary><pre>{text(cut(said))}</pre></details>")
    parts.append(FILTER if len(shown) > 1 else "")
    parts.append('<div id="questions">')
    parts += [question(i, group, folder) for i, group in enumerate(shown, 1)]
    return [*parts, "</div>", "</section>"]


FILTER = """<form id="filter" hidden>
<label>Show <select name="show"><option value="all">all</option><option value="wrong">with a wrong completion</option>
<option value="right">with a right completion</option><option value="cut">with one that was cut off</option>
</select></label>
<label>Sort by <select name="sort"><option value="number">number</option><option value="right">share right</option>
<option value="reward">reward</option><option value="gold">gold</option></select></label>
<label>Find <input name="find" type="search" placeholder="text"></label>
<output></output>
</form>"""


def question(number_: int, group: Sequence[Record], folder: Path) -> str:
    """Pictures, question, gold and completions."""
    first = group[0]
    graded = first["gold"] is not None
    right = sum(bool(r["lenient"]) for r in group)
    rewards = [r["reward"] for r in group if r["reward"] is not None]
    data = {"number": number_, "right": right / len(group) if graded else "", "gold": first["gold"] if graded else "",
            "wrong": int(graded and right < len(group)), "reward": sum(rewards) / len(rewards) if rewards else "",
            "cut": int(any(r["finish_reason"] == "length" for r in group))}
    shown = "".join(f' data-{name}="{attribute(value)}"' for name, value in data.items())
    kind = f"<span class=kind>{text(first['category'])}</span>" if first["category"] is not None else ""
    score = f'<span class="score">{right} of {len(group)} right</span>' if graded else ""
    pictures = shown_images(first, folder)
    gold = f"<p class=gold><b>gold</b> <bdi>{text(first['gold'])}</bdi></p>" if graded else ""
    return (f"<article{shown}>\n<h3>Question {number_} <small>row {text(first['row'])}</small>{kind}{score}</h3>\n"
            f"<div class=asked>{figures(pictures, first)}<div class=words>"
            f"<pre class=prompt>{text(cut(asked(first['prompt'])))}</pre>{gold}</div></div>\n"
            + "\n".join(completion(record, pictures) for record in group) + "\n</article>")


def figures(pictures: Sequence[Shown], record: Record) -> str:
    """The images of a row, with what is true of the first."""
    truth = true_marks(record)
    found = [marked(picture, truth if i == 0 else [], [], f"image {i + 1} of row {record['row']}")
             for i, picture in enumerate(pictures[:MOST_PICTURES])]
    more = f"<p class=note>{len(pictures) - MOST_PICTURES} more pictures are not shown</p>" \
        if len(pictures) > MOST_PICTURES else ""
    return f'<div class="pictures n{min(len(found), 3)}">{"".join(found)}{more}</div>' if found else ""


def completion(record: Record, pictures: Sequence[Shown]) -> str:
    """One completion: its verdict, its rewards, what was read out of it, and where it names places their picture."""
    graded = record["gold"] is not None
    verdict = "plain" if not graded else "right" if record["lenient"] else "wrong"
    badges = "".join(f'<span class="badge {"yes" if record[r] else "no"}">{"✓" if record[r] else "✗"} {r}</span>'
                     for r in READINGS) if graded else ""
    ended = "cut off" if record["finish_reason"] == "length" else "ended"
    said = said_marks(record) if pictures else []
    name = f"what completion {record['sample'] + 1} marks"
    figure = marked(pictures[0], true_marks(record), said, name) if said else ""
    words = text(cut(record["completion"])) or "<i>(empty)</i>"
    return (f'<div class="completion {verdict}">\n<h4>Completion {record["sample"] + 1} {badges}'
            f"<small>{text(record['tokens'])} tokens, {ended}</small></h4>\n{rewards(record)}\n"
            f"<div class=asked>{figure}<div class=words><pre>{words}</pre>{read_out(record)}</div></div>\n</div>")


def rewards(record: Record) -> str:
    """The weighted sum and each reward; evaluation functions behind them."""
    each = [(name, value, "") for name, value in record["rewards"].items()]
    each += [(name, value, " class=func") for name, value in record.get("funcs", {}).items()]
    return f"<ul class=rewards><li class=sum><span>reward</span> {number(record['reward'])}</li>" + "".join(
        f"<li{kind}><span>{text(name)}</span> {number(value)}</li>" for name, value, kind in each) + "</ul>"


def read_out(record: Record) -> str:
    """Answer, reasoning and errors of layout that were read out of a completion."""
    lines = [("answer in its tags", record["tagged_answer"]), ("answer read", record["answer"]),
             ("errors of layout", ", ".join(record["tag_errors"]) if record["tag_errors"] else None)]
    rows = "".join(f"<dt>{name}</dt><dd><bdi>{text(cut(value, 400))}</bdi></dd>" for name, value in lines if value)
    reasoning = record["reasoning"]
    if reasoning:
        rows += f"<dt>reasoning read</dt><dd><details><summary>{len(reasoning)} characters</summary>" \
                f"<pre>{text(cut(reasoning))}</pre></details></dd>"
    return f"<dl class=read>{rows}</dl>" if rows else ""


# pictures


def marked(picture: Shown, truth: Sequence[Mark], said: Sequence[Mark], name: str) -> str:
    """A picture with marks over it, and what their colours mean."""
    width, height = picture.size
    small = ' class="small"' if max(width, height) < PIXELATED else ""
    marks = overlay(picture.size, truth, said) if truth or said else ""
    keys = "".join(f'<li><i style="background:{color}"></i>{text(line)}</li>'
                   for color, line in legend(truth, said, picture.size))
    image = f'<img{small} src="{attribute(picture.file)}" loading="lazy" width="{int(width)}" height="{int(height)}" ' \
            f'alt="{attribute(name)}">' if picture.file else \
        f'<div class="gone" style="aspect-ratio:{int(width)}/{int(height)}">no picture</div>'
    caption = f"<figcaption><ul class=legend>{keys}</ul></figcaption>" if keys else ""
    return f"<figure><div class=picture>{image}{marks}</div>{caption}</figure>"


def overlay(size: tuple[float, float], truth: Sequence[Mark], said: Sequence[Mark]) -> str:
    """Marks in the units of the picture, each with a light line beneath that shows it on any ground. The truth has no
    labels where they would lie beneath those of a completion."""
    width, height = size
    unit = max(width, height) / 100
    shapes = []
    for marks, kind in ((truth, "true"), (said, "said")):
        for mark in marks[:MOST_MARKS]:
            outline = shape(mark, size, unit)
            dashed = " box" if isinstance(mark, Box) else ""
            shapes.append(f'<g class="{kind}{dashed}"><path class="casing" d="{outline}"/><path d="{outline}"/>'
                          f"{label(mark, size, unit) if kind == 'said' or not said else ''}</g>")
    return f'<svg viewBox="0 0 {width:g} {height:g}" preserveAspectRatio="none" aria-hidden="true">' + \
        "".join(shapes) + "</svg>"


def shape(mark: Mark, size: tuple[float, float], unit: float) -> str:
    """The outline of a box, or of a point a ring with a cross."""
    if isinstance(mark, Box):
        (left, right), (top, bottom) = ((near(a, side), near(b, side)) for a, b, side in
                                        ((mark.left, mark.right, size[0]), (mark.top, mark.bottom, size[1])))
        return f"M{left:g} {top:g}H{right:g}V{bottom:g}H{left:g}Z"
    x, y, r, arm = near(mark.x, size[0]), near(mark.y, size[1]), 2.2 * unit, 3.6 * unit
    return (f"M{x - r:g} {y:g}a{r:g} {r:g} 0 1 0 {2 * r:g} 0a{r:g} {r:g} 0 1 0 {-2 * r:g} 0"
            f"M{x - arm:g} {y:g}H{x + arm:g}M{x:g} {y - arm:g}V{y + arm:g}")


def label(mark: Mark, size: tuple[float, float], unit: float) -> str:
    """A mark's label, within the picture."""
    line = label_at(mark, size)
    if not line:
        return ""
    high = 4 * unit
    x, y = (min(mark.left, mark.right), min(mark.top, mark.bottom)) if isinstance(mark, Box) else \
        (mark.x + 2 * unit, mark.y - 2 * unit)
    x = min(max(x, 0), max(0.0, size[0] - 0.6 * high * len(line)))
    y = min(max(y, high), size[1] - 0.3 * high)
    look = f'font-size="{high:g}" stroke-width="{0.25 * high:g}"'
    return f'<text x="{x:g}" y="{y - 0.25 * high:g}" {look}>{text(line)}</text>'


def near(value: float, side: float) -> float:
    """A coordinate, no farther out than FAR pictures."""
    return max(-FAR * side, min(value, FAR * side))


# text


def text(value: Any) -> str:
    """Any value as text of a page: what is markup is spelled, what is unseen (control characters, those that turn the
    direction of what follows, halves of surrogate pairs) is shown as a sign."""
    return html.escape(UNSEEN.sub(visible, str(value).replace("\r\n", "\n")), quote=True)


attribute = text


def visible(found: re.Match[str]) -> str:
    """A sign for a character that has none."""
    code = ord(found[0])
    return chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7f else "\ufffd"


def cut(value: str, most: int = MOST_TEXT) -> str:
    """The beginning of what is too long."""
    return value if len(value) <= most else f"{value[:most]} ... [{len(value) - most} more characters]"
