/* What the files of the CUDA backend share: the context, the operations, launching, errors. C++ is used as C with
   templates. Activations are bf16 rows without padding; a weight is row-major bf16 (O, C) whose rows are
   weight_pitch(C) long; vectors are float. Every operation only puts work on the context's stream; download() and
   sum_squares() wait for it. */
#ifndef GRPO_CUDA_H
#define GRPO_CUDA_H

#include "base/base.h"
#include "cuda/lane.cuh"
#include "ops/ops.h"

struct cuda_ctx {
    cudaStream_t stream;             /* one for the whole process: models that trade weights then need no events;
                                        while calls are recorded, the recorder's */
    struct recorder *recorder;       /* graph.cu; NULL: nothing is recorded */
    int device, sm, sm_count;        /* sm: 90 = compute capability 9.0 */
    bool wgmma;                      /* products run on it; gemm90.cuh */
    size_t shared_max;               /* bytes of shared memory that a block may ask for */
    int tile_m, tile_n; /* of GRPO_CUDA_TILE=128x64, for tests and tuning: products use it where they have it */
    char *scratch; /* of reserve(), 256-byte aligned; means nothing between operations */
    size_t scratch_bytes;
    char *pinned; /* HOST, page-locked: the small results that operations wait for */
};
enum { PINNED_BYTES = 1 << 16 };

/* cuda_linear and so on, one function an entry of ops.def */
#define MEMORY(result, name, parameters) __typeof__(*((struct ops *)0)->name) cuda_##name;
#define PLAN MEMORY
#define OP(name, ...) MEMORY(int, name, )
#define OP_BY_HAND OP
#include "ops/ops.def"

/* Bytes of scratch that a family of operations needs at most for calls within `need`. One family runs at a time, so
   reserve() takes the largest. */
typedef size_t scratch_need(const struct op_limits *need);

#define ROW_SCRATCH(S) S(partials_scratch) S(squares_scratch) S(blas_scratch)

#define GEMM_SCRATCH(S)

#define HEAD_SCRATCH(S) S(head_scratch) S(sample_scratch)

#define ATTENTION_SCRATCH(S) S(attention_bwd_scratch) S(attention_decode_scratch)

#define CUDA_SCRATCH(S) ROW_SCRATCH(S) GEMM_SCRATCH(S) HEAD_SCRATCH(S) ATTENTION_SCRATCH(S)

#define DECLARE(name) scratch_need name;
CUDA_SCRATCH(DECLARE)
#undef DECLARE

/* `bytes` of scratch, or E_MEMORY when reserve() was told of less */
int scratch(void **out, const struct cuda_ctx *ctx, size_t bytes);

/* ctx->wgmma. The first time products are made to see whether they are right. products_name: what the last context
   that was opened multiplies with: "wgmma", or "mma.sync (why)"; opens one. */
int choose_wgmma(struct cuda_ctx *ctx);
int products_name(const char **name);

/* With a context, and what was recorded there: forgotten when the memory it works on goes. */
int recorder_start(struct cuda_ctx *ctx);
void recorder_forget(struct cuda_ctx *ctx);
void recorder_end(struct cuda_ctx *ctx);

/* elements from one row of a weight to the next; the tail of a row is zero */
static inline int weight_pitch(int C) { return round_up(C, 8); }

/* -- errors -------------------------------------------------------------------------------------------------------- */

/* OK, or a sentence that names the call and says what can be done, with E_MEMORY or E_DEVICE */
int cuda_status(cudaError_t error, const char *call);
#define CUDA(call) TRY(cuda_status(call, #call))

/* -- launching ----------------------------------------------------------------------------------------------------- */

/* Raises the kernel's limit of dynamic shared memory to all that a block may have; E_DEVICE if that is less than
   `shared`. Needed beyond 48 KB less the kernel's static shared memory, of which none that asks for much has more
   than 2 KB. */
enum { SHARED_FREE = 46 << 10 };
int allow_shared(const struct cuda_ctx *ctx, const void *kernel, const char *name, size_t shared);

template <typename T> struct same {
    typedef T type;
};

template <typename... P>
static int launch(const struct cuda_ctx *ctx, const char *name, void (*kernel)(P...), dim3 grid, dim3 block,
                  size_t shared, typename same<P>::type... args) {
    if (!grid.x || !grid.y || !grid.z) return OK; /* no rows: nothing to do */
    if (shared > SHARED_FREE) TRY(allow_shared(ctx, (const void *)kernel, name, shared));
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared;
    config.stream = ctx->stream;
    return cuda_status(cudaLaunchKernelEx(&config, kernel, args...), name);
}

/* LAUNCH(ctx, kernel, grid, block, shared_bytes, args...) returns from the calling function when it fails. A kernel
   with several template arguments goes in parentheses. Blocks are whole warps; an empty grid launches nothing.
   grid.x may be up to 2^31 - 1, grid.y and grid.z 65535. */
#define LAUNCH(ctx, kernel, ...) TRY(launch((const struct cuda_ctx *)(ctx), #kernel, kernel, __VA_ARGS__))

static inline unsigned blocks_of(size_t n, int per_block) {
    return (unsigned)((n + (size_t)per_block - 1) / (size_t)per_block);
}

#endif
