/* RMSNorm, LayerNorm, and sums over rows of what it and rope leave for the gradients of weights. */
#include "cuda/norm.cuh"

/* A thread takes 8 neighbouring channels at a time where rows are 16-byte aligned, else 1; a block has a thread for
   each such piece, as far as blocks go. Both follow from C alone, and with them the order of every sum over C. */
static int threads_of(int C) { return min_int(BLOCK_MAX, round_up(ceil_div(C, C % 8 ? 1 : 8), WARP)); }

/* A block a row: 4 bytes an element, at the memory's speed. */
/* add: to what y holds */
template <int n, bool add>
static __global__ void __launch_bounds__(BLOCK_MAX)
    rmsnorm(bf16 *y, float *rstd, const bf16 *x, const float *w, float offset, float eps, int C) {
    __shared__ float shared[WARP];
    size_t row = (size_t)blockIdx.x * C;
    int first = (int)threadIdx.x * n, step = (int)blockDim.x * n;
    float squares = 0, v[n], scale[n], sum[n];
    for (int c = first; c < C; c += step) {
        load<n>(v, x + row + c);
        for (int i = 0; i < n; i++) squares = fmaf(v[i], v[i], squares);
    }
    float r = 1 / sqrtf(block_sum(squares, shared) / (float)C + eps);
    for (int c = first; c < C; c += step) {
        load<n>(v, x + row + c);
        load<n>(scale, w + c);
        for (int i = 0; i < n; i++) v[i] = v[i] * r * (offset + scale[i]);
        if (add) {
            load<n>(sum, y + row + c);
            for (int i = 0; i < n; i++) v[i] += sum[i];
        }
        store<n>(y + row + c, v);
    }
    if (threadIdx.x == 0) rstd[blockIdx.x] = r;
}

int cuda_rmsnorm(void *ctx, real *y, float *rstd, const real *x, const float *w, float offset, float eps, int N,
                 int C) {
    LAUNCH(ctx, (C % 8 ? rmsnorm<1, false> : rmsnorm<8, false>), (unsigned)N, (unsigned)threads_of(C), 0, (bf16 *)y,
           rstd, (const bf16 *)x, w, offset, eps, C);
    return OK;
}

int cuda_rmsnorm_add(void *ctx, real *y, float *rstd, const real *x, const float *w, float offset, float eps, int N,
                     int C) {
    LAUNCH(ctx, (C % 8 ? rmsnorm<1, true> : rmsnorm<8, true>), (unsigned)N, (unsigned)threads_of(C), 0, (bf16 *)y, rstd,
           (const bf16 *)x, w, offset, eps, C);
    return OK;
}

/* -- RMSNorm's backward -------------------------------------------------------------------------------------------- */
/* A block takes ROW_ALIGN rows, AT_ONCE of them together so that their loads overlap, and keeps its sum for dw in
   shared memory. 8 bytes an element, and 4 of C / 8 for the sums. */

enum { AT_ONCE = 4 };

/* The sums of `count` values over the block, each as block_sum() would give it. */
template <int count> static __device__ __forceinline__ void block_sums(float v[count], float shared[count][WARP]) {
    int warps = (int)blockDim.x / WARP;
    for (int i = 0; i < count; i++) v[i] = warp_sum(v[i]);
    __syncthreads();
    if (lane_id() == 0)
        for (int i = 0; i < count; i++) shared[i][warp_id()] = v[i];
    __syncthreads();
    for (int i = 0; i < count; i++) v[i] = warp_sum(lane_id() < warps ? shared[i][lane_id()] : 0.0f);
}

template <int n>
static __global__ void __launch_bounds__(BLOCK_MAX)
    rmsnorm_bwd(bf16 *dx, float *partial, const bf16 *dy, const bf16 *x, const float *w, float offset,
                const float *rstd, int N, int C) {
    __shared__ float shared[AT_ONCE][WARP];
    SHARED(float, dw);                                 /* (C) of this block's rows */
    int first = (int)threadIdx.x * n, step = (int)blockDim.x * n;
    int begin = (int)blockIdx.x * ROW_ALIGN, end = min(N, begin + ROW_ALIGN);
    float g[n], v[n], scale[n], sum[n];
    for (int c = first; c < C; c += step)
        for (int i = 0; i < n; i++) dw[c + i] = 0;
    for (int row = begin; row < end; row += AT_ONCE) {
        int rows = min(AT_ONCE, end - row);
        float mean[AT_ONCE] = {0}, r[AT_ONCE];
        for (int k = 0; k < AT_ONCE; k++) r[k] = k < rows ? rstd[row + k] : 0;
        for (int c = first; c < C; c += step) {
            load<n>(scale, w + c);
#pragma unroll
            for (int k = 0; k < AT_ONCE; k++) {
                if (k >= rows) continue;
                load<n>(g, dy + (size_t)(row + k) * C + c);
                load<n>(v, x + (size_t)(row + k) * C + c);
                for (int i = 0; i < n; i++) mean[k] = fmaf((offset + scale[i]) * g[i], v[i] * r[k], mean[k]);
            }
        }
        block_sums<AT_ONCE>(mean, shared);
        for (int c = first; c < C; c += step) {
            load<n>(scale, w + c);
            load<n>(sum, dw + c);
#pragma unroll
            for (int k = 0; k < AT_ONCE; k++) {
                if (k >= rows) continue;
                size_t at = (size_t)(row + k) * C + c;
                float d[n], m = mean[k] / (float)C;
                load<n>(g, dy + at);
                load<n>(v, x + at);
                load<n>(d, dx + at);
                for (int i = 0; i < n; i++) {
                    float normed = v[i] * r[k];
                    d[i] = fmaf(r[k], fmaf(-normed, m, (offset + scale[i]) * g[i]), d[i]);
                    sum[i] = fmaf(g[i], normed, sum[i]);
                }
                store<n>(dx + at, d);
            }
            store<n>(dw + c, sum);
        }
    }
    for (int c = first; c < C; c += step)
        for (int i = 0; i < n; i++) partial[(size_t)blockIdx.x * C + c + i] = dw[c + i];
}

int cuda_rmsnorm_bwd_add(void *ctx, real *dx, float *dw, const real *dy, const real *x, const float *w, float offset,
                         const float *rstd, int N, int C) {
    int blocks = ceil_div(N, ROW_ALIGN);
    void *partial;                                     /* (blocks, C) */
    TRY(scratch(&partial, (struct cuda_ctx *)ctx, (size_t)blocks * C * sizeof(float)));
    LAUNCH(ctx, (C % 8 ? rmsnorm_bwd<1> : rmsnorm_bwd<8>), (unsigned)blocks, (unsigned)threads_of(C),
           (size_t)C * sizeof(float), (bf16 *)dx, (float *)partial, (const bf16 *)dy, (const bf16 *)x, w, offset, rstd,
           N, C);
    return add_partials(ctx, dw, (const float *)partial, blocks, C, C);
}

/* -- LayerNorm: a block a row, 4 bytes an element; mean and variance one after the other, from cache --------------- */

template <int n>
static __global__ void __launch_bounds__(BLOCK_MAX)
    layernorm(bf16 *y, float *mean, float *rstd, const bf16 *x, const float *w, const float *b, float eps, int C) {
    __shared__ float shared[WARP];
    size_t row = (size_t)blockIdx.x * C;
    int first = (int)threadIdx.x * n, step = (int)blockDim.x * n;
    float sum = 0, squares = 0, v[n], scale[n], shift[n];
    for (int c = first; c < C; c += step) {
        load<n>(v, x + row + c);
        for (int i = 0; i < n; i++) sum += v[i];
    }
    float m = block_sum(sum, shared) / (float)C;
    for (int c = first; c < C; c += step) {
        load<n>(v, x + row + c);
        for (int i = 0; i < n; i++) squares = fmaf(v[i] - m, v[i] - m, squares);
    }
    float r = 1 / sqrtf(block_sum(squares, shared) / (float)C + eps);
    for (int c = first; c < C; c += step) {
        load<n>(v, x + row + c);
        load<n>(scale, w + c);
        load<n>(shift, b + c);
        for (int i = 0; i < n; i++) v[i] = fmaf((v[i] - m) * r, scale[i], shift[i]);
        store<n>(y + row + c, v);
    }
    if (threadIdx.x) return;
    mean[blockIdx.x] = m;
    rstd[blockIdx.x] = r;
}

int cuda_layernorm(void *ctx, real *y, float *mean, float *rstd, const real *x, const float *w, const float *b,
                   float eps, int N, int C) {
    LAUNCH(ctx, (C % 8 ? layernorm<1> : layernorm<8>), (unsigned)N, (unsigned)threads_of(C), 0, (bf16 *)y, mean, rstd,
           (const bf16 *)x, w, b, eps, C);
    return OK;
}

/* As RMSNorm's backward, with a second mean and a second sum over rows. */
template <int n>
static __global__ void __launch_bounds__(BLOCK_MAX)
    layernorm_bwd(bf16 *dx, float *partial, const bf16 *dy, const bf16 *x, const float *w, const float *mean,
                  const float *rstd, int N, int C) {
    __shared__ float shared[2 * AT_ONCE][WARP];
    SHARED(float, dw);                                 /* (2, C) of this block's rows: dw, then db */
    float *db = dw + C;
    int first = (int)threadIdx.x * n, step = (int)blockDim.x * n;
    int begin = (int)blockIdx.x * ROW_ALIGN, end = min(N, begin + ROW_ALIGN);
    float g[n], v[n], scale[n];
    for (int c = first; c < C; c += step)
        for (int i = 0; i < n; i++) dw[c + i] = db[c + i] = 0;
    for (int row = begin; row < end; row += AT_ONCE) {
        int rows = min(AT_ONCE, end - row);
        float means[2 * AT_ONCE] = {0}, m[AT_ONCE], r[AT_ONCE];        /* of w dy, then of w dy n */
        for (int k = 0; k < AT_ONCE; k++) {
            m[k] = k < rows ? mean[row + k] : 0;
            r[k] = k < rows ? rstd[row + k] : 0;
        }
        for (int c = first; c < C; c += step) {
            load<n>(scale, w + c);
#pragma unroll
            for (int k = 0; k < AT_ONCE; k++) {
                if (k >= rows) continue;
                load<n>(g, dy + (size_t)(row + k) * C + c);
                load<n>(v, x + (size_t)(row + k) * C + c);
                for (int i = 0; i < n; i++) {
                    means[k] += scale[i] * g[i];
                    means[AT_ONCE + k] = fmaf(scale[i] * g[i], (v[i] - m[k]) * r[k], means[AT_ONCE + k]);
                }
            }
        }
        block_sums<2 * AT_ONCE>(means, shared);
        for (int c = first; c < C; c += step) {
            float sum[n], sum_n[n];
            load<n>(scale, w + c);
            load<n>(sum_n, dw + c);
            load<n>(sum, db + c);
#pragma unroll
            for (int k = 0; k < AT_ONCE; k++) {
                if (k >= rows) continue;
                size_t at = (size_t)(row + k) * C + c;
                float d[n], mean_g = means[k] / (float)C, mean_gn = means[AT_ONCE + k] / (float)C;
                load<n>(g, dy + at);
                load<n>(v, x + at);
                load<n>(d, dx + at);
                for (int i = 0; i < n; i++) {
                    float normed = (v[i] - m[k]) * r[k];
                    d[i] = fmaf(r[k], fmaf(-normed, mean_gn, scale[i] * g[i] - mean_g), d[i]);
                    sum_n[i] = fmaf(g[i], normed, sum_n[i]);
                    sum[i] += g[i];
                }
                store<n>(dx + at, d);
            }
            store<n>(dw + c, sum_n);
            store<n>(db + c, sum);
        }
    }
    for (int c = first; c < C; c += step)
        for (int i = 0; i < n; i++) {
            partial[(size_t)blockIdx.x * 2 * C + c + i] = dw[c + i];
            partial[(size_t)blockIdx.x * 2 * C + C + c + i] = db[c + i];
        }
}

int cuda_layernorm_bwd_add(void *ctx, real *dx, float *dw, float *db, const real *dy, const real *x, const float *w,
                           const float *mean, const float *rstd, int N, int C) {
    int blocks = ceil_div(N, ROW_ALIGN);
    void *partial;                                     /* (blocks, 2, C) */
    TRY(scratch(&partial, (struct cuda_ctx *)ctx, (size_t)blocks * 2 * C * sizeof(float)));
    LAUNCH(ctx, (C % 8 ? layernorm_bwd<1> : layernorm_bwd<8>), (unsigned)blocks, (unsigned)threads_of(C),
           2 * (size_t)C * sizeof(float), (bf16 *)dx, (float *)partial, (const bf16 *)dy, (const bf16 *)x, w, mean,
           rstd, N, C);
    TRY(add_partials(ctx, dw, (const float *)partial, blocks, C, 2 * C));
    return add_partials(ctx, db, (const float *)partial + C, blocks, C, 2 * C);
}

/* -- sums over rows ------------------------------------------------------------------------------------------------ */

static __global__ void add_in_order(float *dst, const float *partial, int blocks, int C, int stride) {
    int c = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (c >= C) return;
    float sum = dst[c];
#pragma unroll 16
    for (int b = 0; b < blocks; b++) sum += partial[(size_t)b * stride + c];
    dst[c] = sum;
}

int add_partials(void *ctx, float *dst, const float *partial, int blocks, int C, int stride) {
    enum { THREADS = 32 };                             /* few columns: many small blocks spread them over the GPU */
    if (!blocks) return OK;
    LAUNCH(ctx, add_in_order, blocks_of((size_t)C, THREADS), THREADS, 0, dst, partial, blocks, C, stride);
    return OK;
}

size_t partials_scratch(const struct op_limits *need) {
    int rows = max_int(max_int(need->rows, need->head_rows), need->slots);
    return (size_t)ceil_div(rows, ROW_ALIGN) * 2 * (size_t)max_int(need->channels, need->head_dim) * sizeof(float);
}
