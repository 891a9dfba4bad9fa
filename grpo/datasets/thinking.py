"""The prompt around a question that is thought through first: r1_vlm's, with its image and the beginning of the
answer; and options of data sets that ask so."""
from typing import Any

from ..errors import ConfigError

SYSTEM_PROMPT = ("You are a helpful assistant. You reason about the question in your mind first, and then you give the "
                 "user the answer.")
PREFILL = "Let me solve this step by step.\n<think>"
LAYOUT = ("Reason inside <think> </think> tags. Then, on the next line, give {what} inside <answer> </answer> tags, "
          "for example <answer>{example}</answer>.")
INSTRUCTIONS = ("full", "short")


def asked(question: str, image: Any = None, system_prompt: str | None = None, prefill: bool = True) -> dict[str, Any]:
    """Columns {prompt, image, prefill} of a row. image: None for a question of text alone. system_prompt: None for the
    one here, "" for none. prefill: the assistant has begun its answer, with PREFILL, and the model goes on from there;
    rewards that need the whole of it take it from the column.

    >>> [message["role"] for message in asked("How many?")["prompt"]]
    ['system', 'user', 'assistant']
    """
    text = SYSTEM_PROMPT if system_prompt is None else system_prompt
    prompt = [{"role": "system", "content": text}] if text else []
    prompt.append({"role": "user", "content": question})
    row: dict[str, Any] = {"prompt": prompt}
    if image is not None:
        row["image"] = image
    if prefill:
        prompt.append({"role": "assistant", "content": PREFILL})
        row["prefill"] = PREFILL
    return row


def layout(what: str, example: str) -> str:
    """The sentences that ask for the layout."""
    return LAYOUT.format(what=what, example=example)


def said(thought: str, answer: str, prefill: bool) -> str:
    """A completion in that layout, after the prefill or without it."""
    return f"{'' if prefill else '<think>'}{thought}</think>\n<answer>{answer}</answer>"


def usual_system(system_prompt: str | None, instruction: str) -> str | None:
    """The system prompt that is asked for; else none ("") for a short instruction, and the one here (None) for a full
    one."""
    return "" if system_prompt is None and instruction == "short" else system_prompt


def check_instruction(instruction: str) -> None:
    """ConfigError for one that there is not."""
    if instruction not in INSTRUCTIONS:
        raise ConfigError(f"instruction={instruction!r} must be {' or '.join(INSTRUCTIONS)}")


def check_share(option: str, share: float) -> None:
    """ConfigError unless it is a share."""
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share <= 1:
        raise ConfigError(f"{option}={share!r} must be from 0 to 1")
