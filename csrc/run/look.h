/* Floor 4: what tokens of a completion look at: weights of attention, no gradient. For people who want to see. */
#ifndef GRPO_LOOK_H
#define GRPO_LOOK_H

#include "run/session.h"

/* weights (HOST, of each layer (n, heads, keys), behind each other): attention of n rows in n_layers layers, both
   ascending. g: one prompt with one completion, whose tokens but the last are rows, and keys. */
int look(struct session *s, float *weights, const struct groups *g, const int32_t *layers, int n_layers,
         const int32_t *rows, int n);
/* Heads of such layers; E_CONFIG where they differ, or a layer is not there */
int heads_of_layers(int *heads, const struct spec *s, const int32_t *layers, int n);

#endif
