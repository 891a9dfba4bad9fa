/* AdamW as torch.optim.AdamW computes it, the gradient's norm, and mixing of weights. */
#include "ref/ref.h"

#include <math.h>

int ref_adamw(void *ctx, float *w, float *m, float *v, const float *g, size_t n, const struct adamw *p) {
    (void)ctx;
    double beta1 = p->beta1, beta2 = p->beta2;
    for (size_t i = 0; i < n; i++) {
        double grad = (double)g[i] * p->grad_scale;
        double m1 = beta1 * m[i] + (1 - beta1) * grad, v1 = beta2 * v[i] + (1 - beta2) * grad * grad;
        double decayed = w[i] * (1 - (double)p->lr * p->weight_decay);
        w[i] = (float)(decayed - p->lr * (m1 / p->correction1) / (sqrt(v1 / p->correction2) + p->eps));
        m[i] = (float)m1;
        v[i] = (float)v1;
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
