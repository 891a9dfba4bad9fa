/* Attention over packed rows, forward. A block takes 64 or 128 pairs of one segment and KV head, 16 or 32 a warp:
   queries and outputs live in registers, keys and values pass through shared memory. FLOPs: 4 D for each pair and
   key it sees, rounded up to a tile at either end of its window. Bytes: qkv read and y written once, if the keys of
   a segment stay in L2 while its tiles are worked on. Bound by tensor cores and, next to them, shared memory: a warp
   reads 128 W bytes of a tile for 2048 W M multiplications (M = 1, 2: 16-row parts of a warp). */
#include "cuda/attention.cuh"

#include <math.h>

struct attention_call {
    bf16 *y;
    float *lse;
    const bf16 *qkv;
    const struct segment *segments;
    struct attention_map map;
    struct heads heads;
    int N;
};

/* 16-row parts of a warp: two halve the reads of shared memory, where the registers allow it (202 of them at W = 64, so
   two blocks a multiprocessor; three spill 16 bytes) */
static constexpr __host__ __device__ int parts_of(int W) { return W <= 64 ? 2 : 1; }

/* floats of a lane's part of the state of 16 rows: output, max, sum */
static constexpr __host__ __device__ int kept_floats(int W) { return W / 2 + 4; }

/* bytes of the queries' tile, where the state of the chunks so far is kept later */
static constexpr __host__ __device__ int front_bytes(int W, bool folds) {
    int queries = 64 * parts_of(W) * pitch(W) * (int)sizeof(bf16);
    int kept = THREADS * parts_of(W) * kept_floats(W) * (int)sizeof(float);
    return folds && kept > queries ? kept : queries;
}

/* y and lse of the gaps are zero; the blocks of a KV head share them out */
static __device__ void clear_gaps(const struct attention_call &c, int kv) {
    int columns = c.heads.group * c.heads.D;
    for (int i = blockIdx.x; i < c.map.count[GAPS]; i += gridDim.x) {
        size_t at = (size_t)c.map.gap[i] * c.heads.Hq + (size_t)kv * c.heads.group;
        bf16 *y = c.y + at * c.heads.D;
        for (int j = threadIdx.x; j < columns / 8; j += THREADS) ((uint4 *)y)[j] = make_uint4(0, 0, 0, 0);
        for (int j = threadIdx.x; j < c.heads.group; j += THREADS) c.lse[at + j] = 0;
    }
}

/* y and lse of a warp's 16 rows, whose pairs begin at `first` */
template <int W>
static __device__ void finish_rows(const struct attention_call &c, struct heads h, struct segment s, int kv, int first,
                                   float o[W / 8][4], struct softmax state) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
        int pair = first + lane_id() / 4 + 8 * r, row = row_of_pair(h, pair);
        if (row >= s.len) continue;
        size_t at = (size_t)(s.start + row) * h.Hq + (size_t)(kv * h.group + pair - row * h.group);
        bf16 *y = c.y + at * h.D + lane_id() % 4 * 2;
        bool blind = h.sight == SEES_PREFIX && !s.prefix_len; /* it sees no key */
        float share = blind ? 0 : 1 / state.sum[r];
#pragma unroll
        for (int n = 0; n < W / 8; n++)
            if (n * 8 < h.D) *(uint32_t *)(y + n * 8) = pack2(o[n][2 * r] * share, o[n][2 * r + 1] * share);
        if (lane_id() % 4 == 0) c.lse[at] = blind ? 0 : (state.max[r] + log2f(state.sum[r])) * LN2;
    }
}

/* this lane's kept_floats(W), WARP floats apart, of part m of its warp */
template <int W> static __device__ float *kept_of(char *memory, int m) {
    return (float *)memory + (warp_id() * parts_of(W) + m) * kept_floats(W) * WARP + lane_id();
}

/* The chunk that is done joins the chunks before it, if any. */
template <int W>
static __device__ void fold_chunk(float *kept, const struct softmax &chunk, const float o[W / 8][4], bool first) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float *max = kept + (W / 2 + 2 * r) * WARP, *sum = max + WARP;
        struct factors by = {0, 1};
        bool begins = first || unbegun(*max, *sum);
        if (begins) *max = chunk.max[r], *sum = chunk.sum[r];
        else by = fold_row(max, sum, chunk.max[r], chunk.sum[r]);
#pragma unroll
        for (int i = 0; i < W / 4; i++) {
            float *out = kept + (i / 2 * 4 + 2 * r + i % 2) * WARP, part = o[i / 2][2 * r + i % 2];
            *out = begins ? part : fold(*out, part, by);
        }
    }
}

/* the state and output of all chunks */
template <int W> static __device__ void unfold(struct softmax *state, float o[W / 8][4], const float *kept) {
#pragma unroll
    for (int i = 0; i < W / 2; i++) o[i / 4][i % 4] = kept[i * WARP];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        state->max[r] = kept[(W / 2 + 2 * r) * WARP];
        state->sum[r] = kept[(W / 2 + 2 * r + 1) * WARP];
    }
}

/* A warp's rows meet tile t. bad: its keys whose values are not finite, and are zero by now; masked: some row does not
   see all of it; from: the first row's pair. */
template <int W>
static __device__ inline void attend_tile(struct softmax state[parts_of(W)], float o[parts_of(W)][W / 8][4],
                                          const uint32_t q[parts_of(W)][W / 16][4], const bf16 *k, const bf16 *v,
                                          uint32_t bad, bool masked, struct heads h, struct segment s, int from,
                                          int pairs, int t) {
    constexpr int M = parts_of(W);
    float score[M][4][4];
    uint32_t p[M][2][4];
    tile_scores<W, M>(score, q, k);
#pragma unroll
    for (int m = 0; m < M; m++) {
        float top[2], sum[2];
        struct reach see;
        if (masked || bad) {
            see = keys_in_sight(h, s, from + m * 16, pairs, t);
            hide_keys(score[m], see);
        }
        tile_max(top, score[m], h.scale);
        top[0] = fmaxf(state[m].max[0], top[0]);
        top[1] = fmaxf(state[m].max[1], top[1]);
        tile_exp(sum, score[m], top, h.scale);
        if (bad)
            for (int r = 0; r < 2; r++)
                if (in_sight(bad, see, r)) sum[r] = NAN;
        shrink<W / 8>(&state[m], o[m], top, sum);
        pack_scores(p[m], score[m]);
    }
    tile_values<W, M, W / 16>(o, p, v, 0, 1);
}

/* BEFORE: rows see what is before them. The two are compiled apart, because the registers have no room for a choice;
   without it a tile is seen by all rows of a block, and what is bad in it may reach them all. */
template <int W, bool BEFORE>
static __global__ void __launch_bounds__(THREADS, W == 64 || W == WIDE ? 2 : 3)
    attend(const struct attention_call c, bool folds) {
    constexpr int M = parts_of(W), ROWS = 64 * M, TILE = KV_TILE * pitch(W), STAGES = stages(W);
    SHARED(char, memory);
    __shared__ uint32_t words[WARPS];
    struct heads h = c.heads;
    h.sight = BEFORE ? SEES_BEFORE : h.sight == SEES_ALL ? SEES_ALL : SEES_PREFIX;
    if (!BEFORE) h.window = NO_WINDOW;
    int kv = blockIdx.y;
    clear_gaps(c, kv);
    if ((int)blockIdx.x >= c.map.count[QUERY_TILES]) return;
    struct query_task task = c.map.query_tasks[blockIdx.x];
    struct segment s = c.segments[task.segment];
    int first = task.tile * ROWS, pairs = s.len * h.group, from = first + warp_id() * 16 * M;  /* the warp's */
    int block_first = last_key(h, s, row_of_pair(h, first));
    int end = last_key(h, s, row_of_pair(h, min(first + ROWS, pairs) - 1)) + 1;  /* positions that the block sees */
    int first_tile = first_key(h, block_first) / KV_TILE, tiles = (end + KV_TILE - 1) / KV_TILE;
    bf16 *q_tile = (bf16 *)memory, *ring = (bf16 *)(memory + front_bytes(W, folds));
    load_pairs<W>(q_tile, c.qkv + (size_t)s.start * qkv_stride(h) + (size_t)kv * h.group * h.D, qkv_stride(h), h, first,
                  ROWS, pairs);
    bf16 *k_first = ring + first_tile % STAGES * 2 * TILE;
    load_keys<W>(k_first, k_first + TILE, c.qkv, h, s, kv, first_tile, end);
    cp_async_commit();

    int warp_first = last_key(h, s, row_of_pair(h, min(from, pairs - 1)));
    int warp_last = from < pairs ? last_key(h, s, row_of_pair(h, min(from + 16 * M, pairs) - 1)) : -1;
    uint32_t q[M][W / 16][4];
    float o[M][W / 8][4];
    struct softmax state[M];
    cp_async_wait<0>();
    __syncthreads();
#pragma unroll
    for (int m = 0; m < M; m++) {
        load_rows<W>(q[m], q_tile + (warp_id() * M + m) * 16 * pitch(W));
        state[m] = softmax_begin();
        for (int i = 0; i < W / 2; i++) o[m][i / 4][i % 4] = 0;
    }

    for (int t = first_tile; t < tiles; t++) {
        bf16 *k = ring + t % STAGES * 2 * TILE, *v = k + TILE, *next = ring + (t + 1) % STAGES * 2 * TILE;
        if (STAGES == 1 && t > first_tile) {
            __syncthreads();                                         /* nobody reads tile t - 1 */
            load_keys<W>(k, v, c.qkv, h, s, kv, t, end);
            cp_async_commit();
        }
        cp_async_wait<0>();
        __syncthreads(); /* tile t is there, and nobody reads tile t - 1 */
        if (STAGES == 2 && t + 1 < tiles) load_keys<W>(next, next + TILE, c.qkv, h, s, kv, t + 1, end);
        cp_async_commit();
        uint32_t bad = 0;
        if (BEFORE && (t * KV_TILE + KV_TILE - 1 > block_first || t * KV_TILE < first_key(h, end - 1))) {
            /* not seen by all */
            bad = bad_rows<W>(v, words);
            if (bad) clear_rows<W>(v, bad);
        }
        if (t > first_tile && t % CHUNK_TILES == 0)
#pragma unroll
            for (int m = 0; m < M; m++) {
                fold_chunk<W>(kept_of<W>(memory, m), state[m], o[m], t - first_tile <= CHUNK_TILES);
                state[m] = softmax_begin();
                for (int i = 0; i < W / 2; i++) o[m][i / 4][i % 4] = 0;
            }
        bool masked = t * KV_TILE + KV_TILE - 1 > warp_first || t * KV_TILE < first_key(h, warp_last);
        if (t * KV_TILE <= warp_last && t * KV_TILE + KV_TILE > first_key(h, warp_first))
            attend_tile<W>(state, o, q, k, v, bad, masked, h, s, from, pairs, t);
    }
#pragma unroll
    for (int m = 0; m < M; m++) {
        if ((tiles - 1) / CHUNK_TILES > first_tile / CHUNK_TILES) {
            fold_chunk<W>(kept_of<W>(memory, m), state[m], o[m], false);
            unfold<W>(&state[m], o[m], kept_of<W>(memory, m));
        }
        finish_rows<W>(c, h, s, kv, from + m * 16, o[m], state[m]);
    }
}

template <int W>
static int run_attend(const struct cuda_ctx *ctx, const struct attention_call c, const struct segment *segments,
                      int n_segments) {
    constexpr int ROWS = 64 * parts_of(W);
    bool folds = c.N > KV_CHUNK; /* no context is longer than the batch */
    size_t shared = (size_t)front_bytes(W, folds) + 2 * stages(W) * KV_TILE * pitch(W) * sizeof(bf16);
    TRY(attention_map(ctx, c.map, segments, n_segments, c.N, c.heads, ROWS, false));
    dim3 blocks((unsigned)query_tiles_max(c.N, n_segments, c.heads.group, ROWS), (unsigned)c.heads.Hkv);
    if (c.heads.sight == SEES_BEFORE) LAUNCH(ctx, (attend<W, true>), blocks, THREADS, shared, c, folds);
    else LAUNCH(ctx, (attend<W, false>), blocks, THREADS, shared, c, folds);
    return OK;
}

int attention_heads(struct heads *h, const struct attention_shape *a) {
    if (a->D % 8 || a->D > WIDE)
        return fail(E_CONFIG, "cuda: attention serves head dims up to %d in steps of 8, not %d", WIDE, a->D);
    *h = heads_of(a);
    return OK;
}

int cuda_attention(void *ctx_, real *y, float *lse, const real *qkv, const struct segment *segments, int n_segments,
                   int N, const struct attention_shape *a) {
    const struct cuda_ctx *ctx = (const struct cuda_ctx *)ctx_;
    struct attention_call c = {(bf16 *)y, lse, (const bf16 *)qkv, segments};
    char *memory = NULL;
    TRY(attention_heads(&c.heads, a));
    c.N = N;
    TRY(scratch((void **)&memory, ctx, attention_map_place(&c.map, &memory, N, n_segments, c.heads.group)));
    attention_map_place(&c.map, &memory, N, n_segments, c.heads.group);
    return BY_WIDTH(a->D, run_attend, ctx, c, segments, n_segments);
}
