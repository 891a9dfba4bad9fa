/* Floor 3: the norms of a network, RMSNorm or LayerNorm as its spec says. What comes out of the forward beside y, one
   number a row each, is what the backward needs beside x (N, C). */
#ifndef GRPO_NORMS_H
#define GRPO_NORMS_H

#include "net/weights.h"

struct norm_stats {
    float *mean, *rstd;        /* (N); mean of LayerNorm only, else it may be NULL */
};

/* y (N, C) = norm of x */
int norm(const struct weights *w, int layer, enum slot slot, real *y, struct norm_stats stats, const real *x, int N);
/* y (N, C) += norm of x, rounded once; RMSNorm only */
int norm_add(const struct weights *w, int layer, enum slot slot, real *y, struct norm_stats stats, const real *x,
             int N);
/* dx (N, C) += its gradient from dy, grads += that of the norm's weights */
int norm_backward_add(const struct weights *w, int layer, enum slot slot, real *dx, const struct gradients *grads,
                      const real *dy, const real *x, struct norm_stats stats, int N);
/* dx (N, C) = the same, for a norm whose forward is not at hand: it is computed again into normed (N, C) and stats */
int norm_backward(const struct weights *w, int layer, enum slot slot, real *dx, const struct gradients *grads,
                  const real *dy, const real *x, real *normed, struct norm_stats stats, int N);

#endif
