"""Pictures of your own as a data set: a folder a class, or a table with a column of pictures.

    python examples/own_images.py [steps] [folder with train/CLASS/*.jpg and test/CLASS/*.jpg]

Without a folder it draws one: circles, squares and triangles in any colour, so that only the shape tells them apart.
See the accuracy on pictures that are never trained on, beside what the features of the untrained tower tell by
themselves.
"""
import csv
import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw

import grpo
from grpo.evaluation import nearest_class_mean

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 150
SHAPES = ("circle", "square", "triangle")


def draw(shape, rng, side=56):
    """A picture of a shape somewhere, in some colour on another."""
    dark, light = (tuple(rng.randrange(low, low + 90) for _ in range(3)) for low in (0, 165))
    image = Image.new("RGB", (side, side), light)
    pen, r = ImageDraw.Draw(image), rng.randrange(16, 22)
    x, y = (rng.randrange(r, side - r) for _ in range(2))
    if shape == "circle":
        pen.ellipse((x - r, y - r, x + r, y + r), fill=dark)
    elif shape == "square":
        pen.rectangle((x - r, y - r, x + r, y + r), fill=dark)
    else:
        pen.polygon((x, y - r, x - r, y + r, x + r, y + r), fill=dark)
    return image


def save_pictures(folder):
    """folder/train/circle/0.png and so on; and the test's once more as a table, pictures.csv."""
    rng, lines = random.Random(0), []
    for split, count in (("train", 100), ("test", 40)):
        for shape in SHAPES:
            (folder / split / shape).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                draw(shape, rng).save(folder / split / shape / f"{i}.png")
                lines += [(f"{split}/{shape}/{i}.png", shape)] if split == "test" else []
    with open(folder / "pictures.csv", "w", newline="") as file:
        csv.writer(file).writerows([("image", "label"), *lines])
    return folder


folder = Path(sys.argv[2]) if len(sys.argv) > 2 else save_pictures(Path("own_images"))
asked = dict(question="?", list_classes=False)             # short, for a model that has all to learn
rows, held_out = grpo.datasets.load(folder, "train", **asked), grpo.datasets.load(folder, "test", **asked)
print(f"{len(rows)} pictures to train on, {len(held_out)} held out, of {', '.join(rows[0]['classes'])}")
if (folder / "pictures.csv").is_file():                    # the same pictures from a table
    table = grpo.datasets.load(folder / "pictures.csv", question="?", columns={"answer": "label"}, system_prompt="")
    assert {row["image"] for row in table} == {row["image"] for row in held_out}

names = rows[0]["classes"]
model = grpo.load(grpo.tiny("qwen2_5_vl", hidden_size=96, num_hidden_layers=2, num_attention_heads=2,
                            num_key_value_heads=1, intermediate_size=192, tokens=names,
                            vision_config=dict(depth=2, hidden_size=96, num_heads=3, intermediate_size=192,
                                               fullatt_block_indexes=[0, 1])))
print(nearest_class_mean(model, rows, held_out))


def named(completions, answer, classes, **columns):
    """1 for the picture's name, 0.1 for that of another class: a random model has to find the names first."""
    texts = [message[-1]["content"] for message in completions]
    return [1.0 if text == name else 0.1 * (text in some)
            for text, name, some in zip(texts, answer, classes, strict=True)]


config = grpo.GRPOConfig(run_name="own_images", max_steps=STEPS, prompts_per_step=12, num_generations=16,
                         max_completion_length=1, slots=192, learning_rate=1e-3, lr_scheduler_type="constant",
                         train_vision="all", max_pixels=56 * 56, eval_strategy="steps", eval_steps=max(1, STEPS // 3),
                         eval_on_start=True, temperature_eval=0, save_strategy="no", logging_steps=10)
grpo.GRPOTrainer(model, named, config, rows, held_out).train()
for row in held_out[:4]:
    prompt = [{"role": "user", "content": [{"type": "image", "image": row["image"]}, {"type": "text", "text": "?"}]}]
    print(row["image"], ascii(model.generate([prompt], max_new_tokens=1, temperature=0)[0].text))
