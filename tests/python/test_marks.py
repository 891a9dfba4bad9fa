"""Boxes and points in texts: the forms in which models write them, what is no mark, and texts that are meant to be
slow."""
import time

import pytest

from grpo.rewards.boxes import overlaps
from grpo.rewards.marks import THOUSANDTHS, Box, Point, inside, marks_in, placed, scaled

CAT = Box(1, 2, 30, 40, "cat")


@pytest.mark.parametrize("text, marks", [
    ('{"bbox_2d": [1, 2, 30, 40], "label": "cat"}', [CAT]), ('{"label": "cat", "bbox_2d": [1, 2, 30, 40]}', [CAT]),
    ('```json\n[\n\t{"bbox_2d": [1, 2, 30, 40], "label": "cat"},\n\t{"point_2d": [5, 6.5], "label": "a {b}"}\n]\n```',
     [CAT, Point(5, 6.5, "a {b}")]),
    ("{'bbox_2d': [1, 2, 30, 40], 'label': 'cat'}", [CAT]), ('{"bbox_2d":[1,2,30,40],"label":"cat"', [CAT]),
    ('{"bbox_2d": [1, 2, 30, 40], "lab', [CAT._replace(label=None)]), ('{"bbox_2d": [1, 2, 30, 4', []),
    ('{"bbox_2d": [1, 2, 30, 40]}, {"label": "cat"}', [CAT._replace(label=None)]),
    ('"bbox_2d": [1, 2, 30, 40], "label": "cat", "point_2d": [5, 6]', [CAT, Point(5, 6)]),
    ('{"label": "dog"} {"bbox_2d": [1, 2, 30, 40], "label": "cat"}', [CAT]),
    ('{"point_2d": [-5, +6.]}', [Point(-5, 6)]), ('{"point_2d": ["5", "6"]}', []), ('{"point_2d": [5]}', []),
    ('{"bbox_2d": [1, 2, 30]}', []), ('{"bbox_2d": [nan, 2, 30, 40]}', []), ('{"point_2d": [1e9, 3]}', []),
    ('{"point_2d": [12345678901, 3]}', []),
    ('{"bbox_2d": [1, 2, 30, 40], "label": "c\\"at"}', [CAT._replace(label='c\\"at')]),
    ("<ref>cat</ref><box>(1,2),(30,40)</box>", [CAT]), ("<box>(1, 2), (30, 40)", [CAT._replace(label=None)]),
    ("<ref> cat </ref><box>(1,2),(30,40)</box><box>(1,2),(3,4)</box>", [CAT, Box(1, 2, 3, 4, "cat")]),
    ("<ref>cat</ref> sits <box>(1,2),(30,40)</box>", [CAT._replace(label=None)]),
    ("<ref>cat</ref><box>(1,2),(30,40)</box> click_screen(3, 4)", [CAT, Point(3, 4)]),
    ("click_screen(3,4) click_screen( x=5, y = 6.5 ) click_screen(7)", [Point(3, 4), Point(5, 6.5)]),
    ("<tool>\ntool_name: click_tool\nx: 12\ny: 34\n</tool>", [Point(12, 34)]),
    ('{"name": "click_tool", x: 12, y: 34}', [Point(12, 34)]), ("click_tool\ny: 3\nx: 4", []),
    ("tool_name: click_tools\nx: 12\ny: 34", []), ("", []), ("[1, 2, 30, 40] (3, 4)", []),
])
def test_marks(text, marks):
    assert marks_in(text) == marks


PIECES = ['{"', '{\\"', '"label": "', '"label": "\\', '"bbox_2d": [1,', "<ref>", "<ref>a</ref>", "<box>(1,2),(",
          "{", "}", "click_tool ", "click_tool x:1", "click_tool\n\n", "click_screen(", '"bbox_2d":[1,2,3,4]',
          "\\", "'label': '",
          '"bbox_2d":[1,2,3,4],"label":"x"', '{"bbox_2d":[1,2,3,4]', '"point_2d": [         1         ,         ',
          '"label":"x",', "9", "[" * 50, "\n", "\x00", "é", "\ud800"]


@pytest.mark.parametrize("piece", PIECES)
def test_no_text_takes_long(piece):
    """200,000 characters, by the processor's clock; read anew from every place they would take minutes."""
    begun = time.process_time()
    marks_in(piece * (200_000 // len(piece)))
    assert time.process_time() - begun < 2


def test_sizes():
    marks = [Box(100, 200, 300, 400, "cat"), Point(500, 1000)]
    assert scaled(marks, THOUSANDTHS, (224, 448)) == [Box(22.4, 89.6, 67.2, 179.2, "cat"), Point(112, 448)]
    assert placed(['{"point_2d": [500, 500]}'] * 3, [[1000, 1000], None, [50, 50]], [[10, 20], [10, 20], [50, 50]]) == [
        [Point(5, 10)], [Point(500, 500)], [Point(500, 500)]]


@pytest.mark.parametrize("a, b, expected", [
    ((0, 0, 2, 2), (0, 0, 2, 2), 1), ((0, 0, 2, 2), (1, 0, 3, 2), 1 / 3), ((0, 0, 2, 2), (2, 0, 4, 2), 0),
    ((0, 0, 4, 4), (1, 1, 2, 2), 1 / 16), ((2, 2, 0, 0), (0, 0, 2, 2), 0), ((0, 0, 0, 5), (0, 0, 0, 5), 0),
    ((-1, -1, 1, 1), (0, 0, 1, 1), 1 / 4), ((2, 2, 0, 0), (2, 2, 0, 0), 0),
])
def test_iou(a, b, expected):
    def iou(one, other):
        return overlaps([one], [other])[0, 0]

    assert iou(Box(*a), Box(*b)) == iou(Box(*b), Box(*a)) == pytest.approx(expected)


@pytest.mark.parametrize("x, y, there", [(0, 0, True), (10, 20, True), (5, 20.1, False), (-0.1, 5, False)])
def test_inside(x, y, there):
    assert inside(Point(x, y), Box(0, 0, 10, 20)) is there
