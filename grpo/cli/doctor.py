"""grpo doctor: what is there, what is missing, how to get it."""
from ..doctor import examine, report
from .parser import Parser


def main(argv: list[str], prog: str = "grpo doctor") -> None:
    Parser(prog=prog, description="Says what is there on this machine, what is missing, and how to get it.").parse(argv)
    print(report(examine()))
