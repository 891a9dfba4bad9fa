"""Supervised fine-tuning on the same loop: the loss is the mean of -logp over the completion tokens of a step."""
import functools
import hashlib
import math
import numbers
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..datasets import RowOrder, read_rows
from ..errors import CheckpointMismatchError, ConfigError, DatasetError, ImageError, warn
from ..model import Model, beginning, row_variables
from ..options import SFTConfig, refuse
from ..planning import Shown
from ..vision.decode import read_image
from ..vision.messages import given_images, normal, shows_images
from ..vision.pictures import Picture
from .loop import Loop, StepResult, options
from .resume import compare_rows

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
ARGUMENTS = ("model", "args", "train_dataset", "eval_dataset", "processing_class", "callbacks")

# columns with a meaning in TRL that is not there yet
UNSEEN = ("completion_mask", "assistant_masks", "labels", "environment")


class Example(NamedTuple):
    """Ids of a prompt and of its completion, and the prompt's images."""

    prompt: I32
    completion: I32
    pictures: list[Picture]


class SFTTrainer(Loop):
    """Fine-tunes a model (as GRPOTrainer takes one) on rows with prompt and completion (text, chat messages, or token
    ids that are taken as they are), messages ending with the assistant's, or text, of which every token but the first
    is trained.

    >>> import grpo
    >>> rows = [{"prompt": "2 + 2 =", "completion": " 4"}]
    >>> grpo.SFTTrainer(grpo.tiny(), grpo.SFTConfig(max_steps=3), rows).train()                         # doctest: +SKIP
    """

    kind = "sft"
    _name, _tag_names = "SFT", ("sft",)
    args: SFTConfig

    def __init__(self, model: Any, args: SFTConfig | None = None, train_dataset: Any = None, eval_dataset: Any = None,
                 processing_class: Any = None, callbacks: Any = None, **unsupported: Any) -> None:
        refuse(unsupported, "SFTTrainer", ARGUMENTS)
        args = options(args, SFTConfig)
        super().__init__(model, args, callbacks, processing_class)
        self._train_dataset, self._eval_dataset = train_dataset, eval_dataset
        self._note_template_options(args.chat_template_kwargs or {})
        self.examples = self._examples(train_dataset, "train_dataset") if train_dataset is not None else []
        self.evaluations = self.held_out(eval_dataset)
        self.order = RowOrder(len(self.examples), args.shuffle_dataset, args.order_seed)
        self.position = 0
        self._seen = 0                       # tokens of the step at hand

    def update(self) -> dict[str, Any]:
        """The gradient of the mean -logp over the completion tokens of a step's rows."""
        prompts, completions, pictures = columns_of(
            [self.examples[i] for i in self.order.take(self.position, self._rows)])
        tokens = sum(len(c) for c in completions)
        self._seen = tokens + sum(len(p) for p in prompts)
        with self.timed("update"):
            images = self.model.core_images(prompts, pictures, pixels=self.args.train_vision != "none")
            logps, entropies = self.optimizer.accumulate(prompts, completions, np.arange(len(prompts), dtype=np.int32),
                                                         np.full(tokens, -1.0 / tokens, np.float32), images=images)
        return {"loss": float(-logps.mean(dtype=np.float64)), "entropy": float(entropies.mean(dtype=np.float64)),
                "num_tokens": float(self.state.num_input_tokens_seen + self._seen),
                "training_tokens_per_second": self._seen / self._seconds["update"]}

    def advance(self) -> None:
        """On to the next rows."""
        self.state.num_input_tokens_seen += self._seen
        self.position += self._rows
        self.state.epoch = self.position / len(self.examples)

    @property
    def _rows(self) -> int:
        """Rows of the step at hand: the last one of a pass has what is left of it."""
        return min(self.args.batch_size, len(self.examples) - self.position % len(self.examples))

    def skip_epoch(self) -> None:
        """To the next pass."""
        self.position += len(self.examples) - self.position % len(self.examples)
        self.state.epoch = self.position / len(self.examples)

    def held_out_rows(self, dataset: Any, name: str) -> list[Example]:
        """(prompt ids, completion ids) of every row."""
        return self._examples(dataset, name)

    def evaluate_on(self, held_out: list[Example], prefix: str) -> dict[str, float]:
        """Mean loss and entropy over the completion tokens."""
        # the features of images of so many rows are there at once, as the memory plan counts on
        size = self.args.batch_size if any(each.pictures for each in held_out) else len(held_out)
        parts = [self._scored(held_out[first:first + size]) for first in range(0, len(held_out), size)]
        logps, entropies = map(np.concatenate, zip(*parts, strict=True))
        return {"loss": float(-logps.mean(dtype=np.float64)), "entropy": float(entropies.mean(dtype=np.float64))}

    def _scored(self, examples: list[Example]) -> tuple[F32, F32]:
        """(log-probs, entropies) of all completion tokens of some rows."""
        prompts, completions, pictures = columns_of(examples)
        return self.model.core.logprobs(prompts, completions, np.arange(len(prompts), dtype=np.int32),
                                        temperature=1.0, images=self.model.core_images(prompts, pictures),
                                        token_budget=self.args.token_budget_on(self.model.device))

    # rows

    def _examples(self, dataset: Any, name: str) -> list[Example]:
        """(prompt ids, completion ids) of every row."""
        rows, found, bad = read_rows(dataset, name, needs=()), [], []
        for i in range(len(rows)):
            try:
                found.append(self._example(rows[i], f"{name}: row {i}"))
            except DatasetError as error:
                if self.args.on_bad_row != "skip" or not isinstance(error.__cause__, ImageError):
                    raise
                bad.append(str(error))
        if bad:
            warn(f"{name}: {len(bad)} of {len(rows)} rows are skipped (on_bad_row='skip'), the first of them: {bad[0]}")
        return found

    def _example(self, row: dict[str, Any], where: str) -> Example:
        try:
            prompt, completion, pictures = self._encode(row)
            if self.args.on_bad_row == "skip":
                for each in pictures:
                    read_image(each.source, each.place)
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(f"{where}: {error}") from error
        room = self.args.max_length - len(prompt)
        if room < 1 or not len(prompt):
            raise DatasetError(f"{where}: the prompt has {len(prompt)} tokens; it needs at least one and "
                               f"max_length={self.args.max_length} must leave room for a completion")
        return Example(np.asarray(prompt, np.int32), np.asarray(completion[:room], np.int32), pictures)

    def _encode(self, row: dict[str, Any]) -> tuple[Sequence[int] | I32, Sequence[int], list[Picture]]:
        if unseen := [name for name in UNSEEN if row.get(name) is not None]:
            raise ValueError(f"{', '.join(unseen)} cannot be honoured; leave the column out")
        images = given_images(row)
        if images or any(shows_images(row.get(name)) for name in ("prompt", "completion", "messages")):
            self.model.seeing()
        if shows_images(row.get("completion")):
            raise ValueError("images in a completion cannot be honoured: they are the prompt's")
        variables = row_variables(self.args.chat_template_kwargs, row.get("tools"), row.get("chat_template_kwargs"))
        if "messages" in row:
            if row.get("prompt") is not None and row.get("completion") is not None:
                raise ValueError("a row has prompt and completion, or messages; leave one out")
            if not row["messages"] or row["messages"][-1].get("role") != "assistant":
                raise ValueError("messages must end with the assistant's")
            return self._encode_chat(list(row["messages"][:-1]), row["messages"][-1], variables, images)
        if isinstance(text := row.get("text"), str) and row.get("prompt") is None:
            return self._encode_text(text)
        if row.get("prompt") is None or row.get("completion") is None:
            raise ValueError(f"a row needs prompt and completion, messages, or text; it has {', '.join(map(str, row))}")
        prompt, completion = row["prompt"], row["completion"]
        if (isinstance(prompt, str) or is_ids(prompt)) and (row.get("tools") or row.get("chat_template_kwargs")):
            raise ValueError("tools and chat_template_kwargs go into the chat template, which text and ids have not; "
                             "give messages")
        if is_ids(prompt) and is_ids(completion):
            encoded = self.model.encode_prompt(prompt, images)
            return encoded.ids, completion, encoded.images           # as they are: where it ends is theirs to say
        if not isinstance(prompt, str):
            message = {"role": "assistant", "content": completion} if isinstance(completion, str) else completion[-1]
            return self._encode_chat(list(prompt), message, variables, images)
        # apart from the prompt, as in a rollout, where the prompt's tokens are fixed before the completion begins
        tokenizer = self.model.tokenizer
        encoded = self.model.encode_prompt(prompt, images)
        return encoded.ids, [*tokenizer.encode(completion), tokenizer.eos_ids[0]], encoded.images

    def _encode_text(self, text: str) -> tuple[list[int], list[int], list[Picture]]:
        """A text to be continued from its first token on, which is the tokenizer's own where it begins texts with one;
        it ends with a stop token."""
        tokenizer = self.model.tokenizer
        ids = [int(i) for i in self.model.prompt_ids(text)]
        if not ids:
            raise ValueError("the text is empty")
        ends = [] if ids[-1] in tokenizer.eos_ids else [tokenizer.eos_ids[0]]
        return ids[:1], [*ids[1:], *ends], []

    def _encode_chat(self, prompt: list[Any], answer: Mapping[str, Any], variables: dict[str, Any],
                     images: list[Any]) -> tuple[Sequence[int] | I32, list[int], list[Picture]]:
        """The answer's tokens are what the template adds to the prompt, up to the token that ends the turn; where the
        prompt ends with the beginning of the answer, those of its text and the end, as in a rollout."""
        if shows_images([answer]):
            raise ValueError("images in the assistant's answer cannot be honoured: they are the prompt's")
        prompt, images = normal(prompt, images)
        if beginning(prompt):
            encoded, tokenizer = self.model.encode_prompt(prompt, **variables), self.model.tokenizer
            text = beginning([prompt[0], answer])
            return encoded.ids, [*tokenizer.encode(text), tokenizer.eos_ids[0]], encoded.images
        template = self.model.tokenizer.apply_chat_template
        head = template(prompt, add_generation_prompt=True, tokenize=True, **variables)
        both = template([*prompt, answer], add_generation_prompt=False, tokenize=True, **variables)
        if both[:len(head)] != head:
            raise ValueError("the chat template does not continue the prompt with the answer; give prompt and "
                             "completion as text")
        ends = set(self.model.tokenizer.eos_ids)
        last = max((i for i, token in enumerate(both) if token in ends and i >= len(head)), default=None)
        added = [*both[len(head):], self.model.tokenizer.eos_ids[0]] if last is None else both[len(head):last + 1]
        if not images:
            return head, added, []
        encoded = self.model.encode_prompt(prompt, **variables)
        return encoded.ids, added, encoded.images

    # state

    def steps(self, resume_from_checkpoint: str | bool | None = None) -> Iterator[StepResult]:
        """Yields once an optimiser step. DatasetError without train_dataset."""
        if not self.examples:
            raise DatasetError("training needs train_dataset: rows like {'prompt': ..., 'completion': ...}")
        return super().steps(resume_from_checkpoint)

    def steps_of_epochs(self, epochs: float) -> int:
        """Optimiser steps of so many passes over the rows, as TRL counts them: the last step of a pass has the rows
        that are left of it."""
        return math.ceil(epochs * math.ceil(len(self.examples) / self.args.batch_size))

    def shown(self) -> Shown:
        """What rows of training and of evaluation show at most."""
        return Shown.most((sum(each.tokens for each in example.pictures), len(example.pictures))
                          for examples in (self.examples, *self.evaluations.values()) for example in examples)

    def describe(self) -> str:
        """The rows of a step, and all of them."""
        return f"{self.args.batch_size} rows a step of {len(self.examples)}"

    def position_state(self) -> dict[str, Any]:
        """The place in the data."""
        return {"position": self.position, "rows": len(self.examples), "rows_hash": self._digest}

    @functools.cached_property
    def _digest(self) -> str:
        """A hash of what is trained on, as tokens."""
        digest = hashlib.sha256()
        for example in self.examples:
            for ids in (example.prompt, example.completion):
                digest.update(len(ids).to_bytes(8, "little") + np.asarray(ids, np.int32).tobytes())
        return digest.hexdigest()

    @contextmanager
    def restoring(self, state: dict[str, Any], folder: Path) -> Iterator[Callable[[Path], None]]:
        """The place in the data. CheckpointMismatchError where there were more rows, or fewer."""
        if state["rows"] != len(self.examples):
            raise CheckpointMismatchError(f"{folder.parent}: the run had {state['rows']} rows of data, "
                                          f"train_dataset has {len(self.examples)}")
        compare_rows(folder.parent, state.get("rows_hash"), self._digest)
        position = state["position"]

        def move(moved: Path) -> None:
            self.position = position

        yield move


def columns_of(examples: list[Example]) -> tuple[list[I32], list[I32], list[list[Picture]]]:
    """Prompts, completions and images, a list each."""
    return ([each.prompt for each in examples], [each.completion for each in examples],
            [each.pictures for each in examples])


def is_ids(value: Any) -> bool:
    """Whether a prompt or a completion is token ids."""
    return not isinstance(value, str) and len(value) > 0 and isinstance(value[0], numbers.Integral)


def sft(model: Any, rows: Any, args: SFTConfig | None = None, **options: Any) -> Model:
    """Fine-tunes model on rows (see SFTTrainer) and returns it. Options are those of SFTConfig.

    >>> import grpo
    >>> model = grpo.sft(grpo.tiny(), [{"prompt": "a", "completion": "b"}], max_steps=2)             # doctest: +SKIP
    """
    if args is not None and options:
        raise ConfigError(f"give args or options ({', '.join(options)}), not both")
    trainer = SFTTrainer(model, args or SFTConfig(**options), rows)
    trainer.train()
    return trainer.model
