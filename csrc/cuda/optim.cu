/* AdamW, the gradient's norm, and mixing of weights, at the memory's speed. A thread takes 8 neighbours at a time;
   the last n % 8 elements, and matrices whose rows are not whole eights, go one by one. */
#include "base/float8.h"
#include "base/rng.h"
#include "cuda/cuda.cuh"

enum { THREADS = 256, BLOCKS = 4096 };                 /* threads stride over what a full grid leaves */

static unsigned grid_of(size_t n, int most) {
    unsigned blocks = blocks_of(n / 8 + n % 8, THREADS);
    return blocks < (unsigned)most ? blocks : (unsigned)most;
}

/* Runs piece<8>(8 i, args) and piece<1>(i, args) of n elements. */
#define FOR_PIECES(n, piece, ...)                                                                  \
    do {                                                                                           \
        size_t pieces_ = (n) / 8, stride_ = (size_t)gridDim.x * blockDim.x;                        \
        size_t first_ = (size_t)blockIdx.x * blockDim.x + threadIdx.x;                             \
        for (size_t i_ = first_; i_ < pieces_; i_ += stride_) piece<8>(8 * i_, __VA_ARGS__);       \
        for (size_t i_ = 8 * pieces_ + first_; i_ < (n); i_ += stride_) piece<1>(i_, __VA_ARGS__); \
    } while (0)

/* -- AdamW: reads and writes 28 bytes an element, 20 with bf16 moments; 2 less with float24 masters ---------------- */

struct adamw_factors {
    float beta1, beta2, rest1, rest2, keep, rate, root2, eps, scale;
    uint64_t seed, first;
    uint32_t step;
};

/* The upper part of n weights: bf16 of a matrix, or the upper half of a vector's floats */
template <int n> static __device__ __forceinline__ void load_upper(bf16 upper[n], const bf16 *w) {
    copy_halves<n>(upper, w);
}
template <int n> static __device__ __forceinline__ void load_upper(bf16 upper[n], const float *w) {
    float v[n];
    load<n>(v, w);
    for (int i = 0; i < n; i++) upper[i] = (bf16)(__float_as_uint(v[i]) >> 16);
}
template <int n> static __device__ __forceinline__ void store_upper(bf16 *w, const bf16 upper[n]) {
    copy_halves<n>(w, upper);
}
template <int n> static __device__ __forceinline__ void store_upper(float *w, const bf16 upper[n]) {
    float v[n];
    for (int i = 0; i < n; i++) v[i] = to_float(upper[i]);
    store<n>(w, v);
}

/* random: (n), of which the lower (shift 0) or the upper half (16) is used */
template <int n>
static __device__ __forceinline__ void store_moment(float *p, const float v[n], const uint32_t *, int) {
    store<n>(p, v);
}
template <int n>
static __device__ __forceinline__ void store_moment(bf16 *p, const float v[n], const uint32_t random[n], int shift) {
    alignas(16) bf16 rounded[n];
    for (int i = 0; i < n; i++) rounded[i] = round_stochastic(__float_as_uint(v[i]), random[i] >> shift & 0xffff);
    copy_halves<n>(p, rounded);
}

template <int n>
static __device__ __forceinline__ void rounding_words(uint32_t random[n], uint64_t element,
                                                      const struct adamw_factors *p) {
    for (int i = 0; i < n; i += 4) {
        struct philox four = rounding_bits(p->seed, p->step, (element + (uint64_t)i) / 4);
        if constexpr (n == 1)
            random[0] = element & 2 ? (element & 1 ? four.x[3] : four.x[2]) : (element & 1 ? four.x[1] : four.x[0]);
        else
            for (int j = 0; j < 4; j++) random[i + j] = four.x[j];
    }
}

/* The n lower parts of masters: whole halves (uint16_t), or their upper bytes (uint8_t) */
template <int n> static __device__ __forceinline__ void copy_lower(uint16_t *to, const uint16_t *from) {
    copy_halves<n>(to, from);
}
template <int n> static __device__ __forceinline__ void copy_lower(uint8_t *to, const uint8_t *from) {
    copy_bytes<n>(to, from);
}

/* Steps one element: its weight in two parts, and its moments. random: of a master without 8 of its bits */
template <typename Lower>
static __device__ __forceinline__ void adamw_element(bf16 *up, Lower *low, float *m, float *v, float g, uint32_t random,
                                                     const struct adamw_factors *p) {
    constexpr int lacking = 16 - 8 * (int)sizeof(Lower);
    float w = __uint_as_float(join_bits(*up, (uint16_t)(*low << lacking))), grad = g * p->scale;
    *m = fmaf(p->beta1, *m, p->rest1 * grad);
    *v = fmaf(p->beta2, *v, p->rest2 * (grad * grad));
    w = w * p->keep - p->rate * *m / fmaf(sqrtf(*v), p->root2, p->eps);
    uint32_t bits = __float_as_uint(w);
    if constexpr (lacking > 0) bits = round_float24(bits, master_bits(random));
    *up = upper_of(bits);
    *low = (Lower)(bits >> lacking);
}

/* Elements [at, at + n), stored in w from w_at on */
template <int n, typename Weight, typename Lower, typename Moment>
static __device__ __forceinline__ void adamw_piece(Weight *w, size_t w_at, Lower *lower, Moment *m, Moment *v,
                                                   const float *g, size_t at, const struct adamw_factors *p) {
    float mi[n], vi[n], gi[n];
    alignas(16) bf16 up[n];
    alignas(16) Lower low[n];
    uint32_t random[n] = {};
    load_upper<n>(up, w + w_at);
    copy_lower<n>(low, lower + at);
    load<n>(mi, m + at);
    load<n>(vi, v + at);
    load<n>(gi, g + at);
    if constexpr (sizeof(Moment) == sizeof(bf16) || sizeof(Lower) == 1) rounding_words<n>(random, p->first + at, p);
    for (int i = 0; i < n; i++) adamw_element(up + i, low + i, mi + i, vi + i, gi[i], random[i], p);
    store_upper<n>(w + w_at, up);
    copy_lower<n>(lower + at, low);
    store_moment<n>(m + at, mi, random, 0);
    store_moment<n>(v + at, vi, random, 16);
}

/* w (n / C, C), its rows `pitch` apart */
template <typename Weight, typename Lower, typename Moment>
static __global__ void adamw(Weight *w, Lower *lower, Moment *m, Moment *v, const float *g, size_t n, int C, int pitch,
                             struct adamw_factors p) {
    size_t pieces = C == pitch ? n / 8 : 0, stride = (size_t)gridDim.x * blockDim.x,
           first = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    for (size_t i = first; i < pieces; i += stride) adamw_piece<8>(w, 8 * i, lower, m, v, g, 8 * i, &p);
    for (size_t i = 8 * pieces + first; i < n; i += stride)
        adamw_piece<1>(w, i / C * pitch + i % C, lower, m, v, g, i, &p);
}

static struct adamw_factors factors_of(const struct adamw *p) {
    return {p->beta1,
            p->beta2,
            1 - p->beta1,
            1 - p->beta2,
            1 - p->lr * p->weight_decay,
            p->lr / p->correction1,
            1 / sqrtf(p->correction2),
            p->eps,
            p->grad_scale,
            p->seed,
            p->first,
            p->step};
}

template <typename Weight, typename Lower, typename Moment>
static int launch_adamw(void *ctx, void *w, void *lower, void *m, void *v, const float *g, int O, int C,
                        const struct adamw *p) {
    struct adamw_factors f = factors_of(p);
    size_t n = (size_t)O * (size_t)(C ? C : 1);
    int pitch = C ? weight_pitch(C) : O;
    if (!C) C = O;                                     /* a vector is a row */
    unsigned blocks = grid_of(C == pitch ? n : 8 * n, BLOCKS);
    LAUNCH(ctx, (adamw<Weight, Lower, Moment>), blocks, THREADS, 0, (Weight *)w, (Lower *)lower, (Moment *)m,
           (Moment *)v, g, n, C, pitch, f);
    return OK;
}

/* -- AdamW with moments in 8 bits ---------------------------------------------------------------------------------- */
/* 16 bytes an element, 14 with float24 masters. A warp has a block, whose new exponents it must know before it
   writes numbers; a lane has 8 elements of it, neighbours where rows are whole eights. */

enum { LANE_ELEMENTS = FLOAT8_BLOCK / WARP };

template <int n>
static __device__ __forceinline__ void decode(float x[n], const uint8_t *codes, uint32_t exponent, uint32_t format) {
    alignas(8) uint8_t code[n];
    copy_bytes<n>(code, codes);
    for (int i = 0; i < n; i++) x[i] = float8_decode(code[i], exponent, format);
}

/* random: (n), of which the lower (shift 0) or the upper half (16) is used */
template <int n>
static __device__ __forceinline__ void encode(uint8_t *codes, const float x[n], const uint32_t random[n], int shift,
                                              uint32_t exponent, uint32_t format) {
    alignas(8) uint8_t code[n];
    for (int i = 0; i < n; i++) code[i] = float8_encode(x[i], random[i] >> shift & 0xffff, exponent, format);
    copy_bytes<n>(codes, code);
}

/* The exponent of a warp's numbers, written by one of its lanes to where the old one was */
static __device__ __forceinline__ uint32_t new_exponent(uint8_t *exponent, const float x[LANE_ELEMENTS],
                                                        uint32_t format) {
    float largest = 0;
    for (int i = 0; i < LANE_ELEMENTS; i++) largest = fmaxf(largest, fabsf(x[i]));
    uint32_t shared = float8_exponent(__float_as_uint(warp_max(largest)), format);
    __syncwarp();                                      /* all lanes have read the old one */
    if (lane_id() == 0) *exponent = (uint8_t)shared;
    return shared;
}

/* w (O, C), its rows `pitch` apart; n: elements that are read together */
template <int n, typename Lower>
static __global__ void adamw_float8(bf16 *w, Lower *lower, uint8_t *m, uint8_t *v, const float *g, int O, int C,
                                    int pitch, struct adamw_factors p) {
    size_t row_blocks = (size_t)float8_blocks(C), elements = (size_t)O * (size_t)C,
           stride = (size_t)gridDim.x * (blockDim.x / WARP);
    for (size_t block = (size_t)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP; block < (size_t)O * row_blocks;
         block += stride) {
        size_t row = block / row_blocks;
        int first = (int)(block % row_blocks) * FLOAT8_BLOCK + lane_id() * n;
        uint8_t *m_exponent = m + elements + block, *v_exponent = v + elements + block;
        float mi[LANE_ELEMENTS] = {}, vi[LANE_ELEMENTS] = {};
        uint32_t random[LANE_ELEMENTS];
#pragma unroll
        for (int i = 0; i < LANE_ELEMENTS; i += n) {
            int c = first + i * WARP;
            if (c >= C) continue;
            size_t at = row * (size_t)C + (size_t)c, w_at = row * (size_t)pitch + (size_t)c;
            float gi[n];
            alignas(16) bf16 up[n];
            alignas(16) Lower low[n];
            rounding_words<n>(random + i, p.first + at, &p);
            copy_halves<n>(up, w + w_at);
            copy_lower<n>(low, lower + at);
            load<n>(gi, g + at);
            decode<n>(mi + i, m + at, *m_exponent, FLOAT8_M);
            decode<n>(vi + i, v + at, *v_exponent, FLOAT8_V);
            for (int j = 0; j < n; j++)
                adamw_element(up + j, low + j, mi + i + j, vi + i + j, gi[j], random[i + j], &p);
            copy_halves<n>(w + w_at, up);
            copy_lower<n>(lower + at, low);
        }
        uint32_t m_shared = new_exponent(m_exponent, mi, FLOAT8_M), v_shared = new_exponent(v_exponent, vi, FLOAT8_V);
#pragma unroll
        for (int i = 0; i < LANE_ELEMENTS; i += n) {
            int c = first + i * WARP;
            if (c >= C) continue;
            size_t at = row * (size_t)C + (size_t)c;
            encode<n>(m + at, mi + i, random + i, 0, m_shared, FLOAT8_M);
            encode<n>(v + at, vi + i, random + i, 16, v_shared, FLOAT8_V);
        }
    }
}

template <typename Lower>
static int launch_float8(void *ctx, void *w, void *lower, void *m, void *v, const float *g, int O, int C,
                         const struct adamw *p) {
    struct adamw_factors f = factors_of(p);
    size_t blocks = (size_t)O * (size_t)float8_blocks(C);
    unsigned grid = blocks < BLOCKS ? blocks_of(blocks, THREADS / WARP) : (unsigned)BLOCKS;
    LAUNCH(ctx, (C % 8 ? adamw_float8<1, Lower> : adamw_float8<8, Lower>), grid, THREADS, 0, (bf16 *)w, (Lower *)lower,
           (uint8_t *)m, (uint8_t *)v, g, O, C, weight_pitch(C), f);
    return OK;
}

template <typename Lower>
static int launch_storage(void *ctx, void *w, void *lower, void *m, void *v, const float *g, int O, int C,
                          const struct adamw *p) {
    if (p->moments == MOMENT_FLOAT8) return launch_float8<Lower>(ctx, w, lower, m, v, g, O, C, p);
    int half = p->moments == MOMENT_BFLOAT16;
    auto *launch = C ? (half ? launch_adamw<bf16, Lower, bf16> : launch_adamw<bf16, Lower, float>)
                     : (half ? launch_adamw<float, Lower, bf16> : launch_adamw<float, Lower, float>);
    return launch(ctx, w, lower, m, v, g, O, C, p);
}

int cuda_adamw(void *ctx, void *w, void *lower, void *m, void *v, const float *g, int O, int C, const struct adamw *p) {
    return (p->masters == MASTER_FLOAT24 ? launch_storage<uint8_t> : launch_storage<uint16_t>)(ctx, w, lower, m, v, g,
                                                                                               O, C, p);
}

/* -- dst = (1 - alpha) dst + alpha src: 12 bytes an element -------------------------------------------------------- */

template <int n>
static __device__ __forceinline__ void lerp_piece(size_t at, float *dst, const float *src, float alpha) {
    float a[n], b[n];
    load<n>(a, dst + at);
    load<n>(b, src + at);
    for (int i = 0; i < n; i++) a[i] = fmaf(alpha, b[i], (1 - alpha) * a[i]);
    store<n>(dst + at, a);
}

static __global__ void lerp(float *dst, const float *src, float alpha, size_t n) {
    FOR_PIECES(n, lerp_piece, dst, src, alpha);
}

int cuda_lerp(void *ctx, float *dst, const float *src, float alpha, size_t n) {
    LAUNCH(ctx, lerp, grid_of(n, BLOCKS), THREADS, 0, dst, src, alpha, n);
    return OK;
}

/* -- sum of squares ------------------------------------------------------------------------------------------------ */
/* 4 bytes an element  In double, since an fp32 square overflows from 1.8e19 on. Which thread adds what, and the
   order of the rest, follow from n alone. */

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
