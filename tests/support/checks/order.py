"""Calls in which threads of a block work together: what may not depend on the order they run in."""
import numpy as np

from checks import real
from op_statements import SEES_ALL, SEES_PREFIX, decode_completions, group_segments, sample_keys


def gemm_and_head(ops, rng):
    x, W, dy, dW = real(rng, 70, 72), real(rng, 200, 72), real(rng, 70, 200), np.zeros((200, 72), np.float32)
    target, ones, seen = (np.arange(70, dtype=np.int32), np.ones(70, np.float32),
                          rng.integers(2, size=(70, 200)).astype(np.uint8))
    return [ops.linear(x, W), ops.linear(x[:9], W), ops.linear_dx(dy, W),
            *ops.linear_dw(dW, np.zeros(200, np.float32), dy, x),
            *ops.head_bwd(dW, x, W, target, ones, ones),
            *ops.sample(x[:9], W, sample_keys(9), top_k=20, top_p=0.8, repetition_penalty=1.1, seen=seen[:9])]


def attention(ops, rng):
    heads = Hq, Hkv, D = 3, 1, 16
    segments, N = group_segments((40, 530, 3, 520), (33,))
    qkv, dy = real(rng, N, (Hq + 2 * Hkv) * D), real(rng, N, Hq * D)
    y, lse = ops.attention(qkv, segments, *heads)
    some, _ = group_segments((40, 30))
    whole = [*ops.attention(qkv, segments, *heads, sight=SEES_ALL)]
    across = [*ops.attention(qkv, segments, *heads, sight=SEES_PREFIX)]
    return [y, lse, ops.attention_bwd(dy, y, lse, qkv, segments, *heads),
            *whole, ops.attention_bwd(dy, *whole, qkv, segments, *heads, sight=SEES_ALL),
            *across, ops.attention_bwd(dy, *across, qkv, segments, *heads, sight=SEES_PREFIX),
            *decode_completions(ops, qkv, some, *heads)[1]]
