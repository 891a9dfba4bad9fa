/* The softmax of a row of logits, in one fixed order over the vocabulary, wherever the logits are: in the registers
   of the product that makes them (head and sample) or in memory (sample, once some are taken away). The row is cut
   into chunks of CHUNK ids; four lanes fold a chunk, MERGE_LANES threads the chunks. So head() and sample() report
   the same bits. */
#ifndef GRPO_CUDA_HEAD_H
#define GRPO_CUDA_HEAD_H

#include "cuda/cuda.cuh"

enum { CHUNK = 64, QUAD_IDS = CHUNK / 4, MERGE_LANES = 128 };

/* Of ids with logits z: sum = sum e^(z - max), dot = sum (z - max) e^(z - max). */
struct mass {
    float max, sum, dot;
};

static __device__ __forceinline__ float exp_approx(float x) { return exp2_approx(x * 1.442695041f); }

/* A logit's distance below the largest, cut off where e^d is 0, so that -Inf counts as 0 in dot; NaN stays. */
static __device__ __forceinline__ float below(float z, float max) {
    float d = z - max;
    return d < -1000 ? -1000 : d;
}

/* Element i of a quad's lane t is id 8 (i / 2) + 2t + i % 2 of the chunk, as mma leaves them. All of the warp call
   it; the four lanes get the same bits. A NaN may go unseen in max, it shows in the sums; so does +Inf. */
static __device__ __forceinline__ int quad_id(int i) { return 8 * (i / 2) + 2 * (lane_id() % 4) + i % 2; }

static __device__ __forceinline__ struct mass chunk_mass(const float z[QUAD_IDS]) {
    struct mass m = {z[0], 0, 0};
#pragma unroll
    for (int i = 1; i < QUAD_IDS; i++) m.max = fmaxf(m.max, z[i]);
    m.max = fmaxf(m.max, shuffle_xor(m.max, 1));
    m.max = fmaxf(m.max, shuffle_xor(m.max, 2));
    float base = m.max > -INFINITY ? m.max : 0;
#pragma unroll
    for (int i = 0; i < QUAD_IDS; i++) {
        float d = below(z[i], base), e = exp_approx(d);
        m.sum += e;
        m.dot = fmaf(d, e, m.dot);
    }
    m.sum += shuffle_xor(m.sum, 1);
    m.sum += shuffle_xor(m.sum, 2);
    m.dot += shuffle_xor(m.dot, 1);
    m.dot += shuffle_xor(m.dot, 2);
    return m;
}

/* The mass of ROWS whole rows at once: thread l ROWS + r takes part l of row r, MERGE_LANES parts a row; threads
   beyond only keep the barriers. Chunk i of a row starts at max[i stride] and so on; dot may be NULL. work: 2 ROWS
   MERGE_LANES floats of shared memory. Every thread gets the mass of row threadIdx.x % ROWS. */
template <int ROWS>
static __device__ struct mass row_mass(const float *max, const float *sum, const float *dot, size_t stride, int chunks,
                                       float *work) {
    int lane = (int)threadIdx.x / ROWS, row = (int)threadIdx.x % ROWS, last = lane < MERGE_LANES ? chunks : 0;
    float *sums = work + row, *dots = sums + ROWS * MERGE_LANES;
    float top = -INFINITY, s = 0, w = 0;
    for (int i = lane; i < last; i += MERGE_LANES) top = fmaxf(top, max[i * stride]);
    for (int half = MERGE_LANES; half; half /= 2) {
        if (lane < half) {
            if (half < MERGE_LANES) top = fmaxf(top, sums[(lane + half) * ROWS]);
            sums[lane * ROWS] = top;
        }
        __syncthreads();
    }
    top = sums[0];
    __syncthreads();
    for (int i = lane; i < last; i += MERGE_LANES) {
        float d = below(max[i * stride], top), e = expf(d);
        s += e * sum[i * stride];
        if (dot) w += e * (dot[i * stride] + d * sum[i * stride]);
    }
    for (int half = MERGE_LANES; half; half /= 2) {
        if (lane < half) {
            if (half < MERGE_LANES) {
                s += sums[(lane + half) * ROWS];
                w += dots[(lane + half) * ROWS];
            }
            sums[lane * ROWS] = s;
            dots[lane * ROWS] = w;
        }
        __syncthreads();
    }
    struct mass m = {top, sums[0], dots[0]};
    __syncthreads();
    return m;
}

/* log sum exp and entropy; NaN when a logit was NaN or +Inf, or all were -Inf */
static __device__ __forceinline__ float mass_lse(const struct mass &m) { return m.max + logf(m.sum); }
static __device__ __forceinline__ float mass_entropy(const struct mass &m) {
    float H = logf(m.sum) - m.dot / m.sum;
    return H < 0 ? 0 : H;
}

/* What one pass over W says of up to `pitch` rows. Parts: (chunks of V, pitch). */
struct row_stats {
    float *max, *sum, *dot;
    float *lse, *entropy;            /* (pitch) */
    float *hit;                      /* (pitch): logit of target */
    size_t pitch;
};

/* `at` bytes into memory that is cut into pieces; with base NULL it only adds up. */
struct cut {
    char *base;
    size_t at;
};
static inline void *cut_piece(struct cut *c, size_t n, size_t element) {
    void *p = c->base ? c->base + c->at : NULL;
    c->at += (n * element + 255) & ~(size_t)255;
    return p;
}
struct row_stats cut_row_stats(struct cut *c, int rows, int V);

/* z = scale h W^T: lse and entropy of R rows, and unless NULL z (R, z_pitch) itself and the logit of target (R) */
int softmax_rows(const struct cuda_ctx *ctx, const struct row_stats *out, float *z, size_t z_pitch, const bf16 *h,
                 const weight *W, const int32_t *target, float scale, int R, int C, int V);

#endif
