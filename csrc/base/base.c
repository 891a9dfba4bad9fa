#include "base/base.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
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

uint16_t half_from_float(float x) {
    uint32_t bits = float_bits(x), sign = bits >> 16 & 0x8000, size = bits & 0x7fffffffu;
    if (size > 0x7f800000u) return (uint16_t)(sign | 0x7e00);
    if (size >= 0x477ff000u) return (uint16_t)(sign | 0x7c00);
    /* below 2^-14 a half counts in steps of 2^-24, and so do the float32 from 0.5 to 1, whose sum is rounded by them */
    if (size < 0x38800000u) return (uint16_t)(sign | (float_bits(float_from_bits(size) + 0.5f) - 0x3f000000u));
    return (uint16_t)(sign | (((size + 0xfffu + (size >> 13 & 1)) >> 13) - (112u << 10)));
}

double clock_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Each block carries its size in the 64 bytes before it. Large ones come from the kernel, zeroed when they are first
   touched, and in huge pages where it has them: a model's weights are then read a fifth faster (one sequence, Zen
   4). */
static _Atomic size_t in_use;
enum { HEADER = 64, HUGE_PAGE = 2 << 20 };

static void *map_large(size_t total) {
    char *p = mmap(NULL, total + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return NULL;
    size_t before = -(uintptr_t)p % HUGE_PAGE;
    if (before) munmap(p, before);
    munmap(p + before + total, HUGE_PAGE - before);
    madvise(p + before, total, MADV_HUGEPAGE);
    return p + before;
}

/* Bytes of a block with its header: whole lines, or whole pages where it is large. */
static size_t block_size(size_t bytes) {
    size_t total = (bytes + HEADER + 63) / 64 * 64;
    return total < HUGE_PAGE ? total : (total + 4095) / 4096 * 4096;
}

void *memory_new(size_t bytes) {
    if (bytes > SIZE_MAX / 2) return NULL;
    size_t total = block_size(bytes);
    char *block = total < HUGE_PAGE ? aligned_alloc(64, total) : map_large(total);
    if (!block) return NULL;
    if (total < HUGE_PAGE) memset(block, 0, total);
    memcpy(block, &bytes, sizeof bytes);
    atomic_fetch_add(&in_use, bytes);
    return block + HEADER;
}

void memory_free(void *p) {
    if (!p) return;
    char *block = (char *)p - HEADER;
    size_t bytes, total;
    memcpy(&bytes, block, sizeof bytes);
    atomic_fetch_sub(&in_use, bytes);
    total = block_size(bytes);
    if (total < HUGE_PAGE) free(block);
    else munmap(block, total);
}

size_t memory_in_use(void) { return atomic_load(&in_use); }

void memory_account(ptrdiff_t bytes) { atomic_fetch_add(&in_use, (size_t)bytes); }
