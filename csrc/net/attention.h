/* Floor 3: the attention half of a layer: norm, q k v, rope, attention, projection back into the residual stream. */
#ifndef GRPO_ATTENTION_H
#define GRPO_ATTENTION_H

#include "net/rows.h"
#include "net/stash.h"

/* The mlp's input = x + result, from the stash's x. copy: where its stash is saved as well; may be NULL */
int attention_forward(struct activations *a, int l, const struct rows *r, const struct stash_rows *copy);
/* After the forward of a layer, before the next one's: p (R, Hq, N), device memory, = its weights of rows index[0..R)
   of the batch over its first N, of which these see no later ones */
int attention_look(struct activations *a, int l, const struct rows *r, const int32_t *index, int R, int N, float *p);
/* The stash from where a forward saved it */
int attention_load(struct activations *a, int l, int N, const struct stash_rows *from);
/* a->dx: gradient of the mlp's input -> of the layer's input; grads += */
int attention_backward(struct activations *a, int l, const struct rows *r, const struct gradients *grads);

#endif
