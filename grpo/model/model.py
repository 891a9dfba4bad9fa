"""Model: weights, tokenizer and config of one language model, and the calls that run it on NumPy arrays and text."""
from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from .. import _core
from ..alone import Device
from ..errors import ConfigError, ImageError, TokenizerError, warn
from ..vision.messages import shows_images
from .arrays import arrays_too
from .config_view import OF_GENERATION, ConfigView
from .families import family_of, spec_of, text_of
from .finite import Looked
from .module import Module
from .paths import path_of
from .tokenizer import Tokenizer, row_variables
from .tokenizer_sources import NoTokenizer, given

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..vision.pictures import Picture
    from ..vision.processor import Processor
    from ..vision.sight import Sight

    F32 = NDArray[np.float32]
    I32 = NDArray[np.int32]

Prompt = str | Sequence[int] | Sequence[Mapping[str, Any]]


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


class EncodedPrompt(NamedTuple):
    """A prompt as the core takes it: its token ids, and its images."""

    ids: I32
    images: list[Picture]


class Model(Module):
    """A language model on one device. Made by `load`; `core` is the C object that holds the weights. `sight`: what it
    does for prompts with images; None where it sees nothing. `config` and `generation_config` are dicts whose keys are
    attributes too; ConfigError where an attribute that is set would make another network."""

    def __init__(self, core: _core.Model, config: dict[str, Any], tokenizer: Tokenizer,
                 generation_config: dict[str, Any] | None = None, sight: Sight | None = None) -> None:
        self.core, self.tokenizer = core, tokenizer
        self.config = ConfigView(config, guard=self._same_network)
        self.generation_config = ConfigView(generation_config or {}, OF_GENERATION, file="generation_config.json")
        self.device: str = Device(core.device)
        self.dtype: str = core.dtype
        self.text_config = text_of(config)               # config.json's keys of the text, wherever it has them
        self.sight = sight
        self.files: tuple[Path, ...] = ()                # that the weights were read from

    def _same_network(self, name: str, changed: Mapping[str, Any]) -> None:
        """ConfigError where a config is of another network than the weights are."""
        if repr(spec_of(changed)) != repr(spec_of(self.config)):             # which hold arrays
            raise ConfigError(f"config.{name} would make another network of the config than the weights are; load a "
                              "folder whose config.json says it")

    @property
    def processor(self) -> Processor | None:
        """How it wants to see images; None where it sees none. One with other limits may be set:
        ``model.processor = model.processor.with_limits(max_pixels=401408)``."""
        return None if self.sight is None else self.sight.processor

    @processor.setter
    def processor(self, processor: Processor) -> None:
        from ..vision.processor import Processor as Kind

        if not isinstance(processor, Kind):
            raise ConfigError(f"processor must be a grpo.vision.Processor, not {processor!r:.80}")
        self.seeing().processor = processor

    def seeing(self) -> Sight:
        """What it does for prompts with images. ImageError where it has no tower."""
        if self.sight is None:
            raise ImageError(f"this model ({self.config.get('model_type')}) sees no images: it has no vision tower")
        return self.sight

    @arrays_too
    def generate(self, prompts: Prompt | Sequence[Prompt], num_generations: int = 1, max_new_tokens: int = 256,
                 temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0,
                 repetition_penalty: float = 1.0, min_new_tokens: int = 0, stop: str | Sequence[str] | None = None,
                 seed: int = 0, images: Any = None, chat_template_kwargs: Any = None) -> list[Completion]:
        """``num_generations`` completions a prompt, prompt by prompt.

        ``prompts``: a list of texts (encoded as they are), of chats (lists of {"role", "content"}), of token-id lists,
        or a single one of these. ``temperature`` 0 is greedy. ``stop``: text that ends a completion. ``images``: a list
        a prompt of those that its messages do not hold themselves. ``chat_template_kwargs``: arguments of the chat
        template, {"enable_thinking": False}, for all chats, or a list of one such dict (or None) a prompt. The same
        prompts and seed give the same tokens, whatever the number of threads.

        With ``input_ids`` (and ``attention_mask``), arrays or tensors (rows, columns), it is transformers' generate():
        its options, and an array of that kind with prompts and completions: ``model.generate(**tokenizer(texts,
        return_tensors="pt", padding=True), max_new_tokens=32)``. ``seed`` says there what is drawn.
        """
        listed = _as_list(prompts)
        shown, variables = self._images(images, listed, prompts), self._variables(chat_template_kwargs, listed)
        encoded = [self._named_prompt(*each) for each in zip(listed, range(len(listed)), shown, variables, strict=True)]
        ids = [each.ids for each in encoded]
        out = self.generate_ids(ids, num_generations, max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p,
                                min_p=min_p, repetition_penalty=repetition_penalty, min_new_tokens=min_new_tokens,
                                stop=stop, seed=seed, pictures=[each.images for each in encoded])
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
                     forbidden_ids: Sequence[int] | None = None, stop_ids: Sequence[int] | None = None, seed: int = 0,
                     step: int = 0, first_prompt: int = 0, slots: int | None = None,
                     store: _core.Store | None = None, store_rows: int = 0,
                     progress: Callable[[int, int], None] | None = None,
                     pictures: Sequence[Sequence[Picture]] | None = None) -> dict[str, Any]:
        """What ``_core.Model.generate`` returns (flat arrays, prompt-major), with token texts of the tokenizer.
        ``stop_ids``: those that end a completion; None: the tokenizer's. ``pictures``: the images of each prompt."""
        check_sampling(num_generations, max_new_tokens, temperature, top_k, top_p, min_p, repetition_penalty,
                       min_new_tokens, seed)
        prompts = [self._ids(ids, f"prompt {i}") for i, ids in enumerate(prompt_ids)]
        for i, ids in enumerate(prompts):
            self._check_length(ids, max_new_tokens, i)
        ends = self.tokenizer.eos_ids if stop_ids is None else self._ids(stop_ids, "stop_ids")
        arguments: dict[str, Any] = {"stop_ids": np.asarray(ends, np.int32)}
        if _stops(stop):
            offsets, text = self.tokenizer.token_bytes(self.text_config["vocab_size"])
            arguments |= {"stop_strings": [s.encode() for s in _stops(stop)], "token_offsets": offsets,
                          "token_bytes": text}
        size = self.text_config["vocab_size"]            # a config's default ids may lie beyond a small vocabulary
        never = [token for token in self.sight.never_drawn if token < size] if self.sight is not None else []
        if forbidden_ids is not None or never:
            arguments["forbidden_ids"] = self._ids([*(forbidden_ids if forbidden_ids is not None else ()), *never],
                                                   "forbidden_ids")
        arguments["images"] = self.core_images(prompts, pictures)
        if slots is not None:
            arguments["slots"] = slots
        return self.core.generate(prompts, num_generations, max_new_tokens, temperature=float(temperature), top_k=top_k,
                                  top_p=float(top_p), min_p=float(min_p), repetition_penalty=float(repetition_penalty),
                                  min_new_tokens=min_new_tokens, seed=seed, step=step, first_prompt=first_prompt,
                                  store=store, store_rows=store_rows, progress=progress, **arguments)

    def encode_prompt(self, prompt: Prompt, images: Any = None, **variables: Any) -> EncodedPrompt:
        """(ids, images) of one prompt, for `logprobs` and `logprob_grads`: as `prompt_ids`, and of a prompt with images
        with a token for each of their features. ``images``: those that messages do not hold themselves. ``variables``:
        of the chat template."""
        from ..vision.sight import images_by_prompt

        given = [] if images is None else images_by_prompt(images, 1, one=True)[0]
        if self.sight is not None:
            ids, pictures = self.sight.encode(self.tokenizer, prompt, given, **variables)
            return EncodedPrompt(self._ids(ids, "prompt"), pictures)
        if given or shows_images(prompt):
            self.seeing()
        if variables:
            chat = cast("Sequence[Mapping[str, Any]]", prompt)
            prompt = self.tokenizer.apply_chat_template(chat, tokenize=True, **variables)
        return EncodedPrompt(self.prompt_ids(prompt), [])

    def core_images(self, prompts: Sequence[I32], pictures: Sequence[Sequence[Picture]] | None, *,
                    pixels: bool = False) -> Any:
        """What the core takes as ``images`` beside the ids of prompts. ``pixels``: for a tower that is trained."""
        if self.sight is None and not any(pictures or ()):
            return None
        return self.seeing().inputs(prompts, pictures if pictures is not None else [[]] * len(prompts), pixels=pixels)

    def prompt_ids(self, prompt: Prompt) -> I32:
        """Token ids of one prompt: text as it is (with BOS where the model has one), a chat through the chat template
        with the generation prompt, ids as themselves."""
        if self.sight is not None:
            ids, images = self.encode_prompt(prompt)
            if images:
                raise ImageError("a prompt with images is more than ids; encode_prompt() gives both")
            return ids
        if isinstance(prompt, str):
            return self._ids(self.tokenizer.encode(prompt, add_special_tokens=True), "prompt")
        if isinstance(prompt, Sequence) and prompt and isinstance(prompt[0], Mapping):
            chat = cast("Sequence[Mapping[str, Any]]", prompt)
            return self._ids(self.tokenizer.apply_chat_template(chat, tokenize=True), "prompt")
        return self._ids(prompt, "prompt")

    def take_tokenizer(self, tokenizer: Any) -> None:
        """Another tokenizer for this model: what ``tokenizer`` of `load` may be; of a processor also how it wants
        images. TokenizerError where it does not fit."""
        found = given(tokenizer, self.tokenizer.eos_ids)
        check_vocabulary(found, self.config, "tokenizer=")
        self.tokenizer = found
        self.take_images_of(tokenizer)

    def text_of(self, ids: Sequence[int], specials: bool = False) -> str:
        """The text of token ids, without specials unless they are asked for; empty where the model has no tokenizer."""
        return "" if isinstance(self.tokenizer, NoTokenizer) else self.tokenizer.decode(ids, not specials)

    def logprobs(self, prompt_ids: Sequence[int] | Sequence[Sequence[int]], completions_ids: Sequence[Sequence[int]],
                 temperature: float = 1.0, entropies: bool = False, images: Any = None) -> Any:
        """Log-probability of every completion token, a float32 array a completion (and the entropies as a second list).

        ``prompt_ids``: one prompt (ids) that all completions share, or a list of prompts, one a completion.
        ``images``: of the one prompt, or a list a prompt; the ids hold a token for each of their features
        (`encode_prompt`).
        """
        prompts, completions, group, pictures = self._batch(prompt_ids, completions_ids, images)
        logps, entropy = self.core.logprobs(prompts, completions, group, temperature=float(temperature),
                                            images=self.core_images(prompts, pictures))
        rows = _ragged(logps, completions)
        return (rows, _ragged(entropy, completions)) if entropies else rows

    def logprob_grads(self, prompt_ids: Sequence[int] | Sequence[Sequence[int]],
                      completions_ids: Sequence[Sequence[int]],
                      coef: Sequence[Sequence[float]], images: Any = None,
                      train_vision: str = "none") -> tuple[list[F32], dict[str, F32]]:
        """(log-probabilities, gradient of sum(coef * logprob) by Hugging Face tensor name). ``coef``: one number a
        completion token. ``images``: as of `logprobs`. ``train_vision``: what of a tower has gradients: "none",
        "merger" or "all"."""
        prompts, completions, group, pictures = self._batch(prompt_ids, completions_ids, images)
        rows = [np.asarray(row, np.float32).reshape(-1) for row in coef]
        for i, (row, completion) in enumerate(zip(rows, completions, strict=False)):
            if len(row) != len(completion):
                raise ConfigError(f"coef {i} has {len(row)} numbers, completion {i} has {len(completion)} tokens")
        if len(rows) != len(completions):
            raise ConfigError(f"{len(rows)} rows of coef for {len(completions)} completions")
        logps, grads = self.core.logprob_grads(
            prompts, completions, group, np.concatenate(rows), train_vision=train_vision,
            images=self.core_images(prompts, pictures, pixels=train_vision != "none"))
        return _ragged(logps, completions), grads

    def attention(self, prompt_ids: Sequence[int], completion_ids: Sequence[int], tokens: Sequence[int] | None = None,
                  layers: Sequence[int] | None = None, images: Any = None) -> F32:
        """What tokens of a completion look at: weights of attention, float32 (layers, tokens, heads, keys).

        Token t is drawn from what the row before it sees, so its weights are over the tokens before it, and sum to 1.
        keys are those of prompt and completion, the completion's last left out; what a row does not see has 0: later
        tokens, and those before a window. ``tokens``: numbers in the completion, None for all; ``layers``: of the
        text, None for all; both may count from the end, -1 the last. ``images``: of the prompt, whose ids hold a token
        for each of their features (`encode_prompt`).

        The numbers are those that the forward used, computed once more from the same queries and keys. Raises
        ConfigError for a token or a layer that is not there, ImageError for images that do not fit the ids.

        >>> from grpo.model import load, tiny
        >>> model = load(tiny(num_hidden_layers=2), device="ref")
        >>> weights = model.attention([5, 6, 7], [8, 9], layers=[-1])
        >>> weights.shape, bool(np.allclose(weights.sum(-1), 1))
        ((1, 2, 3, 4), True)
        """
        prompts, completions, _, pictures = self._batch(prompt_ids, [completion_ids], images)
        if len(prompts) != 1:
            raise ConfigError("attention() looks at one prompt and its completion")
        if not len(completions[0]):
            raise ConfigError("the completion has no tokens")
        seen = self.core_images(prompts, pictures)
        chosen, where = _chosen(tokens, len(completions[0]), "token", "the completion has tokens")
        deep, order = _chosen(layers, self.text_config["num_hidden_layers"], "layer", "the model has layers")
        weights = self.core.attention(prompts[0], completions[0], deep, chosen + np.int32(len(prompts[0]) - 1),
                                      images=None if seen is None else seen[0])
        return weights if tokens is None and layers is None else weights[np.ix_(order, where)]

    def embed(self, texts: Sequence[str | Sequence[int]] | None = None, token_budget: int = 1024, *,
              images: Sequence[Any] | None = None) -> F32:
        """Vectors of texts (or token-id lists), (n, hidden_size) float32: the mean over its tokens of the last hidden
        states, after the final norm. No special tokens are added. ``token_budget``: tokens run together; the results
        are the same bits.

        ``images``: vectors of images instead, whatever an image may be elsewhere: the mean of the features that the
        tower makes of each, in place of the text's tokens. ImageError where there is no tower, or that names the image.

        >>> load(tiny(num_hidden_layers=1)).embed(["four", "vier"]).shape                            # doctest: +SKIP
        (2, 192)
        """
        if (texts is None) == (images is None):
            raise ConfigError("embed() takes texts or images")
        if images is not None:
            return self.seeing().embed(images, self.text_config["hidden_size"])
        texts = texts or ()
        ids = [self._ids(self.tokenizer.encode(text) if isinstance(text, str) else text, f"text {i}")
               for i, text in enumerate(texts)]
        limit = self.text_config.get("max_position_embeddings") or math.inf
        for i, text in enumerate(ids):
            if not 0 < len(text) <= limit:
                raise ConfigError(f"text {i} has {len(text)} tokens; at least 1 and at most {limit} can be embedded")
            if self.sight is not None and not isinstance(texts[i], str):
                self.sight.check_drawn(text, f"text {i}")
        return self.core.embed(ids, token_budget=token_budget)

    def state_dict(self) -> dict[str, F32]:
        """Every parameter as float32, by Hugging Face name; a tied lm_head is not among them."""
        return {name: self.core.get_tensor(name) for name, _ in self.core.tensors()}

    def name_in_files(self, name: str) -> str:
        """What a tensor is called in the files that transformers writes."""
        return family_of(self.config, "config.json").name_in_files(name)

    def copy(self) -> Model:
        """A second model with the same weights (a reference, for example)."""
        core = _core.Model(self.device, spec_of(self.config))
        for name, _ in core.tensors():
            core.set_tensor(name, self.core.get_tensor(name))
        return Model(core, self.config.to_dict(), self.tokenizer, self.generation_config.to_dict(),
                     None if self.sight is None else self.sight.copy(core, self.config))

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
        config = _with_dtype(self.config, dtype)
        ours = re.compile(rf"{SINGLE_FILE}|{INDEX_FILE}|model-\d+-of-\d+\.safetensors")
        looked = Looked(self.core.get_tensor)
        with FolderWriter(path_of(folder, "folder")) as writer:
            names = {self.name_in_files(name): name for name, _ in self.core.tensors()}
            tensors = [(self.name_in_files(name), shape) for name, shape in self.core.tensors()]
            written = write_weights(writer.open, tensors, lambda name: looked(names[name]), dtype,
                                    max_shard_size)
            for name, data in self.tokenizer.save_files().items():
                writer.write(name, data)
            for name, data in (self.sight.save_files() if self.sight is not None else {}).items():
                writer.write(name, data)
            writer.write("generation_config.json", _json(self.generation_config))
            writer.write("config.json", _json(config))
            for path in writer.folder.glob("model*.safetensors*"):
                if path.name not in written and ours.fullmatch(path.name):
                    writer.remove(path.name)
        looked.say(str(folder))

    def save_gguf(self, path: str | os.PathLike[str], dtype: str | None = None, name: str | None = None) -> None:
        """One .gguf that llama.cpp and `load` read: weights, config, tokenizer and chat template.

        ``dtype``: of the matrices, "bf16", "f16", "q8_0" or "f32"; None is the device's own. ``name``: general.name,
        by default the file's. The file appears whole or not at all, in place of one of that name, which is said on
        one line. Raises UnsupportedModelError and TokenizerError for what GGUF has no word for, ConfigError, also where
        path is a file that the model was read from, CheckpointError.

        >>> import tempfile
        >>> from grpo import load, tiny
        >>> with tempfile.TemporaryDirectory() as folder:                                           # doctest: +SKIP
        ...     load(tiny()).save_gguf(f"{folder}/tiny.gguf", "q8_0")
        ...     load(f"{folder}/tiny.gguf").generate("2 + 2 =", max_new_tokens=4)
        """
        from .export import export_gguf

        export_gguf(self, path, dtype, name)

    def _variables(self, given: Any, listed: Sequence[Prompt]) -> list[dict[str, Any]]:
        """chat_template_kwargs a prompt. Raises ConfigError."""
        each = [given] * len(listed) if given is None or isinstance(given, Mapping) else list(given)
        if len(each) != len(listed):
            raise ConfigError(f"chat_template_kwargs: {len(each)} for {len(listed)} prompts; give a dict for all of "
                              "them, or one a prompt")
        found = []
        for i, (prompt, own) in enumerate(zip(listed, each, strict=True)):
            try:
                variables = row_variables(None, None, own)
            except TokenizerError as error:
                raise ConfigError(f"prompt {i}: {error}") from error
            if variables and not (isinstance(prompt, Sequence) and prompt and isinstance(prompt[0], Mapping)):
                raise ConfigError(f"prompt {i}: chat_template_kwargs goes into the chat template, which a prompt of "
                                  "text or ids has not; give messages")
            found.append(variables)
        unread = {name for variables in found for name in variables if name != "chat_template" and not
                  self.tokenizer.template_reads(name, variables.get("chat_template"))}
        if unread:
            warn(f"chat_template_kwargs: the model's chat template has no {', '.join(sorted(unread))}; nothing changes "
                 "by it")
        return found

    def _named_prompt(self, prompt: Prompt, i: int, images: Sequence[Any],
                      variables: Mapping[str, Any]) -> EncodedPrompt:
        try:
            encoded = self.encode_prompt(prompt, images, **variables)
            for k, each in enumerate(encoded.images):    # they are read later, when nobody knows whose they are
                each.place = f"prompt {i}: image {k}"
            return encoded
        except (ConfigError, TokenizerError, ImageError) as error:
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
                              f"{self.text_config['vocab_size'] - 1})")
        return array.astype(np.int32)

    def _images(self, images: Any, listed: Sequence[Prompt], given: Any) -> list[list[Any]]:
        """The images of each prompt of a list; given: what the caller gave for it."""
        if images is None:
            return [[] for _ in listed]
        from ..vision.sight import images_by_prompt

        return images_by_prompt(images, len(listed), one=listed is not given)

    def _batch(self, prompt_ids: Any, completions_ids: Any,
               images: Any = None) -> tuple[list[I32], list[I32], I32, list[list[Picture]]]:
        """(prompts, completions, group, images of each prompt) for the core; neighbours with the same prompt and images
        share it."""
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
            if self.sight is not None:
                self.sight.check_drawn(completion, f"completion {i}")
            self._check_length(rows[0 if one else i], len(completion), 0 if one else i)
        pictures: list[list[Picture]] = [[] for _ in rows]
        if images is not None:
            from ..vision.pictures import look
            from ..vision.sight import images_by_prompt

            processor = self.seeing().processor
            pictures = [look(some, processor, name) for (name, _), some in
                        zip(named, images_by_prompt(images, len(rows), one), strict=True)]
        if one:
            return rows, completions, np.zeros(len(completions), np.int32), pictures
        keys = [[each.key for each in some] for some in pictures]
        new = [i == 0 or not np.array_equal(rows[i], rows[i - 1]) or keys[i] != keys[i - 1] for i in range(len(rows))]
        group = (np.cumsum(new) - 1).astype(np.int32)
        return ([row for row, first in zip(rows, new, strict=True) if first], completions, group,
                [some for some, first in zip(pictures, new, strict=True) if first])

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


def _chosen(numbers: Sequence[int] | None, count: int, what: str, has: str) -> tuple[I32, NDArray[np.intp]]:
    """(numbers of range(count) in order, none twice; where in these each that was asked for is)."""
    listed = list(range(count)) if numbers is None else list(numbers)
    for number in listed:
        if not isinstance(number, Integral) or isinstance(number, bool) or not -count <= number < count:
            raise ConfigError(f"{what} {number!r:.80} is not there: {has} 0 to {count - 1}, or -1 to -{count} from the "
                              "end")
    ascending, where = np.unique(np.array([number % count for number in listed], np.int32), return_inverse=True)
    return ascending.astype(np.int32), where.reshape(-1)


def _with_dtype(config: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """The config of weights that are written in a dtype: its own, and those of its parts."""
    found = {**config, "dtype": dtype, "torch_dtype": dtype}
    for part in ("text_config", "vision_config"):
        if isinstance(config.get(part), Mapping):
            found[part] = {**config[part], "dtype": dtype}
    return found


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"


def check_vocabulary(tokenizer: Tokenizer, config: Mapping[str, Any], source: str) -> None:
    """TokenizerError where a tokenizer has ids that a model has not. Where they are those of special tokens with a name
    that end no completion, pad_token say, that is only said: nothing need use them."""
    size = text_of(config)["vocab_size"]
    if tokenizer.vocab_size <= size:
        return
    beyond = tokenizer.tokens_from(size)
    if not {*beyond.values()} <= {*tokenizer.special.values()} or not beyond.keys().isdisjoint(tokenizer.eos_ids):
        raise TokenizerError(f"{source}: the tokenizer has ids up to {tokenizer.vocab_size - 1}, the model a "
                             f"vocab_size of {size}")
    named = [f"{text!r:.80} ({i})" for i, text in sorted(beyond.items())]
    warn(f"{source}: the model, with a vocab_size of {size}, has no row for the special tokens "
         f"{', '.join([*named[:5], *['...'] * (len(named) > 5)])}; a text that holds one is refused")
