/* Floor 0: what every file may use. Status codes with a message, bf16, interrupt polling, clock.
   Knows no model and no device. A C function that can fail returns 0 or one of the codes below and leaves
   its sentence with fail(); csrc/python/py_error.c alone turns it into an exception. */
#ifndef GRPO_BASE_H
#define GRPO_BASE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum status {
    OK = 0,
    E_CONFIG,      /* a value the caller chose is wrong     -> grpo.ConfigError (ValueError)          */
    E_FORMAT,      /* bytes of a file or array are wrong    -> grpo.FileFormatError (ValueError)      */
    E_MEMORY,      /* an arena does not fit                 -> grpo.OutOfMemoryError (MemoryError)    */
    E_DEVICE,      /* a device or CPU tier is not there     -> grpo.DeviceError (RuntimeError)        */
    E_NONFINITE,   /* NaN or Inf where numbers should be    -> grpo.NonFiniteError (FloatingPointError) */
    E_INTERRUPT,   /* Ctrl-C seen by poll_interrupt()       -> the pending Python exception           */
};

/* Records a printf-style sentence for this thread and returns `code`. */
int fail(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));
const char *fail_message(void);

#define TRY(call)                    \
    do {                             \
        int status_ = (call);        \
        if (status_) return status_; \
    } while (0)

#ifdef __CUDACC__
#define BASE_FN static __host__ __device__ inline     /* kernels may call it too */
#else
#define BASE_FN static inline
#endif
BASE_FN int min_int(int a, int b) { return a < b ? a : b; }
BASE_FN int max_int(int a, int b) { return a > b ? a : b; }
BASE_FN int ceil_div(int a, int b) { return (a + b - 1) / b; }
BASE_FN int round_up(int a, int b) { return ceil_div(a, b) * b; }

BASE_FN uint32_t float_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}
BASE_FN float float_from_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

/* bfloat16 is the upper half of a float32; rounding is to nearest, ties to even; NaN stays NaN. */
typedef uint16_t bf16;
static inline float bf16_to_float(bf16 x) { return float_from_bits((uint32_t)x << 16); }
static inline bf16 bf16_from_float(float x) {
    uint32_t bits = float_bits(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (bf16)((bits >> 16) | 0x40);
    return (bf16)((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}
float half_to_float(uint16_t x);
uint16_t half_from_float(float x);    /* to nearest, ties to even; above 65504 by half a step: Inf; NaN stays NaN */

/* A float32 as a bfloat16 and 16 bits more, one to one for every pattern of bits. The bfloat16 is the float32
   rounded half up in its bits (away from zero; nearest-even differs on exact ties alone), `lower` is the lower half
   of the float32: read as a signed number, its distance from the bfloat16. Finite numbers above the largest bfloat16
   have Inf for it and come back. */
BASE_FN bf16 upper_of(uint32_t bits) { return (bf16)((bits + 0x8000u) >> 16); }
BASE_FN uint32_t join_bits(bf16 upper, uint16_t lower) { return ((uint32_t)upper << 16) + (uint32_t)(int16_t)lower; }

/* float24: a float32 without the 8 least bits of its mantissa; split like it, the lower half of `lower` is 0 and not
   stored. To nearest, ties away from zero and NaN still NaN, for weights that are set; up or down by `random`,
   uniform in [0, 2^8), for those that are updated. */
BASE_FN uint32_t nearest_float24(uint32_t bits) {
    return ((bits & 0x7fffffffu) > 0x7f800000u ? bits | 0x400000u : bits + 0x80u) & ~0xffu;
}
BASE_FN uint32_t round_float24(uint32_t bits, uint32_t random) { return (bits + random) & ~0xffu; }

/* Stochastic rounding to bfloat16: up with probability (lower half of bits) / 2^16, so the mean over `random`, uniform
   in [0, 2^16), is the number itself. What bfloat16 can hold stays as it is, and so does Inf. */
BASE_FN bf16 round_stochastic(uint32_t bits, uint32_t random) { return (bf16)((bits + random) >> 16); }

/* Long calls ask this between pieces of work of at most ~50 ms; non-zero means stop with E_INTERRUPT.
   The binding installs the hook (it takes the GIL and checks Python's signals, at most every 50 ms). */
extern int (*interrupt_hook)(void);
static inline int poll_interrupt(void) { return interrupt_hook && interrupt_hook() ? E_INTERRUPT : OK; }

double clock_seconds(void);   /* monotonic */

/* Hands out 64-byte aligned pieces of an arena; with a NULL base it only adds up. */
struct layout {
    char *base;
    size_t at;
};
static inline void *layout_take(struct layout *s, size_t n, size_t element) {
    void *p = s->base ? s->base + s->at : NULL;
    s->at += (n * element + 63) & ~(size_t)63;
    return p;
}

/* 64-byte aligned, zeroed; counted, so that tests can see leaks and growth. NULL on failure. */
void *memory_new(size_t bytes);
void memory_free(void *p);
size_t memory_in_use(void);
void memory_account(ptrdiff_t bytes);      /* a device's memory: taken (> 0) or given back */

#endif
