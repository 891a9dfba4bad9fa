"""Attention over packed rows, its backward, and decode over pages. What depends on the bits of a token compares decode
with attention, shared prompts with own ones, and a group alone with the same group among others."""
import numpy as np
import pytest

from checks import assert_same_bits, check_float, check_rounded, real
from op_statements import (
    SEES_ALL,
    SEES_BEFORE,
    SEES_PREFIX,
    bf16,
    decode_completions,
    group_segments,
    split_heads,
    visible,
)

HEADS = [(1, 1, 8), (4, 2, 16), (9, 3, 64), (3, 3, 80), (5, 1, 104), (7, 1, 128), (4, 1, 256)]
WINDOWS = [1, 2, 31, 32, 33, 64, 100, 10**6]
BATCHES = {                                                 # (prompt, completions...) of each group
    "one row": [(1,)],
    "shared": [(5, 3, 0, 4)],
    "around a tile": [(31, 2, 1), (32, 33, 0), (33, 31)],
    "long": [(40, 90)],
}
TREES = {  # segments that groups of a prompt and completions do not make
    "part of a prompt": [(0, 50, 0, 0), (50, 40, 0, 37), (90, 3, 0, 50)],
    "prompt, turn, turn": [(0, 20, 0, 0), (20, 45, 0, 20), (65, 40, 0, 65), (105, 5, 0, 20)],
    "completions first": [(40, 9, 60, 33), (0, 40, 60, 33), (60, 33, 0, 0)],
}


def problem(rng, batch, Hq, Hkv, D):
    segments, N = group_segments(*batch)
    return segments, real(rng, N, (Hq + 2 * Hkv) * D), real(rng, N, Hq * D)


def rounded_backward(dy, y, lse, qkv, segments, Hq, Hkv, D, window=0, sight=SEES_BEFORE):
    """dqkv as a computation on tensor cores gives it that is exact but for P, dS and the result, which are bfloat16."""
    q, k, v = (t.astype(np.float64) for t in split_heads(qkv, Hq, Hkv, D))
    dy, y = (t.astype(np.float64).reshape(q.shape) for t in (dy, y))
    k, v = (np.repeat(t, Hq // Hkv, axis=1) for t in (k, v))
    p = np.where(visible(segments, len(qkv), window, sight)[:, None],
                 np.exp(np.einsum("ihd,jhd->ihj", q, k) / np.sqrt(D) - lse[..., None]), 0)
    ds = p * (np.einsum("ihd,jhd->ihj", dy, v) - (dy * y).sum(-1)[..., None])
    p, ds = np.float64(bf16(p)), np.float64(bf16(ds)) / np.sqrt(D)
    dk, dv = (t.reshape(len(qkv), Hkv, -1, D).sum(2)
              for t in (np.einsum("ihj,ihd->jhd", ds, q), np.einsum("ihj,ihd->jhd", p, dy)))
    return bf16(np.concatenate([np.einsum("ihj,jhd->ihd", ds, k), dk, dv],
                               axis=1).reshape(qkv.shape).astype(np.float32))


def half_a_step(x):
    """Half the distance of bfloat16 numbers at x: what rounding alone may cost."""
    return 2.0 ** (np.frexp(x)[1] - 9) if x else 0


def check_against_ref(ops, ref, qkv, dy, segments, Hq, Hkv, D, window=0, **sight):
    y, lse = ops.attention(qkv, segments, Hq, Hkv, D, window, **sight)
    want_y, want_lse = ref.attention(qkv, segments, Hq, Hkv, D, window, **sight)
    check_rounded(y, want_y)
    check_float(lse, want_lse)
    settings = dy, bf16(want_y), want_lse, qkv, segments, Hq, Hkv, D, window
    got, want, rounded = (f(*settings, **sight) for f in (ops.attention_bwd, ref.attention_bwd, rounded_backward))
    for first, heads in [(0, Hq), (Hq, Hkv), (Hq + Hkv, Hkv)]:              # q, k, v differ in size
        part = slice(first * D, (first + heads) * D)
        naive = max(np.abs(rounded - want)[:, part].max(), half_a_step(np.abs(want)[:, part].max()))
        assert np.abs(got - want)[:, part].max() <= 2 * naive + 1e-5


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("Hq, Hkv, D", HEADS)
def test_attention(ops, ref, rng, Hq, Hkv, D, batch):
    segments, qkv, dy = problem(rng, BATCHES[batch], Hq, Hkv, D)
    check_against_ref(ops, ref, qkv, dy, segments, Hq, Hkv, D)


@pytest.mark.parametrize("segments", TREES.values(), ids=TREES)
def test_attention_of_a_tree(ops, ref, rng, segments):
    Hq, Hkv, D, N = 2, 1, 16, 111
    check_against_ref(ops, ref, real(rng, N, (Hq + 2 * Hkv) * D), real(rng, N, Hq * D), np.array(segments, np.int32),
                      Hq, Hkv, D)


def test_attention_of_many_segments(ops, ref, rng):
    """More than the threads of the block that reads them."""
    segments, qkv, dy = problem(rng, [(3, 1, 0, 2)] * 40 + [(2,)] * 150, 2, 1, 8)
    check_against_ref(ops, ref, qkv, dy, segments, 2, 1, 8)


def test_attention_of_no_segment(ops, rng):
    qkv, dy, none = real(rng, 5, 32), real(rng, 5, 16), np.zeros((0, 4), np.int32)
    y, lse = ops.attention(qkv, none, 2, 1, 8)
    assert not y.any() and not lse.any() and not ops.attention_bwd(dy, y, lse, qkv, none, 2, 1, 8).any()


def test_a_prompt_of_many_completions(ops, ref, rng):
    """So many rows see the prompt that their share in its gradient is summed in slices."""
    segments, qkv, dy = problem(rng, [(70, 600, 500), (40, 800, 900)], 1, 1, 8)
    check_against_ref(ops, ref, qkv, dy, segments, 1, 1, 8)


def test_attention_with_large_scores(ops, ref, rng):
    """Maxima that rise from tile to tile, so that earlier sums are scaled away."""
    N, D = 130, 64
    qkv = real(rng, N, 3 * D)
    qkv[:, :D] = 4
    qkv[:, D:2 * D] = bf16(np.arange(N, dtype=np.float32) % 70 / 2)[:, None]
    segments = np.array([[0, N, 0, 0]], np.int32)
    for got, want in zip(ops.attention(qkv, segments, 1, 1, D), ref.attention(qkv, segments, 1, 1, D), strict=True):
        np.testing.assert_allclose(got, want, rtol=2.0**-8, atol=1e-5)


# -- windows -----------------------------------------------------------------------------------------------------------

CUT_PROMPTS = [(75, 60, 3, 33), (40,), (33, 0, 31)]  # prompts that windows cut, and completions that leave them behind


@pytest.mark.parametrize("Hq, Hkv, D, window", [*((4, 2, 16, window) for window in WINDOWS),
                                                *((*heads, window)
                                                  for heads, window in zip(HEADS, [2, 33, 64, 1, 31, 32, 100],
                                                                           strict=True))])
def test_windows(ops, ref, rng, Hq, Hkv, D, window):
    segments, qkv, dy = problem(rng, CUT_PROMPTS, Hq, Hkv, D)
    check_against_ref(ops, ref, qkv, dy, segments, Hq, Hkv, D, window)


@pytest.mark.parametrize("window", [1, 20, 33])
@pytest.mark.parametrize("segments", TREES.values(), ids=TREES)
def test_windows_of_a_tree(ops, ref, rng, segments, window):
    Hq, Hkv, D, N = 2, 1, 16, 111
    check_against_ref(ops, ref, real(rng, N, (Hq + 2 * Hkv) * D), real(rng, N, Hq * D), np.array(segments, np.int32),
                      Hq, Hkv, D, window)


@pytest.mark.parametrize("window", [30, 100, 550])
def test_a_prompt_of_many_completions_with_windows(ops, ref, rng, window):
    """Of the rows that see the prompt, whose share in its gradient is summed in slices, windows leave some."""
    segments, qkv, dy = problem(rng, [(70, 600, 500), (40, 800, 900)], 1, 1, 8)
    check_against_ref(ops, ref, qkv, dy, segments, 1, 1, 8, window)


@pytest.mark.parametrize("off", [-1, 1])
@pytest.mark.parametrize("window", [2, 32, 100])
def test_a_window_that_is_off_by_one_is_found(ops, ref, rng, window, off):
    class Mistaken:
        def attention(self, *args):
            return ops.attention(*args[:-1], args[-1] + off)

        def attention_bwd(self, *args):
            return ops.attention_bwd(*args[:-1], args[-1] + off)

    Hq, Hkv, D = 4, 2, 16
    segments, qkv, dy = problem(rng, CUT_PROMPTS, Hq, Hkv, D)
    with pytest.raises(AssertionError):
        check_against_ref(Mistaken(), ref, qkv, dy, segments, Hq, Hkv, D, window)


@pytest.mark.parametrize("window", [139, 2**31 - 1])
def test_a_window_of_everything_changes_no_bit(ops, rng, window):
    Hq, Hkv, D = 4, 2, 16
    segments, qkv, dy = problem(rng, [(75, 64, 3)], Hq, Hkv, D)
    y, lse = ops.attention(qkv, segments, Hq, Hkv, D)
    assert_same_bits(ops.attention(qkv, segments, Hq, Hkv, D, window), [y, lse])
    got, want = (ops.attention_bwd(dy, y, lse, qkv, segments, Hq, Hkv, D, w) for w in (window, 0))
    assert_same_bits([got], [want])
    got, want = (decode_completions(ops, qkv, segments, Hq, Hkv, D, window=w)[1] for w in (window, 0))
    assert_same_bits(got, want)


def test_keys_before_a_window_may_be_anything(ops, rng):
    """What every query has left behind is not read: results are those of the last keys at their positions."""
    Hq, Hkv, D, length, window = 4, 2, 16, 141, 40
    qkv, none, first = real(rng, length, (Hq + 2 * Hkv) * D), np.zeros(0, np.int32), length - window
    pages = np.arange(1, 6, dtype=np.int32)[None]

    def decode(kv, pages):
        place = np.arange(32, 32 + length, dtype=np.int32)
        return ops.attention_decode(qkv[-1:], kv, place, none, none, 6, pages, np.array([length], np.int32), Hq, Hkv, D,
                                    window)

    want = decode(qkv, pages)
    gone, elsewhere = qkv.copy(), pages.copy()
    gone[:first], elsewhere[0, :first // 32] = np.nan, 0
    assert_same_bits(decode(gone, pages), want)
    assert_same_bits(decode(qkv, elsewhere), want)
    assert all(np.isfinite(part).all() for part in want)


# -- weights of chosen rows --------------------------------------------------------------------------------------------

LOOKS = [{}, {"window": 33}, {"sight": SEES_ALL}, {"sight": SEES_PREFIX}, {"scale": 0.3}]


@pytest.mark.parametrize("shape", LOOKS, ids=str)
@pytest.mark.parametrize("Hq, Hkv, D", [(1, 1, 8), (4, 2, 16), (3, 3, 80), (7, 1, 128), (4, 1, 256)])
def test_attention_weights(ops, ref, rng, Hq, Hkv, D, shape):
    """Of rows in any order, one twice; the last two are in no segment."""
    segments, N = group_segments((37, 50, 3), (5,))
    qkv = real(rng, N + 2, (Hq + 2 * Hkv) * D)
    _, lse = ref.attention(qkv, segments, Hq, Hkv, D, **shape)
    index = np.array([N + 1, 0, 36, 37, 86, 60, 94, 90, 60, 88], np.int32)
    p, want = (each.attention_weights(lse, qkv, index, segments, Hq, Hkv, D, **shape) for each in (ops, ref))
    check_float(p, want, 1e-5)
    assert ((p == 0) == (want == 0)).all() and not p[0].any()
    _, own = ops.attention(qkv, segments, Hq, Hkv, D, **shape)
    p = ops.attention_weights(own, qkv, index, segments, Hq, Hkv, D, **shape)
    np.testing.assert_allclose(p.sum(-1), want.any(-1), atol=1e-5)


def test_weights_of_a_row_are_the_same_in_any_batch(ops, rng):
    """Alone, among others, behind a prompt that is its own; and whatever there is that it does not see."""
    heads = Hq, Hkv, D = 4, 2, 16
    segments, N = group_segments((40, 9, 17))
    qkv = real(rng, N, (Hq + 2 * Hkv) * D)
    _, lse = ops.attention(qkv, segments, *heads)
    index = np.array([3, 39, 49, 65], np.int32)
    want = ops.attention_weights(lse, qkv, index, segments, *heads)
    alone = ops.attention_weights(lse, qkv, index[3:], segments, *heads)
    assert_same_bits([alone], [want[3:]])
    own = np.r_[0:40, 49:66]
    one = np.array([[0, len(own), 0, 0]], np.int32)
    _, lse_own = ops.attention(qkv[own], one, *heads)
    assert_same_bits([ops.attention_weights(lse_own, qkv[own], np.array([3, 39, 40, 56], np.int32), one, *heads)],
                     [np.ascontiguousarray(want[:, :, own])])
    qkv[40:49] = np.nan                                              # another completion
    assert_same_bits([ops.attention_weights(lse, qkv, index, segments, *heads)], [want])


# -- what a row sees of its segment ------------------------------------------------------------------------------------

SIGHTS = {"all": SEES_ALL, "prefix": SEES_PREFIX}
VIEWS = {  # segments; lengths around a tile, rows that see no key, many that see the same, prefixes of prefixes
    "one row": [(0, 1, 0, 0)],
    "windows": [(0, 33, 0, 0), (33, 31, 0, 0), (64, 1, 0, 0), (65, 32, 0, 0), (97, 64, 0, 0)],
    "a long one": [(2, 150, 0, 0)],
    "keys, then queries": [(0, 45, 0, 0), (45, 70, 0, 45), (115, 1, 0, 32), (116, 0, 0, 45)],
    "queries, then keys": [(0, 65, 75, 64), (65, 10, 80, 5), (75, 70, 0, 0)],
    "frames that see one before": [(0, 33, 0, 0), (33, 40, 0, 33), (73, 20, 33, 40)],
}


@pytest.mark.parametrize("sight", SIGHTS.values(), ids=SIGHTS)
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("Hq, Hkv, D", [(2, 2, 32), (4, 2, 16), (3, 3, 80)])
def test_sights(ops, ref, rng, Hq, Hkv, D, view, sight):
    """A few rows at the end are in no segment."""
    N = max(max(start + length, prefix + seen) for start, length, prefix, seen in VIEWS[view]) + 3
    check_against_ref(ops, ref, real(rng, N, (Hq + 2 * Hkv) * D), real(rng, N, Hq * D),
                      np.array(VIEWS[view], np.int32), Hq, Hkv, D, sight=sight)


@pytest.mark.parametrize("sight", SIGHTS.values(), ids=SIGHTS)
@pytest.mark.parametrize("Hq, Hkv, D", HEADS)
def test_sights_of_heads(ops, ref, rng, Hq, Hkv, D, sight):
    segments, qkv, dy = problem(rng, [(37, 50, 3), (70,)], Hq, Hkv, D)
    check_against_ref(ops, ref, qkv, dy, segments, Hq, Hkv, D, sight=sight)


@pytest.mark.parametrize("sight", SIGHTS.values(), ids=SIGHTS)
def test_sights_of_long_segments(ops, ref, rng, sight):
    """Longer than a chunk of keys; so many rows behind a prefix that their share in its gradient comes in slices."""
    segments, qkv, dy = problem(rng, [(70, 600, 500), (530, 20)], 1, 1, 8)
    check_against_ref(ops, ref, qkv, dy, segments, 1, 1, 8, sight=sight)


def test_rows_that_see_nothing_are_zero(ops, rng):
    Hq, Hkv, D = 4, 2, 16
    segments, qkv, dy = problem(rng, [(40, 33), (35,)], Hq, Hkv, D)
    qkv[73:], dy[:40], dy[73:] = np.nan, np.inf, np.nan
    qkv[:40, :Hq * D], qkv[40:73, Hq * D:] = np.nan, np.nan                  # what nothing asks for
    y, lse = ops.attention(qkv, segments, Hq, Hkv, D, sight=SEES_PREFIX)
    dqkv = ops.attention_bwd(dy, y, lse, qkv, segments, Hq, Hkv, D, sight=SEES_PREFIX)
    for blind in (slice(0, 40), slice(73, None)):
        assert not y[blind].any() and not lse[blind].any() and not dqkv[blind, :Hq * D].any()
    assert not dqkv[40:, Hq * D:].any()
    assert all(np.isfinite(part).all() for part in (y, lse, dqkv))
    assert y[40:73].all() and dqkv[40:73, :Hq * D].all() and dqkv[:40, Hq * D:].all()


@pytest.mark.parametrize("Hq, Hkv, D, length", [*((4, 2, 64, length) for length in [1, 31, 32, 33, 97]),
                                                (2, 2, 80, 70), (2, 1, 16, 530)])
def test_sights_that_come_to_the_same_have_the_same_bits(ops, rng, Hq, Hkv, D, length):
    """The last row sees all of its segment, whatever the others do; a segment that is its own prefix sees itself."""
    qkv, segments = real(rng, length, (Hq + 2 * Hkv) * D), np.array([[0, length, 0, 0]], np.int32)
    whole = ops.attention(qkv, segments, Hq, Hkv, D, sight=SEES_ALL)
    causal = ops.attention(qkv, segments, Hq, Hkv, D)
    assert_same_bits([part[-1:] for part in causal], [part[-1:] for part in whole])
    itself = np.array([[0, length, 0, length]], np.int32)
    assert_same_bits(ops.attention(qkv, itself, Hq, Hkv, D, sight=SEES_PREFIX), whole)
    dy = real(rng, length, Hq * D)
    got, want = (ops.attention_bwd(dy, *whole, qkv, s, Hq, Hkv, D, sight=sight)
                 for s, sight in ((itself, SEES_PREFIX), (segments, SEES_ALL)))
    assert_same_bits([got], [want])


@pytest.mark.parametrize("sight", SIGHTS.values(), ids=SIGHTS)
@pytest.mark.parametrize("group", [(37, 50, 3, 40), (9, 520, 0, 540), (600,)], ids=str)
def test_a_segment_has_the_same_bits_among_others(ops, rng, group, sight):
    Hq, Hkv, D = 3, 1, 16
    segments, qkv, dy = problem(rng, [group], Hq, Hkv, D)
    clean = ops.attention(qkv, segments, Hq, Hkv, D, sight=sight)
    alone = ops.attention_bwd(dy, *clean, qkv, segments, Hq, Hkv, D, sight=sight)
    before, after = 70, 20
    moved = segments + np.where(segments[:, 3:] > 0, [before, 0, before, 0], [before, 0, 0, 0]).astype(np.int32)
    more = np.concatenate([[[0, before, 0, 0]], moved, [[before + len(qkv), after, 0, 0]]]).astype(np.int32)
    qkv, dy = (np.concatenate([real(rng, before, t.shape[1]), t, real(rng, after, t.shape[1])]) for t in (qkv, dy))
    y, lse = ops.attention(qkv, more, Hq, Hkv, D, sight=sight)
    inside = slice(before, len(qkv) - after)
    assert_same_bits([y[inside], lse[inside]], clean)
    assert_same_bits([ops.attention_bwd(dy, y, lse, qkv, more, Hq, Hkv, D, sight=sight)[inside]], [alone])


@pytest.mark.parametrize("sight", SIGHTS.values(), ids=SIGHTS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("Hq, Hkv, D", [(4, 2, 16), (1, 1, 128)])
@pytest.mark.parametrize("row", [20, 57], ids=["in the prefix", "behind it"])
def test_what_is_bad_reaches_only_those_who_see_all_of_it(ops, rng, Hq, Hkv, D, row, bad, sight):
    """A bad key reaches who sees it, a bad query or dy itself and what it sees."""
    segments, qkv, dy = problem(rng, [(37, 40, 35), (33,)], Hq, Hkv, D)
    sees, heads = visible(segments, len(qkv), sight=sight), Hq * D
    seers, seen = sees[:, row], sees[row]

    def run(qkv, dy, clean=None):
        y, lse = ops.attention(qkv, segments, Hq, Hkv, D, sight=sight)
        return y, lse, ops.attention_bwd(dy, *(clean or (y, lse)), qkv, segments, Hq, Hkv, D, sight=sight)

    y, lse, dqkv = run(qkv, dy)
    bad_key, bad_dy = qkv.copy(), dy.copy()
    bad_key[row, heads:], bad_dy[row] = bad, bad
    other_y, other_lse, other = run(bad_key, dy, (y, lse))
    assert_same_bits([other_y[~seers], other_lse[~seers]], [y[~seers], lse[~seers]])
    assert not np.isfinite(other_y[seers]).any()
    assert_same_bits([other[~seers, :heads]], [dqkv[~seers, :heads]])
    unread = ~sees[seers].any(0)                                            # keys that no seer of the bad one sees
    assert_same_bits([other[unread, heads:]], [dqkv[unread, heads:]])
    other = run(qkv, bad_dy, (y, lse))[2]
    assert_same_bits([other[np.arange(len(qkv)) != row, :heads]], [dqkv[np.arange(len(qkv)) != row, :heads]])
    assert_same_bits([other[~seen, heads:]], [dqkv[~seen, heads:]])
    assert np.isfinite(other[row, :heads]).any() != seen.any()


def test_sights_and_windows_do_not_go_together(ops, rng):
    segments, qkv, dy = problem(rng, [(5,)], 1, 1, 8)
    y, lse = ops.attention(qkv, segments, 1, 1, 8)
    for sight in (SEES_ALL, SEES_PREFIX):
        with pytest.raises(ValueError, match="window"):
            ops.attention(qkv, segments, 1, 1, 8, 3, sight=sight)
        with pytest.raises(ValueError, match="window"):
            ops.attention_bwd(dy, y, lse, qkv, segments, 1, 1, 8, 3, sight=sight)
        with pytest.raises(ValueError, match="pool"):
            decode_completions(ops, qkv, np.array([[0, 4, 0, 0], [4, 1, 0, 4]], np.int32), 1, 1, 8, sight=sight)
    with pytest.raises(ValueError, match="sight is 3"):
        ops.attention(qkv, segments, 1, 1, 8, sight=3)


# -- rollout = training: the bits of a token ---------------------------------------------------------------------------


@pytest.mark.parametrize("batch", ["shared", "around a tile", "long"])
@pytest.mark.parametrize("Hq, Hkv, D", [*HEADS, (20, 1, 16)])
def test_decode_gives_the_bits_of_attention(ops, rng, Hq, Hkv, D, batch):
    segments, qkv, _ = problem(rng, BATCHES[batch], Hq, Hkv, D)
    rows, decoded = decode_completions(ops, qkv, segments, Hq, Hkv, D)
    assert_same_bits(decoded, [part[rows] for part in ops.attention(qkv, segments, Hq, Hkv, D)])


@pytest.mark.parametrize("Hq, Hkv, D, window",
                         [*((8, 1, 16, window) for window in WINDOWS), (9, 3, 64, 33), (3, 3, 80, 64), (5, 1, 104, 32),
                          (4, 1, 256, 31), (4, 1, 256, 100)])
def test_decode_with_a_window_gives_the_bits_of_attention(ops, rng, Hq, Hkv, D, window):
    segments, N = group_segments((1, 139), (75, 60, 3), (96, 33))
    qkv = real(rng, N, (Hq + 2 * Hkv) * D)
    rows, decoded = decode_completions(ops, qkv, segments, Hq, Hkv, D, window=window)
    assert_same_bits(decoded, [part[rows] for part in ops.attention(qkv, segments, Hq, Hkv, D, window)])


@pytest.mark.parametrize("others", [0, 260], ids=["chunks in several blocks", "chunks in one block"])
@pytest.mark.parametrize("D, window",
                         [(8, 0), (72, 0), (128, 0), (8, 1), (8, 100), (72, 511), (8, 513), (256, 600), (16, 1025)])
def test_decode_of_a_long_context_gives_the_bits_of_attention(ops, rng, D, window, others):
    """Rows around the ends of chunks of 512 keys, in few slots and among many; windows that begin in one chunk and end
    in another."""
    Hq, Hkv = 2, 1
    segments, N = group_segments((500, 20), (1100,))
    qkv = real(rng, N, (Hq + 2 * Hkv) * D)
    length = np.array([505, 512, 513, 520, 1024, 1025, 1100] + [1] * others, np.int32)
    rows = np.where(length <= 520, length - 1, 520 + length - 1)
    place = np.r_[32:32 + 520, 640:640 + 1100].astype(np.int32)
    pages = np.where(length[:, None] <= 520, np.arange(1, 36), np.arange(20, 55)).astype(np.int32)
    none = np.zeros(0, np.int32)
    decoded = ops.attention_decode(qkv[rows], qkv, place, none, none, 55, pages, length, Hq, Hkv, D, window)
    assert_same_bits(decoded, [part[rows] for part in ops.attention(qkv, segments, Hq, Hkv, D, window)])


@pytest.mark.parametrize("others", [0, 13], ids=["chunks in several blocks", "chunks in one block"])
@pytest.mark.parametrize("Hq, Hkv, D, window",
                         [(1, 1, 80, 0), (4, 2, 16, 0), (3, 1, 104, 0), (7, 1, 128, 0), (8, 1, 64, 0), (16, 1, 96, 0),
                          (4, 1, 256, 0), (1, 1, 8, 520), (4, 2, 16, 600), (3, 1, 16, 1032), (8, 1, 16, 525)])
def test_decode_of_shared_chunks_gives_the_bits_of_attention(ops, rng, Hq, Hkv, D, window, others):
    """Prompts longer than a chunk of 512 keys, or two, that end with a page or inside one; groups that no number of
    slots divides."""
    groups = [(1030, 5, 1, 8, 2), (530, 1), (515, 1, 2, 1), (40, 2), (512, 2, 1)] + [(1, 20)] * others
    segments, N = group_segments(*groups)
    qkv = real(rng, N, (Hq + 2 * Hkv) * D)
    rows, decoded = decode_completions(ops, qkv, segments, Hq, Hkv, D, window=window)
    completions = segments[segments[:, 3] > 0]
    assert_same_bits(decoded, [part[rows] for part in ops.attention(qkv, completions, Hq, Hkv, D, window)])


def test_decode_where_neighbours_share_later_pages_alone(ops, rng):
    Hq, Hkv, D, N = 4, 2, 16, 1100
    qkv = real(rng, N, (Hq + 2 * Hkv) * D)
    length = np.array([1100, 1090], np.int32)
    own = np.arange(100, 116, dtype=np.int32)                        # of the second slot, with the same keys
    pages = np.array([np.arange(35), np.r_[own, 16:35]], np.int32)
    decoded = ops.attention_decode(qkv[length - 1], qkv, np.arange(N, dtype=np.int32), own,
                                   np.arange(16, dtype=np.int32), 116, pages, length,
                                   Hq, Hkv, D)
    assert_same_bits(decoded,
                     [part[length - 1] for part in ops.attention(qkv, np.array([[0, N, 0, 0]], np.int32), Hq, Hkv, D)])


@pytest.mark.parametrize("prompt", [1, 31, 33, 97, 500])
@pytest.mark.parametrize("Hq, Hkv, D, window",
                         [(9, 3, 64, 0), (2, 2, 80, 0), (8, 1, 16, 0), (9, 3, 64, 40), (8, 1, 16, 33)])
def test_a_shared_prompt_gives_the_bits_of_an_own_one(ops, rng, Hq, Hkv, D, window, prompt):
    lengths = (37, 1, 33) if prompt < 500 else (13, 12)
    segments, qkv, _ = problem(rng, [(prompt, *lengths)], Hq, Hkv, D)
    shared = ops.attention(qkv, segments, Hq, Hkv, D, window)
    for start, length, _, _ in segments[1:]:
        rows = np.r_[0:prompt, start:start + length]
        alone = ops.attention(qkv[rows], np.array([[0, len(rows), 0, 0]], np.int32), Hq, Hkv, D, window)
        assert_same_bits(alone, [part[rows] for part in shared])


# -- same seed, same run: the bits of a gradient -----------------------------------------------------------------------


@pytest.mark.parametrize("window", [0, 20, 530])
@pytest.mark.parametrize("group", [(37, 50, 3, 40), (9, 520, 0, 540)], ids=str)
def test_a_group_has_the_same_gradient_among_others(ops, rng, group, window):
    Hq, Hkv, D = 3, 1, 16
    heads = Hq, Hkv, D, window
    segments, qkv, dy = problem(rng, [group], Hq, Hkv, D)
    y, lse = ops.attention(qkv, segments, *heads)
    alone = ops.attention_bwd(dy, y, lse, qkv, segments, *heads)
    before, after = 70, 20
    more = np.concatenate([[[0, before, 0, 0]], segments + np.array([before, 0, before, 0]) * [1, 1, 1, 1],
                           [[before + len(qkv), after, 0, 0]]])
    more[1, 2] = 0
    qkv, dy, y = (np.concatenate([real(rng, before, t.shape[1]), t, real(rng, after, t.shape[1])])
                  for t in (qkv, dy, y))
    y2, lse2 = ops.attention(qkv, more.astype(np.int32), *heads)
    inside = slice(before, len(qkv) - after)
    assert_same_bits([y2[inside], lse2[inside]], [y[inside], lse])
    assert_same_bits([ops.attention_bwd(dy, y2, lse2, qkv, more.astype(np.int32), *heads)[inside]], [alone])


# -- rows that count for nothing ---------------------------------------------------------------------------------------


def test_rows_outside_segments_are_zero(ops, rng):
    Hq, Hkv, D, N = 4, 2, 16, 50
    segments = np.array([[3, 10, 0, 0], [20, 7, 3, 10]], np.int32)
    inside = np.r_[3:13, 20:27]
    outside = np.setdiff1d(np.arange(N), inside)
    qkv, dy = real(rng, N, (Hq + 2 * Hkv) * D), real(rng, N, Hq * D)
    clean_y, clean_lse = ops.attention(qkv, segments, Hq, Hkv, D)
    clean = clean_y, clean_lse, ops.attention_bwd(dy, clean_y, clean_lse, qkv, segments, Hq, Hkv, D)
    qkv[outside], dy[outside] = np.nan, np.nan
    y, lse = ops.attention(qkv, segments, Hq, Hkv, D)
    dqkv = ops.attention_bwd(dy, y, lse, qkv, segments, Hq, Hkv, D)
    for got, want in zip((y, lse, dqkv), clean, strict=True):
        assert (got[outside] == 0).all() and np.isfinite(want).all()
        assert_same_bits([got[inside]], [want[inside]])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("Hq, Hkv, D", [(4, 2, 16), (1, 1, 128)])
def test_what_is_bad_reaches_only_those_who_see_it(ops, rng, Hq, Hkv, D, bad):
    segments, qkv, dy = problem(rng, [(37, 40, 35)], Hq, Hkv, D)
    row = 37 + 20                                           # in the first completion: seen by the rest of it
    seers = np.arange(row, 37 + 40)
    others = np.setdiff1d(np.arange(len(qkv)), seers)
    clean_y, clean_lse = ops.attention(qkv, segments, Hq, Hkv, D)
    want = ops.attention_bwd(dy, clean_y, clean_lse, qkv, segments, Hq, Hkv, D)
    poisoned = qkv.copy()
    poisoned[row] = bad
    y, lse = ops.attention(poisoned, segments, Hq, Hkv, D)
    assert_same_bits([y[others], lse[others]], [clean_y[others], clean_lse[others]])
    assert not np.isfinite(y[seers]).any()
    rows, (decoded, _) = decode_completions(ops, poisoned, segments, Hq, Hkv, D)
    assert_same_bits([np.isnan(decoded)], [np.isnan(y[rows])])
    finite = np.isin(rows, others)
    assert_same_bits([decoded[finite]], [clean_y[rows][finite]])

    heads = Hq * D
    for bad_qkv, bad_dy in [(qkv, dy.copy()), (poisoned, dy)]:
        if bad_dy is not dy:
            bad_dy[row] = bad                               # reaches its own query and the keys it sees, no later ones
        dqkv = ops.attention_bwd(bad_dy, clean_y, clean_lse, bad_qkv, segments, Hq, Hkv, D)
        assert not np.isfinite(dqkv[row]).any()
        blind = others if bad_qkv is poisoned else np.delete(np.arange(len(qkv)), row)
        assert_same_bits([dqkv[blind, :heads]], [want[blind, :heads]])
        unseen = np.r_[37 + 40:len(qkv)] if bad_qkv is poisoned else np.r_[row + 1:len(qkv)]
        assert_same_bits([dqkv[unseen]], [want[unseen]])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("Hq, Hkv, D, window",
                         [(4, 2, 16, 1), (4, 2, 16, 10), (2, 1, 128, 33), (1, 1, 256, 40), (3, 1, 16, 70)])
@pytest.mark.parametrize("row", [20, 57], ids=["in the prompt", "in a completion"])
def test_what_is_bad_reaches_only_windows_with_it(ops, rng, Hq, Hkv, D, window, row, bad):
    segments, qkv, dy = problem(rng, [(37, 90, 35)], Hq, Hkv, D)
    sees, heads = visible(segments, len(qkv), window), (Hq, Hkv, D, window)
    seers, seen = sees[:, row], sees[row]
    clean = ops.attention(qkv, segments, *heads)
    want = ops.attention_bwd(dy, *clean, qkv, segments, *heads)
    poisoned, bad_dy = qkv.copy(), dy.copy()
    poisoned[row] = bad_dy[row] = bad
    y, lse = ops.attention(poisoned, segments, *heads)
    assert_same_bits([y[~seers], lse[~seers]], [part[~seers] for part in clean])
    assert not np.isfinite(y[seers]).any()
    rows, (decoded, _) = decode_completions(ops, poisoned, segments, Hq, Hkv, D, window=window)
    assert_same_bits([np.isnan(decoded)], [np.isnan(y[rows])])
    assert_same_bits([decoded[~seers[rows]]], [clean[0][rows][~seers[rows]]])

    own = np.arange(len(qkv)) == row
    for bad_qkv, other_dy, dq_reached, dkv_reached in [(qkv, bad_dy, own, seen), (poisoned, dy, seers, seen)]:
        dqkv = ops.attention_bwd(other_dy, *clean, bad_qkv, segments, *heads)
        assert not np.isfinite(dqkv[row]).any()
        assert_same_bits([dqkv[~dq_reached, :Hq * D]], [want[~dq_reached, :Hq * D]])
        assert_same_bits([dqkv[~dkv_reached, Hq * D:]], [want[~dkv_reached, Hq * D:]])


def test_stale_places_of_a_page_are_not_read(ops, rng):
    Hq, Hkv, D, length = 4, 2, 16, 41
    kv, q = real(rng, 64, (Hq + 2 * Hkv) * D), real(rng, 1, (Hq + 2 * Hkv) * D)
    place, none = np.arange(64, dtype=np.int32), np.zeros(0, np.int32)

    def decode():
        return ops.attention_decode(q, kv, place, none, none, 2, np.array([[0, 1]], np.int32),
                                    np.array([length], np.int32), Hq, Hkv, D)

    want = decode()
    kv[length:] = np.nan
    assert_same_bits(decode(), want)
    assert all(np.isfinite(part).all() for part in want)


@pytest.mark.parametrize("D", [12, 264])
def test_head_dims_that_no_kernel_serves(ops, rng, D):
    with pytest.raises(ValueError, match=f"up to 256 in steps of 8, not {D}"):
        ops.attention(real(rng, 2, 3 * D), np.array([[0, 2, 0, 0]], np.int32), 1, 1, D)


@pytest.mark.parametrize("Hq, Hkv, D", HEADS)
def test_attention_of_another_scale(ops, rng, Hq, Hkv, D):
    """A quarter of the usual scale has the bits of queries that are a quarter as large."""
    segments, qkv, dy = problem(rng, BATCHES["shared"], Hq, Hkv, D)
    smaller, heads, scale = qkv.copy(), (Hq, Hkv, D), 0.25 / np.sqrt(np.float32(D))
    smaller[:, :Hq * D] /= 4
    y, lse = ops.attention(qkv, segments, *heads, scale=scale)
    assert_same_bits([y, lse], ops.attention(smaller, segments, *heads))
    got, want = (ops.attention_bwd(dy, y, lse, qkv, segments, *heads, scale=scale),
                 ops.attention_bwd(dy, y, lse, smaller, segments, *heads))
    assert_same_bits([got[:, :Hq * D] * 4, got[:, Hq * D:]], [want[:, :Hq * D], want[:, Hq * D:]])
