"""One-step word problems, made up on the spot: one operation on two small whole numbers, told in many ways.

A problem is one side of a fact: x + y = z told as a sum or as z - x, x * y = z told as a product or as z / x. A fact is
held out when its hash says so, so `test` asks for no fact, told in whatever way, that `train` can hold, whatever seed,
size and ranges are asked for.
"""
import functools
import itertools
import random
from collections.abc import Iterator, Sequence
from typing import Any

from ..errors import ConfigError, did_you_mean
from .layout import chat, check_examples, solved, with_examples
from .procedural import check_bounds, distinct, held_out
from .splits import check_split

HELD_OUT = 5                                 # one fact in so many
SIZE = {"train": 8000, "test": 1000}         # rows when no size is given
LARGEST = 100                                # of the numbers that an option may ask for
SYMBOLS = {"addition": "+", "subtraction": "-", "multiplication": "x", "division": "/"}

NAMES = """Ada Amir Anna Ben Bella Carlos Chen Clara Dan Diego Elif Emma Eva Felix Finn Grace Hana Hugo Ida Ivan
Jack Jonas Kofi Lara Leo Lily Lucia Luis Maya Mia Mina Nadia Nina Noah Olga Omar Oscar Paula Peter Ravi Rosa Sam
Sara Sofia Tariq Tom Vera Yuki Zoe""".split()
THINGS = """apples balloons beads books bottles buttons candles cards carrots coins cookies crayons cups eggs
flowers grapes keys lemons marbles melons muffins nuts oranges peaches pears pencils pens photos plates plums
potatoes ribbons rings rocks seeds shells spoons stamps stickers tickets tomatoes toys""".split()
CONTAINERS = "bags baskets boxes bowls buckets crates drawers jars packs trays".split()

STORIES = {
    "addition": """
        {name} has {a} {things}. {friend} gives {name} {b} more. How many {things} does {name} have now?
        {name} has {a} {things} and {friend} has {b}. How many {things} do they have together?
        There are {a} {things} in one box and {b} in another. How many {things} are there in both?
        {name} picked {a} {things} in the morning and {b} in the afternoon. How many {things} did {name} pick that day?
        {name} has {a} {things}. {friend} has {b} more than that. How many {things} does {friend} have?
        After giving {a} {things} to {friend}, {name} still has {b}. How many {things} did {name} have at first?
        {name} is {a} years old. How old will {name} be in {b} years?
        {name} read {a} pages yesterday and {b} pages today. How many pages did {name} read?
        A bus carries {a} people, and {b} more get on. How many people are on the bus now?
        {name} pays {a} dollars for {things} and {b} dollars for a hat. How many dollars does {name} spend?
        {name} walked {a} km on Monday and {b} km on Tuesday. How many km did {name} walk?
        In a class there are {a} girls and {b} boys. How many children are in the class?
        {friend} bought {b} {things}. {name} had bought {a} of them before. How many {things} did the two buy?
        A rope is {a} m long. {name} ties a rope of {b} m to it. How many m of rope is that, without the knot?
        {name} worked for {a} minutes, rested, and worked for {b} minutes more. How many minutes did {name} work?
        It was {a} degrees at dawn, and by noon it was {b} degrees warmer. How many degrees was it at noon?""",
    "subtraction": """
        {name} has {a} {things} and gives {b} of them to {friend}. How many {things} does {name} have left?
        There were {a} {things} on the table. {name} took {b}. How many {things} are still there?
        {name} has {a} {things} and {friend} has {b}. How many more {things} does {name} have than {friend}?
        {name} wants {a} {things} and already has {b}. How many {things} are missing?
        Of {a} {things}, {b} are broken. How many {things} are whole?
        {name} and {friend} have {a} {things} together. {b} of them belong to {friend}. How many belong to {name}?
        A book has {a} pages. {name} has read {b} of them. How many pages are left to read?
        {name} has {a} dollars and spends {b} on {things}. How many dollars are left?
        A bus carries {a} people, and {b} of them get off. How many people are still on the bus?
        {name} is {a} years old and {friend} is {b}. How many years older is {name}?
        A rope is {a} m long. {name} cuts off {b} m. How many m of rope are left?
        {friend} lost {b} of {a} {things}. How many {things} does {friend} still have?
        {name} had some {things}, found {b} more, and now has {a}. How many {things} did {name} have at first?
        The way to the lake is {a} km. {name} has walked {b} km of it. How many km are still to go?
        In a class of {a} children, {b} wear glasses. How many children do not wear glasses?
        A shop had {a} {things} and sold {b}. How many {things} did it keep?""",
    "multiplication": """
        {name} has {a} {containers} with {b} {things} each. How many {things} does {name} have?
        There are {a} {containers}. Each of them holds {b} {things}. How many {things} are there in all?
        {name} buys {a} {things} for {b} dollars each. How many dollars does {name} pay?
        {name} reads {b} pages a day. How many pages does {name} read in {a} days?
        {a} friends bring {b} {things} each. How many {things} do they bring?
        {name} walks {b} km every day. How many km does {name} walk in {a} days?
        A car has room for {b} people. How many people can ride in {a} such cars?
        {name} earns {b} dollars an hour. How many dollars does {name} earn in {a} hours?
        {friend} has {b} {things}. {name} has {a} times as many. How many {things} does {name} have?
        A garden has {a} rows of {b} trees. How many trees does it have?
        {name} fills {a} {containers}, and {b} {things} go into each. How many {things} does {name} need?
        One ticket costs {b} dollars. How many dollars do {a} tickets cost?
        {name} bakes {a} trays of {b} muffins. How many muffins does {name} bake?
        {name} practises for {b} minutes a day. How many minutes is that in {a} days?
        Each of {a} teams has {b} players. How many players are there?
        A box weighs {b} kg. How many kg do {a} such boxes weigh?""",
    "division": """
        {name} puts {a} {things} into {b} {containers}, the same number into each. How many {things} are in each?
        {name} shares {a} {things} equally among {b} friends. How many {things} does each friend get?
        {name} has {a} {things} and packs {b} into each bag. How many bags does {name} fill?
        {b} tickets cost {a} dollars. How many dollars does one ticket cost?
        {name} reads {b} pages a day. How many days does {name} need for a book of {a} pages?
        {a} children form teams of {b}. How many teams are there?
        {name} pays {a} dollars for {b} {things}, which all cost the same. How many dollars is one of them?
        {a} {things} lie in {b} rows of the same length. How many {things} are in a row?
        {name} cuts a rope of {a} m into {b} equal pieces. How many m long is each piece?
        {name} walked {a} km in {b} days, as many each day. How many km did {name} walk a day?
        {name} has {a} {things}, {b} times as many as {friend}. How many {things} does {friend} have?
        {a} people ride in cars of {b} seats, and no seat stays empty. How many cars are there?
        {name} earned {a} dollars in {b} hours. How many dollars is that an hour?
        {b} boxes of the same weight weigh {a} kg together. How many kg does one box weigh?
        {name} saves {b} dollars a week. After how many weeks are {a} dollars saved?
        {a} {things} are dealt to {b} players, as many to each. How many {things} does each player hold?""",
}
TEMPLATES = {operation: [line.strip() for line in lines.strip().splitlines()] for operation, lines in STORIES.items()}


def load(split: str = "train", *, operations: str | Sequence[str] = tuple(SYMBOLS), numbers: Sequence[int] = (2, 30),
         factors: Sequence[int] = (2, 12), size: int | None = None, seed: int = 0, system_prompt: str | None = None,
         examples: int = 0) -> list[dict[str, Any]]:
    """Rows {prompt, question, answer, operation}, the operations in turn; no question twice.

    numbers, factors: smallest and largest number that is added or is the answer of a subtraction, and that is
    multiplied or is the answer of a division. size: that many rows, None: 8000 of train, 1000 of test. examples: so
    many solved problems of train, which are not asked, are shown before each question, for models that do not know the
    layout.

    >>> row = load("test", size=1)[0]
    >>> row["operation"], row["answer"]
    ('addition', '32')
    >>> row["question"]
    'Lara picked 15 grapes in the morning and 17 in the afternoon. How many grapes did Lara pick that day?'
    """
    check_split(split, SIZE, "word_problems")
    kinds = [operations] if isinstance(operations, str) else list(operations)
    for kind in kinds:
        if kind not in SYMBOLS:
            raise ConfigError(f"operations={operations!r}: no operation {kind!r}{did_you_mean(kind, SYMBOLS)} There "
                              f"are {', '.join(SYMBOLS)}.")
    check_examples(examples)
    facts = {"+": all_facts("numbers", numbers), "x": all_facts("factors", factors)}
    drawn = {name: problems(name, kinds, facts, seed) for name in SIZE}
    shown = [message for problem in itertools.islice(drawn["train"], examples)
             for message in solved(problem["question"], problem["reasoning"], problem["answer"])]
    count = SIZE[split] if size is None else size
    return [row(problem, system_prompt, shown) for problem in itertools.islice(drawn[split], count)]


def row(problem: dict[str, str], system_prompt: str | None, shown: Sequence[dict[str, str]]) -> dict[str, Any]:
    """A problem as a row; shown: messages of solved problems before the question."""
    columns = {name: problem[name] for name in ("question", "answer", "operation")}
    return {"prompt": with_examples(chat(problem["question"], system_prompt), shown), **columns}


def problems(split: str, operations: Sequence[str], facts: dict[str, list[tuple[int, int]]],
             seed: int) -> Iterator[dict[str, str]]:
    """Problems {question, reasoning, answer, operation} without end, or until they come again."""
    rng = random.Random(f"word_problems {split} {seed}")
    here = {symbol: [(x, y) for x, y in known
                     if held_out(f"{min(x, y)}{symbol}{max(x, y)}", HELD_OUT) == (split == "test")]
            for symbol, known in facts.items()}
    kinds = [distinct(functools.partial(told, operation, here, rng)) for operation in operations]
    for turn in zip(*kinds, strict=False):     # until one of them has no more
        yield from turn


def told(operation: str, facts: dict[str, list[tuple[int, int]]], rng: random.Random) -> dict[str, str]:
    """A fact in words."""
    symbol, inverse = ("+", "subtraction") if operation in ("addition", "subtraction") else ("x", "division")
    if not facts[symbol]:
        raise ConfigError(f"no {operation} of this range falls into the split; widen "
                          f"{'numbers' if symbol == '+' else 'factors'}")
    x, y = rng.choice(facts[symbol])
    z = x + y if symbol == "+" else x * y
    a, b, answer = (z, x, y) if operation == inverse else (x, y, z)
    name, friend = rng.sample(NAMES, 2)
    question = rng.choice(TEMPLATES[operation]).format(a=a, b=b, name=name, friend=friend, things=rng.choice(THINGS),
                                                       containers=rng.choice(CONTAINERS))
    return {"question": question, "reasoning": f"{a} {SYMBOLS[operation]} {b} = {answer}", "answer": str(answer),
            "operation": operation}


def all_facts(option: str, bounds: Sequence[int]) -> list[tuple[int, int]]:
    """Every pair (x, y) within bounds. Raises ConfigError naming the option."""
    check_bounds(option, bounds, 2, LARGEST)
    span = range(bounds[0], bounds[1] + 1)
    return [(x, y) for x in span for y in span]
