"""Text to ids and back, and chat messages to prompts: the `tokenizers` library behind a face that knows the model's
specials."""
from __future__ import annotations

import builtins
import contextlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from ..errors import TokenizerError, warn
from . import special_tokens, tokenizer_classes
from .chat_files import (
    DEFAULT,
    MAIN,
    OTHERS,
    WITH_TOOLS,
    gguf_templates,
    template_files,
    templates_of_folder,
    templates_of_gguf,
)
from .formats import tiktoken
from .formats.byte_level import byte_alphabet, byte_level_backend, set_bos_eos
from .formats.gguf_tokenizer import build
from .formats.gguf_vocabulary import vocabulary
from .formats.stand_ins import there
from .formats.strict_json import read_bytes, read_object
from .formats.tokenizer_json import check
from .paths import path_of
from .tokenizer_calls import Calls

if TYPE_CHECKING:
    import tokenizers

    from .chat import ChatTemplate

MAX_TOKENIZER_JSON = 256 << 20
# Copied byte for byte by save_pretrained, so that what was read is what other programs read.
KEPT_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
              "merges.txt", tiktoken.FILE, "chat_template.json")
# Arguments of transformers' apply_chat_template that say what becomes of the ids, and the values that change nothing.
UNSUPPORTED = {"padding": False, "truncation": False, "max_length": None, "return_tensors": None, "return_dict": False,
               "return_assistant_tokens_mask": False, "tokenizer_kwargs": None, "sanitize_control_tokens": False}
RESERVED = {"messages", "conversation", "tokenize", "add_generation_prompt", "continue_final_message", *UNSUPPORTED}
MAX_COMPILED = 16
CHATML = ("{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + "
          "'<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")
SEEING_CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}{% if message['content'] is string %}"
    "{{ message['content'] }}{% else %}{% for part in message['content'] %}{{ '<|vision_start|><|image_pad|>"
    "<|vision_end|>' if part['type'] == 'image' else part['text'] }}{% endfor %}{% endif %}{{ '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")


class Tokenizer(Calls):
    """Encodes text, renders chats, and knows where a completion ends.

    `from_pretrained` reads a Hugging Face folder, `from_gguf` a GGUF's metadata, `bytes` needs no file.

    >>> tokenizer = Tokenizer.bytes()
    >>> tokenizer.encode("Hi!")
    [72, 105, 33]
    >>> tokenizer.decode([72, 105, 33, 258])
    'Hi!'
    """

    def __init__(self, backend: tokenizers.Tokenizer, *, special: Mapping[str, str] | None = None,
                 eos_ids: Sequence[Any] = (), chat_template: str | Mapping[str, str] | None = None,
                 files: Mapping[str, bytes] | None = None, source: str = "tokenizer",
                 apart: re.Pattern[str] | None = None, rows: int = 0) -> None:
        """``special``: texts of bos_token, eos_token, pad_token, unk_token, and names of the model's own; ``eos_ids``:
        further ids that end a completion, of which those that are none are left out, and said; ``chat_template``: a
        text, or several by name; ``apart``: its first group is encoded by itself, wherever it matches; ``rows``: ids
        that the model has, where they are more than the tokenizer's."""
        backend.no_truncation()
        backend.no_padding()
        self._backend, self._source, self._files, self._apart = backend, source, dict(files or {}), apart
        self.special = dict(special or {})
        vocabulary = backend.get_vocab(with_added_tokens=True)
        if not vocabulary:
            raise TokenizerError(f"{source}: the vocabulary is empty")
        self.vocab_size = max(vocabulary.values()) + 1
        self._ids = {name: self._id_of(name, text) for name, text in self.special.items()}
        ends, out = special_tokens.end_ids(eos_ids, max(self.vocab_size, rows), source)
        self.eos_ids = list(dict.fromkeys([*ends, *([self._ids["eos_token"]] if "eos_token" in self._ids else [])]))
        if out:
            warn(f"{source}: end-of-text id {', '.join(map(str, out))} is not an id of this tokenizer (0 to "
                 f"{self.vocab_size - 1}), and left out" + ("" if self.eos_ids else "; nothing else ends a completion"))
        self.bos_id: int | None = self._ids.get("bos_token")
        self.pad_id: int | None = self._ids.get("pad_token", self.eos_ids[0] if self.eos_ids else None)
        if chat_template is not None and not isinstance(chat_template, (str, Mapping)):
            raise TokenizerError(f"{source}: chat_template must be text, not {type(chat_template).__name__}")
        self.chat_templates = {DEFAULT: chat_template} if isinstance(chat_template, str) else dict(chat_template or {})
        self.chat_template = self.chat_templates.get(DEFAULT)
        self._compiled: dict[str, ChatTemplate] = {}
        self._said_bos = False
        self._bytes: tuple[np.ndarray, builtins.bytes] | None = None
        self._probe()

    @classmethod
    def from_pretrained(cls, folder: str | Path, called: str = "") -> Tokenizer:
        """From tokenizer.json, or vocab.json and merges.txt of a Qwen, or qwen.tiktoken; eos ids from
        generation_config.json, then config.json. ``called``: what it is in errors, if not the folder.

        tokenizer.json decides how text is cut, as in transformers 4, with which such files were made and models
        trained. A class of transformers 5 that would cut it in a way of its own is said in a GrpoWarning."""
        folder = path_of(folder, "folder")
        config, model_config = _optional(folder / "tokenizer_config.json"), _optional(folder / "config.json")
        generation, ranks = _optional(folder / "generation_config.json"), None
        if there(folder / "tokenizer.json"):
            backend = load_backend(read_bytes(folder / "tokenizer.json", MAX_TOKENIZER_JSON),
                                   str(folder / "tokenizer.json"))
        elif there(folder / "vocab.json") and there(folder / "merges.txt"):
            backend = _qwen_backend(folder, config)
        elif there(folder / tiktoken.FILE):
            ranks = tiktoken.build(read_bytes(folder / tiktoken.FILE, tiktoken.MAX_FILE), "visual" in model_config,
                                   generation.get("chat_format") != "raw", str(folder / tiktoken.FILE))
            backend = ranks.backend
        else:
            raise TokenizerError(f"{folder}: has no tokenizer.json (nor vocab.json and merges.txt, nor "
                                 f"{tiktoken.FILE})")
        source = str(folder / "tokenizer_config.json")
        templates = templates_of_folder(folder, config)
        special = special_tokens.read(config, _optional(folder / "special_tokens_map.json"), source)
        if ranks:
            special = special._replace(named={**ranks.special, **special.named})
            templates = templates or {DEFAULT: ranks.template}
        _add_tokens(backend, _listed(folder, config, special), source)
        uses = {name for name in special.named if any(name in text for text in templates.values())}
        special = special_tokens.known(special, backend, {"eos_token", *uses}, source)
        _mark_special(backend, special)
        if not (folder / "tokenizer.json").is_file() and ("add_bos_token" in config or "add_eos_token" in config):
            set_bos_eos(backend, special.named, bool(config.get("add_bos_token")), bool(config.get("add_eos_token")))
        if (folder / "tokenizer.json").is_file():
            kind = model_config.get("model_type")
            tokenizer_classes.follow_keys(backend, config, kind, source)
            tokenizer_classes.say_what_differs(backend, config, kind, source)
        eos, rows = generation.get("eos_token_id"), 0
        for part in (model_config, model_config.get("text_config") or {}):
            eos = part.get("eos_token_id") if eos is None else eos
            rows = part["vocab_size"] if type(part.get("vocab_size")) is int else rows
        eos_ids = eos if isinstance(eos, list) else [] if eos is None else [eos]
        eos_ids = [*(ranks.ends if ranks else ()), *eos_ids, *map(backend.token_to_id, special.ends[1:])]
        files = {name: read_bytes(folder / name, MAX_TOKENIZER_JSON) for name in
                 (*(name for name in KEPT_FILES if there(folder / name)), *template_files(folder))}
        found = cls(backend, special=special.named, eos_ids=eos_ids, chat_template=templates, files=files,
                    source=called or str(folder), apart=tiktoken.HEADER if ranks else None, rows=rows)
        found._note_flags(config)
        if model_config and not found.eos_ids and not eos_ids:
            warn(f"{called or folder}: nothing ends a completion: there is no eos_token_id in generation_config.json "
                 "or config.json, nor an eos_token in tokenizer_config.json; completions go on up to max_new_tokens")
        return found

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any], source: str = "GGUF") -> Tokenizer:
        """From the tokenizer.ggml.* keys of a GGUF file."""
        backend, special, eos_ids = build(metadata, source)
        return cls(backend, special=special, eos_ids=eos_ids, chat_template=templates_of_gguf(metadata, source),
                   source=source)

    @classmethod
    def bytes(cls, tokens: Sequence[str] = (), special: Sequence[str] = (),
              chat_template: str | None = None) -> Tokenizer:
        """256 bytes, then <|endoftext|> 256, <|im_start|> 257, <|im_end|> 258, then special tokens, then tokens (texts
        that are one token each), with a ChatML template: for tiny models. special: those of images, if any; the
        template, unless another is given, then shows images."""
        from tokenizers import AddedToken, Tokenizer as Backend, decoders, models, pre_tokenizers

        alphabet = byte_alphabet()
        backend = Backend(models.BPE(vocab={alphabet[byte]: byte for byte in range(256)}, merges=[]))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.decoder = decoders.ByteLevel()
        backend.add_special_tokens([AddedToken(text, special=True, normalized=False)
                                    for text in ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *special)])
        backend.add_tokens([AddedToken(text, special=False, normalized=False) for text in tokens])
        return cls(backend, special={"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}, eos_ids=[258, 256],
                   chat_template=chat_template or (SEEING_CHATML if special else CHATML), source="byte tokenizer")

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        """Ids of a text; specials written out in it count as specials. ``add_special_tokens`` adds BOS where the model
        wants one; that it comes to stand before another, which the text begins with, is said once."""
        ids = self._encoded(text, add_special_tokens)
        if add_special_tokens and not self._said_bos and ids and ids[0] in self.special_ids \
                and text.lstrip().startswith(self._backend.id_to_token(ids[0]) or "\0") \
                and ids[1:2] == self._encoded(text, False)[:1]:
            self._said_bos = True
            warn(f"{self._source}: a text begins with {self._backend.id_to_token(ids[0])!r:.80}, which every text "
                 "gets, so that it stands there twice; give messages in place of text that a chat template made, or "
                 "leave the token out")
        return ids

    def _encoded(self, text: str, add_special_tokens: bool) -> list[int]:
        with _library_errors(lambda: f"{self._source}: cannot encode {text!r:.80}"):
            if self._apart is None or not (alone := [match.span(1) for match in self._apart.finditer(text)]):
                return self._backend.encode(text, add_special_tokens=add_special_tokens).ids
            cuts = [0, *(end for span in alone for end in span), len(text)]
            pieces = (text[begin:end] for begin, end in zip(cuts, cuts[1:], strict=False))
            return [i for piece in pieces for i in self._backend.encode(piece, add_special_tokens=False).ids]

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """Text of ids. Ids past the vocabulary (padded rows of a model) have no text."""
        ids = [int(i) for i in ids]
        if ids and min(ids) < 0:
            raise TokenizerError(f"{self._source}: {min(ids)} is not a token id")
        with _library_errors(lambda: f"{self._source}: cannot decode {len(ids)} ids"):
            return self._backend.decode(ids, skip_special_tokens=skip_special_tokens)

    @overload
    def apply_chat_template(self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool | None = ...,
                            tokenize: Literal[False] = ..., *, chat_template: str | None = ...,
                            continue_final_message: bool | str = ..., **variables: Any) -> str: ...
    @overload
    def apply_chat_template(self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool | None = ..., *,
                            tokenize: Literal[True], chat_template: str | None = ...,
                            continue_final_message: bool | str = ..., **variables: Any) -> list[int]: ...
    def apply_chat_template(self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool | None = None,
                            tokenize: bool = False, *, chat_template: str | None = None,
                            continue_final_message: bool | str = False, **variables: Any) -> str | list[int]:
        """The prompt of a conversation, a list of {"role", "content"}, as text or ids. A content is text, or parts,
        where an image is one placeholder. ``variables`` reach the template (``tools``, ``enable_thinking`` ...).

        With the generation prompt, which is there unless add_generation_prompt is False, a last message of the
        assistant's is the beginning of what the model says: its text follows the generation prompt, and the turn stays
        open. ``continue_final_message`` leaves the turn of any last message open as the template shows it, without a
        generation prompt; a text names the field to go on with (``"reasoning_content"``). ``chat_template``: the name
        of one of `chat_templates`, or a template's text; else it is "tool_use" for tools where there is one, and
        `chat_template`. With ``tokenize``, TokenizerError for arguments of transformers that say what becomes of the
        ids.

        >>> chat = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "It is"}]
        >>> Tokenizer.bytes().apply_chat_template(chat, continue_final_message=True).endswith("It is")
        True
        """
        for name, harmless in UNSUPPORTED.items():
            if variables.pop(name, harmless) not in (harmless, None, False) and tokenize:
                raise TokenizerError(f"{self._source}: apply_chat_template has no {name}: it returns a list of ids, as "
                                     "they come")
        if continue_final_message and add_generation_prompt:
            raise TokenizerError(f"{self._source}: continue_final_message leaves the last message open, and "
                                 "add_generation_prompt begins another; give one of them")
        template = self._chosen(chat_template, variables.get("tools"))
        check_tools(variables.get("tools"))
        variables = {"tools": None, "documents": None, **self.special, **variables}
        messages = check_messages(messages)
        if continue_final_message:
            field = continue_final_message if isinstance(continue_final_message, str) else "content"
            text = template.render_open(messages, field, add_generation_prompt=False, **variables)
        else:
            prompted = add_generation_prompt is None or add_generation_prompt
            begun = beginning(messages) if prompted else ""
            text = template.render(messages[:-1] if begun else messages, add_generation_prompt=prompted,
                                   **variables) + begun
        return self.encode(text) if tokenize else text

    def template_reads(self, name: str, chat_template: str | None = None) -> bool:
        """Whether the chat template, or that of a name or text, has a variable of this name; False without a
        template."""
        if chat_template is None and not self.chat_template:
            return any(name in self._of(source).variables for source in self.chat_templates.values())
        return name in self._chosen(chat_template).variables

    def token_bytes(self, vocab_size: int | None = None) -> tuple[np.ndarray, builtins.bytes]:
        """(offsets (V + 1) int64, text): id i adds text[offsets[i]:offsets[i + 1]] to the output. V is ``vocab_size``
        or the tokenizer's."""
        if self._bytes is None or len(self._bytes[0]) != (vocab_size or self.vocab_size) + 1:
            pieces = self._pieces(vocab_size or self.vocab_size)
            offsets = np.zeros(len(pieces) + 1, np.int64)
            np.cumsum([len(piece) for piece in pieces], out=offsets[1:])
            self._bytes = offsets, b"".join(pieces)
        return self._bytes

    @property
    def special_ids(self) -> set[int]:
        """Ids that decode leaves out."""
        return {i for i, token in self._backend.get_added_tokens_decoder().items() if token.special}

    def tokens_from(self, first: int) -> dict[int, str]:
        """The tokens whose ids are first or more, by their ids."""
        return {i: text for text, i in self._backend.get_vocab(with_added_tokens=True).items() if i >= first}

    def save_files(self) -> dict[str, builtins.bytes]:
        """What save_pretrained writes, by file name: the files that were read, or new ones for a tokenizer that came
        from none."""
        files = dict(self._files)
        if not files:
            config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False,
                      "model_max_length": 1 << 30, **self.special}
            files = {"tokenizer.json": self._backend.to_str(pretty=True).encode(),
                     "tokenizer_config.json": json.dumps(config, indent=2, ensure_ascii=False).encode() + b"\n"}
        if self.chat_template and (self.chat_template != self.chat_templates.get(DEFAULT) or not self._files):
            files[MAIN] = self.chat_template.encode()
        if not self._files:
            files |= {f"{OTHERS}/{name}.jinja": text.encode() for name, text in self.chat_templates.items()
                      if name != DEFAULT and re.fullmatch(r"[\w-]+", name)}
        return files

    def to_gguf(self, rows: int) -> dict[str, Any]:
        """The metadata of a GGUF that from_gguf reads back, for a model whose embedding has so many rows.
        TokenizerError for a tokenizer that GGUF has no word for."""
        metadata = vocabulary(self._backend, self.special, self.eos_ids, rows, self._source)
        return metadata | gguf_templates(self.chat_templates, self.chat_template)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the files that transformers and this class read back."""
        from .formats.folder import FolderWriter

        with FolderWriter(path_of(folder, "folder")) as writer:
            for name, data in self.save_files().items():
                writer.write(name, data)

    def _chosen(self, named: str | None = None, tools: Any = None) -> ChatTemplate:
        """The template of a name, or of this text, or that of the conversations at hand. TokenizerError where there is
        none."""
        names = ", ".join(sorted(self.chat_templates))
        if named is not None:
            if named not in self.chat_templates and "{" not in named:
                if len(self.chat_templates) > 1:
                    raise TokenizerError(f"{self._source}: chat_template {named!r:.80} is not the name of a chat "
                                         f"template ({names}), nor the text of one, which holds Jinja")
                if named not in self._compiled:
                    warn(f"{self._source}: chat_template {named!r:.80} holds no Jinja, so that every conversation "
                         "becomes this text")
            return self._of(self.chat_templates.get(named, named))
        if tools is not None and WITH_TOOLS in self.chat_templates \
                and self.chat_template == self.chat_templates.get(DEFAULT):
            return self._of(self.chat_templates[WITH_TOOLS])
        if self.chat_template:
            return self._of(self.chat_template)
        if self.chat_templates and DEFAULT not in self.chat_templates:
            raise TokenizerError(f"{self._source}: has several chat templates, and none is named {DEFAULT}: {names}; "
                                 "name one: chat_template=NAME (of a trainer: chat_template_kwargs={'chat_template': "
                                 "NAME})")
        raise TokenizerError(f"{self._source}: has no chat template; pass text, or set tokenizer.chat_template")

    def _of(self, source: str) -> ChatTemplate:
        if source not in self._compiled:
            from .chat import ChatTemplate

            self._compiled = {**dict(list(self._compiled.items())[-MAX_COMPILED:]),
                              source: ChatTemplate(source, self._source)}
        return self._compiled[source]

    def _note_flags(self, config: Mapping[str, Any]) -> None:
        """Says where tokenizer_config.json asks for BOS or EOS and tokenizer.json, which decides, does otherwise."""
        ids = self.encode("a", add_special_tokens=True)
        for name, token, found in (("add_bos_token", self.bos_id, ids[:1]),
                                   ("add_eos_token", self._ids.get("eos_token"), ids[-1:])):
            if isinstance(config.get(name), bool) and token is not None and config[name] != (found == [token]):
                does = "adds" if found == [token] else "does not add"
                warn(f"{self._source}: tokenizer_config.json has {name} {str(config[name]).lower()}, and "
                     f"tokenizer.json {does} {self._backend.id_to_token(token)!r:.80}; tokenizer.json decides, as in "
                     "transformers 5")

    def _id_of(self, name: str, text: str) -> int:
        token = self._backend.token_to_id(text)
        if token is None:
            raise TokenizerError(f"{self._source}: {name} {text!r:.80} is not in the vocabulary")
        return token

    def _pieces(self, size: int) -> list[builtins.bytes]:
        added = {i: token.content for i, token in self._backend.get_added_tokens_decoder().items()}
        byte_level = special_tokens.byte_level(self._backend)
        to_byte = {char: byte for byte, char in enumerate(byte_alphabet())}
        pieces = [b""] * size
        for token, i in self._backend.get_vocab(with_added_tokens=True).items():
            if i >= size:
                continue
            if i in added:
                pieces[i] = added[i].encode()
            elif byte_level:
                pieces[i] = bytes(to_byte[c] for c in token) if all(c in to_byte for c in token) else token.encode()
            else:
                byte = re.fullmatch("<0x([0-9A-F]{2})>", token)
                pieces[i] = bytes([int(byte[1], 16)]) if byte else token.replace("▁", " ").encode()
        return pieces

    def _probe(self) -> None:
        text = "Hello, world! 2 + 2 = 4\n"
        back = self.decode(self.encode(text))
        if back.strip() != text.strip():
            warn(f"{self._source}: {text!r} comes back from this tokenizer as {back!r:.100}")


def row_variables(shared: Mapping[str, Any] | None, tools: Any = None,
                  chat_template_kwargs: Any = None) -> dict[str, Any]:
    """What a chat template is given for one row of data, beside its messages.

    shared: for all rows. chat_template_kwargs: the row's own, which go over them; None in it is as good as absent,
    since a table has the same columns in every row. tools: JSON schemas of functions, or the JSON text of a list of
    them. TokenizerError for anything else."""
    own = {} if chat_template_kwargs is None else chat_template_kwargs
    if not isinstance(own, Mapping):
        raise TokenizerError(f"chat_template_kwargs must be a dict of arguments of the chat template, not {own!r:.80}")
    variables = {**(shared or {}), **{name: value for name, value in own.items() if value is not None}}
    if reserved := sorted(variables.keys() & RESERVED):
        raise TokenizerError(f"chat_template_kwargs must not hold {', '.join(reserved)}; a prompt whose last message "
                             "is the assistant's is gone on with, any other gets a generation prompt")
    if tools is None:
        return variables
    try:
        listed = json.loads(tools) if isinstance(tools, str) else tools
    except ValueError as error:
        raise TokenizerError(f"tools is not JSON: {error}") from error
    check_tools(listed)
    return {**variables, "tools": list(listed) or None}


def check_tools(tools: Any) -> None:
    """TokenizerError for tools that are no list of JSON schemas of functions."""
    if tools is None:
        return
    schema = "{'type': 'function', 'function': {'name': ..., 'description': ..., 'parameters': ...}}"
    if callable(tools) or not isinstance(tools, Sequence) or isinstance(tools, str):
        raise TokenizerError(f"tools must be a list of JSON schemas of functions, {schema}, not {tools!r:.80}")
    for tool in tools:
        if callable(tool):
            raise TokenizerError(f"tools: {getattr(tool, '__name__', tool)!s:.80} is a Python function, and a chat "
                                 f"template shows JSON schemas: give {schema} in its place (transformers' "
                                 "get_json_schema makes one of a function)")
        if not isinstance(tool, Mapping):
            raise TokenizerError(f"tools must be a list of JSON schemas of functions, {schema}, not {tool!r:.80}")


def beginning(messages: Sequence[Mapping[str, Any]]) -> str:
    """The text of a last message that is the assistant's, after another: what it is to go on with; else an empty text.

    >>> beginning([{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "<think>"}])
    '<think>'
    """
    if len(messages) < 2 or messages[-1].get("role") != "assistant":
        return ""
    content = messages[-1].get("content")
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) if isinstance(part, Mapping) else str(part) for part in content)
    return content or ""


def load_backend(data: bytes, source: str) -> tokenizers.Tokenizer:
    """A tokenizer.json. TokenizerError for what the library cannot read, or should not."""
    from tokenizers import Tokenizer as Backend

    check(data, source)
    with _library_errors(lambda: f"{source}: not a tokenizer that the tokenizers library reads"):
        return Backend.from_str(data.decode("utf-8"))


@contextlib.contextmanager
def _library_errors(what: Callable[[], str]) -> Iterator[None]:
    """What the library raises, a panic of its Rust code included, becomes TokenizerError."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:                        # pyo3's PanicException is not an Exception
        raise TokenizerError(f"{what()}: {error!s:.300}") from error


def check_messages(messages: Any) -> list[dict[str, Any]]:
    """A conversation as plain data, or TokenizerError that says which message is wrong."""
    if isinstance(messages, (str, Mapping)) or not isinstance(messages, Sequence) or not messages:
        raise TokenizerError(f"a conversation is a non-empty list of {{'role', 'content'}}, not {messages!r:.80}")
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise TokenizerError(f"message {i} must be a dict with a text 'role', not {message!r:.80}")
        if not isinstance(message.get("content"), (str, list, type(None))):
            raise TokenizerError(f"message {i}: content must be text, not {message['content']!r:.80}")
    return [dict(message) for message in messages]


def _optional(path: Path) -> dict[str, Any]:
    return read_object(path) if there(path) else {}


def _listed(folder: Path, config: Mapping[str, Any], special: special_tokens.Special) -> Any:
    """added_tokens_decoder of tokenizer_config.json, or what added_tokens.json says in older folders, in its form."""
    if "added_tokens_decoder" in config:
        return config["added_tokens_decoder"] or {}
    specials = {*special.named.values(), *special.ends, *special.others}
    return {str(i): {"content": text, "special": text in specials, "normalized": text not in specials}
            for text, i in _optional(folder / "added_tokens.json").items()}


def _add_tokens(backend: tokenizers.Tokenizer, listed: Any, source: str) -> None:
    """Tokens that tokenizer_config.json lists and tokenizer.json does not have; their ids must come out as listed."""
    from tokenizers import AddedToken

    if not isinstance(listed, dict):
        raise TokenizerError(f"{source}: added_tokens_decoder must be an object")
    for key, value in sorted(listed.items(), key=lambda item: int(item[0]) if item[0].isdecimal() else -1):
        content = value.get("content") if key.isdecimal() and isinstance(value, dict) else None
        if not isinstance(content, str) or not content:
            raise TokenizerError(f"{source}: added_tokens_decoder entry {key!r:.40} is not an id with a content")
        flags = {name: bool(value.get(name)) for name in ("single_word", "lstrip", "rstrip", "normalized", "special")}
        if backend.token_to_id(value["content"]) is None:
            backend.add_tokens([AddedToken(value["content"], **flags)])
        if backend.token_to_id(value["content"]) != int(key):
            raise TokenizerError(f"{source}: token {value['content']!r:.80} has id "
                                 f"{backend.token_to_id(value['content'])} in tokenizer.json and {key} in "
                                 "added_tokens_decoder")


def _mark_special(backend: tokenizers.Tokenizer, special: special_tokens.Special) -> None:
    """Makes specials of tokens that are in the vocabulary: a text is not cut through them, and decode leaves them
    out. Tokens that were added already keep their ways, and one without a name keeps its place in texts."""
    from tokenizers import AddedToken

    added = {token.content: token for token in backend.get_added_tokens_decoder().values()}
    named = {*special.named.values(), *special.ends}
    tokens = [added.get(text, AddedToken(text, special=True, normalized=False))
              for text in dict.fromkeys([*special.named.values(), *special.ends, *special.others])
              if text not in added or text in named and not added[text].special]
    for token in tokens:
        token.special = True
    backend.add_special_tokens(tokens)


def _qwen_backend(folder: Path, config: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """vocab.json and merges.txt; their pre-tokenizer is in no file, so only Qwen's, which is known, is built."""
    kind = str(config.get("tokenizer_class", ""))
    if not kind.startswith("Qwen2Tokenizer"):
        raise TokenizerError(f"{folder}: no tokenizer.json, and vocab.json with tokenizer_class {kind or 'missing'} "
                             "does not say how text is split (only Qwen2Tokenizer is known); save it with "
                             "transformers' use_fast=True")
    vocabulary = read_object(folder / "vocab.json", MAX_TOKENIZER_JSON)
    if any(type(i) is not int or not 0 <= i < 1 << 22 for i in vocabulary.values()):
        raise TokenizerError(f"{folder / 'vocab.json'}: ids must be integers from 0")
    lines = read_bytes(folder / "merges.txt", MAX_TOKENIZER_JSON).decode("utf-8", errors="replace").split("\n")
    merges = [line for line in lines if line and not line.startswith("#version")]
    return byte_level_backend(vocabulary, merges, "qwen2", str(folder / "merges.txt"))
