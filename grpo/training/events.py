"""What callbacks are handed beside the config, the state and the control, and what they remember over a checkpoint."""
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import CheckpointCorruptError, warn


class Rates:
    """The learning rate, where callbacks look for it: an optimiser's param_groups, and a scheduler's get_last_lr().

    >>> rates = Rates(lambda: 0.5)
    >>> rates.param_groups[0]["lr"], rates.get_last_lr()
    (0.5, [0.5])
    """

    def __init__(self, rate: Callable[[], float]) -> None:
        self._rate = rate

    @property
    def param_groups(self) -> list[dict[str, float]]:
        """One group. Setting something in it changes nothing: the rate is the schedule's."""
        return [{"lr": self._rate()}]

    def get_last_lr(self) -> list[float]:
        """The rate of the step at hand."""
        return [self._rate()]


def keeps_state(callback: Any) -> bool:
    """Whether a callback has a state() that goes into checkpoints, as transformers' ExportableState has."""
    return callable(getattr(callback, "state", None)) and callable(getattr(type(callback), "from_state", None))


def states_of(callbacks: Sequence[Any]) -> dict[str, Any]:
    """What callbacks remember, by the name of their class; a list where several are of one."""
    found: dict[str, list[Any]] = {}
    for callback in callbacks:
        if keeps_state(callback):
            found.setdefault(type(callback).__name__, []).append(callback.state())
    return {name: states[0] if len(states) == 1 else states for name, states in found.items()}


def remembered_of(path: Path) -> dict[str, Any]:
    """What the callbacks of a checkpoint's trainer_state.json remember; nothing where there is no such file.
    CheckpointCorruptError where it cannot be read."""
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["stateful_callbacks"] or {}
        states = {name: state if isinstance(state, list) else [state] for name, state in found.items()}
        if not all(isinstance(state["attributes"], Mapping) for several in states.values() for state in several):
            raise TypeError("attributes are no mapping")
        return states
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointCorruptError(f"{path}: the state of its callbacks cannot be read: {error!s:.200}") from error


def remind(callbacks: Sequence[Any], remembered: Mapping[str, Sequence[Any]]) -> None:
    """Gives callbacks what those of the checkpoint remembered; a warning names the ones that are not there."""
    left = {name: list(states) for name, states in remembered.items()}
    for callback in callbacks:
        if keeps_state(callback) and left.get(type(callback).__name__):
            for name, value in left[type(callback).__name__].pop(0)["attributes"].items():
                setattr(callback, name, value)
    if absent := [name for name, states in left.items() if states and name != "TrainerControl"]:
        warn(f"the checkpoint has the state of callbacks that are not there: {', '.join(sorted(absent))}")
