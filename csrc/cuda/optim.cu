/* AdamW, the gradient's norm, and mixing of weights: fp32 arrays, at the memory's speed. A thread takes 8 neighbours at a
   time; the last n % 8 elements go one by one. */
#include "cuda/cuda.cuh"

enum { THREADS = 256, BLOCKS = 4096 };                 /* threads stride over what a full grid leaves */

static unsigned grid_of(size_t n, int most) {
    unsigned blocks = blocks_of(n / 8 + n % 8, THREADS);
    return blocks < (unsigned)most ? blocks : (unsigned)most;
}

/* Runs piece<8>(8 i, args) and piece<1>(i, args) of n elements. */
#define FOR_PIECES(n, piece, ...)                                                                                      \
    do {                                                                                                               \
        size_t pieces_ = (n) / 8, stride_ = (size_t)gridDim.x * blockDim.x;                                            \
        size_t first_ = (size_t)blockIdx.x * blockDim.x + threadIdx.x;                                                 \
        for (size_t i_ = first_; i_ < pieces_; i_ += stride_) piece<8>(8 * i_, __VA_ARGS__);                           \
        for (size_t i_ = 8 * pieces_ + first_; i_ < (n); i_ += stride_) piece<1>(i_, __VA_ARGS__);                     \
    } while (0)

/* -- AdamW: reads 16, writes 12 bytes an element --------------------------------------------------------------------------- */

struct adamw_factors { float beta1, beta2, rest1, rest2, keep, rate, root2, eps, scale; };

template <int n>
static __device__ __forceinline__ void adamw_piece(size_t at, float *w, float *m, float *v, const float *g, const struct adamw_factors *p) {
    float wi[n], mi[n], vi[n], gi[n];
    load<n>(wi, w + at);
    load<n>(mi, m + at);
    load<n>(vi, v + at);
    load<n>(gi, g + at);
    for (int i = 0; i < n; i++) {
        float grad = gi[i] * p->scale;
        mi[i] = fmaf(p->beta1, mi[i], p->rest1 * grad);
        vi[i] = fmaf(p->beta2, vi[i], p->rest2 * (grad * grad));
        wi[i] = wi[i] * p->keep - p->rate * mi[i] / fmaf(sqrtf(vi[i]), p->root2, p->eps);
    }
    store<n>(w + at, wi);
    store<n>(m + at, mi);
    store<n>(v + at, vi);
}

static __global__ void adamw(float *w, float *m, float *v, const float *g, size_t n, struct adamw_factors p) {
    FOR_PIECES(n, adamw_piece, w, m, v, g, &p);
}

int cuda_adamw(void *ctx, float *w, float *m, float *v, const float *g, size_t n, const struct adamw *p) {
    struct adamw_factors f = {p->beta1, p->beta2, 1 - p->beta1, 1 - p->beta2, 1 - p->lr * p->weight_decay, p->lr / p->correction1,
                              1 / sqrtf(p->correction2), p->eps, p->grad_scale};
    LAUNCH(ctx, adamw, grid_of(n, BLOCKS), THREADS, 0, w, m, v, g, n, f);
    return OK;
}

/* -- dst = (1 - alpha) dst + alpha src: 12 bytes an element ------------------------------------------------------------------ */

template <int n> static __device__ __forceinline__ void lerp_piece(size_t at, float *dst, const float *src, float alpha) {
    float a[n], b[n];
    load<n>(a, dst + at);
    load<n>(b, src + at);
    for (int i = 0; i < n; i++) a[i] = fmaf(alpha, b[i], (1 - alpha) * a[i]);
    store<n>(dst + at, a);
}

static __global__ void lerp(float *dst, const float *src, float alpha, size_t n) { FOR_PIECES(n, lerp_piece, dst, src, alpha); }

int cuda_lerp(void *ctx, float *dst, const float *src, float alpha, size_t n) {
    LAUNCH(ctx, lerp, grid_of(n, BLOCKS), THREADS, 0, dst, src, alpha, n);
    return OK;
}

/* -- sum of squares: 4 bytes an element ----------------------------------------------------------------------------------------
   In double, since an fp32 square overflows from 1.8e19 on. Which thread adds what, and the order of the rest, follow from
   n alone. */

enum { SQUARE_BLOCKS = 1024 };

template <int n> static __device__ __forceinline__ void squares_piece(size_t at, double *sum, const float *g) {
    float v[n];
    load<n>(v, g + at);
    for (int i = 0; i < n; i++) *sum += (double)v[i] * v[i];
}

static __global__ void squares(double *partial, const float *g, size_t n) {
    __shared__ double shared[WARP];
    double sum = 0;
    FOR_PIECES(n, squares_piece, &sum, g);
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

/* out = sum of partial (n), by one block */
static __global__ void add_squares(double *out, const double *partial, int n) {
    __shared__ double shared[WARP];
    double sum = 0;
    for (int i = (int)threadIdx.x; i < n; i += THREADS) sum += partial[i];
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) *out = sum;
}

int cuda_sum_squares(void *ctx_, double *out, const float *g, size_t n) {
    struct cuda_ctx *ctx = (struct cuda_ctx *)ctx_;
    unsigned blocks = grid_of(n, SQUARE_BLOCKS);
    void *partial;                                     /* (blocks), then the sum */
    TRY(scratch(&partial, ctx, (SQUARE_BLOCKS + 1) * sizeof(double)));
    double *sum = (double *)partial + SQUARE_BLOCKS;
    LAUNCH(ctx, squares, blocks, THREADS, 0, (double *)partial, g, n);
    LAUNCH(ctx, add_squares, 1, THREADS, 0, sum, (const double *)partial, (int)blocks);
    CUDA(cudaMemcpyAsync(ctx->pinned, sum, sizeof *sum, cudaMemcpyDeviceToHost, ctx->stream));
    CUDA(cudaStreamSynchronize(ctx->stream));
    memcpy(out, ctx->pinned, sizeof *out);
    return OK;
}

size_t squares_scratch(const struct op_limits *need) {
    (void)need;
    return (SQUARE_BLOCKS + 1) * sizeof(double);
}
