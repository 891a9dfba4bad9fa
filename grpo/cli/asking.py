"""What a command asks a model: words and images, from its flags or from standard input."""
import sys
from typing import Any

from ..datasets import chat
from ..errors import ConfigError
from ..vision.messages import normal
from .parser import Parser


def add_question(parser: Parser, model: str) -> None:
    """The flags of a question. model: what --model may be."""
    parser.add_argument("prompt", nargs="?", help="what to ask; read from stdin when it is not given")
    parser.add_argument("--model", "--model_name", "--model_name_or_path", required=True, help=model)
    parser.add_argument("--image", action="append", metavar="FILE", help="an image to show it, before the prompt or "
                        "where that has <image>; again for more")
    parser.add_argument("--system", metavar="TEXT", help="system message; 'xml' asks for <reasoning> and <answer>")


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
