/* AdamW as torch.optim.AdamW computes it, the gradient's norm, and mixing of weights. */
#include "ref/ref.h"
#include "base/rng.h"

#include <math.h>

static double moment(const void *moments, size_t i, int is_bf16) {
    return is_bf16 ? bf16_to_float(((const bf16 *)moments)[i]) : ((const float *)moments)[i];
}

static void set_moment(void *moments, size_t i, int is_bf16, double value, uint32_t random) {
    if (is_bf16) ((bf16 *)moments)[i] = round_stochastic(float_bits((float)value), random);
    else ((float *)moments)[i] = (float)value;
}

int ref_adamw(void *ctx, void *w_, uint16_t *lower, void *m, void *v, const float *g, int O, int C, const struct adamw *p) {
    (void)ctx, (void)lower;
    float *w = w_;
    double beta1 = p->beta1, beta2 = p->beta2;
    for (size_t i = 0; i < (size_t)O * (size_t)(C ? C : 1); i++) {
        double grad = (double)g[i] * p->grad_scale;
        double m1 = beta1 * moment(m, i, p->bf16_moments) + (1 - beta1) * grad;
        double v1 = beta2 * moment(v, i, p->bf16_moments) + (1 - beta2) * grad * grad;
        double decayed = w[i] * (1 - (double)p->lr * p->weight_decay);
        w[i] = (float)(decayed - p->lr * (m1 / p->correction1) / (sqrt(v1 / p->correction2) + p->eps));
        uint64_t at = p->first + i;
        uint32_t random = p->bf16_moments ? moment_bits(p->seed, p->step, at / 4).x[at % 4] : 0;
        set_moment(m, i, p->bf16_moments, m1, random & 0xffff);
        set_moment(v, i, p->bf16_moments, v1, random >> 16);
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
