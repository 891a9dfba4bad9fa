/* Recorded calls as CUDA graphs: a decode step's few hundred launches, each some microseconds of the host, become
   one. When a key is first met its calls run as they come, and load the kernels they need; the second time they are
   captured, and the graph is launched then and from then on. */
#include "cuda/cuda.cuh"

#include <stdlib.h>

enum { RECORDINGS = 32, KEY_MAX = 256 };               /* the one that was used longest ago makes room */

struct recording {
    unsigned char key[KEY_MAX];
    size_t bytes;
    cudaGraphExec_t graph;
    uint64_t used;
};

/* Captured is a stream of the context's own: on the process's other contexts may be at work at the same time. */
struct recorder {
    cudaStream_t stream, usual;
    struct recording recordings[RECORDINGS], *open;
    uint64_t uses;
};

int recorder_start(struct cuda_ctx *ctx) {
    const char *text = getenv("GRPO_CUDA_GRAPHS");
    if (text && !strcmp(text, "0")) return OK;
    if (text && *text && strcmp(text, "1")) return fail(E_CONFIG, "GRPO_CUDA_GRAPHS=%.40s: must be 0 or 1", text);
    ctx->recorder = (struct recorder *)calloc(1, sizeof *ctx->recorder);
    if (!ctx->recorder) return fail(E_MEMORY, "no memory for the context of device 'cuda'");
    ctx->recorder->usual = ctx->stream;
    CUDA(cudaStreamCreateWithFlags(&ctx->recorder->stream, cudaStreamNonBlocking));
    return OK;
}

static void forget(struct recording *x) {
    if (x->graph) cudaGraphExecDestroy(x->graph);      /* after the launches that are on their way */
    memset(x, 0, sizeof *x);
}

void recorder_forget(struct cuda_ctx *ctx) {
    for (int i = 0; ctx->recorder && i < RECORDINGS; i++) forget(&ctx->recorder->recordings[i]);
}

void recorder_end(struct cuda_ctx *ctx) {
    if (!ctx->recorder) return;
    recorder_forget(ctx);
    if (ctx->recorder->stream) cudaStreamDestroy(ctx->recorder->stream);
    free(ctx->recorder);
}

/* The key's entry; *met: it was there, else it is one that had to make room */
static struct recording *find(struct recorder *r, bool *met, const void *key, size_t bytes) {
    struct recording *oldest = r->recordings;
    *met = false;
    for (struct recording *x = r->recordings; x < r->recordings + RECORDINGS && !*met; x++) {
        *met = x->bytes == bytes && !memcmp(x->key, key, bytes);
        if (*met || x->used < oldest->used) oldest = x;
    }
    if (!*met) {
        forget(oldest);
        memcpy(oldest->key, key, bytes);
        oldest->bytes = bytes;
    }
    oldest->used = ++r->uses;
    return oldest;
}

int cuda_replay(void *ctx_, const void *key, size_t bytes, int *done) {
    struct cuda_ctx *ctx = (struct cuda_ctx *)ctx_;
    struct recorder *r = ctx->recorder;
    bool met;
    *done = 0;
    if (!r) return OK;
    if (bytes > KEY_MAX) return fail(E_CONFIG, "cuda: a key of %zu bytes, at most %d", bytes, (int)KEY_MAX);
    struct recording *x = find(r, &met, key, bytes);
    if (!met) return OK;
    if (x->graph) {
        CUDA(cudaGraphLaunch(x->graph, ctx->stream));
        *done = 1;
        return OK;
    }
    CUDA(cudaStreamBeginCapture(r->stream, cudaStreamCaptureModeThreadLocal));
    ctx->stream = r->stream;
    r->open = x;
    return OK;
}

static int make_graph(struct cuda_ctx *ctx, struct recording *x, cudaGraph_t captured) {
    CUDA(cudaGraphInstantiate(&x->graph, captured, 0));
    CUDA(cudaGraphLaunch(x->graph, ctx->stream));
    return OK;
}

int cuda_record_end(void *ctx_, int status) {
    struct cuda_ctx *ctx = (struct cuda_ctx *)ctx_;
    struct recorder *r = ctx->recorder;
    cudaGraph_t captured = NULL;
    if (!r || !r->open) return status;
    cudaError_t ended = cudaStreamEndCapture(r->stream, &captured);
    ctx->stream = r->usual;
    if (status) cudaGetLastError();                    /* of a capture that what failed has spoiled */
    else status = cuda_status(ended, "cudaStreamEndCapture");
    if (!status) status = make_graph(ctx, r->open, captured);
    if (captured) cudaGraphDestroy(captured);
    r->open = NULL;
    return status;
}
