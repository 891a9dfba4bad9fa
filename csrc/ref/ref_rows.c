/* What works on rows one by one: embedding, RMSNorm and LayerNorm, SwiGLU and GELU, gather and scatter. */
#include "ref/ref.h"

#include <math.h>

int ref_embed(void *ctx, real *y, const weight *E, const int32_t *ids, int N, int C, int V) {
    (void)V;
    return ref_gather_rows(ctx, y, E, ids, N, C);
}

int ref_embed_dw(void *ctx, float *dE, const real *dy, const int32_t *ids, int N, int C, int V) {
    (void)V;
    return ref_scatter_rows_add(ctx, dE, dy, ids, N, C);
}

int ref_gather_rows(void *ctx, real *dst, const real *src, const int32_t *index, int R, int C) {
    (void)ctx;
    for (int i = 0; i < R; i++)
        memcpy((float *)dst + (size_t)i * C, (const float *)src + (size_t)index[i] * C, (size_t)C * sizeof(float));
    return OK;
}

int ref_put_rows(void *ctx, real *dst, const real *src, const int32_t *index, int R, int C) {
    (void)ctx;
    for (int i = 0; i < R; i++) memcpy((float *)dst + (size_t)index[i] * C, (const float *)src + (size_t)i * C, (size_t)C * sizeof(float));
    return OK;
}

int ref_scatter_rows_add(void *ctx, real *dst_, const real *src_, const int32_t *index, int R, int C) {
    (void)ctx;
    for (int i = 0; i < R; i++) {
        float *dst = (float *)dst_ + (size_t)index[i] * C;
        const float *src = (const float *)src_ + (size_t)i * C;
        for (int c = 0; c < C; c++) dst[c] += src[c];
    }
    return OK;
}

int ref_rmsnorm(void *ctx, real *y_, float *rstd, const real *x_, const float *w, float eps, int N, int C) {
    (void)ctx;
    for (int i = 0; i < N; i++) {
        float *y = (float *)y_ + (size_t)i * C;
        const float *x = (const float *)x_ + (size_t)i * C;
        double r = 1 / sqrt(dot(x, x, (size_t)C) / C + eps);
        for (int c = 0; c < C; c++) y[c] = (float)(x[c] * r * w[c]);
        rstd[i] = (float)r;
    }
    return OK;
}

int ref_rmsnorm_bwd_add(void *ctx, real *dx_, float *dw, const real *dy_, const real *x_, const float *w,
                        const float *rstd, int N, int C) {
    (void)ctx;
    for (int i = 0; i < N; i++) {
        float *dx = (float *)dx_ + (size_t)i * C;
        const float *dy = (const float *)dy_ + (size_t)i * C, *x = (const float *)x_ + (size_t)i * C;
        double r = rstd[i], mean = 0;                                /* mean(w dy n) */
        for (int c = 0; c < C; c++) mean += (double)w[c] * dy[c] * (x[c] * r) / C;
        for (int c = 0; c < C; c++) {
            double n = x[c] * r;
            dx[c] = (float)(dx[c] + r * ((double)w[c] * dy[c] - n * mean));
            dw[c] = (float)(dw[c] + dy[c] * n);
        }
    }
    return OK;
}

int ref_layernorm(void *ctx, real *y_, float *mean, float *rstd, const real *x_, const float *w, const float *b, float eps,
                  int N, int C) {
    (void)ctx;
    for (int i = 0; i < N; i++) {
        float *y = (float *)y_ + (size_t)i * C;
        const float *x = (const float *)x_ + (size_t)i * C;
        double m = 0, variance = 0;
        for (int c = 0; c < C; c++) m += (double)x[c] / C;
        for (int c = 0; c < C; c++) variance += (x[c] - m) * (x[c] - m) / C;
        double r = 1 / sqrt(variance + eps);
        for (int c = 0; c < C; c++) y[c] = (float)((x[c] - m) * r * w[c] + b[c]);
        mean[i] = (float)m;
        rstd[i] = (float)r;
    }
    return OK;
}

int ref_layernorm_bwd_add(void *ctx, real *dx_, float *dw, float *db, const real *dy_, const real *x_, const float *w,
                          const float *mean, const float *rstd, int N, int C) {
    (void)ctx;
    for (int i = 0; i < N; i++) {
        float *dx = (float *)dx_ + (size_t)i * C;
        const float *dy = (const float *)dy_ + (size_t)i * C, *x = (const float *)x_ + (size_t)i * C;
        double m = mean[i], r = rstd[i], mean_g = 0, mean_gn = 0;        /* of g = w dy, and of g n */
        for (int c = 0; c < C; c++) {
            double g = (double)w[c] * dy[c];
            mean_g += g / C;
            mean_gn += g * ((x[c] - m) * r) / C;
        }
        for (int c = 0; c < C; c++) {
            double n = (x[c] - m) * r;
            dx[c] = (float)(dx[c] + r * ((double)w[c] * dy[c] - mean_g - n * mean_gn));
            dw[c] = (float)(dw[c] + dy[c] * n);
            db[c] += dy[c];
        }
    }
    return OK;
}

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

int ref_swiglu(void *ctx, real *y_, const real *gu, int N, int F) {
    (void)ctx;
    for (int i = 0; i < N; i++) {
        float *y = (float *)y_ + (size_t)i * F;
        const float *g = (const float *)gu + 2 * (size_t)i * F, *u = g + F;
        for (int f = 0; f < F; f++) y[f] = (float)(g[f] * sigmoid(g[f]) * u[f]);
    }
    return OK;
}

int ref_swiglu_bwd(void *ctx, real *dgu, const real *dy_, const real *gu, int N, int F) {
    (void)ctx;
    for (int i = 0; i < N; i++) {
        float *dg = (float *)dgu + 2 * (size_t)i * F, *du = dg + F;
        const float *dy = (const float *)dy_ + (size_t)i * F, *g = (const float *)gu + 2 * (size_t)i * F, *u = g + F;
        for (int f = 0; f < F; f++) {
            double s = sigmoid(g[f]), dgate = (double)dy[f] * u[f] * s * (1 + g[f] * (1 - s));
            du[f] = (float)(dy[f] * s * g[f]);
            dg[f] = (float)dgate;
        }
    }
    return OK;
}

/* g(z) of a GELU, and its slope */
static double gelu_gate(double *slope, double z, enum gelu_kind kind) {
    if (kind == GELU_ERF) {
        *slope = exp(-z * z / 2) / sqrt(2 * M_PI);
        return erfc(-z / sqrt(2)) / 2;
    }
    double a = kind == GELU_TANH ? 2 * sqrt(2 / M_PI) : 1.702, b = kind == GELU_TANH ? 0.044715 * a : 0;
    double s = sigmoid(a * z + b * z * z * z);
    *slope = s * (1 - s) * (a + 3 * b * z * z);
    return s;
}

int ref_gelu(void *ctx, real *y_, const real *z_, enum gelu_kind kind, int N, int F) {
    (void)ctx;
    float *y = y_;
    const float *z = z_;
    double slope;
    for (size_t i = 0; i < (size_t)N * F; i++) y[i] = (float)(z[i] * gelu_gate(&slope, z[i], kind));
    return OK;
}

int ref_gelu_bwd(void *ctx, real *d_, const real *z_, enum gelu_kind kind, int N, int F) {
    (void)ctx;
    float *d = d_;
    const float *z = z_;
    for (size_t i = 0; i < (size_t)N * F; i++) {
        double slope, gate = gelu_gate(&slope, z[i], kind);
        d[i] = (float)(d[i] * (gate + z[i] * slope));
    }
    return OK;
}
