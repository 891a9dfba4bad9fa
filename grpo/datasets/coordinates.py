"""In which numbers a model says where something is in its image, for data sets whose answers are places.

Qwen2.5-VL speaks of pixels of the image as it was resized for it, Qwen-VL and Qwen3-VL of thousandths. A row whose
truth is in pixels of its image says with two columns how to get there: image_size, the image's [width, height], and
frame, the [width, height] that it has in the model's numbers. grpo.rewards.marks.scaled takes both.
"""
from typing import Any

from ..errors import ConfigError, did_you_mean

UNITS = ("pixels", "thousandths")


def coordinates(units: str, width: int, height: int) -> dict[str, list[int]]:
    """The columns image_size and frame. units: "pixels" of the image as Qwen2.5-VL resizes it, both sides to the
    nearest multiples of 28, or "thousandths", which hold for every size: with another max_pixels than the family's own
    they are the safe choice.

    >>> coordinates("pixels", 384, 384), coordinates("thousandths", 384, 224)["frame"]
    ({'image_size': [384, 384], 'frame': [392, 392]}, [1000, 1000])
    """
    check_units(units)
    frame = [1000, 1000]
    if units == "pixels":
        from ..vision import Processor

        frame = list(Processor.of("qwen2_5_vl").size(height, width))[::-1]
    return {"image_size": [width, height], "frame": frame}


def explained(units: str, frame: list[int]) -> str:
    """The sentence that tells the model."""
    if units == "thousandths":
        return "Coordinates are from 0 to 1000, x from the left to the right and y from the top to the bottom."
    return ("Coordinates are in pixels from the upper left corner of the image, which is "
            f"{frame[0]} wide and {frame[1]} high.")


def check_units(units: Any) -> None:
    """ConfigError for other units than these."""
    if units not in UNITS:
        raise ConfigError(f"units={units!r} must be {' or '.join(UNITS)}{did_you_mean(str(units), UNITS)}")
