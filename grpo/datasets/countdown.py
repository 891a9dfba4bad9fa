"""Countdown: reach a target from some numbers with + - * and /, each number once (the game of TinyZero).
countdown_reward checks an expression; there is no answer column, as many expressions are right."""
import functools
import itertools
import random
from collections.abc import Iterator, Sequence
from typing import Any

from ..errors import ConfigError
from .layout import chat, check_examples, solved, with_examples
from .procedural import check_bounds, distinct, held_out
from .splits import check_split

HELD_OUT = 10                                # one problem in so many
SIZE = {"train": 8000, "test": 1000}         # rows when no size is given
LARGEST = 1000                               # of the numbers that an option may ask for
MOST = 6                                     # numbers of a problem


def load(split: str = "train", *, count: int | Sequence[int] = (3, 4), numbers: Sequence[int] = (1, 50),
         targets: Sequence[int] = (10, 100), size: int | None = None, seed: int = 0, system_prompt: str | None = "xml",
         examples: int = 0) -> list[dict[str, Any]]:
    """Rows {prompt, question, numbers, target, expression}; expression is one that is right.

    count: how many numbers a problem has, in turn when there are several. numbers, targets: the smallest and the
    largest. size: that many rows, None: 8000 of train, 1000 of test. examples: so many solved problems of train, which
    are not asked, are shown before each question.

    >>> row = load("test", size=1)[0]
    >>> row["numbers"], row["target"], row["expression"]
    ([19, 3, 40], 24, '(40 - 19) + 3')
    """
    check_split(split, SIZE, "countdown")
    counts = [count] if isinstance(count, int) else list(count)
    if not counts or not all(2 <= n <= MOST for n in counts):
        raise ConfigError(f"count={count!r} must be how many numbers a problem has, from 2 to {MOST}, or several of "
                          "these")
    check_bounds("numbers", numbers, 1, LARGEST)
    check_bounds("targets", targets, 1, LARGEST)
    check_examples(examples)
    drawn = {name: problems(name, counts, numbers, targets, seed) for name in SIZE}
    shown = [message for p in itertools.islice(drawn["train"], examples)
             for message in solved(p["question"], f"{p['expression']} = {p['target']}", p["expression"])]
    rows = [{"prompt": with_examples(chat(p["question"], system_prompt), shown), **p}
            for p in itertools.islice(drawn[split], SIZE[split] if size is None else size)]
    if not rows:
        raise ConfigError(f"no problem of numbers={numbers!r} and targets={targets!r} falls into {split}; widen them")
    return rows


def problems(split: str, counts: Sequence[int], numbers: Sequence[int], targets: Sequence[int],
             seed: int) -> Iterator[dict[str, Any]]:
    """Problems {question, numbers, target, expression} without end, or until they come again."""
    rng = random.Random(f"countdown {split} {seed}")
    kinds = [distinct(functools.partial(draw, n, split, numbers, targets, rng)) for n in counts]
    for turn in zip(*kinds, strict=False):     # until one of them has no more
        yield from turn


def draw(count: int, split: str, numbers: Sequence[int], targets: Sequence[int],
         rng: random.Random) -> dict[str, Any] | None:
    """A problem with a solution; None when its target is out of range or it belongs to the other split."""
    chosen = [rng.randint(*numbers) for _ in range(count)]
    target, expression = combined([(n, str(n)) for n in chosen], rng)
    if not targets[0] <= target <= targets[1] or held_out(f"{sorted(chosen)} {target}", HELD_OUT) != (split == "test"):
        return None
    question = (f"Reach {target} from the numbers {', '.join(map(str, chosen))}. Use each of them exactly once, with + "
                "- * / and parentheses. The answer is the expression alone.")
    return {"question": question, "numbers": chosen, "target": target,
            "expression": expression.removeprefix("(").removesuffix(")")}


def combined(terms: list[tuple[int, str]], rng: random.Random) -> tuple[int, str]:
    """(value, expression) of all terms, two joined at a time in random ways whose values are whole numbers above 0."""
    while len(terms) > 1:
        rng.shuffle(terms)
        (a, left), (b, right) = max(terms[:2]), min(terms[:2])
        ways = [("+", a + b), ("*", a * b)] + [("-", a - b)] * (a > b) + [("/", a // b)] * (a % b == 0)
        sign, value = rng.choice(ways)
        terms = [*terms[2:], (value, f"({left} {sign} {right})")]
    return terms[0]
