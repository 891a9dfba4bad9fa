"""What a sample of completions says of a model: pass@k, majority@k, intervals, the difference between two models.

Completions of one question are not independent of each other, so every interval is over questions.
"""
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Z = 1.959963984540054                        # two-sided 95 %


def pass_at_k(n: int, right: int, k: int) -> float:
    """The chance that k of a question's n completions, drawn without replacement, have a right one among them: the
    unbiased estimator 1 - C(n - right, k) / C(n, k) of Chen et al. 2021.

    >>> pass_at_k(4, 1, 1), pass_at_k(4, 1, 2), pass_at_k(4, 4, 1)
    (0.25, 0.5, 1.0)
    """
    return 1.0 - math.comb(n - right, k) / math.comb(n, k)


def majority(answers: Sequence[str], right: Sequence[bool]) -> float:
    """1.0 where the most frequent of a question's answers is right, else 0.0; the share of right ones among answers
    that tie. answers: the same text for the same answer.

    >>> majority(["7", "7", "8"], [True, True, False]), majority(["7", "8"], [True, False])
    (1.0, 0.5)
    """
    votes = {answer: answers.count(answer) for answer in answers}
    most = max(votes.values())
    winners = [answer for answer, count in votes.items() if count == most]
    return sum(right[answers.index(answer)] for answer in winners) / len(winners)


def wilson(share: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a share seen in n independent trials.

    >>> [round(x, 3) for x in wilson(0.5, 100)]
    [0.404, 0.596]
    """
    middle = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def interval(shares: NDArray[np.float64], completions: int) -> tuple[float, float]:
    """95 % interval of the mean of shares, one number in [0, 1] a question, over questions like these.

    Wilson's, with the effective number of trials p (1 - p) / var(mean) of a clustered sample (Korn & Graubard 1998),
    which is never below the number of questions and not taken to be above completions, the number of all completions.
    With one completion a question it is Wilson's interval itself.
    """
    p, count = float(shares.mean()), len(shares)
    variance = float(shares.var()) / count
    effective = p * (1 - p) / variance if variance > 0 else (completions if 0 < p < 1 else count)
    return wilson(p, min(max(effective, count), completions))


def mean_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """95 % interval of the mean of numbers (questions, completions of each; NaN where there is none), over questions
    like these: of zeros and ones `interval`, else that of the means of questions by the normal distribution. NaN of
    fewer than two questions.

    >>> [round(x, 2) for x in mean_interval(np.array([[1.0], [2.0], [3.0]]))]
    [0.87, 3.13]
    """
    there = values[~np.isnan(values).all(axis=1)]
    if len(there) < 2:
        return math.nan, math.nan
    means, known = np.nanmean(there, axis=1), there[~np.isnan(there)]
    if np.isin(known, (0.0, 1.0)).all():
        return interval(means, known.size)
    half = Z * float(means.std(ddof=1)) / math.sqrt(len(means))
    return float(means.mean()) - half, float(means.mean()) + half


def difference(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[float, float, float]:
    """(mean of b - a, low, high): two models on the same questions, shares in [0, 1], with a 95 % interval.

    The adjusted Wald interval of Bonett & Price (2012): one question is added that a alone gets right, and one that b
    alone does. Theirs is for right or wrong; for shares the same two are added.
    """
    gain = b - a
    padded = np.concatenate([gain, [1.0, -1.0]])
    half = Z * math.sqrt(float(padded.var()) / len(padded))
    return float(gain.mean()), max(-1.0, float(padded.mean()) - half), min(1.0, float(padded.mean()) + half)


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p-value of McNemar's test: only_a questions are right in one model alone, only_b in the other
    alone.

    >>> mcnemar(1, 9), mcnemar(0, 0)
    (0.021484375, 1.0)
    """
    n, few = only_a + only_b, min(only_a, only_b)
    return min(1.0, 2 * sum(math.comb(n, i) for i in range(few + 1)) / 2**n)
