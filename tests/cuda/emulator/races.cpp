/* Finds races. Kernels are compiled with -fsanitize=thread, and its calls end here instead of in a library: of every
   byte of shared and device memory it is known which thread wrote and read it last, and when. Two threads race for a
   byte that one of them writes unless a barrier of their block or, in one warp, __syncwarp() lies between; threads of
   different blocks always. A copy by cp.async writes from its begin until it is waited for. Writing what is there
   already is no race: threads may agree. In a library without -fsanitize=thread nothing of this is called but for
   copies. */
#include "races.h"

#include "cuda/ptx.cuh"

#include <stdio.h>

namespace {

/* interval: number of the barrier interval, counted over all blocks of all kernels; sync: __syncwarp()s of the warp in
   its block */
struct stamp { uint32_t interval; uint16_t thread, sync; };
enum : uint16_t { UNDER_WAY = 0xffff };                /* for sync, of a copy */
struct cell { /* read: the last; other: of another thread; foreign: of another block */
    stamp write, read, other, foreign;
};

uint32_t interval = 1, block_began, kernel_began;
bool in_kernel, wanted;                                /* wanted: a part of the library is compiled for this */
uint16_t syncs[32];
struct { const char *at; size_t bytes; std::string old; } agreed;

stamp now() { return {interval, (uint16_t)threadIdx.x, syncs[threadIdx.x / 32]}; }

bool same(stamp a, stamp b) { return a.interval == b.interval && a.thread == b.thread; }

/* Whether nothing orders x and what this thread does now. */
bool unordered(stamp x, bool shared) {
    if (x.interval < (shared ? block_began : kernel_began)) return false;
    if (x.interval < block_began || x.sync == UNDER_WAY) return true;
    bool warp = x.thread / 32 == threadIdx.x / 32;
    return x.interval == interval && x.thread != threadIdx.x && !(warp && x.sync != syncs[threadIdx.x / 32]);
}

void complain(const char *what, stamp other, const cuda_host_memory &where, const void *code) {
    char who[40] = "another block", text[600];
    if (other.sync == UNDER_WAY) snprintf(who, sizeof who, "a copy under way");
    else if (other.interval >= block_began) snprintf(who, sizeof who, "thread %u", (unsigned)other.thread);
    snprintf(text, sizeof text, "thread %u %s byte %zu of %s, which %s uses: a race in %s", threadIdx.x, what,
             where.offset, where.name, who, cuda_host_place(code).c_str());
    cuda_host_complain(text);
}

/* What was written twice must have stayed the same. */
void check_agreed(const void *code) {
    if (!agreed.at) return;
    bool changed = memcmp(agreed.at, agreed.old.data(), agreed.bytes);
    cuda_host_memory where;
    if (changed && cuda_host_find(&where, agreed.at))
        complain("writes something else to", {interval, 0xffff, 0}, where, code);
    agreed.at = nullptr;
}

void read(cell *c, const cuda_host_memory &where, const void *code) {
    if (unordered(c->write, where.shared)) complain("reads", c->write, where, code);
    if (!same(c->read, now())) {
        if (c->read.interval < block_began) c->foreign = c->read;
        else c->other = c->read;
        c->read = now();
    }
}

void write(cell *c, const cuda_host_memory &where, const void *code) {
    for (stamp x : {c->read, c->other, c->foreign})
        if (unordered(x, where.shared)) return complain("writes", x, where, code);
    c->write = now();
}

void access(const void *p, size_t bytes, bool writes, const void *code) {
    if (!in_kernel || !wanted) return;
    check_agreed(code);
    cuda_host_memory where;
    if (!cuda_host_find(&where, p)) return;
    cell *cells = (cell *)where.shadow;
    for (size_t i = 0; i < bytes; i++, where.offset++) {
        if (!writes) read(cells + i, where, code);
        else {
            if (cells[i].write.sync == UNDER_WAY && unordered(cells[i].write, where.shared))
                complain("writes", cells[i].write, where, code);
            else if (unordered(cells[i].write, where.shared))
                agreed = {(const char *)p, bytes, std::string((const char *)p, bytes)};
            write(cells + i, where, code);
        }
    }
}

}  // namespace

size_t cuda_host_shadow_bytes(size_t bytes) { return bytes * sizeof(cell); }

void cuda_host_races_kernel(bool begins) {
    check_agreed(nullptr);
    in_kernel = begins;
    kernel_began = interval + 1;
}

void cuda_host_races_block() {
    check_agreed(nullptr);
    block_began = ++interval;
    memset(syncs, 0, sizeof syncs);
}

void cuda_host_races_barrier() { interval++; }
void cuda_host_races_warp(unsigned thread) { syncs[thread / 32]++; }

void cuda_host_races_copy(void *shared, const void *global, bool lands) {
    const void *code = __builtin_return_address(0);
    cuda_host_memory where;
    if (!wanted || !cuda_host_find(&where, shared)) return;
    cell *cells = (cell *)where.shadow;
    if (lands)
        for (int i = 0; i < 16; i++) cells[i].write = now();
    else {
        if (global) access(global, 16, false, code);
        for (int i = 0; i < 16; i++, where.offset++) {
            if (unordered(cells[i].write, true)) complain("copies to", cells[i].write, where, code);
            write(cells + i, where, code);
            cells[i].write.sync = UNDER_WAY;
        }
    }
}

void cuda_host_races_read(const void *p, size_t bytes) { access(p, bytes, false, __builtin_return_address(0)); }

extern "C" {
#define HERE __builtin_return_address(0)
#define ACCESSES(bytes)                                                                                                \
    void __tsan_read##bytes(void *p) { access(p, bytes, false, HERE); }                                                \
    void __tsan_write##bytes(void *p) { access(p, bytes, true, HERE); }                                                \
    void __tsan_unaligned_read##bytes(void *p) { access(p, bytes, false, HERE); }                                      \
    void __tsan_unaligned_write##bytes(void *p) { access(p, bytes, true, HERE); }                                      \
    void __tsan_volatile_read##bytes(void *p) { access(p, bytes, false, HERE); }                                       \
    void __tsan_volatile_write##bytes(void *p) { access(p, bytes, true, HERE); }
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)
void __tsan_read_range(void *p, size_t bytes) { access(p, bytes, false, HERE); }
void __tsan_write_range(void *p, size_t bytes) { access(p, bytes, true, HERE); }
void __tsan_init(void) { wanted = true; }
void __tsan_func_entry(void *) {}
void __tsan_func_exit(void) {}
void __tsan_vptr_update(void **, void *) {}
void __tsan_vptr_read(void **) {}
uint8_t __tsan_atomic8_load(const volatile uint8_t *p, int order) { return __atomic_load_n(p, order); }
}
