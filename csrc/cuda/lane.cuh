/* The words kernels are written in: bf16 and its pairs, 16-byte pieces of a row, sums over a warp and over a block
   in one fixed order. Files are compiled with --fmad=false: a product and a sum fuse where fmaf() says so and
   nowhere else, so that two kernels with the same formula have the same bits. */
#ifndef GRPO_CUDA_LANE_H
#define GRPO_CUDA_LANE_H

#include "cuda/ptx.cuh"

enum { WARP = 32, BLOCK_MAX = 1024 };          /* threads of a warp; most threads of a block */

static __device__ __forceinline__ float to_float(bf16 x) { return __uint_as_float((uint32_t)x << 16); }

/* of two neighbours in memory: x the first, y the second */
static __device__ __forceinline__ float2 unpack2(uint32_t pair) {
    return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u));
}

static __device__ __forceinline__ float round_bf16(float x) { return to_float(to_bf16(x)); }

static __device__ __forceinline__ int lane_id(void) { return (int)(threadIdx.x % WARP); }
static __device__ __forceinline__ int warp_id(void) { return (int)(threadIdx.x / WARP); }

/* Butterflies: every lane gets the same bits. */
template <typename T> static __device__ __forceinline__ T warp_sum(T v) {
    for (int mask = WARP / 2; mask; mask /= 2) v += shuffle_xor(v, mask);
    return v;
}
static __device__ __forceinline__ float warp_max(float v) {
    for (int mask = WARP / 2; mask; mask /= 2) v = fmaxf(v, shuffle_xor(v, mask));
    return v;
}

/* Over all threads of a block of whole warps, in an order that only blockDim decides; the same bits in every thread.
   shared: (WARP) of scratch, which the next call may be given again. */
template <typename T> static __device__ __forceinline__ T block_sum(T v, T *shared) {
    v = warp_sum(v);
    if (blockDim.x == WARP) return v;
    __syncthreads();
    if (lane_id() == 0) shared[warp_id()] = v;
    __syncthreads();
    return warp_sum(lane_id() < (int)blockDim.x / WARP ? shared[lane_id()] : 0);
}
static __device__ __forceinline__ float block_max(float v, float *shared) {
    v = warp_max(v);
    if (blockDim.x == WARP) return v;
    __syncthreads();
    if (lane_id() == 0) shared[warp_id()] = v;
    __syncthreads();
    return warp_max(lane_id() < (int)blockDim.x / WARP ? shared[lane_id()] : -INFINITY);
}

/* n = 1, 2 or 8 neighbouring elements as floats: one load of 2n (bf16) or 4n bytes, which must be so aligned. */
template <int n> static __device__ __forceinline__ void load(float v[n], const bf16 *p) {
    if constexpr (n == 8) {
        uint4 q = *(const uint4 *)p;
        float2 a = unpack2(q.x), b = unpack2(q.y), c = unpack2(q.z), d = unpack2(q.w);
        v[0] = a.x, v[1] = a.y, v[2] = b.x, v[3] = b.y, v[4] = c.x, v[5] = c.y, v[6] = d.x, v[7] = d.y;
    } else if constexpr (n == 2) {
        float2 a = unpack2(*(const uint32_t *)p);
        v[0] = a.x, v[1] = a.y;
    } else v[0] = to_float(*p);
}
template <int n> static __device__ __forceinline__ void load(float v[n], const float *p) {
    if constexpr (n == 8) {
        float4 a = ((const float4 *)p)[0], b = ((const float4 *)p)[1];
        v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w, v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
    } else if constexpr (n == 2) {
        float2 a = *(const float2 *)p;
        v[0] = a.x, v[1] = a.y;
    } else v[0] = *p;
}
/* n = 1 or 8 neighbouring 16-bit words, as they are; one end is in registers */
template <int n> static __device__ __forceinline__ void copy_halves(uint16_t *dst, const uint16_t *src) {
    if constexpr (n == 8) *(uint4 *)dst = *(const uint4 *)src;
    else *dst = *src;
}
template <int n> static __device__ __forceinline__ void copy_bytes(uint8_t *dst, const uint8_t *src) {
    if constexpr (n == 8) *(uint2 *)dst = *(const uint2 *)src;
    else *dst = *src;
}
template <int n> static __device__ __forceinline__ void store(bf16 *p, const float v[n]) {
    if constexpr (n == 8)
        *(uint4 *)p = make_uint4(pack2(v[0], v[1]), pack2(v[2], v[3]), pack2(v[4], v[5]), pack2(v[6], v[7]));
    else if constexpr (n == 2) *(uint32_t *)p = pack2(v[0], v[1]);
    else *p = to_bf16(v[0]);
}
template <int n> static __device__ __forceinline__ void store(float *p, const float v[n]) {
    if constexpr (n == 8) {
        ((float4 *)p)[0] = make_float4(v[0], v[1], v[2], v[3]);
        ((float4 *)p)[1] = make_float4(v[4], v[5], v[6], v[7]);
    } else if constexpr (n == 2) *(float2 *)p = make_float2(v[0], v[1]);
    else *p = v[0];
}

#endif
