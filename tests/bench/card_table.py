"""What the benchmarks of a card share: their command line, the time that they have, their table."""
from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from timing import measure_ceilings, run_child, try_child
from work import SHAPES, write_model

from grpo.planning.cards import Ceilings

Row = tuple[str, str]                        # its text; what of ours is missing, and why


@dataclass(frozen=True)
class Call:
    """One call of a script: its options, what the card reached in it, and when it must be done (time.monotonic)."""

    script: str
    options: argparse.Namespace
    at: Ceilings
    end: float

    def measure(self, *what: str, needs: str = "") -> dict:
        """What the script's measure(*what, device) returns in a process of its own, or {"why": there is no number}.
        needs: a package without which there is none."""
        left = self.end - time.monotonic()
        if left <= 0:
            return {"why": "no time was left"}
        if needs and importlib.util.find_spec(needs.lower()) is None:
            return {"why": f"no {needs}"}
        return try_child(self.script, ["--child", "measure", *what, self.options.device], left)

    @contextmanager
    def weights(self, shape: str) -> Iterator[str]:
        """A folder with a model of that shape."""
        with tempfile.TemporaryDirectory() as folder:
            run_child(self.script, ["--child", "write", folder, shape, "", self.options.device])
            yield folder


def main(script: str, about: str, parts: Iterable[str], shapes: str, measure: Callable[..., dict], header: str,
         rows: Callable[[Call], Iterable[Row]], sides: Iterable[str] = ()) -> None:
    """Ceilings, then a table, a row at a time; or, in a child, one measurement. The exit code is 1 if one of ours is
    missing."""
    options = command_line(about, parts, shapes, sides)
    if options.child:
        name, *rest = options.child
        print(json.dumps({"ceilings": measure_ceilings, "write": write_model, "measure": measure}[name](*rest)))
        return
    end, failed = time.monotonic() + options.seconds, []
    measured = run_child(script, ["--child", "ceilings", options.device])
    print(f"python {' '.join(sys.argv)}\n\n"
          f"Ceilings: copy {measured['gbytes']:.0f} GB/s, bf16 product {measured['tflops']:.1f} TFLOP/s.\n")
    print(f"{header}\n|" + "---|" * (header.count("|") - 1), flush=True)
    at = Ceilings(measured["tflops"] * 1e12, measured["gbytes"] * 1e9, "measured in this call")
    for text, missing in rows(Call(script, options, at, end)):
        print(text, flush=True)
        failed += [missing] if missing else []
    raise SystemExit("\n".join(failed) or 0)


def command_line(about: str, parts: Iterable[str], shapes: str, sides: Iterable[str]) -> argparse.Namespace:
    """The options of a script, lists as lists."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    lists = {"parts": (",".join(parts), [*parts]), "shapes": (shapes, [*SHAPES]), "sides": (",".join(sides), [*sides])}
    lists = {name: (default, known) for name, (default, known) in lists.items() if known}
    for name, (default, known) in lists.items():
        parser.add_argument(f"--{name}", default=default, help=f"of {','.join(known)}")
    parser.add_argument("--seconds", type=float, default=480, help="all must be done after so many")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    for name, (_, known) in lists.items():
        setattr(options, name, getattr(options, name).split(","))
        if unknown := set(getattr(options, name)) - set(known):
            parser.error(f"--{name}: there is no {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return options
