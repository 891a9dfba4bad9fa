"""The forward of each operation of ops.def as a few lines of NumPy in float64, independent of the C text, and helpers
that tests of any backend use."""
import math

import numpy as np

from grpo import _core

KV_TILE = 32


def bf16(x: np.ndarray) -> np.ndarray:
    """float32 rounded to the nearest bfloat16, ties to even; NaN and infinity pass."""
    x = np.ascontiguousarray(x, np.float32)
    bits = x.view(np.uint32)
    rounded = ((bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000).astype(np.uint32).view(np.float32)
    return np.where(np.isfinite(x), rounded, x)


# axis (D/2) of rope_table() for: Qwen2-VL's and Qwen3-VL's m-RoPE (time, row, column); a tower's rows and columns,
# heads of 80
AXES = {"chunked": np.repeat([0, 1, 2], [16, 24, 24]), "interleaved": np.array([*[0, 1, 2] * 20, 0, 0, 0, 0]),
        "tower": np.repeat([0, 1], 20)}


def inv_freq(axis: np.ndarray, theta: float) -> np.ndarray:
    """(D/2) float32: one run of frequencies for all axes of a text model, one for each of the two of a tower."""
    runs = 2 if axis.max() == 1 else 1
    half = len(axis) // runs
    return np.tile(theta ** (-np.arange(half) / half), runs).astype(np.float32)


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32)


def relative_error(got: np.ndarray, want: np.ndarray) -> float:
    """Largest difference over the largest magnitude of `want`; NaN where `got` has one."""
    return float(np.max(np.abs(np.asarray(got, np.float64) - want)) / max(float(np.max(np.abs(want))), 1e-30))


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def log_softmax(z):
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def embed_mix(E, ids, weights, scale=1.0):
    """ids, weights: (N, K)"""
    return scale * np.einsum("nk,nkc->nc", weights, E[ids])


def rmsnorm(x, w, eps, offset=0.0):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * (offset + w)


def layernorm(x, w, b, eps):
    d = x - x.mean(-1, keepdims=True)
    return d / np.sqrt((d * d).mean(-1, keepdims=True) + eps) * w + b


def split_heads(qkv, Hq, Hkv, D):
    """(N, (Hq + 2 Hkv) D) -> q (N, Hq, D), k, v (N, Hkv, D)."""
    heads = qkv.reshape(len(qkv), Hq + 2 * Hkv, D)
    return heads[:, :Hq], heads[:, Hq:Hq + Hkv], heads[:, Hq + Hkv:]


def rotate(x, cos, sin):
    a, b = np.split(x, 2, axis=-1)
    cos, sin = cos[:, None], sin[:, None]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def rope(x, wq, wk, eps, cos, sin, q_scale, Hq, Hkv, D, offset=0.0):
    q, k, v = split_heads(x, Hq, Hkv, D)
    if wq is not None:
        q, k = rmsnorm(q, wq, eps, offset), rmsnorm(k, wk, eps, offset)
    scale = 1 if q_scale is None else q_scale[:, None, None]
    return np.concatenate([scale * rotate(q, cos, sin), rotate(k, cos, sin), v], axis=1).reshape(x.shape)


# what a row sees of its segment, beside the prefix: rows up to itself, all rows, none
SEES_BEFORE, SEES_ALL, SEES_PREFIX = range(3)


def visible(segments, N, window=0, sight=SEES_BEFORE):
    """(N, N): row i sees row j; with a window only the last ones before it, by position, its own included."""
    sees = np.zeros((N, N), bool)
    for start, length, prefix, prefix_len in segments:
        rows = np.r_[prefix:prefix + prefix_len, start:start + length]            # at positions 0, 1, ...
        for p in range(prefix_len, len(rows)):
            end = {SEES_BEFORE: p + 1, SEES_ALL: len(rows), SEES_PREFIX: prefix_len}[sight]
            sees[rows[p], rows[max(0, p + 1 - window) if window else 0:end]] = True
    return sees


def attention(qkv, segments, Hq, Hkv, D, scale=None, window=0, sight=SEES_BEFORE):
    """(y (N, Hq D), lse (N, Hq)) by one dense masked softmax."""
    q, k, v = split_heads(qkv, Hq, Hkv, D)
    k, v = (np.repeat(t, Hq // Hkv, axis=1) for t in (k, v))
    sees = visible(segments, len(qkv), window, sight)
    scores = np.where(sees[:, None], np.einsum("ihd,jhd->ihj", q, k) * (scale or 1 / np.sqrt(D)), -np.inf)
    live = sees.any(1)
    y, lse = np.zeros(q.shape), np.zeros(q.shape[:2])
    y[live] = np.einsum("ihj,jhd->ihd", softmax(scores[live]), v)
    top = scores[live].max(-1)
    lse[live] = top + np.log(np.exp(scores[live] - top[..., None]).sum(-1))
    return y.reshape(len(qkv), -1), lse


def attention_weights(qkv, segments, index, Hq, Hkv, D, scale=None, window=0, sight=SEES_BEFORE):
    """(R, Hq, N): rows of that softmax, 0 where a row sees nothing."""
    q, k, _ = split_heads(qkv, Hq, Hkv, D)
    sees = visible(segments, len(qkv), window, sight)[index][:, None]
    scores = np.einsum("rhd,jhd->rhj", q[index], np.repeat(k, Hq // Hkv, axis=1)) * (scale or 1 / np.sqrt(D))
    e = np.exp(np.where(sees, scores - np.where(sees, scores, -np.inf).max(-1, keepdims=True, initial=-1e30), -np.inf))
    return e / np.maximum(e.sum(-1, keepdims=True), 1e-30)


def glu(gu, gate):
    """gate: 0 silu, 1 gelu_tanh."""
    g, u = np.split(gu, 2, axis=-1)
    # (1 + tanh(z / 2)) / 2 is sigmoid(z), but for the tail
    z = 2 * np.sqrt(2 / np.pi) * (g + 0.044715 * g**3) if gate else g
    return g / (1 + np.exp(-z)) * u


def gelu(z, kind):
    """kind: 0 erf, 1 tanh, 2 quick."""
    if kind == 0:
        return z * np.vectorize(math.erfc)(-z / np.sqrt(2)) / 2
    if kind == 1:
        return z * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3))) / 2
    return z / (1 + np.exp(-1.702 * z))


def head(h, W, target, inv_temperature):
    """(log-probability of the target, entropy), each (R)."""
    logp = log_softmax(h @ W.T * inv_temperature)
    return logp[np.arange(len(h)), target], -(np.exp(logp) * logp).sum(-1)


def group_segments(*groups: tuple[int, ...]) -> tuple[np.ndarray, int]:
    """(prompt length, completion lengths...) each, packed one after the other -> segments (n, 4), number of rows."""
    segments, row = [], 0
    for prompt_len, *completions in groups:
        prompt = row
        segments.append((prompt, prompt_len, 0, 0))
        row += prompt_len
        for length in completions:
            segments.append((row, length, prompt, prompt_len))
            row += length
    return np.array(segments, np.int32), row


def decode_completions(ops, qkv, segments, Hq, Hkv, D, **shape):
    """attention_decode() of every completion row, its cache paged as a rollout does it: the prompt's full pages are
    shared, its last one is copied for each completion. shape: window, scale. Returns (rows, [y, lse])."""
    place = np.full(len(qkv), -1, np.int32)
    prompt_pages, copies, rows, pages_of, length = {}, [], [], [], []
    n_pages = 1                                       # page 0 belongs to nobody
    max_pages = max(-(-(int(s[1]) + int(s[3])) // KV_TILE) for s in segments)
    for start, count, prefix, prefix_len in segments.tolist():
        n = -(-(count + prefix_len) // KV_TILE)
        pages = list(range(n_pages, n_pages + n))
        n_pages += n
        if prefix_len == 0:
            prompt_pages[start] = pages
        else:
            whole, rest = divmod(prefix_len, KV_TILE)
            pages[:whole] = prompt_pages[prefix][:whole]
            if rest:
                copies.append((pages[whole], prompt_pages[prefix][whole]))
            rows += range(start, start + count)
            pages_of += [pages + [0] * (max_pages - n)] * count
            length += range(prefix_len + 1, prefix_len + count + 1)
        for i in range(count):
            page, offset = divmod(prefix_len + i, KV_TILE)
            place[start + i] = pages[page] * KV_TILE + offset
    dst, src = ((np.array(side, np.int32) for side in zip(*copies, strict=True)) if copies
                else (np.zeros(0, np.int32),) * 2)
    decoded = ops.attention_decode(qkv[rows], qkv, place, dst, src, n_pages, np.array(pages_of, np.int32),
                                   np.array(length, np.int32), Hq, Hkv, D,
                                   **shape)
    return rows, list(decoded)


def sample_keys(S, no_stop=0):
    keys = np.zeros((S, 4), np.uint32)
    keys[:, 0], keys[:, 1], keys[:, 2], keys[:, 3] = 5, np.arange(S) % 8, np.arange(S), no_stop
    return keys


def log_support(z, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, repetition_penalty=1.0, seen=None, removed=()):
    """Log-probabilities (V) after every filter, -inf for what is not kept, in the order of transformers' processors."""
    z = z.astype(np.float64).copy()
    if seen is not None:
        z[seen] = np.where(z[seen] > 0, z[seen] / repetition_penalty, z[seen] * repetition_penalty)
    z[list(removed)] = -np.inf
    z /= np.float64(np.float32(temperature))
    if 0 < top_k < len(z):
        z[z < np.sort(z)[-top_k]] = -np.inf
    order = np.argsort(-z, kind="stable")
    before = np.cumsum(np.exp(log_softmax(z)[order])) - np.exp(log_softmax(z)[order])
    z[order[1:][before[1:] >= top_p]] = -np.inf
    p = np.exp(log_softmax(z))
    z[p < min_p * p.max()] = -np.inf
    return log_softmax(z)


def uniforms(keys, seed, step):
    return np.array([(_core.Ops.philox(seed, (int(position), int(sample), int(prompt), step))[0] >> 8) * 2.0**-24
                     for prompt, sample, position, _ in keys])


def resample(src, first, weight):
    """(H, M, C) bytes to (H, N, C): weights are integers of 22 fractional bits."""
    taps = first[:, None] + np.arange(weight.shape[1])
    sums = np.einsum("hnkc,nk->hnc", src[:, taps].astype(np.int64), weight.astype(np.int64))
    return np.clip((sums + 2**21) >> 22, 0, 255).astype(np.uint8)


def patches(src, table, P, T, G):
    """(H, W, 3) bytes to (patches, 3 T P P) numbers."""
    H, W, _ = src.shape
    values = np.stack([table[c][src[:, :, c]] for c in range(3)])
    blocks = values.reshape(3, H // (P * G), G, P, W // (P * G), G, P).transpose(1, 4, 2, 5, 0, 3, 6)
    return np.repeat(blocks[:, :, :, :, :, None], T, axis=5).reshape(H // P * (W // P), 3 * T * P * P)
