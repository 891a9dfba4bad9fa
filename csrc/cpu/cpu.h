/* What the files of the CPU backend share: its context, its scratch, the packed weight. The kernels themselves are
   written once (*.inc, on vec.h) and compiled once a tier by tier_*.c; cpu.c holds what no vector unit touches. */
#ifndef GRPO_CPU_H
#define GRPO_CPU_H

#include "base/base.h"
#include "base/threads.h"
#include "ops/ops.h"

#if defined(__x86_64__) && !defined(CPU_PORTABLE_ONLY)
#define CPU_X86 1
extern const struct ops cpu_ops_amx, cpu_ops_avx512bf16, cpu_ops_avx512, cpu_ops_avx2;
#endif
extern const struct ops cpu_ops_portable;

/* -- context: scratch that ops use while they run and that means nothing between calls --------------------------------
   `shared` is one block for all threads, `thread` a stripe each, both 64-byte aligned. A stripe is address space until
   its thread writes to it, so there is one for every thread that the pool may ever have. */
struct scratch {
    size_t shared, thread;
};          /* bytes; each op family states its need for given op_limits */
struct ctx {
    char *shared, *stripes;
    struct scratch size;
};
static inline void *shared_scratch(const struct ctx *c) { return c->shared; }
static inline void *thread_scratch(const struct ctx *c, int thread) {
    return c->stripes + (size_t)thread * c->size.thread;
}
static inline void scratch_max(struct scratch *a, struct scratch b) {
    if (b.shared > a->shared) a->shared = b.shared;
    if (b.thread > a->thread) a->thread = b.thread;
}

/* E_MEMORY unless reserve() was told of an operation that large */
int scratch_ready(const struct ctx *c, struct scratch need);

#define MEMORY(result, name, parameters) __typeof__(*((struct ops *)0)->name) cpu_##name;
#define PLAN(...)
#define OP(...)
#define OP_BY_HAND(...)
#include "ops/ops.def"
int cpu_grow(void *ctx, struct scratch need);                           /* what reserve() comes to */
int cpu_copy(void *ctx, void *dst, const void *src, size_t bytes);
int cpu_zero(void *ctx, void *dst, size_t bytes);

/* -- packed weight (O, C), the same for every tier: panels of PANEL rows (they are columns of y), C in pairs:
   bf16 [ceil(O/PANEL)][padded_k(C)/2][PANEL][2], zeros beyond O and C. One 64-byte line is 16 outputs times 2 channels:
   an operand of vdpbf16ps, a row of an AMX tile, or two widening loads. */
enum { PANEL = 32, K_ALIGN = 32 };
static inline int padded_k(int C) { return round_up(C, K_ALIGN); }
static inline size_t panel_size(int C) { return (size_t)padded_k(C) * PANEL; }            /* elements of one panel */
static inline size_t cpu_weight_bytes(int O, int C) {
    return (size_t)ceil_div(O, PANEL) * panel_size(C) * sizeof(bf16);
}
/* first pair of row o; its pair k (channels 2k, 2k+1) lies 2 PANEL k elements further */
static inline const bf16 *weight_row(const weight *W, int o, int C) {
    return (const bf16 *)W + (size_t)(o / PANEL) * panel_size(C) + 2 * (o % PANEL);
}

#endif
