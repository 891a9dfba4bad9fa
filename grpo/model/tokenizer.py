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
from .formats import tiktoken
from .formats.byte_level import byte_alphabet, byte_level_backend, set_bos_eos
from .formats.gguf_tokenizer import build
from .formats.gguf_vocabulary import vocabulary
from .formats.strict_json import read_bytes, read_object
from .formats.tokenizer_json import check

if TYPE_CHECKING:
    import tokenizers

    from .chat import ChatTemplate

MAX_TOKENIZER_JSON = 256 << 20
SPECIAL_NAMES = ("bos_token", "eos_token", "pad_token", "unk_token")
# Copied byte for byte by save_pretrained, so that what was read is what other programs read.
KEPT_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
              "merges.txt", tiktoken.FILE, "chat_template.jinja", "chat_template.json")
CHATML = ("{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + "
          "'<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")
SEEING_CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}{% if message['content'] is string %}"
    "{{ message['content'] }}{% else %}{% for part in message['content'] %}{{ '<|vision_start|><|image_pad|>"
    "<|vision_end|>' if part['type'] == 'image' else part['text'] }}{% endfor %}{% endif %}{{ '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")


class Tokenizer:
    """Encodes text, renders chats, and knows where a completion ends.

    `from_pretrained` reads a Hugging Face folder, `from_gguf` a GGUF's metadata, `bytes` needs no file.

    >>> tokenizer = Tokenizer.bytes()
    >>> tokenizer.encode("Hi!")
    [72, 105, 33]
    >>> tokenizer.decode([72, 105, 33, 258])
    'Hi!'
    """

    def __init__(self, backend: tokenizers.Tokenizer, *, special: Mapping[str, str] | None = None,
                 eos_ids: Sequence[int] = (), chat_template: str | None = None,
                 files: Mapping[str, bytes] | None = None, source: str = "tokenizer",
                 apart: re.Pattern[str] | None = None) -> None:
        """``special``: texts of bos_token, eos_token, pad_token, unk_token; ``eos_ids``: further ids that end a
        completion; ``apart``: its first group is encoded by itself, wherever it matches."""
        backend.no_truncation()
        backend.no_padding()
        self._backend, self._source, self._files, self._apart = backend, source, dict(files or {}), apart
        self.special = dict(special or {})
        vocabulary = backend.get_vocab(with_added_tokens=True)
        if not vocabulary:
            raise TokenizerError(f"{source}: the vocabulary is empty")
        self.vocab_size = max(vocabulary.values()) + 1
        self._ids = {name: self._id_of(name, text) for name, text in self.special.items()}
        for token in eos_ids:
            if type(token) is not int or not 0 <= token < self.vocab_size:
                raise TokenizerError(f"{source}: end-of-text id {token!r:.40} is not an id of this tokenizer (0 to "
                                     f"{self.vocab_size - 1})")
        self.eos_ids = list(dict.fromkeys([*eos_ids, *([self._ids["eos_token"]] if "eos_token" in self._ids else [])]))
        self.bos_id: int | None = self._ids.get("bos_token")
        self.pad_id: int | None = self._ids.get("pad_token", self.eos_ids[0] if self.eos_ids else None)
        if chat_template is not None and not isinstance(chat_template, str):
            raise TokenizerError(f"{source}: chat_template must be text, not {type(chat_template).__name__}")
        self._template: ChatTemplate | None = None
        self._loaded_template = self.chat_template = chat_template
        self._bytes: tuple[np.ndarray, builtins.bytes] | None = None
        self._probe()

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Tokenizer:
        """From tokenizer.json, or vocab.json and merges.txt of a Qwen, or qwen.tiktoken; eos ids from
        generation_config.json, then config.json."""
        folder = Path(folder)
        config, model_config = _optional(folder / "tokenizer_config.json"), _optional(folder / "config.json")
        generation, ranks = _optional(folder / "generation_config.json"), None
        if (folder / "tokenizer.json").is_file():
            backend = load_backend(read_bytes(folder / "tokenizer.json", MAX_TOKENIZER_JSON),
                                   str(folder / "tokenizer.json"))
        elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            backend = _qwen_backend(folder, config)
        elif (folder / tiktoken.FILE).is_file():
            ranks = tiktoken.build(read_bytes(folder / tiktoken.FILE, tiktoken.MAX_FILE), "visual" in model_config,
                                   generation.get("chat_format") != "raw", str(folder / tiktoken.FILE))
            backend = ranks.backend
        else:
            raise TokenizerError(f"{folder}: has no tokenizer.json (nor vocab.json and merges.txt, nor "
                                 f"{tiktoken.FILE})")
        source = str(folder / "tokenizer_config.json")
        special = {**(ranks.special if ranks else {}),
                   **_special_texts(config, _optional(folder / "special_tokens_map.json"), source)}
        _add_tokens(backend, config, special, source)
        if "add_bos_token" in config or "add_eos_token" in config:
            set_bos_eos(backend, special, bool(config.get("add_bos_token")), bool(config.get("add_eos_token")))
        eos = generation.get("eos_token_id")
        for part in (model_config, model_config.get("text_config") or {}):
            eos = part.get("eos_token_id") if eos is None else eos
        eos_ids = eos if isinstance(eos, list) else [] if eos is None else [eos]
        template = _template_text(folder, config)
        if ranks:
            eos_ids, template = [*ranks.ends, *eos_ids], ranks.template if template is None else template
        files = {name: read_bytes(folder / name, MAX_TOKENIZER_JSON) for name in KEPT_FILES
                 if (folder / name).is_file()}
        return cls(backend, special=special, eos_ids=eos_ids, chat_template=template, files=files, source=str(folder),
                   apart=tiktoken.HEADER if ranks else None)

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any], source: str = "GGUF") -> Tokenizer:
        """From the tokenizer.ggml.* keys of a GGUF file."""
        backend, special, eos_ids = build(metadata, source)
        template = metadata.get("tokenizer.chat_template")
        return cls(backend, special=special, eos_ids=eos_ids, chat_template=template, source=source)

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
        wants one."""
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
    def apply_chat_template(self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = ...,
                            tokenize: Literal[False] = ..., **variables: Any) -> str: ...
    @overload
    def apply_chat_template(self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = ..., *,
                            tokenize: Literal[True], **variables: Any) -> list[int]: ...
    def apply_chat_template(self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True,
                            tokenize: bool = False, **variables: Any) -> str | list[int]:
        """The prompt of a conversation, a list of {"role", "content"}, as text or ids. A content is text, or parts,
        where an image is one placeholder. ``variables`` reach the template (``tools``, ``enable_thinking`` ...).

        With the generation prompt, a last message of the assistant's is the beginning of what the model says: its text
        follows the generation prompt, and the turn stays open."""
        if not self.chat_template:
            raise TokenizerError(f"{self._source}: has no chat template; pass text, or set tokenizer.chat_template")
        template = self._compiled()
        variables = {"tools": None, "documents": None, **self.special, **variables}
        messages = check_messages(messages)
        begun = beginning(messages) if add_generation_prompt else ""
        text = template.render(messages[:-1] if begun else messages, add_generation_prompt=add_generation_prompt,
                               **variables) + begun
        return self.encode(text) if tokenize else text

    def template_reads(self, name: str) -> bool:
        """Whether the chat template has a variable of this name; False without a template."""
        return bool(self.chat_template) and name in self._compiled().variables

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

    def save_files(self) -> dict[str, builtins.bytes]:
        """What save_pretrained writes, by file name: the files that were read, or new ones for a tokenizer that came
        from none."""
        files = dict(self._files)
        if not files:
            config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False,
                      "model_max_length": 1 << 30, **self.special}
            files = {"tokenizer.json": self._backend.to_str(pretty=True).encode(),
                     "tokenizer_config.json": json.dumps(config, indent=2, ensure_ascii=False).encode() + b"\n"}
        if self.chat_template and (self.chat_template != self._loaded_template or not self._files):
            files["chat_template.jinja"] = self.chat_template.encode()
        return files

    def to_gguf(self, rows: int) -> dict[str, Any]:
        """The metadata of a GGUF that from_gguf reads back, for a model whose embedding has so many rows.
        TokenizerError for a tokenizer that GGUF has no word for."""
        metadata = vocabulary(self._backend, self.special, self.eos_ids, rows, self._source)
        return metadata | ({"tokenizer.chat_template": self.chat_template} if self.chat_template else {})

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the files that transformers and this class read back."""
        from .formats.folder import FolderWriter

        with FolderWriter(Path(folder)) as writer:
            for name, data in self.save_files().items():
                writer.write(name, data)

    def _compiled(self) -> ChatTemplate:
        if self._template is None or self._template.source != self.chat_template:
            from .chat import ChatTemplate

            self._template = ChatTemplate(self.chat_template or "", self._source)
        return self._template

    def _id_of(self, name: str, text: str) -> int:
        token = self._backend.token_to_id(text)
        if token is None:
            raise TokenizerError(f"{self._source}: {name} {text!r:.80} is not in the vocabulary")
        return token

    def _pieces(self, size: int) -> list[builtins.bytes]:
        added = {i: token.content for i, token in self._backend.get_added_tokens_decoder().items()}
        byte_level = self._backend.decoder is not None and b'"ByteLevel"' in self._backend.decoder.__getstate__()
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
    if reserved := sorted(variables.keys() & {"messages", "tokenize", "add_generation_prompt"}):
        raise TokenizerError(f"chat_template_kwargs must not hold {', '.join(reserved)}")
    if tools is None:
        return variables
    try:
        listed = json.loads(tools) if isinstance(tools, str) else tools
    except ValueError as error:
        raise TokenizerError(f"tools is not JSON: {error}") from error
    if not isinstance(listed, Sequence) or not all(isinstance(tool, Mapping) for tool in listed):
        raise TokenizerError(f"tools must be a list of JSON schemas of functions, not {tools!r:.80}")
    return {**variables, "tools": list(listed) or None}


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
    return read_object(path) if path.is_file() else {}


def _special_texts(config: Mapping[str, Any], fallback: Mapping[str, Any], source: str) -> dict[str, str]:
    texts = {}
    for name in SPECIAL_NAMES:
        value = config.get(name, fallback.get(name))
        value = value.get("content") if isinstance(value, dict) else value
        if value is not None:
            if not isinstance(value, str) or not value:
                raise TokenizerError(f"{source}: {name} must be text, not {value!r:.80}")
            texts[name] = value
    return texts


def _add_tokens(backend: tokenizers.Tokenizer, config: Mapping[str, Any], special: Mapping[str, str],
                source: str) -> None:
    """Tokens that tokenizer_config.json lists and tokenizer.json does not have; their ids must come out as listed."""
    from tokenizers import AddedToken

    listed = config.get("added_tokens_decoder") or {}
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
    added = {token.content for token in backend.get_added_tokens_decoder().values()}
    backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special.values()
                                if text not in added and backend.token_to_id(text) is not None])


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


def _template_text(folder: Path, config: Mapping[str, Any]) -> str | None:
    """chat_template.jinja, else chat_template.json, else tokenizer_config.json (of several, the one named default)."""
    if (folder / "chat_template.jinja").is_file():
        try:
            return read_bytes(folder / "chat_template.jinja", 4 << 20).decode("utf-8")
        except UnicodeDecodeError as error:
            raise TokenizerError(f"{folder / 'chat_template.jinja'}: not UTF-8 at byte {error.start}") from error
    template = _optional(folder / "chat_template.json").get("chat_template", config.get("chat_template"))
    if isinstance(template, list):
        return next((entry.get("template") for entry in template if isinstance(entry, dict)
                     and entry.get("name") == "default"), None)
    return template
