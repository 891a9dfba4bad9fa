"""Reasoning inside <think> tags, and an answer after it."""
import re
from typing import Any

from ..answers import text_of
from ..vision.messages import begun

THINK = re.compile(r"<think>(?!.*<think>).*?</think>", re.DOTALL)
THINK_ANSWER = re.compile(r"\s*<think>(?>.*?</think>\s*<answer>).*?</answer>\s*", re.DOTALL)
TAGS = ("<think>", "</think>", "<answer>", "</answer>")


OPENED = re.compile(r"<think>(?!.*</think>).*\Z", re.DOTALL)


def think_format_reward(completions: list, prompts: list | None = None, prompt_ends: list[str] | None = None,
                        **columns: Any) -> list[float]:
    """1.0 where a completion opens with its only <think> and closes it, else 0.0 (TRL's function of the same name).
    Where the prompt, or its chat template, has opened <think> already, the completion is to close it.

    >>> think_format_reward(["<think>so</think> 4", "4"])
    [1.0, 0.0]
    >>> think_format_reward(["2 and 2.</think> 4"], prompts=["2 + 2?\\n<think>\\n"])
    [1.0]
    """
    return [float(THINK.match(text) is not None) for text in with_opening(completions, prompts, prompt_ends)]


def think_answer_format_reward(completions: list, prompts: list | None = None, prompt_ends: list[str] | None = None,
                               **columns: Any) -> list[float]:
    """1.0 where a completion is <think>...</think> <answer>...</answer> and nothing else, each tag once, else 0.0 (the
    format reward of DeepSeek-R1, arXiv 2501.12948, section 2.2.2). A <think> that the prompt has opened counts.

    >>> think_answer_format_reward(["<think>2 + 2</think>\\n<answer>4</answer>", "<think>2 + 2</think> 4"])
    [1.0, 0.0]
    """
    texts = with_opening(completions, prompts, prompt_ends)
    return [float(THINK_ANSWER.fullmatch(t) is not None and all(t.count(tag) == 1 for tag in TAGS)) for t in texts]


def with_opening(completions: list, prompts: list | None, prompt_ends: list[str] | None) -> list[str]:
    """The texts of completions, after the <think> that their prompts leave open."""
    ends = prompt_ends if prompt_ends is not None else [None] * len(completions) if prompts is None else [
        prompt if isinstance(prompt, str) else begun(prompt) for prompt in prompts]
    return [opened(end or "") + text_of(c) for c, end in zip(completions, ends, strict=True)]


def opened(end: str) -> str:
    """<think> and what follows it at the end of a prompt that does not close it; mostly nothing.

    >>> opened("2 + 2?\\n<think>\\n"), opened("<think>\\n\\n</think>\\n\\n")
    ('<think>\\n', '')
    """
    found = OPENED.search(end)
    return "" if found is None else "<think>" + found[0].rpartition("<think>")[2]


NAMES = {"think_format_reward": think_format_reward, "think_answer_format_reward": think_answer_format_reward}
