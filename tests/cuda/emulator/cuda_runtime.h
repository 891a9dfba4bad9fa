/* A stand-in for CUDA's <cuda_runtime.h>, so that the kernels of csrc/cuda compile as C++ and run on a CPU. Only what
   they use is here. It is stricter than a GPU where it can be; see cuda_host.cpp. */
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <functional>
#include <tuple>
#include <utility>

#define CUDART_VERSION 13000
#define __global__
#define __device__
#define __host__
#define __shared__ static thread_local          /* one block runs at a time; poisoned when it begins */
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

#define VECTOR(type, align, ...) struct alignas(align) type { __VA_ARGS__; }
VECTOR(float2, 8, float x, y);
VECTOR(float4, 16, float x, y, z, w);
VECTOR(int2, 8, int x, y);
VECTOR(int4, 16, int x, y, z, w);
VECTOR(uint2, 8, unsigned x, y);
VECTOR(uint3, 4, unsigned x, y, z);
VECTOR(uint4, 16, unsigned x, y, z, w);
#undef VECTOR
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline int2 make_int2(int x, int y) { return {x, y}; }
static inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
static inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

/* -- device code --------------------------------------------------------------------------------------------------- */

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

void cuda_host_barrier(const char *file, int line);
void cuda_host_warp_barrier();
#define __syncthreads() cuda_host_barrier(__FILE__, __LINE__)
#define __syncwarp(...) cuda_host_warp_barrier()
static inline void __threadfence() {}

template <typename To, typename From> static inline To cuda_host_bits(From x) {
    static_assert(sizeof(To) == sizeof(From), "");
    To y;
    memcpy(&y, &x, sizeof y);
    return y;
}
static inline float __uint_as_float(uint32_t x) { return cuda_host_bits<float>(x); }
static inline uint32_t __float_as_uint(float x) { return cuda_host_bits<uint32_t>(x); }
static inline float __int_as_float(int x) { return cuda_host_bits<float>(x); }
static inline int __float_as_int(float x) { return cuda_host_bits<int>(x); }
static inline float rsqrtf(float x) { return 1 / sqrtf(x); }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
template <typename T> static inline T __ldg(const T *p) { return *p; }
#define EXTREMES(type)                                                     \
    static inline type min(type a, type b) { return b < a ? b : a; }       \
    static inline type max(type a, type b) { return a < b ? b : a; }
EXTREMES(int)
EXTREMES(unsigned)
EXTREMES(long)
EXTREMES(unsigned long)
EXTREMES(float)
EXTREMES(double)
#undef EXTREMES

/* Integers only: sums of floats must have an order. */
template <typename T> static inline T cuda_host_swap(T *p, T to) {
    static_assert((T)0.5 == 0, "atomics are for integers");
    T old = *p;
    *p = to;
    return old;
}
template <typename T> static inline T atomicAdd(T *p, typename std::common_type<T>::type v) {
    return cuda_host_swap(p, (T)(*p + v));
}
template <typename T> static inline T atomicMax(T *p, typename std::common_type<T>::type v) {
    return cuda_host_swap(p, *p < v ? v : *p);
}
template <typename T> static inline T atomicMin(T *p, typename std::common_type<T>::type v) {
    return cuda_host_swap(p, v < *p ? v : *p);
}
template <typename T> static inline T atomicOr(T *p, typename std::common_type<T>::type v) {
    return cuda_host_swap(p, (T)(*p | v));
}
template <typename T> static inline T atomicExch(T *p, typename std::common_type<T>::type v) {
    return cuda_host_swap(p, v);
}
template <typename T>
static inline T atomicCAS(T *p, typename std::common_type<T>::type was, typename std::common_type<T>::type v) {
    return cuda_host_swap(p, *p == was ? v : *p);
}

/* -- the runtime --------------------------------------------------------------------------------------------------- */

enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInitializationError = 3,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInsufficientDriver = 35,
    cudaErrorDevicesUnavailable = 46,
    cudaErrorNoDevice = 100,
    cudaErrorInvalidDevice = 101,
    cudaErrorNoKernelImageForDevice = 209,
    cudaErrorUnsupportedPtxVersion = 222,
    cudaErrorIllegalAddress = 700,
    cudaErrorLaunchFailure = 719,
    cudaErrorSystemNotReady = 802,
    cudaErrorSystemDriverMismatch = 803,
    cudaErrorCompatNotSupportedOnDevice = 804,
    cudaErrorStreamCaptureUnsupported = 900,
    cudaErrorStreamCaptureInvalidated = 901,
};
enum cudaMemcpyKind { cudaMemcpyHostToHost, cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };
struct cudaFuncAttributes { size_t sharedSizeBytes; int maxDynamicSharedSizeBytes; };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
enum cudaDeviceAttr {
    cudaDevAttrMultiProcessorCount = 16, cudaDevAttrComputeCapabilityMajor = 75, cudaDevAttrComputeCapabilityMinor = 76,
    cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};
enum { cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2, cudaHostAllocDefault = 0 };
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal = 1 };
struct cuda_host_stream { void (*enqueue)(cuda_host_stream *, std::function<void()>); };
typedef struct cuda_host_stream *cudaStream_t;
typedef struct cuda_host_graph *cudaGraph_t, *cudaGraphExec_t;
typedef struct cuda_host_event *cudaEvent_t;
struct cudaLaunchAttribute;
struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    size_t dynamicSmemBytes;
    cudaStream_t stream;
    cudaLaunchAttribute *attrs;
    unsigned numAttrs;
};
struct cudaDeviceProp { char name[256]; size_t totalGlobalMem; int major, minor; };

cudaError_t cudaGetDeviceCount(int *count);
cudaError_t cudaGetDevice(int *device);
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaMalloc(void **p, size_t bytes);
cudaError_t cudaFree(void *p);
cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned flags);
cudaError_t cudaFreeHost(void *p);
cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaMemsetAsync(void *dst, int value, size_t bytes, cudaStream_t stream);
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *attributes, const void *kernel);
cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute attribute, int value);
cudaError_t cudaGetLastError();
const char *cudaGetErrorName(cudaError_t error);
const char *cudaGetErrorString(cudaError_t error);

/* Queues the kernel; pointers must be memory of the device. */
cudaError_t cuda_host_launch(const cudaLaunchConfig_t *config, const void *kernel, std::function<void()> body);
bool cuda_host_is_device(const void *p);
template <typename T> static inline bool cuda_host_argument(T *p) { return !p || cuda_host_is_device((const void *)p); }
template <typename T> static inline bool cuda_host_argument(const T &) { return true; }

template <typename... P, typename... A>
static inline cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t *config, void (*kernel)(P...), A &&...args) {
    std::tuple<P...> values(std::forward<A>(args)...);
    bool good = std::apply([](const auto &...v) { return (cuda_host_argument(v) && ...); }, values);
    if (!good) return cudaErrorIllegalAddress;
    return cuda_host_launch(config, (const void *)kernel, [=] { std::apply(kernel, values); });
}
