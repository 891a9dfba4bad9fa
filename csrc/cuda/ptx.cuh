/* What only PTX can say: tensor cores, asynchronous copies, conversions in one instruction, dynamic shared memory.
   One function an instruction. tests/cuda/emulator/cuda/ptx.cuh says the same in C++, so that kernels run on a CPU
   in tests. */
#ifndef GRPO_CUDA_PTX_H
#define GRPO_CUDA_PTX_H

#include "base/base.h"

#include <cuda_runtime.h>

/* SHARED(float, tile); is the block's dynamic shared memory, 1024-byte aligned; every use in a kernel is the same
   memory. */
extern __shared__ __align__(1024) unsigned char dynamic_shared[];
#define SHARED(type, name) type *name = (type *)dynamic_shared

/* The address as instructions on shared memory want it. */
static __device__ __forceinline__ uint32_t shared_address(const void *p) {
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* lo in bits 0..15, hi in bits 16..31; to nearest, ties to even */
static __device__ __forceinline__ uint32_t pack2(float lo, float hi) {
    uint32_t y;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(hi), "f"(lo));
    return y;
}

static __device__ __forceinline__ bf16 to_bf16(float x) {
    uint16_t y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y) : "f"(x));
    return y;
}

/* 2^x to 2 ulp; 2^-inf = 0, denormals are 0 */
static __device__ __forceinline__ float exp2_approx(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* c (16, 8) += a (16, 16) b (16, 8). With g = lane / 4, t = lane % 4, pairs of neighbours in one register:
   a[0] = A[g][2t..], a[1] = A[g + 8][2t..], a[2] = A[g][2t + 8..], a[3] = A[g + 8][2t + 8..];
   b[0] = B[2t..][g], b[1] = B[2t + 8..][g] (neighbours along k);
   c[0], c[1] = C[g][2t..], c[2], c[3] = C[g + 8][2t..]. */
static __device__ __forceinline__ void mma(float c[4], const uint32_t a[4], const uint32_t b[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* Matrices of 8 x 8 bf16 from shared memory: lane l names row l % 8 of matrix l / 8 (16 bytes, 16-byte aligned; _x2
   reads the rows of lanes 0..15). r[i] = M_i[lane / 4][2 (lane % 4)..]; _trans: M_i[2 (lane % 4)..][lane / 4]. */
static __device__ __forceinline__ void ldmatrix_x4(uint32_t r[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

static __device__ __forceinline__ void ldmatrix_x4_trans(uint32_t r[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

static __device__ __forceinline__ void ldmatrix_x2(uint32_t r[2], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(row))
                 : "memory");
}

static __device__ __forceinline__ void ldmatrix_x2_trans(uint32_t r[2], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(row))
                 : "memory");
}

/* 16 bytes from global to shared memory, past the registers; zeros when not valid (then `global` is not read, but
   must be an address of global memory). Both 16-byte aligned. They have landed for this thread after the wait of
   their group, for others after a barrier on top of that. */
static __device__ __forceinline__ void cp_async16(void *shared, const void *global, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
                 "l"(__cvta_generic_to_global(global)), "r"(valid ? 16 : 0)
                 : "memory");
}

static __device__ __forceinline__ void cp_async_commit(void) { asm volatile("cp.async.commit_group;" ::: "memory"); }

/* until at most `Pending` of this thread's newest groups are under way */
template <int Pending> static __device__ __forceinline__ void cp_async_wait(void) {
    asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

#define FULL_WARP 0xffffffffu
template <typename T> static __device__ __forceinline__ T shuffle(T v, int lane) {
    return __shfl_sync(FULL_WARP, v, lane);
}
template <typename T> static __device__ __forceinline__ T shuffle_xor(T v, int mask) {
    return __shfl_xor_sync(FULL_WARP, v, mask);
}
/* bit l of the result: lane l's condition */
static __device__ __forceinline__ uint32_t warp_ballot(bool condition) { return __ballot_sync(FULL_WARP, condition); }

#endif
