"""Completions as rewards see them."""
import numpy as np

from grpo import Tokenizer
from grpo.rewards import RewardBatch

DIRECTIONS = {"a": [1, 0, 0], "b": [0, 1, 0], "c": [0, 0, 1], "ab": [1, 1, 0]}


def embed(texts):
    """A vector for each text of DIRECTIONS."""
    return np.array([DIRECTIONS[t] for t in texts], np.float32)


def batch(texts, lengths=None, groups=None, **changed):
    """Completions of one row (or of the groups given), all with the gold 12."""
    n = len(texts)
    columns = {"answer": ["12"] * n, **changed.pop("columns", {})}
    return RewardBatch(prompts=["p"] * n, texts=list(texts),
                       completion_ids=[[1] * k for k in lengths or [len(t) for t in texts]],
                       rows=groups or [0] * n, columns=columns, tokenizer=Tokenizer.bytes(), embed=embed, **changed)
