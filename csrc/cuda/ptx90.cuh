/* What only PTX of compute capability 9.0 can say: products of warpgroups (wgmma). One function an instruction, as
   in ptx.cuh; tests/cuda/emulator/cuda/ptx90.cuh says the same in C++. Code for other devices is made of the same
   sources: there HAS_WGMMA is false, and nothing calls these. */
#ifndef GRPO_CUDA_PTX90_H
#define GRPO_CUDA_PTX90_H

#include "cuda/ptx.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
static constexpr bool HAS_WGMMA = true;
#else
static constexpr bool HAS_WGMMA = false;
#endif

#define TEN(i) "%" i "0,%" i "1,%" i "2,%" i "3,%" i "4,%" i "5,%" i "6,%" i "7,%" i "8,%" i "9"
#define NAMES_8 "%0,%1,%2,%3,%4,%5,%6,%7"
#define NAMES_16 NAMES_8 ",%8,%9,%10,%11,%12,%13,%14,%15"
#define NAMES_32 NAMES_16 ",%16,%17,%18,%19," TEN("2") ",%30,%31"
#define NAMES_64 NAMES_32 ",%32,%33,%34,%35,%36,%37,%38,%39," TEN("4") "," TEN("5") ",%60,%61,%62,%63"
#define NAMES_128                                                                                  \
    NAMES_64 ",%64,%65,%66,%67,%68,%69," TEN("7") "," TEN("8") "," TEN("9") "," TEN("10") "," TEN( \
        "11") ",%120,%121,%122,%123,%124,%125,%126,%127"
#define SUMS_8(i)                                                                                               \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), \
        "+f"(d[i + 7])
#define SUMS_16(i) SUMS_8(i), SUMS_8(i + 8)
#define SUMS_32(i) SUMS_16(i), SUMS_16(i + 16)
#define SUMS_64(i) SUMS_32(i), SUMS_32(i + 32)
#define SUMS_128(i) SUMS_64(i), SUMS_64(i + 64)
#define WGMMA(n, names, sums, a_name, b_name, at_name, bt_name)                                                 \
    asm volatile("{.reg .pred add; setp.eq.u32 add, 0, 0; wgmma.mma_async.sync.aligned.m64n" n                  \
                 "k16.f32.bf16.bf16 {" names "}, " a_name ", " b_name ", add, 1, 1, " at_name ", " bt_name ";}" \
                 : sums                                                                                         \
                 : "l"(a), "l"(b), "n"(A_BY_ROWS), "n"(B_BY_ROWS))

/* d (64, N) += a (64, 16) b (16, N), begun by the four warps of a warpgroup; it reads shared memory and writes d
   until its group has been waited for. a, b: descriptors of operands in shared memory. _BY_ROWS: neighbours in
   memory are neighbours along 64 or N, else along k. Warp w has rows 16w..16w + 15, each 8 columns of them as mma
   leaves them: with g = lane / 4, t = lane % 4, d[4j], d[4j + 1] = D[16w + g][8j + 2t..], d[4j + 2], d[4j + 3] =
   D[16w + g + 8][8j + 2t..]. */
template <int N, bool A_BY_ROWS, bool B_BY_ROWS>
static __device__ __forceinline__ void wgmma(float *d, uint64_t a, uint64_t b) {
    if constexpr (N == 16) WGMMA("16", NAMES_8, SUMS_8(0), "%8", "%9", "%10", "%11");
    else if constexpr (N == 32) WGMMA("32", NAMES_16, SUMS_16(0), "%16", "%17", "%18", "%19");
    else if constexpr (N == 64) WGMMA("64", NAMES_32, SUMS_32(0), "%32", "%33", "%34", "%35");
    else if constexpr (N == 128) WGMMA("128", NAMES_64, SUMS_64(0), "%64", "%65", "%66", "%67");
    else {
        static_assert(N == 256, "");
        WGMMA("256", NAMES_128, SUMS_128(0), "%128", "%129", "%130", "%131");
    }
}

/* before the first wgmma that adds to registers which something else has written */
static __device__ __forceinline__ void wgmma_fence(void) { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
static __device__ __forceinline__ void wgmma_commit(void) {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/* until at most `Pending` of this warpgroup's newest groups are under way */
template <int Pending> static __device__ __forceinline__ void wgmma_wait(void) {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Pending) : "memory");
}

/* What this thread has written to shared memory, or copied there and waited for, wgmma sees after a barrier. */
static __device__ __forceinline__ void fence_shared_for_wgmma(void) {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* The compiler moves no use of d (n) across this: it knows nothing of what wgmma does to d until it is waited for. */
template <int n> static __device__ __forceinline__ void settle(float *d) {
#pragma unroll
    for (int i = 0; i < n; i++) asm volatile("" : "+f"(d[i])::"memory");
}

#undef TEN
#undef NAMES_8
#undef NAMES_16
#undef NAMES_32
#undef NAMES_64
#undef NAMES_128
#undef SUMS_8
#undef SUMS_16
#undef SUMS_32
#undef SUMS_64
#undef SUMS_128
#undef WGMMA

#endif
