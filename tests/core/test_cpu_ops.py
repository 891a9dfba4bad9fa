"""The operations of every CPU tier that are not GEMMs (those: test_gemm.py): against ref, with at most twice the error
of rounding the exact result to bfloat16, and the bits that must not change with batch, packing, paging, threads or
split (rollout = training; same seed, same run). Inputs are bfloat16 numbers, so that both devices see the same; results
are filled with NaN before each call."""
import numpy as np
import pytest

from checks import assert_same_bits, attention, check_float, real, rows
from checks.optim import step
from checks.sample import check_next_and_seen
from grpo import _core
from op_statements import AXES, bf16, decode_completions, group_segments, normal

HEADS = [(1, 1, 16), (4, 2, 16), (9, 3, 64), (8, 1, 64), (3, 3, 80), (5, 1, 104), (6, 2, 104), (7, 1, 128), (2, 2, 128)]
BATCHES = {                                                 # (prompt, completions...) of each group
    "one row": [(1,)],
    "shared": [(5, 3, 0, 4)],
    "below a tile": [(31, 2, 1)],
    "a tile": [(32, 33, 1)],
    "above a tile": [(33, 31, 2)],
    "two groups": [(64, 1, 3), (1, 5)],
    "long": [(40, 300)],
}
SIZES = [(1, 1), (1, 16), (3, 5), (2, 64), (33, 80), (300, 31), (5, 577)]           # N, C
WINDOWED = [*HEADS, (16, 2, 64), (6, 1, 72), (4, 1, 256)]
THREADS = (1, 2, 3, 4)
EPS = 1e-6


# -- against ref -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("N, C", SIZES)
def test_rows_by_index(cpu, ref, rng, N, C):
    E, src, dE = real(rng, 11, C), real(rng, N, C), normal(rng, 11, C)
    ids = rng.integers(11, size=N).astype(np.int32)
    assert_same_bits([cpu.embed(E, ids), cpu.gather_rows(E, ids)], [E[ids], E[ids]])
    check_float(cpu.embed_dw(dE, src, ids), ref.embed_dw(dE, src, ids))
    some = rng.permutation(11)[:min(N, 11)].astype(np.int32)
    replaced = E.copy()
    replaced[some] = src[:len(some)]
    assert_same_bits([cpu.put_rows(E, src[:len(some)], some)], [replaced])
    added = E.copy()
    for row, i in enumerate(ids):
        added[i] = bf16(added[i] + src[row])                # rounded at each addition, rows in order
    assert_same_bits([cpu.scatter_rows_add(E, src, ids)], [added])


@pytest.mark.parametrize("scale", [30.2, 0.0625])
@pytest.mark.parametrize("N, C", SIZES)
def test_scaled_embedding(cpu, ref, rng, N, C, scale):
    rows.test_scaled_embedding(cpu, ref, rng, N, C, scale)


@pytest.mark.parametrize("K", [1, 2, 4, 16])
@pytest.mark.parametrize("N, C", SIZES)
def test_mixed_embedding(cpu, ref, rng, N, C, K):
    rows.test_mixed_embedding(cpu, ref, rng, N, C, K)


@pytest.mark.parametrize("scale", [1.0, 30.2])
@pytest.mark.parametrize("N, C", SIZES)
def test_a_mix_of_one_has_the_bits_of_an_embedding(cpu, rng, N, C, scale):
    rows.test_a_mix_of_one_has_the_bits_of_an_embedding(cpu, rng, N, C, scale)


@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.parametrize("N, C", SIZES)
def test_rmsnorm(cpu, ref, rng, N, C, offset):
    rows.test_rmsnorm(cpu, ref, rng, N, C, offset)


@pytest.mark.parametrize("N, C", [*SIZES, (33, 1280)])
def test_layernorm(cpu, ref, rng, N, C):
    rows.test_layernorm(cpu, ref, rng, N, C)


@pytest.mark.parametrize("theta", [1e4, 1e6])
def test_rope_table_at_large_positions(cpu, ref, theta):
    positions = np.array([0, 1, 2, 31, 1000, 32767, 100000, 1 << 20], np.int32)
    inv_freq = (theta ** (-np.arange(40) / 40)).astype(np.float32)[None]
    for got, want in zip(cpu.rope_table(positions[None], inv_freq), ref.rope_table(positions[None], inv_freq),
                         strict=True):
        assert np.abs(got - want).max() <= 2.0**-23


@pytest.mark.parametrize("name", AXES)
def test_rope_table_of_several_axes(cpu, rng, name):
    rows.test_rope_table_of_several_axes(cpu, rng, name, 35)


def test_scaled_rope_table(cpu, rng):
    rows.test_scaled_rope_table(cpu, rng)


@pytest.mark.parametrize("axes", [1, 2])
def test_rope_table_of_several_ropes(cpu, rng, axes):
    rows.test_rope_table_of_several_ropes(cpu, rng, axes)


@pytest.mark.parametrize("length", [2, 16, 2048, 1 << 30])
def test_log_scale(cpu, length):
    rows.test_log_scale(cpu, length)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("Hq, Hkv, D", HEADS)
def test_scaled_queries(cpu, ref, rng, Hq, Hkv, D, norm):
    rows.test_scaled_queries(cpu, ref, rng, Hq, Hkv, D, norm)


@pytest.mark.parametrize("norm, offset", [(False, 0.0), (True, 0.0), (True, 1.0)])
@pytest.mark.parametrize("N", [1, 35])
@pytest.mark.parametrize("Hq, Hkv, D", HEADS)
def test_rope(cpu, ref, rng, Hq, Hkv, D, N, norm, offset):
    rows.test_rope(cpu, ref, rng, Hq, Hkv, D, N, norm, offset)


@pytest.mark.parametrize("gate", range(2))
@pytest.mark.parametrize("N, F", SIZES)
def test_glu(cpu, ref, rng, N, F, gate):
    rows.test_glu(cpu, ref, rng, N, F, gate)


@pytest.mark.parametrize("gate", range(2))
def test_glu_far_from_zero(cpu, ref, gate):
    rows.test_glu_far_from_zero(cpu, ref, gate)


@pytest.mark.parametrize("kind", range(3))
@pytest.mark.parametrize("N, F", SIZES)
def test_gelu(cpu, ref, rng, N, F, kind):
    rows.test_gelu(cpu, ref, rng, N, F, kind)


@pytest.mark.parametrize("kind", range(3))
def test_gelu_everywhere(cpu, ref, kind):
    rows.test_gelu_everywhere(cpu, ref, kind)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("Hq, Hkv, D", HEADS)
def test_attention(cpu, ref, rng, Hq, Hkv, D, batch):
    segments, N = group_segments(*BATCHES[batch])
    attention.check_against_ref(cpu, ref, real(rng, N, (Hq + 2 * Hkv) * D), real(rng, N, Hq * D), segments, Hq, Hkv, D)


@pytest.mark.parametrize("Hq, Hkv, D", HEADS)
def test_attention_of_another_scale(cpu, rng, Hq, Hkv, D):
    attention.test_attention_of_another_scale(cpu, rng, Hq, Hkv, D)


@pytest.mark.parametrize("window", attention.WINDOWS)
@pytest.mark.parametrize("Hq, Hkv, D", WINDOWED)
def test_windows(cpu, ref, rng, Hq, Hkv, D, window):
    attention.test_windows(cpu, ref, rng, Hq, Hkv, D, window)


@pytest.mark.parametrize("window", [1, 20, 33])
@pytest.mark.parametrize("segments", attention.TREES.values(), ids=attention.TREES)
def test_windows_of_a_tree(cpu, ref, rng, segments, window):
    attention.test_windows_of_a_tree(cpu, ref, rng, segments, window)


@pytest.mark.parametrize("window", [30, 100, 550])
def test_a_prompt_of_many_completions_with_windows(cpu, ref, rng, window):
    attention.test_a_prompt_of_many_completions_with_windows(cpu, ref, rng, window)


@pytest.mark.parametrize("off", [-1, 1])
@pytest.mark.parametrize("window", [2, 31, 32, 33, 64, 100])
def test_a_window_that_is_off_by_one_is_found(cpu, ref, rng, window, off):
    attention.test_a_window_that_is_off_by_one_is_found(cpu, ref, rng, window, off)


@pytest.mark.parametrize("window", [139, 2**31 - 1])
def test_a_window_of_everything_changes_no_bit(cpu, rng, window):
    attention.test_a_window_of_everything_changes_no_bit(cpu, rng, window)


def test_keys_before_a_window_may_be_anything(cpu, rng):
    attention.test_keys_before_a_window_may_be_anything(cpu, rng)


@pytest.mark.parametrize("shape", attention.LOOKS, ids=str)
@pytest.mark.parametrize("Hq, Hkv, D", [(4, 2, 16), (3, 3, 80), (7, 1, 6)])
def test_attention_weights(cpu, ref, rng, Hq, Hkv, D, shape):
    attention.test_attention_weights(cpu, ref, rng, Hq, Hkv, D, shape)


def test_weights_of_a_row_are_the_same_in_any_batch(cpu, rng):
    attention.test_weights_of_a_row_are_the_same_in_any_batch(cpu, rng)


@pytest.mark.parametrize("sight", attention.SIGHTS.values(), ids=attention.SIGHTS)
@pytest.mark.parametrize("view", attention.VIEWS)
@pytest.mark.parametrize("Hq, Hkv, D", [*WINDOWED, (2, 2, 32), (8, 1, 40)])
def test_sights(cpu, ref, rng, Hq, Hkv, D, view, sight):
    attention.test_sights(cpu, ref, rng, Hq, Hkv, D, view, sight)


@pytest.mark.parametrize("sight", attention.SIGHTS.values(), ids=attention.SIGHTS)
@pytest.mark.parametrize("Hq, Hkv, D", WINDOWED)
def test_sights_of_heads(cpu, ref, rng, Hq, Hkv, D, sight):
    """Segments of up to 300 rows, that see a prefix of 40."""
    segments, N = group_segments((40, 300, 3), (257,))
    attention.check_against_ref(cpu, ref, real(rng, N, (Hq + 2 * Hkv) * D), real(rng, N, Hq * D), segments, Hq, Hkv, D,
                                sight=sight)


@pytest.mark.parametrize("sight", attention.SIGHTS.values(), ids=attention.SIGHTS)
def test_sights_of_long_segments(cpu, ref, rng, sight):
    attention.test_sights_of_long_segments(cpu, ref, rng, sight)


def test_rows_that_see_nothing_are_zero(cpu, rng):
    attention.test_rows_that_see_nothing_are_zero(cpu, rng)


def test_sights_and_windows_do_not_go_together(device, rng):
    attention.test_sights_and_windows_do_not_go_together(_core.Ops(device), rng)


def test_attention_with_large_scores(cpu, ref, rng):
    attention.test_attention_with_large_scores(cpu, ref, rng)


@pytest.mark.parametrize("n", [1, 15, 16384, 40001])
def test_sum_squares_and_lerp(cpu, ref, rng, n):
    rows.test_sum_squares_and_lerp(cpu, ref, rng, n)


def test_sum_squares_of_large_and_bad_numbers(cpu):
    rows.test_sum_squares_of_large_and_bad_numbers(cpu)


# -- rollout = training: the bits of a token ---------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [name for name, groups in BATCHES.items() if any(len(group) > 1 for group in groups)])
@pytest.mark.parametrize("Hq, Hkv, D", HEADS)
def test_decode_gives_the_bits_of_attention(cpu, rng, Hq, Hkv, D, batch):
    segments, N = group_segments(*BATCHES[batch])
    qkv = real(rng, N, (Hq + 2 * Hkv) * D)
    rows, decoded = decode_completions(cpu, qkv, segments, Hq, Hkv, D)
    assert_same_bits(decoded, [part[rows] for part in cpu.attention(qkv, segments, Hq, Hkv, D)])


@pytest.mark.parametrize("window", attention.WINDOWS)
@pytest.mark.parametrize("Hq, Hkv, D", WINDOWED)
def test_decode_with_a_window_gives_the_bits_of_attention(cpu, rng, Hq, Hkv, D, window):
    attention.test_decode_with_a_window_gives_the_bits_of_attention(cpu, rng, Hq, Hkv, D, window)


@pytest.mark.parametrize("window", [20, 530])
@pytest.mark.parametrize("group", [(37, 50, 3, 40), (9, 520, 0, 540)], ids=str)
def test_a_group_has_the_same_gradient_among_others(cpu, rng, group, window):
    attention.test_a_group_has_the_same_gradient_among_others(cpu, rng, group, window)


@pytest.mark.parametrize("window", [0, 1, 32, 40, 100])
@pytest.mark.parametrize("prompt", [1, 31, 32, 33, 95, 97])
@pytest.mark.parametrize("Hq, Hkv, D", [(9, 3, 64), (4, 4, 80), (8, 1, 16)])
def test_a_shared_prompt_gives_the_bits_of_an_own_one(cpu, rng, Hq, Hkv, D, prompt, window):
    lengths = (70, 1, 33)
    segments, N = group_segments((prompt, *lengths))
    qkv = real(rng, N, (Hq + 2 * Hkv) * D)
    shared = cpu.attention(qkv, segments, Hq, Hkv, D, window)
    for start, length, _, _ in segments[1:]:
        rows = np.r_[0:prompt, start:start + length]
        alone = cpu.attention(qkv[rows], np.array([[0, len(rows), 0, 0]], np.int32), Hq, Hkv, D, window)
        assert_same_bits(alone, [part[rows] for part in shared])


@pytest.mark.parametrize("length", [1, 31, 32, 33, 97, 530])
@pytest.mark.parametrize("Hq, Hkv, D", [(9, 3, 64), (2, 2, 80)])
def test_sights_that_come_to_the_same_have_the_same_bits(cpu, rng, Hq, Hkv, D, length):
    attention.test_sights_that_come_to_the_same_have_the_same_bits(cpu, rng, Hq, Hkv, D, length)


@pytest.mark.parametrize("sight", attention.SIGHTS.values(), ids=attention.SIGHTS)
@pytest.mark.parametrize("group", [(37, 50, 3, 40), (9, 520, 0, 540), (1300,)], ids=str)
def test_a_segment_has_the_same_bits_among_others(cpu, rng, group, sight):
    attention.test_a_segment_has_the_same_bits_among_others(cpu, rng, group, sight)


@pytest.mark.parametrize("C", [48, 77])
def test_a_row_is_the_same_alone_and_in_any_batch(cpu, rng, C):
    rows.test_a_row_is_the_same_alone_and_in_any_batch(cpu, rng, C)


# -- same seed, same run: the bits of a gradient -----------------------------------------------------------------------


@pytest.mark.parametrize("split", [32, 64])
def test_weight_gradients_do_not_depend_on_the_split(cpu, rng, split):
    rows.test_weight_gradients_do_not_depend_on_the_split(cpu, rng, 70, split)


def test_threads_change_no_bit(tier, rng, threads):
    """Each time with new scratch, whose size (and so the waves of attention_bwd) depends on the number of threads."""
    Hq, Hkv, D, C = 6, 2, 80, 333
    heads = Hq, Hkv, D
    segments, N = group_segments((37, 150, 3, 40), (70, 20))
    whole, crossing = np.array([[0, N, 0, 0]], np.int32), np.array([[0, 90, 0, 0], [90, N - 90, 0, 90]], np.int32)
    qkv, dy, d = real(rng, N, (Hq + 2 * Hkv) * D), real(rng, N, Hq * D), real(rng, N, (Hq + 2 * Hkv) * D)
    x, w, dw, gu, E = real(rng, N, C), real(rng, C), normal(rng, C), real(rng, N, 2 * C), real(rng, 7, C)
    wq, wk, dwq, dwk = real(rng, D), real(rng, D), normal(rng, D), normal(rng, D)
    ids, g, keys = rng.integers(7, size=N).astype(np.int32), normal(rng, 100001), np.zeros((N, 4), np.uint32)
    keys[:, 2] = np.arange(N)
    mixed = rows.taps(rng, N, 4, 7)
    big, half = normal(rng, 300, C), rng.integers(0x3000, 0x4000, (300, C)).astype(np.uint16)

    def run(count):
        threads(count)
        cpu = _core.Ops("cpu")
        y, lse = cpu.attention(qkv, segments, *heads)
        windowed = cpu.attention(qkv, segments, *heads, 50)
        frame, across = (cpu.attention(qkv, s, *heads, sight=sight) for sight, s in ((1, whole), (2, crossing)))
        places = np.arange(N, dtype=np.int32)
        frequencies = np.linspace(1, 0, D, dtype=np.float32).reshape(2, -1)
        table = *cpu.rope_table(places[None], frequencies, None, places % 2), cpu.log_scale(places, 16)
        normed, rstd = cpu.rmsnorm(x, w, EPS)
        layer = cpu.layernorm(x, w, w, EPS)
        return [y, lse, cpu.attention_bwd(dy, y, lse, qkv, segments, *heads),
                cpu.attention_weights(lse, qkv, np.arange(0, N, 3, dtype=np.int32), segments, *heads),
                *decode_completions(cpu, qkv, segments, *heads)[1],
                *windowed, cpu.attention_bwd(dy, *windowed, qkv, segments, *heads, 50),
                *decode_completions(cpu, qkv, segments, *heads, window=50)[1],
                *frame, cpu.attention_bwd(dy, *frame, qkv, whole, *heads, sight=1),
                *across, cpu.attention_bwd(dy, *across, qkv, crossing, *heads, sight=2),
                *table, cpu.rope(qkv, wq, wk, EPS, *table, *heads),
                *cpu.rope_bwd(d, dwq, dwk, qkv, wq, wk, EPS, *table, *heads),
                normed, rstd, *cpu.rmsnorm_bwd_add(x, dw, normed, x, w, rstd),
                *(cpu.glu(gu, gate) for gate in range(2)),
                *(cpu.glu_bwd(x, gu, gate) for gate in range(2)), *cpu.rmsnorm_add(x, normed, w, EPS, 1.0),
                *layer, *cpu.layernorm_bwd_add(x, dw, dw, layer[0], x, w, *layer[1:]), cpu.gelu(x, 0),
                cpu.gelu_bwd(x, x, 1),
                cpu.embed(E, ids), cpu.embed_dw(E, x, ids), cpu.gather_rows(E, ids), cpu.scatter_rows_add(E, x, ids),
                cpu.embed_mix(E, *mixed), cpu.embed_mix_dw(E, x, *mixed),
                *cpu.sample(x, E, keys), cpu.sum_squares(g), cpu.lerp(g, g[::-1].copy(), 0.3),
                *step(cpu, big, big, np.abs(big), big), *step(cpu, big, half, half, big, seed=3, step=1)[:1],
                *step(cpu, g, g, np.abs(g), g)]

    results = [run(count) for count in THREADS]
    for other in results[1:]:
        assert_same_bits(other, results[0])


# -- rows that count for nothing ---------------------------------------------------------------------------------------


def test_rows_outside_segments_are_zero(cpu, rng):
    Hq, Hkv, D, N = 4, 2, 16, 50
    segments = np.array([[3, 10, 0, 0], [20, 7, 3, 10]], np.int32)
    inside = np.r_[3:13, 20:27]
    outside = np.setdiff1d(np.arange(N), inside)
    qkv, dy = real(rng, N, (Hq + 2 * Hkv) * D), real(rng, N, Hq * D)
    clean_y, clean_lse = cpu.attention(qkv, segments, Hq, Hkv, D)
    clean = clean_y, clean_lse, cpu.attention_bwd(dy, clean_y, clean_lse, qkv, segments, Hq, Hkv, D)
    for array in (qkv, dy, clean_y, clean_lse):
        assert np.isfinite(array).all()
    qkv[outside], dy[outside] = np.nan, np.nan
    y, lse = cpu.attention(qkv, segments, Hq, Hkv, D)
    dqkv = cpu.attention_bwd(dy, y, lse, qkv, segments, Hq, Hkv, D)
    for got, want in zip((y, lse, dqkv), clean, strict=True):
        assert (got[outside] == 0).all()
        assert_same_bits([got[inside]], [want[inside]])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_bad_reaches_only_those_who_see_it(cpu, rng, bad):
    Hq, Hkv, D = 4, 2, 16
    segments, N = group_segments((37, 40, 35))
    row = 37 + 20                                           # in the first completion: seen by the rest of it
    seers = np.arange(row, 37 + 40)
    others = np.setdiff1d(np.arange(N), seers)
    qkv, dy = real(rng, N, (Hq + 2 * Hkv) * D), real(rng, N, Hq * D)
    clean_y, clean_lse = cpu.attention(qkv, segments, Hq, Hkv, D)
    poisoned = qkv.copy()
    poisoned[row] = bad
    y, lse = cpu.attention(poisoned, segments, Hq, Hkv, D)
    assert_same_bits([y[others], lse[others]], [clean_y[others], clean_lse[others]])
    assert not np.isfinite(y[seers]).any()
    rows, (decoded, _) = decode_completions(cpu, poisoned, segments, Hq, Hkv, D)
    assert_same_bits([np.isnan(decoded)], [np.isnan(y[rows])])
    finite = np.isin(rows, others)
    assert_same_bits([decoded[finite]], [clean_y[rows][finite]])

    bad_dy = dy.copy()
    bad_dy[row] = bad                                       # reaches its own query and the keys it sees, no later ones
    dqkv = cpu.attention_bwd(bad_dy, clean_y, clean_lse, qkv, segments, Hq, Hkv, D)
    want = cpu.attention_bwd(dy, clean_y, clean_lse, qkv, segments, Hq, Hkv, D)
    unseen = np.r_[row + 1:N]
    assert_same_bits([dqkv[unseen]], [want[unseen]])
    assert_same_bits([np.delete(dqkv[:, :Hq * D], row, 0)], [np.delete(want[:, :Hq * D], row, 0)])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("Hq, Hkv, D, window",
                         [(4, 2, 16, 1), (4, 2, 16, 10), (2, 1, 128, 33), (1, 1, 256, 40), (3, 1, 16, 70)])
@pytest.mark.parametrize("row", [20, 57], ids=["in the prompt", "in a completion"])
def test_what_is_bad_reaches_only_windows_with_it(cpu, rng, Hq, Hkv, D, window, row, bad):
    attention.test_what_is_bad_reaches_only_windows_with_it(cpu, rng, Hq, Hkv, D, window, row, bad)


@pytest.mark.parametrize("sight", attention.SIGHTS.values(), ids=attention.SIGHTS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("Hq, Hkv, D", [(4, 2, 16), (1, 1, 128)])
@pytest.mark.parametrize("row", [20, 57], ids=["in the prefix", "behind it"])
def test_what_is_bad_reaches_only_those_who_see_all_of_it(cpu, rng, Hq, Hkv, D, row, bad, sight):
    attention.test_what_is_bad_reaches_only_those_who_see_all_of_it(cpu, rng, Hq, Hkv, D, row, bad, sight)


def test_stale_places_of_a_page_are_not_read(cpu, rng):
    attention.test_stale_places_of_a_page_are_not_read(cpu, rng)


# -- sampling ----------------------------------------------------------------------------------------------------------

V, C, S = 3001, 24, 33                                      # three chunks of the softmax, the last with a ragged end
SAMPLERS = [
    {}, {"temperature": 0.6}, {"temperature": 0.0}, {"top_k": 1}, {"top_k": 40}, {"top_k": 2 * V}, {"top_p": 0.3},
    {"top_p": 0.95},
    {"top_p": 1e-9}, {"min_p": 0.05}, {"min_p": 1.0}, {"temperature": 1.4, "top_k": 300, "top_p": 0.8, "min_p": 0.01},
    {"temperature": 0.0, "restricted": True}, {"restricted": True}, {"top_k": 50, "top_p": 0.9, "restricted": True},
]


def sample_problem(rng, restricted=False, **settings):
    """Arguments of Ops.sample(). restricted: with a repetition penalty, forbidden ids, and stop ids for every second
    row."""
    h, W = real(rng, S, C), real(rng, V, C)
    keys = np.zeros((S, 4), np.uint32)
    keys[:, 1], keys[:, 2], keys[:, 3] = np.arange(S) % 4, np.arange(S) + 7, np.arange(S) % 2
    if restricted:
        settings |= {"repetition_penalty": 1.3, "forbidden": (rng.random(V) < 0.3).astype(np.uint8),
                     "seen": (rng.random((S, V)) < 0.3).astype(np.uint8), "stop_ids": np.arange(40, 90, dtype=np.int32)}
    return h, W, keys, settings | {"seed": 11, "step": 3}


@pytest.mark.parametrize("settings", SAMPLERS, ids=str)
def test_sample(cpu, ref, rng, settings):
    h, W, keys, settings = sample_problem(rng, **settings)
    ids, logp, policy_logp, entropy, *_ = cpu.sample(h, W, keys, **settings)
    want_ids, want_logp, want_policy_logp, want_entropy, *_ = ref.sample(h, W, keys, **settings)
    assert (ids == want_ids).all()
    for got, want in [(logp, want_logp), (policy_logp, want_policy_logp), (entropy, want_entropy)]:
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.0])
@pytest.mark.parametrize("settings", [{}, {"top_k": 5}, {"top_p": 0.7}], ids=str)
def test_sampled_numbers_are_those_of_the_head(cpu, rng, settings, temperature):
    h, W, keys, settings = sample_problem(rng, **settings)
    ids, logp, policy_logp, entropy, *_ = cpu.sample(h, W, keys, temperature=temperature, **settings)
    inv_temperature = float(np.float32(1) / np.float32(temperature or 1))
    assert_same_bits((policy_logp, entropy), cpu.head(h, W, ids, inv_temperature))
    if temperature == 0 or len(settings) == 2:
        assert_same_bits([logp], [policy_logp])


@pytest.mark.parametrize("settings", [{"top_k": 1}, {"top_p": 1e-9}, {"min_p": 1.0}], ids=str)
def test_an_only_choice_has_log_probability_zero(cpu, rng, settings):
    h, W, keys, settings = sample_problem(rng, **settings)
    ids, logp, *_ = cpu.sample(h, W, keys, **settings)
    assert (ids == cpu.logits(h, W).argmax(1)).all() and (logp == 0).all()


@pytest.mark.parametrize("settings", [{}, {"top_k": 50, "top_p": 0.9, "restricted": True}], ids=str)
def test_a_slot_samples_the_same_alone_and_in_any_batch(cpu, rng, settings):
    h, W, keys, settings = sample_problem(rng, **settings)
    whole = cpu.sample(h, W, keys, **settings)
    for slots in (slice(4, 5), slice(8, 20)):
        part = settings | ({"seen": settings["seen"][slots]} if "seen" in settings else {})
        assert_same_bits(cpu.sample(h[slots], W, keys[slots], **part), [result[slots] for result in whole])


def test_next_and_seen(cpu, rng):
    check_next_and_seen(cpu, *sample_problem(rng)[:2], repetition_penalty=1.3)


@pytest.mark.parametrize("keep", [1, 3, 16, 20])
def test_top_p_among_equals_keeps_the_lowest_ids(cpu, keep):
    """20 equal logits and others far below: top_p of keep / 20 leaves exactly ids 0..keep-1 of them."""
    n, draws = 20, 400
    W = np.zeros((1100, 1), np.float32)
    W[n:] = -40
    keys = np.zeros((draws, 4), np.uint32)
    keys[:, 2] = np.arange(draws)
    ids, logp, *_ = cpu.sample(np.ones((draws, 1), np.float32), W, keys, top_p=keep / n - 0.01)
    assert set(ids) == set(range(keep))
    np.testing.assert_allclose(logp, -np.log(keep), atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("temperature", [1.0, 0.0])
def test_sample_of_bad_logits(cpu, rng, bad, temperature):
    """NaN and Inf in one row say so there, and nowhere else."""
    h, W, keys, settings = sample_problem(rng)
    clean = cpu.sample(h, W, keys, temperature=temperature, **settings)
    h[5, 3] = bad
    results = cpu.sample(h, W, keys, temperature=temperature, **settings)
    assert results[0][5] == -1 and all(np.isnan(result[5]) for result in results[1:4])
    assert_same_bits([np.delete(result, 5) for result in results], [np.delete(result, 5) for result in clean])


@pytest.mark.parametrize("temperature", [1.0, 0.0])
def test_sample_with_everything_forbidden(cpu, rng, temperature):
    h, W, keys, settings = sample_problem(rng)
    ids, logp, *_ = cpu.sample(h, W, keys, temperature=temperature, forbidden=np.ones(V, np.uint8), **settings)
    assert (ids == -1).all() and np.isnan(logp).all()
