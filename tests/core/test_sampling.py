"""sample(): the distribution each filter leaves, the log-probs that go with a token, and the random numbers behind
it."""
import numpy as np
import pytest

from checks.sample import check_next_and_seen
from grpo import _core
from op_statements import log_support, normal, sample_keys, uniforms

V = 40
DRAWS = 20000
SETTINGS = [
    {},
    {"temperature": 0.5},
    {"temperature": 1.7},
    {"top_k": 1},
    {"top_k": 7},
    {"top_k": V + 5},
    {"top_p": 0.6},
    {"top_p": 1e-6},
    {"min_p": 0.1},
    {"min_p": 1.0},
    {"repetition_penalty": 1.5},
    {"temperature": 0.8, "top_k": 12, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 0.7},
]


@pytest.fixture
def problem(rng):
    """h (1, C), W (V, C), z (V): one row's logits of a few units' spread."""
    h, W = normal(rng, 1, 8), normal(rng, V, 8)
    return h, W, _core.Ops("ref").logits(h, W)[0]


@pytest.mark.parametrize("key, counter, want", [
    (0, (0,) * 4, (0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8)),
    (2**64 - 1, (2**32 - 1,) * 4, (0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd)),
    (0x299f31d0a4093822, (0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344),
     (0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1)),
])
def test_philox_vectors(key, counter, want):
    """The known answers that Random123 publishes for philox4x32-10."""
    assert _core.Ops.philox(key, counter) == want


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_draws_follow_the_filtered_distribution(ref, problem, settings):
    h, W, z = problem
    seen = np.zeros(V, np.uint8)
    seen[::3] = 1
    keys, hs = sample_keys(DRAWS), np.repeat(h, DRAWS, 0)
    ids, logp, *_ = ref.sample(hs, W, keys, seed=11, step=3, seen=np.tile(seen, (DRAWS, 1)), **settings)
    want = log_support(z, seen=seen.astype(bool), **settings)
    np.testing.assert_allclose(logp, want[ids], atol=2e-6)          # the kept set: one id more or less would shift all
    frequency = np.bincount(ids, minlength=V) / DRAWS
    p = np.exp(want)
    assert (np.abs(frequency - p) <= 5 * np.sqrt(p * (1 - p) / DRAWS) + 5 / DRAWS).all()
    cdf = np.cumsum(p)
    u = uniforms(keys[:500], 11, 3) * cdf[-1]
    sure = np.abs(cdf[:, None] - u).min(0) > 1e-6                   # not at a border that rounding may move
    assert sure.sum() > 450
    assert (ids[:500][sure] == np.searchsorted(cdf, u, side="right")[sure]).all()


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_policy_numbers_are_those_of_head(ref, rng, settings, temperature):
    h, W = normal(rng, 50, 8), normal(rng, V, 8)
    settings = settings | {"temperature": temperature}
    seen = rng.integers(2, size=(50, V)).astype(np.uint8)
    ids, logp, policy_logp, entropy, *_ = ref.sample(h, W, sample_keys(50), seen=seen, **settings)
    want_logp, want_entropy = ref.head(h, W, ids, float(np.float32(1) / np.float32(temperature)))
    assert (policy_logp == want_logp).all() and (entropy == want_entropy).all()
    if settings.keys() <= {"temperature"} or settings.get("top_k", 0) > V:
        assert (logp == policy_logp).all()
    if settings.get("top_k") == 1 or settings.get("min_p") == 1 or settings.get("top_p", 1) < 1e-3:
        assert (logp == 0).all()


def from_probabilities(ref, p, **settings):
    """Log-probs (by id) of what 200 draws from exactly these probabilities reach."""
    z = np.log(np.array(p, np.float32))
    ids, logp, *_ = ref.sample(np.tile(z, (200, 1)), np.eye(len(p), dtype=np.float32), sample_keys(200), **settings)
    return dict(zip(ids.tolist(), logp.tolist(), strict=True))


@pytest.mark.parametrize("p, settings, kept", [
    ([.2, .3, .2, .2, .1], {"top_k": 2}, {0, 1, 2, 3}),                         # ties with the k-th stay
    ([.6, .25, .15], {"top_p": .7, "min_p": .3}, {0, 1}),                       # top-p first: its mass is the whole
    ([.5, .25, .25], {"top_p": .7}, {0, 1}),                                    # among equals the lower id
    ([.5, .3, .2], {"top_p": .45}, {0}),
    ([.4, .3001, .2999], {"top_p": .7}, {0, 1}),
    ([.4, .3001, .2999], {"top_p": .7002}, {0, 1, 2}),
    ([.5, .26, .24], {"min_p": .5}, {0, 1}),
    ([.4, .35, .25], {"min_p": .6}, {0, 1, 2}),
])
def test_kept_sets(ref, p, settings, kept):
    reached = from_probabilities(ref, p, **settings)
    assert reached.keys() == kept
    total = sum(p[i] for i in kept)
    assert reached == pytest.approx({i: np.log(p[i] / total) for i in kept}, abs=1e-6)


def test_greedy(ref, rng):
    h, W = normal(rng, 30, 8), normal(rng, V, 8)
    ids, logp, policy_logp, entropy, *_ = ref.sample(h, W, sample_keys(30), temperature=0, top_k=3, top_p=0.1)
    assert (ids == ref.logits(h, W).argmax(1)).all()
    want_logp, want_entropy = ref.head(h, W, ids)
    assert (policy_logp == want_logp).all() and (entropy == want_entropy).all() and (logp == policy_logp).all()


def test_greedy_takes_the_lowest_id_among_equals(ref):
    W = np.zeros((V, 4), np.float32)
    W[[9, 17, 30]] = 1
    ids, *_ = ref.sample(np.ones((3, 4), np.float32), W, sample_keys(3), temperature=0)
    assert (ids == 9).all()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_forbidden_and_stop_ids(ref, problem, temperature):
    h, W, z = problem
    forbidden = np.zeros(V, np.uint8)
    forbidden[np.argsort(-z)[:20]] = 1
    stop = np.argsort(-z)[20:24].astype(np.int32)
    S = 400
    keys = sample_keys(S, no_stop=np.arange(S) % 2)
    ids, logp, *_ = ref.sample(np.repeat(h, S, 0), W, keys, temperature=temperature, forbidden=forbidden, stop_ids=stop)
    assert not forbidden[ids].any()
    held = keys[:, 3] == 1
    assert not np.isin(ids[held], stop).any() and np.isin(ids[~held], stop).any()
    for rows, removed in ((held, [*np.flatnonzero(forbidden), *stop]), (~held, np.flatnonzero(forbidden))):
        np.testing.assert_allclose(logp[rows], log_support(z, removed=removed)[ids[rows]], atol=2e-6)


@pytest.mark.parametrize("penalty", [1.3, 0.8])
@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_repetition_penalty_is_each_row_s_own(ref, rng, penalty, temperature):
    h, W = normal(rng, 60, 8), normal(rng, V, 8)
    seen = rng.integers(2, size=(60, V)).astype(bool)
    ids, logp, *_ = ref.sample(h, W, sample_keys(60), temperature=temperature, repetition_penalty=penalty,
                               seen=seen.astype(np.uint8))
    want = [log_support(z, temperature or 1.0, repetition_penalty=penalty, seen=s)
            for z, s in zip(ref.logits(h, W), seen, strict=True)]
    np.testing.assert_allclose(logp, [w[i] for w, i in zip(want, ids, strict=True)], atol=2e-6)
    if temperature == 0:
        assert (ids == np.argmax(want, axis=1)).all()


def test_seed_step_and_key_choose_the_number(ref, problem):
    h, W, _ = problem
    hs = np.repeat(h, 200, 0)

    def draw(keys, **settings):
        return ref.sample(hs, W, keys, **settings)[0].tolist()

    base = draw(sample_keys(200))
    assert draw(sample_keys(200)) == base
    changed = sample_keys(200)
    changed[:, 0] += 1
    assert (base != draw(sample_keys(200), seed=1) != draw(sample_keys(200), seed=1 << 32)
            != draw(sample_keys(200), step=1) != draw(changed))


def test_rows_do_not_depend_on_their_batch(ref, rng):
    h, W, keys = normal(rng, 50, 8), normal(rng, V, 8), sample_keys(50)
    whole = ref.sample(h, W, keys, top_p=0.8)
    for one, part in zip(whole, ref.sample(h[20:31], W, keys[20:31], top_p=0.8), strict=True):
        assert (one[20:31] == part).all()


def test_next_and_seen(ref, rng):
    check_next_and_seen(ref, normal(rng, 7, 8), normal(rng, V, 8))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("settings", [{}, {"temperature": 0.0}, {"top_p": 0.5}], ids=str)
def test_rows_that_are_not_finite(ref, rng, bad, settings):
    h, W = normal(rng, 3, 8), np.abs(normal(rng, V, 8))
    h[1] = bad
    ids, logp, policy_logp, entropy, *_ = ref.sample(h, W, sample_keys(3), **settings)
    assert ids[1] == -1 and (ids[[0, 2]] >= 0).all()
    assert all(np.isnan(x[1]) and np.isfinite(x[[0, 2]]).all() for x in (logp, policy_logp, entropy))


def test_all_ids_forbidden(ref, problem):
    h, W, _ = problem
    assert ref.sample(h, W, sample_keys(1), forbidden=np.ones(V, np.uint8))[0] == -1
