"""From records to rows: the chat around a question, and where the gold answer is."""
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import DatasetError
from ..foreign import did_you_mean

XML_SYSTEM_PROMPT = "Respond in the following format:\n<reasoning>\n...\n</reasoning>\n<answer>\n...\n</answer>"
QUESTION_COLUMNS = ("question", "problem")


def chat(question: str, system_prompt: str | None = "xml") -> list[dict[str, str]]:
    """The prompt of a question. system_prompt: a text, "xml" for the layout of DeepSeekRL, None or "" for no system message.

    >>> [message["role"] for message in chat("What is 2 + 2?")]
    ['system', 'user']
    """
    text = XML_SYSTEM_PROMPT if system_prompt == "xml" else system_prompt
    return ([{"role": "system", "content": text}] if text else []) + [{"role": "user", "content": question}]


def solved(question: str, reasoning: str, answer: Any) -> list[dict[str, str]]:
    """A question and its answer in the XML layout, as two messages."""
    return [{"role": "user", "content": question},
            {"role": "assistant", "content": f"<reasoning>\n{reasoning}\n</reasoning>\n<answer>\n{answer}\n</answer>"}]


def with_examples(prompt: list[dict[str, str]], shown: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """The prompt with the messages of solved examples before its question, which is the last message."""
    return [*prompt[:-1], *shown, prompt[-1]]


def gold(answer: Any) -> str:
    """The answer alone: what follows the last #### (GSM8K), without thousands commas and dollar signs there.

    >>> gold("48 / 2 = 24, so 1200 in all\\n#### $1,200")
    '1200'
    """
    text, marked, last = str(answer).rpartition("####")
    return last.replace(",", "").replace("$", "").strip() if marked else str(answer).strip()


def as_rows(records: Iterable[Any], where: str, system_prompt: str | None = None, first: int = 1) -> list[dict[str, Any]]:
    """Rows of records that have a prompt, or a question to make one of. where: the source, for errors; first: number of
    the first record there. system_prompt None: "xml" for questions, nothing for prompts, which are complete."""
    if not isinstance(records, Iterable):
        raise DatasetError(f"{where} gave {type(records).__name__}, not rows")
    rows = []
    for number, record in enumerate(records, first):
        if not isinstance(record, Mapping):
            raise DatasetError(f"{where}: row {number} is {type(record).__name__}, not a mapping of columns")
        rows.append(as_row(dict(record), f"{where}: row {number}", system_prompt))
    if not rows:
        raise DatasetError(f"{where} has no rows")
    return rows


def as_row(record: dict[str, Any], where: str, system_prompt: str | None) -> dict[str, Any]:
    if record.get("prompt"):
        if system_prompt is not None:
            raise DatasetError(f"{where} has a prompt of its own; system_prompt is for rows with a question")
        return record
    question = next((record[name] for name in QUESTION_COLUMNS if record.get(name)), None)
    if question is None:
        columns = ", ".join(map(str, record)) or "none"
        raise DatasetError(f"{where} has neither a prompt nor a question; its columns are {columns}")
    if not isinstance(question, str):
        raise DatasetError(f"{where}: the question is {type(question).__name__}, not text")
    row = {**record, "prompt": chat(question, "xml" if system_prompt is None else system_prompt), "question": question}
    if record.get("answer") is not None:
        row["answer"] = gold(record["answer"])
        if row["answer"] != record["answer"]:
            row["solution"] = record["answer"]
    return row


def check_split(split: str, splits: Iterable[str], where: str) -> None:
    """DatasetError when a data set has no such split."""
    if split not in splits:
        raise DatasetError(f"{where} has no split {split!r}{did_you_mean(split, splits)} It has {', '.join(splits)}.")
