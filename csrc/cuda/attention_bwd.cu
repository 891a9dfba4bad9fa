/* Attention, backward, with P recomputed from lse: dV = P^T dY, dS = scale P (dY V^T - delta), dQ = dS K,
   dK = dS^T Q, delta = sum dY Y. Two kernels, each of which owns what it writes, so no sum depends on which block is
   first: attend_dq walks the keys of a tile of queries, as the forward does; attend_dkv walks the queries behind a tile
   of keys: its segment's own, then those of the segments that have it as a prefix, in segment order. Where these are
   many they are shared out over slices, whose sums add_slices adds in order.
   FLOPs for each pair and key: 6 D in attend_dq, 8 D in attend_dkv (the scores twice: the price of no atomics). */
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
            float2 dy = unpack2(*(const uint32_t *)(dy_tile + j * pitch(W) + d));
            float2 y = unpack2(*(const uint32_t *)(c.y + at * h.D + d));
            sum = fmaf(dy.y, y.y, fmaf(dy.x, y.x, sum));
        }
        float2 stat = make_float2(c.lse[at] * LOG2E, warp_sum(sum));
        if (lane_id()) continue;
        stats[j] = stat;
        c.stats[at] = stat;
    }
}

template <int W>
static __global__ void __launch_bounds__(THREADS, W <= 80 ? 3 : 2) attend_dq(const struct backward c) {
    constexpr int TILE = KV_TILE * pitch(W), FRONT = QUERY_ROWS * pitch(W);
    SHARED(bf16, memory);
    __shared__ uint32_t words[WARPS];
    __shared__ float2 stats[QUERY_ROWS];
    struct heads h = c.heads;
    int kv = blockIdx.y;
    clear_gaps(c, kv * h.group * h.D, h.group * h.D);
    if ((int)blockIdx.x >= c.map.count[QUERY_TILES]) return;
    int2 task = c.map.query_tile[blockIdx.x];
    struct segment s = c.segments[task.x];
    int first = task.y * QUERY_ROWS, pairs = s.len * h.group, from = first + warp_id() * 16;
    int end = s.prefix_len + row_of_pair(h, min(first + QUERY_ROWS, pairs) - 1) + 1;
    int tiles = (end + KV_TILE - 1) / KV_TILE;
    int block_first = s.prefix_len + row_of_pair(h, first);
    int warp_first = s.prefix_len + row_of_pair(h, min(from, pairs - 1));
    int warp_last = from < pairs ? s.prefix_len + row_of_pair(h, min(from + 16, pairs) - 1) : -1;
    bf16 *q_tile = memory, *dy_tile = memory + FRONT, *ring = memory + 2 * FRONT;
    size_t head = (size_t)kv * h.group * h.D, y_stride = (size_t)h.Hq * h.D;
    load_pairs<W>(q_tile, c.qkv + (size_t)s.start * qkv_stride(h) + head, qkv_stride(h), h, first, QUERY_ROWS, pairs);
    load_pairs<W>(dy_tile, c.dy + (size_t)s.start * y_stride + head, y_stride, h, first, QUERY_ROWS, pairs);
    load_keys<W>(ring, ring + TILE, c.qkv, h, s, kv, 0, end);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
    find_stats<W>(c, stats, dy_tile, s, kv, first);
    __syncthreads();

    uint32_t q[1][W / 16][4], dy[1][W / 16][4];
    float dq[1][W / 8][4], poison[2] = {0, 0};
    float2 stat[2];
    load_rows<W>(q[0], q_tile + warp_id() * 16 * pitch(W));
    load_rows<W>(dy[0], dy_tile + warp_id() * 16 * pitch(W));
    for (int i = 0; i < W / 8 * 4; i++) dq[0][i / 4][i % 4] = 0;
    for (int r = 0; r < 2; r++) {
        stat[r] = stats[min(from + lane_id() / 4 + 8 * r, pairs - 1) - first];
    }

    for (int t = 0; t < tiles; t++) {
        cp_async_wait<0>();
        __syncthreads();
        bf16 *k = ring + t % 2 * 2 * TILE, *v = k + TILE, *next = ring + (t + 1) % 2 * 2 * TILE;
        if (t + 1 < tiles) load_keys<W>(next, next + TILE, c.qkv, h, s, kv, t + 1, end);
        cp_async_commit();
        uint32_t bad = 0;
        if (t * KV_TILE + KV_TILE - 1 > block_first) {
            bad = bad_rows<W>(k, words);
            if (bad) clear_rows<W>(k, bad);
        }
        if (t * KV_TILE > warp_last) continue;

        float score[1][4][4], ds[1][4][4];
        uint32_t packed[1][2][4];
        tile_scores<W, 1>(score, q, k);
        tile_scores<W, 1>(ds, dy, v);
        #pragma unroll
        for (int n = 0; n < 4; n++) {
            float2 of_row[4] = {stat[0], stat[0], stat[1], stat[1]};
            gradients(score[0][n], ds[0][n], of_row, h.scale);
        }
        if (t * KV_TILE + KV_TILE - 1 > warp_first || bad) {
            int last[2];
            last_keys(last, h, s, from, pairs, t);
            #pragma unroll
            for (int i = 0; i < 16; i++)
                if (key_of(i / 4, i) > last[i % 4 / 2]) ds[0][i / 4][i % 4] = 0;
            for (int r = 0; r < 2; r++)
                if (bad & bits_up_to(last[r])) poison[r] = NAN;
        }
        pack_scores(packed[0], ds[0]);
        tile_values<W, 1, W / 16>(dq, packed, k, 0, 1);
    }

    float scale = h.scale * LN2;                                     /* of scores */
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
   end < 0: it is the keys' own segment, a row sees itself and what is before it. */
struct queries { int start, len, tile, first, end; };

/* The tiles behind a block's keys, one after the other. One thread walks, so that no other holds this in registers. */
struct walk {
    struct queries q;                /* the current one; len 0: there is none */
    int tiles, index;                /* where its segment's tiles end, and its number */
    int skip, left;                  /* tiles of dependents that earlier slices have, and that are this slice's */
};

static __device__ void begin_walk(struct walk *w, const struct backward &c, int4 task, struct segment own) {
    int dependents = c.map.dependent_tiles[task.x], slices = c.map.slices[task.x], group = c.heads.group;
    int skip = dependents * task.z / slices, left = dependents * (task.z + 1) / slices - skip;
    *w = (struct walk){{own.start, own.len, -1, 0, -1}, 0, -1, skip, left};
    if (task.z) return;
    w->q.tile = task.y * group / BWD_PAIRS - 1;                      /* earlier rows do not see the block's first key */
    w->tiles = (own.len * group + BWD_PAIRS - 1) / BWD_PAIRS;
}

/* The next tile. own: the keys' segment; keys [key, key + keys) */
static __device__ struct queries next_tile(struct walk *w, const struct backward &c, struct segment own, int key,
                                           int keys) {
    if (++w->q.tile < w->tiles) return w->q;
    while (w->left > 0 && ++w->index < c.n_segments) {
        struct segment s = c.segments[w->index];
        if (!depends(s, own.start, own.len)) continue;
        int tiles = (s.len * c.heads.group + BWD_PAIRS - 1) / BWD_PAIRS;
        int skipped = min(w->skip, tiles), taken = min(w->left, tiles - skipped);
        w->skip -= skipped;
        w->left -= taken;
        w->q = (struct queries){s.start, s.len, skipped, s.prefix, s.prefix + s.prefix_len};
        w->tiles = skipped + taken;
        if (taken && depends(s, key, keys)) return w->q;
    }
    w->tiles = w->q.len = 0;
    return w->q;
}

/* does a query, which is in packed row `row`, see the key in row `key`? */
static __device__ inline bool sees(struct queries q, int row, int key) {
    return q.end < 0 ? key <= row : key >= q.first && key < q.end;
}

/* packed row of the tile's pair j */
static __device__ inline int query_row(struct queries q, struct heads h, int j) {
    return q.start + row_of_pair(h, q.tile * BWD_PAIRS + j);
}

/* p = ds = 0 where the query does not see the key; key: the row of the warp's first key */
static __device__ inline void hide_queries(float p[4][4], float ds[4][4], struct queries q, struct heads h, int key) {
    #pragma unroll
    for (int i = 0; i < 16; i++)
        if (!sees(q, query_row(q, h, key_of(i / 4, i)), key + lane_id() / 4 + i % 4 / 2 * 8))
            p[i / 4][i % 4] = ds[i / 4][i % 4] = 0;
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

/* A warp's 16 keys and a tile of queries. */
template <int W>
static __device__ inline void add_queries(float dk[1][W / 8][4], float dv[1][W / 8][4], const uint32_t k[1][W / 16][4],
                                          const bf16 *v_rows, const bf16 *q, const bf16 *dy, const float2 *stats,
                                          struct queries of, struct heads h, int key, bool masked) {
    float p[1][4][4], ds[1][4][4];
    uint32_t packed[1][2][4];
    tile_scores<W, 1>(p, k, q);
    tile_scores_of<W>(ds[0], v_rows, dy);
    #pragma unroll
    for (int n = 0; n < 4; n++) {
        float4 two = *(const float4 *)(stats + key_of(n, 0));
        float2 stat[4] = {{two.x, two.y}, {two.z, two.w}, {two.x, two.y}, {two.z, two.w}};
        gradients(p[0][n], ds[0][n], stat, h.scale);
    }
    if (masked) hide_queries(p[0], ds[0], of, h, key);
    pack_scores(packed[0], p[0]);
    tile_values<W, 1, W / 16>(dv, packed, dy, 0, 1);
    pack_scores(packed[0], ds[0]);
    tile_values<W, 1, W / 16>(dk, packed, q, 0, 1);
}

/* dk, dv of the warp's keys: rounded to dqkv, or to the slice's sums */
template <int W>
static __device__ void store_keys(const struct backward &c, int4 task, int key, int keys, int kv,
                                  const float dk[W / 8][4], const float dv[W / 8][4], const float poison[2]) {
    struct heads h = c.heads;
    float scale = h.scale * LN2;
    #pragma unroll
    for (int r = 0; r < 2; r++) {
        int j = warp_id() * 16 + lane_id() / 4 + 8 * r;
        if (j >= keys) continue;
        bf16 *to = c.dqkv + (size_t)(key + j) * qkv_stride(h) + (size_t)(h.Hq + kv) * h.D;
        float *sum = c.sums + ((size_t)(task.w + task.y + j) * h.Hkv + (size_t)kv) * 2 * W;
        #pragma unroll
        for (int n = 0; n < W / 8; n++) {
            int d = n * 8 + lane_id() % 4 * 2;
            float2 k = make_float2(dk[n][2 * r] + poison[r], dk[n][2 * r + 1] + poison[r]);
            float2 v = make_float2(dv[n][2 * r] + poison[r], dv[n][2 * r + 1] + poison[r]);
            if (d >= h.D) continue;
            if (task.w < 0) {
                *(uint32_t *)(to + d) = pack2(k.x * scale, k.y * scale);
                *(uint32_t *)(to + h.Hkv * h.D + d) = pack2(v.x, v.y);
            } else {
                *(float2 *)(sum + d) = k;
                *(float2 *)(sum + W + d) = v;
            }
        }
    }
}

template <int W>
static __global__ void __launch_bounds__(THREADS, W <= 64 ? 3 : 2) attend_dkv(const struct backward c) {
    constexpr int KEYS = KEY_ROWS * pitch(W), TILE = BWD_PAIRS * pitch(W);
    SHARED(bf16, memory);
    __shared__ uint32_t words[2][WARPS];
    __shared__ __align__(16) float2 stats[2][BWD_PAIRS];
    __shared__ struct walk walk;
    __shared__ struct queries tiles[3];                /* this one, the next, and the one that is looked for */
    struct heads h = c.heads;
    int kv = blockIdx.y;
    clear_gaps(c, (h.Hq + kv) * h.D, h.D);
    clear_gaps(c, (h.Hq + h.Hkv + kv) * h.D, h.D);
    if ((int)blockIdx.x >= c.map.count[KEY_TASKS]) return;
    int4 task = c.map.key_task[blockIdx.x];
    struct segment own = c.segments[task.x];
    int key = own.start + task.y, keys = min((int)KEY_ROWS, own.len - task.y), warp_key = key + warp_id() * 16;
    bf16 *k_tile = memory, *v_tile = memory + KEYS, *ring = memory + 2 * KEYS;
    const struct segment rows = {key, keys, 0, 0};
    for (int t = 0; t < KEY_ROWS / KV_TILE; t++)
        load_keys<W>(k_tile + t * TILE, v_tile + t * TILE, c.qkv, h, rows, kv, t, keys);
    if (threadIdx.x == 0) {
        begin_walk(&walk, c, task, own);
        tiles[0] = next_tile(&walk, c, own, key, keys);
        tiles[1] = next_tile(&walk, c, own, key, keys);
    }
    __syncthreads();
    struct queries of = tiles[0];
    if (of.len) {
        load_queries<W>(c, ring, ring + TILE, of, kv);
        if (threadIdx.x < BWD_PAIRS) stats[0][threadIdx.x] = stat_of(c, of, kv, threadIdx.x);
    }
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();

    uint32_t k[1][W / 16][4];
    float dk[1][W / 8][4], dv[1][W / 8][4], poison[2] = {0, 0};
    load_rows<W>(k[0], k_tile + warp_id() * 16 * pitch(W));
    for (int i = 0; i < W / 8 * 4; i++) dk[0][i / 4][i % 4] = dv[0][i / 4][i % 4] = 0;
    for (int turn = 0; of.len; turn++) {
        float2 stat = make_float2(INFINITY, 0);
        cp_async_wait<0>();
        __syncthreads();  /* this tile is there, and nobody reads the one before */
        bf16 *q = ring + turn % 2 * 2 * TILE, *dy = q + TILE, *ahead = ring + (turn + 1) % 2 * 2 * TILE;
        struct queries next = tiles[(turn + 1) % 3];
        if (next.len) {
            load_queries<W>(c, ahead, ahead + TILE, next, kv);
            if (threadIdx.x < BWD_PAIRS) stat = stat_of(c, next, kv, threadIdx.x);
        }
        cp_async_commit();
        if (threadIdx.x == 0) tiles[(turn + 2) % 3] = next_tile(&walk, c, own, key, keys);

        int last = min(of.start + of.len - 1, query_row(of, h, BWD_PAIRS - 1));
        bool masked = of.end < 0 ? key + keys - 1 > query_row(of, h, 0) : key < of.first || key + keys > of.end;
        if (masked) {
            uint32_t bad = bad_rows<W>(q, words[0]) | bad_rows<W>(dy, words[1]);
            if (bad) {
                int latest = query_row(of, h, 31 - __clz((int)bad));
                clear_rows<W>(q, bad);
                clear_rows<W>(dy, bad);
                for (int r = 0; r < 2; r++)
                    if (sees(of, latest, warp_key + lane_id() / 4 + 8 * r)) poison[r] = NAN;
            }
        }
        if (warp_key < key + keys && (of.end >= 0 || warp_key <= last))
            add_queries<W>(dk, dv, k, v_tile + warp_id() * 16 * pitch(W), q, dy, stats[turn % 2], of, h, warp_key,
                           masked);
        if (threadIdx.x < BWD_PAIRS) stats[(turn + 1) % 2][threadIdx.x] = stat;
        of = tiles[(turn + 1) % 3];
    }
    store_keys<W>(c, task, key, keys, kv, dk[0], dv[0], poison);
}

/* dk, dv of the keys that have several slices: their sums in order, rounded */
template <int W>
static __global__ void __launch_bounds__(THREADS) add_slices(const struct backward c) {
    struct heads h = c.heads;
    if ((int)blockIdx.x >= c.map.count[KEY_TASKS]) return;
    int4 task = c.map.key_task[blockIdx.x];
    if (task.z || task.w < 0) return;
    struct segment own = c.segments[task.x];
    int slices = c.map.slices[task.x], keys = min((int)KEY_ROWS, own.len - task.y), kv = blockIdx.y;
    float scale = h.scale * LN2;
    for (int i = threadIdx.x; i < keys * W; i += THREADS) {          /* pairs of columns: W / 2 of dk, W / 2 of dv */
        int j = i / W, d = i % (W / 2) * 2, of_v = i % W >= W / 2;
        if (d >= h.D) continue;
        const float *sum = c.sums + ((size_t)(task.w + task.y + j) * h.Hkv + (size_t)kv) * 2 * W + of_v * W + d;
        float2 total = make_float2(0, 0);
        for (int slice = 0; slice < slices; slice++, sum += (size_t)own.len * h.Hkv * 2 * W) {
            float2 part = *(const float2 *)sum;
            total = make_float2(total.x + part.x, total.y + part.y);
        }
        bf16 *to = c.dqkv + (size_t)(own.start + task.y + j) * qkv_stride(h);
        to += (size_t)(h.Hq + of_v * h.Hkv + kv) * h.D + d;
        *(uint32_t *)to = of_v ? pack2(total.x, total.y) : pack2(total.x * scale, total.y * scale);
    }
}

/* -- the operation ------------------------------------------------------------------------------------------------- */

template <int W>
static int run_backward(const struct cuda_ctx *ctx, const struct backward c) {
    size_t shared = (2 * QUERY_ROWS + 4 * KV_TILE) * pitch(W) * sizeof(bf16);       /* of either kernel */
    unsigned Hkv = (unsigned)c.heads.Hkv;
    unsigned queries = (unsigned)query_tiles_max(c.N, c.n_segments, c.heads.group, QUERY_ROWS);
    unsigned tasks = (unsigned)key_tasks_max(c.N, c.n_segments);
    TRY(attention_map(ctx, c.map, c.segments, c.n_segments, c.N, c.heads.group, QUERY_ROWS, true));
    LAUNCH(ctx, attend_dq<W>, dim3(queries, Hkv), THREADS, shared, c);
    LAUNCH(ctx, attend_dkv<W>, dim3(tasks, Hkv), THREADS, shared, c);
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
    return backward_place(&c, &memory);                              /* the forward needs its map alone */
}
