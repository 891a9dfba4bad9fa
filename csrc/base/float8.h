/* AdamW's moments in 8 bits. 256 neighbours in a row of a matrix are a block (the last of a row is shorter) with one
   exponent, that of its largest number. A code holds, of m, a sign, 4 bits of exponent and 3 of mantissa; of v,
   which is never negative, 5 and 3; there is no Inf and no NaN. Its value is the float32 with the bits code << 20,
   subnormal ones too, times 2^exponent: a bfloat16, and never a subnormal one, so that no mode of a processor
   flushes it. Decoded numbers come back as they were from another encoding, whatever the random bits. */
#ifndef GRPO_FLOAT8_H
#define GRPO_FLOAT8_H

#include "base/base.h"

enum { FLOAT8_BLOCK = 256 };
BASE_FN int float8_blocks(int C) { return ceil_div(C, FLOAT8_BLOCK); }       /* of a row */
enum { FLOAT8_M = 0x7f, FLOAT8_V = 0xff }; /* the format, by its largest code; m's eighth bit is the sign */

/* largest: bits of the largest magnitude of a block. Rounding it up needs no higher exponent; the largest code is
   finite. */
BASE_FN uint32_t float8_exponent(uint32_t largest, uint32_t format) {
    int highest = min_int(254, (int)((largest + 0xfffff) >> 23));
    return (uint32_t)max_int(3, highest - (int)(format >> 3));
}

/* condition ? a : b, both computed: GCC makes no vectors for AVX2 of a loop where ?: could spare a float operation. */
BASE_FN uint32_t float8_select(int condition, uint32_t a, uint32_t b) {
    uint32_t mask = -(uint32_t)condition;
    return (a & mask) | (b & ~mask);
}

BASE_FN float float8_decode(uint8_t stored, uint32_t exponent, uint32_t format) {
    uint32_t code = stored & format, sign = (stored & ~format) << 24, least = (exponent + 1) << 23;
    float subnormal = float_from_bits(least + (code << 20)) - float_from_bits(least);
    return float_from_bits(float8_select(code < 8, float_bits(subnormal), (code << 20) + (exponent << 23)) | sign);
}

/* Up or down by chance: the mean over `random`, uniform in [0, 2^16), is x, but for half of 2^-16 of the gap. A v
   above 0 stays above 0: m / (sqrt(v) + eps) would explode. */
BASE_FN uint8_t float8_encode(float x, uint32_t random, uint32_t exponent, uint32_t format) {
    uint32_t bits = float_bits(x) & 0x7fffffffu, sign = float_bits(x) >> 24 & 0x80 & ~format,
             least = (exponent + 1) << 23;
    uint32_t aligned = float_bits(float_from_bits(bits) + float_from_bits(least)) - least;
    uint32_t code = (float8_select(bits < least, aligned, bits - (exponent << 23)) + (random << 4 | 8)) >> 20;
    code = code < format ? code : format;
    code += (format == FLOAT8_V) & (code == 0) & (bits > 0);
    return (uint8_t)(code | sign);
}

/* A block of n <= FLOAT8_BLOCK: x (n) = its codes (n); codes = x with 16 bits of random (n) from `shift` on, the
   exponent returned. */
BASE_FN void float8_decode_block(float *x, const uint8_t *code, uint32_t exponent, int n, uint32_t format) {
    for (int i = 0; i < n; i++) x[i] = float8_decode(code[i], exponent, format);
}

BASE_FN uint8_t float8_encode_block(uint8_t *code, const float *x, const uint32_t *random, int shift, int n,
                                    uint32_t format) {
    int largest = 0;
    for (int i = 0; i < n; i++) largest = max_int(largest, (int)(float_bits(x[i]) & 0x7fffffff));
    uint32_t exponent = float8_exponent((uint32_t)largest, format);
    for (int i = 0; i < n; i++) code[i] = float8_encode(x[i], random[i] >> shift & 0xffff, exponent, format);
    return (uint8_t)exponent;
}

#endif
