"""Qwen-VL once more, in NumPy: what the tests hold the core against. Written from a description of the model's tensors
and maths, without a look at the code that it judges. Works in float64; ``xp`` may be torch, whose autograd then gives
gradients. Tensors go by their names in files."""
from __future__ import annotations

import functools
import math

import numpy as np

VISUAL = "transformer.visual."


def erf(x, xp):
    return xp.erf(x) if xp is not np else np.vectorize(math.erf)(x)


def layer_norm(x, w, name, eps=1e-6):
    mean = x.mean(-1)[..., None]
    variance = ((x - mean) ** 2).mean(-1)[..., None]
    return (x - mean) / (variance + eps) ** 0.5 * w[f"{name}.weight"] + w[f"{name}.bias"]


def rms_norm(x, weight, eps):
    return x / ((x * x).mean(-1)[..., None] + eps) ** 0.5 * weight


def softmax(z, xp):
    e = xp.exp(z - z.max(-1)[..., None] if xp is np else z - z.max(-1).values[..., None])
    return e / e.sum(-1)[..., None]


def attend(q, k, v, heads, xp, mask=None):
    """Of (n, width) queries, keys and values."""
    dim = q.shape[-1] // heads
    out = []
    for h in range(heads):
        at = slice(h * dim, (h + 1) * dim)
        scores = q[:, at] @ k[:, at].T / math.sqrt(dim)
        if mask is not None:
            scores = scores + mask
        out.append(softmax(scores, xp) @ v[:, at])
    return xp.concatenate(out, 1) if xp is np else xp.cat(out, 1)


def keys_kernel(x, a=-0.75):
    x = abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def cubic(n, side):
    """(n, side): the matrix that interpolates `side` numbers to n."""
    made = np.zeros((n, side))
    for i in range(n):
        place = (i + 0.5) * side / n - 0.5
        for tap in range(math.floor(place) - 1, math.floor(place) + 3):
            made[i, min(max(tap, 0), side - 1)] += keys_kernel(place - tap)
    return made


@functools.cache
def both_ways(n, side):
    return np.kron(cubic(n, side), cubic(n, side))


def interpolated(table, n, xp):
    """(n n, C) of a table (side side, C)."""
    matrix = both_ways(n, math.isqrt(len(table)))
    return (matrix if xp is np else xp.as_tensor(matrix)) @ table


def see(w, visual, pixels, xp=np):
    """(queries, output_dim) features of an image's patches (patches, 3 patch patch), row by row."""
    n = math.isqrt(len(pixels))
    x = pixels @ w[VISUAL + "conv1.weight"].reshape(visual["width"], -1).T
    x = layer_norm(x + interpolated(w[VISUAL + "positional_embedding"], n, xp), w, VISUAL + "ln_pre")
    heads = visual["heads"]
    dim = visual["width"] // heads
    for m in range(visual["layers"]):
        name = f"{VISUAL}transformer.resblocks.{m}."
        h = layer_norm(x, w, name + "ln_1") @ w[name + "attn.in_proj.weight"].T + w[name + "attn.in_proj.bias"]
        parts = h.reshape(len(x), heads, 3, dim)                  # of each head: q, then k, then v
        q, k, v = (parts[:, :, i].reshape(len(x), -1) for i in range(3))
        y = attend(q, k, v, heads, xp) @ w[name + "attn.out_proj.weight"].T
        x = x + y + w[name + "attn.out_proj.bias"]
        h = layer_norm(x, w, name + "ln_2") @ w[name + "mlp.c_fc.weight"].T + w[name + "mlp.c_fc.bias"]
        h = h * 0.5 * (1 + erf(h / math.sqrt(2), xp))
        x = x + h @ w[name + "mlp.c_proj.weight"].T + w[name + "mlp.c_proj.bias"]
    return resample(w, x, n, xp)


def resample(w, x, n, xp):
    pool, width = VISUAL + "attn_pool.", w[VISUAL + "proj"].shape[0]
    kv = layer_norm(x @ w[pool + "kv_proj.weight"].T, w, pool + "ln_kv")
    table = w[pool + "pos_embed"]
    q = layer_norm(w[pool + "query"], w, pool + "ln_q") + table
    k = kv + interpolated(table, n, xp)
    weight, bias = w[pool + "attn.in_proj_weight"], w[pool + "attn.in_proj_bias"]
    q, k, v = (rows @ weight[i * width:(i + 1) * width].T + bias[i * width:(i + 1) * width]
               for i, rows in enumerate((q, k, kv)))
    y = attend(q, k, v, width // 128, xp) @ w[pool + "attn.out_proj.weight"].T + w[pool + "attn.out_proj.bias"]
    return layer_norm(y, w, VISUAL + "ln_post") @ w[VISUAL + "proj"]


def turned(x, heads, theta, xp):
    """Every head of (n, width) rows by its place."""
    n, dim = len(x), x.shape[-1] // heads
    angle = np.outer(np.arange(n), float(theta) ** (-np.arange(0, dim, 2) / dim))
    cos, sin = (np.tile(f(angle), 2 * heads) for f in (np.cos, np.sin))
    if xp is not np:
        cos, sin = xp.as_tensor(cos), xp.as_tensor(sin)
    parts = x.reshape(n, heads, 2, dim // 2)
    half = [-parts[:, :, 1:], parts[:, :, :1]]
    turned_half = (np.concatenate(half, 2) if xp is np else xp.cat(half, 2)).reshape(n, -1)
    return x * cos + turned_half * sin


def base(config, prompt_length):
    """Of the rope of a sequence whose prompt has so many tokens."""
    plain, dim = float(config["rotary_emb_base"]), config["hidden_size"] // config["num_attention_heads"]
    if not config.get("use_dynamic_ntk", True):
        return plain
    alpha = max(2 ** math.ceil(math.log2(prompt_length / config["seq_length"]) + 1) - 1, 1)
    return plain * alpha ** (dim / (dim - 2))


def stretch(config, n):
    """(n, 1) what the queries of n tokens are multiplied by."""
    length = config["seq_length"]
    logs = [math.log(p + 1, length) if p + 1 > length else 1.0 for p in range(n)]
    return np.array(logs if config.get("use_logn_attn", True) else [1.0] * n)[:, None]


def logits(w, config, ids, features=(), places=(), xp=np, prompt_length=None):
    """(len(ids), vocabulary): features (m, hidden) stand in place of the rows that places (m,) names. prompt_length:
    of the first of the ids; None: of all."""
    d, heads, eps = config["hidden_size"], config["num_attention_heads"], config["layer_norm_epsilon"]
    x = w["transformer.wte.weight"][list(ids)]
    x = x.copy() if xp is np else x.clone()
    if len(places):
        x[list(places)] = features
    n = len(ids)
    mask = np.triu(np.full((n, n), -np.inf), 1)
    theta, q_scale = base(config, prompt_length or n), stretch(config, n)
    mask, q_scale = (x if xp is np else xp.as_tensor(x) for x in (mask, q_scale))
    for layer in range(config["num_hidden_layers"]):
        name = f"transformer.h.{layer}."
        h = rms_norm(x, w[name + "ln_1.weight"], eps)
        h = h @ w[name + "attn.c_attn.weight"].T + w[name + "attn.c_attn.bias"]
        q, k, v = h[:, :d], h[:, d:2 * d], h[:, 2 * d:]
        q, k = (turned(rows, heads, theta, xp) for rows in (q, k))
        x = x + attend(q * q_scale, k, v, heads, xp, mask) @ w[name + "attn.c_proj.weight"].T
        h = rms_norm(x, w[name + "ln_2.weight"], eps)
        gate = h @ w[name + "mlp.w2.weight"].T
        x = x + (gate / (1 + xp.exp(-gate)) * (h @ w[name + "mlp.w1.weight"].T)) @ w[name + "mlp.c_proj.weight"].T
    return rms_norm(x, w["transformer.ln_f.weight"], eps) @ w["lm_head.weight"].T
