/* What sums start from and where they go, of I x J tiles of 16 x 8 as mma and wgmma leave them in a warp. */
#ifndef GRPO_CUDA_GEMM_EPILOGUE_H
#define GRPO_CUDA_GEMM_EPILOGUE_H

#include "cuda/gemm_operands.cuh"

/* Where a warp's sums lie in the product. */
struct place {
    int M, N, row, col;
};

/* An epilogue E is a struct with two functions: start() says what a warp's sums start from, finish() takes them. */

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
struct sums_to_real {
    bf16 *y;
    const float *bias;
    bool add, whole;
};

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
struct sums_to_float {
    float *z;
    bool add, pairs;
};

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

#endif
