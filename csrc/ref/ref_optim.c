/* AdamW as torch.optim.AdamW computes it, the gradient's norm, and mixing of weights. */
#include "ref/ref.h"
#include "base/float8.h"
#include "base/rng.h"

#include <math.h>

/* A run of moments inside a row, from element `at` of the weight on; at most a block. exponent: of float8 */
struct moments {
    enum moment_dtype dtype;
    void *data;
    size_t at;
    uint8_t *exponent;
    uint32_t format;
};

static struct moments moments_at(void *data, uint32_t format, size_t row, int c, int O, int C, const struct adamw *p) {
    size_t blocks = (size_t)float8_blocks(C);
    uint8_t *exponents = (uint8_t *)data + (size_t)O * (size_t)C;
    return (struct moments){p->moments, data, row * (size_t)C + (size_t)c, exponents + row * blocks + c / FLOAT8_BLOCK,
                            format};
}

static double read_moment(const struct moments *q, int i) {
    size_t at = q->at + (size_t)i;
    if (q->dtype == MOMENT_FLOAT32) return ((const float *)q->data)[at];
    if (q->dtype == MOMENT_BFLOAT16) return bf16_to_float(((const bf16 *)q->data)[at]);
    return float8_decode(((const uint8_t *)q->data)[at], *q->exponent, q->format);
}

static float largest_of(const float *value, int n) {
    float largest = 0;
    for (int i = 0; i < n; i++) largest = fmaxf(largest, fabsf(value[i]));
    return largest;
}

/* random: (n), of which 16 bits from `shift` on are used */
static void write_moments(const struct moments *q, const float *value, const uint32_t *random, int shift, int n) {
    if (q->dtype == MOMENT_FLOAT8) *q->exponent = (uint8_t)float8_exponent(float_bits(largest_of(value, n)), q->format);
    for (int i = 0; i < n; i++) {
        uint32_t bits = random[i] >> shift & 0xffff;
        size_t at = q->at + (size_t)i;
        if (q->dtype == MOMENT_FLOAT32) ((float *)q->data)[at] = value[i];
        else if (q->dtype == MOMENT_BFLOAT16) ((bf16 *)q->data)[at] = round_stochastic(float_bits(value[i]), bits);
        else ((uint8_t *)q->data)[at] = float8_encode(value[i], bits, *q->exponent, q->format);
    }
}

static void adamw_run(float *w, const struct moments *m, const struct moments *v, const float *g, int n,
                      const struct adamw *p) {
    double beta1 = p->beta1, beta2 = p->beta2;
    float new_m[FLOAT8_BLOCK], new_v[FLOAT8_BLOCK];
    uint32_t random[FLOAT8_BLOCK];
    int whole = p->moments == MOMENT_FLOAT32 && p->masters == MASTER_FLOAT32;
    for (int i = 0; i < n; i++) {
        double grad = (double)g[i] * p->grad_scale;
        double m1 = beta1 * read_moment(m, i) + (1 - beta1) * grad;
        double v1 = beta2 * read_moment(v, i) + (1 - beta2) * grad * grad;
        double decayed = w[i] * (1 - (double)p->lr * p->weight_decay);
        w[i] = (float)(decayed - p->lr * (m1 / p->correction1) / (sqrt(v1 / p->correction2) + p->eps));
        uint64_t number = p->first + m->at + (size_t)i;
        random[i] = whole ? 0 : rounding_bits(p->seed, p->step, number / 4).x[number % 4];
        if (p->masters == MASTER_FLOAT24)
            w[i] = float_from_bits(round_float24(float_bits(w[i]), master_bits(random[i])));
        new_m[i] = (float)m1;
        new_v[i] = (float)v1;
    }
    write_moments(m, new_m, random, 0, n);
    write_moments(v, new_v, random, 16, n);
}

int ref_adamw(void *ctx, void *w_, void *lower, void *m, void *v, const float *g, int O, int C, const struct adamw *p) {
    (void)ctx, (void)lower;
    int rows = C ? O : 1, columns = C ? C : O;
    for (int row = 0; row < rows; row++)
        for (int c = 0; c < columns; c += FLOAT8_BLOCK) {
            struct moments first = moments_at(m, FLOAT8_M, (size_t)row, c, rows, columns, p);
            struct moments second = moments_at(v, FLOAT8_V, (size_t)row, c, rows, columns, p);
            adamw_run((float *)w_ + first.at, &first, &second, g + first.at, min_int(FLOAT8_BLOCK, columns - c), p);
        }
    return OK;
}

int ref_sum_squares(void *ctx, double *out, const float *g, size_t n) {
    (void)ctx;
    *out = dot(g, g, n);
    return OK;
}

int ref_lerp(void *ctx, float *dst, const float *src, float alpha, size_t n) {
    (void)ctx;
    for (size_t i = 0; i < n; i++) dst[i] = (float)((1 - (double)alpha) * dst[i] + (double)alpha * src[i]);
    return OK;
}
