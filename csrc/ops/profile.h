/* Floor 2: where the time goes, an op at a time: calls, seconds, floating-point operations and the fewest bytes an op must
   move (each operand once). Off, it costs a branch a call. Every op of the model text and of the trainer goes through RUN(). */
#ifndef GRPO_PROFILE_H
#define GRPO_PROFILE_H

#include "base/base.h"
#include "ops/ops.h"

struct work { double flops, bytes; };

/* Work of attention, whose segments or lengths lie in backend memory and are fetched: flops for each pair of a query row and a key
   that it sees, and bytes. Of decode: bytes for each key that is read; what a row's pages share with the row before counts once. */
struct work attention_work(const struct ops *ops, void *ctx, const struct segment *segments, int n, int window, double flops, double bytes);
struct work decode_work(const struct ops *ops, void *ctx, const struct key_pages *keys, int S, int window, double flops, double bytes);

/* Work of each op from its own arguments; z = bytes of a real, m_ the model. */
#define ROWS_(z, count, N, C) {0, (double)(count) * (z) * (N) * (C)}
#define GEMM_(z, count, N, C, O, weights) {(count) * 2.0 * (N) * (C) * (O), \
                                           (double)(z) * ((double)(N) * (C) + (double)(N) * (O)) + (double)(weights) * (C) * (O)}
#define WORK_embed(z, y, E, ids, scale, N, C, V) ROWS_(z, 2, N, C)
#define WORK_embed_dw(z, dE, dy, ids, scale, N, C, V) {0, ((z) + 8.0) * (N) * (C)}
#define WORK_linear(z, y, x, W, b, N, C, O) GEMM_(z, 1, N, C, O, z)
#define WORK_linear_add(z, y, x, W, b, N, C, O) GEMM_(z, 1, N, C, O, z)
#define WORK_linear_dx(z, dx, dy, W, N, C, O) GEMM_(z, 1, N, C, O, z)
#define WORK_linear_dw(z, dW, db, dy, x, N, C, O) GEMM_(z, 1, N, C, O, 8)
#define WORK_rmsnorm(z, y, rstd, x, w, offset, eps, N, C) ROWS_(z, 2, N, C)
#define WORK_rmsnorm_add(z, y, rstd, x, w, offset, eps, N, C) ROWS_(z, 3, N, C)
#define WORK_rmsnorm_bwd_add(z, dx, dw, dy, x, w, offset, rstd, N, C) ROWS_(z, 4, N, C)
#define WORK_rope_table(z, cos, sin, pos, inv_freq, axis, scale, N, D) {0, 4.0 * (N) * (D)}
#define HEADS_(a) (((a)->Hq + 2.0 * (a)->Hkv) * (a)->D)
#define WORK_rope(z, y, x, norm, cos, sin, N, a) ROWS_(z, 2, N, HEADS_(a))
#define WORK_rope_bwd(z, d, dwq, dwk, x, norm, cos, sin, N, a) ROWS_(z, 2, N, HEADS_(a))
#define WORK_attention(z, y, lse, qkv, segments, n, N, a) \
    attention_work(m_->ops, m_->ctx, segments, n, (a)->window, 4.0 * (a)->Hq * (a)->D, (z) * (N) * (a)->D * 2.0 * ((a)->Hq + (a)->Hkv))
#define WORK_attention_bwd(z, dqkv, dy, y, lse, qkv, segments, n, N, a) \
    attention_work(m_->ops, m_->ctx, segments, n, (a)->window, 10.0 * (a)->Hq * (a)->D, (z) * (N) * (a)->D * 4.0 * ((a)->Hq + (a)->Hkv))
#define WORK_attention_decode(z, y, lse, qkv, pool, keys, S, a) \
    decode_work(m_->ops, m_->ctx, keys, S, (a)->window, 4.0 * (a)->Hq * (a)->D, 2.0 * (z) * (a)->Hkv * (a)->D)
#define WORK_kv_store(z, pool, qkv, place, N, a) ROWS_(z, 4, N, (a)->Hkv * (a)->D)
#define WORK_kv_copy(z, pool, dst, src, n, a) ROWS_(z, 4 * KV_TILE, n, (a)->Hkv * (a)->D)
#define WORK_glu(z, y, gu, gate, N, F) ROWS_(z, 3, N, F)
#define WORK_glu_bwd(z, dgu, dy, gu, gate, N, F) ROWS_(z, 5, N, F)
#define WORK_gather_rows(z, dst, src, index, R, C) ROWS_(z, 2, R, C)
#define WORK_put_rows(z, dst, src, index, R, C) ROWS_(z, 2, R, C)
#define WORK_scatter_rows_add(z, dst, src, index, R, C) ROWS_(z, 3, R, C)
#define WORK_head(z, dW, rows, W, inv, C, V) \
    GEMM_(z, (rows)->coef ? 3 : 1, (rows)->R, C, V, (rows)->coef ? (z) + 8 : (z))
#define WORK_sample(z, out, next, seen, h, W, sampler, keys, S, C, V) GEMM_(z, 1, S, C, V, z)
#define WORK_logits(z, out, h, W, S, C, V) GEMM_(z, 1, S, C, V, z)
#define WORK_copy(z, dst, src, bytes) {0, 2.0 * (double)(bytes)}
#define WORK_zero(z, dst, bytes) {0, (double)(bytes)}
#define WORK_adamw(z, w, lower, m, v, g, O, C, p) \
    {0, (8.0 + 2.0 * (double)lower_element((p)->masters) + 4.0 * (double)moment_element((p)->moments)) * (O) * ((C) ? (C) : 1)}
#define WORK_sum_squares(z, out, g, n) {0, 4.0 * (double)(n)}
#define WORK_weight_set(z, w, src, row, rows, O, C) {0, (4.0 + (z)) * (rows) * (C)}
#define WORK_vector_set(z, dst, src, n) {0, 8.0 * (n)}

#define PROFILED(X) \
    X(embed) X(embed_dw) X(linear) X(linear_add) X(linear_dx) X(linear_dw) X(rmsnorm) X(rmsnorm_add) X(rmsnorm_bwd_add) X(rope_table) X(rope) X(rope_bwd) \
    X(attention) X(attention_bwd) X(attention_decode) X(kv_store) X(kv_copy) X(glu) X(glu_bwd) X(gather_rows) X(put_rows) X(scatter_rows_add) \
    X(head) X(sample) X(logits) X(copy) X(zero) X(adamw) X(sum_squares) X(weight_set) X(vector_set)
enum profiled {
#define X(name) PROFILE_##name,
    PROFILED(X)
#undef X
    PROFILE_OPS
};

struct profile_line { const char *op; long calls; double seconds; struct work work; };
extern int profile_on;
extern struct profile_line profile_lines[PROFILE_OPS];
void profile_add(enum profiled op, double seconds, struct work work);
void profile_start(void);             /* on, everything 0 */

/* Status of m->ops->name(m->ctx, ...), counted when the profile is on. An op may still be running on a GPU when its call
   returns, so its end is waited for: a download comes after it. */
#define RUN(m, name, ...) ({                                                                   \
    const struct model *m_ = (m);                                                              \
    double began_ = profile_on ? clock_seconds() : 0;                                          \
    int ran_ = m_->ops->name(m_->ctx, __VA_ARGS__);                                            \
    if (profile_on && !ran_) {                                                                 \
        float unused_;                                                                         \
        ran_ = m_->ops->download(m_->ctx, &unused_, m_->inv_freq, sizeof unused_);             \
        double ended_ = clock_seconds();                                                       \
        struct work work_ = WORK_##name((double)m_->ops->real_size, __VA_ARGS__);              \
        profile_add(PROFILE_##name, ended_ - began_, work_);                                   \
    }                                                                                          \
    ran_;                                                                                      \
})

#endif
