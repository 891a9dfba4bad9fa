"""What a command asks a model: words and images, from its flags or from standard input."""
import argparse
import sys
from collections.abc import Sequence
from typing import Any

from ..datasets import chat
from ..errors import ConfigError
from ..vision.messages import normal
from .parser import Parser, from_yaml, given_names

TEMPLATE = "chat_template_kwargs"


def add_question(parser: Parser, model: str) -> None:
    """The flags of a question. model: what --model may be."""
    parser.add_argument("prompt", nargs="?", help="what to ask; read from stdin when it is not given")
    parser.add_argument("--model", "--model_name", "--model_name_or_path", required=True, help=model)
    parser.add_argument("--image", action="append", metavar="FILE", help="an image to show it, before the prompt or "
                        "where that has <image>; again for more")
    add_template(parser)
    parser.add_argument("--system", metavar="TEXT", help="system message; 'xml' asks for <reasoning> and <answer>")


def add_template(parser: Parser) -> None:
    """--chat_template_kwargs, whose entries may be said one by one: --chat_template_kwargs.enable_thinking false."""
    parser.add_argument(f"--{TEMPLATE}", type=from_yaml, default={}, metavar="ARGS",
                        help="arguments of the chat template, '{enable_thinking: false}'; also "
                             f"--{TEMPLATE}.enable_thinking false")


def add_entries(parser: Parser, argv: Sequence[str], outer: Sequence[str] = (TEMPLATE,)) -> None:
    """Lets --OUTER.NAME be flags, where they are on a command line."""
    for name in sorted(given_names(argv)):
        if "." in name and name.partition(".")[0] in outer:
            parser.add_argument(f"--{name}", dest=name, type=from_yaml, default=argparse.SUPPRESS,
                                help=argparse.SUPPRESS)


def template_arguments(arguments: argparse.Namespace) -> dict[str, Any]:
    """What a command line says to the chat template. ConfigError for what is no mapping."""
    whole, begin = getattr(arguments, TEMPLATE, None) or {}, f"{TEMPLATE}."
    if not isinstance(whole, dict):
        raise ConfigError(f"--{TEMPLATE} {whole!r:.80} must be a mapping, '{{enable_thinking: false}}'")
    return {**whole, **{name.removeprefix(begin): value for name, value in vars(arguments).items()
                        if name.startswith(begin)}}


def question(prompt: str | None) -> str:
    """The prompt, or what stands on stdin. ConfigError where there is neither."""
    text = prompt if prompt is not None else sys.stdin.read().rstrip("\n")
    if not text:
        raise ConfigError("there is no prompt: give one, or write it to stdin")
    return text


def conversation(model: Any, text: str, images: list[str] | None, system: str | None,
                 raw: bool = False) -> tuple[Any, list[Any]]:
    """(prompt, the images that it does not hold itself) as model.generate takes them. raw: text to be continued, which
    is said where it is so because the model has no chat template. ImageError where there are images and no tower."""
    if not raw and not (model.tokenizer.chat_template or model.tokenizer.chat_templates):
        print("this model has no chat template: the prompt is continued as text", file=sys.stderr)
        raw = True
    prompt: Any = text if raw else chat(text, system)
    if not images:
        return prompt, []
    model.seeing()
    prompt, held = normal(prompt, images, "the prompt")
    return prompt, held if raw else []
