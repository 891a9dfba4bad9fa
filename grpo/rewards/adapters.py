"""How a reward function is called: its kind is read off its signature, or said with the ``reward`` decorator.

    kind        recognised by                      called                      returns
    batch       completions, completion_ids, ...   once, with lists            one number (or None) a completion
    sample      completion or response             once a completion           a number, None, or a dict
    verl        solution_str (or model_output)     once a completion           a number, or a dict with "score"
                and ground_truth
    rllm        task_info and action               once a completion           a number, or an object with .reward
    easyr1      reward_inputs                      once, with a list of dicts  a dict with "overall" a completion
    openrlhf    queries, prompts and labels        once, with lists of str     a dict with "rewards", and
                                                                               "extra_logs" for the log
    evaluator   an object with compute_rewards     once, with lists            a matrix, one column a reward

batch is how TRL calls, sample how verifiers does, evaluator how DeepSeekRL does.

Every kind but easyr1 gets only the arguments that its signature asks for. Columns of the data set go by their names;
besides them there are prompts, completions, completion_ids (singular for a sample), trainer_state, log_extra(column,
values) and log_metric(name, value). What is logged has its own name in the records and metrics of a run, and is
logged/<name> where these have something of that name themselves. Where the prompt is a conversation a completion is
[{"role": "assistant", "content": text}], otherwise the text. Coroutine functions of any kind run together.

Asked for by name, and not part of **columns:

    completion_lengths     tokens of each completion, without the stop token
    truncated              whether each was cut off at max_completion_length
    max_completion_length  that limit
    group_ids              number of each completion's prompt
    prompt_ends            the last text of each prompt as the model sees it, after its chat template
    tokenizer              the model's
    training               False in evaluation
    embed(texts)           (n, d) float32: the policy's mean-pooled last hidden states (Model.embed)

A reward in a process of its own (the decorator's process) gets a copy of trainer_state when it asks for it by name, and
neither embed nor tokenizer. An object with state_dict() and load_state_dict(state), dicts of NumPy arrays, has its
state saved with the run's checkpoints.
"""
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import ConfigError, RewardError, did_you_mean
from ..options import Weight
from .arguments import check_arguments, entry
from .deadline import Worker, in_thread, why_here

KINDS = ("batch", "sample", "verl", "rllm", "easyr1", "openrlhf", "evaluator")
PER_SAMPLE = ("sample", "verl", "rllm")
GOLD_COLUMNS = ("ground_truth", "answer", "solution", "label")
TOOLS = ("log_extra", "log_metric")
BY_NAME = ("completion_lengths", "truncated", "max_completion_length", "group_ids", "prompt_ends", "tokenizer",
           "training", "embed")


def gold_of(columns: Mapping[str, Any]) -> Any:
    """The gold answer of a row: reward_model["ground_truth"], or the first of GOLD_COLUMNS; None without one."""
    model = columns.get("reward_model")
    if isinstance(model, Mapping) and "ground_truth" in model:
        return model["ground_truth"]
    return next((columns[name] for name in GOLD_COLUMNS if columns.get(name) is not None), None)


@dataclass
class Reward:
    """One reward function with its name, weight and way of being called."""

    function: Callable
    name: str
    kind: str
    weight: Weight = 1.0
    timeout: float | None = None                # seconds of one call
    columns: Sequence[str] | None = None        # pass these columns only; None: what the signature asks for
    # call it in a process of its own; None: where there is a timeout and it can be imported
    process: bool | None = None
    given: dict[str, Any] = field(default_factory=dict)  # further arguments, for example a rubric's parser

    def __post_init__(self) -> None:
        reason = "process=False" if self.process is False else why_here(self.function, set(signature(self.function)))
        if self.process and reason:
            raise ConfigError(f"reward {self.name!r} cannot have a process of its own: {reason}")
        self.here = reason                      # why it is called in this process, None when it is not
        self.worker = Worker(self.function) if not reason and (self.process or self.timeout is not None) else None

    @property
    def is_async(self) -> bool:
        """Whether the function is a coroutine function."""
        # an object is called by its class's method
        return any(map(inspect.iscoroutinefunction, (self.function, type(self.function).__call__)))

    def call(self, positional: list, named: dict[str, Any]) -> Any:
        """The function's result. TimeoutError after its timeout."""
        if self.worker is None:
            return in_thread(self.timeout, lambda: self.function(*positional, **named))
        tools = [name for name in TOOLS if name in named]
        unsent = {*TOOLS} if "trainer_state" in signature(self.function) else {*TOOLS, "trainer_state"}
        sent = {name: value for name, value in named.items() if name not in unsent}
        result, said = self.worker.call(positional, sent, tools, self.timeout)
        for tool, *what in said:
            named[tool](*what)
        return result

    def arguments(self, available: dict[str, Any], text: Any) -> tuple[list, dict[str, Any]]:
        """What the signature asks for out of available; text goes to a first parameter of unknown name when the kind
        was given explicitly."""
        parameters = list(signature(self.function).values())
        offered = {**available, **self.given}
        if self.columns is not None:
            wanted = {"completion", "completions", *self.columns, *self.given}
            offered = {k: v for k, v in offered.items() if k in wanted}
        positional: list[Any] = []
        named: dict[str, Any] = {}
        for i, p in enumerate(parameters):
            if p.kind is p.VAR_KEYWORD:
                named |= {k: v for k, v in offered.items() if k not in {q.name for q in parameters} | set(BY_NAME)}
            elif p.kind is not p.VAR_POSITIONAL:
                if p.name in offered:
                    value = offered[p.name]
                elif i == 0 and hasattr(self.function, MARK):
                    value = text
                elif p.default is not p.empty:
                    continue
                else:
                    raise RewardError(f"reward {self.name!r} asks for {p.name!r}{did_you_mean(p.name, available)} "
                                      f"There are {', '.join(sorted(available))}")
                if p.kind is p.POSITIONAL_ONLY:
                    positional.append(value)
                else:
                    named[p.name] = value
        return positional, named


MARK = "__grpo_reward__"


def reward(function: Callable | None = None, *, kind: str | None = None, columns: Sequence[str] | None = None,
           weight: float = 1.0, timeout: float | None = None, process: bool | None = None,
           name: str | None = None) -> Callable:
    """Decorator that says how a reward function is to be called.

    kind: "batch" or "sample" (see the module), when the parameter names do not tell; a first parameter of another name
    then gets the text, or all texts. columns: pass only these columns. weight: of this reward in the sum. timeout:
    seconds that a call may take; what takes longer is an error, treated as on_reward_error says. process: call the
    function in a process of its own, so that a call that hangs is ended and one that crashes harms nothing; it needs a
    function at the top level of a module (not the script itself). By default so where there is a timeout and it can be;
    elsewhere a call that hangs is left behind in a thread.

    >>> @reward(kind="sample", columns=["answer"], timeout=2.0)
    ... def correct(text, answer):
    ...     return float(text.strip() == answer)
    """
    if kind is not None and kind not in KINDS:
        raise ConfigError(f"kind={kind!r} is not one of {', '.join(KINDS)}")
    if timeout is not None and timeout <= 0:
        raise ConfigError(f"timeout={timeout} must be above 0 seconds")

    def mark(f: Callable) -> Callable:
        setattr(f, MARK, dict(kind=kind, columns=columns, weight=weight, timeout=timeout, process=process, name=name))
        return f

    return mark if function is None else mark(function)


def adapt(functions: Any) -> list[Reward]:
    """Rewards from what the user gave: one callable, name, {name: arguments} or object, or a list of them. Names are
    made unique.

    A name of several rewards adds those that the list does not have yet.

    >>> [r.name for r in adapt(["correctness", "xml", {"len_l1": {"target": 512}}])]
    ['correctness_reward', 'integer_reward', 'strict_format_reward', 'soft_format_reward', 'xml_tags_reward', 'len_l1']
    """
    if functions is None:
        raise ConfigError("reward_funcs is missing: give a function, a list of functions, or names of built-in rewards")
    rewards: list[Reward] = []
    for f in functions if isinstance(functions, (list, tuple)) else [functions]:
        found = adapt_one(f)
        rewards += found if len(found) == 1 else [r for r in found if r.function not in [q.function for q in rewards]]
    if not rewards:
        raise ConfigError("reward_funcs is empty")
    seen: dict[str, int] = {}
    for r in rewards:
        seen[r.name] = seen.get(r.name, 0) + 1
        if seen[r.name] > 1:
            r.name = f"{r.name}_{seen[r.name]}"
    return rewards


def adapt_one(function: Any) -> list[Reward]:
    """The rewards that one entry of the user's list stands for."""
    if isinstance(function, Reward):
        return [function]
    if isinstance(function, (str, Mapping)):
        return by_name(*((function, {}) if isinstance(function, str) else entry(function)))
    if hasattr(function, "score_rollouts"):
        return from_rubric(function)
    if hasattr(function, "compute_rewards"):
        return [Reward(function.compute_rewards, type(function).__name__, "evaluator", given={"device": "cpu"})]
    if not callable(function):
        raise ConfigError("a reward must be a function, a name, or an object with compute_rewards; got "
                          f"{type(function).__name__}")
    said = dict(getattr(function, MARK, {}))
    kind = said.pop("kind", None) or detect(function)
    return [Reward(function, said.pop("name", None) or name_of(function), kind, **said)]


def by_name(name: str, arguments: dict[str, Any]) -> list[Reward]:
    """What a name stands for: a class is made with the arguments, a function is given them at each call."""
    from .registry import resolve

    found = resolve(name)
    if isinstance(found, list):
        if arguments:
            raise ConfigError(f"{name!r} is several rewards and takes no arguments")
        return [r for f in found for r in adapt_one(f)]
    if callable(found):
        check_arguments(name, found, arguments)
    if isinstance(found, type):
        return adapt_one(found(**arguments))
    rewards = adapt_one(found)
    for r in rewards:
        r.given |= arguments
    return rewards


def from_rubric(rubric: Any) -> list[Reward]:
    """The functions of a verifiers Rubric, with its weights and its parser."""
    functions = getattr(rubric, "funcs", None) or getattr(rubric, "reward_funcs", None)
    weights = getattr(rubric, "weights", None) or getattr(rubric, "reward_weights", None)
    if not functions:
        raise ConfigError(f"{type(rubric).__name__} has no reward functions")
    given = {"parser": rubric.parser} if getattr(rubric, "parser", None) is not None else {}
    return [Reward(f, name_of(f), "sample", weight=float(w), given=given)
            for f, w in zip(functions, weights or [1.0] * len(functions), strict=True)]


def signature(function: Callable) -> dict[str, inspect.Parameter]:
    """The parameters of a reward function by name; ConfigError where they cannot be read."""
    try:
        return dict(inspect.signature(function).parameters)
    except (TypeError, ValueError) as error:
        message = f"reward {name_of(function)!r} has no readable signature; wrap it in a Python function"
        raise ConfigError(message) from error


def detect(function: Callable) -> str:
    """The kind that a signature tells."""
    parameters = signature(function)
    names = set(parameters)
    if "ground_truth" in names and names & {"solution_str", "model_output"}:
        return "verl"
    if {"task_info", "action"} <= names:
        return "rllm"
    if {"queries", "prompts", "labels"} <= names:
        return "openrlhf"
    if "reward_inputs" in names:
        return "easyr1"
    if names & {"completion", "response"}:
        return "sample"
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if takes_any or names & {"completions", "completion_ids", "prompts"}:
        return "batch"
    raise ConfigError(f"reward {name_of(function)!r} takes ({', '.join(parameters)}): it should ask for completions "
                      "(all at once) or completion (one at a time), or be marked with "
                      "grpo.rewards.reward(kind='batch' or 'sample')")


def name_of(function: Any) -> str:
    """The name of a reward in metrics: a function's own, a partial's inner one, an object's class."""
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__name__", None) or type(function).__name__
    return "lambda" if name == "<lambda>" else name
