"""Pictures in a folder a class, photos/train/rose/1.jpg, as questions what each picture shows.

The classes are the folders of train, in the order of their names (or numbers); a class is called as its folder is, with
spaces for underscores. What is held out depends on the files alone, whatever seed and size are asked for.
"""
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError, DatasetError, did_you_mean, warn
from .layout import chat
from .pictures import SUFFIXES, picture_key, square
from .splits import check_share, check_split

# a split, and what its folder may be called
FOLDERS = {"train": ("train", "training"), "test": ("test", "validation", "valid", "val", "dev"),
           "validation": ("validation", "valid", "val", "dev"), "val": ("val", "valid", "validation", "dev")}
NO_PICTURES = ("thumbs.db", "desktop.ini")   # what systems leave in folders of pictures
QUESTION = "What is this?"
RESIZE = ("keep", "square")


@dataclass(frozen=True)
class Picture:
    """A file of a class, and its class's number."""

    path: Path
    label: int


@dataclass(frozen=True)
class Asking:
    """What is asked of every picture, and how it is shown."""

    names: Sequence[str]                     # of the classes, in the order of their numbers
    question: str = QUESTION
    list_classes: bool = True
    system_prompt: str | None = None
    resize: str = "keep"
    side: int = 224

    def __post_init__(self) -> None:
        if self.resize not in RESIZE:
            raise ConfigError(f"resize={self.resize!r} must be one of {', '.join(RESIZE)}")
        if isinstance(self.side, bool) or not isinstance(self.side, int) or not 1 <= self.side <= 4096:
            raise ConfigError(f"side={self.side!r} must be a number of pixels from 1 to 4096")
        if not isinstance(self.question, str) or not self.question.strip():
            raise ConfigError(f"question={self.question!r} must be a text")

    def row(self, picture: Picture) -> dict[str, Any]:
        """{prompt, image, label, answer, classes}"""
        path = str(picture.path)
        return {"prompt": chat(self.text(), self.system_prompt), "label": picture.label,
                "image": path if self.resize == "keep" else square(path, self.side),
                "answer": self.names[picture.label], "classes": list(self.names)}

    def text(self) -> str:
        """The question; the classes stand where it says {classes}, or else after it."""
        listed = ", ".join(self.names)
        if "{classes}" in self.question:
            return self.question.replace("{classes}", listed)
        return f"{self.question} It is one of: {listed}." if self.list_classes else self.question


def read(path: Path, split: str = "train", *, size: int | None = None, seed: int = 0, question: str = QUESTION,
         list_classes: bool = True, system_prompt: str | None = None, shots: int | None = None,
         eval_shots: int | None = None, names: Mapping[str, str] | None = None, resize: str = "keep", side: int = 224,
         validation: float | None = None) -> list[dict[str, Any]]:
    """Rows {prompt, image, label, answer, classes} of a folder with train/CLASS/*.jpg and test/CLASS/*.jpg, or with
    CLASS/*.jpg alone.

    question: what is asked of every picture; {classes} in it stands for the list of them, which follows it otherwise;
    list_classes False leaves that out. shots: so many pictures a class of train, drawn by seed; eval_shots: of the
    other splits, the same whatever the seed. names: {folder: class's name}. resize: "square" shows each as side x side
    pixels, its aspect lost; "keep" as it is, within the model's limits. validation: hold this share of each class of
    train out, one picture at least. Rows take a class after another, so that the first so many (size) are of all.

    DatasetError that names folder and file: no pictures, names that are one but for case, spaces, hyphens and
    underscores, a class of train that the split lacks or has besides.
    """
    found = split_folder(path, "train" if validation is not None else split)
    table = class_folders(split_folder(path, "train", or_any=True))
    classes = called(table, names or {}, path)
    asking = Asking(classes, question, list_classes, system_prompt, resize, side)
    by_class = [pictures(folder, label) for label, folder in enumerate(matched(class_folders(found), table, found))]
    if validation is not None:
        by_class = held_out(by_class, validation, split, path)
    trains = split == "train"
    chosen = few(by_class, shots if trains else eval_shots, "shots" if trains else "eval_shots", seed if trains else 0,
                 path)
    return [asking.row(picture) for picture in taken_in_turn(chosen)[:size]]


# -- folders --------------------------------------------------------------------------------------------------------


def is_class_folder(path: Path) -> bool:
    """Whether a folder holds folders of pictures: it has folders, and no file of rows for a split."""
    from .files import READERS

    if not path.is_dir():
        return False
    splits = {name for names in FOLDERS.values() for name in names}
    tables = any(each.suffix in READERS and each.stem.partition("-")[0] in splits for each in path.iterdir())
    return not tables and bool(folders_in(path))


def folders_in(folder: Path) -> list[Path]:
    """The folders in one, by name, without hidden ones."""
    return sorted(each for each in folder.iterdir() if each.is_dir() and each.name[0] not in "._")


def split_folder(path: Path, split: str, or_any: bool = False) -> Path:
    """Where the class folders of a split are: in path itself for train where no folder there is a split's. or_any: of
    another split, where there is no train."""
    splits = {name for names in FOLDERS.values() for name in names}
    there = {each.name.casefold(): each for each in folders_in(path) if each.name.casefold() in splits
             and folders_in(each)}
    for name in FOLDERS.get(split, (split,)):
        if name in there:
            return there[name]
    if not there and split == "train":
        return path
    if there and or_any:
        return min(there.values())
    has = f"folders for {', '.join(sorted(there))}" if there else "class folders of one split, train"
    raise DatasetError(f"{path} has no folder for the split {split!r}, such as {FOLDERS.get(split, (split,))[0]}/; it "
                       f"has {has}. Hold pictures out with the option validation: 0.1")


def class_folders(folder: Path) -> dict[str, Path]:
    """{the name as it is compared: folder} of each class. DatasetError for two that are one, and for less than two."""
    found: dict[str, Path] = {}
    there = folders_in(folder)
    if all(each.name.isascii() and each.name.isdigit() for each in there):
        there.sort(key=lambda each: int(each.name))
    for each in there:
        key = name_key(each.name)
        if key in found:
            raise DatasetError(f"{folder}: the folders {found[key].name!r} and {each.name!r} are one class by their "
                               "names; move their pictures into one, or rename one")
        found[key] = each
    if len(found) < 2:
        raise DatasetError(f"{folder} has {'no' if not found else 'one'} class folder; a folder a class, with its "
                           "pictures in it, is what it takes, and two of them at least")
    return found


def name_key(name: str) -> str:
    """A name without what does not tell classes apart.

    >>> name_key(" Lily_of-the  valley")
    'lily of the valley'
    """
    return " ".join(name.replace("_", " ").replace("-", " ").split()).casefold()


def matched(folders: Mapping[str, Path], table: Mapping[str, Path], where: Path) -> list[Path]:
    """The folders of a split in the order of train's classes; DatasetError where they are not the same classes."""
    for key, folder in folders.items():
        if key not in table:
            raise DatasetError(f"{folder}: {where.name} has this class and train has not"
                               f"{did_you_mean(folder.name, [each.name for each in table.values()])}")
    for key, folder in table.items():
        if key not in folders:
            raise DatasetError(f"{where} has no folder {folder.name!r}, a class of train ({folder})")
    return [folders[key] for key in table]


def called(table: Mapping[str, Path], names: Mapping[str, str], path: Path) -> list[str]:
    """The classes' names: those given for their folders, or the folders' own."""
    if not isinstance(names, Mapping):
        raise ConfigError(f"names={names!r:.80} must be a mapping of folders to classes' names")
    given = {name_key(str(folder)): (folder, name) for folder, name in names.items()}
    for key, (folder, name) in given.items():
        if key not in table:
            known = [each.name for each in table.values()]
            raise ConfigError(f"names: {path} has no class folder {folder!r}{did_you_mean(str(folder), known)}")
        if not isinstance(name, str) or not name_key(name):
            raise ConfigError(f"names: {folder}: {name!r:.60} is no class's name")
    found = [given[key][1].strip() if key in given else " ".join(folder.name.replace("_", " ").split())
             for key, folder in table.items()]
    keys = [name_key(name) for name in found]
    for label, key in enumerate(keys):
        if (other := keys.index(key)) < label:
            raise DatasetError(f"{path}: the class folders {list(table.values())[other].name!r} and "
                               f"{list(table.values())[label].name!r} are both called {found[label]!r}")
    return found


def pictures(folder: Path, label: int) -> list[Picture]:
    """The pictures of a class, deeper folders included. DatasetError where there are none; what is no picture is passed
    over with a warning."""
    found: list[Path] = []
    others: list[Path] = []
    for root, inner, files in os.walk(folder):
        inner[:] = sorted(name for name in inner if name[0] not in "._")
        for name in sorted(files):
            if name[0] in "._" or name.casefold() in NO_PICTURES:
                continue
            (found if name.casefold().endswith(SUFFIXES) else others).append(Path(root, name))
    if not found:
        raise DatasetError(f"{folder} has no pictures" + (f": {others[0].name} is none by its name" if others else "") +
                           f"; they are files that end in {', '.join(SUFFIXES)}")
    if others:
        warn(f"{folder}: {len(others)} files are no pictures by their names and passed over, the first: {others[0]}")
    return [Picture(path, label) for path in found]


# -- which of them --------------------------------------------------------------------------------------------------


def held_out(by_class: Iterable[Sequence[Picture]], share: float, split: str, path: Path) -> list[list[Picture]]:
    """Of each class the pictures of train, or those held out: the share whose files have the smallest hashes, one at
    least. Copies of a picture are on one side."""
    check_share(share)
    check_split(split, ("train", "validation", "test"), f"{path} with the option validation")
    chosen = []
    for some in by_class:
        keys = {picture: order_key("held out", picture_key(picture.path)) for picture in some}
        last = sorted(keys.values())[max(1, round(share * len(some))) - 1]
        chosen.append([picture for picture in some if (keys[picture] <= last) == (split != "train")])
        if not chosen[-1]:
            raise DatasetError(f"{some[0].path.parent} has {len(some)} pictures, of which validation={share} leaves "
                               "none to train on")
    return chosen


def few(by_class: Iterable[Sequence[Picture]], count: int | None, option: str, seed: int,
        path: Path) -> list[list[Picture]]:
    """So many pictures of each class, in an order that seed and files' names decide; None: all."""
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
        raise ConfigError(f"{option}={count!r} must be a number of pictures a class, at least 1")
    chosen = []
    for some in by_class:
        if count is not None and len(some) < count:
            raise DatasetError(f"{some[0].path.parent} has {len(some)} pictures, less than {option}={count}")
        order = {picture: order_key(str(seed), name_in(picture.path, path)) for picture in some}
        chosen.append(sorted(some, key=order.__getitem__)[:count])
    return chosen


def name_in(path: Path, folder: Path) -> str:
    """A file's name within a folder, the same wherever that lies."""
    return os.path.relpath(path, folder).replace(os.sep, "/")


def order_key(*what: str) -> bytes:
    """A hash to order things by."""
    return hashlib.blake2b("\0".join(what).encode(errors="surrogateescape"), digest_size=16).digest()


def taken_in_turn(by_class: Sequence[Sequence[Picture]]) -> list[Picture]:
    """One picture of each class after another, until all are taken."""
    longest = max(map(len, by_class))
    return [some[i] for i in range(longest) for some in by_class if i < len(some)]
