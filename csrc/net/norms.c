#include "net/norms.h"

#include <assert.h>

#include "base/base.h"

/* The slot of a LayerNorm's bias */
static enum slot bias_of(enum slot slot) {
    switch (slot) {
    case P_attention_norm: return P_attention_norm_bias;
    case P_mlp_norm: return P_mlp_norm_bias;
    case P_entry_norm: return P_entry_norm_bias;
    case P_pool_kv_norm: return P_pool_kv_norm_bias;
    case P_pool_query_norm: return P_pool_query_norm_bias;
    case P_pool_post_norm: return P_pool_post_norm_bias;
    default: assert(slot == P_merger_norm); return P_merger_norm_bias;
    }
}

int norm(const struct weights *w, int layer, enum slot slot, real *y, struct norm_stats stats, const real *x, int N) {
    const struct spec *s = &w->spec;
    const struct param *p = param_of(w, layer, slot);
    if (s->norm == NORM_LAYER)
        return op_layernorm(&w->device, y, stats.mean, stats.rstd, x, p->w, values_of(w, layer, bias_of(slot)), s->eps,
                            N, p->O);
    return op_rmsnorm(&w->device, y, stats.rstd, x, p->w, s->norm_offset, s->eps, N, p->O);
}

int norm_add(const struct weights *w, int layer, enum slot slot, real *y, struct norm_stats stats, const real *x,
             int N) {
    const struct spec *s = &w->spec;
    const struct param *p = param_of(w, layer, slot);
    return op_rmsnorm_add(&w->device, y, stats.rstd, x, p->w, s->norm_offset, s->eps, N, p->O);
}

int norm_backward_add(const struct weights *w, int layer, enum slot slot, real *dx, const struct gradients *grads,
                      const real *dy, const real *x, struct norm_stats stats, int N) {
    const struct spec *s = &w->spec;
    const struct param *p = param_of(w, layer, slot);
    float *dw = gradient_of(w, grads, layer, slot);
    if (s->norm == NORM_LAYER)
        return op_layernorm_bwd_add(&w->device, dx, dw, gradient_of(w, grads, layer, bias_of(slot)), dy, x, p->w,
                                    stats.mean, stats.rstd, N, p->O);
    return op_rmsnorm_bwd_add(&w->device, dx, dw, dy, x, p->w, s->norm_offset, stats.rstd, N, p->O);
}

int norm_backward(const struct weights *w, int layer, enum slot slot, real *dx, const struct gradients *grads,
                  const real *dy, const real *x, real *normed, struct norm_stats stats, int N) {
    const struct param *p = param_of(w, layer, slot);
    TRY(norm(w, layer, slot, normed, stats, x, N));
    TRY(op_zero(&w->device, dx, (size_t)N * (size_t)p->O * (size_t)w->device.ops->real_size));
    return norm_backward_add(w, layer, slot, dx, grads, dy, x, stats, N);
}
