/* A function or two a format, which decode one block and, where files are written in it, encode one; the table at the
   end knows the sizes. The layouts are those of ggml's files; blocks are accessed through byte pointers, since a file
   promises no alignment. */
#include "base/quant.h"

#include <math.h>

#include "base/base.h"

static uint16_t u16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }
static uint32_t u32(const uint8_t *p) { return (uint32_t)u16(p) | (uint32_t)u16(p + 2) << 16; }
static float half(const uint8_t *p) { return half_to_float(u16(p)); }

static void f32(float *y, const uint8_t *b) {
    uint32_t bits = u32(b);
    memcpy(y, &bits, 4);
}

static void put_u16(uint8_t *p, uint16_t x) {
    p[0] = (uint8_t)x;
    p[1] = (uint8_t)(x >> 8);
}

static int f32_block(uint8_t *b, const float *x) {
    uint32_t bits = float_bits(*x);
    put_u16(b, (uint16_t)bits);
    put_u16(b + 2, (uint16_t)(bits >> 16));
    return 1;
}

static void f16(float *y, const uint8_t *b) { *y = half(b); }

static int f16_block(uint8_t *b, const float *x) {
    uint16_t h = half_from_float(*x);
    put_u16(b, h);
    return (h & 0x7c00) != 0x7c00;
}

static void bfloat16(float *y, const uint8_t *b) { *y = bf16_to_float(u16(b)); }

static int bfloat16_block(uint8_t *b, const float *x) {
    put_u16(b, bf16_from_float(*x));
    return 1;
}

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

/* Halves are rounded away from zero, and the scale that they are divided by is not yet the half that is stored. */
static int q8_0_block(uint8_t *b, const float *x) {
    float largest = 0.0f;
    for (int j = 0; j < 32; j++) {
        if (!isfinite(x[j])) return 0;
        largest = fmaxf(largest, fabsf(x[j]));
    }
    float d = largest / 127.0f, inverse = d >= 0x1p-126f ? 1.0f / d : 0.0f;
    uint16_t h = half_from_float(d);
    put_u16(b, h);
    for (int j = 0; j < 32; j++) b[2 + j] = (uint8_t)(int8_t)roundf(x[j] * inverse);
    return (h & 0x7c00) != 0x7c00;
}

/* What sub-block k of a Q4_K or Q5_K block is scaled by and lowered by: 6 bits each, 8 of both in 12 bytes. The first
   four of a kind lie in a byte each; its upper two bits belong to one of the last four, which have a nibble besides. */
static float scale_of(const uint8_t *s, int k) {
    return (float)(k < 4 ? s[k] & 63 : (s[k + 4] & 15) | (s[k - 4] >> 6) << 4);
}

static float min_of(const uint8_t *s, int k) {
    return (float)(k < 4 ? s[k + 4] & 63 : s[k + 4] >> 4 | (s[k] >> 6) << 4);
}

/* d (2), dmin (2), 12 bytes of scales and mins, 128 bytes: 8 sub-blocks of 32, two to a run of 32 bytes */
static void q4_k(float *y, const uint8_t *b) {
    float d = half(b), dmin = half(b + 2);
    const uint8_t *s = b + 4, *q = b + 16;
    for (int k = 0; k < 8; k++) {
        float scale = d * scale_of(s, k), min = dmin * min_of(s, k);
        const uint8_t *run = q + k / 2 * 32;
        for (int j = 0; j < 32; j++) {
            int nibble = k % 2 ? run[j] >> 4 : run[j] & 15;
            y[k * 32 + j] = scale * (float)nibble - min;
        }
    }
}

/* As Q4_K, with 32 bytes between scales and nibbles: bit k of byte j is the fifth bit of element j of sub-block k */
static void q5_k(float *y, const uint8_t *b) {
    float d = half(b), dmin = half(b + 2);
    const uint8_t *s = b + 4, *fifth = b + 16, *q = b + 48;
    for (int k = 0; k < 8; k++) {
        float scale = d * scale_of(s, k), min = dmin * min_of(s, k);
        const uint8_t *run = q + k / 2 * 32;
        for (int j = 0; j < 32; j++) {
            int nibble = k % 2 ? run[j] >> 4 : run[j] & 15;
            y[k * 32 + j] = scale * (float)(nibble | (fifth[j] >> k & 1) << 4) - min;
        }
    }
}

/* 16 bytes with a scale in the low nibble and a min in the high one, 64 bytes of bit pairs, d (2), dmin (2): two halves
   of 128 over 32 bytes each, four runs of 32 in a half by rising bits; 16 elements share a scale */
static void q2_k(float *y, const uint8_t *b) {
    float d = half(b + 80), dmin = half(b + 82);
    for (int k = 0; k < 16; k++) {
        float scale = d * (float)(b[k] & 15), min = dmin * (float)(b[k] >> 4);
        const uint8_t *run = b + 16 + k / 8 * 32 + k % 2 * 16;
        for (int j = 0; j < 16; j++) y[k * 16 + j] = scale * (float)(run[j] >> k % 8 / 2 * 2 & 3) - min;
    }
}

/* 32 bytes of third bits, 64 bytes of bit pairs laid out as in Q2_K, 12 bytes of 6-bit scales, d (2). Bit r of byte j
   is the third bit of element j of run r (32 elements). A scale is a nibble of the first 8 bytes (low ones first) and a
   pair of bits of the last 4; 32 stands for 0. */
static void q3_k(float *y, const uint8_t *b) {
    const uint8_t *third = b, *s = b + 96;
    float d = half(b + 108);
    for (int k = 0; k < 16; k++) {
        int nibble = k < 8 ? s[k] & 15 : s[k - 8] >> 4;
        float scale = d * (float)((nibble | (s[8 + k % 4] >> k / 4 * 2 & 3) << 4) - 32);
        const uint8_t *run = b + 32 + k / 8 * 32 + k % 2 * 16, *high = third + k % 2 * 16;
        for (int j = 0; j < 16; j++) {
            int q = (run[j] >> k % 8 / 2 * 2 & 3) | (high[j] >> k / 2 & 1) << 2;
            y[k * 16 + j] = scale * (float)(q - 4);
        }
    }
}

/* The 16 levels of the IQ4 formats: dense near zero, where most weights are */
static const float iq4_levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

static void iq4(float *y, float scale, const uint8_t *q) {
    for (int j = 0; j < 16; j++) {
        y[j] = scale * iq4_levels[q[j] & 15];
        y[j + 16] = scale * iq4_levels[q[j] >> 4];
    }
}

/* d (2), 16 bytes */
static void iq4_nl(float *y, const uint8_t *b) { iq4(y, half(b), b + 2); }

/* d (2), 16 bits and 4 bytes of 6-bit scales (32 stands for 0): upper pairs, then low nibbles; 128 bytes: 8 sub-blocks
   of 32 */
static void iq4_xs(float *y, const uint8_t *b) {
    float d = half(b);
    int high = u16(b + 2);
    const uint8_t *low = b + 4, *q = b + 8;
    for (int k = 0; k < 8; k++) {
        int scale = (low[k / 2] >> k % 2 * 4 & 15) | (high >> 2 * k & 3) << 4;
        iq4(y + k * 32, d * (float)(scale - 32), q + k * 16);
    }
}

/* 128 bytes of low nibbles, 64 of high bit pairs, 16 signed scales, d (2): two halves of 128, four runs of 32 each */
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

const struct block_format block_formats[] = {
    {"F32", 1, 4, f32, f32_block},  {"F16", 1, 2, f16, f16_block},      {"BF16", 1, 2, bfloat16, bfloat16_block},
    {"Q4_0", 32, 18, q4_0, NULL},   {"Q4_1", 32, 20, q4_1, NULL},       {"Q5_0", 32, 22, q5_0, NULL},
    {"Q5_1", 32, 24, q5_1, NULL},   {"Q8_0", 32, 34, q8_0, q8_0_block}, {"Q2_K", 256, 84, q2_k, NULL},
    {"Q3_K", 256, 110, q3_k, NULL}, {"Q4_K", 256, 144, q4_k, NULL},     {"Q5_K", 256, 176, q5_k, NULL},
    {"Q6_K", 256, 210, q6_k, NULL}, {"IQ4_NL", 32, 18, iq4_nl, NULL},   {"IQ4_XS", 256, 136, iq4_xs, NULL},
    {NULL, 0, 0, NULL, NULL},
};

/* *found = the entry of a format, NULL where there is none or count is no whole number of its blocks. */
static int find(const struct block_format **found, const char *type, size_t count) {
    *found = NULL;
    const struct block_format *f = block_formats;
    while (f->name && strcmp(f->name, type)) f++;
    if (!f->name) return fail(E_CONFIG, "unknown block format '%.40s'", type);
    if (count % (size_t)f->elements)
        return fail(E_FORMAT, "%zu elements are not a whole number of %s blocks of %d", count, f->name, f->elements);
    *found = f;
    return OK;
}

int dequantize(float *dst, const void *src, size_t bytes, size_t count, const char *type) {
    const struct block_format *f;
    int status = find(&f, type, count);
    if (!f) return status;
    size_t blocks = count / (size_t)f->elements;
    if (bytes / (size_t)f->bytes != blocks || bytes % (size_t)f->bytes)
        return fail(E_FORMAT, "%zu elements of %s take %d bytes a block of %d, not %zu bytes", count, f->name, f->bytes,
                    f->elements, bytes);
    const uint8_t *block = src;
    for (size_t i = 0; i < blocks; i++) f->decode(dst + i * (size_t)f->elements, block + i * (size_t)f->bytes);
    return OK;
}

int quantize(uint8_t *dst, const float *src, size_t count, const char *type) {
    const struct block_format *f;
    int status = find(&f, type, count);
    if (!f) return status;
    if (!f->encode) return fail(E_CONFIG, "nothing is written as %s", f->name);
    for (size_t i = 0, blocks = count / (size_t)f->elements; i < blocks; i++)
        if (!f->encode(dst + i * (size_t)f->bytes, src + i * (size_t)f->elements))
            return fail(E_FORMAT, "%s cannot hold a number of elements %zu to %zu", f->name, i * (size_t)f->elements,
                        (i + 1) * (size_t)f->elements - 1);
    return OK;
}
