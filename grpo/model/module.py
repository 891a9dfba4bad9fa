"""What scripts ask of a model of PyTorch that has been trained: where it is, how large, and to be put somewhere."""
from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from ..alone import Device
from ..errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from .. import _core
    from .objects import ModelObject
    from .tokenizer import Tokenizer

STORED = {"bfloat16": 2, "float32": 4}


@dataclass(frozen=True)
class Parameter:
    """One tensor of a model, without its numbers, which state_dict() has."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    device: Device
    requires_grad: bool

    def numel(self) -> int:
        """How many numbers it is."""
        return math.prod(self.shape)

    def nelement(self) -> int:
        """The same."""
        return self.numel()

    def element_size(self) -> int:
        """Bytes of one."""
        return STORED[self.dtype]


class Module:
    """The face of a torch module; `Model` is the rest.

    A model is what it is: trained where and as it was loaded. So to() takes its own device and dtype alone."""

    core: _core.Model
    config: Any
    generation_config: Any
    device: str
    dtype: str
    tokenizer: Tokenizer
    sight: Any
    given: ModelObject | None = None         # the object that its weights were taken from
    name_or_path: str = ""                   # what it was loaded by
    train_vision: str = "none"               # what of a tower a trainer trains
    training = False                         # nothing that runs here depends on it
    model_tags: list[str] | None = None

    def eval(self) -> Self:
        """Itself: there is no dropout, so that training and not are the same."""
        return self.train(False)

    def train(self, mode: bool = True) -> Self:
        """Itself, as eval()."""
        self.training = bool(mode)
        return self

    def to(self, *places: Any, **named: Any) -> Self:
        """Itself, for the device and the dtype that it has. ConfigError for another."""
        wrong = sorted(named.keys() - {"device", "dtype", "non_blocking", "copy"})
        if wrong:
            raise ConfigError(f"to() has no {wrong[0]!r}{did_you_mean(wrong[0], ('device', 'dtype'))}")
        for place in (*places, *(named.get(name) for name in ("device", "dtype"))):
            text = "" if place is None or isinstance(place, bool) else str(place).rpartition("torch.")[2]
            kind = text.partition(":")[0]
            if kind in ("cpu", "cuda", "ref", "mps", "xpu", "meta") and kind != Device(self.device).type:
                raise ConfigError(f"to({text!r}): the model is on {self.device}, and stays there; load it with "
                                  f"grpo.load(..., device={kind!r})")
            if kind in ("float16", "half", "bfloat16", "float32", "float", "float64") and kind != self.dtype:
                raise ConfigError(f"to({text!r}): the model is {self.dtype}, as {self.device} stores it; "
                                  "save_pretrained(folder, dtype=...) writes another")
        return self

    def cpu(self) -> Self:
        """to("cpu")."""
        return self.to("cpu")

    def cuda(self, device: Any = None) -> Self:
        """to("cuda")."""
        return self.to("cuda")

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(name, its size and kind) of every tensor; a tied head is not among them."""
        for name, shape in self.core.tensors():
            yield name, Parameter(name, tuple(shape), self.dtype, Device(self.device), self._is_trained(name))

    def parameters(self) -> Iterator[Parameter]:
        """The same without the names: ``sum(p.numel() for p in model.parameters() if p.requires_grad)``."""
        return (parameter for _, parameter in self.named_parameters())

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """How many numbers the weights are; a tied head counts once."""
        return sum(p.numel() for p in self.parameters() if not (only_trainable and not p.requires_grad)
                   and not (exclude_embeddings and "embed" in p.name.rpartition("layers.")[2]))

    def get_memory_footprint(self) -> int:
        """Bytes of the weights."""
        return sum(p.numel() * p.element_size() for p in self.parameters())

    def _is_trained(self, name: str) -> bool:
        """Whether a trainer moves a tensor: all of the text, and of a tower what train_vision says."""
        if self.sight is None or "visual." not in name or self.train_vision == "all":
            return True
        return self.train_vision == "merger" and "merger" in name

    def gradient_checkpointing_enable(self, *args: Any, **options: Any) -> None:
        """Nothing: a trainer's option recompute says it."""

    def gradient_checkpointing_disable(self) -> None:
        """Nothing: a trainer's option recompute says it."""

    def add_model_tags(self, tags: str | list[str]) -> None:
        """Tags of the model's card."""
        self.model_tags = list(dict.fromkeys([*(self.model_tags or []), *([tags] if isinstance(tags, str) else tags)]))

    def write_back(self) -> int:
        """Puts the weights as they are now into the object that they were taken from; returns how many of its tensors
        changed. ConfigError where there is no such object, CheckpointError where it does not take them.

        ``load(AutoModelForCausalLM.from_pretrained(...))`` has one; a trainer does this by itself at the end."""
        if self.given is None:
            raise ConfigError("write_back(): this model was not made of a model object, but of "
                              f"{self.name_or_path or 'files'}; save_pretrained() writes its weights")
        return self.given.write(self.core)

    def take_images_of(self, processor: Any) -> None:
        """Sees images as a processor of transformers does; one without an image_processor changes nothing.
        UnsupportedModelError for what would change pixels and is not done."""
        if getattr(processor, "image_processor", None) is None or not hasattr(processor, "save_pretrained"):
            return
        if self.sight is None:
            return                                       # its texts alone are what a model without a tower is given
        import tempfile

        from ..vision.processor import Processor

        with tempfile.TemporaryDirectory() as folder:
            processor.save_pretrained(folder)
            self.sight.processor = Processor.read(folder, self.config)
