#include "base/base.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static _Thread_local char message[1024];
int (*interrupt_hook)(void);

int fail(int code, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    return code;
}

const char *fail_message(void) { return message; }

float half_to_float(uint16_t x) {
    uint32_t sign = (uint32_t)(x & 0x8000) << 16, exponent = (x >> 10) & 31, mantissa = x & 1023, bits;
    if (exponent == 31) bits = sign | 0x7f800000u | mantissa << 13;
    else if (exponent) bits = sign | (exponent + 112) << 23 | mantissa << 13;
    else {
        float subnormal = (float)mantissa * 0x1p-24f;
        return sign ? -subnormal : subnormal;
    }
    float y;
    memcpy(&y, &bits, 4);
    return y;
}

double clock_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Each block carries its size in the 64 bytes before it. */
static _Atomic size_t in_use;

void *memory_new(size_t bytes) {
    size_t total;
    if (__builtin_add_overflow(bytes, (size_t)127, &total)) return NULL;
    total &= ~(size_t)63;
    char *block = aligned_alloc(64, total);
    if (!block) return NULL;
    memset(block, 0, total);
    memcpy(block, &bytes, sizeof bytes);
    atomic_fetch_add(&in_use, bytes);
    return block + 64;
}

void memory_free(void *p) {
    if (!p) return;
    char *block = (char *)p - 64;
    size_t bytes;
    memcpy(&bytes, block, sizeof bytes);
    atomic_fetch_sub(&in_use, bytes);
    free(block);
}

size_t memory_in_use(void) { return atomic_load(&in_use); }

void memory_account(ptrdiff_t bytes) { atomic_fetch_add(&in_use, (size_t)bytes); }
