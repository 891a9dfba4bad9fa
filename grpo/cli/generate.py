"""grpo generate: ask a model."""
import sys
import time
from collections.abc import Sequence

from ..errors import ConfigError
from ..runs import latest_model
from .asking import add_entries, add_question, conversation, question, template_arguments
from .parser import Parser

ABOUT = """Asks a model and prints its answers, nothing else, on stdout.

  grpo generate --model runs/quickstart-1 "What is 47 + 38?"
  grpo generate --model SmolLM2-135M-Instruct.Q4_1.gguf "Why is the sky blue?" --temperature 0.7 -n 3
  grpo generate --model Qwen2.5-VL-3B-Instruct --image photo.jpg "What is this?"
  grpo generate --model DIR --raw "Once upon a time" < /dev/null"""


def generate_parser(argv: Sequence[str] = ()) -> Parser:
    """The flags of `grpo generate`. argv: the command line, whose --chat_template_kwargs.NAME are taken too."""
    parser = Parser(prog="grpo generate", description=ABOUT)
    add_question(parser, "a folder, a .gguf file, a hub id, or a run folder")
    for limit in ("min_pixels", "max_pixels"):
        parser.add_argument(f"--{limit}", type=int, metavar="N",
                            help=f"show images with at {'least' if limit == 'min_pixels' else 'most'} so many pixels")
    parser.add_argument("--raw", action="store_true", help="continue the prompt as text, without a chat template")
    parser.add_argument("-n", "--num_generations", type=int, default=1, metavar="N", help="answers to draw (1)")
    parser.add_argument("--max_new_tokens", type=int, default=256, metavar="N", help="longest answer (256)")
    parser.add_argument("--temperature", type=float, default=0.0, metavar="T",
                        help="0 takes the likeliest token each time (0); with -n above 1: 1")
    parser.add_argument("--top_k", type=int, default=0, metavar="K", help="draw from the K likeliest tokens (0: all)")
    parser.add_argument("--top_p", type=float, default=1.0, metavar="P",
                        help="draw from the smallest set with this probability (1)")
    parser.add_argument("--min_p", type=float, default=0.0, metavar="P",
                        help="least probability, as a share of the likeliest token's (0)")
    parser.add_argument("--repetition_penalty", type=float, default=1.0, metavar="X",
                        help="divides the logits of tokens already seen (1)")
    parser.add_argument("--stop", nargs="+", metavar="TEXT", help="texts that end an answer")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the same seed draws the same answers (0)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or ref (auto)")
    add_entries(parser, argv)
    return parser


def main(argv: list[str], prog: str = "grpo generate") -> None:
    """`grpo generate`: prints completions; what they cost goes to stderr."""
    a = generate_parser(argv).parse(argv)
    text, template = question(a.prompt), template_arguments(a)
    if a.raw and template:
        raise ConfigError("--raw continues plain text; chat_template_kwargs are for a chat")
    if a.raw and a.system:
        raise ConfigError("--raw continues plain text; a system message needs a chat")
    from ..model import load

    model = load(latest_model(a.model), device=a.device)
    if a.min_pixels is not None or a.max_pixels is not None:
        model.processor = model.seeing().processor.with_limits(a.min_pixels, a.max_pixels)
    temperature = a.temperature if a.temperature or a.num_generations == 1 else 1.0
    started = time.perf_counter()
    prompt, images = conversation(model, text, a.image, a.system, a.raw)
    outs = model.generate([prompt], a.num_generations, a.max_new_tokens, images=[images],
                          temperature=temperature, top_k=a.top_k, top_p=a.top_p, min_p=a.min_p,
                          repetition_penalty=a.repetition_penalty, stop=a.stop, seed=a.seed,
                          chat_template_kwargs=template)
    seconds = time.perf_counter() - started
    for number, out in enumerate(outs, 1):
        if len(outs) > 1:
            print(f"--- {number} of {len(outs)}")
        print(out.text)
    cut = sum(out.finish_reason == "length" for out in outs)
    tokens = sum(len(out.token_ids) for out in outs)
    note = f", {cut} cut off at --max_new_tokens {a.max_new_tokens}" if cut else ""
    print(f"[{tokens} tokens in {seconds:.1f} s, {tokens / seconds:.0f} tokens/s{note}]", file=sys.stderr)
