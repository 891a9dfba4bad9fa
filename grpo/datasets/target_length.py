"""A number of tokens that each row asks the model to think for (L1, arXiv 2503.04697), where rewards of length find
it."""
import random
from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError, DatasetError, did_you_mean

COLUMN = "target_length"
OPTIONS = ("low", "high", "maximum", "seed")


def with_target_length(rows: list[dict[str, Any]], target: int | Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows with a target in their system message and in the column target_length, negative where it is a maximum.

    target: N tokens, -N for at most N, or {low, high, maximum: false, seed: 0} for an N drawn evenly for each row.

    >>> row = with_target_length([{"prompt": [{"role": "user", "content": "2 + 2?"}]}], -100)[0]
    >>> row["prompt"][0]["content"], row["target_length"]
    ('Think for a maximum of 100 tokens.', -100)
    """
    low, high, sign, seed = bounds(target)
    rng = random.Random(f"target_length {seed}")
    return [asked(row, number, sign * rng.randint(low, high)) for number, row in enumerate(rows)]


def bounds(target: Any) -> tuple[int, int, int, int]:
    """(low, high, -1 for a maximum else 1, seed)."""
    options = target if isinstance(target, Mapping) else {"low": target, "high": target}
    for name in options:
        if name not in OPTIONS:
            raise ConfigError(f"target_length has no entry {name!r}{did_you_mean(name, OPTIONS)} It has "
                              f"{', '.join(OPTIONS)}.")
    low, high = whole_or_0(options.get("low")), whole_or_0(options.get("high"))
    if not (0 < low <= high or low == high < 0):
        raise ConfigError(f"target_length={target!r} must be a number of tokens, -N for at most N, or "
                          "{low: 100, high: 1000, maximum: false}")
    return abs(low), abs(high), -1 if options.get("maximum") or low < 0 else 1, options.get("seed", 0)


def whole_or_0(value: Any) -> int:
    """The value if it is an integer, else 0, which is no number of tokens to think for."""
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def asked(row: dict[str, Any], number: int, target: int) -> dict[str, Any]:
    """The row with this target."""
    if COLUMN in row:
        raise DatasetError(f"row {number} has a column {COLUMN} of its own; leave the option {COLUMN} out")
    prompt = row["prompt"]
    if isinstance(prompt, str) or not isinstance(prompt[0], Mapping):
        raise DatasetError(f"row {number}: {COLUMN} is said in the system message, and the prompt is no chat; give "
                           "rows with a question")
    sentence = f"Think for {target} tokens." if target > 0 else f"Think for a maximum of {-target} tokens."
    system, others = (prompt[0]["content"], prompt[1:]) if prompt[0]["role"] == "system" else ("", prompt)
    content = [*system, {"type": "text", "text": sentence}] if isinstance(system, list) else \
        f"{system} {sentence}".strip()
    return {**row, "prompt": [{"role": "system", "content": content}, *others], COLUMN: target}
