"""grpo plot: pictures of runs."""
from pathlib import Path

from .parser import Parser

ABOUT = """Draws the pictures of a run from its metrics.jsonl, whether the run is finished or not; of several runs also one
picture that compares them.

  grpo plot runs/quickstart-1
  grpo plot runs/quickstart-1 runs/quickstart-2 --compare seeds.png"""


def main(argv: list[str], prog: str = "grpo plot") -> None:
    parser = Parser(prog=prog, description=ABOUT)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run folder")
    parser.add_argument("--compare", metavar="FILE", help="where the comparing picture goes (comparison.png)")
    arguments = parser.parse(argv)
    from ..plots import plot_run, plot_runs

    written = [path for run in arguments.runs for path in plot_run(run)]
    if len(arguments.runs) > 1 or arguments.compare:
        out = Path(arguments.compare or "comparison.png")
        out.parent.mkdir(parents=True, exist_ok=True)
        written.append(plot_runs(arguments.runs, out))
    print("\n".join(map(str, written)))
