/* What works on rows one by one: embedding, RMSNorm and LayerNorm, GLU and GELU, gather and scatter. */
#include "ref/ref.h"

#include <math.h>

int ref_embed(void *ctx, real *y, const weight *E, const int32_t *ids, float scale, int N, int C, int V) {
    (void)ctx, (void)V;
    for (int i = 0; i < N; i++)
        for (int c = 0; c < C; c++)
            ((float *)y)[(size_t)i * C + c] = ((const float *)E)[(size_t)ids[i] * C + c] * scale;
    return OK;
}

int ref_embed_dw(void *ctx, float *dE, const real *dy, const int32_t *ids, float scale, int N, int C, int V) {
    (void)ctx, (void)V;
    for (int i = 0; i < N; i++)
        for (int c = 0; c < C; c++) dE[(size_t)ids[i] * C + c] += scale * ((const float *)dy)[(size_t)i * C + c];
    return OK;
}

int ref_embed_mix(void *ctx, real *y, const weight *E, const int32_t *ids, const float *weights, float scale, int N,
                  int K, int C, int V) {
    (void)ctx, (void)V;
    for (int i = 0; i < N; i++, ids += K, weights += K)
        for (int c = 0; c < C; c++) {
            double sum = -0.0; /* a mere -0 stays one, as embed copies it */
            for (int k = 0; k < K; k++) sum += (double)weights[k] * ((const float *)E)[(size_t)ids[k] * C + c];
            ((float *)y)[(size_t)i * C + c] = (float)(sum * scale);
        }
    return OK;
}

int ref_embed_mix_dw(void *ctx, float *dE, const real *dy, const int32_t *ids, const float *weights, float scale, int N,
                     int K, int C, int V) {
    (void)ctx, (void)V;
    for (int i = 0; i < N; i++, ids += K, weights += K)
        for (int k = 0; k < K; k++)
            for (int c = 0; c < C; c++)
                dE[(size_t)ids[k] * C + c] += scale * weights[k] * ((const float *)dy)[(size_t)i * C + c];
    return OK;
}

int ref_gather_rows(void *ctx, real *dst, const real *src, const int32_t *index, int R, int C) {
    (void)ctx;
    for (int i = 0; i < R; i++)
        memcpy((float *)dst + (size_t)i * C, (const float *)src + (size_t)index[i] * C, (size_t)C * sizeof(float));
    return OK;
}

int ref_put_rows(void *ctx, real *dst, const real *src, const int32_t *index, int R, int C) {
    (void)ctx;
    for (int i = 0; i < R; i++)
        memcpy((float *)dst + (size_t)index[i] * C, (const float *)src + (size_t)i * C, (size_t)C * sizeof(float));
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

static int rmsnorm(float *y, float *rstd, const float *x, const float *w, float offset, float eps, int N, int C,
                   int add) {
    for (int i = 0; i < N; i++, x += C, y += C) {
        double r = 1 / sqrt(dot(x, x, (size_t)C) / C + eps);
        for (int c = 0; c < C; c++) {
            double normed = x[c] * r * ((double)offset + w[c]);
            y[c] = (float)(add ? y[c] + normed : normed);
        }
        rstd[i] = (float)r;
    }
    return OK;
}

int ref_rmsnorm(void *ctx, real *y, float *rstd, const real *x, const float *w, float offset, float eps, int N, int C) {
    (void)ctx;
    return rmsnorm(y, rstd, x, w, offset, eps, N, C, 0);
}

int ref_rmsnorm_add(void *ctx, real *y, float *rstd, const real *x, const float *w, float offset, float eps, int N,
                    int C) {
    (void)ctx;
    return rmsnorm(y, rstd, x, w, offset, eps, N, C, 1);
}

int ref_rmsnorm_bwd_add(void *ctx, real *dx_, float *dw, const real *dy_, const real *x_, const float *w, float offset,
                        const float *rstd, int N, int C) {
    (void)ctx;
    for (int i = 0; i < N; i++) {
        float *dx = (float *)dx_ + (size_t)i * C;
        const float *dy = (const float *)dy_ + (size_t)i * C, *x = (const float *)x_ + (size_t)i * C;
        double r = rstd[i], mean = 0;                                /* of (offset + w) dy n */
        for (int c = 0; c < C; c++) mean += ((double)offset + w[c]) * dy[c] * (x[c] * r) / C;
        for (int c = 0; c < C; c++) {
            double n = x[c] * r;
            dx[c] = (float)(dx[c] + r * (((double)offset + w[c]) * dy[c] - n * mean));
            dw[c] = (float)(dw[c] + dy[c] * n);
        }
    }
    return OK;
}

int ref_layernorm(void *ctx, real *y_, float *mean, float *rstd, const real *x_, const float *w, const float *b,
                  float eps, int N, int C) {
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

/* s of gate(g) = g s(g), and r of its slope s' = s r */
static double glu_sigmoid(double *r, double g, enum glu_gate gate) {
    double a = gate == GLU_GELU_TANH ? 2 * sqrt(2 / M_PI) : 1, b = gate == GLU_GELU_TANH ? 0.044715 * a : 0;
    double s = sigmoid(a * g + b * g * g * g);
    *r = (1 - s) * (a + 3 * b * g * g);
    return s;
}

int ref_glu(void *ctx, real *y_, const real *gu, enum glu_gate gate, int N, int F) {
    (void)ctx;
    for (int i = 0; i < N; i++) {
        float *y = (float *)y_ + (size_t)i * F;
        const float *g = (const float *)gu + 2 * (size_t)i * F, *u = g + F;
        double r;
        for (int f = 0; f < F; f++) y[f] = (float)(g[f] * glu_sigmoid(&r, g[f], gate) * u[f]);
    }
    return OK;
}

int ref_glu_bwd(void *ctx, real *dgu, const real *dy_, const real *gu, enum glu_gate gate, int N, int F) {
    (void)ctx;
    for (int i = 0; i < N; i++) {
        float *dg = (float *)dgu + 2 * (size_t)i * F, *du = dg + F;
        const float *dy = (const float *)dy_ + (size_t)i * F, *g = (const float *)gu + 2 * (size_t)i * F, *u = g + F;
        for (int f = 0; f < F; f++) {
            double r, s = glu_sigmoid(&r, g[f], gate), dgate = (double)dy[f] * u[f] * s * (1 + g[f] * r);
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
