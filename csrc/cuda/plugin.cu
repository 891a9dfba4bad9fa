/* The library's one exported function, its table, and how the core's services are reached from here. */
#include "cuda/blas.cuh"
#include "ops/plugin.h"

#include <stdarg.h>
#include <stdio.h>

static struct plugin_host host;
int (*interrupt_hook)(void);                           /* base.h's poll_interrupt() asks it */

int fail(int code, const char *format, ...) {
    char sentence[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    return host.fail(code, sentence);
}

void memory_account(ptrdiff_t bytes) { host.account(bytes); }

/* -- errors -------------------------------------------------------------------------------------------------------- */

enum { NEEDED_DRIVER = CUDART_VERSION >= 13000 ? 580 : 525 };

/* What a person can do about an error of the driver; NULL: nothing better than its name. */
static const char *remedy(cudaError_t error) {
    switch ((int)error) {
    case cudaErrorInitializationError:
        return "a process forked after using CUDA cannot use it: start workers with spawn";
    case cudaErrorInsufficientDriver: return "no NVIDIA driver is installed, or it is too old: see nvidia-smi";
    case cudaErrorDevicesUnavailable: return "another process holds the GPU exclusively: see nvidia-smi";
    case cudaErrorNoDevice: return "no GPU is visible: see nvidia-smi and CUDA_VISIBLE_DEVICES";
    case cudaErrorNoKernelImageForDevice:
        return "this build has no code for this GPU: build again with GRPO_CUDA_ARCHS=native";
    case cudaErrorUnsupportedPtxVersion:
        return "the driver is too old for this build's PTX: update it, or build again with GRPO_CUDA_ARCHS=native";
    case cudaErrorSystemNotReady: return "the system is not ready: is the fabric manager running?";
    case cudaErrorSystemDriverMismatch:
        return "the driver in the kernel and its libraries differ in version: restart the machine";
    case cudaErrorCompatNotSupportedOnDevice:
        return "the forward compatibility libraries do not serve this GPU: remove them from the library path";
    case cudaErrorStreamCaptureUnsupported:
    case cudaErrorStreamCaptureInvalidated:
        return "a decode step could not be recorded: GRPO_CUDA_GRAPHS=0 runs without";
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
        return "the GPU's state is lost: start the process anew; compute-sanitizer finds the kernel";
    default: return NULL;
    }
}

int cuda_status(cudaError_t error, const char *call) {
    if (error == cudaSuccess) return OK;
    cudaGetLastError();                                /* or the next launch would report it again */
    int code = error == cudaErrorMemoryAllocation ? E_MEMORY : E_DEVICE;
    const char *advice = remedy(error);
    if (error == cudaErrorInsufficientDriver)
        return fail(code, "cuda: %s; this build (CUDA %d.%d) needs driver %d or newer (%s: error %d)", advice,
                    CUDART_VERSION / 1000, CUDART_VERSION % 100 / 10, NEEDED_DRIVER, call, (int)error);
    if (advice) return fail(code, "cuda: %s (%s: %s, error %d)", advice, call, cudaGetErrorString(error), (int)error);
    return fail(code, "cuda: %s: %s (%s, error %d)", call, cudaGetErrorString(error), cudaGetErrorName(error),
                (int)error);
}

/* -- devices ------------------------------------------------------------------------------------------------------- */

static int devices(int *count) {
    CUDA(cudaGetDeviceCount(count));
    return OK;
}

static int device(struct plugin_device *out, int index) {
    struct cudaDeviceProp p;
    CUDA(cudaGetDeviceProperties(&p, index));
    memset(out, 0, sizeof *out);
    snprintf(out->name, sizeof out->name, "%.63s", p.name);
    out->major = p.major;
    out->minor = p.minor;
    out->memory = p.totalGlobalMem;
    return OK;
}

/* -- the table ----------------------------------------------------------------------------------------------------- */

#ifndef GRPO_CUDA_ARCHS
#error "GRPO_CUDA_ARCHS must be a string such as \"80;90\": the build passes it"
#endif

extern "C" __attribute__((visibility("default")))
const struct plugin *grpo_cuda_get(uint32_t abi, const struct plugin_host *core, uint32_t *own) {
    static struct ops table;
    static struct plugin plugin;
    *own = PLUGIN_ABI;
    if (abi != PLUGIN_ABI) return NULL;
    host = *core;
    interrupt_hook = host.poll;
    table.name = "cuda";
    table.tier = "";
    table.real_size = sizeof(bf16);
    table.host_memory = 0;
    table.lookahead = 8; /* the host's look is a per cent of 8 steps; 4 steps a completion are run in vain */
#define MEMORY(result, name, parameters) table.name = cuda_##name;
#define PLAN MEMORY
#define OP(name, ...) table.name = cuda_##name;
#define OP_BY_HAND OP
#include "ops/ops.def"
    plugin.abi = PLUGIN_ABI;
    plugin.bytes = sizeof plugin;
    plugin.ops_bytes = sizeof table;
    plugin.ops = &table;
    plugin.toolkit = CUDART_VERSION;
    plugin.architectures = GRPO_CUDA_ARCHS;
    plugin.devices = devices;
    plugin.device = device;
    plugin.search = blas_search;
    plugin.blas = blas_name;
    plugin.products = products_name;
    return &plugin;
}
