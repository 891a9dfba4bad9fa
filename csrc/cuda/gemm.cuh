/* Matrix products on tensor cores (bf16 in, fp32 sums): the three that a linear layer needs, for any sizes, written
   once over the shape of a tile, the instruction that multiplies it (gemm80.cuh, gemm90.cuh) and what happens to the
   sums (gemm_epilogue.cuh). Rollout = training: an element of a product is one fp32 sum to which the instruction
   adds 16 terms at a time in ascending order of k, tokens always being the rows of its left operand, whatever the
   tile. So a tile may be chosen by what is fastest for this call, among those of one instruction. That forbids
   splitting k over blocks. Same seed, same run: sums that start from what dW holds make a batch that is split at
   multiples of 16 rows no other order of additions. */
#ifndef GRPO_CUDA_GEMM_H
#define GRPO_CUDA_GEMM_H

#include "cuda/gemm80.cuh"
#include "cuda/gemm90.cuh"
#include "cuda/gemm_epilogue.cuh"

#include <math.h>

/* Clocks that the busiest multiprocessor needs. Of what its blocks share, the scarcest counts, and a quarter of the
   rest: tensor cores, shared memory (128 bytes a clock: what cp.async writes and what is read), L2 (48 bytes a
   multiprocessor; rows beyond M are not read). A block waits at least for the chain of products that add to one sum,
   35 clocks each, and one without a neighbour for the filling of its ring and the writing of its sums. */
template <typename T> static double tile_clocks(const struct product &g, const struct cuda_ctx *ctx) {
    if (T::WGMMA != ctx->wgmma || (!T::ANY && !(g.a.aligned && g.b.aligned))) return INFINITY;
    if (T::M == ctx->tile_m && T::N == ctx->tile_n) return 0;
    double blocks = (double)ceil_div(g.M, T::M) * ceil_div(g.N, T::N), turns = ceil(blocks / ctx->sm_count);
    double multiply = T::M * T::N / (double)T::RATE;
    int rows = min_int(T::M, g.M) + min_int(T::N, g.N), written = T::WGMMA ? rows : T::M + T::N;
    double shared = 2.0 * (written + T::READS) / 128, fetch = 2.0 * rows / 48;
    double busy = 0.75 * fmax(multiply, fmax(shared, fetch)) + 0.25 * (multiply + shared + fetch);
    return (g.K + (T::RESIDENT == 1 ? 128 : 0)) * fmax(35.0 / 16, turns * busy);
}

/* Neighbouring blocks share rows of b, and a few of a: together they stay in L2. */
enum { BAND = 8 };
DEVICE void tile_of_block(int *m, int *n, int tiles_m, int tiles_n) {
    int band = (int)blockIdx.x / (BAND * tiles_n), within = (int)blockIdx.x % (BAND * tiles_n);
    int height = min_int(BAND, tiles_m - band * BAND);
    *m = band * BAND + within % height;
    *n = within / height;
}

DEVICE struct place piece_at(const struct place &at, int right) { return {at.M, at.N, at.row, at.col + right}; }

template <enum orientation O, typename T, typename E>
static __global__ void __launch_bounds__(T::THREADS, T::RESIDENT) gemm_kernel(struct product g, E epilogue) {
    if constexpr (T::WGMMA && !HAS_WGMMA) return;
    else {
        SHARED(bf16, ring);
        float sums[T::PIECES][T::TILES_M][T::TILES_N][4];
        int m, n, row = warp_id() / T::WARPS_N * T::WARP_M, col = warp_id() % T::WARPS_N * T::WARP_N;
        tile_of_block(&m, &n, ceil_div(g.M, T::M), ceil_div(g.N, T::N));
        struct place at = {g.M, g.N, m * T::M + row, n * T::N + col};
#pragma unroll
        for (int i = 0; i < T::PIECES; i++) start(epilogue, sums[i], piece_at(at, i * T::WARP_N));
        if constexpr (T::WGMMA) multiply90<O, T>(sums, ring, g, m * T::M, n * T::N);
        else multiply80<O, T>(sums[0], ring, g, m * T::M, n * T::N, row, col);
#pragma unroll
        for (int i = 0; i < T::PIECES; i++) finish(epilogue, sums[i], piece_at(at, i * T::WARP_N));
    }
}

template <enum orientation O, typename T, typename E>
static int gemm_run(const struct cuda_ctx *ctx, const struct product &g, const E &epilogue) {
    unsigned blocks = (unsigned)ceil_div(g.M, T::M) * (unsigned)ceil_div(g.N, T::N);
    LAUNCH(ctx, (gemm_kernel<O, T, E>), blocks, T::THREADS, T::BYTES, g, epilogue);
    return OK;
}

/* The product by the fastest of the tiles T that this device takes, of which one of each kind must be ANY where
   operands may not be aligned. 2 M N K FLOPs; bytes: 2 K (M + N), a few times over from L2. */
template <enum orientation O, typename... T, typename E>
static int gemm(const struct cuda_ctx *ctx, const struct product &g, const E &epilogue) {
    int (*const run[])(const struct cuda_ctx *, const struct product &, const E &) = {gemm_run<O, T, E>...};
    const double clocks[] = {tile_clocks<T>(g, ctx)...};
    int best = 0;
    for (int i = 1; i < (int)sizeof...(T); i++)
        if (clocks[i] < clocks[best]) best = i;
    return run[best](ctx, g, epilogue);
}

/* Of a linear layer, by these kernels: y (M, N) = the product A_BT, dx (M, N) = the product A_B, dW (M, N) += the
   product AT_B, its K rows in order. */
int forward_product(const struct cuda_ctx *ctx, const struct product &g, const struct sums_to_real &y);
int gradient_product(const struct cuda_ctx *ctx, const struct product &g, const struct sums_to_real &dx);
int add_to_weight_gradient(const struct cuda_ctx *ctx, float *dW, const struct product &g);

#endif
