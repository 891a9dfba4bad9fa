/* Kernels with one mistake each, which the emulator must find, and what it must compute. run(name) starts the kernel of
   that name on n numbers and returns the error of waiting for it. */
#include "cuda/lane.cuh"
#include "cuda/ptx90.cuh"

enum { N = 64 };

/* neighbour's number through shared memory; `Wait`: with the barrier that it needs */
template <bool Wait> static __global__ void rotate(float *x) {
    __shared__ float s[N];
    s[threadIdx.x] = x[threadIdx.x];
    if (Wait) __syncthreads();
    x[threadIdx.x] = s[(threadIdx.x + WARP) % N];
}

/* x = its copy through shared memory, read before or after it has landed */
template <bool Wait> static __global__ void copy(float *x) {
    SHARED(float, s);
    if (threadIdx.x < N / 4) cp_async16(s + 4 * threadIdx.x, x + 4 * threadIdx.x, threadIdx.x < 8);
    cp_async_commit();
    if (Wait) cp_async_wait<0>();
    __syncthreads();
    x[threadIdx.x] = s[threadIdx.x];
}

/* every thread writes the same number of x, its own or (Disagree) another one */
template <bool Disagree> static __global__ void agree(float *x) {
    x[0] = Disagree ? (float)(blockIdx.x * N + threadIdx.x) : 1.0f;
}

/* a number of the other lane of a pair, Wait: with what orders the two */
template <bool Wait> static __global__ void swap_lanes(float *x) {
    __shared__ float s[N];
    s[threadIdx.x] = x[threadIdx.x];
    if (Wait) __syncwarp();
    x[threadIdx.x] = s[threadIdx.x ^ 1];
}

/* sums of neighbours, twice through one buffer; Wait: with the barrier between reading it and filling it again */
template <bool Wait> static __global__ void refill(float *x) {
    __shared__ float s[N];
    for (int i = 0; i < 2; i++) {
        s[threadIdx.x] = x[threadIdx.x];
        __syncthreads();
        x[threadIdx.x] += s[(threadIdx.x + WARP) % N];
        if (Wait) __syncthreads();
    }
}

/* x = 1 - the number that another block has, or, by itself, its own */
static __global__ void read_another_block(float *x) {
    x[blockIdx.x * WARP + threadIdx.x] = 1 - x[(1 - blockIdx.x) * WARP + threadIdx.x];
}

static __global__ void diverged_warp(float *x) {
    if (threadIdx.x % 2) x[threadIdx.x] = warp_sum(1.0f);
}

static __global__ void diverged_kinds(float *x) {
    if (threadIdx.x % 2) x[threadIdx.x] = (float)warp_ballot(true);
    else x[threadIdx.x] = shuffle(1.0f, 0);
}

static __global__ void different_barriers(float *x) {
    if (threadIdx.x < WARP) __syncthreads();
    else
        __syncthreads();
    x[0] = 1;
}

static __global__ void beyond_the_end(float *x) { x[threadIdx.x] = 0; }

static __global__ void crooked_copy(float *x) {
    SHARED(float, s);
    cp_async16(s + 1, x, true);
}

static __global__ void products(float *x) { /* x: a (16, 16), b (16, 8), c (16, 8), packed by the caller's lanes */
    uint32_t a[4], b[2];
    float c[4] = {0};
    int g = lane_id() / 4, t = lane_id() % 4;
    const float *A = x, *B = x + 256;
    for (int r = 0; r < 4; r++) {
        const float *p = A + (g + r % 2 * 8) * 16 + 2 * t + r / 2 * 8;
        a[r] = pack2(p[0], p[1]);
    }
    for (int r = 0; r < 2; r++) b[r] = pack2(B[(2 * t + 8 * r) * 8 + g], B[(2 * t + 8 * r + 1) * 8 + g]);
    mma(c, a, b);
    for (int r = 0; r < 4; r++) x[384 + (g + r / 2 * 8) * 8 + 2 * t + r % 2] = c[r];
}

/* the same product with operands that ldmatrix brings from rows of shared memory */
static __global__ void products_by_ldmatrix(float *x) {
    SHARED(bf16, s);                                    /* A (16, 16), then B (16, 8) */
    uint32_t a[4], b[2];
    float c[4] = {0};
    for (int i = lane_id(); i < 384; i += WARP) s[i] = to_bf16(x[i]);
    __syncwarp();
    ldmatrix_x4(a, s + lane_id() % 16 * 16 + lane_id() / 16 * 8);
    ldmatrix_x2_trans(b, s + 256 + lane_id() % 16 * 8);
    mma(c, a, b);
    for (int r = 0; r < 4; r++) x[384 + (lane_id() / 4 + r / 2 * 8) * 8 + 2 * (lane_id() % 4) + r % 2] = c[r];
}

/* c (64, COLS) = a (64, 16) b (16, COLS) by a warpgroup; x: a, b, c. Operands lie in 1024-byte aligned rows of 128
   bytes whose chunks of 16 are xored with the row's number: rows of a^T and b^T along k, or (BY_ROWS) of a and b. */
enum { COLS = 64, A_AT = 0, B_AT = 8192, ROW = 128, EVERY_8 = 1024, NO_FENCE = 1, CROOKED, COPY };
static void put(unsigned char *operand, int row, int col, float v) {
    *(bf16 *)(operand + row * ROW + ((col / 8 ^ row % 8) * 16 + col % 8 * 2)) = to_bf16(v);
}

template <bool BY_ROWS, int MISTAKE> static __global__ void warpgroup_products(float *x) {
    SHARED(unsigned char, s);
    float sums[COLS / 2] = {0}, *c = x + 16 * (64 + COLS);
    for (int i = (int)threadIdx.x; i < 16 * 64; i += 128)
        BY_ROWS ? put(s + A_AT, i % 16, i / 16, x[i]) : put(s + A_AT, i / 16, i % 16, x[i]);
    for (int i = (int)threadIdx.x; i < 16 * COLS; i += 128)
        BY_ROWS ? put(s + B_AT, i / COLS, i % COLS, x[1024 + i]) : put(s + B_AT, i % COLS, i / COLS, x[1024 + i]);
    if (MISTAKE == COPY) cp_async16(s + 16 * threadIdx.x, x, true);
    cp_async_commit();
    cp_async_wait<0>();
    if (MISTAKE != COPY) fence_shared_for_wgmma();
    __syncthreads();
    uint64_t layout = (uint64_t)1 << 62 | (uint64_t)(EVERY_8 >> 4) << 32, a = layout | shared_address(s + A_AT) >> 4,
             b = layout | shared_address(s + B_AT) >> 4;
    if (MISTAKE != NO_FENCE) wgmma_fence();
    wgmma<COLS, BY_ROWS, BY_ROWS>(sums, MISTAKE == CROOKED ? a + 8 : a, b);
    wgmma_commit();
    wgmma_wait<0>();
    for (int i = 0; i < COLS / 2; i++)
        c[(16 * (threadIdx.x / WARP) + lane_id() / 4 + i / 2 % 2 * 8) * COLS + i / 4 * 8 + lane_id() % 4 * 2 + i % 2] =
            sums[i];
}

static struct {
    const char *name;
    void (*kernel)(float *);
    unsigned threads, blocks;
} all[] = {
    {"rotate", rotate<true>, N},
    {"rotate without a barrier", rotate<false>, N},
    {"copy", copy<true>, N},
    {"copy without a wait", copy<false>, N},
    {"a warp that diverged", diverged_warp, N},
    {"a warp that does different things", diverged_kinds, N},
    {"different barriers", different_barriers, N},
    {"beyond the end", beyond_the_end, N},
    {"a crooked copy", crooked_copy, WARP},
    {"half a warp", rotate<true>, 16},
    {"products", products, WARP},
    {"products by ldmatrix", products_by_ldmatrix, WARP},
    {"wgmma along k", warpgroup_products<false, 0>, 128},
    {"wgmma along rows", warpgroup_products<true, 0>, 128},
    {"wgmma without a fence", warpgroup_products<false, NO_FENCE>, 128},
    {"wgmma of a crooked operand", warpgroup_products<false, CROOKED>, 128},
    {"wgmma of a copy", warpgroup_products<false, COPY>, 128},
    {"agree", agree<false>, N, 2},
    {"disagree", agree<true>, N},
    {"blocks that disagree", agree<true>, WARP, 2},
    {"swap lanes", swap_lanes<true>, N},
    {"swap lanes without a wait", swap_lanes<false>, N},
    {"refill", refill<true>, N},
    {"refill without a barrier", refill<false>, N},
    {"read another block", read_another_block, WARP, 2},
};

/* x (n) is overwritten. mode: 'd' device memory as it should be, 'h' the host's memory, 's' too much shared memory */
extern "C" __attribute__((visibility("default"))) int run(const char *name, float *x, int n, char mode) {
    void *memory;
    size_t bytes = (size_t)n * sizeof *x;
    cudaError_t error = cudaMalloc(&memory, bytes), freed;
    cudaMemcpyAsync(memory, x, bytes, cudaMemcpyHostToDevice, NULL);
    for (auto &entry : all) {
        if (strcmp(entry.name, name)) continue;
        cudaLaunchConfig_t config = {};
        config.gridDim = dim3(entry.blocks ? entry.blocks : 1);
        config.blockDim = dim3(entry.threads);
        config.dynamicSmemBytes = mode == 's' ? 50000 : 16384;
        error = cudaLaunchKernelEx(&config, entry.kernel, mode == 'h' ? x : (float *)memory);
    }
    if (!error) error = cudaStreamSynchronize(NULL);
    if (!error) error = cudaMemcpyAsync(x, memory, bytes, cudaMemcpyDeviceToHost, NULL);
    freed = cudaFree(memory);
    return error ? error : freed;
}

static cudaError_t mistake_in_capture(const char *name, float *memory, cudaStream_t other) {
    void *more;
    if (!strcmp(name, "waiting")) return cudaStreamSynchronize(other);
    if (!strcmp(name, "cudaMalloc")) return cudaMalloc(&more, 64);
    if (!strcmp(name, "cudaFree")) return cudaFree(memory);
    if (!strcmp(name, "a copy from or to the host"))
        return cudaMemcpyAsync(memory, &more, sizeof more, cudaMemcpyHostToDevice, other);
    if (!strcmp(name, "work on another stream")) return cudaMemsetAsync(memory, 0, 64, other);
    return cudaSuccess;
}

/* x (N) by a graph of rotate(), captured together with a mistake and launched so many times. */
extern "C" __attribute__((visibility("default"))) int run_graph(const char *mistake, float *x, int launches) {
    cudaStream_t stream, usual;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    void *memory;
    cudaMalloc(&memory, N * sizeof *x);
    cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    cudaStreamCreateWithFlags(&usual, cudaStreamNonBlocking);
    cudaMemcpyAsync(memory, x, N * sizeof *x, cudaMemcpyHostToDevice, usual);
    cudaStreamSynchronize(usual);
    cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(1);
    config.blockDim = dim3(N);
    config.stream = stream;
    cudaLaunchKernelEx(&config, rotate<true>, (float *)memory);
    cudaError_t seen = mistake_in_capture(mistake, (float *)memory, usual),
                error = cudaStreamEndCapture(stream, &graph);
    if (!error) {
        cudaGraphInstantiate(&exec, graph, 0);
        for (int i = 0; i < launches; i++) cudaGraphLaunch(exec, usual);
        cudaMemcpyAsync(x, memory, N * sizeof *x, cudaMemcpyDeviceToHost, usual);
        cudaGraphExecDestroy(exec);
        cudaGraphDestroy(graph);
    }
    cudaFree(memory);
    cudaStreamDestroy(stream);
    cudaStreamDestroy(usual);
    return seen == (error ? cudaErrorStreamCaptureUnsupported : cudaSuccess) ? error : cudaErrorInvalidValue;
}

/* the host reads memory of the device */
extern "C" __attribute__((visibility("default"))) int peek(void) {
    void *memory;
    cudaMalloc(&memory, 64);
    return *(volatile char *)memory;
}

extern "C" __attribute__((visibility("default"))) const char *explain(int error) {
    return cudaGetErrorString((cudaError_t)error);
}
