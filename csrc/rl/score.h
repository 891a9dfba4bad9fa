/* Floor 3: log-probs of given completions, no gradient: reference model, evaluation, off-policy checks. */
#ifndef GRPO_SCORE_H
#define GRPO_SCORE_H

#include "rl/batch.h"

/* logp, entropy (HOST, flat over completion tokens) */
int score(struct model *m, float *logp, float *entropy, const struct groups *g, float temperature, int token_budget);
/* z (n, V) HOST = logits of one sequence */
int score_logits(struct model *m, float *z, const int32_t *ids, int n);
/* scratch of the largest call: rows packed rows, head_rows head rows, `slots` decode rows, positions up to max_position */
int reserve_scratch(struct model *m, int rows, int head_rows, int slots, int segments, int max_position);
int inverse_temperature(float *out, float temperature);

#endif
