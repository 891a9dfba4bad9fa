"""grpo attention: see where an answer looks."""
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..runs import latest_model
from .asking import add_entries, add_question, conversation, question, template_arguments
from .parser import Parser

ABOUT = """Shows what each word of an answer looks at in the image, and in the text before
it.

  grpo attention --model DIR --image clock.png "What time is it?"
  grpo attention --model DIR --image a.jpg --image b.jpg "Which is older?" \\
                 --animate a.gif
  grpo attention --model DIR --image a.jpg "What is this?" --answer "A door."

The picture has a frame for each word: where its attention goes, the image under
what it looks at (dark red: most), the text with every word shaded."""
MOST_FRAMES = 100


def attention_parser(argv: Sequence[str] = ()) -> Parser:
    """The flags of `grpo attention`. argv: the command line, whose --chat_template_kwargs.NAME are taken too."""
    parser = Parser(prog="grpo attention", description=ABOUT)
    add_question(parser, "a folder, a hub id, or a run folder, of a model that sees")
    parser.add_argument("--answer", metavar="TEXT", help="an answer to look at, instead of the model's own")
    parser.add_argument("--max_new_tokens", type=int, default=128, metavar="N", help="longest answer (128)")
    parser.add_argument("--temperature", type=float, default=0.0, metavar="T",
                        help="0 takes the likeliest token each time (0)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of an answer that is drawn (0)")
    parser.add_argument("--tokens", default="words", metavar="WHICH",
                        help="a frame for each of: words, all (tokens), or tokens by number, 3,4,8-11 (words)")
    parser.add_argument("--layer", default="", metavar="L",
                        help="a layer by number from 0, mean (of all), or last (two thirds of the depth)")
    parser.add_argument("--head", default="mean", metavar="H", help="a head by number from 0, or mean (mean)")
    parser.add_argument("--output", default="attention.png", metavar="FILE",
                        help="the picture of all frames (attention.png)")
    parser.add_argument("--animate", metavar="FILE", help="also the frames one after another, as .gif or .webp")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or ref (auto)")
    add_entries(parser, argv)
    return parser


def main(argv: list[str], prog: str = "grpo attention") -> None:
    """`grpo attention`: prints the answer and where its words look, and writes the pictures."""
    a = attention_parser(argv).parse(argv)
    text, template = question(a.prompt), template_arguments(a)
    if not a.image:
        raise ConfigError("there is no image to look at: give --image FILE")
    if Path(a.output).suffix.lower() != ".png":
        raise ConfigError(f"--output {a.output}: the picture is a .png file")
    from ..evaluation.attention import attend
    from ..evaluation.attention_picture import animation_bytes, check_animation, picture_bytes
    from ..model import load
    from ..runs.folder import replace_bytes

    if a.animate:
        check_animation(a.animate)
    model = load(latest_model(a.model), device=a.device)
    prompt, images = conversation(model, text, a.image, a.system)
    encoded = model.encode_prompt(prompt, images, **template)
    if a.answer is None:
        answer = model.generate([prompt], 1, a.max_new_tokens, images=[images], temperature=a.temperature,
                                seed=a.seed, chat_template_kwargs=template)[0].token_ids
    else:
        answer = model.tokenizer.encode(a.answer)
    found = attend(model, encoded, answer, a.tokens, a.layer, a.head)
    print(model.text_of(answer))
    if len(found.gazes) > MOST_FRAMES:
        print(f"{len(found.gazes)} frames are asked for, the first {MOST_FRAMES} are drawn: choose some with --tokens",
              file=sys.stderr)
        del found.gazes[MOST_FRAMES:]
    print("\n".join(["", *table(found)]))
    replace_bytes(Path(a.output), picture_bytes(found))
    frames = f"{len(found.gazes)} frame" + "s" * (len(found.gazes) != 1)
    print(f"\n{a.output}: {frames}, {found.what}")
    if a.animate:
        replace_bytes(Path(a.animate), animation_bytes(found, Path(a.animate).suffix.lower()))
        print(a.animate)


def table(attention: Any) -> list[str]:
    """Lines: where each word's attention goes, and the cell of an image that gets most of it."""
    from ..evaluation.attention_picture import percent, visible

    lines = [f"{'tokens':<7} {'word':<18} {'image':>6} {'prompt':>6} {'answer':>6} {'marks':>6}  most at row, column"]
    for gaze in attention.gazes:
        shares = attention.shares(gaze)
        numbers = "-".join(str(token) for token in dict.fromkeys((gaze.tokens[0], gaze.tokens[-1])))
        best = max(range(len(gaze.maps)), key=lambda k: gaze.maps[k].max())
        row, column = divmod(int(gaze.maps[best].argmax()), gaze.maps[best].shape[1])
        rows, columns = gaze.maps[best].shape
        which = f", image {best + 1}" if len(gaze.maps) > 1 else f" of {rows} x {columns}"
        word = visible(gaze.text)
        word = word if len(word) <= 18 else word[:17] + "\u2026"
        lines.append(f"{numbers:<7} {word:<18} " + " ".join(f"{percent(share):>6}" for share in shares.values()) +
                     f"  {row + 1}, {column + 1}{which}")
    return lines
