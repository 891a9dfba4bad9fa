"""grpo plan: the memory table of a run."""
from ..plan import plan, table
from .options import help_text, recipe_of, recipe_parser

ABOUT = """Says how much memory a run will take, from the model's config and the options alone; nothing is loaded.
Takes what grpo train takes.

  grpo plan
  grpo plan --model Qwen/Qwen2.5-0.5B-Instruct --num_generations 16 --max_completion_length 1024"""


def main(argv: list[str], prog: str = "grpo plan") -> None:
    parser = recipe_parser(prog, ABOUT, argv)
    arguments = parser.parse(argv)
    if {"h", "help", "help_all"} & vars(arguments).keys():
        print(help_text(parser, hasattr(arguments, "help_all")))
        return
    print(table(plan(recipe_of(arguments))))
