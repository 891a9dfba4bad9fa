/* Rotary embedding on fused qkv rows, with a per-head RMSNorm before it where one is given. A warp takes a head;
   its lanes take pairs (j, j + D/2), each one or two neighbouring j at a time. */
#include "cuda/norm.cuh"

enum { WARPS = 8, THREADS = WARPS * WARP, DIM_MAX = 256 };

/* -- tables -------------------------------------------------------------------------------------------------------- */

/* In double: angles of 1e6 keep every digit that their fp32 product left them. */
static __global__ void rope_table(float *cos_, float *sin_, const int32_t *pos, const float *inv_freq,
                                  const int32_t *axis, const int32_t *which, float scale, int N, int half) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x, row = i / half;
    int j = (int)(i % half);
    if (row >= (size_t)N) return;
    float frequency = inv_freq[(which ? (size_t)which[row] * half : 0) + j];
    float angle = (float)pos[(axis ? (size_t)axis[j] * N : 0) + row] * frequency;
    cos_[i] = scale * (float)cos((double)angle);
    sin_[i] = scale * (float)sin((double)angle);
}

int cuda_rope_table(void *ctx, float *cos_, float *sin_, const int32_t *pos, const float *inv_freq, const int32_t *axis,
                    const int32_t *which, float scale, int N, int D) {
    unsigned blocks = blocks_of((size_t)N * (D / 2), THREADS);
    LAUNCH(ctx, rope_table, blocks, THREADS, 0, cos_, sin_, pos, inv_freq, axis, which, scale, N, D / 2);
    return OK;
}

static __global__ void log_scale(float *q_scale, const int32_t *pos, int length, int N) {
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < N) q_scale[i] = pos[i] < length ? 1 : logf((float)pos[i] + 1) / logf((float)length);
}

int cuda_log_scale(void *ctx, float *q_scale, const int32_t *pos, int length, int N) {
    LAUNCH(ctx, log_scale, blocks_of((size_t)N, THREADS), THREADS, 0, q_scale, pos, length, N);
    return OK;
}

/* -- one head ------------------------------------------------------------------------------------------------------ */

struct rope_job {
    struct head_norm norm;           /* without one its weights are NULL */
    const float *cos, *sin, *q_scale;
    int Hq, Hkv, D;
};

/* The weights of a head's norm, NULL without one. */
static __device__ __forceinline__ const float *norm_of_head(const struct rope_job *job, int h) {
    return h < job->Hq ? job->norm.wq : job->norm.wk;
}

static struct rope_job rope_job_of(const struct head_norm *norm, const float *cos_, const float *sin_,
                                   const float *q_scale, const struct attention_shape *a) {
    struct head_norm none = {};
    return (struct rope_job){norm ? *norm : none, cos_, sin_, q_scale, a->Hq, a->Hkv, a->D};
}

/* How a head of a row turns */
struct turn {
    const float *cos, *sin;
    float scale;                     /* of a rotated query; of a key 1 */
};
static __device__ __forceinline__ struct turn turn_of_head(const struct rope_job *job, size_t row, int h) {
    size_t at = row * (job->D / 2);
    return (struct turn){job->cos + at, job->sin + at, job->q_scale && h < job->Hq ? job->q_scale[row] : 1};
}

/* 1 / sqrt(mean x^2 + eps) over one head */
template <int n> static __device__ float head_rstd(const bf16 *x, float eps, int D) {
    float squares = 0, a[n], b[n];
    for (int j = lane_id() * n; j < D / 2; j += WARP * n) {
        load<n>(a, x + j);
        load<n>(b, x + D / 2 + j);
        for (int i = 0; i < n; i++) squares = fmaf(b[i], b[i], fmaf(a[i], a[i], squares));
    }
    return 1 / sqrtf(warp_sum(squares) / (float)D + eps);
}

template <int n>
static __device__ void rotate_head(bf16 *y, const bf16 *x, const struct head_norm &norm, const float *w,
                                   const struct turn &t, int D) {
    float r = w ? head_rstd<n>(x, norm.eps, D) : 1;
    for (int j = lane_id() * n; j < D / 2; j += WARP * n) {
        float a[n], b[n], c[n], s[n], wa[n], wb[n];
        load<n>(a, x + j);
        load<n>(b, x + D / 2 + j);
        load<n>(c, t.cos + j);
        load<n>(s, t.sin + j);
        if (w) {
            load<n>(wa, w + j);
            load<n>(wb, w + D / 2 + j);
        }
        for (int i = 0; i < n; i++) {
            float p = w ? a[i] * r * (norm.offset + wa[i]) : a[i], q = w ? b[i] * r * (norm.offset + wb[i]) : b[i];
            a[i] = t.scale * (p * c[i] - q * s[i]);
            b[i] = t.scale * (q * c[i] + p * s[i]);
        }
        store<n>(y + j, a);
        store<n>(y + D / 2 + j, b);
    }
}

/* The gradient of the rotated pairs, turned back: a and b of pairs j.. */
template <int n>
static __device__ __forceinline__ void unrotate(float a[n], float b[n], const bf16 *d, const struct turn &t, int j,
                                                int D) {
    float c[n], s[n];
    load<n>(a, d + j);
    load<n>(b, d + D / 2 + j);
    load<n>(c, t.cos + j);
    load<n>(s, t.sin + j);
    for (int i = 0; i < n; i++) {
        float p = t.scale * (a[i] * c[i] + b[i] * s[i]);
        b[i] = t.scale * (b[i] * c[i] - a[i] * s[i]);
        a[i] = p;
    }
}

/* -- forward: 4 bytes an element; v is copied unless it is in place ------------------------------------------------ */

template <int n>
static __global__ void rope(bf16 *y, const bf16 *x, struct rope_job job, size_t heads_todo, int heads_a_row) {
    size_t task = (size_t)blockIdx.x * WARPS + warp_id();
    if (task >= heads_todo) return;
    size_t row = task / heads_a_row;
    int h = (int)(task % heads_a_row), D = job.D;
    size_t at = (row * (job.Hq + 2 * job.Hkv) + h) * D;
    if (h < job.Hq + job.Hkv)
        return rotate_head<n>(y + at, x + at, job.norm, norm_of_head(&job, h), turn_of_head(&job, row, h), D);
    for (int j = lane_id() * n; j < D; j += WARP * n) {
        float v[n];
        load<n>(v, x + at + j);
        store<n>(y + at + j, v);
    }
}

int cuda_rope(void *ctx, real *y, const real *x, const struct head_norm *norm, const float *cos_, const float *sin_,
              const float *q_scale, int N, const struct attention_shape *a) {
    struct rope_job job = rope_job_of(norm, cos_, sin_, q_scale, a);
    int heads = a->Hq + a->Hkv + (y != x ? a->Hkv : 0);
    size_t todo = (size_t)N * heads;
    LAUNCH(ctx, (a->D % 4 ? rope<1> : rope<2>), blocks_of(todo, WARPS), THREADS, 0, (bf16 *)y, (const bf16 *)x, job,
           todo, heads);
    return OK;
}

/* -- backward without norm: 4 bytes an element --------------------------------------------------------------------- */

template <int n> static __global__ void rope_bwd(bf16 *d, struct rope_job job, size_t todo) {
    size_t task = (size_t)blockIdx.x * WARPS + warp_id();
    if (task >= todo) return;
    int heads = job.Hq + job.Hkv, h = (int)(task % heads), D = job.D;
    size_t row = task / heads, at = (row * (heads + job.Hkv) + h) * D;
    struct turn t = turn_of_head(&job, row, h);
    for (int j = lane_id() * n; j < D / 2; j += WARP * n) {
        float a[n], b[n];
        unrotate<n>(a, b, d + at, t, j, D);
        store<n>(d + at + j, a);
        store<n>(d + at + D / 2 + j, b);
    }
}

/* -- backward with norm: 6 bytes an element, 16 of D / ROW_ALIGN for the sums -------------------------------------- */

/* d of one head with norm, dz = unrotate(d): r (w dz - n mean(w dz n)), n = x r, w with its offset. Adds dz n to
   sum, [half][piece][i]. */
template <int n>
static __device__ void norm_head_bwd(float sum[2][DIM_MAX / 2 / WARP], bf16 *d, const bf16 *x,
                                     const struct head_norm &norm, const float *w, const struct turn &t, int D) {
    enum { PIECES = DIM_MAX / 2 / WARP / n };
    float r = head_rstd<n>(x, norm.eps, D), dot = 0;
    float a[PIECES][n], b[PIECES][n], na[PIECES][n], nb[PIECES][n], wa[n], wb[n];
#pragma unroll
    for (int k = 0; k < PIECES; k++) {
        int j = (lane_id() + k * WARP) * n;
        if (j >= D / 2) continue;
        unrotate<n>(a[k], b[k], d, t, j, D);
        load<n>(na[k], x + j);
        load<n>(nb[k], x + D / 2 + j);
        load<n>(wa, w + j);
        load<n>(wb, w + D / 2 + j);
        for (int i = 0; i < n; i++) {
            na[k][i] *= r;
            nb[k][i] *= r;
            sum[0][k * n + i] = fmaf(a[k][i], na[k][i], sum[0][k * n + i]);
            sum[1][k * n + i] = fmaf(b[k][i], nb[k][i], sum[1][k * n + i]);
            a[k][i] *= norm.offset + wa[i];
            b[k][i] *= norm.offset + wb[i];
            dot = fmaf(b[k][i], nb[k][i], fmaf(a[k][i], na[k][i], dot));
        }
    }
    float mean = warp_sum(dot) / (float)D;
#pragma unroll
    for (int k = 0; k < PIECES; k++) {
        int j = (lane_id() + k * WARP) * n;
        if (j >= D / 2) continue;
        for (int i = 0; i < n; i++) {
            a[k][i] = r * fmaf(-na[k][i], mean, a[k][i]);
            b[k][i] = r * fmaf(-nb[k][i], mean, b[k][i]);
        }
        store<n>(d + j, a[k]);
        store<n>(d + D / 2 + j, b[k]);
    }
}

/* A block takes ROW_ALIGN rows, a warp of it the heads h, h + WARPS, ... of the queries, then of the keys; the sums
   of the warps are added in order. partial: (blocks, 2, D) */
template <int n>
static __global__ void rope_norm_bwd(bf16 *d, float *partial, const bf16 *x, struct rope_job job, int N) {
    enum { PIECES = DIM_MAX / 2 / WARP / n };
    __shared__ float sums[WARPS][DIM_MAX];
    int D = job.D, heads = job.Hq + 2 * job.Hkv, begin = (int)blockIdx.x * ROW_ALIGN, end = min(N, begin + ROW_ALIGN);
    for (int keys = 0; keys < 2; keys++) {
        int first = keys ? job.Hq : 0, last = keys ? job.Hq + job.Hkv : job.Hq;
        float sum[2][DIM_MAX / 2 / WARP] = {{0}};
        for (int row = begin; row < end; row++)
            for (int h = first + warp_id(); h < last; h += WARPS) {
                size_t at = ((size_t)row * heads + h) * D;
                norm_head_bwd<n>(sum, d + at, x + at, job.norm, keys ? job.norm.wk : job.norm.wq,
                                 turn_of_head(&job, row, h), D);
            }
#pragma unroll
        for (int k = 0; k < PIECES; k++)
            for (int i = 0; i < n; i++) {
                int j = (lane_id() + k * WARP) * n + i;
                if (j >= D / 2) continue;
                sums[warp_id()][j] = sum[0][k * n + i];
                sums[warp_id()][D / 2 + j] = sum[1][k * n + i];
            }
        __syncthreads();
        for (int j = (int)threadIdx.x; j < D; j += THREADS) {
            float all = 0;
            for (int warp = 0; warp < WARPS; warp++) all += sums[warp][j];
            partial[((size_t)blockIdx.x * 2 + keys) * D + j] = all;
        }
        __syncthreads();
    }
}

int cuda_rope_bwd(void *ctx, real *d, float *dwq, float *dwk, const real *x, const struct head_norm *norm,
                  const float *cos_, const float *sin_, const float *q_scale, int N, const struct attention_shape *a) {
    struct rope_job job = rope_job_of(norm, cos_, sin_, q_scale, a);
    int D = a->D;
    if (!norm) {
        size_t todo = (size_t)N * (a->Hq + a->Hkv);
        LAUNCH(ctx, (D % 4 ? rope_bwd<1> : rope_bwd<2>), blocks_of(todo, WARPS), THREADS, 0, (bf16 *)d, job, todo);
        return OK;
    }
    int blocks = ceil_div(N, ROW_ALIGN);
    void *partial;                                     /* (blocks, 2, D) */
    if (D > DIM_MAX) return fail(E_CONFIG, "cuda: head_dim is %d, must be at most %d", D, (int)DIM_MAX);
    TRY(scratch(&partial, (struct cuda_ctx *)ctx, (size_t)blocks * 2 * D * sizeof(float)));
    LAUNCH(ctx, (D % 4 ? rope_norm_bwd<1> : rope_norm_bwd<2>), (unsigned)blocks, THREADS, 0, (bf16 *)d,
           (float *)partial, (const bf16 *)x, job, N);
    TRY(add_partials(ctx, dwq, (const float *)partial, blocks, D, 2 * D));
    return add_partials(ctx, dwk, (const float *)partial + D, blocks, D, 2 * D);
}
