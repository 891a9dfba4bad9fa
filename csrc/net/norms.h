/* Floor 3: the RMSNorms of a network. rstd (N) comes out of the forward and is what the backward needs beside x (N,
   d). */
#ifndef GRPO_NORMS_H
#define GRPO_NORMS_H

#include "net/weights.h"

/* y (N, d) = norm of x */
int norm(const struct weights *w, int layer, enum slot slot, real *y, float *rstd, const real *x, int N);
/* y (N, d) += norm of x, rounded once */
int norm_add(const struct weights *w, int layer, enum slot slot, real *y, float *rstd, const real *x, int N);
/* dx (N, d) += its gradient from dy, grads += that of the norm's weights */
int norm_backward_add(const struct weights *w, int layer, enum slot slot, real *dx, float *grads, const real *dy,
                      const real *x, const float *rstd, int N);
/* dx (N, d) = the same, for a norm whose forward is not at hand: it is computed again into normed (N, d) and rstd */
int norm_backward(const struct weights *w, int layer, enum slot slot, real *dx, float *grads, const real *dy,
                  const real *x, real *normed, float *rstd, int N);

#endif
