"""Calling all rewards on a batch of completions and checking what they return.

What can go wrong is settled here once: a function that raises, hangs past its timeout, or returns NaN or infinity is
dealt with as on_reward_error says ("raise", "drop" the sample for that reward, or a number in its place) and counted;
a wrong length or something that is no number always raises and names the function and the row. None means "this
reward does not apply to this sample"; a sample for which every reward is None has no reward.
"""
import asyncio
import math
import numbers
import threading
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import CheckpointMismatchError, ConfigError, RewardError, warn
from ..options import Weight, checked_weight, weight_at
from ..vision.messages import text_of
from .adapters import GOLD_COLUMNS, PER_SAMPLE, Reward, adapt, gold_of
from .deadline import in_thread
from .values import Substitute, as_float, as_list, described, fresh, plain

OWN_COLUMNS = ("prompt", "completion", "completion_ids")
SCORE_KEYS = ("score", "reward", "overall", "rewards")
# names of metrics that trainers and evaluation have; what a reward logs under one of them is logged/<name>
TAKEN = frozenset("""
    entropy entropy_coef epoch format frac_reward_zero_std generation_tokens_per_second grad_norm kl learning_rate loss
    num_tokens reward reward_std runtime skipped_steps step step_time total_flos training_tokens_per_second
""".split())
TAKEN_BEGINNINGS = ("clip_ratio/", "completions/", "curriculum/", "eval_", "funcs/", "groups/",
                    "majority@k/", "pass@k/", "policy_moved/", "replay/", "reward_weight/", "sampling/", "time_share/",
                    "train_")
TAKEN_OF_REWARDS = ("/mean", "/std", "/errors")          # of rewards/...


@dataclass
class RewardBatch:
    """What reward functions may see: lists with one entry a completion, prompt-major."""

    prompts: list[Any]                   # as the data set has them
    texts: list[str]
    completion_ids: list[list[int]]
    rows: list[int]                      # row of the prompt in the data set
    columns: dict[str, list]             # the data set's other columns
    state: Any = None                    # trainer_state
    group_ids: list[int] | None = None   # prompt of each; None: neighbours of the same row are a group
    completion_lengths: list[int] | None = None      # without the stop token; None: those of completion_ids
    truncated: list[bool] | None = None  # None: no completion was cut off
    max_completion_length: int | None = None
    training: bool = False               # rewards with a memory learn from this batch
    step: int = 0                        # optimiser steps taken so far: where scheduled weights are
    tokenizer: Any = None
    embed: Callable[[list[str]], np.ndarray] | None = None
    prompt_ends: list[str] | None = None  # the last text of each prompt as the model sees it: what its template begins

    def __post_init__(self) -> None:
        n = len(self.prompts)
        if self.group_ids is None:
            starts = [i == 0 or self.rows[i] != self.rows[i - 1] for i in range(n)]
            self.group_ids = (np.cumsum(starts) - 1).tolist()
        if self.completion_lengths is None:
            self.completion_lengths = [len(ids) for ids in self.completion_ids]
        if self.truncated is None:
            self.truncated = [False] * n

    @property
    def completions(self) -> list[Any]:
        """Each completion as its prompt is: an assistant's message after a chat, else text."""
        return [[{"role": "assistant", "content": t}] if is_chat(p) else t
                for p, t in zip(self.prompts, self.texts, strict=True)]

    def __len__(self) -> int:
        return len(self.prompts)


@dataclass
class Scores:
    """Rewards of a batch. NaN: the reward does not apply to the sample."""

    names: list[str]
    values: np.ndarray                   # (completions, rewards) float64
    weights: np.ndarray                  # (rewards) float64
    extras: dict[str, list] = field(default_factory=dict)        # columns that functions logged
    metrics: dict[str, float] = field(default_factory=dict)      # numbers that functions logged, and counts of errors

    @property
    def total(self) -> np.ndarray:
        """(completions) weighted sum over the rewards that apply; NaN where none does."""
        total = np.nansum(self.values * self.weights, axis=1)
        total[np.isnan(self.values).all(axis=1)] = np.nan
        return total


class RewardSet:
    """The rewards of a run, by name: ``trainer.rewards["format"].weight = 0.1`` takes effect at the next rollout."""

    def __init__(self, functions: Any, weights: Sequence[Weight] | None = None, on_error: str | float = "raise"):
        self.rewards = adapt(functions)
        self.on_error = on_error
        if weights is not None:
            if len(weights) != len(self.rewards):
                raise ConfigError(f"reward_weights has {len(weights)} weights for {len(self.rewards)} rewards "
                                  f"({', '.join(self.names)})")
            for r, w in zip(self.rewards, weights, strict=True):
                r.weight = checked_weight(w)

    @property
    def names(self) -> list[str]:
        """Names of the rewards, which are unique."""
        return [r.name for r in self.rewards]

    def add(self, function: Any) -> None:
        """Adds what adapt() makes of this; weights of the others stay."""
        self.rewards += adapt(function)

    def __getitem__(self, name: str) -> Reward:
        for r in self.rewards:
            if r.name == name:
                return r
        raise KeyError(f"no reward {name!r}; there are {', '.join(self.names)}")

    def score(self, batch: RewardBatch) -> Scores:
        """Every reward of every completion."""
        calls = [Call(r, batch, self.on_error) for r in self.rewards]
        for call in calls:
            if not call.reward.is_async:
                call.run()
        run_together([call.run_async for call in calls if call.reward.is_async])
        columns = [(name, values, weight_at(call.reward.weight, batch.step)) for call in calls
                   for name, values in call.columns.items()]
        scores = Scores([c[0] for c in columns], np.stack([c[1] for c in columns], axis=1),
                        np.array([c[2] for c in columns]))
        for call in calls:
            scores.extras |= call.whole_extras()
            scores.metrics |= {name: sum(v) / len(v) for name, v in call.logged.items()}
            scores.metrics |= {f"rewards/{call.reward.name}/errors": float(call.errors)} if call.errors else {}
            if batch.training and isinstance(call.reward.weight, Mapping):
                scores.metrics[f"reward_weight/{call.reward.name}"] = weight_at(call.reward.weight, batch.step)
        return scores

    def state_dict(self) -> dict[str, np.ndarray]:
        """The state of rewards that have one, by "reward/entry"."""
        state = {f"{name}/{key}": np.asarray(value) for name, owner in self.with_state()
                 for key, value in owner.state_dict().items()}
        for key, value in state.items():
            if value.dtype == object:
                raise RewardError(f"reward state {key!r} is not an array of numbers or text, so it cannot be saved")
        return state

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """The reverse of state_dict(). A reward that the state does not know starts anew, with a warning."""
        unused = set(state)
        for name, owner in self.with_state():
            own = {key: value for key, value in state.items() if key.startswith(f"{name}/")}
            unused -= set(own)
            if own:
                try:
                    owner.load_state_dict({key.removeprefix(f"{name}/"): value for key, value in own.items()})
                except Exception as error:
                    raise CheckpointMismatchError(f"reward {name!r}: the checkpoint's state of it does not fit: "
                                                  f"{type(error).__name__}: {error!s:.200}") from error
            else:
                warn(f"reward {name!r}: the checkpoint has no state of it; it starts anew")
        if unused:
            warn(f"the checkpoint has the state of rewards that are not there: {', '.join(sorted(unused))}")

    def with_state(self) -> list[tuple[str, Any]]:
        """(name, object) of the rewards that have state_dict and load_state_dict."""
        owners = [(r.name, getattr(r.function, "__self__", r.function)) for r in self.rewards]
        return [(name, owner) for name, owner in owners
                if hasattr(owner, "state_dict") and hasattr(owner, "load_state_dict")]


class Call:
    """One reward on one batch: its arguments, its result, what it logged."""

    def __init__(self, reward: Reward, batch: RewardBatch, on_error: str | float):
        self.reward, self.batch, self.on_error = reward, batch, on_error
        self.columns: dict[str, np.ndarray] = {}
        self.extras: dict[str, list] = {}
        self.logged: dict[str, list[float]] = defaultdict(list)
        self.errors = 0
        shared = {"max_completion_length": batch.max_completion_length, "tokenizer": batch.tokenizer,
                  "embed": batch.embed}
        self.tools = {"trainer_state": batch.state, "log_extra": self.log_extra, "log_metric": self.log_metric,
                      "training": batch.training,
                      **{name: value for name, value in shared.items() if value is not None}}

    def log_extra(self, column: str, values: Iterable) -> None:
        """A column of its own beside the completions, one value a completion; what a reward gets as log_extra."""
        self.extras.setdefault(column, []).extend(values)

    def log_metric(self, name: str, value: float) -> None:
        """One number of a metric, of which the mean is logged; what a reward gets as log_metric."""
        self.logged[own_name(name)].append(float(value))

    def whole_extras(self) -> dict[str, list]:
        """Logged columns with a value for each completion. A call that failed may leave less; from any other that is an
        error."""
        for column, values in self.extras.items():
            if len(values) != len(self.batch) and not self.errors:
                raise RewardError(f"reward {self.reward.name!r} logged {len(values)} values of {column!r} for "
                                  f"{len(self.batch)} completions")
        return {column: values for column, values in self.extras.items() if len(values) == len(self.batch)}

    def run(self) -> None:
        """Calls a function that is not a coroutine."""
        if self.reward.kind in PER_SAMPLE:
            self.finish([self.guarded(i) for i in range(len(self.batch))])
        else:
            self.finish(self.guarded(None))

    async def run_async(self) -> None:
        """Calls a coroutine function, for all samples at once."""
        if self.reward.kind in PER_SAMPLE:
            self.finish(list(await asyncio.gather(*[self.guarded_async(i) for i in range(len(self.batch))])))
        else:
            self.finish(await self.guarded_async(None))

    def guarded(self, i: int | None) -> Any:
        """The function's result for sample i (None: for all), or what stands in for it."""
        try:
            positional, named = self.arguments(i)
            result = self.reward.call(positional, named)
            return result if i is not None else plain(result, len(self.batch) + 1)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            return self.failed(error, i)

    async def guarded_async(self, i: int | None) -> Any:
        """guarded() for coroutine functions."""
        try:
            positional, named = self.arguments(i)
            return await asyncio.wait_for(self.reward.function(*positional, **named), self.reward.timeout)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            return self.failed(error, i)

    def failed(self, error: BaseException, i: int | None) -> Any:
        """What stands in for the result of a call that failed, as on_error says; RewardError where that is "raise"."""
        if isinstance(error, RewardError):
            raise error
        kind = getattr(error, "kind", type(error).__name__)
        late = isinstance(error, TimeoutError) and self.reward.timeout is not None
        what = f"timed out after {self.reward.timeout} s" if late else f"raised {kind}: {described(error)}"
        message = f"reward {self.reward.name!r} {what} ({self.where(i)}){self.aftermath() if late else ''}"
        if self.on_error == "raise" or kind == RewardError.__name__:
            raise RewardError(message) from error
        if late:
            warn(message)
        self.errors += len(self.batch) if i is None else 1
        value = None if self.on_error == "drop" else float(self.on_error)
        return Substitute(value) if i is None else value

    def aftermath(self) -> str:
        """What became of a call that took too long."""
        if self.reward.worker is not None:
            return "; its process was ended"
        if self.reward.is_async:
            return ""
        return f"; it goes on in a thread that cannot be ended, because {self.reward.here}"

    def where(self, i: int | None) -> str:
        """Which samples a message is about."""
        if i is None:
            return f"{len(self.batch)} completions of rows {min(self.batch.rows)} to {max(self.batch.rows)}"
        return f"completion {i}, row {self.batch.rows[i]} of the data set"

    # arguments

    def arguments(self, i: int | None) -> tuple[list, dict[str, Any]]:
        """Positional and named arguments of the call for sample i (None: for all)."""
        if self.reward.kind == "easyr1":
            each = zip(self.batch.texts, self.batch.completion_ids, strict=True)
            return [], {"reward_inputs": [{"response": text, "response_length": len(ids), "ground_truth": self.gold(k)}
                                          for k, (text, ids) in enumerate(each)]}
        if i is None:
            positional, named = self.reward.arguments(self.offered_for_all(), self.batch.texts)
        else:
            positional, named = self.reward.arguments(self.offered_for_one(i), self.batch.texts[i])
        return [fresh(value) for value in positional], {name: fresh(value) for name, value in named.items()}

    def offered_for_all(self) -> dict[str, Any]:
        """What a function may ask for that is called once."""
        b = self.batch
        own = {"prompts": b.prompts, "completions": b.completions, "completion_ids": b.completion_ids,
               "group_ids": b.group_ids, "completion_lengths": b.completion_lengths, "truncated": b.truncated,
               **({"prompt_ends": b.prompt_ends} if b.prompt_ends is not None else {})}
        if self.reward.kind == "openrlhf":
            prompts = ["\n".join(text_of(m["content"]) for m in p) if is_chat(p) else str(p) for p in b.prompts]
            own = {"prompts": prompts, "queries": [p + t for p, t in zip(prompts, b.texts, strict=True)],
                   "labels": [self.gold(k) for k in range(len(b))]}
        return {**self.other_columns(), **own, **self.tools}

    def offered_for_one(self, i: int) -> dict[str, Any]:
        """What a function may ask for that is called for sample i alone."""
        b = self.batch
        row = {name: values[i] for name, values in self.other_columns().items()}
        own = {"prompt": b.prompts[i], "completion": b.completions[i], "completion_ids": b.completion_ids[i],
               "response": b.texts[i]}
        if self.reward.kind == "verl":
            return {"data_source": None, "extra_info": None, **row, "solution_str": b.texts[i],
                    "model_output": b.texts[i], "ground_truth": self.gold(i), **self.tools}
        if self.reward.kind == "rllm":
            task = {"data_source": None, **row, "prompt": b.prompts[i], "ground_truth": gold_of(row)}
            return {**row, "task_info": task, "action": b.texts[i], **self.tools}
        return {"info": {}, "task": "default", **row, **own, "state": {**row, **own}, **self.tools}

    def other_columns(self) -> dict[str, list]:
        """The data set's columns but those that have another meaning here."""
        return {name: values for name, values in self.batch.columns.items() if name not in OWN_COLUMNS}

    def gold(self, i: int) -> Any:
        """The reference answer of sample i, None where its row has none. RewardError where the data set has none."""
        columns = self.batch.columns
        if not columns.keys() & {"reward_model", *GOLD_COLUMNS}:
            raise RewardError(f"reward {self.reward.name!r} needs a reference answer; the data set has none of the "
                              f"columns reward_model, {', '.join(GOLD_COLUMNS)}")
        return gold_of({name: values[i] for name, values in columns.items()})

    # results

    def finish(self, result: Any) -> None:
        """Reads the result into columns of float64."""
        n, name = len(self.batch), self.reward.name
        if isinstance(result, Substitute):
            self.columns = {name: self.numbers(name, [result.value] * n)}
            return
        if self.reward.kind == "evaluator":
            self.finish_matrix(result)
            return
        if self.reward.kind == "openrlhf" and isinstance(result, dict):
            self.log_means(result.get("extra_logs"))
            result = result.get("rewards", result.get("scores"))
        values = [self.unwrapped(value, i) for i, value in enumerate(as_list(result, name, n))]
        self.columns = {name: self.numbers(name, values)}

    def finish_matrix(self, result: Any) -> None:
        """compute_rewards gives (matrix, metrics) or a matrix; columns are named by get_reward_breakdown when there is
        one."""
        matrix, metrics = result if isinstance(result, tuple) and len(result) == 2 else (result, {})
        rows = [as_list(r, self.reward.name, None) for r in as_list(matrix, self.reward.name, len(self.batch))]
        widths = {len(r) for r in rows}
        if len(widths) != 1:
            raise RewardError(f"reward {self.reward.name!r} returned rows of {sorted(widths)} rewards; all must be "
                              "equally long")
        breakdown = getattr(getattr(self.reward.function, "__self__", None), "get_reward_breakdown", None)
        # as an array, of which evaluators take .item()
        names = list(breakdown(self.numbers(self.reward.name, rows[0]))) if breakdown and rows else []
        width = widths.pop()
        if len(names) != width:
            names = [f"{self.reward.name}_{k}" for k in range(width)]
        self.columns = {nm: self.numbers(nm, [r[k] for r in rows]) for k, nm in enumerate(names)}
        for key, value in (metrics or {}).items():
            if isinstance(value, numbers.Real):
                self.log_metric(key, float(value))

    def log_means(self, logs: Any) -> None:
        """What an openrlhf reward gives as extra_logs: numbers, or lists and arrays of them, by name."""
        for name, values in (logs if isinstance(logs, Mapping) else {}).items():
            numeric = [v for v in flat(plain(values)) if isinstance(v, numbers.Real)]
            if numeric:
                self.log_metric(str(name), sum(map(float, numeric)) / len(numeric))

    def unwrapped(self, value: Any, i: int) -> Any:
        """A dict's score, or that of an object with .reward; its other numbers are logged as metrics of this reward."""
        if self.reward.kind == "rllm" and hasattr(value, "reward"):
            value = {"is_correct": getattr(value, "is_correct", None), **(getattr(value, "metadata", None) or {}),
                     "score": value.reward}
        if not isinstance(value, dict):
            return value
        key = next((k for k in SCORE_KEYS if k in value), None)
        if key is None:
            raise RewardError(f"reward {self.reward.name!r} returned a dict without {' or '.join(SCORE_KEYS)} "
                              f"({self.where(i)})")
        for other, number in value.items():
            if other != key and isinstance(number, numbers.Real):
                self.log_metric(f"rewards/{self.reward.name}/{other}", float(number))
        return value[key]

    def numbers(self, name: str, values: list) -> np.ndarray:
        """(completions) float64, NaN for None; what is no finite number is an error."""
        result = np.empty(len(values))
        for i, value in enumerate(values):
            if getattr(value, "ndim", None) == 0:
                value = value.item()
            if value is None:
                result[i] = math.nan
            elif isinstance(value, numbers.Real):
                result[i] = self.finite(name, as_float(value), i)
            else:
                raise RewardError(f"reward {name!r} returned {type(value).__name__} {described(value, repr)}, not a "
                                  f"number or None ({self.where(i)})")
        return result

    def finite(self, name: str, value: float, i: int) -> float:
        """The value; what on_error says for NaN and infinity."""
        if math.isfinite(value):
            return value
        if self.on_error == "raise":
            raise RewardError(f"reward {name!r} returned {value} ({self.where(i)}); return None where it does not "
                              "apply")
        self.errors += 1
        return math.nan if self.on_error == "drop" else float(self.on_error)


def own_name(name: str) -> str:
    """The name of a metric that a reward logs; logged/<name> where a trainer has a number of that name.

    >>> own_name("digits"), own_name("reward"), own_name("rewards/format/mean"), own_name("rewards/format/digits")
    ('digits', 'logged/reward', 'logged/rewards/format/mean', 'rewards/format/digits')
    """
    taken = (name in TAKEN or name.startswith(TAKEN_BEGINNINGS)
             or (name.startswith("rewards/") and name.endswith(TAKEN_OF_REWARDS)))
    return f"logged/{name}" if taken else name


def flat(values: Any) -> list[Any]:
    """The numbers of nested lists."""
    return [v for each in values for v in flat(each)] if isinstance(values, (list, tuple)) else [values]


def is_chat(prompt: Any) -> bool:
    """Whether a prompt is a list of messages."""
    return not isinstance(prompt, str) and len(prompt) > 0 and isinstance(prompt[0], Mapping)


def run_together(functions: list[Callable[[], Awaitable[None]]]) -> None:
    """Awaits them all in a loop of their own thread (a notebook has a running loop in this one)."""
    if not functions:
        return

    async def gathered() -> None:
        await asyncio.gather(*[f() for f in functions])

    in_thread(threading.TIMEOUT_MAX, lambda: asyncio.run(gathered()))
