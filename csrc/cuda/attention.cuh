/* Attention: what forward, backward and decode share, so that a token has the same bits from any
   of them (rollout = training).

   A row is one query head at one position. It meets its keys in tiles of KV_TILE, aligned to position 0. Scores of a
   tile come from tensor cores, over D in ascending steps of 16; the row's running maximum moves on once a tile, and sum
   and output so far shrink to it; p, rounded to bf16, times the values adds to the output in two steps of 16 keys. A
   key that the row does not see has p = 0 exactly, and a tile of which it sees none changes no bit of its state. Tiles
   that no row of a block sees, later than all of them or before all of their windows, are not brought in.
   Every KV_CHUNK positions the running state (max, sum, output) is set aside and a new one begins; fold_row() joins
   them, chunk by chunk upwards. So decode may give the chunks of one context to different blocks and join them later.
   Training keeps the state set aside in shared memory, which contexts up to KV_CHUNK never touch. A row begins in the
   chunk of its first visible key, so that chunks before its window count for nothing in either.
   All of this asks which is the last key that a row sees: its own, or, where rows see all of their segment or the
   prefix alone, the same for all rows. Then no tile is masked but a last one that is not full.

   Rows of a tile are pairs (row, head of the group that shares a KV head), row-major: keys are loaded once for all
   heads of a group, and few rows are masked at the diagonal. Head dims are multiples of 8 up to 256, padded by zeros in
   shared memory to the width W that a kernel is compiled for. Rows of shared memory are laid out so that ldmatrix and
   16-byte stores are free of bank conflicts: an odd number of 16-byte pieces long, or, where that padding would not fit
   (WIDE), with their pieces in an order of each row's own; see place(). WIDE kernels have one tile at a time in shared
   memory, others two, of which one is on its way; so all fit in the 99 KB that a block may have on the smallest GPUs,
   and it is another block on the multiprocessor that works while one waits. */
#ifndef GRPO_CUDA_ATTENTION_H
#define GRPO_CUDA_ATTENTION_H

#include "cuda/cuda.cuh"

enum { KV_CHUNK = 512, CHUNK_TILES = KV_CHUNK / KV_TILE };
enum { THREADS = 128, WARPS = THREADS / WARP }; /* of a block of forward and backward */
enum { WIDE = 256, NO_WINDOW = 1 << 30 };

#define LOG2E 1.44269504089f
#define LN2 0.693147180560f

/* -- heads --------------------------------------------------------------------------------------------------------- */

struct heads {
    int Hq, Hkv, D, group;
    int window; /* keys that a row sees at most, its own included */
    float scale; /* of scores, times log2(e): exponents are base 2 */
    uint32_t inverse; /* of group, times 2^32, rounded up; 0: group is 1 */
    enum sight sight;
};

static inline struct heads heads_of(const struct attention_shape *a) {
    int group = a->Hq / a->Hkv, window = a->window > 0 && a->window < NO_WINDOW ? a->window : NO_WINDOW;
    return (struct heads){a->Hq,
                          a->Hkv,
                          a->D,
                          group,
                          window,
                          (float)(LOG2E / score_divisor(a->scale)),
                          group > 1 ? 0xffffffffu / (uint32_t)group + 1 : 0,
                          a->sight};
}

/* the first key that a row sees whose last one is at a position, mostly its own */
static __host__ __device__ inline int first_key(struct heads h, int position) {
    return position >= h.window ? position - h.window + 1 : 0;
}

/* the last key that a row of a segment sees, row 0 its first; -1: none */
static __device__ inline int last_key(struct heads h, struct segment s, int row) {
    return s.prefix_len + (h.sight == SEES_BEFORE ? row : h.sight == SEES_ALL ? s.len - 1 : -1);
}

/* elements of a row of qkv */
static __host__ __device__ inline size_t qkv_stride(struct heads h) { return (size_t)(h.Hq + 2 * h.Hkv) * h.D; }

/* row of a pair, counted from its segment's start; exact for pairs below 2^32 / group */
static __device__ inline int row_of_pair(struct heads h, int pair) {
    return h.inverse ? (int)((uint64_t)(uint32_t)pair * h.inverse >> 32) : pair;
}

/* Calls f<W>(...) for the width that serves D. */
#define BY_WIDTH(D, f, ...)             \
    ((D) <= 32    ? f<32>(__VA_ARGS__)  \
     : (D) <= 64  ? f<64>(__VA_ARGS__)  \
     : (D) <= 80  ? f<80>(__VA_ARGS__)  \
     : (D) <= 112 ? f<112>(__VA_ARGS__) \
     : (D) <= 128 ? f<128>(__VA_ARGS__) \
                  : f<WIDE>(__VA_ARGS__))

static inline int width_of(int D) {
    return D <= 32 ? 32 : D <= 64 ? 64 : D <= 80 ? 80 : D <= 112 ? 112 : D <= 128 ? 128 : WIDE;
}

int attention_heads(struct heads *h, const struct attention_shape *a); /* E_CONFIG: a D that no kernel serves */

/* -- tiles in shared memory ---------------------------------------------------------------------------------------- */

/* tiles of keys or queries that a kernel holds at a time: the one it works on and the one that is on its way */
static constexpr __host__ __device__ int stages(int W) { return W < WIDE ? 2 : 1; }

/* elements from one row of a tile to the next */
static constexpr __host__ __device__ int pitch(int W) { return W < WIDE ? (W / 8 | 1) * 8 : W; }

/* element of a tile that holds a row's column */
template <int W> static __device__ inline int place(int row, int column) {
    return row * pitch(W) + (W < WIDE ? column : (column & ~63) + ((column & 63) ^ (row & 7) * 8));
}

/* -- products of a tile -------------------------------------------------------------------------------------------- */

/* What a lane names to ldmatrix_x4 for 16 rows x 16 columns from `column` on: as A of mma, or (trans) as B with rows
   along k; and as B with rows along n. */
template <int W> static __device__ inline const bf16 *rows_of_a(const bf16 *tile, int column) {
    return tile + place<W>(lane_id() % 16, lane_id() / 16 * 8 + column);
}
template <int W> static __device__ inline const bf16 *rows_of_b(const bf16 *tile, int column) {
    return tile + place<W>(lane_id() / 16 * 8 + lane_id() % 8, lane_id() / 8 % 2 * 8 + column);
}

/* a = 16 rows of a tile as the A operand */
template <int W> static __device__ inline void load_rows(uint32_t a[W / 16][4], const bf16 *tile) {
#pragma unroll
    for (int k = 0; k < W / 16; k++) ldmatrix_x4(a[k], rows_of_a<W>(tile, k * 16));
}

/* s (16 M rows, 32) = a (16 M rows, W) times the rows of a tile (32, W) */
template <int W, int M>
static __device__ inline void tile_scores(float s[M][4][4], const uint32_t a[M][W / 16][4], const bf16 *tile) {
#pragma unroll
    for (int i = 0; i < M * 16; i++) s[i / 16][i / 4 % 4][i % 4] = 0;
#pragma unroll
    for (int k = 0; k < W / 16; k++) {
        uint32_t b[2][4];
        ldmatrix_x4(b[0], rows_of_b<W>(tile, k * 16));
        ldmatrix_x4(b[1], rows_of_b<W>(tile + 16 * pitch(W), k * 16));
#pragma unroll
        for (int i = 0; i < M * 4; i++) mma(s[i / 4][i % 4], a[i / 4][k], &b[i % 4 / 2][i % 2 * 2]);
    }
}

/* The same with a left in shared memory, for who has no registers left. */
template <int W> static __device__ inline void tile_scores_of(float s[4][4], const bf16 *a_tile, const bf16 *tile) {
#pragma unroll
    for (int i = 0; i < 16; i++) s[i / 4][i % 4] = 0;
#pragma unroll
    for (int k = 0; k < W / 16; k++) {
        uint32_t a[4], b[2][4];
        ldmatrix_x4(a, rows_of_a<W>(a_tile, k * 16));
        ldmatrix_x4(b[0], rows_of_b<W>(tile, k * 16));
        ldmatrix_x4(b[1], rows_of_b<W>(tile + 16 * pitch(W), k * 16));
#pragma unroll
        for (int i = 0; i < 4; i++) mma(s[i], a, &b[i / 2][i % 2 * 2]);
    }
}

/* 16 rows that meet one tile after the other are held in registers, or where those are few (WIDE) left in shared
   memory. */
template <int W> static __device__ inline void hold_rows(uint32_t held[1][W / 16][4], const bf16 *rows) {
    if constexpr (W < WIDE) load_rows<W>(held[0], rows);
}
template <int W>
static __device__ inline void held_scores(float s[1][4][4], const uint32_t held[1][W / 16][4], const bf16 *rows,
                                          const bf16 *tile) {
    if constexpr (W < WIDE) tile_scores<W, 1>(s, held, tile);
    else tile_scores_of<W>(s[0], rows, tile);
}

/* p as the A operand of tile_values() */
static __device__ inline void pack_scores(uint32_t p[2][4], const float s[4][4]) {
#pragma unroll
    for (int i = 0; i < 8; i++) p[i / 4][i % 4] = pack2(s[i / 2][i % 2 * 2], s[i / 2][i % 2 * 2 + 1]);
}

/* o (16 M rows, 16 columns for each i) += p (16 M rows, 32) times a tile (32, W): columns 16 (first + i step), i < N */
template <int W, int M, int N>
static __device__ inline void tile_values(float o[M][2 * N][4], const uint32_t p[M][2][4], const bf16 *tile, int first,
                                          int step) {
#pragma unroll
    for (int k = 0; k < 2; k++)
#pragma unroll
        for (int i = 0; i < N; i++) {
            int column = (first + i * step) * 16;
            if (column >= W) continue;
            uint32_t b[4];
            ldmatrix_x4_trans(b, rows_of_a<W>(tile + k * 16 * pitch(W), column));
#pragma unroll
            for (int m = 0; m < M; m++) {
                mma(o[m][2 * i], p[m][k], b);
                mma(o[m][2 * i + 1], p[m][k], b + 2);
            }
        }
}

/* -- online softmax ------------------------------------------------------------------------------------------------ */

/* Of the two rows lane / 4 and lane / 4 + 8 of 16. */
struct softmax {
    float max[2], sum[2];
};

static __device__ inline struct softmax softmax_begin(void) { return (struct softmax){{-INFINITY, -INFINITY}, {0, 0}}; }

/* key of the tile that element i of a lane's s[n] belongs to */
static __device__ inline int key_of(int n, int i) { return n * 8 + lane_id() % 4 * 2 + i % 2; }

/* Keys [first, last] of a tile that a lane's two rows of 16 see; last < first: none. */
struct reach {
    int first[2], last[2];
};

/* `from`: pair of the first of the 16 rows */
static __device__ inline struct reach keys_in_sight(struct heads h, struct segment s, int from, int pairs, int tile) {
    struct reach see;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        int pair = min(from + lane_id() / 4 + 8 * r, pairs - 1);
        see.last[r] = last_key(h, s, row_of_pair(h, pair)) - tile * KV_TILE;
        see.first[r] = see.last[r] - h.window + 1;
    }
    return see;
}

/* does row r of the two see a key? */
static __device__ inline bool sees_key(const struct reach &see, int r, int key) {
    return key >= see.first[r] && key <= see.last[r];
}

/* of the bits of a tile's keys, those that row r sees */
static __device__ inline uint32_t in_sight(uint32_t keys, const struct reach &see, int r) {
    uint32_t up_to = see.last[r] < 0 ? 0 : see.last[r] >= 31 ? ~0u : (2u << see.last[r]) - 1;
    return keys & up_to & (see.first[r] <= 0 ? ~0u : see.first[r] > 31 ? 0 : ~0u << see.first[r]);
}

/* s = -inf for keys that a row does not see */
static __device__ inline void hide_keys(float s[4][4], const struct reach &see) {
#pragma unroll
    for (int n = 0; n < 4; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (!sees_key(see, i / 2, key_of(n, i))) s[n][i] = -INFINITY;
}

/* the rows' largest exponents in this tile */
static __device__ inline void tile_max(float top[2], const float s[4][4], float scale) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float v = -INFINITY;
#pragma unroll
        for (int n = 0; n < 4; n++) v = fmaxf(v, fmaxf(s[n][2 * r], s[n][2 * r + 1]));
        v = fmaxf(v, shuffle_xor(v, 1));
        top[r] = fmaxf(v, shuffle_xor(v, 2)) * scale;
    }
}

/* what exponents are taken from: a row that has seen no key yet must not compute inf - inf */
static __device__ inline float origin(float max) { return max == -INFINITY ? 0 : max; }

/* s -> p = exp(s - max), sum = the rows' sums of p */
static __device__ inline void tile_exp(float sum[2], float s[4][4], const float max[2], float scale) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float from = origin(max[r]), v = 0;
#pragma unroll
        for (int n = 0; n < 4; n++) {
            s[n][2 * r] = exp2_approx(fmaf(s[n][2 * r], scale, -from));
            s[n][2 * r + 1] = exp2_approx(fmaf(s[n][2 * r + 1], scale, -from));
            v += s[n][2 * r] + s[n][2 * r + 1];
        }
        v += shuffle_xor(v, 1);
        sum[r] = v + shuffle_xor(v, 2);
    }
}

/* The state and o (16 rows, 8 N) move to a new maximum; sum: of the tile that brought it. */
template <int N>
static __device__ inline void shrink(struct softmax *state, float o[N][4], const float max[2], const float sum[2]) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float by = exp2_approx(state->max[r] - origin(max[r]));
        state->max[r] = max[r];
        state->sum[r] = fmaf(state->sum[r], by, sum[r]);
#pragma unroll
        for (int n = 0; n < N; n++) {
            o[n][2 * r] *= by;
            o[n][2 * r + 1] *= by;
        }
    }
}

/* -- joining chunks ------------------------------------------------------------------------------------------------ */

struct factors {
    float kept, added;
};

/* Has a row seen no key? Then it takes the state and output of its first chunk as they are. */
static __device__ inline bool unbegun(float max, float sum) { return max == -INFINITY && sum == 0; }

/* A row's state over the chunks so far takes in the next one's; the outputs join by fold(). A chunk that the row does
   not reach (max -inf, sum 0) changes no bit, not even the sign of a zero. */
static __device__ inline struct factors fold_row(float *max, float *sum, float chunk_max, float chunk_sum) {
    float top = fmaxf(*max, chunk_max);
    float kept = exp2_approx(*max - origin(top)), added = exp2_approx(chunk_max - origin(top));
    *max = top;
    *sum = fmaf(*sum, kept, chunk_sum * added);
    return (struct factors){kept, added};
}

static __device__ inline float fold(float kept, float added, struct factors by) {
    return by.added > 0 ? fmaf(kept, by.kept, added * by.added) : kept * by.kept;
}

/* -- shared memory ------------------------------------------------------------------------------------------------- */

/* Positions [32 tile, end) of a segment's run: keys and values (32, W) of one KV head. Zeros from `end` on. */
template <int W>
static __device__ inline void load_keys(bf16 *k, bf16 *v, const bf16 *qkv, struct heads h, struct segment s, int kv,
                                        int tile, int end) {
    size_t stride = qkv_stride(h);
#pragma unroll(W < WIDE ? (W / 8 + 3) / 4 : 1) /* a thread's share at once, unless sums fill the registers */
    for (int i = threadIdx.x; i < KV_TILE * (W / 8); i += THREADS) {
        int j = i / (W / 8), column = i % (W / 8) * 8, t = tile * KV_TILE + j;
        bool valid = t < end && column < h.D;
        size_t row = (size_t)(t < s.prefix_len ? s.prefix + t : s.start + t - s.prefix_len);
        const bf16 *from = qkv + (valid ? row * stride + (size_t)(h.Hq + kv) * h.D + column : 0);
        cp_async16(k + place<W>(j, column), from, valid);
        cp_async16(v + place<W>(j, column), valid ? from + h.Hkv * h.D : from, valid);
    }
}

/* Pairs [first, first + n) of a segment, one row of the tile each; zeros from `pairs` on. from: the group's first head
   in the segment's first row, whose rows are `stride` apart. */
template <int W>
static __device__ inline void load_pairs(bf16 *tile, const bf16 *from, size_t stride, struct heads h, int first, int n,
                                         int pairs) {
#pragma unroll
    for (int i = threadIdx.x; i < n * (W / 8); i += THREADS) {
        int j = i / (W / 8), column = i % (W / 8) * 8, row = row_of_pair(h, first + j);
        bool valid = first + j < pairs && column < h.D;
        size_t at = (size_t)row * stride + (size_t)(first + j - row * h.group) * h.D + column;
        cp_async16(tile + place<W>(j, column), from + (valid ? at : 0), valid);
    }
}

/* -- what is not finite -------------------------------------------------------------------------------------------- */

/* 0 times NaN is NaN on a tensor core too, so in a tile that some rows see in part, rows of the B operand that hold NaN
   or infinity must not reach the product: they are found, cleared, and whoever sees them is made NaN by hand. */

static __device__ inline uint32_t exponents_full(uint32_t pair) {
    return ((pair & 0x7f807f80u) + 0x00800080u) & 0x80008000u;
}

/* Bit j: row j of a tile (32, W) holds a number that is not finite. By all threads; words: (WARPS) of shared memory. */
template <int W> static __device__ inline uint32_t bad_rows(const bf16 *tile, uint32_t *words) {
    uint32_t bad = 0;
    for (int c = warp_id(); c < W / 8; c += WARPS) {
        uint4 v = *(const uint4 *)(tile + place<W>(lane_id(), c * 8));
        bad |= exponents_full(v.x) | exponents_full(v.y) | exponents_full(v.z) | exponents_full(v.w);
    }
    bad = warp_ballot(bad != 0);
    if (lane_id() == 0) words[warp_id()] = bad;
    __syncthreads();
    return words[0] | words[1] | words[2] | words[3];
}

template <int W> static __device__ inline void clear_rows(bf16 *tile, uint32_t rows) {
    for (int i = threadIdx.x; i < KV_TILE * (W / 8); i += THREADS)
        if (rows >> i / (W / 8) & 1)
            *(uint4 *)(tile + i / (W / 8) * pitch(W) + i % (W / 8) * 8) = make_uint4(0, 0, 0, 0);
    __syncthreads();
}

/* -- the map of a batch -------------------------------------------------------------------------------------------- */

/* What blocks must know of the segments, which lie in device memory. attention_map() makes it, in scratch. */
enum { QUERY_TILES, KEY_TASKS, GAPS, COUNTS };
/* A tile of a segment's pairs. */
struct __align__(8) query_task {
    int segment, tile;
};
/* dK and dV of KEY_ROWS of a segment's rows, from the first on; of one slice of the queries that see them. sums: row
   of the slices' sums, -1: there is one slice. */
struct __align__(16) key_task {
    int segment, first, slice, sums;
};
struct attention_map {
    int *count; /* (COUNTS) */
    struct query_task *query_tasks;
    int *gap; /* rows outside every segment */
    /* of the backward only */
    int *segment_of; /* (N) -1: a gap */
    struct key_task *key_tasks;
    int *slices; /* (n_segments) shares that the queries behind a segment's rows are cut into */
    int *dependent_tiles; /* (n_segments) tiles of BWD_PAIRS that other segments see its rows from */
};
enum { KEY_ROWS = 64, BWD_PAIRS = 32, SLICE_ROWS = 512 };

/* Upper bounds, for grids and scratch. */
static inline int query_tiles_max(int N, int n_segments, int group, int pairs) {
    return (int)((size_t)N * (size_t)group / (size_t)pairs) + n_segments + 1;
}
static inline int key_tasks_max(int N, int n_segments) { return 2 * (N / KEY_ROWS) + N / SLICE_ROWS + n_segments + 1; }

/* Puts the arrays at *memory (or nowhere), which moves on; returns their bytes. */
size_t attention_map_place(struct attention_map *map, char **memory, int N, int n_segments, int group);
/* pairs: of a query tile */
int attention_map(const struct cuda_ctx *ctx, struct attention_map map, const struct segment *segments, int n_segments,
                  int N, struct heads h, int pairs, bool backward);

/* How many rows of x, its first ones, see packed rows [first, first + rows), which are not x's own? */
static __device__ inline int rows_behind(struct segment x, int first, int rows, int window) {
    int end = x.prefix + x.prefix_len, last = min(first + rows, end) - 1;
    if (x.prefix_len <= 0 || last < x.prefix || first >= end) return 0;
    return max(0, min(x.len, window - (end - last))); /* row i is end - last + i keys beyond the last */
}

#endif
