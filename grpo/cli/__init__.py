"""The command `grpo`: train, recipes, generate, attention, eval, analyze, plot, plan, export, convert, doctor. One
file a command; this one picks it and prints what goes wrong."""
import importlib
import os
import sys
import warnings
from typing import Any

from ..errors import GrpoError, GrpoWarning, did_you_mean
from .parser import UsageError

COMMANDS = {
    "train": "train a model with GRPO; without arguments, a model that learns to add, in minutes",
    "recipes": "list what there is to train, or print a recipe",
    "generate": "ask a model",
    "attention": "see what the words of an answer look at in an image",
    "eval": "evaluate a model or a run on held-out rows, with a report",
    "analyze": "look at the completions of a run or an evaluation, or compare two",
    "plot": "draw the plots of a run",
    "plan": "say how much memory a run will take and how long a step, before anything is loaded",
    "export": "write a model or a run as one .gguf for llama.cpp, or as a folder of safetensors",
    "convert": "write a model of PyTorch's pickles as safetensors; nothing in them is run",
    "doctor": "say what is there on this machine, what is missing, and how to get it",
}
INTERRUPTED, BROKEN_PIPE = 130, 141         # as shells have it for SIGINT and SIGPIPE


def usage() -> str:
    """What `grpo --help` prints."""
    lines = ["Trains language models with GRPO, on this machine, without PyTorch.", "",
             "usage: grpo COMMAND [--option value ...]", ""]
    lines += [f"  grpo {name:<9} {about}" for name, about in COMMANDS.items()]
    return "\n".join([*lines, "", "Start with: grpo train",
                      "More on a command: grpo COMMAND --help. With --debug an error comes with its traceback."])


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns the exit code: 0, 1 (it failed), 2 (the command line is wrong), 130 (Ctrl-C), 141
    (nobody reads the output)."""
    words = sys.argv[1:] if argv is None else list(argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    with warnings.catch_warnings():
        warnings.showwarning = show_warning
        try:
            code = dispatch(words)
            sys.stdout.flush()
            return code
        except UsageError as error:
            print(error, file=sys.stderr)
            return 2
        except GrpoError as error:
            if debug:
                raise
            print(f"grpo: {error}", file=sys.stderr)
            return 1
        except BrokenPipeError:                            # whoever read this has left: grpo recipes | head
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return BROKEN_PIPE
        except KeyboardInterrupt as stop:
            print(f"\n{interrupted(stop)}", file=sys.stderr)
            return INTERRUPTED


def dispatch(words: list[str]) -> int:
    """Runs the command that the words begin with and returns its exit code. Raises UsageError for one that is not
    there."""
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if words[0] == "--version":
        from .. import __version__

        print(f"grpo {__version__}")
        return 0
    name = words[0]
    if name not in COMMANDS:
        raise UsageError(f"grpo: no command {name!r}{did_you_mean(name, COMMANDS)} There are "
                         f"{', '.join(COMMANDS)}.\nTry 'grpo --help'.")
    try:
        importlib.import_module(f"{__name__}.{name}").main(words[1:])
    except SystemExit as done:               # argparse has printed --help
        return int(done.code or 0)
    return 0


def interrupted(stop: KeyboardInterrupt) -> str:
    """What Ctrl-C leaves: the step, and how to go on."""
    # put there by the trainer, where one was at work
    step, run, checkpoint = (getattr(stop, name, None) for name in ("step", "run", "checkpoint"))
    if step is None:
        return "Stopped."
    if checkpoint is None:
        return f"Stopped after step {step} of {run}; there is no checkpoint yet."
    return (f"Stopped after step {step} of {run}.\nThe last checkpoint is {checkpoint}\n"
            f"Go on with: grpo train --resume_from_checkpoint {checkpoint}")


def show_warning(message: Any, category: type[Warning], filename: str, lineno: int, file: Any = None,
                 line: str | None = None) -> None:
    """Warnings of this package in one line; others as ever."""
    if issubclass(category, GrpoWarning):
        print(f"grpo: {message}", file=sys.stderr)
    else:
        print(warnings.formatwarning(message, category, filename, lineno, line), end="", file=sys.stderr)
