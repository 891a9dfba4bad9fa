"""The operations that decide a card's step, beside PyTorch, in one call of at most eight minutes: products, the head,
attention, AdamW.

    PYTHONPATH=. python tests/bench/bench_gpu_kernels.py [--parts products,head,attention,adamw]
        [--shapes 0.5b,1.5b,7b] [--seconds 480]

products: the four of a layer on 16,384 rows, forward and backward, ours with sums that do not depend on the rows
beside. head: log-probs, entropies, dh and dW of 38,400 rows, 6 rows x width x vocabulary FLOPs. Peers: the same
formulas over 4,096 rows at a time, as they are and with everything between the products through torch.compile. MB: what
the device held beside operands and results (ours: the scratch of all operations). attention: 65,536 tokens in sequences
of 450, 1,024 and 4,096, forward, and with backward; 4 and 14 heads x head_dim x tokens x length / 2 FLOPs. Peer: the
fastest of scaled_dot_product_attention's backends. adamw: the gradient's norm and AdamW on 268 million parameters with
float32 masters, 32 bytes each. Peer: clip_grad_norm_, fused AdamW and a copy to bfloat16. Both sides are timed by the
host's clock until the device is done, ours and peers' on the same random numbers, and results are compared first: a
case whose results differ fails. Ceilings are those of the same call, predictions grpo.step_time's.
--device cpu --shapes tiny tries the script itself.
"""
from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from card_table import Call, Row, main
from timing import seconds_of, spread
from work import SHAPES

from grpo import _core
from grpo.planning import step_time
from grpo.planning.cards import Ceilings

REPEATS, CHUNK = 7, 4096                    # timings; the peers' rows of logits at a time


@dataclass(frozen=True)
class Sizes:
    product_rows: int
    head_rows: int
    attention_tokens: int
    lengths: tuple[int, ...]
    matrix: tuple[int, int]


SIZES = {"cuda": Sizes(16384, 38400, 65536, (450, 1024, 4096), (32768, 8192)),
         "cpu": Sizes(64, 96, 180, (45, 90), (256, 128))}


def random(*shape: int) -> np.ndarray:
    """Normal numbers, bfloat16 in float32: a block of a million, over and over."""
    block = np.random.default_rng(sum(shape)).standard_normal(1 << 20, dtype=np.float32)
    return np.resize((block.view(np.uint32) & 0xffff0000).view(np.float32), shape)


def on(device: str, array: np.ndarray, dtype: str | None = "bfloat16"):
    import torch

    tensor = torch.from_numpy(array).to(device)
    return tensor.to(getattr(torch, dtype)) if dtype else tensor


def times_of(ops: _core.Ops, call: Callable[[], object]) -> list[float]:
    ops.repeat = REPEATS
    call()
    ops.repeat = 1
    return ops.times


def alike(what: str, ours: np.ndarray, theirs, most: float = 0.02) -> None:
    """AssertionError where two results differ by more than `most` of their norm."""
    theirs = theirs.detach().float().cpu().numpy().reshape(ours.shape)
    error = np.linalg.norm((ours - theirs).astype(np.float64)) / np.linalg.norm(theirs.astype(np.float64))
    assert error <= most, f"{what}: results differ by {error:.1%}"


def peer(call: Callable[[], object], device: str) -> dict:
    """Its times and the memory it took beside what was there, or why there are none."""
    import torch

    try:
        call()
        if device == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        seconds = seconds_of(call, device, REPEATS)
        return {"seconds": seconds,
                "mb": (torch.cuda.max_memory_allocated() - before) / 1e6 if device == "cuda" else None}
    except Exception as error:              # a backend or a compiler that is not there must not end the others
        return {"why": f"failed: {str(error).strip().splitlines()[0][:120]}"}


# -- products ----------------------------------------------------------------------------------------------------------

def measure_products(shape: str, device: str) -> list[dict]:
    """The four of a layer: y = x W^T, dx = dy W, dW += dy^T x in float32."""
    import torch

    s, N, ops, rows = step_time.Shape.of(SHAPES[shape]), SIZES[device].product_rows, _core.Ops(device), []
    for name, O, C in (("qkv", s.qkv, s.d_model), ("o", s.d_model, s.heads), ("gate, up", 2 * s.d_ff, s.d_model),
                       ("down", s.d_model, s.d_ff)):
        x, dy, W, dW = random(N, C), random(N, O), random(O, C) / np.float32(C**0.5), np.zeros((O, C), np.float32)
        tx, tdy, tW, tdW = on(device, x), on(device, dy), on(device, W), on(device, dW, None)
        for what, ours, theirs in (("forward", lambda: ops.linear(x, W), lambda: torch.nn.functional.linear(tx, tW)),
                                   ("dx", lambda: ops.linear_dx(dy, W), lambda: tdy @ tW),
                                   ("dW", lambda: ops.linear_dw(dW, None, dy, x), lambda: tdW.add_(tdy.T @ tx))):
            alike(f"products, {name}, {what}", ours(), theirs())
            flops = 2.0 * N * O * C
            case = {"what": f"{name}, {what}, {N:,} x {C:,} x {O:,}", "flops": flops,
                    "parts": (step_time.Part(step_time.PRODUCTS, flops),)}
            rows += [{**case, "who": "grpo", "seconds": times_of(ops, ours)},
                     {**case, "who": "PyTorch", **peer(theirs, device)}]
    return rows


# -- head --------------------------------------------------------------------------------------------------------------

def softmax_terms(z, target, coef):
    """(logp, entropy, dz in bfloat16) of logits z: what lies between the head's products."""
    import torch

    z = z.float()
    lse = z.logsumexp(-1, keepdim=True)
    p = (z - lse).exp()
    logp = (z.gather(-1, target[:, None]) - lse)[:, 0]
    dz = (-p * coef[:, None]).scatter_add(-1, target[:, None], coef[:, None])
    return logp, lse[:, 0] - (p * z).sum(-1), dz.to(torch.bfloat16)


def chunked_head(h, W, target, coef, between: Callable):
    """(logp, entropy, dh, dW), CHUNK rows at a time; dW in float32."""
    import torch

    dW, parts = torch.zeros(W.shape, device=W.device), []
    for rows, ids, c in zip(h.split(CHUNK), target.split(CHUNK), coef.split(CHUNK), strict=True):
        logp, entropy, dz = between(rows @ W.T, ids, c)
        dW += dz.T @ rows
        parts.append((logp, entropy, dz @ W))
    return *(torch.cat(part) for part in zip(*parts, strict=True)), dW


def measure_head(shape: str, device: str) -> list[dict]:
    import torch

    sizes, R = step_time.Shape.of(SHAPES[shape]), SIZES[device].head_rows
    C, V = sizes.d_model, sizes.vocab
    h, W, coef = random(R, C), random(V, C) / np.float32(C**0.5), random(R)
    target, zero = np.random.default_rng(1).integers(0, V, R).astype(np.int32), np.zeros((V, C), np.float32)
    before, ops = _core.memory_in_use(), _core.Ops(device)
    ours = ops.head_bwd(zero, h, W, target, coef)
    scratch = (_core.memory_in_use() - before) / 1e6
    seconds = times_of(ops, lambda: ops.head_bwd(zero, h, W, target, coef))
    step = step_time.Step(prompts=1, generations=1, prompt_length=0, new_tokens=R, slots=1, token_budget=R)
    case = {"what": f"head, {R:,} x {C} x {V:,}", "flops": 6 * R * C * V,
            "parts": step_time.head(sizes, step, step_time.SHARES[device]).parts}
    operands = on(device, h), on(device, W), on(device, target, "int64"), on(device, coef, None)
    peers = chunked_head(*operands, softmax_terms)
    for name, mine, theirs in zip(("logp", "entropy", "dh", "dW"), ours, peers, strict=True):
        alike(f"head, {name}", mine, theirs)
    compiled = torch.compile(softmax_terms, backend="inductor" if device == "cuda" else "eager")
    return [{**case, "who": "grpo", "seconds": seconds, "mb": scratch},
            *({**case, "who": who, **peer(lambda between=between: chunked_head(*operands, between), device)}
              for who, between in (("chunks", softmax_terms), ("chunks, compiled", compiled)))]


# -- attention ---------------------------------------------------------------------------------------------------------

def measure_attention(shape: str, device: str) -> list[dict]:
    rows = []
    for length in SIZES[device].lengths:
        rows += attention_of(shape, device, length)
    return rows


def attention_of(shape: str, device: str, T: int) -> list[dict]:
    import torch

    c = SHAPES[shape]
    Hq, Hkv = c["num_attention_heads"], c["num_key_value_heads"]
    D, B = c["hidden_size"] // Hq, SIZES[device].attention_tokens // T
    qkv, dy = random(B * T, (Hq + 2 * Hkv) * D), random(B * T, Hq * D)
    segments = np.array([(i * T, T, 0, 0) for i in range(B)], np.int32)
    ops = _core.Ops(device)
    y, lse = ops.attention(qkv, segments, Hq, Hkv, D)
    dqkv = ops.attention_bwd(dy, y, lse, qkv, segments, Hq, Hkv, D)
    forward = times_of(ops, lambda: ops.attention(qkv, segments, Hq, Hkv, D))
    backward = times_of(ops, lambda: ops.attention_bwd(dy, y, lse, qkv, segments, Hq, Hkv, D))
    q, k, v = (part.contiguous().requires_grad_()
               for part in on(device, qkv).view(B, T, -1, D).transpose(1, 2).split([Hq, Hkv, Hkv], 1))
    gradient = on(device, dy).view(B, T, Hq, D).transpose(1, 2).contiguous()
    alike("attention, y", y, sdpa(q, k, v).transpose(1, 2))
    both = lambda: torch.autograd.grad(sdpa(q, k, v), (q, k, v), gradient)          # noqa: E731
    alike("attention, dqkv", dqkv, torch.cat(both(), 1).transpose(1, 2))
    rows = []
    forward_backward = [a + b for a, b in zip(forward, backward, strict=True)]
    for what, per_pair, times, call in (("forward", 4, forward, lambda: sdpa(q, k, v)),
                                        ("forward + backward", 14, forward_backward, both)):
        flops, moved = (per_pair * Hq * D * B * T * T / 2,
                        2.0 * B * T * (2 * Hq + 2 * Hkv) * D * (1 if per_pair == 4 else 3))
        case = {"what": f"attention, {Hq}/{Hkv} heads of {D}, {T} tokens, {what}", "flops": flops,
                "parts": (step_time.Part(step_time.ATTENTION, flops, moved),)}
        rows += [{**case, "who": "grpo", "seconds": times}, {**case, "who": "SDPA", **fastest_backend(call, device)}]
    return rows


def sdpa(q, k, v):
    import torch

    return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


def fastest_backend(call: Callable[[], object], device: str) -> dict:
    """peer() of the backend that takes least, which is named."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    found = []
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION):
        with sdpa_kernel(backend):
            found.append({**peer(call, device), "note": backend.name})
    return min(found, key=lambda one: statistics.median(one["seconds"]) if "seconds" in one else float("inf"))


# -- AdamW -------------------------------------------------------------------------------------------------------------

ADAMW = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.01}
MAX_NORM = 1.0


def fused_adamw(w, g, m, v, device: str):
    """(what does a step, the bfloat16 weights it leaves, its states): clip_grad_norm_, fused AdamW on float32 masters,
    a copy to bfloat16."""
    import torch

    masters = [part.clone().requires_grad_() for part in w.chunk(32)]
    stored = [torch.empty_like(part, dtype=torch.bfloat16) for part in masters]
    optimizer = torch.optim.AdamW(masters, lr=ADAMW["lr"], betas=(ADAMW["beta1"], ADAMW["beta2"]), eps=ADAMW["eps"],
                                  weight_decay=ADAMW["weight_decay"], fused=True)
    for part, gradient, first, second in zip(masters, g.chunk(32), m.chunk(32), v.chunk(32), strict=True):
        part.grad = gradient.clone()
        optimizer.state[part] = {"step": torch.ones((), device=device), "exp_avg": first.clone(),
                                 "exp_avg_sq": second.clone()}

    def call() -> None:
        torch.nn.utils.clip_grad_norm_(masters, MAX_NORM)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_copy_(stored, masters)

    return call, stored, [optimizer.state[part] for part in masters]


def measure_adamw(shape: str, device: str) -> list[dict]:
    import torch

    O, C = SIZES[device].matrix
    w, g, m, v = random(O, C), random(O, C), random(O, C) * np.float32(0.1), random(O, C)**2 * np.float32(0.01)
    lower, ops = np.zeros((O, C), np.uint16), _core.Ops(device)
    norm = float(ops.sum_squares(g.ravel()))**0.5
    arguments = {**ADAMW, "grad_scale": min(1.0, MAX_NORM / (norm + 1e-6)), "correction1": 1 - ADAMW["beta1"]**2,
                 "correction2": 1 - ADAMW["beta2"]**2}
    new_w, _, new_m, new_v = ops.adamw(w, lower, m, v, g, **arguments)
    squares = times_of(ops, lambda: ops.sum_squares(g.ravel()))
    update = times_of(ops, lambda: ops.adamw(w, lower, m, v, g, **arguments))
    call, weights, states = fused_adamw(*(on(device, array, None) for array in (w, g, m, v)), device)
    call()
    for name, mine, theirs, most in (("w", new_w, weights, 1e-4),
                                     ("m", new_m, [state["exp_avg"] for state in states], 1e-5),
                                     ("v", new_v, [state["exp_avg_sq"] for state in states], 1e-5)):
        alike(f"adamw, {name}", mine, torch.cat(theirs), most)
    n = O * C
    case = {"what": f"norm and AdamW, {n / 1e6:.3g} M parameters", "bytes": 32 * n,
            "parts": (step_time.Part(step_time.MEMORY, bytes=32.0 * n),)}
    return [{**case, "who": "grpo", "seconds": [a + b for a, b in zip(squares, update, strict=True)]},
            {**case, "who": "fused AdamW", **peer(call, device)}]


# -- driver ------------------------------------------------------------------------------------------------------------

PARTS = {"products": measure_products, "head": measure_head, "attention": measure_attention, "adamw": measure_adamw}


def measure_case(part: str, shape: str, device: str) -> dict:
    """In the child: the rows of a case, as JSON has them."""
    return {"rows": [row | {"parts": [vars(one) for one in row["parts"]]} for row in PARTS[part](shape, device)]}


def table_row(row: dict, ours: list[float] | None, at: Ceilings, device: str) -> str:
    phase = step_time.Phase("", tuple(step_time.Part(**part) for part in row["parts"]))
    predicted = (f"{1e3 * step_time.floor([phase], at):.3f}, {1e3 * step_time.expected([phase], at, device):.3f}"
                 if row["who"] == "grpo" else "")
    if "why" in row:
        return f"| {row['what']} | {row['who']} | | | | | {row['why']} |"
    seconds = statistics.median(row["seconds"])
    rate = (f"{row['flops'] / seconds / 1e12:.3g} TFLOP/s, {row['flops'] / seconds / at.flops:.0%}" if "flops" in row
            else f"{row['bytes'] / seconds / 1e9:.0f} GB/s, {row['bytes'] / seconds / at.bandwidth:.0%}")
    ratio = spread([seconds / one for one in ours]) + "x" if ours and row["who"] != "grpo" else ""
    note = row.get("note") or (f"{row['mb']:.0f} MB" if row.get("mb") is not None else "")
    measured = spread([1e3 * one for one in row["seconds"]], 3)
    return f"| {row['what']} | {row['who']} | {predicted} | {measured} | {rate} | {ratio} | {note} |"


def table_rows(call: Call) -> Iterator[Row]:
    for part in call.options.parts:
        for shape in call.options.shapes if part != "adamw" else call.options.shapes[:1]:
            result, ours = call.measure(part, shape), None
            if "why" in result:
                yield f"| {part}, {shape} | grpo | | | | | {result['why']} |", f"{part}, {shape}: {result['why']}"
            for row in result.get("rows", ()):
                ours = row["seconds"] if row["who"] == "grpo" else ours
                yield table_row(row, ours, call.at, call.options.device), ""


if __name__ == "__main__":
    main(__file__, __doc__, PARTS, "0.5b,1.5b,7b", measure_case,
         "| what | who | floor, predicted, ms | measured, ms | rate, share of the ceiling | grpo is faster | |",
         table_rows)
