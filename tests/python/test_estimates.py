"""pass@k, majority and intervals against statements of their own: enumeration, and the equations they solve."""
import itertools
import math
from collections import Counter

import numpy as np
import pytest

from grpo.evaluation.estimates import Z, difference, interval, majority, mcnemar, pass_at_k, wilson


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


@pytest.mark.parametrize("only_a, only_b, n", [(0, 0, 40), (3, 9, 50), (0, 1, 3), (10, 0, 10)])
def test_difference_is_bonett_and_prices_interval(only_a, only_b, n):
    """Their formula, from the counts."""
    a, b = np.zeros(n), np.zeros(n)
    a[:only_a], b[only_a:only_a + only_b] = 1, 1
    p, q = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    half = Z * math.sqrt((p + q - (p - q) ** 2) / (n + 2))
    assert difference(a, b) == pytest.approx(((only_b - only_a) / n, max(-1, q - p - half), min(1, q - p + half)))


def test_difference_of_shares_agrees_with_the_paired_bootstrap():
    rng = np.random.default_rng(2)
    level = rng.beta(2, 2, 400)
    a, b = (rng.binomial(4, np.clip(level + shift, 0, 1)) / 4 for shift in (0, 0.1))
    means = (b - a)[rng.integers(0, 400, (4000, 400))].mean(axis=1)
    assert difference(a, b)[1:] == pytest.approx(tuple(np.quantile(means, (0.025, 0.975))), abs=0.006)


@pytest.mark.parametrize("n", [0, 1, 2, 5, 9])
def test_mcnemar_counts_the_outcomes_at_least_as_uneven(n):
    for only_a in range(n + 1):
        outcomes = list(itertools.product((0, 1), repeat=n))
        uneven = [abs(2 * sum(o) - n) >= abs(2 * only_a - n) for o in outcomes]
        assert mcnemar(only_a, n - only_a) == pytest.approx(sum(uneven) / len(outcomes))
