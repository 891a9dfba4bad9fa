"""From records to rows: the chat around a question, and where the gold answer is."""
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import ConfigError, DatasetError, did_you_mean

XML_SYSTEM_PROMPT = "Respond in the following format:\n<reasoning>\n...\n</reasoning>\n<answer>\n...\n</answer>"
QUESTION_COLUMNS = ("question", "problem")
SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


def chat(question: str, system_prompt: str | None = "xml") -> list[dict[str, str]]:
    """The prompt of a question. system_prompt: a text, "xml" for the layout of DeepSeekRL, None or "" for no system
    message.

    >>> [message["role"] for message in chat("What is 2 + 2?")]
    ['system', 'user']
    """
    text = XML_SYSTEM_PROMPT if system_prompt == "xml" else system_prompt
    return ([{"role": "system", "content": text}] if text else []) + [{"role": "user", "content": question}]


def solved(question: str, reasoning: str, answer: Any) -> list[dict[str, str]]:
    """A question and its answer in the XML layout, as two messages."""
    return [{"role": "user", "content": question},
            {"role": "assistant", "content": f"<reasoning>\n{reasoning}\n</reasoning>\n<answer>\n{answer}\n</answer>"}]


def check_examples(count: int) -> None:
    """ConfigError for a number of examples that cannot be."""
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise ConfigError(f"examples={count!r} must be a number of solved problems, 0 for none")


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


def as_rows(records: Iterable[Any], where: str, system_prompt: str | None = None, first: int = 1,
            columns: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """Rows of records that have a prompt, or a question to make one of. where: the source, for errors; first: number of
    the first record there. system_prompt None: "xml" for questions, nothing for prompts, which are complete. columns:
    names of ours to names of the records, "solution" or "reward_model.ground_truth"; the others stay as they are."""
    if not isinstance(records, Iterable):
        raise DatasetError(f"{where} gave {type(records).__name__}, not rows")
    rows: list[dict[str, Any]] = []
    for number, record in enumerate(records, first):
        here = f"{where}: row {number}"
        if not isinstance(record, Mapping):
            raise DatasetError(f"{here} is {type(record).__name__}, not a mapping of columns")
        row = as_row(renamed(record, columns or {}, here), here, system_prompt)
        if rows and "question" in row and ("answer" in row) != ("answer" in rows[0]):
            raise DatasetError(f"{here} has {'an' if 'answer' in row else 'no'} answer, unlike row {first}; its "
                               f"columns are {listed(record)}")
        rows.append(row)
    if not rows:
        raise DatasetError(f"{where} has no rows")
    return rows


def renamed(record: Mapping[str, Any], columns: Mapping[str, str], where: str) -> dict[str, Any]:
    """The record by our names of columns."""
    row = dict(record)
    taken = {ours: part(row, theirs, where) for ours, theirs in columns.items()}
    for theirs in columns.values():
        row.pop(theirs, None)
    for ours, value in taken.items():
        if ours in row:
            raise DatasetError(f"{where} has a column {ours!r} besides {columns[ours]!r}, which columns gives that "
                               "name")
        row[ours] = value
    return row


def part(row: Mapping[str, Any], name: str, where: str) -> Any:
    """A column, or with dots a part of one."""
    found: Any = row
    for key in [name] if name in row else name.split("."):
        if not isinstance(found, Mapping) or key not in found:
            raise DatasetError(f"{where} has no column {name!r}{did_you_mean(name, map(str, row))} Its columns are "
                               f"{listed(row)}.")
        found = found[key]
    return found


def as_row(record: dict[str, Any], where: str, system_prompt: str | None) -> dict[str, Any]:
    """One record as a row: with a prompt it is one already; else a chat around its question, and its answer as text; or
    what the column conversations holds. where: names it in errors."""
    if record.get("prompt"):
        if system_prompt is not None:
            raise DatasetError(f"{where} has a prompt of its own; system_prompt is for rows with a question")
        return record
    question = next((record[name] for name in QUESTION_COLUMNS if record.get(name)), None)
    if question is None and record.get("conversations"):
        return conversed(record, where, system_prompt)
    if question is None:
        advice = "; the option question asks one of every row" if {"image", "images"} & {*record} else ""
        raise DatasetError(f"{where} has neither a prompt nor a question; its columns are {listed(record)}{advice}")
    if not isinstance(question, str):
        raise DatasetError(f"{where}: the question is {type(question).__name__}, not text")
    row = {**record, "prompt": chat(question, "xml" if system_prompt is None else system_prompt), "question": question}
    if record.get("answer") is not None:
        row["answer"] = checked_gold(record["answer"], where)
        if row["answer"] != str(record["answer"]):
            row["solution"] = record["answer"]
    return row


def conversed(record: dict[str, Any], where: str, system_prompt: str | None) -> dict[str, Any]:
    """A row of a record with turns {"from": "human" or "gpt", "value": text}: the last, where the model speaks, is the
    answer, and those before it are the prompt."""
    turns = record["conversations"]
    if not isinstance(turns, list) or not all(isinstance(t, Mapping) and t.get("from") in SPEAKERS
                                              and isinstance(t.get("value"), str) for t in turns):
        raise DatasetError(f"{where}: conversations must be a list of {{'from': 'human' or 'gpt', 'value': text}}, not "
                           f"{turns!r:.80}")
    prompt = [{"role": SPEAKERS[turn["from"]], "content": turn["value"]} for turn in turns]
    answer = prompt.pop()["content"] if prompt[-1]["role"] == "assistant" else None
    if not prompt or prompt[-1]["role"] != "user":
        raise DatasetError(f"{where}: conversations ask nothing: the turn before the last must be the user's")
    if system_prompt is not None:
        if prompt[0]["role"] == "system":
            raise DatasetError(f"{where} has a system message of its own; leave system_prompt out")
        prompt = chat("", system_prompt)[:-1] + prompt
    row = {**record, "prompt": prompt}
    if row.get("answer") is None and answer is not None:
        row["answer"] = checked_gold(answer, where)
    return row


def checked_gold(answer: Any, where: str) -> str:
    """gold(answer), or DatasetError for what is no answer."""
    if not isinstance(answer, (str, int, float)):
        raise DatasetError(f"{where}: the answer is {type(answer).__name__}, not text or a number: {answer!r:.60}; "
                           "columns: {answer: answer.part} takes a part of it")
    found = gold(answer)
    if not found or isinstance(answer, float) and not math.isfinite(answer):
        raise DatasetError(f"{where}: there is no answer in {answer!r:.60}")
    return found


def listed(row: Mapping[str, Any]) -> str:
    """Column names, as errors show them."""
    return ", ".join(map(str, row)) or "none"
