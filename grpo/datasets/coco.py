"""COCO's instance annotations, for the data sets that count in photographs: which classes an image shows, and where."""
import json
import os
import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import DatasetError

PARTS = {"train": "train2017", "test": "val2017"}
QUESTIONS = 10                               # of an image, on two counts
Shown = dict[str, list[list[float]]]         # boxes by class


def photographs(folder: str, split: str) -> list[tuple[dict[str, Any], Shown]]:
    """(columns {image, image_size}, boxes by class) of every image with instances, in the order of the file. A class
    that an image shows as a crowd (iscrowd), which nobody can count, is left out there."""
    root = Path(folder).expanduser()
    part = PARTS[split]
    path = root / "annotations" / f"instances_{part}.json"
    if not path.is_file():
        raise DatasetError(f"{path} is not there; coco is a folder that holds COCO's annotations/instances_{part}.json "
                           f"and its images in {part}/")
    try:
        content = json.loads(path.read_bytes())
        classes = {each["id"]: str(each["name"]) for each in content["categories"]}
        found: dict[Any, Shown] = defaultdict(dict)
        crowds = set()
        for each in content["annotations"]:
            name = classes[each["category_id"]]
            if each.get("iscrowd"):
                crowds.add((each["image_id"], name))
            left, top, width, height = map(float, each["bbox"])
            found[each["image_id"]].setdefault(name, []).append([left, top, left + width, top + height])
        images = [(each["id"], str(each["file_name"]), [int(each["width"]), int(each["height"])])
                  for each in content["images"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DatasetError(f"{path}: not the instances of COCO: {type(error).__name__} {error}") from error
    rows = []
    for number, file, size in images:
        shown = {name: boxes for name, boxes in found[number].items() if (number, name) not in crowds}
        if shown:
            rows.append(({"image": os.path.join(root, part, file), "image_size": size}, shown))
    if not rows:
        raise DatasetError(f"{path}: no image has instances that can be counted")
    return rows


def counts(folder: str, split: str, largest: int, balanced: bool, seed: int) -> Iterator[dict[str, Any]]:
    """Rows on one class of each image that is there at most largest times, in a seeded order. balanced: one that is
    there more than once where there is one, and no more images with one instance than with two."""
    rng = random.Random("coco counts test" if split == "test" else f"coco counts {split} {seed}")
    rows = []
    for columns, shown in photographs(folder, split):
        fit = sorted(name for name, boxes in shown.items() if len(boxes) <= largest)
        several = [name for name in fit if len(shown[name]) > 1] if balanced else []
        if fit:
            label = rng.choice(several or fit)
            rows.append({**columns, "label": label, "target": len(shown[label]), "boxes": shown[label],
                         "labels": [label] * len(shown[label])})
    rng.shuffle(rows)
    twos = sum(row["target"] == 2 for row in rows)
    ones = 0
    for row in rows:
        ones += row["target"] == 1
        if not balanced or row["target"] != 1 or ones <= twos:
            yield row


def pairs(folder: str, split: str, operations: list[str], seed: int) -> Iterator[dict[str, Any]]:
    """Rows on two classes of an image and an operation, ten of each image that shows two classes, or all there are; in
    a seeded order of images."""
    rng = random.Random("coco pairs test" if split == "test" else f"coco pairs {split} {seed}")
    rows = [(columns, shown) for columns, shown in photographs(folder, split) if len(shown) > 1]
    rng.shuffle(rows)
    for columns, shown in rows:
        every = [(a, b, operation) for a in sorted(shown) for b in sorted(shown) if a != b for operation in operations]
        for a, b, operation in rng.sample(every, min(QUESTIONS, len(every))):
            yield {**columns, "operation": operation, "classes": [a, b], "counts": [len(shown[a]), len(shown[b])],
                   "boxes": [*shown[a], *shown[b]], "labels": [a] * len(shown[a]) + [b] * len(shown[b])}
