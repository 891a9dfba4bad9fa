"""What scripts ask of a tokenizer of transformers: to be called, and for its special tokens one by one."""
from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError, TokenizerError


class Batch(dict[str, Any]):
    """input_ids and attention_mask, which are attributes too: ``model.generate(**tokenizer(texts, padding=True))``."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"a batch of texts has {', '.join(self)}, and no {name!r}") from None

    def to(self, device: Any) -> Batch:
        """The same with its tensors on a device; arrays of NumPy stay as they are."""
        return Batch({name: value.to(device) if hasattr(value, "to") else value for name, value in self.items()})


class Calls:
    """The part of transformers' tokenizers that takes and gives arrays; `Tokenizer` is the rest."""

    if TYPE_CHECKING:                        # the rest's
        encode: Callable[..., list[int]]
        decode: Callable[..., str]

    special: dict[str, str]
    vocab_size: int
    eos_ids: list[int]
    bos_id: int | None
    pad_id: int | None
    padding_side = "left"                    # of prompts, to which a completion is added
    model_max_length = 1 << 30

    @property
    def eos_token(self) -> str | None:
        """The text of the token that ends a completion."""
        return self.special.get("eos_token")

    @property
    def bos_token(self) -> str | None:
        """The text of the token that a text begins with."""
        return self.special.get("bos_token")

    @property
    def unk_token(self) -> str | None:
        """The text of the token that stands for what has none."""
        return self.special.get("unk_token")

    @property
    def pad_token(self) -> str | None:
        """The text of the token that fills up rows here; another may be set: ``tokenizer.pad_token =
        tokenizer.eos_token``. Files that are saved keep theirs. TokenizerError for one that is no token."""
        return self.special.get("pad_token")

    @pad_token.setter
    def pad_token(self, text: str) -> None:
        ids = self.convert_tokens_to_ids([text])
        self.special["pad_token"], self.pad_id = text, ids[0]

    @property
    def eos_token_id(self) -> int | None:
        """Its id."""
        return self.eos_ids[0] if self.eos_token is None and self.eos_ids else self._one(self.eos_token)

    @property
    def bos_token_id(self) -> int | None:
        """Its id."""
        return self.bos_id

    @property
    def pad_token_id(self) -> int | None:
        """Its id; that of eos_token where there is no other."""
        return self.pad_id

    def _one(self, text: str | None) -> int | None:
        return None if text is None else self.convert_tokens_to_ids([text])[0]

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> Any:
        """The id of a token's text, or of each of several. TokenizerError for one that is not in the vocabulary."""
        backend = getattr(self, "_backend", None)
        found = []
        for text in [tokens] if isinstance(tokens, str) else tokens:
            token = backend.token_to_id(text) if backend is not None and isinstance(text, str) else None
            if token is None:
                raise TokenizerError(f"{text!r:.80} is not a token of this vocabulary")
            found.append(token)
        return found[0] if isinstance(tokens, str) else found

    def __len__(self) -> int:
        return self.vocab_size

    def __bool__(self) -> bool:
        return True

    def batch_decode(self, sequences: Any, skip_special_tokens: bool = False) -> list[str]:
        """The text of every row of ids; special tokens are left in unless skip_special_tokens."""
        rows = sequences.tolist() if hasattr(sequences, "tolist") else sequences
        return [self.decode(row, skip_special_tokens=skip_special_tokens) for row in rows]

    def __call__(self, text: str | Sequence[str], *, padding: bool | str = False, truncation: bool = False,
                 max_length: int | None = None, add_special_tokens: bool = True, return_tensors: str | None = None,
                 padding_side: str | None = None) -> Batch:
        """input_ids and attention_mask of one text or several: lists, or arrays with return_tensors: "np", or "pt" in a
        program that has imported torch.

        padding: True (to the longest) or "max_length"; truncation: keep the first max_length ids. ConfigError for other
        kinds of tensors, and for rows of different lengths that are to be an array.

        >>> from grpo import Tokenizer
        >>> batch = Tokenizer.bytes()(["a", "bc"], padding=True, return_tensors="np")
        >>> batch.input_ids.tolist(), batch["attention_mask"].tolist()
        ([[256, 97], [98, 99]], [[0, 1], [1, 1]])
        """
        torch = sys.modules.get("torch") if return_tensors == "pt" else None
        if return_tensors not in (None, "np") and torch is None:
            raise ConfigError(f"return_tensors={return_tensors!r}: this tokenizer makes lists, arrays of NumPy ('np') "
                              "and, where torch has been imported, its tensors ('pt')")
        if (truncation or padding == "max_length") and max_length is None:
            raise ConfigError("truncation=True and padding='max_length' need max_length")
        side = padding_side or self.padding_side
        rows = [self.encode(each, add_special_tokens=add_special_tokens)
                for each in ([text] if isinstance(text, str) else text)]
        if truncation:
            rows = [row[:max_length] for row in rows]
        width = max(max_length if padding == "max_length" and max_length else 0, *map(len, rows)) if padding else 0
        ids, mask = [], []
        for row in rows:
            fill = [self.pad_id if self.pad_id is not None else 0] * (width - len(row))
            ids.append([*fill, *row] if side == "left" else [*row, *fill])
            mask.append([*(0 for _ in fill), *(1 for _ in row)] if side == "left" else [*(1 for _ in row),
                                                                                         *(0 for _ in fill)])
        if return_tensors is None:
            one = isinstance(text, str)
            return Batch(input_ids=ids[0] if one else ids, attention_mask=mask[0] if one else mask)
        if len({*map(len, ids)}) > 1:
            raise ConfigError("return_tensors: the texts are of different lengths; padding=True fills them up")
        arrays = {"input_ids": np.array(ids, np.int64), "attention_mask": np.array(mask, np.int64)}
        return Batch(arrays if torch is None else {name: torch.from_numpy(array) for name, array in arrays.items()})
