"""The algorithm in pieces, on NumPy arrays: sampling, log-probabilities, advantages, losses with their gradients.

Everything the trainer does between a rollout and a backward pass is here, for people who write their own loop. Inputs
may be anything NumPy can read (lists, torch CPU tensors); results are float32 arrays. The arithmetic is in C, in double
precision; the formulas are written out at the head of ``csrc/rl/loss.h``.
"""
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _core
from .errors import ConfigError, NonFiniteError, did_you_mean, warn

F32 = NDArray[np.float32]
Rows = ArrayLike | Sequence[ArrayLike]        # (n, T), or a list of n one-dimensional arrays
__all__ = ["adapt_entropy_coef", "check_loss_options", "group_advantages", "grpo_loss", "loss_normalizer",
           "sample", "selective_log_softmax"]


def group_advantages(rewards: ArrayLike, num_generations: int | ArrayLike, scale_rewards: str | bool = "group", *,
                     reward_weights: ArrayLike | None = None,
                     multi_objective_aggregation: str = "sum_then_normalize") -> F32:
    """Advantages of completions relative to their group: ``(r - mean) / (std + 1e-4)``, std unbiased (n - 1).

    ``rewards``: (n,), or (n, k) for k reward functions; None or NaN where a function gave no reward. Such an entry is
    skipped; a completion without any reward is left out of means and stds and gets advantage 0. ``num_generations``:
    the size of every group, or one size a group; groups follow one another. ``scale_rewards``: ``"group"`` (or True),
    ``"batch"`` (std over all completions), ``"none"`` (or False; Dr. GRPO, arXiv 2503.20783).
    ``multi_objective_aggregation``: ``"sum_then_normalize"`` sums weighted rewards first (GRPO, arXiv 2402.03300);
    ``"normalize_then_sum"`` normalises each function within its group, sums, and normalises over the batch (GDPO).

    Returns (n,) float32. Raises ConfigError for a group of one, sizes that do not add up, or a wrong name.

    >>> group_advantages([1, 0, 0, 1], num_generations=2).round(3)
    array([ 0.707, -0.707, -0.707,  0.707], dtype=float32)
    """
    table = np.array(rewards, dtype=np.float64, ndmin=1, order="C")
    if table.ndim == 1:
        table = table[:, None]
    if table.ndim != 2:
        raise ConfigError(f"rewards must be (n,) or (n, functions), not of shape {table.shape}")
    n, k = table.shape
    weights = np.ones(k) if reward_weights is None else np.array(reward_weights, dtype=np.float64, ndmin=1)
    if weights.shape != (k,):
        raise ConfigError(f"reward_weights must hold one number for each of {k} reward functions, not {weights.size}")
    scale = ("none", "group")[scale_rewards] if isinstance(scale_rewards, bool) else scale_rewards
    if multi_objective_aggregation == "normalize_then_sum" and scale != "group":
        raise ConfigError("multi_objective_aggregation='normalize_then_sum' has its own scaling: scale_rewards must "
                          f"stay 'group', not {scale!r}")
    return _core.group_advantages(table, weights, _group_sizes(n, num_generations), scale, multi_objective_aggregation)


def _group_sizes(n: int, num_generations: int | ArrayLike) -> NDArray[np.int32]:
    sizes = np.array(num_generations, dtype=np.int32, order="C")
    if sizes.ndim == 0:
        if sizes < 1 or n % sizes:
            raise ConfigError(f"{n} rewards do not divide into groups of num_generations={sizes}")
        return np.full(n // int(sizes), sizes, dtype=np.int32)
    if sizes.ndim != 1 or sizes.sum() != n:
        raise ConfigError(f"the group sizes add up to {sizes.sum()}, but there are {n} rewards")
    return sizes


def grpo_loss(logps: Rows, old_logps: Rows, advantages: ArrayLike, mask: Rows | None, ref_logps: Rows | None = None,
              entropies: Rows | None = None, *, normalizer: Mapping[str, float] | None = None,
              return_dentropies: bool = False, **fields: Any) -> tuple:
    """A GRPO loss, to be minimised, and its gradient by every log-probability.

    ``logps``, ``old_logps``, ``ref_logps``: log-probabilities under the current, the behaviour and the reference
    policy, ``entropies`` of the current one; (n, T) padded arrays or lists of n one-dimensional arrays.
    ``advantages``: (n,). ``mask``: alike, 1 where a token carries loss (other numbers are not read); None: everywhere.
    ``fields``: loss options by their GRPOConfig names: ``loss_type="dapo"``, ``epsilon``, ``beta``, ``aggregation`` ...
    ``normalizer``: what `loss_normalizer` made of the whole optimiser step, when these completions are a part of it;
    losses and gradients of the parts then add up to those of the whole.

    Returns ``(loss, dlogps, metrics)``: float; float32 of the shape of ``logps``; floats by TRL's metric names. With
    ``return_dentropies`` also the gradient by the entropies, which an entropy bonus needs:
    ``(loss, dlogps, dentropies, metrics)``. Raises ConfigError for unknown or contradictory options, NonFiniteError
    for NaN or infinity where the mask is 1.

    >>> logps = np.array([[-1.0, -2.0]])
    >>> loss, dlogps, metrics = grpo_loss(logps, logps, advantages=[0.5], mask=np.ones((1, 2)), loss_type="grpo")
    >>> loss, dlogps
    (-0.5, array([[-0.25, -0.25]], dtype=float32))
    """
    options = check_loss_options(fields)
    flat, lengths = _flatten(logps, "logps")
    old = _flatten_like(lengths, old_logps, "old_logps")
    ref, entropy = (None if x is None else _flatten_like(lengths, x, name) for x, name in
                    ((ref_logps, "ref_logps"), (entropies, "entropies")))
    carrying = np.ones(len(flat), np.uint8) if mask is None else _mask(_flatten_like(lengths, mask, "mask"))
    weights = np.array(advantages, dtype=np.float32, ndmin=1, order="C")
    if weights.shape != lengths.shape:
        raise ConfigError(f"advantages must be of shape ({len(lengths)},), one a completion, not {weights.shape}")
    if normalizer is None:
        normalizer = _normalizer(carrying, len(lengths), entropy, options["top_entropy_quantile"])
    loss, dlogps, dentropies, metrics = _core.grpo_loss(flat, old, weights, carrying, ref, entropy, lengths, options,
                                                        dict(normalizer))
    if return_dentropies:
        return loss, _unflatten(dlogps, logps, lengths), _unflatten(dentropies, logps, lengths), metrics
    if dentropies.any():
        raise ConfigError("the entropy bonus has a gradient by the entropies: ask for it with return_dentropies=True")
    return loss, _unflatten(dlogps, logps, lengths), metrics


def loss_normalizer(mask: Rows, entropies: Rows | None = None, *, top_entropy_quantile: float = 1.0,
                    entropy_coef: float | None = None) -> dict[str, float]:
    """What one optimiser step divides by, to be shared by all its micro-batches (see `grpo_loss`).

    ``mask``: of every completion of the step. ``entropies``: needed when ``top_entropy_quantile`` < 1; the threshold is
    the (1 - top_entropy_quantile)-quantile over all loss-carrying tokens, interpolated linearly (arXiv 2506.01939).
    ``entropy_coef``: the coefficient of the entropy bonus in this step, where it is not the option of that name.

    >>> loss_normalizer([[1, 1, 0], [1, 0, 0]])
    {'tokens': 3.0, 'sequences': 2.0}
    """
    flat, lengths = _flatten(mask, "mask")
    entropy = None if entropies is None else _flatten_like(lengths, entropies, "entropies")
    normalizer = _normalizer(_mask(flat), len(lengths), entropy, top_entropy_quantile)
    return normalizer if entropy_coef is None else {**normalizer, "entropy_coef": float(entropy_coef)}


def _normalizer(mask: NDArray[np.uint8], sequences: int, entropies: F32 | None, quantile: float) -> dict[str, float]:
    tokens = {"tokens": float(np.count_nonzero(mask)), "sequences": float(sequences)}
    if quantile >= 1:
        return tokens
    if entropies is None:
        raise ConfigError(f"top_entropy_quantile={quantile} needs entropies")
    carrying = entropies[mask != 0].astype(np.float64)
    threshold = float(np.float32(np.quantile(carrying, 1 - quantile))) if carrying.size else 0.0
    return {**tokens, "entropy_threshold": threshold, "entropy_tokens": float(np.count_nonzero(carrying >= threshold))}


def adapt_entropy_coef(coef: float, entropy: float, **fields: Any) -> tuple[float, float]:
    """Adaptive entropy control (Skywork-OR1, arXiv 2505.22312), after a step of mean ``entropy`` (nats).

    Returns ``(coef, applied)``: the coefficient moved by ``entropy_coef_delta``, up while entropy <= ``entropy_target``
    and else down, within ``entropy_coef_min .. entropy_coef_max``; and what the next step applies: ``coef`` while
    entropy is that low, else 0. A run starts with ``entropy_coef`` and applies 0 in its first step.

    >>> adapt_entropy_coef(0.01, 0.1, entropy_target=0.2, entropy_coef_delta=0.005)
    (0.015, 0.015)
    """
    return _core.adapt_entropy_coef(coef, entropy, check_loss_options(fields))


def selective_log_softmax(logits: ArrayLike, ids: ArrayLike, temperature: float = 1.0, *,
                          entropies: bool = False) -> F32 | tuple[F32, F32]:
    """Log-probabilities ``log softmax(logits / temperature)[ids]``; on request also the entropies of those softmaxes.

    ``logits``: (..., V), read as float32, -inf for what is impossible. ``ids``: (...). Returns float32 of the shape of
    ``ids``, in nats. Raises NonFiniteError naming the row with NaN, ConfigError for an id outside the vocabulary.

    >>> selective_log_softmax([[0.0, 0.0]], [1])
    array([-0.6931472], dtype=float32)
    """
    z, targets = np.asarray(logits, dtype=np.float32), np.array(ids, dtype=np.int32)
    if z.ndim < 1 or z.shape[:-1] != targets.shape:
        raise ConfigError(f"ids of shape {targets.shape} do not fit logits of shape {z.shape}")
    rows = np.ascontiguousarray(z.reshape(-1, z.shape[-1]))
    logp, entropy = _core.selective_log_softmax(rows, targets.reshape(-1), temperature)
    return (logp.reshape(targets.shape), entropy.reshape(targets.shape)) if entropies else logp.reshape(targets.shape)


def sample(logits: ArrayLike, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0,
           seed: int = 0, *, step: int = 0) -> tuple[NDArray[np.int32], F32]:
    """One token id a row, by the sampler of the rollouts: temperature, then top-k, top-p, min-p, as transformers.

    ``logits``: (n, V), read as float32, -inf for what is impossible. ``temperature`` 0 takes the largest (lowest id
    among equals); ``top_k`` 0, ``top_p`` 1, ``min_p`` 0 are off. Row i draws from (seed, step, i) alone. Returns ids
    (n,) int32 and their log-probabilities (n,) float32 on the support drawn from. Raises NonFiniteError naming the row
    with NaN.

    >>> sample([[0.0, 5.0, 5.0]], temperature=0)[0]
    array([1], dtype=int32)
    """
    z = np.array(logits, dtype=np.float32)
    if z.ndim != 2 or not z.shape[1]:
        raise ConfigError(f"logits must be (n, V), not of shape {z.shape}")
    for name, value, low, high in (("temperature", temperature, 0, np.inf), ("top_k", top_k, 0, np.inf),
                                   ("top_p", top_p, 0, 1), ("min_p", min_p, 0, 1)):
        if not low <= value <= high:
            raise ConfigError(f"{name} must lie in {low} .. {high}, not {value}")
    device, h = _core.Ops("ref"), np.ones((1, 1), np.float32)
    ids, logps = np.empty(len(z), np.int32), np.empty(len(z), np.float32)
    for row in range(len(z)):                            # a head of one channel has the row itself for logits
        ids[row], logps[row] = (x[0] for x in device.sample(
            h, z[row, :, None], np.array([[0, row, 0, 0]], np.uint32), temperature=temperature, top_k=top_k,
            top_p=top_p, min_p=min_p, seed=seed, step=step)[:2])
        if ids[row] < 0:
            raise NonFiniteError(f"row {row} of the logits has NaN, +Inf or no finite number")
    return ids, logps


def check_loss_options(fields: Mapping[str, Any]) -> dict[str, Any]:
    """All loss options: ``fields`` over the defaults. Raises ConfigError for an unknown name (with a suggestion), a
    wrong value or a contradiction; warns (GrpoWarning) of combinations that run but are rarely meant."""
    defaults = _core.loss_defaults()
    for name in fields:
        if name not in defaults:
            raise ConfigError(f"unknown loss option {name!r}{did_you_mean(name, defaults)}")
    options = {**defaults, **fields}
    _core.adapt_entropy_coef(0.0, 0.0, options)         # the cheapest call that checks values
    for doubt in _doubts(options):
        warn(doubt)
    return options


def _doubts(options: Mapping[str, Any]) -> Iterator[str]:
    loss_type, aggregation = options["loss_type"], options["aggregation"]
    level = options["importance_sampling_level"]
    cap = options["epsilon"] if options["epsilon_high"] is None else options["epsilon_high"]
    if loss_type == "cispo" and not options["cispo_two_sided"] and cap < 1:
        yield (f"cispo caps the ratio itself at epsilon_high={cap:g}, which weights every token down to that; caps are "
               "usually 2 to 5. For margins around 1 set cispo_two_sided=True")
    if loss_type == "luspo" and level == "token":
        yield "luspo is meant for importance_sampling_level='sequence'; with 'token' it is a plain sum over tokens"
    by_token = loss_type in ("dapo", "bnpo", "dr_grpo", "cispo") if aggregation is None else (
        aggregation in ("token-mean", "fixed-length"))
    if level != "token" and by_token:
        yield (f"importance_sampling_level={level!r} with loss_type={loss_type!r} weights a sequence by its length; "
               "GSPO is loss_type='grpo'")


def _flatten(x: Rows, name: str) -> tuple[F32, NDArray[np.int32]]:
    """The numbers of an (n, T) array or of n one-dimensional arrays, one after the other; the length of each row."""
    if isinstance(x, (list, tuple)):
        rows = [np.asarray(row, dtype=np.float32) for row in x]
        if all(row.ndim == 1 for row in rows):
            return np.concatenate(rows or [np.empty(0, np.float32)]), np.array([len(row) for row in rows], np.int32)
    else:
        table = np.array(x, dtype=np.float32, order="C")
        if table.ndim == 2:
            return table.reshape(-1), np.full(len(table), table.shape[1], dtype=np.int32)
    raise ConfigError(f"{name} must be an (n, T) array or a list of one-dimensional arrays")


def _flatten_like(lengths: NDArray[np.int32], x: Rows, name: str) -> F32:
    flat, own = _flatten(x, name)
    if len(own) != len(lengths):
        raise ConfigError(f"{name} holds {len(own)} completions where there should be {len(lengths)}")
    for row in np.flatnonzero(own != lengths):
        raise ConfigError(f"{name} of completion {row} has {own[row]} tokens where there should be {lengths[row]}")
    return flat


def _mask(flat: F32) -> NDArray[np.uint8]:
    if not np.isin(flat, (0, 1)).all():
        raise ConfigError("mask must hold 0 and 1 only")
    return flat.astype(np.uint8)


def _unflatten(flat: F32, like: Rows, lengths: NDArray[np.int32]) -> F32 | list[F32]:
    if not isinstance(like, (list, tuple)):
        return flat.reshape(np.asarray(like).shape)
    return np.split(flat, np.cumsum(lengths)[:-1]) if len(lengths) else []
