"""Rewards that misbehave, in a module that a process of its own imports in no time."""
import ctypes
import itertools
import os
import threading

TOLD = "GRPO_TEST_TOLD"                      # names the pipe to a test that waits for what a call does
RETURNS, HANGS = b"r", b"h"


def tell(what):
    """Says what the call does next."""
    if TOLD in os.environ:
        with open(os.environ[TOLD], "wb", buffering=0) as pipe:
            pipe.write(what)


def hang(completions):
    threading.Event().wait()


def hang_on_one(completion):
    if completion == "bb":
        tell(HANGS)
        threading.Event().wait()
    tell(RETURNS)
    return 1.0


def hang_on_two(text, gold):
    threading.Event().wait()


def sometimes(completion):
    if completion == "bb":
        raise ValueError("no")
    return 1.0


def exits_on_one(completion):
    if completion == "bb":
        os._exit(7)
    return 1.0


def crashes(completions):
    ctypes.string_at(0)


def loops(completions):
    while True:
        pass


def endless(completions):
    return itertools.count()


def endless_then_raises(completions):
    yield 1.0
    raise ValueError("in the middle")


def returns_a_lock(completions):
    return [threading.Lock()] * len(completions)


def closes_its_pipe(completions):
    os.closerange(3, 64)
    return [1.0] * len(completions)


def remembers(completion, answer, log_metric, log_extra, seen=[]):  # noqa: B006
    """Its process is another, stays from call to call, and reports."""
    seen.append(completion)
    log_metric("calls", len(seen))
    log_extra("process", [os.getpid()])
    print("printing", completion)
    return float(int(answer) == len(completion))


def asks_for_embed(completions, embed):
    return [0.0] * len(completions)


def unsendable(completion, answer):
    return 0.0
