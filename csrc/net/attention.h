/* Floor 3: the attention half of a layer: norm, q k v, rope, attention, projection back into the residual stream. */
#ifndef GRPO_ATTENTION_H
#define GRPO_ATTENTION_H

#include "net/rows.h"

struct activations;
struct layout;
struct stash_rows;

struct attention_stash {                 /* N rows */
    real *x;                             /* (N, d) the layer's input */
    real *qkv;                           /* (N, (Hq + 2 Hkv) D) before rope */
    real *heads;                         /* (N, Hq D) what attention returned */
    float *lse;                          /* (N, Hq) */
    real *result;                        /* (N, d) of the projection, where a norm follows it */
};

/* Everything but x, which the caller lays out */
void attention_stash_lay_out(struct attention_stash *t, struct layout *memory, const struct widths *w, size_t real_size,
                             size_t rows);
/* The mlp's input = x + result, from this stash's x. copy: also saves what its store keeps; may be NULL */
int attention_forward(struct activations *a, int l, const struct rows *r, const struct stash_rows *copy);
/* The stash from where a forward saved it */
int attention_load(struct activations *a, int l, int N, const struct stash_rows *from);
/* a->dx: gradient of the mlp's input -> of the layer's input; grads += */
int attention_backward(struct activations *a, int l, const struct rows *r, float *grads);

#endif
