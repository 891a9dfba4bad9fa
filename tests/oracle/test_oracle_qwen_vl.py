"""Qwen-VL's tower against PyTorch: its interpolation, its attention with several inputs, its gradients by autograd."""
import math

import numpy as np
import pytest

from qwen_vl_statement import logits
from tiny_models import relative_error
from tiny_qwen_vl import build, entries, noise, prompt, qwen_vl, widened

torch = pytest.importorskip("torch")
functional = torch.nn.functional
pytestmark = pytest.mark.oracle

VISUAL = "transformer.visual."
# a published table of 16 x 16 places, of fewer, of as many as there are patches
SHAPES = [(qwen_vl(), 16), (qwen_vl(width=208, tower_heads=2, layers=1, side=6, queries=9, d=256), 3),
          (qwen_vl(side=5, queries=25, layers=3), 5),
          # prompts of 10 and 17 tokens, which stretch ropes once and twice
          (qwen_vl(seq_length=8), 16)]
LIMITS = {"ref": (1e-5, 1e-4), "cpu": (2e-2, 0.15)}


def interpolate(table, n):
    side = math.isqrt(len(table))
    if side == n:
        return table
    grid = table.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    made = functional.interpolate(grid, size=(n, n), mode="bicubic", align_corners=False)
    return made.permute(0, 2, 3, 1).flatten(0, 2)


def norm(x, w, name):
    return functional.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-6)


def linear(x, w, name):
    return functional.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])


def see(w, visual, pixels):
    """Features of one image, from its pixels as a convolution reads them."""
    n, patch, heads = visual["image_size"] // visual["patch_size"], visual["patch_size"], visual["heads"]
    plane = pixels.reshape(n, n, 3, patch, patch).permute(2, 0, 3, 1, 4).reshape(1, 3, n * patch, n * patch)
    x = functional.conv2d(plane, w[VISUAL + "conv1.weight"], stride=patch).flatten(2)[0].T
    x = norm(x + interpolate(w[VISUAL + "positional_embedding"], n), w, VISUAL + "ln_pre")
    for m in range(visual["layers"]):
        name = f"{VISUAL}transformer.resblocks.{m}."
        q, k, v = linear(norm(x, w, name + "ln_1"), w, name + "attn.in_proj").reshape(
            len(x), heads, -1).transpose(0, 1).chunk(3, -1)
        y = functional.scaled_dot_product_attention(q, k, v).transpose(0, 1).flatten(1)
        x = x + linear(y, w, name + "attn.out_proj")
        x = x + linear(functional.gelu(linear(norm(x, w, name + "ln_2"), w, name + "mlp.c_fc")), w, name + "mlp.c_proj")
    pool, out = VISUAL + "attn_pool.", w[VISUAL + "proj"].shape[0]
    kv = norm(functional.linear(x, w[pool + "kv_proj.weight"]), w, pool + "ln_kv")
    table = w[pool + "pos_embed"]
    y, _ = functional.multi_head_attention_forward(
        norm(w[pool + "query"], w, pool + "ln_q") + table, kv + interpolate(table, n), kv, out, out // 128,
        w[pool + "attn.in_proj_weight"], w[pool + "attn.in_proj_bias"], None, None, False, 0.0,
        w[pool + "attn.out_proj.weight"], w[pool + "attn.out_proj.bias"], training=False)
    return norm(y, w, VISUAL + "ln_post") @ w[VISUAL + "proj"]


@pytest.mark.parametrize("device", LIMITS)
@pytest.mark.parametrize("config, table", SHAPES)
def test_features_and_gradients(config, table, device):
    core, weights = build(config, device, table_side=table)
    w = {name: torch.tensor(x, dtype=torch.float64, requires_grad=True) for name, x in weights.items()}
    x, most = noise(config, 3), LIMITS[device]
    pixels = [x[:1], x[1:]]
    made = [prompt(config, some) for some in pixels]
    completions = [np.arange(3, dtype=np.int32), np.arange(7, 12, dtype=np.int32)]
    coef = np.linspace(-1, 2, 8).astype(np.float32)
    total, wanted, left = 0, [], iter(coef.tolist())
    for (ids, places, _), some, completion in zip(made, pixels, completions, strict=True):
        features = [see(w, config["visual"], torch.tensor(each, dtype=torch.float64)) for each in some]
        for found, expected in zip(core.see(entries(config, some)), features, strict=True):
            assert relative_error(widened(found)[0], expected.detach().numpy()) < most[0]
        z = logits(w, config, [*ids, *completion[:-1]], torch.cat(features), places, torch, len(ids))
        logp = torch.log_softmax(z, -1)[len(ids) - 1:].gather(1, torch.tensor(completion[:, None]).long())[:, 0]
        wanted += logp.tolist()
        total = total + sum(next(left) * each for each in logp)
    total.backward()
    logp, grads = core.logprob_grads([ids for ids, *_ in made], completions, np.arange(2, dtype=np.int32), coef,
                                     images=[beside for *_, beside in made], train_vision="all")
    assert relative_error(logp, wanted) < most[0]
    assert set(w) - set(grads) == {VISUAL + "attn_pool.pos_embed"}
    for name, grad in grads.items():
        assert relative_error(grad, w[name].grad.numpy()) < most[1], name
