"""Pages of a report, set with reportlab in DejaVu, the font that matplotlib carries. Importing this needs reportlab."""
import os
import textwrap
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from reportlab.lib import colors
from reportlab.lib.enums import TA_LEFT, TA_RIGHT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import (
    Flowable,
    Image,
    KeepTogether,
    Paragraph,
    Preformatted,
    SimpleDocTemplate,
    Table as Grid,
)

from .marked import Marked, is_readable
from .pictures import Mark, Shown, legend, said_marks, shown_images, true_marks
from .records import Record
from .tables import Table
from .text import asked, before_question, headline, parts, rewards_line

FONTS = {"Sans": "DejaVuSans.ttf", "SansBold": "DejaVuSans-Bold.ttf", "Mono": "DejaVuSansMono.ttf"}
MARGIN, WIDTH = 18 * mm, A4[0] - 36 * mm
INK, PALE, PAPER, RULE = (colors.HexColor(c) for c in ("#222222", "#777777", "#f6f6f4", "#dddddd"))
RIGHT, WRONG, PLAIN = (colors.HexColor(c) for c in ("#1a7f37", "#c4321c", "#8a8a8a"))
MONO_SIZE = 7.4
LINES_A_ROW = 8                              # of a completion, which breaks between pages at a row's end
MISSING = "□"
BARE = [*((f"{side}PADDING", (0, 0), (-1, -1), 0) for side in ("LEFT", "RIGHT", "TOP")),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 2), ("VALIGN", (0, 0), (-1, -1), "TOP")]
PICTURE, SMALL = (78 * mm, 64 * mm), (58 * mm, 50 * mm)   # most width and height: of a question's, of a completion's
GAP, MOST_PICTURES = 4 * mm, 12
MOST_BESIDE = 34                             # lines of a text beside a picture
PROMPT_CHARACTERS, MOST_CHARACTERS = 3000, 1000          # of a prompt; of a cell, which cannot go over pages


class Pages:
    """Collects what a report shows, then sets it."""

    def __init__(self, title: str):
        register_fonts()
        self.title = printable(title)
        self.story: list[Any] = [Paragraph(escape(self.title), style(15, bold=True, after=8))]

    def tables(self, tables: Sequence[Table]) -> None:
        """Tables, each on one page with its title where it fits."""
        for table in tables:
            title = Paragraph(escape(printable(table.title)), style(10.5, bold=True, before=8, after=3))
            self.story.append(KeepTogether([title, grid(table)]))

    def note(self, text: str) -> None:
        """A sentence in small print."""
        self.story.append(Paragraph(escape(printable(text)), style(8.5, color=PALE, before=8)))

    def instructions(self, prompt: Any) -> None:
        """What a chat says before its last message, once for all questions."""
        if said := before_question(prompt):
            self.story.append(Paragraph("Before the question", style(10.5, bold=True, before=8, after=3, keep=True)))
            self.story += boxed(shortened(said), PLAIN)

    def chart(self, path: Path) -> None:
        """A picture over the width of the page, or as much of it as its height allows."""
        picture = Image(str(path))
        scale = min(WIDTH / picture.imageWidth, 225 * mm / picture.imageHeight, 72 / 160)
        picture.drawWidth, picture.drawHeight = picture.imageWidth * scale, picture.imageHeight * scale
        picture.hAlign = "LEFT"
        picture.spaceBefore = 10
        self.story.append(picture)

    def question(self, title: str, group: Sequence[Record], folder: Path) -> None:
        """Pictures, question, gold, and each completion with its rewards and what was read out of it. folder: in which
        the copies of pictures are."""
        first = group[0]
        graded = "" if first["gold"] is None else f", {sum(r['lenient'] for r in group)} of {len(group)} right"
        self.story.append(Paragraph(escape(printable(title + graded)),
                                    style(10.5, bold=True, before=14, after=3, keep=True)))
        pictures, truth = shown_images(first, folder), true_marks(first)
        question = shortened(asked(first["prompt"]))
        gold = [] if first["gold"] is None else [Paragraph(escape(printable(f"gold: {first['gold']}")),
                                                           style(8.5, bold=True, before=2, after=2))]
        if len(pictures) == 1:
            shown = [drawn(pictures[0], truth, [], PICTURE), *key(legend(truth, [], pictures[0].size))]
            self.beside(shown, question, PLAIN, gold)
        else:
            self.pictures(pictures, truth)
            self.story += [*boxed(question, PLAIN), *gold]
        for record in group:
            self.completion(record, pictures)

    def beside(self, shown: list[Any], text: str, color: Any, more: Sequence[Any] = ()) -> None:
        """A picture, and to its right the text in its box with what follows it; a long text goes beneath."""
        width = WIDTH - shown[0].width - GAP
        if len(lines_of(text, width)) <= MOST_BESIDE:
            self.story.append(Grid([[shown, [*boxed(text, color, width), *more]]], hAlign="LEFT", style=BARE,
                                   colWidths=[shown[0].width + GAP, width]))
            return
        for part in shown:
            part.keepWithNext = True
        self.story += [*shown, *boxed(text, color), *more]

    def pictures(self, pictures: Sequence[Shown], truth: Sequence[Mark]) -> None:
        """Several images of a row, with what is true of the first."""
        if not pictures:
            return
        abreast = min(3, len(pictures))
        most = (min(PICTURE[0], (WIDTH - (abreast - 1) * GAP) / abreast), PICTURE[1])
        cells: list[Any] = [drawn(picture, truth if i == 0 else [], [], most)
                            for i, picture in enumerate(pictures[:MOST_PICTURES])]
        for row in (cells[i:i + abreast] for i in range(0, len(cells), abreast)):
            widths = [cell.width + (GAP if i + 1 < len(row) else 0) for i, cell in enumerate(row)]
            self.story.append(Grid([row], colWidths=widths, hAlign="LEFT", style=BARE))
            self.story[-1].keepWithNext = True
        left = len(pictures) - MOST_PICTURES
        notes = [f"{left} more pictures are not shown"] if left > 0 else []
        notes += ["marks are on the first picture"] if truth else []
        self.story += key(legend(truth, [], pictures[0].size), notes)

    def completion(self, record: Record, pictures: Sequence[Shown]) -> None:
        """One completion in the colour of its verdict, with its rewards, what was read out of it, and where it names
        places a picture of them."""
        color = PLAIN if record["gold"] is None else RIGHT if record["lenient"] else WRONG
        mark = "" if record["gold"] is None else "✓ " if record["lenient"] else "✗ "
        self.story.append(Paragraph(escape(mark + printable(headline(record))),
                                    style(8, color=color, bold=True, before=7, keep=True)))
        self.story.append(Paragraph(escape(printable(rewards_line(record))), style(7.5, after=2, keep=True)))
        said, words, found = said_marks(record), record["completion"] or "(empty)", parts(record)
        read = [Paragraph(escape(printable(found)), style(7.5, color=PALE, before=1))] if found else []
        if said and pictures:
            truth = true_marks(record)
            shown = [drawn(pictures[0], truth, said, SMALL), *key(legend(truth, said, pictures[0].size))]
            self.beside(shown, words, color, read)
        else:
            self.story += [*boxed(words, color), *read]

    def save(self, path: Path) -> Path:
        """Writes the file whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
        pages = SimpleDocTemplate(str(temporary), pagesize=A4, title=self.title, author="grpo", invariant=1,
                                  leftMargin=MARGIN, rightMargin=MARGIN, topMargin=16 * mm, bottomMargin=16 * mm)
        pages.build(self.story, onFirstPage=self.footer, onLaterPages=self.footer)
        os.replace(temporary, path)
        return path

    def footer(self, canvas: Any, document: Any) -> None:
        """Title and page number; reportlab calls this for each page."""
        canvas.setFont("Sans", 7.5)
        canvas.setFillColor(PALE)
        canvas.drawString(MARGIN, 9 * mm, self.title[:100])
        canvas.drawRightString(A4[0] - MARGIN, 9 * mm, str(document.page))


def register_fonts() -> None:
    """Makes the fonts known to reportlab."""
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    for name, file in FONTS.items():
        if name not in pdfmetrics.getRegisteredFontNames():
            pdfmetrics.registerFont(TTFont(name, folder / file))


@cache
def style(size: float, *, bold: bool = False, color: Any = INK, before: float = 0, after: float = 0, keep: bool = False,
          right: bool = False) -> ParagraphStyle:
    """A paragraph style, size, before and after in points. keep: on one page with what follows."""
    return ParagraphStyle("", fontName="SansBold" if bold else "Sans", fontSize=size, leading=size * 1.35,
                          textColor=color, spaceBefore=before, spaceAfter=after, keepWithNext=keep,
                          alignment=TA_RIGHT if right else TA_LEFT)


def printable(text: str, font: str = "Sans") -> str:
    """The text as the font can show it: what it has no glyph for, and control characters, become a box."""
    glyphs = pdfmetrics.getFont(font).face.charToGlyph
    plain = text.replace("\r\n", "\n").replace("\t", "    ")
    return "".join(c if c == "\n" or (c >= " " and ord(c) in glyphs) else MISSING for c in plain)


def shortened(text: str) -> str:
    """The end of a long prompt."""
    return text if len(text) <= PROMPT_CHARACTERS else "[the beginning is left out] ..." + text[-PROMPT_CHARACTERS:]


def drawn(picture: Shown, truth: Sequence[Any], said: Sequence[Any], most: tuple[float, float]) -> Flowable:
    """A picture and its marks, within a width and a height; a box with a word where there is no copy of it."""
    path = picture.path if picture.path is not None and is_readable(picture.path) else None
    return Marked(path, picture.size, most, truth, said, printable)


def key(lines: Sequence[tuple[str, str]], notes: Sequence[str] = ()) -> list[Any]:
    """What colours mean, in small print beneath a picture; nothing where there are none."""
    texts = [f'<font color="{color}">■</font> {escape(printable(text))}' for color, text in lines]
    look = style(7, color=PALE, before=2.5, after=3, keep=True)
    return [Paragraph("<br/>".join([*texts, *map(escape, notes)]), look)] if texts or notes else []


def lines_of(text: str, width: float) -> list[str]:
    """Monospaced text in lines that fit a width."""
    columns = max(20, int((width - 8 * mm) / (0.602 * MONO_SIZE)))
    return [piece for line in printable(text, "Mono").split("\n")
            for piece in (textwrap.wrap(line, columns, replace_whitespace=False) or [""])]


def boxed(text: str, color: Any, width: float = WIDTH) -> list[Any]:
    """Monospaced text beside a coloured bar; it may go over pages."""
    lines = lines_of(text, width)
    look = ParagraphStyle("", fontName="Mono", fontSize=MONO_SIZE, leading=MONO_SIZE * 1.3, textColor=INK)
    rows = [[Preformatted("\n".join(lines[i:i + LINES_A_ROW]), look)] for i in range(0, len(lines), LINES_A_ROW)]
    everywhere = ((0, 0), (-1, -1))
    marked = [("LINEBEFORE", *everywhere, 2, color), ("BACKGROUND", *everywhere, PAPER), ("TOPPADDING", *everywhere, 0),
              ("BOTTOMPADDING", *everywhere, 0), ("LEFTPADDING", *everywhere, 6)]
    # the first row apart, so that a headline keeps to it alone and not to all of a long text
    return [Grid(part, colWidths=[width], style=marked, hAlign="LEFT") for part in (rows[:1], rows[1:]) if part]


def grid(table: Table) -> Any:
    """A table whose cells wrap where they must: columns are as wide as their texts, one takes what the others leave."""
    header = [table.header] if table.header else []
    cells = [[Paragraph(escape(printable(cell[:MOST_CHARACTERS])),
                        style(8, bold=number < len(header), right=i > 0 and not table.prose))
              for i, cell in enumerate(row)] for number, row in enumerate([*header, *table.rows])]
    return Grid(cells, colWidths=widths_of([*header, *table.rows], -1 if table.prose else 0), hAlign="LEFT",
                repeatRows=len(header),
                style=[("LINEBELOW", (0, 0), (-1, -1), 0.4, RULE), ("TOPPADDING", (0, 0), (-1, -1), 1.5),
                       ("BOTTOMPADDING", (0, 0), (-1, -1), 2.5), ("LEFTPADDING", (0, 0), (-1, -1), 2),
                       ("VALIGN", (0, 0), (-1, -1), "TOP")])


def widths_of(rows: list[list[str]], open_column: int) -> list[float]:
    """Widths of columns: what their texts need, up to half the page, in proportion where that is too much; the open
    column takes the rest."""
    needed = [min(WIDTH / 2, 14 + max(pdfmetrics.stringWidth(printable(cell), "SansBold", 8) for cell in column))
              for column in zip(*rows, strict=True)]
    widths = [min(1.0, WIDTH / sum(needed)) * width for width in needed]
    widths[open_column] += WIDTH - sum(widths)
    return widths
