/* GGUF block formats -> float, and back for those that files are written in. A block is a run of elements of one row
   that share their scales; all fields are little-endian. */
#ifndef GRPO_QUANT_H
#define GRPO_QUANT_H

#include <stddef.h>
#include <stdint.h>

struct block_format {
    const char *name;                                /* "F32", "Q4_K", ... as ggml has them */
    int elements, bytes;                             /* of one block */
    void (*decode)(float *y, const uint8_t *block);  /* y (elements) = the values of a block */
    int (*encode)(uint8_t *block, const float *x);   /* a block of x; 0: not finite. NULL: is only read */
};

extern const struct block_format block_formats[];    /* an entry without a name ends it */

/* dst (count) = values of src, `bytes` long, in the format `type` names.
   E_CONFIG: unknown type; E_FORMAT: count is not a whole number of blocks, or bytes is not what count needs. */
int dequantize(float *dst, const void *src, size_t bytes, size_t count, const char *type);

/* dst = the blocks of src (count), in the format `type` names, rounded as ggml does.
   E_CONFIG: unknown type, or one without an encoder; E_FORMAT: count is not a whole number of blocks, or a number is
   not finite in this format. F32 and BF16 hold NaN and Inf as they are. */
int quantize(uint8_t *dst, const float *src, size_t count, const char *type);

#endif
