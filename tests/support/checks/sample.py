"""sample(): the support that each filter leaves and the numbers that go with a token, from the same random numbers as
ref."""
import numpy as np
import pytest

from checks import assert_same_bits, real
from op_statements import bf16, log_support, normal, sample_keys, uniforms

SETTINGS = [
    {},
    {"temperature": 0.5},
    {"temperature": 1.7},
    {"top_k": 1},
    {"top_k": 7},
    {"top_k": 100000},
    {"top_p": 0.6},
    {"top_p": 0.999},
    {"top_p": 1e-6},
    {"min_p": 0.1},
    {"min_p": 1.0},
    {"repetition_penalty": 1.5},
    {"temperature": 0.8, "top_k": 12, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 0.7},
]
SIZES = [(24, 40), (9, 1000)]                               # rows, vocabulary: a chunk of 64 not full, and many


def check_next_and_seen(ops, h, W, **settings):
    """What goes on to the next step: the ids as embed reads them, and each row's marks with its new token."""
    S, V = len(h), len(W)
    before = (np.random.default_rng(0).random((S, V)) < 0.1).astype(np.uint8)
    h[1] = np.nan
    ids, *_, next_ids, after = ops.sample(h, W, sample_keys(S), seen=before, **settings)
    assert ids[1] == -1 and (np.delete(ids, 1) >= 0).all() and (next_ids == np.maximum(ids, 0)).all()
    marks = [(i, token) for i, token in enumerate(ids) if token >= 0]
    before[tuple(np.transpose(marks))] = 1
    assert (after == before).all()


def check_draws(z, ids, logp, keys, seed, step, settings, seen=None, atol=1e-5):
    """Each token against the distribution that its row's logits (S, V) leave, and against its uniform number."""
    for i, u in enumerate(uniforms(keys, seed, step)):
        want = log_support(z[i], seen=None if seen is None else seen[i].astype(bool), **settings)
        assert abs(logp[i] - want[ids[i]]) <= atol           # the kept set: one id more or less would shift all
        cdf = np.cumsum(np.exp(want))
        u *= cdf[-1]
        sure = np.abs(cdf - u).min() > atol                 # not at a border that rounding may move
        assert not sure or ids[i] == np.searchsorted(cdf, u, side="right")


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("S, V", SIZES)
def test_draws_follow_the_filtered_distribution(ops, rng, settings, S, V):
    h, W = real(rng, S, 8), real(rng, V, 8)
    seen, keys = rng.integers(2, size=(S, V)).astype(np.uint8), sample_keys(S)
    ids, logp, policy_logp, entropy, *_ = ops.sample(h, W, keys, seed=11, step=3, seen=seen, **settings)
    check_draws(h.astype(np.float64) @ W.T, ids, logp, keys, 11, 3, settings, seen)
    inv_temperature = float(np.float32(1) / np.float32(settings.get("temperature", 1)))
    assert_same_bits([policy_logp, entropy], ops.head(h, W, ids, inv_temperature))
    if settings.keys() <= {"temperature"} or settings.get("top_k", 0) > V:
        assert_same_bits([logp], [policy_logp])
    if settings.get("top_k") == 1 or settings.get("min_p") == 1 or settings.get("top_p", 1) < 1e-3:
        assert (logp == 0).all()


@pytest.mark.parametrize("settings", [{"top_p": 0.9}, {"top_k": 9000}, {"min_p": 1e-3}], ids=str)
def test_flat_distributions(ops, rng, settings):
    """More chunks hold candidates than the sampler keeps at hand."""
    h, W, keys = real(rng, 3, 8, scale=0.25), real(rng, 10000, 8), sample_keys(3)
    ids, logp, *_ = ops.sample(h, W, keys, seed=5, **settings)
    z = np.float32(h.astype(np.float64) @ W.T)
    for i in range(3):
        assert abs(logp[i] - log_support(z[i], **settings)[ids[i]]) <= 2e-4  # an id or two of 9000 may be at the border


@pytest.mark.parametrize("p, settings, kept", [
    ([.2, .3, .2, .2, .1], {"top_k": 2}, {0, 1, 2, 3}),                         # ties with the k-th stay
    ([.6, .25, .15], {"top_p": .7, "min_p": .3}, {0, 1}),                       # top-p first: its mass is the whole
    ([.5, .25, .25], {"top_p": .7}, {0, 1}),                                    # among equals the lower id
    ([.25, .25, .25, .25], {"top_p": .6}, {0, 1, 2}),
    ([.5, .3, .2], {"top_p": .45}, {0}),
    ([.4, .35, .25], {"top_p": .7}, {0, 1}),
    ([.4, .35, .25], {"top_p": .8}, {0, 1, 2}),
    ([.5, .26, .24], {"min_p": .5}, {0, 1}),
    ([.4, .35, .25], {"min_p": .6}, {0, 1, 2}),
])
def test_kept_sets(ops, p, settings, kept):
    """What 40 draws from probabilities p reach, spread over a vocabulary of several chunks."""
    V, gap = 150, 29
    rest = bf16(np.log(np.array(p, np.float32)))
    # two columns hold log p to 16 bits; all other ids have logit -60
    W = np.zeros((V, 2), np.float32)
    W[:, 0] = -60
    W[: gap * len(p): gap] = np.stack([rest, bf16(np.log(np.array(p)) - rest)], 1)
    ids, logp, *_ = ops.sample(np.ones((40, 2), np.float32), W, sample_keys(40), **settings)
    reached = dict(zip((ids // gap).tolist(), logp.tolist(), strict=True))
    assert (ids % gap == 0).all() and reached.keys() == kept
    total = sum(p[i] for i in kept)
    assert reached == pytest.approx({i: np.log(p[i] / total) for i in kept}, abs=1e-4)


def test_greedy(ops, rng):
    h, W = real(rng, 30, 8), real(rng, 300, 8)
    ids, logp, policy_logp, entropy, *_ = ops.sample(h, W, sample_keys(30), temperature=0, top_k=3, top_p=0.1)
    assert (ids == ops.logits(h, W).argmax(1)).all()
    assert_same_bits([policy_logp, entropy, logp], [*ops.head(h, W, ids), policy_logp])


def test_greedy_takes_the_lowest_id_among_equals(ops):
    W = np.zeros((200, 4), np.float32)
    W[[90, 97, 170]] = 1
    ids, *_ = ops.sample(np.ones((3, 4), np.float32), W, sample_keys(3), temperature=0)
    assert (ids == 90).all()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("n_forbidden, n_stop", [(5, 4), (0, 1), (0, 30), (20, 0)])
def test_forbidden_and_stop_ids(ops, rng, temperature, n_forbidden, n_stop):
    h, W, S, V = real(rng, 1, 8), real(rng, 300, 8, scale=0.5), 40, 300
    z = (h.astype(np.float64) @ W.T)[0]
    forbidden = np.zeros(V, np.uint8)
    forbidden[np.argsort(-z)[:n_forbidden]] = 1
    stop = np.argsort(-z)[n_forbidden:n_forbidden + n_stop].astype(np.int32)
    keys = sample_keys(S, no_stop=np.arange(S) % 2)
    ids, logp, policy_logp, *_ = ops.sample(np.repeat(h, S, 0), W, keys, temperature=temperature,
                                           forbidden=forbidden if n_forbidden else None, stop_ids=stop)
    assert not forbidden[ids].any()
    assert_same_bits([policy_logp], ops.head(np.repeat(h, S, 0), W, ids)[:1])
    held = keys[:, 3] == 1
    assert not np.isin(ids[held], stop).any() and (not n_stop or np.isin(ids[~held], stop).any())
    for rows, removed in ((held, [*np.flatnonzero(forbidden), *stop]), (~held, np.flatnonzero(forbidden))):
        np.testing.assert_allclose(logp[rows], log_support(z, removed=removed)[ids[rows]], atol=1e-5)


@pytest.mark.parametrize("penalty", [1.3, 0.8])
@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_repetition_penalty_is_each_row_s_own(ops, rng, penalty, temperature):
    h, W = real(rng, 20, 8), real(rng, 100, 8)
    seen = rng.integers(2, size=(20, 100)).astype(bool)
    ids, logp, *_ = ops.sample(h, W, sample_keys(20), temperature=temperature, repetition_penalty=penalty,
                               seen=seen.astype(np.uint8))
    z = h.astype(np.float64) @ W.T
    want = [log_support(row, temperature or 1.0, repetition_penalty=penalty, seen=s)
            for row, s in zip(z, seen, strict=True)]
    np.testing.assert_allclose(logp, [w[i] for w, i in zip(want, ids, strict=True)], atol=1e-5)
    if temperature == 0:
        assert (ids == np.argmax(want, axis=1)).all()


def test_rows_do_not_depend_on_their_batch(ops, rng):
    h, W, keys = real(rng, 70, 16), real(rng, 300, 16), sample_keys(70)
    whole = ops.sample(h, W, keys, top_p=0.8)
    for rows in (slice(0, 1), slice(20, 31), slice(3, 65)):
        assert_same_bits(ops.sample(h[rows], W, keys[rows], top_p=0.8), [part[rows] for part in whole])


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.0, "repetition_penalty": 1.5}, {"top_k": 4}], ids=str)
def test_next_and_seen(ops, rng, settings):
    check_next_and_seen(ops, real(rng, 7, 8), real(rng, 300, 8), **settings)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("settings", [{}, {"temperature": 0.0}, {"top_p": 0.5}, {"repetition_penalty": 1.2}], ids=str)
def test_rows_that_are_not_finite(ops, rng, bad, settings):
    h, W, seen = real(rng, 3, 8), np.abs(real(rng, 40, 8)), np.ones((3, 40), np.uint8)
    h[1] = bad
    ids, *numbers, _, _ = ops.sample(h, W, sample_keys(3), seen=seen, **settings)
    assert ids[1] == -1 and (ids[[0, 2]] >= 0).all()
    assert all(np.isnan(x[1]) and np.isfinite(x[[0, 2]]).all() for x in numbers)


def test_all_ids_forbidden(ops, rng):
    ids, *numbers, _ = ops.sample(real(rng, 2, 8), real(rng, 40, 8), sample_keys(2), forbidden=np.ones(40, np.uint8))
    assert (ids == -1).all() and all(np.isnan(x).all() for x in numbers)


def test_some_more_rows_than_are_drawn_at_once(ops, rng):
    h, W, keys = normal(rng, 1, 4), real(rng, 40, 4), sample_keys(600)
    ids, *_ = ops.sample(np.repeat(bf16(h), 600, 0), W, keys)
    assert_same_bits([ids[:88], ids[512:]], [ops.sample(np.repeat(bf16(h), 88, 0), W, keys[part])[0]
                                             for part in (slice(0, 88), slice(512, 600))])
