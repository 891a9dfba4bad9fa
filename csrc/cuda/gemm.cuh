/* Matrix products on tensor cores (mma.sync m16n8k16: bf16 in, fp32 sums): the three that a linear layer needs, for any
   sizes, written once over the shape of a tile and over what happens to the sums.
   C1: an element of a product is one fp32 sum to which mma adds 16 terms at a time in ascending order of k, tokens
   always being the rows of its left operand, whatever the tile. So a tile may be chosen by what is fastest for this
   call. That forbids splitting k over blocks. C2: sums that start from what dW holds make a batch that is split at
   multiples of 16 rows no other order of additions.
   A block of warps owns a tile of the product. Pieces of both operands, K deep, come by cp.async into a ring of STAGES
   in shared memory, 16-byte chunks permuted so that neither writing them nor ldmatrix meets a bank twice; fragments of
   the next 16 of k are read while those of the last are multiplied. */
#ifndef GRPO_CUDA_GEMM_H
#define GRPO_CUDA_GEMM_H

#include "cuda/cuda.cuh"

#include <math.h>

#define DEVICE static __device__ __forceinline__

/* rows x cols in global memory; what lies outside counts as 0. aligned: chunks of 8 elements are 16-byte aligned and
   may be read whole: a row has room for round_up(cols, 8) elements, and those beyond cols are 0. */
struct matrix { const bf16 *data; size_t pitch; int rows, cols; bool aligned; };

static inline struct matrix activations(const bf16 *x, int N, int C) {
    return (struct matrix){x, (size_t)C, N, C, C % 8 == 0 && (uintptr_t)x % 16 == 0};
}
static inline struct matrix weight_rows(const weight *W, int row, int rows, int C) {
    size_t pitch = (size_t)weight_pitch(C);
    return (struct matrix){(const bf16 *)W + row * pitch, pitch, rows, C, true};
}

/* The product (M, N) over K. How operands are stored: A_BT: a (M, K), b (N, K); A_B: a (M, K), b (K, N);
   AT_B: a (K, M), b (K, N). */
enum orientation { A_BT, A_B, AT_B };
struct product { struct matrix a, b; int M, N, K; };

/* -- tiles ------------------------------------------------------------------------------------------------------- */

/* RESIDENT: blocks that share a multiprocessor. ANY: also takes operands that are not aligned, element by element. */
template <int M_, int N_, int WARP_M_, int WARP_N_, int K_, int STAGES_, int RESIDENT_, bool ANY_ = false> struct tile {
    enum {
        M = M_, N = N_, K = K_, WARP_M = WARP_M_, WARP_N = WARP_N_, STAGES = STAGES_, RESIDENT = RESIDENT_, ANY = ANY_,
        WARPS_N = N / WARP_N, WARPS = M / WARP_M * WARPS_N, THREADS = WARP * WARPS,
        STAGE = (M + N) * K,                           /* elements */
        BYTES = STAGES * STAGE * (int)sizeof(bf16),
        TILES_M = WARP_M / 16, TILES_N = WARP_N / 8,   /* mma tiles of a warp */
        STEPS = K / 16,
    };
    static_assert(WARP_N % 16 == 0 && STEPS % 2 == 0 && STAGES > 1, "");
};

/* Tiles for few rows stream weights. To keep an H200's memory busy, 4.8 TB/s times some 0.8 us of latency must be
   under way: 3.8 MB, 29 KB on each of 132 multiprocessors. A block of `narrow` keeps 5 stages of 8 KB of weights
   under way, one of `thin` 7 of 2 KB and one of `slim` 5 of 4 KB; several blocks share a multiprocessor. The large
   ones do 64 x 64 a warp: 4 KB read from shared memory for 65536 multiply-adds, which is as fast as mma.sync eats
   them. */
typedef tile<16, 16, 16, 16, 64, 8, 6> thin;
typedef tile<16, 64, 16, 16, 64, 6, 3> narrow;
typedef tile<32, 32, 16, 32, 64, 6, 4> slim;
typedef tile<64, 64, 32, 32, 64, 4, 3, true> middle;
typedef tile<128, 128, 64, 64, 32, 4, 2> large;
typedef tile<128, 256, 64, 64, 32, 4, 1> wide;

/* Clocks that the busiest multiprocessor needs. Of what its blocks share, the scarcest counts, and a quarter of the
   rest: mma.sync (1024 multiply-adds a clock), shared memory (128 bytes: what cp.async writes and every warp reads),
   L2 (48 bytes a multiprocessor; rows beyond M are not read). A block waits at least for the chain of mma that add to
   one sum, 35 clocks each, and one without a neighbour for the filling of its ring and the writing of its sums. */
template <typename T> static double tile_clocks(const struct product &g, const struct cuda_ctx *ctx) {
    if (!T::ANY && !(g.a.aligned && g.b.aligned)) return INFINITY;
    if (T::M == ctx->tile_m && T::N == ctx->tile_n) return 0;
    double blocks = (double)ceil_div(g.M, T::M) * ceil_div(g.N, T::N), turns = ceil(blocks / ctx->sm_count);
    double multiply = T::M * T::N / 1024.0;
    double shared = 2.0 * (T::M + T::N + T::WARPS * (T::WARP_M + T::WARP_N)) / 128;
    double fetch = 2.0 * (min_int(T::M, g.M) + min_int(T::N, g.N)) / 48;
    double busy = 0.75 * fmax(multiply, fmax(shared, fetch)) + 0.25 * (multiply + shared + fetch);
    return (g.K + (T::RESIDENT == 1 ? 128 : 0)) * fmax(35.0 / 16, turns * busy);
}

/* -- operands in shared memory ----------------------------------------------------------------------------------- */

/* Where chunk `chunk` of a row of CHUNKS chunks lies: eight rows below each other at one chunk, or eight chunks of
   one row, fall on eight different groups of banks. */
template <int CHUNKS> DEVICE int chunk_place(int row, int chunk) {
    static_assert(CHUNKS == 4 || CHUNKS % 8 == 0, "");
    return row * CHUNKS + (CHUNKS == 4 ? chunk ^ (row >> 1 & 3) : chunk ^ (row & 7));
}

DEVICE void copy_elements(bf16 *dst, const bf16 *src, int n) {
    union { bf16 element[8]; uint4 whole; } chunk;
#pragma unroll
    for (int i = 0; i < 8; i++) chunk.element[i] = i < n ? src[i] : 0;
    *(uint4 *)dst = chunk.whole;
}

/* Where a thread's first chunk of the next piece of an operand comes from. */
struct feed { const bf16 *src; int row, col; };

template <int COLS> DEVICE struct feed first_chunk(const struct matrix &m, int row0, int col0) {
    int row = row0 + (int)threadIdx.x / (COLS / 8), col = col0 + (int)threadIdx.x % (COLS / 8) * 8;
    return (struct feed){m.data + (size_t)row * m.pitch + col, row, col};
}

/* tile (ROWS, COLS) = the next piece of m, under way until the group's wait; then the feed moves on by `down` rows,
   or `right` columns. */
template <int ROWS, int COLS, int THREADS, bool ANY>
DEVICE void fetch_tile(bf16 *tile, struct feed &f, const struct matrix &m, int down, int right) {
    constexpr int CHUNKS = COLS / 8, STRIDE = THREADS / CHUNKS;
    static_assert(THREADS % CHUNKS == 0 && ROWS % STRIDE == 0, "");
#pragma unroll
    for (int i = 0; i < ROWS; i += STRIDE) {
        bool inside = f.row + i < m.rows && f.col < m.cols;
        const bf16 *src = inside ? f.src + i * m.pitch : m.data;
        bf16 *dst = tile + 8 * chunk_place<CHUNKS>((int)threadIdx.x / CHUNKS + i, (int)threadIdx.x % CHUNKS);
        if (!ANY || m.aligned) cp_async16(dst, src, inside);
        else copy_elements(dst, src, inside ? m.cols - f.col : 0);
    }
    f.src += down * m.pitch + right;
    f.row += down;
    f.col += right;
}

/* Operands of one turn of the ring. */
template <enum orientation O, typename T>
DEVICE void fetch_stage(bf16 *stage, struct feed &a, struct feed &b, const struct product &g) {
    if constexpr (O == AT_B) fetch_tile<T::K, T::M, T::THREADS, T::ANY>(stage, a, g.a, T::K, 0);
    else fetch_tile<T::M, T::K, T::THREADS, T::ANY>(stage, a, g.a, 0, T::K);
    if constexpr (O == A_BT) fetch_tile<T::N, T::K, T::THREADS, T::ANY>(stage + T::M * T::K, b, g.b, 0, T::K);
    else fetch_tile<T::K, T::N, T::THREADS, T::ANY>(stage + T::M * T::K, b, g.b, T::K, 0);
}

/* Fragments of one step of 16 along k: a of 16 rows each, b of 16 columns each (two operands of mma). */
template <typename T> struct fragments { uint32_t a[T::TILES_M][4], b[T::TILES_N / 2][4]; };

/* row, col: where the warp's part of the tile starts */
template <enum orientation O, typename T>
DEVICE void read_fragments(struct fragments<T> &f, const bf16 *stage, int row, int col, int k) {
    const bf16 *b = stage + T::M * T::K;
    int lane = lane_id(), low = lane % 8, middle = lane / 8 % 2, high = lane / 16;   /* one of 8 rows of 4 matrices */
#pragma unroll
    for (int i = 0; i < T::TILES_M; i++) {
        int m = row + 16 * i;
        if constexpr (O == AT_B)
            ldmatrix_x4_trans(f.a[i], stage + 8 * chunk_place<T::M / 8>(k + low + 8 * high, m / 8 + middle));
        else ldmatrix_x4(f.a[i], stage + 8 * chunk_place<T::K / 8>(m + low + 8 * middle, k / 8 + high));
    }
#pragma unroll
    for (int j = 0; j < T::TILES_N / 2; j++) {
        int n = col + 16 * j;
        if constexpr (O == A_BT) ldmatrix_x4(f.b[j], b + 8 * chunk_place<T::K / 8>(n + low + 8 * high, k / 8 + middle));
        else ldmatrix_x4_trans(f.b[j], b + 8 * chunk_place<T::N / 8>(k + low + 8 * middle, n / 8 + high));
    }
}

/* -- the product ------------------------------------------------------------------------------------------------- */

/* Neighbouring blocks share rows of b, and a few of a: together they stay in L2. */
enum { BAND = 8 };
DEVICE void tile_of_block(int *m, int *n, int tiles_m, int tiles_n) {
    int band = (int)blockIdx.x / (BAND * tiles_n), within = (int)blockIdx.x % (BAND * tiles_n);
    int height = min_int(BAND, tiles_m - band * BAND);
    *m = band * BAND + within % height;
    *n = within / height;
}

/* sums += the product's tile at (row0, col0). Stage s of the ring is fetched again in the first step after the
   barrier that follows the last reading of it. */
template <enum orientation O, typename T>
DEVICE void multiply_tile(float (&sums)[T::TILES_M][T::TILES_N][4], bf16 *ring, const struct product &g, int row0,
                          int col0, int row, int col) {
    int turns = ceil_div(g.K, T::K);
    struct fragments<T> f[2];
    struct feed a = O == AT_B ? first_chunk<T::M>(g.a, 0, row0) : first_chunk<T::K>(g.a, row0, 0);
    struct feed b = O == A_BT ? first_chunk<T::K>(g.b, col0, 0) : first_chunk<T::N>(g.b, 0, col0);
#pragma unroll
    for (int s = 0; s < T::STAGES - 1; s++) {
        fetch_stage<O, T>(ring + s * T::STAGE, a, b, g);
        cp_async_commit();
    }
    cp_async_wait<T::STAGES - 2>();
    __syncthreads();
    read_fragments<O, T>(f[0], ring, row, col, 0);
    int reading = 0, writing = T::STAGES - 1;
    for (int turn = 0; turn < turns; turn++) {
#pragma unroll
        for (int step = 0; step < T::STEPS; step++) {
            if (step == T::STEPS - 1) {
                cp_async_wait<T::STAGES - 2>();
                __syncthreads();
                reading = reading + 1 < T::STAGES ? reading + 1 : 0;
            }
            read_fragments<O, T>(f[(step + 1) % 2], ring + reading * T::STAGE, row, col, (step + 1) % T::STEPS * 16);
            if (step == 0) {
                fetch_stage<O, T>(ring + writing * T::STAGE, a, b, g);
                cp_async_commit();
                writing = writing + 1 < T::STAGES ? writing + 1 : 0;
            }
#pragma unroll
            for (int i = 0; i < T::TILES_M * T::TILES_N; i++) {
                int m = i / T::TILES_N, n = i % T::TILES_N;
                mma(sums[m][n], f[step % 2].a[m], f[step % 2].b[n / 2] + n % 2 * 2);
            }
        }
    }
    cp_async_wait<0>();                                /* the last turns fetched zeros from beyond K */
}

/* Where a warp's sums lie in the product. */
struct place { int M, N, row, col; };

/* An epilogue E is a struct with two functions: start() says what a warp's sums start from, finish() takes them. */
template <enum orientation O, typename T, typename E>
static __global__ void __launch_bounds__(T::THREADS, T::RESIDENT) gemm_kernel(struct product g, E epilogue) {
    SHARED(bf16, ring);
    float sums[T::TILES_M][T::TILES_N][4];
    int m, n, row = warp_id() / T::WARPS_N * T::WARP_M, col = warp_id() % T::WARPS_N * T::WARP_N;
    tile_of_block(&m, &n, ceil_div(g.M, T::M), ceil_div(g.N, T::N));
    struct place at = {g.M, g.N, m * T::M + row, n * T::N + col};
    start(epilogue, sums, at);
    multiply_tile<O, T>(sums, ring, g, m * T::M, n * T::N, row, col);
    finish(epilogue, sums, at);
}

template <enum orientation O, typename T, typename E>
static int gemm_run(const struct cuda_ctx *ctx, const struct product &g, const E &epilogue) {
    unsigned blocks = (unsigned)ceil_div(g.M, T::M) * (unsigned)ceil_div(g.N, T::N);
    LAUNCH(ctx, (gemm_kernel<O, T, E>), blocks, T::THREADS, T::BYTES, g, epilogue);
    return OK;
}

/* The product by the fastest of the tiles T, of which one must be ANY where operands may not be aligned. 2 M N K
   FLOPs; bytes: 2 K (M + N), a few times over from L2. */
template <enum orientation O, typename... T, typename E>
static int gemm(const struct cuda_ctx *ctx, const struct product &g, const E &epilogue) {
    int (*const run[])(const struct cuda_ctx *, const struct product &, const E &) = {gemm_run<O, T, E>...};
    const double clocks[] = {tile_clocks<T>(g, ctx)...};
    int best = 0;
    for (int i = 1; i < (int)sizeof...(T); i++)
        if (clocks[i] < clocks[best]) best = i;
    return run[best](ctx, g, epilogue);
}

/* -- epilogues -------------------------------------------------------------------------------------------------- */

/* of I x J mma tiles */
template <int I, int J> DEVICE void start_from_zero(float (&sums)[I][J][4]) {
#pragma unroll
    for (int i = 0; i < I * J * 4; i++) sums[i / (4 * J)][i / 4 % J][i % 4] = 0;
}

/* A row of four mma tiles lies in four lanes, lane t holding columns 2t and 2t + 1 of each, those of tile i in v[2i],
   v[2i + 1]. Exchanged so that it holds the eight columns of tile t. */
DEVICE void quad_transpose(float (&v)[8]) {
    bool odd = lane_id() & 1, upper = lane_id() & 2;
#pragma unroll
    for (int e = 0; e < 2; e++) {
#pragma unroll
        for (int i = e; i < 8; i += 4) {
            float got = shuffle_xor(odd ? v[i] : v[i + 2], 1);
            if (odd) v[i] = got;
            else v[i + 2] = got;
        }
#pragma unroll
        for (int i = e; i < 4; i += 2) {
            float got = shuffle_xor(upper ? v[i] : v[i + 4], 2);
            if (upper) v[i] = got;
            else v[i + 4] = got;
        }
    }
}

/* put(epilogue, v, row, col, N) for every run of neighbouring columns: 8 where the warp is wide enough, else 2. */
template <int I, int J, typename E>
DEVICE void finish_runs(const E &epilogue, float (&sums)[I][J][4], struct place at) {
    constexpr int RUN = J % 4 == 0 ? 8 : 2;
#pragma unroll
    for (int i = 0; i < I * 2; i++) {
        int row = at.row + 8 * i + lane_id() / 4;
#pragma unroll
        for (int j = 0; j < J * 8; j += 4 * RUN) {
            float v[RUN];
#pragma unroll
            for (int r = 0; r < RUN; r++) v[r] = sums[i / 2][j / 8 + r / 2][i % 2 * 2 + r % 2];
            if constexpr (RUN == 8) quad_transpose(v);
            int col = at.col + j + RUN * (lane_id() % 4);
            if (row < at.M && col < at.N) put(epilogue, v, row, col, at.N);
        }
    }
}

/* y (M, N) = sums + bias, or y += that, rounded once; bias may be NULL. whole: runs are aligned and inside a row. */
struct sums_to_real { bf16 *y; const float *bias; bool add, whole; };

static inline struct sums_to_real rounded_to(bf16 *y, const float *bias, bool add, int N) {
    bool whole = N % 8 == 0 && (uintptr_t)y % 16 == 0 && (uintptr_t)bias % 16 == 0;
    return (struct sums_to_real){y, bias, add, whole};
}

template <int n> DEVICE void put(const struct sums_to_real &e, float (&v)[n], int row, int col, int N) {
    bf16 *y = e.y + (size_t)row * N + col;
    if constexpr (n > 1)
        if (!e.whole) {
#pragma unroll
            for (int i = 0; i < n; i++) {
                float one[1] = {v[i]};
                if (col + i < N) put(e, one, row, col + i, N);
            }
            return;
        }
    float other[n];
    if (e.bias) {
        load<n>(other, e.bias + col);
#pragma unroll
        for (int i = 0; i < n; i++) v[i] += other[i];
    }
    if (e.add) {
        load<n>(other, y);
#pragma unroll
        for (int i = 0; i < n; i++) v[i] += other[i];
    }
    store<n>(y, v);
}

template <int I, int J> DEVICE void start(const struct sums_to_real &, float (&sums)[I][J][4], struct place) {
    start_from_zero(sums);
}
template <int I, int J> DEVICE void finish(const struct sums_to_real &e, float (&sums)[I][J][4], struct place at) {
    finish_runs(e, sums, at);
}

/* z (M, N) = sums, or (add) z += the product: the sums then start from z. pairs: two columns are aligned and inside. */
struct sums_to_float { float *z; bool add, pairs; };

static inline struct sums_to_float floats_to(float *z, bool add, int N) {
    return (struct sums_to_float){z, add, N % 2 == 0 && (uintptr_t)z % 8 == 0};
}

/* move(sums of two columns, where they lie in z, 0 or, where they must go one by one, how many columns are left) */
template <int I, int J, typename Move>
DEVICE void each_pair(const struct sums_to_float &e, float (&sums)[I][J][4], struct place at, Move move) {
#pragma unroll
    for (int i = 0; i < I * 2; i++) {
        int row = at.row + 8 * i + lane_id() / 4, col = at.col + 2 * (lane_id() % 4);
        int left = row < at.M ? at.N - col : 0;
        float *z = e.z + (size_t)row * at.N + col;
#pragma unroll
        for (int j = 0; j < J; j++)
            if (8 * j < left) move(sums[i / 2][j] + i % 2 * 2, z + 8 * j, e.pairs ? 0 : left - 8 * j);
    }
}
template <int I, int J> DEVICE void start(const struct sums_to_float &e, float (&sums)[I][J][4], struct place at) {
    start_from_zero(sums);
    if (!e.add) return;
    each_pair(e, sums, at, [](float *sum, const float *z, int single) {
        if (!single) load<2>(sum, z);
        else {
            sum[0] = z[0];
            if (single > 1) sum[1] = z[1];
        }
    });
}
template <int I, int J> DEVICE void finish(const struct sums_to_float &e, float (&sums)[I][J][4], struct place at) {
    each_pair(e, sums, at, [](const float *sum, float *z, int single) {
        if (!single) store<2>(z, sum);
        else {
            z[0] = sum[0];
            if (single > 1) z[1] = sum[1];
        }
    });
}

/* dW (M, N) += the product AT_B, its K rows in order */
int add_to_weight_gradient(const struct cuda_ctx *ctx, float *dW, const struct product &g);

#endif
