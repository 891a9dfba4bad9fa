"""How many of math-verify's own test pairs are graded rightly without it, and how long a completion takes.

    git clone https://github.com/huggingface/Math-Verify && python tests/bench/bench_answers.py Math-Verify

The pairs (gold, prediction, expected) are read out of its test files; those that it tests its comparison's settings
with count as they stand. Where math-verify is installed it is asked too, with its defaults.
"""
import argparse
import ast
import time
from collections.abc import Iterator
from pathlib import Path

from grpo.rewards import answer_reward

FILES = ("test_all", "test_boxed", "test_numina_cases", "test_open_thoughts", "test_strict")


def pairs_of(path: Path) -> Iterator[tuple[str, str, bool]]:
    """The rows of every parametrized test of a file that are written out."""
    for test in ast.parse(path.read_text()).body:
        for mark in getattr(test, "decorator_list", []):
            names = [name.strip() for name in ast.literal_eval(mark.args[0]).split(",")]
            if {"gold", "pred", "expected"} <= set(names):
                for row in mark.args[1].elts:
                    try:
                        values = dict(zip(names, ast.literal_eval(row), strict=True))
                    except ValueError:                     # an f-string
                        continue
                    yield values["gold"], values["pred"], bool(values["expected"])


def counted(name: str, pairs: list[tuple[str, str, bool]], right) -> None:
    """Prints how many right ones are missed and wrong ones taken, and the time of a pair."""
    begun = time.process_time()
    found = [right(gold, text) for gold, text, _ in pairs]
    took = (time.process_time() - begun) / len(pairs)
    missed = sum(wanted and not got for got, (_, _, wanted) in zip(found, pairs, strict=True))
    taken = sum(got and not wanted for got, (_, _, wanted) in zip(found, pairs, strict=True))
    wanted = sum(pair[2] for pair in pairs)
    print(f"{name}: {missed} of {wanted} right ones missed, {taken} of {len(pairs) - wanted} wrong ones taken, "
          f"{1000 * took:.2f} ms a pair")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkout", type=Path)
    tests = parser.parse_args().checkout / "tests"
    pairs = [pair for name in FILES for pair in pairs_of(tests / f"{name}.py")]
    counted("grpo", pairs, lambda gold, text: answer_reward([text], answer=[gold]) == [1.0])
    try:
        from math_verify import parse, verify
    except ImportError:
        return
    counted("math-verify", pairs, lambda gold, text: verify(parse(gold, parsing_timeout=None),
                                                            parse(text, parsing_timeout=None), timeout_seconds=None))


if __name__ == "__main__":
    main()
