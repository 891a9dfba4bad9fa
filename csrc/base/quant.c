/* One function a format, each of which decodes one block; the table at the end knows the sizes.
   The layouts are those of ggml's files; blocks are read through byte pointers, since a file promises no alignment. */
#include "base/quant.h"

#include "base/base.h"

static uint16_t u16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }
static uint32_t u32(const uint8_t *p) { return (uint32_t)u16(p) | (uint32_t)u16(p + 2) << 16; }
static float half(const uint8_t *p) { return half_to_float(u16(p)); }

static void f32(float *y, const uint8_t *b) {
    uint32_t bits = u32(b);
    memcpy(y, &bits, 4);
}

static void f16(float *y, const uint8_t *b) { *y = half(b); }

static void bfloat16(float *y, const uint8_t *b) { *y = bf16_to_float(u16(b)); }

/* d (2), 16 bytes: low nibbles are elements 0..15, high nibbles 16..31 */
static void q4_0(float *y, const uint8_t *b) {
    float d = half(b);
    const uint8_t *q = b + 2;
    for (int j = 0; j < 16; j++) {
        y[j] = d * (float)((q[j] & 15) - 8);
        y[j + 16] = d * (float)((q[j] >> 4) - 8);
    }
}

/* d (2), m (2), 16 bytes */
static void q4_1(float *y, const uint8_t *b) {
    float d = half(b), m = half(b + 2);
    const uint8_t *q = b + 4;
    for (int j = 0; j < 16; j++) {
        y[j] = d * (float)(q[j] & 15) + m;
        y[j + 16] = d * (float)(q[j] >> 4) + m;
    }
}

/* d (2), fifth bits (4), 16 bytes */
static void q5_0(float *y, const uint8_t *b) {
    float d = half(b);
    uint32_t high = u32(b + 2);
    const uint8_t *q = b + 6;
    for (int j = 0; j < 16; j++) {
        y[j] = d * (float)((int)((q[j] & 15u) | (high >> j & 1) << 4) - 16);
        y[j + 16] = d * (float)((int)((q[j] >> 4u) | (high >> (j + 16) & 1) << 4) - 16);
    }
}

/* d (2), m (2), fifth bits (4), 16 bytes */
static void q5_1(float *y, const uint8_t *b) {
    float d = half(b), m = half(b + 2);
    uint32_t high = u32(b + 4);
    const uint8_t *q = b + 8;
    for (int j = 0; j < 16; j++) {
        y[j] = d * (float)((q[j] & 15u) | (high >> j & 1) << 4) + m;
        y[j + 16] = d * (float)((q[j] >> 4u) | (high >> (j + 16) & 1) << 4) + m;
    }
}

/* d (2), 32 signed bytes */
static void q8_0(float *y, const uint8_t *b) {
    float d = half(b);
    const int8_t *q = (const int8_t *)b + 2;
    for (int j = 0; j < 32; j++) y[j] = d * (float)q[j];
}

/* d (2), dmin (2), 12 bytes of 6-bit scales and mins, 128 bytes: 8 sub-blocks of 32, two to a run of 32 bytes */
static void q4_k(float *y, const uint8_t *b) {
    float d = half(b), dmin = half(b + 2);
    const uint8_t *s = b + 4, *q = b + 16;
    for (int k = 0; k < 8; k++) {
        int scale = k < 4 ? s[k] & 63 : (s[k + 4] & 15) | (s[k - 4] >> 6) << 4;
        int min = k < 4 ? s[k + 4] & 63 : s[k + 4] >> 4 | (s[k] >> 6) << 4;
        const uint8_t *run = q + k / 2 * 32;
        for (int j = 0; j < 32; j++) {
            int nibble = k % 2 ? run[j] >> 4 : run[j] & 15;
            y[k * 32 + j] = d * (float)scale * (float)nibble - dmin * (float)min;
        }
    }
}

/* 128 bytes of low nibbles, 64 of high bit pairs, 16 signed scales, d (2): two halves of 128, four runs of 32 in each */
static void q6_k(float *y, const uint8_t *b) {
    float d = half(b + 208);
    for (int h = 0; h < 2; h++) {
        const uint8_t *low = b + h * 64, *high = b + 128 + h * 32;
        const int8_t *scale = (const int8_t *)b + 192 + h * 8;
        for (int run = 0; run < 4; run++) {
            for (int j = 0; j < 32; j++) {
                uint8_t byte = low[j + run % 2 * 32];
                int q = (run < 2 ? byte & 15 : byte >> 4) | (high[j] >> 2 * run & 3) << 4;
                y[h * 128 + run * 32 + j] = d * (float)scale[j / 16 + 2 * run] * (float)(q - 32);
            }
        }
    }
}

static const struct format {
    const char *name;
    int elements, bytes;
    void (*decode)(float *y, const uint8_t *block);
} formats[] = {
    {"F32", 1, 4, f32},       {"F16", 1, 2, f16},       {"BF16", 1, 2, bfloat16},  {"Q4_0", 32, 18, q4_0},    {"Q4_1", 32, 20, q4_1},
    {"Q5_0", 32, 22, q5_0},   {"Q5_1", 32, 24, q5_1},   {"Q8_0", 32, 34, q8_0},    {"Q4_K", 256, 144, q4_k},  {"Q6_K", 256, 210, q6_k},
};

int dequantize(float *dst, const void *src, size_t bytes, size_t count, const char *type) {
    const struct format *f = NULL;
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (!strcmp(formats[i].name, type)) f = &formats[i];
    if (!f) return fail(E_CONFIG, "unknown block format '%.40s'; known: F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q4_K Q6_K", type);
    size_t blocks = count / (size_t)f->elements;
    if (count % (size_t)f->elements)
        return fail(E_FORMAT, "%zu elements are not a whole number of %s blocks of %d", count, f->name, f->elements);
    if (bytes / (size_t)f->bytes != blocks || bytes % (size_t)f->bytes)
        return fail(E_FORMAT, "%zu elements of %s take %d bytes a block of %d, not %zu bytes", count, f->name, f->bytes, f->elements, bytes);
    const uint8_t *block = src;
    for (size_t i = 0; i < blocks; i++) f->decode(dst + i * (size_t)f->elements, block + i * (size_t)f->bytes);
    return OK;
}
