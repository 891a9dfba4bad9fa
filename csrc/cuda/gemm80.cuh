/* The tile of a product by mma.sync m16n8k16, on every device. A block of warps owns it. Pieces of both operands, K
   deep, come by cp.async into a ring of STAGES in shared memory; fragments of the next 16 of k are read while those
   of the last are multiplied. */
#ifndef GRPO_CUDA_GEMM80_H
#define GRPO_CUDA_GEMM80_H

#include "cuda/gemm_operands.cuh"

/* RESIDENT: blocks that share a multiprocessor. ANY: also takes operands that are not aligned, element by element. */
template <int M_, int N_, int WARP_M_, int WARP_N_, int K_, int STAGES_, int RESIDENT_, bool ANY_ = false> struct tile {
    enum {
        M = M_,
        N = N_,
        K = K_,
        WARP_M = WARP_M_,
        WARP_N = WARP_N_,
        STAGES = STAGES_,
        RESIDENT = RESIDENT_,
        ANY = ANY_,
        WARPS_N = N / WARP_N,
        WARPS = M / WARP_M * WARPS_N,
        THREADS = WARP * WARPS,
        STAGE = (M + N) * K,                           /* elements */
        BYTES = STAGES * STAGE * (int)sizeof(bf16),
        TILES_M = WARP_M / 16,
        TILES_N = WARP_N / 8,   /* mma tiles of a warp */
        STEPS = K / 16,
        WGMMA = false,
        PIECES = 1,
        RATE = 1024,                                   /* multiply-adds a clock */
        READS = WARPS * (WARP_M + WARP_N),             /* elements that a step of k reads from shared memory */
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

/* Fragments of one step of 16 along k: a of 16 rows each, b of 16 columns each (two operands of mma). */
template <typename T> struct fragments {
    uint32_t a[T::TILES_M][4], b[T::TILES_N / 2][4];
};

/* row, col: where the warp's part of the tile starts */
template <enum orientation O, typename T>
DEVICE void read_fragments(struct fragments<T> &f, const bf16 *stage, int row, int col, int k) {
    const bf16 *b = stage + T::M * T::K;
    int lane = lane_id(), low = lane % 8, middle = lane / 8 % 2, high = lane / 16;   /* one of 8 rows of 4 matrices */
#pragma unroll
    for (int i = 0; i < T::TILES_M; i++) {
        int m = row + 16 * i;
        if constexpr (O == AT_B)
            ldmatrix_x4_trans(f.a[i], stage + 8 * chunk_place<T::K, T::M / 8>(k + low + 8 * high, m / 8 + middle));
        else ldmatrix_x4(f.a[i], stage + 8 * chunk_place<T::M, T::K / 8>(m + low + 8 * middle, k / 8 + high));
    }
#pragma unroll
    for (int j = 0; j < T::TILES_N / 2; j++) {
        int n = col + 16 * j;
        if constexpr (O == A_BT)
            ldmatrix_x4(f.b[j], b + 8 * chunk_place<T::N, T::K / 8>(n + low + 8 * high, k / 8 + middle));
        else ldmatrix_x4_trans(f.b[j], b + 8 * chunk_place<T::K, T::N / 8>(k + low + 8 * middle, n / 8 + high));
    }
}

/* sums += the product's tile at (row0, col0). Stage s of the ring is fetched again in the first step after the
   barrier that follows the last reading of it. */
template <enum orientation O, typename T>
DEVICE void multiply80(float (&sums)[T::TILES_M][T::TILES_N][4], bf16 *ring, const struct product &g, int row0,
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

#endif
