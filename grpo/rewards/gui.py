"""Clicks on a screen: was it hit, and how near. DeepSeekRL's rewards, for clicks in any of the forms of grpo.rewards.
marks; as published they are deepseekrl_gui, for its calls in text.

The truth is in the columns box, [left, top, right, bottom] in pixels of the image, and circular, whether it is the
circle in that box. click_hit, click_distance and click_tool_used are for eval_funcs.
"""
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from ..answers import text_of
from .applying import to_rows_with
from .boxes import answer_of
from .marks import Box, Point, inside, placed, scaled
from .xml import strict_format_reward

HIT, NEAR, FAR = 3.0, 2.0, 4.0               # what a hit is worth; the distance's: 2 - 4 d / diagonal
SPACE = r"[^\S\n]{0,9}"
NUMBER = r"([-+]?[0-9]{1,9}(?:\.[0-9]{0,20})?)"
CLICK = rf"tool_name:{SPACE}click_tool{SPACE}\n{SPACE}x:{SPACE}{NUMBER}{SPACE}\n{SPACE}y:{SPACE}{NUMBER}"
CALL = re.compile(rf"{CLICK}|tool_name:{SPACE}(check_click)\b")
WRONG_CALL = re.compile(r"tool_name:|click_tool")


@to_rows_with("box")
def click_reward(completions: list, box: list, circular: list | None = None, frame: list | None = None,
                 image_size: list | None = None, difficulty: list | None = None, log_metric: Callable | None = None,
                 **columns: Any) -> list[float]:
    """3 where the last point of the answer (or of all the text, without <answer>) is in the box, or in the circle in
    it; else 0. Logs click/hit and click/distance, and click/hit_normal and so on by the column difficulty.

    >>> said = ['<answer>{"point_2d": [5, 9]}</answer>', '<answer>{"point_2d": [0, 0]}</answer>', "nowhere"]
    >>> click_reward(said, box=[[0, 0, 10, 10]] * 3, circular=[True] * 3)
    [3.0, 0.0, 0.0]
    """
    clicks = last_clicks(completions, frame, image_size)
    hits = hits_of(clicks, box, circular)
    if log_metric is not None:
        log_metric("click/hit", sum(hits) / len(hits))
        for kind in sorted({kind for kind in difficulty or () if kind is not None}, key=str):
            of_kind = [hit for hit, own in zip(hits, difficulty or (), strict=True) if own == kind]
            log_metric(f"click/hit_{kind}", sum(of_kind) / len(of_kind))
        if image_size is not None and None not in image_size:
            distances = distances_of(clicks, box, image_size)
            log_metric("click/distance", sum(distances) / len(distances))
    return [HIT * hit for hit in hits]


@to_rows_with("box", "image_size")
def click_distance_reward(completions: list, box: list, image_size: list, frame: list | None = None,
                          **columns: Any) -> list[float]:
    """2 - 4 d / diagonal, d from the last point of the answer to the middle of the box, diagonal that of the image; -2
    where there is no point, and not below it.

    >>> click_distance_reward(["click_screen(5, 5)", "no"], box=[[0, 0, 10, 10]] * 2, image_size=[[30, 40]] * 2)
    [2.0, -2.0]
    """
    distances = distances_of(last_clicks(completions, frame, image_size), box, image_size)
    return [NEAR - FAR * d / math.hypot(*size) for d, size in zip(distances, image_size, strict=True)]


@to_rows_with("box")
def click_hit(completions: list, box: list, circular: list | None = None, frame: list | None = None,
              image_size: list | None = None, **columns: Any) -> list[float]:
    """1.0 for a hit, else 0.0."""
    return [float(hit) for hit in hits_of(last_clicks(completions, frame, image_size), box, circular)]


@to_rows_with("box", "image_size")
def click_distance(completions: list, box: list, image_size: list, frame: list | None = None,
                   **columns: Any) -> list[float]:
    """Pixels from the click to the middle of the box; where there is none the diagonal of the image, which is also the
    most."""
    return distances_of(last_clicks(completions, frame, image_size), box, image_size)


def last_clicks(completions: list, frame: list | None, image_size: list | None) -> list[Point | None]:
    """The last point of each answer, in pixels of the image."""
    marks = placed([answer_of(c) for c in completions], frame, image_size)
    return [next((mark for mark in reversed(each) if isinstance(mark, Point)), None) for each in marks]


def hits_of(clicks: Sequence[Point | None], box: list, circular: list | None) -> list[bool]:
    """Whether each click is a hit."""
    return [click is not None and is_hit(click, Box(*sides), bool(in_circle)) for click, sides, in_circle in
            zip(clicks, box, circular or [False] * len(box), strict=True)]


def is_hit(click: Point, box: Box, circular: bool) -> bool:
    """Whether a point is in a box; or nearer to its middle than half its width."""
    return distance(click, box) <= (box.right - box.left) / 2 if circular else inside(click, box)


def distance(click: Point, box: Box) -> float:
    """From a point to the middle of a box."""
    return math.hypot(click.x - (box.left + box.right) / 2, click.y - (box.top + box.bottom) / 2)


def distances_of(clicks: Sequence[Point | None], box: list, image_size: list) -> list[float]:
    """distance() of each click, at most the diagonal of the image, which is also that of none."""
    return [math.hypot(*size) if click is None else min(math.hypot(*size), distance(click, Box(*sides)))
            for click, sides, size in zip(clicks, box, image_size, strict=True)]


# the calls in text


def calls_in(text: str, frame: Sequence | None, size: Sequence | None) -> list[Point | None]:
    """The calls in their order: a point for click_tool, None for check_click."""
    calls: list[Point | None] = []
    for call in CALL.finditer(text):
        if call[3]:
            calls.append(None)
        else:
            point = Point(float(call[1]), float(call[2]))
            calls += scaled([point], frame, size) if frame and size else [point]     # type: ignore[arg-type]
    return calls


def all_calls(completions: list, frame: list | None, image_size: list | None) -> list[list[Point | None]]:
    """The calls of each completion, in pixels of the image."""
    nothing = [None] * len(completions)
    return [calls_in(text_of(c), own, size) for c, own, size in
            zip(completions, frame or nothing, image_size or nothing, strict=True)]


@to_rows_with("box")
def click_tool_reward(completions: list, box: list, circular: list | None = None, frame: list | None = None,
                      image_size: list | None = None, **columns: Any) -> list[float]:
    """1.0 where both tools are called and what the first check_click would say of the click before it is true of the
    last click too; 0.5 where both are called; 0.2 for one of them; else 0. Nothing is put into the text.

    >>> click, check = "tool_name: click_tool\\nx: 5\\ny: 5\\n", "tool_name: check_click\\n"
    >>> click_tool_reward([click + check, check + click, click, "5, 5"], box=[[0, 0, 9, 9]] * 4)
    [1.0, 0.5, 0.2, 0.0]
    """
    rewards = []
    for calls, sides, in_circle in zip(all_calls(completions, frame, image_size), box,
                                       circular or [False] * len(box), strict=True):
        hits = [None if call is None else is_hit(call, Box(*sides), bool(in_circle)) for call in calls]
        clicks = [hit for hit in hits if hit is not None]
        if not clicks or None not in hits:
            rewards.append(0.2 if hits else 0.0)
            continue
        before = [hit for hit in hits[:hits.index(None)] if hit is not None]
        rewards.append(1.0 if bool(before and before[-1]) == clicks[-1] else 0.5)
    return rewards


def click_format_reward(completions: list, **columns: Any) -> list[float]:
    """0.5 where a completion has reasoning and an answer in their tags and a whole call of click_tool in the answer;
    0.3 for such a call elsewhere; 0.1 for the beginning of a call; else 0.

    >>> call = "tool_name: click_tool\\nx: 5\\ny: 5\\n"
    >>> click_format_reward([f"<reasoning>a</reasoning><answer>{call}</answer>", call, "click_tool", ""])
    [0.5, 0.3, 0.1, 0.0]
    """
    return [click_format(text_of(c)) for c in completions]


def click_format(text: str) -> float:
    """The reward of one text."""
    reasoning, opened, answer = text.partition("<answer>")
    answer, closed, _ = answer.partition("</answer>")
    _, thought, rest = reasoning.partition("<reasoning>")
    if opened and closed and thought and "</reasoning>" in rest and re.search(CLICK, answer):
        return 0.5
    return 0.3 if re.search(CLICK, text) else 0.1 if WRONG_CALL.search(text) else 0.0


def click_tool_used(completions: list, **columns: Any) -> list[float]:
    """1.0 where a tool is called, else 0.0."""
    return [float(CALL.search(text_of(c)) is not None) for c in completions]


# as published


@to_rows_with("box")
def click_reward_func(completions: list, box: list, circular: list | None = None, frame: list | None = None,
                      image_size: list | None = None, **columns: Any) -> list[float]:
    """3 where the last call of click_tool hits, else 0."""
    return [HIT * hit for hit in hits_of(last_calls(completions, frame, image_size), box, circular)]


@to_rows_with("box", "image_size")
def click_distance_reward_func(completions: list, box: list, image_size: list, frame: list | None = None,
                               **columns: Any) -> list[float]:
    """2 - 4 d / diagonal for the last call of click_tool, however far; -2 where there is none."""
    return [-2.0 if click is None else NEAR - FAR * distance(click, Box(*sides)) / math.hypot(*size)
            for click, sides, size in zip(last_calls(completions, frame, image_size), box, image_size, strict=True)]


def last_calls(completions: list, frame: list | None, image_size: list | None) -> list[Point | None]:
    """The last click of each completion that is a call of click_tool."""
    return [next((call for call in reversed(calls) if call is not None), None)
            for calls in all_calls(completions, frame, image_size)]


NAMES = {
    "gui": [click_reward, click_distance_reward, strict_format_reward],
    "click_reward": click_reward, "click_distance_reward": click_distance_reward,
    "click_tool_reward": click_tool_reward, "click_format_reward": click_format_reward,
    "click_hit": click_hit, "click_distance": click_distance, "click_tool_used": click_tool_used,
    "deepseekrl_gui": [click_format_reward, click_reward_func, click_distance_reward_func, click_tool_reward],
}
