/* Context, memory and transfers. */
#include "cuda/blas.cuh"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

/* What all contexts of the process share. Uploads go through a page-locked ring: the caller's memory is free again at
   once, and a decode step's few kilobytes do not wait for the stream. A half of the ring is taken again when the stream
   has copied what it held. */
enum { RING_HALF = 4 << 20, RING_PIECE = 1 << 20 };
struct block {
    void *p;
    size_t bytes;
    struct block *next;
};
static struct {
    pthread_mutex_t lock;
    cudaStream_t stream;
    char *ring;                                        /* (2, RING_HALF) */
    cudaEvent_t passed[2];
    int half;
    size_t at;                                         /* in the current half */
    struct block *blocks;                              /* what alloc() gave out */
} process = {PTHREAD_MUTEX_INITIALIZER};

static void lock(void) { pthread_mutex_lock(&process.lock); }

static int unlock(int status) {
    pthread_mutex_unlock(&process.lock);
    return status;
}

static int process_start(void) {
    if (!process.stream) CUDA(cudaStreamCreateWithFlags(&process.stream, cudaStreamNonBlocking));
    for (int i = 0; i < 2; i++)
        if (!process.passed[i]) CUDA(cudaEventCreateWithFlags(&process.passed[i], cudaEventDisableTiming));
    if (!process.ring) CUDA(cudaHostAlloc((void **)&process.ring, 2 * (size_t)RING_HALF, cudaHostAllocDefault));
    return OK;
}

/* -- context ------------------------------------------------------------------------------------------------------- */

static int describe(struct cuda_ctx *c) {
    int count, major, minor, shared;
    CUDA(cudaGetDeviceCount(&count));
    CUDA(cudaGetDevice(&c->device));
    CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, c->device));
    CUDA(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, c->device));
    CUDA(cudaDeviceGetAttribute(&c->sm_count, cudaDevAttrMultiProcessorCount, c->device));
    CUDA(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, c->device));
    c->sm = 10 * major + minor;
    c->shared_max = (size_t)shared;
    const char *tile = getenv("GRPO_CUDA_TILE");
    if (tile && *tile && sscanf(tile, "%dx%d", &c->tile_m, &c->tile_n) != 2)
        return fail(E_CONFIG, "GRPO_CUDA_TILE=%.40s: must be rows x columns of a tile, such as 128x64", tile);
    if (c->sm >= 80) return OK;
    return fail(E_DEVICE, "cuda: this GPU has compute capability %d.%d, and bfloat16 needs 8.0 or newer", major, minor);
}

static int context_start(struct cuda_ctx *c) {
    TRY(describe(c));
    lock();
    TRY(unlock(process_start()));
    c->stream = process.stream;
    CUDA(cudaHostAlloc((void **)&c->pinned, PINNED_BYTES, cudaHostAllocDefault));
    TRY(choose_wgmma(c));
    return recorder_start(c);
}

int cuda_open(void **ctx) {
    struct cuda_ctx *c = (struct cuda_ctx *)calloc(1, sizeof *c);
    if (!c) return fail(E_MEMORY, "no memory for the context of device 'cuda'");
    int status = context_start(c);
    if (status) cuda_close(c);
    else *ctx = c;
    return status;
}

void cuda_close(void *ctx) {
    struct cuda_ctx *c = (struct cuda_ctx *)ctx;
    if (!c) return;
    recorder_end(c);
    cuda_release(c, c->scratch);
    if (c->pinned) cudaFreeHost(c->pinned);
    free(c);
}

static int grow_scratch(struct cuda_ctx *c, size_t bytes) {
    if (bytes <= c->scratch_bytes) return OK;
    recorder_forget(c);
    cuda_release(c, c->scratch);
    c->scratch_bytes = 0;
    c->scratch = (char *)cuda_alloc(c, bytes);
    if (!c->scratch) return fail(E_MEMORY, "cuda: no memory for %.2f GB of scratch", (double)bytes / 1e9);
    c->scratch_bytes = bytes;
    return OK;
}

int cuda_reserve(void *ctx, const struct op_limits *need) {
    struct cuda_ctx *c = (struct cuda_ctx *)ctx;
    size_t bytes = 0;
#define LARGEST(name) bytes = name(need) > bytes ? name(need) : bytes;
    CUDA_SCRATCH(LARGEST)
#undef LARGEST
    TRY(grow_scratch(c, bytes));
    return blas_reserve(c, need);
}

int scratch(void **out, const struct cuda_ctx *c, size_t bytes) {
    *out = c->scratch;
    if (bytes <= c->scratch_bytes) return OK;
    return fail(E_MEMORY, "cuda: an operation needs %zu bytes of scratch, reserve() made %zu", bytes, c->scratch_bytes);
}

/* Always to the same value: another thread may be about to launch the same kernel with more. */
int allow_shared(const struct cuda_ctx *c, const void *kernel, const char *name, size_t bytes) {
    struct cudaFuncAttributes now;
    TRY(cuda_status(cudaFuncGetAttributes(&now, kernel), name));
    if (bytes <= (size_t)now.maxDynamicSharedSizeBytes) return OK;
    size_t most = c->shared_max - now.sharedSizeBytes;
    if (bytes > most)
        return fail(E_DEVICE, "cuda: %s needs %zu bytes of shared memory, a block of this GPU has %zu", name, bytes,
                    most);
    return cuda_status(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)most), name);
}

/* -- memory -------------------------------------------------------------------------------------------------------- */

void *cuda_alloc(void *ctx, size_t bytes) {
    const struct cuda_ctx *c = (const struct cuda_ctx *)ctx;
    struct block *block = (struct block *)malloc(sizeof *block);
    size_t whole = bytes ? bytes : 1;
    void *p = NULL;
    if (!block || cuda_status(cudaMalloc(&p, whole), "cudaMalloc")) {
        free(block);
        return NULL;
    }
    cudaMemsetAsync(p, 0, whole, c->stream); /* an error here stays with the stream: whoever waits next reports it */
    lock();
    *block = (struct block){p, bytes, process.blocks};
    process.blocks = block;
    unlock(OK);
    memory_account((ptrdiff_t)bytes);
    return p;
}

void cuda_release(void *ctx, void *p) {
    (void)ctx;
    if (!p) return;
    lock();
    struct block **link = &process.blocks, *block;
    while (*link && (*link)->p != p) link = &(*link)->next;
    block = *link;
    if (block) *link = block->next;
    unlock(OK);
    if (!block) return;
    memory_account(-(ptrdiff_t)block->bytes);
    free(block);
    cudaFree(p); /* waits for the work that may still use it */
}

/* -- transfers ----------------------------------------------------------------------------------------------------- */

/* A piece of at most RING_PIECE bytes, with the lock held. */
static int upload_piece(void *dst, const void *host, size_t bytes) {
    if (process.at + bytes > RING_HALF) {
        CUDA(cudaEventRecord(process.passed[process.half], process.stream));
        process.half ^= 1;
        process.at = 0;
        CUDA(cudaEventSynchronize(process.passed[process.half]));
    }
    char *staged = process.ring + (size_t)process.half * RING_HALF + process.at;
    memcpy(staged, host, bytes);
    process.at += (bytes + 63) & ~(size_t)63;
    CUDA(cudaMemcpyAsync(dst, staged, bytes, cudaMemcpyHostToDevice, process.stream));
    return OK;
}

int cuda_upload(void *ctx, void *dst, const void *host, size_t bytes) {
    (void)ctx;
    lock();
    int status = OK;
    for (size_t at = 0; at < bytes && !status; at += RING_PIECE)
        status =
            upload_piece((char *)dst + at, (const char *)host + at, bytes - at < RING_PIECE ? bytes - at : RING_PIECE);
    return unlock(status);
}

int cuda_download(void *ctx, void *host, const void *src, size_t bytes) {
    const struct cuda_ctx *c = (const struct cuda_ctx *)ctx;
    bool small = bytes <= PINNED_BYTES;
    if (bytes) CUDA(cudaMemcpyAsync(small ? c->pinned : host, src, bytes, cudaMemcpyDeviceToHost, c->stream));
    CUDA(cudaStreamSynchronize(c->stream));
    if (small) memcpy(host, c->pinned, bytes);
    return OK;
}

int cuda_zero(void *ctx, void *dst, size_t bytes) {
    const struct cuda_ctx *c = (const struct cuda_ctx *)ctx;
    if (bytes) CUDA(cudaMemsetAsync(dst, 0, bytes, c->stream));
    return OK;
}

int cuda_copy(void *ctx, void *dst, const void *src, size_t bytes) {
    const struct cuda_ctx *c = (const struct cuda_ctx *)ctx;
    if (bytes) CUDA(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToDevice, c->stream));
    return OK;
}
