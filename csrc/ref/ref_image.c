/* What makes an image ready for a vision tower: resampling along one axis, patches. */
#include "ref/ref.h"

int ref_resample(void *ctx, uint8_t *dst, const uint8_t *src, const int32_t *first, const int32_t *weight, int H, int M,
                 int N, int C, int taps) {
    (void)ctx;
    for (size_t h = 0; h < (size_t)H; h++)
        for (size_t n = 0; n < (size_t)N; n++)
            for (size_t c = 0; c < (size_t)C; c++) {
                int64_t sum = 1 << 21;
                for (size_t k = 0; k < (size_t)taps; k++)
                    sum += weight[n * taps + k] * (int64_t)src[(h * M + first[n] + k) * C + c];
                sum >>= 22;
                dst[(h * N + n) * C + c] = (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
            }
    return OK;
}

int ref_patches(void *ctx, float *dst, const uint8_t *src, const float *table, int P, int T, int G, int H, int W) {
    (void)ctx;
    for (int block_y = 0; block_y < H / (P * G); block_y++)
        for (int block_x = 0; block_x < W / (P * G); block_x++)
            for (int i = 0; i < G * G; i++) {
                size_t top = (size_t)(block_y * G + i / G) * P, left = (size_t)(block_x * G + i % G) * P;
                for (int c = 0; c < 3; c++)
                    for (int t = 0; t < T; t++)
                        for (size_t y = top; y < top + P; y++)
                            for (size_t x = left; x < left + P; x++) *dst++ = table[c * 256 + src[(y * W + x) * 3 + c]];
            }
    return OK;
}
