/* The tile of a product by Hopper's wgmma: warpgroups of four warps multiply 64 rows by all columns of the tile,
   straight from shared memory, while the next pieces of the operands come. Tokens are rows here too, and an element
   is again one fp32 sum to which 16 terms are added at a time in ascending order of k, by the same instruction but
   for its width. */
#ifndef GRPO_CUDA_GEMM90_H
#define GRPO_CUDA_GEMM90_H

#include "cuda/gemm_operands.cuh"
#include "cuda/ptx90.cuh"

/* A warp holds 16 rows and all columns, as PIECES of the epilogues' width. */
template <int M_, int N_, int STAGES_, int RESIDENT_, bool ANY_ = false> struct tile90 {
    enum {
        M = M_,
        N = N_,
        K = 64,
        WARP_M = 16,
        WARP_N = N < 64 ? N : 64,
        STAGES = STAGES_,
        RESIDENT = RESIDENT_,
        ANY = ANY_,
        WARPS_N = 1,
        WARPS = M / WARP_M,
        THREADS = WARP * WARPS,
        STAGE = (M + N) * K,
        BYTES = STAGES * STAGE * (int)sizeof(bf16),
        TILES_M = 1,
        TILES_N = WARP_N / 8,
        STEPS = K / 16,
        WGMMA = true,
        PIECES = N / WARP_N,
        RATE = 2048,
        READS = M + M / 64 * N,
    };
    static_assert(M % 64 == 0 && STAGES > 2, "");
};

/* Of STAGES, one is multiplied, one may still be, and the others are under way: of weights 40 KB in thin90, 64 in
   slim90, 2 x 32 in middle90. The narrow two serve products of so few columns that a multiprocessor gets one block
   or none. A turn of the widest takes 1024 clocks, in which shared memory, 128 bytes a clock, is written 48 KB and
   read 80. */
typedef tile90<64, 16, 22, 1> thin90;
typedef tile90<64, 32, 18, 1> slim90;
typedef tile90<64, 64, 6, 2, true> middle90;
typedef tile90<128, 128, 3, 2> large90;
typedef tile90<128, 256, 4, 1> wide90;

/* The descriptor of an operand in blocks of rows of 128 bytes, whose chunks chunk_place() has permuted: the "128-byte
   swizzle", which starts anew every 1024 bytes. Rows of eight follow each other at EIGHT_ROWS. Where rows run along k
   there is one block; otherwise row k of 64 columns is followed, in the next block, by its next 64. */
DEVICE uint64_t operand90(const bf16 *tile, int block_bytes) {
    enum { UNIT = 16, EIGHT_ROWS = 8 * 128, SWIZZLE_128 = 1 };
    return shared_address(tile) / UNIT | (uint64_t)(block_bytes / UNIT) << 16 | (uint64_t)(EIGHT_ROWS / UNIT) << 32 |
           (uint64_t)SWIZZLE_128 << 62;
}

/* sums += the product's tile at (row0, col0). Where a warpgroup has come to the barrier of a turn it has done with all
   turns but the last; so the stage of the last but one may be fetched again. */
template <enum orientation O, typename T>
DEVICE void multiply90(float (&sums)[T::PIECES][T::TILES_M][T::TILES_N][4], bf16 *ring, const struct product &g,
                       int row0, int col0) {
    constexpr bool A_BY_K = O != AT_B, B_BY_K = O == A_BT;             /* rows of the operand run along k */
    constexpr int BLOCK = T::K * 128, K_STEP = 16 * 2 / 16, ROW_STEP = 16 * 128 / 16;
    int turns = ceil_div(g.K, T::K), group = shuffle(warp_id() / 4, 0), reading = 0, writing = T::STAGES - 2;
    float *first = &sums[0][0][0][0];
    struct feed a = A_BY_K ? first_chunk<T::K>(g.a, row0, 0) : first_chunk<T::M>(g.a, 0, row0);
    struct feed b = B_BY_K ? first_chunk<T::K>(g.b, col0, 0) : first_chunk<T::N>(g.b, 0, col0);
#pragma unroll 1
    for (int s = 0; s < T::STAGES - 2; s++) {
        fetch_stage<O, T>(ring + s * T::STAGE, a, b, g);
        cp_async_commit();
    }
    settle<T::N / 2>(first);
    do {
        cp_async_wait<T::STAGES - 3>();
        fence_shared_for_wgmma();
        __syncthreads();
        const bf16 *stage = ring + reading * T::STAGE;
        uint64_t left = operand90(stage + group * 64 * T::K, BLOCK), right = operand90(stage + T::M * T::K, BLOCK);
        wgmma_fence();
#pragma unroll
        for (int step = 0; step < T::STEPS; step++)
            wgmma<T::N, !A_BY_K, !B_BY_K>(first, left + step * (A_BY_K ? K_STEP : ROW_STEP),
                                          right + step * (B_BY_K ? K_STEP : ROW_STEP));
        wgmma_commit();
        wgmma_wait<1>();
        fetch_stage<O, T>(ring + writing * T::STAGE, a, b, g);
        cp_async_commit();
        reading = reading + 1 < T::STAGES ? reading + 1 : 0;
        writing = writing + 1 < T::STAGES ? writing + 1 : 0;
    } while (--turns > 0); /* at the end: tested before the first turn, ptxas serialises wgmma */
    wgmma_wait<0>();
    settle<T::N / 2>(first);
    cp_async_wait<0>(); /* the last turns fetched zeros from beyond K */
}

#endif
