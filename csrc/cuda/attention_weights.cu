/* Weights of chosen rows of attention, recomputed from lse: what a row saw, for people who look. A block has a row and
   a head, a thread every THREADS-th key. FLOPs: 2 D for each key that is seen. Bytes: (R, Hq, N) floats written. */
#include "cuda/attention.cuh"

/* the segment that a row is of, or one without rows */
static __device__ struct segment segment_of(const struct segment *segments, int n, int row) {
    for (int i = 0; i < n; i++)
        if (row >= segments[i].start && row < segments[i].start + segments[i].len) return segments[i];
    return (struct segment){0, 0, 0, 0};
}

/* position of a packed row in a segment's run; -1: it has none */
static __device__ int position_of(struct segment s, int row) {
    if (row >= s.start && row < s.start + s.len) return s.prefix_len + row - s.start;
    return row >= s.prefix && row < s.prefix + s.prefix_len ? row - s.prefix : -1;
}

static __device__ float score_of(const bf16 *q, const bf16 *k, int D) {
    float sum = 0;
    for (int d = 0; d < D; d += 8) {
        float a[8], b[8];
        load<8>(a, q + d);
        load<8>(b, k + d);
        for (int i = 0; i < 8; i++) sum = fmaf(a[i], b[i], sum);
    }
    return sum;
}

static __global__ void weights(float *p, const float *lse, const bf16 *qkv, const int32_t *index,
                               const struct segment *segments, int n_segments, int N, struct heads h) {
    int row = index[blockIdx.x], head = (int)blockIdx.y;
    struct segment s = segment_of(segments, n_segments, row);
    int last = last_key(h, s, row - s.start), first = first_key(h, last);
    const bf16 *q = qkv + (size_t)row * qkv_stride(h) + (size_t)head * h.D;
    const bf16 *k = qkv + (size_t)(h.Hq + head / h.group) * h.D;
    float from = lse[(size_t)row * h.Hq + head] * LOG2E;
    p += ((size_t)blockIdx.x * h.Hq + head) * N;
    for (int j = threadIdx.x; j < N; j += THREADS) {
        int position = position_of(s, j);
        if (position < first || position > last) p[j] = 0;
        else p[j] = exp2_approx(fmaf(score_of(q, k + (size_t)j * qkv_stride(h), h.D), h.scale, -from));
    }
}

int cuda_attention_weights(void *ctx, float *p, const float *lse, const real *qkv, const int32_t *index,
                           const struct segment *segments, int n_segments, int R, int N,
                           const struct attention_shape *a) {
    struct heads h;
    TRY(attention_heads(&h, a));
    LAUNCH(ctx, weights, dim3((unsigned)R, (unsigned)a->Hq), THREADS, 0, p, lse, (const bf16 *)qkv, index, segments,
           n_segments, N, h);
    return OK;
}
