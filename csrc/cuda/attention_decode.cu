/* Attention of decode, over pages. A page holds, for each KV head, the keys and then the values of KV_TILE positions as
   (KV_TILE, D): what a block copies to shared memory lies in one piece.

   A block serves the heads of one group (up to 16 at once) in one slot; their keys are read once. Its warps take a tile
   each: scores and their maxima side by side, the running maximum from tile to tile by everyone, then all tiles in turn
   with the output's columns shared out over the warps. That is the arithmetic of attention() in its order, so bits are
   the same, in a quarter of the time per tile.
   Bytes: 4 D (keys seen) for each slot and KV head; 4 D FLOPs a byte and head at most: bound by memory. A slot alone
   would keep one multiprocessor busy, so with few slots the chunks of a context (KV_CHUNK) go to several blocks.

   The slots of a group of rollouts hold the same pages for their prompt and follow one another (run/sequences.c),
   so their blocks run side by side, and what one has read the next finds in L2: from memory a prompt comes about
   once. A chunk that lies wholly in pages which neighbours share is read, and its scores computed, once for as
   many slots as fit the 16 rows of an mma (sharers()): their blocks take such chunks in turn, each for all of
   them, and decode_join() gives every slot its own. Chunks are what can be computed apart without changing a bit
   or making anyone wait; of a chunk in which the prompt ends every slot reads all, and so of chunks that a slot's
   window does not see whole. Tiles before the window are not read. */
#include "cuda/attention.cuh"

#include <math.h>

enum { DECODE_HEADS = 16, DECODE_BLOCKS = 512 }; /* chunks are split until there are about so many blocks */

struct decode {
    bf16 *y;
    float *lse;
    const bf16 *qkv, *pool;
    const int32_t *pages, *length;
    float *parts; /* (S, Hq, chunks, W + 4) output, max, sum of a chunk; NULL: a block has all,
                                        which WIDE ones do of one chunk alone: their registers do not hold two */
    struct heads heads;
    int S, max_pages, chunks, splits; /* chunks: that a slot sees at most; chunk i is part i % chunks */
    int sharers, shared_pages; /* slots that a block may serve at once, in so many leading pages */
};

static __host__ __device__ size_t page_size(int Hkv, int D) { return 2 * (size_t)Hkv * KV_TILE * D; }

/* warps of a block, and tiles that are on their way together */
static constexpr __host__ __device__ int warps_of(int W) { return W <= 64 ? 4 : 2; }

static __host__ __device__ int head_tiles(struct heads h) { return (h.group + DECODE_HEADS - 1) / DECODE_HEADS; }

/* -- neighbours ---------------------------------------------------------------------------------------------------- */

/* Slots whose heads fill 16 rows together: a power of two, since groups of rollouts mostly are. */
static inline int sharers(struct heads h) {
    return h.group > 8 ? 1 : h.group > 4 ? 2 : h.group > 2 ? 4 : h.group > 1 ? 8 : 16;
}

/* The slots [first, first + n) among which a slot is, and the chunks [begin, end) that they all hold in the same pages
   and see whole. */
struct neighbours {
    int first, n, begin, end;
};

static __device__ inline struct neighbours neighbours_of(const struct decode &c, int slot) {
    struct neighbours them = {slot, 1, 0, 0};
    if (c.sharers == 1 || c.length[slot] <= KV_CHUNK) return them;
    them.first = slot - slot % c.sharers;
    them.n = min(c.sharers, c.S - them.first);
    const int32_t *length = c.length + them.first;
    const int32_t *pages = c.pages + (size_t)them.first * c.max_pages;
    int same = c.shared_pages;
    for (int i = 0; i < them.n; i++) {
        same = min(same, (length[i] - 1) / KV_TILE);
        them.begin = max(them.begin, (first_key(c.heads, length[i] - 1) + KV_CHUNK - 1) / KV_CHUNK);
    }
    for (int i = 1; i < them.n; i++)
        for (int page = lane_id(); page < same; page += WARP)
            if (pages[page] != pages[(size_t)i * c.max_pages + page]) same = page;
    for (int mask = WARP / 2; mask; mask /= 2) same = min(same, shuffle_xor(same, mask));
    them.end = same / CHUNK_TILES;
    return them;
}

/* The first chunk from `chunk` on, in steps of c.splits, that a slot's block computes. */
static __device__ inline int own_chunk(const struct decode &c, struct neighbours them, int slot, int chunk) {
    while (chunk >= them.begin && chunk < them.end && chunk / c.splits % them.n != slot - them.first) chunk += c.splits;
    return chunk;
}

/* -- a block ------------------------------------------------------------------------------------------------------- */

/* The slots [slot, slot + n) whose heads of a group are the rows of a block's mma, row-major, from row `first` on. */
struct rows {
    int slot, n, first;
};

/* of the lane's row r (lane / 4 + 8 r): index among all heads of all slots; -1: none */
static __device__ inline int head_of_row(struct heads h, struct rows rows, int kv, int r) {
    int pair = rows.first + lane_id() / 4 + 8 * r, slot = row_of_pair(h, pair);
    return slot < rows.n ? (rows.slot + slot) * h.Hq + kv * h.group + pair - slot * h.group : -1;
}

/* 16 queries as the A operand */
template <int W>
static __device__ void load_query(uint32_t q[1][W / 16][4], const struct decode &c, struct rows rows, int kv) {
#pragma unroll
    for (int i = 0; i < W / 4; i++) {
        int head = head_of_row(c.heads, rows, kv, i % 2), d = i / 4 * 16 + i / 2 % 2 * 8 + lane_id() % 4 * 2;
        bool valid = head >= 0 && d < c.heads.D;
        const bf16 *from = c.qkv;
        if (valid) from += head / c.heads.Hq * qkv_stride(c.heads) + (size_t)(head % c.heads.Hq) * c.heads.D + d;
        q[0][i / 4][i % 4] = valid ? *(const uint32_t *)from : 0;
    }
}

/* Tiles [tile, tile + warps) of a slot. What it does not see, keys before `first` and places that it has not filled,
   which hold anything, is read as zeros. */
template <int W>
static __device__ void load_tiles(bf16 *to, const struct decode &c, int slot, int kv, int tile, int first, int length) {
    constexpr int N = warps_of(W), PIECES = 2 * KV_TILE * (W / 8);
#pragma unroll 4
    for (int i = threadIdx.x; i < N * PIECES; i += N * WARP) {
        int t = tile + i / PIECES, column = i % (W / 8) * 8;
        int row = i / (W / 8) % (2 * KV_TILE); /* of the keys, then of the values */
        int key = t * KV_TILE + row % KV_TILE;
        bool valid = key >= first && key < length && column < c.heads.D;
        const bf16 *from = c.pool;
        if (valid)
            from += (size_t)c.pages[(size_t)slot * c.max_pages + t] * page_size(c.heads.Hkv, c.heads.D) +
                    ((size_t)kv * 2 * KV_TILE + row) * c.heads.D + column;
        cp_async16(to + place<W>(i / (W / 8), column), from, valid);
    }
}

/* What the warps tell each other of their tiles' rows. p takes the place of the keys, which are done with by then: as
   much shared memory again would mean a block less on a multiprocessor. */
template <int N> struct exchange {
    float top[N][DECODE_HEADS], sum[N][DECODE_HEADS];
};

/* where lane l finds register i of a tile's p, an A operand: at 32 i + l */
template <int W> static __device__ inline uint32_t *place_of_p(bf16 *tiles, int i) {
    return (uint32_t *)(tiles + i * 2 * KV_TILE * pitch(W)) + lane_id();
}

/* The warp's own tile against the running maxima: p, and in x top and sum. */
template <int W>
static __device__ inline void score_tiles(struct exchange<warps_of(W)> *x, const struct softmax &state,
                                          const uint32_t q[1][W / 16][4], bf16 *tiles, float scale, int tile, int first,
                                          int length) {
    int w = warp_id(), g = lane_id() / 4;
    bool writes = lane_id() % 4 == 0;
    float s[1][4][4], top[2], sum[2];
    int last = length - 1 - (tile + w) * KV_TILE, begin = first - (tile + w) * KV_TILE;
    tile_scores<W, 1>(s, q, tiles + w * 2 * KV_TILE * pitch(W));
    if (last < KV_TILE - 1 || begin > 0) hide_keys(s[0], {{begin, begin}, {last, last}});
    tile_max(top, s[0], scale);
    if (writes) x->top[w][g] = top[0], x->top[w][g + 8] = top[1];
    __syncthreads();
    for (int r = 0; r < 2; r++) {
        top[r] = state.max[r];
        for (int i = 0; i <= w; i++) top[r] = fmaxf(top[r], x->top[i][g + 8 * r]);
    }
    tile_exp(sum, s[0], top, scale);
    if (writes) x->sum[w][g] = sum[0], x->sum[w][g + 8] = sum[1];
    uint32_t p[2][4];
    pack_scores(p, s[0]);
#pragma unroll
    for (int i = 0; i < 8; i++) place_of_p<W>(tiles, w)[i * WARP] = p[i / 4][i % 4];
    __syncthreads();
}

/* columns of the output that a warp has: 16 (warp + i step) each */
static constexpr __host__ __device__ int columns_of(int W) { return (W / 16 + warps_of(W) - 1) / warps_of(W); }

/* The warp's columns over the first n tiles, one after the other. */
template <int W>
static __device__ inline void add_tiles(float o[1][2 * columns_of(W)][4], struct softmax *state,
                                        const struct exchange<warps_of(W)> *x, bf16 *tiles, int n) {
    constexpr int N = warps_of(W), C = columns_of(W);
    int g = lane_id() / 4;
    for (int i = 0; i < n; i++) {
        float top[2] = {fmaxf(state->max[0], x->top[i][g]), fmaxf(state->max[1], x->top[i][g + 8])};
        float sum[2] = {x->sum[i][g], x->sum[i][g + 8]};
        uint32_t p[1][2][4];
#pragma unroll
        for (int j = 0; j < 8; j++) p[0][j / 4][j % 4] = place_of_p<W>(tiles, i)[j * WARP];
        shrink<2 * C>(state, o[0], top, sum);
        tile_values<W, 1, C>(o, p, tiles + (2 * i + 1) * KV_TILE * pitch(W), warp_id(), N);
    }
}

/* of element 2 r of a lane's o[n]: the column of the output */
template <int W> static __device__ inline int column_of(int n) {
    return (warp_id() + n / 2 * warps_of(W)) * 16 + n % 2 * 8 + lane_id() % 4 * 2;
}

/* A chunk's output and state, for decode_join(). */
template <int W>
static __device__ inline void store_part(const struct decode &c, struct rows rows, int kv, int chunk,
                                         const float o[2 * columns_of(W)][4], const struct softmax &state) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
        int head = head_of_row(c.heads, rows, kv, r);
        if (head < 0) continue;
        float *to = c.parts + ((size_t)head * c.chunks + chunk % c.chunks) * (W + 4);
        if (threadIdx.x % 4 == 0 && warp_id() == 0) *(float2 *)(to + W) = make_float2(state.max[r], state.sum[r]);
#pragma unroll
        for (int n = 0; n < 2 * columns_of(W); n++)
            if (column_of<W>(n) < c.heads.D)
                *(float2 *)(to + column_of<W>(n)) = make_float2(o[n][2 * r], o[n][2 * r + 1]);
    }
}

/* A chunk joins the chunks before it in this block. */
template <int W>
static __device__ inline void fold_chunk(float total_o[2 * columns_of(W)][4], struct softmax *total,
                                         const float o[2 * columns_of(W)][4], const struct softmax &state) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
        struct factors by = {0, 1};
        bool begins = unbegun(total->max[r], total->sum[r]);
        if (begins) {
            total->max[r] = state.max[r];
            total->sum[r] = state.sum[r];
        } else by = fold_row(&total->max[r], &total->sum[r], state.max[r], state.sum[r]);
#pragma unroll
        for (int i = 0; i < 4 * columns_of(W); i++) {
            float *sum = &total_o[i / 2][2 * r + i % 2], part = o[i / 2][2 * r + i % 2];
            *sum = begins ? part : fold(*sum, part, by);
        }
    }
}

template <int W>
static __device__ inline void finish_heads(const struct decode &c, struct rows rows, int kv,
                                           const float o[2 * columns_of(W)][4], const struct softmax &state) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
        int head = head_of_row(c.heads, rows, kv, r);
        if (head < 0) continue;
        bf16 *y = c.y + (size_t)head * c.heads.D;
        float share = 1 / state.sum[r];
        if (lane_id() % 4 == 0 && warp_id() == 0) c.lse[head] = (state.max[r] + log2f(state.sum[r])) * LN2;
#pragma unroll
        for (int n = 0; n < 2 * columns_of(W); n++)
            if (column_of<W>(n) < c.heads.D)
                *(uint32_t *)(y + column_of<W>(n)) = pack2(o[n][2 * r] * share, o[n][2 * r + 1] * share);
    }
}

template <int W> static __global__ void __launch_bounds__(warps_of(W) * WARP, 3) decode_slot(const struct decode c) {
    constexpr int N = warps_of(W), GROUP = N * 2 * KV_TILE * pitch(W), C = columns_of(W), STAGES = stages(W);
    SHARED(bf16, ring); /* (STAGES, N, keys and values, KV_TILE, pitch) */
    __shared__ struct exchange<N> x;
    struct heads h = c.heads;
    int slot = blockIdx.x / h.Hkv, kv = blockIdx.x % h.Hkv;
    int length = c.length[slot], tiles = (length + KV_TILE - 1) / KV_TILE, first = first_key(h, length - 1);
    struct neighbours them = neighbours_of(c, slot);
    struct rows own = {slot, 1, (int)blockIdx.z * DECODE_HEADS}, all = {them.first, them.n, 0};
    int begin = first / KV_CHUNK, first_tile = first / KV_TILE / N * N; /* the first chunk, and its first tiles */
    bool joins = c.parts && tiles > (begin + 1) * CHUNK_TILES; /* the chunks, in decode_join() */
    int tile = max(first_tile, own_chunk(c, them, slot, begin + blockIdx.y) * CHUNK_TILES);
    int shared = them.begin * CHUNK_TILES, shared_end = them.end * CHUNK_TILES;
    if (tile >= tiles) return;
    uint32_t q[1][W / 16][4];
    float o[1][2 * C][4], total_o[2 * C][4]; /* of a chunk; of all */
    struct softmax state = softmax_begin(), total = state;
    load_tiles<W>(ring, c, slot, kv, tile, first, length);
    cp_async_commit();
    load_query<W>(q, c, tile >= shared && tile < shared_end ? all : own, kv);
    for (int i = 0; i < 8 * C; i++) o[0][i / 4][i % 4] = total_o[i / 4][i % 4] = 0;

    for (int turn = 0; tile < tiles; turn ^= 1) {
        int next = tile + N;
        bool chunk_ends = next % CHUNK_TILES == 0 || next >= tiles, of_all = tile >= shared && tile < shared_end;
        if (next % CHUNK_TILES == 0) next = own_chunk(c, them, slot, tile / CHUNK_TILES + c.splits) * CHUNK_TILES;
        cp_async_wait<0>();
        __syncthreads(); /* these tiles are there, nobody reads those before */
        bf16 *here = ring + turn % STAGES * GROUP, *ahead = ring + (turn ^ 1) % STAGES * GROUP;
        if (STAGES == 2 && next < tiles) load_tiles<W>(ahead, c, slot, kv, next, first, length);
        cp_async_commit();
        score_tiles<W>(&x, state, q, here, h.scale, tile, first, length);
        add_tiles<W>(o, &state, &x, here, min(N, tiles - tile));
        if (chunk_ends) {
            if (joins) store_part<W>(c, of_all ? all : own, kv, tile / CHUNK_TILES, o[0], state);
            else if (W < WIDE) fold_chunk<W>(total_o, &total, o[0], state);
            else finish_heads<W>(c, own, kv, o[0], state);
            state = softmax_begin();
            for (int i = 0; i < 8 * C; i++) o[0][i / 4][i % 4] = 0;
            bool next_of_all = next >= shared && next < shared_end;
            if (of_all != next_of_all) load_query<W>(q, c, next_of_all ? all : own, kv);
        }
        if (STAGES == 1 && next < tiles) {
            __syncthreads(); /* nobody reads these tiles any more */
            load_tiles<W>(ring, c, slot, kv, next, first, length);
            cp_async_commit();
        }
        tile = next;
    }
    if (W < WIDE && !joins) finish_heads<W>(c, own, kv, total_o, total);
}

/* y and lse of the slots whose chunks several blocks computed; a warp has 128 columns of a head */
template <int W> static __global__ void __launch_bounds__(THREADS) decode_join(const struct decode c) {
    struct heads h = c.heads;
    int row = blockIdx.x * WARPS + warp_id(), d = blockIdx.y * 4 * WARP + lane_id() * 4; /* row: slot and head */
    if (row >= c.S * h.Hq) return;
    int length = c.length[row / h.Hq], chunk = first_key(h, length - 1) / KV_CHUNK, end = (length - 1) / KV_CHUNK;
    if (chunk == end || d >= h.D) return;
    const float *parts = c.parts + (size_t)row * c.chunks * (W + 4), *part = parts + chunk % c.chunks * (W + 4);
    float max = part[W], sum = part[W + 1], o[4];
    for (int i = 0; i < 4; i++) o[i] = part[d + i];
    while (++chunk <= end) {
        part = parts + chunk % c.chunks * (W + 4);
        float4 next = *(const float4 *)(part + d);
        struct factors by = fold_row(&max, &sum, part[W], part[W + 1]);
        o[0] = fold(o[0], next.x, by);
        o[1] = fold(o[1], next.y, by);
        o[2] = fold(o[2], next.z, by);
        o[3] = fold(o[3], next.w, by);
    }
    if (d == 0) c.lse[row] = (max + log2f(sum)) * LN2;
    float share = 1 / sum;
    uint2 y = make_uint2(pack2(o[0] * share, o[1] * share), pack2(o[2] * share, o[3] * share));
    *(uint2 *)(c.y + (size_t)row * h.D + d) = y;
}

/* -- the pool ------------------------------------------------------------------------------------------------------ */

size_t cuda_kv_page_bytes(int Hkv, int D) { return page_size(Hkv, D) * sizeof(bf16); }

/* a thread 8 elements */
static __global__ void store_rows(bf16 *pool, const bf16 *qkv, const int32_t *place, int N, struct heads h) {
    int pieces = h.D / 8, each = 2 * h.Hkv * pieces; /* of a row: heads of k, then of v */
    size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= (size_t)N * each) return;
    size_t row = i / each;
    int head = (int)(i % each) / pieces, d = (int)(i % each) % pieces * 8, to = place[row];
    if (to < 0) return;
    bf16 *page = pool + (size_t)(to / KV_TILE) * page_size(h.Hkv, h.D);
    size_t line = (size_t)(head % h.Hkv * 2 + head / h.Hkv) * KV_TILE + to % KV_TILE;
    *(uint4 *)(page + line * h.D + d) = *(const uint4 *)(qkv + row * qkv_stride(h) + (size_t)(h.Hq + head) * h.D + d);
}

static __global__ void copy_pages(uint4 *pool, const int32_t *dst, const int32_t *src, int pieces) {
    uint4 *to = pool + (size_t)dst[blockIdx.x] * pieces;
    const uint4 *from = pool + (size_t)src[blockIdx.x] * pieces;
    for (int i = blockIdx.y * THREADS + threadIdx.x; i < pieces; i += gridDim.y * THREADS) to[i] = from[i];
}

int cuda_kv_store(void *ctx, void *pool, const real *qkv, const int32_t *place, int N,
                  const struct attention_shape *a) {
    struct heads h;
    TRY(attention_heads(&h, a));
    LAUNCH(ctx, store_rows, blocks_of((size_t)N * 2 * h.Hkv * (h.D / 8), THREADS), THREADS, 0, (bf16 *)pool,
           (const bf16 *)qkv, place, N, h);
    return OK;
}

int cuda_kv_copy(void *ctx, void *pool, const int32_t *dst, const int32_t *src, int n,
                 const struct attention_shape *a) {
    int pieces = (int)(cuda_kv_page_bytes(a->Hkv, a->D) / sizeof(uint4));
    LAUNCH(ctx, copy_pages, dim3((unsigned)n, (unsigned)ceil_div(pieces, 4 * THREADS)), THREADS, 0, (uint4 *)pool, dst,
           src, pieces);
    return OK;
}

/* -- the operation ------------------------------------------------------------------------------------------------- */

template <int W> static int run_decode(const struct cuda_ctx *ctx, const struct decode c) {
    size_t shared = stages(W) * (size_t)warps_of(W) * 2 * KV_TILE * pitch(W) * sizeof(bf16);
    dim3 grid((unsigned)(c.S * c.heads.Hkv), (unsigned)c.splits, (unsigned)head_tiles(c.heads));
    LAUNCH(ctx, decode_slot<W>, grid, warps_of(W) * WARP, shared, c);
    dim3 heads(blocks_of((size_t)c.S * c.heads.Hq, WARPS), (unsigned)ceil_div(c.heads.D, 4 * WARP));
    if (c.parts) LAUNCH(ctx, decode_join<W>, heads, THREADS, 0, c);
    return OK;
}

/* that a slot of so many pages sees keys of */
static int chunks_of(int pages, struct heads h) {
    return min_int(ceil_div(pages, CHUNK_TILES), ceil_div(h.window - 1, KV_CHUNK) + 1);
}

/* blocks over which a slot's chunks are shared out */
static int splits_of(int S, int chunks, struct heads h) {
    int blocks = max_int(1, S * h.Hkv * head_tiles(h));
    return max_int(1, min_int(chunks, DECODE_BLOCKS / blocks));
}

static size_t parts_bytes(int S, int chunks, struct heads h) {
    return (size_t)S * h.Hq * chunks * (size_t)(width_of(h.D) + 4) * sizeof(float);
}

int cuda_attention_decode(void *ctx_, real *y, float *lse, const real *qkv, const void *pool,
                          const struct key_pages *keys, int S, const struct attention_shape *a) {
    const struct cuda_ctx *ctx = (const struct cuda_ctx *)ctx_;
    struct decode c = {(bf16 *)y, lse, (const bf16 *)qkv, (const bf16 *)pool, keys->pages, keys->length};
    TRY(attention_heads(&c.heads, a));
    c.S = S;
    c.max_pages = keys->max_pages;
    c.chunks = chunks_of(keys->max_pages, c.heads);
    c.splits = splits_of(S, c.chunks, c.heads);
    c.sharers = c.chunks > 1 && keys->shared_pages >= CHUNK_TILES ? min_int(S, sharers(c.heads)) : 1;
    c.shared_pages = min_int(keys->shared_pages, keys->max_pages);
    if (c.splits > 1 || c.sharers > 1 || (c.chunks > 1 && width_of(a->D) == WIDE))
        TRY(scratch((void **)&c.parts, ctx, parts_bytes(S, c.chunks, c.heads)));
    return BY_WIDTH(a->D, run_decode, ctx, c);
}

/* Needed where chunks are split, which few slots are, or shared, or WIDE. */
size_t attention_decode_scratch(const struct op_limits *need) {
    if (need->kv_heads <= 0 || need->head_dim <= 0) return 0;
    const struct attention_shape a = {need->heads, need->kv_heads, need->head_dim};
    struct heads h = heads_of(&a);
    int few = DECODE_BLOCKS / 2 / (h.Hkv * head_tiles(h)), all = need->shared_pages >= CHUNK_TILES && sharers(h) > 1;
    all = all || width_of(h.D) == WIDE;
    return parts_bytes(all ? need->slots : min_int(need->slots, few),
                       chunks_of(ceil_div(need->max_position, KV_TILE), h), h);
}
