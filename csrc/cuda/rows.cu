/* Rows by index, GELU and GLU. */
#include "cuda/cuda.cuh"

enum { THREADS = 128 };

/* 8 elements a thread where rows are 16-byte aligned, else 1. A function of the width alone, as rollout = training
   wants it. */
#define BY_WIDTH(C, kernel) ((C) % 8 ? kernel<1> : kernel<8>)
static int piece(int C) { return C % 8 ? 1 : 8; }

/* -- rows copied, bit for bit whatever they hold: 2 x 2 bytes an element ------------------------------------------- */

template <int n> struct piece_of {
    typedef bf16 bits;
};
template <> struct piece_of<8> {
    typedef uint4 bits;
};

/* Block (row, piece of columns): row to[i] of dst = row from[i] of src; NULL means i itself. Rows are so many
   elements apart. */
template <int n>
static __global__ void copy_rows(bf16 *dst, const int32_t *to, int dst_pitch, const bf16 *src, const int32_t *from,
                                 int src_pitch, int C) {
    typedef typename piece_of<n>::bits bits;
    dst += (size_t)(to ? to[blockIdx.x] : (int)blockIdx.x) * dst_pitch;
    src += (size_t)(from ? from[blockIdx.x] : (int)blockIdx.x) * src_pitch;
    for (int c = (int)(blockIdx.y * THREADS + threadIdx.x) * n; c < C; c += (int)gridDim.y * THREADS * n)
        *(bits *)(dst + c) = *(const bits *)(src + c);
}

/* y = scale times row from[i] of src, rounded */
template <int n>
static __global__ void scale_rows(bf16 *y, const bf16 *src, const int32_t *from, int src_pitch, float scale, int C) {
    y += (size_t)blockIdx.x * C;
    src += (size_t)from[blockIdx.x] * src_pitch;
    for (int c = (int)(blockIdx.y * THREADS + threadIdx.x) * n; c < C; c += (int)gridDim.y * THREADS * n) {
        float v[n];
        load<n>(v, src + c);
        for (int i = 0; i < n; i++) v[i] *= scale;
        store<n>(y + c, v);
    }
}

/* y = scale times the sum of weights[k] times row ids[k] of E, ids and weights (N, K), rounded */
template <int n>
static __global__ void mix_rows(bf16 *y, const bf16 *E, const int32_t *ids, const float *weights, int pitch,
                                float scale, int K, int C) {
    y += (size_t)blockIdx.x * C;
    ids += (size_t)blockIdx.x * K;
    weights += (size_t)blockIdx.x * K;
    for (int c = (int)(blockIdx.y * THREADS + threadIdx.x) * n; c < C; c += (int)gridDim.y * THREADS * n) {
        float sum[n], v[n];
        for (int i = 0; i < n; i++) sum[i] = -0.0f; /* a mere -0 stays one, as embed copies it */
        for (int k = 0; k < K; k++) {
            load<n>(v, E + (size_t)ids[k] * pitch + c);
            for (int i = 0; i < n; i++) sum[i] = fmaf(weights[k], v[i], sum[i]);
        }
        for (int i = 0; i < n; i++) sum[i] *= scale;
        store<n>(y + c, sum);
    }
}

static dim3 row_grid(int rows, int C) {
    unsigned pieces = blocks_of((size_t)C, THREADS * piece(C));
    return dim3((unsigned)rows, pieces < 64 ? pieces : 64);
}

int cuda_embed(void *ctx, real *y, const weight *E, const int32_t *ids, float scale, int N, int C, int V) {
    (void)V;
    if (scale != 1) {
        LAUNCH(ctx, BY_WIDTH(C, scale_rows), row_grid(N, C), THREADS, 0, (bf16 *)y, (const bf16 *)E, ids,
               weight_pitch(C), scale, C);
        return OK;
    }
    LAUNCH(ctx, BY_WIDTH(C, copy_rows), row_grid(N, C), THREADS, 0, (bf16 *)y, (const int32_t *)NULL, C,
           (const bf16 *)E, ids, weight_pitch(C), C);
    return OK;
}

int cuda_embed_mix(void *ctx, real *y, const weight *E, const int32_t *ids, const float *weights, float scale, int N,
                   int K, int C, int V) {
    (void)V;
    LAUNCH(ctx, BY_WIDTH(C, mix_rows), row_grid(N, C), THREADS, 0, (bf16 *)y, (const bf16 *)E, ids, weights,
           weight_pitch(C), scale, K, C);
    return OK;
}

int cuda_gather_rows(void *ctx, real *dst, const real *src, const int32_t *index, int R, int C) {
    LAUNCH(ctx, BY_WIDTH(C, copy_rows), row_grid(R, C), THREADS, 0, (bf16 *)dst, (const int32_t *)NULL, C,
           (const bf16 *)src, index, C, C);
    return OK;
}

int cuda_put_rows(void *ctx, real *dst, const real *src, const int32_t *index, int R, int C) {
    LAUNCH(ctx, BY_WIDTH(C, copy_rows), row_grid(R, C), THREADS, 0, (bf16 *)dst, index, C, (const bf16 *)src,
           (const int32_t *)NULL, C, C);
    return OK;
}

/* -- dst[index] += rows, in row order ------------------------------------------------------------------------------ */
/* No atomics and no sorting: the block of a row whose index stands nowhere before it owns that index. It looks
   through the indices that follow and adds their rows as it meets them. Chunks of rows, one launch each, keep the
   search (half the square of a chunk) small: 8192 rows read 0.13 GB of indices from cache, beside 2 + 8 bytes an
   element of dst in fp32. */

enum { ADD_CHUNK = 8192, ADD_THREADS = 256 };

static __device__ __forceinline__ float stored(const float *, float v) { return v; }
static __device__ __forceinline__ float stored(const bf16 *, float v) { return round_bf16(v); }

/* Puts the positions of id in index[begin, begin + ADD_THREADS) within R into list, ascending; returns how many. */
static __device__ int find_id(int list[ADD_THREADS], const int32_t *index, int begin, int R, int id) {
    __shared__ uint32_t matches[ADD_THREADS / WARP];
    int i = begin + (int)threadIdx.x, before = 0, all = 0;
    uint32_t mine = warp_ballot(i < R && index[i] == id), lower = (1u << lane_id()) - 1;
    __syncthreads();                                   /* matches and list may still be read */
    if (lane_id() == 0) matches[warp_id()] = mine;
    __syncthreads();
    for (int w = 0; w < ADD_THREADS / WARP; w++) {
        before += w < warp_id() ? __popc(matches[w]) : 0;
        all += __popc(matches[w]);
    }
    if (mine >> lane_id() & 1) list[before + __popc(mine & lower)] = i;
    __syncthreads();
    return all;
}

/* dst[index] += scale src; with weights dst[index[i]] += scale weights[i] src[i / K]. Block (index, piece of
   columns) */
template <typename T, int n>
static __global__ void add_rows(T *dst, const bf16 *src, const int32_t *index, const float *weights, float scale, int K,
                                int R, int C) {
    __shared__ float found[WARP];
    __shared__ int list[ADD_THREADS];
    int row = (int)blockIdx.x, id = index[row], c = (int)(blockIdx.y * ADD_THREADS + threadIdx.x) * n;
    float earlier = 0, sum[n], v[n];
    for (int i = (int)threadIdx.x; i < row; i += ADD_THREADS) earlier += index[i] == id;
    if (block_max(earlier, found) > 0) return;
    T *to = dst + (size_t)id * C + c;
    if (c < C) load<n>(sum, to);
    for (int begin = row; begin < R; begin += ADD_THREADS) {
        int count = find_id(list, index, begin, R, id);
        if (c >= C) continue;
        for (int i = 0; i < count; i++) {
            float factor = weights ? scale * weights[list[i]] : scale;
            load<n>(v, src + (size_t)(weights ? list[i] / K : list[i]) * C + c);
            for (int k = 0; k < n; k++) sum[k] = stored(dst, fmaf(factor, v[k], sum[k]));
        }
    }
    if (c < C) store<n>(to, sum);
}

/* index (N, K), weights (N, K) or NULL */
template <typename T>
static int add_in_order(void *ctx, T *dst, const bf16 *src, const int32_t *index, const float *weights, float scale,
                        int N, int K, int C) {
    int most = max_int(1, ADD_CHUNK / max_int(1, K));
    for (int r = 0; K && r < N; r += most) {
        int R = min_int(most, N - r) * K;
        size_t at = (size_t)r * K;
        dim3 grid((unsigned)R, blocks_of((size_t)C, ADD_THREADS * piece(C)));
        LAUNCH(ctx, (C % 8 ? add_rows<T, 1> : add_rows<T, 8>), grid, ADD_THREADS, 0, dst, src + (size_t)r * C,
               index + at, weights ? weights + at : NULL, scale, K, R, C);
    }
    return OK;
}

int cuda_embed_dw(void *ctx, float *dE, const real *dy, const int32_t *ids, float scale, int N, int C, int V) {
    (void)V;
    return add_in_order(ctx, dE, (const bf16 *)dy, ids, NULL, scale, N, 1, C);
}

int cuda_embed_mix_dw(void *ctx, float *dE, const real *dy, const int32_t *ids, const float *weights, float scale,
                      int N, int K, int C, int V) {
    (void)V;
    return add_in_order(ctx, dE, (const bf16 *)dy, ids, weights, scale, N, K, C);
}

int cuda_scatter_rows_add(void *ctx, real *dst, const real *src, const int32_t *index, int R, int C) {
    return add_in_order(ctx, (bf16 *)dst, (const bf16 *)src, index, NULL, 1, R, 1, C);
}

/* -- GELU: 4 bytes an element forward, 6 backward ------------------------------------------------------------------ */

static __device__ __forceinline__ float sigmoid(float x) { return 1 / (1 + expf(-x)); }

/* g(z) of a GELU, and its slope. Of a sigmoid(z (a + b z^2)): tanh's a is 2 sqrt(2/pi) and b 0.044715 a. It is 0 or
   1 to the last bit where |z| is 64, and powers of larger numbers might be infinite. */
template <enum gelu_kind kind> static __device__ __forceinline__ float gelu_gate(float *slope, float z) {
    if constexpr (kind == GELU_ERF) {
        *slope = expf(-0.5f * (z * z)) * 0.398942280f; /* 1 / sqrt(2 pi) */
        return 0.5f * erfcf(z * -0.707106781f);
    } else {
        const float a = kind == GELU_TANH ? 1.59576912f : 1.702f, b = kind == GELU_TANH ? 0.0713548163f : 0;
        float near = fminf(64, fmaxf(-64, z)), bzz = b * (near * near), s = sigmoid(near * (a + bzz));
        *slope = s * (1 - s) * fmaf(3, bzz, a);
        return s;
    }
}

template <int n, enum gelu_kind kind> static __global__ void gelu(bf16 *y, const bf16 *z, int F) {
    size_t row = (size_t)blockIdx.x * F;
    for (int f = (int)(blockIdx.y * THREADS + threadIdx.x) * n; f < F; f += (int)gridDim.y * THREADS * n) {
        float v[n], slope;
        load<n>(v, z + row + f);
        for (int i = 0; i < n; i++) v[i] *= gelu_gate<kind>(&slope, v[i]);
        store<n>(y + row + f, v);
    }
}

template <int n, enum gelu_kind kind> static __global__ void gelu_bwd(bf16 *d, const bf16 *z, int F) {
    size_t row = (size_t)blockIdx.x * F;
    for (int f = (int)(blockIdx.y * THREADS + threadIdx.x) * n; f < F; f += (int)gridDim.y * THREADS * n) {
        float v[n], g[n];
        load<n>(v, z + row + f);
        load<n>(g, d + row + f);
        for (int i = 0; i < n; i++) {
            float slope, gate = gelu_gate<kind>(&slope, v[i]);
            g[i] *= fmaf(v[i], slope, gate);
        }
        store<n>(d + row + f, g);
    }
}

#define OF_KIND(F, kernel, kind) ((F) % 8 ? kernel<1, kind> : kernel<8, kind>)
#define BY_KIND(F, kernel, kind)                           \
    ((kind) == GELU_ERF    ? OF_KIND(F, kernel, GELU_ERF)  \
     : (kind) == GELU_TANH ? OF_KIND(F, kernel, GELU_TANH) \
                           : OF_KIND(F, kernel, GELU_QUICK))

int cuda_gelu(void *ctx, real *y, const real *z, enum gelu_kind kind, int N, int F) {
    LAUNCH(ctx, BY_KIND(F, gelu, kind), row_grid(N, F), THREADS, 0, (bf16 *)y, (const bf16 *)z, F);
    return OK;
}

int cuda_gelu_bwd(void *ctx, real *d, const real *z, enum gelu_kind kind, int N, int F) {
    LAUNCH(ctx, BY_KIND(F, gelu_bwd, kind), row_grid(N, F), THREADS, 0, (bf16 *)d, (const bf16 *)z, F);
    return OK;
}

/* -- GLU: 6 bytes an element of y forward, 10 backward ------------------------------------------------------------- */

/* s of gate(g) = g s; *d turns from the gradient of gate(g) to that of g, by its slope s + g s' */
template <enum glu_gate gate> static __device__ __forceinline__ float glu_sigmoid(float *d, float g) {
    if constexpr (gate == GLU_SILU) {
        float s = sigmoid(g);
        *d = *d * s * fmaf(g, 1 - s, 1);
        return s;
    } else {
        float slope, s = gelu_gate<GELU_TANH>(&slope, g);
        *d *= fmaf(g, slope, s);
        return s;
    }
}

template <int n, enum glu_gate gate> static __global__ void glu(bf16 *y, const bf16 *gu, int F) {
    const bf16 *g_row = gu + 2 * (size_t)blockIdx.x * F, *u_row = g_row + F;
    for (int f = (int)(blockIdx.y * THREADS + threadIdx.x) * n; f < F; f += (int)gridDim.y * THREADS * n) {
        float g[n], u[n], unused = 0;
        load<n>(g, g_row + f);
        load<n>(u, u_row + f);
        for (int i = 0; i < n; i++) u[i] *= g[i] * glu_sigmoid<gate>(&unused, g[i]);
        store<n>(y + (size_t)blockIdx.x * F + f, u);
    }
}

template <int n, enum glu_gate gate> static __global__ void glu_bwd(bf16 *dgu, const bf16 *dy, const bf16 *gu, int F) {
    size_t row = 2 * (size_t)blockIdx.x * F;
    for (int f = (int)(blockIdx.y * THREADS + threadIdx.x) * n; f < F; f += (int)gridDim.y * THREADS * n) {
        float g[n], u[n], d[n];
        load<n>(g, gu + row + f);
        load<n>(u, gu + row + F + f);
        load<n>(d, dy + (size_t)blockIdx.x * F + f);
        for (int i = 0; i < n; i++) {
            float dg = d[i] * u[i], s = glu_sigmoid<gate>(&dg, g[i]);
            u[i] = d[i] * (s * g[i]);
            g[i] = dg;
        }
        store<n>(dgu + row + f, g);
        store<n>(dgu + row + F + f, u);
    }
}

#define BY_GATE(F, kernel, gate) ((gate) == GLU_SILU ? OF_KIND(F, kernel, GLU_SILU) : OF_KIND(F, kernel, GLU_GELU_TANH))

int cuda_glu(void *ctx, real *y, const real *gu, enum glu_gate gate, int N, int F) {
    LAUNCH(ctx, BY_GATE(F, glu, gate), row_grid(N, F), THREADS, 0, (bf16 *)y, (const bf16 *)gu, F);
    return OK;
}

int cuda_glu_bwd(void *ctx, real *dgu, const real *dy, const real *gu, enum glu_gate gate, int N, int F) {
    LAUNCH(ctx, BY_GATE(F, glu_bwd, gate), row_grid(N, F), THREADS, 0, (bf16 *)dgu, (const bf16 *)dy, (const bf16 *)gu,
           F);
    return OK;
}
