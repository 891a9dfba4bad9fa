/* The operands of a matrix product: in global memory, and the pieces of them that a block keeps in shared memory. */
#ifndef GRPO_CUDA_GEMM_OPERANDS_H
#define GRPO_CUDA_GEMM_OPERANDS_H

#include "cuda/cuda.cuh"

#define DEVICE static __device__ __forceinline__

/* rows x cols in global memory; what lies outside counts as 0. aligned: chunks of 8 elements are 16-byte aligned and
   may be read whole: a row has room for round_up(cols, 8) elements, and those beyond cols are 0. */
struct matrix {
    const bf16 *data;
    size_t pitch;
    int rows, cols;
    bool aligned;
};

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
struct product {
    struct matrix a, b;
    int M, N, K;
};

/* -- operands in shared memory ----------------------------------------------------------------------------------- */

/* Where chunk `chunk` of a row lies, of ROWS rows of CHUNKS chunks: eight rows below each other at one chunk, or eight
   chunks of one row, fall on eight different groups of banks. Rows longer than 128 bytes are cut into columns of blocks
   of that width, which is how wgmma wants them. */
template <int ROWS, int CHUNKS> DEVICE int chunk_place(int row, int chunk) {
    static_assert(CHUNKS == 4 || CHUNKS % 8 == 0, "");
    if constexpr (CHUNKS == 4) return row * 4 + (chunk ^ (row >> 1 & 3));
    else return chunk / 8 * ROWS * 8 + row * 8 + (chunk % 8 ^ (row & 7));
}

DEVICE void copy_elements(bf16 *dst, const bf16 *src, int n) {
    union {
        bf16 element[8];
        uint4 whole;
    } chunk;
#pragma unroll
    for (int i = 0; i < 8; i++) chunk.element[i] = i < n ? src[i] : 0;
    *(uint4 *)dst = chunk.whole;
}

/* Where a thread's first chunk of the next piece of an operand comes from. */
struct feed {
    const bf16 *src;
    int row, col;
};

template <int COLS> DEVICE struct feed first_chunk(const struct matrix &m, int row0, int col0) {
    int row = row0 + (int)threadIdx.x / (COLS / 8), col = col0 + (int)threadIdx.x % (COLS / 8) * 8;
    return (struct feed){m.data + (size_t)row * m.pitch + col, row, col};
}

/* tile (ROWS, COLS) = the next piece of m, under way until the group's wait; then the feed moves on by `down` rows,
   or `right` columns: along k. Beyond the end of k all is 0; other rows beyond the end reach only sums that nobody
   takes, and for wgmma, whose tiles have 64 rows even for one token, they are left as they are. */
template <int ROWS, int COLS, typename T>
DEVICE void fetch_tile(bf16 *tile, struct feed &f, const struct matrix &m, int down, int right) {
    constexpr int CHUNKS = COLS / 8, STRIDE = T::THREADS / CHUNKS;
    static_assert(T::THREADS % CHUNKS == 0 && ROWS % STRIDE == 0, "");
#pragma unroll
    for (int i = 0; i < ROWS; i += STRIDE) {
        if (T::WGMMA && !down && f.row + i >= m.rows) continue;
        bool inside = f.row + i < m.rows && f.col < m.cols;
        const bf16 *src = inside ? f.src + i * m.pitch : m.data;
        bf16 *dst = tile + 8 * chunk_place<ROWS, CHUNKS>((int)threadIdx.x / CHUNKS + i, (int)threadIdx.x % CHUNKS);
        if (!T::ANY || m.aligned) cp_async16(dst, src, inside);
        else copy_elements(dst, src, inside ? m.cols - f.col : 0);
    }
    f.src += down * m.pitch + right;
    f.row += down;
    f.col += right;
}

/* Operands of one turn of the ring. */
template <enum orientation O, typename T>
DEVICE void fetch_stage(bf16 *stage, struct feed &a, struct feed &b, const struct product &g) {
    if constexpr (O == AT_B) fetch_tile<T::K, T::M, T>(stage, a, g.a, T::K, 0);
    else fetch_tile<T::M, T::K, T>(stage, a, g.a, 0, T::K);
    if constexpr (O == A_BT) fetch_tile<T::N, T::K, T>(stage + T::M * T::K, b, g.b, 0, T::K);
    else fetch_tile<T::K, T::N, T>(stage + T::M * T::K, b, g.b, T::K, 0);
}

#endif
