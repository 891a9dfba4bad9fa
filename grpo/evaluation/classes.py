"""Where golds are few distinct answers, they are classes: accuracy of each, and what is taken for what."""
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ..answers import quantity

OTHER, NOTHING = "other answer", "no answer"             # what is given where it is none of the classes
MOST_CLASSES = 256
LEAST = 4                                    # questions a class, in the mean

Record = dict[str, Any]


def class_of(gold: Any) -> str:
    """A gold as the name of a class: its text (after ####) without line breaks.

    >>> class_of("so it is a\\n#### passion  flower")
    'passion flower'
    """
    return " ".join(str(gold).rsplit("####", 1)[-1].split())


def key_of(text: str) -> str:
    """The same for texts that name the same class: a number with its unit, or the text but for case and spaces."""
    amount = quantity(text)
    return f"{amount[0]} {amount[1]}".strip() if amount is not None else " ".join(text.split()).casefold()


def classes_of(groups: Sequence[Sequence[Record]]) -> dict[str, str]:
    """The names of classes by key, of questions that all have a gold, in the order of numbers or of the alphabet. Empty
    where golds are no classes: a single one, more than MOST_CLASSES, or hardly any of them twice."""
    found: dict[str, str] = {}
    for group in groups:
        found.setdefault(key_of(name := class_of(group[0]["gold"])), name)
        if len(found) > MOST_CLASSES:
            return {}
    if len(found) < 2 or len(groups) < LEAST * len(found):
        return {}
    return dict(sorted(found.items(), key=order))


def order(item: tuple[str, str]) -> tuple[bool, Any]:
    """Numbers first, by size; then texts."""
    amount = quantity(item[0])
    return (True, item[0]) if amount is None else (False, (amount[0], amount[1]))


def given_class(record: Record, classes: Mapping[str, str]) -> str:
    """The class that a completion names: its gold's where it is right (read leniently), the one that its answer is,
    else OTHER, or NOTHING where it has no answer: it says nothing, or was to say it in tags and has none."""
    gold = key_of(class_of(record["gold"]))
    if record["lenient"]:
        return classes[gold]
    texts = [text for text in (record["tagged_answer"], record["answer"]) if text]
    for text in texts:
        amount = quantity(text)
        for key in (key_of(text), *([str(amount[0])] if amount is not None else [])):
            if key in classes and key != gold:
                return classes[key]
    in_tags = any("<answer>" in error for error in record["tag_errors"] or ())
    return NOTHING if not texts or (in_tags and not record["tagged_answer"]) else OTHER


def confusion(groups: Sequence[Sequence[Record]], classes: Mapping[str, str]) -> list[dict[str, Any]]:
    """[{gold, given, count}]: completions by the class of their gold and the one that they name, most frequent first;
    pairs that do not occur are left out."""
    pairs = Counter((classes[key_of(class_of(group[0]["gold"]))], given_class(r, classes))
                    for group in groups for r in group)
    return [{"gold": gold, "given": given, "count": count} for (gold, given), count in pairs.most_common()]
