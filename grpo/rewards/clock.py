"""What time is it? DeepSeekRL's rewards for clocks, where a time counts only inside the answer tags and only if there
is such a time; as published they are deepseekrl_clock.

clock_error_minutes and clock_within_minute are for eval_funcs.
"""
import re
from collections.abc import Callable
from typing import Any

from ..answers import tagged_answer, text_of
from ..errors import RewardError
from .deepseekrl import extracted
from .xml import strict_format_reward

HALF_DAY = 12 * 3600                         # seconds after which hands stand as before
TIME = re.compile(r"(?<![\d:])([0-9]{1,2}):([0-9]{2}):([0-9]{2})(?![\d:])")
STRICT_DOTALL = re.compile(r"<reasoning>\n(?>.*?\n</reasoning>\n<answer>\n).*?\n</answer>\n$", re.DOTALL)


def clock_reward(completions: list, answer: list, log_metric: Callable | None = None,
                 **columns: Any) -> list[float | None]:
    """3 - 6 d / 21600, where d are the seconds between the tagged time and the column answer, the shorter way round
    twelve hours; -3 where there is no time. None where the row has no answer. Logs clock/error_minutes and
    clock/within_minute.

    >>> said = ["<answer>03:00:00</answer>", "<answer>3:01:00</answer>", "<answer>09:00:00</answer>", "03:00:00"]
    >>> [round(x, 5) for x in clock_reward(said, answer=["03:00:00"] * 4)]
    [3.0, 2.98333, -3.0, -3.0]
    """
    distances = distances_of(completions, answer, tagged_time)
    known = [d for d in distances if d is not None]
    if log_metric is not None and known:
        log_metric("clock/error_minutes", sum(known) / len(known) / 60)
        log_metric("clock/within_minute", sum(d <= 60 for d in known) / len(known))
    return [None if d is None else value(d) for d in distances]


def time_format_reward(completions: list, **columns: Any) -> list[float]:
    """0.5 where the tagged answer holds one time h:mm:ss, that there is.

    >>> time_format_reward(["<answer>[03:00:07]</answer>", "<answer>03:60:00</answer>", "03:00:00"])
    [0.5, 0.0, 0.0]
    """
    return [0.5 if tagged_time(text_of(c)) is not None else 0.0 for c in completions]


def clock_error_minutes(completions: list, answer: list, **columns: Any) -> list[float | None]:
    """Minutes between the tagged time and the answer; where there is no time the most that there can be, 360."""
    return [None if d is None else d / 60 for d in distances_of(completions, answer, tagged_time)]


def clock_within_minute(completions: list, answer: list, **columns: Any) -> list[float | None]:
    """1.0 where the tagged time is at most 60 seconds off, else 0.0."""
    return [None if d is None else float(d <= 60) for d in distances_of(completions, answer, tagged_time)]


def tagged_time(text: str) -> int | None:
    """The only time in the answer tags, in seconds of twelve hours; None without one, or with several."""
    found = TIME.findall(tagged_answer(text) or "")
    times = {(int(h), int(m), int(s)) for h, m, s in found}
    if len(times) != 1:
        return None
    (hours, minutes, seconds), = times
    return seconds_of(hours, minutes, seconds) if is_time(hours, minutes, seconds) else None


def is_time(hours: int, minutes: int, seconds: int) -> bool:
    """Whether there is such a time."""
    return hours < 24 and minutes < 60 and seconds < 60


def seconds_of(hours: int, minutes: int, seconds: int) -> int:
    """Seconds since twelve."""
    return (hours * 3600 + minutes * 60 + seconds) % HALF_DAY


def distances_of(completions: list, answer: list, read: Callable[[str], int | None]) -> list[int | None]:
    """Seconds between what read() finds in each completion and the gold, the shorter way round; 21600, the most, where
    it finds nothing; None where there is no gold."""
    found: list[int | None] = []
    for i, (completion, gold) in enumerate(zip(completions, answer, strict=True)):
        if gold is None:
            found.append(None)
            continue
        wanted, given = TIME.fullmatch(str(gold)), read(text_of(completion))
        if wanted is None or not is_time(*map(int, wanted.groups())):
            raise RewardError(f"clock_reward: the answer of completion {i}'s row is {gold!r:.60}, not HH:MM:SS")
        way = HALF_DAY // 2 if given is None else (given - seconds_of(*map(int, wanted.groups()))) % HALF_DAY
        found.append(min(way, HALF_DAY - way))
    return found


def value(distance: int) -> float:
    """The reward of a time that is so many seconds off."""
    return 3 - 6 * distance / (HALF_DAY // 2)


# as published


def extracted_time(text: str) -> int | None:
    """The first time in the extracted answer, which is all of the text where there is no tag."""
    found = TIME.search(extracted(text))
    return seconds_of(*map(int, found.groups())) if found else None


def clock_reward_func(completions: list, answer: list, **columns: Any) -> list[float | None]:
    """3 - 6 d / 21600, -3 where there is no time."""
    return [None if d is None else value(d) for d in distances_of(completions, answer, extracted_time)]


def time_format_reward_func(completions: list, **columns: Any) -> list[float]:
    """0.5 where the extracted answer holds h:mm:ss."""
    return [0.5 if extracted_time(text_of(c)) is not None else 0.0 for c in completions]


def strict_dotall_reward_func(completions: list, **columns: Any) -> list[float]:
    """0.5 for the tags on lines of their own, around any number of lines, and a newline at the end."""
    return [0.5 if STRICT_DOTALL.match(text_of(c)) else 0.0 for c in completions]


NAMES = {
    "clock": [clock_reward, time_format_reward, strict_format_reward],
    "clock_reward": clock_reward, "time_format_reward": time_format_reward,
    "clock_error_minutes": clock_error_minutes, "clock_within_minute": clock_within_minute,
    "deepseekrl_clock": [clock_reward_func, time_format_reward_func, strict_dotall_reward_func],
}
