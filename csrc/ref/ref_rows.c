/* What works on rows one by one: embedding, RMSNorm, SwiGLU, gather and scatter. */
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
