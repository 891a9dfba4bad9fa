"""grpo plot: pictures of runs."""
from pathlib import Path

from .parser import Parser

ABOUT = """Draws the pictures of a run from its metrics.jsonl, whether the run is finished or not; several runs are laid
over each other, one colour a run.

  grpo plot runs/quickstart-1                                    runs/quickstart-1/plots/*.png
  grpo plot runs/quickstart-1 --format png svg pdf               also *.svg, and all of them in plots.pdf
  grpo plot runs/quickstart-1 runs/quickstart-2 --out seeds      seeds/*.png"""


def main(argv: list[str], prog: str = "grpo plot") -> None:
    """`grpo plot`: draws pictures of runs and prints the files."""
    from ..runs.plots import FORMATS, PICTURES, figures, write

    parser = Parser(prog=prog, description=ABOUT)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run folder")
    parser.add_argument("--format", nargs="+", default=["png"], metavar="FORMAT",
                        help=f"one or several of {', '.join(FORMATS)} (png)")
    parser.add_argument("--pictures", nargs="+", default=list(PICTURES), metavar="NAME",
                        help=f"which of {', '.join(PICTURES)} (all)")
    parser.add_argument("--out", metavar="FOLDER", help="where they go (a run's plots/; comparison/ for several runs)")
    arguments = parser.parse(argv)
    default = Path(arguments.runs[0]) / "plots" if len(arguments.runs) == 1 else Path("comparison")
    formats = [name for word in arguments.format for name in word.split(",")]
    drawn = figures(arguments.runs, arguments.pictures)
    print("\n".join(map(str, write(drawn, Path(arguments.out) if arguments.out else default, formats)))
          or "Nothing was logged that could be drawn.")
