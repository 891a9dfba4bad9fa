/* csrc/cuda/ptx90.cuh in C++; see warpgroup.cpp. */
#ifndef GRPO_CUDA_PTX90_H
#define GRPO_CUDA_PTX90_H

#include "cuda/ptx.cuh"

static constexpr bool HAS_WGMMA = true;

struct cuda_host_wgmma { float *d; uint64_t a, b; int n, warp; bool a_by_rows, b_by_rows; };
void cuda_host_wgmma_begin(const cuda_host_wgmma &operation);
template <int N, bool A_BY_ROWS, bool B_BY_ROWS> static inline void wgmma(float *d, uint64_t a, uint64_t b) {
    cuda_host_wgmma_begin({d, a, b, N, (int)(threadIdx.x / 32 % 4), A_BY_ROWS, B_BY_ROWS});
}

void wgmma_fence(void);
void wgmma_commit(void);
void cuda_host_wgmma_wait(int pending);
template <int Pending> static inline void wgmma_wait(void) { cuda_host_wgmma_wait(Pending); }
void fence_shared_for_wgmma(void);
void cuda_host_copied(const void *chunk);              /* 16 bytes in shared memory, by this thread */
void cuda_host_wgmma_reset(void);                      /* a block begins */
template <int n> static inline void settle(float *) {}

#endif
