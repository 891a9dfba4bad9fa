"""An evaluation as text: every completion, and one line each on what it is worth and what was read out of it."""
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..runs import READINGS, replace_text
from ..vision.messages import begun, text_of
from .records import Record, questions
from .tables import number

REASONING_CHARACTERS, ANSWER_CHARACTERS = 160, 400


def write_text(document: Mapping[str, Any], path: Path) -> Path:
    """Every completion as text."""
    replace_text(path, "\n\n".join(as_text(group) for group in questions(document["completions"])) + "\n")
    return path


def as_text(group: Sequence[Record]) -> str:
    """One question with its completions."""
    first = group[0]
    lines = [f"=== row {first['row']}" + (f", {first['category']}" if first["category"] is not None else ""),
             prompt_text(first["prompt"])]
    if first["gold"] is not None:
        lines.append(f"gold: {first['gold']}")
    for record in group:
        lines += [f"--- {headline(record)}; {rewards_line(record)}", record["completion"]]
    return "\n".join(lines)


def headline(record: Record) -> str:
    """One line on a completion: right or wrong by reading, length."""
    right = [r for r in READINGS if record[r]]
    verdict = [] if record["gold"] is None else [f"right ({', '.join(right)})" if right else "wrong"]
    ended = "cut off" if record["finish_reason"] == "length" else "ended"
    return "; ".join([f"completion {record['sample'] + 1}", *verdict, f"{record['tokens']} tokens, {ended}"])


def rewards_line(record: Record) -> str:
    """The weighted sum, and each reward and evaluation function."""
    each = ", ".join(f"{name} {number(value)}"
                     for name, value in {**record["rewards"], **record.get("funcs", {})}.items())
    return f"reward {number(record['reward'])}: {each}"


def parts(record: Record) -> str:
    """What was read out of a completion."""
    reasoning = record["reasoning"]
    if reasoning:
        reasoning = f"{textwrap.shorten(reasoning, REASONING_CHARACTERS)} ({len(reasoning)} characters)"
    shown = {"answer in its tags": record["tagged_answer"], "answer read": record["answer"],
             "reasoning read": reasoning,
             "tags": ", ".join(record["tag_errors"]) if record["tag_errors"] else None}
    return "; ".join(f"{name}: {textwrap.shorten(text, ANSWER_CHARACTERS)}" for name, text in shown.items() if text)


def prompt_text(prompt: Any) -> str:
    """A prompt as text: a chat message by message."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(f"{m['role']}: {text_of(m['content'])}" if isinstance(m, Mapping) else str(m) for m in prompt)


def last_message(prompt: Any) -> str:
    """What the last message of a chat says, or the one before where the last begins the answer; of any other prompt all
    of it."""
    is_chat = not isinstance(prompt, str) and prompt and isinstance(prompt[-1], Mapping)
    return text_of(prompt[place_of_question(prompt)]["content"]) if is_chat else prompt_text(prompt)


def asked(prompt: Any) -> str:
    """The last message, and the beginning of the answer where the prompt has one."""
    return last_message(prompt) + (f"\n\nassistant: {beginning}" if (beginning := begun(prompt)) else "")


def before_question(prompt: Any) -> str:
    """What a chat says before its last message; nothing where that is all."""
    return "" if isinstance(prompt, str) else prompt_text(prompt[:place_of_question(prompt)])


def place_of_question(prompt: Sequence[Any]) -> int:
    """Place of the last message, without a begun answer."""
    return len(prompt) - (2 if len(prompt) > 1 and begun(prompt) else 1)
