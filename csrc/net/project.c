#include "net/project.h"

#include "base/base.h"

/* The slot of a product's bias; SLOTS: it has none */
static enum slot bias_of(enum slot slot) {
    switch (slot) {
    case P_patch: return P_patch_bias;
    case P_qkv: return P_qkv_bias;
    case P_o: return P_o_bias;
    case P_gate_up: return P_gate_up_bias;
    case P_down: return P_down_bias;
    case P_merger_up: return P_merger_up_bias;
    case P_merger_down: return P_merger_down_bias;
    case P_pool_in: return P_pool_in_bias;
    case P_pool_out: return P_pool_out_bias;
    default: return SLOTS;
    }
}

static const float *bias_values(const struct weights *w, int layer, enum slot slot) {
    return bias_of(slot) == SLOTS ? NULL : values_of(w, layer, bias_of(slot));
}

int project(const struct weights *w, int layer, enum slot slot, real *y, const real *x, int N) {
    const struct param *p = param_of(w, layer, slot);
    return op_linear(&w->device, y, x, p->w, bias_values(w, layer, slot), N, p->C, p->O);
}

int project_add(const struct weights *w, int layer, enum slot slot, real *y, const real *x, int N) {
    const struct param *p = param_of(w, layer, slot);
    return op_linear_add(&w->device, y, x, p->w, bias_values(w, layer, slot), N, p->C, p->O);
}

int project_dx(const struct weights *w, int layer, enum slot slot, real *dx, const real *dy, int N) {
    const struct param *p = param_of(w, layer, slot);
    return op_linear_dx(&w->device, dx, dy, p->w, N, p->C, p->O);
}

int project_dw(const struct weights *w, int layer, enum slot slot, const struct gradients *grads, const real *dy,
               const real *x, int N) {
    const struct param *p = param_of(w, layer, slot);
    float *db = bias_of(slot) == SLOTS ? NULL : gradient_of(w, grads, layer, bias_of(slot));
    return op_linear_dw(&w->device, gradient_of(w, grads, layer, slot), db, dy, x, N, p->C, p->O);
}
