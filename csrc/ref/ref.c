/* The table of the reference backend, its context and its memory, which is the host's. */
#include "ref/ref.h"

const struct ops ref_ops = {
    .name = "ref",
    .tier = "",
    .real_size = sizeof(float),
    .lookahead = 1,
    .host_memory = 1,
#define MEMORY(result, name, parameters) .name = ref_##name,
#define PLAN MEMORY
#define OP(name, ...) .name = ref_##name,
#define OP_BY_HAND OP
#include "ops/ops.def"
};

int ref_open(void **ctx) {
    *ctx = memory_new(sizeof(struct ref_ctx));
    return *ctx ? OK : fail(E_MEMORY, "no memory for the context of device 'ref'");
}

static void free_scratch(struct ref_ctx *ctx) {
    memory_free(ctx->work);
    memory_free(ctx->key);
    memory_free(ctx->value);
    memory_free(ctx->rank);
    *ctx = (struct ref_ctx){0};
}

void ref_close(void *ctx) {
    if (ctx) free_scratch(ctx);
    memory_free(ctx);
}

static size_t max_size(size_t a, size_t b) { return a > b ? a : b; }

int ref_reserve(void *ctx_, const struct op_limits *need) {
    struct ref_ctx *ctx = ctx_;
    size_t head = 2 * (size_t)need->vocab + (size_t)need->channels;
    size_t attention = (size_t)need->max_position + 2 * ((size_t)need->rows + 1) * (size_t)need->head_dim;
    size_t n_work = max_size(ctx->n_work, max_size(head, attention));
    int n_keys = max_int(ctx->n_keys, need->max_position), n_ranks = max_int(ctx->n_ranks, need->vocab);
    free_scratch(ctx);
    ctx->work = memory_new(n_work * sizeof *ctx->work);
    ctx->key = memory_new((size_t)n_keys * sizeof *ctx->key);
    ctx->value = memory_new((size_t)n_keys * sizeof *ctx->value);
    ctx->rank = memory_new((size_t)n_ranks * sizeof *ctx->rank);
    if (!ctx->work || !ctx->key || !ctx->value || !ctx->rank) {
        free_scratch(ctx);
        return fail(E_MEMORY, "no memory for %zu numbers of scratch on device 'ref'", n_work);
    }
    ctx->n_work = n_work;
    ctx->n_keys = n_keys;
    ctx->n_ranks = n_ranks;
    return OK;
}

int ref_scratch(double **out, struct ref_ctx *ctx, size_t n) {
    *out = ctx->work;
    if (n <= ctx->n_work) return OK;
    return fail(E_MEMORY, "ref: an operation needs %zu numbers of scratch, reserve() made %zu", n, ctx->n_work);
}

void *ref_alloc(void *ctx, size_t bytes) {
    (void)ctx;
    return memory_new(bytes);
}

void ref_release(void *ctx, void *p) {
    (void)ctx;
    memory_free(p);
}

int ref_copy(void *ctx, void *dst, const void *src, size_t bytes) {
    (void)ctx;
    if (bytes) memcpy(dst, src, bytes); /* nothing may come with a null pointer */
    return OK;
}

int ref_replay(void *ctx, const void *key, size_t bytes, int *done) {
    (void)ctx, (void)key, (void)bytes;
    *done = 0;
    return OK;
}

int ref_record_end(void *ctx, int status) {
    (void)ctx;
    return status;
}

int ref_upload(void *ctx, void *dst, const void *host, size_t bytes) { return ref_copy(ctx, dst, host, bytes); }

int ref_download(void *ctx, void *host, const void *src, size_t bytes) { return ref_copy(ctx, host, src, bytes); }

int ref_zero(void *ctx, void *dst, size_t bytes) {
    (void)ctx;
    memset(dst, 0, bytes);
    return OK;
}
