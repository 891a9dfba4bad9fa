"""Rollouts: completions of a batch of prompts with everything the update needs, as flat arrays."""
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ..datasets import Prompt, PromptStream, StreamedPrompts, stream_of
from ..datasets.prompts import rows_with
from ..errors import CheckpointCorruptError, CheckpointMismatchError, ConfigError, ImageError, warn
from ..model import Model, row_variables
from ..options import GRPOConfig, sampling_options
from ..rewards import RewardBatch, Scores, gold_of
from ..runs import to_json
from ..runs.arrays import read_arrays
from ..vision.messages import described, is_chat
from ..vision.pictures import Picture, look

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]

# finish: the completion hit max_completion_length; its last token is a stop id
LENGTH, STOP_ID = 0, 1
TOKEN_FIELDS = ("logprobs", "policy_logprobs", "entropies", "mask", "ref_logprobs")
COMPLETION_FIELDS = ("stored", "finish", "advantages", "rewards", "totals", "age")


@dataclass
class Rollouts:
    """n completions of g prompts, prompt-major; token arrays are flat over all completions, T tokens in all."""

    prompts: list[Prompt]                    # (g)
    pictures: list[list[Picture]]            # (g) images of each
    group: I32                               # (n) index of each completion's prompt, ascending
    completions: list[I32]                   # (n)
    finish: I32                              # (n) 0 length, 1 stop id, 2 stop string
    logprobs: F32                            # (T) of what was drawn, on the support it was drawn from
    policy_logprobs: F32                     # (T) on the whole softmax: what training computes
    entropies: F32                           # (T)
    # (n) ids in the store of activations, -1: none; good until the weights change
    stored: NDArray[np.int64] | None = None
    texts: list[str] = field(default_factory=list)             # (n)
    rewards: NDArray[np.float64] | None = None                 # (n, rewards) NaN where one does not apply
    totals: NDArray[np.float64] | None = None                  # (n) weighted sum, NaN where none applies
    extras: dict[str, list] = field(default_factory=dict)      # columns that reward functions logged, (n) each
    advantages: F32 | None = None                              # (n)
    mask: NDArray[np.uint8] | None = None                      # (T) 1 where a token carries loss
    ref_logprobs: F32 | None = None                            # (T)
    # (n) optimiser steps taken since it was drawn, 0 unless it is replayed; None: 0
    age: I32 | None = None

    def __len__(self) -> int:
        return len(self.completions)

    @property
    def lengths(self) -> I32:
        """(n) tokens of each completion."""
        return np.array([len(c) for c in self.completions], np.int32)

    @property
    def prompt_ids(self) -> list[I32]:
        """Token ids of each prompt."""
        return [p.ids for p in self.prompts]

    def split(self, flat: NDArray) -> list[NDArray]:
        """A token array by completion."""
        return np.split(flat, np.cumsum(self.lengths)[:-1])

    def per_token(self, values: NDArray) -> NDArray:
        """A completion array repeated for each token."""
        return np.repeat(values, self.lengths)

    def select(self, chosen: NDArray[np.int64]) -> "Rollouts":
        """Some completions, in ascending order, with the prompts they need."""
        keep = np.zeros(len(self), bool)
        keep[chosen] = True
        tokens = self.per_token(keep)
        kept_groups, group = np.unique(self.group[chosen], return_inverse=True)
        changed: dict[str, Any] = {f: getattr(self, f)[tokens] for f in TOKEN_FIELDS if getattr(self, f) is not None}
        changed |= {f: getattr(self, f)[chosen] for f in COMPLETION_FIELDS if getattr(self, f) is not None}
        return replace(self, prompts=[self.prompts[g] for g in kept_groups],
                       pictures=[self.pictures[g] for g in kept_groups], group=group.astype(np.int32),
                       completions=[self.completions[i] for i in chosen], texts=[self.texts[i] for i in chosen],
                       extras={name: [values[i] for i in chosen] for name, values in self.extras.items()}, **changed)

    @staticmethod
    def join(parts: list["Rollouts"]) -> "Rollouts":
        """Several as one, in their order."""
        if len(parts) == 1:
            return parts[0]
        first = np.cumsum([0] + [len(p.prompts) for p in parts])
        changed = {f: np.concatenate([getattr(p, f) for p in parts])
                   for f in TOKEN_FIELDS + COMPLETION_FIELDS if getattr(parts[0], f) is not None}
        return replace(parts[0], prompts=[x for p in parts for x in p.prompts],
                       pictures=[x for p in parts for x in p.pictures],
                       group=np.concatenate([p.group + np.int32(n) for p, n in zip(parts, first, strict=False)]),
                       completions=[x for p in parts for x in p.completions], texts=[x for p in parts for x in p.texts],
                       extras={name: [x for p in parts for x in p.extras.get(name, [None] * len(p))]
                               for name in parts[0].extras},
                       **changed)

    def save(self, path: Path) -> None:
        """Everything an update needs, as an .npz without pickles."""
        arrays = {f: getattr(self, f) for f in TOKEN_FIELDS + COMPLETION_FIELDS if getattr(self, f) is not None
                  and f != "stored"}
        np.savez(path, rows=[p.row for p in self.prompts], group=self.group, lengths=self.lengths,
                 tokens=np.concatenate(self.completions), texts=np.array(self.texts, np.str_),
                 text_lengths=np.array([len(text) for text in self.texts], np.int32),
                 extras=np.array([to_json(row) for row in self.extra_rows()], np.str_), **arrays)

    @staticmethod
    def load(path: Path, prompt_of_row: Callable[[int], Prompt], model: Model) -> "Rollouts":
        """What `save` wrote. prompt_of_row: the prompt of a row of the data set; model: looks at its images again.
        CheckpointCorruptError for arrays that do not fit each other."""
        arrays = read_arrays(path)
        check_arrays(arrays, path)
        completions = np.split(arrays.pop("tokens"), np.cumsum(arrays.pop("lengths"))[:-1])
        # NumPy's strings lose the NULs at their end
        texts = [text.ljust(n, "\0") for text, n in zip(arrays.pop("texts").tolist(), arrays.pop("text_lengths"),
                                                        strict=True)]
        extras = read_extras(arrays.pop("extras").tolist(), path)
        try:
            prompts = [prompt_of_row(int(row)) for row in arrays.pop("rows")]
        except IndexError as error:
            raise CheckpointMismatchError(f"{path}: a prompt is of a row that the data set does not have") from error
        return Rollouts(prompts=prompts, pictures=pictures_of(model, prompts), completions=completions, texts=texts,
                        extras=extras, **arrays)

    def extra_rows(self) -> list[dict[str, Any]]:
        """What reward functions logged, by completion: columns that have a value for each."""
        whole = {name: values for name, values in self.extras.items() if len(values) == len(self)}
        return [{name: values[i] for name, values in whole.items()} for i in range(len(self))]

    def take(self, scores: Scores) -> None:
        """Rewards, their weighted sums, and what reward functions logged beside them."""
        self.rewards, self.totals, self.extras = scores.values, scores.total, scores.extras

    def scores(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(rewards (n, rewards), totals (n)) of completions that were scored."""
        assert self.rewards is not None and self.totals is not None
        return self.rewards, self.totals

    def trained(self) -> tuple[F32, NDArray[np.uint8]]:
        """(advantages (n), mask (T)) of completions that are ready for an update."""
        assert self.advantages is not None and self.mask is not None
        return self.advantages, self.mask

    def without_spread(self) -> NDArray[np.bool_]:
        """(g) True for groups whose rewards are all equal, or absent: they have no advantage to learn from."""
        return flat_groups(self.scores()[1], self.group)


# What `save` writes: the kind of its values, and one a what: prompt, completion or token.
SAVED = {"rows": ("i8", "g"), "group": ("i4", "n"), "lengths": ("i4", "n"), "tokens": ("i4", "T"), "texts": ("U", "n"),
         "text_lengths": ("i4", "n"), "extras": ("U", "n"),
         "finish": ("i4", "n"), "logprobs": ("f4", "T"), "policy_logprobs": ("f4", "T"), "entropies": ("f4", "T"),
         "mask": ("u1", "T"), "ref_logprobs": ("f4", "T"), "advantages": ("f4", "n"), "rewards": ("f8", "n"),
         "totals": ("f8", "n"), "age": ("i4", "n")}
OPTIONAL = ("mask", "ref_logprobs", "advantages", "rewards", "totals", "age")


END_TOKENS = 32                              # of a prompt that rewards see the text of
# what a record of a completion has, in training or once it is graded
RECORD = frozenset("""
    advantage age answer category completion extractive finish_reason funcs gold images lenient prompt reasoning reward
    rewards row sample step strict tag_errors tagged_answer tokens truth
""".split())
EQUAL = 1e-8                                 # the spread of rewards that are equal: torch.isclose(std, 0)
MOST_NULS = 1024                             # at the end of a text, a token of the completion


def read_extras(rows: list[str], path: Path) -> dict[str, list]:
    """The columns that reward functions logged, of a JSON object for each completion. CheckpointCorruptError."""
    try:
        extras = [json.loads(row) for row in rows]
        return {name: [row[name] for row in extras] for name in dict(extras[0])}
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise CheckpointCorruptError(f"{path}: 'extras' are not the columns of each completion: {error}") from error


def check_arrays(arrays: Mapping[str, NDArray], path: Path) -> None:
    """CheckpointCorruptError where what was read from path are not the arrays of completions."""
    def refuse(what: str) -> NoReturn:
        raise CheckpointCorruptError(f"{path}: {what}")

    for name in [*(SAVED.keys() - set(OPTIONAL) - arrays.keys()), *(arrays.keys() - SAVED.keys())]:
        refuse(f"array {name!r:.80} is {'missing' if name in SAVED else 'not known'}")
    for name, array in arrays.items():
        kind = array.dtype.kind if SAVED[name][0] == "U" else array.dtype.kind + str(array.dtype.itemsize)
        if kind != SAVED[name][0] or array.ndim != 1 + (name == "rewards"):
            refuse(f"array {name!r} is {array.dtype} of shape {array.shape}")
    rows, group, lengths = arrays["rows"], arrays["group"], arrays["lengths"].astype(np.int64)
    sizes = {"g": len(rows), "n": len(group), "T": int(lengths.sum())}
    for name, array in arrays.items():
        if len(array) != sizes[SAVED[name][1]]:
            refuse(f"array {name!r} has {len(array)} values for {sizes['n']} completions of {sizes['g']} prompts with "
                   f"{sizes['T']} tokens")
    if not len(group) or lengths.min() < 1 or not np.array_equal(np.unique(group), np.arange(len(rows))) \
            or (np.diff(group) < 0).any():
        refuse("completions are not grouped by prompt, or are empty")
    if ((arrays["text_lengths"] - np.strings.str_len(arrays["texts"])) > MOST_NULS * lengths).any():
        refuse("texts are longer than their tokens")
    if rows.min() < 0 or arrays["tokens"].min() < 0 or not np.isin(arrays["finish"], (0, 1, 2)).all():
        refuse("rows, token ids or finish reasons are out of range")


def prompt_stream(model: Model, args: GRPOConfig, dataset: Any, name: str, shuffle: bool = False,
                  streams: bool = False) -> PromptStream:
    """The prompts of a data set, each with room for its completion. name: what errors call it. streams: rows without a
    length are read as they are needed, where max_steps says how many."""
    context = model.text_config.get("max_position_embeddings")
    limit = min(x for x in (args.max_prompt_length, context and context - args.max_completion_length, 1 << 31)
                if x is not None)
    if limit < 1:
        raise ConfigError(f"max_completion_length={args.max_completion_length} leaves no room for a prompt in "
                          f"{context} positions")
    options: dict[str, Any] = {
        "limit": limit, "on_long": args.on_long_prompt, "shuffle": shuffle, "seed": args.order_seed, "name": name,
        "sees_images": model.sight is not None, "model": f"this model ({model.config.get('model_type')})",
        "on_bad": args.on_bad_row, "image_token": None if model.sight is None else model.sight.image_token_id}
    encode = functools.partial(prompt_ids, model, args.chat_template_kwargs or {})
    # the memory plan of a model that sees counts the images of every row
    rows = stream_of(dataset, name) if streams and args.max_steps >= 0 and model.sight is None else None
    if rows is None or rows.has_ended:
        stream = PromptStream(dataset if rows is None else rows.first, encode, **options)
    else:
        stream = StreamedPrompts(rows, encode, **options)
    if any(True for _ in rows_with(stream.rows, "tools")):
        warn(f"{name}: the tools of a row are shown in its prompt; calls of them are not carried out")
    return stream


def pictures_of(model: Model, prompts: Sequence[Prompt]) -> list[list[Picture]]:
    """The images of each prompt as the model sees them; nothing is decoded yet."""
    return [look(p.images, model.seeing().processor, f"row {p.row}") if p.images else [] for p in prompts]


def prompt_ids(model: Model, template_options: Mapping[str, Any], prompt: Any, tools: Any = None,
               chat_template_kwargs: Any = None, images: Sequence[Any] = ()) -> I32:
    """Token ids of a prompt. template_options: arguments of the chat template; tools, chat_template_kwargs: the row's
    own. images: of the prompt, of which the beginnings are read."""
    variables = row_variables(template_options, tools, chat_template_kwargs)
    if model.sight is not None and (is_chat(prompt) or not variables):
        held = [] if is_chat(prompt) else images         # messages in normal form hold theirs
        return model.sight.encode(model.tokenizer, prompt, held, "its prompt", **variables)[0]
    if isinstance(prompt, Sequence) and prompt and isinstance(prompt[0], Mapping):
        return model.prompt_ids(model.tokenizer.apply_chat_template(prompt, tokenize=True, **variables))
    for name, value in (("tools", tools), ("chat_template_kwargs", chat_template_kwargs)):
        if value is not None:
            raise ConfigError(f"{name} goes into the chat template, which a prompt of text or ids has not; "
                              "give messages")
    return model.prompt_ids(prompt)


def sampling(config: GRPOConfig, temperature: float | None = None) -> dict[str, Any]:
    """Arguments of Model.generate_ids that say how tokens are drawn, from the config and its generation_kwargs."""
    options = sampling_options(config)
    if options["forbidden_ids"] is not None:
        options["forbidden_ids"] = np.asarray(options["forbidden_ids"], np.int32)
    return options if temperature is None else {**options, "temperature": temperature}


def generate(model: Any, prompts: list[Prompt], num_generations: int, max_new_tokens: int, options: dict[str, Any], *,
             seed: int, step: int, first_prompt: int, slots: int, store: Any = None, store_rows: int = 0,
             progress: Any = None) -> Rollouts:
    """Completions of prompts. (seed, step, first_prompt) must differ between calls that are to draw different numbers.
    store: a _core.Store for the activations, until the update; store_rows: so many rows of them."""
    pictures = pictures_of(model, prompts)
    try:
        out = model.generate_ids([p.ids for p in prompts], num_generations, max_new_tokens, seed=seed, step=step,
                                 first_prompt=first_prompt, slots=slots, store=store, store_rows=store_rows,
                                 progress=progress, pictures=pictures, **options)
    except ImageError as error:
        raise ImageError(f"{error}; on_bad_row='skip' reads every image at the start and leaves such rows out") \
            from error
    completions = [np.ascontiguousarray(c) for c in np.split(out["tokens"], np.cumsum(out["lengths"])[:-1])]
    return Rollouts(prompts=prompts, pictures=pictures,
                    group=np.repeat(np.arange(len(prompts), dtype=np.int32), num_generations),
                    completions=completions, finish=out["finish"], logprobs=out["logprobs"],
                    policy_logprobs=out["policy_logprobs"], entropies=out["entropies"], stored=out["stored"],
                    texts=[model.text_of(c.tolist()) for c in completions])


def reward_batch(model: Any, args: GRPOConfig, state: Any, r: Rollouts, training: bool = False) -> RewardBatch:
    """What reward functions see of r. state: the run's TrainerState. training: rewards with a memory learn from it."""
    columns = list(dict.fromkeys(name for p in r.prompts for name in p.columns))
    prompts = [r.prompts[g] for g in r.group]
    ends = [model.text_of(p.ids[-END_TOKENS:].tolist(), specials=True) for p in r.prompts]
    embed = functools.partial(model.embed, token_budget=args.token_budget_on(model.device))
    return RewardBatch(prompts=[p.prompt for p in prompts], texts=r.texts,
                       completion_ids=[c.tolist() for c in r.completions], rows=[p.row for p in prompts],
                       columns={name: [p.columns.get(name) for p in prompts] for name in columns}, state=state,
                       group_ids=r.group.tolist(), completion_lengths=(r.lengths - (r.finish == STOP_ID)).tolist(),
                       truncated=(r.finish == LENGTH).tolist(), max_completion_length=args.max_completion_length,
                       training=training, step=state.global_step, tokenizer=model.tokenizer, embed=embed,
                       prompt_ends=[ends[g] for g in r.group])


def flat_groups(totals: NDArray[np.float64], group: NDArray) -> NDArray[np.bool_]:
    """(g) True where the rewards (n) of a group are all equal but for rounding, or fewer than two. The tolerance is
    TRL's: their standard deviation is at most 1e-8."""
    flat = np.ones(int(group.max()) + 1, bool)
    for g in range(len(flat)):
        scored = totals[group == g]
        scored = scored[~np.isnan(scored)]
        flat[g] = scored.size < 2 or scored.std(ddof=1) <= EQUAL
    return flat


def completion_metrics(lengths: NDArray, truncated: NDArray[np.bool_]) -> dict[str, float]:
    """Lengths in tokens, and the share of completions that hit the limit."""
    ended = lengths[~truncated]
    return {**spread("completions/{}_length", lengths),
            **spread("completions/{}_terminated_length", ended if ended.size else np.zeros(1)),
            "completions/clipped_ratio": float(truncated.mean())}


def spread(name: str, values: NDArray) -> dict[str, float]:
    """Mean, least and largest; name: of the metrics, with {} for which of them."""
    return {name.format("mean"): float(values.mean()), name.format("min"): float(values.min()),
            name.format("max"): float(values.max())}


def reward_metrics(names: list[str], values: NDArray[np.float64], totals: NDArray[np.float64]) -> dict[str, float]:
    """Mean and std (n - 1) of every reward (n, rewards) and of their sum (n), over the completions they apply to; NaN
    over none."""
    columns = [(f"rewards/{name}", values[:, k]) for k, name in enumerate(names)]
    metrics = {f"{name}/{what}": value for name, column in columns
               for what, value in zip(("mean", "std"), moments(column), strict=True)}
    metrics["reward"], metrics["reward_std"] = moments(totals)
    return metrics


def moments(values: NDArray[np.float64]) -> tuple[float, float]:
    """Mean and std (n - 1) of what is not NaN; NaN where there are too few for them."""
    there = values[~np.isnan(values)]
    return (float(there.mean()) if there.size else float("nan"),
            float(there.std(ddof=1)) if there.size > 1 else float("nan"))


def own_column(name: str) -> str:
    """The name of a column that a reward logs; logged/<name> where a record of a completion has one of that name.

    >>> own_column("digits"), own_column("reward")
    ('digits', 'logged/reward')
    """
    return f"logged/{name}" if name in RECORD else name


def completion_records(step: int, r: Rollouts, names: list[str]) -> list[dict[str, Any]]:
    """One JSON-able dict a completion."""
    golds = [gold_of(p.columns) for p in r.prompts]
    rewards, totals = r.scores()
    extras = [{own_column(name): value for name, value in row.items()} for row in r.extra_rows()]
    reasons = np.where(r.finish == LENGTH, "length", "stop")
    return [{"step": step, "row": r.prompts[g].row, "prompt": described(r.prompts[g].prompt), "completion": r.texts[i],
             **({"gold": golds[g]} if golds[g] is not None else {}), "tokens": len(r.completions[i]),
             "finish_reason": str(reasons[i]), "rewards": dict(zip(names, rewards[i].tolist(), strict=True)),
             "reward": float(totals[i]), "advantage": None if r.advantages is None else float(r.advantages[i]),
             **({"age": int(r.age[i])} if r.age is not None else {}), **extras[i]}
            for i, g in enumerate(r.group)]
