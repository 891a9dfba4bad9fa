"""Messages in a cipher whose table is an image: r1_vlm's second task, in its three forms.

    decoding:abc        messages of the letters A to C; the table has three lines
    decoding:words      English words, and a table of all letters in a grid
    decoding:sequences  one, two and three words in turn, in small letters; the model also writes the letters one by one

Each entry X→Y of a table says that X in the message stands for Y; the entries are in a shuffled order. Images are drawn
when they are looked at. The control is `image: false`: the same table as text in the prompt.
"""
import itertools
import random
import string
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from ..errors import ConfigError, did_you_mean
from ..vision import Drawn
from . import decoder
from .drawing import ARROW
from .procedural import check_bounds, distinct, held_out
from .shapes import check_canvas
from .splits import check_split
from .thinking import asked, check_instruction, check_share, layout, said, usual_system
from .words import words_of

KINDS = ("abc", "words", "sequences")
LETTERS = {"abc": "ABC", "words": string.ascii_uppercase, "sequences": string.ascii_lowercase}
SIZE = {"abc": {"train": 10000, "test": 1000}, "words": {"train": 9000, "test": 1000},
        "sequences": {"train": 27000, "test": 3000}}                   # rows when no size is given, or fewer of abc
CANVAS = {"abc": 300, "words": 300, "sequences": 400}
SMALLEST = {"abc": 28, "words": 100, "sequences": 100}                 # side of an image, in pixels
LARGEST = 4096
LENGTHS, LONGEST = (1, 5), 20                # letters of a message of abc
HELD_OUT_MESSAGES, HELD_OUT_CIPHERS = 5, 10  # of abc a message with its cipher in so many; else a cipher in so many
SEQUENCES = ("word", "word_2", "word_3")     # kinds of sequences, in turn
SPACE = "_"                                  # what a space is written as

TABLE = ("{shown} is a decoder. An entry X" + ARROW + "Y means that the letter X of a coded message stands for the "
         "letter Y. ")
IMAGE, PLAIN = "The table in this image", "The table below"
QUESTIONS = {
    "abc": TABLE + 'Decode the message "{coded}". ' + layout("the decoded message, without quotes or spaces", "CAB"),
    "words": TABLE + 'Decode the message "{coded}", which should be an English word. '
             + layout("the decoded word, without quotes or spaces", "CAT"),
    "sequences": TABLE + "The character _ stands for a space. Inside the <think> </think> tags write the decoded "
                 "letters in a single <chars> </chars> section, with a space after each and _ for the spaces between "
                 "words, for example <chars>c a t _ d o g</chars>, and check every one of them against its entry. "
                 + layout("the decoded message", "cat dog") + ' The coded message is "{coded}".',
}
SHORT = "Decode {coded}"


def load(split: str = "train", *, task: str, lengths: Sequence[int] = LENGTHS, words: str | Sequence[str] | None = None,
         image: bool = True, canvas: int | None = None, size: int | None = None, seed: int = 0,
         system_prompt: str | None = None, instruction: str = "full", prefill: bool | None = None,
         demonstrations: bool = False, mistakes: float = 0.0, copied: float = 0.0) -> list[dict[str, Any]]:
    """Rows {prompt, image, task, coded_message, decoded_message, mapping, answer}.

    task: "abc", "words" or "sequences". lengths: of abc, the fewest and the most letters of a message. words: a file
    with a word a line or a column word, a hub id likewise, or a list; None: about a thousand common ones. image: False
    for the table as text. canvas: pixels of the image's side; None: 300, of sequences 400. instruction: "short" asks
    in two words and without spaces between letters, for tiny models, whose tokens are bytes. prefill: the answer is
    begun (see thinking.asked); None: with the full instruction. demonstrations: also a column completion, for
    supervised fine-tuning, in which a letter is misread at the rate of mistakes, and a whole message is copied as it
    stands, the table forgotten, at the rate of copied.

    What is in test is never in train, whatever seed and size: words and ciphers, and of abc, which has six ciphers,
    pairs of a message and a cipher.

    >>> row = load("test", task="words", size=1)[0]
    >>> row["coded_message"], row["answer"], row["image"].pixels().shape
    ('PTKIG', 'POINT', (300, 300))
    """
    side = CANVAS.get(task, 0) if canvas is None else canvas
    check_options(task, lengths, words, side, instruction)
    check_share("mistakes", mistakes)
    check_share("copied", copied)
    check_split(split, SIZE[task], f"decoding:{task}")
    prefill = instruction == "full" if prefill is None else prefill
    rng, noise = random.Random(f"{task} {split} {seed}"), random.Random(f"mistakes {split} {seed}")
    draw = (partial(draw_abc, split, lengths, rng) if task == "abc" else
            partial(draw_words, task, split, words_of(words, split), itertools.count(), rng))
    rows: list[dict[str, Any]] = []
    wanted = SIZE[task][split] if size is None else size
    for problem in distinct(draw):
        del problem["question"]
        pairs, message = problem.pop("pairs"), problem["decoded_message"]
        question = ask(task, problem["coded_message"], None if image else pairs, instruction)
        shown = Drawn(decoder.lines if task == "abc" else decoder.grid, (side, pairs), side, side) if image else None
        row = {**asked(question, shown, usual_system(system_prompt, instruction), prefill), **problem,
               "answer": message}
        if demonstrations:
            coded = problem["coded_message"]
            read = misread(coded.replace(SPACE, " ") if noise.random() < copied else message, LETTERS[task], mistakes,
                           noise)
            row["completion"] = said(thought(task, coded, read, pairs, instruction), read, prefill)
        rows.append(row)
        if len(rows) == wanted:
            break
    return rows


def check_options(task: str, lengths: Sequence[int], words: Any, canvas: int, instruction: str) -> None:
    """ConfigError for an option that cannot be."""
    if task not in KINDS:
        raise ConfigError(f"task={task!r} must be {', '.join(KINDS)}{did_you_mean(task, KINDS)}")
    check_bounds("lengths", lengths, 1, LONGEST)
    if task == "abc" and words is not None:
        raise ConfigError("words is for decoding:words and decoding:sequences; messages of decoding:abc are none")
    if task != "abc" and tuple(lengths) != LENGTHS:
        raise ConfigError(f"lengths is for decoding:abc; those of decoding:{task} are its words'")
    check_canvas(canvas, SMALLEST[task], LARGEST)
    check_instruction(instruction)


def draw_abc(split: str, lengths: Sequence[int], rng: random.Random) -> dict[str, Any] | None:
    """A problem of the three letters; None for one of the other split."""
    message = "".join(rng.choice(LETTERS["abc"]) for _ in range(rng.randint(*lengths)))
    cipher = shuffled(LETTERS["abc"], rng)
    if held_out(f"{message} {cipher}", HELD_OUT_MESSAGES) != (split == "test"):
        return None
    return problem("abc", "abc", message, cipher, rng)


def draw_words(task: str, split: str, words: Sequence[str], turn: Iterator[int],
               rng: random.Random) -> dict[str, Any]:
    """A problem of words of this split, with a cipher of this split."""
    count = next(turn) % len(SEQUENCES) + 1 if task == "sequences" else 1
    message = " ".join(rng.choice(words) for _ in range(count))
    while True:
        cipher = shuffled(LETTERS[task], rng)
        if held_out(f"cipher {cipher.lower()}", HELD_OUT_CIPHERS) == (split == "test"):
            break
    return problem(task, SEQUENCES[count - 1], message.upper() if task == "words" else message, cipher, rng)


def problem(task: str, kind: str, message: str, cipher: str, rng: random.Random) -> dict[str, Any]:
    """Columns of a problem, with the pairs of its table, coded letter first, in a random order. cipher: what each
    letter of the alphabet is written as."""
    mapping = dict(zip(cipher, LETTERS[task], strict=True))
    written = {plain: coded for coded, plain in mapping.items()}
    coded = "".join(written.get(letter, SPACE) for letter in message)
    pairs = "".join(letter + mapping[letter] for letter in shuffled(LETTERS[task], rng))
    return {"question": f"{coded} {pairs}", "pairs": pairs, "task": kind, "coded_message": coded,
            "decoded_message": message, "mapping": mapping}


def shuffled(letters: str, rng: random.Random) -> str:
    """The letters in a random order."""
    found = list(letters)
    rng.shuffle(found)
    return "".join(found)


def ask(task: str, coded: str, pairs: str | None, instruction: str) -> str:
    """The question. pairs: of a table that is shown as text."""
    table = "" if pairs is None else "".join(f"{entry}\n" for entry in decoder.entries(pairs))
    if instruction == "short":
        return table + SHORT.format(coded=coded)
    question = QUESTIONS[task].format(shown=IMAGE if pairs is None else PLAIN, coded=spaced(coded))
    return question if pairs is None else f"{question}\n\n{table}".rstrip()


def spaced(message: str) -> str:
    """Letters with spaces between, and _ for a space: a token each.

    >>> spaced("cat dog")
    'c a t _ d o g'
    """
    return " ".join(message.replace(" ", SPACE))


def misread(message: str, letters: str, mistakes: float, rng: random.Random) -> str:
    """A message with each letter taken for another at the rate of mistakes."""
    return "".join(rng.choice(letters.replace(letter, "")) if letter != " " and rng.random() < mistakes else letter
                   for letter in message)


def thought(task: str, coded: str, read: str, pairs: str, instruction: str) -> str:
    """What a demonstration thinks before its answer. After a short instruction that is the table and then each letter
    with what it is read as, a small step at a time for a tiny model to learn; of words, whose table is long, only the
    letters."""
    if task == "sequences":
        return f"<chars>{spaced(read)}</chars>"
    if instruction != "short":
        return spaced(read)
    looked_up = " ".join(decoder.entries("".join(map("".join, zip(coded, read, strict=True)))))
    return looked_up if task == "words" else f"{' '.join(decoder.entries(pairs))}\n{looked_up}"
