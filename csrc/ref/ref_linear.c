/* Weights, which are plain row-major floats here, and the matrix products. Gradients of weights are added one token at
   a time and rounded each time, so that any split of a batch gives the same bits. */
#include "ref/ref.h"

size_t ref_weight_bytes(int O, int C) { return (size_t)O * (size_t)C * sizeof(float); }

int ref_weight_set(void *ctx, weight *w, const float *src, int row, int rows, int O, int C) {
    (void)ctx, (void)O;
    memcpy((float *)w + (size_t)row * C, src, (size_t)rows * C * sizeof(float));
    return OK;
}

int ref_weight_get(void *ctx, float *dst, const weight *w, int row, int rows, int O, int C) {
    (void)ctx, (void)O;
    memcpy(dst, (const float *)w + (size_t)row * C, (size_t)rows * C * sizeof(float));
    return OK;
}

int ref_vector_set(void *ctx, float *dst, const float *src, int n) {
    return ref_copy(ctx, dst, src, (size_t)n * sizeof(float));
}

int ref_cast(void *ctx, real *dst, const float *src, size_t n) { return ref_copy(ctx, dst, src, n * sizeof(float)); }

int ref_uncast(void *ctx, float *dst, const real *src, size_t n) { return ref_copy(ctx, dst, src, n * sizeof(float)); }

static int linear(float *y, const float *x, const float *W, const float *b, int N, int C, int O, int add) {
    for (int i = 0; i < N; i++)
        for (int o = 0; o < O; o++) {
            float *out = y + (size_t)i * O + o;
            double sum = dot(x + (size_t)i * C, W + (size_t)o * C, (size_t)C) + (b ? b[o] : 0);
            *out = (float)(add ? *out + sum : sum);
        }
    return OK;
}

int ref_linear(void *ctx, real *y, const real *x, const weight *W, const float *b, int N, int C, int O) {
    (void)ctx;
    return linear(y, x, W, b, N, C, O, 0);
}

int ref_linear_add(void *ctx, real *y, const real *x, const weight *W, const float *b, int N, int C, int O) {
    (void)ctx;
    return linear(y, x, W, b, N, C, O, 1);
}

int ref_linear_dx(void *ctx, real *dx_, const real *dy_, const weight *W_, int N, int C, int O) {
    enum { WIDTH = 64 };                                             /* columns at a time */
    (void)ctx;
    float *dx = dx_;
    const float *dy = dy_, *W = W_;
    for (int i = 0; i < N; i++)
        for (int c = 0; c < C; c += WIDTH) {
            double sum[WIDTH] = {0};
            int width = min_int(WIDTH, C - c);
            for (int o = 0; o < O; o++)
                for (int j = 0; j < width; j++) sum[j] += (double)dy[(size_t)i * O + o] * W[(size_t)o * C + c + j];
            for (int j = 0; j < width; j++) dx[(size_t)i * C + c + j] = (float)sum[j];
        }
    return OK;
}

int ref_linear_dw(void *ctx, float *dW, float *db, const real *dy_, const real *x_, int N, int C, int O) {
    (void)ctx;
    const float *dy = dy_, *x = x_;
    for (int i = 0; i < N; i++)
        for (int o = 0; o < O; o++) {
            double d = dy[(size_t)i * O + o];
            float *row = dW + (size_t)o * C;
            for (int c = 0; c < C; c++) row[c] = (float)(row[c] + d * x[(size_t)i * C + c]);
            if (db) db[o] = (float)(db[o] + d);
        }
    return OK;
}
