/* Rotary embedding, with a per-head RMSNorm before it where one is given. */
#include "ref/ref.h"

#include <math.h>

int ref_rope_table(void *ctx, float *cos_, float *sin_, const int32_t *pos, const float *inv_freq, const int32_t *axis,
                   const int32_t *which, float scale, int N, int D) {
    (void)ctx;
    for (int i = 0; i < N; i++) {
        const float *frequency = inv_freq + (which ? (size_t)which[i] * (D / 2) : 0);
        for (int j = 0; j < D / 2; j++) {
            float angle = (float)pos[(axis ? (size_t)axis[j] * N : 0) + i] * frequency[j];
            cos_[(size_t)i * (D / 2) + j] = (float)(scale * cos(angle));
            sin_[(size_t)i * (D / 2) + j] = (float)(scale * sin(angle));
        }
    }
    return OK;
}

int ref_log_scale(void *ctx, float *q_scale, const int32_t *pos, int length, int N) {
    (void)ctx;
    for (int i = 0; i < N; i++) q_scale[i] = pos[i] < length ? 1 : (float)(log(pos[i] + 1.0) / log(length));
    return OK;
}

/* z = x r (offset + w) of one head; without a norm just x */
static void norm_head(double *z, const float *x, const struct head_norm *norm, const float *w, int D) {
    double r = norm ? 1 / sqrt(dot(x, x, (size_t)D) / D + norm->eps) : 1;
    for (int j = 0; j < D; j++) z[j] = norm ? x[j] * r * ((double)norm->offset + w[j]) : x[j];
}

static const float *weights_of_head(const struct head_norm *norm, int h, int Hq) {
    return !norm ? NULL : h < Hq ? norm->wq : norm->wk;
}

/* q_scale is of queries alone. */
static double scale_of_head(const float *q_scale, int row, int h, int Hq) {
    return q_scale && h < Hq ? q_scale[row] : 1;
}

int ref_rope(void *ctx, real *y_, const real *x_, const struct head_norm *norm, const float *cos_, const float *sin_,
             const float *q_scale, int N, const struct attention_shape *a) {
    int Hq = a->Hq, Hkv = a->Hkv, D = a->D;
    double *z;                                                       /* (D) */
    TRY(ref_scratch(&z, ctx, (size_t)D));
    int heads = Hq + 2 * Hkv, half = D / 2;
    for (int i = 0; i < N; i++) {
        const float *c = cos_ + (size_t)i * half, *s = sin_ + (size_t)i * half;
        for (int h = 0; h < heads; h++) {
            size_t at = ((size_t)i * heads + h) * D;
            float *y = (float *)y_ + at;
            const float *x = (const float *)x_ + at;
            if (h >= Hq + Hkv) {
                memmove(y, x, (size_t)D * sizeof *y);
                continue;
            }
            double scale = scale_of_head(q_scale, i, h, Hq);
            norm_head(z, x, norm, weights_of_head(norm, h, Hq), D);
            for (int j = 0; j < half; j++) {
                y[j] = (float)(scale * (z[j] * c[j] - z[j + half] * s[j]));
                y[j + half] = (float)(scale * (z[j + half] * c[j] + z[j] * s[j]));
            }
        }
    }
    return OK;
}

/* One head: d from gradient dz of z = n (offset + w), n = x r, to gradient of x; dw += dz n. */
static void norm_head_bwd(float *d, float *dw, const double *dz, const float *x, const struct head_norm *norm,
                          const float *w, int D) {
    double r = 1 / sqrt(dot(x, x, (size_t)D) / D + norm->eps), mean = 0;
    for (int j = 0; j < D; j++) mean += ((double)norm->offset + w[j]) * dz[j] * (x[j] * r) / D;
    for (int j = 0; j < D; j++) {
        double n = x[j] * r;
        d[j] = (float)(r * (((double)norm->offset + w[j]) * dz[j] - n * mean));
        dw[j] = (float)(dw[j] + dz[j] * n);
    }
}

int ref_rope_bwd(void *ctx, real *d_, float *dwq, float *dwk, const real *x_, const struct head_norm *norm,
                 const float *cos_, const float *sin_, const float *q_scale, int N, const struct attention_shape *a) {
    int Hq = a->Hq, Hkv = a->Hkv, D = a->D;
    double *dz;                                                      /* (D) */
    TRY(ref_scratch(&dz, ctx, (size_t)D));
    int heads = Hq + 2 * Hkv, half = D / 2;
    for (int i = 0; i < N; i++) {
        const float *c = cos_ + (size_t)i * half, *s = sin_ + (size_t)i * half;
        for (int h = 0; h < Hq + Hkv; h++) {
            size_t at = ((size_t)i * heads + h) * D;
            float *d = (float *)d_ + at;
            double scale = scale_of_head(q_scale, i, h, Hq);
            for (int j = 0; j < half; j++) {
                dz[j] = scale * ((double)d[j] * c[j] + (double)d[j + half] * s[j]);
                dz[j + half] = scale * ((double)d[j + half] * c[j] - (double)d[j] * s[j]);
            }
            if (norm)
                norm_head_bwd(d, h < Hq ? dwq : dwk, dz, (const float *)x_ + at, norm, weights_of_head(norm, h, Hq), D);
            else
                for (int j = 0; j < D; j++) d[j] = (float)dz[j];
        }
    }
    return OK;
}
