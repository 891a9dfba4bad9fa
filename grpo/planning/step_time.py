"""Seconds of a GRPO step, predicted: from the bytes and floating-point operations of a model's shape, and the ceilings
of a device.

A step is a list of phases, a phase a list of parts, and a part takes the longer of its operations at the ceiling of
large products and its bytes at the ceiling of memory. Summed up so, with nothing else, that is the floor: weights read
once a token-step, keys and values of a prompt once a group, nothing computed twice, and passes between the products
fused into them. What is expected is more: passes are there, a backend reaches its share of a ceiling (SHARES), and a
kernel costs something besides its work.

Nothing is loaded or allocated: a 7B model's step is predicted on any machine. Completions are taken to have all their
tokens.

>>> from grpo.planning import Ceilings
>>> from grpo.planning.shapes import SHAPES
>>> step = Step(prompts=8, generations=16, prompt_length=150, new_tokens=300, slots=128, token_budget=16384)
>>> round(floor(phases(Shape.of(SHAPES["Qwen2.5-0.5B"]), step, "cuda"), Ceilings(790e12, 4.3e12, "")), 2)
0.25
"""
from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..model import spec_of
from ..model.families import Layer
from ..model.families.spec import Vision
from ..options import GRPOConfig
from .cards import Ceilings
from .memory import Shown

PRODUCTS, ATTENTION, MEMORY, KERNELS = "products", "attention", "memory", "kernels"
ORDER = ("images", "prefill", "decode", "scoring", "forward + backward", "head", "tower", "AdamW")      # of phases
SEEN_TOGETHER = 4096                           # patches of a batch, as csrc/run/see.h has it
REAL = 2                                       # bytes of a stored activation, weight, key or value


@dataclass(frozen=True)
class Shares:
    """What a backend's kernels reach. products, attention: of the rate of a large product; memory: of the ceiling of
    bytes; kernel: seconds of a kernel besides its work; decode, forward, backward: kernels a layer; head: products over
    the vocabulary in the head's forward and backward (3: logits, dh, dW; 4: logits are computed again)."""

    products: float
    attention: float
    memory: float
    kernel: float
    head: int
    decode: int = 11
    forward: int = 10
    backward: int = 17


# cpu: a profile of SmolLM2-135M's step (GRPO_PROFILE=1) on a Zen 4 core. cuda: assumed, not measured: products by the
# instruction that the card's ceiling rests on (wgmma from 9.0 on), attention by mma.sync, 120 of an H200's 790 TFLOP/s;
# a node of a graph 1.8 us.
SHARES = {"cpu": Shares(products=0.8, attention=0.3, memory=0.8, kernel=0.0, head=3),
          "cuda": Shares(products=0.75, attention=0.15, memory=0.75, kernel=1.8e-6, head=4)}


@dataclass(frozen=True)
class Layers:
    """Of a network: elements of the matrices of all its layers (norms and biases, thousandths, are left out). heads,
    qkv, d_ff: of one layer, the first; the families' layers differ in their windows alone."""

    windows: tuple[int, ...]                   # rows that a row of each layer sees; 0: all there are for it
    d_model: int
    heads: int                                 # width of all query heads together
    qkv: int
    d_ff: int
    layers: int

    @property
    def n_layers(self) -> int:
        """How many layers there are."""
        return len(self.windows)


@dataclass(frozen=True)
class Tower(Layers):
    """Of what sees images: rows are patches. cell: how many become a feature; patch, mergers: elements of what enters,
    and of what makes features; table: of positions."""

    cell: int
    patch: int
    mergers: int
    table: int

    @classmethod
    def of(cls, vision: Vision) -> Tower:
        """From a network."""
        first, cell = vision.layers[0], vision.side**2
        columns = cell * vision.hidden_size
        return cls(windows=tuple(vision.window**2 * cell if layer.attention.by_window else 0
                                 for layer in vision.layers),
                   **widths(vision.hidden_size, first), layers=sum(matrices(vision.hidden_size, layer)
                                                                   for layer in vision.layers), cell=cell,
                   patch=math.prod(vision.patch_shape) * vision.hidden_size,
                   mergers=len(vision.mergers) * columns * (columns + vision.out),
                   table=vision.table_side**2 * vision.hidden_size)

    def trained(self, train_vision: str) -> int:
        """Elements of what is trained of it."""
        return {"none": 0, "merger": self.mergers,
                "all": self.patch + self.table + self.layers + self.mergers}[train_vision]


@dataclass(frozen=True)
class Shape(Layers):
    """Of a model: its text's layers, and elements of the head and of all that is trained. tower: what sees images."""

    kv_bytes: int                              # keys and values of one token
    head: int
    trained: int
    tower: Tower | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any], source: str = "config.json") -> Shape:
        """From a Hugging Face config. FileFormatError or UnsupportedModelError where it is none that the core runs."""
        spec = spec_of(config, source)
        d, head = spec.hidden_size, spec.vocab_size * spec.hidden_size
        layers = sum(matrices(d, layer) for layer in spec.layers)
        kv_width = sum(2 * layer.attention.kv_heads * layer.attention.head_dim for layer in spec.layers)
        return cls(windows=tuple(layer.attention.window for layer in spec.layers), **widths(d, spec.layers[0]),
                   kv_bytes=REAL * kv_width, layers=layers, head=head, trained=layers + head * (1 if spec.tie else 2),
                   tower=None if spec.vision is None else Tower.of(spec.vision))

    @property
    def vocab(self) -> int:
        """How many tokens the head tells apart."""
        return self.head // self.d_model


@dataclass(frozen=True)
class Step:
    """A rollout and its optimiser steps. Lengths in tokens. token_budget: tokens of a micro-batch. scorings: forward
    passes over the rollout beside those of updates. iterations: passes of updates over the rollout. updates: optimiser
    steps on it. stored: share of a pass whose activations the rollout leaves. state_bytes: AdamW's of a parameter: two
    moments, and the master's beside the working weight. image_tokens, images: of a prompt; looks: how often
    each image is seen besides updates; train_vision: what of a tower is trained."""

    prompts: int
    generations: int
    prompt_length: int
    new_tokens: int
    slots: int
    token_budget: int
    scorings: float = 0.0
    iterations: int = 1
    updates: int = 1
    stored: float = 0.0
    recompute: bool = False
    state_bytes: int = 10
    image_tokens: int = 0
    images: int = 0
    looks: int = 1
    train_vision: str = "none"

    @classmethod
    def of(cls, options: GRPOConfig, device: str, prompt_length: int, store_rows: int = 0,
           shown: Shown | None = None) -> Step:
        """The step that options ask for; store_rows: most rows of activations that a rollout leaves (memory.py); shown:
        by a prompt."""
        shown = shown or Shown()
        updates = options.steps_per_rollout
        step = cls(options.prompts_per_rollout, options.num_generations, prompt_length, options.max_completion_length,
                   options.slots_on(device), options.token_budget_on(device),
                   scorings=(options.beta > 0) + (options.num_iterations - options.batch_size / options.rollout_size
                                                  if options.top_entropy_quantile < 1 else 0),
                   iterations=options.num_iterations, updates=updates, recompute=options.recompute,
                   state_bytes={"float32": 8, "bfloat16": 4, "float8": 2}[options.moment_dtype]
                   + {"float32": 2, "float24": 1}[options.master_dtype],
                   image_tokens=shown.tokens, images=shown.images, train_vision=options.train_vision,
                   # a reference's tower stands still, and shares its features until the policy's moves
                   looks=2 if options.beta > 0 and options.train_vision != "none" else 1)
        on_policy = step.tokens * options.batch_size / options.rollout_size
        return cls(**{**vars(step), "stored": min(store_rows, on_policy) / step.tokens})

    @property
    def rows(self) -> int:
        """Completions of a rollout."""
        return self.prompts * self.generations

    @property
    def tokens(self) -> int:
        """Rows of the packed batch: prompts once a group; a completion's last token is not run."""
        return self.prompts * self.prompt_length + self.rows * (self.new_tokens - 1)

    def context(self, windows: Iterable[int]) -> float:
        """Pairs of a token and a token it attends to, in layers with these windows."""
        P, n = self.prompt_length, self.new_tokens
        return sum(self.prompts * seen(0, P, window) + self.rows * seen(P, n, window) for window in windows)

    def patches(self, tower: Tower) -> int:
        """Of all images of a rollout, each once."""
        return self.prompts * self.image_tokens * tower.cell

    @property
    def micro_batches(self) -> int:
        """How many a pass over the rollout takes."""
        return -(-self.tokens // self.token_budget)


@dataclass(frozen=True)
class Part:
    """Work of one kind: PRODUCTS, ATTENTION or MEMORY. kernels: how many it takes. extra: it could be spared, and no
    floor counts it."""

    kind: str
    flops: float = 0.0
    bytes: float = 0.0
    kernels: float = 0.0
    extra: bool = False


@dataclass(frozen=True)
class Phase:
    """A part of the step under one name, such as "decode", and the work that it is made of."""

    name: str
    parts: tuple[Part, ...]


def phases(shape: Shape, step: Step, device: str) -> list[Phase]:
    """All of a rollout and its optimiser steps, in the order in which they come."""
    shares = SHARES[device]
    tower = shape.tower if step.images else None
    found = [] if tower is None else [seeing(tower, step, shares)]
    found += [prefill(shape, step), decode(shape, step, shares)]
    if step.scorings:
        found.append(scoring(shape, step, shares))
    found += [training(shape, step, shares), head(shape, step, shares)]
    if tower is not None and step.train_vision != "none":
        found.append(tower_training(tower, step, shares))
    return [*found, optimiser(shape, step)]


def seeing(tower: Tower, step: Step, shares: Shares) -> Phase:
    """Features of the rollout's images, none of which was seen before."""
    return Phase("images", tower_forward(tower, step, shares, step.looks,
                                         step.looks * -(-step.patches(tower) // SEEN_TOGETHER)))


def tower_training(tower: Tower, step: Step, shares: Shares) -> Phase:
    """A tower that is trained runs again in updates, and back: its mergers alone, or all of it but what enters."""
    n, times, micro = step.patches(tower), step.iterations, step.micro_batches * step.iterations
    whole = step.train_vision == "all"
    again = tower_forward(tower, step, shares, times * (2 if step.recompute and whole else 1), micro)
    # of a product in the forward two, but for the patches, which need no gradient
    flops = 4 * tower.mergers / tower.cell + (4 * tower.layers + 2 * tower.patch if whole else 0)
    weights = tower.trained(step.train_vision) * (REAL + 8) * micro            # dW is float32, read and written
    back = [Part(PRODUCTS, flops * n * times, weights, shares.backward * tower.n_layers * micro * whole)]
    if whole:
        back += [Part(ATTENTION, 8 * tower.heads * seen_patches(tower, step) * times),
                 passes(backward_passes(tower) * n * times)]
    return Phase("tower", (*again, *back))


def tower_forward(tower: Tower, step: Step, shares: Shares, times: int, batches: int) -> tuple[Part, ...]:
    """`times` forward passes over all images of the rollout, in so many batches."""
    n, weights = step.patches(tower) * times, tower.patch + tower.layers + tower.mergers
    return (Part(PRODUCTS, 2 * (tower.patch + tower.layers + tower.mergers / tower.cell) * n, REAL * weights * batches,
                 shares.forward * tower.n_layers * batches),
            Part(ATTENTION, 4 * tower.heads * seen_patches(tower, step) * times),
            passes(forward_passes(tower) * n))


def seen_patches(tower: Tower, step: Step) -> float:
    """Pairs of a patch and one that it sees, in all layers: those of its window, or of its image."""
    image = step.image_tokens * tower.cell / step.images
    return step.patches(tower) * sum(min(window, image) if window else image for window in tower.windows)


def prefill(shape: Shape, step: Step) -> Phase:
    """Every prompt once. Its last row goes on to the head in decode()."""
    tokens, P = step.prompts * step.prompt_length, step.prompt_length
    return Phase("prefill", (Part(PRODUCTS, 2 * shape.layers * tokens, REAL * shape.layers),
                             Part(ATTENTION,
                                  4 * shape.heads * step.prompts * sum(seen(0, P, window) for window in shape.windows)),
                             passes(forward_passes(shape) * tokens)))


def decode(shape: Shape, step: Step, shares: Shares) -> Phase:
    """Token-steps of as many slots as there are: all weights once each, keys and values, logits written and read."""
    waves = -(-step.rows // step.slots)
    steps, P, n = waves * step.new_tokens, step.prompt_length, step.new_tokens
    weights = shape.layers + shape.head
    pairs = sum(seen(P, n, window) for window in shape.windows)
    own = sum(seen(0, n, window) for window in shape.windows)      # of these, keys of the completion itself
    # keys read: a prompt's once for its group
    attended = (step.prompts * (pairs - own) + step.rows * own) / shape.n_layers
    kernels = (shares.decode * shape.n_layers + 6) * steps
    return Phase("decode", (Part(PRODUCTS, 2 * weights * step.rows * n, REAL * weights * steps, kernels),
                            Part(ATTENTION, 4 * shape.heads * step.rows * pairs, shape.kv_bytes * attended),
                            Part(MEMORY, bytes=4 * shape.vocab * step.rows * n),
                            passes(forward_passes(shape) * step.rows * n)))


def scoring(shape: Shape, step: Step, shares: Shares) -> Phase:
    """Log-probs of the rollout under other weights: the reference's, or the policy's once it has moved."""
    times, R = step.scorings, step.rows * step.new_tokens
    return Phase("scoring", (*forward(shape, step, shares, times),
                             Part(PRODUCTS, 2 * shape.head * R * times,
                                  REAL * shape.head * step.micro_batches * times)))


def training(shape: Shape, step: Step, shares: Shares) -> Phase:
    """The layers: forward unless the rollout left its activations, which are written and read instead, and backward,
    twice the products."""
    times = step.iterations
    # put and gathered, each read and written
    moved = 4 * stored_row_bytes(shape, step.recompute) * step.tokens * step.stored
    micro = step.micro_batches * times
    # float32, read and written by every micro-batch
    dW = 2 * 4 * shape.layers * micro
    parts = (*forward(shape, step, shares, times - step.stored + (times if step.recompute else 0)),
             Part(PRODUCTS, 4 * shape.layers * step.tokens * times, REAL * shape.layers * micro + dW,
                  shares.backward * shape.n_layers * micro),
             Part(ATTENTION, 8 * shape.heads * step.context(shape.windows) * times),
             passes(backward_passes(shape) * step.tokens * times + moved))
    return Phase("forward + backward", parts)


def head(shape: Shape, step: Step, shares: Shares) -> Phase:
    """Of completion tokens: logits, log-probs, entropies, dh and dW. The gradient of a block of logits is written and
    read twice."""
    # whose log-probs come first
    R, off_policy = step.rows * step.new_tokens * step.iterations, 1 - 1 / step.updates
    again = shares.head - 3 + off_policy
    return Phase("head", (Part(PRODUCTS, 6 * shape.head * R), Part(PRODUCTS, 2 * shape.head * R * again, extra=True),
                          passes(3 * REAL * shape.vocab * R)))


def optimiser(shape: Shape, step: Step) -> Phase:
    """AdamW reads and writes the weight, the 2 bytes or 1 that its master has more, and the moments, and reads the
    gradient; so does its norm before; then the gradient is zeroed."""
    per_parameter = 2 * (2 + step.state_bytes) + 4 + 4
    trained = shape.trained + (shape.tower.trained(step.train_vision) if shape.tower else 0)
    return Phase("AdamW", (Part(MEMORY, bytes=per_parameter * trained * step.updates),
                           passes(4 * trained * step.updates)))


def forward(shape: Shape, step: Step, shares: Shares, times: float) -> tuple[Part, ...]:
    """`times` forward passes of all layers over the packed rollout."""
    micro = step.micro_batches * times
    return (Part(PRODUCTS, 2 * shape.layers * step.tokens * times, REAL * shape.layers * micro,
                 shares.forward * shape.n_layers * micro),
            Part(ATTENTION, 4 * shape.heads * step.context(shape.windows) * times),
            passes(forward_passes(shape) * step.tokens * times))


def seen(before: int, count: int, window: int) -> float:
    """Keys that `count` tokens behind `before` others see, all together: half of themselves, all before them, no more
    than a window."""
    def up_to(length: int) -> float:
        return length * length / 2 if not 0 < window < length else window * length - window * window / 2

    return up_to(before + count) - up_to(before)


def passes(bytes: float) -> Part:
    """Reads and writes between products, which could be fused into them."""
    return Part(MEMORY, bytes=bytes, extra=True)


def forward_passes(shape: Layers) -> float:
    """Bytes a token that the layers of csrc/net move between products: two norms, two copies of the stream, rope,
    gate."""
    return REAL * shape.n_layers * (8 * shape.d_model + 2 * shape.qkv + 3 * shape.d_ff)


def backward_passes(shape: Layers) -> float:
    """The same of their backward: two norms again and their gradients, rope and gate again, and their gradients."""
    return REAL * shape.n_layers * (12 * shape.d_model + 4 * shape.qkv + 8 * shape.d_ff)


def stored_row_bytes(shape: Shape, recompute: bool) -> float:
    """Activations of a token that a rollout leaves; with recompute each layer's input alone."""
    width = shape.d_model if recompute else 2 * shape.d_model + shape.qkv + shape.heads + 2 * shape.d_ff
    return REAL * shape.n_layers * width


def matrices(d: int, layer: Layer) -> int:
    """Elements of the matrices of a layer, on rows of d."""
    a = layer.attention
    return d * (2 * (a.heads + a.kv_heads) * a.head_dim + (3 if layer.mlp.gated else 2) * layer.mlp.width)


def widths(d: int, layer: Layer) -> dict[str, int]:
    """The widths of `Layers`, of one that is like all of them."""
    a = layer.attention
    return {"d_model": d, "heads": a.heads * a.head_dim, "qkv": (a.heads + 2 * a.kv_heads) * a.head_dim,
            "d_ff": layer.mlp.width}


# seconds

def floor(work: Iterable[Phase], at: Ceilings) -> float:
    """Seconds in which a device that reached its ceilings would be done."""
    return sum(max(part.flops / at.flops, part.bytes / at.bandwidth) for phase in work for part in phase.parts
               if not part.extra)


def causes(work: Iterable[Phase], at: Ceilings, device: str) -> dict[str, float]:
    """Expected seconds by what takes them: arithmetic of PRODUCTS and of ATTENTION, MEMORY, KERNELS."""
    shares, found = SHARES[device], dict.fromkeys((PRODUCTS, ATTENTION, MEMORY, KERNELS), 0.0)
    for part in (part for phase in work for part in phase.parts):
        arithmetic = part.flops / (at.flops * (shares.attention if part.kind == ATTENTION else shares.products))
        memory = part.bytes / (at.bandwidth * shares.memory)
        found[MEMORY if memory > arithmetic else part.kind] += max(arithmetic, memory)
        found[KERNELS] += part.kernels * shares.kernel
    return found


def expected(work: Iterable[Phase], at: Ceilings, device: str) -> float:
    """Seconds that this backend should take."""
    return sum(causes(work, at, device).values())


def table(work: list[Phase], step: Step, at: Ceilings, device: str) -> str:
    """Phases with their floor, what is expected, and what most of that is spent on."""
    def row(name: str, some: list[Phase]) -> str:
        spent = causes(some, at, device)
        total = sum(spent.values())
        most = max(spent, key=spent.__getitem__)
        return f"  {name:<28}{floor(some, at):>10.3f}{total:>12.3f}    {most} {spent[most] / total:.0%}"

    lines = [f"  {'seconds':<28}{'floor':>10}{'expected':>12}    most of it",
             *(row(phase.name, [phase]) for phase in work)]
    lines.append(row("a step" if step.updates == 1 else f"a rollout and its {step.updates} steps", work))
    tokens, seconds = step.rows * step.new_tokens, expected(work, at, device)
    said = (f"{step.rows} completions of all {step.new_tokens} tokens: {tokens / seconds:,.0f} new tokens/s. Rewards, "
            "evaluation and data are not in it.")
    if step.images:
        said += (" Images are taken to be new; a tower that stands still sees each once in a run."
                 if step.train_vision == "none" else "")
    return "\n".join([*lines, "", said, sources(at, device)])


def sources(at: Ceilings, device: str) -> str:
    """What floors and expectations rest on."""
    shares = SHARES[device]
    return (f"Floor: every byte and operation that must be, at {at.bandwidth / 1e9:,.0f} GB/s and "
            f"{at.flops / 1e12:,.3g} TFLOP/s ({at.source}).\nExpected: products at {shares.products:.0%} of that, "
            f"attention at {shares.attention:.0%}, memory at {shares.memory:.0%}"
            + (f", {1e6 * shares.kernel:.1f} us a kernel." if shares.kernel else "."))
