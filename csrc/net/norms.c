#include "net/norms.h"

#include "base/base.h"

int norm(const struct weights *w, int layer, enum slot slot, real *y, float *rstd, const real *x, int N) {
    const struct spec *s = &w->spec;
    return op_rmsnorm(&w->device, y, rstd, x, values_of(w, layer, slot), s->norm_offset, s->eps, N, s->d_model);
}

int norm_add(const struct weights *w, int layer, enum slot slot, real *y, float *rstd, const real *x, int N) {
    const struct spec *s = &w->spec;
    return op_rmsnorm_add(&w->device, y, rstd, x, values_of(w, layer, slot), s->norm_offset, s->eps, N, s->d_model);
}

int norm_backward_add(const struct weights *w, int layer, enum slot slot, real *dx, float *grads, const real *dy,
                      const real *x, const float *rstd, int N) {
    const struct spec *s = &w->spec;
    return op_rmsnorm_bwd_add(&w->device, dx, gradient_of(w, grads, layer, slot), dy, x, values_of(w, layer, slot),
                              s->norm_offset, rstd, N, s->d_model);
}

int norm_backward(const struct weights *w, int layer, enum slot slot, real *dx, float *grads, const real *dy,
                  const real *x, real *normed, float *rstd, int N) {
    TRY(norm(w, layer, slot, normed, rstd, x, N));
    TRY(op_zero(&w->device, dx, stream_bytes(w, N)));
    return norm_backward_add(w, layer, slot, dx, grads, dy, x, rstd, N);
}
