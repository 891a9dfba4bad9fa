"""The learning rate of a step: transformers' schedules by name, with the same formulas, and one that follows a
curriculum; and periods given as a share of all steps."""
import bisect
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from ..errors import ConfigError, did_you_mean
from .fields import MISMATCH, typed


class Now(NamedTuple):
    """Where a schedule is: the step of total that comes next, the first one after warm-up, the peak rate, and the steps
    after which each stage of a curriculum is over."""

    step: int
    warmup: int
    total: int
    peak: float
    stages: tuple[int, ...] = ()

    def progress(self, ahead: int = 0) -> float:
        """The share of the steps after warm-up that is behind, from 0."""
        return (self.step - self.warmup + ahead) / max(1, self.total - self.warmup)

    @property
    def stage(self) -> tuple[int, int]:
        """The first step after warm-up of the stage at hand, and the step after which it is over. What follows the last
        stage goes to the end of the run."""
        k = bisect.bisect_right(self.stages, self.step)
        begin = self.stages[k - 1] if k else 0
        return max(begin, self.warmup), self.stages[k] if k < len(self.stages) else max(self.total, self.step + 1)


class Options(Protocol):
    """The options of a config that say how the learning rate goes."""

    learning_rate: float
    lr_scheduler_type: str
    lr_scheduler_kwargs: dict[str, Any] | None
    warmup_steps: float
    warmup_ratio: float


def learning_rate(config: Options, step: int, total_steps: int, stages: tuple[int, ...] = ()) -> float:
    """The rate of step 0, 1, ... total_steps - 1. stages: of a curriculum, the steps after which each is over.

    >>> from grpo import GRPOConfig
    >>> config = GRPOConfig(learning_rate=1.0, warmup_steps=2)
    >>> [learning_rate(config, step, 4) for step in range(4)]
    [0.0, 0.5, 1.0, 0.5]
    """
    shape = SHAPES[config.lr_scheduler_type]
    warmup = steps_of(config.warmup_steps, total_steps) or math.ceil(total_steps * config.warmup_ratio)
    if step < warmup and shape not in OWN_WARMUP:
        return config.learning_rate * (step / warmup)
    return config.learning_rate * shape(Now(step, warmup, total_steps, config.learning_rate, stages),
                                        **config.lr_scheduler_kwargs or {})


def steps_of(every: float, total_steps: int) -> int:
    """A number of steps; below 1 it is a share of all steps, rounded up.

    >>> steps_of(0.25, 10), steps_of(25, 10)
    (3, 25)
    """
    return int(every) if every >= 1 else math.ceil(total_steps * every)


def checked_arguments(name: str, given: Mapping[str, Any], peak: float) -> dict[str, Any] | None:
    """lr_scheduler_kwargs as the schedule takes them. ConfigError for unknown and missing ones, and for values that it
    cannot use."""
    _, *parameters = inspect.signature(SHAPES[name]).parameters.values()
    allowed = [p.name for p in parameters]
    for unknown in given.keys() - set(allowed):
        raise ConfigError(f"lr_scheduler_kwargs: {name} does not take {unknown!r}{did_you_mean(unknown, allowed)}")
    for p in parameters:
        if p.default is p.empty and p.name not in given:
            raise ConfigError(f"lr_scheduler_kwargs: {name} needs {p.name}")
    arguments = {p.name: as_annotated(p, given[p.name]) for p in parameters if p.name in given}
    SHAPES[name](Now(1, 0, 2, peak), **arguments)        # its own conditions, before a run begins
    return arguments or None


def as_annotated(parameter: inspect.Parameter, value: Any) -> Any:
    """An argument as its parameter's type, or ConfigError."""
    hint = parameter.annotation
    result = typed(value, typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,))
    if result is MISMATCH or isinstance(result, float) and not math.isfinite(result):
        raise ConfigError(f"lr_scheduler_kwargs: {parameter.name}={value!r} must be {getattr(hint, '__name__', hint)}")
    return result


# factors of the peak rate, after warm-up unless they are in OWN_WARMUP

def constant(now: Now) -> float:
    """The peak, always."""
    return 1.0


def linear(now: Now) -> float:
    """A straight line to 0."""
    return max(0.0, (now.total - now.step) / max(1, now.total - now.warmup))


def cosine(now: Now, num_cycles: float = 0.5) -> float:
    """num_cycles of a cosine: half of one goes down to 0."""
    return wave(now.progress(), num_cycles)


def cosine_with_restarts(now: Now, num_cycles: float = 1) -> float:
    """num_cycles times down to 0, each from the peak."""
    return wave(num_cycles * now.progress() % 1.0) if now.progress() < 1.0 else 0.0


def cosine_with_min_lr(now: Now, num_cycles: float = 0.5, min_lr: float | None = None,
                       min_lr_rate: float | None = None) -> float:
    """Half a cosine down to min_lr, or to min_lr_rate times the peak."""
    return above(least(now, min_lr, min_lr_rate), wave(now.progress(), num_cycles))


def cosine_warmup_with_min_lr(now: Now, num_cycles: float = 0.5, min_lr: float | None = None,
                              min_lr_rate: float | None = None, warmup_lr_rate: float | None = None) -> float:
    """One step ahead of the others; the warm-up begins at warmup_lr_rate, by default at 1 / its steps."""
    floor = least(now, min_lr, min_lr_rate)
    if now.step >= now.warmup:
        return above(floor, wave(now.progress(ahead=1), num_cycles))
    if warmup_lr_rate is None:
        return (now.step + 1) / now.warmup
    return warmup_lr_rate + (1.0 - warmup_lr_rate) * now.step / max(1, now.warmup - 1)


def polynomial(now: Now, lr_end: float = 1e-7, power: float = 1.0) -> float:
    """(1 - progress) to the power, down to the rate lr_end."""
    if lr_end >= now.peak:
        raise ConfigError(f"lr_scheduler_kwargs: polynomial goes down to lr_end={lr_end}, which must be below "
                          f"learning_rate={now.peak}")
    return ((now.peak - lr_end) * (1.0 - now.progress()) ** power + lr_end) / now.peak


def inverse_sqrt(now: Now, timescale: int | None = None) -> float:
    """timescale: steps after which the rate is 1 / sqrt(2); None: those of the warm-up, or 10000 without one."""
    scale = timescale if timescale is not None else now.warmup or 10_000
    if scale < 1:
        raise ConfigError(f"lr_scheduler_kwargs: timescale={timescale} must be at least 1 step")
    return 1.0 / math.sqrt((now.step - now.warmup + scale) / scale)


def warmup_stable_decay(now: Now, num_decay_steps: int, num_stable_steps: int | None = None,
                        warmup_type: str = "linear", decay_type: str = "cosine", min_lr_ratio: float = 0.0,
                        num_cycles: float = 0.5) -> float:
    """Up, level, and down to min_lr_ratio. num_stable_steps: None: what warm-up and decay leave."""
    for option, value in (("warmup_type", warmup_type), ("decay_type", decay_type)):
        if value not in RISES:
            raise ConfigError(f"lr_scheduler_kwargs: {option}={value!r} is not one of "
                              f"{', '.join(RISES)}{did_you_mean(value, RISES)}")
    if now.step < now.warmup:
        return above(min_lr_ratio, RISES[warmup_type](now.step / now.warmup))
    stable = now.total - now.warmup - num_decay_steps if num_stable_steps is None else num_stable_steps
    decayed = now.step - now.warmup - stable
    if decayed < 0:
        return 1.0
    if decayed >= num_decay_steps:
        return min_lr_ratio
    done = decayed / num_decay_steps
    return above(min_lr_ratio, wave(done, num_cycles) if decay_type == "cosine" else RISES[decay_type](1.0 - done))


def curriculum_cosine(now: Now, restart_after: bool = True) -> float:
    """cos^2 from the peak to 0, anew in each stage of a curriculum. After the last one, over the rows mixed, once more
    to the end of the run; with restart_after False 0 instead."""
    begin, end = now.stage
    if now.stages and now.step >= now.stages[-1] and not restart_after:
        return 0.0
    return math.cos(0.5 * math.pi * (now.step - begin) / (end - begin)) ** 2


def wave(progress: float, num_cycles: float = 0.5) -> float:
    """A cosine from 1, at 0 after half a cycle."""
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * num_cycles * 2.0 * progress)))


def above(floor: float, factor: float) -> float:
    """A factor from 0 to 1, as one from floor to 1."""
    return max(0.0, factor * (1.0 - floor) + floor)


def least(now: Now, min_lr: float | None, min_lr_rate: float | None) -> float:
    """The lowest factor, from a rate or from its share of the peak."""
    if min_lr is None and min_lr_rate is not None:
        return min_lr_rate
    if min_lr is None or min_lr_rate is not None:
        raise ConfigError("lr_scheduler_kwargs: give one of min_lr and min_lr_rate")
    return min_lr / now.peak if now.peak else 0.0


# from 0 to 1; a decay is one backwards
RISES: dict[str, Callable[[float], float]] = {
    "linear": lambda x: x, "cosine": lambda x: 0.5 * (1.0 - math.cos(math.pi * x)),
    "1-sqrt": lambda x: 1.0 - math.sqrt(1.0 - x)}
SHAPES: dict[str, Callable[..., float]] = {f.__name__: f for f in (
    linear, cosine, constant, cosine_with_restarts, cosine_with_min_lr, cosine_warmup_with_min_lr, polynomial,
    inverse_sqrt, warmup_stable_decay, curriculum_cosine)} | {"constant_with_warmup": constant}
OWN_WARMUP = (cosine_warmup_with_min_lr, warmup_stable_decay)
