"""What a device can do: bytes and floating-point operations a second, by which time is predicted (step_time.py), and
how that is measured."""
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import _core
from ..errors import ConfigError, DeviceError, did_you_mean

# of the data sheet: what a large copy and a large bf16 product reach (H200: 4.3 TB/s, 790 TFLOP/s)
COPY, PRODUCT = 0.9, 0.8
ASSUMED = "H200"                 # where no GPU is at hand and none is named
# of the products and of the sums that show the ceilings: enough to fill the device, and more than its caches hold
SIDE, ELEMENTS, TURNS = {"cpu": 1024, "cuda": 8192}, {"cpu": 1 << 25, "cuda": 1 << 28}, 5


@dataclass(frozen=True)
class Ceilings:
    """flops: FLOP/s of a large bf16 product. bandwidth: bytes/s of a large copy, reads and writes both counted (on a
    CPU of reading). source: where the two come from."""

    flops: float
    bandwidth: float
    source: str


@dataclass(frozen=True)
class Card:
    """Of the data sheet: bytes/s, dense bf16 FLOP/s with float32 sums, bytes of memory. device: what the driver calls
    it."""

    device: str
    bandwidth: float
    flops: float
    memory: int


CARDS = {
    "H200": Card("NVIDIA H200", 4.8e12, 989e12, 141 * 10**9),
    "H100": Card("NVIDIA H100 80GB HBM3", 3.35e12, 989e12, 80 * 10**9),
    "A100": Card("NVIDIA A100-SXM4-80GB", 2.04e12, 312e12, 80 * 10**9),
    "L40S": Card("NVIDIA L40S", 0.864e12, 362e12, 48 * 10**9),
    "RTX4090": Card("NVIDIA GeForce RTX 4090", 1.008e12, 165e12, 24 * 10**9),
}


def find_card(name: str | None) -> tuple[str, Card] | None:
    """(what it is called, the card): the one named; else the GPU at hand, None if it is no card that is known; else,
    with no GPU, ASSUMED."""
    if name is not None:
        if name not in CARDS:
            raise ConfigError(f"card {name!r} is not known{did_you_mean(name, CARDS)} There are {', '.join(CARDS)}; "
                              "for another give its bandwidth and tflops")
        return name, CARDS[name]
    try:
        device = _core.cuda_devices()[0][0]
    except DeviceError:
        return f"{ASSUMED}, since no GPU is here", CARDS[ASSUMED]
    return next(((key, card) for key, card in CARDS.items() if card.device == device), None)


def ceilings(device: str, card: tuple[str, Card] | None = None, bandwidth: float | None = None,
             tflops: float | None = None) -> Ceilings:
    """Of a device: what is given (GB/s, TFLOP/s); the rest from the card's data sheet, or measured here in half a
    second."""
    if bandwidth is not None and tflops is not None:
        return Ceilings(tflops * 1e12, bandwidth * 1e9, "given")
    if card is not None:
        name, sheet = card
        found = Ceilings(PRODUCT * sheet.flops, COPY * sheet.bandwidth,
                         f"{COPY:.0%} and {PRODUCT:.0%} of the data sheet of an {name}")
    else:
        found = Ceilings(*measure(device), "measured here")
    given: dict[str, Any] = {"bandwidth": bandwidth and bandwidth * 1e9, "flops": tflops and tflops * 1e12}
    given = {key: value for key, value in given.items() if value is not None}
    source = f"one given, the other {found.source}" if given else found.source
    return Ceilings(**{**vars(found), **given, "source": source})


def measure(device: str) -> tuple[float, float]:
    """FLOP/s of a large product and bytes/s of reading memory, best of a few: what the ops are measured against.

    Results are inf on "ref", which makes no claim."""
    if device == "ref":
        return float("inf"), float("inf")
    ops, rng = _core.Ops(device), np.random.default_rng(0)
    ops.repeat = TURNS
    side, elements = SIDE[device], ELEMENTS[device]
    x, w = (rng.standard_normal((side, side), dtype=np.float32) for _ in range(2))
    ops.linear(x, w)
    product = 2 * side**3 / ops.seconds
    ops.sum_squares(np.tile(rng.standard_normal(1 << 20, dtype=np.float32), elements >> 20))
    return product, 4 * elements / ops.seconds
