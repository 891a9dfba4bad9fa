/* Floor 4: a model whose weights move toward another's a little at a time (a reference that follows the policy).
   What it holds beside the working weights is float32, so that small steps are not lost in rounding. */
#ifndef GRPO_MIXTURE_H
#define GRPO_MIXTURE_H

#include "net/weights.h"

struct mixture {
    struct weights *weights;
    float *values; /* (n_elements) device; NULL: never mixed */
};

/* weights = alpha * other + (1 - alpha) * weights, in float32 from the first call on */
int mixture_move(struct mixture *m, const struct weights *other, float alpha);
/* A tensor in float32 <-> host. set: the working weights are set by the caller. Only once mixture_move() was called. */
int mixture_get(const struct mixture *m, const struct tensor *t, float *host);
int mixture_set(struct mixture *m, const struct tensor *t, const float *host);
void mixture_free(struct mixture *m);

#endif
