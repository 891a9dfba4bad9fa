/* Images: resampling along one axis, patches. A thread an element of the result. */
#include "cuda/cuda.cuh"

enum { THREADS = 256, GRID_Y = 65535 };

/* dst (H, N, C), src (H, M, C). Block (piece of N C, h) */
static __global__ void resample(uint8_t *dst, const uint8_t *src, const int32_t *first, const int32_t *weight, int H,
                                int M, int N, int C, int taps) {
    unsigned i = blockIdx.x * THREADS + threadIdx.x, n = i / C, c = i % C;
    if (n >= (unsigned)N) return;
    const int32_t *w = weight + (size_t)n * taps;
    src += (size_t)first[n] * C + c;
    for (size_t h = blockIdx.y; h < H; h += gridDim.y) {
        const uint8_t *from = src + h * M * C;
        int32_t sum = 1 << 21;
        for (int k = 0; k < taps; k++) sum += w[k] * from[(size_t)k * C];
        dst[h * N * C + i] = (uint8_t)max_int(0, min_int(255, sum >> 22));
    }
}

int cuda_resample(void *ctx, uint8_t *dst, const uint8_t *src, const int32_t *first, const int32_t *weight, int H,
                  int M, int N, int C, int taps) {
    dim3 grid(blocks_of((size_t)N * C, THREADS), (unsigned)min_int(H, GRID_Y));
    LAUNCH(ctx, resample, grid, THREADS, 0, dst, src, first, weight, H, M, N, C, taps);
    return OK;
}

/* Block: patch; across: blocks of G x G patches side by side */
static __global__ void patches(float *dst, const uint8_t *src, const float *table, int P, int T, int G, int W,
                               int across) {
    int block = (int)blockIdx.x / (G * G), in = (int)blockIdx.x % (G * G), frame = P * P;
    int top = (block / across * G + in / G) * P, left = (block % across * G + in % G) * P;
    dst += (size_t)blockIdx.x * 3 * T * frame;
    for (int i = (int)threadIdx.x; i < 3 * T * frame; i += THREADS) {
        int c = i / (T * frame), y = i % frame / P, x = i % P;
        dst[i] = table[256 * c + src[((size_t)(top + y) * W + left + x) * 3 + c]];
    }
}

int cuda_patches(void *ctx, float *dst, const uint8_t *src, const float *table, int P, int T, int G, int H, int W) {
    LAUNCH(ctx, patches, (unsigned)(H / P) * (unsigned)(W / P), THREADS, 0, dst, src, table, P, T, G, W, W / (P * G));
    return OK;
}
