/* Floor 3: log-probs of given completions, no gradient: reference model, evaluation, off-policy checks. */
#ifndef GRPO_SCORE_H
#define GRPO_SCORE_H

#include "rl/inference.h"

/* logp, entropy (HOST, flat over completion tokens) */
int score(struct inference *r, float *logp, float *entropy, const struct groups *g, float temperature, int token_budget);
/* z (n, V) HOST = logits of one sequence */
int score_logits(struct inference *r, float *z, const int32_t *ids, int n);
int inverse_temperature(float *out, float temperature);

#endif
