/* Floor 3: the feed-forward half of a layer: norm, gate and up, gated product, projection back into the residual
   stream. */
#ifndef GRPO_MLP_H
#define GRPO_MLP_H

#include "net/stash.h"

/* next (N, d) = x + result; next NULL: only the stash, for a backward that computes it again. copy as in attention.h */
int mlp_forward(struct activations *a, int l, int N, real *next, const struct stash_rows *copy);
int mlp_load(struct activations *a, int l, int N, const struct stash_rows *from);
/* a->dx: gradient of next -> of x; grads +=. The stash's gate_up holds its gradient afterwards. */
int mlp_backward(struct activations *a, int l, int N, const struct gradients *grads);

#endif
