/* The head and the sampler. Both take logits and their softmax from the same two functions, so the log-probability
   recorded while sampling is the one that training computes. */
#include "ref/ref.h"
#include "base/rng.h"

#include <math.h>
#include <stdlib.h>

int ref_logits(void *ctx, float *z, const real *h, const weight *W, int S, int C, int V) {
    return ref_linear(ctx, z, h, W, NULL, S, C, V);
}

static void row_logits(double *z, const float *h, const float *W, float inv_temperature, int C, int V) {
    for (int v = 0; v < V; v++) z[v] = dot(h, W + (size_t)v * C, (size_t)C) * inv_temperature;
}

/* log sum exp of z (V), whose removed ids are -inf; not finite when a logit is NaN or +inf or all are -inf */
static double log_sum_exp(const double *z, int V) {
    double max = -INFINITY, sum = 0;
    for (int v = 0; v < V; v++) max = z[v] > max ? z[v] : max;
    for (int v = 0; v < V; v++) sum += exp(z[v] - max);
    return max + log(sum);
}

static double softmax_entropy(const double *z, double lse, int V) {
    double sum = 0;
    for (int v = 0; v < V; v++) {
        double p = exp(z[v] - lse);
        if (p > 0) sum -= p * (z[v] - lse);
    }
    return sum;
}

int ref_head(void *ctx, float *dW, const struct head_rows *rows, const weight *W_, float inv_temperature, int C,
             int V) {
    const float *W = W_, *coef = rows->coef, *ecoef = rows->ecoef;
    const int32_t *target = rows->target;
    double *z, *sum;                                                 /* (V), (C) */
    TRY(ref_scratch(&z, ctx, (size_t)V + (size_t)C));
    sum = z + V;
    for (int i = 0; i < rows->R; i++) {
        const float *h = (const float *)rows->h + (size_t)i * C;
        row_logits(z, h, W, inv_temperature, C, V);
        double lse = log_sum_exp(z, V), H = softmax_entropy(z, lse, V);
        rows->logp[i] = (float)(z[target[i]] - lse);
        rows->entropy[i] = (float)H;
        if (!coef) continue;
        memset(sum, 0, (size_t)C * sizeof *sum);
        for (int v = 0; v < V; v++) {
            double log_p = z[v] - lse, p = exp(log_p);
            double dz = coef[i] * ((v == target[i]) - p) - (ecoef ? ecoef[i] * p * (log_p + H) : 0);
            const float *w = W + (size_t)v * C;
            float *dw = dW + (size_t)v * C;
            dz *= inv_temperature;
            for (int c = 0; c < C; c++) {
                sum[c] += dz * w[c];
                dw[c] = (float)(dw[c] + dz * h[c]);
            }
        }
        for (int c = 0; c < C; c++) ((float *)rows->dh)[(size_t)i * C + c] = (float)sum[c];
    }
    return OK;
}

/* z (V) = logits that may be drawn: repetition penalty (a division or product, so it may follow the temperature), then
   -inf for what is forbidden here */
static void restrict_logits(double *z, const double *raw, const struct sampler *p, const uint8_t *seen, int n_stop,
                            int V) {
    for (int v = 0; v < V; v++) {
        z[v] = raw[v];
        if (seen && seen[v] && p->repetition_penalty != 1)
            z[v] = z[v] > 0 ? z[v] / p->repetition_penalty : z[v] * p->repetition_penalty;
        if (p->forbidden && p->forbidden[v]) z[v] = -INFINITY;
    }
    for (int i = 0; i < n_stop; i++) z[p->stop_ids[i]] = -INFINITY;
}

static int falling(const void *a_, const void *b_) {
    const struct ranked *a = a_, *b = b_;
    if (a->z != b->z) return a->z < b->z ? 1 : -1;
    return a->id < b->id ? -1 : 1;
}

/* Top-k (ties with the k-th stay), then top-p (the fewest that reach it), then min-p (against the largest), the
   order of transformers: each keeps a head of the list of ids by falling logit. The others become -inf in z (V). */
static void truncate_support(double *z, struct ranked *rank, const struct sampler *p, int V) {
    if (p->top_k <= 0 && p->min_p <= 0 && p->top_p >= 1) return;
    int n = 0;
    for (int v = 0; v < V; v++)
        if (z[v] > -INFINITY) rank[n++] = (struct ranked){z[v], v};
    qsort(rank, (size_t)n, sizeof *rank, falling);
    int keep = n;
    if (p->top_k > 0)
        while (keep > p->top_k && rank[keep - 1].z < rank[p->top_k - 1].z) keep--;
    if (p->top_p < 1) {
        double total = 0, sum = 0;
        for (int i = 0; i < keep; i++) total += exp(rank[i].z - rank[0].z);
        for (int i = 0; i < keep; i++) {
            sum += exp(rank[i].z - rank[0].z);
            if (sum >= p->top_p * total) keep = i + 1;
        }
    }
    while (keep > 1 && exp(rank[keep - 1].z - rank[0].z) < p->min_p) keep--;
    for (int i = keep; i < n; i++) z[rank[i].id] = -INFINITY;
}

static int draw(const double *z, double lse, float u, int V) {
    double total = 0, sum = 0;
    for (int v = 0; v < V; v++) total += exp(z[v] - lse);
    for (int v = 0; v < V; v++) {
        sum += exp(z[v] - lse);
        if (sum > u * total) return v;
    }
    return -1;                                                       /* total is not a number */
}

static int highest(const double *z, int V) {
    int id = 0;
    for (int v = 1; v < V; v++)
        if (z[v] > z[id]) id = v;
    return id;
}

/* raw (V): logits over the temperature, z (V): scratch. A row with logits that are not finite, or with every id
   forbidden, gets id -1 and NaN. */
static struct sampled sample_row(struct ref_ctx *ctx, double *z, const double *raw, const struct sampler *p,
                                 const struct sample_key *key, const uint8_t *seen, int V) {
    double raw_lse = log_sum_exp(raw, V);
    restrict_logits(z, raw, p, seen, key->no_stop ? p->n_stop : 0, V);
    if (p->temperature > 0) truncate_support(z, ctx->rank, p, V);
    double lse = log_sum_exp(z, V);
    if (!isfinite(raw_lse) || !isfinite(lse)) return (struct sampled){-1, NAN, NAN, NAN};
    float u = philox_uniform(philox(key->seed, key->position, key->sample, key->prompt, key->step).x[0]);
    int id = p->temperature > 0 ? draw(z, lse, u, V) : highest(z, V);
    float entropy = (float)softmax_entropy(raw, raw_lse, V);
    return (struct sampled){id, (float)(z[id] - lse), (float)(raw[id] - raw_lse), entropy};
}

int ref_sample(void *ctx_, struct sampled *out, int32_t *next, uint8_t *seen, const real *h, const weight *W,
               const struct sampler *sampler, const struct sample_key *keys, int S, int C, int V) {
    struct ref_ctx *ctx = ctx_;
    float inv_temperature = sampler->temperature > 0 ? 1 / sampler->temperature : 1;
    double *raw;                                                     /* (V) logits, (V) those that may be drawn */
    if (V > ctx->n_ranks) return fail(E_MEMORY, "ref: sampling from %d ids, reserve() was told of %d", V, ctx->n_ranks);
    TRY(ref_scratch(&raw, ctx, 2 * (size_t)V));
    for (int s = 0; s < S; s++) {
        uint8_t *row_seen = seen ? seen + (size_t)s * V : NULL;
        row_logits(raw, (const float *)h + (size_t)s * C, W, inv_temperature, C, V);
        out[s] = sample_row(ctx, raw + V, raw, sampler, &keys[s], row_seen, V);
        next[s] = max_int(out[s].id, 0);
        if (row_seen && out[s].id >= 0) row_seen[out[s].id] = 1;
    }
    return OK;
}
