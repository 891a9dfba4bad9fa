"""grpo recipes: what there is to train."""
from ..recipes import Recipe
from .options import listing
from .parser import Parser

ABOUT = """Lists the recipes of this package, or prints one as the YAML file that grpo train takes: to read it, or to
start your own.

  grpo recipes
  grpo recipes dapo > mine.yaml"""


def main(argv: list[str], prog: str = "grpo recipes") -> None:
    """`grpo recipes`: prints the list of recipes, or one recipe as YAML."""
    parser = Parser(prog=prog, description=ABOUT)
    parser.add_argument("recipe", nargs="?", metavar="RECIPE",
                        help="a name or a YAML file: print it whole, with what its base says")
    arguments = parser.parse(argv)
    print(Recipe.read(arguments.recipe).to_yaml() if arguments.recipe else "\n".join(listing()) + "\n", end="")
