"""Where the chat templates of a model stand: files of Jinja text, or entries of JSON files and of a GGUF's metadata."""
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import TokenizerError
from .formats.stand_ins import there
from .formats.strict_json import read_bytes, read_object

MAIN, OTHERS = "chat_template.jinja", "additional_chat_templates"
DEFAULT, WITH_TOOLS = "default", "tool_use"              # the template of most conversations, and of those with tools
MAX_BYTES = 4 << 20
MAX_FILES = 64
KEY = "tokenizer.chat_template"                          # of a GGUF; others are KEY.NAME


def template_files(folder: Path) -> list[str]:
    """The names of the files of Jinja text in a model's folder."""
    named = sorted((folder / OTHERS).glob("*.jinja")) if (folder / OTHERS).is_dir() else []
    if len(named) > MAX_FILES:
        raise TokenizerError(f"{folder / OTHERS}: {len(named)} chat templates are over the limit of {MAX_FILES}")
    return [MAIN] * there(folder / MAIN) + [f"{OTHERS}/{path.name}" for path in named if there(path)]


def templates_of_folder(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """The chat templates by their names: those of files of Jinja text, else that of chat_template.json, else those of
    tokenizer_config.json. A model with one calls it "default"."""
    files = template_files(folder)
    if files:
        return {DEFAULT if name == MAIN else Path(name).stem: _text(folder / name) for name in files}
    path = folder / "chat_template.json"
    held = read_object(path).get("chat_template") if there(path) else None
    if held is None:
        path, held = folder / "tokenizer_config.json", config.get("chat_template")
    return by_name(held, str(path))


def templates_of_gguf(metadata: Mapping[str, Any], source: str) -> dict[str, str]:
    """The chat templates in a GGUF's metadata by their names."""
    found = {key.removeprefix(f"{KEY}."): value for key, value in metadata.items() if key.startswith(f"{KEY}.")}
    if KEY in metadata:
        found[DEFAULT] = metadata[KEY]
    return by_name(found, source)


def gguf_templates(templates: Mapping[str, str], plain: str | None) -> dict[str, Any]:
    """The keys of a GGUF's metadata for chat templates by name, templates_of_gguf's inverse. plain: the template of
    conversations, if any, whatever its name.

    >>> gguf_templates({"rag": "R", "default": "D"}, "D")
    {'tokenizer.chat_template': 'D', 'tokenizer.chat_templates': ['rag'], 'tokenizer.chat_template.rag': 'R'}
    """
    others = {name: text for name, text in templates.items() if name != DEFAULT}
    return {**({KEY: plain} if plain else {}), **({f"{KEY}s": list(others)} if others else {}),
            **{f"{KEY}.{name}": text for name, text in others.items()}}


def by_name(held: Any, source: str) -> dict[str, str]:
    """What a JSON file calls chat_template: a text, a list of {"name", "template"}, or an object of texts.

    >>> by_name([{"name": "default", "template": "{{ messages }}"}], "here")
    {'default': '{{ messages }}'}
    """
    if isinstance(held, list):
        for i, entry in enumerate(held):
            if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
                raise TokenizerError(f"{source}: chat_template: entry {i} is not an object with a name and a template")
        held = {entry["name"]: entry.get("template") for entry in held}
    found = held if isinstance(held, Mapping) else {} if held is None else {DEFAULT: held}
    for name, template in found.items():
        if not isinstance(template, str):
            raise TokenizerError(f"{source}: chat_template {name!r:.80} must be text, not {type(template).__name__}")
    return dict(found)


def _text(path: Path) -> str:
    try:
        return read_bytes(path, MAX_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{path}: not UTF-8 at byte {error.start}") from error
