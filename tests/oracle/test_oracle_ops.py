"""Operations against torch and transformers, live, with their gradients: interpolated tables, LayerNorm, the three
GELUs, rotary embeddings whose positions have several axes, attention with a sliding window. torch computes in float64,
on numbers that bfloat16 can hold."""
import numpy as np
import pytest

from checks import check_float, check_rounded, real
from grpo import _core
from op_statements import AXES, SEES_ALL, SEES_BEFORE, SEES_PREFIX, split_heads

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from transformers.activations import ACT2FN  # noqa: E402
from transformers.masking_utils import sliding_window_causal_mask_function  # noqa: E402
from transformers.models.qwen2_vl import configuration_qwen2_vl, modeling_qwen2_vl  # noqa: E402
from transformers.models.qwen3_vl import configuration_qwen3_vl, modeling_qwen3_vl  # noqa: E402

pytestmark = pytest.mark.oracle
torch.set_num_threads(1)                     # small tensors: threads would only wait for each other
N, EPS = 37, 1e-6


def check(device, got, want):
    """Activations: float32 on ref, rounded to bfloat16 elsewhere."""
    (check_float if device == "ref" else check_rounded)(got, want.detach().numpy())


def tensors(*arrays):
    return [torch.tensor(array, dtype=torch.float64, requires_grad=True) for array in arrays]


@pytest.mark.parametrize("C", [1280, 4608, 77])
def test_layernorm(device, rng, C):
    ops, x, w, b, dy = _core.Ops(device), real(rng, N, C, scale=2), real(rng, C), real(rng, C), real(rng, N, C)
    y, mean, rstd = ops.layernorm(x, w, b, EPS)
    dx, dw, db = ops.layernorm_bwd_add(np.zeros_like(x), np.zeros_like(w), np.zeros_like(b), dy, x, w, mean, rstd)
    inputs = tensors(x, w, b)
    want = torch.nn.functional.layer_norm(inputs[0], (C,), *inputs[1:], EPS)
    want_dx, want_dw, want_db = torch.autograd.grad(want, inputs, torch.tensor(dy))
    check(device, y, want)
    check(device, dx, want_dx)
    check_float(dw, want_dw.numpy())
    check_float(db, want_db.numpy())


@pytest.mark.parametrize("K, mode", [(4, "bilinear"), (16, "bicubic")])
def test_interpolated_table(device, rng, K, mode):
    """A table of positions stretched to another grid: each row mixes the K nearest, and ids repeat at the edges."""
    ops, side, (h, w), C = _core.Ops(device), 6, (9, 4), 77
    E, dy = real(rng, side * side, C), real(rng, h * w, C)
    (table,) = tensors(E)
    grid = table.reshape(side, side, C).permute(2, 0, 1)[None]
    want = torch.nn.functional.interpolate(grid, (h, w), mode=mode, align_corners=False)[0].permute(1, 2, 0)
    ids, weights = (np.empty((h, w, K), dtype) for dtype in (np.int32, np.float32))
    for i, j in np.ndindex(h, w):
        (rows, row_weights), (cols, col_weights) = (nearest(at, n, side, K) for at, n in ((i, h), (j, w)))
        ids[i, j] = (rows[:, None] * side + cols).ravel()
        weights[i, j] = np.outer(row_weights, col_weights).ravel()
    ids, weights = ids.reshape(-1, K), weights.reshape(-1, K)
    assert any(len(set(row)) < K for row in ids.tolist())
    dE = ops.embed_mix_dw(np.zeros_like(E), dy, ids, weights)
    check(device, ops.embed_mix(E, ids, weights), want.reshape(-1, C))
    check_float(dE, torch.autograd.grad(want.reshape(-1, C), table, torch.tensor(dy))[0].numpy(), 1e-5)


def nearest(at, n, side, K):
    """The ids of sqrt(K) neighbours of pixel `at` of n on a side of the table, and their weights."""
    x = (at + 0.5) * side / n - 0.5
    if K == 4:
        x = max(x, 0)                                    # so torch treats the edge where it is bilinear
        ids = np.floor(x) + np.arange(2)
        weights = 1 - np.abs(x - ids)
    else:
        ids, a = np.floor(x) + np.arange(-1, 3), -0.75
        t = np.abs(x - ids)
        weights = np.where(t <= 1, (a + 2) * t**3 - (a + 3) * t**2 + 1, a * (t**3 - 5 * t**2 + 8 * t - 4))
    return np.clip(ids, 0, side - 1).astype(int), weights


@pytest.mark.parametrize("kind, name", [(0, "gelu"), (1, "gelu_pytorch_tanh"), (2, "quick_gelu")])
def test_gelu(device, rng, kind, name):
    ops, z, dy = _core.Ops(device), real(rng, N, 333, scale=3), real(rng, N, 333)
    (x,) = tensors(z)
    want = ACT2FN[name](x)
    check(device, ops.gelu(z, kind), want)
    check(device, ops.gelu_bwd(dy, z, kind), torch.autograd.grad(want, x, torch.tensor(dy))[0])


def text_rotary(modeling, config, embedding, section):
    """The frequencies (D/2) of a text model, and its rotation of q, k (N, heads, D) at positions (3, N)."""
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": section}
    embedding = embedding(config(hidden_size=512, num_attention_heads=4, num_key_value_heads=2, head_dim=128,
                                 rope_parameters=rope))

    def rotate(q, k, positions):
        cos, sin = embedding(q, positions[:, None])
        return modeling.apply_rotary_pos_emb(q, k, cos[0], sin[0])

    return embedding.inv_freq.numpy(), rotate


def tower_rotary():
    """The same of a vision tower, at positions (2, N)."""
    tower = configuration_qwen2_vl.Qwen2VLVisionConfig(embed_dim=240, num_heads=3)
    embedding = modeling_qwen2_vl.Qwen2VLVisionRotaryEmbedding(tower)

    def rotate(q, k, positions):
        return modeling_qwen2_vl.apply_rotary_pos_emb_vision(q, k, *embedding(q, positions.T))

    return np.tile(embedding.inv_freq.numpy(), 2), rotate


ROTARY = {                                   # name in AXES: query heads, KV heads, what transformers does
    "chunked": (4, 2, lambda: text_rotary(modeling_qwen2_vl, configuration_qwen2_vl.Qwen2VLTextConfig,
                                          modeling_qwen2_vl.Qwen2VLRotaryEmbedding,
                                          [16, 24, 24])),
    "interleaved": (4, 2, lambda: text_rotary(modeling_qwen3_vl, configuration_qwen3_vl.Qwen3VLTextConfig,
                                              modeling_qwen3_vl.Qwen3VLTextRotaryEmbedding, [24, 20, 20])),
    "tower": (3, 3, tower_rotary),
}


@pytest.mark.parametrize("name", ROTARY)
def test_rotary_embeddings_of_several_axes(device, rng, name):
    """Table, rotation and its gradient; v passes as it is."""
    Hq, Hkv, make = ROTARY[name]
    (inv_freq, rotate), axis, ops = make(), AXES[name].astype(np.int32), _core.Ops(device)
    D = 2 * len(axis)
    positions = rng.integers(0, 3000, (axis.max() + 1, N)).astype(np.int32)
    qkv, d = real(rng, N, (Hq + 2 * Hkv) * D), real(rng, N, (Hq + 2 * Hkv) * D)
    inputs = tensors(*split_heads(qkv, Hq, Hkv, D))
    want = [*rotate(*inputs[:2], torch.tensor(positions)), inputs[2]]
    gradients = torch.autograd.grad(want, inputs, [torch.tensor(part) for part in split_heads(d, Hq, Hkv, D)])
    table = ops.rope_table(positions, inv_freq[None], axis)
    got = (ops.rope(qkv, None, None, EPS, *table, None, Hq, Hkv, D),
           ops.rope_bwd(d, None, None, qkv, None, None, EPS, *table, None, Hq, Hkv, D))
    for mine, theirs in zip(got, (want, gradients), strict=True):
        check(device, mine, torch.cat(list(theirs), dim=1).reshape(N, -1))


@pytest.mark.parametrize("window, scale",
                         [(1, None), (2, None), (31, None), (32, 256**-0.5), (33, None), (100, 0.25), (1000, None)])
@pytest.mark.parametrize("Hq, Hkv, D", [(4, 1, 256), (6, 2, 64)])
def test_sliding_window(device, rng, Hq, Hkv, D, window, scale):
    """The mask of Mistral and of Gemma's windowed layers, and a scale of the scores that is not the usual one."""
    ops, T, segments = _core.Ops(device), 130, np.array([[0, 130, 0, 0]], np.int32)
    qkv, dy = real(rng, T, (Hq + 2 * Hkv) * D), real(rng, T, Hq * D)
    y, lse = ops.attention(qkv, segments, Hq, Hkv, D, window, scale=scale)
    dqkv = ops.attention_bwd(dy, y, lse, qkv, segments, Hq, Hkv, D, window, scale=scale)
    mask = sliding_window_causal_mask_function(window)(0, 0, torch.arange(T)[:, None], torch.arange(T))
    inputs = tensors(*split_heads(qkv, Hq, Hkv, D))
    q, k, v = (t.transpose(0, 1) for t in inputs)
    want = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask, scale=scale,
                                                            enable_gqa=True).transpose(0, 1).reshape(T, -1)
    gradients = torch.cat(torch.autograd.grad(want, inputs, torch.tensor(dy)), dim=1).reshape(T, -1).numpy()
    check(device, y, want)
    assert np.abs(dqkv - gradients).max() <= (1e-6 if device == "ref" else 2.0**-6) * np.abs(gradients).max()


def attend(q, k, v, **mask):
    """scaled_dot_product_attention of rows (n, heads, D) -> (n, heads, D)."""
    q, k, v = (t.transpose(0, 1) for t in (q, k, v))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True, **mask).transpose(0, 1)


@pytest.mark.parametrize("sight", [SEES_BEFORE, SEES_ALL, SEES_PREFIX])
@pytest.mark.parametrize("Hq, Hkv, D", [(3, 3, 80), (2, 2, 72), (8, 2, 64), (2, 2, 32)])
def test_sights(device, rng, Hq, Hkv, D, sight):
    """A tower's frames one after the other, causal or each row with all of its frame; and queries that attend across to
    the rows before them, where the keys' own queries see nothing."""
    ops, lengths = _core.Ops(device), [64, 97, 1, 150]
    starts = np.cumsum([0, *lengths])
    segments = np.array([[start, n, 0, 0] for start, n in zip(starts, lengths, strict=False)], np.int32)
    if sight == SEES_PREFIX:
        segments[1::2, 2:] = segments[::2, :2]                       # 97 queries of 64 keys, 150 of one
    qkv, dy = real(rng, starts[-1], (Hq + 2 * Hkv) * D), real(rng, starts[-1], Hq * D)
    y, lse = ops.attention(qkv, segments, Hq, Hkv, D, sight=sight)
    dqkv = ops.attention_bwd(dy, y, lse, qkv, segments, Hq, Hkv, D, sight=sight)
    inputs = tensors(*split_heads(qkv, Hq, Hkv, D))
    frames = list(zip(*(torch.split(t, lengths) for t in inputs), strict=True))
    if sight == SEES_PREFIX:
        parts = [part for (q0, k, v), (q, _, _) in zip(frames[::2], frames[1::2], strict=True)
                 for part in (q0 * 0, attend(q, k, v))]
    else:
        parts = [attend(*frame, is_causal=sight == SEES_BEFORE) for frame in frames]
    want = torch.cat(parts).reshape(len(qkv), -1)
    gradients = torch.cat(torch.autograd.grad(want, inputs, torch.tensor(dy)), dim=1).reshape(len(qkv), -1).numpy()
    check(device, y, want)
    assert np.abs(dqkv - gradients).max() <= (1e-6 if device == "ref" else 2.0**-6) * np.abs(gradients).max()
