"""pass@k, majority and intervals against statements of their own: enumeration, and the equations they solve."""
import doctest
import itertools
import math
from collections import Counter

import numpy as np
import pytest

from grpo import estimates
from grpo.estimates import Z, difference, interval, majority, mcnemar, pass_at_k, wilson


def test_examples():
    assert doctest.testmod(estimates).failed == 0


@pytest.mark.parametrize("n", [1, 2, 5, 7])
def test_pass_at_k_is_the_share_of_all_draws_with_a_right_one(n):
    for right in range(n + 1):
        completions = [i < right for i in range(n)]
        for k in range(1, n + 1):
            draws = list(itertools.combinations(completions, k))
            assert pass_at_k(n, right, k) == pytest.approx(sum(map(any, draws)) / len(draws), abs=1e-12)


@pytest.mark.parametrize("answers", [answers for n in (1, 2, 3, 4) for answers in itertools.product("abc", repeat=n)])
def test_majority_is_what_a_fair_draw_among_the_most_frequent_gives(answers):
    counts = Counter(answers).most_common()
    tied = [answer for answer, count in counts if count == counts[0][1]]
    assert majority(answers, [a == "a" for a in answers]) == pytest.approx(np.mean([a == "a" for a in tied]))


@pytest.mark.parametrize("share, n", [(0.0, 10), (1.0, 10), (0.5, 7), (0.12, 1319), (1 / 3, 3), (0.5, 12.7)])
def test_the_ends_of_wilsons_interval_solve_its_equation(share, n):
    """The shares p from which the observed one is Z standard errors of p away."""
    for end in wilson(share, n):
        assert abs(share - end) == pytest.approx(Z * math.sqrt(end * (1 - end) / n), abs=1e-7)


@pytest.mark.parametrize("right", [0, 1, 40, 99, 100])
def test_one_completion_a_question_has_wilsons_interval(right):
    shares = np.repeat([1.0, 0.0], [right, 100 - right])
    assert interval(shares, 100) == pytest.approx(wilson(right / 100, 100))


@pytest.mark.parametrize("shares, k, as_of", [
    (np.repeat([0.0, 1.0], [30, 70]), 8, 100),              # completions of a question agree: 8 say no more than 1
    (np.full(100, 0.5), 8, 800),                            # all questions alike: every completion counts
    (np.ones(100), 8, 100)])                                # nothing is known of the spread: the cautious end
def test_clustered_completions_count_for_what_they_tell(shares, k, as_of):
    assert interval(shares, k * len(shares)) == pytest.approx(wilson(float(shares.mean()), as_of))


def test_interval_agrees_with_the_bootstrap_over_questions():
    rng = np.random.default_rng(1)
    shares = rng.binomial(8, rng.beta(1, 1.5, 300)) / 8
    means = shares[rng.integers(0, 300, (4000, 300))].mean(axis=1)
    assert interval(shares, 2400) == pytest.approx(tuple(np.quantile(means, (0.025, 0.975))), abs=0.006)


def test_difference_of_two_models():
    a, b = np.array([0.0, 1, 0, 1] * 50), np.array([0.0, 1, 1, 1] * 50)
    gain, low, high = difference(a, b)
    assert gain == 0.25 and low == pytest.approx(0.19, abs=0.02) and high == pytest.approx(0.31, abs=0.02)
    assert difference(a, b) == (gain, low, high) and difference(a, a) == (0, 0, 0)


@pytest.mark.parametrize("n", [0, 1, 2, 5, 9])
def test_mcnemar_counts_the_outcomes_at_least_as_uneven(n):
    for only_a in range(n + 1):
        outcomes = list(itertools.product((0, 1), repeat=n))
        uneven = [abs(2 * sum(o) - n) >= abs(2 * only_a - n) for o in outcomes]
        assert mcnemar(only_a, n - only_a) == pytest.approx(sum(uneven) / len(outcomes))
