/* csrc/cuda/ptx.cuh in C++, for kernels that run on a CPU in tests. What a warp does together, its 32 fibers do
   together. */
#ifndef GRPO_CUDA_PTX_H
#define GRPO_CUDA_PTX_H

#include "base/base.h"

#include <cuda_runtime.h>

unsigned char *cuda_host_shared();
size_t cuda_host_shared_bytes();
enum { CUDA_HOST_SHARED_START = 1024 };                 /* what lies before it is the system's */
static inline uint32_t shared_address(const void *p) {
    return CUDA_HOST_SHARED_START + (uint32_t)((const unsigned char *)p - cuda_host_shared());
}
#define SHARED(type, name) type *name = (type *)cuda_host_shared()

/* All 32 lanes of the warp arrive with the same `kind`; `work` gets their inputs and outputs in lane order. */
typedef void cuda_host_work(const void *const in[32], void *const out[32]);
void cuda_host_together(const char *kind, cuda_host_work *work, const void *in, void *out);

static inline uint32_t pack2(float lo, float hi) { return bf16_from_float(lo) | (uint32_t)bf16_from_float(hi) << 16; }
static inline bf16 to_bf16(float x) { return bf16_from_float(x); }
/* off by up to 2 ulp, as a GPU's may be; 1 for 0 */
static inline float exp2_approx(float x) {
    float y = exp2f(x);
    if (fabsf(y) < 0x1p-126f) return 0;
    uint32_t off = (cuda_host_bits<uint32_t>(x) * 2654435761u >> 16) % 5;
    return x == 0 || !isfinite(y) ? y : cuda_host_bits<float>(cuda_host_bits<uint32_t>(y) + off - 2);
}

/* c + a b as a tensor core adds 16 products at a time */
float cuda_host_tensor_sum(float c, const float a[16], const float b[16]);
struct cuda_host_mma { float *c; const uint32_t *a, *b; };
void cuda_host_mma_work(const void *const in[32], void *const out[32]);
static inline void mma(float c[4], const uint32_t a[4], const uint32_t b[2]) {
    cuda_host_mma operands = {c, a, b};
    cuda_host_together("mma", cuda_host_mma_work, &operands, nullptr);
}

/* `in`: this lane's row; `out`: its registers */
cuda_host_work cuda_host_ldmatrix_x4, cuda_host_ldmatrix_x4_trans, cuda_host_ldmatrix_x2, cuda_host_ldmatrix_x2_trans;
static inline void ldmatrix_x4(uint32_t r[4], const void *row) {
    cuda_host_together("ldmatrix_x4", cuda_host_ldmatrix_x4, row, r);
}
static inline void ldmatrix_x4_trans(uint32_t r[4], const void *row) {
    cuda_host_together("ldmatrix_x4_trans", cuda_host_ldmatrix_x4_trans, row, r);
}
static inline void ldmatrix_x2(uint32_t r[2], const void *row) {
    cuda_host_together("ldmatrix_x2", cuda_host_ldmatrix_x2, row, r);
}
static inline void ldmatrix_x2_trans(uint32_t r[2], const void *row) {
    cuda_host_together("ldmatrix_x2_trans", cuda_host_ldmatrix_x2_trans, row, r);
}

void cuda_host_complain(const char *what);             /* ends the kernel with cudaErrorLaunchFailure */
bool cuda_host_early();                                /* copies land at once */
void cp_async16(void *shared, const void *global, bool valid);
void cp_async_commit(void);
void cuda_host_wait(int pending);
template <int Pending> static inline void cp_async_wait(void) { cuda_host_wait(Pending); }

#define FULL_WARP 0xffffffffu
struct cuda_host_lane { uint64_t value; int from; };
cuda_host_work cuda_host_shuffle;
template <typename T> static inline T cuda_host_exchange(const char *kind, T v, int from) {
    static_assert(sizeof(T) <= 8, "");
    cuda_host_lane mine = {0, from};
    memcpy(&mine.value, &v, sizeof v);
    uint64_t got;
    cuda_host_together(kind, cuda_host_shuffle, &mine, &got);
    memcpy(&v, &got, sizeof v);
    return v;
}
template <typename T> static inline T shuffle(T v, int lane) { return cuda_host_exchange("shuffle", v, lane & 31); }
template <typename T> static inline T shuffle_xor(T v, int mask) {
    return cuda_host_exchange("shuffle_xor", v, (int)(threadIdx.x % 32) ^ mask);
}
cuda_host_work cuda_host_ballot;
static inline uint32_t warp_ballot(bool condition) {
    uint32_t bits;
    cuda_host_together("ballot", cuda_host_ballot, &condition, &bits);
    return bits;
}

#endif
