"""grpo plot: draw a run's plots from its metrics."""
from .parser import Parser

ABOUT = """Draws the plots of runs from their metrics.jsonl, also of a run that is not finished.

  grpo plot runs/quickstart-1
  grpo plot runs/* """


def main(argv: list[str], prog: str = "grpo plot") -> None:
    parser = Parser(prog=prog, description=ABOUT)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders")
    parser.add_argument("--output_dir", metavar="DIR", help="write the files here instead of the run's plots/ (one run only)")
    arguments = parser.parse(argv)
    if arguments.output_dir and len(arguments.runs) > 1:
        parser.error("--output_dir takes one run; their files have the same names")
    from ..plots import draw

    for run in arguments.runs:
        written = draw(run, arguments.output_dir)
        print("\n".join(map(str, written)) if written else f"{run}: nothing was logged yet")
