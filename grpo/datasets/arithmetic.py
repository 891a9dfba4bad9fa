"""Sums of small whole numbers, made up on the spot: the problems that exist, in a seeded order.

A problem is held out when the hash of its two numbers says so, so `test` never holds a problem, nor its mirror image
(3 + 14 for 14 + 3), that `train` can hold, whatever seed and size are asked for.
"""
import random
from collections.abc import Sequence
from typing import Any

from ..errors import ConfigError
from .layout import chat, check_examples, solved, with_examples
from .procedural import held_out
from .splits import check_split

HELD_OUT = 10                                # one problem in so many


def load(split: str = "train", *, digits: int | list[int] = 2, size: int | None = None, seed: int = 0,
         system_prompt: str | None = None, examples: int = 0) -> list[dict[str, Any]]:
    """Rows {prompt, question, answer} for sums of two numbers of up to so many digits; of several such numbers, a
    problem of each in turn. size: that many rows, None: all. examples: solved problems shown before each question, for
    models that do not know the layout.

    >>> load("test", size=1)[0]["question"]
    'What is 36 + 91?'
    """
    check_examples(examples)
    shown = [message for a, b in problems("train", digits, examples, seed)
             for message in solved(ask(a, b), f"{a} + {b} = {a + b}", a + b)]
    return [row(a, b, system_prompt, shown) for a, b in problems(split, digits, size, seed)]


def demonstrations(split: str = "train", *, digits: int | list[int] = 2, size: int | None = None, seed: int = 0,
                   system_prompt: str | None = None, forgotten_carries: float = 0.0,
                   untidy: float = 0.0) -> list[dict[str, Any]]:
    """The same rows with a completion each, for supervised fine-tuning.

    forgotten_carries: share of the completions in which the demonstrator forgets to carry. untidy: share of those in
    which the reasoning is never closed.
    """
    for name, share in (("forgotten_carries", forgotten_carries), ("untidy", untidy)):
        if not 0 <= share <= 1:
            raise ConfigError(f"{name}={share} must be from 0 to 1")
    rng = random.Random(f"demonstrations {seed}")
    rows = []
    for a, b in problems(split, digits, size, seed):
        lines = add_in_columns(a, b, carries=rng.random() >= forgotten_carries)
        close = "" if rng.random() < untidy else "</reasoning>\n"
        completion = "<reasoning>\n" + "\n".join(lines) + f"\n{close}<answer>\n{lines[-1].split()[-1]}\n</answer>\n"
        rows.append({**row(a, b, system_prompt), "completion": completion})
    return rows


def ask(a: int, b: int) -> str:
    """The question."""
    return f"What is {a} + {b}?"


def row(a: int, b: int, system_prompt: str | None, shown: Sequence[dict[str, str]] = ()) -> dict[str, Any]:
    """A row {prompt, question, answer}; shown: messages of solved problems before the question."""
    question = ask(a, b)
    return {"prompt": with_examples(chat(question, system_prompt), shown), "question": question, "answer": str(a + b)}


def problems(split: str, digits: int | list[int], size: int | None, seed: int) -> list[tuple[int, int]]:
    """Every problem once; with several digits, those there are fewer of are given again, but for the test."""
    check_split(split, ("train", "test"), "arithmetic")
    kinds = [shuffled(split, d, seed) for d in (digits if isinstance(digits, list) else [digits])]
    longest = max(map(len, kinds), default=0)
    return [kind[i % len(kind)] for i in range(longest) for kind in kinds if i < len(kind) or split == "train"][:size]


def shuffled(split: str, digits: int, seed: int) -> list[tuple[int, int]]:
    """The problems in an order that the seed decides."""
    if not 1 <= digits <= 3:
        raise ConfigError(f"digits={digits} must be from 1 to 3")
    numbers = range(10 ** digits)
    chosen = [(a, b) for a in numbers for b in numbers
              if held_out(f"{min(a, b)}+{max(a, b)}", HELD_OUT) == (split == "test")]
    random.Random(f"{split} {seed}").shuffle(chosen)
    return chosen


def add_in_columns(a: int, b: int, carries: bool = True) -> list[str]:
    """Column addition from the right, a line a column: the sum of its digits, then all digits of the result so far.

    >>> add_in_columns(47, 85), add_in_columns(47, 85, carries=False)
    (['7+5=12 -> 2', '4+8=12; 12+1=13 -> 32', '1 -> 132'], ['7+5=12 -> 2', '4+8=12 -> 22'])
    """
    lines, result, place, carry = [], "", 1, 0
    while place == 1 or place <= max(a, b):
        x, y = a // place % 10, b // place % 10
        total = x + y + carry
        result = f"{total % 10}{result}"
        lines.append(f"{x}+{y}={x + y}" + (f"; {x + y}+1={total}" if carry else "") + f" -> {result}")
        carry = int(carries and total > 9)
        place *= 10
    return [*lines, f"1 -> 1{result}"] if carry else lines
