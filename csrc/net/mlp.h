/* Floor 3: the feed-forward half of a layer: norm, gate and up, gated product, projection back into the residual
   stream. */
#ifndef GRPO_MLP_H
#define GRPO_MLP_H

#include "net/weights.h"

struct activations;
struct layout;
struct stash_rows;

struct mlp_stash {                       /* N rows */
    real *x;                             /* (N, d) input */
    real *gate_up;                       /* (N, 2 F) */
    real *result;                        /* (N, d) of the projection, where a norm follows it */
};

/* Everything but x, which the caller lays out */
void mlp_stash_lay_out(struct mlp_stash *t, struct layout *memory, const struct widths *w, size_t real_size,
                       size_t rows);
/* next (N, d) = x + result; next NULL: only the stash, for a backward that computes it again. copy as in attention.h */
int mlp_forward(struct activations *a, int l, int N, real *next, const struct stash_rows *copy);
int mlp_load(struct activations *a, int l, int N, const struct stash_rows *from);
/* a->dx: gradient of next -> of x; grads +=. The stash's gate_up holds its gradient afterwards. */
int mlp_backward(struct activations *a, int l, int N, float *grads);

#endif
