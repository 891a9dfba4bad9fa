"""One process on one device: the accelerator of scripts that were written for accelerate, and a device's name."""
from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from .errors import did_you_mean

Thing = TypeVar("Thing")


class Device(str):
    """A device's name, with the parts that torch.device has."""

    @property
    def type(self) -> str:
        """"cpu", "cuda" or "ref"."""
        return self.partition(":")[0]

    @property
    def index(self) -> int | None:  # type: ignore[override]
        """Which of several; None where the name does not say."""
        number = self.partition(":")[2]
        return int(number) if number else None


class Alone:
    """What scripts ask of accelerate's Accelerator, or of its PartialState: this process is the main one, it waits for
    nobody, and what it gathers is what it has.

    >>> alone = Alone()
    >>> alone.is_main_process, alone.num_processes, alone.gather([1, 2])
    (True, 1, [1, 2])
    """

    is_main_process = is_local_main_process = is_last_process = True
    num_processes = 1
    process_index = local_process_index = 0
    use_distributed = False
    distributed_type = "NO"
    mixed_precision = "no"
    gradient_accumulation_steps = 1
    sync_gradients = True

    def __init__(self, device: str = "cpu") -> None:
        self.device = Device("cpu" if device == "ref" else device)      # where tensors of other libraries may be put

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the accelerator of one process has no {name!r}{did_you_mean(name, dir(type(self)))} "
                             "Training itself runs in the core, without accelerate.")

    @property
    def state(self) -> Alone:
        """Itself."""
        return self

    def wait_for_everyone(self) -> None:
        """Everyone is here."""

    def print(self, *values: Any, **options: Any) -> None:
        """print()."""
        print(*values, **options)

    def unwrap_model(self, model: Thing, *args: Any, **options: Any) -> Thing:
        """The model, around which there is nothing."""
        return model

    def get_state_dict(self, model: Any, *args: Any, **options: Any) -> Any:
        """The model's own."""
        return model.state_dict()

    def prepare(self, *things: Any, **options: Any) -> Any:
        """What is given, one thing or a tuple."""
        return things[0] if len(things) == 1 else things

    prepare_model = prepare_data_loader = prepare

    def gather(self, values: Thing) -> Thing:
        """What this process has."""
        return values

    def gather_for_metrics(self, values: Thing, use_gather_object: bool = False) -> Thing:
        """What this process has."""
        return values

    def reduce(self, values: Thing, reduction: str = "sum", scale: float = 1.0) -> Thing:
        """The sum, or the mean, over one process."""
        return values if scale == 1.0 else values * scale  # type: ignore[operator, return-value]

    def pad_across_processes(self, values: Thing, *args: Any, **options: Any) -> Thing:
        """What this process has."""
        return values

    @contextlib.contextmanager
    def split_between_processes(self, values: Thing, apply_padding: bool = False) -> Iterator[Thing]:
        """All of it is this process's."""
        yield values

    @contextlib.contextmanager
    def main_process_first(self) -> Iterator[None]:
        """This is the main one."""
        yield

    local_main_process_first = main_process_first

    def on_main_process(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function: this is the main process."""
        return function

    on_local_main_process = on_main_process

    def free_memory(self, *things: Any) -> Any:
        """Lets go of nothing that it does not hold."""
        return list(things)

    clear = free_memory

    def end_training(self) -> None:
        """There are no trackers to be closed; callbacks close theirs."""
