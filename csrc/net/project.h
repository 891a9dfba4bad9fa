/* Floor 3: every product of activations with a weight matrix goes through here, forward and backward: the one place
   that knows how the matrix is stored and what is added to it. N rows; C columns in, O out, as the parameter table
   has them. */
#ifndef GRPO_PROJECT_H
#define GRPO_PROJECT_H

#include "net/weights.h"

/* y (N, O) = x (N, C) W^T, plus the bias of the slot where the network has one */
int project(const struct weights *w, int layer, enum slot slot, real *y, const real *x, int N);
/* y (N, O) += the same, rounded once */
int project_add(const struct weights *w, int layer, enum slot slot, real *y, const real *x, int N);
/* dx (N, C) = dy (N, O) W */
int project_dx(const struct weights *w, int layer, enum slot slot, real *dx, const real *dy, int N);
/* the slot's part of grads += dy^T x, its bias's += sum of dy */
int project_dw(const struct weights *w, int layer, enum slot slot, const struct gradients *grads, const real *dy,
               const real *x, int N);

#endif
