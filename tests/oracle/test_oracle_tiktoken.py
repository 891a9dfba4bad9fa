"""qwen.tiktoken against tiktoken itself: random vocabularies, in which tokens may be put together in several ways or in
none."""
import base64
import random

import pytest

from grpo.model.formats.byte_level import SPLITS
from grpo.model.formats.tiktoken import build

tiktoken = pytest.importorskip("tiktoken")
pytestmark = pytest.mark.oracle


@pytest.mark.parametrize("seed", range(8))
def test_random_vocabularies(seed):
    rng = random.Random(seed)
    tokens = [bytes([byte]) for byte in range(256)]
    known = set(tokens)
    while len(tokens) < 256 + 150:
        parts = rng.randint(2, 3)                       # three: a token that its neighbours in rank may not make
        token = b"".join(rng.choice([b"a", b"b", b"c", b" ", *tokens[256:]]) for _ in range(parts))
        if token not in known and len(token) < 12:
            tokens.append(token)
            known.add(token)
    ranks = {token: rank for rank, token in enumerate(tokens)}
    data = b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks.items())
    mine = build(data, False, True, "qwen.tiktoken").backend
    theirs = tiktoken.Encoding("random", pat_str=SPLITS["qwen2"].regex, mergeable_ranks=ranks, special_tokens={})
    for _ in range(2000):
        text = "".join(rng.choice("aaabbbccc ") for _ in range(rng.randrange(1, 60)))
        assert mine.encode(text).ids == theirs.encode_ordinary(text), text
