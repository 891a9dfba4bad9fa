"""Rewards for length. Lengths are counted in sampled tokens without the stop token; what was cut off at
max_completion_length has no answer. The functions of R1, to the letter, are in grpo/rewards/r1.py."""
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..answers import text_of
from ..errors import ConfigError, RewardError
from .accuracy import GOLDS, are_correct, golds_of
from .arguments import number, pair, whole


class SoftOverlongPunishment:
    """DAPO, equation 13. With L the most tokens of a completion and c the cache: 0 up to L - c tokens, falling in a
    straight line to -1 at L, and -1 beyond.

    >>> SoftOverlongPunishment(100, 20)(completion_ids=[[1] * 80, [1] * 90, [1] * 100])
    [0.0, -0.5, -1.0]
    """

    __name__ = "soft_overlong_punishment_reward"

    def __init__(self, max_completion_length: int, cache: int):
        self.limit = whole(self.__name__, "max_completion_length", max_completion_length)
        self.cache = whole(self.__name__, "cache", cache)

    def __call__(self, completion_ids: list[list[int]], **columns: Any) -> list[float]:
        """One penalty a completion, from -1 to 0."""
        free = self.limit - self.cache
        return [0.0 if len(ids) <= free else (free - len(ids)) / self.cache if len(ids) <= self.limit else -1.0
                for ids in completion_ids]


def get_soft_overlong_punishment(max_completion_len: int, soft_punish_cache: int) -> SoftOverlongPunishment:
    """SoftOverlongPunishment by TRL's name and arguments."""
    return SoftOverlongPunishment(max_completion_len, soft_punish_cache)


class LenL1:
    """A number N of tokens to think for, said in the prompt (L1, arXiv 2503.04697, equations 1 and 2; LCPO). n: tokens
    of the completion.

    N > 0, exactly N:   1[correct] - alpha |N - n|
    N < 0, at most |N|: 1[correct] clip(alpha (|N| - n) + delta, 0, 1)

    target: N for every row; None: the column target_length, where a data set puts the N that its prompt names. strict:
    an answer counts only inside <answer>.

    >>> LenL1(target=500)(["<answer>4</answer>"] * 2, completion_lengths=[500, 1500], answer=["4", "4"])
    [1.0, 0.7]
    >>> columns = {"answer": ["4", "5"], "target_length": [-200, -200]}
    >>> LenL1(alpha=0.001)(["<answer>4</answer>"] * 2, completion_lengths=[100, 100], **columns)
    [0.6, 0.0]
    """

    __name__, golds = "len_l1", GOLDS

    def __init__(self, target: int | None = None, alpha: float = 0.0003, delta: float = 0.5, strict: bool = True):
        if target is not None and (isinstance(target, bool) or not isinstance(target, int) or target == 0):
            raise ConfigError(f"reward 'len_l1': target={target!r} must be a number of tokens, negative for a maximum")
        self.target, self.strict = target, strict
        self.alpha, self.delta = number("len_l1", "alpha", alpha, 0), number("len_l1", "delta", delta)
        self.needs = ("target_length",) if target is None else ()

    def __call__(self, completions: list, completion_lengths: list[int], answer: list | None = None,
                 solution: list | None = None, target_length: list | None = None, truncated: list[bool] | None = None,
                 **columns: Any) -> list[float | None]:
        """One reward a completion; None where the row has no answer."""
        right = are_correct(completions, golds_of("len_l1", answer, solution), truncated, self.strict)
        targets = self.targets(target_length, len(completions))
        return [None if r is None else self.value(r, n, target)
                for r, n, target in zip(right, completion_lengths, targets, strict=True)]

    def targets(self, column: list | None, n: int) -> list[int]:
        """N of each completion. RewardError where a row has none, or another one than target."""
        if column is None:
            if self.target is None:
                raise RewardError("len_l1 needs its argument target, or a column target_length with the number that "
                                  "the prompt names")
            return [self.target] * n
        own = "a number of tokens other than 0" if self.target is None else f"the target={self.target} of the reward"
        for i, target in enumerate(column):
            is_target = isinstance(target, int) and not isinstance(target, bool) and target != 0
            if not is_target or self.target not in (None, target):
                raise RewardError(f"len_l1: target_length of completion {i} is {target!r}, not {own}")
        return column

    def value(self, right: bool, n: int, target: int) -> float:
        """The reward of one completion of n tokens."""
        if target > 0:
            return right - self.alpha * abs(target - n)
        return right * min(1.0, max(0.0, self.alpha * (-target - n) + self.delta))


class LenCosine:
    """A cosine of the length between two values, for right and for wrong answers (Demystifying Long CoT, arXiv
    2502.03373, section 4.2).

    With n tokens of at most L: v_L + (v_0 - v_L) (1 + cos(pi n / L)) / 2, where (v_0, v_L) = correct or wrong; exceeded
    where the completion was cut off. A wrong answer also gets repetition_penalty times the share of its
    ngram_size-grams of words that are repeats (the paper's sparse form). max_length: L; None: max_completion_length.
    The defaults are those of Open R1, where a long right answer stays better than any wrong one.

    >>> right, lengths = "<answer>4</answer>", [0, 256, 512]
    >>> [round(x, 3) for x in LenCosine(max_length=512)([right] * 3, completion_lengths=lengths, answer=["4"] * 3)]
    [1.0, 0.75, 0.5]
    """

    __name__, golds = "len_cosine", GOLDS

    def __init__(self, max_length: int | None = None, correct: tuple[float, float] = (1.0, 0.5),
                 wrong: tuple[float, float] = (-1.0, -0.5), exceeded: float = -1.0, repetition_penalty: float = -1.0,
                 ngram_size: int = 20, strict: bool = True):
        self.max_length = None if max_length is None else whole("len_cosine", "max_length", max_length)
        self.correct, self.wrong = pair("len_cosine", "correct", correct), pair("len_cosine", "wrong", wrong)
        self.exceeded = number("len_cosine", "exceeded", exceeded)
        self.repetition_penalty = number("len_cosine", "repetition_penalty", repetition_penalty, high=0.0)
        self.ngram_size, self.strict = whole("len_cosine", "ngram_size", ngram_size), strict

    def __call__(self, completions: list, completion_lengths: list[int], answer: list | None = None,
                 solution: list | None = None, truncated: list[bool] | None = None,
                 max_completion_length: int | None = None, **columns: Any) -> list[float | None]:
        """One reward a completion; None where the row has no answer."""
        limit = self.max_length or max_completion_length
        if limit is None:
            raise RewardError("len_cosine needs its argument max_length outside a trainer")
        cut = truncated if truncated is not None else [False] * len(completions)
        right = are_correct(completions, golds_of("len_cosine", answer, solution), cut, self.strict)
        return [None if r is None else self.exceeded if late else self.value(r, n, limit, text_of(c))
                for r, late, n, c in zip(right, cut, completion_lengths, completions, strict=True)]

    def value(self, right: bool, n: int, limit: int, text: str) -> float:
        """The reward of one completion of n tokens that was not cut off."""
        value = cosine(n / limit, *(self.correct if right else self.wrong))
        return value if right else value + self.repetition_penalty * repetition(text, self.ngram_size)


def cosine(share: float, start: float, end: float) -> float:
    """From start (share 0) to end (share 1 and beyond) along half a cosine."""
    return end + 0.5 * (start - end) * (1.0 + math.cos(math.pi * min(share, 1.0)))


def repeated_share(words: list, n: int) -> float:
    """The share of the n-grams of words (or token ids) that stand there more than once, but for their first time; 0
    where there are none.

    >>> repeated_share("so it is so it is".split(), 2)
    0.4
    """
    grams = [tuple(words[i:i + n]) for i in range(len(words) - n + 1)]
    return (len(grams) - len(set(grams))) / len(grams) if grams else 0.0


def repetition(text: str, n: int) -> float:
    """The share of a text's n-grams of lower-case words that are repeats.

    >>> repetition("so it is So it is", 2)
    0.4
    """
    return repeated_share(text.lower().split(), n)


class RepetitionPenalty:
    """max_penalty times the share of repeated ngram_size-grams of words (Demystifying Long CoT; TRL counts tokens: see
    get_repetition_penalty_reward).

    >>> RepetitionPenalty(2, -1.0)(["so it is so it is", "so it is"])
    [-0.4, 0.0]
    """

    __name__ = "repetition_penalty"

    def __init__(self, ngram_size: int = 20, max_penalty: float = -1.0):
        self.ngram_size = whole(self.__name__, "ngram_size", ngram_size)
        self.max_penalty = number(self.__name__, "max_penalty", max_penalty, high=0.0)

    def __call__(self, completions: list, **columns: Any) -> list[float]:
        """One penalty a completion, from max_penalty to 0."""
        return [0.0 + self.max_penalty * repetition(text_of(c), self.ngram_size) for c in completions]


class TokenRepetitionPenalty:
    """RepetitionPenalty over ngram_size-grams of token ids.

    >>> TokenRepetitionPenalty(2)(completion_ids=[[1, 2, 3, 4], [5, 5, 5, 5, 5]])
    [0.0, -0.75]
    """

    __name__ = "repetition_penalty_reward"

    def __init__(self, ngram_size: int = 3, max_penalty: float = -1.0):
        self.ngram_size = whole(self.__name__, "ngram_size", ngram_size)
        self.max_penalty = number(self.__name__, "max_penalty", max_penalty, high=0.0)

    def __call__(self, completion_ids: list[list[int]], **columns: Any) -> list[float]:
        """One penalty a completion, from max_penalty to 0."""
        return [0.0 + self.max_penalty * repeated_share(ids, self.ngram_size) for ids in completion_ids]


get_repetition_penalty_reward = TokenRepetitionPenalty      # by TRL's name


class LenMin:
    """Short right answers (Efficient reasoning, arXiv 2502.04463, equations 2 and 3): 1[correct] (1 - alpha sigmoid((n
    - mean) / std)), mean and std of the lengths of the group's correct answers.

    alpha: 0 leaves correctness alone. over: "correct", or "all" as R1 has it.

    >>> right, lengths = "<answer>4</answer>", [100, 200, 300]
    >>> LenMin(alpha=0.4)([right, right, ""], completion_lengths=lengths, group_ids=[0, 0, 0], answer=["4"] * 3)
    [0.8924..., 0.7075..., 0.0]
    """

    __name__, golds = "len_min", GOLDS

    def __init__(self, alpha: float = 0.1, over: str = "correct", strict: bool = True):
        if over not in ("correct", "all"):
            raise ConfigError(f"reward 'len_min': over={over!r} must be 'correct' or 'all'")
        self.alpha, self.over, self.strict = number("len_min", "alpha", alpha, 0, 1), over, strict

    def __call__(self, completions: list, completion_lengths: list[int], group_ids: list[int],
                 answer: list | None = None, solution: list | None = None, truncated: list[bool] | None = None,
                 **columns: Any) -> list[float | None]:
        """One reward a completion; None where the row has no answer."""
        right = are_correct(completions, golds_of("len_min", answer, solution), truncated, self.strict)
        correct = np.array([bool(r) for r in right])
        rewards = efficient(np.array(completion_lengths, np.float64), correct, np.array(group_ids), self.alpha,
                            self.over == "correct")
        return [None if r is None else value for r, value in zip(right, rewards.tolist(), strict=True)]


def efficient(lengths: np.ndarray, correct: np.ndarray, groups: np.ndarray, alpha: float,
              over_correct: bool) -> np.ndarray:
    """(n) 1[correct] (1 - alpha sigmoid(z)), z by the population mean and std of each group's (correct) lengths."""
    rewards = np.zeros(len(lengths))
    for g in np.unique(groups):
        scored = (groups == g) & correct
        sample = lengths[scored if over_correct else groups == g]
        if scored.any():
            z = (lengths[scored] - sample.mean()) / (sample.std() + 1e-7)
            rewards[scored] = 1.0 - alpha / (1.0 + np.exp(-z))
    return rewards


class Conciseness:
    """Few different tokens in the reasoning (the `concise` branch of DeepSeekRL): value up to `low` distinct token ids
    between <reasoning> and </reasoning>, falling in a straight line to 0 at `high`; 0 without both tags. Logs
    unique_reasoning_tokens, their mean.

    >>> from grpo import Tokenizer
    >>> texts = ["<reasoning>aabb</reasoning>", "<reasoning>abc</reasoning>", "abc"]
    >>> Conciseness(low=2, high=4)(texts, tokenizer=Tokenizer.bytes())
    [1.5, 0.75, 0.0]
    """

    __name__ = "conciseness"

    def __init__(self, low: int = 30, high: int = 100, value: float = 1.5):
        self.low, self.value = whole("conciseness", "low", low, 0), number("conciseness", "value", value)
        self.high = whole("conciseness", "high", high, self.low + 1)

    def __call__(self, completions: list, tokenizer: Any, log_metric: Callable | None = None,
                 **columns: Any) -> list[float]:
        """One reward a completion, from 0 to value."""
        counts = [self.distinct(text_of(c), tokenizer) for c in completions]
        found = [n for n in counts if n is not None]
        if log_metric is not None and found:
            log_metric("unique_reasoning_tokens", sum(found) / len(found))
        return [0.0 if n is None else self.value * min(1.0, max(0.0, (self.high - n) / (self.high - self.low)))
                for n in counts]

    def distinct(self, text: str, tokenizer: Any) -> int | None:
        """Different token ids of the reasoning; None without both tags."""
        _, opened, rest = text.partition("<reasoning>")
        reasoning, closed, _ = rest.partition("</reasoning>")
        return len(set(tokenizer.encode(reasoning))) if opened and closed else None


NAMES = {"len_l1": LenL1, "len_cosine": LenCosine, "len_min": LenMin, "conciseness": Conciseness,
         "repetition_penalty": RepetitionPenalty, "repetition_penalty_reward": TokenRepetitionPenalty,
         "soft_overlong_punishment": SoftOverlongPunishment}
