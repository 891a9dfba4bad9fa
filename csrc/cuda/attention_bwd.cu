/* Attention, backward, with P recomputed from lse: dV = P^T dY, dS = P (dY V^T - delta) scale, dQ = dS K,
   dK = dS^T Q, delta = sum dY Y. Two kernels, each of which owns what it writes, so no sum depends on which block is
   first: attend_dq walks the keys of a tile of queries, as the forward does; attend_dkv walks the queries behind a tile
   of keys: its segment's own, then those of the segments that have it as a prefix, in segment order. Where these are
   many they are shared out over slices, whose sums add_slices adds in order.
   Of those, only rows whose window reaches back to the keys are walked.
   FLOPs for each pair and key: 6 D in attend_dq, 8 D in attend_dkv (the scores twice: the price of no atomics). WIDE
   sums do not fit the registers, so there two blocks share the columns of a tile of keys: 12 D. */
#include "cuda/attention.cuh"

#include <math.h>

struct backward {
    bf16 *dqkv;
    const bf16 *dy, *y, *qkv;
    const float *lse;
    const struct segment *segments;
    struct attention_map map;
    struct heads heads;
    float2 *stats;                   /* (N, Hq) log2(e) lse, delta */
    float *sums;                     /* (rows of all slices, Hkv, 2, W) dk / scale, dv */
    int n_segments, N;
};

enum { QUERY_ROWS = 64 };            /* pairs of a block of attend_dq */

/* columns [column, column + n) of the gaps' rows of dqkv are zero */
static __device__ void clear_gaps(const struct backward &c, int column, int n) {
    for (int i = blockIdx.x; i < c.map.count[GAPS]; i += gridDim.x)
        for (int j = threadIdx.x; j < n / 8; j += THREADS)
            *(uint4 *)(c.dqkv + (size_t)c.map.gap[i] * qkv_stride(c.heads) + column + j * 8) = make_uint4(0, 0, 0, 0);
}

/* 4 elements of a lane: p holds scores and becomes exp(s - lse), ds holds dp and becomes p (dp - delta) */
static __device__ inline void gradients(float p[4], float ds[4], const float2 stat[4], float scale) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        p[i] = exp2_approx(fmaf(p[i], scale, -stat[i].x));
        ds[i] = p[i] * (ds[i] - stat[i].y);
    }
}

/* -- dQ ------------------------------------------------------------------------------------------------------------ */

/* stats of the block's pairs, for its lanes and for attend_dkv; dy_tile: (QUERY_ROWS, W) of shared memory */
template <int W>
static __device__ void find_stats(const struct backward &c, float2 *stats, const bf16 *dy_tile, struct segment s,
                                  int kv, int first) {
    struct heads h = c.heads;
    for (int j = warp_id(); j < QUERY_ROWS; j += WARPS) {
        int pair = first + j, row = row_of_pair(h, pair);
        if (row >= s.len) break;
        size_t at = (size_t)(s.start + row) * h.Hq + (size_t)(kv * h.group + pair - row * h.group);
        float sum = 0;
        for (int d = 2 * lane_id(); d < h.D; d += 2 * WARP) {
            float2 dy = unpack2(*(const uint32_t *)(dy_tile + place<W>(j, d)));
            float2 y = unpack2(*(const uint32_t *)(c.y + at * h.D + d));
            sum = fmaf(dy.y, y.y, fmaf(dy.x, y.x, sum));
        }
        float2 stat = make_float2(c.lse[at] * LOG2E, warp_sum(sum));
        if (lane_id()) continue;
        stats[j] = stat;
        c.stats[at] = stat;
    }
}

/* A warp's 16 rows and tile t. bad: its keys that are not finite, and are zero by now; masked: some row does not see
   all of it; from: the first row's pair. */
template <int W>
static __device__ inline void add_keys(float dq[1][W / 8][4], float poison[2], const uint32_t q[1][W / 16][4],
                                       const uint32_t dy[1][W / 16][4], const bf16 *q_rows, const bf16 *dy_rows,
                                       const bf16 *k, const bf16 *v, const float2 stat[2], uint32_t bad, bool masked,
                                       struct heads h, struct segment s, int from, int pairs, int t) {
    float score[1][4][4], ds[1][4][4];
    uint32_t packed[1][2][4];
    held_scores<W>(score, q, q_rows, k);
    held_scores<W>(ds, dy, dy_rows, v);
#pragma unroll
    for (int n = 0; n < 4; n++) {
        float2 of_row[4] = {stat[0], stat[0], stat[1], stat[1]};
        gradients(score[0][n], ds[0][n], of_row, h.scale);
    }
    if (masked || bad) {
        struct reach see = keys_in_sight(h, s, from, pairs, t);
#pragma unroll
        for (int i = 0; i < 16; i++)
            if (!sees_key(see, i % 4 / 2, key_of(i / 4, i))) ds[0][i / 4][i % 4] = 0;
        for (int r = 0; r < 2; r++)
            if (in_sight(bad, see, r)) poison[r] = NAN;
    }
    pack_scores(packed[0], ds[0]);
    tile_values<W, 1, W / 16>(dq, packed, k, 0, 1);
}

template <int W> static __global__ void __launch_bounds__(THREADS, W <= 80 ? 3 : 2) attend_dq(const struct backward c) {
    constexpr int TILE = KV_TILE * pitch(W), FRONT = QUERY_ROWS * pitch(W), STAGES = stages(W);
    SHARED(bf16, memory);
    __shared__ uint32_t words[WARPS];
    __shared__ float2 stats[QUERY_ROWS];
    struct heads h = c.heads;
    int kv = blockIdx.y;
    clear_gaps(c, kv * h.group * h.D, h.group * h.D);
    if ((int)blockIdx.x >= c.map.count[QUERY_TILES]) return;
    struct query_task task = c.map.query_tasks[blockIdx.x];
    struct segment s = c.segments[task.segment];
    int first = task.tile * QUERY_ROWS, pairs = s.len * h.group, from = first + warp_id() * 16;
    int block_first = last_key(h, s, row_of_pair(h, first));
    int end = last_key(h, s, row_of_pair(h, min(first + QUERY_ROWS, pairs) - 1)) + 1;
    int first_tile = first_key(h, block_first) / KV_TILE, tiles = (end + KV_TILE - 1) / KV_TILE;
    int warp_first = last_key(h, s, row_of_pair(h, min(from, pairs - 1)));
    int warp_last = from < pairs ? last_key(h, s, row_of_pair(h, min(from + 16, pairs) - 1)) : -1;
    bf16 *q_tile = memory, *dy_tile = memory + FRONT, *ring = memory + 2 * FRONT;
    size_t head = (size_t)kv * h.group * h.D, y_stride = (size_t)h.Hq * h.D;
    load_pairs<W>(q_tile, c.qkv + (size_t)s.start * qkv_stride(h) + head, qkv_stride(h), h, first, QUERY_ROWS, pairs);
    load_pairs<W>(dy_tile, c.dy + (size_t)s.start * y_stride + head, y_stride, h, first, QUERY_ROWS, pairs);
    bf16 *k_first = ring + first_tile % STAGES * 2 * TILE;
    load_keys<W>(k_first, k_first + TILE, c.qkv, h, s, kv, first_tile, end);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
    find_stats<W>(c, stats, dy_tile, s, kv, first);
    __syncthreads();

    const bf16 *q_rows = q_tile + warp_id() * 16 * pitch(W), *dy_rows = dy_tile + warp_id() * 16 * pitch(W);
    uint32_t q[1][W / 16][4], dy[1][W / 16][4];
    float dq[1][W / 8][4], poison[2] = {0, 0};
    float2 stat[2];
    hold_rows<W>(q, q_rows);
    hold_rows<W>(dy, dy_rows);
    for (int i = 0; i < W / 8 * 4; i++) dq[0][i / 4][i % 4] = 0;
    for (int r = 0; r < 2; r++) {
        stat[r] = stats[min(from + lane_id() / 4 + 8 * r, pairs - 1) - first];
    }

    for (int t = first_tile; t < tiles; t++) {
        bf16 *k = ring + t % STAGES * 2 * TILE, *v = k + TILE, *next = ring + (t + 1) % STAGES * 2 * TILE;
        if (STAGES == 1 && t > first_tile) {
            __syncthreads();                                         /* nobody reads tile t - 1 */
            load_keys<W>(k, v, c.qkv, h, s, kv, t, end);
            cp_async_commit();
        }
        cp_async_wait<0>();
        __syncthreads();
        if (STAGES == 2 && t + 1 < tiles) load_keys<W>(next, next + TILE, c.qkv, h, s, kv, t + 1, end);
        cp_async_commit();
        uint32_t bad = 0;
        if (t * KV_TILE + KV_TILE - 1 > block_first || t * KV_TILE < first_key(h, end - 1)) { /* not seen by all */
            bad = bad_rows<W>(k, words);
            if (bad) clear_rows<W>(k, bad);
        }
        bool masked = t * KV_TILE + KV_TILE - 1 > warp_first || t * KV_TILE < first_key(h, warp_last);
        if (t * KV_TILE <= warp_last && t * KV_TILE + KV_TILE > first_key(h, warp_first))
            add_keys<W>(dq, poison, q, dy, q_rows, dy_rows, k, v, stat, bad, masked, h, s, from, pairs, t);
    }

    float scale = h.scale * LN2; /* of the scores */
#pragma unroll
    for (int r = 0; r < 2; r++) {
        int pair = from + lane_id() / 4 + 8 * r, row = row_of_pair(h, pair);
        if (row >= s.len) continue;
        bf16 *to = c.dqkv + (size_t)(s.start + row) * qkv_stride(h) + head + (size_t)(pair - row * h.group) * h.D;
#pragma unroll
        for (int n = 0; n < W / 8; n++)
            if (n * 8 < h.D)
                *(uint32_t *)(to + n * 8 + lane_id() % 4 * 2) =
                    pack2(dq[0][n][2 * r] * scale + poison[r], dq[0][n][2 * r + 1] * scale + poison[r]);
    }
}

/* -- dK, dV -------------------------------------------------------------------------------------------------------- */

/* A tile of BWD_PAIRS queries: of a segment with rows [start, start + len), which sees the key rows [first, end);
   end < 0: it is the keys' own segment, a row sees itself and what is before it, or all. */
struct queries {
    int start, len, tile, first, end;
};

/* The tiles behind a block's keys, one after the other. One thread walks, so that no other holds this in registers. */
struct walk {
    struct segment own; /* the keys' */
    int key, keys; /* packed rows [key, key + keys) */
    struct queries q; /* the current one; len 0: there is none */
    int tiles, index; /* where its segment's tiles end, and its number */
    int skip, left; /* tiles of dependents that earlier slices have, and that are this slice's */
};

static __device__ inline int tiles_of(struct heads h, int rows) { return (rows * h.group + BWD_PAIRS - 1) / BWD_PAIRS; }

static __device__ void begin_walk(struct walk *w, const struct backward &c, struct key_task task, struct segment own,
                                  int keys) {
    int dependents = c.map.dependent_tiles[task.segment], slices = c.map.slices[task.segment];
    int skip = dependents * task.slice / slices, left = dependents * (task.slice + 1) / slices - skip;
    *w = (struct walk){own, own.start + task.first, keys, {own.start, own.len, -1, 0, -1}, 0, -1, skip, left};
    if (task.slice || c.heads.sight == SEES_PREFIX) return;
    if (c.heads.sight == SEES_BEFORE)
        w->q.tile = task.first * c.heads.group / BWD_PAIRS - 1; /* earlier rows do not see the block's first key */
    w->tiles = tiles_of(c.heads, min(own.len, task.first + keys - 1 + c.heads.window));
}

static __device__ struct queries next_tile(struct walk *w, const struct backward &c) {
    if (++w->q.tile < w->tiles) return w->q;
    while (w->left > 0 && ++w->index < c.n_segments) {
        struct segment s = c.segments[w->index];
        int tiles = tiles_of(c.heads, rows_behind(s, w->own.start, w->own.len, c.heads.window));
        int skipped = min(w->skip, tiles), taken = min(w->left, tiles - skipped);
        w->skip -= skipped;
        w->left -= taken;
        w->q = (struct queries){s.start, s.len, skipped, s.prefix, s.prefix + s.prefix_len};
        w->tiles = min(skipped + taken, tiles_of(c.heads, rows_behind(s, w->key, w->keys, c.heads.window)));
        if (skipped < w->tiles) return w->q;
    }
    w->tiles = w->q.len = 0;
    return w->q;
}

/* The last packed row whose window reaches back to the key in row `key`. */
static __device__ inline int last_reaching(const struct queries &q, struct heads h, int key) {
    return key + h.window - 1 + (q.end < 0 ? 0 : q.start - q.end); /* rows behind a prefix go on where it ends */
}

/* Packed rows [first, last] of the queries that see the key in row `key`; last < 0: none. */
struct seers {
    int first, last;
};

static __device__ inline struct seers seers_of(const struct queries &q, struct heads h, int key) {
    bool visible = q.end < 0 || (key >= q.first && key < q.end);
    bool before = q.end < 0 && h.sight == SEES_BEFORE;
    return (struct seers){before ? key : 0, visible ? last_reaching(q, h, key) : -1};
}

/* packed row of the tile's pair j */
static __device__ inline int query_row(struct queries q, struct heads h, int j) {
    return q.start + row_of_pair(h, q.tile * BWD_PAIRS + j);
}

/* p = ds = 0 where the query does not see the key; key: the row of the warp's first key */
static __device__ inline void hide_queries(float p[4][4], float ds[4][4], struct queries q, struct heads h, int key) {
    struct seers of[2] = {seers_of(q, h, key + lane_id() / 4), seers_of(q, h, key + lane_id() / 4 + 8)};
#pragma unroll
    for (int i = 0; i < 16; i++) {
        int row = query_row(q, h, key_of(i / 4, i));
        if (row < of[i % 4 / 2].first || row > of[i % 4 / 2].last) p[i / 4][i % 4] = ds[i / 4][i % 4] = 0;
    }
}

template <int W>
static __device__ void load_queries(const struct backward &c, bf16 *q, bf16 *dy, struct queries of, int kv) {
    struct heads h = c.heads;
    size_t head = (size_t)kv * h.group * h.D, y_stride = (size_t)h.Hq * h.D;
    int first = of.tile * BWD_PAIRS, pairs = of.len * h.group;
    load_pairs<W>(q, c.qkv + (size_t)of.start * qkv_stride(h) + head, qkv_stride(h), h, first, BWD_PAIRS, pairs);
    load_pairs<W>(dy, c.dy + (size_t)of.start * y_stride + head, y_stride, h, first, BWD_PAIRS, pairs);
}

/* of the tile's pair j; a pair that is not there has p = 0 */
static __device__ float2 stat_of(const struct backward &c, struct queries of, int kv, int j) {
    struct heads h = c.heads;
    int pair = of.tile * BWD_PAIRS + j, row = row_of_pair(h, pair);
    if (row >= of.len) return make_float2(INFINITY, 0);
    return c.stats[(size_t)(of.start + row) * h.Hq + (size_t)(kv * h.group + pair - row * h.group)];
}

/* columns of dk and dv that a block sums */
static constexpr __host__ __device__ int sums_of(int W) { return W < WIDE ? W : W / 2; }

/* A warp's 16 keys and a tile of queries; dk and dv from `column` on. */
template <int W>
static __device__ inline void add_queries(float dk[1][sums_of(W) / 8][4], float dv[1][sums_of(W) / 8][4],
                                          const uint32_t k[1][W / 16][4], const bf16 *k_rows, const bf16 *v_rows,
                                          const bf16 *q, const bf16 *dy, const float2 *stats, struct queries of,
                                          struct heads h, int key, int column, bool masked) {
    constexpr int N = sums_of(W) / 16;
    float p[1][4][4], ds[1][4][4];
    uint32_t packed[1][2][4];
    held_scores<W>(p, k, k_rows, q);
    tile_scores_of<W>(ds[0], v_rows, dy);
#pragma unroll
    for (int n = 0; n < 4; n++) {
        float4 two = *(const float4 *)(stats + key_of(n, 0));
        float2 stat[4] = {{two.x, two.y}, {two.z, two.w}, {two.x, two.y}, {two.z, two.w}};
        gradients(p[0][n], ds[0][n], stat, h.scale);
    }
    if (masked) hide_queries(p[0], ds[0], of, h, key);
    pack_scores(packed[0], p[0]);
    tile_values<W, 1, N>(dv, packed, dy, column / 16, 1);
    pack_scores(packed[0], ds[0]);
    tile_values<W, 1, N>(dk, packed, q, column / 16, 1);
}

/* dk, dv of the warp's keys from `column` on: rounded to dqkv, or to the slice's sums */
template <int W>
static __device__ void store_keys(const struct backward &c, struct key_task task, int key, int keys, int kv, int column,
                                  const float dk[sums_of(W) / 8][4], const float dv[sums_of(W) / 8][4],
                                  const float poison[2]) {
    struct heads h = c.heads;
    float scale = h.scale * LN2;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        int j = warp_id() * 16 + lane_id() / 4 + 8 * r;
        if (j >= keys) continue;
        bf16 *to = c.dqkv + (size_t)(key + j) * qkv_stride(h) + (size_t)(h.Hq + kv) * h.D;
        float *sum = c.sums + ((size_t)(task.sums + task.first + j) * h.Hkv + (size_t)kv) * 2 * W;
#pragma unroll
        for (int n = 0; n < sums_of(W) / 8; n++) {
            int d = column + n * 8 + lane_id() % 4 * 2;
            float2 k = make_float2(dk[n][2 * r] + poison[r], dk[n][2 * r + 1] + poison[r]);
            float2 v = make_float2(dv[n][2 * r] + poison[r], dv[n][2 * r + 1] + poison[r]);
            if (d >= h.D) continue;
            if (task.sums < 0) {
                *(uint32_t *)(to + d) = pack2(k.x * scale, k.y * scale);
                *(uint32_t *)(to + h.Hkv * h.D + d) = pack2(v.x, v.y);
            } else {
                *(float2 *)(sum + d) = k;
                *(float2 *)(sum + W + d) = v;
            }
        }
    }
}

/* A block's keys; blockIdx.z: which sums_of(W) of their columns. */
template <int W>
static __global__ void __launch_bounds__(THREADS, W <= 64 ? 3 : 2) attend_dkv(const struct backward c) {
    constexpr int KEYS = KEY_ROWS * pitch(W), TILE = BWD_PAIRS * pitch(W), STAGES = stages(W);
    SHARED(bf16, memory);
    __shared__ uint32_t words[2][WARPS];
    __shared__ __align__(16) float2 stats[STAGES][BWD_PAIRS];
    __shared__ struct walk walk;
    __shared__ struct queries tiles[3]; /* this one, the next, and the one that is looked for */
    struct heads h = c.heads;
    int kv = blockIdx.y, column = blockIdx.z * sums_of(W);
    if (blockIdx.z == 0) {
        clear_gaps(c, (h.Hq + kv) * h.D, h.D);
        clear_gaps(c, (h.Hq + h.Hkv + kv) * h.D, h.D);
    }
    if ((int)blockIdx.x >= c.map.count[KEY_TASKS]) return;
    struct key_task task = c.map.key_tasks[blockIdx.x];
    struct segment own = c.segments[task.segment];
    int key = own.start + task.first, keys = min((int)KEY_ROWS, own.len - task.first), warp_key = key + warp_id() * 16;
    bf16 *k_tile = memory, *v_tile = memory + KEYS, *ring = memory + 2 * KEYS;
    const struct segment rows = {key, keys, 0, 0};
    for (int t = 0; t < KEY_ROWS / KV_TILE; t++)
        load_keys<W>(k_tile + t * TILE, v_tile + t * TILE, c.qkv, h, rows, kv, t, keys);
    if (threadIdx.x == 0) {
        begin_walk(&walk, c, task, own, keys);
        tiles[0] = next_tile(&walk, c);
        tiles[1] = next_tile(&walk, c);
    }
    __syncthreads();
    if (tiles[0].len) {
        load_queries<W>(c, ring, ring + TILE, tiles[0], kv);
        if (threadIdx.x < BWD_PAIRS) stats[0][threadIdx.x] = stat_of(c, tiles[0], kv, threadIdx.x);
    }
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();

    const bf16 *k_rows = k_tile + warp_id() * 16 * pitch(W), *v_rows = v_tile + warp_id() * 16 * pitch(W);
    uint32_t k[1][W / 16][4];
    float dk[1][sums_of(W) / 8][4], dv[1][sums_of(W) / 8][4], poison[2] = {0, 0};
    hold_rows<W>(k, k_rows);
    for (int i = 0; i < sums_of(W) / 2; i++) dk[0][i / 4][i % 4] = dv[0][i / 4][i % 4] = 0;
    for (int turn = 0; tiles[turn % 3].len; turn++) {
        const struct queries &of = tiles[turn % 3];
        float2 stat = make_float2(INFINITY, 0);
        bf16 *q = ring + turn % STAGES * 2 * TILE, *dy = q + TILE, *ahead = ring + (turn + 1) % STAGES * 2 * TILE;
        if (STAGES == 1 && turn) {
            __syncthreads(); /* nobody reads the tile before */
            load_queries<W>(c, q, dy, of, kv);
            if (threadIdx.x < BWD_PAIRS) stats[0][threadIdx.x] = stat_of(c, of, kv, threadIdx.x);
            cp_async_commit();
        }
        cp_async_wait<0>();
        __syncthreads(); /* this tile is there, and nobody reads the one before */
        struct queries next = tiles[(turn + 1) % 3];
        if (STAGES == 2 && next.len) {
            load_queries<W>(c, ahead, ahead + TILE, next, kv);
            if (threadIdx.x < BWD_PAIRS) stat = stat_of(c, next, kv, threadIdx.x);
        }
        cp_async_commit();
        if (threadIdx.x == 0) tiles[(turn + 2) % 3] = next_tile(&walk, c);

        int first = query_row(of, h, 0), last = min(of.start + of.len - 1, query_row(of, h, BWD_PAIRS - 1));
        struct seers oldest = seers_of(of, h, key), newest = seers_of(of, h, key + keys - 1);
        bool behind = of.end >= 0 || h.sight == SEES_ALL || warp_key <= last;
        bool works = warp_key < key + keys && behind && first <= last_reaching(of, h, warp_key + 15);
        bool masked = first < newest.first || last > oldest.last || last > newest.last;
        if (masked) {
            uint32_t bad = bad_rows<W>(q, words[0]) | bad_rows<W>(dy, words[1]);
            if (bad) {
                clear_rows<W>(q, bad);
                clear_rows<W>(dy, bad);
                for (int r = 0; r < 2; r++) {
                    struct seers rows = seers_of(of, h, warp_key + lane_id() / 4 + 8 * r);
                    for (uint32_t left = bad; left; left &= left - 1) {
                        int row = query_row(of, h, __ffs((int)left) - 1);
                        if (row >= rows.first && row <= rows.last) poison[r] = NAN;
                    }
                }
            }
        }
        if (works)
            add_queries<W>(dk, dv, k, k_rows, v_rows, q, dy, stats[turn % STAGES], of, h, warp_key, column, masked);
        if (STAGES == 2 && threadIdx.x < BWD_PAIRS) stats[(turn + 1) % STAGES][threadIdx.x] = stat;
    }
    store_keys<W>(c, c.map.key_tasks[blockIdx.x], key, keys, kv, column, dk[0], dv[0], poison);
}

/* dk, dv of the keys that have several slices: their sums in order, rounded */
template <int W> static __global__ void __launch_bounds__(THREADS) add_slices(const struct backward c) {
    struct heads h = c.heads;
    if ((int)blockIdx.x >= c.map.count[KEY_TASKS]) return;
    struct key_task task = c.map.key_tasks[blockIdx.x];
    if (task.slice || task.sums < 0) return;
    struct segment own = c.segments[task.segment];
    int slices = c.map.slices[task.segment], keys = min((int)KEY_ROWS, own.len - task.first), kv = blockIdx.y;
    float scale = h.scale * LN2;
    for (int i = threadIdx.x; i < keys * W; i += THREADS) { /* pairs of columns: W / 2 of dk, W / 2 of dv */
        int j = i / W, d = i % (W / 2) * 2, of_v = i % W >= W / 2;
        if (d >= h.D) continue;
        const float *sum = c.sums + ((size_t)(task.sums + task.first + j) * h.Hkv + (size_t)kv) * 2 * W + of_v * W + d;
        float2 total = make_float2(0, 0);
        for (int slice = 0; slice < slices; slice++, sum += (size_t)own.len * h.Hkv * 2 * W) {
            float2 part = *(const float2 *)sum;
            total = make_float2(total.x + part.x, total.y + part.y);
        }
        bf16 *to = c.dqkv + (size_t)(own.start + task.first + j) * qkv_stride(h);
        to += (size_t)(h.Hq + of_v * h.Hkv + kv) * h.D + d;
        *(uint32_t *)to = of_v ? pack2(total.x, total.y) : pack2(total.x * scale, total.y * scale);
    }
}

/* -- the operation ------------------------------------------------------------------------------------------------- */

template <int W> static int run_backward(const struct cuda_ctx *ctx, const struct backward c) {
    size_t shared = (2 * QUERY_ROWS + 2 * stages(W) * KV_TILE) * pitch(W) * sizeof(bf16); /* of either kernel */
    unsigned Hkv = (unsigned)c.heads.Hkv;
    unsigned queries = (unsigned)query_tiles_max(c.N, c.n_segments, c.heads.group, QUERY_ROWS);
    unsigned tasks = (unsigned)key_tasks_max(c.N, c.n_segments);
    TRY(attention_map(ctx, c.map, c.segments, c.n_segments, c.N, c.heads, QUERY_ROWS, true));
    LAUNCH(ctx, attend_dq<W>, dim3(queries, Hkv), THREADS, shared, c);
    LAUNCH(ctx, attend_dkv<W>, dim3(tasks, Hkv, W / sums_of(W)), THREADS, shared, c);
    LAUNCH(ctx, add_slices<W>, dim3(tasks, Hkv), THREADS, 0, c);
    return OK;
}

/* Puts the scratch of a call at *memory (or nowhere); returns its bytes. */
static size_t backward_place(struct backward *c, char **memory) {
    size_t map = attention_map_place(&c->map, memory, c->N, c->n_segments, c->heads.group);
    size_t stats = (size_t)c->N * c->heads.Hq * sizeof *c->stats;
    stats = (stats + 255) / 256 * 256;
    c->stats = (float2 *)*memory;
    c->sums = (float *)(*memory + stats);
    return map + stats + (size_t)c->N * c->heads.Hkv * 2 * width_of(c->heads.D) * sizeof *c->sums;
}

int cuda_attention_bwd(void *ctx_, real *dqkv, const real *dy, const real *y, const float *lse, const real *qkv,
                       const struct segment *segments, int n_segments, int N, const struct attention_shape *a) {
    const struct cuda_ctx *ctx = (const struct cuda_ctx *)ctx_;
    struct backward c = {(bf16 *)dqkv, (const bf16 *)dy, (const bf16 *)y, (const bf16 *)qkv, lse, segments};
    char *memory = NULL;
    c.n_segments = n_segments;
    c.N = N;
    TRY(attention_heads(&c.heads, a));
    TRY(scratch((void **)&memory, ctx, backward_place(&c, &memory)));
    backward_place(&c, &memory);
    return BY_WIDTH(a->D, run_backward, ctx, c);
}

size_t attention_bwd_scratch(const struct op_limits *need) {
    if (need->kv_heads <= 0 || need->head_dim <= 0) return 0;
    struct backward c = {};
    char *memory = NULL;
    c.heads.Hq = need->heads;
    c.heads.Hkv = need->kv_heads;
    c.heads.D = need->head_dim;
    c.heads.group = (need->heads + need->kv_heads - 1) / need->kv_heads;
    c.n_segments = need->segments;
    c.N = need->rows;
    return backward_place(&c, &memory); /* the forward needs its map alone */
}
