"""Model: weights, tokenizer and config of one language model, and the calls that run it on NumPy arrays and text."""
from __future__ import annotations

import difflib
import json
import math
import os
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from .. import _core
from ..errors import ConfigError, FileFormatError, TokenizerError
from .devices import pick_device
from .families import Config, Spec, families, family_of, spec_of, text_of
from .tokenizer import Tokenizer
from .tokenizer_sources import NoTokenizer, eos_ids_of, given, of_folder, of_gguf

if TYPE_CHECKING:
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]
    I32 = NDArray[np.int32]

Prompt = str | Sequence[int] | Sequence[Mapping[str, Any]]
IGNORED = re.compile(r".*\.rotary_emb\.inv_freq|.*\.attn\.masked_bias")


@dataclass(frozen=True)
class Completion:
    """One sampled answer. ``logprobs`` are of the distribution that was drawn from (after top-k, top-p, min-p);
    ``policy_logprobs`` and ``entropies`` of the whole softmax at the sampling temperature. ``token_ids`` include the
    end-of-text id; ``text`` has neither specials nor the stop string."""

    text: str
    token_ids: list[int]
    logprobs: F32                        # one a token
    entropies: F32
    finish_reason: str                                   # "stop" | "length"
    prompt_ids: list[int]
    policy_logprobs: F32


class Weights(Protocol):
    """Where tensors come from: a safetensors folder or a GGUF."""

    source: str

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of every tensor, by Hugging Face name."""

    def read(self, name: str) -> np.ndarray:
        """float32, float16, or uint16 holding bfloat16 bits."""

    def close(self) -> None:
        """The files are not needed any more."""


class Renamed:
    """Weights whose files may have older names. old_names: {what a name begins with: what it began with}."""

    def __init__(self, weights: Weights, old_names: Mapping[str, str]) -> None:
        self.source, self._weights = weights.source, weights
        found = weights.shapes()
        old = bool(old_names) and not any(name.startswith(new) for name in found for new in old_names)
        # The longest beginning first: "model.visual." would else be taken for one of "model.".
        begins = sorted(((now, new) for new, now in old_names.items()), key=lambda each: -len(each[0])) if old else []
        self._names = {next((new + name.removeprefix(now) for now, new in begins if name.startswith(now)), name): name
                       for name in found}
        self._shapes = {name: found[there] for name, there in self._names.items()}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of every tensor, by its name now."""
        return self._shapes

    def read(self, name: str) -> np.ndarray:
        """The tensor of a name of now."""
        return self._weights.read(self._names[name])

    def close(self) -> None:
        """The files are not needed any more."""
        self._weights.close()


@dataclass(frozen=True)
class TinySpec:
    """A model to be built with random weights: what `tiny` returns and `load` takes."""

    config: dict[str, Any]
    seed: int = 0
    tokenizer: Tokenizer = field(default_factory=Tokenizer.bytes)


def tiny(arch: str = "qwen2", seed: int = 0, tokens: Sequence[str] = (), **sizes: Any) -> TinySpec:
    """A small random model (about 1.6 M parameters) with a byte tokenizer, for `load`.

    ``arch``: "qwen2", "qwen3", "llama", "mistral" or "gemma3". ``tokens``: texts that are one token each, besides the
    bytes. ``sizes``: config keys (hidden_size, num_hidden_layers, num_attention_heads, num_key_value_heads, head_dim,
    intermediate_size, vocab_size, rope_theta, tie_word_embeddings, sliding_window ...).

    >>> tiny(num_hidden_layers=2).config["num_hidden_layers"]
    2
    """
    if not isinstance(seed, Integral) or not 0 <= seed < 1 << 64:
        raise ConfigError(f"seed must be an integer from 0 to 2^64 - 1, not {seed!r:.80}")
    if arch not in families():
        raise ConfigError(f"arch {arch!r} is not known; choose from {', '.join(families())}")
    family = families()[arch]
    config = {"architectures": [family.architecture], "model_type": family.model_type, "hidden_size": 192,
              "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 3, "num_key_value_heads": 1,
              "head_dim": None, "vocab_size": 259 + len(tokens), "hidden_act": "silu", "rms_norm_eps": 1e-6,
              "rope_theta": 10000.0, "rope_scaling": None, "max_position_embeddings": 4096, "tie_word_embeddings": True,
              "initializer_range": 0.02, "bos_token_id": None, "eos_token_id": 258, "pad_token_id": 256}
    config |= family.tiny
    choices = config.keys() | family.defaults.keys()
    for key in sizes:
        if key not in choices or key in ("architectures", "model_type"):
            close = difflib.get_close_matches(key, choices, 1)
            raise ConfigError(f"tiny() has no size {key!r}" + (f"; did you mean {close[0]!r}?" if close else ""))
    config = {key: value for key, value in (config | sizes).items() if value is not None
              or key not in ("rope_scaling", "hidden_act")}
    Config(config, "tiny()").number("initializer_range", low=0.0, high=1e6)
    config["head_dim"] = spec_of(config, "tiny()").layers[0].attention.head_dim
    return TinySpec(config, seed, Tokenizer.bytes(tokens))


def load(path_or_id: str | os.PathLike[str] | TinySpec, device: str = "auto", dtype: str | None = None,
         tokenizer: Any = None) -> Model:
    """A model from a Hugging Face folder, a .gguf file, a hub id, or `tiny(...)`.

    ``device``: "cpu" or "cuda" (bfloat16 weights), "auto" ("cuda" when a GPU answers, else "cpu"), "ref" (float32,
    slow, for checking). ``dtype``: None or the device's own. ``tokenizer``: in place of the model's own, or where it
    has none: a Tokenizer, a folder, a tokenizer.json, a .gguf, or a tokenizer of tokenizers or transformers. A model
    without any takes token ids. Raises FileFormatError (file and tensor), UnsupportedModelError, TokenizerError,
    ConfigError or DeviceError.

    >>> model = load(tiny(num_hidden_layers=1))                                                      # doctest: +SKIP
    >>> model.generate("2 + 2 =", max_new_tokens=4)[0].text                                          # doctest: +SKIP
    """
    device = pick_device(device, dtype)
    if isinstance(path_or_id, TinySpec):
        return _load_tiny(path_or_id if tokenizer is None else replace(path_or_id, tokenizer=given(tokenizer)), device)
    if not isinstance(path_or_id, (str, os.PathLike)):
        other = repr(path_or_id)
        if hasattr(path_or_id, "save_pretrained"):
            other = f"a {type(path_or_id).__name__}; give the folder of its save_pretrained()"
        raise ConfigError(f"load() takes a path, a hub id or grpo.tiny(...), not {other:.120}")
    from .hub import resolve

    path = resolve(path_or_id)
    if path.is_dir():
        return _load_folder(path, device, tokenizer)
    if path.suffix == ".gguf":
        return _load_gguf(path, device, tokenizer)
    if path.suffix in (".bin", ".pt", ".pth"):
        from .formats.safetensors import pickle_advice

        raise FileFormatError(f"{path}: {pickle_advice(path.name)}")
    raise FileFormatError(f"{path}: a model is a folder (config.json, *.safetensors, tokenizer.json) or a .gguf file")


class Model:
    """A language model on one device. Made by `load`; `core` is the C object that holds the weights."""

    def __init__(self, core: _core.Model, config: dict[str, Any], tokenizer: Tokenizer,
                 generation_config: dict[str, Any] | None = None) -> None:
        self.core, self.config, self.tokenizer = core, config, tokenizer
        self.generation_config = dict(generation_config or {})
        self.device: str = core.device
        self.dtype: str = core.dtype
        self.text_config = text_of(config)               # config.json's keys of the text, wherever it has them

    def generate(self, prompts: Prompt | Sequence[Prompt], num_generations: int = 1, max_new_tokens: int = 256,
                 temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0,
                 repetition_penalty: float = 1.0, min_new_tokens: int = 0, stop: str | Sequence[str] | None = None,
                 seed: int = 0) -> list[Completion]:
        """``num_generations`` completions a prompt, prompt by prompt.

        ``prompts``: a list of texts (encoded as they are), of chats (lists of {"role", "content"}), of token-id lists,
        or a single one of these. ``temperature`` 0 is greedy. ``stop``: text that ends a completion. The same prompts
        and seed give the same tokens, whatever the number of threads.
        """
        ids = [self._named_prompt(prompt, i) for i, prompt in enumerate(_as_list(prompts))]
        out = self.generate_ids(ids, num_generations, max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p,
                                min_p=min_p, repetition_penalty=repetition_penalty, min_new_tokens=min_new_tokens,
                                stop=stop, seed=seed)
        ends = np.cumsum(out["lengths"])
        completions = []
        for i, (begin, end) in enumerate(zip(ends - out["lengths"], ends, strict=True)):
            tokens = out["tokens"][begin:end].tolist()
            text = self._text_before_stop(tokens, _stops(stop)) if out["finish"][i] == 2 else self.text_of(tokens)
            completions.append(Completion(
                text=text, token_ids=tokens, logprobs=out["logprobs"][begin:end], entropies=out["entropies"][begin:end],
                finish_reason="stop" if out["finish"][i] else "length", prompt_ids=ids[i // num_generations].tolist(),
                policy_logprobs=out["policy_logprobs"][begin:end]))
        return completions

    def generate_ids(self, prompt_ids: Sequence[I32], num_generations: int, max_new_tokens: int, *,
                     temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0,
                     repetition_penalty: float = 1.0, min_new_tokens: int = 0, stop: str | Sequence[str] | None = None,
                     forbidden_ids: Sequence[int] | None = None, seed: int = 0, step: int = 0, first_prompt: int = 0,
                     slots: int | None = None, store: _core.Store | None = None, store_rows: int = 0,
                     progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
        """What ``_core.Model.generate`` returns (flat arrays, prompt-major), with stop ids and token texts of the
        tokenizer."""
        check_sampling(num_generations, max_new_tokens, temperature, top_k, top_p, min_p, repetition_penalty,
                       min_new_tokens, seed)
        prompts = [self._ids(ids, f"prompt {i}") for i, ids in enumerate(prompt_ids)]
        for i, ids in enumerate(prompts):
            self._check_length(ids, max_new_tokens, i)
        arguments: dict[str, Any] = {"stop_ids": np.asarray(self.tokenizer.eos_ids, np.int32)}
        if _stops(stop):
            offsets, text = self.tokenizer.token_bytes(self.text_config["vocab_size"])
            arguments |= {"stop_strings": [s.encode() for s in _stops(stop)], "token_offsets": offsets,
                          "token_bytes": text}
        if forbidden_ids is not None:
            arguments["forbidden_ids"] = self._ids(forbidden_ids, "forbidden_ids")
        if slots is not None:
            arguments["slots"] = slots
        return self.core.generate(prompts, num_generations, max_new_tokens, temperature=float(temperature), top_k=top_k,
                                  top_p=float(top_p), min_p=float(min_p), repetition_penalty=float(repetition_penalty),
                                  min_new_tokens=min_new_tokens, seed=seed, step=step, first_prompt=first_prompt,
                                  store=store, store_rows=store_rows, progress=progress, **arguments)

    def prompt_ids(self, prompt: Prompt) -> I32:
        """Token ids of one prompt: text as it is (with BOS where the model has one), a chat through the chat template
        with the generation prompt, ids as themselves."""
        if isinstance(prompt, str):
            return self._ids(self.tokenizer.encode(prompt, add_special_tokens=True), "prompt")
        if isinstance(prompt, Sequence) and prompt and isinstance(prompt[0], Mapping):
            chat = cast("Sequence[Mapping[str, Any]]", prompt)
            return self._ids(self.tokenizer.apply_chat_template(chat, tokenize=True), "prompt")
        return self._ids(prompt, "prompt")

    def take_tokenizer(self, tokenizer: Any) -> None:
        """Another tokenizer for this model: what ``tokenizer`` of `load` may be. TokenizerError where it does not
        fit."""
        found = given(tokenizer, self.tokenizer.eos_ids)
        _check_vocabulary(found, self.config, "tokenizer=")
        self.tokenizer = found

    def text_of(self, ids: Sequence[int]) -> str:
        """The text of token ids, without specials; empty where the model has no tokenizer."""
        return "" if isinstance(self.tokenizer, NoTokenizer) else self.tokenizer.decode(ids)

    def logprobs(self, prompt_ids: Sequence[int] | Sequence[Sequence[int]], completions_ids: Sequence[Sequence[int]],
                 temperature: float = 1.0, entropies: bool = False) -> Any:
        """Log-probability of every completion token, a float32 array a completion (and the entropies as a second list).

        ``prompt_ids``: one prompt (ids) that all completions share, or a list of prompts, one a completion.
        """
        prompts, completions, group = self._batch(prompt_ids, completions_ids)
        logps, entropy = self.core.logprobs(prompts, completions, group, temperature=float(temperature))
        rows = _ragged(logps, completions)
        return (rows, _ragged(entropy, completions)) if entropies else rows

    def logprob_grads(self, prompt_ids: Sequence[int] | Sequence[Sequence[int]],
                      completions_ids: Sequence[Sequence[int]],
                      coef: Sequence[Sequence[float]]) -> tuple[list[F32], dict[str, F32]]:
        """(log-probabilities, gradient of sum(coef * logprob) by Hugging Face tensor name). ``coef``: one number a
        completion token."""
        prompts, completions, group = self._batch(prompt_ids, completions_ids)
        rows = [np.asarray(row, np.float32).reshape(-1) for row in coef]
        for i, (row, completion) in enumerate(zip(rows, completions, strict=False)):
            if len(row) != len(completion):
                raise ConfigError(f"coef {i} has {len(row)} numbers, completion {i} has {len(completion)} tokens")
        if len(rows) != len(completions):
            raise ConfigError(f"{len(rows)} rows of coef for {len(completions)} completions")
        logps, grads = self.core.logprob_grads(prompts, completions, group, np.concatenate(rows))
        return _ragged(logps, completions), grads

    def embed(self, texts: Sequence[str | Sequence[int]], token_budget: int = 1024) -> F32:
        """Vectors of texts (or token-id lists), (n, hidden_size) float32: the mean over its tokens of the last hidden
        states, after the final norm. No special tokens are added. ``token_budget``: tokens run together; the results
        are the same bits.

        >>> load(tiny(num_hidden_layers=1)).embed(["four", "vier"]).shape                            # doctest: +SKIP
        (2, 192)
        """
        ids = [self._ids(self.tokenizer.encode(text) if isinstance(text, str) else text, f"text {i}")
               for i, text in enumerate(texts)]
        limit = self.text_config.get("max_position_embeddings") or math.inf
        for i, text in enumerate(ids):
            if not 0 < len(text) <= limit:
                raise ConfigError(f"text {i} has {len(text)} tokens; at least 1 and at most {limit} can be embedded")
        return self.core.embed(ids, token_budget=token_budget)

    def state_dict(self) -> dict[str, F32]:
        """Every parameter as float32, by Hugging Face name; a tied lm_head is not among them."""
        return {name: self.core.get_tensor(name) for name, _ in self.core.tensors()}

    def num_parameters(self) -> int:
        """How many numbers the weights are; a tied head counts once."""
        return sum(math.prod(shape) for _, shape in self.core.tensors())

    def copy(self) -> Model:
        """A second model with the same weights (a reference, for example)."""
        core = _core.Model(self.device, spec_of(self.config))
        for name, _ in core.tensors():
            core.set_tensor(name, self.core.get_tensor(name))
        return Model(core, dict(self.config), self.tokenizer, self.generation_config)

    def save_pretrained(self, folder: str | os.PathLike[str], dtype: str | None = None,
                        max_shard_size: int | str = "5GB") -> None:
        """A Hugging Face folder that transformers and `load` read back: config.json, generation_config.json,
        safetensors, tokenizer files. ``dtype``: "bfloat16" or "float32"; None is the device's own. Files appear whole
        or not at all."""
        from .formats.folder import FolderWriter
        from .formats.safetensors import INDEX_FILE, SINGLE_FILE, WRITABLE, write_weights

        dtype = dtype or self.dtype
        if dtype not in WRITABLE:
            raise ConfigError(f"dtype {dtype!r} cannot be saved; choose from {', '.join(WRITABLE)}")
        config = {**self.config, "dtype": dtype, "torch_dtype": dtype}
        ours = re.compile(rf"{SINGLE_FILE}|{INDEX_FILE}|model-\d+-of-\d+\.safetensors")
        with FolderWriter(Path(folder)) as writer:
            in_files = family_of(self.config, "config.json").name_in_files
            names = {in_files(name): name for name, _ in self.core.tensors()}
            written = write_weights(writer.open, [(in_files(name), shape) for name, shape in self.core.tensors()],
                                    lambda name: self.core.get_tensor(names[name]), dtype, max_shard_size)
            for name, data in self.tokenizer.save_files().items():
                writer.write(name, data)
            writer.write("generation_config.json", _json(self.generation_config))
            writer.write("config.json", _json(config))
            for path in writer.folder.glob("model*.safetensors*"):
                if path.name not in written and ours.fullmatch(path.name):
                    writer.remove(path.name)

    def _named_prompt(self, prompt: Prompt, i: int) -> I32:
        try:
            return self.prompt_ids(prompt)
        except (ConfigError, TokenizerError) as error:
            raise type(error)(f"prompt {i}: {error}") from error

    def _ids(self, ids: Any, what: str) -> I32:
        try:
            array = np.asarray(ids)
        except ValueError:                               # lists of unequal lengths
            array = np.empty((0, 0))
        if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
            raise ConfigError(f"{what} must be text, a chat or a list of token ids, not {ids!r:.80}")
        if array.size and not (array.min() >= 0 and array.max() < self.text_config["vocab_size"]):
            wrong = array[(array < 0) | (array >= self.text_config["vocab_size"])][0]
            raise ConfigError(f"{what}: token id {wrong} is outside the vocabulary (0 to "
                              f"{self.config['vocab_size'] - 1})")
        return array.astype(np.int32)

    def _batch(self, prompt_ids: Any, completions_ids: Any) -> tuple[list[I32], list[I32], I32]:
        """(prompts, completions, group) for the core; neighbours with the same prompt share it."""
        for name, value in (("prompt_ids", prompt_ids), ("completions_ids", completions_ids)):
            if not isinstance(value, (Sequence, np.ndarray)):
                raise ConfigError(f"{name} must be a list, not {value!r:.80}")
        completions = [self._ids(ids, f"completion {i}") for i, ids in enumerate(completions_ids)]
        if not completions:
            raise ConfigError("no completions")
        one = len(prompt_ids) > 0 and not isinstance(prompt_ids[0], (Sequence, np.ndarray))
        named = [("prompt", prompt_ids)] if one else [(f"prompt {i}", ids) for i, ids in enumerate(prompt_ids)]
        rows = [self._ids(ids, name) for name, ids in named]
        if not one and len(rows) != len(completions):
            raise ConfigError(f"{len(rows)} prompts for {len(completions)} completions; give one prompt, or one a "
                              "completion")
        for i, completion in enumerate(completions):
            self._check_length(rows[0 if one else i], len(completion), 0 if one else i)
        if one:
            return rows, completions, np.zeros(len(completions), np.int32)
        new = [i == 0 or not np.array_equal(rows[i], rows[i - 1]) for i in range(len(rows))]
        group = (np.cumsum(new) - 1).astype(np.int32)
        return [row for row, first in zip(rows, new, strict=True) if first], completions, group

    def _check_length(self, ids: I32, more: int, i: int) -> None:
        limit = self.text_config.get("max_position_embeddings")
        if not len(ids):
            raise ConfigError(f"prompt {i} is empty")
        if limit and len(ids) + more > limit:
            raise ConfigError(f"prompt {i} has {len(ids)} tokens; with {more} of completion that is more than this "
                              f"model's max_position_embeddings of {limit}")

    def _text_before_stop(self, tokens: list[int], stops: list[str]) -> str:
        """The stop string ends inside the last token; whatever follows it there is dropped with it."""
        text = self.tokenizer.decode(tokens, skip_special_tokens=False)
        before_last = len(self.tokenizer.decode(tokens[:-1], skip_special_tokens=False))
        found = [text.rfind(stop) for stop in stops]
        cuts = [cut for cut, stop in zip(found, stops, strict=True) if cut >= 0 and cut + len(stop) > before_last]
        text = text[:min(cuts, default=len(text))]
        for token in self.tokenizer.special_ids.intersection(tokens):
            text = text.replace(self.tokenizer.decode([token], skip_special_tokens=False), "")
        return text


def check_sampling(num_generations: int, max_new_tokens: int, temperature: float, top_k: int, top_p: float,
                   min_p: float, repetition_penalty: float, min_new_tokens: int, seed: int) -> None:
    """ConfigError that names the first option that is not what generate() takes."""
    for name, value, kind, right, allowed in (
            ("num_generations", num_generations, Integral, lambda n: n >= 1, "an integer, at least 1"),
            ("max_new_tokens", max_new_tokens, Integral, lambda n: n >= 1, "an integer, at least 1"),
            ("temperature", temperature, Real, lambda t: 0 <= t < math.inf, "0 (greedy) or a positive number"),
            ("top_k", top_k, Integral, lambda k: 0 <= k < 1 << 31, "0 (off) or a positive integer below 2^31"),
            ("top_p", top_p, Real, lambda p: 0 < p <= 1, "above 0 and at most 1 (off)"),
            ("min_p", min_p, Real, lambda p: 0 <= p <= 1, "from 0 (off) to 1"),
            ("repetition_penalty", repetition_penalty, Real, lambda r: 0 < r < math.inf,
             "a positive number (1 is off)"),
            ("min_new_tokens", min_new_tokens, Integral, lambda n: 0 <= n <= max_new_tokens,
             f"an integer from 0 to max_new_tokens ({max_new_tokens})"),
            ("seed", seed, Integral, lambda s: 0 <= s < 1 << 64, "an integer from 0 to 2^64 - 1")):
        if not isinstance(value, kind) or not right(value):
            raise ConfigError(f"{name} must be {allowed}, not {value!r:.80}")


def _load_tiny(spec: TinySpec, device: str) -> Model:
    _check_vocabulary(spec.tokenizer, spec.config, "tiny()")
    network = spec_of(spec.config, "tiny()")
    core = _core.Model(device, network)
    depth = 1 / math.sqrt(2 * spec.config["num_hidden_layers"])
    for name, shape in core.tensors():
        # One stream a tensor, by name: the numbers do not depend on the order in which the core lists them.
        rng = np.random.Generator(np.random.Philox(key=np.array([spec.seed, zlib.crc32(name.encode())], np.uint64)))
        if name.endswith("norm.weight"):
            core.set_tensor(name, np.full(shape, 1 - network.norm_offset, np.float32))
            continue
        into_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
        scale = spec.config["initializer_range"] * (depth if into_residual else 1)
        core.set_tensor(name, rng.standard_normal(shape, np.float32) * np.float32(scale))
    eos = spec.tokenizer.eos_ids
    return Model(core, dict(spec.config), spec.tokenizer, {"eos_token_id": eos, "pad_token_id": spec.tokenizer.pad_id})


def _load_folder(folder: Path, device: str, tokenizer: Any = None) -> Model:
    from .formats.safetensors import SafetensorsFolder
    from .formats.strict_json import read_object

    config = read_object(folder / "config.json")
    spec = spec_of(config, str(folder / "config.json"))
    generation_file = folder / "generation_config.json"
    generation = read_object(generation_file) if generation_file.is_file() else {}
    eos_ids = eos_ids_of(generation, config, vocab_size=spec.vocab_size, source=str(folder))
    found = of_folder(folder, eos_ids) if tokenizer is None else given(tokenizer, eos_ids)
    _check_vocabulary(found, config, str(folder))
    weights = Renamed(SafetensorsFolder(folder), family_of(config, str(folder)).old_names)
    return Model(_fill(weights, device, spec), config, found,
                 generation if generation_file.is_file() else {"eos_token_id": found.eos_ids})


def _load_gguf(path: Path, device: str, tokenizer: Any = None) -> Model:
    from .formats.gguf import GgufFile

    file = GgufFile(path)
    try:
        spec = spec_of(file.config, str(path))
        found = of_gguf(file.metadata, str(path)) if tokenizer is None else given(tokenizer)
        _check_vocabulary(found, file.config, str(path))
    except BaseException:
        file.close()
        raise
    ids = {"bos_token_id": found.bos_id, "eos_token_id": found.eos_ids, "pad_token_id": found.pad_id}
    return Model(_fill(file, device, spec), {**file.config, **ids}, found, ids)


def _check_vocabulary(tokenizer: Tokenizer, config: Mapping[str, Any], source: str) -> None:
    size = text_of(config)["vocab_size"]
    if tokenizer.vocab_size > size:
        raise TokenizerError(f"{source}: the tokenizer has ids up to {tokenizer.vocab_size - 1}, the model a "
                             f"vocab_size of {size}")


def _fill(weights: Weights, device: str, spec: Spec) -> _core.Model:
    """A core with every tensor set; names and shapes are compared before anything is read."""
    try:
        shapes = weights.shapes()
        _check_corners(shapes, spec, weights.source)
        core = _core.Model(device, spec)
        _check_tensors(shapes, dict(core.tensors()), spec.tie, weights.source)
        for name, _ in core.tensors():
            core.set_tensor(name, weights.read(name))
        return core
    finally:
        weights.close()


def _check_corners(shapes: Mapping[str, tuple[int, ...]], spec: Spec, source: str) -> None:
    """The largest tensors and the last layer fit the config, so that a wrong config fails before memory is asked
    for."""
    corners = {f"{spec.prefix}embed_tokens.weight": (spec.vocab_size, spec.hidden_size),
               f"{spec.prefix}layers.{len(spec.layers) - 1}.mlp.down_proj.weight":
                   (spec.hidden_size, spec.layers[-1].mlp.width)}
    _raise_differences([_difference(name, shape, shapes.get(name)) for name, shape in corners.items()
                        if shapes.get(name) != shape], source)


def _check_tensors(shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], tie: bool,
                   source: str) -> None:
    wrong = [_difference(name, tuple(shape), shapes.get(name)) for name, shape in expected.items()
             if shapes.get(name) != tuple(shape)]
    extra = [name for name in shapes if name not in expected and not IGNORED.fullmatch(name)
             and not (tie and name == "lm_head.weight")]
    _raise_differences(wrong + [f"{name} is not a tensor of this model" for name in extra], source)


def _difference(name: str, expected: tuple[int, ...], found: tuple[int, ...] | None) -> str:
    return f"{name} is missing" if found is None else f"{name} has shape {found}, the config says {expected}"


def _raise_differences(lines: list[str], source: str) -> None:
    if lines:
        more = f"\n  and {len(lines) - 10} more" if len(lines) > 10 else ""
        raise FileFormatError(f"{source}: {len(lines)} tensor(s) do not fit config.json:\n  " + "\n  ".join(lines[:10])
                              + more)


def _as_list(prompts: Any) -> Sequence[Prompt]:
    """A single prompt becomes a list of one."""
    if isinstance(prompts, str):
        return [prompts]
    if not isinstance(prompts, (Sequence, np.ndarray)) or not len(prompts):
        raise ConfigError(f"prompts must be a non-empty list, not {prompts!r:.80}")
    return cast("Sequence[Prompt]", prompts if isinstance(prompts[0], (Sequence, np.ndarray)) else [prompts])


def _stops(stop: str | Sequence[str] | None) -> list[str]:
    stops = [stop] if isinstance(stop, str) else stop or []
    if not isinstance(stops, (list, tuple)) or any(not isinstance(text, str) or not text for text in stops):
        raise ConfigError(f"stop must be text or a list of non-empty texts, not {stop!r:.80}")
    try:
        "".join(stops).encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"stop={stop!r:.80} holds half a surrogate pair, which no token spells") from error
    return list(stops)


def _ragged(flat: F32, completions: Sequence[I32]) -> list[F32]:
    return np.split(flat, np.cumsum([len(completion) for completion in completions])[:-1])


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"
