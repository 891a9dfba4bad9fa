"""Flowers: the 102 species of Oxford (Nilsback & Zisserman 2008), or a folder of one's own with a folder a species.

The official files come from their publisher into a cache (download.py): train and val have 10 pictures a species, test
6,149 in all. Labels are 0 to 101, the official numbers less one, and that no name is shifted against them is checked by
pictures that are known.
"""
import functools
import re
import shutil
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, DatasetError, FileFormatError
from . import class_folders
from .class_folders import Asking, Picture, few, is_class_folder, taken_in_turn
from .download import RemoteFile, cache_folder, fetch, locked
from .matlab import read_matrices
from .splits import check_split

SITE = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
ARCHIVE = RemoteFile(SITE + "102flowers.tgz", "52808999861908f626f3c1f4e79d11fa", 400 << 20)
LABELS = RemoteFile(SITE + "imagelabels.mat", "e0620be6f572b9609742df49c70aed4d", 1 << 20)
SPLITS = RemoteFile(SITE + "setid.mat", "a5357ecc9cb78c4bef273ce3793fc85c", 1 << 20)
NAMES_OF_SPLITS = {"train": "trnid", "val": "valid", "test": "tstid"}
IMAGE = re.compile(r"(?:\./)?jpg/(image_\d{5}\.jpg)")
MAX_IMAGE = 4 << 20                          # bytes
HELD_OUT = ("test", "val")

# by official number: 1 is the first
SPECIES = """
pink primrose, hard-leaved pocket orchid, canterbury bells, sweet pea, english marigold, tiger lily, moon orchid,
bird of paradise, monkshood, globe thistle, snapdragon, colt's foot, king protea, spear thistle, yellow iris,
globe-flower, purple coneflower, peruvian lily, balloon flower, giant white arum lily, fire lily, pincushion flower,
fritillary, red ginger, grape hyacinth, corn poppy, prince of wales feathers, stemless gentian, artichoke,
sweet william, carnation, garden phlox, love in the mist, mexican aster, alpine sea holly, ruby-lipped cattleya,
cape flower, great masterwort, siam tulip, lenten rose, barbeton daisy, daffodil, sword lily, poinsettia,
bolero deep blue, wallflower, marigold, buttercup, oxeye daisy, common dandelion, petunia, wild pansy, primula,
sunflower, pelargonium, bishop of llandaff, gaura, geranium, orange dahlia, pink-yellow dahlia, cautleya spicata,
japanese anemone, black-eyed susan, silverbush, californian poppy, osteospermum, spring crocus, bearded iris,
windflower, tree poppy, gazania, azalea, water lily, rose, thorn apple, morning glory, passion flower, lotus,
toad lily, anthurium, frangipani, clematis, hibiscus, columbine, desert-rose, tree mallow, magnolia, cyclamen,
watercress, canna lily, hippeastrum, bee balm, ball moss, foxglove, bougainvillea, camellia, mallow,
mexican petunia, bromelia, blanket flower, trumpet creeper, blackberry lily
"""
CLASSES = [" ".join(name.split()) for name in SPECIES.split(",")]
# what pictures show, by their numbers: a table of names that is shifted against the labels is found out by them
KNOWN = {1: "passion flower", 5: "passion flower", 1191: "rose", 3098: "snapdragon", 3994: "colt's foot",
         5230: "stemless gentian", 5413: "sunflower", 5549: "osteospermum", 5769: "king protea", 6052: "spear thistle",
         6670: "globe-flower", 6743: "pink primrose", 7090: "globe thistle", 7949: "trumpet creeper",
         8004: "blackberry lily"}

SYSTEM_PROMPT = "You are an expert at telling plants apart by photographs. You look closely before you answer."
QUESTION = """Which kind of flower does this photograph show? It is one of: {classes}.
Write what you see of it, such as its petals, color, shape, center, stem, pattern and size, and then its name, exactly \
as it is called above, in this layout and with nothing after it:
<reasoning>
what you see
</reasoning>
<answer>
the name
</answer>"""


def load(split: str = "train", *, path: str | None = None, held_out: str = "test", size: int | None = None,
         seed: int = 0, shots: int | None = None, eval_shots: int | None = None, resize: str = "square",
         side: int = 224, question: str = QUESTION, list_classes: bool = True,
         system_prompt: str | None = SYSTEM_PROMPT, names: Mapping[str, str] | None = None,
         validation: float | None = None) -> list[dict[str, Any]]:
    """Rows {prompt, image, label, answer, classes}.

    path: a folder with a folder a species (train/rose/*.jpg ..., or those of one split); its folders may also have the
    official numbers as names. None: the official files, downloaded into $GRPO_CACHE when they are first asked for (345
    MB), with the splits train, val and test; held_out: "val" makes that what test means, as it was in the first
    experiments. resize: "square" shows each picture as side x side pixels, "keep" in its own aspect. The other options
    are those of any class folders (class_folders.py): shots and eval_shots pictures a species, names, validation, ...

    Raises DatasetError naming file and species, also where a download fails.
    """
    asking: dict[str, Any] = {"question": question, "list_classes": list_classes, "resize": resize, "side": side,
              "system_prompt": SYSTEM_PROMPT if system_prompt is None else system_prompt}
    if path is not None:
        folder = Path(path).expanduser()
        if not is_class_folder(folder):
            raise DatasetError(f"{folder} has no folder a species with its pictures in it")
        return class_folders.read(folder, split, size=size, seed=seed, shots=shots, eval_shots=eval_shots,
                                  names={**numbered(folder), **(names or {})}, validation=validation, **asking)
    if held_out not in HELD_OUT:
        raise ConfigError(f"held_out={held_out!r} must be one of {', '.join(HELD_OUT)}")
    for option, value in (("names", names), ("validation", validation)):
        if value is not None:
            raise ConfigError(f"{option} is for a path; the official files have names and splits of their own")
    split = {"validation": "val", "test": held_out}.get(split, split)
    check_split(split, NAMES_OF_SPLITS, "flowers")
    try:
        by_class = official(cache_folder("flowers102"), split)
    except DatasetError as error:
        raise DatasetError(f"{error}. A folder of your own needs no download: path (--dataset_kwargs.path FOLDER)") \
            from error
    trains = split == "train"
    chosen = few(by_class, shots if trains else eval_shots, "shots" if trains else "eval_shots", seed if trains else 0,
                 by_class[0][0].path.parent)
    ask = Asking(CLASSES, **asking)
    return [ask.row(picture) for picture in taken_in_turn(chosen)[:size]]


@functools.wraps(load, assigned=())
def demonstrations(*split: str, **options: Any) -> list[dict[str, Any]]:
    """The same rows with a completion each, the species's name in answer tags, for supervised fine-tuning. Its options
    are those of load."""
    return [{**row, "completion": f"<answer>{row['answer']}</answer>"} for row in load(*split, **options)]


def numbered(path: Path) -> dict[str, str]:
    """{folder: species} of a folder whose class folders have official numbers as names; empty for any other."""
    folder = class_folders.split_folder(path, "train", or_any=True)
    found = [each.name for each in class_folders.folders_in(folder)]
    if not all(name.isascii() and name.isdigit() and 1 <= int(name) <= len(CLASSES) for name in found):
        return {}
    return {name: CLASSES[int(name) - 1] for name in found}


# -- the official files ---------------------------------------------------------------------------------------------


def official(folder: Path, split: str) -> list[list[Picture]]:
    """The pictures of a split, a list a species. Downloads and unpacks what is not in folder."""
    images = unpacked(folder)
    labels = labels_of(fetch(LABELS, folder))
    numbers = matrix(fetch(SPLITS, folder), NAMES_OF_SPLITS[split])
    by_class: list[list[Picture]] = [[] for _ in CLASSES]
    for number in numbers.tolist():
        if not 1 <= number <= len(labels):
            raise DatasetError(f"{folder / SPLITS.name}: split {split} has the picture {number}, and there are labels "
                               f"of {len(labels)}")
        label = int(labels[number - 1]) - 1
        by_class[label].append(Picture(images / f"image_{int(number):05d}.jpg", label))
    for name, some in zip(CLASSES, by_class, strict=True):
        if not some:
            raise DatasetError(f"{folder / SPLITS.name}: split {split} has no picture of {name!r}")
        if not (first := some[0].path).is_file():
            raise DatasetError(f"{first} is not there; delete {images} and load again")
    return by_class


def labels_of(path: Path) -> np.ndarray:
    """Species of all pictures in the order of their numbers, 1 to 102. DatasetError where known pictures have other
    labels than they show."""
    labels = matrix(path, "labels")
    if labels.min() < 1 or labels.max() > len(CLASSES):
        wrong = int(np.flatnonzero((labels < 1) | (labels > len(CLASSES)))[0])
        raise DatasetError(f"{path}: picture {wrong + 1} has the label {labels[wrong]}; they are 1 to {len(CLASSES)}")
    for number, name in KNOWN.items():
        if number > len(labels) or CLASSES[int(labels[number - 1]) - 1] != name:
            raise DatasetError(f"{path}: picture {number} shows {name}, and its label is " +
                               (f"{labels[number - 1]}, {CLASSES[int(labels[number - 1]) - 1]}"
                                if number <= len(labels) else "missing"))
    return labels


def matrix(path: Path, name: str) -> np.ndarray:
    """A row of numbers out of a .mat file. DatasetError where it is not there."""
    try:
        values = read_matrices(path).get(name)
    except FileFormatError as error:
        raise DatasetError(str(error)) from error
    if values is None or values.size == 0:
        raise DatasetError(f"{path}: has no numbers called {name!r}")
    if not np.array_equal(values, whole := values.astype(np.int64)):
        raise DatasetError(f"{path}: {name!r} has numbers that are not whole")
    return whole.ravel()


def unpacked(folder: Path) -> Path:
    """The folder of the pictures in folder, unpacked where it is not there; it is whole or not there at all."""
    images = folder / "jpg"
    if images.is_dir():
        return images
    archive = fetch(ARCHIVE, folder)
    with locked(folder / "jpg.lock"):
        if not images.is_dir():              # another process may have done it meanwhile
            part = folder / "jpg.part"
            shutil.rmtree(part, ignore_errors=True)
            try:
                part.mkdir()
                unpack(archive, part)
                part.rename(images)
            except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
                raise DatasetError(f"{archive} cannot be unpacked: {error}") from error
    return images


def unpack(archive: Path, folder: Path) -> None:
    """Writes the pictures of an archive, and nothing else that is in it, to folder."""
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            name = IMAGE.fullmatch(member.name)
            if name is None or not member.isfile():
                continue
            if member.size > MAX_IMAGE or (content := tar.extractfile(member)) is None:
                raise DatasetError(f"{archive}: {member.name} has {member.size} bytes")
            (folder / name[1]).write_bytes(content.read())
