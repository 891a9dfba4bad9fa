/* Floor 4: rows of logits on the host, for people who bring their own (grpo.ops). The model's head never keeps them. */
#ifndef GRPO_LOGITS_H
#define GRPO_LOGITS_H

#include <stdint.h>

/* logp (N) = log softmax(z / temperature)[id], entropy (N) of that softmax; z (N, V). -Inf logits have probability 0.
   E_NONFINITE names the row with NaN, +Inf or nothing but -Inf; E_CONFIG an id outside 0..V-1. */
int selective_log_softmax(float *logp, float *entropy, const float *z, const int32_t *ids, double temperature, int N,
                          int V);

#endif
