/* Images: resampling along one axis, patches. A thread an element of the result. */
#include "cuda/cuda.cuh"

enum { THREADS = 256 };

/* dst [h][n][c] of (H, N, C); src (H, M, C) */
static __global__ void resample(uint8_t *dst, const uint8_t *src, const int32_t *first, const int32_t *weight,
                                size_t elements, int M, int N, int C, int taps) {
    size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= elements) return;
    int c = (int)(i % C), n = (int)(i / C % N);
    const uint8_t *from = src + (i / C / N * M + first[n]) * C + c;
    const int32_t *w = weight + (size_t)n * taps;
    int32_t sum = 1 << 21;
    for (int k = 0; k < taps; k++) sum += w[k] * from[(size_t)k * C];
    dst[i] = (uint8_t)max_int(0, min_int(255, sum >> 22));
}

int cuda_resample(void *ctx, uint8_t *dst, const uint8_t *src, const int32_t *first, const int32_t *weight, int H,
                  int M, int N, int C, int taps) {
    size_t elements = (size_t)H * N * C;
    LAUNCH(ctx, resample, blocks_of(elements, THREADS), THREADS, 0, dst, src, first, weight, elements, M, N, C, taps);
    return OK;
}

/* Element [i][c][t][y][x] of dst; across: blocks of G x G patches side by side */
static __global__ void patches(float *dst, const uint8_t *src, const float *table, size_t elements, int P, int T, int G,
                               int W, int across) {
    size_t at = (size_t)blockIdx.x * THREADS + threadIdx.x;
    if (at >= elements) return;
    int x = (int)(at % P), y = (int)(at / P % P), c = (int)(at / P / P / T % 3);
    int i = (int)(at / P / P / T / 3), block = i / (G * G), in = i % (G * G);
    size_t row = (size_t)(block / across * G + in / G) * P + y, column = (size_t)(block % across * G + in % G) * P + x;
    dst[at] = table[256 * c + src[(row * W + column) * 3 + c]];
}

int cuda_patches(void *ctx, float *dst, const uint8_t *src, const float *table, int P, int T, int G, int H, int W) {
    size_t elements = (size_t)(H / P) * (W / P) * 3 * T * P * P;
    LAUNCH(ctx, patches, blocks_of(elements, THREADS), THREADS, 0, dst, src, table, elements, P, T, G, W, W / (P * G));
    return OK;
}
