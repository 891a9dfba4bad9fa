r"""What stands in \boxed{} and \fbox{}, by counting braces."""
import re
from collections.abc import Iterator

BOX = re.compile(r"\\(?:boxed|fbox)\s*(?:\{|(?=\d)|\s(?=[A-Za-z\d]))")
BARE = re.compile(r"[A-Za-z\d.]+")           # \boxed 5
BRACE = re.compile(r"\\.|[{}]", re.DOTALL)   # one with a backslash is no brace of TeX
# between boxes that are one answer together: signs alone, or up to a few words with "and" or "or"
SIGNS = re.compile(r"(?:[\s$\\(),.;\[\]{}]|q?quad|text)*")
WORDS = r"(?:(?!\b(?:so|is|thus|therefore|hence|then|but|not|final|answer)\b)[^.\n!?])"
AND = re.compile(rf"{WORDS}{{0,60}}?\b(?:and|or)\b{WORDS}{{0,40}}")
MOST_BETWEEN = 80


def boxed(text: str) -> str | None:
    r"""What the last box holds, several boxes where they stand together as one answer; None without a box, "" where the
    last one is never closed: an answer that was cut off is none.

    >>> boxed(r"\boxed{\frac{\sqrt{3}}{2}}"), boxed(r"\boxed{1} and \boxed{2}"), boxed(r"\boxed{1}, so \boxed{\frac{1}")
    ('\\frac{\\sqrt{3}}{2}', '1, 2', '')
    """
    boxes = list(boxes_in(text))
    if not boxes:
        return None
    start, _, content = boxes.pop()
    if content is None:
        return ""
    together = [content.strip()]
    for earlier, end, inside in reversed(boxes):
        between = text[end:start]
        if inside is None or len(between) > MOST_BETWEEN or not (SIGNS.fullmatch(between) or AND.fullmatch(between)):
            break
        together.insert(0, inside.strip())
        start = earlier
    return ", ".join(dict.fromkeys(together))


def unclosed(text: str) -> str:
    r"""What is left of a last box that is never closed.

    >>> unclosed(r"\boxed{\frac{1}{2")
    '\\frac{1}{2'
    """
    *_, (start, _, content) = boxes_in(text)
    return text[start:].partition("{")[2].strip() if content is None else ""


def boxes_in(text: str) -> Iterator[tuple[int, int, str | None]]:
    """(start, end, content) of every outermost box; the content is None where it is never closed."""
    at = 0
    while (found := BOX.search(text, at)) is not None:
        if not found[0].endswith("{"):
            word = BARE.match(text, found.end())
            at = word.end() if word is not None else found.end()
            yield found.start(), at, text[found.end():at]
            continue
        end = closing_brace(text, found.end())
        if end is None:
            yield found.start(), len(text), None
            return
        at = end + 1
        yield found.start(), at, text[found.end():end]


def closing_brace(text: str, start: int) -> int | None:
    """Where the brace closes that was opened before start; None where it does not."""
    depth = 1
    for mark in BRACE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(mark[0], 0)
        if depth == 0:
            return mark.start()
    return None
