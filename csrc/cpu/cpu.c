/* The CPU backend without its kernels: which tier this CPU can run, memory, scratch. */
#define _GNU_SOURCE
#include "cpu/cpu.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#if CPU_X86
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#endif

/* Features read by ourselves: __builtin_cpu_supports knows "amx-bf16" only in some compilers. XCR0 says which register
   files the operating system saves. */
struct cpuid {
    uint32_t a, b, c, d;
};
static struct cpuid cpuid(uint32_t leaf, uint32_t subleaf) {
    struct cpuid r = {0};
    __get_cpuid_count(leaf, subleaf, &r.a, &r.b, &r.c, &r.d);
    return r;
}
static uint64_t xcr0(void) {
    if (!(cpuid(1, 0).c >> 27 & 1)) return 0;
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

/* Each returns the first thing that is missing, or NULL. */
static const char *lacks_avx2(void) {
    if (~xcr0() & 0x6) return "ymm registers enabled by the operating system";
    if (!(cpuid(1, 0).c >> 12 & 1)) return "fma";
    return cpuid(7, 0).b >> 5 & 1 ? NULL : "avx2";
}
static const char *lacks_avx512(void) {
    const char *missing = lacks_avx2();
    if (missing) return missing;
    if (~xcr0() & 0xe0) return "zmm registers enabled by the operating system";
    uint32_t b = cpuid(7, 0).b;
    if (!(b >> 16 & 1)) return "avx512f";
    if (!(b >> 17 & 1)) return "avx512dq";
    if (!(b >> 30 & 1)) return "avx512bw";
    return b >> 31 & 1 ? NULL : "avx512vl";
}
static const char *lacks_avx512bf16(void) {
    const char *missing = lacks_avx512();
    if (missing) return missing;
    return cpuid(7, 1).a >> 5 & 1 ? NULL : "avx512_bf16";
}
/* Linux gives a process the 8 KB of tile registers only when asked, once. */
static int amx_permitted(void) {
#if defined(__linux__)
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    return !syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA);
#else
    return 0;
#endif
}
static const char *lacks_amx(void) {
    const char *missing = lacks_avx512bf16();
    if (missing) return missing;
    uint32_t d = cpuid(7, 0).d;
    if (!(d >> 24 & 1)) return "amx_tile";
    if (!(d >> 22 & 1)) return "amx_bf16";
    if (~xcr0() & 0x60000) return "tile registers enabled by the operating system";
    return amx_permitted() ? NULL : "the kernel's permission to use amx tiles";
}
#endif

static const char *lacks_nothing(void) { return NULL; }

static const struct {
    const struct ops *ops;
    const char *(*lacks)(void);
} tiers[] = {
/* best first */
#if CPU_X86
    {&cpu_ops_amx, lacks_amx},          {&cpu_ops_avx512bf16, lacks_avx512bf16},
    {&cpu_ops_avx512, lacks_avx512},    {&cpu_ops_avx2, lacks_avx2},
#endif
    {&cpu_ops_portable, lacks_nothing},
};
enum { TIERS = sizeof tiers / sizeof *tiers };

int cpu_ops_pick(const struct ops **out) {
    const char *wanted = getenv("GRPO_CPU");
    *out = NULL;
    for (int i = 0; i < TIERS; i++) {
        if (wanted && *wanted && strcmp(wanted, tiers[i].ops->tier)) continue;
        const char *missing = tiers[i].lacks();
        if (!missing) {
            *out = tiers[i].ops;
            return OK;
        }
        if (wanted && *wanted) return fail(E_DEVICE, "GRPO_CPU=%s: this CPU lacks %s", wanted, missing);
    }
    char names[128] = "";
    for (int i = 0; i < TIERS; i++) {
        strcat(names, i ? ", " : "");
        strcat(names, tiers[i].ops->tier);
    }
    return fail(E_CONFIG, "GRPO_CPU=%s: no such tier; this build has %s", wanted, names);
}

/* -- context and memory -------------------------------------------------------------------------------------------- */
int cpu_open(void **ctx) {
    *ctx = calloc(1, sizeof(struct ctx));
    return *ctx ? OK : fail(E_MEMORY, "no memory for the context of the cpu backend");
}

static void free_stripes(struct ctx *c) {
    if (c->stripes) munmap(c->stripes, c->size.thread * THREADS_MAX);
    c->stripes = NULL;
    c->size.thread = 0;
}

void cpu_close(void *ctx) {
    struct ctx *c = ctx;
    if (!c) return;
    memory_free(c->shared);
    free_stripes(c);
    free(c);
}

int cpu_grow(void *ctx, struct scratch need) {
    struct ctx *c = ctx;
    if (need.shared > c->size.shared) {
        memory_free(c->shared);
        c->size.shared = 0;
        c->shared = memory_new(need.shared);
        if (!c->shared) return fail(E_MEMORY, "no memory for %zu bytes of shared scratch", need.shared);
        c->size.shared = need.shared;
    }
    if (need.thread > c->size.thread) {
        size_t page = (size_t)sysconf(_SC_PAGESIZE), stride = (need.thread + page - 1) / page * page;
        free_stripes(c);
        void *p = mmap(NULL, stride * THREADS_MAX, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                       -1, 0);
        if (p == MAP_FAILED) return fail(E_MEMORY, "no address space for %zu bytes of scratch a thread", stride);
        c->stripes = p;
        c->size.thread = stride;
    }
    return OK;
}

int scratch_ready(const struct ctx *c, struct scratch need) {
    if (need.shared <= c->size.shared && need.thread <= c->size.thread) return OK;
    return fail(E_MEMORY, "cpu: an operation needs %zu + %zu bytes of scratch, reserve() made %zu + %zu", need.shared,
                need.thread, c->size.shared, c->size.thread);
}

void *cpu_alloc(void *ctx, size_t bytes) {
    (void)ctx;
    return memory_new(bytes);
}

void cpu_release(void *ctx, void *p) {
    (void)ctx;
    memory_free(p);
}

int cpu_copy(void *ctx, void *dst, const void *src, size_t bytes) {
    (void)ctx;
    if (bytes) memmove(dst, src, bytes);
    return OK;
}

int cpu_upload(void *ctx, void *dst, const void *host, size_t bytes) { return cpu_copy(ctx, dst, host, bytes); }

int cpu_download(void *ctx, void *host, const void *src, size_t bytes) { return cpu_copy(ctx, host, src, bytes); }

int cpu_replay(void *ctx, const void *key, size_t bytes, int *done) {
    (void)ctx, (void)key, (void)bytes;
    *done = 0;
    return OK;
}

int cpu_record_end(void *ctx, int status) {
    (void)ctx;
    return status;
}

/* Gradients are the largest arena and are cleared once a step: by all threads. */
struct zero_job {
    char *dst;
    size_t bytes;
};
enum { ZERO_CHUNK = 1 << 20 };
static void zero_chunks(void *arg, int begin, int end, int thread) {
    struct zero_job *job = arg;
    (void)thread;
    size_t first = (size_t)begin * ZERO_CHUNK, last = (size_t)end * ZERO_CHUNK;
    memset(job->dst + first, 0, (last < job->bytes ? last : job->bytes) - first);
}
int cpu_zero(void *ctx, void *dst, size_t bytes) {
    (void)ctx;
    struct zero_job job = {dst, bytes};
    parallel_for((int)((bytes + ZERO_CHUNK - 1) / ZERO_CHUNK), zero_chunks, &job);
    return OK;
}
