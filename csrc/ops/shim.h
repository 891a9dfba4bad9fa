#ifndef GRPO_SHIM_H
#define GRPO_SHIM_H
#include "base/base.h"
#include "ops/ops.h"
#define SHIM_(d, name, ...) ((d)->ops->name((d)->ctx, ##__VA_ARGS__))
#define device_alloc(d, n) SHIM_(d, alloc, n)
#define device_release(d, p) SHIM_(d, release, p)
#define device_upload(d, ...) SHIM_(d, upload, __VA_ARGS__)
#define device_download(d, ...) SHIM_(d, download, __VA_ARGS__)
#define device_zero(d, ...) SHIM_(d, zero, __VA_ARGS__)
#define device_copy(d, ...) SHIM_(d, copy, __VA_ARGS__)
#define device_reserve(d, n) SHIM_(d, reserve, n)
#define device_replay(d, ...) SHIM_(d, replay, __VA_ARGS__)
#define device_record_end(d, s) SHIM_(d, record_end, s)
#define op_weight_set(d, ...) SHIM_(d, weight_set, __VA_ARGS__)
#define op_weight_get(d, ...) SHIM_(d, weight_get, __VA_ARGS__)
#define op_vector_set(d, ...) SHIM_(d, vector_set, __VA_ARGS__)
#define op_cast(d, ...) SHIM_(d, cast, __VA_ARGS__)
#define op_uncast(d, ...) SHIM_(d, uncast, __VA_ARGS__)
#define op_embed(d, ...) SHIM_(d, embed, __VA_ARGS__)
#define op_embed_dw(d, ...) SHIM_(d, embed_dw, __VA_ARGS__)
#define op_linear(d, ...) SHIM_(d, linear, __VA_ARGS__)
#define op_linear_add(d, ...) SHIM_(d, linear_add, __VA_ARGS__)
#define op_linear_dx(d, ...) SHIM_(d, linear_dx, __VA_ARGS__)
#define op_linear_dw(d, ...) SHIM_(d, linear_dw, __VA_ARGS__)
#define op_rmsnorm(d, ...) SHIM_(d, rmsnorm, __VA_ARGS__)
#define op_rmsnorm_add(d, ...) SHIM_(d, rmsnorm_add, __VA_ARGS__)
#define op_rmsnorm_bwd_add(d, ...) SHIM_(d, rmsnorm_bwd_add, __VA_ARGS__)
#define op_rope_table(d, ...) SHIM_(d, rope_table, __VA_ARGS__)
#define op_rope(d, ...) SHIM_(d, rope, __VA_ARGS__)
#define op_rope_bwd(d, ...) SHIM_(d, rope_bwd, __VA_ARGS__)
#define op_attention(d, ...) SHIM_(d, attention, __VA_ARGS__)
#define op_attention_bwd(d, ...) SHIM_(d, attention_bwd, __VA_ARGS__)
#define op_attention_decode(d, ...) SHIM_(d, attention_decode, __VA_ARGS__)
#define op_kv_store(d, ...) SHIM_(d, kv_store, __VA_ARGS__)
#define op_kv_copy(d, ...) SHIM_(d, kv_copy, __VA_ARGS__)
#define op_glu(d, ...) SHIM_(d, glu, __VA_ARGS__)
#define op_glu_bwd(d, ...) SHIM_(d, glu_bwd, __VA_ARGS__)
#define op_gather_rows(d, ...) SHIM_(d, gather_rows, __VA_ARGS__)
#define op_put_rows(d, ...) SHIM_(d, put_rows, __VA_ARGS__)
#define op_scatter_rows_add(d, ...) SHIM_(d, scatter_rows_add, __VA_ARGS__)
#define op_head(d, ...) SHIM_(d, head, __VA_ARGS__)
#define op_sample(d, ...) SHIM_(d, sample, __VA_ARGS__)
#define op_logits(d, ...) SHIM_(d, logits, __VA_ARGS__)
#define op_copy(d, ...) SHIM_(d, copy, __VA_ARGS__)
#define op_zero(d, ...) SHIM_(d, zero, __VA_ARGS__)
#define op_adamw(d, ...) SHIM_(d, adamw, __VA_ARGS__)
#define op_sum_squares(d, ...) SHIM_(d, sum_squares, __VA_ARGS__)
#define op_lerp(d, ...) SHIM_(d, lerp, __VA_ARGS__)
static inline int device_open(struct device *d, const char *name) {
    const struct ops *ops;
    TRY(ops_find(&ops, name));
    void *ctx;
    TRY(ops->open(&ctx));
    *d = (struct device){ops, ctx};
    return OK;
}
static inline void device_close(struct device *d) {
    if (d->ops) d->ops->close(d->ctx);
    *d = (struct device){0};
}
#endif
