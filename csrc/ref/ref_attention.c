/* Attention over packed rows and over KV pages. Both first list where the keys lie and then call attend(), so that a
   token decoded one by one gets the bits it gets in a packed batch. A page is [K: (Hkv, KV_TILE, D)][V: the same]. */
#include "ref/ref.h"

#include <math.h>

static int check_keys(const struct ref_ctx *ctx, int n) {
    if (n <= ctx->n_keys) return OK;
    return fail(E_MEMORY, "ref: attention over %d keys, reserve() was told of %d", n, ctx->n_keys);
}

/* y (D) = softmax(scale q k^T) v of a query over keys [first, end); returns log sum exp. Of no key: 0 */
static double attend(float *y, const float *q, const float **key, const float **value, double *p, double *sum,
                     int first, int end, const struct attention_shape *a) {
    int D = a->D;
    double divisor = score_divisor(a->scale), max = -INFINITY, total = 0;
    if (first >= end) {
        memset(y, 0, (size_t)D * sizeof *y);
        return 0;
    }
    for (int t = first; t < end; t++) {
        p[t] = dot(q, key[t], (size_t)D) / divisor;
        if (p[t] > max) max = p[t];
    }
    memset(sum, 0, (size_t)D * sizeof *sum);
    for (int t = first; t < end; t++) {
        double e = exp(p[t] - max);
        total += e;
        for (int j = 0; j < D; j++) sum[j] += e * value[t][j];
    }
    for (int j = 0; j < D; j++) y[j] = (float)(sum[j] / total);
    return max + log(total);
}

/* the packed row that holds position t of a segment's run */
static int row_of(const struct segment *s, int t) {
    return t < s->prefix_len ? s->prefix + t : s->start + t - s->prefix_len;
}

static void list_keys(struct ref_ctx *ctx, const float *qkv, const struct segment *s, int kv,
                      const struct attention_shape *a) {
    int Hq = a->Hq, Hkv = a->Hkv, D = a->D;
    size_t stride = (size_t)(Hq + 2 * Hkv) * D;
    for (int t = 0; t < s->prefix_len + s->len; t++) {
        ctx->key[t] = qkv + (size_t)row_of(s, t) * stride + (size_t)(Hq + kv) * D;
        ctx->value[t] = ctx->key[t] + (size_t)Hkv * D;
    }
}

int ref_attention(void *ctx_, real *y_, float *lse, const real *qkv, const struct segment *segments, int n_segments,
                  int N, const struct attention_shape *a) {
    struct ref_ctx *ctx = ctx_;
    int Hq = a->Hq, Hkv = a->Hkv, D = a->D;
    double *work;                                                    /* (D) sums, then scores */
    memset(y_, 0, (size_t)N * Hq * D * sizeof(float));
    memset(lse, 0, (size_t)N * Hq * sizeof *lse);
    for (const struct segment *s = segments; s < segments + n_segments; s++) {
        TRY(check_keys(ctx, s->prefix_len + s->len));
        TRY(ref_scratch(&work, ctx, (size_t)(D + s->prefix_len + s->len)));
        for (int h = 0; h < Hq; h++) {
            list_keys(ctx, qkv, s, h / (Hq / Hkv), a);
            for (int i = 0, p = s->prefix_len; i < s->len; i++, p++) {
                size_t row = (size_t)(s->start + i);
                const float *q = (const float *)qkv + (row * (Hq + 2 * Hkv) + h) * D;
                float *y = (float *)y_ + (row * Hq + h) * D;
                lse[row * Hq + h] = (float)attend(y, q, ctx->key, ctx->value, work + D, work, first_key(p, a->window),
                                                  end_key(p, s, a->sight), a);
            }
        }
    }
    return OK;
}

/* One query, at a position, and head: dq (D) =, dkv (N, 2 D) += */
static void attend_bwd(float *dq, double *dkv, double *sum, const float *dy, const float *y, double lse, const float *q,
                       const float **key, const float **value, const struct segment *s, int position,
                       const struct attention_shape *a) {
    int D = a->D;
    double divisor = score_divisor(a->scale), delta = dot(dy, y, (size_t)D);
    memset(sum, 0, (size_t)D * sizeof *sum);
    for (int t = first_key(position, a->window), end = end_key(position, s, a->sight); t < end; t++) {
        double p = exp(dot(q, key[t], (size_t)D) / divisor - lse);
        double ds = p * (dot(dy, value[t], (size_t)D) - delta) / divisor;
        double *dk = dkv + (size_t)row_of(s, t) * 2 * D, *dv = dk + D;
        for (int j = 0; j < D; j++) {
            sum[j] += ds * key[t][j];
            dk[j] += ds * q[j];
            dv[j] += p * dy[j];
        }
    }
    for (int j = 0; j < D; j++) dq[j] = (float)sum[j];
}

int ref_attention_bwd(void *ctx_, real *dqkv_, const real *dy, const real *y, const float *lse, const real *qkv,
                      const struct segment *segments, int n_segments, int N, const struct attention_shape *a) {
    struct ref_ctx *ctx = ctx_;
    int Hq = a->Hq, Hkv = a->Hkv, D = a->D;
    float *dqkv = dqkv_;
    size_t stride = (size_t)(Hq + 2 * Hkv) * D;
    double *sum, *dkv;                                               /* (D), (N, 2 D) of one KV head */
    TRY(ref_scratch(&sum, ctx, (size_t)D + 2 * (size_t)N * D));
    dkv = sum + D;
    memset(dqkv, 0, (size_t)N * stride * sizeof *dqkv);
    for (int kv = 0; kv < Hkv; kv++) {
        memset(dkv, 0, 2 * (size_t)N * D * sizeof *dkv);
        for (const struct segment *s = segments; s < segments + n_segments; s++) {
            TRY(check_keys(ctx, s->prefix_len + s->len));
            list_keys(ctx, qkv, s, kv, a);
            for (int i = 0; i < s->len; i++)
                for (int h = kv * (Hq / Hkv); h < (kv + 1) * (Hq / Hkv); h++) {
                    size_t row = (size_t)(s->start + i), at = (row * Hq + h) * D, q = row * stride + (size_t)h * D;
                    attend_bwd(dqkv + q, dkv, sum, (const float *)dy + at, (const float *)y + at, lse[row * Hq + h],
                               (const float *)qkv + q, ctx->key, ctx->value, s, s->prefix_len + i, a);
                }
        }
        for (int i = 0; i < N; i++) {
            float *dk = dqkv + (size_t)i * stride + (size_t)(Hq + kv) * D, *dv = dk + (size_t)Hkv * D;
            for (int j = 0; j < D; j++) {
                dk[j] = (float)dkv[2 * (size_t)i * D + j];
                dv[j] = (float)dkv[(2 * (size_t)i + 1) * D + j];
            }
        }
    }
    return OK;
}

int ref_attention_weights(void *ctx, float *p, const float *lse, const real *qkv_, const int32_t *index,
                          const struct segment *segments, int n_segments, int R, int N,
                          const struct attention_shape *a) {
    int Hq = a->Hq, Hkv = a->Hkv, D = a->D;
    size_t stride = (size_t)(Hq + 2 * Hkv) * D;
    const float *qkv = qkv_;
    (void)ctx;
    memset(p, 0, (size_t)R * Hq * N * sizeof *p);
    for (int r = 0; r < R; r++)
        for (const struct segment *s = segments; s < segments + n_segments; s++) {
            int row = index[r], position = s->prefix_len + row - s->start;
            if (row < s->start || row >= s->start + s->len) continue;
            for (int h = 0; h < Hq; h++)
                for (int t = first_key(position, a->window); t < end_key(position, s, a->sight); t++) {
                    const float *q = qkv + row * stride + (size_t)h * D;
                    const float *k = qkv + row_of(s, t) * stride + (size_t)(Hq + h / (Hq / Hkv)) * D;
                    double score = dot(q, k, (size_t)D) / score_divisor(a->scale);
                    p[((size_t)r * Hq + h) * N + row_of(s, t)] = (float)exp(score - lse[(size_t)row * Hq + h]);
                }
        }
    return OK;
}

size_t ref_kv_page_bytes(int Hkv, int D) { return 2 * (size_t)Hkv * KV_TILE * D * sizeof(float); }

/* element of the pool where the key of a place starts; its value lies Hkv * KV_TILE * D further */
static size_t key_at(int page, int offset, int kv, int Hkv, int D) {
    return (((size_t)page * 2 * Hkv + kv) * KV_TILE + offset) * D;
}

int ref_kv_store(void *ctx, void *pool, const real *qkv, const int32_t *place, int N, const struct attention_shape *a) {
    (void)ctx;
    int Hq = a->Hq, Hkv = a->Hkv, D = a->D;
    for (int i = 0; i < N; i++) {
        if (place[i] < 0) continue;
        const float *k = (const float *)qkv + ((size_t)i * (Hq + 2 * Hkv) + Hq) * D, *v = k + (size_t)Hkv * D;
        for (int kv = 0; kv < Hkv; kv++) {
            float *key = (float *)pool + key_at(place[i] / KV_TILE, place[i] % KV_TILE, kv, Hkv, D);
            memcpy(key, k + (size_t)kv * D, (size_t)D * sizeof *key);
            memcpy(key + (size_t)Hkv * KV_TILE * D, v + (size_t)kv * D, (size_t)D * sizeof *key);
        }
    }
    return OK;
}

int ref_kv_copy(void *ctx, void *pool, const int32_t *dst, const int32_t *src, int n, const struct attention_shape *a) {
    (void)ctx;
    size_t bytes = ref_kv_page_bytes(a->Hkv, a->D);
    for (int i = 0; i < n; i++)
        memmove((char *)pool + (size_t)dst[i] * bytes, (char *)pool + (size_t)src[i] * bytes, bytes);
    return OK;
}

int ref_attention_decode(void *ctx_, real *y_, float *lse, const real *qkv, const void *pool,
                         const struct key_pages *keys, int S, const struct attention_shape *a) {
    struct ref_ctx *ctx = ctx_;
    const int32_t *length = keys->length;
    int Hq = a->Hq, Hkv = a->Hkv, D = a->D;
    double *work;                                                    /* (D) sums, then scores */
    for (int s = 0; s < S; s++) {
        int first = first_key(length[s] - 1, a->window);
        TRY(check_keys(ctx, length[s]));
        TRY(ref_scratch(&work, ctx, (size_t)(D + length[s])));
        for (int h = 0; h < Hq; h++) {
            for (int t = first; t < length[s]; t++) {
                int page = keys->pages[(size_t)s * keys->max_pages + t / KV_TILE];
                ctx->key[t] = (const float *)pool + key_at(page, t % KV_TILE, h / (Hq / Hkv), Hkv, D);
                ctx->value[t] = ctx->key[t] + (size_t)Hkv * KV_TILE * D;
            }
            const float *q = (const float *)qkv + ((size_t)s * (Hq + 2 * Hkv) + h) * D;
            float *y = (float *)y_ + ((size_t)s * Hq + h) * D;
            lse[(size_t)s * Hq + h] = (float)attend(y, q, ctx->key, ctx->value, work + D, work, first, length[s], a);
        }
    }
    return OK;
}
